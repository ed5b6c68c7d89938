/* Values that are in another shard's memory and do not fit into a reply's place come in memory of
 * their own: how much of that there is at a time. */
#include "tests/support/node_bench.h"

#define VALUE_SIZE ((uint32_t)(200 * KIB))
#define ANSWER_SIZE (MINIVAULT_ANSWER_HEADER_SIZE + (uint64_t)VALUE_SIZE)
#define FILE_MIN ((uint32_t)(256 * KIB))
#define PEERS 40u
#define SMALL 400u

/* Small ones first, so that nobody reckons with more. */
static void open_small(struct node_bench *bench, struct node_peer *peers, uint64_t read_max)
{
    struct node_peer peer;
    uint8_t key = node_bench_key(1);
    node_bench_open_with(bench, 1, FILE_MIN);
    node_bench_set(bench, key, 1);
    uint64_t size = SMALL * (MINIVAULT_ANSWER_HEADER_SIZE + 1u);
    node_peer_open(bench, &peer, loop_port(bench->servers[0]), 0, size);
    node_peer_get(bench, &peer, key, SMALL);
    cr_assert(node_peer_wait(bench, &peer, size, NODE_PATIENCE_NS));
    node_peer_close(&peer);
    node_bench_set(bench, key, VALUE_SIZE);
    for (uint32_t i = 0; i < PEERS; i++)
        node_peer_open(bench, &peers[i], loop_port(bench->servers[0]), 0, read_max);
}

static void close_all(struct node_bench *bench, struct node_peer *peers)
{
    for (uint32_t i = 0; i < PEERS; i++)
        node_peer_close(&peers[i]);
    node_bench_run(bench, NS_PER_S);
    cr_assert_eq(loop_clients(bench->servers[0])->shared.outputs.memory_bytes, 0);
    cr_assert_eq(loop_shard(bench->servers[0])->gets_asked, 0);
    node_bench_close(bench);
}

/* Those who ask for a lot and read nothing get no more memory than there is for such. */
Test(answers, of_another_shard_take_no_more_memory_than_they_may, .timeout = 300)
{
    struct node_bench bench;
    struct node_peer peers[PEERS];
    open_small(&bench, peers, 0);
    const struct output_shared *outputs = &loop_clients(bench.servers[0])->shared.outputs;
    for (uint32_t i = 0; i < PEERS; i++)
        node_peer_get(&bench, &peers[i], node_bench_key(1), 50);
    uint64_t most = 0;
    uint64_t end_ns = sim_now_ns(bench.sim) + NS_PER_S;
    while (sim_now_ns(bench.sim) < end_ns) {
        node_bench_pass(&bench);
        most = max_u64(most, outputs->memory_bytes);
    }
    cr_assert_gt(most, outputs->memory_bytes_max / 2, "they want it all");
    cr_assert_leq(most, outputs->memory_bytes_max * 3 / 2);
    close_all(&bench, peers);
}

/* And those who read are all answered, with what they asked for. */
Test(answers, of_another_shard_come_to_all_who_read, .timeout = 300)
{
    struct node_bench bench;
    struct node_peer peers[PEERS];
    open_small(&bench, peers, 5 * ANSWER_SIZE);
    for (uint32_t i = 0; i < PEERS; i++)
        node_peer_get(&bench, &peers[i], node_bench_key(1), 5);
    for (uint32_t i = 0; i < PEERS; i++) {
        cr_assert(node_peer_wait(&bench, &peers[i], 5 * ANSWER_SIZE, NODE_PATIENCE_NS), "%u", i);
        for (uint32_t k = 0; k < 5; k++)
            cr_assert_eq(peers[i].received[k * ANSWER_SIZE], MINIVAULT_OK, "peer %u, %u", i, k);
    }
    close_all(&bench, peers);
}
