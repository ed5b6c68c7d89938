/* Sockets: direct descriptors, multishot accept and receive, whole sends.
 *
 * A connection never has a descriptor of the process's table: the kernel puts it into the ring's
 * registered table, and a handle is its index there. A listener is opened in the ordinary way, then
 * moved into the table: immediate, since start-up wants the port at once. */
#include "io/io_uring.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A dead client is noticed after two minutes. */
#define KEEPALIVE_IDLE_S 60
#define KEEPALIVE_INTERVAL_S 15
#define KEEPALIVE_PROBES 4

/* Bytes that the kernel takes of what it cannot send yet: without a bound it takes all that its
 * send buffer has room for, up to 4 MiB (tcp_wmem) for a client that does not read. A thousand of
 * those held 1.5 GB, all that TCP may have on this machine, so that everybody else's sockets were
 * short; with the bound 32 MB. What is on its way does not count, so long paths lose nothing, and
 * GETs of 1 MiB on loopback are as fast. */
#define UNSENT_BYTES_MAX (128 * 1024)

static_assert(sizeof(struct msghdr) <= sizeof(((struct io_send *)0)->message),
              "io_send has room for the kernel's struct");

static void begin(const struct io *io, struct io_op *op, enum op_kind kind, int socket)
{
    assert(socket >= 0);
    assert((uint32_t)socket < io_sockets_max(io));
    op_begin(op, kind, socket);
}

/* ---- accept ---- */

void accept_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    io_uring_prep_multishot_accept_direct(sqe, op->handle, NULL, NULL, 0);
}

void accept_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    if ((cqe_flags & IORING_CQE_F_MORE) != 0) {
        ring_deliver(io, op, result);
        return;
    }
    if (finish_failed(io, op, result))
        return;
    op->state = OP_REARM;
    ring_deliver(io, op, result);
    ring_resubmit(io, op);
}

void io_accept(struct io *io, struct io_op *op, int listener)
{
    assert(op->done != NULL);
    begin(io, op, KIND_ACCEPT, listener);
    ring_submit(io, op);
}

/* ---- receive ---- */

void receive_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    buffers_prepare(ring_buffers(io), sqe, op->handle);
}

static void receive_ends(struct io *io, struct io_op *op, int32_t result)
{
    if (result == -ENOBUFS)
        ring_starve(io, op);
    else
        finish_plain(io, op, result, 0);
}

void receive_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
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

void io_receive(struct io *io, struct io_op *op, int socket)
{
    assert(op->done != NULL);
    begin(io, op, KIND_RECEIVE, socket);
    ring_submit(io, op);
}

void io_receive_into(struct io *io, struct io_op *op, int socket, void *buffer, uint32_t size)
{
    assert(size > 0 && size <= INT32_MAX);
    begin(io, op, KIND_RECEIVE_INTO, socket);
    op->buffer = buffer;
    op->size = size;
    ring_submit(io, op);
}

/* ---- send: `size` counts the slices that are left, `offset` is all bytes, time[0] those that went
 * ---- */

void send_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    struct io_send *send = container_of(op, struct io_send, op);
    int flags = MSG_NOSIGNAL | MSG_WAITALL; /* the kernel itself goes on after a short one */
    if (op->size == 1) {
        io_uring_prep_send(sqe, op->handle, send->slices[0].iov_base, send->slices[0].iov_len,
                           flags);
    } else {
        struct msghdr message = {.msg_iov = send->slices, .msg_iovlen = op->size};
        memcpy(send->message, &message, sizeof message);
        io_uring_prep_sendmsg(sqe, op->handle, (struct msghdr *)send->message, (unsigned)flags);
    }
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

void send_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    if (finish_failed(io, op, result))
        return;
    op->time[0] += (uint64_t)result;
    if (op->time[0] == op->offset) {
        ring_complete(io, op, (int32_t)op->offset);
    } else if (result == 0) {
        ring_complete(io, op, -EPIPE);
    } else {
        send_advance(container_of(op, struct io_send, op), (size_t)result);
        ring_resubmit(io, op);
    }
}

void io_send(struct io *io, struct io_send *send, int socket, uint32_t count)
{
    assert(count > 0 && count <= IO_SLICES_MAX);
    begin(io, &send->op, KIND_SEND, socket);
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++)
        total += send->slices[i].iov_len;
    assert(total > 0 && total <= INT32_MAX);
    send->op.size = count;
    send->op.offset = total;
    ring_submit(io, &send->op);
}

/* ---- the end of a connection ---- */

void io_shutdown(struct io *io, struct io_op *op, int socket)
{
    begin(io, op, KIND_SHUTDOWN, socket);
    op->size = SHUT_WR;
    ring_submit(io, op);
}

void close_socket_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    io_uring_prep_close_direct(sqe, (unsigned)op->handle);
}

void io_close_socket(struct io *io, struct io_op *op, int socket)
{
    begin(io, op, KIND_CLOSE_SOCKET, socket);
    ring_submit(io, op);
}

/* ---- listeners ---- */

struct address {
    struct sockaddr_storage storage;
    socklen_t size;
};

/* Errors: -EINVAL: not a numeric address. */
static int address_parse(const char *host, uint16_t port, struct address *ret_address)
{
    char service[8];
    (void)snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EINVAL;
    memcpy(&ret_address->storage, found->ai_addr, found->ai_addrlen);
    ret_address->size = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* What a listener has, the connections that it accepts inherit. */
static int set_options(int fd, int family)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {SOL_SOCKET, SO_REUSEADDR, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        int error = set_option(fd, options[i].level, options[i].name, options[i].value);
        if (error < 0)
            return error;
    }
    return family == AF_INET6 ? set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) : 0;
}

/* A socket that binds with SO_REUSEPORT joins whoever has it too, another process's listener as
 * well, and would silently take half of its connections. So the first one binds without, which
 * fails when anybody listens there, and is open to others only then. */
static int bind_to(int fd, const struct address *address, enum io_sharing sharing)
{
    if (sharing == IO_SHARE_JOIN) {
        int error = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        if (error < 0)
            return error;
    }
    if (bind(fd, (const struct sockaddr *)&address->storage, address->size) < 0)
        return -errno;
    return sharing == IO_SHARE_FIRST ? set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) : 0;
}

static int bind_and_listen(int fd, const struct address *address, int backlog,
                           enum io_sharing sharing, uint16_t *ret_port)
{
    int error = bind_to(fd, address, sharing);
    if (error < 0)
        return error;
    if (listen(fd, backlog) < 0)
        return -errno;
    struct address bound = {.size = sizeof bound.storage};
    if (getsockname(fd, (struct sockaddr *)&bound.storage, &bound.size) < 0)
        return -errno;
    /* The port is at the same place in both families. */
    *ret_port = ntohs(((struct sockaddr_in *)&bound.storage)->sin_port);
    return 0;
}

/* Returns the descriptor of a listening socket. */
static int open_listener(const struct address *address, int backlog, enum io_sharing sharing,
                         uint16_t *ret_port)
{
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int error = set_options(fd, address->storage.ss_family);
    if (error == 0)
        error = bind_and_listen(fd, address, backlog, sharing, ret_port);
    if (error < 0) {
        (void)close(fd);
        return error;
    }
    return fd;
}

/* Looks for the completion of the installation without taking it: the loop takes and ignores it
 * later. */
static int find_installed(struct io_uring *ring, const int *slot)
{
    unsigned head;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(ring, head, cqe)
    {
        if (cqe->user_data == RING_TAG_INSTALL) {
            cqe->user_data = RING_TAG_NONE;
            return cqe->res < 0 ? cqe->res : *slot;
        }
    }
    return -EBUSY;
}

/* Lets the kernel choose a slot of the range of sockets, as it does for accept. It does so while submitting. */
static int install(struct io *io, int fd)
{
    struct io_uring_sqe *sqe = ring_entry(io);
    if (sqe == NULL)
        return -EAGAIN;
    int slot = fd;
    io_uring_prep_files_update(sqe, &slot, 1, (int)IORING_FILE_INDEX_ALLOC);
    io_uring_sqe_set_data64(sqe, RING_TAG_INSTALL);
    int submitted = io_uring_submit(ring_of(io));
    if (submitted < 0)
        return submitted;
    return find_installed(ring_of(io), &slot);
}

/* Returns the descriptor of a listening socket. */
static int open_at(const char *host, uint16_t port, int backlog, enum io_sharing sharing,
                   uint16_t *ret_port)
{
    struct address address;
    int error = address_parse(host == NULL ? "::" : host, port, &address);
    if (error < 0)
        return error;
    int fd = open_listener(&address, backlog, sharing, ret_port);
    if (host == NULL && (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)) {
        /* IPv6 is off on this host. */
        error = address_parse("0.0.0.0", port, &address);
        assert(error == 0);
        fd = open_listener(&address, backlog, sharing, ret_port);
    }
    return fd;
}

int io_listen(struct io *io, const char *host, uint16_t port, int backlog, enum io_sharing sharing,
              struct io_listener *ret_listener)
{
    assert(sharing != IO_SHARE_JOIN || port != 0);
    struct io_listener listener = {.descriptor = -1};
    int fd = open_at(host, port, backlog, sharing, &listener.port);
    if (fd < 0)
        return fd;
    listener.handle = install(io, fd);
    if (listener.handle >= 0 && sharing != IO_SHARE_NOT)
        listener.descriptor = fd;
    else
        (void)close(fd); /* the table keeps the socket */
    if (listener.handle < 0)
        return listener.handle;
    *ret_listener = listener;
    return 0;
}
