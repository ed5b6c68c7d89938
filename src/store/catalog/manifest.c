/* The manifest while it is open: one group is appended at a time, as one write into blocks that are
 * already there; and now and then the whole state goes into a new file, which then takes the old
 * one's place:
 *
 *   clear -> create -> allocate -> copy ... -> sync -> rename -> sync the name -> close the old one
 *      \________\_________\__________\_______\-> close the new one -> unlink it: the old one goes on
 *
 * Until the rename the old file is the manifest, whatever fails. From the rename on nobody knows
 * which of the two a loss of power leaves, so an error fails the manifest; both say the same then,
 * since no group is written meanwhile. */
#include "store/catalog/manifest_internal.h"

#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Into the phase from IDLE, or from it to IDLE. */
static void set_phase(struct manifest *manifest, enum manifest_phase phase)
{
    assert((manifest->phase == MANIFEST_IDLE) != (phase == MANIFEST_IDLE)); /* invariant 1 */
    assert(!io_op_is_active(&manifest->io_op));                             /* invariant 1 */
    assert(manifest->used <= manifest->size);                               /* invariant 2 */
    manifest->phase = phase;
}

/* The device failed: nothing that is not durable now ever will be. */
static void fail(struct manifest *manifest, int error, const char *what, const char *path)
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

/* Encodes block `index` of the group of `count` edits, which begins at `mark`: behind its blocks. */
static void encode_group(const struct manifest *manifest, struct manifest_mark mark,
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
        .sequence = mark.blocks + index + 1,
        .salt = mark.salt,
        .edition = mark.edition,
        .position = position_now(manifest),
        .count = (uint32_t)min_u64(count - from, MANIFEST_BLOCK_EDITS),
    };
    if (block.count > 0)
        memcpy(block.edits, edits + from, block.count * sizeof *edits);
    manifest_block_encode(&block, target);
}

/* Starts what is to be done next, when nothing is under way. */
static void go_on(struct manifest *manifest);

/* ---- a group ---- */

static bool fits(const struct manifest *manifest)
{
    return manifest_blocks_of(manifest->count) <= manifest->size - manifest->used;
}

/* `done` may append again, and must find nothing under way. */
static void finish_group(struct manifest *manifest, int result)
{
    struct manifest_op *op = manifest->op;
    assert(manifest->phase == MANIFEST_IDLE); /* invariant 1 */
    assert(op != NULL);
    manifest->op = NULL;
    op->done(op, result);
    go_on(manifest);
}

static void group_written(struct io_op *io_op, int32_t result)
{
    struct manifest *manifest = container_of(io_op, struct manifest, io_op);
    uint32_t blocks = manifest_blocks_of(manifest->count);
    set_phase(manifest, MANIFEST_IDLE);
    if (result != (int32_t)(blocks * MANIFEST_BLOCK_SIZE)) {
        fail(manifest, result < 0 ? result : -EIO, "a write to", manifest->path);
        finish_group(manifest, manifest->failed);
        return;
    }
    manifest->used += blocks;
    assert(manifest->used <= manifest->size); /* invariant 2 */
    manifest->is_unsealed = true;
    manifest->groups++;
    finish_group(manifest, 0);
}

static void write_group(struct manifest *manifest)
{
    uint32_t blocks = manifest_blocks_of(manifest->count);
    assert(blocks <= manifest->size - manifest->used); /* invariant 3 */
    assert(manifest->failed == 0);                     /* invariant 6 */
    assert(!manifest->has_loss);                       /* invariant 7 */
    for (uint32_t i = 0; i < blocks; i++)
        encode_group(manifest, manifest_tell(manifest), manifest->edits, manifest->count, i,
                     manifest->options.memory + manifest_offset(i));
    set_phase(manifest, MANIFEST_WRITING);
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
    set_phase(manifest, MANIFEST_IDLE);
    finish_group(manifest, manifest->failed);
}

static void refuse(struct manifest *manifest)
{
    assert(manifest->failed < 0);
    set_phase(manifest, MANIFEST_REFUSING);
    manifest->io_op.done = refused;
    io_timer(manifest->io, &manifest->io_op, io_now_ns(manifest->io));
}

/* ---- the seal ---- */

static void sealed(struct io_op *io_op, int32_t result)
{
    struct manifest *manifest = container_of(io_op, struct manifest, io_op);
    set_phase(manifest, MANIFEST_IDLE);
    if (result != (int32_t)MANIFEST_BLOCK_SIZE)
        fail(manifest, result < 0 ? result : -EIO, "a write to", manifest->path);
    go_on(manifest);
}

static void seal(struct manifest *manifest)
{
    assert(manifest->used < manifest->size); /* invariant 2 */
    assert(manifest->failed == 0);           /* invariant 6 */
    manifest->is_unsealed = false;
    encode_group(manifest, manifest_tell(manifest), NULL, 0, 0, manifest->options.memory);
    set_phase(manifest, MANIFEST_SEALING);
    manifest->io_op.done = sealed;
    io_write(manifest->io, &manifest->io_op, manifest->handle, manifest->options.memory,
             MANIFEST_BLOCK_SIZE, manifest_offset(manifest->used), IO_WRITE_DSYNC);
}

/* ---- a new file: its state ---- */

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

/* ---- a new file: the ends ---- */

static void end(struct manifest *manifest)
{
    assert(manifest->phase == MANIFEST_REWRITING); /* invariant 5 */
    free(manifest->rewrite.edits);
    manifest->rewrite = (struct manifest_rewrite){.handle = -1};
    set_phase(manifest, MANIFEST_IDLE);
    go_on(manifest);
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
    assert(manifest->phase == MANIFEST_REWRITING);                     /* invariant 5 */
    assert(rewrite->written == rewrite->size);                         /* invariant 5 */
    assert(rewrite->edition > manifest->edition || manifest->is_lost); /* invariant 4 */
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

/* ---- a new file: the way there ---- */

static void name_synced(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    if (result < 0)
        fail(manifest, result, "a sync of the folder of", manifest->path);
    take_over(manifest);
}

static void renamed(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    if (result < 0) {
        fail(manifest, result, "renaming", manifest->path_new);
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
    struct manifest_mark begin = {.salt = rewrite->salt, .edition = rewrite->edition};
    for (uint32_t i = 0; i < blocks; i++) {
        uint8_t *target = manifest->options.memory + manifest_offset(i);
        if (rewrite->written + i < rewrite->needed)
            encode_group(manifest, begin, rewrite->edits, rewrite->count, rewrite->written + i,
                         target);
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
    assert(rewrite->written <= rewrite->size); /* invariant 5 */
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

/* An error that leaves the old file in its place is in rewrite_error, any other one fails the
 * manifest. */
static void rewrite_file(struct manifest *manifest)
{
    assert(manifest->rewrite.handle < 0);    /* invariant 5 */
    assert(manifest->rewrite.edits == NULL); /* invariant 5 */
    assert(manifest->failed == 0);           /* invariant 6 */
    set_phase(manifest, MANIFEST_REWRITING);
    manifest->io_op.done = cleared;
    io_unlink(manifest->io, &manifest->io_op, manifest->path_new);
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
        fail(manifest, error, "writing anew", manifest->path);
    finish_group(manifest, error);
}

static void go_on(struct manifest *manifest)
{
    if (manifest->phase != MANIFEST_IDLE)
        return;
    if (manifest->failed != 0) {
        if (manifest->op != NULL)
            refuse(manifest);
    } else if (manifest->rewrite_error == 0 && (must_rewrite(manifest) || has_grown(manifest))) {
        rewrite_file(manifest);
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
    go_on(manifest);
}

void manifest_renew(struct manifest *manifest)
{
    manifest->is_worn = true;
    if (manifest->phase != MANIFEST_REWRITING)
        manifest->rewrite_error = 0;
    go_on(manifest);
}

bool manifest_is_busy(const struct manifest *manifest)
{
    return manifest->op != NULL || manifest->phase == MANIFEST_REWRITING;
}

/* Waits until nothing is under way. Errors: io_run's. */
static int settle(struct manifest *manifest)
{
    int result = 0;
    while (manifest->phase != MANIFEST_IDLE && result >= 0)
        result = io_run(manifest->io, UINT64_MAX);
    return result < 0 ? result : 0;
}

int manifest_write_first(struct manifest *manifest)
{
    assert(manifest->handle < 0);
    rewrite_file(manifest);
    int result = settle(manifest);
    if (result < 0)
        return result;
    return manifest->failed != 0 ? manifest->failed : manifest->rewrite_error;
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
    int result = *handle >= 0 ? disk_wait_close(manifest->io, *handle) : 0;
    *handle = -1;
    return result;
}

int manifest_close_files(struct manifest *manifest)
{
    int closed = close_handle(manifest, &manifest->handle);
    int closed_directory = close_handle(manifest, &manifest->directory);
    return closed < 0 ? closed : closed_directory;
}

int manifest_shut(struct manifest *manifest)
{
    int result = settle(manifest);
    if (result < 0)
        return result;
    result = manifest_close_files(manifest);
    return manifest->failed != 0 ? manifest->failed : result;
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
