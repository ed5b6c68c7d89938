/* What the steering program (steer.bpf.c) and the server (src/net/steer*) share: one struct in
 * memory that both see. The program runs in the kernel for every SYN; neither side waits for the
 * other.
 *
 * The load of a shard is its open connections plus those that the program has chosen it for and
 * that it has not seen yet: between the SYN and the accept lies at least a round trip, in which a
 * shard that knew only its open connections would look empty to a whole burst.
 *
 *     load = open + (chosen - settled)
 *
 * `chosen` only grows, and only the program writes it. `settled` only grows, and only the shard
 * writes it: it counts what was accepted, and what was given up because it never came
 * (src/net/steer_load.h). */
#ifndef MINIVAULT_BPF_STEER_H
#define MINIVAULT_BPF_STEER_H

#include <stdint.h>

#define STEER_SHARDS_MAX 256 /* a power of two: the program masks with it */
#define STEER_CPUS_MAX 1024  /* a power of two; what arrives on a CPU beyond has no home */

/* The listeners of one port are a group. */
enum steer_group {
    STEER_CLIENTS, /* the binary protocol's port */
    STEER_HTTP,
    STEER_GROUP_COUNT,
};

/* Bits, since the program collects them. */
enum steer_shard_state {
    STEER_ABSENT = 0, /* has no listener yet */
    STEER_OPEN = 1,
    STEER_DRAINING = 2,
};

/* Why a connection went where it went. */
enum steer_decision {
    STEER_LOCAL,    /* to the shard of the CPU that took the SYN */
    STEER_LEAST,    /* to the least loaded: that CPU's has clearly more, or the CPU has none */
    STEER_DRAINED,  /* to the least loaded: that CPU's is draining */
    STEER_MIGRATED, /* its listener was closed while it waited there: to the least loaded */
    STEER_FALLBACK, /* to where the kernel's hash says: the chosen shard has no listener */
    STEER_NONE,     /* refused: all shards are draining */
    STEER_DECISION_COUNT,
};

/* A line of the cache each, so that choosing reads one line a shard. */
struct steer_shard {
    uint64_t chosen;  /* connections, since the start */
    uint64_t settled; /* of them, those that are in `open` or are gone */
    uint32_t open;    /* connections */
    uint32_t state;   /* enum steer_shard_state */
    uint64_t spare[5];
};

struct steer_state {
    struct steer_shard shards[STEER_SHARDS_MAX];
    uint32_t shard_count;
    uint16_t home_of_cpu[STEER_CPUS_MAX]; /* the shard of a CPU, plus one; 0: it has none */
};

_Static_assert(sizeof(struct steer_shard) == 64, "a line of the cache");

/* Connections that were chosen for the shard and that it has not seen yet. Each side reads while
 * the other writes: `settled` may be newer than `chosen`. */
static inline uint64_t steer_shard_pending(const struct steer_shard *shard)
{
    uint64_t chosen = *(const volatile uint64_t *)&shard->chosen;
    uint64_t settled = *(const volatile uint64_t *)&shard->settled;
    return chosen > settled ? chosen - settled : 0;
}

static inline uint64_t steer_shard_load(const struct steer_shard *shard)
{
    return *(const volatile uint32_t *)&shard->open + steer_shard_pending(shard);
}

/* How many connections the shard of the SYN's CPU may have more than the least loaded one and still
 * be chosen. Locality saves a wake-up across cores for each packet, an uneven load costs the
 * busiest shard's latency for as long as the connections live: so a few connections, and 0.8 % of
 * many. From 120 connections a shard on this keeps every shard within 5 % of even, however many
 * CPUs take SYNs; with fewer, four connections are no load worth moving. */
#define STEER_MARGIN 4
#define STEER_MARGIN_SHARE 128

static inline uint64_t steer_margin(uint64_t least_load)
{
    return STEER_MARGIN + least_load / STEER_MARGIN_SHARE;
}

#endif
