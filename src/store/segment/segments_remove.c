/* Removes the files of segments, one after the other, a piece at a time. */
#include "store/segment/segments_remove.h"
#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <string.h>

#define PIECE_SIZE (2 * MIB)
#define PAUSE_NS (5 * NS_PER_MS)

/* More files than this do not wait for their turn. */
#define WAITING_MAX 4u

void segments_removal_init(struct segments_removal *removal, struct io *io, const struct log *log,
                           void (*removed)(struct segment *segment))
{
    removal->io = io;
    removal->log = log;
    removal->removed = removed;
    list_init(&removal->queue);
}

static bool is_hurried(const struct segments_removal *removal)
{
    return removal->is_hurried || removal->count > WAITING_MAX;
}

static struct segment *first_of(const struct segments_removal *removal)
{
    struct list_node *first = list_first(&removal->queue);
    assert((first == NULL) == (removal->count == 0)); /* invariant 2 */
    return first != NULL ? container_of(first, struct segment, handle_node) : NULL;
}

static void go_on(struct segments_removal *removal);

static void paused(struct io_op *op, int32_t result)
{
    (void)result; /* it may have been cancelled: then there is a hurry */
    go_on(container_of(op, struct segments_removal, pause));
}

static void piece_gone(struct segments_removal *removal)
{
    removal->next_ns = io_now_ns(removal->io) + PAUSE_NS;
    go_on(removal);
}

/* Whether it got shorter does not matter: it goes as a whole in the end. */
static void shortened(struct io_op *op, int32_t result)
{
    (void)result;
    piece_gone(container_of(op, struct segments_removal, op));
}

static void unlinked(struct io_op *op, int32_t result)
{
    struct segments_removal *removal = container_of(op, struct segments_removal, op);
    struct segment *segment = first_of(removal);
    assert(segment != NULL); /* invariant 1 */
    if (result < 0 && result != -ENOENT)
        log_warn(removal->log, "%s: removing it failed: %s; the next start tries again",
                 segment->path, strerror(-result));
    list_remove(&segment->handle_node);
    removal->count--;
    removal->removed(segment);
    piece_gone(removal);
}

static void remove_piece(struct segments_removal *removal, struct segment *segment)
{
    if (segment->file_left <= PIECE_SIZE || is_hurried(removal)) {
        removal->op.done = unlinked;
        io_unlink(removal->io, &removal->op, segment->path);
        return;
    }
    segment->file_left -= PIECE_SIZE;
    removal->op.done = shortened;
    io_truncate(removal->io, &removal->op, segment->path, segment->file_left);
}

static void go_on(struct segments_removal *removal)
{
    struct segment *segment = first_of(removal);
    if (segment == NULL || io_op_is_active(&removal->pause) || io_op_is_active(&removal->op))
        return;
    if (io_now_ns(removal->io) >= removal->next_ns || is_hurried(removal)) {
        remove_piece(removal, segment);
    } else {
        removal->pause.done = paused;
        io_timer(removal->io, &removal->pause, removal->next_ns);
    }
}

void segments_removal_add(struct segments_removal *removal, struct segment *segment)
{
    assert(segment->is_removed);
    assert(segment->handle < 0);
    assert(segment->pins == 0);
    assert(!list_node_is_linked(&segment->handle_node));
    list_push_back(&removal->queue, &segment->handle_node);
    removal->count++;
    go_on(removal);
    assert(io_op_is_active(&removal->op) || io_op_is_active(&removal->pause)); /* invariant 3 */
}

void segments_removal_set_hurry(struct segments_removal *removal, bool is_hurried)
{
    bool is_new = is_hurried && !removal->is_hurried;
    removal->is_hurried = is_hurried;
    if (is_new && io_op_is_active(&removal->pause))
        io_cancel(removal->io, &removal->pause);
}

bool segments_removal_is_active(const struct segments_removal *removal)
{
    return removal->count > 0 || io_op_is_active(&removal->pause);
}
