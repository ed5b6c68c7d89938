/* What a shard tells of the others: how old it may be, and that nobody waits for it. */
#include "tests/support/node_bench.h"

#include "base/bytes.h"

#include <inttypes.h>
#include <stdio.h>

#define TEXT_MAX 16384u

#define AGE_NS_MAX (NS_PER_S / 2) /* as docs/operations.md says */

/* A pass of each shard, and what a question takes to be heard. */
#define PASSES_NS (20 * NS_PER_MS)

/* A connection of the first shard, which tells, and keys of the second. */
struct world {
    struct node_bench bench;
    struct node_peer peer;
    uint8_t key;
};

static void world_open(struct world *world)
{
    node_bench_open(&world->bench);
    world->key = node_bench_key(1);
    node_peer_open(&world->bench, &world->peer, loop_port(world->bench.servers[0]), 0,
                   UINT32_MAX / 64);
}

static void world_close(struct world *world)
{
    node_peer_close(&world->peer);
    node_bench_close(&world->bench);
}

/* The answer's bytes, with a 0 behind them; valid until the next one. */
static const char *ask(struct world *world, const void *request, size_t size)
{
    struct node_peer *peer = &world->peer;
    static char text[TEXT_MAX];
    peer->size = 0;
    node_peer_send(&world->bench, peer, request, size);
    cr_assert(node_peer_wait(&world->bench, peer, MINIVAULT_ANSWER_HEADER_SIZE, PASSES_NS));
    cr_assert_eq(peer->received[0], MINIVAULT_OK);
    uint32_t value_size = load_u32(peer->received + 1);
    cr_assert(value_size < TEXT_MAX);
    cr_assert(
        node_peer_wait(&world->bench, peer, MINIVAULT_ANSWER_HEADER_SIZE + value_size, PASSES_NS));
    memcpy(text, peer->received + MINIVAULT_ANSWER_HEADER_SIZE, value_size);
    text[value_size] = 0;
    return text;
}

static uint64_t number_of(const char *json, const char *name)
{
    char member[64];
    uint64_t number = 0;
    (void)snprintf(member, sizeof member, "\"%s\":", name);
    const char *at = strstr(json, member);
    cr_assert_not_null(at, "%s in %s", name, json);
    cr_assert_eq(sscanf(at + strlen(member), "%" SCNu64, &number), 1);
    return number;
}

static uint64_t keys_of_health(struct world *world)
{
    return number_of(ask(world, "\x05\0\0", 3), "keys");
}

static uint64_t keys_of_stats(struct world *world)
{
    return number_of(ask(world, "\x20\0\0\0\0\0\0\0", 8), "keys");
}

static void set_one(struct world *world)
{
    uint8_t request[10] = {MINIVAULT_SET, 1, 0, world->key, 1, 0, 0, 0, 0, 'v'};
    (void)ask(world, request, sizeof request);
}

Test(report, of_another_shard_is_at_most_half_a_second_old)
{
    struct world world;
    world_open(&world);
    (void)ask(&world, "\x07\x0b\0minivault/2", 14);
    cr_assert_eq(keys_of_health(&world), 0);
    set_one(&world);
    node_bench_run(&world.bench, AGE_NS_MAX + PASSES_NS);
    cr_assert_eq(keys_of_health(&world), 1);
    cr_assert_eq(keys_of_stats(&world), 1);
    world_close(&world);
}

/* Nothing of a shard that does not turn is waited for; what it told last counts. */
Test(report, of_a_shard_that_is_stuck_is_its_last_one)
{
    struct world world;
    world_open(&world);
    (void)ask(&world, "\x07\x0b\0minivault/2", 14);
    set_one(&world);
    node_bench_run(&world.bench, AGE_NS_MAX + PASSES_NS);
    world.bench.is_stuck[1] = true;
    node_bench_run(&world.bench, 10 * NS_PER_S);
    cr_assert_eq(keys_of_health(&world), 1);
    cr_assert_eq(keys_of_stats(&world), 1);
    world_close(&world);
}

static void check_status(struct world *world, struct node_peer *peer, const char *path,
                         const char *status)
{
    char request[128], line[64];
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    int line_size = snprintf(line, sizeof line, "HTTP/1.1 %s ", status);
    peer->size = 0;
    node_peer_send(&world->bench, peer, request, (size_t)size);
    cr_assert(node_peer_wait(&world->bench, peer, (uint64_t)line_size, PASSES_NS));
    cr_assert_eq(memcmp(peer->received, line, (size_t)line_size), 0, "%s", path);
    node_bench_run(&world->bench, PASSES_NS);
}

Test(report, over_http_hangs_on_nobody_and_tells_who_is_stuck)
{
    struct world world;
    struct node_peer peer;
    world_open(&world);
    node_peer_open(&world.bench, &peer, NODE_HTTP_PORT, 0, MIB);
    check_status(&world, &peer, "/livez", "200");
    check_status(&world, &peer, "/readyz", "200");
    world.bench.is_stuck[1] = true;
    node_bench_run(&world.bench, 10 * NS_PER_S);
    check_status(&world, &peer, "/livez", "503");
    check_status(&world, &peer, "/readyz", "503");
    check_status(&world, &peer, "/health", "200");
    check_status(&world, &peer, "/metrics", "200");
    node_peer_close(&peer);
    world_close(&world);
}
