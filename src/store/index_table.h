/* One partition's table of the index: linear hashing over buckets of half a KiB.
 *
 * Linear hashing (Litwin, VLDB 1980): with `count` buckets, half <= count <= 2 × half, a hash falls into the bucket of its
 * low bits modulo 2 × half, or modulo half where that one does not exist yet. Growing adds one bucket and splits one. The
 * table grows as long as that keeps it within INDEX_BYTES_PER_SLOT for each slot, so memory a key is bounded by
 * construction and chains stay short on average.
 *
 * A slot, 24 bytes: clock u64 · origin u32 · 96 bits: 48 of location, 6 of size class, 1 tombstone, 41 low bits of the
 * hash. The hash's top 8 bits are the tag, kept apart so that a look-up reads 20 bytes before it reads a slot. */
#ifndef MINIVAULT_STORE_INDEX_TABLE_H
#define MINIVAULT_STORE_INDEX_TABLE_H

#include "store/index.h"

#include <stdbool.h>
#include <stdint.h>

#define INDEX_BUCKET_SLOTS 20u
#define INDEX_BUCKET_SIZE 512u
#define INDEX_BYTES_PER_SLOT 31u

#define INDEX_HASH_BITS 41
#define INDEX_HASH_MASK (((uint64_t)1 << INDEX_HASH_BITS) - 1)

struct index_slot {
    uint64_t clock;
    uint32_t origin;
    uint32_t words[3]; /* location, size class, tombstone, hash: see index_table.c */
};

struct index_bucket {
    struct index_slot slots[INDEX_BUCKET_SLOTS];
    uint8_t tags[INDEX_BUCKET_SLOTS];
    uint32_t next; /* overflow bucket of the chain, 0: none */
    uint32_t count;
    uint32_t spare;
};

/* Overflow buckets of all partitions: reserved address space, touched as it is used. */
struct index_overflow {
    struct index_bucket *buckets; /* [0] is never used */
    uint32_t count;               /* touched */
    uint32_t free_first;
    uint32_t used;
};

struct index_table {
    struct index_bucket *buckets; /* reserved address space */
    uint32_t count;
    uint32_t half;
    uint64_t slots;
    uint32_t overflow_used;
};

/* Where a slot is. */
struct index_place {
    struct index_bucket *bucket;
    uint32_t slot;
};

/* Errors: -ENOMEM. */
int index_overflow_init(struct index_overflow *overflow);
void index_overflow_deinit(struct index_overflow *overflow);
int index_table_init(struct index_table *table);
void index_table_deinit(struct index_table *table);

/* Errors: -ENOMEM. */
int index_table_add(struct index_table *table, struct index_overflow *overflow, uint64_t hash,
                    const struct index_entry *entry);

/* Whether a slot with this hash and location is there, and where. */
bool index_table_locate(const struct index_table *table, const struct index_overflow *overflow, uint64_t hash,
                        uint64_t location, struct index_place *ret_place);

void index_table_set(struct index_place place, uint64_t hash, const struct index_entry *entry);
void index_table_get(struct index_place place, struct index_entry *ret_entry);

/* Takes a located slot out. */
void index_table_remove(struct index_table *table, struct index_overflow *overflow, uint64_t hash,
                        struct index_place place);

/* All slots of this hash, newest first: see index_find. */
uint32_t index_table_find(const struct index_table *table, const struct index_overflow *overflow, uint64_t hash,
                          struct index_entry *ret_entries, uint32_t capacity);

const struct index_bucket *index_table_bucket(const struct index_table *table, uint64_t hash);

static inline uint64_t index_table_memory(const struct index_table *table)
{
    return ((uint64_t)table->count + table->overflow_used) * INDEX_BUCKET_SIZE;
}

#endif
