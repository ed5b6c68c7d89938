/* The reserve's way:
 *
 *   absent -> opening -> allocating -> closing -> taken -> removing -> absent
 *      ^---------/                         \--------------^    (there was no room after all)
 *
 * Invariants:
 * 1. It has one operation at a time, and none while it is taken or absent.
 * 2. The file's space is the reserve's only while it is taken. */
#include "store/mover/reserve.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/disk/refusal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_NS NS_PER_S

/* ---- giving it up ---- */

static void unlinked(struct io_op *op, int32_t result)
{
    struct reserve *reserve = container_of(op, struct reserve, op);
    (void)result;
    reserve->look_ns = io_now_ns(reserve->io) + LOOK_NS;
    reserve->released(reserve->context);
}

static void unlink_file(struct reserve *reserve)
{
    assert(!io_op_is_active(&reserve->op)); /* invariant 1 */
    reserve->is_taken = false;              /* invariant 2 */
    reserve->op.done = unlinked;
    io_unlink(reserve->io, &reserve->op, reserve->path);
}

void reserve_release(struct reserve *reserve)
{
    if (!reserve->is_needed)
        log_warn(
            reserve->log,
            "%s: sets are refused, reads and deletes go on, and what is deleted is cleared away "
            "with the %llu MiB that were kept for it: %s",
            reserve->directory, (unsigned long long)(reserve->size / MIB),
            refusal_meaning(reserve->io, reserve->directory, -ENOSPC));
    reserve->is_needed = true;
    if (reserve->is_taken)
        unlink_file(reserve);
}

/* ---- taking it ---- */

static void closed(struct io_op *op, int32_t result)
{
    struct reserve *reserve = container_of(op, struct reserve, op);
    (void)result;
    if (reserve->error < 0)
        unlink_file(reserve);
    else
        reserve->is_taken = true;
}

static void allocated(struct io_op *op, int32_t result)
{
    struct reserve *reserve = container_of(op, struct reserve, op);
    reserve->error = result;
    reserve->op.done = closed;
    io_close_file(reserve->io, &reserve->op, reserve->handle);
}

static void opened(struct io_op *op, int32_t result)
{
    struct reserve *reserve = container_of(op, struct reserve, op);
    if (result < 0) {
        reserve->look_ns = io_now_ns(reserve->io) + LOOK_NS;
        return;
    }
    reserve->handle = result;
    assert(reserve->size > 0);
    reserve->op.done = allocated;
    io_allocate(reserve->io, &reserve->op, reserve->handle, reserve->size);
}

static void take(struct reserve *reserve)
{
    assert(!io_op_is_active(&reserve->op)); /* invariant 1 */
    assert(!reserve->is_taken);
    reserve->op.done = opened;
    io_open_file(reserve->io, &reserve->op, reserve->path, IO_OPEN_WRITE | IO_OPEN_CREATE);
}

/* ---- */

int reserve_init(struct reserve *reserve, struct io *io, const struct log *log,
                 const char *directory, uint64_t size)
{
    *reserve =
        (struct reserve){.io = io, .log = log, .directory = directory, .size = size, .handle = -1};
    size_t path_size = strlen(directory) + sizeof "/reserve";
    reserve->path = malloc(path_size);
    if (reserve->path == NULL)
        return -ENOMEM;
    (void)snprintf(reserve->path, path_size, "%s/reserve", directory);
    take(reserve);
    return 0;
}

void reserve_deinit(struct reserve *reserve)
{
    free(reserve->path);
    reserve->path = NULL;
}

bool reserve_step(struct reserve *reserve)
{
    if (reserve->is_taken && reserve->is_needed) {
        assert(reserve->error >= 0); /* invariant 2 */
        reserve->is_needed = false;
        log_info(reserve->log, "%s: there is room again: sets are accepted", reserve->directory);
        return true;
    }
    if (reserve->is_taken || reserve_is_busy(reserve) || io_now_ns(reserve->io) < reserve->look_ns)
        return false;
    reserve->look_ns = io_now_ns(reserve->io) + LOOK_NS;
    uint64_t free_size, total_size;
    if (io_disk_space(reserve->io, reserve->directory, &free_size, &total_size) == 0 &&
        free_size >= 2 * reserve->size)
        take(reserve);
    return false;
}

bool reserve_is_busy(const struct reserve *reserve)
{
    return io_op_is_active(&reserve->op);
}
