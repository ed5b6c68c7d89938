/* A flood of writes that fills every buffer of the log: each connection is stopped and must go on.
 */
#include "tests/support/sim_server.h"
#include "base/bytes.h"
#include "base/units.h"
#include "minivault/protocol.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define PEERS 24
#define REQUESTS 600
#define VALUE_SIZE 2048
#define REQUEST_SIZE (1 + 2 + 4 + 4 + 1 + VALUE_SIZE)
#define ANSWERS_SIZE (REQUESTS * MINIVAULT_ANSWER_HEADER_SIZE)

struct peer {
    struct sim_peer *peer;
    uint8_t *requests;
    uint64_t sent;
    uint64_t received;
};

static void send_more(struct peer *peer)
{
    uint64_t left = REQUESTS * REQUEST_SIZE - peer->sent;
    while (left > 0) {
        int64_t size = sim_peer_send(peer->peer, peer->requests + peer->sent, left);
        cr_assert_geq(size, 0);
        if (size == 0)
            return;
        peer->sent += (uint64_t)size;
        left -= (uint64_t)size;
    }
}

static void changed(struct sim_peer *sim_peer, void *context)
{
    struct peer *peer = context;
    uint8_t bytes[4096];
    int64_t size;
    while ((size = sim_peer_receive(sim_peer, bytes, sizeof bytes)) > 0)
        peer->received += (uint64_t)size;
    send_more(peer);
}

/* Its requests, each with a key of its own. */
static void make_requests(struct peer *peer, uint32_t number)
{
    peer->requests = calloc(REQUESTS, REQUEST_SIZE);
    cr_assert_not_null(peer->requests);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        uint8_t *request = peer->requests + (size_t)i * REQUEST_SIZE;
        request[0] = MINIVAULT_SET;
        store_u16(request + 1, 4);
        store_u32(request + 3, number * REQUESTS + i);
        store_u32(request + 7, VALUE_SIZE);
    }
}

static bool is_answered(const struct peer *peers)
{
    for (int i = 0; i < PEERS; i++)
        if (peers[i].received < ANSWERS_SIZE)
            return false;
    return true;
}

static void run(uint64_t seed, enum wal_durability durability)
{
    struct sim_server bench;
    struct peer peers[PEERS] = {0};
    sim_server_init(&bench, seed);
    bench.config.durability = durability;
    bench.config.cache_size = 64 * MIB;
    sim_server_open(&bench);
    for (uint32_t i = 0; i < PEERS; i++) {
        make_requests(&peers[i], i);
        peers[i].peer = sim_connect(bench.io, loop_port(bench.server), changed, &peers[i]);
        send_more(&peers[i]);
    }
    uint64_t give_up_ns = sim_now_ns(bench.sim) + 60 * NS_PER_S;
    while (!is_answered(peers) && sim_now_ns(bench.sim) < give_up_ns)
        sim_server_pass(&bench);
    cr_assert(is_answered(peers), "seed %d: requests wait for ever", (int)seed);
    for (int i = 0; i < PEERS; i++) {
        sim_peer_close(peers[i].peer);
        free(peers[i].requests);
    }
    sim_server_close(&bench);
}

Test(flood, writes_that_waited_for_a_buffer_are_answered, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 6; seed++)
        run(seed, seed % 2 == 0 ? WAL_COMMIT : WAL_INTERVAL);
}
