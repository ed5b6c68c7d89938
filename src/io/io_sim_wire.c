/* The wire: streams as packets with a delay each, and the clients at its other end. */
#include "io/io_sim_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIPE_SIZE_MIN ((size_t)8192)
#define PIPE_DOUBLINGS 6
#define PACKET_SIZE_MAX ((size_t)65536)
#define SPLITS_MAX 3
#define RESET_NS_MAX (100 * NS_PER_MS)

enum packet_kind {
    PACKET_CONNECT,
    PACKET_DATA,
    PACKET_FINISH,
    PACKET_RESET,
    PACKET_ROOM,  /* to the client: more can be sent */
    PACKET_BREAK, /* the wire is cut: both ends feel it */
};

struct packet {
    struct sim_event event;
    struct sim_connection *connection;
    struct sim_pipe *pipe; /* the direction */
    enum packet_kind kind;
    size_t size;
};

static void connection_release(struct sim_connection *connection)
{
    if (--connection->references > 0)
        return;
    free(connection->up.bytes);
    free(connection->down.bytes);
    free(connection);
}

/* ---- arriving ---- */

static void tell_peer(struct sim_connection *connection)
{
    struct sim_peer *peer = connection->peer;
    if (peer != NULL && peer->changed != NULL)
        peer->changed(peer, peer->context);
}

static void send_packet(struct sim_connection *connection, struct sim_pipe *pipe,
                        enum packet_kind kind, size_t size);

static void fail_host(struct sim_connection *connection)
{
    if (connection->host_error != 0)
        return;
    connection->host_error = -ECONNRESET;
    connection->host_end->readable(connection);
    connection->host_end->writable(connection);
}

static void fail_peer(struct sim_connection *connection, int error)
{
    if (connection->peer_error != 0)
        return;
    connection->peer_error = error;
    tell_peer(connection);
}

static void arrive_at_host(struct sim_connection *connection, const struct packet *packet)
{
    if (packet->kind == PACKET_RESET)
        fail_host(connection);
    if (packet->kind == PACKET_RESET || connection->host_error != 0)
        return;
    if (connection->io == NULL) {
        /* Nobody is there any more. */
        send_packet(connection, &connection->down, PACKET_RESET, 0);
        return;
    }
    connection->up.arrived += packet->size;
    connection->up.has_ended |= packet->kind == PACKET_FINISH;
    connection->host_end->readable(connection);
}

static void arrive_at_peer(struct sim_connection *connection, const struct packet *packet)
{
    if (packet->kind == PACKET_RESET)
        fail_peer(connection, -ECONNRESET);
    if (packet->kind == PACKET_RESET || connection->peer_error != 0)
        return;
    if (connection->peer == NULL) {
        if (packet->kind == PACKET_DATA)
            send_packet(connection, &connection->up, PACKET_RESET, 0);
        return;
    }
    connection->down.arrived += packet->size;
    connection->down.has_ended |= packet->kind == PACKET_FINISH;
    tell_peer(connection);
}

static void arrive(struct sim_event *event)
{
    struct packet *packet = container_of(event, struct packet, event);
    struct sim_connection *connection = packet->connection;
    sim_note(connection->sim, 0, "packet", packet->kind, (int64_t)packet->size);
    if (packet->kind == PACKET_CONNECT) {
        if (!connection->host_end->connects(connection))
            fail_peer(connection, -ECONNREFUSED);
    } else if (packet->kind == PACKET_BREAK) {
        fail_host(connection);
        fail_peer(connection, -ECONNRESET);
    } else if (packet->kind == PACKET_ROOM) {
        tell_peer(connection);
    } else if (packet->pipe == &connection->up) {
        arrive_at_host(connection, packet);
    } else {
        arrive_at_peer(connection, packet);
    }
    connection_release(connection);
    free(packet);
}

/* ---- sending ---- */

static uint64_t choose_delay(struct sim *sim)
{
    uint64_t delay_ns = 1 + sim_delay(sim, sim_options(sim)->network_ns_max);
    if (sim_happens(sim, sim_options(sim)->network_stall_ppm))
        delay_ns += prng_below(sim_prng(sim), sim_options(sim)->network_stall_ns_max + 1);
    return delay_ns;
}

static struct packet *packet_create(struct sim_connection *connection, struct sim_pipe *pipe,
                                    enum packet_kind kind)
{
    struct packet *packet = sim_allocate(sizeof *packet);
    sim_event_init(&packet->event, arrive);
    packet->connection = connection;
    packet->pipe = pipe;
    packet->kind = kind;
    connection->references++;
    return packet;
}

/* In order behind what was sent before. */
static void send_packet(struct sim_connection *connection, struct sim_pipe *pipe,
                        enum packet_kind kind, size_t size)
{
    struct sim *sim = connection->sim;
    struct packet *packet = packet_create(connection, pipe, kind);
    packet->size = size;
    pipe->arrival_ns = max_u64(pipe->arrival_ns, sim_now_ns(sim) + choose_delay(sim));
    sim_schedule(sim, &packet->event, pipe->arrival_ns);
}

/* Overtakes: what is on the wire then is lost. */
static void send_ahead(struct sim_connection *connection, struct sim_pipe *pipe,
                       enum packet_kind kind, uint64_t delay_ns_max)
{
    struct sim *sim = connection->sim;
    struct packet *packet = packet_create(connection, pipe, kind);
    sim_schedule(sim, &packet->event,
                 sim_now_ns(sim) + prng_below(sim_prng(sim), delay_ns_max + 1));
}

static void pipe_append(struct sim_pipe *pipe, const void *data, size_t size)
{
    if (pipe->start + pipe->size + size > pipe->capacity) {
        if (pipe->size > 0)
            memmove(pipe->bytes, pipe->bytes + pipe->start, pipe->size);
        pipe->start = 0;
    }
    if (pipe->size + size > pipe->capacity) {
        pipe->capacity = 2 * (pipe->size + size);
        pipe->bytes = realloc(pipe->bytes, pipe->capacity);
        assert(pipe->bytes != NULL);
    }
    memcpy(pipe->bytes + pipe->start + pipe->size, data, size);
    pipe->size += size;
}

size_t pipe_send(struct sim_connection *connection, struct sim_pipe *pipe, const void *data,
                 size_t size)
{
    struct sim *sim = connection->sim;
    size_t taken = min_u64(size, pipe->size_max - pipe->size);
    if (taken == 0)
        return 0;
    pipe_append(pipe, data, taken);
    uint32_t splits = 0;
    for (size_t left = taken; left > 0;) {
        size_t part = min_u64(left, PACKET_SIZE_MAX);
        if (splits < SPLITS_MAX && sim_happens(sim, sim_options(sim)->split_ppm)) {
            part = 1 + prng_below(sim_prng(sim), part);
            splits++;
        }
        send_packet(connection, pipe, PACKET_DATA, part);
        left -= part;
    }
    return taken;
}

size_t pipe_take(struct sim_pipe *pipe, void *buffer, size_t size)
{
    size_t taken = min_u64(size, pipe->arrived);
    if (taken == 0)
        return 0;
    memcpy(buffer, pipe->bytes + pipe->start, taken);
    pipe->start += taken;
    pipe->size -= taken;
    pipe->arrived -= taken;
    return taken;
}

void pipe_finish(struct sim_connection *connection, struct sim_pipe *pipe)
{
    if (pipe->is_finished)
        return;
    pipe->is_finished = true;
    send_packet(connection, pipe, PACKET_FINISH, 0);
}

void wire_made_room(struct sim_connection *connection)
{
    if (connection->peer == NULL || !connection->peer->wants_room)
        return;
    connection->peer->wants_room = false;
    send_ahead(connection, &connection->down, PACKET_ROOM,
               sim_options(connection->sim)->network_ns_max);
}

void wire_close_host(struct sim_connection *connection, bool is_reset, bool is_cut)
{
    struct sim *sim = connection->sim;
    if (is_cut)
        send_ahead(connection, &connection->down, PACKET_RESET, sim_options(sim)->network_ns_max);
    else if (is_reset || connection->up.size > 0)
        send_ahead(connection, &connection->down, PACKET_RESET,
                   4 * sim_options(sim)->network_ns_max);
    else
        pipe_finish(connection, &connection->down);
    connection->io = NULL;
    connection->socket = NULL;
    connection_release(connection);
}

/* ---- clients ---- */

struct sim_peer *wire_connect(struct sim *sim, struct sim_disk *disk, uint16_t port,
                              const struct sim_host_end *host_end, sim_peer_changed *changed,
                              void *context)
{
    struct sim_connection *connection = sim_allocate(sizeof *connection);
    struct sim_peer *peer = sim_allocate(sizeof *peer);
    connection->sim = sim;
    connection->host_end = host_end;
    connection->disk = disk;
    connection->port = port;
    connection->references = 1;
    connection->peer = peer;
    connection->up.size_max = PIPE_SIZE_MIN << prng_below(sim_prng(sim), PIPE_DOUBLINGS);
    connection->down.size_max = PIPE_SIZE_MIN << prng_below(sim_prng(sim), PIPE_DOUBLINGS);
    peer->sim = sim;
    peer->connection = connection;
    peer->changed = changed;
    peer->context = context;
    list_push_back(sim_peers(sim), &peer->node);
    send_packet(connection, &connection->up, PACKET_CONNECT, 0);
    if (sim_happens(sim, sim_options(sim)->reset_ppm))
        send_ahead(connection, &connection->up, PACKET_BREAK, RESET_NS_MAX);
    return peer;
}

int64_t sim_peer_send(struct sim_peer *peer, const void *data, size_t size)
{
    struct sim_connection *connection = peer->connection;
    if (connection->peer_error != 0)
        return connection->peer_error;
    if (connection->up.is_finished)
        return -EPIPE;
    size_t taken = pipe_send(connection, &connection->up, data, size);
    peer->wants_room = taken < size;
    return (int64_t)taken;
}

int64_t sim_peer_receive(struct sim_peer *peer, void *buffer, size_t size)
{
    struct sim_connection *connection = peer->connection;
    size_t taken = pipe_take(&connection->down, buffer, size);
    if (taken > 0) {
        connection->host_end->writable(connection);
        return (int64_t)taken;
    }
    if (connection->peer_error != 0)
        return connection->peer_error;
    return connection->down.has_ended ? 0 : -EAGAIN;
}

void sim_peer_shutdown(struct sim_peer *peer)
{
    pipe_finish(peer->connection, &peer->connection->up);
}

static void peer_free(struct sim_peer *peer)
{
    peer->connection->peer = NULL;
    connection_release(peer->connection);
    list_remove(&peer->node);
    free(peer);
}

void sim_peer_close(struct sim_peer *peer)
{
    struct sim_connection *connection = peer->connection;
    if (connection->down.size > 0)
        sim_peer_reset(peer);
    else {
        pipe_finish(connection, &connection->up);
        peer_free(peer);
    }
}

void sim_peer_reset(struct sim_peer *peer)
{
    struct sim_connection *connection = peer->connection;
    connection->up.is_finished = true;
    send_packet(connection, &connection->up, PACKET_RESET, 0);
    peer_free(peer);
}
