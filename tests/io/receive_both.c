/* Receiving: leased buffers, running out of them, ending and switching; in both modes of the real
 * world. */
#include "tests/support/support.h"

static struct world *open_mode(bool single, uint32_t buffer_size, uint32_t buffer_count)
{
    struct io_options options = WORLD_OPTIONS;
    options.sockets_max = 600;
    options.receive_single = single;
    options.receive_buffer_size = buffer_size;
    options.receive_buffer_count = buffer_count;
    return world_open(&options);
}

static void large_stream_arrives_whole(bool single)
{
    struct world *world = open_mode(single, 4096, 16);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 1);
    uint64_t sent = 0, size = 8 * MIB;
    while (sent < size) {
        peer_send_stream(world, peer, 1, &sent, size);
        run_passes(world, 1);
    }
    RUN_UNTIL(world, receiver.received == size);
    cr_assert(!receiver.is_wrong);
    world_peer_close(world, peer);
    RUN_UNTIL(world, receiver.has_ended);
    cr_assert_eq(receiver.result, 0);
    cr_assert_eq(receiver.received, size);
    world_close(world);
}

Test(io_receive, large_stream_arrives_whole)
{
    large_stream_arrives_whole(false);
}

Test(io_receive, large_stream_arrives_whole_by_single_receives)
{
    large_stream_arrives_whole(true);
}

static void end_comes_after_all_bytes(bool single)
{
    struct world *world = open_mode(single, 512, 2);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    uint64_t sent = 0;
    peer_send_stream(world, peer, 2, &sent, 5000);
    world_peer_close(world, peer);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 2);
    RUN_UNTIL(world, receiver.has_ended);
    cr_assert_eq(receiver.received, 5000);
    cr_assert_eq(receiver.result, 0);
    cr_assert(!receiver.is_wrong);
    world_close(world);
}

Test(io_receive, end_comes_after_all_bytes)
{
    end_comes_after_all_bytes(false);
}

Test(io_receive, end_comes_after_all_bytes_by_single_receives)
{
    end_comes_after_all_bytes(true);
}

#define CROWD 300

/* Far more connections than buffers, all with more to say than all buffers hold. */
static void buffers_that_run_out_are_not_noticed(bool single)
{
    struct world *world = open_mode(single, 256, 4);
    struct contract_server server;
    contract_server_open(&server, world);
    static struct receiver receivers[CROWD];
    int peers[CROWD];
    uint64_t sent[CROWD] = {0};
    for (uint32_t i = 0; i < CROWD; i++) {
        int socket = server_connect(&server, &peers[i]);
        receiver_start(&receivers[i], world, socket, i);
    }
    for (uint32_t i = 0; i < CROWD; i++)
        peer_send_stream(world, peers[i], i, &sent[i], 3000 + i);
    for (uint32_t i = 0; i < CROWD; i++) {
        cr_assert_eq(sent[i], 3000 + i);
        RUN_UNTIL(world, receivers[i].received == sent[i]);
        cr_assert(!receivers[i].is_wrong);
        cr_assert(!receivers[i].has_ended);
    }
    for (uint32_t i = 0; i < CROWD; i++) {
        world_peer_close(world, peers[i]);
        RUN_UNTIL(world, receivers[i].has_ended);
        cr_assert_eq(receivers[i].result, 0);
    }
    world_close(world);
}

Test(io_receive, buffers_that_run_out_are_not_noticed)
{
    buffers_that_run_out_are_not_noticed(false);
}

Test(io_receive, buffers_that_run_out_are_not_noticed_by_single_receives)
{
    buffers_that_run_out_are_not_noticed(true);
}

static void cancelled_one_ends_and_can_go_on(bool single)
{
    struct world *world = open_mode(single, 512, 4);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 6);
    uint64_t sent = 0, size = 200000;
    uint64_t received = 0;
    uint32_t cancels = 0;
    while (received + receiver.received < size) {
        peer_send_stream(world, peer, 6, &sent, size);
        run_passes(world, 1);
        io_cancel(io, &receiver.op);
        io_cancel(io, &receiver.op);
        RUN_UNTIL(world, receiver.has_ended);
        cr_assert_eq(receiver.result, -ECANCELED);
        cr_assert(!receiver.is_wrong);
        cancels++;
        struct receiver next = {.op.done = receiver.op.done, .stream = 6};
        next.received = receiver.received; /* a stream has no seam where it was cancelled */
        receiver = next;
        io_receive(io, &receiver.op, socket);
    }
    cr_assert_eq(receiver.received, size);
    cr_assert_gt(cancels, 0);
    world_close(world);
}

Test(io_receive, cancelled_one_ends_and_can_go_on)
{
    cancelled_one_ends_and_can_go_on(false);
}

Test(io_receive, cancelled_one_ends_and_can_go_on_by_single_receives)
{
    cancelled_one_ends_and_can_go_on(true);
}

/* Cancels itself within its completion. */
struct quitter {
    struct io_op op;
    struct io *io;
    uint32_t bytes;
    bool has_ended;
};

static void quitter_done(struct io_op *op, int32_t result)
{
    struct quitter *quitter = container_of(op, struct quitter, op);
    if (result > 0) {
        quitter->bytes += (uint32_t)result;
        io_cancel(quitter->io, op);
        return;
    }
    cr_assert_eq(result, -ECANCELED);
    cr_assert(!quitter->has_ended);
    quitter->has_ended = true;
}

static void completion_may_cancel_its_own(bool single)
{
    struct world *world = open_mode(single, 512, 4);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct quitter quitter = {.op.done = quitter_done, .io = world_io(world)};
    io_receive(quitter.io, &quitter.op, socket);
    uint64_t sent = 0;
    peer_send_stream(world, peer, 0, &sent, 100);
    RUN_UNTIL(world, quitter.has_ended);
    cr_assert_eq(quitter.bytes, 100);
    run_passes(world, 5);
    world_close(world);
}

Test(io_receive, completion_may_cancel_its_own)
{
    completion_may_cancel_its_own(false);
}

Test(io_receive, completion_may_cancel_its_own_by_single_receives)
{
    completion_may_cancel_its_own(true);
}

Test(io_receive, into_own_buffer_takes_at_most_what_it_holds)
{
    struct world *world = open_mode(false, 4096, 16);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    uint8_t buffer[300];
    struct probe probe;
    probe_init(&probe);
    io_receive_into(io, &probe.op, socket, buffer, sizeof buffer);
    run_passes(world, 3);
    cr_assert_eq(probe.count, 0, "nothing has been sent");
    uint64_t sent = 0, received = 0;
    peer_send_stream(world, peer, 9, &sent, 1000);
    RUN_UNTIL(world, probe.count == 1);
    while (received < 1000) {
        cr_assert_gt(probe.result, 0);
        cr_assert_leq(probe.result, 300);
        cr_assert(stream_matches(9, received, buffer, (size_t)probe.result));
        received += (uint64_t)probe.result;
        if (received == 1000)
            break;
        io_receive_into(io, &probe.op, socket, buffer, sizeof buffer);
        (void)io_wait(io, &probe.op);
    }
    world_peer_close(world, peer);
    io_receive_into(io, &probe.op, socket, buffer, sizeof buffer);
    cr_assert_eq(io_wait(io, &probe.op), 0, "the end of the stream");
    world_close(world);
}

Test(io_receive, into_own_buffer_can_be_cancelled)
{
    struct world *world = open_mode(false, 4096, 16);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    uint8_t buffer[300];
    struct probe probe;
    probe_init(&probe);
    io_receive_into(world_io(world), &probe.op, socket, buffer, sizeof buffer);
    run_passes(world, 2);
    io_cancel(world_io(world), &probe.op);
    RUN_UNTIL(world, probe.count == 1);
    cr_assert_eq(probe.result, -ECANCELED);
    world_close(world);
}

/* A large value: its head came leased, the rest is wanted in place. No byte may fall between the
 * two. */
Test(io_receive, switching_to_an_own_buffer_loses_nothing)
{
    struct world *world = open_mode(false, 512, 8);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 11);
    uint64_t sent = 0, size = 300000;
    peer_send_stream(world, peer, 11, &sent, size);
    RUN_UNTIL(world, receiver.count > 0);
    io_cancel(io, &receiver.op);
    RUN_UNTIL(world, receiver.has_ended);
    cr_assert(!receiver.is_wrong);
    uint64_t received = receiver.received;
    uint8_t *rest = malloc(size);
    struct io_op op = {0};
    while (received < size) {
        peer_send_stream(world, peer, 11, &sent, size);
        io_receive_into(io, &op, socket, rest, (uint32_t)(size - received));
        int32_t got = io_wait(io, &op);
        cr_assert_gt(got, 0);
        cr_assert(stream_matches(11, received, rest, (size_t)got));
        received += (uint64_t)got;
    }
    free(rest);
    world_close(world);
}
