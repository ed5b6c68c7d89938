/* Clients that ask for a large value and do not read it hold the buffers that all share. Whoever
 * reads gets them all the same, soon. */
#include "tests/support/sim_server.h"
#include "base/bytes.h"
#include "base/units.h"
#include "minivault/protocol.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define BUFFERS 4
#define VALUE_SIZE ((uint32_t)(20 * MIB))
#define SET_HEAD_SIZE (1 + 2 + 1 + 4 + 1)
#define PATIENCE_NS (60 * NS_PER_S)

struct peer {
    struct sim_peer *peer;
    uint64_t received;
    uint64_t read_max; /* it reads so much and stops */
    uint8_t *request;
    uint64_t request_size;
    uint64_t sent;
};

static void changed(struct sim_peer *sim_peer, void *context)
{
    struct peer *peer = context;
    static uint8_t bytes[64 * KIB];
    int64_t size = 1;
    while (size > 0 && peer->sent < peer->request_size) {
        size = sim_peer_send(sim_peer, peer->request + peer->sent, peer->request_size - peer->sent);
        peer->sent += size > 0 ? (uint64_t)size : 0;
    }
    size = 1;
    while (size > 0 && peer->received < peer->read_max) {
        size = sim_peer_receive(sim_peer, bytes,
                                min_u64(sizeof bytes, peer->read_max - peer->received));
        peer->received += size > 0 ? (uint64_t)size : 0;
    }
}

/* Runs until it has received `wanted`, at most so long. Returns whether it has. */
static bool run_until(struct sim_server *bench, const struct peer *peer, uint64_t wanted,
                      uint64_t patience_ns)
{
    uint64_t end_ns = sim_now_ns(bench->sim) + patience_ns;
    while (peer->received < wanted && sim_now_ns(bench->sim) < end_ns)
        sim_server_pass(bench);
    return peer->received >= wanted;
}

static void peer_open(struct sim_server *bench, struct peer *peer, uint8_t op, uint64_t read_max)
{
    uint32_t value_size = op == MINIVAULT_SET ? VALUE_SIZE : 0;
    peer->read_max = read_max;
    peer->request_size = op == MINIVAULT_SET ? SET_HEAD_SIZE + value_size : 4;
    peer->request = calloc(1, peer->request_size);
    peer->request[0] = op;
    store_u16(peer->request + 1, 1);
    peer->request[3] = 'k';
    if (op == MINIVAULT_SET)
        store_u32(peer->request + 4, value_size);
    peer->peer = sim_connect(bench->io, loop_port(bench->server), changed, peer);
    changed(peer->peer, peer);
}

static void peer_close(struct peer *peer)
{
    sim_peer_close(peer->peer);
    free(peer->request);
}

/* One reads, and has begun. Then come so many who do not that each buffer is one's of theirs as
 * soon as it is free: nobody waits for a first piece, only the reader for its next one. */
Test(stall, who_reads_goes_on_although_all_buffers_are_with_those_who_do_not, .timeout = 120)
{
    struct sim_server bench;
    struct peer writer = {0}, reader = {0}, stalled[BUFFERS] = {0};
    uint64_t all = MINIVAULT_ANSWER_HEADER_SIZE + VALUE_SIZE;
    sim_server_init(&bench, 1);
    bench.config.stream_buffers = BUFFERS;
    sim_server_open(&bench);
    peer_open(&bench, &writer, MINIVAULT_SET, MINIVAULT_ANSWER_HEADER_SIZE);
    cr_assert(run_until(&bench, &writer, MINIVAULT_ANSWER_HEADER_SIZE, PATIENCE_NS));
    peer_open(&bench, &reader, MINIVAULT_GET, MINIVAULT_ANSWER_HEADER_SIZE);
    cr_assert(run_until(&bench, &reader, MINIVAULT_ANSWER_HEADER_SIZE, PATIENCE_NS));
    for (uint32_t i = 0; i < BUFFERS; i++)
        peer_open(&bench, &stalled[i], MINIVAULT_GET, 0);
    cr_assert(!run_until(&bench, &reader, all, NS_PER_S / 2));
    reader.read_max = all;
    changed(reader.peer, &reader);
    cr_assert(run_until(&bench, &reader, all, PATIENCE_NS), "after %llu bytes it waits for ever",
              (unsigned long long)reader.received);
    for (uint32_t i = 0; i < BUFFERS; i++)
        peer_close(&stalled[i]);
    peer_close(&reader);
    peer_close(&writer);
    sim_server_close(&bench);
}
