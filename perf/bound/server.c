/* The loop of bound: it accepts, receives, answers and sends, as little as a server can do. */
#include "server.h"

#include "../common/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void index_list_add(struct index_list *list, uint32_t index)
{
    list->items[list->count++] = index;
}

static void accept_start(struct server *server)
{
    struct io_uring_sqe *sqe = ring_get_sqe(&server->ring);
    io_uring_prep_multishot_accept_direct(sqe, server->settings.listener, NULL, NULL, 0);
    io_uring_sqe_set_data64(sqe, ring_tag(SERVER_OPERATION_ACCEPT, 0));
    server->is_accepting = true;
}

static void receive_start(struct server *server, uint32_t index)
{
    struct io_uring_sqe *sqe = ring_get_sqe(&server->ring);
    io_uring_prep_recv_multishot(sqe, (int)index, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_POOL_GROUP;
    io_uring_sqe_set_data64(sqe, ring_tag(SERVER_OPERATION_RECEIVE, index));
    server->connections[index].is_receiving = true;
}

static void send_start(struct server *server, uint32_t index)
{
    struct connection *connection = &server->connections[index];
    struct io_uring_sqe *sqe = ring_get_sqe(&server->ring);
    io_uring_prep_send(sqe, (int)index, connection->output.data + connection->output.start,
                       connection->output.sendable_size, MSG_NOSIGNAL | MSG_WAITALL);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, ring_tag(SERVER_OPERATION_SEND, index));
    connection->is_sending = true;
}

static void mark_dirty(struct server *server, uint32_t index)
{
    struct connection *connection = &server->connections[index];
    if (connection->is_dirty)
        return;
    connection->is_dirty = true;
    index_list_add(&server->dirty, index);
}

/* Ends the stream both ways; the receive in flight completes, and the slot is freed when all is
 * back from the kernel. */
static void fail(struct server *server, uint32_t index)
{
    struct connection *connection = &server->connections[index];
    if (connection->is_failed)
        return;
    connection->is_failed = true;
    if (connection->is_receiving) {
        struct io_uring_sqe *sqe = ring_get_sqe(&server->ring);
        io_uring_prep_shutdown(sqe, (int)index, SHUT_RDWR);
        sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
        io_uring_sqe_set_data64(sqe, ring_tag(SERVER_OPERATION_CLOSE, UINT32_MAX));
    }
    mark_dirty(server, index);
}

static void close_when_quiet(struct server *server, uint32_t index)
{
    struct connection *connection = &server->connections[index];
    if (!connection->is_open || connection->is_receiving || connection->is_parked ||
        connection->is_sending || connection->input_held_count > 0)
        return;
    connection_close(connection);
    struct io_uring_sqe *sqe = ring_get_sqe(&server->ring);
    io_uring_prep_close_direct(sqe, index);
    io_uring_sqe_set_data64(sqe, ring_tag(SERVER_OPERATION_CLOSE, index));
}

static void accept_done(struct server *server, const struct io_uring_cqe *cqe)
{
    if (!(cqe->flags & IORING_CQE_F_MORE))
        server->is_accepting = false;
    if (cqe->res < 0) {
        /* -ENFILE: every slot is taken. The next close starts the accept again. */
        if (cqe->res != -ENFILE)
            fprintf(stderr, "bound: accept: %s\n", strerror(-cqe->res));
        return;
    }
    uint32_t index = (uint32_t)cqe->res;
    connection_open(&server->connections[index]);
    receive_start(server, index);
    if (!server->is_accepting)
        accept_start(server);
}

/* Parses one buffer's bytes and gives the buffer back. False when the log has no room for them yet.
 */
static bool consume(struct server *server, uint32_t index, uint32_t buffer_id, uint32_t size)
{
    struct connection *connection = &server->connections[index];
    struct log *log = server->log_or_null;
    if (log != NULL && !log_reserve(log, size + HEADER_SIZE_MAX))
        return false;
    if (!connection->is_failed) {
        const uint8_t *data = buffer_pool_at(&server->buffers, buffer_id);
        int error = connection_receive(connection, index, &server->answers, log, data, size);
        if (error < 0)
            fail(server, index);
    }
    buffer_pool_put(&server->buffers, buffer_id);
    mark_dirty(server, index);
    return true;
}

static void hold(struct server *server, uint32_t index, uint32_t buffer_id, uint32_t size)
{
    assert(server->held_count < server->buffers.buffer_count);
    uint32_t last = (server->held_first + server->held_count) % server->buffers.buffer_count;
    server->held[last] =
        (struct held_input){.connection = index, .buffer_id = buffer_id, .size = size};
    server->held_count++;
    server->connections[index].input_held_count++;
}

/* Takes up what waited for the log, in the order it came. */
static void consume_held(struct server *server)
{
    while (server->held_count > 0) {
        struct held_input input = server->held[server->held_first];
        if (!consume(server, input.connection, input.buffer_id, input.size))
            return;
        server->held_first = (server->held_first + 1) % server->buffers.buffer_count;
        server->held_count--;
        server->connections[input.connection].input_held_count--;
    }
}

static void receive_done(struct server *server, const struct io_uring_cqe *cqe)
{
    uint32_t index = ring_tag_index(cqe->user_data);
    struct connection *connection = &server->connections[index];
    connection->is_receiving = (cqe->flags & IORING_CQE_F_MORE) != 0;
    if (cqe->res > 0) {
        uint32_t buffer_id = buffer_pool_id(cqe);
        /* Nothing overtakes what already waits. */
        if (server->held_count > 0 || !consume(server, index, buffer_id, (uint32_t)cqe->res))
            hold(server, index, buffer_id, (uint32_t)cqe->res);
        if (!connection->is_receiving && !connection->is_failed)
            receive_start(server, index);
        return;
    }
    if (cqe->res == -ENOBUFS && !connection->is_failed) {
        connection->is_parked = true;
        index_list_add(&server->parked, index);
        return;
    }
    fail(server, index);
    mark_dirty(server, index); /* also when it had failed before: now it may be closed */
}

static void send_done(struct server *server, const struct io_uring_cqe *cqe)
{
    uint32_t index = ring_tag_index(cqe->user_data);
    connection_sent(&server->connections[index], cqe->res > 0 ? (uint32_t)cqe->res : 0);
    if (cqe->res <= 0)
        fail(server, index);
    mark_dirty(server, index);
}

static int write_done(struct server *server, const struct io_uring_cqe *cqe)
{
    struct log *log = &server->log;
    uint64_t durable_before = log->durable;
    int error = log_complete(log, ring_tag_index(cqe->user_data), cqe->res);
    if (error < 0)
        return error;
    for (uint64_t number = durable_before + 1; number <= log->durable; number++) {
        struct log_batch *batch = log_batch_at(log, number);
        for (uint32_t i = 0; i < batch->waiter_count; i++) {
            connection_release(&server->connections[batch->waiters[i]], log->durable);
            mark_dirty(server, batch->waiters[i]);
        }
        batch->waiter_count = 0;
    }
    return 0;
}

static int completion_dispatch(struct server *server, const struct io_uring_cqe *cqe)
{
    switch ((enum server_operation)ring_tag_operation(cqe->user_data)) {
    case SERVER_OPERATION_ACCEPT:
        accept_done(server, cqe);
        return 0;
    case SERVER_OPERATION_RECEIVE:
        receive_done(server, cqe);
        return 0;
    case SERVER_OPERATION_SEND:
        send_done(server, cqe);
        return 0;
    case SERVER_OPERATION_WRITE:
        return write_done(server, cqe);
    case SERVER_OPERATION_CLOSE:
        if (!server->is_accepting)
            accept_start(server);
        return 0;
    }
    return -EINVAL;
}

static void flush(struct server *server)
{
    for (uint32_t i = 0; i < server->dirty.count; i++) {
        uint32_t index = server->dirty.items[i];
        struct connection *connection = &server->connections[index];
        connection->is_dirty = false;
        if (connection->is_failed)
            close_when_quiet(server, index);
        else if (connection->is_open && !connection->is_sending &&
                 connection->output.sendable_size > 0)
            send_start(server, index);
    }
    server->dirty.count = 0;
}

static void buffers_return(struct server *server)
{
    if (server->buffers.unpublished_count == 0)
        return;
    buffer_pool_publish(&server->buffers);
    for (uint32_t i = 0; i < server->parked.count; i++) {
        uint32_t index = server->parked.items[i];
        server->connections[index].is_parked = false;
        if (server->connections[index].is_failed)
            close_when_quiet(server, index);
        else
            receive_start(server, index);
    }
    server->parked.count = 0;
}

int server_run(struct server *server)
{
    accept_start(server);
    for (;;) {
        int error = ring_turn(&server->ring, server->settings.busy_poll_ns);
        if (error < 0)
            return error;
        struct io_uring_cqe *cqe;
        unsigned head;
        unsigned count = 0;
        io_uring_for_each_cqe(&server->ring, head, cqe)
        {
            error = completion_dispatch(server, cqe);
            if (error < 0)
                return error;
            count++;
        }
        io_uring_cq_advance(&server->ring, count);
        consume_held(server);
        if (server->log_or_null != NULL)
            log_submit(&server->log);
        flush(server);
        buffers_return(server);
    }
}
