/* The bucket, and each shard's tokens out of it: how much one takes, and when it lets others go
 * first. Invariant: tokens that a shard holds are paid for in full_ns, so all that were spent since
 * the start are at most the burst and what the rate gives in that time. */
#include "shard/rate.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LINE_SIZE 64
#define ROUNDS_PER_SECOND 200 /* a chunk is a shard's part of a round */
#define BURST_NS (NS_PER_S / 10)
#define WAITS_NS (15 * NS_PER_MS) /* who was refused within this time counts */
#define PAUSE_NS_MAX (5 * NS_PER_MS)
#define LEADS_PER_SECOND 20     /* a shard's part of a 20th of a second: how far it may be ahead */
#define KEPT_NS (NS_PER_S / 10) /* older tokens go back */

struct share {
    /* Written by its shard, read by others when they take a chunk. */
    alignas(LINE_SIZE) _Atomic uint64_t served;
    _Atomic uint64_t refused_ns; /* it wants more than it got; 0: it does not */
    /* Its shard's alone. */
    alignas(LINE_SIZE) uint64_t tokens;
    uint64_t taken_ns;
    uint64_t grant;         /* chunks that it takes at once */
    uint64_t not_before_ns; /* no use in asking earlier */
};

struct rate {
    uint64_t per_second;
    uint64_t chunk;    /* tokens */
    uint64_t chunk_ns; /* what it costs */
    uint64_t burst_ns;
    uint32_t shard_count;
    alignas(LINE_SIZE) _Atomic uint64_t full_ns; /* when the bucket would be full; past: it is */
    struct share shares[];                       /* by shard */
};

/* What a shard sees of the others that wait when it asks. */
struct view {
    uint32_t waiting; /* how many */
    uint64_t least;   /* what the least served of them was given */
};

int rate_open(uint64_t per_second, uint32_t shard_count, uint64_t now_ns, struct rate **ret_rate)
{
    assert(per_second > 0 && per_second <= RATE_MAX);
    assert(shard_count > 0 && shard_count <= UINT16_MAX);
    size_t size = sizeof(struct rate) + shard_count * sizeof(struct share);
    struct rate *rate = aligned_alloc(LINE_SIZE, size);
    if (rate == NULL)
        return -ENOMEM;
    memset(rate, 0, size);
    rate->per_second = per_second;
    rate->shard_count = shard_count;
    rate->chunk = max_u64(1, per_second / ((uint64_t)ROUNDS_PER_SECOND * shard_count));
    /* Rounded to a nanosecond of at least 15 us, or of a whole token's time. */
    rate->chunk_ns = (rate->chunk * NS_PER_S + per_second / 2) / per_second;
    rate->burst_ns = max_u64(BURST_NS, rate->chunk_ns);
    atomic_init(&rate->full_ns, now_ns);
    *ret_rate = rate;
    return 0;
}

void rate_close(struct rate *rate)
{
    free(rate);
}

/* ---- the others ---- */

static struct view look_at_others(const struct rate *rate, uint32_t shard, uint64_t now_ns)
{
    struct view view = {.least = UINT64_MAX};
    for (uint32_t i = 0; i < rate->shard_count; i++) {
        const struct share *share = &rate->shares[i];
        uint64_t refused_ns = atomic_load_explicit(&share->refused_ns, memory_order_relaxed);
        if (i == shard || refused_ns == 0 || refused_ns + WAITS_NS < now_ns)
            continue;
        view.waiting++;
        uint64_t served = atomic_load_explicit(&share->served, memory_order_relaxed);
        view.least = min_u64(view.least, served);
    }
    return view;
}

/* Whether the others let this shard go on. */
static bool is_its_turn(const struct rate *rate, struct share *share, const struct view *view)
{
    if (view->waiting == 0)
        return true;
    uint64_t part = rate->per_second / LEADS_PER_SECOND / (view->waiting + 1);
    uint64_t lead_max = max_u64(rate->chunk, part);
    uint64_t served = atomic_load_explicit(&share->served, memory_order_relaxed);
    if (served <= view->least + lead_max)
        return true;
    if (served > view->least + 2 * lead_max) /* it took when the others did not wait */
        atomic_store_explicit(&share->served, view->least + lead_max, memory_order_relaxed);
    return false;
}

/* ---- the bucket ---- */

/* Takes at most `chunks`; returns how many. */
static uint64_t take_chunks(struct rate *rate, uint64_t chunks, uint64_t now_ns)
{
    uint64_t full_ns = atomic_load_explicit(&rate->full_ns, memory_order_relaxed);
    for (;;) {
        uint64_t from_ns = max_u64(full_ns, now_ns);
        uint64_t room_ns = now_ns + rate->burst_ns;
        uint64_t there = from_ns < room_ns ? (room_ns - from_ns) / rate->chunk_ns : 0;
        uint64_t taken = min_u64(there, chunks);
        if (taken == 0 || atomic_compare_exchange_weak_explicit(
                              &rate->full_ns, &full_ns, from_ns + taken * rate->chunk_ns,
                              memory_order_relaxed, memory_order_relaxed))
            return taken;
    }
}

static void add_served(struct share *share, uint64_t tokens)
{
    uint64_t served = atomic_load_explicit(&share->served, memory_order_relaxed);
    atomic_store_explicit(&share->served, served + tokens, memory_order_relaxed);
}

/* Who spends what it took within a round takes twice as much the next time, up to its part of a
 * round; who does not takes half: so a shard holds about what it needs, and no other goes without
 * for tokens that lie idle. */
static uint64_t take_turn(struct rate *rate, uint32_t shard, uint64_t now_ns)
{
    struct share *share = &rate->shares[shard];
    struct view view = look_at_others(rate, shard, now_ns);
    if (!is_its_turn(rate, share, &view))
        return 0;
    uint64_t part = rate->per_second / ROUNDS_PER_SECOND / (view.waiting + 1);
    bool is_quick = now_ns < share->taken_ns + NS_PER_S / ROUNDS_PER_SECOND;
    share->grant = is_quick ? share->grant * 2 : share->grant / 2;
    share->grant = max_u64(1, min_u64(share->grant, part / rate->chunk));
    return take_chunks(rate, share->grant, now_ns);
}

/* One that is refused lets half of a round go by. */
static bool refill(struct rate *rate, uint32_t shard, uint64_t now_ns)
{
    struct share *share = &rate->shares[shard];
    uint64_t chunks = take_turn(rate, shard, now_ns);
    atomic_store_explicit(&share->refused_ns, chunks == 0 ? now_ns : 0, memory_order_relaxed);
    if (chunks == 0) {
        uint64_t pause_ns = rate->chunk_ns * rate->shard_count / 2;
        share->not_before_ns = now_ns + min_u64(pause_ns, PAUSE_NS_MAX);
        return false;
    }
    share->tokens = chunks * rate->chunk;
    share->taken_ns = now_ns;
    add_served(share, share->tokens);
    return true;
}

/* ---- a shard's ---- */

bool rate_take(struct rate *rate, uint32_t shard, uint64_t now_ns)
{
    assert(shard < rate->shard_count);
    struct share *share = &rate->shares[shard];
    if (share->tokens > 0 && now_ns > share->taken_ns + KEPT_NS)
        rate_rest(rate, shard);
    if (share->tokens == 0 && (now_ns < share->not_before_ns || !refill(rate, shard, now_ns)))
        return false;
    assert(share->tokens > 0); /* the invariant: what is spent was taken */
    share->tokens--;
    return true;
}

void rate_rest(struct rate *rate, uint32_t shard)
{
    assert(shard < rate->shard_count);
    struct share *share = &rate->shares[shard];
    if (share->tokens == 0)
        return;
    uint64_t cost_ns = share->tokens * rate->chunk_ns / rate->chunk;
    (void)atomic_fetch_sub_explicit(&rate->full_ns, cost_ns, memory_order_relaxed);
    uint64_t served = atomic_load_explicit(&share->served, memory_order_relaxed);
    uint64_t less = min_u64(served, share->tokens);
    atomic_store_explicit(&share->served, served - less, memory_order_relaxed);
    share->tokens = 0;
}
