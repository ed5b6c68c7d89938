/* The workload's keys and values. A value is made from its write's number and its size alone, so
 * that nobody needs to keep it, and from 8 bytes on no two writes have the same. */
#ifndef TESTS_SIM_KEYS_H
#define TESTS_SIM_KEYS_H

#include "base/bytes.h"
#include "base/prng.h"

#include <stdbool.h>

#define KEYS_MAX 2000u
#define VALUE_SIZE_LIMIT (8u << 20)

struct keys {
    uint32_t count;
    struct slice list[KEYS_MAX];
};

/* `count` different keys: short and long ones, some of one partition, some with one XXH64. */
void keys_create(struct keys *keys, struct prng *prng, uint32_t count);
void keys_free(struct keys *keys);

/* The value of a write: `size` bytes, up to VALUE_SIZE_LIMIT. */
void value_fill(uint64_t number, uint8_t *value, uint32_t size);
bool value_matches(uint64_t number, const uint8_t *value, uint32_t size);

/* Reads made ready once a process. */
void values_init(void);

#endif
