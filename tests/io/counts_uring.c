/* What the real world counts of itself. */
#include "tests/support/support.h"

#define READS 6000 /* more than the completion queue holds */

static struct io_counts counts_of(struct world *world)
{
    struct io_counts counts;
    io_counts(world_io(world), &counts);
    return counts;
}

Test(io_counts, the_clock_goes_on_within_a_pass)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    (void)io_run(io, 0);
    uint64_t pass_ns = io_now_ns(io);
    uint64_t first_ns = io_clock_ns(io);
    cr_assert_geq(first_ns, pass_ns);
    while (io_clock_ns(io) == first_ns)
        continue;
    cr_assert_gt(io_clock_ns(io), first_ns);
    cr_assert_eq(io_now_ns(io), pass_ns, "the pass's own time stands still");
    world_close(world);
}

Test(io_counts, passes)
{
    struct world *world = world_open(NULL);
    uint64_t before = counts_of(world).passes;
    for (int i = 0; i < 7; i++)
        (void)io_run(world_io(world), 0);
    cr_assert_eq(counts_of(world).passes, before + 7);
    cr_assert_eq(counts_of(world).overflows, 0);
    cr_assert_eq(counts_of(world).starved, 0);
    world_close(world);
}

Test(io_counts, receives_without_a_buffer)
{
    struct io_options options = WORLD_OPTIONS;
    options.receive_buffer_size = 512;
    options.receive_buffer_count = 2;
    struct world *world = world_open(&options);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    uint64_t sent = 0;
    peer_send_stream(world, peer, 2, &sent, 64 * KIB);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 2);
    RUN_UNTIL(world, receiver.received == sent);
    cr_assert(!receiver.is_wrong);
    cr_assert_gt(counts_of(world).starved, 0);
    world_close(world);
}

/* Reads of what is in memory complete while they are submitted. None is lost. */
Test(io_counts, completions_beyond_the_queue)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    int file = open_file(world, "f", IO_OPEN_WRITE | IO_OPEN_CREATE);
    cr_assert_geq(file, 0);
    cr_assert_eq(write_file(world, file, "x", 1, 0, IO_WRITE_PLAIN), 1);
    struct probe *probes = calloc(READS, sizeof *probes);
    char *bytes = calloc(READS, 1);
    uint32_t done = 0;
    for (uint32_t i = 0; i < READS; i++) {
        probe_init(&probes[i]);
        io_read(io, &probes[i].op, file, &bytes[i], 1, 0);
    }
    for (uint32_t pass = 0; pass < 1000 && done < READS; pass++) {
        (void)io_run(io, NS_PER_S / 100);
        for (done = 0; done < READS && probes[done].count == 1; done++)
            cr_assert(probes[done].result == 1 && bytes[done] == 'x');
    }
    cr_assert_eq(done, READS);
    cr_assert_gt(counts_of(world).overflows, 0);
    cr_assert_eq(close_file(world, file), 0);
    free(probes);
    free(bytes);
    world_close(world);
}
