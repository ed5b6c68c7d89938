/* One client: bytes in, answers out, and its end. The states stand in server_internal.h. */
#include "net/client/server_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

static void connection_set_state(struct connection *connection, enum connection_state state)
{
    switch (state) {
    case CONNECTION_OPEN:
        assert(false);
        break;
    case CONNECTION_FINISHING:
        assert(connection->state == CONNECTION_OPEN);
        break;
    case CONNECTION_LINGERING:
        assert(connection->state == CONNECTION_FINISHING);
        break;
    case CONNECTION_CLOSING:
        assert(connection->state != CONNECTION_CLOSING);
        break;
    }
    connection->state = state;
}

void connection_touch(struct connection *connection)
{
    if (!list_node_is_linked(&connection->dirty_node))
        list_push_back(&connection->server->dirty, &connection->dirty_node);
}

static void unlink_node(struct list_node *node)
{
    if (list_node_is_linked(node))
        list_remove(node);
}

bool connection_is_waiting(const struct connection *connection)
{
    bool has_large = connection->large_pending > 0 || !list_is_empty(&connection->downloads) ||
                     (connection->upload != NULL && !upload_takes(connection));
    return connection->state == CONNECTION_OPEN && (connection->blocked || has_large);
}

/* At once, not at the end of the pass: room that comes in this very pass must find it parked. */
void connection_park(struct connection *connection)
{
    bool is_blocked = connection->blocked || connection->wants_room;
    if (is_blocked && !list_node_is_linked(&connection->parked_node))
        list_push_back(&connection->server->parked, &connection->parked_node);
}

void connection_set_waits(struct connection *connection, bool waits)
{
    uint32_t *count = &connection->server->sets_waiting;
    if (waits && !connection->set_waits)
        ++*count;
    if (!waits && connection->set_waits)
        --*count;
    connection->set_waits = waits;
}

void connection_wake(struct connection *connection)
{
    if (!list_node_is_linked(&connection->woken_node))
        list_push_back(&connection->server->woken, &connection->woken_node);
}

void connection_run(struct connection *connection)
{
    connection->wants_room = false;
    if (connection->state <= CONNECTION_FINISHING)
        download_go_on(connection);
    if (connection->state == CONNECTION_OPEN) {
        connection->blocked = false;
        upload_go_on(connection);
        bool has_bytes =
            input_size(&connection->input) > 0 || connection->protocol->runs_without_bytes;
        if (has_bytes && !connection_is_waiting(connection))
            connection_take_input(connection);
        connection_begin_clock(connection);
    }
    connection_park(connection);
    connection_touch(connection);
}

/* ---- sending ---- */

static void send_done(struct io_op *op, int32_t result)
{
    struct connection *connection =
        container_of(container_of(op, struct io_send, op), struct connection, output.send);
    struct loop *server = connection->server;
    connection->send_begun_ns = 0;
    output_sent(&connection->output, &server->outputs);
    if (result < 0)
        connection->broken = true;
    else
        metrics_add(&server->watch.metrics.values[METRICS_SENT_BYTES], (uint64_t)result);
    if (connection->blocked && result >= 0)
        connection_run(connection);
    connection_touch(connection);
}

/* Replies that could leave wait a moment for those behind them that other shards were asked: one
 * send costs as much as answering ten requests does, and wakes the client, who would ask again in
 * small pieces. */
static bool is_held(struct connection *connection)
{
    struct loop *server = connection->server;
    uint64_t now_ns = io_now_ns(server->io);
    bool is_new = connection->held_ns == 0;
    if (connection->asked_count == 0 || !output_may_send(&connection->output, &server->outputs) ||
        (!is_new && now_ns - connection->held_ns >= LIMITS_HOLD_NS)) {
        connection->held_ns = 0;
        unlink_node(&connection->held_node);
        return false;
    }
    if (is_new) {
        connection->held_ns = now_ns;
        list_push_back(&server->held, &connection->held_node);
    }
    return true;
}

static void send_ready(struct connection *connection)
{
    struct loop *server = connection->server;
    if (connection->broken || connection->state > CONNECTION_FINISHING || is_held(connection))
        return;
    uint32_t count = output_gather(&connection->output, &server->outputs);
    if (count > 0) {
        connection->output.send.op.done = send_done;
        connection->send_begun_ns = io_now_ns(server->io);
        io_send(server->io, &connection->output.send, connection->socket, count);
    } else if (output_gate(&connection->output, &server->outputs) > 0 &&
               !list_node_is_linked(&connection->waiting_node)) {
        list_push_back(&server->waiting, &connection->waiting_node);
    }
}

/* ---- the end ---- */

void connection_finish(struct connection *connection)
{
    if (connection->state != CONNECTION_OPEN)
        return;
    connection_set_state(connection, CONNECTION_FINISHING);
    assert(connection->upload == NULL);
    connection->blocked = false;
    connection->arrived = 0;
    connection_touch(connection);
}

void connection_abort(struct connection *connection)
{
    connection->broken = true;
    connection_touch(connection);
}

static void control_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, control);
    (void)result;
    connection->closed = connection->state == CONNECTION_CLOSING && connection->socket < 0;
    connection_touch(connection);
}

static void begin_linger(struct connection *connection)
{
    struct loop *server = connection->server;
    connection_set_state(connection, CONNECTION_LINGERING);
    connection->begun_ns = io_now_ns(server->io);
    connection->arrived = 0;
    connection->control.done = control_done;
    io_shutdown(server->io, &connection->control, connection->socket);
}

static void begin_closing(struct connection *connection)
{
    struct loop *server = connection->server;
    connection_set_state(connection, CONNECTION_CLOSING);
    io_cancel(server->io, &connection->receive);
    io_cancel(server->io, &connection->output.send.op);
}

static void put_away(struct connection *connection)
{
    struct loop *server = connection->server;
    unlink_node(&connection->all_node);
    unlink_node(&connection->dirty_node);
    unlink_node(&connection->waiting_node);
    unlink_node(&connection->held_node);
    unlink_node(&connection->parked_node);
    unlink_node(&connection->woken_node);
    connection_free(connection);
    server->connection_count--;
    lease_put(server->node->slots, server->shard.number);
    pool_put(&server->connections, connection);
}

void connection_free(struct connection *connection)
{
    struct loop *server = connection->server;
    connection_set_waits(connection, false);
    upload_free(connection);
    download_free_all(connection);
    input_clear(&connection->input, &server->input_bytes);
    if (connection->protocol->close != NULL)
        connection->protocol->close(connection);
}

/* All operations end, the socket closes, pending replies come back; then the memory goes. */
static void go_on_closing(struct connection *connection)
{
    bool active = io_op_is_active(&connection->receive) ||
                  io_op_is_active(&connection->output.send.op) ||
                  io_op_is_active(&connection->control);
    if (active)
        return;
    upload_stop(connection);
    download_stop_all(connection);
    if (connection->socket >= 0) {
        int socket = connection->socket;
        connection->socket = -1;
        connection->control.done = control_done;
        io_close_socket(connection->server->io, &connection->control, socket);
        return;
    }
    bool empty = output_drop(&connection->output, &connection->server->outputs);
    if (connection->closed && connection->pending_count == 0) {
        assert(empty);
        put_away(connection);
    }
}

/* Whether the next state is due. */
static bool is_over(const struct connection *connection)
{
    bool owes = !output_is_empty(&connection->output);
    switch (connection->state) {
    case CONNECTION_OPEN:
        /* A request that ends in the middle will never be whole; one that is blocked will be
         * answered. */
        return connection->stream_ended && !connection->blocked && !owes;
    case CONNECTION_FINISHING:
        return !owes;
    case CONNECTION_LINGERING:
        return connection->stream_ended || connection->arrived > LIMITS_LINGER_BYTES;
    case CONNECTION_CLOSING:
        return false;
    }
    return false;
}

void connection_advance(struct connection *connection)
{
    if (connection->stream_ended && upload_is_cut_off(connection))
        upload_stop(connection); /* in the middle of a large value */
    if (connection->broken && connection->state != CONNECTION_CLOSING)
        begin_closing(connection);
    send_ready(connection);
    if (is_over(connection)) {
        if (connection->state == CONNECTION_FINISHING && !connection->stream_ended)
            begin_linger(connection);
        else
            begin_closing(connection);
    }
    if (connection->state == CONNECTION_CLOSING)
        go_on_closing(connection);
    else
        connection_arm_receive(connection);
}

/* A send has little enough bytes that a client who reads at all takes them in time; less of it when
 * others wait for the memory that its answers hold. */
static bool reads_nothing(const struct connection *connection, uint64_t now_ns)
{
    const struct loop *server = connection->server;
    const struct output_shared *outputs = &server->outputs;
    bool is_large = !list_is_empty(&connection->downloads);
    bool is_short =
        is_large ? server->streams_were_short : outputs->memory_bytes >= outputs->memory_bytes_max;
    uint64_t allowed_ns = is_short ? LIMITS_SEND_TIMEOUT_SHORT_NS : LIMITS_SEND_TIMEOUT_NS;
    return connection->send_begun_ns != 0 && now_ns - connection->send_begun_ns > allowed_ns;
}

void connection_tick(struct connection *connection, uint64_t now_ns)
{
    struct loop *server = connection->server;
    if (reads_nothing(connection, now_ns) && connection->state != CONNECTION_CLOSING) {
        log_info(connection->server->log, "a connection is closed: it does not read its answers");
        metrics_add(&server->watch.metrics.errors[METRICS_ERROR_UNREAD], 1);
        connection_abort(connection);
        return;
    }
    if (connection->state == CONNECTION_LINGERING) {
        if (now_ns - connection->begun_ns > LIMITS_LINGER_NS)
            connection_abort(connection);
        return;
    }
    if (connection->protocol->tick != NULL && connection->state == CONNECTION_OPEN)
        connection->protocol->tick(connection, now_ns);
    if (upload_is_starved(connection, now_ns) || download_is_starved(connection, now_ns))
        server->streams_are_short = true;
    bool waits_for_client = connection->state == CONNECTION_OPEN && connection->begun_ns != 0 &&
                            !connection_is_waiting(connection);
    uint64_t allowed_ns =
        LIMITS_REQUEST_TIMEOUT_NS + connection->arrived / LIMITS_REQUEST_RATE * NS_PER_S;
    bool is_stalled =
        server->streams_were_short && upload_is_stalled(connection, now_ns, LIMITS_UPLOAD_STALL_NS);
    if (is_stalled || (waits_for_client && now_ns - connection->begun_ns > allowed_ns)) {
        log_info(connection->server->log,
                 "a connection is closed: its request did not become whole in time");
        metrics_add(&server->watch.metrics.errors[METRICS_ERROR_LATE], 1);
        connection->protocol->time_out(connection);
    }
}

void connection_open(struct loop *server, const struct protocol *protocol, int socket)
{
    struct connection *connection = pool_get(&server->connections);
    assert(connection != NULL); /* there are as many as sockets */
    *connection = (struct connection){.server = server, .protocol = protocol, .socket = socket};
    if (protocol->open != NULL) {
        bool is_open = protocol->open(connection);
        assert(is_open); /* there are as many */
    }
    output_init(&connection->output);
    list_init(&connection->downloads);
    list_push_back(&server->all, &connection->all_node);
    server->connection_count++;
    server->connections_accepted++;
    connection->output.request.client = server->connections_accepted;
    connection_arm_receive(connection);
}
