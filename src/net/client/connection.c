/* One client: bytes in, answers out, and its end.
 *
 * Bytes come in leased buffers, are taken as far as they can be, and saved otherwise; a large
 * value's come straight to where they are written from. */
#include "net/client/connection.h"

#include "net/client/download.h"
#include "net/client/limits.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>

/* While a connection is blocked, no more than this is received for it (and what was already on its
 * way). */
#define BLOCKED_INPUT_MAX LIMITS_RECEIVE_SIZE

static void set_state(struct connection *connection, enum connection_state state)
{
    assert(connection->state != CONNECTION_CLOSING);
    assert(state == connection->state + 1 || state == CONNECTION_CLOSING);
    connection->state = state;
    connection->client.is_closing = state == CONNECTION_CLOSING;
}

bool connection_is_waiting(const struct connection *connection)
{
    const struct client *client = &connection->client;
    bool has_large = client->large_pending > 0 || !list_is_empty(&client->downloads) ||
                     (connection->upload != NULL && !upload_takes(connection->upload));
    return connection->state == CONNECTION_OPEN && (connection->blocked || has_large);
}

bool connection_is_idle(const struct connection *connection)
{
    return connection_may_take(connection) && output_is_empty(&connection->client.output) &&
           connection->begun_ns == 0;
}

static void park_blocked(struct connection *connection)
{
    if (connection->blocked)
        client_park(&connection->client);
}

void connection_finish(struct connection *connection)
{
    if (connection->state != CONNECTION_OPEN)
        return;
    set_state(connection, CONNECTION_FINISHING);
    assert(connection->upload == NULL);
    connection->blocked = false;
    connection->arrived = 0;
    client_touch(&connection->client);
}

/* ---- its upload ---- */

static void upload_ended(void *context, struct output_block *block,
                         const struct shard_answer *answer)
{
    struct connection *connection = context;
    if (answer->status != MINIVAULT_OK)
        connection->client.shared->requests_refused++;
    connection->upload = NULL;
    if (connection->state == CONNECTION_CLOSING)
        output_fill(&connection->client.output, block, answer);
    else
        connection->protocol->end_upload(connection, block, answer);
    client_touch(&connection->client);
}

int connection_begin_upload(struct connection *connection, struct upload_request *request)
{
    assert(connection->upload == NULL);
    request->done = upload_ended;
    request->context = connection;
    int result = upload_begin(&connection->client, request, &connection->upload);
    if (result == 0)
        connection->expects_value = !request->is_frame;
    return result;
}

void connection_refuse_upload(struct connection *connection, uint8_t status)
{
    if (upload_refuse(connection->upload, status))
        io_cancel(connection->client.shared->io, &connection->receive);
}

void connection_stop_upload(struct connection *connection)
{
    if (connection->upload != NULL && upload_stop(connection->upload))
        connection->upload = NULL;
}

/* ---- taking what has come ---- */

/* Looks whether a request has begun, or ended, that must become whole in time. */
static void begin_clock(struct connection *connection)
{
    if (!connection->protocol->is_partial(connection, input_size(&connection->input) > 0))
        connection->begun_ns = 0;
    else if (connection->begun_ns == 0 || connection->requests_begun != connection->requests) {
        connection->requests_begun = connection->requests;
        connection->begun_ns = io_now_ns(connection->client.shared->io);
        connection->arrived = 0;
        connection->client.waited_ns = 0;
    }
}

static struct slice saved_of(const struct connection *connection)
{
    const struct input *input = &connection->input;
    return (struct slice){input->data != NULL ? input->data + input->begin : NULL,
                          (uint32_t)input_size(input)};
}

static void clear_input(struct connection *connection)
{
    input_clear(&connection->input, &connection->client.shared->input_bytes);
}

/* We have to end it. */
static void tell_of_end(struct connection *connection, enum metrics_error why, enum log_level level,
                        const char *text)
{
    struct client_shared *shared = connection->client.shared;
    metrics_add(&shared->metrics->errors[why], 1);
    uint64_t count = log_limit_count(&shared->ends_told[why], io_now_ns(shared->io));
    if (count > 0)
        log_event(shared->log, level, "%" PRIu64 " connection%s ended: %s", count,
                  count == 1 ? " is" : "s are", text);
}

/* The unfinished request does not fit into what all of them together may have. */
static void overflow(struct connection *connection, uint64_t more)
{
    const struct protocol *protocol = connection->protocol;
    if (!connection->blocked && protocol->overflow != NULL &&
        protocol->overflow(connection, saved_of(connection), more)) {
        clear_input(connection);
        return;
    }
    tell_of_end(connection, METRICS_ERROR_OVERFLOW, LOG_WARN,
                "unfinished requests use all of the memory that there is for them");
    client_abort(&connection->client);
}

static void save(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct client_shared *shared = connection->client.shared;
    if (size == 0 || connection->state != CONNECTION_OPEN)
        return;
    if (input_append(&connection->input, data, size, &shared->input_bytes,
                     shared->input_bytes_max) < 0)
        overflow(connection, size);
}

/* Takes what was saved. */
static void take_input(struct connection *connection)
{
    struct slice saved = saved_of(connection);
    uint64_t used = connection->protocol->take(connection, saved.data, saved.size);
    if (connection->state == CONNECTION_OPEN)
        input_consume(&connection->input, used, &connection->client.shared->input_bytes);
    else
        clear_input(connection);
}

/* Only what completes the partial request is copied; the rest is parsed where it lies. */
static void take_bytes(struct connection *connection, const uint8_t *data, uint64_t size)
{
    const struct protocol *protocol = connection->protocol;
    while (size > 0 && input_size(&connection->input) > 0 && connection->state == CONNECTION_OPEN) {
        bool waits = connection_is_waiting(connection);
        bool takes_all = waits || connection->upload != NULL || protocol->missing == NULL;
        uint64_t part =
            takes_all ? size : min_u64(size, protocol->missing(connection, saved_of(connection)));
        save(connection, data, part);
        data += part;
        size -= part;
        if (!waits)
            take_input(connection);
    }
    uint64_t used = protocol->take(connection, data, size);
    save(connection, data + used, size - used);
}

void connection_run(struct connection *connection)
{
    struct client *client = &connection->client;
    if (connection->state <= CONNECTION_FINISHING)
        download_go_on(client);
    if (connection->state == CONNECTION_OPEN) {
        connection->blocked = false;
        if (connection->upload != NULL)
            upload_go_on(connection->upload);
        bool has_bytes =
            input_size(&connection->input) > 0 || connection->protocol->runs_without_bytes;
        if (has_bytes && !connection_is_waiting(connection))
            take_input(connection);
        begin_clock(connection);
    }
    park_blocked(connection);
    client_touch(client);
}

/* ---- receiving ---- */

/* Returns whether bytes have come; otherwise it was cancelled, or nothing more will. A request that
 * has to wait arrived before them. */
static bool has_come(struct connection *connection, int32_t result)
{
    struct client_shared *shared = connection->client.shared;
    client_touch(&connection->client);
    if (result > 0) {
        connection->arrived += (uint64_t)result;
        metrics_add(&shared->metrics->values[METRICS_RECEIVED_BYTES], (uint64_t)result);
        if (!connection_is_waiting(connection))
            client_request(&connection->client)->arrived_ns = io_now_ns(shared->io);
    } else if (result != -ECANCELED) {
        connection->stream_ended = true;
        connection->client.is_broken = connection->client.is_broken || result < 0;
    }
    return result > 0;
}

static void receive_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, receive);
    if (!has_come(connection, result))
        return;
    if (connection->state == CONNECTION_OPEN)
        take_bytes(connection, op->data, (uint64_t)result);
    begin_clock(connection);
    park_blocked(connection);
    if (connection_is_waiting(connection) && input_size(&connection->input) >= BLOCKED_INPUT_MAX)
        io_cancel(connection->client.shared->io, op);
}

static void direct_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, receive);
    if (!has_come(connection, result)) {
        upload_emptied(connection->upload);
        return;
    }
    if (connection->protocol->pass != NULL)
        connection->protocol->pass(connection, connection->direct, (uint32_t)result);
    upload_filled(connection->upload, (uint32_t)result);
    begin_clock(connection);
}

static void head_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, receive);
    if (!has_come(connection, result))
        return;
    input_filled(&connection->input, (uint64_t)result);
    connection->expects_value = false;
    if (connection->state != CONNECTION_OPEN)
        clear_input(connection);
    else if (!connection_is_waiting(connection))
        take_input(connection);
    begin_clock(connection);
    park_blocked(connection);
}

static void receive_hint(const struct io_op *op, const uint8_t *data, uint32_t size, bool is_next)
{
    const struct connection *connection = container_of(op, const struct connection, receive);
    if (connection->state == CONNECTION_OPEN && !connection->blocked &&
        connection->upload == NULL && input_size(&connection->input) == 0)
        connection->protocol->hint(connection, data, size, is_next);
}

/* The rest of a large value goes straight into the memory that it is written from: once what has
 * arrived in leased buffers was copied there. */
static void arm_direct(struct connection *connection)
{
    struct io *io = connection->client.shared->io;
    if (io_op_is_active(&connection->receive)) {
        if (connection->receive.done == receive_done && !connection->receive_ending)
            io_cancel(io, &connection->receive);
        connection->receive_ending = true;
        return;
    }
    if (input_size(&connection->input) > 0) {
        client_wake(&connection->client); /* these come first */
        return;
    }
    uint32_t size = 0;
    uint8_t *buffer = upload_buffer(connection->upload, &size);
    if (buffer == NULL) {
        if (!connection_is_waiting(connection))
            client_touch(&connection->client); /* it has failed: its rest is thrown away */
        return;
    }
    connection->direct = buffer;
    connection->receive_ending = false;
    connection->receive.done = direct_done;
    connection->receive.hint = NULL;
    io_receive_into(io, &connection->receive, connection->socket, buffer, size);
}

/* Behind a large value another one is likely. Its head comes by itself, so that what follows is not
 * in leased buffers, to be copied, by the time it is known to be a value. */
static bool arm_head(struct connection *connection)
{
    struct client_shared *shared = connection->client.shared;
    bool is_between = connection->state == CONNECTION_OPEN && connection->upload == NULL &&
                      input_size(&connection->input) == 0;
    if (!connection->expects_value || !is_between)
        return false;
    uint8_t *room = input_room(&connection->input, &shared->input_bytes, shared->input_bytes_max);
    if (room == NULL)
        return false;
    connection->receive.done = head_done;
    connection->receive.hint = NULL;
    io_receive_into(shared->io, &connection->receive, connection->socket, room, INPUT_FLOOR);
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
    bool is_receiving = io_op_is_active(&connection->receive);
    if (connection->upload != NULL && upload_is_direct(connection->upload, is_receiving)) {
        arm_direct(connection);
        return;
    }
    if (is_receiving)
        return;
    connection->receive_ending = false;
    if (arm_head(connection))
        return;
    connection->receive.done = receive_done;
    connection->receive.hint = connection->protocol->hint != NULL ? receive_hint : NULL;
    io_receive(connection->client.shared->io, &connection->receive, connection->socket);
}

/* ---- sending ---- */

static void send_done(struct io_op *op, int32_t result)
{
    struct connection *connection =
        container_of(container_of(op, struct io_send, op), struct connection, client.output.send);
    struct client_shared *shared = connection->client.shared;
    connection->send_begun_ns = 0;
    output_sent(&connection->client.output);
    if (result < 0)
        connection->client.is_broken = true;
    else
        metrics_add(&shared->metrics->values[METRICS_SENT_BYTES], (uint64_t)result);
    if (connection->blocked && result >= 0)
        connection_run(connection);
    client_touch(&connection->client);
}

static void send_ready(struct connection *connection)
{
    struct client_shared *shared = connection->client.shared;
    if (connection->client.is_broken || connection->state > CONNECTION_FINISHING ||
        client_hold(&connection->client))
        return;
    struct client *client = &connection->client;
    if (output_send(&client->output, shared->io, connection->socket, send_done))
        connection->send_begun_ns = io_now_ns(shared->io);
    else
        client_wait_for_gate(client);
}

/* ---- the end ---- */

static void control_done(struct io_op *op, int32_t result)
{
    struct connection *connection = container_of(op, struct connection, control);
    (void)result;
    connection->closed = connection->state == CONNECTION_CLOSING && connection->socket < 0;
    client_touch(&connection->client);
}

static void begin_linger(struct connection *connection)
{
    struct client_shared *shared = connection->client.shared;
    set_state(connection, CONNECTION_LINGERING);
    connection->begun_ns = io_now_ns(shared->io);
    connection->arrived = 0;
    connection->control.done = control_done;
    io_shutdown(shared->io, &connection->control, connection->socket);
}

static void begin_closing(struct connection *connection)
{
    struct client_shared *shared = connection->client.shared;
    set_state(connection, CONNECTION_CLOSING);
    io_cancel(shared->io, &connection->receive);
    io_cancel(shared->io, output_op(&connection->client.output));
}

void connection_free(struct connection *connection)
{
    client_close(&connection->client);
    if (connection->upload != NULL)
        upload_free(connection->upload);
    connection->upload = NULL;
    download_free_all(&connection->client);
    clear_input(connection);
    if (connection->protocol->close != NULL)
        connection->protocol->close(connection);
}

/* All operations end, the socket closes, pending replies come back. Returns whether all that
 * is done. */
static bool go_on_closing(struct connection *connection)
{
    bool active = io_op_is_active(&connection->receive) ||
                  io_op_is_active(output_op(&connection->client.output)) ||
                  io_op_is_active(&connection->control);
    if (active)
        return false;
    connection_stop_upload(connection);
    download_stop_all(&connection->client);
    if (connection->socket >= 0) {
        int socket = connection->socket;
        connection->socket = -1;
        connection->control.done = control_done;
        io_close_socket(connection->client.shared->io, &connection->control, socket);
        return false;
    }
    bool is_empty = output_drop(&connection->client.output);
    bool is_over = connection->closed && connection->client.pending_count == 0;
    assert(!is_over || is_empty);
    return is_over;
}

/* Whether the next state is due. */
static bool is_due(const struct connection *connection)
{
    bool owes = !output_is_empty(&connection->client.output);
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

bool connection_advance(struct connection *connection)
{
    if (connection->stream_ended && connection->upload != NULL &&
        upload_is_cut_off(connection->upload, input_size(&connection->input)))
        connection_stop_upload(connection); /* in the middle of a large value */
    if (connection->client.is_broken && connection->state != CONNECTION_CLOSING)
        begin_closing(connection);
    send_ready(connection);
    if (is_due(connection)) {
        if (connection->state == CONNECTION_FINISHING && !connection->stream_ended)
            begin_linger(connection);
        else
            begin_closing(connection);
    }
    if (connection->state == CONNECTION_CLOSING)
        return go_on_closing(connection);
    arm_receive(connection);
    return false;
}

/* A send has little enough bytes that a client who reads at all takes them in time; less of it when
 * others wait for the memory that its answers hold. */
static bool reads_nothing(const struct connection *connection, uint64_t now_ns)
{
    const struct client_shared *shared = connection->client.shared;
    bool is_large = !list_is_empty(&connection->client.downloads);
    bool is_short =
        is_large ? shared->streams_were_short : output_is_short_of_memory(&shared->outputs);
    uint64_t allowed_ns = is_short ? LIMITS_SEND_TIMEOUT_SHORT_NS : LIMITS_SEND_TIMEOUT_NS;
    return connection->send_begun_ns != 0 && now_ns - connection->send_begun_ns > allowed_ns;
}

void connection_tick(struct connection *connection, uint64_t now_ns)
{
    struct client_shared *shared = connection->client.shared;
    if (reads_nothing(connection, now_ns) && connection->state != CONNECTION_CLOSING) {
        tell_of_end(connection, METRICS_ERROR_UNREAD, LOG_INFO, "the answers are not read");
        client_abort(&connection->client);
        return;
    }
    if (connection->state == CONNECTION_LINGERING) {
        if (now_ns - connection->begun_ns > LIMITS_LINGER_NS)
            client_abort(&connection->client);
        return;
    }
    if (connection->protocol->tick != NULL && connection->state == CONNECTION_OPEN)
        connection->protocol->tick(connection, now_ns);
    const struct upload *upload = connection->upload;
    if ((upload != NULL && upload_is_starved(upload, now_ns)) ||
        download_is_starved(&connection->client, now_ns))
        shared->streams_are_short = true;
    bool waits_for_client = connection->state == CONNECTION_OPEN && connection->begun_ns != 0 &&
                            !connection_is_waiting(connection);
    uint64_t allowed_ns = connection->client.waited_ns + LIMITS_REQUEST_TIMEOUT_NS +
                          connection->arrived / LIMITS_REQUEST_RATE * NS_PER_S;
    bool is_stalled = shared->streams_were_short && upload != NULL &&
                      upload_is_stalled(upload, now_ns, LIMITS_UPLOAD_STALL_NS);
    if (is_stalled || (waits_for_client && now_ns - connection->begun_ns > allowed_ns)) {
        tell_of_end(connection, METRICS_ERROR_LATE, LOG_INFO,
                    "the request did not become whole in time");
        connection->protocol->time_out(connection);
    }
}

void connection_drain(struct connection *connection, bool is_late)
{
    const struct upload *upload = connection->upload;
    uint64_t now_ns = client_now_ns(&connection->client);
    if (is_late || (upload != NULL && upload_is_stalled(upload, now_ns, LIMITS_DRAIN_STALL_NS)))
        client_abort(&connection->client);
    else if (upload == NULL && !connection_is_waiting(connection))
        connection_finish(connection);
}

void connection_open(struct connection *connection, struct client_shared *shared,
                     const struct protocol *protocol, void *protocol_shared, int socket,
                     uint64_t number)
{
    struct pool *pool = connection->pool;
    *connection = (struct connection){.protocol = protocol, .socket = socket, .pool = pool};
    client_open(&connection->client, shared, number);
    if (protocol->open != NULL)
        protocol->open(connection, protocol_shared);
    arm_receive(connection);
}
