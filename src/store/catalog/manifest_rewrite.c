/* The whole state into a new file, which then takes the old one's place.
 *
 *   clear -> create -> allocate -> copy ... -> sync -> rename -> sync the name -> close the old one
 *       \_______\_________\___________\_________\-> close the new one -> unlink it: the old one
 * goes on
 *
 * Until the rename the old file is the manifest, whatever fails. From the rename on nobody knows
 * which of the two a loss of power leaves, so an error fails the manifest; both say the same then,
 * since no group is written meanwhile. */
#include "store/catalog/manifest_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- the state ---- */

static int reserve_edit(struct manifest_rewrite *rewrite)
{
    if (rewrite->count < rewrite->capacity)
        return 0;
    uint64_t capacity = 2 * rewrite->capacity + MANIFEST_BLOCK_EDITS;
    struct manifest_edit *edits = realloc(rewrite->edits, capacity * sizeof *edits);
    if (edits == NULL)
        return -ENOMEM;
    rewrite->edits = edits;
    rewrite->capacity = capacity;
    return 0;
}

/* At one instant, since indexes mean nothing once the caller's tables change. A first file begins
 * with nothing. */
static int take_snapshot(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    bool is_more = manifest->handle >= 0;
    while (is_more) {
        int error = reserve_edit(rewrite);
        if (error < 0)
            return error;
        is_more = manifest->options.snapshot(manifest->options.context, rewrite->count,
                                             &rewrite->edits[rewrite->count]);
        rewrite->count += is_more;
    }
    rewrite->needed = manifest_blocks_of(rewrite->count);
    uint32_t limit = (uint32_t)(MANIFEST_SIZE_MAX / MANIFEST_BLOCK_SIZE);
    rewrite->size =
        (uint32_t)max_u64(limit, 2 * (uint64_t)rewrite->needed) + MANIFEST_RESERVE_BLOCKS;
    return 0;
}

/* ---- the ends ---- */

static void end(struct manifest *manifest)
{
    free(manifest->rewrite.edits);
    manifest->rewrite = (struct manifest_rewrite){.handle = -1};
    manifest_set_phase(manifest, MANIFEST_IDLE);
    manifest_go_on(manifest);
}

static void unlinked(struct io_op *op, int32_t result)
{
    (void)result; /* whoever tries next begins with this again */
    end(container_of(op, struct manifest, io_op));
}

static void unlink_new(struct manifest *manifest)
{
    manifest->io_op.done = unlinked;
    io_unlink(manifest->io, &manifest->io_op, manifest->path_new);
}

static void new_closed(struct io_op *op, int32_t result)
{
    (void)result;
    unlink_new(container_of(op, struct manifest, io_op));
}

/* The old file stays. */
static void give_up(struct manifest *manifest, int error)
{
    manifest->rewrite_error = error;
    if (manifest->handle < 0)
        log_error(manifest->log, "cannot write %s: %s", manifest->path_new, strerror(-error));
    else
        log_warn(manifest->log,
                 "cannot write %s: %s; %s is used further, which has room for %" PRIu32 " KiB",
                 manifest->path_new, strerror(-error), manifest->path,
                 (uint32_t)(manifest_offset(manifest->size - manifest->used) / KIB));
    if (manifest->rewrite.handle < 0) {
        unlink_new(manifest);
        return;
    }
    manifest->io_op.done = new_closed;
    io_close_file(manifest->io, &manifest->io_op, manifest->rewrite.handle);
}

static void old_closed(struct io_op *op, int32_t result)
{
    (void)result;
    end(container_of(op, struct manifest, io_op));
}

/* The new file is the manifest, and the old one has no name. */
static void take_over(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    int old = manifest->handle;
    manifest->handle = rewrite->handle;
    manifest->salt = rewrite->salt;
    manifest->edition = rewrite->edition;
    manifest->used = rewrite->needed;
    manifest->size = rewrite->size;
    manifest->is_unsealed = false; /* the first group needs no proof */
    manifest->is_worn = false;
    manifest->has_loss = false;
    manifest->rewrites++;
    if (old < 0) {
        end(manifest);
        return;
    }
    manifest->io_op.done = old_closed;
    io_close_file(manifest->io, &manifest->io_op, old);
}

/* ---- the way there ---- */

static void name_synced(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    if (result < 0)
        manifest_fail(manifest, result, "a sync of the folder of", manifest->path);
    take_over(manifest);
}

static void renamed(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    if (result < 0) {
        manifest_fail(manifest, result, "renaming", manifest->path_new);
        manifest->io_op.done = old_closed;
        io_close_file(manifest->io, &manifest->io_op, manifest->rewrite.handle);
        return;
    }
    manifest->io_op.done = name_synced;
    io_sync(manifest->io, &manifest->io_op, manifest->directory);
}

static void synced(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    if (result < 0) {
        give_up(manifest, result);
        return;
    }
    manifest->io_op.done = renamed;
    io_rename(manifest->io, &manifest->io_op, manifest->path_new, manifest->path);
}

static void copied(struct io_op *op, int32_t result);

static void fill(struct manifest *manifest, uint32_t blocks)
{
    const struct manifest_rewrite *rewrite = &manifest->rewrite;
    struct manifest_mark place = {.salt = rewrite->salt, .edition = rewrite->edition};
    for (uint32_t i = 0; i < blocks; i++) {
        uint8_t *target = manifest->options.memory + manifest_offset(i);
        if (rewrite->written + i < rewrite->needed)
            manifest_encode_group(manifest, place, rewrite->edits, rewrite->count,
                                  rewrite->written + i, target);
        else
            memset(target, 0, MANIFEST_BLOCK_SIZE);
    }
}

/* The group, then zeros up to the file's end: real ones, so that an append changes nothing but
 * them. */
static void copy(struct manifest *manifest)
{
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    uint32_t left = rewrite->size - rewrite->written;
    if (left == 0) {
        manifest->io_op.done = synced;
        io_sync(manifest->io, &manifest->io_op, rewrite->handle);
        return;
    }
    rewrite->writing = (uint32_t)min_u64(left, MANIFEST_MEMORY_BLOCKS);
    fill(manifest, rewrite->writing);
    manifest->io_op.done = copied;
    io_write(manifest->io, &manifest->io_op, rewrite->handle, manifest->options.memory,
             rewrite->writing * MANIFEST_BLOCK_SIZE, manifest_offset(rewrite->written),
             IO_WRITE_PLAIN);
}

static void copied(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (result != (int32_t)(rewrite->writing * MANIFEST_BLOCK_SIZE)) {
        give_up(manifest, result < 0 ? result : -EIO);
        return;
    }
    rewrite->written += rewrite->writing;
    copy(manifest);
}

static void allocated(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    uint32_t least = rewrite->needed + MANIFEST_RESERVE_BLOCKS;
    if (result == -ENOSPC && rewrite->size > least) {
        /* On a full disk what frees space needs a manifest that takes its groups: a small one does.
         */
        rewrite->size = least;
        io_allocate(manifest->io, &manifest->io_op, rewrite->handle, manifest_offset(least));
        return;
    }
    if (result < 0 && result != -EOPNOTSUPP)
        give_up(manifest, result);
    else
        copy(manifest);
}

static uint64_t next_edition(const struct manifest *manifest)
{
    const struct manifest_options *options = &manifest->options;
    uint64_t known = max_u64(options->closed.edition, options->seen.edition);
    return 1 + max_u64(known, manifest->edition);
}

static void created(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    struct manifest_rewrite *rewrite = &manifest->rewrite;
    if (result < 0) {
        give_up(manifest, result);
        return;
    }
    rewrite->handle = result;
    int error = take_snapshot(manifest);
    if (error < 0) {
        give_up(manifest, error);
        return;
    }
    rewrite->edition = manifest->is_lost ? 0 : next_edition(manifest);
    while (rewrite->salt == 0 || rewrite->salt == manifest->salt)
        io_random(manifest->io, &rewrite->salt, sizeof rewrite->salt);
    manifest->io_op.done = allocated;
    io_allocate(manifest->io, &manifest->io_op, rewrite->handle, manifest_offset(rewrite->size));
}

static void cleared(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    if (result < 0 && result != -ENOENT) {
        give_up(manifest, result);
        return;
    }
    manifest->io_op.done = created;
    io_open_file(manifest->io, &manifest->io_op, manifest->path_new,
                 IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE | IO_OPEN_DIRECT);
}

void manifest_rewrite(struct manifest *manifest)
{
    assert(manifest->rewrite.handle < 0 && manifest->rewrite.edits == NULL);
    manifest_set_phase(manifest, MANIFEST_REWRITING);
    manifest->io_op.done = cleared;
    io_unlink(manifest->io, &manifest->io_op, manifest->path_new);
}
