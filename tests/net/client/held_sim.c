/* A connection's replies of which some are another shard's to give: which leave together, and how
 * long those that could leave wait. */
#include "tests/support/node_bench.h"

#include <inttypes.h>

#define SEEDS 20u
#define REPLY_SIZE (MINIVAULT_ANSWER_HEADER_SIZE + 1u)

static void open_both(struct node_bench *bench, struct node_peer *peer, uint64_t seed)
{
    node_bench_open_with(bench, seed, NODE_FILE_MIN);
    for (uint32_t shard = 0; shard < NODE_SHARDS; shard++)
        node_bench_set(bench, node_bench_key(shard), 1);
    node_peer_open(bench, peer, loop_port(bench->servers[0]), 0, 2 * REPLY_SIZE);
}

static void close_both(struct node_bench *bench, struct node_peer *peer)
{
    node_peer_close(peer);
    node_bench_close(bench);
}

/* A key of the connection's shard, then one of the other, in one packet. */
static void get_both(struct node_bench *bench, struct node_peer *peer)
{
    uint8_t gets[] = {MINIVAULT_GET, 1, 0, node_bench_key(0), MINIVAULT_GET, 1, 0, 0};
    gets[7] = node_bench_key(1);
    sim_network_options(bench->sim)->split_ppm = 0;
    cr_assert_eq(sim_peer_send(peer->peer, gets, sizeof gets), sizeof gets);
}

Test(held, replies_of_two_shards_leave_together)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct node_bench bench;
        struct node_peer peer;
        open_both(&bench, &peer, seed);
        get_both(&bench, &peer);
        cr_assert(node_peer_wait(&bench, &peer, 1, NODE_PATIENCE_NS));
        cr_assert_eq(peer.size, 2 * REPLY_SIZE, "seed %" PRIu64, seed);
        close_both(&bench, &peer);
    }
}

/* The other shard stands still: what is known leaves soon all the same, the rest when it goes on.
 */
Test(held, a_shard_that_does_not_answer_holds_nobody_up_for_long)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct node_bench bench;
        struct node_peer peer;
        open_both(&bench, &peer, seed);
        get_both(&bench, &peer);
        bench.is_stuck[1] = true;
        uint64_t begin_ns = sim_now_ns(bench.sim);
        cr_assert(node_peer_wait(&bench, &peer, 1, NS_PER_S));
        uint64_t lasted_ns = sim_now_ns(bench.sim) - begin_ns;
        cr_assert_eq(peer.size, REPLY_SIZE, "seed %" PRIu64, seed);
        cr_assert_geq(lasted_ns, LIMITS_HOLD_NS);
        cr_assert_lt(lasted_ns, LIMITS_HOLD_NS + 5 * NS_PER_MS, "the network has its part");
        bench.is_stuck[1] = false;
        cr_assert(node_peer_wait(&bench, &peer, 2 * REPLY_SIZE, NODE_PATIENCE_NS));
        close_both(&bench, &peer);
    }
}
