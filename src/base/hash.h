/* The two hashes of a key.
 *
 * hash_key is XXH64 with seed 0: it places a key (partition, slot) and is the same on every node.
 * hash_keyed is XXH3 under a secret of the directory: every in-memory table uses it, so that nobody
 * who chooses keys can choose collisions. Neither is a key's identity: two keys with one hash are
 * two keys. */
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

#endif
