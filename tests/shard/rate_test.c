/* The limit of a rate that shards share, by itself, with a time that the tests set. */
#include "shard/rate.h"

#include "base/prng.h"
#include "base/units.h"

#include <criterion/criterion.h>
#include <string.h>

#define SHARDS_MAX 256u
#define TICK_NS NS_PER_MS
#define TICKS_PER_SECOND 1000u
#define TICKS_MAX 8000u

/* A node in virtual time: each tick every loaded shard is offered its part of `offered` requests a
 * second, one after the other. */
struct node {
    struct rate *rate;
    uint64_t per_second;
    uint32_t shard_count;
    uint64_t now_ns;
    uint64_t offered[SHARDS_MAX]; /* a second */
    uint64_t owed[SHARDS_MAX];    /* thousandths of a request that are still to be offered */
    uint64_t served[SHARDS_MAX];
    uint64_t served_by_tick[TICKS_MAX];
    uint32_t ticks;
    bool rests;       /* each shard sleeps after each tick */
    bool rotates;     /* another one is first in each tick */
    uint64_t skew_ns; /* how old a shard's idea of the time may be */
    struct prng prng;
};

static void node_open(struct node *node, uint64_t per_second, uint32_t shard_count)
{
    memset(node, 0, sizeof *node);
    node->per_second = per_second;
    node->shard_count = shard_count;
    node->now_ns = 1000 * NS_PER_S;
    for (uint32_t s = 0; s < shard_count; s++) /* requests of different shards do not coincide */
        node->owed[s] = (uint64_t)TICKS_PER_SECOND * s / shard_count;
    cr_assert_eq(rate_open(per_second, shard_count, node->now_ns, &node->rate), 0);
}

static void offer_all(struct node *node, uint64_t per_second_each)
{
    for (uint32_t s = 0; s < node->shard_count; s++)
        node->offered[s] = per_second_each;
}

static void serve(struct node *node, uint32_t shard)
{
    uint64_t now_ns = node->now_ns;
    if (node->skew_ns > 0)
        now_ns -= prng_below(&node->prng, node->skew_ns);
    node->owed[shard] += node->offered[shard];
    for (; node->owed[shard] >= TICKS_PER_SECOND; node->owed[shard] -= TICKS_PER_SECOND)
        if (rate_take(node->rate, shard, now_ns)) {
            node->served[shard]++;
            node->served_by_tick[node->ticks]++;
        }
    if (node->rests)
        rate_rest(node->rate, shard);
}

static void run_ticks(struct node *node, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_lt(node->ticks, TICKS_MAX);
        uint32_t first = node->rotates ? (uint32_t)prng_below(&node->prng, node->shard_count) : 0;
        for (uint32_t s = 0; s < node->shard_count; s++)
            serve(node, (first + s) % node->shard_count);
        node->ticks++;
        node->now_ns += TICK_NS;
    }
}

/* Two in a hundred, or two tokens where that is more. */
static void check_second(const struct node *node, uint64_t served, uint32_t from)
{
    uint64_t slack = max_u64(2, node->per_second / 50);
    cr_assert_leq(served, node->per_second + slack, "%llu a second, %u shards, from tick %u",
                  (unsigned long long)node->per_second, node->shard_count, from);
    cr_assert_geq(served + slack, node->per_second, "%llu a second, %u shards, from tick %u: %llu",
                  (unsigned long long)node->per_second, node->shard_count, from,
                  (unsigned long long)served);
}

/* Each second that begins at or after tick `from`. */
static void check_every_second(const struct node *node, uint32_t from)
{
    uint64_t served = 0;
    for (uint32_t tick = from; tick < node->ticks; tick++) {
        served += node->served_by_tick[tick];
        if (tick - from + 1 < TICKS_PER_SECOND)
            continue;
        check_second(node, served, tick + 1 - TICKS_PER_SECOND);
        served -= node->served_by_tick[tick + 1 - TICKS_PER_SECOND];
    }
}

static const uint64_t rates[] = {100, 1000, 12345, 200000};
static const uint32_t counts[] = {1, 2, 4, 16, 256};
#define FOR_EACH(item, list)                                                                       \
    for (size_t item = 0; (item) < sizeof(list) / sizeof((list)[0]); (item)++)

Test(rate, all_shards_loaded_get_the_rate_together, .timeout = 120)
{
    static struct node node;
    FOR_EACH(r, rates)
    FOR_EACH(c, counts)
    {
        node_open(&node, rates[r], counts[c]);
        offer_all(&node, max_u64(1, 10 * rates[r] / counts[c]));
        run_ticks(&node, 4000);
        check_every_second(&node, 500);
        rate_close(node.rate);
    }
}

Test(rate, one_loaded_shard_gets_all_of_it, .timeout = 120)
{
    static struct node node;
    FOR_EACH(r, rates)
    FOR_EACH(c, counts)
    {
        node_open(&node, rates[r], counts[c]);
        node.offered[counts[c] - 1] = 10 * rates[r];
        run_ticks(&node, 4000);
        check_every_second(&node, 500);
        rate_close(node.rate);
    }
}

Test(rate, in_any_order_with_rests_and_differing_clocks, .timeout = 120)
{
    static struct node node;
    for (uint64_t seed = 0; seed < 8; seed++) {
        node_open(&node, 50000, 4);
        node.prng.state = seed;
        node.rotates = true;
        node.rests = seed % 2 == 1;
        node.skew_ns = seed % 4 >= 2 ? 2 * NS_PER_MS : 0;
        offer_all(&node, 10 * 50000 / 4);
        run_ticks(&node, 4000);
        check_every_second(&node, 500);
        rate_close(node.rate);
    }
}

Test(rate, a_high_rate_is_exact_too, .timeout = 120)
{
    static struct node node;
    node_open(&node, 3000000, 3);
    offer_all(&node, 2000000);
    run_ticks(&node, 2500);
    check_every_second(&node, 500);
    rate_close(node.rate);
}

Test(rate, below_the_limit_nothing_is_refused)
{
    static struct node node;
    FOR_EACH(c, counts)
    {
        node_open(&node, 100000, counts[c]);
        node.offered[0] = counts[c] == 1 ? 95000 : 45000;
        if (counts[c] > 1)
            node.offered[counts[c] - 1] = 50000;
        run_ticks(&node, 3000);
        uint64_t served = node.served[0] + (counts[c] > 1 ? node.served[counts[c] - 1] : 0);
        cr_assert_eq(served, 3 * 95000, "%u shards", counts[c]);
        rate_close(node.rate);
    }
}

Test(rate, tokens_that_lie_idle_are_not_missed_elsewhere)
{
    static struct node node;
    FOR_EACH(c, counts)
    {
        node_open(&node, 100000, counts[c]);
        offer_all(&node, 90000 / counts[c]);
        run_ticks(&node, 3000);
        uint64_t offered = 0, served = 0;
        for (uint32_t s = 0; s < counts[c]; s++) {
            uint64_t before = (uint64_t)TICKS_PER_SECOND * s / counts[c];
            offered += (before + 3000 * node.offered[s]) / TICKS_PER_SECOND;
            served += node.served[s];
        }
        cr_assert_eq(served, offered, "%u shards", counts[c]);
        rate_close(node.rate);
    }
}

/* ---- the burst ---- */

/* How many are served at one instant. */
static uint64_t take_at_once(struct node *node, uint32_t shard)
{
    uint64_t count = 0;
    while (rate_take(node->rate, shard, node->now_ns))
        cr_assert_leq(++count, node->per_second);
    return count;
}

Test(rate, the_burst_is_a_tenth)
{
    static struct node node;
    FOR_EACH(c, counts)
    {
        node_open(&node, 1000000, counts[c]);
        uint64_t chunk = 1000000 / 200 / counts[c];
        uint64_t served = take_at_once(&node, 0);
        cr_assert_leq(served, 100000);
        cr_assert_geq(served, 100000 - chunk);
        cr_assert_eq(take_at_once(&node, 0), 0);
        node.now_ns += 3600 * NS_PER_S;
        served = take_at_once(&node, counts[c] - 1);
        cr_assert_leq(served, 100000, "an hour fills it no more than that");
        cr_assert_geq(served, 100000 - chunk);
        rate_close(node.rate);
    }
}

Test(rate, a_burst_is_shared_by_those_who_ask)
{
    static struct node node;
    node_open(&node, 1000000, 4);
    uint64_t served[4] = {0};
    for (uint32_t i = 0; i < 400000; i++)
        served[i % 4] += rate_take(node.rate, i % 4, node.now_ns);
    uint64_t all = served[0] + served[1] + served[2] + served[3];
    cr_assert_leq(all, 100000);
    cr_assert_geq(all, 95000);
    for (uint32_t s = 0; s < 4; s++)
        cr_assert_geq(served[s], 20000, "shard %u: %llu", s, (unsigned long long)served[s]);
    rate_close(node.rate);
}

Test(rate, one_a_second_is_one_a_second)
{
    static struct node node;
    node_open(&node, 1, 2);
    offer_all(&node, 100);
    run_ticks(&node, 7990);
    uint64_t served = node.served[0] + node.served[1];
    cr_assert_geq(served, 7, "one at once, then one a second");
    cr_assert_leq(served, 9);
    rate_close(node.rate);
}

/* ---- fairness ---- */

/* Within a tenth of a second's part. */
static void check_equal(const struct node *node, const uint64_t *before, uint32_t first,
                        uint32_t count, uint64_t expected)
{
    for (uint32_t s = first; s < first + count; s++) {
        uint64_t served = node->served[s] - before[s];
        cr_assert_leq(served, expected + expected / 10, "shard %u: %llu", s,
                      (unsigned long long)served);
        cr_assert_geq(served, expected - expected / 10, "shard %u: %llu", s,
                      (unsigned long long)served);
    }
}

Test(rate, loaded_shards_get_equal_parts, .timeout = 120)
{
    static struct node node;
    FOR_EACH(c, counts)
    {
        node_open(&node, 51200, counts[c]);
        offer_all(&node, 10 * 51200 / counts[c]);
        run_ticks(&node, 1000);
        uint64_t before[SHARDS_MAX];
        memcpy(before, node.served, sizeof before);
        run_ticks(&node, 2000);
        check_equal(&node, before, 0, counts[c], 2 * 51200 / counts[c]);
        rate_close(node.rate);
    }
}

Test(rate, more_demand_gets_no_more)
{
    static struct node node;
    node_open(&node, 40000, 2);
    node.offered[0] = 1000000;
    node.offered[1] = 40000;
    run_ticks(&node, 1000);
    uint64_t before[SHARDS_MAX];
    memcpy(before, node.served, sizeof before);
    run_ticks(&node, 2000);
    check_equal(&node, before, 0, 2, 40000);
    check_every_second(&node, 500);
    rate_close(node.rate);
}

Test(rate, what_a_little_loaded_shard_leaves_is_for_the_others)
{
    static struct node node;
    node_open(&node, 40000, 4);
    offer_all(&node, 100000);
    node.offered[0] = 4000;
    node.offered[1] = 0;
    run_ticks(&node, 1000);
    uint64_t before[SHARDS_MAX];
    memcpy(before, node.served, sizeof before);
    run_ticks(&node, 4000);
    check_equal(&node, before, 0, 1, 4 * 4000);
    check_equal(&node, before, 2, 2, 4 * 18000);
    check_every_second(&node, 500);
    rate_close(node.rate);
}

Test(rate, the_past_is_forgotten)
{
    static struct node node;
    node_open(&node, 40000, 2);
    node.offered[0] = 400000;
    run_ticks(&node, 3000); /* alone for three seconds */
    uint64_t before[SHARDS_MAX];
    memcpy(before, node.served, sizeof before);
    node.offered[1] = 400000;
    run_ticks(&node, 1000);
    check_equal(&node, before, 0, 2, 20000);
    node.offered[1] = 0;
    run_ticks(&node, 2000);
    check_every_second(&node, 500);
    rate_close(node.rate);
}

Test(rate, what_is_not_used_goes_back)
{
    static struct node node;
    node_open(&node, 1000, 2);
    cr_assert(rate_take(node.rate, 0, node.now_ns));
    rate_rest(node.rate, 0);
    rate_rest(node.rate, 0);
    uint64_t served = take_at_once(&node, 1);
    cr_assert_geq(served, 99 - 5);
    cr_assert_leq(served, 99);
    rate_close(node.rate);
}

Test(rate, old_tokens_are_not_spent_on_top_of_a_full_bucket)
{
    static struct node node;
    node_open(&node, 1000000, 1);
    for (uint32_t i = 0; i < 1000; i++) {
        cr_assert(rate_take(node.rate, 0, node.now_ns));
        node.now_ns += NS_PER_S;
        cr_assert_leq(take_at_once(&node, 0), 100000);
        node.now_ns += NS_PER_S;
    }
    rate_close(node.rate);
}
