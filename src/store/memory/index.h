/* The index: from a key's keyed hash to where its newest record lies. In memory, one table a
 * partition.
 *
 * A slot has 26 bytes: the version (clock u64, origin u32), the location (48 bits), a size class
 * (the record's size as the number of bytes to read: rounded up, 6 bits), the tombstone bit, a bit
 * that says that the value lies in a value file, and 56 bits of the hash. The index does not know
 * keys: two keys may share all of these bits, and a key that was overwritten while it was not in
 * memory has two slots until a read has proved that both are the same key. So a look-up yields
 * candidates, newest version first, and whoever asks compares keys. "Exactly this hash" below means
 * these 56 bits, the lower ones. A version belongs to one write alone: hash and version name a
 * slot, wherever its record moves.
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
    bool in_value_file;
};

/* The largest record that there is a slot for: larger values lie in value files. */
#define INDEX_RECORD_SIZE_MAX (1ull << 21)

/* Rounds a record's size, at most INDEX_RECORD_SIZE_MAX, up to what its size class will say: at
 * most 1/4 more, at least 64. */
uint64_t index_read_size(uint64_t record_size);

/* `memory_max`: bytes; 0: no limit but the machine's. Errors: -ENOMEM. */
int index_create(uint64_t memory_max, struct index **ret_index);
void index_free(struct index *index);

/* While many slots are added and nobody waits for a single one, as at a start: adding and finding
 * them is faster. Off at first; to be turned off again before somebody waits. */
void index_set_bulk(struct index *index, bool is_bulk);

/* Adds a slot beside whatever is there for this hash. `partition` is hash_partition of the key's
 * XXH64, `hash` is hash_index: bits above its 56 do not count, here and below. Never reads keys,
 * never stalls: a table grows by one row at a time. Errors: -ENOMEM (memory_max). */
int index_add(struct index *index, uint32_t partition, uint64_t hash,
              const struct index_entry *entry);

/* Replaces the slot that has exactly this hash and the entry's version, and returns 0; or adds one,
 * and returns how many others the hash has. Errors: as above. */
int index_put(struct index *index, uint32_t partition, uint64_t hash,
              const struct index_entry *entry);

/* The slot that has exactly this hash and version. Errors: -ENOENT. */
int index_get(const struct index *index, uint32_t partition, uint64_t hash, struct version version,
              struct index_entry *ret_entry);

/* Replaces the slot that has exactly this hash and `version` by `entry`; *ret_old (may be NULL) is
 * what was there. Errors: -ENOENT. */
int index_replace(struct index *index, uint32_t partition, uint64_t hash, struct version version,
                  const struct index_entry *entry, struct index_entry *ret_old);

/* Removes the slot that has exactly this hash and `version`; *ret_old (may be NULL) is what was
 * there. Errors: -ENOENT. */
int index_remove(struct index *index, uint32_t partition, uint64_t hash, struct version version,
                 struct index_entry *ret_old);

/* The record of this write lies at `location` now, if its slot still says `old_location`. Returns
 * 0; -ENOENT: there is no such slot (any more). */
int index_move(struct index *index, uint32_t partition, uint64_t hash, struct version version,
               uint64_t old_location, uint64_t location);

/* The candidates for this hash, newest version first. Returns how many there are, of which at most
 * `capacity` (the newest) are in `ret_entries`. */
uint32_t index_find(const struct index *index, uint32_t partition, uint64_t hash,
                    struct index_entry *ret_entries, uint32_t capacity);

/* Whether no slot of the hash is newer than this version, which has one. A slot beside a newer one is
 * probably an older write of the same key. */
static inline bool index_is_newest(const struct index *index, uint32_t partition, uint64_t hash,
                                   struct version version)
{
    struct index_entry newest;
    return index_find(index, partition, hash, &newest, 1) > 0 &&
           version_compare(newest.version, version) == 0;
}

/* Hints that index_find or index_add for this hash comes soon: the first loads the row's tags, the
 * second, some hundred nanoseconds later, the slots that they lead to. */
void index_prefetch(const struct index *index, uint32_t partition, uint64_t hash);
void index_prefetch_slots(const struct index *index, uint32_t partition, uint64_t hash);

/* All slots of a partition, group by group. `cursor` is 0 at first and what the last call returned
 * then; 0 is returned at the end. Each call shows the slots of one group, 8 to 15 rows and what
 * overflowed them, in no order, through `each` (not NULL), with the hash: its 56
 * bits, which with the partition tell the slot of 4096 (hash_slot). Slots may be added, moved to
 * other locations, replaced and removed between two calls: a slot that is there from the first call
 * to the last is shown at least once, and once more for each time that the table doubles meanwhile
 * at most. Within `each` nothing may change.
 *
 * A group that has grown enough is divided into itself and a new one behind all others, so what
 * the cursor has not reached stays ahead of it. The walk ends as long as fewer slots are added from
 * call to call than a group holds. */
typedef void index_each(void *context, uint64_t hash, const struct index_entry *entry);
uint64_t index_walk(const struct index *index, uint32_t partition, uint64_t cursor,
                    index_each *each, void *context);

/* Makes room for `count` slots in a partition's empty table, so that adding them does not grow it
 * step by step. Errors: -ENOMEM (memory_max, or the machine's): it grows as ever. */
int index_reserve(struct index *index, uint32_t partition, uint64_t count);

/* A slot as the checkpoint has it: hash 7 bytes, clock 8, origin 4, location 6, then size class (6
 * bits), tombstone (bit 6), in value file (bit 7); little-endian. */
#define INDEX_PACKED_SIZE 26u
void index_pack(uint64_t hash, const struct index_entry *entry, uint8_t *target);
void index_unpack(const uint8_t *data, uint64_t *ret_hash, struct index_entry *ret_entry);

/* From how many slots on it counts as full; at first none are too many. Slots are added all the same:
 * whoever has a choice asks before. */
void index_set_limit(struct index *index, uint64_t slots);
bool index_is_full(const struct index *index);

uint64_t index_count(const struct index *index); /* slots, tombstones too */
uint64_t index_partition_count(const struct index *index, uint32_t partition);
uint64_t index_tombstones(const struct index *index);
/* Of a partition: those whose records lie in partition segments. */
uint64_t index_settled_tombstones(const struct index *index, uint32_t partition);
uint64_t index_memory(const struct index *index); /* bytes */

#endif
