/* The cache: newest values in memory, under a byte budget.
 *
 * A hash table under the whole keyed hash, 64 bits of which nobody can choose one: a bucket is one
 * cache line of tagged offsets, so that a hit costs two dependent cache misses: the bucket and the
 * entry. An entry is one allocation: header, key, value, so that key compare and value are in the
 * lines that follow. Either the newest version of a key is here or nothing of it. Eviction is
 * S3-FIFO (Yang et al., SOSP 2023): two queues and hit counters that age, no list moves on a hit.
 *
 * A pinned entry stays valid, and its memory counts, until it is unpinned, even when it was
 * replaced or removed meanwhile.
 *
 * Table and entries (cache_table.h, cache_arena.h) share one budget, of which 1/256 is for the
 * hashes of what was evicted: what the table takes as it grows, the arena of the entries gives up
 * at its end. */
#ifndef MINIVAULT_STORE_CACHE_H
#define MINIVAULT_STORE_CACHE_H

#include "base/bytes.h"
#include "base/version.h"

#include <stdbool.h>
#include <stdint.h>

struct cache;

/* What a hit reads stands last, beside the key: a hit touches one line less. */
struct cache_entry {
    /* the cache's own, in units of cache_arena.h */
    uint32_t block_units;  /* this block's size */
    uint32_t before_units; /* and that of the block before it in memory */
    uint32_t newer;        /* links of a queue's ring, or of a free list (0: none) */
    uint32_t older;

    uint64_t hash; /* hash_keyed */
    struct version version;
    uint64_t position;   /* of the record in the log */
    uint32_t value_size; /* decoded; of a descriptor: its own */
    uint32_t pins;
    uint16_t key_size;
    bool tombstone;     /* the key is known to be deleted */
    bool in_value_file; /* the value here is the descriptor of a value file */
    uint8_t hits;       /* the cache's own: 0 to 3 */
    bool in_main;       /* the cache's own: the queue */
    bool linked;        /* still in the table: false once replaced or removed while pinned */
    bool is_free;       /* the cache's own */
    uint8_t bytes[];    /* key, value */
};

static inline struct slice cache_entry_key(const struct cache_entry *entry)
{
    return (struct slice){entry->bytes, entry->key_size};
}
static inline struct slice cache_entry_value(const struct cache_entry *entry)
{
    return (struct slice){entry->bytes + entry->key_size, entry->value_size};
}

/* `budget`: bytes of all that together; memory is touched only as it is used. More than
 * 64 GiB of entries are not used. Errors: -ENOMEM. */
int cache_create(uint64_t budget, struct cache **ret_cache);
void cache_free(struct cache *cache);

/* The entry of this key, or NULL. To be found is a use: it stays longer. Valid until the next
 * cache_put or cache_remove, longer when pinned. */
struct cache_entry *cache_find(struct cache *cache, uint64_t hash, struct slice key);

/* Hints that cache_find for this hash comes soon. */
void cache_prefetch(const struct cache *cache, uint64_t hash);

/* The second half of the hint, for batches: once the bucket has come, fetches the entry. Returns
 * false when the bucket has nothing like it: then it is cached rarely, in another bucket. */
bool cache_prefetch_entry(const struct cache *cache, uint64_t hash);

/* Puts a key's newest state, replacing what is there: key and value are copied and must not lie in
 * the cache. Returns the entry, or NULL when it does not fit (larger than an eighth of the budget,
 * or too much else is pinned): then the key is not in the cache, neither old nor new.
 *
 * An unpinned entry that has the room is overwritten in place: its bytes change under whoever kept
 * a pointer without a pin. */
struct cache_entry *cache_put(struct cache *cache, uint64_t hash, struct slice key,
                              struct slice value, bool tombstone, bool in_value_file,
                              struct version version, uint64_t position);

/* Takes a linked entry out of the table. Its memory is free now, or once it is unpinned. */
void cache_remove(struct cache *cache, struct cache_entry *entry);

void cache_pin(struct cache_entry *entry);
void cache_unpin(struct cache *cache, struct cache_entry *entry);

struct cache_stats {
    uint64_t entries; /* in the table, tombstones too */
    uint64_t memory;  /* bytes counted against the budget, pinned leftovers too */
    uint64_t evictions;
};
void cache_stats(const struct cache *cache, struct cache_stats *ret_stats);

#endif
