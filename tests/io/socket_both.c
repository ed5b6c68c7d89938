/* Sockets: listening, accepting, the ends of a connection, and how many there may be. */
#include "tests/support/support.h"

#include <unistd.h>

Test(io_socket, port_in_use_is_refused)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    contract_server_open(&server, world);
    int listener = -77;
    uint16_t port = 0;
    int error = listen_alone(world_io(world), "127.0.0.1", server.port, 16, &listener, &port);
    cr_assert_eq(error, -EADDRINUSE);
    cr_assert_eq(listener, -77, "outputs are untouched on failure");
    world_close(world);
}

/* ---- a shared port ---- */

#define SHARED_PEERS 200

/* A listener of a shared port, and the sockets that it gave. */
struct sharer {
    struct contract_server server;
    struct io_listener listener;
};

static void sharer_open(struct sharer *sharer, struct world *world, uint16_t port, bool is_first)
{
    memset(sharer, 0, sizeof *sharer);
    sharer->server.world = world;
    sharer->listener.handle = -77;
    int error = io_listen(world_io(world), "127.0.0.1", port, 512,
                          is_first ? IO_SHARE_FIRST : IO_SHARE_JOIN, &sharer->listener);
    cr_assert_eq(error, 0, "%s", strerror(-error));
    cr_assert_geq(sharer->listener.handle, 0);
    sharer->server.listener = sharer->listener.handle;
    sharer->server.port = sharer->listener.port;
    contract_server_accept(&sharer->server);
}

static void sharer_close(struct sharer *sharer)
{
    if (sharer->listener.descriptor >= 0)
        (void)close(sharer->listener.descriptor);
    io_cancel(world_io(sharer->server.world), &sharer->server.accept);
    RUN_UNTIL(sharer->server.world, !io_op_is_active(&sharer->server.accept));
    close_socket(sharer->server.world, sharer->listener.handle);
}

Test(io_socket, listeners_that_share_a_port_share_its_connections)
{
    struct world *world = world_open(&(struct io_options){.sockets_max = 512,
                                                          .files_max = 8,
                                                          .receive_buffer_size = 4096,
                                                          .receive_buffer_count = 64});
    struct sharer first, second;
    sharer_open(&first, world, 0, true);
    sharer_open(&second, world, first.listener.port, false);
    cr_assert_eq(second.listener.port, first.listener.port);
    for (int i = 0; i < SHARED_PEERS; i++)
        cr_assert_geq(world_peer_connect(world, first.listener.port), 0);
    RUN_UNTIL(world, first.server.socket_count + second.server.socket_count == SHARED_PEERS);
    cr_assert_gt(first.server.socket_count, SHARED_PEERS / 4);
    cr_assert_gt(second.server.socket_count, SHARED_PEERS / 4);
    sharer_close(&first);
    uint32_t before = second.server.socket_count;
    cr_assert_geq(world_peer_connect(world, second.listener.port), 0);
    RUN_UNTIL(world, second.server.socket_count == before + 1);
    sharer_close(&second);
    world_close(world);
}

Test(io_socket, shared_port_is_taken_by_one_first_and_joined_only_when_it_is_shared)
{
    struct world *world = world_open(NULL);
    struct contract_server alone;
    contract_server_open(&alone, world);
    struct io_listener listener = {.handle = -77};
    struct io *io = world_io(world);
    cr_assert_eq(io_listen(io, "127.0.0.1", alone.port, 16, IO_SHARE_FIRST, &listener),
                 -EADDRINUSE);
    cr_assert_eq(io_listen(io, "127.0.0.1", alone.port, 16, IO_SHARE_JOIN, &listener), -EADDRINUSE);
    struct sharer first;
    sharer_open(&first, world, 0, true);
    uint16_t port = first.listener.port;
    cr_assert_eq(io_listen(io, "127.0.0.1", port, 16, IO_SHARE_FIRST, &listener), -EADDRINUSE);
    cr_assert_eq(listener.handle, -77, "outputs are untouched on failure");
    int handle;
    uint16_t got;
    cr_assert_eq(listen_alone(io, "127.0.0.1", port, 16, &handle, &got), -EADDRINUSE);
    cr_assert_eq(io_listen(io, "localhost", port, 16, IO_SHARE_JOIN, &listener), -EINVAL);
    sharer_close(&first);
    cr_assert_eq(listen_alone(io, "127.0.0.1", port, 16, &handle, &got), 0);
    world_close(world);
}

Test(io_socket, listener_address_must_be_numeric)
{
    struct world *world = world_open(NULL);
    int listener;
    uint16_t port;
    cr_assert_eq(listen_alone(world_io(world), "localhost", 0, 16, &listener, &port), -EINVAL);
    cr_assert_eq(listen_alone(world_io(world), "300.1.1.1", 0, 16, &listener, &port), -EINVAL);
    cr_assert_eq(listen_alone(world_io(world), "", 0, 16, &listener, &port), -EINVAL);
    world_close(world);
}

Test(io_socket, closed_listener_frees_its_port_and_refuses)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    contract_server_open(&server, world);
    io_cancel(world_io(world), &server.accept);
    RUN_UNTIL(world, !io_op_is_active(&server.accept));
    cr_assert_eq(server.error, -ECANCELED);
    cr_assert_eq(server.error_count, 1);
    close_socket(world, server.listener);
    int peer = world_peer_connect(world, server.port);
    if (peer >= 0) {
        int64_t got = -EAGAIN;
        uint8_t byte;
        RUN_UNTIL(world, (got = world_peer_receive(world, peer, &byte, 1)) != -EAGAIN);
        cr_assert(got == -ECONNREFUSED || got == -ECONNRESET || got == 0);
    } else {
        cr_assert_eq(peer, -ECONNREFUSED);
    }
    int listener;
    uint16_t port;
    cr_assert_eq(listen_alone(world_io(world), "127.0.0.1", server.port, 16, &listener, &port), 0);
    cr_assert_eq(port, server.port);
    world_close(world);
}

Test(io_socket, cancelled_accept_can_be_submitted_again)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    contract_server_open(&server, world);
    io_cancel(world_io(world), &server.accept);
    RUN_UNTIL(world, !io_op_is_active(&server.accept));
    int peer = world_peer_connect(world, server.port);
    cr_assert_geq(peer, 0);
    run_passes(world, 5);
    cr_assert_eq(server.socket_count, 0, "nobody accepts");
    io_accept(world_io(world), &server.accept, server.listener);
    RUN_UNTIL(world, server.socket_count == 1);
    world_close(world);
}

Test(io_socket, many_connections_at_once_are_all_accepted)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    contract_server_open(&server, world);
    for (int i = 0; i < 200; i++)
        cr_assert_geq(world_peer_connect(world, server.port), 0);
    RUN_UNTIL(world, server.socket_count == 200);
    for (uint32_t i = 0; i < 200; i++)
        for (uint32_t j = 0; j < i; j++)
            cr_assert_neq(server.sockets[i], server.sockets[j]);
    world_close(world);
}

Test(io_socket, handle_is_free_again_after_the_close)
{
    struct io_options options = WORLD_OPTIONS;
    options.sockets_max = 2; /* the listener and one connection */
    struct world *world = world_open(&options);
    cr_assert_eq(io_sockets_max(world_io(world)), 2);
    struct contract_server server;
    contract_server_open(&server, world);
    for (int i = 0; i < 20; i++) {
        int peer;
        int socket = server_connect(&server, &peer);
        close_socket(world, socket);
        uint64_t received = 0;
        RUN_UNTIL(world, !peer_receive_stream(world, peer, 0, &received, 1));
        world_peer_close(world, peer);
    }
    cr_assert_eq(server.error_count, 0);
    world_close(world);
}

Test(io_socket, one_too_many_is_refused_and_the_others_go_on)
{
    struct io_options options = WORLD_OPTIONS;
    options.sockets_max = 4;
    struct world *world = world_open(&options);
    struct io *io = world_io(world);
    struct contract_server server;
    contract_server_open(&server, world);
    int peers[3];
    for (int i = 0; i < 3; i++)
        (void)server_connect(&server, &peers[i]);
    int listener;
    uint16_t port;
    cr_assert_eq(listen_alone(io, "127.0.0.1", 0, 16, &listener, &port), -ENFILE);

    int refused = world_peer_connect(world, server.port);
    cr_assert_geq(refused, 0);
    RUN_UNTIL(world, server.error_count == 1);
    cr_assert_eq(server.error, -ENFILE);
    cr_assert_eq(server.socket_count, 3);
    int64_t got = -EAGAIN;
    uint8_t byte;
    RUN_UNTIL(world, (got = world_peer_receive(world, refused, &byte, 1)) != -EAGAIN);
    cr_assert(got == 0 || got == -ECONNRESET, "the one too many is closed");

    close_socket(world, server.sockets[0]);
    if (!io_op_is_active(&server.accept))
        io_accept(io, &server.accept, server.listener);
    int peer;
    int socket = server_connect(&server, &peer);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 5);
    uint64_t sent = 0;
    peer_send_stream(world, peer, 5, &sent, 1000);
    RUN_UNTIL(world, receiver.received == 1000);
    cr_assert(!receiver.is_wrong);
    world_close(world);
}

Test(io_socket, half_closed_by_the_peer_can_still_be_answered)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 3);
    uint64_t sent = 0;
    peer_send_stream(world, peer, 3, &sent, 100);
    world_peer_shutdown(world, peer);
    RUN_UNTIL(world, receiver.has_ended);
    cr_assert_eq(receiver.result, 0);
    cr_assert_eq(receiver.received, 100);
    uint8_t answer[50];
    stream_fill(4, 0, answer, sizeof answer);
    struct io_send send = {.slices[0] = {answer, sizeof answer}};
    io_send(world_io(world), &send, socket, 1);
    cr_assert_eq(io_wait(world_io(world), &send.op), 50);
    uint64_t received = 0;
    RUN_UNTIL(world, peer_receive_stream(world, peer, 4, &received, 100) && received == 50);
    world_close(world);
}

Test(io_socket, shutdown_sends_the_end_and_still_receives)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct io_op shutdown = {0};
    io_shutdown(world_io(world), &shutdown, socket);
    cr_assert_eq(io_wait(world_io(world), &shutdown), 0);
    uint64_t received = 0;
    RUN_UNTIL(world, !peer_receive_stream(world, peer, 0, &received, 1));
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 8);
    uint64_t sent = 0;
    peer_send_stream(world, peer, 8, &sent, 5000);
    RUN_UNTIL(world, receiver.received == 5000);
    cr_assert(!receiver.is_wrong);
    uint8_t byte = 1;
    struct io_send send = {.slices[0] = {&byte, 1}};
    io_send(world_io(world), &send, socket, 1);
    cr_assert_eq(io_wait(world_io(world), &send.op), -EPIPE);
    world_close(world);
}

Test(io_socket, reset_ends_the_receive_and_the_send)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 0);
    size_t size = 32 * MIB;
    uint8_t *large = calloc(1, size);
    struct probe done;
    probe_init(&done);
    struct io_send send = {.slices[0] = {large, size}};
    io_send(io, &send, socket, 1);
    run_passes(world, 5);
    cr_assert(io_op_is_active(&send.op), "nobody reads");
    world_peer_reset(world, peer);
    int32_t result = io_wait(io, &send.op);
    cr_assert(result == -EPIPE || result == -ECONNRESET, "%d", result);
    RUN_UNTIL(world, receiver.has_ended);
    cr_assert(receiver.result == -ECONNRESET || receiver.result == -EPIPE || receiver.result == 0,
              "%d", receiver.result);
    close_socket(world, socket);
    free(large);
    world_close(world);
}
