/* The start number: counted in all superblocks of a directory, cut short at every step, and what it
 * is for: an older copy of one shard is refused. */
#include "store/catalog/superblock.h"

#include "base/units.h"
#include "io/io_sim.h"
#include "store/disk/wait.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS 3u
#define FILE_SIZE 8192u

static const struct io_options options = {
    .sockets_max = 4, .files_max = 8, .receive_buffer_size = 4096, .receive_buffer_count = 4};
static const struct superblock_birth birth = {4 * MIB, SHARDS, NULL};

struct machine {
    uint64_t seed;
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
    struct log log;
    char said[2048];
    uint8_t *buffer; /* FILE_SIZE bytes, aligned */
};

static void remember(void *context, const char *line, uint32_t size)
{
    struct machine *machine = context;
    size_t used = strlen(machine->said);
    if (used + size < sizeof machine->said)
        memcpy(machine->said + used, line, size);
}

static void begin(struct machine *machine)
{
    memset(machine->said, 0, sizeof machine->said);
    sim_host_open(machine->sim, machine->disk, &options, &machine->io);
}

static void end(struct machine *machine)
{
    io_close(machine->io);
    machine->io = NULL;
}

static int open_node(struct machine *machine, struct superblock_file *ret_file)
{
    bool is_formatted;
    return superblock_open(machine->io, &machine->log, "data", &birth, 10 * NS_PER_S, ret_file,
                           &is_formatted);
}

/* A start of the process that is there. */
static int start_with(struct machine *machine, bool *ret_older)
{
    struct superblock_file node;
    int result = open_node(machine, &node);
    if (result < 0)
        return result;
    result = superblock_count_start(&node, &machine->log, "data", 10 * NS_PER_S, ret_older);
    superblock_close(&node);
    return result;
}

static int start(struct machine *machine)
{
    return start_with(machine, NULL);
}

static void path_of(uint32_t shard, char *ret_path, size_t size)
{
    char folder[64];
    cr_assert_eq(superblock_state_path("data", shard, folder, sizeof folder), 0);
    (void)snprintf(ret_path, size, "%s/superblock", folder);
}

/* A directory of SHARDS shards. */
static void make_shards(struct machine *machine)
{
    struct superblock_file node;
    begin(machine);
    cr_assert_eq(open_node(machine, &node), 0);
    node.now.shard_count = SHARDS;
    cr_assert_eq(superblock_update_both(&node), 0);
    for (uint32_t shard = 1; shard < SHARDS; shard++) {
        char path[80];
        struct superblock own = node.now;
        own.shard = shard;
        cr_assert_eq(superblock_state_path("data", shard, path, sizeof path), 0);
        cr_assert_eq(io_make_directory(machine->io, path), 0);
        path_of(shard, path, sizeof path);
        cr_assert_eq(superblock_make(machine->io, path, &own), 0);
    }
    for (uint32_t shard = 1; shard < SHARDS; shard++) {
        char path[64];
        cr_assert_eq(superblock_state_path("data", shard, path, sizeof path), 0);
        cr_assert_eq(disk_wait_sync_folder(machine->io, path), 0);
    }
    cr_assert_eq(disk_wait_sync_folder(machine->io, "data"), 0);
    superblock_close(&node);
    end(machine);
}

static struct machine *machine_create(uint64_t seed)
{
    struct machine *machine = calloc(1, sizeof *machine);
    cr_assert_not_null(machine);
    machine->seed = seed;
    machine->sim = sim_create(seed);
    machine->disk = sim_disk_create(machine->sim);
    machine->log = (struct log){.level_min = LOG_ERROR, .write = remember, .context = machine};
    machine->buffer = aligned_alloc(4096, FILE_SIZE);
    cr_assert_not_null(machine->buffer);
    make_shards(machine);
    return machine;
}

static void machine_free(struct machine *machine)
{
    sim_free(machine->sim);
    free(machine->buffer);
    free(machine);
}

/* The last writes of a process that was killed land before its locks go. */
static void wait_for_lock(struct machine *machine, int handle)
{
    while (io_lock_file(machine->io, handle) < 0) {
        struct io_op op = {0};
        io_timer(machine->io, &op, io_now_ns(machine->io) + NS_PER_MS);
        cr_assert_eq(io_wait(machine->io, &op), 0);
    }
}

/* Reads the file into ret_bytes, or writes it. */
static void transfer(struct machine *machine, uint32_t shard, bool is_write, uint8_t *bytes)
{
    char path[80];
    struct io_op op = {0};
    path_of(shard, path, sizeof path);
    io_open_file(machine->io, &op, path, IO_OPEN_WRITE | IO_OPEN_DIRECT);
    int handle = io_wait(machine->io, &op);
    cr_assert_geq(handle, 0);
    wait_for_lock(machine, handle);
    if (is_write) {
        memcpy(machine->buffer, bytes, FILE_SIZE);
        io_write(machine->io, &op, handle, machine->buffer, FILE_SIZE, 0, IO_WRITE_DSYNC);
    } else {
        io_read(machine->io, &op, handle, machine->buffer, FILE_SIZE, 0);
    }
    cr_assert_eq(io_wait(machine->io, &op), (int)FILE_SIZE);
    if (!is_write)
        memcpy(bytes, machine->buffer, FILE_SIZE);
    io_close_file(machine->io, &op, handle);
    cr_assert_eq(io_wait(machine->io, &op), 0);
}

static void take_copies(struct machine *machine, uint8_t copies[SHARDS][FILE_SIZE])
{
    begin(machine);
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        transfer(machine, shard, false, copies[shard]);
    end(machine);
}

static uint64_t number_in(const uint8_t *bytes)
{
    struct superblock copy[2];
    int results[2];
    for (uint32_t i = 0; i < 2; i++)
        results[i] = superblock_decode(bytes + i * (FILE_SIZE / 2), &copy[i]);
    cr_assert(results[0] == 0 || results[1] == 0);
    bool is_second = results[0] != 0 || (results[1] == 0 && copy[1].sequence > copy[0].sequence);
    return copy[is_second].start_number;
}

static void read_numbers(struct machine *machine, uint64_t *ret_lowest, uint64_t *ret_greatest)
{
    uint8_t copies[SHARDS][FILE_SIZE];
    take_copies(machine, copies);
    *ret_lowest = UINT64_MAX;
    *ret_greatest = 0;
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        *ret_lowest = min_u64(*ret_lowest, number_in(copies[shard]));
        *ret_greatest = max_u64(*ret_greatest, number_in(copies[shard]));
    }
}

static void expect_number(struct machine *machine, uint64_t number)
{
    uint64_t lowest, greatest;
    read_numbers(machine, &lowest, &greatest);
    cr_assert_eq(lowest, number, "seed %" PRIu64 ": %" PRIu64 " to %" PRIu64 ", not %" PRIu64,
                 machine->seed, lowest, greatest, number);
    cr_assert_eq(greatest, number, "seed %" PRIu64 ": %" PRIu64, machine->seed, greatest);
}

static void start_and_end(struct machine *machine)
{
    begin(machine);
    int result = start(machine);
    cr_assert_eq(result, 0, "seed %" PRIu64 ": %d, %s", machine->seed, result, machine->said);
    end(machine);
}

Test(superblock_start, each_start_raises_all_numbers_by_two)
{
    struct machine *machine = machine_create(1);
    expect_number(machine, 0);
    for (uint64_t i = 1; i <= 5; i++) {
        start_and_end(machine);
        expect_number(machine, 2 * i);
    }
    machine_free(machine);
}

/* A start that dies after so many steps. Returns whether it died. */
static bool crash_start(struct machine *machine, uint64_t steps, enum sim_crash crash)
{
    begin(machine);
    sim_host_crash_after(machine->io, steps, crash);
    int result = start(machine);
    bool is_crashed = sim_host_is_crashed(machine->io);
    cr_assert(is_crashed || result == 0);
    end(machine);
    return is_crashed;
}

/* Whatever of the shard's was copied before a start that came to its end is refused after it, and
 * nothing is changed. */
static void expect_refused(struct machine *machine, uint32_t shard, uint8_t *copy)
{
    uint8_t before[SHARDS][FILE_SIZE], after[SHARDS][FILE_SIZE];
    uint8_t own[FILE_SIZE];
    char text[64];
    begin(machine);
    transfer(machine, shard, false, own);
    transfer(machine, shard, true, copy);
    end(machine);
    take_copies(machine, before);
    begin(machine);
    cr_assert_eq(start(machine), -EXDEV, "seed %" PRIu64, machine->seed);
    end(machine);
    (void)snprintf(text, sizeof text, "shard %" PRIu32 " is an older copy", shard);
    cr_assert_not_null(strstr(machine->said, text), "%s", machine->said);
    (void)snprintf(text, sizeof text, "start number %" PRIu64 ",", number_in(copy));
    cr_assert_not_null(strstr(machine->said, text), "%s", machine->said);
    take_copies(machine, after);
    cr_assert_arr_eq(after, before, sizeof before);
    begin(machine);
    transfer(machine, shard, true, own);
    end(machine);
}

static void crash_and_restore(uint64_t seed, uint64_t steps, enum sim_crash crash)
{
    uint8_t first[SHARDS][FILE_SIZE], second[SHARDS][FILE_SIZE];
    struct machine *machine = machine_create(seed);
    start_and_end(machine);
    take_copies(machine, first);
    (void)crash_start(machine, steps, crash);
    if (seed % 2 == 0)
        (void)crash_start(machine, 1 + steps * 7 % 40, crash);
    uint64_t lowest, greatest;
    read_numbers(machine, &lowest, &greatest);
    cr_assert(greatest - lowest <= 1 && lowest >= 2, "seed %" PRIu64 ", step %" PRIu64, seed,
              steps);
    take_copies(machine, second);
    start_and_end(machine);
    expect_number(machine, greatest + 2);
    uint32_t shard = (uint32_t)((seed + steps) % SHARDS);
    expect_refused(machine, shard, first[shard]);
    expect_refused(machine, shard, second[shard]);
    start_and_end(machine);
    machine_free(machine);
}

Test(superblock_start, start_may_be_cut_short_at_every_step, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        for (uint64_t steps = 1; steps < 60; steps++) {
            crash_and_restore(seed, steps, SIM_POWER_LOSS);
            crash_and_restore(seed, steps, SIM_KILL);
        }
    }
}

/* Whichever shard it is, also where the start that accepts it dies. */
static void accept_older(struct machine *machine, uint32_t shard, uint64_t steps)
{
    uint8_t copies[SHARDS][FILE_SIZE];
    bool is_older[SUPERBLOCK_SHARDS_MAX] = {false};
    take_copies(machine, copies);
    start_and_end(machine);
    begin(machine);
    transfer(machine, shard, true, copies[shard]);
    end(machine);
    begin(machine);
    sim_host_crash_after(machine->io, steps, SIM_POWER_LOSS);
    (void)start_with(machine, is_older);
    end(machine);
    begin(machine);
    cr_assert_eq(start_with(machine, is_older), 0, "%s", machine->said);
    end(machine);
    for (uint32_t i = 0; i < SHARDS; i++)
        cr_assert_eq(is_older[i], i == shard, "shard %" PRIu32 " of %" PRIu32, i, shard);
    uint64_t lowest, greatest;
    read_numbers(machine, &lowest, &greatest);
    cr_assert_eq(lowest, greatest);
    start_and_end(machine);
}

Test(superblock_start, older_copy_comes_level_when_that_is_accepted)
{
    for (uint64_t steps = 1; steps < 50; steps++) {
        struct machine *machine = machine_create(steps);
        start_and_end(machine);
        for (uint32_t shard = 0; shard < SHARDS; shard++)
            accept_older(machine, shard, steps);
        machine_free(machine);
    }
}

Test(superblock_start, shard_without_a_superblock_is_told)
{
    struct machine *machine = machine_create(3);
    struct io_op op = {0};
    begin(machine);
    io_unlink(machine->io, &op, "data/shard-2/superblock");
    cr_assert_eq(io_wait(machine->io, &op), 0);
    cr_assert_eq(start(machine), -ENOENT);
    cr_assert_not_null(strstr(machine->said, "data/shard-2/superblock"), "%s", machine->said);
    end(machine);
    machine_free(machine);
}
