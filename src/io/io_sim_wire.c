/* The wire: streams as packets with a delay each, and the clients at its other end. */
#include "io/io_sim_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PIPE_SIZE_MIN ((size_t)8192)
#define PIPE_DOUBLINGS 6
#define PACKET_SIZE_MAX ((size_t)65536)
#define SPLITS_MAX 3
#define RESET_NS_MAX (100 * NS_PER_MS)

/* One direction of a stream. */
struct pipe {
    uint8_t *bytes;
    size_t capacity;
    size_t start;        /* of what was not taken */
    size_t size;         /* not taken */
    size_t arrived;      /* of it, what the receiver can see */
    size_t size_max;     /* a sender waits beyond it */
    uint64_t arrival_ns; /* of the last packet */
    bool is_finished;    /* FIN was sent */
    bool has_ended;      /* and has arrived */
};

struct wire_end {
    struct connection *connection;
    struct wire_end *other;
    struct pipe in; /* what is sent to this end */
    int error;      /* what its owner gets; 0: nothing is wrong */
    bool is_host;
    bool is_open; /* it has an owner */
    bool wants_room;
    wire_changed *changed;
    void *owner;
};

struct connection {
    struct sim *sim;
    wire_arrives *arrives;
    struct sim_disk *machine;
    uint16_t port;
    uint32_t references; /* its two ends and what is on its way */
    struct wire_end host;
    struct wire_end client;
};

struct sim_peer {
    struct list_node node; /* of its machine's */
    struct wire_end *end;
    sim_peer_changed *changed;
    void *context;
};

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
    struct wire_end *to;
    enum packet_kind kind;
    size_t size;
};

static void connection_release(struct connection *connection)
{
    if (--connection->references > 0)
        return;
    free(connection->host.in.bytes);
    free(connection->client.in.bytes);
    free(connection);
}

/* ---- arriving ---- */

static void send_packet(struct wire_end *to, enum packet_kind kind, size_t size);

static void tell(struct wire_end *end, uint32_t news)
{
    if (end->is_open)
        end->changed(end->owner, news);
}

static void fail(struct wire_end *end, int error)
{
    if (end->error != 0)
        return;
    end->error = error;
    tell(end, WIRE_READABLE | WIRE_WRITABLE);
}

static void arrive_at(struct wire_end *end, const struct packet *packet)
{
    if (end->error != 0)
        return;
    if (!end->is_open) {
        /* Nobody is there any more. */
        if (end->is_host || packet->kind == PACKET_DATA)
            send_packet(end->other, PACKET_RESET, 0);
        return;
    }
    end->in.arrived += packet->size;
    end->in.has_ended |= packet->kind == PACKET_FINISH;
    tell(end, WIRE_READABLE);
}

static void arrive(struct sim_event *event)
{
    struct packet *packet = container_of(event, struct packet, event);
    struct wire_end *end = packet->to;
    struct connection *connection = end->connection;
    sim_note(connection->sim, 0, "packet", packet->kind, (int64_t)packet->size);
    if (packet->kind == PACKET_CONNECT) {
        if (!connection->arrives(connection->machine, connection->port, end))
            fail(end->other, -ECONNREFUSED);
    } else if (packet->kind == PACKET_BREAK) {
        fail(end, -ECONNRESET);
        fail(end->other, -ECONNRESET);
    } else if (packet->kind == PACKET_RESET) {
        fail(end, -ECONNRESET);
    } else if (packet->kind == PACKET_ROOM) {
        tell(end, WIRE_WRITABLE);
    } else {
        arrive_at(end, packet);
    }
    connection_release(connection);
    free(packet);
}

/* ---- sending ---- */

static struct packet *packet_create(struct wire_end *to, enum packet_kind kind, size_t size)
{
    struct packet *packet = sim_allocate(sizeof *packet);
    sim_event_init(&packet->event, arrive);
    packet->to = to;
    packet->kind = kind;
    packet->size = size;
    to->connection->references++;
    return packet;
}

/* In order behind what was sent before. */
static void send_packet(struct wire_end *to, enum packet_kind kind, size_t size)
{
    struct sim *sim = to->connection->sim;
    const struct sim_network_options *options = sim_network_options(sim);
    uint64_t arrival_ns = sim_now_ns(sim) + sim_latency(sim, options->latency_ns_max,
                                                        options->stall_ppm, options->stall_ns_max);
    to->in.arrival_ns = max_u64(to->in.arrival_ns, arrival_ns);
    sim_schedule(sim, &packet_create(to, kind, size)->event, to->in.arrival_ns);
}

/* Overtakes: what is on the wire then is lost. */
static void send_ahead(struct wire_end *to, enum packet_kind kind, uint64_t delay_ns_max)
{
    struct sim *sim = to->connection->sim;
    sim_schedule(sim, &packet_create(to, kind, 0)->event,
                 sim_now_ns(sim) + sim_below(sim, delay_ns_max + 1));
}

static void pipe_append(struct pipe *pipe, const void *data, size_t size)
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

int64_t wire_send(struct wire_end *end, const void *data, size_t size)
{
    struct sim *sim = end->connection->sim;
    struct pipe *pipe = &end->other->in;
    if (end->error != 0)
        return end->error;
    if (pipe->is_finished)
        return -EPIPE;
    size_t taken = min_u64(size, pipe->size_max - pipe->size);
    if (taken > 0)
        pipe_append(pipe, data, taken);
    uint32_t splits = 0;
    for (size_t left = taken; left > 0;) {
        size_t part = min_u64(left, PACKET_SIZE_MAX);
        if (splits < SPLITS_MAX && sim_happens(sim, sim_network_options(sim)->split_ppm)) {
            part = 1 + sim_below(sim, part);
            splits++;
        }
        send_packet(end->other, PACKET_DATA, part);
        left -= part;
    }
    return (int64_t)taken;
}

void wire_shutdown(struct wire_end *end)
{
    if (end->other->in.is_finished)
        return;
    end->other->in.is_finished = true;
    send_packet(end->other, PACKET_FINISH, 0);
}

/* ---- receiving ---- */

int64_t wire_look(const struct wire_end *end)
{
    if (end->in.arrived > 0)
        return (int64_t)end->in.arrived;
    if (end->error != 0)
        return end->error;
    return end->in.has_ended ? 0 : -EAGAIN;
}

static size_t pipe_take(struct pipe *pipe, void *buffer, size_t size)
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

uint32_t wire_receive(struct wire_end *end, void *buffer, uint64_t size)
{
    struct sim *sim = end->connection->sim;
    const struct sim_network_options *options = sim_network_options(sim);
    assert(end->in.arrived > 0);
    size = min_u64(size, end->in.arrived);
    if (sim_happens(sim, options->split_ppm))
        size = 1 + sim_below(sim, size);
    size = pipe_take(&end->in, buffer, size);
    if (end->other->is_open && end->other->wants_room) {
        end->other->wants_room = false;
        send_ahead(end->other, PACKET_ROOM, options->latency_ns_max);
    }
    return (uint32_t)size;
}

/* ---- the ends ---- */

void wire_open(struct wire_end *end, wire_changed *changed, void *owner)
{
    assert(!end->is_open);
    end->is_open = true;
    end->changed = changed;
    end->owner = owner;
    end->connection->references++;
}

static void end_close(struct wire_end *end)
{
    assert(end->is_open);
    end->is_open = false;
    connection_release(end->connection);
}

void wire_close(struct wire_end *end, enum wire_close close)
{
    uint64_t latency_ns_max = sim_network_options(end->connection->sim)->latency_ns_max;
    if (close == WIRE_CUT)
        send_ahead(end->other, PACKET_RESET, latency_ns_max);
    else if (close == WIRE_RESET || end->in.size > 0)
        send_ahead(end->other, PACKET_RESET, 4 * latency_ns_max);
    else
        wire_shutdown(end);
    end_close(end);
}

/* ---- clients ---- */

static void peer_changed(void *owner, uint32_t news)
{
    struct sim_peer *peer = owner;
    (void)news;
    if (peer->changed != NULL)
        peer->changed(peer, peer->context);
}

static void end_init(struct wire_end *end, struct wire_end *other, struct connection *connection)
{
    end->connection = connection;
    end->other = other;
    end->in.size_max = PIPE_SIZE_MIN << sim_below(connection->sim, PIPE_DOUBLINGS);
}

struct sim_peer *wire_connect(struct sim *sim, struct list *peers, struct sim_disk *machine,
                              uint16_t port, wire_arrives *arrives, sim_peer_changed *changed,
                              void *context)
{
    struct connection *connection = sim_allocate(sizeof *connection);
    connection->sim = sim;
    connection->arrives = arrives;
    connection->machine = machine;
    connection->port = port;
    end_init(&connection->host, &connection->client, connection);
    end_init(&connection->client, &connection->host, connection);
    connection->host.is_host = true;
    struct sim_peer *peer = sim_allocate(sizeof *peer);
    peer->end = &connection->client;
    peer->changed = changed;
    peer->context = context;
    list_push_back(peers, &peer->node);
    wire_open(peer->end, peer_changed, peer);
    send_packet(&connection->host, PACKET_CONNECT, 0);
    if (sim_happens(sim, sim_network_options(sim)->reset_ppm))
        send_ahead(&connection->host, PACKET_BREAK, RESET_NS_MAX);
    return peer;
}

int64_t sim_peer_send(struct sim_peer *peer, const void *data, size_t size)
{
    int64_t taken = wire_send(peer->end, data, size);
    if (taken >= 0)
        peer->end->wants_room = (uint64_t)taken < size;
    return taken;
}

int64_t sim_peer_receive(struct sim_peer *peer, void *buffer, size_t size)
{
    assert(size > 0);
    size_t taken = pipe_take(&peer->end->in, buffer, size);
    if (taken == 0)
        return wire_look(peer->end);
    tell(peer->end->other, WIRE_WRITABLE);
    return (int64_t)taken;
}

void sim_peer_shutdown(struct sim_peer *peer)
{
    wire_shutdown(peer->end);
}

static void peer_free(struct sim_peer *peer)
{
    end_close(peer->end);
    list_remove(&peer->node);
    free(peer);
}

void sim_peer_close(struct sim_peer *peer)
{
    if (peer->end->in.size > 0) {
        sim_peer_reset(peer);
        return;
    }
    wire_shutdown(peer->end);
    peer_free(peer);
}

void sim_peer_reset(struct sim_peer *peer)
{
    peer->end->other->in.is_finished = true;
    send_packet(peer->end->other, PACKET_RESET, 0);
    peer_free(peer);
}

void wire_close_peers(struct list *peers)
{
    for (struct list_node *node; (node = list_first(peers)) != NULL;)
        sim_peer_close(container_of(node, struct sim_peer, node));
}
