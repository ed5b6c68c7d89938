/* Overwrites of keys that are not in memory: nothing is read for them, and the mover drops what
 * they killed when it comes to it. */
#include "tests/support/mover_bench.h"

#define KEYS 60u

static struct bench *bench_new(void)
{
    struct bench *bench = malloc(sizeof *bench);
    cr_assert_not_null(bench);
    bench_init(bench, 23, 2 * KEYS, 2);
    bench->options.compact_min = 1;
    cr_assert_eq(bench_start(bench), 0);
    bench_pause(bench, true);
    return bench;
}

static void bench_delete_it(struct bench *bench)
{
    bench_close(bench);
    free(bench);
}

static void write_keys(struct bench *bench, uint32_t from, uint32_t upto, uint32_t size)
{
    for (uint32_t key = from; key < upto; key++) {
        cr_assert_eq(bench_write(bench, key, size), STORE_OK);
        while (bench->pending_count > 0)
            cr_assert(bench_pass(bench));
    }
}

static void forget(struct bench *bench, uint32_t key)
{
    struct slice name = bench_name(bench, key);
    uint64_t keyed = store_place(bench->store, name).keyed;
    struct cache_entry *entry = cache_find(bench->store->cache, keyed, name);
    if (entry != NULL)
        cache_remove(bench->store->cache, entry);
}

/* Writes them anew; none is in memory then, and every read would fail. */
static void overwrite_unseen(struct bench *bench, uint32_t from, uint32_t upto, bool deletes)
{
    sim_disk_options(bench->disk)->read_error_ppm = 1000000;
    for (uint32_t key = from; key < upto; key++) {
        forget(bench, key);
        cr_assert_eq(deletes ? bench_delete(bench, key) : bench_write(bench, key, 500), STORE_OK);
        while (bench->pending_count > 0)
            cr_assert(bench_pass(bench));
    }
    cr_assert(bench_run(bench, NS_PER_S));
    sim_disk_options(bench->disk)->read_error_ppm = 0;
}

static uint32_t slots_of(const struct bench *bench, uint32_t key)
{
    struct key_place place = store_place(bench->store, bench_name(bench, key));
    struct index_entry entries[CANDIDATES_MAX];
    return index_find(bench->store->index, place.partition, place.hash, entries, CANDIDATES_MAX);
}

static uint64_t keys_of(const struct bench *bench)
{
    struct store_stats stats;
    store_stats(bench->store, &stats);
    return stats.keys;
}

static void check_slots(const struct bench *bench, uint32_t from, uint32_t upto, uint32_t slots)
{
    for (uint32_t key = from; key < upto; key++)
        cr_assert_eq(slots_of(bench, key), slots, "key %u", key);
}

Test(mover_doomed, what_died_in_the_log_is_dropped_when_the_log_is_moved)
{
    struct bench *bench = bench_new();
    write_keys(bench, 0, KEYS, 1000);
    overwrite_unseen(bench, 0, KEYS, false);
    check_slots(bench, 0, KEYS, 2);
    cr_assert_eq(doomed_count(bench->store->doomed), KEYS);
    cr_assert_eq(keys_of(bench), KEYS);
    bench_pause(bench, false);
    bench_roll(bench);
    bench_settle(bench);
    check_slots(bench, 0, KEYS, 1);
    cr_assert_eq(doomed_count(bench->store->doomed), 0);
    cr_assert_eq(bench_moves(bench).buried_records, KEYS);
    bench_check_all(bench);
    bench_restart(bench, false);
    check_slots(bench, 0, KEYS, 1);
    bench_delete_it(bench);
}

/* Its bytes count as dead at once, so that compaction comes. */
Test(mover_doomed, what_died_in_segments_makes_compaction_due)
{
    struct bench *bench = bench_new();
    write_keys(bench, 0, 2 * KEYS, 2000);
    bench_pause(bench, false);
    bench_roll(bench);
    bench_settle(bench);
    bench_pause(bench, true);
    uint64_t keys = keys_of(bench);
    overwrite_unseen(bench, 0, KEYS, false);
    struct segments_stats before = bench_segments(bench);
    cr_assert_geq(before.doomed_bytes, KEYS * 2000);
    cr_assert_geq(before.live_records, 2 * KEYS);
    bench_pause(bench, false);
    bench_roll(bench);
    bench_settle(bench);
    struct segments_stats after = bench_segments(bench);
    cr_assert_gt(bench_moves(bench).compacted_bytes, 0);
    cr_assert_lt(after.doomed_bytes, before.doomed_bytes / 2);
    cr_assert_lt(doomed_count(bench->store->doomed), KEYS / 2);
    cr_assert_eq(keys_of(bench), keys);
    bench_check_all(bench);
    bench_restart(bench, true);
    bench_delete_it(bench);
}

/* A process that dies takes the marks along: recovery proves by reading. */
Test(mover_doomed, marks_that_are_lost_are_made_up_for_by_recovery)
{
    struct bench *bench = bench_new();
    write_keys(bench, 0, KEYS, 1000);
    overwrite_unseen(bench, 0, KEYS / 2, false);
    overwrite_unseen(bench, KEYS / 2, KEYS, true);
    cr_assert_eq(keys_of(bench), KEYS / 2);
    bench_restart(bench, false);
    cr_assert(bench_run(bench, NS_PER_S));
    check_slots(bench, 0, KEYS, 1);
    cr_assert_eq(keys_of(bench), KEYS / 2);
    bench_check_all(bench);
    bench_delete_it(bench);
}

/* Many writes of a key between two visits of the mover: they do not crowd its hash. */
Test(mover_doomed, crowded_slots_are_proved_by_reading)
{
    struct bench *bench = bench_new();
    for (uint32_t round = 0; round < 20; round++) {
        forget(bench, 0);
        write_keys(bench, 0, 1, 300);
    }
    cr_assert(bench_run(bench, NS_PER_S));
    cr_assert_leq(slots_of(bench, 0), CANDIDATES_CROWDED);
    cr_assert_leq(doomed_count(bench->store->doomed), CANDIDATES_CROWDED);
    bench_check_all(bench);
    bench_delete_it(bench);
}

/* What a job has in hand while it dies arrives dead. */
Test(mover_doomed, what_dies_on_its_way_is_dropped)
{
    struct bench *bench = bench_new();
    write_keys(bench, 0, KEYS, 1000);
    bench_roll(bench);
    bench_pause(bench, false);
    while (bench->store->mover->phase != MOVER_SYNCING)
        cr_assert(bench_pass(bench));
    for (uint32_t key = 0; key < KEYS; key++) {
        forget(bench, key);
        cr_assert_eq(bench_write(bench, key, 500), STORE_OK);
    }
    cr_assert_eq(bench->store->mover->phase, MOVER_SYNCING);
    cr_assert_eq(doomed_count(bench->store->doomed), KEYS);
    while (mover_is_busy(bench->store->mover))
        cr_assert(bench_pass(bench));
    cr_assert_eq(bench_moves(bench).buried_records, KEYS);
    check_slots(bench, 0, KEYS, 1);
    bench_check_all(bench);
    bench_restart(bench, false);
    bench_delete_it(bench);
}
