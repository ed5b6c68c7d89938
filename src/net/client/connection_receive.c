/* Receiving: bytes come in leased buffers, are taken as far as they can be, and kept otherwise; a
 * large value's come straight to where they are written from. */
#include "net/client/server_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>

/* While a connection is blocked, no more than this is received for it (and what was already on its
 * way). */
#define BLOCKED_INPUT_MAX LIMITS_RECEIVE_SIZE

static void receive_done(struct io_op *op, int32_t result);

static void receive_hint(const struct io_op *op, const uint8_t *data, uint32_t size, bool is_next)
{
    const struct connection *connection = container_of(op, const struct connection, receive);
    connection->protocol->hint(connection, data, size, is_next);
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
    struct loop *server = connection->server;
    bool is_between = connection->state == CONNECTION_OPEN && connection->upload == NULL &&
                      connection->skip.left == 0 && input_size(&connection->input) == 0;
    if (!connection->expects_value || !is_between)
        return false;
    uint8_t *room = input_room(&connection->input, &server->input_bytes, server->input_bytes_max);
    if (room == NULL)
        return false;
    connection->receive.done = head_done;
    connection->receive.hint = NULL;
    io_receive_into(server->io, &connection->receive, connection->socket, room, INPUT_FLOOR);
    return true;
}

void connection_arm_receive(struct connection *connection)
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
    connection->receive.hint = connection->protocol->hint != NULL ? receive_hint : NULL;
    io_receive(connection->server->io, &connection->receive, connection->socket);
}

void connection_begin_clock(struct connection *connection)
{
    if (!connection->protocol->is_partial(connection))
        connection->begun_ns = 0;
    else if (connection->begun_ns == 0 || connection->requests_begun != connection->requests) {
        connection->requests_begun = connection->requests;
        connection->begun_ns = io_now_ns(connection->server->io);
        connection->arrived = 0;
    }
}

/* The unfinished request does not fit into what all of them together may have. */
static void overflow(struct connection *connection, uint64_t more)
{
    const struct protocol *protocol = connection->protocol;
    if (!connection->blocked && protocol->overflow != NULL && protocol->overflow(connection, more))
        return;
    log_warn(connection->server->log,
             "a connection is closed: unfinished requests use all of their %" PRIu64 " MiB",
             connection->server->input_bytes_max / MIB);
    metrics_add(&connection->server->watch.metrics.errors[METRICS_ERROR_OVERFLOW], 1);
    connection_abort(connection);
}

static void keep(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct loop *server = connection->server;
    if (size == 0 || connection->state != CONNECTION_OPEN)
        return;
    if (input_append(&connection->input, data, size, &server->input_bytes,
                     server->input_bytes_max) < 0)
        overflow(connection, size);
}

void connection_take_input(struct connection *connection)
{
    struct input *input = &connection->input;
    const uint8_t *data = input->data != NULL ? input->data + input->begin : NULL;
    uint64_t used = connection->protocol->take(connection, data, input_size(input));
    if (connection->state == CONNECTION_OPEN)
        input_consume(input, used, &connection->server->input_bytes);
    else
        input_clear(input, &connection->server->input_bytes);
}

/* Only what completes the partial request is copied; the rest is parsed where it lies. */
static void take_bytes(struct connection *connection, const uint8_t *data, uint64_t size)
{
    const struct protocol *protocol = connection->protocol;
    while (size > 0 && input_size(&connection->input) > 0 && connection->state == CONNECTION_OPEN) {
        bool waits = connection_is_waiting(connection);
        bool takes_all = waits || connection->upload != NULL || protocol->missing == NULL;
        uint64_t part = takes_all ? size : min_u64(size, protocol->missing(connection));
        keep(connection, data, part);
        data += part;
        size -= part;
        if (!waits)
            connection_take_input(connection);
    }
    uint64_t used = protocol->take(connection, data, size);
    keep(connection, data + used, size - used);
}

/* Bytes have come. A request that has to wait arrived before that. */
static void note_arrival(struct connection *connection, uint64_t size)
{
    struct loop *server = connection->server;
    connection->arrived += size;
    metrics_add(&server->watch.metrics.values[METRICS_RECEIVED_BYTES], size);
    if (!connection_is_waiting(connection))
        connection->output.request.arrived_ns = io_now_ns(server->io);
}

static void receive_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, receive);
    connection_touch(connection);
    if (result > 0) {
        note_arrival(connection, (uint64_t)result);
        if (connection->state == CONNECTION_OPEN)
            take_bytes(connection, op->data, (uint64_t)result);
        connection_begin_clock(connection);
        connection_park(connection);
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
        note_arrival(connection, (uint64_t)result);
    if (result > 0 || result == -ECANCELED)
        return;
    connection->stream_ended = true;
    connection->broken = connection->broken || result < 0;
}

static void direct_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, receive);
    into_done(connection, result);
    if (result <= 0) {
        upload_emptied(connection);
        return;
    }
    upload_filled(connection, (uint32_t)result);
    connection_begin_clock(connection);
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
        connection_take_input(connection);
    connection_begin_clock(connection);
    connection_park(connection);
}
