/* Limits that shards share by leases, by themselves. */
#include "shard/lease.h"

#include "base/prng.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static struct lease *open_lease(uint32_t count, uint32_t shards)
{
    struct lease *lease;
    cr_assert_eq(lease_open(count, shards, &lease), 0);
    return lease;
}

static uint32_t take_all(struct lease *lease, uint32_t shard)
{
    uint32_t count = 0;
    while (lease_take(lease, shard))
        cr_assert_leq(++count, 1000000);
    return count;
}

Test(lease, the_one_beyond_is_refused)
{
    static const uint32_t shards[] = {1, 2, 7, 256};
    for (size_t i = 0; i < sizeof shards / sizeof shards[0]; i++) {
        struct lease *lease = open_lease(50000, shards[i]);
        uint32_t taken = 0;
        while (lease_take(lease, taken % shards[i]))
            taken++;
        cr_assert_eq(taken, 50000);
        cr_assert_eq(lease_used(lease), 50000);
        for (uint32_t s = 0; s < shards[i]; s++)
            cr_assert_not(lease_take(lease, s));
        lease_put(lease, shards[i] / 2);
        cr_assert(lease_take(lease, shards[i] - 1));
        cr_assert_not(lease_take(lease, 0));
        lease_close(lease);
    }
}

Test(lease, one_shard_may_have_all_of_them)
{
    struct lease *lease = open_lease(50000, 256);
    for (uint32_t s = 1; s < 256; s++) {
        cr_assert(lease_take(lease, s)); /* each has a chunk now */
        lease_put(lease, s);
    }
    cr_assert_eq(take_all(lease, 0), 50000, "what lies on the others' shelves, too");
    for (uint32_t s = 1; s < 256; s++)
        cr_assert_not(lease_take(lease, s));
    lease_close(lease);
}

Test(lease, fewer_than_shards)
{
    struct lease *lease = open_lease(3, 256);
    cr_assert(lease_take(lease, 0));
    cr_assert(lease_take(lease, 100));
    cr_assert(lease_take(lease, 255));
    cr_assert_not(lease_take(lease, 1));
    lease_put(lease, 100);
    cr_assert(lease_take(lease, 1));
    lease_close(lease);
}

Test(lease, of_nothing_nothing_is_taken)
{
    struct lease *lease = open_lease(0, 2);
    cr_assert_not(lease_take(lease, 0));
    cr_assert_not(lease_take(lease, 1));
    cr_assert_eq(lease_used(lease), 0);
    lease_close(lease);
}

Test(lease, what_is_used_is_never_more_nor_refused_below)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct prng prng = {seed};
        uint32_t shards = 1 + (uint32_t)prng_below(&prng, 9);
        uint32_t count = 1 + (uint32_t)prng_below(&prng, 2000);
        struct lease *lease = open_lease(count, shards);
        uint32_t used[9], all = 0;
        memset(used, 0, sizeof used);
        for (uint32_t step = 0; step < 20000; step++) {
            uint32_t shard = (uint32_t)prng_below(&prng, shards);
            if (prng_below(&prng, 1000) < 300 + 400 * (step / 2000 % 2)) {
                if (used[shard] == 0)
                    continue;
                lease_put(lease, shard);
                used[shard]--;
                all--;
            } else {
                bool taken = lease_take(lease, shard);
                cr_assert_eq(taken, all < count, "seed %llu", (unsigned long long)seed);
                used[shard] += taken;
                all += taken;
            }
            cr_assert_eq(lease_used(lease), all);
        }
        lease_close(lease);
    }
}

/* ---- by several threads ---- */

#define THREADS 4
#define STEPS 100000
#define SLOTS 20u

struct crowd {
    struct lease *lease;
    _Atomic uint32_t used;
    _Atomic uint32_t used_max;
    _Atomic uint32_t shards;
};

static void note_used(struct crowd *crowd)
{
    uint32_t used = atomic_fetch_add(&crowd->used, 1) + 1;
    uint32_t most = atomic_load(&crowd->used_max);
    while (used > most && !atomic_compare_exchange_weak(&crowd->used_max, &most, used))
        ;
}

static void *come_and_go(void *context)
{
    struct crowd *crowd = context;
    uint32_t shard = atomic_fetch_add(&crowd->shards, 1);
    struct prng prng = {shard};
    uint32_t mine = 0;
    for (uint32_t step = 0; step < STEPS; step++) {
        if (mine > 0 && prng_below(&prng, 2) == 0) {
            (void)atomic_fetch_sub(&crowd->used, 1);
            lease_put(crowd->lease, shard);
            mine--;
        } else if (lease_take(crowd->lease, shard)) {
            note_used(crowd);
            mine++;
        }
    }
    for (; mine > 0; mine--) {
        (void)atomic_fetch_sub(&crowd->used, 1);
        lease_put(crowd->lease, shard);
    }
    return NULL;
}

Test(lease, threads_never_have_more_than_there_is, .timeout = 60)
{
    struct crowd crowd = {.lease = open_lease(SLOTS, THREADS)};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, come_and_go, &crowd), 0);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_leq(atomic_load(&crowd.used_max), SLOTS);
    cr_assert_eq(lease_used(crowd.lease), 0);
    cr_assert_eq(take_all(crowd.lease, 0), SLOTS, "nothing was lost");
    lease_close(crowd.lease);
}
