/* A node of several shards on one simulated machine, which take turns, and clients of it. */
#ifndef TESTS_SUPPORT_NODE_BENCH_H
#define TESTS_SUPPORT_NODE_BENCH_H

#include "base/bytes.h"
#include "base/hash.h"
#include "base/units.h"
#include "io/io_sim.h"
#include "minivault/protocol.h"
#include "net/client/clients.h"
#include "net/client/limits.h"
#include "node/loop.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NODE_SHARDS 2u
#define NODE_HTTP_PORT 8080
#define NODE_FILE_MIN ((uint32_t)(16 * KIB))

struct node_bench {
    struct sim *sim;
    struct sim_disk *disk;
    struct config config;
    struct log log;
    struct node *node;
    struct io *ios[NODE_SHARDS];
    struct loop *servers[NODE_SHARDS];
    bool is_stuck[NODE_SHARDS]; /* its turn is left out */
};

static inline void node_bench_say_nothing(void *context, const char *line, uint32_t size)
{
    (void)context;
    (void)line;
    (void)size;
}

static inline void node_bench_configure(struct config *config, uint32_t value_file_min)
{
    config_init_defaults(config);
    config->data_path = "/data";
    config->shard_count = NODE_SHARDS;
    config->http_port = NODE_HTTP_PORT;
    config->connections_max = 4000;
    config->cache_size = 8 * MIB;
    config->value_file_min = value_file_min;
    config->busy_poll_ns = 0;
    config->sleep_max_ns = 100 * NS_PER_US;
}

static inline void node_bench_open_with(struct node_bench *bench, uint64_t seed,
                                        uint32_t value_file_min)
{
    struct io_options options;
    uint16_t port = 0;
    *bench = (struct node_bench){.log = {.level_min = LOG_ERROR, .write = node_bench_say_nothing}};
    bench->sim = sim_create(seed);
    bench->disk = sim_disk_create(bench->sim);
    node_bench_configure(&bench->config, value_file_min);
    loop_io_options(&bench->config, NODE_SHARDS, &options);
    cr_assert_eq(node_open(&bench->config, &bench->log, NODE_SHARDS, NULL, &bench->node), 0);
    for (uint32_t i = 0; i < NODE_SHARDS; i++)
        sim_host_open(bench->sim, bench->disk, &options, &bench->ios[i]);
    cr_assert_eq(loop_prepare(bench->ios[0], bench->node), 0);
    for (uint32_t i = 0; i < NODE_SHARDS; i++)
        cr_assert_eq(loop_create(bench->ios[i], bench->node, i, &bench->servers[i]), 0);
    for (uint32_t i = 0; i < NODE_SHARDS; i++) {
        int descriptors[LISTENERS_MAX];
        cr_assert_eq(loop_listen(bench->servers[i], port, descriptors), 0);
        port = loop_port(bench->servers[0]);
    }
    for (uint32_t i = 0; i < NODE_SHARDS; i++)
        loop_begin(bench->servers[i], NULL);
}

static inline void node_bench_open(struct node_bench *bench)
{
    node_bench_open_with(bench, 1, NODE_FILE_MIN);
}

static inline void node_bench_close(struct node_bench *bench)
{
    for (uint32_t i = 0; i < NODE_SHARDS; i++)
        io_close(bench->ios[i]);
    for (uint32_t i = 0; i < NODE_SHARDS; i++)
        loop_close(bench->servers[i]);
    node_close(bench->node);
    sim_free(bench->sim);
}

static inline void node_bench_pass(struct node_bench *bench)
{
    for (uint32_t i = 0; i < NODE_SHARDS; i++)
        if (!bench->is_stuck[i])
            cr_assert_eq(loop_pass(bench->servers[i]), 0);
}

static inline void node_bench_run(struct node_bench *bench, uint64_t duration_ns)
{
    uint64_t end_ns = sim_now_ns(bench->sim) + duration_ns;
    while (sim_now_ns(bench->sim) < end_ns)
        node_bench_pass(bench);
}

/* A key of one byte that belongs to the shard. */
static inline uint8_t node_bench_key(uint32_t shard)
{
    uint8_t key = 'a';
    while (hash_partition(hash_key(&key, 1)) % NODE_SHARDS != shard)
        key++;
    return key;
}

/* ---- a client ---- */

#define NODE_PATIENCE_NS (120 * NS_PER_S)

struct node_peer {
    struct sim_peer *peer;
    uint8_t *received;
    uint64_t size, room;
    uint64_t read_max; /* it reads so much and stops */
    bool has_ended;
};

static inline void node_peer_changed(struct sim_peer *sim_peer, void *context)
{
    struct node_peer *peer = context;
    int64_t size = 1;
    while (size > 0 && peer->size < peer->read_max) {
        if (peer->room < peer->read_max) {
            peer->room = peer->read_max;
            peer->received = realloc(peer->received, peer->room);
        }
        size = sim_peer_receive(sim_peer, peer->received + peer->size, peer->room - peer->size);
        peer->size += size > 0 ? (uint64_t)size : 0;
    }
    peer->has_ended = peer->has_ended || size == 0 || size == -ECONNRESET;
}

/* Connects until it is the shard that has taken it. */
static inline void node_peer_open(struct node_bench *bench, struct node_peer *peer, uint16_t port,
                                  uint32_t shard, uint64_t read_max)
{
    uint64_t count = loop_clients(bench->servers[shard])->accepted;
    *peer = (struct node_peer){.read_max = read_max};
    for (;;) {
        peer->peer = sim_connect(bench->ios[0], port, node_peer_changed, peer);
        node_bench_run(bench, 20 * NS_PER_MS);
        if (loop_clients(bench->servers[shard])->accepted > count)
            return;
        sim_peer_close(peer->peer);
        node_bench_run(bench, 20 * NS_PER_MS);
    }
}

static inline void node_peer_close(struct node_peer *peer)
{
    sim_peer_close(peer->peer);
    free(peer->received);
}

static inline void node_peer_send(struct node_bench *bench, struct node_peer *peer,
                                  const void *data, size_t size)
{
    size_t sent = 0;
    while (sent < size) {
        int64_t result = sim_peer_send(peer->peer, (const uint8_t *)data + sent, size - sent);
        cr_assert_geq(result, 0);
        sent += (size_t)result;
        node_bench_pass(bench);
    }
}

/* Runs until it has received so much, at most so long. Returns whether it has. */
static inline bool node_peer_wait(struct node_bench *bench, const struct node_peer *peer,
                                  uint64_t size, uint64_t patience_ns)
{
    uint64_t end_ns = sim_now_ns(bench->sim) + patience_ns;
    while (peer->size < size && sim_now_ns(bench->sim) < end_ns)
        node_bench_pass(bench);
    return peer->size >= size;
}

/* Sets a key, over a connection of its own, to so many bytes that are all the key's. */
static inline void node_bench_set(struct node_bench *bench, uint8_t key, uint32_t value_size)
{
    struct node_peer peer;
    uint8_t *request = malloc(9 + value_size);
    request[0] = MINIVAULT_SET;
    store_u16(request + 1, 1);
    request[3] = key;
    store_u32(request + 4, value_size);
    request[8] = 0;
    memset(request + 9, key, value_size);
    node_peer_open(bench, &peer, loop_port(bench->servers[0]), 0, MINIVAULT_ANSWER_HEADER_SIZE);
    node_peer_send(bench, &peer, request, 9 + value_size);
    cr_assert(node_peer_wait(bench, &peer, MINIVAULT_ANSWER_HEADER_SIZE, NODE_PATIENCE_NS));
    cr_assert_eq(peer.received[0], MINIVAULT_OK);
    node_peer_close(&peer);
    free(request);
}

/* Asks for a key so many times in one pipeline. */
static inline void node_peer_get(struct node_bench *bench, struct node_peer *peer, uint8_t key,
                                 uint32_t count)
{
    uint8_t *requests = malloc(4u * count);
    for (uint32_t i = 0; i < count; i++) {
        requests[4 * i] = MINIVAULT_GET;
        store_u16(requests + 4 * i + 1, 1);
        requests[4 * i + 3] = key;
    }
    node_peer_send(bench, peer, requests, 4u * count);
    free(requests);
}

#endif
