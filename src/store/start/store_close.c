/* Closing a store: everything durable, the index checkpointed where that pays, the lock given back.
 */
#include "store/store_internal.h"

#include "base/assert.h"

#include <stdlib.h>

/* More moved records than this are checkpointed at a clean shutdown: below, the next start reads
 * their directories at once. */
#define CHECKPOINT_MOVED_MIN 16384u

static int pass(struct store *store)
{
    (void)store_flush(store);
    int result = io_run(store->io, NS_PER_MS);
    return store->failed != 0 ? store->failed : result;
}

/* Proofs, look-ups and uploads end by themselves. The mover gives up what it has not committed; a
 * checkpoint under way is written to its end. */
static bool is_working(const struct store *store)
{
    return store->lookups_active + store->proofs_active > 0 || large_is_busy(store) ||
           io_op_is_active(&store->heartbeat) || pace_is_busy(&store->pace) ||
           mover_is_busy(store->mover) || store->checkpoint != NULL ||
           reserve_is_busy(&store->reserve) || scrub_is_busy(store->scrub);
}

/* The log is durable by now, so that a checkpoint counts at once. */
static int shut_segments(struct store *store)
{
    int result = 0;
    uint64_t moved_min =
        store->options.checkpoint_min != 0 ? store->options.checkpoint_min : CHECKPOINT_MOVED_MIN;
    if (!store->is_checkpointing && store_wants_checkpoint(store, moved_min))
        result = store_begin_checkpoint(store);
    while (result >= 0 && store->is_checkpointing) {
        bool more = store_step_checkpoint(store, UINT64_MAX);
        result = io_run(store->io, more ? 0 : NS_PER_MS);
        if (store->failed != 0)
            result = store->failed;
    }
    while (result >= 0 && !list_is_empty(&store->checkpoint_removals))
        result = io_run(store->io, UINT64_MAX);
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
    int result = 0;
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
        large_flush(store); /* all is durable now */
    while (result >= 0 && large_is_busy(store))
        result = io_run(store->io, NS_PER_MS);
    if (result >= 0) {
        tell_superblock(store, &store->superblock.now);
        result = superblock_update(&store->superblock);
    }
    *ret_superblock = store->superblock;
    store->superblock.handle = -1;
    store->superblock.block = NULL;
    return result < 0 ? result : 0;
}

int store_shut(struct store *store)
{
    struct superblock_file superblock;
    int result = store_shut_keeping(store, &superblock);
    superblock_close(&superblock);
    return result;
}

static void free_slots(struct store *store)
{
    for (uint32_t i = 0; store->lookups != NULL && i < LOOKUPS_MAX; i++) {
        free(store->lookups[i].fetch.large);
        kept_key_clear(&store->lookups[i].key);
    }
    for (uint32_t i = 0; store->proofs != NULL && i < PROOFS_MAX; i++) {
        free(store->proofs[i].fetch.large);
        kept_key_clear(&store->proofs[i].key);
    }
    free(store->lookups);
    free(store->proofs);
}

void store_free(struct store *store)
{
    if (store == NULL)
        return;
    scrub_free(store->scrub);
    mover_free(store->mover);
    store_forget_removals(store);
    reserve_deinit(&store->reserve);
    if (store->checkpoint != NULL)
        checkpoint_free(store->checkpoint);
    if (store->wal != NULL)
        wal_free(store->wal);
    manifest_free(store->manifest);
    segments_free(store->segments);
    if (store->decodes.running.head.next != NULL)
        decode_queue_deinit(&store->decodes);
    free_slots(store);
    large_free(store);
    bloom_free(store->bloom);
    squeeze_deinit(&store->squeeze);
    if (store->index != NULL)
        index_free(store->index);
    if (store->cache != NULL)
        cache_free(store->cache);
    doomed_free(store->doomed);
    free(store->suspects);
    free(store->superblock.block); /* left by a store that was not shut */
    free(store);
}
