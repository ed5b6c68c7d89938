/* Makes the workload's keys, of several kinds, and its values. */
#include "keys.h"

#include "tests/support/colliding_keys.h"
#include "base/assert.h"
#include "base/hash.h"
#include "base/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONG_KEY_SIZE_MAX 300u

/* ---- keys ---- */

static struct slice key_copy(const uint8_t *data, uint32_t size)
{
    uint8_t *copy = malloc(size);
    assert(copy != NULL);
    memcpy(copy, data, size);
    return (struct slice){copy, size};
}

/* Short, and unique by its number. */
static struct slice make_short(uint32_t number)
{
    char text[16];
    int size = snprintf(text, sizeof text, "k%u", number);
    return key_copy((const uint8_t *)text, (uint32_t)size);
}

/* Unique by its first bytes; the rest is arbitrary. */
static struct slice make_long(struct prng *prng, uint32_t number, uint32_t size_max)
{
    uint32_t size = 8 + (uint32_t)prng_below(prng, size_max - 7);
    uint8_t *bytes = malloc(size);
    assert(bytes != NULL);
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)prng_next(prng);
    store_u32(bytes, number);
    store_u32(bytes + 4, 0xFFFFFFFF);
    return (struct slice){bytes, size};
}

/* In the last of the 256 partitions. */
static struct slice make_neighbour(uint32_t number)
{
    for (uint32_t attempt = 0;; attempt++) {
        char text[32];
        int size = snprintf(text, sizeof text, "n%u/%u", number, attempt);
        uint64_t hash = hash_key((const uint8_t *)text, (size_t)size);
        if (hash_partition(hash) == 255)
            return key_copy((const uint8_t *)text, (uint32_t)size);
    }
}

static struct slice make_colliding(uint32_t number)
{
    uint8_t key[COLLIDING_KEY_SIZE];
    colliding_key(number, key);
    return key_copy(key, sizeof key);
}

void keys_create(struct keys *keys, struct prng *prng, uint32_t count)
{
    assert(count <= KEYS_MAX);
    keys->count = count;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t dice = prng_below(prng, 100);
        if (dice < 60)
            keys->list[i] = make_short(i);
        else if (dice < 75)
            keys->list[i] = make_long(prng, i, LONG_KEY_SIZE_MAX);
        else if (dice < 76)
            keys->list[i] = make_long(prng, i, UINT16_MAX);
        else if (dice < 88 && count <= 100)
            keys->list[i] = make_neighbour(i);
        else
            keys->list[i] = make_colliding(i);
    }
}

void keys_free(struct keys *keys)
{
    for (uint32_t i = 0; i < keys->count; i++)
        free((void *)(uintptr_t)keys->list[i].data);
}

/* ---- values: a tag, then a part of one of two fixed blocks ---- */

#define BLOCK_SIZE (VALUE_SIZE_LIMIT + (uint32_t)(64 * KIB))
#define TAG_SIZE 8u

struct blocks {
    uint8_t *noise;
    uint8_t *text; /* compresses well */
};

static struct blocks *blocks_get(void)
{
    static struct blocks blocks;
    return &blocks;
}

void values_init(void)
{
    struct blocks *blocks = blocks_get();
    struct prng prng = {1};
    blocks->noise = malloc(BLOCK_SIZE);
    blocks->text = malloc(BLOCK_SIZE);
    assert(blocks->noise != NULL);
    assert(blocks->text != NULL);
    for (uint32_t i = 0; i < BLOCK_SIZE; i += 8)
        store_u64(blocks->noise + i, prng_next(&prng));
    for (uint32_t i = 0; i < BLOCK_SIZE; i++)
        blocks->text[i] = (uint8_t)('a' + (i / 64 + i % 7) % 26);
}

static const uint8_t *body_of(uint64_t number)
{
    const struct blocks *blocks = blocks_get();
    struct prng prng = {number};
    const uint8_t *block = prng_below(&prng, 2) == 0 ? blocks->noise : blocks->text;
    return block + prng_below(&prng, 64 * KIB);
}

static void tag_of(uint64_t number, uint8_t *ret_tag)
{
    struct prng prng = {~number};
    store_u64(ret_tag, prng_next(&prng));
}

void value_fill(uint64_t number, uint8_t *value, uint32_t size)
{
    uint8_t tag[TAG_SIZE];
    tag_of(number, tag);
    uint32_t tag_size = size < TAG_SIZE ? size : TAG_SIZE;
    memcpy(value, tag, tag_size);
    if (size > TAG_SIZE)
        memcpy(value + TAG_SIZE, body_of(number), size - TAG_SIZE);
}

bool value_matches(uint64_t number, const uint8_t *value, uint32_t size)
{
    uint8_t tag[TAG_SIZE];
    tag_of(number, tag);
    uint32_t tag_size = size < TAG_SIZE ? size : TAG_SIZE;
    if (tag_size > 0 && memcmp(value, tag, tag_size) != 0)
        return false;
    return size <= TAG_SIZE || memcmp(value + TAG_SIZE, body_of(number), size - TAG_SIZE) == 0;
}
