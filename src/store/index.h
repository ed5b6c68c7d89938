/* The index: from a key's keyed hash to where its newest record lies. In memory, one table a
 * partition.
 *
 * A slot has 26 bytes: the version (clock u64, origin u32), the location (48 bits), a size class
 * (the record's size as the number of bytes to read: rounded up, 7 bits), the tombstone bit and 56
 * bits of the hash. The index does not know keys: two keys may share all of these bits, and a key
 * that was overwritten while it was not in memory has two slots until a read has proved that both
 * are the same key. So a look-up yields candidates, newest version first, and whoever asks compares
 * keys. "Exactly this hash" below means these 56 bits, the lower ones.
 *
 * Slots lie in rows of 39, rows in groups of 8 to 15 that are filled evenly (index_table.h). All of
 * it takes at most 32 bytes a key. */
#ifndef MINIVAULT_STORE_INDEX_H
#define MINIVAULT_STORE_INDEX_H

#include "base/version.h"

#include <stdbool.h>
#include <stdint.h>

struct index;

struct index_entry {
    struct version version;
    uint64_t location;  /* 48 bits */
    uint64_t read_size; /* bytes to read so that the whole record is in: a size class, at least the
                           record's size */
    bool tombstone;
};

/* Rounds a record's size up to what its size class will say: at most 1/4 more, at least 64. Sizes
 * are at most 2^37. */
uint64_t index_read_size(uint64_t record_size);

/* `memory_max`: bytes; 0: no limit but the machine's. Errors: -ENOMEM. */
int index_create(uint64_t memory_max, struct index **ret_index);
void index_free(struct index *index);

/* Adds a slot beside whatever is there for this hash. `partition` is hash_partition of the key's
 * XXH64, `hash` is hash_keyed. Never reads keys, never stalls: a table grows by one row at a time.
 * Errors: -ENOMEM (memory_max). */
int index_add(struct index *index, uint32_t partition, uint64_t hash,
              const struct index_entry *entry);

/* Replaces the slot that has exactly this hash and `location` by `entry`. Errors: -ENOENT. */
int index_replace(struct index *index, uint32_t partition, uint64_t hash, uint64_t location,
                  const struct index_entry *entry);

/* Removes the slot that has exactly this hash and `location`. Errors: -ENOENT. */
int index_remove(struct index *index, uint32_t partition, uint64_t hash, uint64_t location);

/* The candidates for this hash, newest version first. Returns how many there are, of which at most
 * `capacity` (the newest) are in `ret_entries`. */
uint32_t index_find(const struct index *index, uint32_t partition, uint64_t hash,
                    struct index_entry *ret_entries, uint32_t capacity);

/* Hints that index_find for this hash comes soon. */
void index_prefetch(const struct index *index, uint32_t partition, uint64_t hash);

uint64_t index_count(const struct index *index); /* slots, tombstones too */
uint64_t index_tombstones(const struct index *index);
uint64_t index_memory(const struct index *index); /* bytes */

#endif
