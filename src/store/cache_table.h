/* The cache's hash table: buckets of one cache line, grown one bucket at a time.
 *
 * Linear hashing (Litwin, VLDB 1980): with `count` buckets, half <= count < 2 * half, a hash falls
 * into the bucket of its low bits modulo 2 * half, or modulo half where that bucket does not exist
 * yet. Growing adds bucket `count` and splits bucket `count - half`. A bucket that is full goes on
 * in overflow buckets. A chain is dense: every bucket but its last is full, slots are used from 0.
 *
 * Buckets grow from the front of one mapping, overflow buckets from its end. */
#ifndef MINIVAULT_STORE_CACHE_TABLE_H
#define MINIVAULT_STORE_CACHE_TABLE_H

#include "base/assert.h"
#include "store/cache_arena.h"

#define CACHE_BUCKET_SLOTS 10
/* Entries a bucket at which the table grows: then about 3 % of the entries lie in an overflow
 * bucket. */
#define CACHE_BUCKET_LOAD 5

struct cache_bucket {
    uint16_t tags[CACHE_BUCKET_SLOTS];    /* the hash's top 16 bits; 0: the slot is free */
    uint32_t entries[CACHE_BUCKET_SLOTS]; /* offsets in the arena */
    uint32_t next;                        /* overflow bucket, from 1; 0: none */
};
static_assert(sizeof(struct cache_bucket) == 64, "a bucket is a cache line");

struct cache_table {
    struct cache_bucket *buckets;
    uint64_t mask; /* 2 * half - 1 */
    uint32_t count;
    uint32_t half;
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
    uint16_t tag = (uint16_t)(hash >> 48);
    return tag == 0 ? 1 : tag;
}

static inline struct cache_bucket *cache_table_bucket(const struct cache_table *table,
                                                      uint64_t hash)
{
    uint64_t place = hash & table->mask;
    uint64_t back = place >= table->count ? table->half : 0;
    return &table->buckets[place - back];
}

/* The next bucket of the chain, or NULL. */
static inline struct cache_bucket *cache_table_next(const struct cache_table *table,
                                                    const struct cache_bucket *bucket)
{
    return bucket->next == 0 ? NULL : &table->buckets[table->capacity - bucket->next];
}

/* The 16-bit lanes of `lanes` that are equal to those of `pattern`: bit 16 * lane of each. Exact,
 * since no carry leaves a lane. */
static inline uint64_t cache_lanes_equal(uint64_t lanes, uint64_t pattern)
{
    uint64_t difference = lanes ^ pattern;
    uint64_t low = 0x7FFF7FFF7FFF7FFF;
    return ~((((difference & low) + low) | difference) | low) >> 15;
}

/* The slots with this tag: a set of bits for cache_bucket_slot. */
static inline uint64_t cache_bucket_match(const struct cache_bucket *bucket, uint16_t tag)
{
    uint64_t words[3]; /* ten tags; the last two lanes are not tags */
    memcpy(words, (const void *)bucket, sizeof words);
    uint64_t pattern = tag * 0x0001000100010001u;
    return cache_lanes_equal(words[0], pattern) | cache_lanes_equal(words[1], pattern) << 1 |
           (cache_lanes_equal(words[2], pattern) & 0x00010001) << 2;
}

/* The slot of the lowest bit: lane * 16 + word. */
static inline uint32_t cache_bucket_slot(uint64_t matches)
{
    uint32_t bit = (uint32_t)__builtin_ctzll(matches);
    return (bit & 3) * 4 + (bit >> 4);
}

#endif
