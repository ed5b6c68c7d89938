/* Sockets: the host's end of connections. */
#include "io/io_sim_host.h"

#include "io/io_sim_tree.h"
#include "io/io_sim_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* From the kernel's knowing something to the operation's completing. */
#define KERNEL_NS_MAX (10 * NS_PER_US)
#define PORT_FIRST 32768u

struct sim_socket {
    int handle;
    uint32_t active; /* operations on it */
    bool is_closing;
    bool is_listener;
    bool is_shared; /* others may join its port */
    uint16_t port;  /* of a listener, as the next three */
    uint32_t backlog;
    uint32_t queued_count;
    struct list queued;      /* sockets without a handle, to be accepted */
    struct list_node node;   /* of such a queue */
    struct wire_end *end;    /* of a connection */
    struct sim_op *incoming; /* the active accept or receive: one at most */
    struct sim_op *outgoing; /* the active send: one at most */
};

/* ---- the table ---- */

static struct sim_socket *socket_at(struct io *io, int handle)
{
    if (handle < 0 || (uint32_t)handle >= io->options.sockets_max || io->sockets[handle] == NULL)
        sim_breach(io->sim, "no socket has the handle %d", handle);
    if (io->sockets[handle]->is_closing)
        sim_breach(io->sim, "socket %d is used after its close was submitted", handle);
    return io->sockets[handle];
}

/* Gives the socket a handle. Errors: -ENFILE. */
static int socket_add(struct io *io, struct sim_socket *socket)
{
    while (io->sockets_from < io->options.sockets_max && io->sockets[io->sockets_from] != NULL)
        io->sockets_from++;
    if (io->sockets_from == io->options.sockets_max)
        return -ENFILE;
    io->sockets[io->sockets_from] = socket;
    socket->handle = (int)io->sockets_from;
    return socket->handle;
}

/* Ends a connection that has no handle. */
static void socket_close(struct sim_socket *socket, enum wire_close close)
{
    wire_close(socket->end, close);
    free(socket);
}

/* Frees the handle, too. */
static void socket_remove(struct io *io, struct sim_socket *socket, enum wire_close close)
{
    io->sockets[socket->handle] = NULL;
    io->sockets_from = (uint32_t)min_u64(io->sockets_from, (uint64_t)socket->handle);
    if (!socket->is_listener) {
        socket_close(socket, close);
        return;
    }
    for (struct list_node *node; (node = list_pop_front(&socket->queued)) != NULL;)
        socket_close(container_of(node, struct sim_socket, node), WIRE_RESET);
    free(socket);
}

/* ---- listening ---- */

/* Finds a listener of a machine: of several that share the port any one, with `chance` at random.
 */
static struct sim_socket *find_listener(const struct sim_disk *machine, uint16_t port,
                                        struct prng *chance)
{
    struct sim_socket *chosen = NULL;
    uint64_t count = 0;
    for (struct list_node *node = list_first(&machine->hosts); node != NULL;
         node = list_next(&machine->hosts, node)) {
        const struct io *io = container_of(node, struct io, node);
        for (uint32_t i = 0; i < io->options.sockets_max; i++) {
            struct sim_socket *socket = io->sockets[i];
            if (socket == NULL || !socket->is_listener || socket->port != port)
                continue;
            count++;
            if (count == 1 || (chance != NULL && prng_below(chance, count) == 0))
                chosen = socket;
        }
    }
    return chosen;
}

bool sim_is_listening(const struct io *io, uint16_t port)
{
    return find_listener(io->disk, port, NULL) != NULL;
}

/* Errors: -EINVAL: not an address; -EADDRNOTAVAIL: not one of this machine. */
static int check_address(const char *host)
{
    struct in_addr four;
    struct in6_addr six;
    if (host == NULL)
        return 0;
    if (inet_pton(AF_INET, host, &four) == 1)
        return four.s_addr == htonl(INADDR_ANY) || ntohl(four.s_addr) >> 24 == IN_LOOPBACKNET
                   ? 0
                   : -EADDRNOTAVAIL;
    if (inet_pton(AF_INET6, host, &six) == 1)
        return IN6_IS_ADDR_UNSPECIFIED(&six) || IN6_IS_ADDR_LOOPBACK(&six) ? 0 : -EADDRNOTAVAIL;
    return -EINVAL;
}

int io_listen(struct io *io, const char *host, uint16_t port, int backlog, enum io_sharing sharing,
              struct io_listener *ret_listener)
{
    if (sharing == IO_SHARE_JOIN && port == 0)
        sim_breach(io->sim, "joins port 0");
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    int result = check_address(host);
    if (result < 0)
        return result;
    const struct sim_socket *other = port == 0 ? NULL : find_listener(io->disk, port, NULL);
    if (other != NULL && !(sharing == IO_SHARE_JOIN && other->is_shared))
        return -EADDRINUSE;
    for (uint16_t at = PORT_FIRST; port == 0; at++)
        port = sim_is_listening(io, at) ? 0 : at;
    struct sim_socket *socket = sim_allocate(sizeof *socket);
    if (socket_add(io, socket) < 0) {
        free(socket);
        return -ENFILE;
    }
    socket->is_listener = true;
    socket->is_shared = sharing != IO_SHARE_NOT;
    socket->port = port;
    socket->backlog = backlog > 0 ? (uint32_t)backlog : 1;
    list_init(&socket->queued);
    *ret_listener = (struct io_listener){.handle = socket->handle, .descriptor = -1, .port = port};
    return 0;
}

/* ---- what happens to them ---- */

/* Where the socket remembers an operation of which one at most is active; NULL: it does not. */
static struct sim_op **place_of(const struct sim_op *op)
{
    if (op->kind == SIM_SEND)
        return &op->socket->outgoing;
    return op->kind <= SIM_RECEIVE_INTO ? &op->socket->incoming : NULL;
}

/* Whether what the operation waits for is there. */
static bool is_ready(const struct sim_op *op)
{
    if (op->kind == SIM_ACCEPT)
        return !list_is_empty(&op->socket->queued);
    return op->kind > SIM_RECEIVE_INTO || wire_look(op->socket->end) != -EAGAIN;
}

static void wake(struct sim_op *op)
{
    if (op != NULL && is_ready(op) && !op->is_done && !op->event.is_scheduled)
        op_schedule(op, 1 + sim_delay(op->io->sim, KERNEL_NS_MAX));
}

static void changed(void *owner, uint32_t news)
{
    const struct sim_socket *socket = owner;
    if (news & WIRE_READABLE)
        wake(socket->incoming);
    if (news & WIRE_WRITABLE)
        wake(socket->outgoing);
}

static bool arrives(struct sim_disk *machine, uint16_t port, struct wire_end *end)
{
    struct sim_socket *listener = find_listener(machine, port, sim_prng(machine->sim));
    if (listener == NULL || listener->is_closing || listener->queued_count >= listener->backlog)
        return false;
    struct sim_socket *socket = sim_allocate(sizeof *socket);
    socket->end = end;
    wire_open(end, changed, socket);
    listener->queued_count++;
    list_push_back(&listener->queued, &socket->node);
    wake(listener->incoming);
    return true;
}

struct sim_peer *sim_connect(struct io *io, uint16_t port, sim_peer_changed *peer_changed,
                             void *context)
{
    return wire_connect(io->sim, &io->disk->peers, io->disk, port, arrives, peer_changed, context);
}

static void execute_accept(struct sim_op *op)
{
    struct sim_socket *listener = op->socket;
    if (op->is_cancelled) {
        op_complete(op, -ECANCELED);
        return;
    }
    if (list_is_empty(&listener->queued))
        return;
    listener->queued_count--;
    struct sim_socket *socket =
        container_of(list_pop_front(&listener->queued), struct sim_socket, node);
    int handle = socket_add(op->io, socket);
    if (handle < 0) {
        socket_close(socket, WIRE_ORDERLY);
        if (sim_below(op->io->sim, 2) == 0) {
            op_complete(op, handle);
            return;
        }
    }
    op_complete_more(op, handle, NULL);
    wake(op);
}

static void receive_lent(struct sim_op *op)
{
    uint32_t size_max = op->io->options.receive_buffer_size;
    uint8_t *data = sim_allocate(size_max);
    uint32_t size = wire_receive(op->socket->end, data, size_max);
    data = realloc(data, size); /* whoever reads beyond the end is found */
    assert(data != NULL);
    op_complete_more(op, (int32_t)size, data);
}

static void execute_receive(struct sim_op *op)
{
    struct wire_end *end = op->socket->end;
    bool has_bytes = wire_look(end) > 0;
    if (has_bytes && !(op->is_cancelled && sim_below(op->io->sim, 2) == 0)) {
        if (op->kind == SIM_RECEIVE_INTO) {
            op_complete(op, (int32_t)wire_receive(end, op->buffer, op->size));
            return;
        }
        receive_lent(op);
    }
    if (op->is_cancelled)
        op_complete(op, -ECANCELED);
    else if (wire_look(end) > 0)
        wake(op);
    else if (wire_look(end) != -EAGAIN)
        op_complete(op, (int32_t)wire_look(end));
}

/* Hands over as much of the slices as there is room for. Errors: wire_send's. */
static int send_slices(struct sim_op *op)
{
    const struct io_send *send = container_of(op->op, struct io_send, op);
    uint64_t before = 0;
    for (uint32_t i = 0; i < op->flags; i++) {
        const struct iovec *slice = &send->slices[i];
        uint64_t end = before + slice->iov_len;
        if (op->progress < end) {
            const uint8_t *from = (const uint8_t *)slice->iov_base + (op->progress - before);
            int64_t taken = wire_send(op->socket->end, from, end - op->progress);
            if (taken < 0)
                return (int)taken;
            op->progress += (uint64_t)taken;
            if (op->progress < end)
                return 0;
        }
        before = end;
    }
    return 0;
}

static void execute_send(struct sim_op *op)
{
    if (op->is_cancelled) {
        op_complete(op, -ECANCELED);
        return;
    }
    int error = send_slices(op);
    if (error == -ECONNRESET && sim_below(op->io->sim, 2) > 0)
        error = -EPIPE;
    if (error < 0)
        op_complete(op, error);
    else if (op->progress == op->size)
        op_complete(op, (int32_t)op->size);
}

static void execute_close(struct sim_op *op)
{
    socket_remove(op->io, op->socket, WIRE_ORDERLY);
    op->active = NULL;
    op_complete(op, 0);
}

static void execute(struct sim_op *op)
{
    switch (op->kind) {
    case SIM_ACCEPT:
        execute_accept(op);
        break;
    case SIM_RECEIVE:
    case SIM_RECEIVE_INTO:
        execute_receive(op);
        break;
    case SIM_SEND:
        execute_send(op);
        break;
    case SIM_CLOSE_SOCKET:
        execute_close(op);
        break;
    default:
        assert(op->kind == SIM_SHUTDOWN);
        wire_shutdown(op->socket->end);
        op_complete(op, 0);
        break;
    }
}

/* ---- submitting ---- */

static void submit(struct io *io, struct io_op *op, int handle, struct sim_op asked)
{
    asked.execute = execute;
    struct sim_op *sim_op = op_begin(io, op, asked);
    if (sim_op == NULL)
        return;
    struct sim_socket *socket = sim_op->socket = socket_at(io, handle);
    bool is_close = asked.kind == SIM_CLOSE_SOCKET;
    if (socket->is_listener != (asked.kind == SIM_ACCEPT) && !is_close)
        sim_breach(io->sim, "socket %d is not of the right kind", handle);
    if (is_close && socket->active > 0)
        sim_breach(io->sim, "socket %d is closed while %" PRIu32 " operations on it are active",
                   handle, socket->active);
    sim_op->active = &socket->active;
    socket->active++;
    socket->is_closing = is_close;
    sim_op->place = place_of(sim_op);
    if (sim_op->place != NULL && *sim_op->place != NULL)
        sim_breach(io->sim, "two %ss of socket %d are active", op_name(sim_op), handle);
    if (sim_op->place != NULL)
        *sim_op->place = sim_op;
    wake(sim_op);
}

void io_accept(struct io *io, struct io_op *op, int listener)
{
    submit(io, op, listener, (struct sim_op){.kind = SIM_ACCEPT});
}

void io_receive(struct io *io, struct io_op *op, int socket)
{
    submit(io, op, socket, (struct sim_op){.kind = SIM_RECEIVE});
}

void io_receive_into(struct io *io, struct io_op *op, int socket, void *buffer, uint32_t size)
{
    /* The buffer is the world's: whoever looks at it too early sees this. */
    memset(buffer, 0xA5, size);
    submit(io, op, socket,
           (struct sim_op){.kind = SIM_RECEIVE_INTO, .buffer = buffer, .size = size});
}

void io_send(struct io *io, struct io_send *send, int socket, uint32_t count)
{
    if (count == 0 || count > IO_SLICES_MAX)
        sim_breach(io->sim, "a send has %" PRIu32 " slices", count);
    uint64_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += send->slices[i].iov_len;
    submit(io, &send->op, socket, (struct sim_op){.kind = SIM_SEND, .flags = count, .size = size});
}

void io_shutdown(struct io *io, struct io_op *op, int socket)
{
    submit(io, op, socket, (struct sim_op){.kind = SIM_SHUTDOWN});
}

void io_close_socket(struct io *io, struct io_op *op, int socket)
{
    submit(io, op, socket, (struct sim_op){.kind = SIM_CLOSE_SOCKET});
}

/* ---- the end of a process ---- */

void net_end(struct io *io, bool is_cut)
{
    for (uint32_t i = 0; i < io->options.sockets_max; i++)
        if (io->sockets[i] != NULL)
            socket_remove(io, io->sockets[i], is_cut ? WIRE_CUT : WIRE_ORDERLY);
}
