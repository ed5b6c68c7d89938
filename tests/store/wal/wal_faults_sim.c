/* The log on a device that fails: EIO, ENOSPC, bit rot. */
#include "store/wal/wal_recover.h"
#include "store/wal/wal.h"

#include "base/units.h"
#include "io/io_sim.h"
#include "store/memory/location.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITES_MAX 20000u
#define ALWAYS_PPM 1000000u

struct machine {
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
    struct log log;
    struct wal *wal;
    struct wal_options options;
    struct wal_recovered recovered;
    uint32_t written;
    uint64_t locations[WRITES_MAX];
    bool shown[WRITES_MAX];
    uint64_t durable;
    uint32_t failures;
    int error;
    uint32_t rooms;
};

static void on_durable(void *context, uint64_t position)
{
    struct machine *machine = context;
    cr_assert_eq(machine->failures, 0, "nothing becomes durable after a failure");
    machine->durable = position;
}

static void on_room(void *context)
{
    ((struct machine *)context)->rooms++;
}

static void on_failed(void *context, int error)
{
    struct machine *machine = context;
    machine->failures++;
    machine->error = error;
}

/* Write n is at position n, as long as no write is lost. */
static int on_record(void *context, const struct record *record, uint64_t location)
{
    struct machine *machine = context;
    uint64_t number = record->version.clock;
    cr_assert(number >= 1 && number <= machine->written);
    cr_assert_eq(record->position, number);
    for (uint32_t i = 0; i < record->value.size; i++)
        cr_assert_eq(record->value.data[i], (uint8_t)(number + i), "wrong bytes");
    cr_assert_not(machine->shown[number]);
    machine->shown[number] = true;
    machine->locations[number] = location;
    return 0;
}

static struct machine *machine_create(uint64_t seed)
{
    struct machine *machine = calloc(1, sizeof *machine);
    cr_assert_not_null(machine);
    log_init_stderr(&machine->log,
                    getenv("MINIVAULT_TEST_LOG") != NULL ? LOG_DEBUG : LOG_ERROR + 1);
    machine->sim = sim_create(seed);
    machine->disk = sim_disk_create(machine->sim);
    machine->options = (struct wal_options){
        .directory = ".",
        .directory_id = 0xD1,
        .log_id = 1,
        .file_size = 128 * KIB,
        .buffer_size = 16 * KIB,
        .buffer_count = 4,
        .record_size_max = 8 * KIB,
        .writes_in_flight = 2,
        .use_dsync = true,
        .durability = WAL_COMMIT,
        .events = {.context = machine, .durable = on_durable, .room = on_room, .failed = on_failed},
    };
    return machine;
}

static int machine_recover(struct machine *machine, struct wal_files **ret_files)
{
    struct io_options options = {.files_max = 256,
                                 .sockets_max = 4,
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 4,
                                 .region_size = wal_memory_size(&machine->options)};
    sim_host_open(machine->sim, machine->disk, &options, &machine->io);
    machine->options.memory = io_region(machine->io);
    memset(machine->shown, 0, sizeof machine->shown);
    return wal_recover(machine->io, &machine->log, &machine->options, on_record, machine,
                       &machine->recovered, ret_files);
}

static void machine_start(struct machine *machine)
{
    struct wal_files *files;
    cr_assert_eq(machine_recover(machine, &files), 0);
    machine->durable = machine->recovered.last_position;
    cr_assert_eq(wal_open(machine->io, &machine->log, &machine->options, files, &machine->wal), 0);
}

static void machine_stop(struct machine *machine)
{
    io_close(machine->io);
    wal_free(machine->wal);
    machine->wal = NULL;
    sim_advance(machine->sim, sim_now_ns(machine->sim) + NS_PER_S);
}

static void machine_free(struct machine *machine)
{
    sim_free(machine->sim);
    free(machine);
}

static int try_append(struct machine *machine, uint32_t size, uint8_t flags)
{
    uint8_t value[8 * KIB];
    uint32_t number = machine->written + 1;
    cr_assert_lt(number, WRITES_MAX);
    for (uint32_t i = 0; i < size; i++)
        value[i] = (uint8_t)(number + i);
    struct record record = {.key = {(const uint8_t *)"key", 3},
                            .value = {value, size},
                            .decoded_size = size,
                            .flags = flags,
                            .version = {.clock = number}};
    struct wal_receipt receipt;
    int result = wal_append(machine->wal, &record, &receipt);
    if (result == 0) {
        machine->written = number;
        machine->locations[number] = receipt.location;
    }
    return result;
}

static void pass(struct machine *machine)
{
    wal_flush(machine->wal);
    cr_assert_geq(io_run(machine->io, 5 * NS_PER_MS), 0);
}

/* What the append said in the end, when it was tried again as long as there was no room. */
static int append(struct machine *machine, uint32_t size, uint8_t flags)
{
    int result = try_append(machine, size, flags);
    for (int i = 0; i < 2000 && result == -EAGAIN; i++) {
        pass(machine);
        result = try_append(machine, size, flags);
    }
    return result;
}

static void settle(struct machine *machine)
{
    for (int i = 0;
         i < 2000 && machine->failures == 0 && wal_durable(machine->wal) < wal_last(machine->wal);
         i++)
        pass(machine);
}

/* ---- EIO ---- */

static void fail_while_writing(bool use_dsync, bool fail_sync)
{
    struct machine *machine = machine_create(3);
    machine->options.use_dsync = use_dsync;
    machine_start(machine);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(append(machine, 500, 0), 0);
    settle(machine);
    uint64_t durable = wal_durable(machine->wal);
    cr_assert_eq(durable, 100);
    struct sim_disk_options *disk = sim_disk_options(machine->disk);
    *(fail_sync ? &disk->sync_error_ppm : &disk->write_error_ppm) = ALWAYS_PPM;
    cr_assert_eq(try_append(machine, 500, 0), 0);
    for (int i = 0; i < 100; i++)
        pass(machine);
    cr_assert_eq(machine->failures, 1, "told once");
    cr_assert_eq(machine->error, -EIO);
    disk->write_error_ppm = disk->sync_error_ppm = 0;
    for (int i = 0; i < 100; i++)
        pass(machine);
    cr_assert_eq(wal_durable(machine->wal), durable,
                 "never again, although the device works again");
    cr_assert_eq(try_append(machine, 10, 0), -EIO);
    cr_assert_eq(try_append(machine, 0, RECORD_TOMBSTONE), -EIO);
    cr_assert_eq(wal_shut(machine->wal), -EIO);
    machine_stop(machine);
    machine_start(machine);
    for (uint32_t number = 1; number <= durable; number++)
        cr_assert(machine->shown[number]);
    cr_assert_eq(machine->recovered.damaged_batches, 0);
    machine_stop(machine);
    machine_free(machine);
}

Test(wal_faults, after_a_failed_write_nothing_is_acknowledged)
{
    fail_while_writing(true, false);
}

Test(wal_faults, after_a_failed_write_without_dsync_nothing_is_acknowledged)
{
    fail_while_writing(false, false);
}

Test(wal_faults, after_a_failed_sync_nothing_is_acknowledged)
{
    fail_while_writing(false, true);
}

Test(wal_faults, opening_on_a_failing_device_says_so)
{
    struct machine *machine = machine_create(4);
    struct wal_files *files;
    cr_assert_eq(machine_recover(machine, &files), 0);
    sim_disk_options(machine->disk)->write_error_ppm = ALWAYS_PPM;
    cr_assert_eq(wal_open(machine->io, &machine->log, &machine->options, files, &machine->wal),
                 -EIO);
    cr_assert_eq(machine->failures, 0, "the result says it");
    io_close(machine->io);
    machine_free(machine);
}

/* ---- ENOSPC ---- */

Test(wal_faults, a_full_disk_refuses_sets_takes_deletes_and_gets_over_it)
{
    struct machine *machine = machine_create(5);
    struct sim_disk_options *disk = sim_disk_options(machine->disk);
    disk->capacity = 6 * 128 * KIB;
    machine_start(machine);
    int result = 0;
    while (result == 0)
        result = append(machine, 4000, 0);
    cr_assert_eq(result, -ENOSPC);
    cr_assert_not(wal_has_space(machine->wal));
    settle(machine);
    cr_assert_eq(wal_durable(machine->wal), machine->written);
    uint32_t sets = machine->written;
    cr_assert_gt(sets, 60);
    for (uint32_t i = 0; i < 500; i++)
        cr_assert_eq(append(machine, 0, RECORD_TOMBSTONE), 0, "delete %d", (int)i);
    cr_assert_eq(append(machine, 4000, 0), -ENOSPC, "sets do not use what is kept for deletes");
    settle(machine);
    cr_assert_eq(machine->failures, 0);
    disk->capacity = 100 * MIB;
    for (int i = 0; i < 1000 && !wal_has_space(machine->wal); i++)
        pass(machine);
    cr_assert(wal_has_space(machine->wal));
    for (int i = 0; i < 200; i++)
        cr_assert_eq(append(machine, 4000, 0), 0);
    settle(machine);
    cr_assert_eq(wal_shut(machine->wal), 0);
    machine_stop(machine);
    machine_start(machine);
    for (uint32_t number = 1; number <= machine->written; number++)
        cr_assert(machine->shown[number]);
    machine_stop(machine);
    machine_free(machine);
}

Test(wal_faults, deletes_make_room_on_a_full_disk)
{
    struct machine *machine = machine_create(6);
    sim_disk_options(machine->disk)->capacity = 6 * 128 * KIB;
    machine_start(machine);
    while (append(machine, 4000, 0) == 0)
        continue;
    uint32_t sets = machine->written;
    for (uint32_t number = 1; number <= sets; number++) {
        cr_assert_eq(append(machine, 0, RECORD_TOMBSTONE), 0);
        wal_record_dead(machine->wal, machine->locations[number], wal_last(machine->wal));
    }
    for (int i = 0; i < 1000 && !wal_has_space(machine->wal); i++)
        pass(machine);
    cr_assert(wal_has_space(machine->wal));
    cr_assert_eq(append(machine, 4000, 0), 0);
    machine_stop(machine);
    machine_free(machine);
}

/* Killed again and again with the last segment in use, and nothing free but a little. */
Test(wal_faults, a_start_on_a_full_disk_gets_in_with_a_small_segment)
{
    struct machine *machine = machine_create(8);
    machine_start(machine);
    while (machine->written < 100)
        cr_assert_eq(append(machine, 4000, 0), 0);
    settle(machine);
    for (uint32_t i = 0; i < 4; i++) {
        machine_stop(machine);
        machine_start(machine); /* what was prepared is used up soon */
        uint64_t free_size, total_size;
        cr_assert_eq(io_disk_space(machine->io, "/", &free_size, &total_size), 0);
        sim_disk_options(machine->disk)->capacity = total_size - free_size + 100 * KIB;
        uint32_t deletes = 0;
        while (append(machine, 0, RECORD_TOMBSTONE) == 0)
            deletes++;
        cr_assert_gt(deletes, 100);
        settle(machine);
        cr_assert_eq(machine->failures, 0);
        sim_disk_options(machine->disk)->capacity += 100 * KIB;
    }
    machine_stop(machine);
    sim_disk_options(machine->disk)->capacity = GIB;
    machine_start(machine);
    for (uint32_t number = 1; number <= machine->written; number++)
        cr_assert(machine->shown[number]);
    cr_assert(wal_has_space(machine->wal));
    machine_stop(machine);
    machine_free(machine);
}

Test(wal_faults, a_disk_without_room_for_one_segment_is_refused_at_the_first_start)
{
    struct machine *machine = machine_create(7);
    sim_disk_options(machine->disk)->capacity = 64 * KIB;
    struct wal_files *files;
    cr_assert_eq(machine_recover(machine, &files), 0);
    cr_assert_eq(wal_open(machine->io, &machine->log, &machine->options, files, &machine->wal),
                 -ENOSPC);
    io_close(machine->io);
    machine_free(machine);
}

/* ---- reading ---- */

/* Forty batches, of which all but the last are proved durable by what follows. Returns the last
 * proved write. */
static uint32_t write_for_reading(struct machine *machine)
{
    machine_start(machine);
    uint32_t proved = 0;
    for (int i = 0; i < 40; i++) {
        proved = machine->written;
        for (int j = 0; j < 6; j++)
            cr_assert_eq(append(machine, 1500, 0), 0);
        settle(machine);
    }
    machine_stop(machine);
    return proved;
}

/* Whatever is missing up to `proved` was reported. */
static void check_reported(struct machine *machine, uint32_t proved, const char *what,
                           uint64_t seed)
{
    uint32_t missing_last = 0;
    for (uint32_t number = 1; number <= proved; number++) {
        if (!machine->shown[number])
            missing_last = number;
    }
    cr_assert(missing_last == 0 || machine->recovered.damaged_batches > 0, "%s, seed %d", what,
              (int)seed);
    cr_assert_geq(machine->recovered.damaged_last, missing_last, "%s, seed %d", what, (int)seed);
}

Test(wal_faults, rot_never_shows_wrong_bytes_and_never_goes_unnoticed)
{
    uint32_t damaged = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct machine *machine = machine_create(seed);
        uint32_t proved = write_for_reading(machine);
        struct prng prng = {seed};
        uint64_t flips = 1 + prng_below(&prng, 4);
        for (uint64_t i = 0; i < flips; i++) {
            char path[32];
            (void)snprintf(path, sizeof path, "./wal-%08x", 1 + (uint32_t)prng_below(&prng, 5));
            (void)sim_disk_rot(machine->disk, path, 0, 128 * KIB);
        }
        struct wal_files *files;
        cr_assert_eq(machine_recover(machine, &files), 0);
        check_reported(machine, proved, "rot", seed);
        damaged += machine->recovered.damaged_batches > 0;
        machine->durable = machine->recovered.last_position;
        int result = wal_open(machine->io, &machine->log, &machine->options, files, &machine->wal);
        cr_assert_eq(result, 0);
        machine_stop(machine);
        machine_free(machine);
    }
    cr_assert_gt(damaged, 20, "most flips hit something");
}

Test(wal_faults, what_cannot_be_read_is_reported_and_the_rest_is_recovered)
{
    uint32_t damaged = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct machine *machine = machine_create(seed);
        uint32_t proved = write_for_reading(machine);
        sim_disk_options(machine->disk)->read_error_ppm = ALWAYS_PPM / 3;
        struct wal_files *files;
        cr_assert_eq(machine_recover(machine, &files), 0);
        check_reported(machine, proved, "unreadable", seed);
        damaged += machine->recovered.damaged_batches > 0;
        wal_files_abandon(machine->io, files);
        io_close(machine->io);
        machine_free(machine);
    }
    cr_assert_gt(damaged, 20);
}
