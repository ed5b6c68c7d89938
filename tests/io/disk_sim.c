/* The simulated disk: what a crash may take, what it must leave, and what fails. */
#include "tests/support/sim_machine.h"

#define SECTOR 512u
#define SIZE 8192u

/* A durable file of SIZE bytes `value`, its name too. */
static int durable_file(struct machine *machine, const char *path, uint8_t value)
{
    uint8_t data[SIZE];
    memset(data, value, sizeof data);
    int file = machine_open_file(machine, path, FILE_FLAGS);
    cr_assert_geq(file, 0);
    cr_assert_eq(machine_write(machine, file, data, SIZE, 0, IO_WRITE_PLAIN), (int32_t)SIZE);
    cr_assert_eq(machine_sync(machine, file), 0);
    machine_sync_directory(machine, "/");
    return file;
}

static void read_back(struct machine *machine, const char *path, uint8_t *data)
{
    int file = machine_open_file(machine, path, IO_OPEN_READ);
    cr_assert_geq(file, 0);
    cr_assert_eq(machine_read(machine, file, data, SIZE, 0), (int32_t)SIZE);
}

struct tally {
    uint32_t old, new, torn;
};

static void count_sectors(const uint8_t *data, uint8_t old, uint8_t new, struct tally *tally)
{
    for (uint32_t at = 0; at < SIZE; at += SECTOR) {
        uint32_t is_new = 0;
        for (uint32_t i = 0; i < SECTOR; i++) {
            cr_assert(data[at + i] == old || data[at + i] == new);
            is_new += data[at + i] == new;
        }
        tally->old += is_new == 0;
        tally->new += is_new == SECTOR;
        tally->torn += is_new > 0 && is_new < SECTOR;
    }
}

Test(sim_disk, unsynced_sectors_become_old_new_or_torn)
{
    struct tally tally = {0};
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = durable_file(&machine, "/f", 'o');
        uint8_t data[SIZE];
        memset(data, 'n', sizeof data);
        cr_assert_eq(machine_write(&machine, file, data, SIZE, 0, IO_WRITE_PLAIN), (int32_t)SIZE);
        machine_crash(&machine, SIM_POWER_LOSS);
        read_back(&machine, "/f", data);
        count_sectors(data, 'o', 'n', &tally);
        machine_close(&machine);
    }
    cr_assert_gt(tally.old, 300);
    cr_assert_gt(tally.new, 300);
    cr_assert_gt(tally.torn, 30);
}

Test(sim_disk, writes_in_flight_are_done_in_part)
{
    struct tally tally = {0};
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = durable_file(&machine, "/f", 'o');
        uint8_t data[SIZE];
        memset(data, 'n', sizeof data);
        struct io_op op = {0};
        io_write(machine.io, &op, file, data, SIZE, 0, IO_WRITE_DSYNC);
        machine_crash(&machine, SIM_POWER_LOSS);
        read_back(&machine, "/f", data);
        count_sectors(data, 'o', 'n', &tally);
        machine_close(&machine);
    }
    cr_assert_gt(tally.old, 300);
    cr_assert_gt(tally.new, 300);
    cr_assert_gt(tally.torn, 30);
}

/* Whether a write that completed is there after a power loss, in each of many worlds. */
static uint32_t count_kept(uint32_t flags, bool is_synced)
{
    uint32_t kept = 0;
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = durable_file(&machine, "/f", 'o');
        uint8_t data[SIZE];
        memset(data, 'n', sizeof data);
        cr_assert_eq(machine_write(&machine, file, data, SIZE, 0, flags), (int32_t)SIZE);
        if (is_synced)
            cr_assert_eq(machine_sync(&machine, file), 0);
        machine_crash(&machine, SIM_POWER_LOSS);
        struct tally tally = {0};
        read_back(&machine, "/f", data);
        count_sectors(data, 'o', 'n', &tally);
        kept += tally.new == SIZE / SECTOR;
        machine_close(&machine);
    }
    return kept;
}

Test(sim_disk, durable_writes_survive)
{
    cr_assert_eq(count_kept(IO_WRITE_DSYNC, false), DISK_SEEDS);
    cr_assert_eq(count_kept(IO_WRITE_PLAIN, true), DISK_SEEDS);
    cr_assert_lt(count_kept(IO_WRITE_PLAIN, false), DISK_SEEDS * 2 / 3);
}

Test(sim_disk, sync_does_not_cover_a_write_that_was_in_flight)
{
    uint32_t lost = 0;
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = durable_file(&machine, "/f", 'o');
        uint8_t data[SIZE];
        memset(data, 'n', sizeof data);
        struct io_op write = {0};
        struct io_op sync = {0};
        io_write(machine.io, &write, file, data, SIZE, 0, IO_WRITE_PLAIN);
        io_sync(machine.io, &sync, file);
        cr_assert_eq(machine_wait(&machine, &write), (int32_t)SIZE);
        cr_assert_eq(machine_wait(&machine, &sync), 0);
        machine_crash(&machine, SIM_POWER_LOSS);
        read_back(&machine, "/f", data);
        lost += memchr(data, 'o', SIZE) != NULL;
        machine_close(&machine);
    }
    cr_assert_gt(lost, DISK_SEEDS / 10);
}

Test(sim_disk, failed_sync_is_not_made_good_by_the_next)
{
    uint32_t lost = 0;
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = durable_file(&machine, "/f", 'o');
        uint8_t data[SIZE];
        memset(data, 'n', sizeof data);
        cr_assert_eq(machine_write(&machine, file, data, SIZE, 0, IO_WRITE_PLAIN), (int32_t)SIZE);
        sim_disk_options(machine.disk)->sync_error_ppm = 1000000;
        cr_assert_eq(machine_sync(&machine, file), -EIO);
        sim_disk_options(machine.disk)->sync_error_ppm = 0;
        cr_assert_eq(machine_sync(&machine, file), 0);
        machine_crash(&machine, SIM_POWER_LOSS);
        read_back(&machine, "/f", data);
        lost += memchr(data, 'o', SIZE) != NULL;
        machine_close(&machine);
    }
    cr_assert_gt(lost, DISK_SEEDS / 3);
}

Test(sim_disk, failed_sync_of_a_direct_file_shows_what_is_lost)
{
    uint32_t lost = 0;
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        (void)durable_file(&machine, "/f", 'o');
        int file = machine_open_file(&machine, "/f", FILE_FLAGS | IO_OPEN_DIRECT);
        uint8_t *data = aligned_bytes(SIZE);
        memset(data, 'n', SIZE);
        cr_assert_eq(machine_write(&machine, file, data, SIZE, 0, IO_WRITE_PLAIN), (int32_t)SIZE);
        sim_disk_options(machine.disk)->sync_error_ppm = 1000000;
        cr_assert_eq(machine_sync(&machine, file), -EIO);
        sim_disk_options(machine.disk)->sync_error_ppm = 0;
        uint8_t seen[SIZE];
        read_back(&machine, "/f", seen);
        lost += memchr(seen, 'o', SIZE) != NULL;
        cr_assert_eq(machine_sync(&machine, file), 0);
        machine_crash(&machine, SIM_POWER_LOSS);
        read_back(&machine, "/f", data);
        cr_assert_arr_eq(data, seen, SIZE, "what is left and synced stays");
        free(data);
        machine_close(&machine);
    }
    cr_assert_gt(lost, DISK_SEEDS / 2);
}

/* ---- names and sizes ---- */

static uint32_t count_names_kept(bool is_directory_synced)
{
    uint32_t kept = 0;
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = machine_open_file(&machine, "/f", FILE_FLAGS);
        cr_assert_eq(machine_write(&machine, file, "x", 1, 0, IO_WRITE_PLAIN), 1);
        cr_assert_eq(machine_sync(&machine, file), 0);
        if (is_directory_synced)
            machine_sync_directory(&machine, "/");
        machine_crash(&machine, SIM_POWER_LOSS);
        kept += machine_open_file(&machine, "/f", IO_OPEN_READ) >= 0;
        machine_close(&machine);
    }
    return kept;
}

Test(sim_disk, new_file_is_lost_unless_its_directory_is_synced)
{
    cr_assert_eq(count_names_kept(true), DISK_SEEDS);
    uint32_t kept = count_names_kept(false);
    cr_assert_gt(kept, DISK_SEEDS / 10);
    cr_assert_lt(kept, DISK_SEEDS * 3 / 4);
}

Test(sim_disk, rename_replaces_whole_or_not_at_all)
{
    uint32_t replaced = 0;
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        (void)durable_file(&machine, "/target", 'o');
        (void)durable_file(&machine, "/source", 'n');
        struct io_op op = {0};
        io_rename(machine.io, &op, "/source", "/target");
        cr_assert_eq(machine_wait(&machine, &op), 0);
        machine_crash(&machine, SIM_POWER_LOSS);
        uint8_t data[SIZE];
        read_back(&machine, "/target", data);
        bool is_replaced = data[0] == 'n';
        int source = machine_open_file(&machine, "/source", IO_OPEN_READ);
        cr_assert_eq(source, is_replaced ? -ENOENT : source < 0 ? 0 : source);
        replaced += is_replaced;
        machine_close(&machine);
    }
    cr_assert_gt(replaced, DISK_SEEDS / 10);
    cr_assert_lt(replaced, DISK_SEEDS * 9 / 10);
}

Test(sim_disk, allocated_space_is_zeros_and_its_size_may_be_lost)
{
    uint32_t kept = 0;
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = durable_file(&machine, "/f", 'o');
        struct io_op op = {0};
        io_allocate(machine.io, &op, file, 4 * SIZE);
        cr_assert_eq(machine_wait(&machine, &op), 0);
        uint8_t data[SIZE];
        cr_assert_eq(machine_read(&machine, file, data, SIZE, 3 * SIZE), (int32_t)SIZE);
        for (uint32_t i = 0; i < SIZE; i++)
            cr_assert_eq(data[i], 0);
        machine_crash(&machine, SIM_POWER_LOSS);
        file = machine_open_file(&machine, "/f", IO_OPEN_READ);
        int64_t size = io_file_size(machine.io, file);
        cr_assert(size == SIZE || size == 4 * SIZE);
        kept += size == 4 * SIZE;
        machine_close(&machine);
    }
    cr_assert_gt(kept, DISK_SEEDS / 10);
    cr_assert_lt(kept, DISK_SEEDS * 9 / 10);
}

/* ---- a killed process ---- */

Test(sim_disk, kill_keeps_what_completed)
{
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = machine_open_file(&machine, "/f", FILE_FLAGS);
        uint8_t data[SIZE];
        memset(data, 'n', sizeof data);
        cr_assert_eq(machine_write(&machine, file, data, SIZE, 0, IO_WRITE_PLAIN), (int32_t)SIZE);
        machine_crash(&machine, SIM_KILL);
        read_back(&machine, "/f", data);
        cr_assert_null(memchr(data, 0, SIZE));
        machine_close(&machine);
    }
}

Test(sim_disk, lock_is_held_until_a_killed_process_has_written_its_last)
{
    uint32_t held = 0;
    for (uint64_t seed = 0; seed < DISK_SEEDS; seed++) {
        struct machine machine;
        machine_open(&machine, seed);
        int file = durable_file(&machine, "/f", 'o');
        int lock = machine_open_file(&machine, "/lock", FILE_FLAGS);
        cr_assert_eq(io_lock_file(machine.io, lock), 0);
        static uint8_t data[SIZE];
        memset(data, 'n', sizeof data);
        struct io_op op = {0};
        io_write(machine.io, &op, file, data, SIZE, 0, IO_WRITE_PLAIN);
        machine_crash(&machine, SIM_KILL);
        memset(data, 'x', sizeof data); /* its memory is gone, what it wrote is not */
        lock = machine_open_file(&machine, "/lock", FILE_FLAGS);
        bool is_held = io_lock_file(machine.io, lock) == -EWOULDBLOCK;
        held += is_held;
        while (io_lock_file(machine.io, lock) == -EWOULDBLOCK)
            cr_assert_geq(io_run(machine.io, NS_PER_MS), 0);
        uint8_t before[SIZE];
        uint8_t after[SIZE];
        read_back(&machine, "/f", before);
        sim_advance(machine.sim, sim_now_ns(machine.sim) + NS_PER_S);
        read_back(&machine, "/f", after);
        cr_assert_arr_eq(before, after, SIZE, "a write landed although the lock was free");
        cr_assert_null(memchr(after, 'x', SIZE));
        machine_close(&machine);
    }
    cr_assert_gt(held, DISK_SEEDS / 2);
}

/* ---- failures ---- */

Test(sim_disk, full_disk_refuses_what_needs_space)
{
    struct machine machine;
    machine_open(&machine, 1);
    int file = durable_file(&machine, "/f", 'o');
    uint64_t free_size;
    uint64_t total_size;
    cr_assert_eq(io_disk_space(machine.io, "/", &free_size, &total_size), 0);
    sim_disk_options(machine.disk)->capacity = total_size - free_size + SIZE;
    uint8_t data[SIZE] = {0};
    struct io_op op = {0};
    io_allocate(machine.io, &op, file, 2 * SIZE);
    cr_assert_eq(machine_wait(&machine, &op), 0);
    io_allocate(machine.io, &op, file, 3 * SIZE);
    cr_assert_eq(machine_wait(&machine, &op), -ENOSPC);
    cr_assert_eq(machine_write(&machine, file, data, SIZE, 0, IO_WRITE_PLAIN), (int32_t)SIZE);
    cr_assert_eq(machine_write(&machine, file, data, SIZE, SIZE, IO_WRITE_PLAIN), (int32_t)SIZE);
    cr_assert_eq(machine_write(&machine, file, data, SIZE, 2 * SIZE, IO_WRITE_PLAIN), -ENOSPC);
    cr_assert_eq(machine_open_file(&machine, "/g", FILE_FLAGS), -ENOSPC);
    io_unlink(machine.io, &op, "/f");
    cr_assert_eq(machine_wait(&machine, &op), 0);
    cr_assert_geq(machine_open_file(&machine, "/g", FILE_FLAGS), 0);
    machine_close(&machine);
}

Test(sim_disk, errors_are_told)
{
    struct machine machine;
    machine_open(&machine, 1);
    int file = durable_file(&machine, "/f", 'o');
    uint8_t data[SIZE];
    struct sim_disk_options *options = sim_disk_options(machine.disk);
    options->read_error_ppm = options->write_error_ppm = 1000000;
    cr_assert_eq(machine_read(&machine, file, data, SIZE, 0), -EIO);
    memset(data, 'n', SIZE);
    cr_assert_eq(machine_write(&machine, file, data, SIZE, 0, IO_WRITE_DSYNC), -EIO);
    machine_close(&machine);
}

Test(sim_disk, rot_flips_one_bit)
{
    struct machine machine;
    machine_open(&machine, 1);
    (void)durable_file(&machine, "/f", 'o');
    cr_assert_not(sim_disk_rot(machine.disk, "/absent", 0, SIZE));
    cr_assert_not(sim_disk_rot(machine.disk, "/f", SIZE, SIZE));
    cr_assert(sim_disk_rot(machine.disk, "/f", SECTOR, SECTOR));
    machine_crash(&machine, SIM_POWER_LOSS);
    uint8_t data[SIZE];
    read_back(&machine, "/f", data);
    uint32_t bits = 0;
    for (uint32_t i = 0; i < SIZE; i++) {
        bits += (uint32_t)__builtin_popcount(data[i] ^ 'o');
        cr_assert(data[i] == 'o' || i / SECTOR == 1);
    }
    cr_assert_eq(bits, 1);
    machine_close(&machine);
}
