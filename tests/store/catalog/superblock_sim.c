/* The superblock under crashes: formatting and updating, cut short at every step. */
#include "store/catalog/superblock.h"

#include "base/units.h"
#include "io/io_sim.h"

#include <criterion/criterion.h>
#include <errno.h>

static const struct superblock_birth birth = {4 * MIB, 1, NULL};

static const struct io_options options = {
    .sockets_max = 4, .files_max = 8, .receive_buffer_size = 4096, .receive_buffer_count = 4};

static void say_nothing(void *context, const char *line, uint32_t size)
{
    (void)context;
    (void)line;
    (void)size;
}

static const struct log quiet = {.level_min = LOG_ERROR, .write = say_nothing};

static int open_superblock(struct io *io, struct superblock_file *ret_file, bool *ret_formatted)
{
    return superblock_open(io, &quiet, "data", &birth, 10 * NS_PER_S, ret_file, ret_formatted);
}

/* Opens it after a crash: that always succeeds. */
static struct superblock reopen(struct sim *sim, struct sim_disk *disk, bool *ret_formatted)
{
    struct io *io;
    struct superblock_file file;
    sim_host_open(sim, disk, &options, &io);
    int result = open_superblock(io, &file, ret_formatted);
    cr_assert_eq(result, 0, "a restart failed: %d", result);
    struct superblock found = file.now;
    superblock_close(&file);
    io_close(io);
    return found;
}

static void format_and_crash(uint64_t seed, uint64_t steps, enum sim_crash crash)
{
    struct sim *sim = sim_create(seed);
    struct sim_disk *disk = sim_disk_create(sim);
    struct io *io;
    struct superblock_file file;
    struct superblock formatted = {.format = 0};
    bool is_new = false;
    sim_host_open(sim, disk, &options, &io);
    sim_host_crash_after(io, steps, crash);
    bool is_open = open_superblock(io, &file, &is_new) == 0;
    if (is_open) {
        formatted = file.now;
        if (!sim_host_is_crashed(io))
            sim_host_crash(io, crash);
        superblock_close(&file);
    }
    io_close(io);
    struct superblock found = reopen(sim, disk, &is_new);
    if (is_open)
        cr_assert_eq(found.directory_id, formatted.directory_id, "seed %lu, step %lu", seed, steps);
    /* And what was found after a kill stays when the power goes as well. */
    sim_disk_lose_power(disk);
    bool is_new_again;
    struct superblock again = reopen(sim, disk, &is_new_again);
    cr_assert_eq(again.directory_id, found.directory_id, "seed %lu, step %lu", seed, steps);
    cr_assert(!is_new_again);
    sim_free(sim);
}

Test(superblock_crash, formatting_may_be_cut_short_at_every_step)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        for (uint64_t steps = 1; steps < 40; steps++) {
            format_and_crash(seed, steps, SIM_POWER_LOSS);
            format_and_crash(seed, steps, SIM_KILL);
        }
    }
}

static void update_and_crash(uint64_t seed, uint64_t steps)
{
    struct sim *sim = sim_create(seed);
    struct sim_disk *disk = sim_disk_create(sim);
    struct io *io;
    struct superblock_file file;
    bool is_new;
    sim_host_open(sim, disk, &options, &io);
    cr_assert_eq(open_superblock(io, &file, &is_new), 0);
    uint64_t done = 0;
    sim_host_crash_after(io, steps, SIM_POWER_LOSS);
    for (uint64_t ceiling = 1; !sim_host_is_crashed(io) && ceiling < 100; ceiling++) {
        file.now.clock_ceiling = ceiling;
        if (superblock_update(&file) == 0)
            done = ceiling;
    }
    superblock_close(&file);
    io_close(io);
    struct superblock found = reopen(sim, disk, &is_new);
    cr_assert(!is_new);
    cr_assert(found.clock_ceiling == done || found.clock_ceiling == done + 1,
              "seed %lu, step %lu: %lu done, %lu found", seed, steps, done, found.clock_ceiling);
    sim_free(sim);
}

Test(superblock_crash, an_update_is_there_or_the_one_before)
{
    for (uint64_t seed = 1; seed <= 40; seed++)
        for (uint64_t steps = 1; steps < 30; steps++)
            update_and_crash(seed, steps);
}

Test(superblock_crash, failed_updates_never_cost_the_good_copy)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct sim *sim = sim_create(seed);
        struct sim_disk *disk = sim_disk_create(sim);
        struct io *io;
        struct superblock_file file;
        bool is_new;
        sim_host_open(sim, disk, &options, &io);
        cr_assert_eq(open_superblock(io, &file, &is_new), 0);
        file.now.clock_ceiling = 5;
        cr_assert_eq(superblock_update(&file), 0);
        sim_disk_options(disk)->write_error_ppm = 1000000;
        for (uint64_t ceiling = 6; ceiling < 9; ceiling++) {
            file.now.clock_ceiling = ceiling;
            cr_assert_eq(superblock_update(&file), -EIO);
        }
        sim_host_crash(io, SIM_POWER_LOSS);
        superblock_close(&file);
        io_close(io);
        sim_disk_options(disk)->write_error_ppm = 0;
        struct superblock found = reopen(sim, disk, &is_new);
        cr_assert(!is_new);
        cr_assert(found.clock_ceiling >= 5 && found.clock_ceiling < 9);
        sim_free(sim);
    }
}

Test(superblock_crash, what_cannot_be_read_is_not_formatted)
{
    struct sim *sim = sim_create(1);
    struct sim_disk *disk = sim_disk_create(sim);
    bool is_new;
    struct superblock before = reopen(sim, disk, &is_new);
    struct io *io;
    struct superblock_file file;
    sim_disk_options(disk)->read_error_ppm = 1000000;
    sim_host_open(sim, disk, &options, &io);
    cr_assert_eq(open_superblock(io, &file, &is_new), -EIO);
    io_close(io);
    sim_disk_options(disk)->read_error_ppm = 0;
    struct superblock after = reopen(sim, disk, &is_new);
    cr_expect(!is_new);
    cr_expect_eq(after.directory_id, before.directory_id);
    sim_free(sim);
}
