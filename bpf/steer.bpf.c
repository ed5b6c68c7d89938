/* Which shard gets a new connection. The kernel runs this at the SYN, before there is any byte of a
 * request: it cannot know the key, so it goes by where the packet came in and by load.
 *
 *     the shard of the CPU that took the SYN     unless it has clearly more than the least loaded,
 *                                                is draining, or the CPU has none: then
 *     the least loaded shard that is open        unless all are draining: then
 *     nobody                                     the client is refused at once (a reset), so that a
 *                                                load balancer tries elsewhere instead of waiting
 *
 * What fails falls back to the kernel's hash: that is what SK_PASS without a selection means.
 *
 * When a listener is closed, the connections that are still queued on it come here once more
 * (sk_reuseport/migrate, Linux 5.14) and go to the least loaded shard instead of being reset.
 *
 * Loading needs CAP_BPF and nothing else: so no pointer leaves the program, and every index into
 * memory is masked, which the verifier wants of those without CAP_PERFMON. The loop over the shards
 * is bpf_loop (Linux 5.17): its body is verified once, not for each of 256 shards. */
#include "bpf/steer.h"

/* Before the helpers, which want its types. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

#define TCP_FLAGS_OFFSET 13 /* RFC 9293, section 3.1 */
#define TCP_SYN 0x02
#define TCP_ACK 0x10

/* The listeners: that of a group's shard is at group * STEER_SHARDS_MAX + shard. */
struct {
    __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
    __uint(max_entries, STEER_GROUP_COUNT *STEER_SHARDS_MAX);
    __type(key, uint32_t);
    __type(value, uint64_t);
} listeners SEC(".maps");

/* A map and not a part of `state`: a decision is one of some constants, and the verifier forbids
 * those without CAP_PERFMON to add to a pointer what differs between the ways that lead there. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, STEER_DECISION_COUNT);
    __type(key, uint32_t);
    __type(value, uint64_t);
} decisions SEC(".maps");

struct steer_state state;

/* More than any load, and the difference of both has a sign. */
#define NOBODY ((uint64_t)INT64_MAX)

struct search {
    uint64_t least_load; /* NOBODY: no shard is open */
    uint32_t shard;
    uint32_t states_seen; /* each enum steer_shard_state is a bit */
};

static struct steer_shard *shard_at(uint32_t shard)
{
    return &state.shards[shard & (STEER_SHARDS_MAX - 1)];
}

static uint32_t state_of(uint32_t shard)
{
    return *(const volatile uint32_t *)&shard_at(shard)->state;
}

/* The test for NULL stands alone: joined with another one by the compiler, the verifier of
 * Linux 6.1 does not see it. */
static void count(uint32_t decision, bool is_counted)
{
    if (!is_counted)
        return;
    uint64_t *counter = bpf_map_lookup_elem(&decisions, &decision);
    if (counter != NULL)
        __sync_fetch_and_add(counter, 1);
}

/* Without branches on what goes on to the next shard: the verifier follows each way of a branch
 * with what it then knows of the numbers, and never comes to a round that it has seen before. Of
 * sums and masks it knows nothing, from the first round on. (Those without CAP_PERFMON it also
 * sends the way that the processor only guesses.) */
static long weigh(uint32_t shard, void *context)
{
    struct search *search = context;
    uint32_t shard_state = state_of(shard);
    search->states_seen |= shard_state;
    if (shard_state != STEER_OPEN)
        return 0;
    int64_t difference = (int64_t)(steer_shard_load(shard_at(shard)) - search->least_load);
    int64_t is_less = difference >> 63; /* all bits, or none */
    barrier_var(is_less);
    search->least_load += (uint64_t)(difference & is_less);
    search->shard ^= (search->shard ^ shard) & (uint32_t)is_less;
    return 0;
}

/* A packet that belongs to no connection also comes here, and gets its reset: a connection that a
 * predecessor had, a scan. Only a SYN becomes a connection. */
static bool is_syn(const struct sk_reuseport_md *packet)
{
    const uint8_t *header = packet->data;
    const uint8_t *end = packet->data_end;
    if (header + TCP_FLAGS_OFFSET + 1 > end)
        return false;
    return (header[TCP_FLAGS_OFFSET] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* The shard of this CPU, or STEER_SHARDS_MAX. */
static uint32_t home_shard(void)
{
    uint32_t cpu = bpf_get_smp_processor_id();
    if (cpu >= STEER_CPUS_MAX)
        return STEER_SHARDS_MAX;
    uint32_t home = state.home_of_cpu[cpu & (STEER_CPUS_MAX - 1)];
    return home == 0 || home > STEER_SHARDS_MAX ? STEER_SHARDS_MAX : home - 1;
}

static enum steer_decision decide(const struct search *search, uint32_t *ret_shard)
{
    *ret_shard = search->shard;
    uint32_t home = home_shard();
    if (home == STEER_SHARDS_MAX)
        return STEER_LEAST;
    uint32_t home_state = state_of(home);
    if (home_state == STEER_DRAINING)
        return STEER_DRAINED;
    uint64_t bound = search->least_load + steer_margin(search->least_load);
    if (home_state != STEER_OPEN || steer_shard_load(shard_at(home)) > bound)
        return STEER_LEAST;
    *ret_shard = home;
    return STEER_LOCAL;
}

/* No shard is open. Before the first one is, the kernel's hash chooses among the listeners. */
static int choose_nobody(const struct search *search, bool is_counted)
{
    bool is_draining = (search->states_seen & STEER_DRAINING) != 0;
    count(is_draining ? STEER_NONE : STEER_FALLBACK, is_counted);
    return is_draining ? SK_DROP : SK_PASS;
}

static __always_inline int steer(struct sk_reuseport_md *packet, enum steer_group group)
{
    bool is_migrating = packet->migrating_sk != NULL;
    bool is_counted = is_migrating || is_syn(packet);
    struct search search = {0};
    search.least_load = NOBODY;
    (void)bpf_loop(state.shard_count, weigh, &search, 0);
    if (search.least_load == NOBODY)
        return choose_nobody(&search, is_counted);
    uint32_t shard = search.shard;
    enum steer_decision decision = STEER_MIGRATED;
    if (!is_migrating)
        decision = decide(&search, &shard);
    uint32_t key = group * STEER_SHARDS_MAX + (shard & (STEER_SHARDS_MAX - 1));
    if (bpf_sk_select_reuseport(packet, &listeners, &key, 0) != 0) {
        count(STEER_FALLBACK, is_counted);
        return SK_PASS;
    }
    count(decision, is_counted);
    if (is_counted)
        __sync_fetch_and_add(&shard_at(shard)->chosen, 1);
    return SK_PASS;
}

SEC("sk_reuseport/migrate")
int steer_clients(struct sk_reuseport_md *packet)
{
    return steer(packet, STEER_CLIENTS);
}

SEC("sk_reuseport/migrate")
int steer_http(struct sk_reuseport_md *packet)
{
    return steer(packet, STEER_HTTP);
}

/* The kernel asks for it: helpers that are for GPL programs only are not used here. */
char steer_license[] SEC("license") = "MIT";
