/* A shard's side of the shared memory: plain atomic stores, each by its only writer. */
#include "net/steer/steer_load.h"

#include "base/assert.h"

static uint64_t chosen_of(const struct steer_load *load)
{
    return __atomic_load_n(&load->shared->chosen, __ATOMIC_RELAXED);
}

/* Never beyond `chosen`: what the kernel's hash sent here was not chosen, and must not hide what
 * will be. */
static void settle(struct steer_load *load, uint64_t settled)
{
    uint64_t bound = min_u64(settled, chosen_of(load));
    if (bound > load->shared->settled)
        __atomic_store_n(&load->shared->settled, bound, __ATOMIC_RELEASE);
}

void steer_load_init(struct steer_load *load, struct steer_shard *shared, uint64_t now_ns)
{
    *load = (struct steer_load){.shared = shared, .marked_ns = now_ns};
    if (shared != NULL)
        load->marked_chosen = chosen_of(load);
}

void steer_load_accepted(struct steer_load *load)
{
    load->accepted_count++;
}

/* What was there at the last look has had its time. */
static void give_up(struct steer_load *load, uint64_t now_ns)
{
    if (now_ns - load->marked_ns < STEER_PENDING_NS)
        return;
    settle(load, load->marked_chosen);
    load->marked_chosen = chosen_of(load);
    load->marked_ns = now_ns;
}

void steer_load_publish(struct steer_load *load, uint32_t open_count, uint64_t now_ns)
{
    if (load->shared == NULL)
        return;
    assert(now_ns >= load->marked_ns);
    if (load->shared->open != open_count)
        __atomic_store_n(&load->shared->open, open_count, __ATOMIC_RELEASE);
    /* After `open`, so that a connection is counted twice for a moment, and never not at all. */
    settle(load, load->shared->settled + load->accepted_count);
    load->accepted_count = 0;
    give_up(load, now_ns);
}

void steer_load_drain(struct steer_load *load)
{
    if (load->shared == NULL)
        return;
    uint32_t open = STEER_OPEN; /* one that has no listener yet gets none now */
    (void)__atomic_compare_exchange_n(&load->shared->state, &open, STEER_DRAINING, false,
                                      __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

bool steer_load_is_settled(const struct steer_load *load)
{
    return load->shared == NULL || steer_shard_pending(load->shared) == 0;
}
