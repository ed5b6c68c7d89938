/* Appending: one group at a time, as one write into blocks that are already there. */
#include "store/catalog/manifest_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void manifest_set_phase(struct manifest *manifest, enum manifest_phase phase)
{
    assert((manifest->phase == MANIFEST_IDLE) != (phase == MANIFEST_IDLE));
    assert(!io_op_is_active(&manifest->io_op));
    manifest->phase = phase;
}

void manifest_fail(struct manifest *manifest, int error, const char *what, const char *path)
{
    assert(error < 0);
    assert(manifest->failed == 0);
    manifest->failed = error;
    log_error(manifest->log, "%s %s failed: %s; the manifest takes no more until the next start",
              what, path, strerror(-error));
}

static uint64_t position_now(const struct manifest *manifest)
{
    const struct manifest_options *options = &manifest->options;
    return options->position != NULL ? options->position(options->context) : 0;
}

void manifest_encode_group(const struct manifest *manifest, struct manifest_mark place,
                           const struct manifest_edit *edits, uint64_t count, uint32_t index,
                           uint8_t *target)
{
    uint32_t blocks = manifest_blocks_of(count);
    assert(index < blocks);
    uint64_t from = (uint64_t)index * MANIFEST_BLOCK_EDITS;
    struct manifest_block block = {
        .flags = (uint16_t)((index == 0 ? MANIFEST_GROUP_FIRST : 0) |
                            (index + 1 == blocks ? MANIFEST_GROUP_LAST : 0)),
        .directory_id = manifest->options.directory_id,
        .sequence = place.blocks + index + 1,
        .salt = place.salt,
        .edition = place.edition,
        .position = position_now(manifest),
        .count = (uint32_t)min_u64(count - from, MANIFEST_BLOCK_EDITS),
    };
    if (block.count > 0)
        memcpy(block.edits, edits + from, block.count * sizeof *edits);
    manifest_block_encode(&block, target);
}

/* ---- a group ---- */

static bool fits(const struct manifest *manifest)
{
    return manifest_blocks_of(manifest->count) <= manifest->size - manifest->used;
}

/* `done` may append again, and must find nothing under way. */
static void finish_group(struct manifest *manifest, int result)
{
    struct manifest_op *op = manifest->op;
    manifest->op = NULL;
    op->done(op, result);
    manifest_go_on(manifest);
}

static void group_written(struct io_op *io_op, int32_t result)
{
    struct manifest *manifest = container_of(io_op, struct manifest, io_op);
    uint32_t blocks = manifest_blocks_of(manifest->count);
    manifest_set_phase(manifest, MANIFEST_IDLE);
    if (result != (int32_t)(blocks * MANIFEST_BLOCK_SIZE)) {
        manifest_fail(manifest, result < 0 ? result : -EIO, "a write to", manifest->path);
        finish_group(manifest, manifest->failed);
        return;
    }
    manifest->used += blocks;
    manifest->is_unsealed = true;
    manifest->groups++;
    finish_group(manifest, 0);
}

static void write_group(struct manifest *manifest)
{
    uint32_t blocks = manifest_blocks_of(manifest->count);
    for (uint32_t i = 0; i < blocks; i++)
        manifest_encode_group(manifest, manifest_tell(manifest), manifest->edits, manifest->count,
                              i, manifest->options.memory + manifest_offset(i));
    manifest_set_phase(manifest, MANIFEST_WRITING);
    manifest->is_unsealed = false; /* should it fail, its begin may lie where the seal was */
    manifest->io_op.done = group_written;
    io_write(manifest->io, &manifest->io_op, manifest->handle, manifest->options.memory,
             blocks * MANIFEST_BLOCK_SIZE, manifest_offset(manifest->used), IO_WRITE_DSYNC);
}

/* ---- a group that finds the manifest failed ---- */

static void refused(struct io_op *io_op, int32_t result)
{
    struct manifest *manifest = container_of(io_op, struct manifest, io_op);
    (void)result;
    manifest_set_phase(manifest, MANIFEST_IDLE);
    finish_group(manifest, manifest->failed);
}

static void refuse(struct manifest *manifest)
{
    manifest_set_phase(manifest, MANIFEST_REFUSING);
    manifest->io_op.done = refused;
    io_timer(manifest->io, &manifest->io_op, io_now_ns(manifest->io));
}

/* ---- the seal ---- */

static void sealed(struct io_op *io_op, int32_t result)
{
    struct manifest *manifest = container_of(io_op, struct manifest, io_op);
    manifest_set_phase(manifest, MANIFEST_IDLE);
    if (result != (int32_t)MANIFEST_BLOCK_SIZE)
        manifest_fail(manifest, result < 0 ? result : -EIO, "a write to", manifest->path);
    manifest_go_on(manifest);
}

static void seal(struct manifest *manifest)
{
    manifest->is_unsealed = false;
    manifest_encode_group(manifest, manifest_tell(manifest), NULL, 0, 0, manifest->options.memory);
    manifest_set_phase(manifest, MANIFEST_SEALING);
    manifest->io_op.done = sealed;
    io_write(manifest->io, &manifest->io_op, manifest->handle, manifest->options.memory,
             MANIFEST_BLOCK_SIZE, manifest_offset(manifest->used), IO_WRITE_DSYNC);
}

/* ---- what is next ---- */

/* Whether the group that waits cannot go into the present file. */
static bool must_rewrite(const struct manifest *manifest)
{
    return manifest->op != NULL && (manifest->has_loss || !fits(manifest));
}

/* A damaged file is left alone until somebody appends. */
static bool has_grown(const struct manifest *manifest)
{
    return !manifest->has_loss &&
           (manifest->is_worn || manifest->size - manifest->used < MANIFEST_RESERVE_BLOCKS);
}

static bool may_be_tried_again(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -ENOMEM;
}

/* There is no room for the group, and no new file. */
static void give_group_back(struct manifest *manifest)
{
    int error = manifest->rewrite_error;
    if (!may_be_tried_again(error))
        manifest_fail(manifest, error, "writing anew", manifest->path);
    finish_group(manifest, error);
}

void manifest_go_on(struct manifest *manifest)
{
    if (manifest->phase != MANIFEST_IDLE)
        return;
    if (manifest->failed != 0) {
        if (manifest->op != NULL)
            refuse(manifest);
    } else if (manifest->rewrite_error == 0 && (must_rewrite(manifest) || has_grown(manifest))) {
        manifest_rewrite(manifest);
    } else if (manifest->op == NULL) {
        if (manifest->is_unsealed && manifest->used < manifest->size)
            seal(manifest);
    } else if (!must_rewrite(manifest)) {
        write_group(manifest);
    } else {
        give_group_back(manifest);
    }
}

void manifest_append(struct manifest *manifest, struct manifest_op *op,
                     const struct manifest_edit *edits, uint32_t count)
{
    assert(manifest->op == NULL);
    assert(op->done != NULL);
    assert(count <= MANIFEST_GROUP_MAX);
    if (count > 0)
        memcpy(manifest->edits, edits, count * sizeof *edits);
    manifest->count = count;
    manifest->op = op;
    if (manifest->phase != MANIFEST_REWRITING)
        manifest->rewrite_error = 0;
    manifest_go_on(manifest);
}

void manifest_renew(struct manifest *manifest)
{
    manifest->is_worn = true;
    if (manifest->phase != MANIFEST_REWRITING)
        manifest->rewrite_error = 0;
    manifest_go_on(manifest);
}

bool manifest_is_busy(const struct manifest *manifest)
{
    return manifest->op != NULL || manifest->phase == MANIFEST_REWRITING;
}

/* ---- the rest ---- */

bool manifest_is_new(const struct manifest *manifest)
{
    return manifest->is_new;
}

bool manifest_has_loss(const struct manifest *manifest)
{
    return manifest->has_loss;
}

struct manifest_mark manifest_tell(const struct manifest *manifest)
{
    return (struct manifest_mark){manifest->salt, manifest->edition, manifest->used};
}

uint64_t manifest_position(const struct manifest *manifest)
{
    return manifest->position;
}

void manifest_stats(const struct manifest *manifest, struct manifest_stats *ret_stats)
{
    *ret_stats = (struct manifest_stats){
        .groups = manifest->groups,
        .rewrites = manifest->rewrites,
        .used = manifest_offset(manifest->used),
        .size = manifest_offset(manifest->size),
    };
}

static int close_handle(struct manifest *manifest, int *handle)
{
    if (*handle < 0)
        return 0;
    struct io_op op = {0};
    io_close_file(manifest->io, &op, *handle);
    *handle = -1;
    return io_wait(manifest->io, &op);
}

int manifest_shut(struct manifest *manifest)
{
    while (manifest->phase != MANIFEST_IDLE) {
        int result = io_run(manifest->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
    int closed = close_handle(manifest, &manifest->handle);
    int closed_directory = close_handle(manifest, &manifest->directory);
    if (manifest->failed != 0)
        return manifest->failed;
    return closed < 0 ? closed : closed_directory;
}

void manifest_free(struct manifest *manifest)
{
    if (manifest == NULL)
        return;
    free(manifest->rewrite.edits);
    free(manifest->edits);
    free(manifest->path);
    free(manifest->path_new);
    free(manifest);
}
