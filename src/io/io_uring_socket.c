/* Sockets: direct descriptors, multishot accept and receive, whole sends.
 *
 * A connection never has a descriptor of the process's table: the kernel puts it into the ring's
 * registered table, and a handle is its index there. */
#include "io/io_uring.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static_assert(sizeof(struct msghdr) <= sizeof(((struct io_send *)0)->message),
              "io_send has room for the kernel's struct");

static void assert_socket(const struct io *io, int socket)
{
    assert(socket >= 0);
    assert((uint32_t)socket < io_sockets_max(io));
}

/* ---- accept ---- */

static void accept_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    io_uring_prep_multishot_accept_direct(sqe, op->handle, NULL, NULL, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

static void accept_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    if ((cqe_flags & IORING_CQE_F_MORE) != 0) {
        ring_deliver(io, op, result);
        return;
    }
    if (retry_transient(io, op, result))
        return;
    if (result < 0) {
        ring_complete(io, op, result);
        return;
    }
    op->state = OP_REARM;
    ring_deliver(io, op, result);
    ring_resubmit(io, op);
}

const struct kind kind_accept = {.prepare = accept_prepare, .finish = accept_finish};

void io_accept(struct io *io, struct io_op *op, int listener)
{
    assert_socket(io, listener);
    assert(op->done != NULL);
    op_begin(op, KIND_ACCEPT);
    op->handle = listener;
    ring_submit(io, op);
}

/* ---- receive ---- */

static void receive_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    buffers_prepare(ring_buffers(io), sqe, op->handle);
}

static void receive_ends(struct io *io, struct io_op *op, int32_t result)
{
    if (result == -ENOBUFS)
        ring_starve(io, op);
    else if (!retry_transient(io, op, result))
        ring_complete(io, op, result);
}

static void receive_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    struct buffers *buffers = ring_buffers(io);
    bool has_buffer = (cqe_flags & IORING_CQE_F_BUFFER) != 0;
    if (result <= 0) {
        if (has_buffer)
            buffers_put(buffers, cqe_flags);
        receive_ends(io, op, result);
        return;
    }
    assert(has_buffer);
    bool goes_on = (cqe_flags & IORING_CQE_F_MORE) != 0;
    if (!goes_on)
        op->state = OP_REARM;
    op->data = buffers_lend(buffers, cqe_flags, (uint32_t)result);
    op->spare = 0;
    ring_deliver(io, op, result);
    buffers_put(buffers, cqe_flags); /* rule 4 */
    if (!goes_on)
        ring_resubmit(io, op);
}

const struct kind kind_receive = {.prepare = receive_prepare, .finish = receive_finish};

void io_receive(struct io *io, struct io_op *op, int socket)
{
    assert_socket(io, socket);
    assert(op->done != NULL);
    op_begin(op, KIND_RECEIVE);
    op->handle = socket;
    ring_submit(io, op);
}

static void receive_into_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    io_uring_prep_recv(sqe, op->handle, op->buffer, op->size, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

const struct kind kind_receive_into = {.prepare = receive_into_prepare, .finish = finish_plain};

void io_receive_into(struct io *io, struct io_op *op, int socket, void *buffer, uint32_t size)
{
    assert_socket(io, socket);
    assert(size > 0 && size <= INT32_MAX);
    op_begin(op, KIND_RECEIVE_INTO);
    op->handle = socket;
    op->buffer = buffer;
    op->size = size;
    ring_submit(io, op);
}

/* ---- send: `size` counts the slices that are left, `offset` is all bytes, time[0] those that went
 * ---- */

static struct io_send *send_of(struct io_op *op)
{
    return container_of(op, struct io_send, op);
}

static void send_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    struct io_send *send = send_of(op);
    int flags = MSG_NOSIGNAL | MSG_WAITALL; /* the kernel itself goes on after a short one */
    if (op->size == 1) {
        io_uring_prep_send(sqe, op->handle, send->slices[0].iov_base, send->slices[0].iov_len,
                           flags);
    } else {
        struct msghdr message = {.msg_iov = send->slices, .msg_iovlen = op->size};
        memcpy(send->message, &message, sizeof message);
        io_uring_prep_sendmsg(sqe, op->handle, (struct msghdr *)send->message, (unsigned)flags);
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

/* Takes `count` bytes that went off the front of the slices. */
static void send_advance(struct io_send *send, size_t count)
{
    uint32_t first = 0;
    while (first < send->op.size && count >= send->slices[first].iov_len)
        count -= send->slices[first++].iov_len;
    assert(first < send->op.size);
    send->op.size -= first;
    memmove(send->slices, send->slices + first, send->op.size * sizeof send->slices[0]);
    send->slices[0].iov_base = (uint8_t *)send->slices[0].iov_base + count;
    send->slices[0].iov_len -= count;
}

static void send_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    if (retry_transient(io, op, result))
        return;
    if (result < 0) {
        ring_complete(io, op, result);
        return;
    }
    op->time[0] += (uint64_t)result;
    if (op->time[0] == op->offset) {
        ring_complete(io, op, (int32_t)op->offset);
        return;
    }
    if (result == 0) {
        ring_complete(io, op, -EPIPE);
        return;
    }
    send_advance(send_of(op), (size_t)result);
    ring_resubmit(io, op);
}

const struct kind kind_send = {.prepare = send_prepare, .finish = send_finish};

void io_send(struct io *io, struct io_send *send, int socket, uint32_t count)
{
    assert_socket(io, socket);
    assert(count > 0 && count <= IO_SLICES_MAX);
    op_begin(&send->op, KIND_SEND);
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++)
        total += send->slices[i].iov_len;
    assert(total > 0 && total <= INT32_MAX);
    send->op.handle = socket;
    send->op.size = count;
    send->op.offset = total;
    ring_submit(io, &send->op);
}

/* ---- the end of a connection ---- */

static void shutdown_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    io_uring_prep_shutdown(sqe, op->handle, SHUT_WR);
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

const struct kind kind_shutdown = {.prepare = shutdown_prepare, .finish = finish_plain};

void io_shutdown(struct io *io, struct io_op *op, int socket)
{
    assert_socket(io, socket);
    op_begin(op, KIND_SHUTDOWN);
    op->handle = socket;
    ring_submit(io, op);
}

static void close_socket_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    io_uring_prep_close_direct(sqe, (unsigned)op->handle);
}

const struct kind kind_close_socket = {.prepare = close_socket_prepare, .finish = finish_plain};

void io_close_socket(struct io *io, struct io_op *op, int socket)
{
    assert_socket(io, socket);
    op_begin(op, KIND_CLOSE_SOCKET);
    op->handle = socket;
    ring_submit(io, op);
}
