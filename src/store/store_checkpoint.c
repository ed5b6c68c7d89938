/* When the index is checkpointed: at a clean shutdown, and whenever as many records have been moved
 * since the last one as the index has, so that what a start has to read beside it stays in
 * proportion, and what is written for it, too. */
#include "store/store_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fewer moved records than this are read faster than they are worth a checkpoint. */
#define MOVED_MIN (256 * 1024u)

/* After one that failed. */
#define RETRY_NS (60 * NS_PER_S)

/* Of one group: the checkpoint, or segments whose `created` was lowered. */
#define EDITS_MAX 512u

struct checkpoint_options store_checkpoint_options(const struct store *store)
{
    return (struct checkpoint_options){
        .path = store->state_path,
        .directory_id = store->superblock.now.directory_id,
        .log_id = store->options.shard,
        .memory = store->checkpoint_memory,
    };
}

/* A segment's number is not given again as long as a checkpoint may name it: the manifest, which
 * forgets the segments that went, tells the last one. */
struct manifest_edit store_checkpoint_edit(const struct store *store, uint64_t number)
{
    return (struct manifest_edit){
        .kind = MANIFEST_CHECKPOINT,
        .log_id = store->options.shard,
        .number = number,
        .end =
            store->mover != NULL ? mover_number_last(store->mover) : store->recovered.number_last,
    };
}

/* The path lies behind it. */
struct removal {
    struct list_node node;
    struct io_op op;
    char path[];
};

static void unlinked(struct io_op *op, int32_t result)
{
    struct removal *removal = container_of(op, struct removal, op);
    (void)result;
    list_remove(&removal->node);
    free(removal);
}

/* Those that the world, closed meanwhile, has not got to. */
void store_forget_removals(struct store *store)
{
    for (struct list_node *node; (node = list_pop_front(&store->checkpoint_removals)) != NULL;)
        free(container_of(node, struct removal, node));
}

/* Best effort: what stays is removed at the next start. */
void store_remove_checkpoint(struct store *store, uint64_t number, bool is_temporary)
{
    size_t size = strlen(store->state_path) + sizeof "/checkpoint-0123456789abcdef.tmp";
    struct removal *removal = calloc(1, sizeof *removal + size);
    if (removal == NULL)
        return;
    (void)snprintf(removal->path, size, "%s/checkpoint-%016" PRIx64 "%s", store->state_path, number,
                   is_temporary ? ".tmp" : "");
    list_push_back(&store->checkpoint_removals, &removal->node);
    removal->op.done = unlinked;
    io_unlink(store->io, &removal->op, removal->path);
}

static void committed(struct manifest_op *op, int result)
{
    struct store *store = container_of(op, struct store, checkpoint_op);
    uint64_t before = store->checkpoint_number;
    mover_changed_told(store->mover, result == 0);
    store->is_checkpointing = false;
    if (result == -ENOSPC || result == -EDQUOT || result == -ENOMEM) {
        store->checkpoint_retry_ns = io_now_ns(store->io) + RETRY_NS;
        store_remove_checkpoint(store, store->checkpoint_last, false);
        return;
    }
    if (result < 0) {
        store_fail(store, result);
        return;
    }
    store->is_checkpoint_wanted = false;
    store->checkpoint_number = store->checkpoint_last;
    store->checkpoint_moved = store->checkpoint_moved_begin;
    if (before != 0)
        store_remove_checkpoint(store, before, false);
}

static void changed_told(struct manifest_op *op, int result)
{
    struct store *store = container_of(op, struct store, checkpoint_op);
    if (result < 0) {
        committed(op, result);
        return;
    }
    mover_changed_told(store->mover, true);
    store->is_checkpoint_written = true; /* the next step goes on */
}

/* The file is complete under its name; it counts once the manifest says so.
 *
 * Before it does, the manifest has to know every segment whose `created` was lowered. That happens
 * when a record turns out to be dead by a tombstone that is older than the record's segment; then
 * its slot goes. Without a checkpoint the next start finds the slot again, which protects the
 * tombstone, and the proof is made again. With the checkpoint it finds the tombstone alone, and
 * only `created` protects it from being purged while the record still lies on the disk. There may
 * be more such segments than one group takes: they go ahead, in groups of their own. */
static void commit(struct store *store)
{
    struct manifest_edit edits[EDITS_MAX];
    store->is_checkpoint_written = false;
    store->checkpoint_op.done = changed_told;
    uint32_t count = mover_add_changed(store->mover, edits, 0, EDITS_MAX);
    if (count < EDITS_MAX) {
        edits[count++] = store_checkpoint_edit(store, store->checkpoint_last);
        store->checkpoint_op.done = committed;
    }
    manifest_append(store->manifest, &store->checkpoint_op, edits, count);
}

static void written(void *context, int result)
{
    struct store *store = context;
    store->checkpoint = NULL;
    if (result == 0) {
        store->is_checkpoint_written = true;
        store->checkpoint_gate = wal_last(store->wal);
        return;
    }
    store->is_checkpointing = false;
    store->checkpoint_retry_ns = io_now_ns(store->io) + RETRY_NS;
    if (result != -ECANCELED)
        log_warn(store->log, "the index checkpoint failed: %s. The next start takes longer",
                 strerror(-result));
}

static struct checkpoint_file *list_files(const struct store *store, uint32_t *ret_count)
{
    struct segments_stats stats;
    segments_stats(store->segments, &stats);
    struct checkpoint_file *files = calloc(stats.segments + 1, sizeof *files);
    const struct segment *segment;
    uint32_t count = 0;
    for (uint64_t i = 0; files != NULL && (segment = segments_nth(store->segments, i)) != NULL; i++)
        if (segment->state != SEGMENT_LEAVING)
            files[count++] = (struct checkpoint_file){.is_segment = true,
                                                      .file = segment->file,
                                                      .number = segment->number,
                                                      .end = segment->end};
    *ret_count = count;
    return files;
}

/* Only between two jobs of the mover: what is in the segments' ends is in the index. */
int store_begin_checkpoint(struct store *store)
{
    assert(!store->is_checkpointing && !mover_is_busy(store->mover));
    uint32_t count;
    struct checkpoint_file *files = list_files(store, &count);
    if (files == NULL)
        return -ENOMEM;
    struct mover_stats stats;
    mover_stats(store->mover, &stats);
    struct checkpoint_options options = store_checkpoint_options(store);
    struct checkpoint_info info = {
        .number = store->checkpoint_last + 1,
        .position = wal_durable(store->wal),
        .chunk_sequence = mover_sequence(store->mover),
        .clock_ceiling = store->clock.last,
    };
    int result = checkpoint_begin(store->io, store->log, &options, &info, store->index, files,
                                  count, written, store, &store->checkpoint);
    free(files);
    if (result < 0)
        return result;
    store->checkpoint_last++;
    store->checkpoint_moved_begin = stats.moved_records + store->recovered.segment_records;
    store->is_checkpointing = true;
    return 0;
}

bool store_wants_checkpoint(const struct store *store, uint64_t moved_min)
{
    struct mover_stats stats;
    mover_stats(store->mover, &stats);
    uint64_t moved =
        stats.moved_records + store->recovered.segment_records - store->checkpoint_moved;
    return moved > moved_min || store->is_checkpoint_wanted;
}

static uint64_t moved_min(const struct store *store)
{
    return store->options.checkpoint_min != 0 ? store->options.checkpoint_min
                                              : max_u64(MOVED_MIN, index_count(store->index));
}

/* The new one lies beside the old one for a while: it must not take the room that moves need. */
static bool has_room(const struct store *store)
{
    uint64_t free_size, total_size;
    uint64_t size = index_count(store->index) * INDEX_PACKED_SIZE + 2 * store->reserve.size;
    size *= store->options.shard_count; /* the others write theirs, too */
    return !reserve_is_released(&store->reserve) &&
           (io_disk_space(store->io, store->options.path, &free_size, &total_size) < 0 ||
            free_size >= size);
}

bool store_step_checkpoint(struct store *store, uint64_t budget)
{
    if (store->checkpoint != NULL)
        return checkpoint_step(store->checkpoint, budget) > 0;
    if (store->is_checkpoint_written && !manifest_is_busy(store->manifest) &&
        wal_durable(store->wal) >= store->checkpoint_gate) {
        commit(store);
        return false;
    }
    if (store->is_checkpointing || mover_is_busy(store->mover) || store->failed != 0 ||
        io_now_ns(store->io) < store->checkpoint_retry_ns ||
        !store_wants_checkpoint(store, moved_min(store)))
        return false;
    if (!has_room(store) || store_begin_checkpoint(store) < 0)
        store->checkpoint_retry_ns = io_now_ns(store->io) + RETRY_NS;
    return false;
}
