/* The operations, server and receiver that the contract tests of both worlds share. */
#include "support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_NS (60 * NS_PER_S)

void run_pass(struct world *world, uint64_t start_ns, const char *condition)
{
    int count = io_run(world_io(world), NS_PER_MS);
    cr_assert_geq(count, 0, "io_run: %s", strerror(-count));
    cr_assert_lt(io_now_ns(world_io(world)) - start_ns, PATIENCE_NS, "never: %s", condition);
}

void run_passes(struct world *world, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        cr_assert_geq(io_run(world_io(world), 100 * NS_PER_US), 0);
}

bool is_refused(void (*call)(void *context), void *context)
{
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
        call(context);
        _exit(0);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

void probe_init(struct probe *probe)
{
    memset(probe, 0, sizeof *probe);
    probe->op.done = probe_done;
}

void probe_done(struct io_op *op, int32_t result)
{
    struct probe *probe = container_of(op, struct probe, op);
    probe->count++;
    probe->result = result;
    probe->was_active = io_op_is_active(op);
    if (probe->clock != NULL)
        probe->order = ++*probe->clock;
}

/* ---- streams ---- */

void stream_fill(uint32_t stream, uint64_t from, uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        data[i] = stream_byte(stream, from + i);
}

bool stream_matches(uint32_t stream, uint64_t from, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (data[i] != stream_byte(stream, from + i))
            return false;
    return true;
}

/* ---- a server ---- */

static void accept_done(struct io_op *op, int32_t result)
{
    struct contract_server *server = container_of(op, struct contract_server, accept);
    if (result < 0) {
        server->error = result;
        server->error_count++;
        return;
    }
    cr_assert_lt(server->socket_count, SERVER_SOCKETS_MAX);
    server->sockets[server->socket_count++] = result;
}

int listen_alone(struct io *io, const char *host, uint16_t port, int backlog, int *ret_listener,
                 uint16_t *ret_port)
{
    struct io_listener listener;
    int result = io_listen(io, host, port, backlog, IO_SHARE_NOT, &listener);
    if (result < 0)
        return result;
    *ret_listener = listener.handle;
    *ret_port = listener.port;
    return 0;
}

void contract_server_open(struct contract_server *server, struct world *world)
{
    memset(server, 0, sizeof *server);
    server->world = world;
    int error =
        listen_alone(world_io(world), "127.0.0.1", 0, 512, &server->listener, &server->port);
    cr_assert_eq(error, 0, "io_listen: %s", strerror(-error));
    cr_assert_geq(server->listener, 0);
    cr_assert_neq(server->port, 0);
    contract_server_accept(server);
}

void contract_server_accept(struct contract_server *server)
{
    server->accept.done = accept_done;
    io_accept(world_io(server->world), &server->accept, server->listener);
}

int server_connect(struct contract_server *server, int *ret_peer)
{
    uint32_t before = server->socket_count;
    int peer = world_peer_connect(server->world, server->port);
    cr_assert_geq(peer, 0, "connect: %s", strerror(-peer));
    RUN_UNTIL(server->world, server->socket_count == before + 1);
    *ret_peer = peer;
    return server->sockets[before];
}

int contract_server_connected(struct contract_server *server, struct world *world, int *ret_peer)
{
    contract_server_open(server, world);
    return server_connect(server, ret_peer);
}

void close_socket(struct world *world, int socket)
{
    struct io_op op = {0};
    io_close_socket(world_io(world), &op, socket);
    cr_assert_eq(io_wait(world_io(world), &op), 0);
}

/* ---- a receiver ---- */

static void receiver_done(struct io_op *op, int32_t result)
{
    struct receiver *receiver = container_of(op, struct receiver, op);
    receiver->count++;
    receiver->result = result;
    if (result > 0) {
        if (!stream_matches(receiver->stream, receiver->received, op->data, (size_t)result))
            receiver->is_wrong = true;
        receiver->received += (uint64_t)result;
    } else {
        receiver->has_ended = true;
        cr_assert(!io_op_is_active(op), "an end, or an error, is the last completion");
    }
}

void receiver_start(struct receiver *receiver, struct world *world, int socket, uint32_t stream)
{
    memset(receiver, 0, sizeof *receiver);
    receiver->op.done = receiver_done;
    receiver->stream = stream;
    io_receive(world_io(world), &receiver->op, socket);
}

/* ---- peers ---- */

void peer_send_stream(struct world *world, int peer, uint32_t stream, uint64_t *sent, uint64_t size)
{
    uint8_t chunk[16384];
    while (*sent < size) {
        size_t wanted = (size_t)min_u64(sizeof chunk, size - *sent);
        stream_fill(stream, *sent, chunk, wanted);
        int64_t took = world_peer_send(world, peer, chunk, wanted);
        if (took == -EAGAIN)
            return;
        cr_assert_gt(took, 0, "peer send: %s", strerror((int)-took));
        *sent += (uint64_t)took;
    }
}

bool peer_receive_stream(struct world *world, int peer, uint32_t stream, uint64_t *received,
                         uint64_t limit)
{
    uint8_t chunk[16384];
    while (limit > 0) {
        int64_t got = world_peer_receive(world, peer, chunk, (size_t)min_u64(sizeof chunk, limit));
        if (got == -EAGAIN)
            return true;
        if (got == 0)
            return false;
        cr_assert_gt(got, 0, "peer receive: %s", strerror((int)-got));
        cr_assert(stream_matches(stream, *received, chunk, (size_t)got), "wrong bytes");
        *received += (uint64_t)got;
        limit -= (uint64_t)got;
    }
    return true;
}

/* ---- files ---- */

int open_file(struct world *world, const char *name, uint32_t flags)
{
    struct io_op op = {0};
    io_open_file(world_io(world), &op, world_path(world, name), flags);
    return io_wait(world_io(world), &op);
}

int close_file(struct world *world, int file)
{
    struct io_op op = {0};
    io_close_file(world_io(world), &op, file);
    return io_wait(world_io(world), &op);
}

int32_t read_file(struct world *world, int file, void *buffer, uint32_t size, uint64_t offset)
{
    struct io_op op = {0};
    io_read(world_io(world), &op, file, buffer, size, offset);
    return io_wait(world_io(world), &op);
}

int32_t write_file(struct world *world, int file, const void *buffer, uint32_t size,
                   uint64_t offset, uint32_t flags)
{
    struct io_op op = {0};
    io_write(world_io(world), &op, file, buffer, size, offset, flags);
    return io_wait(world_io(world), &op);
}

int32_t sync_file(struct world *world, int file)
{
    struct io_op op = {0};
    io_sync(world_io(world), &op, file);
    return io_wait(world_io(world), &op);
}

uint8_t *aligned_bytes(size_t size)
{
    uint8_t *bytes = aligned_alloc(DISK_BLOCK_SIZE, round_up(size, DISK_BLOCK_SIZE));
    cr_assert_not_null(bytes);
    memset(bytes, 0, round_up(size, DISK_BLOCK_SIZE));
    return bytes;
}
