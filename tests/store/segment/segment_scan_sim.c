/* A segment on a device that does not give every byte, and a process that dies while it reads. */
#include "segment_files.h"
#include "tests/support/sim_machine.h"

#include "store/segment/segment_scan.h"

#define NUMBER 5u
#define CHUNKS 200u
#define SEEDS 150u

struct bench {
    struct machine machine;
    struct log log;
    uint32_t lines;
    struct image image;
    struct segment_scan scan;
    uint32_t shown;
    uint64_t shown_last;
};

static void count_line(void *context, const char *line, uint32_t size)
{
    (void)line;
    (void)size;
    ((struct bench *)context)->lines++;
}

static int show_chunk(void *context, const struct unit *unit, const uint8_t *data)
{
    struct bench *bench = context;
    uint64_t sequence = unit->chunk.sequence;
    cr_assert_gt(sequence, bench->shown_last);
    cr_assert_arr_eq(data, bench->image.bytes + unit->offset, unit->records_offset);
    bench->shown++;
    bench->shown_last = sequence;
    return 0;
}

static void make_directory(struct machine *machine, const char *path)
{
    cr_assert_eq(io_make_directory(machine->io, path), 0);
}

/* Small chunks, large ones, small ones. */
static struct bench *bench_open(uint64_t seed)
{
    struct bench *bench = calloc(1, sizeof *bench);
    cr_assert_not_null(bench);
    machine_open(&bench->machine, seed);
    bench->log = (struct log){.level_min = LOG_WARN, .write = count_line, .context = bench};
    image_init(&bench->image, NUMBER, 16 * MIB);
    for (uint32_t i = 0; i < CHUNKS; i++)
        (void)image_add_chunk(&bench->image, 10, i % 40 > 35 ? 50000 : 500);
    make_directory(&bench->machine, "data");
    make_directory(&bench->machine, "data/a7");
    int file = machine_open_file(&bench->machine, "data/a7/seg-0000000000000005", FILE_FLAGS);
    cr_assert_geq(file, 0);
    cr_assert_eq(machine_write(&bench->machine, file, bench->image.bytes,
                               (uint32_t)bench->image.end, 0, IO_WRITE_DSYNC),
                 (int32_t)bench->image.end);
    return bench;
}

static void bench_close(struct bench *bench)
{
    image_deinit(&bench->image);
    machine_close(&bench->machine);
    free(bench);
}

static int scan(struct bench *bench)
{
    bench->shown = 0;
    bench->shown_last = 0;
    bench->lines = 0;
    bench->scan = (struct segment_scan){.path = "data/a7/seg-0000000000000005",
                                        .partition = FILES_PARTITION,
                                        .file = {.is_segment = true,
                                                 .directory_id = FILES_DIRECTORY_ID,
                                                 .number = NUMBER,
                                                 .salt = salt_of(NUMBER),
                                                 .end = bench->image.end},
                                        .from = SEGMENT_DATA_OFFSET,
                                        .each = show_chunk,
                                        .context = bench};
    return segment_scan(bench->machine.io, &bench->log, &bench->scan);
}

/* Returns the bytes that were read. */
static uint64_t scan_without_errors(struct bench *bench)
{
    sim_disk_options(bench->machine.disk)->read_error_ppm = 0;
    cr_assert_eq(scan(bench), 0);
    cr_assert(!bench->scan.is_damaged);
    cr_assert_eq(bench->shown, CHUNKS);
    return bench->scan.bytes_read;
}

/* A read that fails costs nothing when what is needed of it can be read alone. */
Test(segment_scan_sim, what_the_device_does_not_give_is_damage_and_nothing_else)
{
    static const uint32_t chances_ppm[] = {3000, 20000, 100000};
    uint32_t damaged = 0;
    uint32_t recovered = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct bench *bench = bench_open(seed);
        sim_disk_options(bench->machine.disk)->read_error_ppm = chances_ppm[seed % 3];
        cr_assert_eq(scan(bench), 0, "seed %" PRIu64, seed);
        cr_assert(bench->scan.is_damaged || bench->shown == CHUNKS, "seed %" PRIu64, seed);
        cr_assert_eq(bench->scan.is_damaged, bench->lines > 0, "seed %" PRIu64, seed);
        cr_assert_gt(bench->shown, CHUNKS / 2, "seed %" PRIu64, seed);
        bool is_damaged = bench->scan.is_damaged;
        uint64_t bytes_read = bench->scan.bytes_read;
        bool had_errors = bytes_read != scan_without_errors(bench);
        damaged += is_damaged;
        recovered += had_errors && !is_damaged;
        bench_close(bench);
    }
    cr_assert_gt(damaged, 0);
    cr_assert_gt(recovered, 0);
}

Test(segment_scan_sim, rot_costs_the_chunks_that_it_hits_at_most)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct bench *bench = bench_open(seed);
        for (uint32_t i = 0; i < 20; i++)
            cr_assert(sim_disk_rot(bench->machine.disk, "data/a7/seg-0000000000000005", 0,
                                   bench->image.end));
        cr_assert_eq(scan(bench), 0, "seed %" PRIu64, seed);
        cr_assert_geq(bench->shown, CHUNKS - 20, "seed %" PRIu64, seed);
        cr_assert_eq(bench->scan.is_damaged, bench->lines > 0);
        cr_assert(bench->scan.is_damaged || bench->shown == CHUNKS);
        bench_close(bench);
    }
}

Test(segment_scan_sim, process_that_dies_while_it_reads_is_told)
{
    for (uint64_t steps = 1; steps < 30; steps++) {
        struct bench *bench = bench_open(steps);
        sim_host_crash_after(bench->machine.io, steps, SIM_KILL);
        int result = scan(bench);
        cr_assert(result == -ESHUTDOWN || (result == 0 && bench->shown == CHUNKS), "%d", result);
        bench_close(bench);
    }
}
