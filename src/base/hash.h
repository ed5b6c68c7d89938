/* The hashes of a key.
 *
 *   name        is                                                used for
 *   hash_key    XXH64 with seed 0, the same on every node         partition (bits 56 to 63), slot
 *                                                                 (bits 52 to 63), file names
 *   hash_keyed  XXH3-64 under a secret of the directory           tables that have the key, too:
 *                                                                 the cache and its ghosts
 *   hash_index  56 bits: 0 to 51 of hash_keyed, 52 to 55 of       index, Bloom filter, directories
 *               hash_key                                          of chunks, checkpoint
 *
 * The slot is one of 4096, the unit in which keys are placed on nodes. Partition and index hash
 * tell it (hash_slot), so it can be told of a record without reading it.
 *
 * Whoever chooses keys can choose their XXH64, but without the secret nothing of hash_keyed. Of an
 * index hash, the bits that choose group and row (index_table.h) are all keyed, so crafted keys do
 * not make a chain longer. Only the upper half of the 8 bits of the tag is theirs to choose: keys
 * of one slot have 16 different tags instead of 256, so a look-up among them compares at most 16
 * times as many slots as among others.
 *
 * No hash is a key's identity: two keys with one hash are two keys. */
#ifndef MINIVAULT_BASE_HASH_H
#define MINIVAULT_BASE_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdint.h>

/* At least XXH3_SECRET_SIZE_MIN (136) random bytes. */
#define HASH_SECRET_SIZE 192

static inline uint64_t hash_key(const uint8_t *key, size_t size)
{
    return XXH64(key, size, 0);
}

/* `secret` is HASH_SECRET_SIZE random bytes. */
static inline uint64_t hash_keyed(const uint8_t *secret, const uint8_t *key, size_t size)
{
    return XXH3_64bits_withSecret(key, size, secret, HASH_SECRET_SIZE);
}

/* Top 8 bits: one of 256 partitions. */
static inline uint32_t hash_partition(uint64_t key_hash)
{
    return (uint32_t)(key_hash >> 56);
}

#define HASH_INDEX_BITS 56
#define HASH_INDEX_KEYED_BITS 52 /* the lowest of them */
#define HASH_SLOTS 4096u

/* What the index knows of a key, of its two hashes; the bits above HASH_INDEX_BITS are 0. */
static inline uint64_t hash_index(uint64_t keyed, uint64_t key_hash)
{
    const uint64_t keyed_bits = ((uint64_t)1 << HASH_INDEX_KEYED_BITS) - 1;
    const uint64_t index_bits = ((uint64_t)1 << HASH_INDEX_BITS) - 1;
    return (keyed & keyed_bits) | (key_hash & index_bits & ~keyed_bits);
}

/* The top 12 bits of a key's XXH64, from its partition and its index hash. */
static inline uint32_t hash_slot(uint32_t partition, uint64_t index_hash)
{
    return partition << 4 | (uint32_t)(index_hash >> HASH_INDEX_KEYED_BITS & 15);
}

/* Where a key belongs in tables that do not have the key. */
struct hash_place {
    uint32_t partition;
    uint64_t hash; /* hash_index */
};

static inline struct hash_place hash_place(const uint8_t *secret, const uint8_t *key, size_t size)
{
    uint64_t key_hash = hash_key(key, size);
    return (struct hash_place){hash_partition(key_hash),
                               hash_index(hash_keyed(secret, key, size), key_hash)};
}

#endif
