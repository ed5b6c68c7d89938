/* Inputs that are damaged, and inputs whose batches and chunks do not end where reads do. */
#include "tests/support/mover_bench.h"

#include "store/wal/wal_internal.h"
#include "store/memory/location.h"

static struct bench *bench_new(uint32_t window, uint32_t key_count, uint32_t partitions)
{
    struct bench *bench = malloc(sizeof *bench);
    cr_assert_not_null(bench);
    bench_init(bench, 17, key_count, partitions);
    bench->options.mover_window = window;
    bench->options.compact_min = 1;
    cr_assert_eq(bench_start(bench), 0);
    return bench;
}

static void bench_delete_it(struct bench *bench)
{
    bench_close(bench);
    free(bench);
}

/* `together` records a batch. */
static void write_keys(struct bench *bench, uint32_t from, uint32_t upto, uint32_t size,
                       uint32_t together)
{
    for (uint32_t key = from; key < upto; key++) {
        cr_assert_eq(bench_write(bench, key, size), STORE_OK);
        while ((key - from + 1) % together == 0 && bench->pending_count > 0)
            cr_assert(bench_pass(bench));
    }
}

static struct index_entry entry_of(const struct bench *bench, uint32_t key)
{
    struct key_place place = store_place(bench->store, bench_name(bench, key));
    struct index_entry entry;
    cr_assert_eq(index_find(bench->store->index, place.partition, place.hash, &entry, 1), 1);
    return entry;
}

static struct segment *segment_of(const struct bench *bench, uint32_t key)
{
    struct index_entry entry = entry_of(bench, key);
    cr_assert(location_is_segment(entry.location));
    return segments_find(bench->store->segments, location_file(entry.location));
}

/* ---- where reads end ---- */

static void move_all(uint32_t window, uint32_t together)
{
    struct bench *bench = bench_new(window, 300, 3);
    bench_pause(bench, true);
    write_keys(bench, 0, 300, 1700, together);
    bench_roll(bench);
    bench_pause(bench, false);
    bench_settle(bench);
    for (uint32_t key = 0; key < 300; key++)
        (void)segment_of(bench, key);
    for (uint32_t key = 0; key < 300; key += 2) {
        cr_assert_eq(bench_write(bench, key, 8), STORE_OK);
        cr_assert(bench_pass(bench));
    }
    bench_roll(bench);
    bench_settle(bench);
    cr_assert_gt(bench_moves(bench).compacted_bytes, 0);
    struct segments_stats segments = bench_segments(bench);
    const struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(bench->store->segments, i)) != NULL; i++)
        cr_assert_not(segment->is_damaged);
    cr_assert_geq(segments.live_records, 300);
    bench_check_all(bench);
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* A batch or chunk that a read brought the begin of is begun anew once all of it is there. */
Test(mover_damage, batches_and_chunks_that_cross_the_window_are_moved_whole)
{
    static const uint32_t windows[] = {4 * KIB, 12 * KIB, 64 * KIB, MIB};
    static const uint32_t together[] = {1, 7, 100};
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t j = 0; j < 3; j++)
            move_all(windows[i], together[j]);
}

/* ---- damage ---- */

/* The file that the record of `key` lies in, and where. */
static uint64_t find_file(const struct bench *bench, uint32_t key, char *ret_path)
{
    struct index_entry entry = entry_of(bench, key);
    if (location_is_segment(entry.location)) {
        (void)snprintf(ret_path, SEGMENT_PATH_MAX, "%s", segment_of(bench, key)->path);
        return location_offset(entry.location);
    }
    const struct log_file *file =
        wal_files_find(bench->store->wal->files, location_file(entry.location));
    (void)snprintf(ret_path, SEGMENT_PATH_MAX, "%s", file->path);
    return location_offset(entry.location);
}

/* Spoils the header of the batch or chunk whose first record is the one of `key`. */
static void rot_header(struct bench *bench, uint32_t key)
{
    char path[SEGMENT_PATH_MAX];
    uint64_t offset = find_file(bench, key, path) & ~(uint64_t)(DISK_BLOCK_SIZE - 1);
    cr_assert(sim_disk_rot(bench->disk, path, offset + 16, 48));
}

Test(mover_damage, what_lies_behind_a_damaged_batch_is_moved)
{
    struct bench *bench = bench_new(16 * KIB, 60, 3);
    bench_pause(bench, true);
    write_keys(bench, 0, 60, 3000, 1);
    bench_roll(bench);
    rot_header(bench, 20);
    rot_header(bench, 21);
    rot_header(bench, 40);
    bench_pause(bench, false);
    bench_settle(bench);
    for (uint32_t key = 0; key < 60; key++) {
        bool is_lost = key == 20 || key == 21 || key == 40;
        cr_assert_eq(location_is_segment(entry_of(bench, key).location), !is_lost, "key %u", key);
    }
    uint64_t jobs = bench_moves(bench).jobs;
    cr_assert_eq(bench->store->findings.damaged, 2, "two that are neighbours are one place");
    cr_assert(bench_run(bench, 20 * NS_PER_S));
    cr_assert_eq(bench_moves(bench).jobs, jobs, "a damaged input is not tried again");
    bench_delete_it(bench);
}

/* A unit longer than a block: what its header says is believed, so its records are not taken for
 * headers, and the next unit is found. */
Test(mover_damage, damaged_directory_costs_its_chunk_alone)
{
    struct bench *bench = bench_new(16 * KIB, 180, 1);
    for (uint32_t i = 0; i < 3; i++) { /* a job and a chunk each */
        bench_pause(bench, true);
        write_keys(bench, i * 60, i * 60 + 60, 1000, 1);
        bench_roll(bench);
        bench_pause(bench, false);
        bench_settle(bench);
    }
    struct segment *segment = segment_of(bench, 60);
    cr_assert_eq(segment_of(bench, 179), segment);
    char path[SEGMENT_PATH_MAX];
    uint64_t chunk = find_file(bench, 60, path) & ~(uint64_t)(DISK_BLOCK_SIZE - 1);
    cr_assert(sim_disk_rot(bench->disk, path, chunk + SEGMENT_CHUNK_HEADER_SIZE, 200));
    for (uint32_t key = 0; key < 180; key++) {
        if (key % 3 != 0)
            cr_assert_eq(bench_write(bench, key, 8), STORE_OK);
        cr_assert(bench_pass(bench));
    }
    cr_assert(bench_run(bench, 10 * NS_PER_S));
    cr_assert(segment->is_damaged);
    cr_assert_eq(bench->store->findings.damaged, 1);
    for (uint32_t key = 0; key < 180; key += 3)
        cr_assert_eq(segment_of(bench, key) == segment, key >= 60 && key < 120, "key %u", key);
    bench_delete_it(bench);
}

/* Reads of single blocks that fail: their neighbours are moved all the same. */
Test(mover_damage, unreadable_input_is_read_as_far_as_it_can_be)
{
    struct bench *bench = bench_new(64 * KIB, 60, 3);
    bench_pause(bench, true);
    write_keys(bench, 0, 60, 3000, 1);
    bench_roll(bench);
    sim_disk_options(bench->disk)->read_error_ppm = 1000000;
    bench_pause(bench, false);
    cr_assert(bench_run(bench, 5 * NS_PER_S));
    sim_disk_options(bench->disk)->read_error_ppm = 0;
    cr_assert_eq(bench_moves(bench).moved_records, 0);
    bench_check_all(bench);
    bench_restart(bench, false);
    bench_settle(bench);
    cr_assert_geq(bench_moves(bench).moved_records, 60);
    bench_delete_it(bench);
}

/* Dead bytes that no job can free are no reason for one. */
Test(mover_damage, dead_bytes_of_damaged_segments_make_no_job_due)
{
    struct bench *bench = bench_new(16 * KIB, 120, 1);
    write_keys(bench, 0, 120, 3000, 1);
    bench_roll(bench);
    bench_settle(bench);
    segment_of(bench, 0)->is_damaged = true;
    segment_of(bench, 119)->is_damaged = true;
    write_keys(bench, 0, 110, 8, 1);
    bench_roll(bench);
    bench_settle(bench);
    struct mover_stats before = bench_moves(bench);
    cr_assert(bench_run(bench, 20 * NS_PER_S));
    cr_assert_eq(bench_moves(bench).jobs, before.jobs);
    cr_assert_eq(segment_of(bench, 119)->is_damaged, true);
    bench_check_all(bench);
    bench_delete_it(bench);
}
