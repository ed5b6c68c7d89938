/* The table in which minivault-admin finds each key's newest version, by itself. */
#include "admin/read/admin_newest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* A record of `key` with this hash, at `offset` of file 0. */
static void take(struct newest *newest, const char *key, uint64_t hash, uint64_t clock,
                 uint32_t origin, uint64_t offset)
{
    struct record record = {.key = {(const uint8_t *)key, (uint32_t)strlen(key)}};
    struct walk_found found = {.offset = offset,
                               .size = 49,
                               .hash = hash,
                               .version = {clock, origin},
                               .record = newest->keeps_keys ? &record : NULL};
    cr_assert_eq(newest_take(newest, &found), 0);
}

static bool is_newest(const struct newest *newest, const char *key, uint64_t hash, uint64_t offset)
{
    struct record record = {.key = {(const uint8_t *)key, (uint32_t)strlen(key)}};
    struct walk_found found = {.offset = offset, .size = 49, .hash = hash, .record = &record};
    return newest_is(newest, &found);
}

Test(admin_newest, an_empty_table_knows_nothing)
{
    struct newest newest;
    newest_init(&newest, true);
    cr_assert_not(is_newest(&newest, "a", 1, 8));
    cr_assert_eq(newest.count, 0);
    newest_free(&newest);
}

Test(admin_newest, the_greatest_version_counts_in_any_order)
{
    struct newest newest;
    newest_init(&newest, true);
    take(&newest, "a", 1, 20, 5, 200);
    take(&newest, "a", 1, 10, 9, 100);
    cr_assert(is_newest(&newest, "a", 1, 200));
    cr_assert_not(is_newest(&newest, "a", 1, 100));
    take(&newest, "a", 1, 20, 6, 300);
    cr_assert(is_newest(&newest, "a", 1, 300));
    cr_assert_eq(newest.count, 1);
    newest_free(&newest);
}

Test(admin_newest, the_same_version_has_moved)
{
    struct newest newest;
    newest_init(&newest, true);
    take(&newest, "a", 1, 20, 5, 200);
    take(&newest, "a", 1, 20, 5, 400);
    cr_assert(is_newest(&newest, "a", 1, 400));
    cr_assert_not(is_newest(&newest, "a", 1, 200));
    newest_free(&newest);
}

Test(admin_newest, keys_with_one_hash_are_two_keys_when_they_are_kept)
{
    for (int keeps_keys = 0; keeps_keys < 2; keeps_keys++) {
        struct newest newest;
        newest_init(&newest, keeps_keys);
        take(&newest, "a", 7, 1, 0, 100);
        take(&newest, "b", 7, 2, 0, 200);
        take(&newest, "ab", 7, 3, 0, 300);
        cr_assert_eq(newest.count, keeps_keys ? 3u : 1u);
        newest_free(&newest);
    }
}

Test(admin_newest, many_keys_that_meet_in_the_table_are_all_there)
{
    struct newest newest;
    newest_init(&newest, true);
    const uint32_t count = 20000;
    for (uint32_t i = 0; i < count; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "key %u", i);
        take(&newest, key, i / 4 * 1024, 1, 0, i * 8); /* the low bits say little */
    }
    cr_assert_eq(newest.count, count);
    for (uint32_t i = 0; i < count; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "key %u", i);
        cr_assert(is_newest(&newest, key, i / 4 * 1024, i * 8));
    }
    uint64_t seen = 0;
    for (uint64_t i = 0; i < newest.capacity; i++)
        seen += newest_nth(&newest, i) != NULL;
    cr_assert_eq(seen, count);
    newest_free(&newest);
}
