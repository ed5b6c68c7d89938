/* Listeners: who takes the ports, accepts, refuses what is too many, and stops. */
#include "net/client/server_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LISTEN_BACKLOG 4096
#define PORT_RETRY_NS (100 * NS_PER_MS)

static void accept_done(struct io_op *op, int32_t result);

/* What the world grants, less the listeners and places for a burst that is to be refused: accepted
 * and closed, instead of left to wait. */
uint64_t loop_slots(const struct loop *server)
{
    uint64_t granted = io_sockets_max(server->io) - LISTENERS_MAX;
    uint64_t spare = min_u64(SPARE_SOCKETS, granted / 4);
    return min_u64(server->config->connections_max, granted - spare);
}

void listeners_arm(struct loop *server)
{
    for (uint32_t i = 0; i < server->listener_count; i++) {
        struct listener *listener = &server->listeners[i];
        if (!listener->is_open || server->has_stopped_accepting ||
            io_op_is_active(&listener->accept))
            continue;
        listener->accept.done = accept_done;
        io_accept(server->io, &listener->accept, listener->handle);
    }
}
struct refused {
    struct io_op close;
    struct loop *server;
};

static void refused_done(struct io_op *op, int32_t result)
{
    struct refused *refused = container_of(op, struct refused, close);
    (void)result;
    listeners_arm(refused->server); /* it ends when all places are taken: there is one again */
    free(refused);
}

/* Over the limit: closed at once, so that the client sees it instead of waiting. */
static void refuse_connection(struct loop *server, int socket)
{
    struct refused *refused = calloc(1, sizeof *refused);
    assert(refused != NULL); /* a few dozen bytes: without them nothing goes on */
    server->connections_refused++;
    refused->server = server;
    refused->close.done = refused_done;
    io_close_socket(server->io, &refused->close, socket);
}

static void accept_done(struct io_op *op, int32_t result)
{
    struct listener *listener = container_of(op, struct listener, accept);
    struct loop *server = listener->server;
    if (result < 0) {
        if (result != -ECANCELED) {
            log_warn(server->log, "cannot accept a connection: %s", strerror(-result));
            metrics_add(&server->watch.metrics.errors[METRICS_ERROR_ACCEPT], 1);
        }
        return; /* the tick arms it again */
    }
    steer_load_accepted(&server->load);
    bool is_full = server->connection_count >= loop_slots(server);
    if (is_full || !lease_take(server->node->slots, server->shard.number))
        refuse_connection(server, result);
    else
        connection_open(server, listener->protocol, result);
}

/* ---- the end ---- */

static void close_done(struct io_op *op, int32_t result)
{
    (void)op;
    (void)result;
}

/* Connections that the kernel has taken for this shard already are served. */
static void stop_accepting(struct loop *server)
{
    bool is_settled =
        server_drain_ns(server) >= LIMITS_DRAIN_GRACE_NS && steer_load_is_settled(&server->load);
    if (server->has_stopped_accepting || (!is_settled && server_drain_ns(server) < LIMITS_DRAIN_NS))
        return;
    server->has_stopped_accepting = true;
    for (uint32_t i = 0; i < server->listener_count; i++)
        io_cancel(server->io, &server->listeners[i].accept);
}

/* Whether any still listens, or is being closed. */
bool listeners_are_open(const struct loop *server)
{
    bool is_any = false;
    for (uint32_t i = 0; i < server->listener_count; i++) {
        const struct listener *listener = &server->listeners[i];
        is_any = is_any || listener->is_open || io_op_is_active(&listener->accept) ||
                 io_op_is_active(&listener->close);
    }
    return is_any;
}

void listeners_stop(struct loop *server)
{
    if (server_drain_ns(server) == 0)
        return;
    steer_load_drain(&server->load);
    stop_accepting(server);
    for (uint32_t i = 0; i < server->listener_count; i++) {
        struct listener *listener = &server->listeners[i];
        if (!listener->is_open || !server->has_stopped_accepting ||
            io_op_is_active(&listener->accept))
            continue;
        listener->is_open = false;
        listener->close.done = close_done;
        io_close_socket(server->io, &listener->close, listener->handle);
    }
}

/* ---- the beginning ---- */

static int listen_once(struct loop *server, uint16_t port, struct listener *listener,
                       int *ret_descriptor)
{
    const struct config *config = server->config;
    *ret_descriptor = -1;
    if (server->shard.count == 1)
        return io_listen(server->io, config->host, port, LISTEN_BACKLOG, &listener->handle,
                         &listener->port);
    struct io_listener shared;
    int result = io_listen_shared(server->io, config->host, port, LISTEN_BACKLOG,
                                  server->shard.number == 0, &shared);
    if (result < 0)
        return result;
    listener->handle = shared.handle;
    listener->port = shared.port;
    *ret_descriptor = shared.descriptor;
    return 0;
}

/* A predecessor's socket may take a moment to go. */
static int listen_for(struct loop *server, const struct protocol *protocol, uint16_t port,
                      int *ret_descriptor)
{
    uint64_t give_up_ns = io_now_ns(server->io) + server->config->lock_wait_ns;
    struct listener *listener = &server->listeners[server->listener_count];
    int result;
    for (;;) {
        result = listen_once(server, port, listener, ret_descriptor);
        if (result != -EADDRINUSE || io_now_ns(server->io) >= give_up_ns)
            break;
        struct io_op pause = {0};
        io_timer(server->io, &pause, io_now_ns(server->io) + PORT_RETRY_NS);
        int waited = io_wait(server->io, &pause);
        if (waited < 0)
            return waited;
    }
    if (result < 0) {
        log_error(server->log, "cannot listen on port %u: %s%s", port, strerror(-result),
                  result == -EADDRINUSE
                      ? "; stop the process that has it, or choose another -port or -http"
                      : "");
        return result;
    }
    listener->server = server;
    listener->protocol = protocol;
    listener->is_open = true;
    server->listener_count++;
    return 0;
}

int loop_listen(struct loop *server, uint16_t port, int *ret_descriptors)
{
    ret_descriptors[LISTENER_HTTP] = -1;
    int result = listen_for(server, protocol_binary(), port, &ret_descriptors[LISTENER_BINARY]);
    uint16_t http_port = server->config->http_port;
    if (result < 0 || http_port == 0)
        return result;
    result = listen_for(server, protocol_http(), http_port, &ret_descriptors[LISTENER_HTTP]);
    if (result == 0 && server->shard.number == 0)
        log_info(server->log, "HTTP is served on port %u", http_port);
    return result;
}
