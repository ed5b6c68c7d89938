/* The files of segments that nobody needs any more: removed one after the other, a piece at a time.
 *
 * What a file system frees at once it may discard at once (mounted with -o discard), and the device
 * is busy with that: writes of the log took 8 ms behind 32 MiB that were discarded. So a file gets
 * shorter piece by piece before it goes. When space is short, or files come faster than they go
 * that way, they go at once. */
#include "store/segment/segments_internal.h"

#include "base/units.h"

#include <errno.h>
#include <string.h>

#define PIECE_SIZE (2 * MIB)
#define PAUSE_NS (5 * NS_PER_MS)

/* More files than this do not wait for their turn. */
#define WAITING_MAX 4u

static void go_on(struct segments *segments);

static bool is_hurried(const struct segments *segments)
{
    return segments->is_hurried || segments->going_count > WAITING_MAX;
}

static void paused(struct io_op *op, int32_t result)
{
    (void)result; /* it may have been cancelled: then there is a hurry */
    go_on(container_of(op, struct segments, going_pause));
}

static void piece_gone(struct segments *segments)
{
    segments->going_ns = io_now_ns(segments->io) + PAUSE_NS;
    go_on(segments);
}

/* Whether it got shorter does not matter: it goes as a whole in the end. */
static void shortened(struct io_op *op, int32_t result)
{
    struct segment *segment = container_of(op, struct segment, op);
    (void)result;
    piece_gone(segment->owner);
}

static void unlinked(struct io_op *op, int32_t result)
{
    struct segment *segment = container_of(op, struct segment, op);
    struct segments *segments = segment->owner;
    if (result < 0 && result != -ENOENT)
        log_warn(segments->log, "%s: removing it failed: %s; the next start tries again",
                 segment->path, strerror(-result));
    list_remove(&segment->handle_node);
    segments->going_count--;
    segment_free(segment);
    piece_gone(segments);
}

static void remove_piece(struct segment *segment)
{
    struct segments *segments = segment->owner;
    if (segment->file_left <= PIECE_SIZE || is_hurried(segments)) {
        segment->op.done = unlinked;
        io_unlink(segments->io, &segment->op, segment->path);
        return;
    }
    segment->file_left -= PIECE_SIZE;
    segment->op.done = shortened;
    io_truncate(segments->io, &segment->op, segment->path, segment->file_left);
}

static void go_on(struct segments *segments)
{
    struct list_node *first = list_first(&segments->going);
    if (first == NULL || io_op_is_active(&segments->going_pause))
        return;
    struct segment *segment = container_of(first, struct segment, handle_node);
    if (io_op_is_active(&segment->op))
        return;
    if (io_now_ns(segments->io) >= segments->going_ns || is_hurried(segments)) {
        remove_piece(segment);
        return;
    }
    segments->going_pause.done = paused;
    io_timer(segments->io, &segments->going_pause, segments->going_ns);
}

void segment_go(struct segment *segment)
{
    list_push_back(&segment->owner->going, &segment->handle_node);
    segment->owner->going_count++;
    go_on(segment->owner);
}

void segments_set_hurry(struct segments *segments, bool is_hurried)
{
    bool is_new = is_hurried && !segments->is_hurried;
    segments->is_hurried = is_hurried;
    if (is_new && io_op_is_active(&segments->going_pause))
        io_cancel(segments->io, &segments->going_pause);
}

bool segments_are_going(const struct segments *segments)
{
    return !list_is_empty(&segments->going) || io_op_is_active(&segments->going_pause);
}
