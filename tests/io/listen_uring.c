/* The real world's listeners: families, what connections inherit, and that nothing lingers. */
#include "support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
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
    int error = io_listen(world_io(world), host, 0, 16, &listener, &port);
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
    listen_on(&server, world, "::1");
    cr_assert(can_connect_6(&server));
    cr_assert(!can_connect_4(&server));
    world_close(world);
}

Test(io_listen, address_of_another_host_is_refused)
{
    struct world *world = world_open(NULL);
    int listener;
    uint16_t port;
    int error = io_listen(world_io(world), "203.0.113.7", 0, 16, &listener, &port);
    cr_assert_eq(error, -EADDRNOTAVAIL);
    world_close(world);
}

/* Column "tr" of /proc/net/tcp: 02 is a running keepalive timer. */
Test(io_listen, accepted_connections_are_kept_alive)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    contract_server_open(&server, world);
    int peer;
    (void)server_connect(&server, &peer);
    FILE *table = fopen("/proc/net/tcp", "r");
    cr_assert_not_null(table);
    char line[512];
    unsigned port, state, timer, found = 0;
    while (fgets(line, sizeof line, table) != NULL) {
        if (sscanf(line, "%*d: %*8x:%4x %*8x:%*x %2x %*8x:%*8x %2x:", &port, &state, &timer) == 3 &&
            port == server.port && state == 1) {
            cr_assert_eq(timer, 2);
            found++;
        }
    }
    (void)fclose(table);
    cr_assert_eq(found, 1);
    world_close(world);
}

Test(io_listen, closed_world_frees_its_port_at_once)
{
    uint16_t port = 0;
    for (int i = 0; i < 20; i++) {
        struct world *world = world_open(NULL);
        int listener;
        int error = io_listen(world_io(world), "127.0.0.1", port, 16, &listener, &port);
        cr_assert_eq(error, 0, "%s", strerror(-error));
        world_close(world);
    }
}
