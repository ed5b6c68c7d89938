/* A simulated machine for the simulator's own tests: one disk, one host after the other. */
#ifndef TESTS_SUPPORT_SIM_MACHINE_H
#define TESTS_SUPPORT_SIM_MACHINE_H

#include "io/io_sim.h"
#include "support.h"

#define FILE_FLAGS (IO_OPEN_WRITE | IO_OPEN_CREATE)
#define DISK_SEEDS 200u

struct machine {
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
};

static inline void machine_start(struct machine *machine)
{
    static const struct io_options options = WORLD_OPTIONS;
    sim_host_open(machine->sim, machine->disk, &options, &machine->io);
}

static inline void machine_open(struct machine *machine, uint64_t seed)
{
    machine->sim = sim_create(seed);
    machine->disk = sim_disk_create(machine->sim);
    machine_start(machine);
}

static inline void machine_close(struct machine *machine)
{
    io_close(machine->io);
    sim_free(machine->sim);
}

/* Crashes and starts again. */
static inline void machine_crash(struct machine *machine, enum sim_crash crash)
{
    sim_host_crash(machine->io, crash);
    io_close(machine->io);
    machine_start(machine);
}

static inline int32_t machine_wait(struct machine *machine, struct io_op *op)
{
    return io_wait(machine->io, op);
}

static inline int32_t machine_open_file(struct machine *machine, const char *path, uint32_t flags)
{
    struct io_op op = {0};
    io_open_file(machine->io, &op, path, flags);
    return machine_wait(machine, &op);
}

static inline int32_t machine_write(struct machine *machine, int file, const void *data,
                                    uint32_t size, uint64_t offset, uint32_t flags)
{
    struct io_op op = {0};
    io_write(machine->io, &op, file, data, size, offset, flags);
    return machine_wait(machine, &op);
}

static inline int32_t machine_read(struct machine *machine, int file, void *data, uint32_t size,
                                   uint64_t offset)
{
    struct io_op op = {0};
    io_read(machine->io, &op, file, data, size, offset);
    return machine_wait(machine, &op);
}

static inline int32_t machine_sync(struct machine *machine, int file)
{
    struct io_op op = {0};
    io_sync(machine->io, &op, file);
    return machine_wait(machine, &op);
}

static inline void machine_sync_directory(struct machine *machine, const char *path)
{
    int directory = machine_open_file(machine, path, IO_OPEN_DIRECTORY);
    cr_assert_geq(directory, 0);
    cr_assert_eq(machine_sync(machine, directory), 0);
    struct io_op op = {0};
    io_close_file(machine->io, &op, directory);
    cr_assert_eq(machine_wait(machine, &op), 0);
}

#endif
