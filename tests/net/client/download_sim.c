/* Large values on their way out of a node of several shards: who comes when all streams are taken
 * waits for its turn, whoever owns the key. */
#include "tests/support/node_bench.h"

#include "store/store_internal.h"

#include <stdio.h>

#define VALUE_SIZE ((uint32_t)(640 * KIB)) /* more than a simulated socket takes */
#define ANSWER_SIZE ((uint64_t)(MINIVAULT_ANSWER_HEADER_SIZE + VALUE_SIZE))
#define PIPELINED 300u
#define CROWD 2000u /* more than all streams of both shards */

static uint32_t streams_of(const struct node_bench *bench, uint32_t shard)
{
    return stream_pool_streams(loop_shard(bench->servers[shard])->store->streams);
}

static void check_answers(const struct node_peer *peer, uint8_t key, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *answer = peer->received + i * ANSWER_SIZE;
        cr_assert_eq(answer[0], MINIVAULT_OK, "answer %u", i);
        cr_assert_eq(load_u32(answer + 1), VALUE_SIZE);
        const uint8_t *value = answer + MINIVAULT_ANSWER_HEADER_SIZE;
        for (uint32_t at = 0; at < VALUE_SIZE; at++)
            cr_assert_eq(value[at], key);
    }
}

/* Whether all that downloads hold has come back: streams, and files that were lent. */
static bool is_at_rest(const struct node_bench *bench)
{
    bool is_any = false;
    for (uint32_t i = 0; i < NODE_SHARDS; i++)
        is_any = is_any || streams_of(bench, i) > 0 ||
                 !list_is_empty(&loop_shard(bench->servers[i])->store->dead.loans);
    return !is_any;
}

/* All of them at once would hold the buffers that the first one waits for, for ever. */
Test(download, those_of_one_connection_come_one_after_the_other, .timeout = 120)
{
    struct node_bench bench;
    struct node_peer peer;
    node_bench_open(&bench);
    uint8_t key = node_bench_key(1);
    node_bench_set(&bench, key, VALUE_SIZE);
    node_peer_open(&bench, &peer, loop_port(bench.servers[0]), 0, PIPELINED * ANSWER_SIZE);
    node_peer_get(&bench, &peer, key, PIPELINED);
    uint32_t most = 0;
    uint64_t end_ns = sim_now_ns(bench.sim) + NODE_PATIENCE_NS;
    while (peer.size < PIPELINED * ANSWER_SIZE && sim_now_ns(bench.sim) < end_ns) {
        node_bench_pass(&bench);
        most = max_u64(most, streams_of(&bench, 0));
    }
    cr_assert_eq(peer.size, PIPELINED * ANSWER_SIZE);
    cr_assert_eq(most, 1, "%u streams at once", most);
    check_answers(&peer, key, PIPELINED);
    node_bench_run(&bench, NS_PER_S);
    cr_assert(is_at_rest(&bench));
    node_peer_close(&peer);
    node_bench_close(&bench);
}

/* ---- more than there are streams ---- */

struct crowd {
    struct node_bench bench;
    struct node_peer peers[CROWD];
    uint8_t key;
};

/* They ask, on both shards, for a value of the second one, and read nothing. */
static struct crowd *crowd_open(void)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);
    cr_assert_not_null(crowd);
    node_bench_open(&crowd->bench);
    crowd->key = node_bench_key(1);
    node_bench_set(&crowd->bench, crowd->key, VALUE_SIZE);
    uint16_t port = loop_port(crowd->bench.servers[0]);
    for (uint32_t i = 0; i < CROWD; i++)
        crowd->peers[i].peer =
            sim_connect(crowd->bench.ios[0], port, node_peer_changed, &crowd->peers[i]);
    node_bench_run(&crowd->bench, NS_PER_S / 10);
    for (uint32_t i = 0; i < CROWD; i++)
        node_peer_get(&crowd->bench, &crowd->peers[i], crowd->key, 1);
    node_bench_run(&crowd->bench, NS_PER_S / 10);
    for (uint32_t i = 0; i < NODE_SHARDS; i++)
        cr_assert_eq(streams_of(&crowd->bench, i), STORE_STREAMS_MAX);
    return crowd;
}

static void crowd_leave(struct crowd *crowd)
{
    for (uint32_t i = 0; i < CROWD; i++)
        sim_peer_reset(crowd->peers[i].peer);
}

static void crowd_close(struct crowd *crowd)
{
    node_bench_run(&crowd->bench, NS_PER_S);
    cr_assert(is_at_rest(&crowd->bench));
    node_bench_close(&crowd->bench);
    free(crowd);
}

/* Those who read nothing are not waited for longer than they may. */
static void wait_behind_the_crowd(uint32_t shard)
{
    struct crowd *crowd = crowd_open();
    struct node_bench *bench = &crowd->bench;
    struct node_peer reader;
    node_peer_open(bench, &reader, loop_port(bench->servers[0]), shard, ANSWER_SIZE);
    node_peer_get(bench, &reader, crowd->key, 1);
    uint64_t end_ns = sim_now_ns(bench->sim) + NODE_PATIENCE_NS;
    while (reader.size < ANSWER_SIZE && sim_now_ns(bench->sim) < end_ns) {
        node_bench_pass(bench);
        cr_assert_leq(streams_of(bench, shard), STORE_STREAMS_MAX);
    }
    cr_assert_eq(reader.size, ANSWER_SIZE);
    check_answers(&reader, crowd->key, 1);
    node_peer_close(&reader);
    crowd_leave(crowd);
    crowd_close(crowd);
}

Test(download, of_anothers_key_waits_for_a_stream, .timeout = 120)
{
    wait_behind_the_crowd(0);
}

Test(download, of_an_own_key_waits_for_a_stream, .timeout = 120)
{
    wait_behind_the_crowd(1);
}

Test(download, that_waits_goes_with_its_client, .timeout = 120)
{
    struct crowd *crowd = crowd_open();
    crowd_leave(crowd);
    node_bench_run(&crowd->bench, NS_PER_S);
    for (uint32_t i = 0; i < NODE_SHARDS; i++) {
        cr_assert_eq(loop_clients(crowd->bench.servers[i])->count, 0);
        cr_assert_eq(loop_clients(crowd->bench.servers[i])->shared.outputs.memory_bytes, 0);
    }
    crowd_close(crowd);
}

/* ---- a file that is gone ---- */

struct value_path {
    char directory[STORE_PATH_SIZE + 16];
    char path[STORE_PATH_SIZE + 300];
};

static int take_name(void *context, const char *name)
{
    struct value_path *found = context;
    (void)snprintf(found->path, sizeof found->path, "%s/%.200s", found->directory, name);
    return 0;
}

static void remove_value(struct node_bench *bench, uint32_t shard, uint8_t key)
{
    struct value_path found = {.path = ""};
    struct io_op op = {0};
    (void)snprintf(found.directory, sizeof found.directory, "%s/%02x", bench->config.data_path,
                   hash_partition(hash_key(&key, 1)));
    cr_assert_eq(io_list_directory(bench->ios[shard], found.directory, take_name, &found), 0);
    io_unlink(bench->ios[shard], &op, found.path);
    cr_assert_eq(io_wait(bench->ios[shard], &op), 0, "%s", found.path);
}

/* Its owner is asked again whether the file was replaced: each time is counted once. */
Test(download, whose_file_is_gone_is_asked_for_again_and_answered_as_corrupt, .timeout = 120)
{
    struct node_bench bench;
    struct node_peer peer;
    node_bench_open(&bench);
    uint8_t key = node_bench_key(1);
    node_bench_set(&bench, key, VALUE_SIZE);
    remove_value(&bench, 1, key);
    node_peer_open(&bench, &peer, loop_port(bench.servers[0]), 0, MINIVAULT_ANSWER_HEADER_SIZE);
    node_peer_get(&bench, &peer, key, 1);
    cr_assert(node_peer_wait(&bench, &peer, MINIVAULT_ANSWER_HEADER_SIZE, NODE_PATIENCE_NS));
    cr_assert_eq(peer.received[0], MINIVAULT_ERROR);
    node_peer_close(&peer);
    node_bench_run(&bench, NS_PER_S);
    cr_assert(is_at_rest(&bench));
    node_bench_close(&bench);
}
