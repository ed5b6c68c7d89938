/* A sync's steps:
 *
 *   FILE -> OPEN -> NAME -> CLOSE
 *
 * The file is synced, then its folder is opened, synced and closed. Where the file is not new it
 * ends with FILE. An error ends it, once the folder is closed. */
#include "store/mover/mover_files.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void step_done(struct io_op *op, int32_t result);

/* Into the next step, whose operation begins. */
static void enter(struct mover_sync *sync, unsigned step)
{
    assert(!io_op_is_active(&sync->op));
    assert(step > sync->step);
    sync->step = step;
    sync->op.done = step_done;
    if (step == MOVER_SYNC_OPEN)
        io_open_file(sync->io, &sync->op, sync->path, IO_OPEN_DIRECTORY);
    else if (step == MOVER_SYNC_NAME)
        io_sync(sync->io, &sync->op, sync->directory);
    else
        io_close_file(sync->io, &sync->op, sync->directory);
}

static void step_done(struct io_op *op, int32_t result)
{
    struct mover_sync *sync = container_of(op, struct mover_sync, op);
    if (sync->step == MOVER_SYNC_CLOSE)
        return;
    if (result < 0)
        sync->error = result;
    else if (sync->step == MOVER_SYNC_OPEN)
        sync->directory = result;
    if (sync->step == MOVER_SYNC_NAME)
        enter(sync, MOVER_SYNC_CLOSE);
    else if (sync->is_new && result >= 0)
        enter(sync, sync->step + 1);
}

void mover_sync_begin(struct mover_sync *sync, struct io *io, int handle, bool is_new,
                      const char *path, uint32_t partition)
{
    assert(!io_op_is_active(&sync->op));
    assert(handle >= 0);
    sync->io = io;
    sync->step = MOVER_SYNC_FILE;
    sync->is_new = is_new;
    sync->error = 0;
    (void)snprintf(sync->path, sizeof sync->path, "%s/%02" PRIx32, path, partition);
    sync->op.done = step_done;
    io_sync(io, &sync->op, handle);
}

bool mover_sync_is_active(const struct mover_sync *sync)
{
    return io_op_is_active(&sync->op);
}

const char *mover_sync_path(const struct mover_sync *sync)
{
    return sync->path;
}

int mover_sync_result(const struct mover_sync *sync)
{
    assert(!io_op_is_active(&sync->op));
    return sync->error;
}

/* ---- closings ---- */

struct closing {
    struct list_node node;
    struct io_op op;
};

void mover_closings_init(struct mover_closings *closings, struct io *io)
{
    closings->io = io;
    list_init(&closings->under_way);
}

static void closed(struct io_op *op, int32_t result)
{
    struct closing *closing = container_of(op, struct closing, op);
    (void)result;
    list_remove(&closing->node);
    free(closing);
}

void mover_close(struct mover_closings *closings, int handle)
{
    struct closing *closing = calloc(1, sizeof *closing);
    assert(handle >= 0);
    if (closing == NULL)
        return;
    closing->op.done = closed;
    list_push_back(&closings->under_way, &closing->node);
    io_close_file(closings->io, &closing->op, handle);
}

void mover_closings_wait(struct mover_closings *closings)
{
    while (!list_is_empty(&closings->under_way) && io_run(closings->io, UINT64_MAX) >= 0)
        continue;
}

void mover_closings_deinit(struct mover_closings *closings)
{
    for (struct list_node *node; (node = list_pop_front(&closings->under_way)) != NULL;)
        free(container_of(node, struct closing, node));
}
