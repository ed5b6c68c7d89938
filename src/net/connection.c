/* One client: bytes in, answers out, and its end. The states stand in server_internal.h. */
#include "net/server_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

/* While a connection is blocked, no more than this is received for it (and what was already on its
 * way). */
#define BLOCKED_INPUT_MAX CONFIG_RECEIVE_SIZE

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

/* ---- receiving ---- */

static void receive_done(struct io_op *op, int32_t result);

static void receive_hint(const struct io_op *op, const uint8_t *data, uint32_t size, bool is_next)
{
    request_hint(container_of(op, const struct connection, receive), data, size, is_next);
}

static void direct_done(struct io_op *op, int32_t result);

/* The rest of a large value goes straight into the memory that it is written from: once what has
 * arrived in leased buffers was copied there. */
static void arm_direct(struct connection *connection)
{
    struct io *io = connection->server->io;
    if (io_op_is_active(&connection->receive)) {
        if (connection->receive.done == receive_done && !connection->receive_ending)
            io_cancel(io, &connection->receive);
        connection->receive_ending = true;
        return;
    }
    if (input_size(&connection->input) > 0) {
        connection_wake(connection); /* these come first */
        return;
    }
    uint32_t size = 0;
    uint8_t *buffer = upload_buffer(connection, &size);
    if (buffer == NULL) {
        if (!connection_is_waiting(connection))
            connection_touch(connection); /* it has failed: its rest is thrown away */
        return;
    }
    connection->receive_ending = false;
    connection->receive.done = direct_done;
    connection->receive.hint = NULL;
    io_receive_into(io, &connection->receive, connection->socket, buffer, size);
}

static void head_done(struct io_op *op, int32_t result);

/* Behind a large value another one is likely. Its head comes by itself, so that what follows is not
 * in leased buffers, to be copied, by the time it is known to be a value. */
static bool arm_head(struct connection *connection)
{
    struct server *server = connection->server;
    bool is_between = connection->state == CONNECTION_OPEN && connection->upload == NULL &&
                      connection->skip.left == 0 && input_size(&connection->input) == 0;
    if (!connection->expects_value || !is_between)
        return false;
    uint8_t *room = input_room(&connection->input, &server->input_bytes, CONFIG_INPUT_BYTES_MAX);
    if (room == NULL)
        return false;
    connection->receive.done = head_done;
    connection->receive.hint = NULL;
    io_receive_into(server->io, &connection->receive, connection->socket, room, INPUT_FLOOR);
    return true;
}

/* Receives when there is somebody to take it: not while a request waits, but also after the last
 * request, so that what a client still sends is taken off the wire and cannot turn our FIN into a
 * reset. */
static void arm_receive(struct connection *connection)
{
    if (connection->stream_ended || connection->state == CONNECTION_CLOSING ||
        connection_is_waiting(connection))
        return;
    if (upload_is_direct(connection)) {
        arm_direct(connection);
        return;
    }
    if (io_op_is_active(&connection->receive))
        return;
    connection->receive_ending = false;
    if (arm_head(connection))
        return;
    connection->receive.done = receive_done;
    connection->receive.hint = receive_hint;
    io_receive(connection->server->io, &connection->receive, connection->socket);
}

static void begin_request_clock(struct connection *connection)
{
    bool is_partial = input_size(&connection->input) > 0 || connection->skip.left > 0 ||
                      upload_left(connection) > 0;
    if (!is_partial)
        connection->begun_ns = 0;
    else if (connection->begun_ns == 0 || connection->requests_begun != connection->requests) {
        connection->requests_begun = connection->requests;
        connection->begun_ns = io_now_ns(connection->server->io);
        connection->arrived = 0;
    }
}

/* The unfinished request does not fit into what all of them together may have: it is thrown away
 * and refused. */
static void overflow(struct connection *connection, uint64_t more)
{
    struct server *server = connection->server;
    struct input *input = &connection->input;
    struct binary_request request;
    uint64_t frame_size = 0;
    enum binary_result result = BINARY_UNKNOWN_OP;
    bool is_value = connection->upload != NULL;
    if (input_size(input) > 0 && !is_value)
        result = binary_parse(input->data + input->begin, input_size(input), connection->typed,
                              &request, &frame_size);
    if (connection->blocked || result != BINARY_PARTIAL || frame_size < input_size(input) + more) {
        log_warn(server->log, "a connection is closed: unfinished requests use all of their %d MiB",
                 (int)(CONFIG_INPUT_BYTES_MAX / MIB));
        connection_abort(connection);
        return;
    }
    connection->skip =
        (struct skip){.left = frame_size - input_size(input), .status = MINIVAULT_OVERLOADED};
    input_clear(input, &server->input_bytes);
    uint64_t skipped = request_take_all(connection, NULL, more);
    assert(skipped == more);
}

static void keep(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct server *server = connection->server;
    if (size == 0 || connection->state != CONNECTION_OPEN)
        return;
    if (input_append(&connection->input, data, size, &server->input_bytes, CONFIG_INPUT_BYTES_MAX) <
        0)
        overflow(connection, size);
}

/* How many more bytes the partial request at the front of the input wants before it is worth
 * another look. */
static uint64_t missing(const struct connection *connection)
{
    const struct input *input = &connection->input;
    struct binary_request request;
    uint64_t frame_size;
    enum binary_result result = binary_parse(input->data + input->begin, input_size(input),
                                             connection->typed, &request, &frame_size);
    if (result == BINARY_PARTIAL && frame_size > input_size(input))
        return frame_size - input_size(input);
    return 256;
}

static void take_from_input(struct connection *connection)
{
    struct input *input = &connection->input;
    uint64_t used = request_take_all(connection, input->data + input->begin, input_size(input));
    if (connection->state == CONNECTION_OPEN)
        input_consume(input, used, &connection->server->input_bytes);
    else
        input_clear(input, &connection->server->input_bytes);
}

/* Only what completes the partial request is copied; the rest is parsed where it lies. */
static void take_bytes(struct connection *connection, const uint8_t *data, uint64_t size)
{
    while (size > 0 && input_size(&connection->input) > 0 && connection->state == CONNECTION_OPEN) {
        bool waits = connection_is_waiting(connection);
        bool is_value = connection->upload != NULL;
        uint64_t part = waits || is_value ? size : min_u64(size, missing(connection));
        keep(connection, data, part);
        data += part;
        size -= part;
        if (!waits)
            take_from_input(connection);
    }
    uint64_t used = request_take_all(connection, data, size);
    keep(connection, data + used, size - used);
}

bool connection_is_waiting(const struct connection *connection)
{
    bool has_large = connection->large_pending > 0 || !list_is_empty(&connection->downloads) ||
                     (connection->upload != NULL && !upload_takes(connection));
    return connection->state == CONNECTION_OPEN && (connection->blocked || has_large);
}

/* At once, not at the end of the pass: room that comes in this very pass must find it parked. */
static void park_if_blocked(struct connection *connection)
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

static void receive_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, receive);
    connection_touch(connection);
    if (result > 0) {
        connection->arrived += (uint64_t)result;
        if (connection->state == CONNECTION_OPEN)
            take_bytes(connection, op->data, (uint64_t)result);
        begin_request_clock(connection);
        park_if_blocked(connection);
        if (connection_is_waiting(connection) &&
            input_size(&connection->input) >= BLOCKED_INPUT_MAX)
            io_cancel(connection->server->io, op);
        return;
    }
    if (result == -ECANCELED)
        return;
    connection->stream_ended = true;
    connection->broken = connection->broken || result < 0;
}

/* A receive into memory of ours. */
static void into_done(struct connection *connection, int32_t result)
{
    connection_touch(connection);
    if (result > 0)
        connection->arrived += (uint64_t)result;
    if (result > 0 || result == -ECANCELED)
        return;
    connection->stream_ended = true;
    connection->broken = connection->broken || result < 0;
}

static void direct_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, receive);
    into_done(connection, result);
    if (result <= 0)
        return;
    upload_filled(connection, (uint32_t)result);
    begin_request_clock(connection);
}

static void head_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, receive);
    into_done(connection, result);
    if (result <= 0)
        return;
    input_filled(&connection->input, (uint64_t)result);
    connection->expects_value = false;
    if (connection->state != CONNECTION_OPEN)
        input_clear(&connection->input, &connection->server->input_bytes);
    else if (!connection_is_waiting(connection))
        take_from_input(connection);
    begin_request_clock(connection);
    park_if_blocked(connection);
}

void connection_run(struct connection *connection)
{
    connection->wants_room = false;
    if (connection->state <= CONNECTION_FINISHING)
        download_go_on(connection);
    if (connection->state == CONNECTION_OPEN) {
        connection->blocked = false;
        upload_go_on(connection);
        if (input_size(&connection->input) > 0 && !connection_is_waiting(connection))
            take_from_input(connection);
        begin_request_clock(connection);
    }
    park_if_blocked(connection);
    connection_touch(connection);
}

/* ---- sending ---- */

static void send_done(struct io_op *op, int32_t result)
{
    struct connection *connection =
        container_of(container_of(op, struct io_send, op), struct connection, output.send);
    struct server *server = connection->server;
    connection->send_begun_ns = 0;
    output_sent(&connection->output, &server->outputs);
    if (result < 0)
        connection->broken = true;
    if (connection->blocked && result >= 0)
        connection_run(connection);
    connection_touch(connection);
}

static void send_ready(struct connection *connection)
{
    struct server *server = connection->server;
    if (connection->broken || connection->state > CONNECTION_FINISHING)
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
    struct server *server = connection->server;
    connection_set_state(connection, CONNECTION_LINGERING);
    connection->begun_ns = io_now_ns(server->io);
    connection->arrived = 0;
    connection->control.done = control_done;
    io_shutdown(server->io, &connection->control, connection->socket);
}

static void begin_closing(struct connection *connection)
{
    struct server *server = connection->server;
    connection_set_state(connection, CONNECTION_CLOSING);
    io_cancel(server->io, &connection->receive);
    io_cancel(server->io, &connection->output.send.op);
}

static void put_away(struct connection *connection)
{
    struct server *server = connection->server;
    unlink_node(&connection->all_node);
    unlink_node(&connection->dirty_node);
    unlink_node(&connection->waiting_node);
    unlink_node(&connection->parked_node);
    unlink_node(&connection->woken_node);
    connection_free(connection);
    server->connection_count--;
    pool_put(&server->connections, connection);
}

void connection_free(struct connection *connection)
{
    struct server *server = connection->server;
    connection_set_waits(connection, false);
    upload_free(connection);
    download_free_all(connection);
    input_clear(&connection->input, &server->input_bytes);
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
        return connection->stream_ended || connection->arrived > CONFIG_LINGER_BYTES;
    case CONNECTION_CLOSING:
        return false;
    }
    return false;
}

/* The client has ended in the middle of a large value. */
static bool is_cut_off(const struct connection *connection)
{
    return connection->upload != NULL && connection->stream_ended &&
           upload_left(connection) > input_size(&connection->input);
}

void connection_advance(struct connection *connection)
{
    if (is_cut_off(connection))
        upload_stop(connection);
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
        arm_receive(connection);
}

/* A send has little enough bytes that a client who reads at all takes them in time; less of it when
 * others wait for the memory that its answers hold. */
static bool reads_nothing(const struct connection *connection, uint64_t now_ns)
{
    const struct server *server = connection->server;
    bool is_large = !list_is_empty(&connection->downloads);
    bool is_short = is_large ? server->streams_were_short
                             : server->outputs.memory_bytes >= CONFIG_OUTPUT_MEMORY_MAX;
    uint64_t allowed_ns = is_short ? CONFIG_SEND_TIMEOUT_SHORT_NS : CONFIG_SEND_TIMEOUT_NS;
    return connection->send_begun_ns != 0 && now_ns - connection->send_begun_ns > allowed_ns;
}

void connection_tick(struct connection *connection, uint64_t now_ns)
{
    struct server *server = connection->server;
    if (reads_nothing(connection, now_ns) && connection->state != CONNECTION_CLOSING) {
        log_info(connection->server->log, "a connection is closed: it does not read its answers");
        connection_abort(connection);
        return;
    }
    if (connection->state == CONNECTION_LINGERING) {
        if (now_ns - connection->begun_ns > CONFIG_LINGER_NS)
            connection_abort(connection);
        return;
    }
    if (upload_is_starved(connection, now_ns) || download_is_starved(connection, now_ns))
        server->streams_are_short = true;
    bool waits_for_client = connection->state == CONNECTION_OPEN && connection->begun_ns != 0 &&
                            !connection_is_waiting(connection);
    uint64_t allowed_ns =
        CONFIG_REQUEST_TIMEOUT_NS + connection->arrived / CONFIG_REQUEST_RATE * NS_PER_S;
    bool is_stalled =
        server->streams_were_short && upload_is_stalled(connection, now_ns, CONFIG_UPLOAD_STALL_NS);
    if (is_stalled || (waits_for_client && now_ns - connection->begun_ns > allowed_ns)) {
        log_info(connection->server->log,
                 "a connection is closed: its request did not become whole in time");
        connection_abort(connection);
    }
}

void connection_open(struct server *server, int socket)
{
    struct connection *connection = pool_get(&server->connections);
    assert(connection != NULL); /* there are as many as sockets */
    *connection = (struct connection){.server = server, .socket = socket};
    output_init(&connection->output);
    list_init(&connection->downloads);
    list_push_back(&server->all, &connection->all_node);
    server->connection_count++;
    server->connections_accepted++;
    arm_receive(connection);
}
