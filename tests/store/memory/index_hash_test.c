/* The 56 bits by which the index knows a key: they tell its slot of the 4096, and keys that were
 * chosen to share one do the index no harm. */
#include "tests/support/colliding_keys.h"
#include "base/hash.h"
#include "base/prng.h"
#include "store/memory/index.h"
#include "store/memory/index_table.h"
#include "store/unit/segment_format.h"

#include <criterion/criterion.h>

#define KEYS 100000u
#define KEYED_BITS ((uint64_t)0xFFFFFFFFFFFFF)

static void make_secret(uint8_t *ret_secret)
{
    struct prng prng = {42};
    for (size_t i = 0; i < HASH_SECRET_SIZE; i++)
        ret_secret[i] = (uint8_t)prng_next(&prng);
}

Test(index_hash, has_52_bits_of_the_keyed_hash_and_4_of_xxh64)
{
    cr_expect_eq(hash_index(UINT64_MAX, 0), KEYED_BITS);
    cr_expect_eq(hash_index(0, UINT64_MAX), (uint64_t)0xF << 52);
    cr_expect_eq(hash_index(0x123456789ABCDEF0, 0xFEDCBA9876543210), 0xD456789ABCDEF0);
}

Test(index_hash, with_the_partition_tells_the_slot)
{
    uint8_t secret[HASH_SECRET_SIZE];
    make_secret(secret);
    for (uint64_t number = 0; number < 10000; number++) {
        const uint8_t *key = (const uint8_t *)&number;
        uint64_t key_hash = hash_key(key, sizeof number);
        struct hash_place place = hash_place(secret, key, sizeof number);
        uint32_t slot = (uint32_t)(key_hash >> 52);
        cr_assert_lt(slot, HASH_SLOTS);
        cr_assert_eq(place.partition, hash_partition(key_hash));
        cr_assert_eq(place.hash, hash_index(hash_keyed(secret, key, sizeof number), key_hash));
        cr_assert_eq(hash_slot(place.partition, place.hash), slot);
    }
}

/* Whoever walks the index, loads a checkpoint or reads a chunk's directory knows no keys. */
static void expect_slot(void *context, uint64_t hash, const struct index_entry *entry)
{
    (void)context;
    cr_assert_eq(hash_slot(0xAB, hash), entry->version.clock);
}

Test(index_hash, is_whole_in_the_index_the_checkpoint_and_the_directory)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    for (uint64_t slot = 0xAB0; slot < 0xAC0; slot++) {
        uint64_t hash = hash_index(slot * 0x9E3779B97F4A7C15, slot << 52);
        struct index_entry entry = {.version = {slot, 1}, .read_size = 64};
        cr_assert_eq(index_add(index, 0xAB, hash, &entry), 0);
        uint8_t packed[INDEX_PACKED_SIZE];
        uint64_t unpacked;
        index_pack(hash, &entry, packed);
        index_unpack(packed, &unpacked, &entry);
        cr_expect_eq(hash_slot(0xAB, unpacked), slot);
        uint8_t bytes[SEGMENT_ENTRY_SIZE];
        struct segment_entry found = {.hash = hash, .record_size = 49};
        segment_entry_encode(&found, bytes);
        segment_entry_decode(bytes, &found);
        cr_expect_eq(hash_slot(0xAB, found.hash), slot);
    }
    uint64_t cursor = 0;
    do
        cursor = index_walk(index, 0xAB, cursor, expect_slot, NULL);
    while (cursor != 0);
    index_free(index);
}

/* ---- crafted keys ---- */

/* What a table became, and what look-ups of absent keys cost in it. */
struct shape {
    uint64_t rows;
    uint64_t spilled;
    uint64_t overflow;
    uint64_t group_max; /* slots of the fullest group */
    uint64_t group_slots;
    uint64_t compares; /* of all look-ups, in the row where they begin */
    uint64_t compares_max;
};

static uint64_t random_hash(const uint8_t *secret, uint64_t number)
{
    return hash_place(secret, (const uint8_t *)&number, sizeof number).hash;
}

static uint64_t crafted_hash(const uint8_t *secret, uint64_t number)
{
    uint8_t key[COLLIDING_KEY_SIZE];
    colliding_key(number, key);
    return hash_place(secret, key, sizeof key).hash;
}

static void measure_row(void *context, const struct index_row *row)
{
    struct shape *shape = context;
    shape->group_slots += row->count;
    shape->spilled += row->is_spilled;
}

static void look_up_absent(const struct index_table *table, const struct index_memory *memory,
                           uint64_t hash, struct shape *shape)
{
    struct index_search search;
    index_search_begin(table, memory, hash, &search);
    uint64_t compares = (uint64_t)__builtin_popcountll(search.matches);
    shape->compares += compares;
    if (compares > shape->compares_max)
        shape->compares_max = compares;
    cr_assert_null(index_search_next(&search));
}

static struct shape shape_of(uint64_t (*hash_of)(const uint8_t *secret, uint64_t number))
{
    static struct index_memory memory;
    uint8_t secret[HASH_SECRET_SIZE];
    struct index_table table;
    struct shape shape = {0};
    make_secret(secret);
    index_table_init(&table);
    cr_assert_eq(index_memory_init(&memory, 64 << 20), 0);
    for (uint64_t number = 0; number < KEYS; number++) {
        uint64_t hash = hash_of(secret, number);
        struct index_slot slot = {.clock = number, .hash = index_slot_bits(hash)};
        cr_assert_eq(index_table_add(&table, &memory, hash, &slot, true), 0);
    }
    for (uint64_t group = 0; group < index_table_group_count(&table); group++) {
        shape.group_slots = 0;
        index_table_show_group(&table, &memory, group, measure_row, &shape);
        shape.group_max = shape.group_slots > shape.group_max ? shape.group_slots : shape.group_max;
    }
    for (uint64_t number = KEYS; number < 2 * KEYS; number++)
        look_up_absent(&table, &memory, hash_of(secret, number), &shape);
    shape.rows = table.row_count;
    shape.overflow = table.overflow_count;
    index_table_deinit(&table);
    index_memory_deinit(&memory);
    return shape;
}

/* Group and row are under the secret: nobody who does not have it makes a chain longer. */
Test(index_hash, keys_of_one_slot_spread_over_groups_and_rows_as_others_do)
{
    struct shape chance = shape_of(random_hash);
    struct shape crafted = shape_of(crafted_hash);
    cr_expect_leq(crafted.rows, chance.rows + chance.rows / 100);
    cr_expect_leq(crafted.overflow, chance.overflow + 4);
    cr_expect_leq(crafted.spilled, chance.spilled + chance.spilled / 4, "%lu to %lu",
                  crafted.spilled, chance.spilled);
    cr_expect_leq(crafted.group_max, chance.group_max + chance.group_max / 16);
}

/* Of the tag, 4 bits of 8 are theirs to choose. */
Test(index_hash, keys_of_one_slot_cost_a_look_up_a_bounded_number_of_comparisons)
{
    struct shape chance = shape_of(random_hash);
    struct shape crafted = shape_of(crafted_hash);
    cr_expect_leq(chance.compares, (uint64_t)KEYS * INDEX_ROW_SLOTS / 256);
    cr_expect_leq(crafted.compares, (uint64_t)KEYS * INDEX_ROW_SLOTS / 16);
    cr_expect_leq(crafted.compares_max, INDEX_ROW_SLOTS / 2);
    cr_log_info("crafted: %lu compares, at most %lu; by chance %lu, at most %lu", crafted.compares,
                crafted.compares_max, chance.compares, chance.compares_max);
}
