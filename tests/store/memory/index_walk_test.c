/* All slots of a partition: walks while the table changes, room made in advance, slots packed. */
#include "base/prng.h"
#include "base/units.h"
#include "index_fixture.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#define PARTITION 200u
#define HASH_BITS 56

/* ---- walks against a model: a number stands for a hash and one slot ---- */

#define NUMBERS_MAX 100000

struct walk_slot {
    bool exists;
    bool was_there; /* when the walk began, and ever since */
    uint32_t shown;
    struct index_entry entry;
};

struct walk_model {
    struct index *index;
    struct prng prng;
    uint64_t hash_mask;
    uint64_t clock;
    uint64_t shown_in_call;
    uint32_t count; /* numbers in use: 0 to count - 1 */
    struct walk_slot slots[NUMBERS_MAX];
};

/* The number itself is in the hash, so that `each` finds its way back: multiplied by an odd factor
 * and masked. Without its low bits all fall into one group. */
static uint64_t hash_of(const struct walk_model *model, uint32_t number)
{
    uint64_t mixed = (number + 1) * 0x9E3779B97F4A7C15u;
    return mixed & model->hash_mask;
}

static void show(void *context, uint64_t hash, const struct index_entry *entry)
{
    struct walk_model *model = context;
    uint32_t number = entry->version.origin;
    cr_assert_lt(number, model->count);
    struct walk_slot *slot = &model->slots[number];
    cr_assert(slot->exists, "number %u was removed", number);
    cr_assert_eq(hash, hash_of(model, number) & ((1ull << HASH_BITS) - 1));
    expect_equal(entry, &slot->entry);
    slot->shown++;
    model->shown_in_call++;
}

static struct index_entry fresh_entry(struct walk_model *model, uint32_t number)
{
    struct index_entry entry = entry_of(++model->clock, prng_below(&model->prng, 1ull << 48));
    entry.version.origin = number;
    return entry;
}

static void model_add(struct walk_model *model)
{
    if (model->count == NUMBERS_MAX)
        return;
    uint32_t number = model->count++;
    struct walk_slot *slot = &model->slots[number];
    *slot = (struct walk_slot){.exists = true, .entry = fresh_entry(model, number)};
    cr_assert_eq(index_add(model->index, PARTITION, hash_of(model, number), &slot->entry), 0);
}

static void model_change(struct walk_model *model)
{
    uint32_t number = (uint32_t)prng_below(&model->prng, model->count);
    struct walk_slot *slot = &model->slots[number];
    if (!slot->exists)
        return;
    uint64_t hash = hash_of(model, number);
    struct version version = slot->entry.version;
    switch (prng_below(&model->prng, 3)) {
    case 0:
        cr_assert_eq(index_remove(model->index, PARTITION, hash, version, NULL), 0);
        slot->exists = slot->was_there = false;
        break;
    case 1:
        slot->entry = fresh_entry(model, number);
        cr_assert_eq(index_replace(model->index, PARTITION, hash, version, &slot->entry, NULL), 0);
        break;
    default:
        cr_assert_eq(index_move(model->index, PARTITION, hash, version, slot->entry.location, 7),
                     0);
        slot->entry.location = 7;
        break;
    }
}

/* One walk, with so many adds and changes from call to call. Returns its calls. */
static uint64_t model_walk(struct walk_model *model, uint32_t adds, uint32_t changes)
{
    for (uint32_t i = 0; i < model->count; i++) {
        model->slots[i].was_there = model->slots[i].exists;
        model->slots[i].shown = 0;
    }
    uint64_t count_before = index_partition_count(model->index, PARTITION);
    uint64_t calls = 0;
    uint64_t cursor = 0;
    do {
        cr_assert_lt(calls, NUMBERS_MAX, "it does not end");
        model->shown_in_call = 0;
        cursor = index_walk(model->index, PARTITION, cursor, show, model);
        calls++;
        for (uint32_t i = 0; i < adds; i++)
            model_add(model);
        for (uint32_t i = 0; i < changes && model->count > 0; i++)
            model_change(model);
    } while (cursor != 0);
    uint32_t doubled = 0;
    while (count_before > 0 &&
           count_before << doubled < index_partition_count(model->index, PARTITION))
        doubled++;
    for (uint32_t i = 0; i < model->count; i++) {
        const struct walk_slot *slot = &model->slots[i];
        cr_assert(!slot->was_there || slot->shown > 0, "number %u was not shown", i);
        cr_assert(count_before == 0 || slot->shown <= 2 + doubled, "number %u: %u times", i,
                  slot->shown);
        cr_assert(adds + changes > 0 || slot->shown <= 1, "number %u: %u times", i, slot->shown);
    }
    return calls;
}

static struct walk_model *model_create(uint64_t seed, uint64_t hash_mask)
{
    struct walk_model *model = calloc(1, sizeof *model);
    cr_assert_not_null(model);
    model->prng.state = seed;
    model->hash_mask = hash_mask;
    cr_assert_eq(index_create(0, &model->index), 0);
    return model;
}

static void model_free(struct walk_model *model)
{
    index_free(model->index);
    free(model);
}

static void expect_nothing(void *context, uint64_t hash, const struct index_entry *entry)
{
    (void)context;
    (void)hash;
    (void)entry;
    cr_assert(false, "there is nothing");
}

Test(index_walk, an_empty_partition_ends_at_once)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct index_entry entry = entry_of(1, 1);
    cr_assert_eq(index_add(index, PARTITION, 1, &entry), 0);
    cr_expect_eq(index_walk(index, PARTITION + 1, 0, expect_nothing, NULL), 0);
    cr_assert_eq(index_remove(index, PARTITION, 1, entry.version, NULL), 0);
    cr_expect_eq(index_walk(index, PARTITION, 0, expect_nothing, NULL), 0);
    index_free(index);
}

Test(index_walk, every_size_of_a_resting_table_is_shown_once)
{
    /* Every step of a table's way from one group to 16 of them: a row is 39 slots. */
    struct walk_model *model = model_create(1, UINT64_MAX);
    for (uint32_t step = 0; step < 300; step++) {
        uint64_t calls = model_walk(model, 0, 0);
        cr_assert_leq(calls, 1 + model->count / 200, "%u slots", model->count);
        for (uint32_t i = 0; i < 20; i++)
            model_add(model);
    }
    cr_expect_geq(model_walk(model, 0, 0), 8);
    model_free(model);
}

Test(index_walk, a_call_shows_about_a_group)
{
    struct walk_model *model = model_create(2, UINT64_MAX);
    for (uint32_t i = 0; i < 90000; i++)
        model_add(model);
    uint64_t cursor = 0;
    do {
        model->shown_in_call = 0;
        cursor = index_walk(model->index, PARTITION, cursor, show, model);
        cr_assert_gt(model->shown_in_call, 0);
        cr_assert_leq(model->shown_in_call, 17 * 39);
    } while (cursor != 0);
    model_free(model);
}

Test(index_walk, what_stays_is_shown_while_the_table_grows_and_changes)
{
    /* From a partition of any size on, slowly and fast, over several walks. */
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct walk_model *model = model_create(seed, UINT64_MAX);
        uint64_t begin = prng_below(&model->prng, 1ull << prng_below(&model->prng, 15));
        for (uint64_t i = 0; i < begin; i++)
            model_add(model);
        for (uint32_t walk = 0; walk < 3; walk++) {
            uint32_t adds = (uint32_t)prng_below(&model->prng, 1u << prng_below(&model->prng, 9));
            uint32_t changes = (uint32_t)prng_below(&model->prng, 200);
            (void)model_walk(model, adds, changes);
        }
        model_free(model);
    }
}

Test(index_walk, a_walk_over_a_table_that_doubles_more_than_once_misses_nothing)
{
    struct walk_model *model = model_create(9, UINT64_MAX);
    for (uint32_t i = 0; i < 10000; i++)
        model_add(model);
    (void)model_walk(model, 600, 20); /* ends because the model has no more numbers */
    cr_expect_gt(index_partition_count(model->index, PARTITION), 40000);
    model_free(model);
}

Test(index_walk, overflow_rows_are_walked_too)
{
    struct walk_model *model = model_create(5, 0xFF00000000000000); /* one group, one row */
    for (uint32_t i = 0; i < 3000; i++)
        model_add(model);
    (void)model_walk(model, 10, 100);
    (void)model_walk(model, 0, 100);
    model_free(model);
}

/* ---- room made in advance ---- */

Test(index_reserve, what_was_reserved_for_grows_nothing)
{
    uint64_t counts[] = {1, 34, 35, 400, 5000, 20000, 90001};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct walk_model *model = model_create(i, UINT64_MAX);
        uint64_t count = counts[i];
        cr_assert_eq(index_reserve(model->index, PARTITION, count), 0);
        uint64_t memory = index_memory(model->index);
        cr_expect_eq(index_partition_count(model->index, PARTITION), 0);
        cr_expect_eq(model_walk(model, 0, 0) > 0, true);
        for (uint64_t number = 0; number < count; number++)
            model_add(model);
        /* But for an overflow row here and there. */
        cr_expect_leq(index_memory(model->index), memory + memory / 64 + 4096, "%lu slots", count);
        cr_expect_leq(index_memory(model->index), 31 * count + 512 * KIB);
        cr_expect_eq(index_partition_count(model->index, PARTITION), count);
        (void)model_walk(model, 0, 0);
        for (uint64_t number = 0; number < 5000; number++)
            model_add(model); /* and it grows on as ever */
        (void)model_walk(model, 3, 3);
        model_free(model);
    }
}

Test(index_reserve, it_makes_the_table_that_growing_makes)
{
    struct walk_model *grown = model_create(1, UINT64_MAX);
    struct walk_model *reserved = model_create(1, UINT64_MAX);
    cr_assert_eq(index_reserve(reserved->index, PARTITION, 50000), 0);
    for (uint32_t i = 0; i < 50000; i++) {
        model_add(grown);
        model_add(reserved);
    }
    cr_expect_leq(index_memory(reserved->index), index_memory(grown->index) + 8192);
    uint64_t calls = model_walk(grown, 0, 0);
    cr_expect_leq(model_walk(reserved, 0, 0), calls + 1);
    model_free(grown);
    model_free(reserved);
}

Test(index_reserve, it_may_be_repeated_and_takes_only_what_is_missing)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    cr_assert_eq(index_reserve(index, 3, 0), 0);
    cr_assert_eq(index_reserve(index, 3, 10000), 0);
    uint64_t memory = index_memory(index);
    cr_assert_eq(index_reserve(index, 3, 10000), 0);
    cr_assert_eq(index_reserve(index, 3, 100), 0);
    cr_expect_eq(index_memory(index), memory);
    cr_assert_eq(index_reserve(index, 3, 20000), 0);
    cr_expect_gt(index_memory(index), memory);
    index_free(index);
}

Test(index_reserve, beyond_the_limit_it_refuses_and_changes_nothing)
{
    struct index *index;
    cr_assert_eq(index_create(2 * MIB, &index), 0);
    uint64_t memory = index_memory(index);
    cr_expect_eq(index_reserve(index, 3, 1000000), -ENOMEM);
    cr_expect_eq(index_memory(index), memory);
    cr_expect_eq(index_reserve(index, 3, 50000), 0);
    cr_expect_leq(index_memory(index), 2 * MIB);
    struct index_entry entry = entry_of(1, 1);
    cr_expect_eq(index_add(index, 3, 4, &entry), 0);
    index_free(index);
}

/* ---- packed slots ---- */

static void expect_packed(uint64_t hash, const struct index_entry *entry)
{
    uint8_t packed[INDEX_PACKED_SIZE + 1];
    memset(packed, 0xA5, sizeof packed);
    index_pack(hash, entry, packed);
    cr_assert_eq(packed[INDEX_PACKED_SIZE], 0xA5, "wrote past the end");
    uint64_t found_hash;
    struct index_entry found;
    index_unpack(packed, &found_hash, &found);
    cr_assert_eq(found_hash, hash & ((1ull << HASH_BITS) - 1));
    expect_equal(&found, entry);
}

Test(index_pack, a_slot_comes_back_as_it_was)
{
    struct prng prng = {4};
    for (uint32_t i = 0; i < 100000; i++) {
        struct index_entry entry = {
            .version = {prng_next(&prng), (uint32_t)prng_next(&prng)},
            .location = prng_next(&prng) >> 16,
            .read_size = index_read_size(prng_below(&prng, 1ull << prng_below(&prng, 22)) + 1),
            .tombstone = prng_below(&prng, 2) == 0,
            .in_value_file = prng_below(&prng, 2) == 0,
        };
        expect_packed(prng_next(&prng), &entry);
    }
    struct index_entry most = {
        .version = {UINT64_MAX, UINT32_MAX},
        .location = (1ull << 48) - 1,
        .read_size = INDEX_RECORD_SIZE_MAX,
        .tombstone = true,
        .in_value_file = true,
    };
    struct index_entry least = {.read_size = 64};
    expect_packed(UINT64_MAX, &most);
    expect_packed(0, &least);
}

Test(index_pack, the_bytes_are_those_of_the_format)
{
    struct index_entry entry = {
        .version = {0x1112131415161718, 0x21222324},
        .location = 0x313233343536,
        .read_size = 80, /* class 1 */
        .tombstone = true,
    };
    uint8_t packed[INDEX_PACKED_SIZE];
    index_pack(0xFF01020304050607, &entry, packed);
    const uint8_t expected[INDEX_PACKED_SIZE] = {
        0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,       /* hash, without its highest byte */
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, /* clock */
        0x24, 0x23, 0x22, 0x21,                         /* origin */
        0x36, 0x35, 0x34, 0x33, 0x32, 0x31,             /* location */
        0x41,                                           /* size class, tombstone */
    };
    cr_expect_eq(memcmp(packed, expected, sizeof packed), 0);
    entry.tombstone = false;
    entry.in_value_file = true;
    index_pack(0xFF01020304050607, &entry, packed);
    cr_expect_eq(packed[25], 0x81);
}

Test(index_pack, what_was_walked_packed_and_unpacked_is_found_in_another_index)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct prng prng = {6};
    for (uint64_t i = 0; i < 1000; i++) {
        struct index_entry entry = entry_of(i, i);
        uint64_t hash = prng_next(&prng);
        uint8_t packed[INDEX_PACKED_SIZE];
        index_pack(hash, &entry, packed);
        uint64_t unpacked_hash;
        struct index_entry unpacked;
        index_unpack(packed, &unpacked_hash, &unpacked);
        cr_assert_eq(index_add(index, PARTITION, unpacked_hash, &unpacked), 0);
        struct index_entry found;
        cr_assert_eq(index_find(index, PARTITION, hash, &found, 1), 1, "56 bits suffice");
        expect_equal(&found, &entry);
    }
    index_free(index);
}

Test(index_pack, any_26_bytes_are_a_slot_that_an_index_takes)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    struct prng prng = {7};
    for (uint32_t i = 0; i < 10000; i++) {
        uint8_t bytes[INDEX_PACKED_SIZE];
        for (uint32_t at = 0; at < sizeof bytes; at++)
            bytes[at] = (uint8_t)prng_next(&prng);
        uint64_t hash;
        struct index_entry entry;
        index_unpack(bytes, &hash, &entry);
        cr_assert_eq(index_add(index, PARTITION, hash, &entry), 0);
        uint8_t again[INDEX_PACKED_SIZE];
        index_pack(hash, &entry, again);
        cr_assert_eq(memcmp(again, bytes, sizeof bytes), 0);
    }
    index_free(index);
}
