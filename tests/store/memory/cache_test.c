/* The cache by itself: entries, pins, budget and eviction. */
#include "store/memory/cache.h"

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
    return cache_put(cache, hash_of(name), name, slice_of(value), false, false,
                     (struct version){1, 1}, 1);
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
    struct cache_entry *entry = cache_put(cache, hash_of(key), key, slice_of("one"), false, false,
                                          (struct version){7, 8}, 9);
    cr_assert_not_null(entry);
    cr_assert_eq(find(cache, "a"), entry);
    cr_expect(has_value(entry, "one"));
    cr_expect(slice_equal(cache_entry_key(entry), key));
    cr_expect_eq(entry->hash, hash_of(key));
    cr_expect_eq(entry->version.clock, 7);
    cr_expect_eq(entry->version.origin, 8);
    cr_expect_eq(entry->position, 9);
    cr_expect(entry->linked && !entry->tombstone && !entry->in_value_file);
    cr_expect_null(find(cache, "b"));
    struct cache_stats stats;
    cache_stats(cache, &stats);
    cr_expect_eq(stats.entries, 1);
    cache_free(cache);
}

Test(cache, an_empty_value_and_a_tombstone_are_entries)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    struct slice key = slice_of("gone");
    cr_assert_not_null(put(cache, "empty", ""));
    cr_assert_not_null(cache_put(cache, hash_of(key), key, (struct slice){NULL, 0}, true, false,
                                 (struct version){1, 1}, 1));
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
        cr_assert_not_null(cache_put(cache, 42, name, (struct slice){&value, 1}, false, false,
                                     (struct version){1, 1}, 1));
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

Test(cache, a_put_says_whether_the_value_lies_in_a_value_file)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    struct slice key = slice_of("key");
    struct version version = {1, 1};
    struct cache_entry *entry =
        cache_put(cache, hash_of(key), key, slice_of("descriptor"), false, true, version, 1);
    cr_assert_not_null(entry);
    cr_expect(find(cache, "key")->in_value_file);
    cr_expect(has_value(entry, "descriptor"));
    cr_expect(!put(cache, "key", "short")->in_value_file, "in place");
    entry = cache_put(cache, hash_of(key), key, slice_of("descriptor"), false, true, version, 1);
    cache_pin(entry);
    cr_expect(!put(cache, "key", "short")->in_value_file, "beside a pinned one");
    cr_expect(entry->in_value_file);
    cache_unpin(cache, entry);
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
                             false, (struct version){2, 1}, 2));
    cr_expect_null(find(cache, "key"));
    cr_expect_eq(entries_of(cache), 0);
    cr_expect_not_null(cache_put(cache, hash_of(key), key, (struct slice){value, 100 * KIB}, false,
                                 false, (struct version){2, 1}, 2));
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
    return cache_put(cache, hash_of(key), key, (struct slice){zeros, size}, false, false,
                     (struct version){1, 1}, 1);
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

/* Finds each of the keys, which are put when they are not there. Returns how many were. */
static uint64_t use_numbers(struct cache *cache, uint64_t first, uint64_t count)
{
    uint64_t found = 0;
    for (uint64_t i = first; i < first + count; i++) {
        if (find_number(cache, i) != NULL)
            found++;
        else
            cr_assert_not_null(put_number(cache, i, 1000));
    }
    return found;
}

Test(cache, a_scan_evicts_nothing_that_is_used)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    (void)use_numbers(cache, 0, 500);
    cr_assert_eq(use_numbers(cache, 0, 500), 500);
    cr_expect_eq(use_numbers(cache, 10000, 50000), 0);
    /* But for those that a put took to be done in time, when all others had hits too. */
    cr_expect_geq(use_numbers(cache, 0, 500), 495);
    cache_free(cache);
}

Test(cache, what_was_hot_once_goes_when_others_are_used)
{
    struct cache *cache;
    cr_assert_eq(cache_create(1 * MIB, &cache), 0);
    for (uint32_t round = 0; round < 10; round++)
        (void)use_numbers(cache, 0, 600);
    cr_assert_eq(use_numbers(cache, 0, 600), 600);
    /* In turns, so that each comes again only after more others than the fresh queue holds. */
    uint64_t found = 0;
    for (uint32_t round = 0; round < 40; round++)
        found = use_numbers(cache, 10000, 700);
    cr_expect_gt(found, 650);
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
    /* 80 bytes an entry and 16 to 20 of the table. */
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
    char line[256];
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert_not_null(file);
    cr_assert_not_null(fgets(line, sizeof line, file));
    (void)fclose(file);
    char *resident;
    (void)strtoul(line, &resident, 10); /* all of the address space */
    return strtoul(resident, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
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
