/* The mover: from the log to the segments, and from segments to segments. */
#include "tests/support/mover_bench.h"

#include "store/wal/wal_internal.h"
#include "store/memory/location.h"

static struct bench *bench_new(uint32_t key_count, uint32_t partitions)
{
    struct bench *bench = malloc(sizeof *bench);
    cr_assert_not_null(bench);
    bench_open(bench, 7, key_count, partitions);
    return bench;
}

static void bench_delete_it(struct bench *bench)
{
    bench_close(bench);
    free(bench);
}

static uint32_t any_size(struct bench *bench)
{
    return 8 + (uint32_t)prng_below(&bench->prng, BENCH_VALUE_MAX - 8 + 1);
}

static void write_all(struct bench *bench, uint32_t from, uint32_t upto, uint32_t size)
{
    for (uint32_t key = from; key < upto; key++) {
        cr_assert_eq(bench_write(bench, key, size != 0 ? size : any_size(bench)), STORE_OK);
        cr_assert(bench_pass(bench));
    }
}

/* In as few batches as can be, so that they all lie in the log's open segment. */
static void write_at_once(struct bench *bench, uint32_t from, uint32_t upto)
{
    for (uint32_t key = from; key < upto; key++)
        cr_assert_eq(bench_write(bench, key, 8), STORE_OK);
}

static void delete_all(struct bench *bench, uint32_t from, uint32_t upto)
{
    for (uint32_t key = from; key < upto; key++) {
        cr_assert_eq(bench_delete(bench, key), STORE_OK);
        cr_assert(bench_pass(bench));
    }
}

/* What the index says is alive, and what the accounts say. */
static void check_accounts(struct bench *bench)
{
    struct segments_stats segments = bench_segments(bench);
    struct wal_stats wal;
    wal_stats(bench->store->wal, &wal);
    cr_assert_eq(segments.live_records + wal.live_records, index_count(bench->store->index));
    cr_assert_leq(segments.live_bytes, segments.size_bytes + segments.size_bytes / 4);
    cr_assert_eq(bench_all_files(bench), segments.segments, "what is on the disk is in the table");
}

Test(mover, what_was_moved_is_found_where_the_index_says)
{
    struct bench *bench = bench_new(600, 50);
    write_all(bench, 0, 600, 0);
    write_all(bench, 100, 200, 0);
    delete_all(bench, 150, 250);
    bench_roll(bench);
    bench_settle(bench);
    struct wal_stats wal;
    wal_stats(bench->store->wal, &wal);
    cr_assert_gt(wal.recycled, 0, "the log's segments come back");
    cr_assert_geq(bench_moves(bench).moved_records, 500);
    cr_assert_gt(bench_segments(bench).live_records, 500);
    bench_check_all(bench);
    check_accounts(bench);
    bench_restart(bench, true);
    check_accounts(bench);
    bench_restart(bench, false);
    check_accounts(bench);
    bench_delete_it(bench);
}

/* The first record of the key is in a segment and nobody opened its file yet. */
Test(mover, index_names_segment_and_bytes_of_every_moved_record)
{
    struct bench *bench = bench_new(100, 4);
    write_all(bench, 0, 100, 1000);
    bench_roll(bench);
    bench_settle(bench);
    uint32_t in_segments = 0;
    for (uint32_t key = 0; key < 100; key++) {
        struct key_place place = store_place(bench->store, bench_name(bench, key));
        struct index_entry entry;
        cr_assert_eq(index_find(bench->store->index, place.partition, place.hash, &entry, 1), 1);
        in_segments += location_is_segment(entry.location);
        const struct segment *segment =
            segments_find(bench->store->segments, location_file(entry.location));
        cr_assert_not_null(segment);
        cr_assert_eq(segment->partition, key % 4);
        cr_assert_eq(segment->source, SEGMENT_FROM_LOG, "filled from the log");
        uint64_t offset = location_offset(entry.location);
        cr_assert(offset >= SEGMENT_DATA_OFFSET && offset + entry.read_size <= segment->end + 4096);
    }
    cr_assert_eq(in_segments, 100);
    bench_check_all(bench);
    bench_delete_it(bench);
}

Test(mover, what_died_in_the_log_is_never_copied)
{
    struct bench *bench = bench_new(50, 5);
    bench_pause(bench, true);
    for (uint32_t round = 0; round < 20; round++)
        write_all(bench, 0, 50, 2000);
    bench_roll(bench);
    bench_pause(bench, false);
    bench_settle(bench);
    struct mover_stats moves = bench_moves(bench);
    cr_assert_leq(moves.moved_records, 50 + BENCH_FILLERS);
    cr_assert_geq(moves.moved_records, 50);
    bench_check_all(bench);
    bench_delete_it(bench);
}

Test(mover, log_is_kept_up_to_what_it_may_keep)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_init(bench, 3, 900, 5);
    bench->options.log_keep_bytes = 4 * BENCH_SEGMENT_SIZE;
    cr_assert_eq(bench_start(bench), 0);
    write_all(bench, 0, 200, 3000);
    bench_settle(bench);
    cr_assert_eq(bench_moves(bench).jobs, 0, "less than four segments are sealed");
    write_all(bench, 200, 900, 3000);
    bench_settle(bench);
    cr_assert_gt(bench_moves(bench).jobs, 0);
    cr_assert_leq(wal_sealed_bytes(bench->store->wal), 4 * BENCH_SEGMENT_SIZE);
    bench_check_all(bench);
    bench_delete_it(bench);
}

static uint64_t log_files(const struct bench *bench)
{
    struct wal_stats stats;
    wal_stats(bench->store->wal, &stats);
    return stats.files;
}

/* Of all that waits in the log, a quarter of a segment at a time. */
Test(mover, one_job_fills_the_stage_several_times)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_init(bench, 9, 900, 5);
    bench->options.mover_stage = BENCH_SEGMENT_SIZE / 4;
    cr_assert_eq(bench_start(bench), 0);
    bench_pause(bench, true);
    write_all(bench, 0, 900, 3000);
    bench_roll(bench);
    bench_pause(bench, false);
    bench_settle(bench);
    struct mover_stats moves = bench_moves(bench);
    cr_assert_geq(moves.moved_bytes, 8 * BENCH_SEGMENT_SIZE);
    uint64_t stages = moves.moved_bytes / bench->options.mover_stage;
    cr_assert_leq(moves.jobs, stages / 3 * 2, "%" PRIu64 " jobs of %" PRIu64 " stages", moves.jobs,
                  stages);
    check_accounts(bench);
    bench_check_all(bench);
    bench_end(bench);
    cr_assert_eq(bench_start(bench), 0);
    check_accounts(bench);
    bench_check_all(bench);
    bench_delete_it(bench);
}

/* As long as it is in use, so that none is made anew. */
Test(mover, spare_segments_stay_for_a_log_that_grows_again)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_init(bench, 11, 900, 5);
    bench->options.log_keep_bytes = 4 * BENCH_SEGMENT_SIZE;
    cr_assert_eq(bench_start(bench), 0);
    uint64_t most = 0;
    for (uint32_t burst = 0; burst < 4; burst++) {
        bench_pause(bench, true);
        write_all(bench, 0, burst == 0 ? 900 : 200, 3000);
        if (burst > 0)
            cr_assert_leq(log_files(bench), most, "none is made anew");
        most = max_u64(most, log_files(bench));
        bench_pause(bench, false);
        while (mover_is_busy(bench->store->mover) ||
               wal_sealed_bytes(bench->store->wal) > 8 * BENCH_SEGMENT_SIZE)
            write_all(bench, 0, 1, 8);
        cr_assert_geq(log_files(bench), most - 1, "%" PRIu64 " of %" PRIu64, log_files(bench),
                      most);
    }
    cr_assert_geq(most, 11);
    cr_assert_leq(most, 9 + WAL_SPARES_KEPT + 2, "two and a quarter times four");
    cr_assert(bench_run(bench, 10 * NS_PER_S));
    cr_assert_leq(bench->store->wal->files->spare_count, WAL_SPARES_KEPT);
    cr_assert_leq(wal_sealed_bytes(bench->store->wal), 2 * bench->options.log_keep_bytes,
                  "twice, where the oldest segment is all but dead");
    bench_check_all(bench);
    bench_delete_it(bench);
}

/* A segment has about a hundred of these records, and one in three has one left when its turn
 * comes; in as long again it has none. */
Test(mover, segments_that_are_all_but_dead_are_left_to_die)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_init(bench, 5, 60, 5);
    bench->options.log_keep_bytes = 4 * BENCH_SEGMENT_SIZE;
    cr_assert_eq(bench_start(bench), 0);
    for (uint32_t i = 0; i < 6000; i++) {
        cr_assert_eq(bench_write(bench, (uint32_t)prng_below(&bench->prng, 60), 3000), STORE_OK);
        cr_assert(bench_run(bench, 10 * NS_PER_MS));
    }
    cr_assert_gt(wal_number(bench->store->wal), 50);
    cr_assert_leq(bench_moves(bench).jobs, 30, "%" PRIu64 " jobs for %" PRIu64 " segments",
                  bench_moves(bench).jobs, wal_number(bench->store->wal));
    bench_check_all(bench);
    bench_delete_it(bench);
}

/* Those that the newest header lists stay, until the log goes on in another segment. */
Test(mover, log_that_has_been_long_is_short_again_when_nothing_is_written)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_open(bench, 4, 900, 5);
    bench_pause(bench, true);
    write_all(bench, 0, 900, 3000);
    uint64_t most = log_files(bench);
    cr_assert_geq(most, 9);
    bench_pause(bench, false);
    bench_settle(bench);
    cr_assert(bench_run(bench, 5 * NS_PER_S));
    cr_assert_leq(log_files(bench), 5, "%" PRIu64 " of %" PRIu64, log_files(bench), most);
    uint64_t number = wal_number(bench->store->wal);
    cr_assert(bench_run(bench, 5 * NS_PER_S));
    cr_assert_eq(wal_number(bench->store->wal), number, "not for ever");
    bench_end(bench);
    cr_assert_eq(bench_start(bench), 0);
    bench_check_all(bench);
    bench_delete_it(bench);
}

Test(mover, compaction_frees_segments_and_then_rests)
{
    struct bench *bench = bench_new(800, 2);
    write_all(bench, 0, 800, 3000);
    bench_roll(bench);
    bench_settle(bench);
    uint64_t before = bench_segments(bench).size_bytes;
    for (uint32_t key = 0; key < 800; key++) {
        if (key % 8 != 0)
            cr_assert_eq(bench_write(bench, key, 8), STORE_OK);
        cr_assert(bench_pass(bench));
    }
    bench_roll(bench);
    bench_settle(bench);
    struct mover_stats moves = bench_moves(bench);
    cr_assert_gt(moves.removed_segments, 0);
    cr_assert_gt(moves.compacted_bytes, 0);
    cr_assert_lt(bench_segments(bench).size_bytes, before / 2);
    check_accounts(bench);
    bench_check_all(bench);
    cr_assert(bench_run(bench, 20 * NS_PER_S));
    cr_assert_leq(bench_moves(bench).jobs, moves.jobs + 1, "there is nothing left to gain");
    bench_restart(bench, false);
    check_accounts(bench);
    bench_delete_it(bench);
}

/* Entries and padding are a third of what tiny records take: they are not dead. */
Test(mover, tiny_records_are_not_compacted_for_ever)
{
    struct bench *bench = bench_new(2000, 1);
    for (uint32_t round = 0; round < 3; round++) {
        write_all(bench, 0, 2000, 8);
        bench_roll(bench);
    }
    bench_settle(bench);
    uint64_t jobs = bench_moves(bench).jobs;
    cr_assert(bench_run(bench, 30 * NS_PER_S));
    cr_assert_eq(bench_moves(bench).jobs, jobs);
    bench_delete_it(bench);
}

Test(mover, segments_with_nothing_alive_leave_disk_and_manifest)
{
    struct bench *bench = bench_new(120, 1);
    write_all(bench, 0, 120, 3000);
    bench_roll(bench);
    bench_settle(bench);
    cr_assert_geq(bench_files(bench, 0), 1);
    write_at_once(bench, 0, 120);
    bench_settle(bench);
    cr_assert_eq(bench_files(bench, 0), 0, "all of it was overwritten, and lies in the log");
    cr_assert_null(segments_first(bench->store->segments, 0));
    check_accounts(bench);
    bench_restart(bench, false);
    cr_assert_eq(bench_files(bench, 0), 0);
    bench_delete_it(bench);
}

/* Whatever the log's durability. */
static void settle_moved(struct bench *bench, uint32_t key_count)
{
    bench_roll(bench);
    bench_settle(bench);
    for (uint32_t key = 0; key < key_count; key++)
        bench->keys[key].floor = bench->keys[key].newest;
}

/* Where writes become durable late, what they kill may not go before. */
Test(mover, segment_stays_until_what_killed_its_records_is_durable)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_init(bench, 5, 10, 1);
    bench->options.durability = WAL_NONE;
    bench->is_lossy = true;
    cr_assert_eq(bench_start(bench), 0);
    write_all(bench, 0, 10, 100);
    settle_moved(bench, 10);
    cr_assert_eq(bench_files(bench, 0), 1);
    write_all(bench, 0, 10, 100);
    cr_assert(bench_run(bench, 5 * NS_PER_S));
    cr_assert_eq(bench_files(bench, 0), 1);
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* A checkpoint leaves the overwritten out: it may not count before what overwrote it is durable. */
Test(mover, checkpoint_counts_when_what_it_shows_is_durable)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_init(bench, 6, 20, 1);
    bench->options.durability = WAL_NONE;
    bench->is_lossy = true;
    cr_assert_eq(bench_start(bench), 0);
    write_all(bench, 0, 20, 100);
    settle_moved(bench, 20);
    write_all(bench, 0, 10, 100);
    bench->store->checkpoints.options.moved_min = 1;
    cr_assert(bench_run(bench, 5 * NS_PER_S));
    cr_assert_eq(bench->store->checkpoints.number, 0);
    cr_assert(bench->store->checkpoints.is_written, "it waits");
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* ... and does, at a clean end, whatever the durability. */
Test(mover, checkpoint_at_the_end_is_used_by_the_next_start)
{
    static const enum wal_durability modes[] = {WAL_COMMIT, WAL_INTERVAL, WAL_NONE};
    for (uint32_t i = 0; i < 3; i++) {
        struct bench *bench = malloc(sizeof *bench);
        bench_init(bench, 8, 200, 10);
        bench->options.durability = modes[i];
        cr_assert_eq(bench_start(bench), 0);
        write_all(bench, 0, 200, 2000);
        bench_roll(bench);
        bench_settle(bench);
        bench->store->checkpoints.options.moved_min = 1;
        delete_all(bench, 0, 50);
        bench_restart(bench, true);
        cr_assert_neq(bench->store->checkpoints.number, 0);
        cr_assert_eq(bench->store->checkpoints.parts.moved, 0, "all of it is in the checkpoint");
        bench_delete_it(bench);
    }
}

/* A number that a checkpoint names means one file for ever, also when the manifest, written anew,
 * has forgotten it. */
Test(mover, number_of_a_segment_is_never_given_again)
{
    struct bench *bench = bench_new(200, 1);
    write_all(bench, 0, 200, 3000);
    bench_roll(bench);
    bench_settle(bench);
    bench->store->checkpoints.options.moved_min = 1;
    cr_assert(bench_run(bench, 2 * NS_PER_S));
    cr_assert_eq(bench->store->checkpoints.number, 1);
    bench->store->checkpoints.options.moved_min = UINT64_MAX;
    write_at_once(bench, 0, bench->key_count + BENCH_FILLERS);
    bench_settle(bench);
    cr_assert_eq(bench_segments(bench).segments, 0);
    uint64_t last = mover_number_last(bench->store->mover);
    cr_assert_gt(last, 0);
    manifest_renew(bench->store->manifest);
    while (manifest_is_busy(bench->store->manifest))
        cr_assert(bench_pass(bench));
    bench_restart(bench, false);
    cr_assert_eq(bench->store->checkpoints.segment_last, last);
    bench_delete_it(bench);
}

/* The checkpoint's commit may be under way when the mover's is due, and the other way round. */
Test(mover, checkpoints_and_jobs_share_the_manifest)
{
    struct bench *bench = bench_new(500, 100);
    bench->store->checkpoints.options.moved_min = 1;
    for (uint32_t round = 0; round < 12; round++) {
        write_all(bench, 0, 500, 1500);
        cr_assert(bench_run(bench, prng_below(&bench->prng, 300) * NS_PER_MS));
    }
    bench_settle(bench);
    cr_assert_gt(bench->store->checkpoints.number, 3);
    bench_check_all(bench);
    bench_restart(bench, false);
    bench_delete_it(bench);
}
