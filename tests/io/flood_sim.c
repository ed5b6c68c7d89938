/* A flood of writes that fills every buffer of the log: each connection is stopped and must go on.
 */
#include "base/bytes.h"
#include "base/units.h"
#include "io/io_sim.h"
#include "minivault/protocol.h"
#include "net/server.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define PEERS 24
#define REQUESTS 600
#define VALUE_SIZE 2048
#define REQUEST_SIZE (1 + 2 + 4 + 4 + 1 + VALUE_SIZE)
#define ANSWERS_SIZE (REQUESTS * MINIVAULT_ANSWER_HEADER_SIZE)

static void say_nothing(void *context, const char *line, uint32_t size)
{
    (void)context;
    (void)line;
    (void)size;
}

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
    struct log log = {.level_min = LOG_ERROR, .write = say_nothing};
    struct sim *sim = sim_create(seed);
    struct sim_disk *disk = sim_disk_create(sim);
    struct config config;
    struct io_options options;
    struct server *server = NULL;
    struct io *io;
    struct peer peers[PEERS] = {0};
    config_init_defaults(&config);
    config.data_path = "/data";
    config.durability = durability;
    config.connections_max = 100;
    config.cache_size = 64 * MIB;
    server_io_options(&config, &options);
    sim_host_open(sim, disk, &options, &io);
    cr_assert_eq(server_open(io, &config, &log, &server), 0);
    for (uint32_t i = 0; i < PEERS; i++) {
        make_requests(&peers[i], i);
        peers[i].peer = sim_connect(io, server_port(server), changed, &peers[i]);
        send_more(&peers[i]);
    }
    uint64_t give_up_ns = sim_now_ns(sim) + 60 * NS_PER_S;
    while (!is_answered(peers) && sim_now_ns(sim) < give_up_ns)
        cr_assert_eq(server_pass(server), 0);
    cr_assert(is_answered(peers), "seed %d: requests wait for ever", (int)seed);
    for (int i = 0; i < PEERS; i++) {
        sim_peer_close(peers[i].peer);
        free(peers[i].requests);
    }
    io_close(io);
    server_close(server);
    sim_free(sim);
}

Test(flood, writes_that_waited_for_a_buffer_are_answered, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 6; seed++)
        run(seed, seed % 2 == 0 ? WAL_COMMIT : WAL_INTERVAL);
}
