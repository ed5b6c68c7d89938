/* The cache's hash table: buckets of one cache line, grown one bucket at a time.
 *
 * Linear hashing (Litwin, VLDB 1980): with `count` buckets, half <= count < 2 * half, a hash falls
 * into the bucket of its bits from 6 on modulo 2 * half, or modulo half where that bucket does not
 * exist yet. Growing adds bucket `count` and splits bucket `count - half`. A bucket that is full
 * goes on in overflow buckets. A chain is dense: every bucket but its last is full, slots are used
 * from 0.
 *
 * Buckets grow from the front of one mapping, overflow buckets from its end. */
#ifndef MINIVAULT_STORE_CACHE_TABLE_H
#define MINIVAULT_STORE_CACHE_TABLE_H

#include "base/assert.h"
#include "store/memory/cache_arena.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define CACHE_BUCKET_SLOTS 10
/* Entries a bucket at which the table grows. Half way to twice as many buckets those not yet split
 * hold 6 on average, and 1 % of the entries lie in an overflow bucket. With 5 a bucket it were 4 %,
 * and a hit took half as long again: a chain that goes on is a branch that nothing predicts. */
#define CACHE_BUCKET_LOAD 4

struct cache_bucket {
    uint16_t tags[CACHE_BUCKET_SLOTS];    /* the hash's top 16 bits */
    uint32_t entries[CACHE_BUCKET_SLOTS]; /* offsets in the arena; 0: the slot is free */
    uint32_t next;                        /* overflow bucket, from 1; 0: none */
};
static_assert(sizeof(struct cache_bucket) == 64, "a bucket is a cache line");

struct cache_table {
    struct cache_bucket *buckets;
    uint64_t count;
    uint64_t half;
    /* the same as bytes of buckets, as a look-up wants them */
    uint64_t count_bytes;
    uint64_t half_bytes;
    uint64_t mask;     /* of a hash: 2 * half - 1 buckets */
    uint32_t capacity; /* buckets in the mapping, overflow buckets too */
    uint32_t overflow_touched;
    uint32_t overflow_free;
};

/* Errors: -ENOMEM. */
int cache_table_init(struct cache_table *table, uint64_t size_reserved);
void cache_table_deinit(struct cache_table *table);

/* Bytes that the buckets take. */
uint64_t cache_table_size(const struct cache_table *table);

/* There must be room for one bucket: cache_table_has_room. */
void cache_table_insert(struct cache_table *table, uint64_t hash, uint32_t entry);
void cache_table_remove(struct cache_table *table, uint64_t hash, uint32_t entry);

/* Whether this many more buckets have room within `size` bytes of buckets. An insert takes at most
 * one, a split two. */
bool cache_table_has_room(const struct cache_table *table, uint64_t size, uint32_t buckets);

/* Adds one bucket. There must be room for two. */
void cache_table_split(struct cache_table *table, const struct cache_arena *arena);

static inline uint16_t cache_table_tag(uint64_t hash)
{
    return (uint16_t)(hash >> 48);
}

static inline struct cache_bucket *cache_table_bucket(const struct cache_table *table,
                                                      uint64_t hash)
{
    /* Arithmetic, since a branch here is one that nothing predicts: all ones when the bucket at
     * `place` does not exist yet. */
    uint64_t place = hash & table->mask;
    uint64_t is_beyond = 0 - ((table->count_bytes - 1 - place) >> 63);
    return (struct cache_bucket *)((uint8_t *)table->buckets + place -
                                   (table->half_bytes & is_beyond));
}

/* The next bucket of the chain, or NULL. */
static inline struct cache_bucket *cache_table_next(const struct cache_table *table,
                                                    const struct cache_bucket *bucket)
{
    return bucket->next == 0 ? NULL : &table->buckets[table->capacity - bucket->next];
}

/* The slots with this tag, a bit each; a free one may be among them. The comparison looks past the
 * tags and forgets the rest. */
#ifdef __SSE2__
static inline uint32_t cache_bucket_match(const struct cache_bucket *bucket, uint16_t tag)
{
    const uint8_t *tags = (const uint8_t *)bucket;
    __m128i pattern = _mm_set1_epi16((int16_t)tag);
    __m128i low = _mm_cmpeq_epi16(_mm_load_si128((const __m128i *)tags), pattern);
    __m128i high = _mm_cmpeq_epi16(_mm_load_si128((const __m128i *)(tags + 16)), pattern);
    uint32_t slots = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high));
    return slots & ((1u << CACHE_BUCKET_SLOTS) - 1);
}
#else
static inline uint32_t cache_bucket_match(const struct cache_bucket *bucket, uint16_t tag)
{
    uint32_t slots = 0;
    for (uint32_t slot = 0; slot < CACHE_BUCKET_SLOTS; slot++)
        slots |= (uint32_t)(bucket->tags[slot] == tag) << slot;
    return slots;
}
#endif

#endif
