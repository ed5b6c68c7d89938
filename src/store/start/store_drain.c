/* Emptying the log, so that nothing but the segments is left of a shard. */
#include "store/start/emptying.h"
#include "store/store_internal.h"

#include <errno.h>

/* Without a record moved for so long, nothing will be: whatever the mover tries again. */
#define PATIENCE_NS (60 * NS_PER_S)

struct drain {
    struct store *store;
    uint64_t moved;
    uint64_t moved_ns; /* since when there are so many */
    uint64_t told_ns;
    uint64_t futile_left; /* how many were left when a job was in vain for the last time */
};

static uint64_t records_left(const struct store *store)
{
    struct wal_stats stats;
    wal_stats(store->wal, &stats);
    return stats.live_records;
}

/* 0, or why there is no use in going on. */
static int judge(struct drain *drain)
{
    struct mover_stats stats;
    mover_stats(drain->store->mover, &stats);
    uint64_t now_ns = io_now_ns(drain->store->io);
    if (stats.moved_records != drain->moved)
        drain->moved_ns = now_ns;
    drain->moved = stats.moved_records;
    if (now_ns - drain->moved_ns > PATIENCE_NS)
        return -ETIMEDOUT;
    if (!mover_is_stuck(drain->store->mover))
        return 0;
    /* What the job was for may have died before it came there, by a proof: only what is in vain
     * twice is so for good. */
    uint64_t left = records_left(drain->store);
    if (left != drain->futile_left) {
        drain->futile_left = left;
        mover_go_on(drain->store->mover);
        return 0;
    }
    return reserve_is_released(&drain->store->reserve) ? -ENOSPC : -EBADMSG;
}

static void tell(struct drain *drain, store_drain_progress *each_second, void *context)
{
    uint64_t now_ns = io_now_ns(drain->store->io);
    if (now_ns - drain->told_ns < NS_PER_S)
        return;
    drain->told_ns = now_ns;
    each_second(context, records_left(drain->store));
}

static int pass(struct store *store)
{
    bool more = store_flush(store, STORE_PASS_BYTES);
    int result = io_run(store->io, more ? 0 : NS_PER_MS);
    return store->failed != 0 ? store->failed : result;
}

int store_drain(struct store *store, store_drain_progress *each_second, void *context)
{
    uint64_t now_ns = io_now_ns(store->io);
    struct drain drain = {.store = store, .moved_ns = now_ns, .told_ns = now_ns};
    (void)wal_roll(store->wal); /* a store that was just opened has nothing in the open segment */
    mover_drain_log(store->mover);
    while (records_left(store) > 0) {
        int result = judge(&drain);
        if (result == 0)
            result = pass(store);
        if (result < 0)
            return result;
        /* On a full disk the files that were emptied are wanted at once. */
        if (reserve_is_released(&store->reserve) && !mover_is_busy(store->mover))
            (void)wal_shed(store->wal);
        tell(&drain, each_second, context);
    }
    return 0;
}
