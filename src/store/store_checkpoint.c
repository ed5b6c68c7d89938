/* Writing checkpoints of the index and keeping account of them. */
#include "store/store_checkpoint.h"

#include "base/assert.h"
#include "store/disk/refusal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fewer moved records than this are read faster than they are worth a checkpoint. */
#define MOVED_MIN (256 * 1024u)

/* And at a clean shutdown: below, the next start reads their directories at once. */
#define SHUT_MOVED_MIN 16384u

/* After one that failed. */
#define RETRY_NS (60 * NS_PER_S)

/* Of one group: the checkpoint, or segments whose `created` was lowered. */
#define EDITS_MAX 512u

struct checkpoint_options checkpoints_file_options(const struct checkpoints *checkpoints)
{
    return (struct checkpoint_options){
        .path = checkpoints->options.state_path,
        .directory_id = checkpoints->options.directory_id,
        .log_id = checkpoints->options.shard,
        .memory = checkpoints->options.memory,
    };
}

/* A segment's number is not given again as long as a checkpoint may name it: the manifest, which
 * forgets the segments that went, tells the last one. */
static struct manifest_edit edit_of(const struct checkpoints *checkpoints, uint64_t number)
{
    const struct mover *mover = checkpoints->parts.mover;
    return (struct manifest_edit){
        .kind = MANIFEST_CHECKPOINT,
        .log_id = checkpoints->options.shard,
        .number = number,
        .end = mover != NULL ? mover_number_last(mover) : checkpoints->segment_last,
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

/* Best effort: what stays is removed at the next start. */
static void remove_file(struct checkpoints *checkpoints, uint64_t number, bool is_temporary)
{
    size_t size =
        strlen(checkpoints->options.state_path) + sizeof "/checkpoint-0123456789abcdef.tmp";
    struct removal *removal = calloc(1, sizeof *removal + size);
    if (removal == NULL)
        return;
    (void)snprintf(removal->path, size, "%s/checkpoint-%016" PRIx64 "%s",
                   checkpoints->options.state_path, number, is_temporary ? ".tmp" : "");
    list_push_back(&checkpoints->removals, &removal->node);
    removal->op.done = unlinked;
    io_unlink(checkpoints->io, &removal->op, removal->path);
}

static void committed(struct manifest_op *op, int result)
{
    struct checkpoints *checkpoints = container_of(op, struct checkpoints, op);
    uint64_t before = checkpoints->number;
    assert(checkpoints->is_under_way); /* invariant 1 */
    mover_changed_told(checkpoints->parts.mover, result == 0);
    checkpoints->is_under_way = false;
    if (refusal_may_pass(result)) {
        checkpoints->retry_ns = io_now_ns(checkpoints->io) + RETRY_NS;
        remove_file(checkpoints, checkpoints->last, false);
        return;
    }
    if (result < 0) {
        checkpoints->parts.failed(checkpoints->parts.context, result);
        return;
    }
    assert(before < checkpoints->last); /* invariant 2 */
    checkpoints->is_wanted = false;
    checkpoints->number = checkpoints->last;
    checkpoints->moved = checkpoints->moved_begin;
    if (before != 0)
        remove_file(checkpoints, before, false);
}

static void changed_told(struct manifest_op *op, int result)
{
    struct checkpoints *checkpoints = container_of(op, struct checkpoints, op);
    if (result < 0) {
        committed(op, result);
        return;
    }
    mover_changed_told(checkpoints->parts.mover, true);
    checkpoints->is_written = true; /* the next step goes on */
}

/* The file is complete under its name; it counts once the manifest says so.
 *
 * Before it does, the manifest has to know every segment whose `created` was lowered. That happens
 * when a record turns out to be dead by a tombstone that is older than the record's segment; then
 * its slot goes. Without a checkpoint the next start finds the slot again, which protects the
 * tombstone, and the proof is made again. With the checkpoint it finds the tombstone alone, and
 * only `created` protects it from being purged while the record still lies on the disk. There may
 * be more such segments than one group takes: they go ahead, in groups of their own. */
static void commit(struct checkpoints *checkpoints)
{
    struct manifest_edit edits[EDITS_MAX];
    assert(checkpoints->writer == NULL); /* the file is complete */
    checkpoints->is_written = false;
    checkpoints->op.done = changed_told;
    uint32_t count = mover_add_changed(checkpoints->parts.mover, edits, 0, EDITS_MAX);
    if (count < EDITS_MAX) {
        edits[count++] = edit_of(checkpoints, checkpoints->last);
        checkpoints->op.done = committed;
    }
    manifest_append(checkpoints->parts.manifest, &checkpoints->op, edits, count);
}

static void written(void *context, int result)
{
    struct checkpoints *checkpoints = context;
    assert(checkpoints->is_under_way); /* invariant 1 */
    checkpoints->writer = NULL;
    if (result == 0) {
        checkpoints->is_written = true;
        checkpoints->gate = wal_last(checkpoints->parts.wal);
        return;
    }
    checkpoints->is_under_way = false;
    checkpoints->retry_ns = io_now_ns(checkpoints->io) + RETRY_NS;
    if (result != -ECANCELED)
        log_warn(checkpoints->log, "the index checkpoint failed: %s. The next start takes longer",
                 strerror(-result));
}

static struct checkpoint_file *list_files(const struct checkpoints *checkpoints,
                                          uint32_t *ret_count)
{
    struct segments_stats stats;
    segments_stats(checkpoints->parts.segments, &stats);
    struct checkpoint_file *files = calloc(stats.segments + 1, sizeof *files);
    const struct segment *segment;
    uint32_t count = 0;
    for (uint64_t i = 0;
         files != NULL && (segment = segments_nth(checkpoints->parts.segments, i)) != NULL; i++)
        if (segment->state != SEGMENT_LEAVING)
            files[count++] = (struct checkpoint_file){.is_segment = true,
                                                      .file = segment->file,
                                                      .number = segment->number,
                                                      .end = segment->end};
    *ret_count = count;
    return files;
}

static uint64_t moved_records(const struct checkpoints *checkpoints)
{
    struct mover_stats stats;
    mover_stats(checkpoints->parts.mover, &stats);
    return stats.moved_records + checkpoints->parts.moved;
}

/* Only between two jobs of the mover: what is in the segments' ends is in the index. */
static int begin(struct checkpoints *checkpoints)
{
    assert(!checkpoints->is_under_way);               /* invariant 1 */
    assert(!mover_is_busy(checkpoints->parts.mover)); /* invariant 1 */
    assert(checkpoints->number <= checkpoints->last); /* invariant 2 */
    uint32_t count;
    struct checkpoint_file *files = list_files(checkpoints, &count);
    if (files == NULL)
        return -ENOMEM;
    struct checkpoint_options options = checkpoints_file_options(checkpoints);
    struct checkpoint_info info = {
        .number = checkpoints->last + 1,
        .position = wal_durable(checkpoints->parts.wal),
        .chunk_sequence = mover_sequence(checkpoints->parts.mover),
        .clock_ceiling = checkpoints->parts.clock->last,
    };
    int result = checkpoint_begin(checkpoints->io, checkpoints->log, &options, &info,
                                  checkpoints->parts.index, files, count, written, checkpoints,
                                  &checkpoints->writer);
    free(files);
    if (result < 0)
        return result;
    checkpoints->last++;
    checkpoints->moved_begin = moved_records(checkpoints);
    checkpoints->is_under_way = true;
    return 0;
}

static bool is_due(const struct checkpoints *checkpoints, uint64_t moved_min)
{
    return moved_records(checkpoints) - checkpoints->moved > moved_min || checkpoints->is_wanted;
}

static uint64_t moved_min(const struct checkpoints *checkpoints)
{
    return checkpoints->options.moved_min != 0
               ? checkpoints->options.moved_min
               : max_u64(MOVED_MIN, index_count(checkpoints->parts.index));
}

/* The new one lies beside the old one for a while: it must not take the room that moves need. */
static bool has_room(const struct checkpoints *checkpoints)
{
    uint64_t free_size, total_size;
    uint64_t size = index_count(checkpoints->parts.index) * INDEX_PACKED_SIZE +
                    2 * checkpoints->parts.reserve->size;
    size *= checkpoints->options.shard_count; /* the others write theirs, too */
    return !reserve_is_released(checkpoints->parts.reserve) &&
           (io_disk_space(checkpoints->io, checkpoints->options.path, &free_size, &total_size) <
                0 ||
            free_size >= size);
}

bool checkpoints_step(struct checkpoints *checkpoints, uint64_t budget)
{
    if (checkpoints->writer != NULL)
        return checkpoint_step(checkpoints->writer, budget) > 0;
    if (checkpoints->is_written && !manifest_is_busy(checkpoints->parts.manifest) &&
        wal_durable(checkpoints->parts.wal) >= checkpoints->gate) {
        commit(checkpoints);
        return false;
    }
    if (checkpoints->is_under_way || mover_is_busy(checkpoints->parts.mover) ||
        io_now_ns(checkpoints->io) < checkpoints->retry_ns ||
        !is_due(checkpoints, moved_min(checkpoints)))
        return false;
    if (!has_room(checkpoints) || begin(checkpoints) < 0)
        checkpoints->retry_ns = io_now_ns(checkpoints->io) + RETRY_NS;
    return false;
}

bool checkpoints_are_writing(const struct checkpoints *checkpoints)
{
    return checkpoints->writer != NULL;
}

int checkpoints_shut(struct checkpoints *checkpoints)
{
    uint64_t least = checkpoints->options.moved_min;
    bool is_late = io_now_ns(checkpoints->io) >= checkpoints->retry_ns; /* not after a failure */
    if (!checkpoints->is_under_way && is_late &&
        is_due(checkpoints, least != 0 ? least : SHUT_MOVED_MIN)) {
        int result = begin(checkpoints);
        if (result < 0)
            return result;
    }
    if (checkpoints->is_under_way)
        return checkpoints_step(checkpoints, UINT64_MAX) ? 1 : 2;
    return list_is_empty(&checkpoints->removals) ? 0 : 2;
}

uint64_t checkpoints_number(const struct checkpoints *checkpoints)
{
    return checkpoints->number;
}

void checkpoints_renew(struct checkpoints *checkpoints)
{
    checkpoints->is_wanted = true;
}

/* ---- a start ---- */

void checkpoints_take(struct checkpoints *checkpoints, uint64_t number)
{
    checkpoints->number = number;
    checkpoints->last = max_u64(checkpoints->last, number);
}

void checkpoints_take_segment(struct checkpoints *checkpoints, uint64_t number)
{
    assert(checkpoints->parts.mover == NULL);
    checkpoints->segment_last = max_u64(checkpoints->segment_last, number);
}

uint64_t checkpoints_segment_last(const struct checkpoints *checkpoints)
{
    return checkpoints->segment_last;
}

void checkpoints_see(struct checkpoints *checkpoints, const char *name)
{
    uint64_t number;
    bool is_temporary;
    if (checkpoint_name_parse(name, &number, &is_temporary) < 0)
        return;
    checkpoints->last = max_u64(checkpoints->last, number);
    if (is_temporary || number != checkpoints->number) /* invariant 3 */
        remove_file(checkpoints, number, is_temporary);
}

bool checkpoints_show(const struct checkpoints *checkpoints, struct manifest_edit *ret_edit)
{
    if (checkpoints->number == 0)
        return false;
    *ret_edit = edit_of(checkpoints, checkpoints->number);
    return true;
}

/* ---- opening and closing ---- */

void checkpoints_init(struct checkpoints *checkpoints, struct io *io, const struct log *log,
                      const struct checkpoints_options *options)
{
    *checkpoints = (struct checkpoints){.io = io, .log = log, .options = *options};
    list_init(&checkpoints->removals);
}

void checkpoints_deinit(struct checkpoints *checkpoints)
{
    if (checkpoints->io == NULL) /* the store was never opened so far */
        return;
    for (struct list_node *node; (node = list_pop_front(&checkpoints->removals)) != NULL;)
        free(container_of(node, struct removal, node));
    if (checkpoints->writer != NULL)
        checkpoint_free(checkpoints->writer);
}
