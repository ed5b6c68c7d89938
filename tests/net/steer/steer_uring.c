/* Steering chooses among listeners that live in rings. */
#include "net/steer/steer.h"
#include "tests/support/support.h"

#include <stdio.h>
#include <unistd.h>

#define WORLDS 2

struct steered {
    struct world *worlds[WORLDS];
    struct contract_server servers[WORLDS];
    struct steer *steer;
    uint16_t port;
};

static void open_steered(struct steered *steered)
{
    char error[STEER_ERROR_SIZE];
    memset(steered, 0, sizeof *steered);
    int result = steer_open(WORLDS, LOG_INFO, &steered->steer, error);
    if (result == -EPERM || result == -ENOSYS) {
        (void)fprintf(stderr, "SKIPPED: %s\n", error);
        cr_skip_test("%s", error);
    }
    cr_assert_eq(result, 0, "%s", error);
    for (uint32_t i = 0; i < WORLDS; i++) {
        struct contract_server *server = &steered->servers[i];
        struct io_listener listener;
        steered->worlds[i] = world_open(NULL);
        result = io_listen(world_io(steered->worlds[i]), "127.0.0.1", steered->port, 512,
                           i == 0 ? IO_SHARE_FIRST : IO_SHARE_JOIN, &listener);
        cr_assert_eq(result, 0, "%s", strerror(-result));
        steered->port = listener.port;
        server->world = steered->worlds[i];
        server->listener = listener.handle;
        result = steer_add_listener(steered->steer, STEER_CLIENTS, i, listener.descriptor);
        cr_assert_eq(result, 0, "%s", strerror(-result));
        if (i == WORLDS - 1)
            result = steer_attach(steered->steer, STEER_CLIENTS, listener.descriptor);
        cr_assert_eq(result, 0, "%s", strerror(-result));
        (void)close(listener.descriptor);
    }
}

static void close_steered(struct steered *steered)
{
    for (uint32_t i = 0; i < WORLDS; i++)
        world_close(steered->worlds[i]);
    steer_close(steered->steer);
}

static void connect_peers(struct steered *steered, int count)
{
    for (int i = 0; i < count; i++)
        cr_assert_geq(world_peer_connect(steered->worlds[0], steered->port), 0);
}

Test(io_steer, listeners_of_rings_are_chosen)
{
    struct steered steered;
    open_steered(&steered);
    connect_peers(&steered, 40);
    for (uint32_t i = 0; i < WORLDS; i++) {
        cr_assert_eq(steer_shard(steered.steer, i)->chosen, 20);
        contract_server_accept(&steered.servers[i]);
        RUN_UNTIL(steered.worlds[i], steered.servers[i].socket_count == 20);
    }
    close_steered(&steered);
}

/* A shard goes: its listener's accept ends, its handle is closed, and what came too late is served
 * by the other one. */
Test(io_steer, closing_a_rings_listener_loses_no_connection)
{
    struct steered steered;
    open_steered(&steered);
    contract_server_accept(&steered.servers[0]);
    contract_server_accept(&steered.servers[1]);
    connect_peers(&steered, 20);
    RUN_UNTIL(steered.worlds[0], steered.servers[0].socket_count == 10);
    io_cancel(world_io(steered.worlds[0]), &steered.servers[0].accept);
    RUN_UNTIL(steered.worlds[0], !io_op_is_active(&steered.servers[0].accept));
    connect_peers(&steered, 20);
    steer_shard(steered.steer, 0)->state = STEER_DRAINING;
    close_socket(steered.worlds[0], steered.servers[0].listener);
    connect_peers(&steered, 10);
    RUN_UNTIL(steered.worlds[1], steered.servers[1].socket_count == 40);
    cr_assert_eq(steered.servers[0].socket_count, 10);
    uint64_t counts[STEER_DECISION_COUNT];
    steer_read_decisions(steered.steer, counts);
    cr_assert_eq(counts[STEER_MIGRATED], 10);
    close_steered(&steered);
}
