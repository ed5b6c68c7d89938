/* Closing a store: everything durable, the index checkpointed where that pays, the lock given back.
 * Before a change of the number of shards: the log emptied, so that nothing but the segments is left. */
#include "store/start/start.h"
#include "store/start/emptying.h"
#include "store/catalog/reached.h"
#include "store/value/stream_pool.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Without a record moved for so long, nothing will be: whatever the mover tries again. */
#define PATIENCE_NS (60 * NS_PER_S)

static int pass(struct store *store, bool is_hurried)
{
    bool more = store_flush(store, STORE_PASS_BYTES);
    int result = io_run(store->io, more && is_hurried ? 0 : NS_PER_MS);
    return store->failed != 0 ? store->failed : result;
}

/* Proofs, look-ups and uploads end by themselves. The mover gives up what it has not committed; a
 * checkpoint under way is written to its end. */
static bool is_working(const struct store *store)
{
    return lookups_are_busy(&store->lookups) || proofs_are_busy(&store->proofs) ||
           stream_pool_is_busy(store->streams) || io_op_is_active(&store->heartbeat) ||
           pace_is_busy(&store->pace) || mover_is_busy(store->mover) ||
           checkpoints_are_writing(&store->checkpoints) || reserve_is_busy(&store->reserve) ||
           scrub_is_busy(store->scrub);
}

/* The log is durable by now, so that a checkpoint counts at once. */
static int shut_segments(struct store *store)
{
    int result;
    while ((result = checkpoints_shut(&store->checkpoints)) > 0) {
        result = io_run(store->io, result == 1 ? 0 : NS_PER_MS);
        if (store->failed != 0)
            result = store->failed;
        if (result < 0)
            break;
    }
    if (result < 0)
        return result;
    mover_shut(store->mover);
    result = manifest_shut(store->manifest);
    return result < 0 ? result : segments_shut(store->segments);
}

/* How the directory is left, so that the next start can tell whether all of it is still there. */
static void tell_superblock(const struct store *store, struct superblock *superblock)
{
    superblock->clean = true;
    superblock->clock_ceiling = store->clock.last;
    superblock->log_last = wal_last(store->wal);
    superblock->log_number = wal_number(store->wal);
    if (manifest_has_loss(store->manifest))
        return;
    struct manifest_mark manifest = manifest_tell(store->manifest);
    superblock->manifest_salt = manifest.salt;
    superblock->manifest_edition = manifest.edition;
    superblock->manifest_blocks = manifest.blocks;
}

/* For another shard to keep. Without it older copies of this one are not noticed, no more. */
static void note_reached(const struct store *store)
{
    const struct superblock *now = &store->superblock.now;
    struct reached note = {now->directory_id, now->shard, now->log_last};
    if (now->shard_count == 1 || store->options.is_brief)
        return;
    int result = reached_write(store->io, store->options.path, &note, store->superblock.block);
    if (result < 0)
        log_warn(store->log,
                 "%s: how far the log of shard %" PRIu32
                 " has come cannot be noted: %s. Nothing else is missing",
                 store->options.path, now->shard, strerror(-result));
}

int store_shut_locked(struct store *store, struct superblock_file *ret_superblock)
{
    assert(!store->is_shutting);
    assert(store->survey == NULL); /* the start is over */
    /* What lies there by now is not ours to write into. */
    int result = store->presence.is_gone ? -ENOENT : 0;
    if (result < 0)
        log_error(store->log,
                  "%s is gone: nothing is written at the end; what was acknowledged before it "
                  "went is in its files, if they still exist",
                  store->options.path);
    store->is_shutting = true;
    io_cancel(store->io, &store->heartbeat);
    pace_stop(&store->pace);
    mover_stop(store->mover);
    scrub_stop(store->scrub);
    while (result >= 0 && is_working(store))
        result = pass(store, false);
    if (result >= 0)
        result = wal_shut(store->wal);
    if (result >= 0)
        result = shut_segments(store);
    if (result >= 0)
        dead_flush(&store->dead); /* all is durable now */
    while (result >= 0 && stream_pool_is_busy(store->streams))
        result = io_run(store->io, NS_PER_MS);
    if (result >= 0) {
        tell_superblock(store, &store->superblock.now);
        result = superblock_update(&store->superblock);
    }
    if (result >= 0)
        note_reached(store);
    assert(result < 0 || !lookups_are_busy(&store->lookups));
    assert(result < 0 || !proofs_are_busy(&store->proofs));
    assert(result < 0 || !checkpoints_are_writing(&store->checkpoints));
    *ret_superblock = store->superblock;
    store->superblock.handle = -1;
    store->superblock.block = NULL;
    return result < 0 ? result : 0;
}

/* ---- emptying the log ---- */

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

static void tell_left(struct drain *drain, store_drain_progress *each_second, void *context)
{
    uint64_t now_ns = io_now_ns(drain->store->io);
    if (now_ns - drain->told_ns < NS_PER_S)
        return;
    drain->told_ns = now_ns;
    each_second(context, records_left(drain->store));
}

int store_drain(struct store *store, store_drain_progress *each_second, void *context)
{
    uint64_t now_ns = io_now_ns(store->io);
    struct drain drain = {.store = store, .moved_ns = now_ns, .told_ns = now_ns};
    assert(store->options.is_brief);
    assert(!store->is_shutting);
    (void)wal_roll(store->wal); /* a store that was just opened has nothing in the open segment */
    mover_drain_log(store->mover);
    while (records_left(store) > 0) {
        int result = judge(&drain);
        if (result == 0)
            result = pass(store, true);
        if (result < 0)
            return result;
        /* On a full disk the files that were emptied are wanted at once. */
        if (reserve_is_released(&store->reserve) && !mover_is_busy(store->mover))
            (void)wal_shed(store->wal);
        tell_left(&drain, each_second, context);
    }
    return 0;
}

/* ---- what is left ---- */

enum store_loss store_untold_loss(const struct store *store)
{
    if (store->damage.log_last != 0)
        return STORE_LOSS_LOG;
    const struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(store->segments, i)) != NULL; i++)
        if (segment->is_damaged && !segment->is_loss_told && !store->options.accept_loss)
            return STORE_LOSS_SEGMENT;
    return STORE_LOSS_NONE;
}

uint64_t store_segment_last(const struct store *store)
{
    return mover_number_last(store->mover);
}

uint64_t store_manifest_edition(const struct store *store)
{
    return manifest_tell(store->manifest).edition;
}

int store_shut(struct store *store)
{
    struct superblock_file superblock;
    int result = store_shut_locked(store, &superblock);
    superblock_close(&superblock);
    return result;
}

void store_free(struct store *store)
{
    if (store == NULL)
        return;
    scrub_free(store->scrub);
    mover_free(store->mover);
    reserve_deinit(&store->reserve);
    checkpoints_deinit(&store->checkpoints);
    wal_free(store->wal);
    manifest_free(store->manifest);
    segments_free(store->segments);
    if (store->decodes.running.head.next != NULL)
        decode_queue_deinit(&store->decodes);
    lookups_deinit(&store->lookups);
    proofs_deinit(&store->proofs);
    dead_deinit(&store->dead);
    if (store->streams != NULL)
        stream_pool_free(store->streams);
    bloom_free(store->bloom);
    squeeze_deinit(&store->squeeze);
    index_free(store->index);
    cache_free(store->cache);
    doomed_free(store->doomed);
    findings_deinit(&store->findings);
    store_end_survey(store);
    free(store->superblock.block); /* left by a store that was not shut */
    free(store);
}
