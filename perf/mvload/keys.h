/* Which key comes next, and its text: "key:" and the number, padded with zeroes to the key size.
 *
 * Zipf draws follow Gray et al., "Quickly generating billion-record synthetic databases", 1994 (as
 * YCSB does); ranks are spread over the key space by a multiplication that is a bijection, so that
 * hot keys are no neighbours. */
#ifndef PERF_MVLOAD_KEYS_H
#define PERF_MVLOAD_KEYS_H

#include "base/prng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ZIPF_EXPONENT 0.99

/* The shape of the distribution: shared by all threads, read-only. */
struct key_space {
    uint64_t key_count;
    uint32_t key_size;
    uint32_t digit_count; /* of the greatest number: the digits that change */
    bool is_zipf;
    uint64_t spread; /* coprime to key_count */
    double zipf_zeta;
    double zipf_eta;
    double zipf_second; /* the share of the two hottest keys, times zeta */
};

#define KEY_SIZE_MIN 5u
#define KEY_SIZE_MAX 250u

/* Errors: -ERANGE when the numbers do not fit into the key size. */
int key_space_init(struct key_space *space, uint64_t key_count, uint32_t key_size, bool is_zipf);

/* Writes all digits that a key has room for: for numbers beyond key_count. */
void key_space_widen(struct key_space *space);

/* The number of the next key to use, below key_count. */
uint64_t key_draw(const struct key_space *space, struct prng *prng);

/* Writes the constant part of every key: key_size bytes. */
void key_prepare(const struct key_space *space, uint8_t *key);

/* Which of a node's `shard_count` shards has the key: the top byte of its XXH64 modulo their count.
 */
uint32_t key_shard(const struct key_space *space, const uint8_t *key, uint32_t shard_count);

/* Writes the digits of `number` into a prepared key. */
void key_write(const struct key_space *space, uint8_t *key, uint64_t number);

#endif
