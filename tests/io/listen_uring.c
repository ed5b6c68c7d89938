/* The real world's listeners: families, what connections inherit, and that nothing lingers. */
#include "tests/support/support.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Whether `address` can be connected to and gives a connection. */
static bool can_connect(struct contract_server *server, int family, const void *address,
                        socklen_t size)
{
    uint32_t before = server->socket_count;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool connected = connect(fd, address, size) == 0;
    if (connected)
        RUN_UNTIL(server->world, server->socket_count == before + 1);
    (void)close(fd);
    return connected;
}

static bool can_connect_4(struct contract_server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(server->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return can_connect(server, AF_INET, &address, sizeof address);
}

static bool can_connect_6(struct contract_server *server)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6,
                                   .sin6_port = htons(server->port),
                                   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    return can_connect(server, AF_INET6, &address, sizeof address);
}

static void listen_on(struct contract_server *server, struct world *world, const char *host)
{
    contract_server_open(server, world);
    int listener;
    uint16_t port;
    int error = listen_alone(world_io(world), host, 0, 16, &listener, &port);
    if (error == -EADDRNOTAVAIL || error == -EAFNOSUPPORT)
        cr_skip_test("no IPv6 here");
    cr_assert_eq(error, 0, "%s", strerror(-error));
    io_cancel(world_io(world), &server->accept);
    RUN_UNTIL(world, !io_op_is_active(&server->accept));
    server->listener = listener;
    server->port = port;
    io_accept(world_io(world), &server->accept, listener);
}

Test(io_listen, no_host_is_every_address_of_both_families)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    listen_on(&server, world, NULL);
    cr_assert(can_connect_4(&server));
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has_ipv6 = fd >= 0;
    (void)close(fd);
    if (has_ipv6 && access("/proc/net/if_inet6", R_OK) == 0)
        cr_assert(can_connect_6(&server));
    world_close(world);
}

Test(io_listen, one_family_is_only_that)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    listen_on(&server, world, "127.0.0.1");
    cr_assert(can_connect_4(&server));
    cr_assert(!can_connect_6(&server));
    struct contract_server other; /* the first one's accept is still active */
    listen_on(&other, world, "::1");
    cr_assert(can_connect_6(&other));
    cr_assert(!can_connect_4(&other));
    world_close(world);
}

Test(io_listen, address_of_another_host_is_refused)
{
    struct world *world = world_open(NULL);
    int listener;
    uint16_t port;
    int error = listen_alone(world_io(world), "203.0.113.7", 0, 16, &listener, &port);
    cr_assert_eq(error, -EADDRNOTAVAIL);
    world_close(world);
}

/* Columns "tx_queue" and "tr" of /proc/net/tcp: bytes that the kernel has of what was sent and the
 * peer has not acknowledged; and the timer that runs, of which 2 is keepalive's. Of the only
 * connection of `port`. */
static void look_up(uint16_t server_port, unsigned *ret_queued, unsigned *ret_timer)
{
    FILE *table = fopen("/proc/net/tcp", "r");
    cr_assert_not_null(table);
    char line[512];
    unsigned port, state, queued, timer, found = 0;
    while (fgets(line, sizeof line, table) != NULL) {
        if (sscanf(line, "%*d: %*8x:%4x %*8x:%*x %2x %8x:%*8x %2x:", &port, &state, &queued,
                   &timer) == 4 &&
            port == server_port && state == 1) {
            *ret_queued = queued;
            *ret_timer = timer;
            found++;
        }
    }
    (void)fclose(table);
    cr_assert_eq(found, 1);
}

Test(io_listen, accepted_connections_are_kept_alive)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    int peer;
    (void)contract_server_connected(&server, world, &peer);
    unsigned queued, timer;
    look_up(server.port, &queued, &timer);
    cr_assert_eq(timer, 2);
    world_close(world);
}

/* 128 KiB, and one segment of at most 64 KiB that was begun below that. */
Test(io_listen, kernel_keeps_little_for_a_peer_that_does_not_read)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    size_t size = 24 << 20;
    uint8_t *data = calloc(1, size);
    cr_assert_not_null(data);
    struct io_send send = {.slices[0] = {data, size}};
    io_send(io, &send, socket, 1);
    run_passes(world, 100);
    cr_assert(io_op_is_active(&send.op));
    unsigned queued, timer;
    look_up(server.port, &queued, &timer);
    cr_assert_leq(queued, 192 << 10, "%u bytes", queued);
    io_cancel(io, &send.op);
    cr_assert_eq(io_wait(io, &send.op), -ECANCELED);
    free(data);
    world_close(world);
}

Test(io_listen, closed_world_frees_its_port_at_once)
{
    uint16_t port = 0;
    for (int i = 0; i < 20; i++) {
        struct world *world = world_open(NULL);
        int listener;
        int error = listen_alone(world_io(world), "127.0.0.1", port, 16, &listener, &port);
        cr_assert_eq(error, 0, "%s", strerror(-error));
        world_close(world);
    }
}

/* Another program's listener with SO_REUSEPORT would let us join it, and we would take half of its
 * connections. */
Test(io_listen, shared_port_of_another_program_is_not_joined_by_the_first)
{
    struct world *world = world_open(NULL);
    int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    cr_assert_eq(setsockopt(other, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
    cr_assert_eq(bind(other, (struct sockaddr *)&address, size), 0);
    cr_assert_eq(listen(other, 16), 0);
    cr_assert_eq(getsockname(other, (struct sockaddr *)&address, &size), 0);
    struct io_listener listener;
    int error = io_listen(world_io(world), "127.0.0.1", ntohs(address.sin_port), 16, IO_SHARE_FIRST,
                          &listener);
    cr_assert_eq(error, -EADDRINUSE);
    (void)close(other);
    world_close(world);
}

Test(io_listen, shared_listener_comes_with_a_descriptor_of_the_same_socket)
{
    struct world *world = world_open(NULL);
    struct io_listener listener;
    cr_assert_eq(io_listen(world_io(world), "127.0.0.1", 0, 16, IO_SHARE_FIRST, &listener), 0);
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    cr_assert_eq(getsockname(listener.descriptor, (struct sockaddr *)&address, &size), 0);
    cr_assert_eq(ntohs(address.sin_port), listener.port);
    int is_listening = 0, is_shared = 0;
    size = sizeof is_listening;
    cr_assert_eq(getsockopt(listener.descriptor, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size),
                 0);
    cr_assert_eq(getsockopt(listener.descriptor, SOL_SOCKET, SO_REUSEPORT, &is_shared, &size), 0);
    cr_assert(is_listening && is_shared);
    cr_assert_neq(fcntl(listener.descriptor, F_GETFD) & FD_CLOEXEC, 0);
    cr_assert_eq(close(listener.descriptor), 0);
    /* The ring's own reference is enough. */
    cr_assert_geq(world_peer_connect(world, listener.port), 0);
    world_close(world);
}
