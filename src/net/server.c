/* The server's loop: passes, accepting, the drain. */
#include "net/server_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TICK_NS NS_PER_S
#define SPARE_SOCKETS 64u
#define DRAIN_POLL_NS (10 * NS_PER_MS)
#define LISTEN_BACKLOG 4096
#define PORT_RETRY_NS (100 * NS_PER_MS)

/* ---- what the store tells ---- */

static void store_durable_event(void *context, uint64_t position)
{
    struct server *server = context;
    (void)position;
    server->has_advanced = true;
}

static void store_room_event(void *context)
{
    struct server *server = context;
    server->has_room = true;
}

static void store_failed_event(void *context, int error)
{
    struct server *server = context;
    server->failed = error < 0 ? error : -error;
}

static void fill_store_options(const struct config *config, struct store_options *ret_options)
{
    *ret_options = (struct store_options){
        .path = config->data_path,
        .cache_size = config->cache_size,
        .segment_size = config->segment_size,
        .value_size_max = config->value_size_max,
        .value_file_min = config->value_file_min,
        .stream_buffers = config->stream_buffers,
        .log_keep_bytes = config->log_keep_bytes,
        .compact_min = config->compact_min,
        .mover_window = config->mover_window,
        .checkpoint_min = config->checkpoint_min,
        .durability = config->durability,
        .lock_wait_ns = config->lock_wait_ns,
        .probe = config->probe,
        .scrub_rate = config->scrub_rate,
        .accept_loss = config->accept_loss,
    };
}

void server_io_options(const struct config *config, struct io_options *ret_options)
{
    struct store_options store;
    fill_store_options(config, &store);
    *ret_options = (struct io_options){
        .sockets_max =
            config->connections_max + 1 + SPARE_SOCKETS, /* the listener, and to refuse with */
        .files_max = store_files_max(),
        .receive_buffer_size = CONFIG_RECEIVE_SIZE,
        .receive_buffer_count = CONFIG_RECEIVE_COUNT,
        .region_size = store_region_size(&store),
        .busy_poll_ns = config->busy_poll_ns,
    };
}

/* ---- accepting ---- */

/* What the world grants, less the listener and places for a burst that is to be refused: accepted
 * and closed, instead of left to wait. */
static uint64_t connection_places(const struct server *server)
{
    uint64_t granted = io_sockets_max(server->io) - 1;
    uint64_t spare = min_u64(SPARE_SOCKETS, granted / 4);
    return min_u64(server->config->connections_max, granted - spare);
}

static void accept_done(struct io_op *op, int32_t result);

static void arm_accept(struct server *server)
{
    if (!server->is_listening || server->is_draining || io_op_is_active(&server->accept))
        return;
    server->accept.done = accept_done;
    io_accept(server->io, &server->accept, server->listener);
}

struct refused {
    struct io_op close;
    struct server *server;
};

static void refused_done(struct io_op *op, int32_t result)
{
    struct refused *refused = container_of(op, struct refused, close);
    (void)result;
    arm_accept(refused->server); /* it ends when all places are taken: there is one again */
    free(refused);
}

/* Over the limit: closed at once, so that the client sees it instead of waiting. */
static void refuse_connection(struct server *server, int socket)
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
    struct server *server = container_of(op, struct server, accept);
    uint64_t places = connection_places(server);
    if (result < 0) {
        if (result != -ECANCELED)
            log_warn(server->log, "cannot accept a connection: %s", strerror(-result));
        return; /* the tick arms it again */
    }
    if (server->is_draining || server->connection_count >= places)
        refuse_connection(server, result);
    else
        connection_open(server, result);
}

/* ---- the clock ---- */

static void tick_done(struct io_op *op, int32_t result)
{
    struct server *server = container_of(op, struct server, tick);
    if (result < 0)
        return;
    uint64_t now_ns = io_now_ns(server->io);
    struct list_node *node = list_first(&server->all);
    for (; node != NULL; node = list_next(&server->all, node))
        connection_tick(container_of(node, struct connection, all_node), now_ns);
    server->streams_were_short = server->streams_are_short;
    server->streams_are_short = false;
    arm_accept(server);
    io_timer(server->io, op, now_ns + TICK_NS);
}

/* ---- passes ---- */

static bool has_room(const struct server *server)
{
    return server->has_room || server->outputs.has_room;
}

/* Blocked connections, when something came free. */
static void retry_parked(struct server *server)
{
    if (!has_room(server))
        return;
    server->has_room = false;
    server->outputs.has_room = false;
    struct list retried = server->parked;
    if (list_is_empty(&server->parked))
        return;
    retried.head.next->prev = &retried.head;
    retried.head.prev->next = &retried.head;
    list_init(&server->parked);
    server->is_retrying = true;
    for (struct list_node *node; (node = list_pop_front(&retried)) != NULL;) {
        struct connection *connection = container_of(node, struct connection, parked_node);
        connection_set_waits(connection, false);
        connection_run(connection);
    }
    server->is_retrying = false;
}

/* Connections for which something has come. What wakes them meanwhile wants another pass. */
static void run_woken(struct server *server)
{
    if (list_is_empty(&server->woken))
        return;
    struct list woken = server->woken;
    woken.head.next->prev = &woken.head;
    woken.head.prev->next = &woken.head;
    list_init(&server->woken);
    for (struct list_node *node; (node = list_pop_front(&woken)) != NULL;)
        connection_run(container_of(node, struct connection, woken_node));
}

/* Connections whose first reply's gate is durable now. Gates grow with arrival, so the list is all
 * but sorted: the first that must still wait ends it. */
static void release_waiting(struct server *server)
{
    if (!server->has_advanced)
        return;
    server->has_advanced = false;
    for (struct list_node *node; (node = list_first(&server->waiting)) != NULL;) {
        struct connection *connection = container_of(node, struct connection, waiting_node);
        if (output_gate(&connection->output, &server->outputs) > 0)
            return;
        list_remove(node);
        connection_touch(connection);
    }
}

static void advance_dirty(struct server *server)
{
    for (struct list_node *node; (node = list_pop_front(&server->dirty)) != NULL;)
        connection_advance(container_of(node, struct connection, dirty_node));
}

/* End of a pass: what the completions have prepared goes to the world. Returns whether there is
 * more to do at once. */
static bool flush(struct server *server)
{
    run_woken(server);
    retry_parked(server);
    bool more = store_flush(server->shard.store);
    release_waiting(server);
    advance_dirty(server);
    server->outputs.pass++;
    return more || has_room(server) || !list_is_empty(&server->dirty) ||
           !list_is_empty(&server->woken);
}

/* ---- the drain ---- */

static void close_done(struct io_op *op, int32_t result)
{
    (void)op;
    (void)result;
}

static void stop_listening(struct server *server)
{
    if (!server->is_listening || io_op_is_active(&server->accept))
        return;
    server->is_listening = false;
    server->close_listener.done = close_done;
    io_close_socket(server->io, &server->close_listener, server->listener);
}

void server_drain(struct server *server)
{
    if (server->is_draining)
        return;
    server->is_draining = true;
    server->drain_began_ns = io_now_ns(server->io);
    io_cancel(server->io, &server->accept);
    log_info(server->log, "draining: %" PRIu64 " connections open", server->connection_count);
}

/* Finishes connections that have no whole request waiting and no large value on its way. For a
 * moment they are served as before, so that what was on its way when the signal came is answered.
 */
static void drain_connections(struct server *server)
{
    uint64_t now_ns = io_now_ns(server->io);
    uint64_t lasted_ns = now_ns - server->drain_began_ns;
    bool late = lasted_ns > CONFIG_DRAIN_NS;
    if (lasted_ns < CONFIG_DRAIN_GRACE_NS)
        return;
    struct list_node *node = list_first(&server->all);
    for (; node != NULL; node = list_next(&server->all, node)) {
        struct connection *connection = container_of(node, struct connection, all_node);
        if (late || upload_is_stalled(connection, now_ns, CONFIG_DRAIN_STALL_NS))
            connection_abort(connection);
        else if (!connection_is_waiting(connection) && connection->upload == NULL)
            connection_finish(connection);
    }
}

static int finish_drain(struct server *server)
{
    if (io_op_is_active(&server->tick)) {
        io_cancel(server->io, &server->tick);
        return 0;
    }
    if (io_op_is_active(&server->accept) || io_op_is_active(&server->close_listener))
        return 0;
    int result = store_shut(server->shard.store);
    if (result < 0) {
        log_error(server->log, "cannot make everything durable at shutdown: %s", strerror(-result));
        return result;
    }
    log_info(server->log, "drained: everything is on disk");
    return 1;
}

/* Returns 1 when the drain is over. */
static int drain_pass(struct server *server)
{
    stop_listening(server);
    drain_connections(server);
    if (server->connection_count > 0 || server->is_listening)
        return 0;
    return finish_drain(server);
}

int server_pass(struct server *server)
{
    if (server->is_draining) {
        int result = drain_pass(server);
        if (result != 0)
            return result;
    }
    bool more = flush(server);
    if (server->failed != 0)
        return server->failed;
    uint64_t wait_ns = server->is_draining ? DRAIN_POLL_NS : UINT64_MAX;
    int result = io_run(server->io, more ? 0 : wait_ns);
    if (result < 0) {
        log_error(server->log, "the event loop failed: %s", strerror(-result));
        return result;
    }
    return server->failed;
}

/* ---- opening and closing ---- */

/* A predecessor's socket may take a moment to go. */
static int listen_patiently(struct server *server)
{
    const struct config *config = server->config;
    uint64_t give_up_ns = io_now_ns(server->io) + config->lock_wait_ns;
    int result;
    for (;;) {
        result = io_listen(server->io, config->host, config->port, LISTEN_BACKLOG,
                           &server->listener, &server->port);
        if (result != -EADDRINUSE || io_now_ns(server->io) >= give_up_ns)
            break;
        struct io_op pause = {0};
        io_timer(server->io, &pause, io_now_ns(server->io) + PORT_RETRY_NS);
        int waited = io_wait(server->io, &pause);
        if (waited < 0)
            return waited;
    }
    if (result < 0)
        log_error(server->log, "cannot listen on port %u: %s%s", config->port, strerror(-result),
                  result == -EADDRINUSE ? "; stop the process that has it, or choose another -port"
                                        : "");
    return result;
}

static int open_pools(struct server *server)
{
    uint32_t places = io_sockets_max(server->io);
    int result = pool_init(&server->connections, sizeof(struct connection), places);
    if (result == 0)
        result =
            pool_init(&server->outputs.blocks, OUTPUT_BLOCK_SIZE, places + CONFIG_OUTPUT_BLOCKS);
    server->outputs.reserve = places;
    if (result < 0)
        log_error(server->log, "not enough address space for %u connections", places);
    return result;
}

static int open_store(struct server *server)
{
    struct store_options options;
    fill_store_options(server->config, &options);
    options.events = (struct store_events){.context = server,
                                           .durable = store_durable_event,
                                           .room = store_room_event,
                                           .failed = store_failed_event};
    int result = store_open(server->io, server->log, &options, &server->shard.store);
    server->outputs.store = server->shard.store;
    return result;
}

static int open_all(struct server *server)
{
    const char *secret = server->config->secret;
    int result = auth_init(&server->auth, server->io,
                           (struct slice){(const uint8_t *)secret, (uint32_t)strlen(secret)});
    if (result == 0)
        result = open_pools(server);
    if (result == 0)
        result = open_store(server);
    if (result < 0)
        return result;
    result = listen_patiently(server);
    if (result < 0)
        (void)store_shut(server->shard.store);
    return result;
}

int server_open(struct io *io, const struct config *config, const struct log *log,
                struct server **ret_server)
{
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return -ENOMEM;
    server->io = io;
    server->config = config;
    server->log = log;
    server->started_ns = io_now_ns(io);
    list_init(&server->all);
    list_init(&server->dirty);
    list_init(&server->waiting);
    list_init(&server->parked);
    list_init(&server->woken);
    int result = open_all(server);
    *ret_server = server;
    if (result < 0)
        return result;
    server->is_listening = true;
    arm_accept(server);
    server->tick.done = tick_done;
    io_timer(io, &server->tick, io_now_ns(io) + TICK_NS);
    if (connection_places(server) < config->connections_max)
        log_warn(log,
                 "at most %" PRIu64 " of %u connections are served at once: the rest is refused",
                 connection_places(server), config->connections_max);
    log_info(log, "listening on port %u", server->port);
    return 0;
}

void server_close(struct server *server)
{
    if (server == NULL)
        return;
    store_free(server->shard.store); /* before what its queues point to */
    struct list_node *node = list_first(&server->all);
    for (; node != NULL; node = list_next(&server->all, node)) {
        struct connection *connection = container_of(node, struct connection, all_node);
        connection_free(connection);
        for (struct list_node *block = list_first(&connection->output.blocks); block != NULL;
             block = list_next(&connection->output.blocks, block))
            free(container_of(block, struct output_block, node)->memory);
    }
    if (server->outputs.blocks.base != NULL)
        pool_deinit(&server->outputs.blocks);
    if (server->connections.base != NULL)
        pool_deinit(&server->connections);
    free(server);
}

uint16_t server_port(const struct server *server)
{
    return server->port;
}
