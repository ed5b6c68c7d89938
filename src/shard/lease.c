/* The stock and the shelves. Every count is one atomic word, changed by whoever takes or gives back.
 * Invariant: stock, shelves and what is used are `count` together, but for what is on its way from
 * one to another. */
#include "shard/lease.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

#define LINE_SIZE 64

struct shelf {
    alignas(LINE_SIZE) _Atomic uint32_t count;
};

struct lease {
    uint32_t count;
    uint32_t shard_count;
    alignas(LINE_SIZE) _Atomic uint32_t stock;
    struct shelf shelves[]; /* by shard */
};

int lease_open(uint32_t count, uint32_t shard_count, struct lease **ret_lease)
{
    assert(shard_count > 0 && shard_count <= UINT16_MAX);
    struct lease *lease =
        aligned_alloc(LINE_SIZE, sizeof *lease + shard_count * sizeof(struct shelf));
    if (lease == NULL)
        return -ENOMEM;
    lease->count = count;
    lease->shard_count = shard_count;
    atomic_init(&lease->stock, count);
    for (uint32_t i = 0; i < shard_count; i++)
        atomic_init(&lease->shelves[i].count, 0);
    *ret_lease = lease;
    return 0;
}

void lease_close(struct lease *lease)
{
    free(lease);
}

/* Takes at most `wanted`; returns how many. */
static uint32_t subtract(_Atomic uint32_t *from, uint32_t wanted)
{
    uint32_t there = atomic_load_explicit(from, memory_order_relaxed);
    while (there > 0) {
        uint32_t taken = (uint32_t)min_u64(there, wanted);
        if (atomic_compare_exchange_weak_explicit(from, &there, there - taken, memory_order_relaxed,
                                                  memory_order_relaxed))
            return taken;
    }
    return 0;
}

static void add(_Atomic uint32_t *to, uint32_t count)
{
    (void)atomic_fetch_add_explicit(to, count, memory_order_relaxed);
}

/* A quarter of a shard's share of what is left, so that little lies on others' shelves at the end.
 */
static uint32_t chunk_of(const struct lease *lease)
{
    uint32_t left = atomic_load_explicit(&lease->stock, memory_order_relaxed);
    uint32_t share = left / (4 * lease->shard_count);
    return (uint32_t)max_u64(1, min_u64(share, LEASE_CHUNK_MAX));
}

static bool take_from_others(struct lease *lease, uint32_t shard)
{
    for (uint32_t i = 1; i < lease->shard_count; i++) {
        uint32_t other = (shard + i) % lease->shard_count;
        if (subtract(&lease->shelves[other].count, 1) == 1)
            return true;
    }
    return false;
}

bool lease_take(struct lease *lease, uint32_t shard)
{
    assert(shard < lease->shard_count);
    if (subtract(&lease->shelves[shard].count, 1) == 1)
        return true;
    uint32_t chunk = subtract(&lease->stock, chunk_of(lease));
    if (chunk > 1)
        add(&lease->shelves[shard].count, chunk - 1);
    return chunk > 0 || take_from_others(lease, shard);
}

void lease_put(struct lease *lease, uint32_t shard)
{
    assert(shard < lease->shard_count);
    struct shelf *shelf = &lease->shelves[shard];
    add(&shelf->count, 1);
    uint32_t chunk = chunk_of(lease);
    uint32_t there = atomic_load_explicit(&shelf->count, memory_order_relaxed);
    assert(there <= lease->count); /* the invariant: nobody gives back what it did not take */
    if (there >= 2 * chunk)
        add(&lease->stock, subtract(&shelf->count, there - chunk));
}

uint32_t lease_used(const struct lease *lease)
{
    uint64_t unused = atomic_load_explicit(&lease->stock, memory_order_relaxed);
    for (uint32_t i = 0; i < lease->shard_count; i++)
        unused += atomic_load_explicit(&lease->shelves[i].count, memory_order_relaxed);
    return unused < lease->count ? lease->count - (uint32_t)unused : 0;
}
