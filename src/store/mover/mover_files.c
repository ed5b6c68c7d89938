/* A file's sync, then its folder's where the file is new. An error of the file ends it. */
#include "store/mover/mover_files.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void name_synced(struct directory_waiter *waiter, int result)
{
    struct mover_sync *sync = container_of(waiter, struct mover_sync, waiter);
    sync->error = result;
}

static void file_synced(struct io_op *op, int32_t result)
{
    struct mover_sync *sync = container_of(op, struct mover_sync, op);
    sync->error = result;
    if (sync->is_new && result >= 0)
        directory_sync(&sync->directory, &sync->waiter, name_synced);
}

void mover_sync_begin(struct mover_sync *sync, struct io *io, int handle, bool is_new,
                      const char *path, uint32_t partition)
{
    assert(!mover_sync_is_active(sync));
    assert(handle >= 0);
    (void)snprintf(sync->path, sizeof sync->path, "%s/%02" PRIx32, path, partition);
    list_init(&sync->users);
    directory_init(&sync->directory, io, sync->path, &sync->users);
    sync->is_new = is_new;
    sync->op.done = file_synced;
    io_sync(io, &sync->op, handle);
}

bool mover_sync_is_active(const struct mover_sync *sync)
{
    return io_op_is_active(&sync->op) || (sync->is_new && directory_is_busy(&sync->directory));
}

const char *mover_sync_path(const struct mover_sync *sync)
{
    return sync->path;
}

int mover_sync_result(const struct mover_sync *sync)
{
    assert(!mover_sync_is_active(sync));
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
