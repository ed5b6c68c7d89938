#include "store/cache.h"

#include "base/hash.h"
#include "base/prng.h"
#include "base/units.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define UNDER_ASAN 1
#endif

#define VALUE_SIZE_MAX 3000

static const uint8_t secret[HASH_SECRET_SIZE] = {1, 2, 3, 4, 5};

static struct slice slice_of(const char *text)
{
    return (struct slice){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static uint64_t hash_of(struct slice key)
{
    return hash_keyed(secret, key.data, key.size);
}

static struct cache_entry *put(struct cache *cache, const char *key, const char *value)
{
    struct slice name = slice_of(key);
    return cache_put(cache, hash_of(name), name, slice_of(value), false, (struct version){1, 1}, 1,
                     1);
}

static struct cache_entry *find(struct cache *cache, const char *key)
{
    struct slice name = slice_of(key);
    return cache_find(cache, hash_of(name), name);
}

static bool has_value(const struct cache_entry *entry, const char *value)
{
    return entry != NULL && slice_equal(cache_entry_value(entry), slice_of(value));
}

static uint64_t memory_of(const struct cache *cache)
{
    struct cache_stats stats;
    cache_stats(cache, &stats);
    return stats.memory;
}

static uint64_t entries_of(const struct cache *cache)
{
    struct cache_stats stats;
    cache_stats(cache, &stats);
    return stats.entries;
}

Test(cache, finds_what_was_put)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    cr_expect_null(find(cache, "a"));
    struct slice key = slice_of("a");
    struct cache_entry *entry =
        cache_put(cache, hash_of(key), key, slice_of("one"), false, (struct version){7, 8}, 9, 10);
    cr_assert_not_null(entry);
    cr_assert_eq(find(cache, "a"), entry);
    cr_expect(has_value(entry, "one"));
    cr_expect(slice_equal(cache_entry_key(entry), key));
    cr_expect_eq(entry->hash, hash_of(key));
    cr_expect_eq(entry->version.clock, 7);
    cr_expect_eq(entry->version.origin, 8);
    cr_expect_eq(entry->position, 9);
    cr_expect_eq(entry->location, 10);
    cr_expect(entry->linked && !entry->tombstone && !entry->unproved);
    cr_expect_null(find(cache, "b"));
    struct cache_stats stats;
    cache_stats(cache, &stats);
    cr_expect_eq(stats.entries, 1);
    cr_expect_eq(stats.hits, 1);
    cr_expect_eq(stats.misses, 2);
    cache_free(cache);
}

Test(cache, an_empty_value_and_a_tombstone_are_entries)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    struct slice key = slice_of("gone");
    cr_assert_not_null(put(cache, "empty", ""));
    cr_assert_not_null(cache_put(cache, hash_of(key), key, (struct slice){NULL, 0}, true,
                                 (struct version){1, 1}, 1, 1));
    cr_expect_eq(find(cache, "empty")->value_size, 0);
    cr_expect(!find(cache, "empty")->tombstone);
    cr_expect(find(cache, "gone")->tombstone);
    cr_assert_not_null(put(cache, "gone", "back"));
    cr_expect(!find(cache, "gone")->tombstone);
    cache_free(cache);
}

Test(cache, keys_of_every_size_are_told_apart)
{
    struct cache *cache;
    cr_assert_eq(cache_create(64 * MIB, &cache), 0);
    uint8_t *key = malloc(UINT16_MAX);
    memset(key, 'k', UINT16_MAX);
    /* Under one hash, so that only the bytes tell: keys that differ in length, or in one byte. */
    uint32_t sizes[] = {1, 2, 7, 8, 9, 15, 16, 17, 24, 63, 64, 65, 72, 300, 4096, UINT16_MAX};
    size_t count = sizeof sizes / sizeof sizes[0];
    for (size_t i = 0; i < count; i++) {
        struct slice name = {key, sizes[i]};
        uint8_t value = (uint8_t)i;
        cr_assert_not_null(cache_put(cache, 42, name, (struct slice){&value, 1}, false,
                                     (struct version){1, 1}, 1, 1));
    }
    for (size_t i = 0; i < count; i++) {
        struct slice name = {key, sizes[i]};
        struct cache_entry *entry = cache_find(cache, 42, name);
        cr_assert_not_null(entry, "size %u", sizes[i]);
        cr_assert_eq(*cache_entry_value(entry).data, i);
        for (uint32_t at = 0; at < sizes[i]; at += 1 + sizes[i] / 100) {
            key[at] = 'x';
            cr_assert_null(cache_find(cache, 42, name), "size %u, byte %u", sizes[i], at);
            key[at] = 'k';
        }
        key[sizes[i] - 1] = 'x';
        cr_assert_null(cache_find(cache, 42, name));
        key[sizes[i] - 1] = 'k';
    }
    free(key);
    cache_free(cache);
}

Test(cache, an_overwrite_of_the_same_size_stays_in_place)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    struct cache_entry *first = put(cache, "key", "one");
    uint64_t memory = memory_of(cache);
    cr_expect_eq(put(cache, "key", "two"), first);
    cr_expect_eq(memory_of(cache), memory);
    cr_expect(has_value(find(cache, "key"), "two"));
    cr_expect_eq(entries_of(cache), 1);
    cache_free(cache);
}

Test(cache, a_pinned_entry_outlives_its_replacement)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    struct cache_entry *old = put(cache, "key", "one");
    uint64_t memory = memory_of(cache);
    cache_pin(old);
    cache_pin(old);
    struct cache_entry *fresh = put(cache, "key", "two");
    cr_assert_neq(fresh, old);
    cr_expect(!old->linked);
    cr_expect(has_value(old, "one"));
    cr_expect(has_value(find(cache, "key"), "two"));
    cr_expect_gt(memory_of(cache), memory, "the pinned one still counts");
    cr_expect_eq(entries_of(cache), 1);
    cache_unpin(cache, old);
    cr_expect(has_value(old, "one"));
    cr_expect_gt(memory_of(cache), memory);
    cache_unpin(cache, old);
    cr_expect_eq(memory_of(cache), memory);
    cache_free(cache);
}

Test(cache, a_pinned_entry_outlives_its_removal)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    uint64_t memory = memory_of(cache);
    struct cache_entry *entry = put(cache, "key", "one");
    cache_pin(entry);
    cache_remove(cache, entry);
    cr_expect(!entry->linked);
    cr_expect_null(find(cache, "key"));
    cr_expect(has_value(entry, "one"));
    cr_expect_gt(memory_of(cache), memory);
    cache_unpin(cache, entry);
    cr_expect_eq(memory_of(cache), memory);
    cache_free(cache);
}

Test(cache, unproved_is_carried_over)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    struct cache_entry *entry = put(cache, "key", "one");
    cr_expect(!entry->unproved);
    entry->unproved = true;
    cr_expect(put(cache, "key", "two")->unproved, "in place");
    entry = put(cache, "key", "a value that wants another block, of another size altogether");
    cr_expect(entry->unproved, "in another block");
    cache_pin(entry);
    struct cache_entry *fresh = put(cache, "key", "three");
    cr_expect(fresh->unproved, "beside a pinned one");
    cache_unpin(cache, entry);
    fresh->unproved = false;
    cr_expect(!put(cache, "key", "four")->unproved);
    cr_expect(!put(cache, "other", "one")->unproved);
    cache_remove(cache, find(cache, "other"));
    cr_expect(!put(cache, "other", "one")->unproved, "a key that was away begins anew");
    cache_free(cache);
}

Test(cache, what_is_too_large_is_in_it_neither_old_nor_new)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    uint8_t *value = calloc(1, 128 * KIB);
    struct slice key = slice_of("key");
    cr_assert_not_null(put(cache, "key", "small"));
    cr_expect_null(cache_put(cache, hash_of(key), key, (struct slice){value, 128 * KIB}, false,
                             (struct version){2, 1}, 2, 2));
    cr_expect_null(find(cache, "key"));
    cr_expect_eq(entries_of(cache), 0);
    cr_expect_not_null(cache_put(cache, hash_of(key), key, (struct slice){value, 100 * KIB}, false,
                                 (struct version){2, 1}, 2, 2));
    free(value);
    cache_free(cache);
}

Test(cache, without_a_budget_it_takes_nothing)
{
    struct cache *cache;
    cr_assert_eq(cache_create(0, &cache), 0);
    cr_expect_null(put(cache, "key", "one"));
    cr_expect_null(find(cache, "key"));
    /* Also for a hash whose tag is 0, as that of a free slot. */
    cr_expect_null(cache_find(cache, 0, slice_of("key")));
    cache_prefetch(cache, 0);
    cache_prefetch_entry(cache, 0);
    cache_free(cache);
}

/* Puts key number `number`, a value of `size` bytes. */
static struct cache_entry *put_number(struct cache *cache, uint64_t number, uint32_t size)
{
    static const uint8_t zeros[64 * 1024];
    struct slice key = {(const uint8_t *)&number, sizeof number};
    return cache_put(cache, hash_of(key), key, (struct slice){zeros, size}, false,
                     (struct version){1, 1}, 1, 1);
}

static struct cache_entry *find_number(struct cache *cache, uint64_t number)
{
    struct slice key = {(const uint8_t *)&number, sizeof number};
    return cache_find(cache, hash_of(key), key);
}

Test(cache, pinned_entries_are_never_evicted)
{
    struct cache *cache;
    cr_assert_eq(cache_create(64 * KIB, &cache), 0);
    uint64_t count = 0;
    struct cache_entry *entry;
    while ((entry = put_number(cache, count, 1000)) != NULL) {
        cache_pin(entry);
        count++;
        cr_assert_lt(count, 64, "over budget");
    }
    cr_expect_gt(count, 40);
    for (uint64_t i = 0; i < count; i++)
        cr_expect_not_null(find_number(cache, i));
    cr_expect_null(find_number(cache, count));
    cache_unpin(cache, find_number(cache, count / 2));
    cr_expect_not_null(put_number(cache, 1000, 1000), "there is one to evict");
    cr_expect_null(find_number(cache, count / 2));
    cr_expect_null(put_number(cache, 1001, 2000), "and its place is taken");
    cache_free(cache);
}

Test(cache, what_is_used_stays_when_cold_keys_pass_by)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    for (uint64_t i = 0; i < 100; i++)
        cr_assert_not_null(put_number(cache, i, 1000));
    for (uint64_t i = 1000; i < 20000; i++) {
        cr_assert_not_null(put_number(cache, i, 1000));
        cr_assert_not_null(find_number(cache, i % 100), "round %lu", i);
    }
    struct cache_stats stats;
    cache_stats(cache, &stats);
    cr_expect_gt(stats.evictions, 18000);
    cache_free(cache);
}

Test(cache, a_large_value_finds_a_place_among_small_ones)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    for (uint64_t i = 0; i < 20000; i++)
        cr_assert_not_null(put_number(cache, i, (uint32_t)(i % 200)));
    struct cache_stats before;
    cache_stats(cache, &before);
    cr_assert_not_null(put_number(cache, 1000000, 64 * KIB));
    struct cache_stats after;
    cache_stats(cache, &after);
    cr_expect_leq(after.memory, 1 * MIB);
    /* It costs no more than three times its size in others. */
    cr_expect_lt(before.memory - after.memory, 128 * KIB);
    cache_free(cache);
}

Test(cache, the_table_grows_at_the_cost_of_the_entries)
{
    struct cache *cache;
    uint64_t budget = 8 * MIB;
    cr_assert_eq(cache_create(budget, &cache), 0);
    for (uint64_t i = 0; i < 1000; i++) /* full of large ones: a table of next to nothing */
        cr_assert_not_null(put_number(cache, i, 20000));
    for (uint64_t i = 10000; i < 210000; i++) {
        cr_assert_not_null(put_number(cache, i, 8));
        cr_assert_leq(memory_of(cache), budget);
    }
    /* 96 bytes an entry and 16 to 20 of the table. */
    cr_expect_gt(entries_of(cache), budget / 125);
    cache_free(cache);
}

Test(cache, the_table_waits_for_pinned_entries_at_the_end)
{
    struct cache *cache;
    uint64_t budget = 1 * MIB;
    cr_assert_eq(cache_create(budget, &cache), 0);
    uint64_t count = 0;
    struct cache_entry *pinned[1024];
    for (; count < 1024 && (pinned[count] = put_number(cache, count, 1000)) != NULL; count++)
        cache_pin(pinned[count]);
    cr_assert_lt(count, 1024);
    for (uint64_t i = 0; i < count / 2; i++) /* the first half of memory is free, the end is not */
        cache_unpin(cache, pinned[i]);
    for (uint64_t i = 10000; i < 30000; i++) {
        (void)put_number(cache, i, 8);
        cr_assert_leq(memory_of(cache), budget);
    }
    for (uint64_t i = count / 2; i < count; i++) {
        cr_assert_eq(find_number(cache, i), pinned[i]);
        cache_unpin(cache, pinned[i]);
        cache_remove(cache, pinned[i]);
    }
    for (uint64_t i = 10000; i < 30000; i++)
        cr_assert_not_null(put_number(cache, i, 8));
    cr_expect_leq(memory_of(cache), budget);
    cr_expect_gt(entries_of(cache), budget / 130);
    cache_free(cache);
}

static uint64_t rss(void)
{
    unsigned long total = 0;
    unsigned long resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%lu %lu", &total, &resident), 2);
    (void)fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

Test(cache, resident_memory_stays_within_the_budget)
{
#ifdef UNDER_ASAN
    cr_skip("what ASan keeps beside memory is in the figure");
#endif
    uint64_t budget = 64 * MIB;
    uint64_t before = rss();
    struct cache *cache;
    cr_assert_eq(cache_create(budget, &cache), 0);
    struct prng prng = {5};
    cr_expect_lt(rss() - before, 8 * MIB, "not touched before it is used");
    uint32_t sizes[] = {4000, 100, 60000, 8};
    uint64_t number = 0;
    for (size_t phase = 0; phase < 4; phase++) {
        uint64_t bytes = 0;
        while (bytes < 3 * budget) {
            uint32_t size = (uint32_t)prng_below(&prng, 2 * sizes[phase]) % (60 * KIB);
            cr_assert_not_null(put_number(cache, number++, size));
            bytes += size + 100;
        }
        cr_assert_lt(rss() - before, budget + 5 * MIB, "phase %zu: %lu", phase, rss() - before);
        cr_assert_leq(memory_of(cache), budget);
        cr_assert_gt(memory_of(cache), budget / 10 * 8, "phase %zu", phase);
    }
    cache_free(cache);
}

/* ---- against a model ---- */

#define MODEL_KEYS 5000
#define MODEL_PINS 64

struct model_key {
    bool exists;
    bool tombstone;
    bool unproved;
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
    return hash_of(name) & model->hash_mask;
}

static void expect_entry(const struct cache_entry *entry, const struct model_key *key)
{
    uint8_t value[VALUE_SIZE_MAX];
    fill_value(key->value_seed, value, key->value_size);
    cr_assert_eq(entry->version.clock, key->clock);
    cr_assert_eq(entry->tombstone, key->tombstone);
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
    cr_assert_eq(entry->unproved, key->unproved);
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
    bool was_there = key->exists && cache_find(model->cache, hash, name) != NULL;
    key->tombstone = prng_below(&model->prng, 10) == 0;
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
                  (struct version){clock, 1}, clock, clock);
    key->exists = entry != NULL;
    if (entry == NULL) {
        cr_assert(model->evicts);
        return;
    }
    cr_assert_eq(entry->unproved, was_there && key->unproved);
    expect_entry(entry, key);
    key->unproved = entry->unproved = prng_below(&model->prng, 4) == 0;
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
            cr_assert_leq(memory_of(model->cache), model->budget);
    }
    uint64_t count = 0;
    for (uint32_t i = 0; i < model->key_count; i++) {
        model_find(model, i);
        count += model->keys[i].exists;
    }
    cr_expect_eq(entries_of(model->cache), count);
    for (uint32_t i = 0; i < MODEL_PINS; i++)
        model_unpin(model, i);
    for (uint32_t i = 0; i < model->key_count; i++)
        model_remove(model, i);
    cr_expect_eq(entries_of(model->cache), 0);
    cr_expect_lt(memory_of(model->cache), model->budget / 16 + 64 * KIB, "only the table is left");
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

Test(cache, a_million_random_operations_match_a_model)
{
    struct model *model = model_create(1, 64 * MIB, UINT64_MAX);
    model_run(model, 1000000);
    free(model);
}

Test(cache, a_million_random_operations_with_evictions_match_a_model)
{
    struct model *model = model_create(2, 512 * KIB, UINT64_MAX);
    model->evicts = true;
    model_run(model, 1000000);
    free(model);
}

Test(cache, colliding_hashes_match_a_model)
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

Test(cache, tiny_budgets_match_a_model)
{
    for (uint64_t budget = 2 * KIB; budget <= 128 * KIB; budget *= 2) {
        struct model *model = model_create(budget, budget, UINT64_MAX);
        model->evicts = true;
        model->key_count = 300;
        model_run(model, 30000);
        free(model);
    }
}
