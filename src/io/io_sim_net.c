/* Sockets: the host's end of connections. */
#include "io/io_sim_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* From the kernel's knowing something to the operation's completing. */
#define KERNEL_NS_MAX (10 * NS_PER_US)
#define PORT_FIRST 32768u

/* ---- the table ---- */

static struct sim_socket *socket_at(struct io *io, int handle)
{
    if (handle < 0 || (uint32_t)handle >= io->options.sockets_max || io->sockets[handle] == NULL)
        sim_breach(io, "no socket has the handle %d", handle);
    if (io->sockets[handle]->is_closing)
        sim_breach(io, "socket %d is used after its close was submitted", handle);
    return io->sockets[handle];
}

static struct sim_socket *socket_create(struct io *io)
{
    while (io->sockets_from < io->options.sockets_max && io->sockets[io->sockets_from] != NULL)
        io->sockets_from++;
    if (io->sockets_from == io->options.sockets_max)
        return NULL;
    struct sim_socket *socket = sim_allocate(sizeof *socket);
    socket->handle = (int)io->sockets_from;
    list_init(&socket->queued);
    io->sockets[socket->handle] = socket;
    return socket;
}

static void socket_free(struct io *io, struct sim_socket *socket)
{
    io->sockets[socket->handle] = NULL;
    io->sockets_from = (uint32_t)min_u64(io->sockets_from, (uint64_t)socket->handle);
    free(socket);
}

/* ---- listening ---- */

/* Finds a listener of a machine: of several that share the port any one, with `chance` at random.
 */
static struct sim_socket *find_listener(const struct sim *sim, const struct sim_disk *disk,
                                        uint16_t port, struct prng *chance, struct io **ret_io)
{
    struct sim_socket *chosen = NULL;
    uint64_t count = 0;
    for (struct list_node *node = list_first(&sim->hosts); node != NULL;
         node = list_next(&sim->hosts, node)) {
        struct io *io = container_of(node, struct io, node);
        for (uint32_t i = 0; io->disk == disk && i < io->options.sockets_max; i++) {
            struct sim_socket *socket = io->sockets[i];
            if (socket == NULL || !socket->is_listener || socket->port != port)
                continue;
            count++;
            if (count > 1 && (chance == NULL || prng_below(chance, count) > 0))
                continue;
            *ret_io = io;
            chosen = socket;
        }
    }
    return chosen;
}

bool sim_is_listening(const struct io *io, uint16_t port)
{
    struct io *found;
    return find_listener(io->sim, io->disk, port, NULL, &found) != NULL;
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

/* Whether a listener of this machine keeps another one from the port. */
static bool is_taken(const struct io *io, uint16_t port, bool is_joining)
{
    struct io *found;
    const struct sim_socket *socket = find_listener(io->sim, io->disk, port, NULL, &found);
    return socket != NULL && !(is_joining && socket->is_shared);
}

static int listen_at(struct io *io, const char *host, uint16_t port, int backlog, bool is_joining,
                     struct sim_socket **ret_socket)
{
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    int result = check_address(host);
    if (result < 0)
        return result;
    if (port != 0 && is_taken(io, port, is_joining))
        return -EADDRINUSE;
    for (uint16_t at = PORT_FIRST; port == 0; at++)
        port = sim_is_listening(io, at) ? 0 : at;
    struct sim_socket *socket = socket_create(io);
    if (socket == NULL)
        return -ENFILE;
    socket->is_listener = true;
    socket->port = port;
    socket->backlog = backlog > 0 ? (uint32_t)backlog : 1;
    *ret_socket = socket;
    return 0;
}

int io_listen(struct io *io, const char *host, uint16_t port, int backlog, int *ret_listener,
              uint16_t *ret_port)
{
    struct sim_socket *socket;
    int result = listen_at(io, host, port, backlog, false, &socket);
    if (result < 0)
        return result;
    *ret_listener = socket->handle;
    *ret_port = socket->port;
    return 0;
}

int io_listen_shared(struct io *io, const char *host, uint16_t port, int backlog, bool is_first,
                     struct io_listener *ret_listener)
{
    if (!is_first && port == 0)
        sim_breach(io, "joins port 0");
    struct sim_socket *socket;
    int result = listen_at(io, host, port, backlog, !is_first, &socket);
    if (result < 0)
        return result;
    socket->is_shared = true;
    *ret_listener =
        (struct io_listener){.handle = socket->handle, .descriptor = -1, .port = socket->port};
    return 0;
}

/* ---- what happens to them ---- */

static void schedule_soon(struct sim_op *op)
{
    if (!op->is_done && op->event.place == 0)
        op_schedule(op, 1 + sim_delay(op->io->sim, KERNEL_NS_MAX));
}

static bool connects(struct sim_connection *connection)
{
    struct io *io;
    struct sim_socket *listener = find_listener(connection->sim, connection->disk, connection->port,
                                                &connection->sim->prng, &io);
    if (listener == NULL || listener->is_closing || listener->queued_count >= listener->backlog)
        return false;
    connection->io = io;
    connection->references++;
    listener->queued_count++;
    list_push_back(&listener->queued, &connection->node);
    if (listener->accept != NULL)
        schedule_soon(listener->accept);
    return true;
}

static void readable(struct sim_connection *connection)
{
    struct sim_socket *socket = connection->socket;
    bool is_readable =
        connection->host_error != 0 || connection->up.arrived > 0 || connection->up.has_ended;
    if (is_readable && socket != NULL && socket->receive != NULL)
        schedule_soon(socket->receive);
}

static void writable(struct sim_connection *connection)
{
    struct sim_socket *socket = connection->socket;
    if (socket != NULL && socket->send != NULL)
        schedule_soon(socket->send);
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
    struct list_node *node = list_pop_front(&listener->queued);
    struct sim_connection *connection = container_of(node, struct sim_connection, node);
    struct sim_socket *socket = socket_create(op->io);
    if (socket == NULL) {
        wire_close_host(connection, false, false);
        if (prng_below(&op->io->sim->prng, 2) == 0) {
            op_complete(op, -ENFILE);
            return;
        }
        op_complete_more(op, -ENFILE, NULL, 0);
    } else {
        socket->connection = connection;
        connection->socket = socket;
        op_complete_more(op, socket->handle, NULL, 0);
    }
    if (!list_is_empty(&listener->queued))
        schedule_soon(op);
}

/* How many bytes a receive shows now: usually all that fit. */
static uint32_t choose_size(struct sim_op *op, size_t arrived, uint64_t size_max)
{
    struct sim *sim = op->io->sim;
    uint32_t size = (uint32_t)min_u64(arrived, size_max);
    if (sim_happens(sim, sim->options.split_ppm))
        return 1 + (uint32_t)prng_below(&sim->prng, size);
    return size;
}

static void receive_lent(struct sim_op *op, struct sim_connection *connection)
{
    uint32_t size = choose_size(op, connection->up.arrived, op->io->options.receive_buffer_size);
    uint8_t *data = malloc(size);
    assert(data != NULL);
    (void)pipe_take(&connection->up, data, size);
    op_complete_more(op, (int32_t)size, data, size);
}

static void execute_receive(struct sim_op *op)
{
    struct sim_connection *connection = op->socket->connection;
    bool has_bytes = connection->up.arrived > 0;
    bool is_cancelled = op->is_cancelled;
    if (has_bytes && !(is_cancelled && prng_below(&op->io->sim->prng, 2) == 0)) {
        if (op->kind == SIM_RECEIVE) {
            receive_lent(op, connection);
        } else {
            uint32_t size = choose_size(op, connection->up.arrived, op->size);
            op_complete(op, (int32_t)pipe_take(&connection->up, op->buffer, size));
        }
        wire_made_room(connection);
        has_bytes = connection->up.arrived > 0;
    }
    if (op->is_done)
        return;
    if (is_cancelled)
        op_complete(op, -ECANCELED);
    else if (has_bytes)
        schedule_soon(op);
    else if (connection->host_error != 0)
        op_complete(op, connection->host_error);
    else if (connection->up.has_ended)
        op_complete(op, 0);
}

/* Hands over as much of the slices as there is room for. */
static void send_slices(struct sim_op *op, struct sim_connection *connection)
{
    const struct io_send *send = container_of(op->op, struct io_send, op);
    uint64_t before = 0;
    for (uint32_t i = 0; i < op->flags; i++) {
        const struct iovec *slice = &send->slices[i];
        uint64_t end = before + slice->iov_len;
        if (op->progress < end) {
            const uint8_t *from = (const uint8_t *)slice->iov_base + (op->progress - before);
            op->progress += pipe_send(connection, &connection->down, from, end - op->progress);
            if (op->progress < end)
                return;
        }
        before = end;
    }
}

static void execute_send(struct sim_op *op)
{
    struct sim_connection *connection = op->socket->connection;
    if (op->is_cancelled) {
        op_complete(op, -ECANCELED);
        return;
    }
    if (connection->host_error != 0 || connection->down.is_finished) {
        bool is_reset = connection->host_error != 0 && prng_below(&op->io->sim->prng, 2) == 0;
        op_complete(op, is_reset ? connection->host_error : -EPIPE);
        return;
    }
    send_slices(op, connection);
    if (op->progress == op->size)
        op_complete(op, (int32_t)op->size);
}

static void close_listener(struct io *io, struct sim_socket *listener)
{
    for (struct list_node *node; (node = list_pop_front(&listener->queued)) != NULL;)
        wire_close_host(container_of(node, struct sim_connection, node), true, false);
    socket_free(io, listener);
}

static void execute_close(struct sim_op *op)
{
    struct sim_socket *socket = op->socket;
    op->socket = NULL;
    if (socket->is_listener) {
        close_listener(op->io, socket);
    } else {
        wire_close_host(socket->connection, false, false);
        socket_free(op->io, socket);
    }
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
        pipe_finish(op->socket->connection, &op->socket->connection->down);
        op_complete(op, 0);
        break;
    }
}

static void retire(struct sim_op *op)
{
    struct sim_socket *socket = op->socket;
    if (socket == NULL)
        return;
    socket->active--;
    if (socket->accept == op)
        socket->accept = NULL;
    if (socket->receive == op)
        socket->receive = NULL;
    if (socket->send == op)
        socket->send = NULL;
}

static const struct sim_family sockets = {.execute = execute, .retire = retire};

static const struct sim_host_end host_end = {
    .connects = connects, .readable = readable, .writable = writable};

struct sim_peer *sim_connect(struct io *io, uint16_t port, sim_peer_changed *changed, void *context)
{
    return wire_connect(io->sim, io->disk, port, &host_end, changed, context);
}

/* ---- submitting ---- */

static struct sim_op *begin(struct io *io, struct io_op *op, enum sim_kind kind, int handle)
{
    struct sim_op *sim_op = op_begin(io, op, kind, &sockets);
    if (sim_op == NULL)
        return NULL;
    sim_op->socket = socket_at(io, handle);
    sim_op->socket->active++;
    if (sim_op->socket->is_listener != (kind == SIM_ACCEPT) && kind != SIM_CLOSE_SOCKET)
        sim_breach(io, "socket %d is not of the right kind", handle);
    return sim_op;
}

static void claim(struct sim_op **place, struct sim_op *op, const char *what)
{
    if (*place != NULL)
        sim_breach(op->io, "two %ss of socket %d are active", what, op->socket->handle);
    *place = op;
}

void io_accept(struct io *io, struct io_op *op, int listener)
{
    struct sim_op *sim_op = begin(io, op, SIM_ACCEPT, listener);
    if (sim_op == NULL)
        return;
    claim(&sim_op->socket->accept, sim_op, "accept");
    if (!list_is_empty(&sim_op->socket->queued))
        schedule_soon(sim_op);
}

void io_receive(struct io *io, struct io_op *op, int socket)
{
    struct sim_op *sim_op = begin(io, op, SIM_RECEIVE, socket);
    if (sim_op == NULL)
        return;
    claim(&sim_op->socket->receive, sim_op, "receive");
    readable(sim_op->socket->connection);
}

void io_receive_into(struct io *io, struct io_op *op, int socket, void *buffer, uint32_t size)
{
    struct sim_op *sim_op = begin(io, op, SIM_RECEIVE_INTO, socket);
    if (sim_op == NULL)
        return;
    claim(&sim_op->socket->receive, sim_op, "receive");
    sim_op->buffer = buffer;
    sim_op->size = size;
    /* The buffer is the world's: whoever looks at it too early sees this. */
    memset(buffer, 0xA5, size);
    readable(sim_op->socket->connection);
}

void io_send(struct io *io, struct io_send *send, int socket, uint32_t count)
{
    struct sim_op *sim_op = begin(io, &send->op, SIM_SEND, socket);
    if (sim_op == NULL)
        return;
    if (count == 0 || count > IO_SLICES_MAX)
        sim_breach(io, "a send has %" PRIu32 " slices", count);
    claim(&sim_op->socket->send, sim_op, "send");
    sim_op->flags = count;
    for (uint32_t i = 0; i < count; i++)
        sim_op->size += send->slices[i].iov_len;
    op_seal(sim_op);
    schedule_soon(sim_op);
}

void io_shutdown(struct io *io, struct io_op *op, int socket)
{
    struct sim_op *sim_op = begin(io, op, SIM_SHUTDOWN, socket);
    if (sim_op != NULL)
        schedule_soon(sim_op);
}

void io_close_socket(struct io *io, struct io_op *op, int socket)
{
    struct sim_op *sim_op = begin(io, op, SIM_CLOSE_SOCKET, socket);
    if (sim_op == NULL)
        return;
    if (sim_op->socket->active > 1)
        sim_breach(io, "socket %d is closed while %" PRIu32 " operations on it are active", socket,
                   sim_op->socket->active - 1);
    sim_op->socket->is_closing = true;
    schedule_soon(sim_op);
}

/* ---- the end of a process ---- */

void net_crash(struct io *io, enum sim_crash crash)
{
    bool is_cut = crash == SIM_POWER_LOSS;
    for (uint32_t i = 0; i < io->options.sockets_max; i++) {
        struct sim_socket *socket = io->sockets[i];
        if (socket == NULL)
            continue;
        if (socket->is_listener) {
            close_listener(io, socket);
        } else {
            wire_close_host(socket->connection, is_cut, is_cut);
            socket_free(io, socket);
        }
    }
}
