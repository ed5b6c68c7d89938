/* The segments' files: opened when somebody pins them, closed when too many are open, or when the
 * segment goes. One operation of a segment at a time:
 *
 *   not open -> opening -> open -> closing -> not open [-> going (segments_remove.c) -> freed]
 *
 * A segment that is pinned while its file is being closed is opened again right behind that. */
#include "store/segment/segments_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void close_file(struct segment *segment);

/* The path lives as long as an operation needs it. */
static int keep_path(struct segment *segment)
{
    char path[SEGMENT_PATH_MAX];
    segment_path(segment->owner, segment, path);
    free(segment->path);
    segment->path = strdup(path);
    return segment->path != NULL ? 0 : -ENOMEM;
}

static void forget_path(struct segment *segment)
{
    free(segment->path);
    segment->path = NULL;
}

/* A file that is being closed does not count: otherwise one too many would close all. */
static void evict(struct segments *segments)
{
    while (segments->open_count > segments->options.open_max) {
        struct list_node *node = list_first(&segments->idle);
        if (node == NULL)
            return;
        close_file(container_of(node, struct segment, handle_node));
    }
}

/* Nobody may pin it any more: then it can be closed when there are too many, or it goes. */
static void settle(struct segment *segment)
{
    if (segment->pins > 0 || io_op_is_active(&segment->op))
        return;
    if (segment->is_removed) {
        segment_leave(segment);
        return;
    }
    if (segment->handle < 0)
        return;
    list_push_back(&segment->owner->idle, &segment->handle_node);
    evict(segment->owner);
}

/* ---- opening ---- */

/* A waiter's completion may pin, unpin or wait again. */
static void serve_waiters(struct segment *segment, int handle_or_error)
{
    struct list waiters;
    list_init(&waiters);
    struct list_node *node;
    while ((node = list_pop_front(&segment->waiters)) != NULL)
        list_push_back(&waiters, node);
    while ((node = list_pop_front(&waiters)) != NULL) {
        struct segment_pin *pin = container_of(node, struct segment_pin, node);
        if (handle_or_error < 0) {
            segment->pins--;
            segment->owner->pin_count--;
        }
        pin->done(pin, handle_or_error);
    }
}

static void opened(struct io_op *op, int32_t result)
{
    struct segment *segment = container_of(op, struct segment, op);
    forget_path(segment);
    if (result < 0)
        segment->owner->open_count--;
    else
        segment->handle = result;
    /* Pinned, so that no waiter's completion can make it go before the last one was served. */
    segment->pins++;
    serve_waiters(segment, result);
    segment->pins--;
    settle(segment);
}

static void open_file(struct segment *segment)
{
    struct segments *segments = segment->owner;
    segments->open_count++;
    evict(segments);
    segment->op.done = opened;
    if (keep_path(segment) < 0) {
        /* As an open that failed: the loop tells it. */
        io_open_file(segments->io, &segment->op, "", IO_OPEN_READ);
        return;
    }
    io_open_file(segments->io, &segment->op, segment->path, IO_OPEN_READ | IO_OPEN_DIRECT);
}

/* ---- closing ---- */

static void closed(struct io_op *op, int32_t result)
{
    struct segment *segment = container_of(op, struct segment, op);
    (void)result;
    if (!list_is_empty(&segment->waiters))
        open_file(segment);
    else if (segment->is_removed)
        segment_leave(segment);
}

static void close_file(struct segment *segment)
{
    assert(segment->pins == 0 && !io_op_is_active(&segment->op));
    if (list_node_is_linked(&segment->handle_node))
        list_remove(&segment->handle_node);
    segment->op.done = closed;
    io_close_file(segment->owner->io, &segment->op, segment->handle);
    segment->handle = -1;
    segment->owner->open_count--;
}

/* ---- leaving ---- */

void segment_leave(struct segment *segment)
{
    if (segment->pins > 0 || io_op_is_active(&segment->op))
        return;
    if (segment->handle >= 0)
        close_file(segment);
    else if (!segment->is_unlinked || keep_path(segment) < 0)
        segment_free(segment);
    else
        segment_go(segment);
}

/* ---- pins ---- */

int segment_pin(struct segments *segments, struct segment *segment, struct segment_pin *pin)
{
    assert(!segment->is_removed);
    segment->pins++;
    segments->pin_count++;
    pin->segment = segment;
    if (segment->handle >= 0) {
        if (list_node_is_linked(&segment->handle_node))
            list_remove(&segment->handle_node);
        return segment->handle;
    }
    list_push_back(&segment->waiters, &pin->node);
    if (!io_op_is_active(&segment->op))
        open_file(segment);
    return -EINPROGRESS;
}

void segment_unpin(struct segments *segments, struct segment *segment)
{
    assert(segment->pins > 0 && segment->handle >= 0);
    segment->pins--;
    segments->pin_count--;
    settle(segment);
}

bool segments_are_busy(const struct segments *segments)
{
    if (segments->pin_count > 0 || segments->place_count > segments->count ||
        segments_are_going(segments))
        return true;
    for (uint32_t i = 0; i < segments->count; i++)
        if (io_op_is_active(&segments->all[i]->op))
            return true;
    return false;
}

int segments_shut(struct segments *segments)
{
    segments_set_hurry(segments, true);
    for (;;) {
        for (struct list_node *node; (node = list_first(&segments->idle)) != NULL;)
            close_file(container_of(node, struct segment, handle_node));
        if (!segments_are_busy(segments))
            return 0;
        int result = io_run(segments->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
}
