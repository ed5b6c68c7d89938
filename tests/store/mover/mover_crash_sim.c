/* The mover under crashes and on bad disks: random writes, a loss of power or a kill at a random
 * step, also within recovery, again and again on the same disk; a disk that runs full, or fails, in
 * the middle of a job. */
#include "tests/support/mover_bench.h"
#include "store/wal/wal_internal.h"
#include "store/disk/wait.h"

#include <errno.h>

#define CRASH_KEYS 400u

static struct bench *bench_new(uint64_t seed, uint32_t partitions)
{
    struct bench *bench = malloc(sizeof *bench);
    cr_assert_not_null(bench);
    bench_init(bench, seed, CRASH_KEYS, partitions);
    return bench;
}

static void bench_delete_it(struct bench *bench)
{
    bench_close(bench);
    free(bench);
}

/* ---- crashes ---- */

static void choose_options(struct bench *bench)
{
    static const uint64_t checkpoints[] = {1, 50, 500, UINT64_MAX};
    struct prng *prng = &bench->prng;
    bench->options.log_keep_bytes = prng_below(prng, 2) == 0 ? 1 : BENCH_SEGMENT_SIZE;
    bench->options.mover_stage = prng_below(prng, 2) == 0 ? 16 * KIB : 0;
    bench->options.checkpoint_min = checkpoints[prng_below(prng, 4)];
    bench->options.cache_size = (64 + prng_below(prng, 512)) * KIB;
}

static uint32_t any_size(struct bench *bench)
{
    bool is_small = prng_below(&bench->prng, 3) != 0;
    return 8 + (uint32_t)prng_below(&bench->prng, is_small ? 200 : BENCH_VALUE_MAX - 8);
}

/* Most writes go to a few keys, so that there is something dead everywhere. */
static void write_some(struct bench *bench)
{
    struct prng *prng = &bench->prng;
    for (uint64_t count = prng_below(prng, 40); count > 0; count--) {
        uint32_t range = prng_below(prng, 4) == 0 ? CRASH_KEYS : CRASH_KEYS / 4;
        uint32_t key = (uint32_t)prng_below(prng, range);
        enum store_status status = prng_below(prng, 4) == 0
                                       ? bench_delete(bench, key)
                                       : bench_write(bench, key, any_size(bench));
        if (status != STORE_OK)
            return;
    }
}

/* Returns false when it crashed. */
static bool live(struct bench *bench, uint32_t passes)
{
    for (uint32_t i = 0; i < passes; i++) {
        if (prng_below(&bench->prng, 3) != 0)
            write_some(bench);
        if (sim_host_is_crashed(bench->io) || !bench_pass(bench))
            return false;
    }
    return true;
}

static bool check_recovered(struct bench *bench, struct bench_found *found)
{
    for (uint32_t key = 0; key < bench->key_count; key++)
        if (!bench_check_recovered(bench, key, found))
            return false;
    return true;
}

static void live_once(struct bench *bench)
{
    struct bench_found *found = malloc(sizeof *found); /* a get may be under way at the end */
    struct prng *prng = &bench->prng;
    choose_options(bench);
    struct io_options io_options = {.files_max = 2048,
                                    .sockets_max = 4,
                                    .receive_buffer_size = 4096,
                                    .receive_buffer_count = 4,
                                    .region_size = store_region_size(&bench->options)};
    sim_host_open(bench->sim, bench->disk, &io_options, &bench->io);
    if (prng_below(prng, 6) != 0)
        sim_host_crash_after(bench->io, prng_below(prng, prng_below(prng, 3) == 0 ? 3000 : 20000),
                             prng_below(prng, 3) == 0 ? SIM_KILL : SIM_POWER_LOSS);
    int result = bench_start(bench);
    cr_assert(result == 0 || sim_host_is_crashed(bench->io), "seed %" PRIu64 ": open says %d",
              bench->seed, result);
    if (result == 0 && check_recovered(bench, found) && live(bench, 600)) {
        result = store_shut(bench->store);
        cr_assert(result == 0 || sim_host_is_crashed(bench->io), "seed %" PRIu64 ": shut says %d",
                  bench->seed, result);
        if (result == 0)
            for (; bench->pending_count > 0; bench->pending_count--, bench->pending_first++) {
                struct bench_pending *last =
                    &bench->pending[bench->pending_first % BENCH_PENDING_MAX];
                bench->keys[last->key].floor = last->number;
            }
    }
    cr_assert(bench->failed == 0 || sim_host_is_crashed(bench->io), "seed %" PRIu64 ": %d",
              bench->seed, bench->failed);
    bench->pending_count = 0;
    bench_end(bench);
    free(found);
    if (prng_below(prng, 3) == 0)
        sim_disk_lose_power(bench->disk);
}

Test(mover_crash, what_was_acknowledged_survives_wherever_it_lies, .timeout = 120)
{
    const char *text = getenv("MINIVAULT_SEED");
    uint64_t first = text != NULL ? strtoull(text, NULL, 10) : 1;
    const char *many = getenv("MINIVAULT_SEEDS");
    uint64_t count = many != NULL ? strtoull(many, NULL, 10) : text != NULL ? 1 : 25;
    uint64_t moved = 0, removed = 0, compacted = 0, purged = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct bench *bench = bench_new(seed, 1 + seed % 3 * 5);
        for (uint32_t i = 0; i < 10; i++)
            live_once(bench);
        moved += bench->moved;
        removed += bench->removed;
        compacted += bench->compacted;
        purged += bench->purged;
        sim_free(bench->sim);
        free(bench);
    }
    cr_assert(count < 10 || (moved > 1000 && removed > 100 && compacted > 1000 && purged > 10),
              "the mover must have worked: %" PRIu64 " moved, %" PRIu64
              " segments removed, %" PRIu64 " bytes compacted, %" PRIu64 " purged",
              moved, removed, compacted, purged);
}

/* ---- a full disk ---- */

static uint64_t used(struct bench *bench)
{
    uint64_t free_size, total_size;
    cr_assert_eq(io_disk_space(bench->io, BENCH_PATH, &free_size, &total_size), 0);
    return total_size - free_size;
}

static void write_all(struct bench *bench, uint32_t from, uint32_t upto)
{
    for (uint32_t key = from; key < upto; key++) {
        cr_assert_eq(bench_write(bench, key, 3000), STORE_OK);
        cr_assert(bench_pass(bench));
    }
}

/* The disk is full for every job, at another place in each, then it is not. */
Test(mover_crash, job_on_a_full_disk_loses_nothing_and_goes_on_when_there_is_room)
{
    for (uint64_t more = 0; more < 40; more += 3) {
        struct bench *bench = bench_new(more + 1, 3);
        cr_assert_eq(bench_start(bench), 0);
        bench_pause(bench, true);
        write_all(bench, 0, CRASH_KEYS);
        cr_assert(bench_run(bench, NS_PER_S));
        uint64_t capacity = sim_disk_options(bench->disk)->capacity;
        sim_disk_options(bench->disk)->capacity = used(bench) + more * 8 * KIB;
        bench_pause(bench, false);
        cr_assert(bench_run(bench, 5 * NS_PER_S), "a full disk is no failure");
        bench_check_all(bench);
        sim_disk_options(bench->disk)->capacity = capacity;
        cr_assert(bench_run(bench, 5 * NS_PER_S));
        bench_settle(bench);
        cr_assert_gt(bench_moves(bench).moved_records, 200);
        bench_check_all(bench);
        cr_assert_eq(bench_all_files(bench), bench_segments(bench).segments);
        bench_restart(bench, more % 2 == 0);
        bench_delete_it(bench);
    }
}

Test(mover_crash, space_that_new_segments_are_refused_at_random_is_retried)
{
    struct bench *bench = bench_new(99, 3);
    cr_assert_eq(bench_start(bench), 0);
    bench_pause(bench, true);
    write_all(bench, 0, CRASH_KEYS);
    cr_assert(bench_run(bench, NS_PER_S));
    bench_pause(bench, false);
    sim_disk_options(bench->disk)->no_space_ppm = 400000;
    cr_assert(bench_run(bench, 40 * NS_PER_S));
    sim_disk_options(bench->disk)->no_space_ppm = 0;
    cr_assert(bench_run(bench, 3 * NS_PER_S));
    bench_settle(bench);
    cr_assert_gt(bench_moves(bench).moved_records, 200);
    bench_check_all(bench);
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* ---- a disk that fails ---- */

/* After so many passes of a job, every write and sync fails. */
static void fail_after(uint64_t seed, uint32_t passes)
{
    struct bench *bench = bench_new(seed, 3);
    cr_assert_eq(bench_start(bench), 0);
    bench_pause(bench, true);
    write_all(bench, 0, CRASH_KEYS);
    cr_assert(bench_run(bench, NS_PER_S));
    bench_pause(bench, false);
    for (uint32_t i = 0; i < passes; i++)
        cr_assert(bench_pass(bench));
    struct sim_disk_options *disk = sim_disk_options(bench->disk);
    disk->write_error_ppm = disk->sync_error_ppm = 1000000;
    bool is_moving = mover_is_busy(bench->store->mover);
    (void)bench_run(bench, 5 * NS_PER_S);
    cr_assert(!is_moving || bench->failed == -EIO || bench->failed == 0);
    disk->write_error_ppm = disk->sync_error_ppm = 0;
    bench_restart(bench, false);
    bench_settle(bench);
    bench_check_all(bench);
    bench_delete_it(bench);
}

Test(mover_crash, device_that_fails_at_any_moment_of_a_job_loses_nothing)
{
    for (uint32_t passes = 0; passes < 40; passes++)
        fail_after(passes + 1, passes);
}

Test(mover_crash, device_that_takes_no_segments_fails_the_store)
{
    struct bench *bench = bench_new(4, 3);
    cr_assert_eq(bench_start(bench), 0);
    bench_pause(bench, true);
    write_all(bench, 0, CRASH_KEYS);
    cr_assert(bench_run(bench, NS_PER_S));
    struct sim_disk_options *disk = sim_disk_options(bench->disk);
    disk->write_error_ppm = disk->sync_error_ppm = 1000000;
    bench_pause(bench, false);
    cr_assert_not(bench_run(bench, 5 * NS_PER_S));
    cr_assert_eq(bench->failed, -EIO);
    uint64_t jobs = bench_moves(bench).jobs;
    for (uint32_t i = 0; i < 5000; i++) {
        (void)store_flush(bench->store, STORE_PASS_BYTES);
        (void)io_run(bench->io, NS_PER_MS);
    }
    cr_assert_eq(bench_moves(bench).jobs, jobs, "it does not try again");
    disk->write_error_ppm = disk->sync_error_ppm = 0;
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* Reads that fail now and then are damage of the input until the next start: it stays. */
Test(mover_crash, input_that_cannot_be_read_stays)
{
    struct bench *bench = bench_new(5, 3);
    cr_assert_eq(bench_start(bench), 0);
    bench_pause(bench, true);
    write_all(bench, 0, CRASH_KEYS);
    cr_assert(bench_run(bench, NS_PER_S));
    sim_disk_options(bench->disk)->read_error_ppm = 1000000;
    bench_pause(bench, false);
    cr_assert(bench_run(bench, 5 * NS_PER_S));
    cr_assert_eq(bench_moves(bench).moved_records, 0);
    sim_disk_options(bench->disk)->read_error_ppm = 0;
    bench_check_all(bench);
    bench_restart(bench, true);
    bench_settle(bench);
    cr_assert_gt(bench_moves(bench).moved_records, 200, "a start looks again");
    bench_check_all(bench);
    bench_delete_it(bench);
}

/* The manifest may name them, or not. */
Test(mover_crash, segments_stay_when_nobody_knows_whether_they_were_committed)
{
    struct bench *bench = bench_new(6, 3);
    cr_assert_eq(bench_start(bench), 0);
    bench_pause(bench, true);
    write_all(bench, 0, CRASH_KEYS);
    cr_assert(bench_run(bench, NS_PER_S));
    bench_pause(bench, false);
    const struct mover *mover = bench->store->mover;
    for (uint32_t i = 0; i < 10000 && !mover->is_committing; i++) {
        cr_assert_geq(io_run(bench->io, NS_PER_MS), 0);
        (void)store_flush(bench->store, STORE_PASS_BYTES);
    }
    cr_assert(mover->is_committing);
    cr_assert_eq(bench_segments(bench).segments, 0);
    struct sim_disk_options *disk = sim_disk_options(bench->disk);
    disk->write_error_ppm = 1000000;
    cr_assert_not(bench_run(bench, 5 * NS_PER_S));
    cr_assert_eq(bench->failed, -EIO);
    for (uint32_t i = 0; i < 100; i++) {
        (void)store_flush(bench->store, STORE_PASS_BYTES);
        (void)io_run(bench->io, NS_PER_MS);
    }
    cr_assert_geq(bench_all_files(bench), 3);
    disk->write_error_ppm = 0;
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* It is read once, not for ever. */
Test(mover_crash, segment_that_was_cut_is_damaged_and_stays)
{
    struct bench *bench = bench_new(7, 1);
    cr_assert_eq(bench_start(bench), 0);
    write_all(bench, 0, CRASH_KEYS);
    bench_roll(bench);
    bench_settle(bench);
    bench_pause(bench, true);
    for (uint32_t key = 0; key < CRASH_KEYS; key++)
        if (key % 4 != 0)
            cr_assert_eq(bench_write(bench, key, 8), STORE_OK);
    cr_assert(bench_run(bench, NS_PER_S));
    const struct segment *segment = segments_first(bench->store->segments, 0);
    cr_assert_eq(disk_wait_truncate(bench->io, segment->path, SEGMENT_DATA_OFFSET), 0);
    bench_pause(bench, false);
    cr_assert(bench_run(bench, 10 * NS_PER_S));
    cr_assert(segment->is_damaged);
    cr_assert_lt(bench_moves(bench).read_bytes, 64 * MIB);
    cr_assert_gt(bench_moves(bench).compacted_bytes, 0, "the others are compacted");
    bench_delete_it(bench);
}
