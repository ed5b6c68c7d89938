/* The index by itself: slots, candidates, versions, moves and growth. */
#include "store/memory/index.h"

#include "base/prng.h"
#include "base/units.h"
#include "index_fixture.h"
#include "store/memory/index_table.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

Test(index, read_sizes_are_at_most_a_quarter_more)
{
    uint64_t before = 0;
    for (uint64_t size = 1; size <= INDEX_RECORD_SIZE_MAX; size += 1 + size / 997) {
        uint64_t read_size = index_read_size(size);
        cr_assert_geq(read_size, size);
        cr_assert(read_size <= 64 || read_size <= size + size / 4, "%lu: %lu", size, read_size);
        cr_assert_eq(index_read_size(read_size), read_size, "%lu", size);
        cr_assert_geq(read_size, before);
        before = read_size;
    }
    for (uint32_t bits = 6; bits <= 21; bits++)
        cr_expect_eq(index_read_size(1ull << bits), 1ull << bits);
    cr_expect_eq(index_read_size(0), 64);
    cr_expect_eq(index_read_size(65), 80);
    cr_expect_eq(index_read_size(INDEX_RECORD_SIZE_MAX - 1), INDEX_RECORD_SIZE_MAX);
}

Test(index, a_record_that_no_size_class_holds_is_our_own_error, .signal = SIGABRT)
{
    (void)index_read_size(INDEX_RECORD_SIZE_MAX + 1);
}

Test(index, a_slot_keeps_every_bit)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry most = {
        .version = {.clock = UINT64_MAX, .origin = UINT32_MAX},
        .location = (1ull << 48) - 1,
        .read_size = INDEX_RECORD_SIZE_MAX,
        .tombstone = true,
        .in_value_file = true,
    };
    struct index_entry least = {.read_size = 64};
    struct index_entry deleted = {.version = {1, 1}, .read_size = 64, .tombstone = true};
    struct index_entry filed = {.version = {2, 1}, .read_size = 64, .in_value_file = true};
    struct index_entry found;
    cr_assert_eq(index_add(index, 255, UINT64_MAX, &most), 0);
    cr_assert_eq(index_add(index, 0, 0, &least), 0);
    cr_assert_eq(index_find(index, 255, UINT64_MAX, &found, 1), 1);
    expect_equal(&found, &most);
    cr_assert_eq(index_find(index, 0, 0, &found, 1), 1);
    expect_equal(&found, &least);
    cr_assert_eq(index_add(index, 7, 8, &deleted), 0);
    cr_assert_eq(index_add(index, 7, 8, &filed), 0);
    cr_assert_eq(index_get(index, 7, 8, deleted.version, &found), 0);
    expect_equal(&found, &deleted);
    cr_assert_eq(index_get(index, 7, 8, filed.version, &found), 0);
    expect_equal(&found, &filed);
    cr_expect_eq(index_count(index), 4);
    cr_expect_eq(index_tombstones(index), 2);
    index_free(index);
}

Test(index, an_empty_one_finds_nothing)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry entry = entry_of(1, 1);
    cr_expect_eq(index_find(index, 3, 4, &entry, 1), 0);
    cr_expect_eq(index_get(index, 3, 4, entry.version, &entry), -ENOENT);
    cr_expect_eq(index_replace(index, 3, 4, entry.version, &entry, NULL), -ENOENT);
    cr_expect_eq(index_remove(index, 3, 4, entry.version, NULL), -ENOENT);
    cr_expect_eq(index_move(index, 3, 4, entry.version, 1, 2), -ENOENT);
    cr_expect_eq(index_partition_count(index, 3), 0);
    index_prefetch(index, 3, 4);
    index_prefetch_slots(index, 3, 4);
    cr_expect_eq(index_count(index), 0);
    index_free(index);
}

Test(index, any_of_56_bits_of_the_hash_tells_two_keys_apart)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry entry = entry_of(1, 1);
    uint64_t hash = 0x1234567890ABCDEF;
    cr_assert_eq(index_add(index, 9, hash, &entry), 0);
    for (uint32_t bit = 0; bit < 56; bit++) {
        struct index_entry found;
        cr_expect_eq(index_find(index, 9, hash ^ 1ull << bit, &found, 1), 0, "bit %u", bit);
        uint64_t other = hash ^ 1ull << bit;
        cr_expect_eq(index_get(index, 9, other, entry.version, &found), -ENOENT);
        cr_expect_eq(index_remove(index, 9, other, entry.version, NULL), -ENOENT);
        cr_expect_eq(index_replace(index, 9, other, entry.version, &entry, NULL), -ENOENT);
        cr_expect_eq(index_move(index, 9, other, entry.version, 1, 2), -ENOENT);
    }
    cr_expect_eq(index_find(index, 8, hash, &entry, 1), 0, "another partition");
    index_free(index);
}

Test(index, candidates_come_newest_first)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    uint64_t clocks[] = {50, 10, 90, 30, 70, 20};
    for (uint64_t i = 0; i < 6; i++) {
        struct index_entry entry = entry_of(clocks[i], i);
        cr_assert_eq(index_add(index, 1, 2, &entry), 0);
    }
    struct index_entry found[8];
    uint64_t expected[] = {90, 70, 50, 30, 20, 10};
    for (uint32_t capacity = 1; capacity <= 8; capacity++) {
        memset(found, 0xFF, sizeof found);
        cr_assert_eq(index_find(index, 1, 2, found, capacity), 6);
        for (uint32_t i = 0; i < 6 && i < capacity; i++)
            cr_expect_eq(found[i].version.clock, expected[i]);
        if (capacity < 8)
            cr_expect_eq(found[capacity].version.clock, UINT64_MAX, "wrote past the end");
    }
    cr_expect_eq(index_find(index, 1, 2, NULL, 0), 6);
    index_free(index);
}

Test(index, a_version_is_clock_then_origin)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    for (uint32_t origin = 1; origin <= 3; origin++) {
        struct index_entry entry = {
            .version = {.clock = 5, .origin = origin}, .location = origin, .read_size = 64};
        cr_assert_eq(index_add(index, 1, 2, &entry), 0);
    }
    struct index_entry found[3];
    cr_assert_eq(index_find(index, 1, 2, found, 3), 3);
    cr_expect_eq(found[0].version.origin, 3);
    cr_expect_eq(found[2].version.origin, 1);
    index_free(index);
}

Test(index, replace_and_remove_take_exactly_the_slot_with_the_version)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        struct index_entry entry = entry_of(i, 55); /* one place: locations tell nothing */
        cr_assert_eq(index_add(index, 1, 2, &entry), 0);
    }
    struct index_entry fresh = entry_of(14, 999);
    struct index_entry second = entry_of(2, 55);
    struct index_entry old = entry_of(77, 77);
    cr_expect_eq(index_replace(index, 1, 2, version_of(4), &fresh, &old), -ENOENT);
    cr_expect_eq(old.version.clock, 77, "untouched");
    cr_expect_eq(index_replace(index, 1, 2, version_of(2), &fresh, &old), 0);
    expect_equal(&old, &second);
    cr_expect_eq(index_tombstones(index), 1);
    cr_expect_eq(index_replace(index, 1, 2, version_of(2), &fresh, NULL), -ENOENT);
    struct index_entry found[3];
    cr_assert_eq(index_find(index, 1, 2, found, 3), 3);
    expect_equal(&found[0], &fresh);
    cr_expect_eq(found[1].version.clock, 3);
    cr_expect_eq(found[2].version.clock, 1);
    cr_expect_eq(index_remove(index, 1, 2, fresh.version, &old), 0);
    expect_equal(&old, &fresh);
    cr_expect_eq(index_remove(index, 1, 2, fresh.version, &old), -ENOENT);
    cr_expect_eq(index_remove(index, 1, 2, version_of(3), NULL), 0);
    cr_expect_eq(index_tombstones(index), 0);
    cr_expect_eq(index_count(index), 1);
    index_free(index);
}

Test(index, clock_and_origin_name_a_slot_together)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry entry = {.version = {5, 6}, .location = 1, .read_size = 64};
    cr_assert_eq(index_add(index, 1, 2, &entry), 0);
    struct index_entry found;
    cr_expect_eq(index_get(index, 1, 2, (struct version){5, 7}, &found), -ENOENT);
    cr_expect_eq(index_get(index, 1, 2, (struct version){6, 6}, &found), -ENOENT);
    cr_expect_eq(index_get(index, 1, 2, (struct version){6, 5}, &found), -ENOENT);
    cr_expect_eq(index_remove(index, 1, 2, (struct version){5, 7}, NULL), -ENOENT);
    cr_assert_eq(index_get(index, 1, 2, entry.version, &found), 0);
    expect_equal(&found, &entry);
    index_free(index);
}

Test(index, replacing_a_slot_by_its_own_entry_shows_what_was_there)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry entry = entry_of(7, 1);
    cr_assert_eq(index_add(index, 1, 2, &entry), 0);
    struct index_entry both = entry_of(8, 2);
    cr_assert_eq(index_replace(index, 1, 2, entry.version, &both, &both), 0);
    expect_equal(&both, &entry);
    struct index_entry found;
    cr_assert_eq(index_get(index, 1, 2, version_of(8), &found), 0);
    cr_expect_eq(found.location, 2);
    cr_expect_eq(index_tombstones(index), 0);
    index_free(index);
}

Test(index, a_move_changes_the_location_of_the_right_record_alone)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry first = entry_of(35, 100); /* deleted, in a value file: kept */
    struct index_entry second = entry_of(36, 100);
    cr_assert_eq(index_add(index, 1, 2, &first), 0);
    cr_assert_eq(index_add(index, 1, 2, &second), 0);
    cr_expect_eq(index_move(index, 1, 2, first.version, 101, 200), -ENOENT, "it is elsewhere");
    cr_expect_eq(index_move(index, 1, 2, version_of(37), 100, 200), -ENOENT);
    cr_expect_eq(index_move(index, 1, 3, first.version, 100, 200), -ENOENT);
    uint64_t last = (1ull << 48) - 1;
    cr_expect_eq(index_move(index, 1, 2, first.version, 100, last), 0);
    cr_expect_eq(index_move(index, 1, 2, first.version, 100, 300), -ENOENT, "moved already");
    struct index_entry found;
    cr_assert_eq(index_get(index, 1, 2, first.version, &found), 0);
    first.location = last;
    expect_equal(&found, &first);
    cr_assert_eq(index_get(index, 1, 2, second.version, &found), 0);
    expect_equal(&found, &second);
    cr_expect_eq(index_tombstones(index), 1);
    cr_expect_eq(index_count(index), 2);
    index_free(index);
}

/* Half a million slots of one partition are as many groups as 128 million in all. */
Test(index, one_partition_grows_and_loses_nothing)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct prng prng = {3};
    uint64_t count = 500000;
    for (uint64_t i = 0; i < count; i++) {
        struct index_entry entry = entry_of(i, i);
        cr_assert_eq(index_add(index, 77, prng_next(&prng), &entry), 0);
    }
    prng.state = 3;
    for (uint64_t i = 0; i < count; i++) {
        struct index_entry expected = entry_of(i, i);
        struct index_entry found;
        cr_assert_eq(index_find(index, 77, prng_next(&prng), &found, 1), 1);
        expect_equal(&found, &expected);
    }
    cr_expect_leq(index_memory(index), 31 * count + 512 * KIB);
    cr_expect_eq(index_partition_count(index, 77), count);
    cr_expect_eq(index_partition_count(index, 78), 0);
    prng.state = 3;
    for (uint64_t i = 0; i < count; i++)
        cr_assert_eq(index_remove(index, 77, prng_next(&prng), version_of(i), NULL), 0);
    cr_expect_eq(index_count(index), 0);
    cr_expect_eq(index_partition_count(index, 77), 0);
    cr_expect_eq(index_tombstones(index), 0);
    index_free(index);
}

Test(index, a_key_takes_at_most_32_bytes)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct prng prng = {8};
    for (uint64_t i = 1; i <= 2500000; i++) {
        struct index_entry entry = entry_of(i, i);
        uint32_t partition = (uint32_t)prng_below(&prng, 256);
        cr_assert_eq(index_add(index, partition, prng_next(&prng), &entry), 0);
        if (i >= 1000000 && i % 1000 == 0)
            cr_assert_leq(index_memory(index), 32 * i, "%lu keys", i);
    }
    index_free(index);
}

Test(index, at_the_memory_limit_it_refuses_new_slots_and_replaces_old_ones)
{
    struct index *index;
    uint64_t limit = 2 * MIB;
    cr_assert_eq(index_create(limit, &index), 0);
    struct prng prng = {9};
    uint64_t count = 0;
    uint64_t refused = 0;
    while (refused < 100) {
        struct index_entry entry = entry_of(1, 1);
        uint64_t hash = prng_next(&prng);
        int result = index_add(index, (uint32_t)(hash >> 60), hash, &entry);
        cr_assert(result == 0 || result == -ENOMEM);
        refused += result != 0;
        count += result == 0;
        cr_assert_leq(index_memory(index), limit);
    }
    cr_expect_eq(index_count(index), count);
    cr_expect_gt(count, limit / 40);
    prng.state = 9;
    struct index_entry fresh = entry_of(2, 2);
    uint64_t replaced = 0;
    for (uint64_t i = 0; i < count + refused; i++) {
        uint64_t hash = prng_next(&prng);
        replaced +=
            index_replace(index, (uint32_t)(hash >> 60), hash, version_of(1), &fresh, NULL) == 0;
    }
    cr_expect_eq(replaced, count);
    prng.state = 9;
    uint64_t hash = prng_next(&prng);
    cr_expect_eq(index_remove(index, (uint32_t)(hash >> 60), hash, version_of(2), NULL), 0);
    cr_expect_eq(index_add(index, (uint32_t)(hash >> 60), hash, &fresh), 0, "its place is free");
    index_free(index);
}

Test(index, many_slots_of_one_hash_are_kept_apart_by_version)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    uint64_t count = 5000;
    for (uint64_t i = 0; i < count; i++) {
        struct index_entry entry = entry_of(i, i);
        cr_assert_eq(index_add(index, 5, 6, &entry), 0);
        entry = entry_of(i, count + i); /* others, so that the table grows around them */
        cr_assert_eq(index_add(index, 5, i * 0x9E3779B97F4A7C15, &entry), 0);
    }
    struct index_entry found[3];
    cr_expect_eq(index_find(index, 5, 6, found, 3), count);
    cr_expect_eq(found[0].location, count - 1);
    cr_expect_eq(found[2].location, count - 3);
    for (uint64_t i = 0; i < count; i++) {
        cr_assert_eq(index_remove(index, 5, 6, version_of((i * 7) % count), NULL), 0);
        if (i % 500 == 0)
            cr_assert_eq(index_find(index, 5, 6, found, 3), count - 1 - i);
    }
    cr_expect_eq(index_find(index, 5, 6, found, 3), 0);
    for (uint64_t i = 0; i < count; i++)
        cr_assert_eq(index_find(index, 5, i * 0x9E3779B97F4A7C15, found, 3), 1);
    index_free(index);
}

/* ---- the table's own rules ---- */

static void expect_marks(const struct index_table *table, const struct index_memory *memory)
{
    for (uint32_t number = 0; number < table->row_count; number++) {
        uint32_t block = table->blocks[number / INDEX_BLOCK_ROWS];
        const struct index_row *row = index_row_at(memory, block + number % INDEX_BLOCK_ROWS);
        cr_assert_leq(row->count, INDEX_ROW_SLOTS);
        cr_assert(!row->is_spilled || row->count == INDEX_ROW_SLOTS, "row %u", number);
    }
}

static bool table_remove(struct index_table *table, struct index_memory *memory, uint64_t hash)
{
    struct index_search search;
    index_search_begin(table, memory, hash, &search);
    if (index_search_next(&search) == NULL)
        return false;
    index_search_remove(&search, table, memory);
    return true;
}

Test(index_table, only_full_rows_are_marked_after_years_of_coming_and_going)
{
    struct index_memory *memory = calloc(1, sizeof *memory);
    cr_assert_eq(index_memory_init(memory, 64 * MIB), 0);
    struct index_table table;
    index_table_init(&table);
    uint64_t population = 20000;
    uint64_t *hashes = calloc(population, sizeof *hashes);
    struct prng prng = {6};
    for (uint64_t i = 0; i < 600000; i++) {
        uint64_t *hash = &hashes[prng_below(&prng, population)];
        if (*hash != 0)
            cr_assert(table_remove(&table, memory, *hash));
        *hash = prng_next(&prng);
        struct index_slot slot = {.clock = i, .hash = index_slot_bits(*hash)};
        cr_assert_eq(index_table_add(&table, memory, *hash, &slot, true), 0);
        if (i % 20000 == 0)
            expect_marks(&table, memory);
    }
    expect_marks(&table, memory);
    for (uint64_t i = 0; i < population; i++)
        cr_assert(hashes[i] == 0 || table_remove(&table, memory, hashes[i]));
    cr_expect_eq(table.slot_count, 0);
    cr_expect_eq(table.overflow_count, 0);
    expect_marks(&table, memory);
    index_table_deinit(&table);
    index_memory_deinit(memory);
    free(hashes);
    free(memory);
}

Test(index, what_was_added_in_bulk_stays_and_more_can_be_added_afterwards)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    const uint64_t half = 100000;
    index_set_bulk(index, true);
    for (uint64_t n = 1; n <= 2 * half; n++) {
        if (n == half)
            index_set_bulk(index, false);
        struct index_entry entry = entry_of(n, n);
        cr_assert_eq(index_add(index, (uint32_t)(n % 256), n * 0x9E3779B97F4A7C15u, &entry), 0);
    }
    for (uint64_t n = 1; n <= 2 * half; n++) {
        struct index_entry expected = entry_of(n, n), found;
        cr_assert_eq(index_find(index, (uint32_t)(n % 256), n * 0x9E3779B97F4A7C15u, &found, 1), 1);
        expect_equal(&found, &expected);
    }
    index_free(index);
}

Test(index, put_replaces_its_own_slot_and_tells_of_others)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry first = entry_of(7, 1), second = entry_of(8, 2), found[2];
    cr_assert(first.tombstone);
    cr_assert_eq(index_put(index, 3, 99, &first), 0);
    cr_assert_eq(index_put(index, 3, 99, &first), 0);
    cr_assert_eq(index_count(index), 1);
    cr_assert_eq(index_put(index, 3, 99, &second), 1);
    first.location = 77;
    first.tombstone = false;
    cr_assert_eq(index_tombstones(index), 1);
    cr_assert_eq(index_put(index, 3, 99, &first), 0);
    cr_assert_eq(index_tombstones(index), 0);
    cr_assert_eq(index_put(index, 3, 98, &first), 0);
    cr_assert_eq(index_count(index), 3);
    cr_assert_eq(index_find(index, 3, 99, found, 2), 2);
    expect_equal(&found[0], &second);
    expect_equal(&found[1], &first);
    index_free(index);
}

Test(index, is_full_from_its_limit_on_and_takes_slots_all_the_same)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry entry = {.version = {1, 1}, .read_size = 64};
    cr_assert(!index_is_full(index));
    index_set_limit(index, 2);
    cr_assert_eq(index_add(index, 1, 1, &entry), 0);
    cr_assert(!index_is_full(index));
    cr_assert_eq(index_add(index, 2, 2, &entry), 0);
    cr_assert(index_is_full(index));
    cr_assert_eq(index_add(index, 3, 3, &entry), 0);
    cr_assert_eq(index_remove(index, 1, 1, entry.version, NULL), 0);
    cr_assert(index_is_full(index));
    cr_assert_eq(index_remove(index, 2, 2, entry.version, NULL), 0);
    cr_assert(!index_is_full(index));
    index_free(index);
}
