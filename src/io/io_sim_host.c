/* Hosts: how they start, crash and end, and what they know of time and chance. */
#include "io/io_sim_internal.h"

#include "base/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Where the wall clock starts: 2026-01-01. */
#define WALL_START_MS INT64_C(1767225600000)

void sim_host_open(struct sim *sim, struct sim_disk *disk, const struct io_options *options,
                   struct io **ret_io)
{
    assert(options->region_size % PAGE_SIZE == 0);
    struct io *io = sim_allocate(sizeof *io);
    io->sim = sim;
    io->disk = disk;
    io->options = *options;
    io->crash_now = sim_host_crash;
    io->number = ++sim->hosts_count;
    if (options->region_size > 0) {
        io->region = memory_map(options->region_size);
        assert(io->region != NULL);
    }
    io->now_ns = sim->now_ns;
    io->wall_offset_ms = WALL_START_MS;
    io->wall_ms = (uint64_t)((int64_t)(sim->now_ns / NS_PER_MS) + WALL_START_MS);
    io->sockets = sim_allocate(options->sockets_max * sizeof(struct sim_socket *));
    io->files = sim_allocate(options->files_max * sizeof(struct sim_file *));
    list_init(&io->active);
    list_init(&io->ready);
    list_push_back(&sim->hosts, &io->node);
    sim_note(sim, io->number, "open", 0, 0);
    *ret_io = io;
}

static void forget_completions(struct io *io)
{
    for (struct list_node *node; (node = list_pop_front(&io->ready)) != NULL;)
        completion_free(container_of(node, struct sim_completion, node));
}

static void forget_operations(struct io *io)
{
    for (struct list_node *node; (node = list_first(&io->active)) != NULL;)
        op_forget(container_of(node, struct sim_op, node));
}

static void crash_one(struct io *io, enum sim_crash crash)
{
    if (io->state != SIM_HOST_RUNS)
        return;
    sim_note(io->sim, io->number, crash == SIM_KILL ? "killed" : "power loss", (int64_t)io->steps,
             0);
    io->state = SIM_HOST_CRASHED;
    files_crash(io, crash);
    net_crash(io, crash);
    forget_completions(io);
    forget_operations(io);
}

void sim_host_crash(struct io *io, enum sim_crash crash)
{
    if (crash == SIM_KILL) {
        crash_one(io, crash);
        return;
    }
    struct list *hosts = &io->sim->hosts;
    for (struct list_node *node = list_first(hosts); node; node = list_next(hosts, node)) {
        struct io *host = container_of(node, struct io, node);
        if (host->disk == io->disk)
            crash_one(host, crash);
    }
    sim_disk_lose_power(io->disk);
}

void sim_host_crash_after(struct io *io, uint64_t count, enum sim_crash crash)
{
    io->crash_at_steps = io->steps + (count > 0 ? count : 1);
    io->crash = crash;
}

bool sim_host_is_crashed(const struct io *io)
{
    return io->state == SIM_HOST_CRASHED;
}

uint64_t sim_host_steps(const struct io *io)
{
    return io->steps;
}

void io_close(struct io *io)
{
    assert(!io->is_running);
    if (io->state == SIM_HOST_RUNS) {
        io->state = SIM_HOST_CLOSING;
        files_close(io);
        net_crash(io, SIM_KILL);
        forget_completions(io);
        forget_operations(io);
    }
    list_remove(&io->node);
    if (io->region != NULL)
        memory_unmap(io->region, io->options.region_size);
    free(io->sockets);
    free(io->files);
    free(io);
}

void sim_free(struct sim *sim)
{
    assert(list_is_empty(&sim->hosts));
    for (struct list_node *node; (node = list_first(&sim->peers)) != NULL;)
        sim_peer_close(container_of(node, struct sim_peer, node));
    /* What is still on its way ends here: each packet holds its connection. */
    while (sim_step(sim, UINT64_MAX))
        ;
    for (struct list_node *node; (node = list_pop_front(&sim->disks)) != NULL;) {
        struct sim_disk *disk = container_of(node, struct sim_disk, node);
        tree_free(disk);
        free(disk);
    }
    free(sim->queue);
    free(sim);
}

/* ---- what a host knows ---- */

uint8_t *io_region(struct io *io)
{
    return io->region;
}

uint32_t io_sockets_max(const struct io *io)
{
    return io->options.sockets_max;
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

/* Time passes between passes only. */
uint64_t io_clock_ns(const struct io *io)
{
    return io->now_ns;
}

/* A simulated ring has no bounds of its own. */
void io_counts(const struct io *io, struct io_counts *ret_counts)
{
    (void)io;
    *ret_counts = (struct io_counts){0};
}

uint64_t io_wall_ms(const struct io *io)
{
    return io->wall_ms;
}

void sim_host_jump(struct io *io, int64_t delta_ms)
{
    io->wall_offset_ms += delta_ms;
    io->wall_ms = (uint64_t)((int64_t)io->wall_ms + delta_ms);
}

void sim_host_freeze(struct io *io, bool is_frozen)
{
    io->wall_is_frozen = is_frozen;
}

void io_random(struct io *io, void *buffer, size_t size)
{
    uint8_t *to = buffer;
    for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
        uint64_t value = prng_next(&io->sim->prng);
        memcpy(to + at, &value, min_u64(sizeof value, size - at));
    }
}
