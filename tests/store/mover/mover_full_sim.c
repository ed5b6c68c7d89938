/* A full disk: deletes are taken as long as anything can be freed, and what they free comes back.
 */
#include "tests/support/mover_bench.h"

#include "store/wal/wal_internal.h"

#define FULL_KEYS 1900u

static uint64_t used(struct bench *bench)
{
    uint64_t free_size, total_size;
    cr_assert_eq(io_disk_space(bench->io, BENCH_PATH, &free_size, &total_size), 0);
    return total_size - free_size;
}

static struct bench *bench_new(uint64_t seed, uint64_t log_keep_bytes, uint64_t room)
{
    struct bench *bench = malloc(sizeof *bench);
    cr_assert_not_null(bench);
    bench_init(bench, seed, FULL_KEYS, 40);
    bench->options.log_keep_bytes = log_keep_bytes;
    cr_assert_eq(bench_start(bench), 0);
    cr_assert(bench_run(bench, NS_PER_S));
    sim_disk_options(bench->disk)->capacity = used(bench) + room;
    return bench;
}

static void bench_delete_it(struct bench *bench)
{
    bench_close(bench);
    free(bench);
}

/* Returns how many keys there are when the disk is full. */
static uint32_t fill_up(struct bench *bench)
{
    uint32_t key = 0;
    while (key < FULL_KEYS && bench_write(bench, key, BENCH_VALUE_MAX) == STORE_OK) {
        cr_assert(bench_pass(bench));
        key++;
    }
    cr_assert_lt(key, FULL_KEYS, "the disk is never full");
    bench->keys[key].newest = 0; /* refused */
    return key;
}

static void delete_all(struct bench *bench, uint32_t upto)
{
    for (uint32_t key = 0; key < upto; key++) {
        cr_assert_eq(bench_delete(bench, key), STORE_OK, "seed %" PRIu64 ": delete of key %u",
                     bench->seed, key);
        cr_assert(bench_pass(bench));
    }
}

static void fill_and_delete(uint64_t seed, uint64_t log_keep_bytes, uint64_t room)
{
    struct bench *bench = bench_new(seed, log_keep_bytes, room);
    uint32_t count = fill_up(bench);
    delete_all(bench, count);
    bench_settle(bench);
    uint32_t again = 0;
    for (uint32_t i = 0; i < 100 && again < count / 2; i++) {
        cr_assert(bench_run(bench, 100 * NS_PER_MS));
        while (again < count / 2 && bench_write(bench, again, 3000) == STORE_OK) {
            cr_assert(bench_pass(bench));
            again++;
        }
    }
    cr_assert_geq(again, count / 2, "seed %" PRIu64 ": sets go on by themselves", seed);
    bench_check_all(bench);
    bench_restart(bench, seed % 2 == 0);
    bench_delete_it(bench);
}

/* A record a batch, so that each delete takes a block of the log, and the log many segments. */
Test(mover_full, deletes_are_never_refused)
{
    static const uint64_t keeps[] = {1, 0, 3 * BENCH_SEGMENT_SIZE};
    for (uint64_t seed = 1; seed <= 6; seed++)
        for (uint32_t i = 0; i < 3; i++)
            fill_and_delete(seed, keeps[i], 4 * MIB + seed * 137 * KIB);
}

/* What a failed job wrote behind the ends is given back, or nothing would be left for the next. */
Test(mover_full, job_that_failed_takes_no_space)
{
    struct bench *bench = bench_new(9, 1, 40 * MIB);
    for (uint32_t key = 0; key < 400; key++) {
        cr_assert_eq(bench_write(bench, key, 3000), STORE_OK);
        cr_assert(bench_pass(bench));
    }
    bench_roll(bench);
    bench_settle(bench);
    bench_pause(bench, true);
    for (uint32_t key = 400; key < 500; key++) {
        cr_assert_eq(bench_write(bench, key, 3000), STORE_OK);
        cr_assert(bench_pass(bench));
    }
    bench_roll(bench);
    cr_assert(bench_run(bench, NS_PER_S));
    uint64_t before = used(bench);
    sim_disk_options(bench->disk)->capacity = before + 128 * KIB;
    bench->store->reserve.is_taken = false; /* it stays */
    bench_pause(bench, false);
    while (!bench->store->mover->policy.is_tight)
        cr_assert(bench_pass(bench));
    cr_assert_leq(used(bench), before);
    bench_delete_it(bench);
}
