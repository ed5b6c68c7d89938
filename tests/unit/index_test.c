#include "store/index.h"

#include "base/prng.h"
#include "base/units.h"
#include "store/index_table.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

static struct index_entry entry_of(uint64_t clock, uint64_t location)
{
    return (struct index_entry){
        .version = {.clock = clock, .origin = (uint32_t)clock ^ 0x80000001u},
        .location = location,
        .read_size = index_read_size(clock % 100000),
        .tombstone = clock % 7 == 0,
    };
}

static void expect_equal(const struct index_entry *found, const struct index_entry *expected)
{
    cr_assert_eq(found->version.clock, expected->version.clock);
    cr_assert_eq(found->version.origin, expected->version.origin);
    cr_assert_eq(found->location, expected->location);
    cr_assert_eq(found->read_size, expected->read_size);
    cr_assert_eq(found->tombstone, expected->tombstone);
}

Test(index, read_sizes_are_at_most_a_quarter_more)
{
    uint64_t before = 0;
    for (uint64_t size = 1; size < 1ull << 36; size += 1 + size / 97) {
        uint64_t read_size = index_read_size(size);
        cr_assert_geq(read_size, size);
        cr_assert(read_size <= 64 || read_size <= size + size / 4, "%lu: %lu", size, read_size);
        cr_assert_eq(index_read_size(read_size), read_size, "%lu", size);
        cr_assert_geq(read_size, before);
        before = read_size;
    }
    for (uint32_t bits = 6; bits < 36; bits++)
        cr_expect_eq(index_read_size(1ull << bits), 1ull << bits);
    cr_expect_eq(index_read_size(0), 64);
    cr_expect_eq(index_read_size(65), 80);
    cr_expect_eq(index_read_size((1ull << 37) - 1), 1ull << 37);
}

Test(index, a_slot_keeps_every_bit)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry most = {
        .version = {.clock = UINT64_MAX, .origin = UINT32_MAX},
        .location = (1ull << 48) - 1,
        .read_size = 1ull << 37,
        .tombstone = true,
    };
    struct index_entry least = {.read_size = 64};
    struct index_entry found;
    cr_assert_eq(index_add(index, 255, UINT64_MAX, &most), 0);
    cr_assert_eq(index_add(index, 0, 0, &least), 0);
    cr_assert_eq(index_find(index, 255, UINT64_MAX, &found, 1), 1);
    expect_equal(&found, &most);
    cr_assert_eq(index_find(index, 0, 0, &found, 1), 1);
    expect_equal(&found, &least);
    cr_expect_eq(index_count(index), 2);
    cr_expect_eq(index_tombstones(index), 1);
    index_free(index);
}

Test(index, an_empty_one_finds_nothing)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry entry = entry_of(1, 1);
    cr_expect_eq(index_find(index, 3, 4, &entry, 1), 0);
    cr_expect_eq(index_replace(index, 3, 4, 1, &entry), -ENOENT);
    cr_expect_eq(index_remove(index, 3, 4, 1), -ENOENT);
    index_prefetch(index, 3, 4);
    cr_expect_eq(index_count(index), 0);
    index_free(index);
}

Test(index, any_of_48_bits_of_the_hash_tells_two_keys_apart)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry entry = entry_of(1, 1);
    uint64_t hash = 0x1234567890ABCDEF;
    cr_assert_eq(index_add(index, 9, hash, &entry), 0);
    for (uint32_t bit = 0; bit < 48; bit++) {
        struct index_entry found;
        cr_expect_eq(index_find(index, 9, hash ^ 1ull << bit, &found, 1), 0, "bit %u", bit);
        cr_expect_eq(index_remove(index, 9, hash ^ 1ull << bit, 1), -ENOENT);
        cr_expect_eq(index_replace(index, 9, hash ^ 1ull << bit, 1, &entry), -ENOENT);
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

Test(index, replace_and_remove_take_exactly_the_slot_with_the_location)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        struct index_entry entry = entry_of(i, 100 * i);
        cr_assert_eq(index_add(index, 1, 2, &entry), 0);
    }
    struct index_entry fresh = entry_of(14, 999);
    cr_expect_eq(index_replace(index, 1, 2, 150, &fresh), -ENOENT);
    cr_expect_eq(index_replace(index, 1, 2, 200, &fresh), 0);
    cr_expect_eq(index_tombstones(index), 1);
    cr_expect_eq(index_replace(index, 1, 2, 200, &fresh), -ENOENT);
    struct index_entry found[3];
    cr_assert_eq(index_find(index, 1, 2, found, 3), 3);
    expect_equal(&found[0], &fresh);
    cr_expect_eq(found[1].location, 300);
    cr_expect_eq(found[2].location, 100);
    cr_expect_eq(index_remove(index, 1, 2, 999), 0);
    cr_expect_eq(index_remove(index, 1, 2, 999), -ENOENT);
    cr_expect_eq(index_tombstones(index), 0);
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
    prng.state = 3;
    for (uint64_t i = 0; i < count; i++)
        cr_assert_eq(index_remove(index, 77, prng_next(&prng), i), 0);
    cr_expect_eq(index_count(index), 0);
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
        replaced += index_replace(index, (uint32_t)(hash >> 60), hash, 1, &fresh) == 0;
    }
    cr_expect_eq(replaced, count);
    prng.state = 9;
    uint64_t hash = prng_next(&prng);
    cr_expect_eq(index_remove(index, (uint32_t)(hash >> 60), hash, 2), 0);
    cr_expect_eq(index_add(index, (uint32_t)(hash >> 60), hash, &fresh), 0, "its place is free");
    index_free(index);
}

Test(index, many_slots_of_one_hash_are_kept_apart_by_location)
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
        cr_assert_eq(index_remove(index, 5, 6, (i * 7) % count), 0);
        if (i % 500 == 0)
            cr_assert_eq(index_find(index, 5, 6, found, 3), count - 1 - i);
    }
    cr_expect_eq(index_find(index, 5, 6, found, 3), 0);
    for (uint64_t i = 0; i < count; i++)
        cr_assert_eq(index_find(index, 5, i * 0x9E3779B97F4A7C15, found, 3), 1);
    index_free(index);
}

/* ---- against a model ---- */

#define MODEL_HASHES 3000
#define MODEL_SLOTS 6

struct model_hash {
    uint32_t count;
    struct index_entry entries[MODEL_SLOTS];
};

struct model {
    struct index *index;
    struct prng prng;
    uint64_t next;
    uint64_t hash_mask; /* which bits of the hashes differ */
    struct model_hash hashes[MODEL_HASHES];
};

static uint64_t model_hash(const struct model *model, uint32_t number)
{
    uint64_t hash = (number + 1) * 0x9E3779B97F4A7C15u;
    return (hash & model->hash_mask) | (uint64_t)number << 16; /* different in any case */
}

static uint32_t partition_of(uint32_t number)
{
    return number % 3 * 100;
}

static void model_add(struct model *model, uint32_t number)
{
    struct model_hash *known = &model->hashes[number];
    if (known->count == MODEL_SLOTS)
        return;
    uint64_t next = ++model->next;
    struct index_entry entry = entry_of(prng_next(&model->prng), next);
    uint64_t hash = model_hash(model, number);
    cr_assert_eq(index_add(model->index, partition_of(number), hash, &entry), 0);
    known->entries[known->count++] = entry;
}

static void model_change(struct model *model, uint32_t number, bool remove)
{
    struct model_hash *known = &model->hashes[number];
    uint64_t hash = model_hash(model, number);
    uint32_t partition = partition_of(number);
    if (known->count == 0) {
        cr_assert_eq(index_remove(model->index, partition, hash, model->next), -ENOENT);
        return;
    }
    uint32_t at = (uint32_t)prng_below(&model->prng, known->count);
    uint64_t location = known->entries[at].location;
    if (remove) {
        cr_assert_eq(index_remove(model->index, partition, hash, location), 0);
        known->entries[at] = known->entries[--known->count];
        return;
    }
    struct index_entry entry = entry_of(prng_next(&model->prng), ++model->next);
    cr_assert_eq(index_replace(model->index, partition, hash, location, &entry), 0);
    known->entries[at] = entry;
}

static int compare_entries(const void *a, const void *b)
{
    return version_compare(((const struct index_entry *)b)->version,
                           ((const struct index_entry *)a)->version);
}

static void model_find(struct model *model, uint32_t number)
{
    struct model_hash *known = &model->hashes[number];
    struct index_entry found[MODEL_SLOTS + 1];
    uint32_t capacity = (uint32_t)prng_below(&model->prng, MODEL_SLOTS + 2);
    uint64_t hash = model_hash(model, number);
    uint32_t count = index_find(model->index, partition_of(number), hash, found, capacity);
    cr_assert_eq(count, known->count);
    qsort(known->entries, known->count, sizeof known->entries[0], compare_entries);
    for (uint32_t i = 0; i < count && i < capacity; i++)
        expect_equal(&found[i], &known->entries[i]);
}

static void model_run(uint64_t seed, uint64_t hash_mask, uint64_t steps)
{
    struct model *model = calloc(1, sizeof *model);
    cr_assert_not_null(model);
    *model = (struct model){.prng = {seed}, .hash_mask = hash_mask};
    cr_assert_eq(index_create(0, &model->index), 0);
    for (uint64_t step = 0; step < steps; step++) {
        /* In turn it grows and shrinks. */
        uint64_t adds = step / (steps / 8) % 2 == 0 ? 40 : 15;
        uint32_t number = (uint32_t)prng_below(&model->prng, MODEL_HASHES);
        uint64_t choice = prng_below(&model->prng, 100);
        if (choice < adds)
            model_add(model, number);
        else if (choice < 55)
            model_change(model, number, true);
        else if (choice < 70)
            model_change(model, number, false);
        else
            model_find(model, number);
    }
    uint64_t count = 0;
    uint64_t tombstones = 0;
    for (uint32_t i = 0; i < MODEL_HASHES; i++) {
        model_find(model, i);
        count += model->hashes[i].count;
        for (uint32_t j = 0; j < model->hashes[i].count; j++)
            tombstones += model->hashes[i].entries[j].tombstone;
    }
    cr_expect_eq(index_count(model->index), count);
    cr_expect_eq(index_tombstones(model->index), tombstones);
    index_free(model->index);
    free(model);
}

Test(index, two_million_random_operations_match_a_model)
{
    model_run(1, UINT64_MAX, 2000000);
}

Test(index, crowded_hashes_match_a_model)
{
    model_run(2, 0xFF00000000000000, 300000); /* one group, one row to begin at, one tag */
    model_run(3, 0x0000FFFF00000000, 300000); /* one group, every row */
    model_run(4, 0x00000000000000FF, 300000); /* many groups, one row */
}

/* ---- the table's own rules ---- */

static void expect_marks(const struct index_table *table, const struct index_pool *pool)
{
    for (uint32_t number = 0; number < table->row_count; number++) {
        uint32_t block = table->blocks[number / INDEX_BLOCK_ROWS];
        const struct index_row *row = index_pool_at(pool, block + number % INDEX_BLOCK_ROWS);
        cr_assert_leq(row->count, INDEX_ROW_SLOTS);
        cr_assert(!row->is_spilled || row->count == INDEX_ROW_SLOTS, "row %u", number);
    }
}

static bool table_remove(struct index_table *table, struct index_memory *memory, uint64_t hash)
{
    struct index_walk walk;
    index_walk_begin(table, memory, hash, &walk);
    if (index_walk_next(&walk) == NULL)
        return false;
    index_walk_remove(&walk, table, memory);
    return true;
}

Test(index_table, only_full_rows_are_marked_after_years_of_coming_and_going)
{
    struct index_memory *memory = calloc(1, sizeof *memory);
    cr_assert_eq(index_pool_init(&memory->pool, 64 * MIB), 0);
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
            expect_marks(&table, &memory->pool);
    }
    expect_marks(&table, &memory->pool);
    for (uint64_t i = 0; i < population; i++)
        cr_assert(hashes[i] == 0 || table_remove(&table, memory, hashes[i]));
    cr_expect_eq(table.slot_count, 0);
    cr_expect_eq(table.overflow_count, 0);
    expect_marks(&table, &memory->pool);
    index_table_deinit(&table);
    index_pool_deinit(&memory->pool);
    free(hashes);
    free(memory);
}
