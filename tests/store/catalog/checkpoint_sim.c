/* The index checkpoint on a disk that fails: what has the name is whole, whatever happened. */
#include "checkpoint_fixture.h"

#include "base/bytes.h"
#include "io/io_sim.h"
#include "store/catalog/checkpoint_format.h"

#define FOLDER "data"
#define CHECKPOINT_PATH FOLDER "/" CHECKPOINT_NAME
#define BUDGET 20000u
#define SLOTS 3000u

struct machine {
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
};

static void start(struct machine *machine)
{
    static const struct io_options options = CHECKPOINT_OPTIONS;
    sim_host_open(machine->sim, machine->disk, &options, &machine->io);
    cr_assert_eq(io_make_directory(machine->io, FOLDER), 0);
}

static void sync_root(struct machine *machine)
{
    struct io_op op = {0};
    io_open_file(machine->io, &op, ".", IO_OPEN_DIRECTORY);
    int root = io_wait(machine->io, &op);
    cr_assert_geq(root, 0);
    io_sync(machine->io, &op, root);
    cr_assert_eq(io_wait(machine->io, &op), 0);
    io_close_file(machine->io, &op, root);
    cr_assert_eq(io_wait(machine->io, &op), 0);
}

static void open_machine(struct machine *machine, uint64_t seed)
{
    machine->sim = sim_create(seed);
    machine->disk = sim_disk_create(machine->sim);
    start(machine);
    sync_root(machine);
}

static void close_machine(struct machine *machine)
{
    io_close(machine->io);
    sim_free(machine->sim);
}

static void restart(struct machine *machine, enum sim_crash crash)
{
    if (!sim_host_is_crashed(machine->io))
        sim_host_crash(machine->io, crash);
    io_close(machine->io);
    start(machine);
}

/* ---- crashes ---- */

/* Crashes after `steps` of writing. Returns whether it was written before that. */
static bool write_and_crash(uint64_t seed, uint64_t steps, enum sim_crash crash,
                            const struct index *index)
{
    struct machine machine;
    open_machine(&machine, seed);
    sim_host_crash_after(machine.io, steps, crash);
    int written = write_checkpoint(machine.io, FOLDER, index, BUDGET);
    cr_assert(written == 0 || written == -ESHUTDOWN);
    restart(&machine, crash);
    int found = try_load(machine.io, FOLDER, SLOTS);
    cr_assert(found == 0 || found == -ENOENT, "seed %lu, step %lu: %d", seed, steps, found);
    if (written == 0)
        cr_assert_eq(found, 0, "seed %lu, step %lu: it was durable", seed, steps);
    /* What a kill left stays or goes when the power goes as well, but it is not torn. */
    io_close(machine.io);
    sim_disk_lose_power(machine.disk);
    start(&machine);
    found = try_load(machine.io, FOLDER, SLOTS);
    cr_assert(found == 0 || (found == -ENOENT && written != 0));
    /* And a leftover is not in the way. */
    cr_assert_eq(write_checkpoint(machine.io, FOLDER, index, BUDGET), 0);
    cr_assert_eq(try_load(machine.io, FOLDER, SLOTS), 0);
    cr_assert_eq(entries_in(machine.io, FOLDER), 1);
    close_machine(&machine);
    return written == 0;
}

Test(checkpoint_crash, after_any_step_it_is_whole_or_not_there)
{
    struct index *index = index_with(SLOTS);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        uint64_t steps = 1;
        while (!write_and_crash(seed, steps, SIM_POWER_LOSS, index)) {
            (void)write_and_crash(seed, steps, SIM_KILL, index);
            steps++;
        }
        cr_expect_gt(steps, 18, "every operation was cut short");
    }
    index_free(index);
}

Test(checkpoint_crash, while_loading_is_an_error)
{
    struct index *index = index_with(SLOTS);
    for (uint64_t steps = 1; steps < 6; steps++) {
        struct machine machine;
        open_machine(&machine, steps);
        cr_assert_eq(write_checkpoint(machine.io, FOLDER, index, BUDGET), 0);
        sim_host_crash_after(machine.io, steps, SIM_KILL);
        cr_assert_eq(try_load(machine.io, FOLDER, SLOTS), -ESHUTDOWN);
        restart(&machine, SIM_KILL);
        cr_assert_eq(try_load(machine.io, FOLDER, SLOTS), 0);
        close_machine(&machine);
    }
    index_free(index);
}

/* ---- a disk that refuses ---- */

Test(checkpoint_fault, full_disk_ends_it_and_nothing_stays)
{
    struct index *index = index_with(60000); /* two units */
    uint32_t refused = 0;
    for (uint64_t capacity = 0; capacity < 3 * MIB; capacity += 64 * KIB) {
        struct machine machine;
        open_machine(&machine, capacity + 1);
        sim_disk_options(machine.disk)->capacity = capacity;
        int result = write_checkpoint(machine.io, FOLDER, index, BUDGET);
        cr_assert(result == 0 || result == -ENOSPC, "%lu bytes: %d", capacity, result);
        cr_assert_eq(entries_in(machine.io, FOLDER), result == 0);
        refused += result != 0;
        sim_disk_options(machine.disk)->capacity = GIB;
        cr_assert_eq(write_checkpoint(machine.io, FOLDER, index, BUDGET), 0, "room again");
        cr_assert_eq(try_load(machine.io, FOLDER, 60000), 0);
        close_machine(&machine);
    }
    cr_expect(refused > 20 && refused < 48);
    index_free(index);
}

Test(checkpoint_fault, failed_write_or_sync_ends_it_and_nothing_stays)
{
    struct index *index = index_with(SLOTS);
    for (uint32_t i = 0; i < 2; i++) {
        struct machine machine;
        open_machine(&machine, 1);
        struct sim_disk_options *options = sim_disk_options(machine.disk);
        uint32_t *chance = i == 0 ? &options->write_error_ppm : &options->sync_error_ppm;
        *chance = 1000000;
        cr_assert_eq(write_checkpoint(machine.io, FOLDER, index, BUDGET), -EIO);
        cr_assert_eq(entries_in(machine.io, FOLDER), 0);
        *chance = 0;
        cr_assert_eq(write_checkpoint(machine.io, FOLDER, index, BUDGET), 0);
        cr_assert_eq(try_load(machine.io, FOLDER, SLOTS), 0);
        close_machine(&machine);
    }
    index_free(index);
}

/* Faults now and then: done tells the truth. */
Test(checkpoint_fault, result_is_true_whatever_fails)
{
    struct index *index = index_with(60000);
    uint32_t failed = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct machine machine;
        open_machine(&machine, seed);
        struct sim_disk_options *options = sim_disk_options(machine.disk);
        struct sim_disk_options before = *options;
        options->write_error_ppm = options->sync_error_ppm = options->no_space_ppm = 100000;
        int result = write_checkpoint(machine.io, FOLDER, index, BUDGET);
        *options = before;
        cr_assert(result == 0 || result == -EIO || result == -ENOSPC, "seed %lu: %d", seed, result);
        failed += result != 0;
        restart(&machine, SIM_POWER_LOSS);
        int found = try_load(machine.io, FOLDER, 60000);
        if (result == 0)
            cr_assert_eq(found, 0, "seed %lu", seed);
        else
            cr_assert(found == -ENOENT || found == 0, "seed %lu: %d", seed, found);
        close_machine(&machine);
    }
    cr_expect(failed > 10 && failed < 90, "%u of 100", failed);
    index_free(index);
}

/* ---- reading ---- */

Test(checkpoint_fault, rot_in_any_block_is_noticed)
{
    struct index *index = index_with(500);
    struct machine machine;
    open_machine(&machine, 4);
    uint64_t size = 2 * CHECKPOINT_BLOCK_MIN;
    for (uint64_t at = 0; at < size; at += CHECKPOINT_BLOCK_MIN) {
        cr_assert_eq(write_checkpoint(machine.io, FOLDER, index, BUDGET), 0);
        struct io_op op = {0};
        io_open_file(machine.io, &op, CHECKPOINT_PATH, IO_OPEN_READ);
        int file = io_wait(machine.io, &op);
        size = (uint64_t)io_file_size(machine.io, file);
        io_close_file(machine.io, &op, file);
        cr_assert_eq(io_wait(machine.io, &op), 0);
        cr_assert(sim_disk_rot(machine.disk, CHECKPOINT_PATH, at, CHECKPOINT_BLOCK_MIN));
        cr_assert_eq(try_load(machine.io, FOLDER, 500), -EBADMSG, "byte %lu", at);
    }
    cr_expect_gt(size, 200 * CHECKPOINT_BLOCK_MIN);
    close_machine(&machine);
    index_free(index);
}

Test(checkpoint_fault, unreadable_one_is_told_apart_from_a_damaged_one)
{
    struct index *index = index_with(500);
    struct machine machine;
    open_machine(&machine, 5);
    cr_assert_eq(write_checkpoint(machine.io, FOLDER, index, BUDGET), 0);
    sim_disk_options(machine.disk)->read_error_ppm = 1000000;
    cr_expect_eq(try_load(machine.io, FOLDER, 500), -EIO);
    sim_disk_options(machine.disk)->read_error_ppm = 0;
    cr_expect_eq(try_load(machine.io, FOLDER, 500), 0);
    close_machine(&machine);
    index_free(index);
}

/* ---- progress ---- */

static void count_line(void *context, const char *line, uint32_t size)
{
    uint32_t *lines = context;
    (void)size;
    cr_assert_not_null(strstr(line, "slots loaded"), "%s", line);
    (*lines)++;
}

static uint32_t lines_of_load(struct machine *machine)
{
    uint32_t lines = 0;
    struct log log = {.level_min = LOG_INFO, .write = count_line, .context = &lines};
    struct checkpoint_options options = checkpoint_options(machine->io, FOLDER);
    struct checkpoint_info info;
    uint64_t dropped;
    struct index *index = make_index();
    cr_assert_eq(checkpoint_load(machine->io, &log, &options, NUMBER, index, same_file, NULL, &info,
                                 &dropped),
                 0);
    index_free(index);
    return lines;
}

Test(checkpoint_fault, slow_load_tells_how_far_it_is)
{
    struct index *index = index_with(150000); /* several units */
    struct machine machine;
    open_machine(&machine, 6);
    cr_assert_eq(write_checkpoint(machine.io, FOLDER, index, BUDGET), 0);
    cr_expect_eq(lines_of_load(&machine), 0, "a quick one says nothing");
    uint64_t begun_ns = sim_now_ns(machine.sim);
    sim_disk_options(machine.disk)->stall_ppm = 1000000;
    sim_disk_options(machine.disk)->stall_ns_max = 5 * NS_PER_S;
    uint32_t lines = lines_of_load(&machine);
    uint64_t seconds = (sim_now_ns(machine.sim) - begun_ns) / NS_PER_S;
    cr_expect(lines >= 1 && lines <= seconds, "%u lines in %lu s", lines, seconds);
    close_machine(&machine);
    index_free(index);
}
