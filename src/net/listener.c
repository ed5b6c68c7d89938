/* A listener a port: its way up, each accept, its way down. */
#include "net/listener.h"

#include "net/client/limits.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LISTEN_BACKLOG 4096
#define PORT_RETRY_NS (100 * NS_PER_MS)

static void accept_done(struct io_op *op, int32_t result);

/* What the world grants, less the listeners and sockets for a burst that is to be refused: accepted
 * and closed, instead of left to wait. */
uint64_t listeners_slots(const struct listeners *listeners)
{
    uint64_t granted = io_sockets_max(listeners->options.io) - LISTENERS_MAX;
    uint64_t spare = min_u64(LISTENERS_SPARE_SOCKETS, granted / 4);
    return min_u64(listeners->options.connections_max, granted - spare);
}

uint16_t listeners_port(const struct listeners *listeners, enum listener_number number)
{
    return listeners->listeners[number].port;
}

void listeners_arm(struct listeners *listeners)
{
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        struct listener *listener = &listeners->listeners[i];
        if (!listener->is_open || listeners->has_stopped_accepting ||
            io_op_is_active(&listener->accept))
            continue;
        listener->accept.done = accept_done;
        io_accept(listeners->options.io, &listener->accept, listener->handle);
    }
}

struct refused {
    struct io_op close;
    struct listeners *listeners;
};

static void refused_done(struct io_op *op, int32_t result)
{
    struct refused *refused = container_of(op, struct refused, close);
    (void)result;
    listeners_arm(refused->listeners); /* it ends when all slots are taken: there is one again */
    free(refused);
}

/* Over the limit: closed at once, so that the client sees it instead of waiting. */
static void refuse_connection(struct listeners *listeners, int socket)
{
    struct refused *refused = calloc(1, sizeof *refused);
    assert(refused != NULL); /* a few dozen bytes: without them nothing goes on */
    listeners->options.clients->refused++;
    refused->listeners = listeners;
    refused->close.done = refused_done;
    io_close_socket(listeners->options.io, &refused->close, socket);
}

static void accept_done(struct io_op *op, int32_t result)
{
    struct listener *listener = container_of(op, struct listener, accept);
    struct listeners *listeners = listener->all;
    const struct listeners_options *options = &listeners->options;
    uint32_t number = (uint32_t)(listener - listeners->listeners);
    if (result < 0) {
        if (result != -ECANCELED) {
            log_warn(options->log, "cannot accept a connection: %s", strerror(-result));
            metrics_add(&options->metrics->errors[METRICS_ERROR_ACCEPT], 1);
        }
        return; /* the tick arms it again */
    }
    steer_load_accepted(options->load);
    bool is_full = options->clients->count >= listeners_slots(listeners);
    if (is_full || !clients_accept(options->clients, number, result))
        refuse_connection(listeners, result);
}

/* ---- the end ---- */

static void close_done(struct io_op *op, int32_t result)
{
    (void)op;
    (void)result;
}

/* Connections that the kernel has taken for this shard already are served. */
static void stop_accepting(struct listeners *listeners, uint64_t drain_ns)
{
    const struct listeners_options *options = &listeners->options;
    bool is_settled = drain_ns >= LIMITS_DRAIN_GRACE_NS && steer_load_is_settled(options->load);
    if (listeners->has_stopped_accepting || (!is_settled && drain_ns < LIMITS_DRAIN_NS))
        return;
    listeners->has_stopped_accepting = true;
    for (uint32_t i = 0; i < LISTENERS_MAX; i++)
        io_cancel(options->io, &listeners->listeners[i].accept);
}

bool listeners_are_open(const struct listeners *listeners)
{
    bool is_any = false;
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        const struct listener *listener = &listeners->listeners[i];
        is_any = is_any || listener->is_open || io_op_is_active(&listener->accept) ||
                 io_op_is_active(&listener->close);
    }
    return is_any;
}

void listeners_stop(struct listeners *listeners, uint64_t drain_ns)
{
    if (drain_ns == 0)
        return;
    steer_load_drain(listeners->options.load);
    stop_accepting(listeners, drain_ns);
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        struct listener *listener = &listeners->listeners[i];
        if (!listener->is_open || !listeners->has_stopped_accepting ||
            io_op_is_active(&listener->accept))
            continue;
        listener->is_open = false;
        listener->close.done = close_done;
        io_close_socket(listeners->options.io, &listener->close, listener->handle);
    }
}

/* ---- the beginning ---- */

static int listen_once(const struct listeners_options *options, uint16_t port,
                       struct listener *listener, int *ret_descriptor)
{
    enum io_sharing sharing = options->shard == 0 ? IO_SHARE_FIRST : IO_SHARE_JOIN;
    struct io_listener opened;
    int result = io_listen(options->io, options->host, port, LISTEN_BACKLOG,
                           options->shard_count == 1 ? IO_SHARE_NOT : sharing, &opened);
    *ret_descriptor = result < 0 ? -1 : opened.descriptor;
    if (result < 0)
        return result;
    listener->handle = opened.handle;
    listener->port = opened.port;
    return 0;
}

/* A predecessor's socket may take a moment to go. */
static int listen_in_time(const struct listeners_options *options, uint16_t port,
                          struct listener *listener, int *ret_descriptor)
{
    uint64_t give_up_ns = io_now_ns(options->io) + options->lock_wait_ns;
    for (;;) {
        int result = listen_once(options, port, listener, ret_descriptor);
        if (result != -EADDRINUSE || io_now_ns(options->io) >= give_up_ns)
            return result;
        struct io_op pause = {0};
        io_timer(options->io, &pause, io_now_ns(options->io) + PORT_RETRY_NS);
        result = io_wait(options->io, &pause);
        if (result < 0)
            return result;
    }
}

static const char *advice(int error)
{
    switch (error) {
    case -EADDRINUSE:
        return "stop the process that has it, or choose another -port or -http";
    case -EACCES:
        return "choose another -port or -http, or allow ports below 1024 (CAP_NET_BIND_SERVICE)";
    case -EADDRNOTAVAIL:
    case -EINVAL:
        return "give -host a numeric address of this machine, or leave it out";
    case -EMFILE:
    case -ENFILE:
        return "raise the limit of open files (ulimit -n, LimitNOFILE=)";
    default:
        return "the kernel's messages may say more; try another -port, -http or -host";
    }
}

int listeners_listen(struct listeners *listeners, enum listener_number number, uint16_t port,
                     int *ret_descriptor)
{
    struct listener *listener = &listeners->listeners[number];
    assert(!listener->is_open);
    int result = listen_in_time(&listeners->options, port, listener, ret_descriptor);
    if (result < 0) {
        log_error(listeners->options.log, "cannot listen on port %u%s%s: %s; %s", port,
                  listeners->options.host != NULL ? " of " : "",
                  listeners->options.host != NULL ? listeners->options.host : "", strerror(-result),
                  advice(result));
        return result;
    }
    listener->all = listeners;
    listener->is_open = true;
    return 0;
}
