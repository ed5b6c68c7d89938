/* Closing a store: everything durable, the index checkpointed where that pays, the lock given back.
 */
#include "store/start/start.h"
#include "store/start/emptying.h"
#include "store/value/stream_pool.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>

static int pass(struct store *store)
{
    (void)store_flush(store, STORE_PASS_BYTES);
    int result = io_run(store->io, NS_PER_MS);
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

int store_shut_keeping(struct store *store, struct superblock_file *ret_superblock)
{
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
        result = pass(store);
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
    assert(result < 0 || !lookups_are_busy(&store->lookups));
    assert(result < 0 || !proofs_are_busy(&store->proofs));
    assert(result < 0 || !checkpoints_are_writing(&store->checkpoints));
    *ret_superblock = store->superblock;
    store->superblock.handle = -1;
    store->superblock.block = NULL;
    return result < 0 ? result : 0;
}

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
    int result = store_shut_keeping(store, &superblock);
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
    if (store->wal != NULL)
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
    if (store->index != NULL)
        index_free(store->index);
    if (store->cache != NULL)
        cache_free(store->cache);
    doomed_free(store->doomed);
    free(store->recovered);
    free(store->superblock.block); /* left by a store that was not shut */
    free(store);
}
