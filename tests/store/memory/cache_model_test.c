/* The cache against a model: a plain table that never forgets. What the cache finds is what the
 * model says; what it does not find it may have evicted, where evictions are allowed. */
#include "store/memory/cache.h"

#include "base/hash.h"
#include "base/prng.h"
#include "base/units.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define VALUE_SIZE_MAX 3000

static const uint8_t secret[HASH_SECRET_SIZE] = {1, 2, 3, 4, 5};

static struct cache_stats stats_of(const struct cache *cache)
{
    struct cache_stats stats;
    cache_stats(cache, &stats);
    return stats;
}

#define MODEL_KEYS 5000
#define MODEL_PINS 64

struct model_key {
    bool exists;
    bool tombstone;
    bool in_value_file;
    uint32_t value_size;
    uint64_t value_seed;
    uint64_t clock;
};

struct model {
    struct cache *cache;
    struct prng prng;
    uint64_t budget;
    uint64_t hash_mask;
    bool evicts;
    uint32_t key_count;
    struct model_key keys[MODEL_KEYS];
    struct cache_entry *pinned[MODEL_PINS];
    struct model_key pinned_keys[MODEL_PINS];
};

static void fill_value(uint64_t seed, uint8_t *value, uint32_t size)
{
    struct prng prng = {seed};
    for (uint32_t i = 0; i < size; i++)
        value[i] = (uint8_t)prng_next(&prng);
}

/* A key's name has 1 to 70 bytes, and its number in it. */
static struct slice model_name(uint32_t key, uint8_t *name)
{
    memset(name, 'n', 80);
    memcpy(name, &key, 2);
    return (struct slice){name, 2 + key % 70};
}

static uint64_t model_hash(const struct model *model, struct slice name)
{
    return hash_keyed(secret, name.data, name.size) & model->hash_mask;
}

static void expect_entry(const struct cache_entry *entry, const struct model_key *key)
{
    uint8_t value[VALUE_SIZE_MAX];
    fill_value(key->value_seed, value, key->value_size);
    cr_assert_eq(entry->version.clock, key->clock);
    cr_assert_eq(entry->tombstone, key->tombstone);
    cr_assert_eq(entry->in_value_file, key->in_value_file);
    cr_assert(slice_equal(cache_entry_value(entry), (struct slice){value, key->value_size}));
}

static void model_find(struct model *model, uint32_t number)
{
    uint8_t bytes[80];
    struct slice name = model_name(number, bytes);
    struct model_key *key = &model->keys[number];
    struct cache_entry *entry = cache_find(model->cache, model_hash(model, name), name);
    if (entry == NULL) {
        cr_assert(!key->exists || model->evicts);
        key->exists = false;
        return;
    }
    cr_assert(key->exists);
    cr_assert(slice_equal(cache_entry_key(entry), name));
    expect_entry(entry, key);
    uint64_t pin = prng_below(&model->prng, MODEL_PINS);
    if (model->pinned[pin] == NULL && prng_below(&model->prng, 8) == 0) {
        cache_pin(entry);
        model->pinned[pin] = entry;
        model->pinned_keys[pin] = *key;
    }
}

static void model_put(struct model *model, uint32_t number, uint64_t clock)
{
    uint8_t bytes[80];
    uint8_t value[VALUE_SIZE_MAX];
    struct slice name = model_name(number, bytes);
    struct model_key *key = &model->keys[number];
    uint64_t hash = model_hash(model, name);
    key->tombstone = prng_below(&model->prng, 10) == 0;
    key->in_value_file = prng_below(&model->prng, 4) == 0;
    /* Often the same size again. */
    if (prng_below(&model->prng, 2) == 0)
        key->value_size = (uint32_t)prng_below(&model->prng, 1u << prng_below(&model->prng, 12));
    if (key->tombstone)
        key->value_size = 0;
    key->value_seed = clock;
    key->clock = clock;
    fill_value(clock, value, key->value_size);
    struct cache_entry *entry =
        cache_put(model->cache, hash, name, (struct slice){value, key->value_size}, key->tombstone,
                  key->in_value_file, (struct version){clock, 1}, clock);
    key->exists = entry != NULL;
    if (entry == NULL) {
        cr_assert(model->evicts);
        return;
    }
    expect_entry(entry, key);
}

static void model_remove(struct model *model, uint32_t number)
{
    uint8_t bytes[80];
    struct slice name = model_name(number, bytes);
    struct cache_entry *entry = cache_find(model->cache, model_hash(model, name), name);
    cr_assert(entry == NULL || model->keys[number].exists);
    if (entry != NULL)
        cache_remove(model->cache, entry);
    model->keys[number].exists = false;
}

static void model_unpin(struct model *model, uint64_t pin)
{
    if (model->pinned[pin] == NULL)
        return;
    expect_entry(model->pinned[pin], &model->pinned_keys[pin]);
    cache_unpin(model->cache, model->pinned[pin]);
    model->pinned[pin] = NULL;
}

static void model_run(struct model *model, uint64_t steps)
{
    cr_assert_eq(cache_create(model->budget, &model->cache), 0);
    for (uint64_t step = 1; step <= steps; step++) {
        uint32_t number = (uint32_t)prng_below(&model->prng, model->key_count);
        uint64_t choice = prng_below(&model->prng, 100);
        if (choice < 50)
            model_find(model, number);
        else if (choice < 85)
            model_put(model, number, step);
        else if (choice < 93)
            model_remove(model, number);
        else
            model_unpin(model, prng_below(&model->prng, MODEL_PINS));
        if (step % 64 == 0)
            cr_assert_leq(stats_of(model->cache).memory, model->budget);
    }
    uint64_t count = 0;
    for (uint32_t i = 0; i < model->key_count; i++) {
        model_find(model, i);
        count += model->keys[i].exists;
    }
    cr_expect_eq(stats_of(model->cache).entries, count);
    for (uint32_t i = 0; i < MODEL_PINS; i++)
        model_unpin(model, i);
    for (uint32_t i = 0; i < model->key_count; i++)
        model_remove(model, i);
    cr_expect_eq(stats_of(model->cache).entries, 0);
    cr_expect_lt(stats_of(model->cache).memory, model->budget / 16 + 64 * KIB,
                 "only the table is left");
    cache_free(model->cache);
}

static struct model *model_create(uint64_t seed, uint64_t budget, uint64_t hash_mask)
{
    struct model *model = calloc(1, sizeof *model);
    cr_assert_not_null(model);
    model->prng.state = seed;
    model->budget = budget;
    model->hash_mask = hash_mask;
    model->key_count = MODEL_KEYS;
    return model;
}

Test(cache_model, a_million_random_operations_match_a_model)
{
    struct model *model = model_create(1, 64 * MIB, UINT64_MAX);
    model_run(model, 1000000);
    free(model);
}

Test(cache_model, a_million_random_operations_with_evictions_match_a_model)
{
    struct model *model = model_create(2, 512 * KIB, UINT64_MAX);
    model->evicts = true;
    model_run(model, 1000000);
    free(model);
}

Test(cache_model, colliding_hashes_match_a_model)
{
    /* All tags are 0 and 16 hashes stand for 5,000 keys: long chains, told apart by bytes only. */
    struct model *model = model_create(3, 64 * MIB, 15 << 6);
    model_run(model, 200000);
    free(model);
    /* One hash for all, and evictions. */
    model = model_create(4, 300 * KIB, 0);
    model->evicts = true;
    model->key_count = 1000;
    model_run(model, 200000);
    free(model);
}

Test(cache_model, tiny_budgets_match_a_model)
{
    for (uint64_t budget = 2 * KIB; budget <= 128 * KIB; budget *= 2) {
        struct model *model = model_create(budget, budget, UINT64_MAX);
        model->evicts = true;
        model->key_count = 300;
        model_run(model, 30000);
        free(model);
    }
}
