/* Rules 1 to 3 of the contract: what an operation is, whatever its kind. */
#include "tests/support/support.h"

Test(io_operation, submitting_never_completes)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct probe probes[5];
    for (int i = 0; i < 5; i++)
        probe_init(&probes[i]);
    uint8_t byte = 7;
    struct io_send send = {.slices[0] = {&byte, 1}};
    cr_assert_eq(world_peer_send(world, peer, "x", 1), 1);

    io_timer(io, &probes[0].op, 0);
    io_receive(io, &probes[1].op, socket);
    io_open_file(io, &probes[2].op, world_path(world, "absent"), IO_OPEN_READ);
    io_unlink(io, &probes[3].op, world_path(world, "absent"));
    io_rename(io, &probes[4].op, world_path(world, "absent"), world_path(world, "other"));
    io_send(io, &send, socket, 1);
    cr_expect(io_op_is_active(&send.op));
    for (int i = 0; i < 5; i++) {
        cr_expect_eq(probes[i].count, 0);
        cr_expect(io_op_is_active(&probes[i].op));
    }
    RUN_UNTIL(world, probes[0].count && probes[1].count && probes[2].count && probes[3].count &&
                         probes[4].count && !io_op_is_active(&send.op));
    world_close(world);
}

Test(io_operation, one_shot_completes_exactly_once)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct probe open, timer;
    probe_init(&open);
    probe_init(&timer);
    io_open_file(io, &open.op, world_path(world, "f"), IO_OPEN_WRITE | IO_OPEN_CREATE);
    io_timer(io, &timer.op, io_now_ns(io) + NS_PER_MS);
    RUN_UNTIL(world, open.count > 0 && timer.count > 0);
    run_passes(world, 20);
    cr_assert_eq(open.count, 1);
    cr_assert_geq(open.result, 0);
    cr_assert(!open.was_active, "the last completion finds the operation idle");
    cr_assert_eq(open.op.result, open.result);
    cr_assert_eq(timer.count, 1);
    cr_assert_eq(timer.result, 0);
    world_close(world);
}

Test(io_operation, multishot_stays_active_within_its_completions)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    cr_assert(io_op_is_active(&server.accept));
    struct probe receive;
    probe_init(&receive);
    io_receive(world_io(world), &receive.op, socket);
    for (uint32_t i = 1; i <= 3; i++) {
        cr_assert_eq(world_peer_send(world, peer, "x", 1), 1);
        RUN_UNTIL(world, receive.count == i);
        cr_assert_eq(receive.result, 1);
        cr_assert(receive.was_active);
    }
    world_peer_close(world, peer);
    RUN_UNTIL(world, receive.count == 4);
    cr_assert_eq(receive.result, 0);
    cr_assert(!receive.was_active);
    world_close(world);
}

static void submit_again(void *context)
{
    struct world *world = context;
    struct io_op op = {0};
    io_timer(world_io(world), &op, UINT64_MAX);
    io_timer(world_io(world), &op, UINT64_MAX);
}

Test(io_operation, submitting_an_active_one_is_our_error)
{
    struct world *world = world_open(NULL);
    cr_assert(is_refused(submit_again, world));
    world_close(world);
}

/* A completion that submits its own operation again, and counts down. */
struct repeat {
    struct io_op op;
    struct io *io;
    uint32_t left;
};

static void repeat_done(struct io_op *op, int32_t result)
{
    struct repeat *repeat = container_of(op, struct repeat, op);
    cr_assert_eq(result, 0);
    cr_assert(!io_op_is_active(op));
    if (--repeat->left > 0)
        io_timer(repeat->io, op, 0);
}

Test(io_operation, completion_may_submit_its_own_operation)
{
    struct world *world = world_open(NULL);
    struct repeat repeat = {.op.done = repeat_done, .io = world_io(world), .left = 100};
    io_timer(repeat.io, &repeat.op, 0);
    uint32_t passes = 0;
    while (repeat.left > 0) {
        cr_assert_geq(io_run(repeat.io, NS_PER_MS), 0);
        passes++;
    }
    cr_assert_geq(passes, 100, "what a completion submits completes in a later pass");
    world_close(world);
}

Test(io_operation, wait_needs_no_completion_function_and_runs_the_others)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct probe early;
    probe_init(&early);
    struct io_op late = {0};
    io_timer(io, &early.op, io_now_ns(io) + NS_PER_MS);
    io_timer(io, &late, io_now_ns(io) + 5 * NS_PER_MS);
    cr_assert_eq(io_wait(io, &late), 0);
    cr_assert_eq(early.count, 1);
    struct io_op open = {0};
    io_open_file(io, &open, world_path(world, "absent"), IO_OPEN_READ);
    cr_assert_eq(io_wait(io, &open), -ENOENT, "the operation's own error");
    world_close(world);
}

Test(io_operation, cancelling_an_idle_one_does_nothing)
{
    struct world *world = world_open(NULL);
    struct probe probe;
    probe_init(&probe);
    io_cancel(world_io(world), &probe.op);
    run_passes(world, 5);
    cr_assert_eq(probe.count, 0);
    io_timer(world_io(world), &probe.op, 0);
    RUN_UNTIL(world, probe.count == 1);
    cr_assert_eq(probe.result, 0, "an earlier cancel does not concern a later submission");
    world_close(world);
}

#define MANY 6000

/* More than a submission queue holds, without a pass in between. */
Test(io_operation, thousands_submitted_at_once_all_complete_once)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    int file = open_file(world, "f", IO_OPEN_WRITE | IO_OPEN_CREATE);
    uint8_t content[MANY];
    stream_fill(1, 0, content, sizeof content);
    cr_assert_eq(write_file(world, file, content, sizeof content, 0, IO_WRITE_PLAIN), MANY);
    struct probe *probes = calloc(MANY, sizeof *probes);
    uint8_t *bytes = calloc(MANY, 1);
    for (uint32_t i = 0; i < MANY; i++) {
        probe_init(&probes[i]);
        io_read(io, &probes[i].op, file, &bytes[i], 1, i);
    }
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(probes[i].count, 0);
    for (uint32_t i = 0; i < MANY; i++) {
        RUN_UNTIL(world, probes[i].count > 0);
        cr_assert_eq(probes[i].result, 1);
    }
    run_passes(world, 10);
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(probes[i].count, 1);
    cr_assert_arr_eq(bytes, content, MANY);
    free(bytes);
    free(probes);
    world_close(world);
}

Test(io_operation, run_does_not_wait_when_told_so)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct io_op timer = {0};
    io_timer(io, &timer, io_now_ns(io) + 1000 * NS_PER_S);
    uint64_t before_ns = io_now_ns(io);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(io_run(io, 0), 0);
    cr_assert_lt(io_now_ns(io) - before_ns, 500 * NS_PER_MS);
    cr_assert_eq(io_run(io, 20 * NS_PER_MS), 0);
    cr_assert_geq(io_now_ns(io) - before_ns, 20 * NS_PER_MS);
    world_close(world);
}

Test(io_operation, closing_a_world_ends_what_is_active)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    int file = open_file(world, "f", IO_OPEN_WRITE | IO_OPEN_CREATE);
    struct probe *probes = calloc(8, sizeof *probes);
    for (int i = 0; i < 8; i++)
        probe_init(&probes[i]);
    size_t size = 16 * MIB;
    struct io_send *send = calloc(1, sizeof *send);
    uint8_t *large = calloc(1, size);
    send->slices[0] = (struct iovec){large, size};
    io_receive(io, &probes[0].op, socket);
    io_timer(io, &probes[1].op, UINT64_MAX);
    io_timer(io, &probes[2].op, 0);
    io_send(io, send, socket, 1);
    run_passes(world, 3);
    io_sync(io, &probes[3].op, file);
    io_write(io, &probes[4].op, file, large, (uint32_t)MIB, 0, IO_WRITE_DSYNC);
    io_open_file(io, &probes[5].op, world_path(world, "g"), IO_OPEN_WRITE | IO_OPEN_CREATE);
    io_truncate(io, &probes[6].op, world_path(world, "f"), 5);
    uint32_t counts[8];
    for (int i = 0; i < 8; i++)
        counts[i] = probes[i].count;
    world_close(world);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(probes[i].count, counts[i], "no completion is called any more");
    free(large);
    free(send);
    free(probes);
}
