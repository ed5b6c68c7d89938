/* The filter of keys by itself: no key that is there is ever missed, and few others pass. */
#include "store/memory/bloom.h"

#include "base/prng.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define PARTITIONS 256
#define ABSENT ((uint64_t)1 << 40) /* numbers from here on are never added */

struct world {
    struct index *index;
    struct bloom *bloom;
    struct prng prng;
    uint32_t partitions; /* keys go to the first ones only */
    uint64_t first;      /* the keys that are there: [first, end) */
    uint64_t end;
};

static void setup(struct world *world, uint32_t partitions)
{
    *world = (struct world){.prng = {partitions}, .partitions = partitions};
    cr_assert_eq(index_create(0, &world->index), 0);
    cr_assert_eq(bloom_create(&world->bloom), 0);
}

static void teardown(struct world *world)
{
    bloom_free(world->bloom);
    index_free(world->index);
}

static uint64_t hash_of(uint64_t number)
{
    struct prng prng = {number};
    return prng_next(&prng);
}

static uint32_t partition_of(const struct world *world, uint64_t number)
{
    return (uint32_t)(hash_of(~number) % world->partitions);
}

static void add_to_index(struct world *world, uint64_t number)
{
    struct index_entry entry = {.version = {number + 1, 1}, .location = number, .read_size = 64};
    uint32_t partition = partition_of(world, number);
    cr_assert_eq(index_add(world->index, partition, hash_of(number), &entry), 0);
}

static void add(struct world *world)
{
    uint64_t number = world->end++;
    add_to_index(world, number);
    bloom_add(world->bloom, partition_of(world, number), hash_of(number));
}

static void remove_oldest(struct world *world)
{
    uint64_t number = world->first++;
    struct version version = {number + 1, 1};
    uint32_t partition = partition_of(world, number);
    cr_assert_eq(index_remove(world->index, partition, hash_of(number), version, NULL), 0);
}

static bool may_contain(const struct world *world, uint64_t number)
{
    return bloom_may_contain(world->bloom, partition_of(world, number), hash_of(number));
}

static void assert_all_there(const struct world *world)
{
    for (uint64_t number = world->first; number < world->end; number++)
        cr_assert(may_contain(world, number), "key %llu is missing", (unsigned long long)number);
}

static void step_to_the_end(struct world *world)
{
    uint32_t steps = 0;
    while (bloom_step(world->bloom, world->index, 1000))
        cr_assert_lt(++steps, 100000);
}

/* How many of a thousand absent keys pass. */
static double passed(const struct world *world)
{
    uint32_t count = 0;
    for (uint64_t i = 0; i < 20000; i++)
        count += may_contain(world, ABSENT + i);
    return count / 20.0;
}

Test(bloom, everything_may_be_there_before_the_first_step)
{
    struct world world;
    setup(&world, PARTITIONS);
    for (uint64_t i = 0; i < 1000; i++)
        add_to_index(&world, world.end++);
    assert_all_there(&world);
    cr_assert_eq(passed(&world), 1000);
    teardown(&world);
}

Test(bloom, nothing_is_there_when_the_index_is_empty)
{
    struct world world;
    setup(&world, PARTITIONS);
    step_to_the_end(&world);
    cr_assert_eq(passed(&world), 0);
    cr_assert_leq(bloom_memory(world.bloom), 100000);
    cr_assert_not(bloom_step(world.bloom, world.index, 1), "there is nothing to do");
    teardown(&world);
}

Test(bloom, an_index_that_was_filled_before_is_taken_over)
{
    struct world world;
    setup(&world, PARTITIONS);
    for (uint64_t i = 0; i < 200000; i++)
        add_to_index(&world, world.end++);
    step_to_the_end(&world);
    assert_all_there(&world);
    cr_assert_leq(passed(&world), 20);
    teardown(&world);
}

/* The partitions grow from nothing through many sizes, with steps of any size in between. */
Test(bloom, no_key_is_ever_missed_while_it_grows)
{
    struct world world;
    setup(&world, 4);
    for (uint32_t round = 0; round < 400; round++) {
        uint64_t adds = prng_below(&world.prng, 400);
        for (uint64_t i = 0; i < adds; i++) {
            add(&world);
            cr_assert(may_contain(&world, world.end - 1));
            if (prng_below(&world.prng, 8) == 0)
                (void)bloom_step(world.bloom, world.index, (uint32_t)prng_below(&world.prng, 100));
        }
        assert_all_there(&world);
    }
    cr_assert_gt(world.end, 50000);
    teardown(&world);
}

Test(bloom, no_key_is_ever_missed_while_others_come_and_go)
{
    struct world world;
    setup(&world, 3);
    for (uint32_t round = 0; round < 300; round++) {
        bool grows = round / 30 % 2 == 0;
        for (uint32_t i = 0; i < 300; i++) {
            bool is_add = prng_below(&world.prng, 10) < (grows ? 8 : 3);
            if (is_add || world.first == world.end)
                add(&world);
            else
                remove_oldest(&world);
            if (prng_below(&world.prng, 16) == 0)
                (void)bloom_step(world.bloom, world.index, 1);
        }
        assert_all_there(&world);
    }
    cr_assert_gt(world.first, 10000);
    teardown(&world);
}

/* A key that was removed and comes again while its partition is being built anew. */
Test(bloom, a_key_that_comes_again_between_two_steps_is_there)
{
    struct world world;
    setup(&world, 1);
    for (uint32_t i = 0; i < 20000; i++)
        add(&world);
    bool is_building = true;
    for (uint64_t number = 0; is_building; number++) {
        struct version version = {number + 1, 1};
        cr_assert_lt(number, 20000);
        cr_assert_eq(index_remove(world.index, 0, hash_of(number), version, NULL), 0);
        is_building = bloom_step(world.bloom, world.index, 1);
        add_to_index(&world, number);
        bloom_add(world.bloom, 0, hash_of(number));
    }
    step_to_the_end(&world);
    assert_all_there(&world);
    teardown(&world);
}

Test(bloom, at_most_two_percent_of_absent_keys_pass_at_any_size)
{
    struct world world;
    setup(&world, 16);
    double sum = 0;
    uint32_t samples = 0;
    step_to_the_end(&world);
    while (world.end < 200000) {
        add(&world);
        if (world.end % 16 == 0)
            (void)bloom_step(world.bloom, world.index, 16 * 6);
        if (world.end < 5000 || world.end % 1000 != 0)
            continue;
        double per_thousand = passed(&world);
        cr_assert_leq(per_thousand, 20, "%llu keys", (unsigned long long)world.end);
        uint64_t bytes_max = world.end * 17 / 10 + 60000; /* 240 partitions are empty */
        cr_assert_leq(bloom_memory(world.bloom), bytes_max);
        sum += per_thousand;
        samples++;
    }
    cr_assert_leq(sum / samples, 13, "on average");
    teardown(&world);
}

/* Without this, a store whose keys come and go would fill the filters with the bits of the dead. */
Test(bloom, removed_keys_are_forgotten_in_time)
{
    struct world world;
    setup(&world, 8);
    for (uint32_t i = 0; i < 20000; i++)
        add(&world);
    step_to_the_end(&world);
    uint64_t memory = bloom_memory(world.bloom);
    for (uint32_t i = 0; i < 200000; i++) {
        remove_oldest(&world);
        add(&world);
        if (i % 16 == 0)
            (void)bloom_step(world.bloom, world.index, 16 * 10);
    }
    assert_all_there(&world);
    cr_assert_leq(passed(&world), 20);
    cr_assert_leq(bloom_memory(world.bloom), 2 * memory);
    teardown(&world);
}

Test(bloom, steps_that_came_too_late_catch_up)
{
    struct world world;
    setup(&world, 8);
    step_to_the_end(&world);
    for (uint32_t i = 0; i < 50000; i++)
        add(&world);
    assert_all_there(&world);
    cr_assert_eq(passed(&world), 1000, "the first filters were far too small");
    cr_assert(bloom_step(world.bloom, world.index, 1), "and say so");
    step_to_the_end(&world);
    assert_all_there(&world);
    cr_assert_leq(passed(&world), 20);
    teardown(&world);
}

/* A walk over the index shows 56 bits of a hash: the others must not count. */
Test(bloom, the_highest_bits_of_a_hash_do_not_count)
{
    struct world world;
    setup(&world, 1);
    for (uint32_t i = 0; i < 1000; i++)
        add(&world);
    step_to_the_end(&world);
    for (uint32_t i = 0; i < 1000; i++)
        cr_assert(bloom_may_contain(world.bloom, 0, hash_of(i) ^ (uint64_t)(i % 256) << 56));
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t hash = hash_of(ABSENT + i);
        bool expected = bloom_may_contain(world.bloom, 0, hash);
        cr_assert_eq(bloom_may_contain(world.bloom, 0, (~hash >> 56 << 56) | (hash << 8 >> 8)),
                     expected);
    }
    teardown(&world);
}

Test(bloom, a_step_does_little)
{
    struct world world;
    setup(&world, 1);
    for (uint32_t i = 0; i < 100000; i++)
        add(&world);
    uint32_t steps = 1;
    while (bloom_step(world.bloom, world.index, 1))
        steps++;
    cr_assert_gt(steps, 100000 / 1000, "not more than some rows of the index each");
    teardown(&world);
}
