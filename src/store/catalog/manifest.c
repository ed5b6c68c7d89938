/* The manifest while it is open: one group is appended at a time, as one write into blocks that are
 * already there; and now and then the whole state goes into a new file, which then takes the old
 * one's place:
 *
 *   clear -> create -> allocate -> copy ... -> sync -> rename -> sync the name -> close the old one
 *      \________\_________\__________\_______\-> close the new one -> unlink it: the old one goes on
 *
 * Until the rename the old file is the manifest, whatever fails. From the rename on nobody knows
 * which of the two a loss of power leaves, so an error fails the manifest; both say the same then,
 * since no group is written meanwhile.
 *
 * One thing at a time:
 *
 *   IDLE -> WRITING   -> IDLE    a group; then its owner is told
 *        -> SEALING   -> IDLE    an empty group behind the last one, when nothing else is to be done
 *        -> REWRITING -> IDLE    before a group that waits, or when nothing waits
 *        -> REFUSING  -> IDLE    a group, since the manifest failed: its owner is told from the loop
 *
 * Invariants:
 * 1. Phases change as above, with no operation in flight; a group's owner is told in IDLE.
 * 2. used <= size. From `used` on the file has zeros, or a seal and zeros.
 * 3. A group is one write, into blocks that the file has.
 * 4. A new file has a greater edition than the one before it, unless that one was lost.
 * 5. A new file has all of its blocks before it takes the old one's place; only one is made at a time.
 * 6. Once the manifest failed nothing is written any more.
 * 7. After a loss that was accepted the first thing that is written is a new file. */
#include "store/catalog/manifest_file.h"

#include "store/disk/filesystem.h"
#include "store/disk/refusal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_BLOCKS ((MANIFEST_GROUP_MAX + MANIFEST_BLOCK_EDITS - 1) / MANIFEST_BLOCK_EDITS)
#define RESERVE_BLOCKS ((uint32_t)(MANIFEST_RESERVE / MANIFEST_BLOCK_SIZE))

static_assert(GROUP_BLOCKS <= MANIFEST_MEMORY_BLOCKS, "a group is one write");
static_assert(GROUP_BLOCKS < RESERVE_BLOCKS, "a group fits into a new file");

enum phase {
    PHASE_IDLE,
    PHASE_WRITING,
    PHASE_SEALING,
    PHASE_REWRITING,
    PHASE_REFUSING,
};

enum rewrite_step {
    REWRITE_CLEAR,
    REWRITE_CREATE,
    REWRITE_ALLOCATE,
    REWRITE_COPY,
    REWRITE_SYNC,
    REWRITE_RENAME,
    REWRITE_SYNC_NAME,
    REWRITE_CLOSE, /* the old file, or the new one */
    REWRITE_UNLINK,
};

struct rewrite {
    enum rewrite_step step;
    int handle; /* < 0: not open */
    uint64_t salt;
    uint64_t edition;
    struct manifest_edit *edits; /* the whole state */
    uint64_t count;
    uint64_t capacity;
    uint32_t needed; /* blocks of the state */
    uint32_t size;   /* blocks of the file */
    uint32_t written;
    uint32_t writing; /* blocks in flight */
};

struct manifest {
    struct manifest_file file;
    bool is_new;
    bool is_lost;     /* a file is being made in place of one that is gone */
    bool is_worn;     /* the file is to be written anew */
    bool is_unsealed; /* a group was written behind which there is no seal */
    int failed;
    enum phase phase;
    struct io_op io_op;     /* of whatever is under way */
    struct manifest_op *op; /* the group's owner; NULL: no group */
    uint32_t count;
    int rewrite_error; /* of the last attempt, since the last append */
    struct rewrite rewrite;
    struct manifest_edit edits[MANIFEST_GROUP_MAX]; /* of the group */
};

/* Into the phase from IDLE, or from it to IDLE. */
static void set_phase(struct manifest *manifest, enum phase phase)
{
    assert((manifest->phase == PHASE_IDLE) != (phase == PHASE_IDLE)); /* invariant 1 */
    assert(!io_op_is_active(&manifest->io_op));                       /* invariant 1 */
    assert(manifest->file.used <= manifest->file.size);               /* invariant 2 */
    manifest->phase = phase;
}

/* The device failed: nothing that is not durable now ever will be. */
static void fail(struct manifest *manifest, int error, const char *what, const char *path)
{
    assert(error < 0);
    assert(manifest->failed == 0);
    manifest->failed = error;
    log_error(manifest->file.log,
              "%s %s failed: %s; the manifest takes no more until the next start", what, path,
              strerror(-error));
}

/* Starts what is to be done next, when nothing is under way. */
static void go_on(struct manifest *manifest);

/* ---- a group ---- */

/* `done` may append again, and must find nothing under way. */
static void finish_group(struct manifest *manifest, int result)
{
    struct manifest_op *op = manifest->op;
    assert(manifest->phase == PHASE_IDLE); /* invariant 1 */
    assert(op != NULL);
    manifest->op = NULL;
    op->done(op, result);
    go_on(manifest);
}

static void written(struct io_op *io_op, int32_t result)
{
    struct manifest *manifest = container_of(io_op, struct manifest, io_op);
    bool is_seal = manifest->phase == PHASE_SEALING;
    uint32_t blocks = is_seal ? 1 : manifest_blocks_of(manifest->count);
    set_phase(manifest, PHASE_IDLE);
    if (result != (int32_t)(blocks * MANIFEST_BLOCK_SIZE))
        fail(manifest, result < 0 ? result : -EIO, "a write to", manifest->file.path);
    else if (!is_seal)
        manifest->file.used += blocks;
    assert(manifest->file.used <= manifest->file.size); /* invariant 2 */
    manifest->is_unsealed = !is_seal && manifest->failed == 0;
    if (is_seal)
        go_on(manifest);
    else
        finish_group(manifest, manifest->failed);
}

/* Writes a group, or the seal: one without edits, behind which the next one does not go. */
static void write_group(struct manifest *manifest, enum phase phase,
                        const struct manifest_edit *edits, uint32_t count)
{
    uint32_t blocks = manifest_blocks_of(count);
    assert(blocks <= manifest->file.size - manifest->file.used); /* invariant 3 */
    assert(manifest->failed == 0);                               /* invariant 6 */
    assert(!manifest->file.has_loss);                            /* invariant 7 */
    for (uint32_t i = 0; i < blocks; i++)
        manifest_file_encode(&manifest->file, manifest_tell(manifest), edits, count, i,
                             manifest->file.options.memory + manifest_offset(i));
    set_phase(manifest, phase);
    manifest->is_unsealed = false; /* should it fail, its begin may lie where the seal was */
    manifest->io_op.done = written;
    io_write(manifest->file.io, &manifest->io_op, manifest->file.handle,
             manifest->file.options.memory, blocks * MANIFEST_BLOCK_SIZE,
             manifest_offset(manifest->file.used), IO_WRITE_DSYNC);
}

/* ---- a group that finds the manifest failed ---- */

static void refused(struct io_op *io_op, int32_t result)
{
    struct manifest *manifest = container_of(io_op, struct manifest, io_op);
    (void)result;
    set_phase(manifest, PHASE_IDLE);
    finish_group(manifest, manifest->failed);
}

static void refuse(struct manifest *manifest)
{
    assert(manifest->failed < 0);
    set_phase(manifest, PHASE_REFUSING);
    manifest->io_op.done = refused;
    io_timer(manifest->file.io, &manifest->io_op, io_now_ns(manifest->file.io));
}

/* ---- a new file: its state ---- */

static int reserve_edit(struct rewrite *rewrite)
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
    struct rewrite *rewrite = &manifest->rewrite;
    bool is_more = manifest->file.handle >= 0;
    while (is_more) {
        int error = reserve_edit(rewrite);
        if (error < 0)
            return error;
        is_more = manifest->file.options.snapshot(manifest->file.options.context, rewrite->count,
                                                  &rewrite->edits[rewrite->count]);
        rewrite->count += is_more;
    }
    rewrite->needed = manifest_blocks_of(rewrite->count);
    uint32_t limit = (uint32_t)(MANIFEST_SIZE_MAX / MANIFEST_BLOCK_SIZE);
    rewrite->size = (uint32_t)max_u64(limit, 2 * (uint64_t)rewrite->needed) + RESERVE_BLOCKS;
    return 0;
}

/* ---- a new file: its steps ---- */

static void step_done(struct io_op *op, int32_t result);

static void enter(struct manifest *manifest, enum rewrite_step step)
{
    struct io *io = manifest->file.io;
    struct io_op *op = &manifest->io_op;
    struct rewrite *rewrite = &manifest->rewrite;
    assert(manifest->phase == PHASE_REWRITING); /* invariant 5 */
    rewrite->step = step;
    op->done = step_done;
    switch (step) {
    case REWRITE_CLEAR:
    case REWRITE_UNLINK:
        io_unlink(io, op, manifest->file.path_new);
        break;
    case REWRITE_CREATE:
        io_open_file(io, op, manifest->file.path_new,
                     IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE | IO_OPEN_DIRECT);
        break;
    case REWRITE_ALLOCATE:
        io_allocate(io, op, rewrite->handle, manifest_offset(rewrite->size));
        break;
    case REWRITE_COPY:
        io_write(io, op, rewrite->handle, manifest->file.options.memory,
                 rewrite->writing * MANIFEST_BLOCK_SIZE, manifest_offset(rewrite->written),
                 IO_WRITE_PLAIN);
        break;
    case REWRITE_SYNC:
        io_sync(io, op, rewrite->handle);
        break;
    case REWRITE_RENAME:
        io_rename(io, op, manifest->file.path_new, manifest->file.path);
        break;
    case REWRITE_SYNC_NAME:
        io_sync(io, op, manifest->file.directory);
        break;
    case REWRITE_CLOSE:
        io_close_file(io, op, rewrite->handle);
        break;
    }
}

static void end(struct manifest *manifest)
{
    assert(manifest->phase == PHASE_REWRITING); /* invariant 5 */
    free(manifest->rewrite.edits);
    manifest->rewrite = (struct rewrite){.handle = -1};
    set_phase(manifest, PHASE_IDLE);
    go_on(manifest);
}

/* The old file stays. */
static void give_up(struct manifest *manifest, int error)
{
    manifest->rewrite_error = error;
    if (manifest->file.handle < 0)
        (void)filesystem_cannot(manifest->file.log, "write", manifest->file.path_new, error);
    else
        log_warn(manifest->file.log,
                 "cannot write %s: %s; %s is used further, which has room for %" PRIu32 " KiB",
                 manifest->file.path_new, strerror(-error), manifest->file.path,
                 (uint32_t)(manifest_offset(manifest->file.size - manifest->file.used) / KIB));
    enter(manifest, manifest->rewrite.handle < 0 ? REWRITE_UNLINK : REWRITE_CLOSE);
}

/* The new file is the manifest, and the old one has no name. */
static void take_over(struct manifest *manifest)
{
    struct rewrite *rewrite = &manifest->rewrite;
    int old = manifest->file.handle;
    assert(rewrite->written == rewrite->size);                              /* invariant 5 */
    assert(rewrite->edition > manifest->file.edition || manifest->is_lost); /* invariant 4 */
    manifest->file.handle = rewrite->handle;
    manifest->file.salt = rewrite->salt;
    manifest->file.edition = rewrite->edition;
    manifest->file.used = rewrite->needed;
    manifest->file.size = rewrite->size;
    manifest->is_unsealed = false; /* the first group needs no proof */
    manifest->is_worn = false;
    manifest->file.has_loss = false;
    rewrite->handle = old;
    if (old < 0)
        end(manifest);
    else
        enter(manifest, REWRITE_CLOSE);
}

static uint64_t next_edition(const struct manifest *manifest)
{
    const struct manifest_options *options = &manifest->file.options;
    uint64_t known = max_u64(options->known.closed.edition, options->known.seen.edition);
    return 1 + max_u64(known, manifest->file.edition);
}

/* The next blocks of the group, then of zeros up to the file's end: real ones, so that an append
 * changes nothing but them. */
static void copy(struct manifest *manifest)
{
    struct rewrite *rewrite = &manifest->rewrite;
    struct manifest_mark begin = {.salt = rewrite->salt, .edition = rewrite->edition};
    rewrite->writing = (uint32_t)min_u64(rewrite->size - rewrite->written, MANIFEST_MEMORY_BLOCKS);
    for (uint32_t i = 0; i < rewrite->writing; i++) {
        uint32_t index = rewrite->written + i;
        uint8_t *target = manifest->file.options.memory + manifest_offset(i);
        if (index < rewrite->needed)
            manifest_file_encode(&manifest->file, begin, rewrite->edits, rewrite->count, index,
                                 target);
        else
            memset(target, 0, MANIFEST_BLOCK_SIZE);
    }
    enter(manifest, rewrite->writing > 0 ? REWRITE_COPY : REWRITE_SYNC);
}

/* What the completed operation of the step changed. Errors: what ends the rewriting. */
static int take_result(struct manifest *manifest, int32_t result)
{
    struct rewrite *rewrite = &manifest->rewrite;
    switch (rewrite->step) {
    case REWRITE_CLEAR:
        return result == -ENOENT ? 0 : result;
    case REWRITE_CREATE:
        rewrite->handle = result;
        rewrite->edition = manifest->is_lost ? 0 : next_edition(manifest);
        while (rewrite->salt == 0 || rewrite->salt == manifest->file.salt)
            io_random(manifest->file.io, &rewrite->salt, sizeof rewrite->salt);
        return result < 0 ? result : take_snapshot(manifest);
    case REWRITE_ALLOCATE:
        return result == -EOPNOTSUPP ? 0 : result;
    case REWRITE_COPY:
        if (result != (int32_t)(rewrite->writing * MANIFEST_BLOCK_SIZE))
            return result < 0 ? result : -EIO;
        rewrite->written += rewrite->writing;
        assert(rewrite->written <= rewrite->size); /* invariant 5 */
        return 0;
    default:
        return result;
    }
}

static void step_done(struct io_op *op, int32_t result)
{
    struct manifest *manifest = container_of(op, struct manifest, io_op);
    struct rewrite *rewrite = &manifest->rewrite;
    enum rewrite_step step = rewrite->step;
    uint32_t least = rewrite->needed + RESERVE_BLOCKS;
    int error = take_result(manifest, result);
    if (step == REWRITE_ALLOCATE && error == -ENOSPC && rewrite->size > least) {
        /* On a full disk what frees space needs a manifest that takes its groups: a small one does.
         */
        rewrite->size = least;
        enter(manifest, REWRITE_ALLOCATE);
    } else if (step < REWRITE_RENAME && error < 0) {
        give_up(manifest, error);
    } else if (step == REWRITE_ALLOCATE || step == REWRITE_COPY) {
        copy(manifest);
    } else if (step < REWRITE_RENAME) {
        enter(manifest, step + 1);
    } else if (step == REWRITE_RENAME) {
        if (error < 0)
            fail(manifest, error, "renaming", manifest->file.path_new);
        enter(manifest, error < 0 ? REWRITE_CLOSE : REWRITE_SYNC_NAME);
    } else if (step == REWRITE_SYNC_NAME) {
        if (error < 0)
            fail(manifest, error, "a sync of the folder of", manifest->file.path);
        take_over(manifest);
    } else if (step == REWRITE_CLOSE && manifest->rewrite_error != 0) {
        enter(manifest, REWRITE_UNLINK);
    } else {
        end(manifest); /* a leftover is cleared by whoever tries next */
    }
}

/* An error that leaves the old file in its place is in rewrite_error, any other one fails the
 * manifest. */
static void rewrite_file(struct manifest *manifest)
{
    assert(manifest->rewrite.handle < 0);    /* invariant 5 */
    assert(manifest->rewrite.edits == NULL); /* invariant 5 */
    assert(manifest->failed == 0);           /* invariant 6 */
    set_phase(manifest, PHASE_REWRITING);
    enter(manifest, REWRITE_CLEAR);
}

/* ---- what is next ---- */

/* Whether the group that waits cannot go into the present file. */
static bool must_rewrite(const struct manifest *manifest)
{
    uint32_t room = manifest->file.size - manifest->file.used;
    return manifest->op != NULL &&
           (manifest->file.has_loss || manifest_blocks_of(manifest->count) > room);
}

/* A damaged file is left alone until somebody appends. */
static bool has_grown(const struct manifest *manifest)
{
    return !manifest->file.has_loss &&
           (manifest->is_worn || manifest->file.size - manifest->file.used < RESERVE_BLOCKS);
}

/* There is no room for the group, and no new file. */
static void give_group_back(struct manifest *manifest)
{
    int error = manifest->rewrite_error;
    if (!refusal_may_pass(error))
        fail(manifest, error, "writing anew", manifest->file.path);
    finish_group(manifest, error);
}

static void go_on(struct manifest *manifest)
{
    if (manifest->phase != PHASE_IDLE)
        return;
    if (manifest->failed != 0) {
        if (manifest->op != NULL)
            refuse(manifest);
    } else if (manifest->rewrite_error == 0 && (must_rewrite(manifest) || has_grown(manifest))) {
        rewrite_file(manifest);
    } else if (manifest->op == NULL) {
        if (manifest->is_unsealed && manifest->file.used < manifest->file.size)
            write_group(manifest, PHASE_SEALING, NULL, 0);
    } else if (!must_rewrite(manifest)) {
        write_group(manifest, PHASE_WRITING, manifest->edits, manifest->count);
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
    if (manifest->phase != PHASE_REWRITING)
        manifest->rewrite_error = 0;
    go_on(manifest);
}

void manifest_renew(struct manifest *manifest)
{
    manifest->is_worn = true;
    if (manifest->phase != PHASE_REWRITING)
        manifest->rewrite_error = 0;
    go_on(manifest);
}

bool manifest_is_busy(const struct manifest *manifest)
{
    return manifest->op != NULL || manifest->phase == PHASE_REWRITING;
}

/* Waits until nothing is under way. Errors: io_run's. */
static int settle(struct manifest *manifest)
{
    int result = 0;
    while (manifest->phase != PHASE_IDLE && result >= 0)
        result = io_run(manifest->file.io, UINT64_MAX);
    return result < 0 ? result : 0;
}

/* ---- the rest ---- */

bool manifest_is_new(const struct manifest *manifest)
{
    return manifest->is_new;
}

bool manifest_has_loss(const struct manifest *manifest)
{
    return manifest->file.has_loss;
}

struct manifest_mark manifest_tell(const struct manifest *manifest)
{
    return (struct manifest_mark){manifest->file.salt, manifest->file.edition, manifest->file.used};
}

uint64_t manifest_position(const struct manifest *manifest)
{
    return manifest->file.position;
}

int manifest_shut(struct manifest *manifest)
{
    int result = settle(manifest);
    if (result < 0)
        return result;
    result = manifest_file_close(&manifest->file);
    return manifest->failed != 0 ? manifest->failed : result;
}

void manifest_free(struct manifest *manifest)
{
    if (manifest == NULL)
        return;
    free(manifest->rewrite.edits);
    manifest_file_free(&manifest->file);
    free(manifest);
}

/* ---- opening ---- */

/* Where the log or segments tell that there was one, nothing is made in its place before the operator
 * has said so, and then one that is older than what is known, so that only the first append settles
 * the matter. */
static int make_file(struct manifest *manifest)
{
    const struct manifest_options *options = &manifest->file.options;
    int segments = options->has_segments == NULL ? 0 : options->has_segments(options->context);
    if (segments < 0)
        return segments;
    const char *remedy = manifest_judge_missing(&options->known, segments > 0);
    bool was_there = remedy != NULL;
    if (was_there && !options->accept_loss) {
        log_error(manifest->file.log, "%s: %s; nothing was changed", manifest->file.path, remedy);
        return -EBADMSG;
    }
    manifest->is_new = true;
    manifest->is_lost = was_there;
    rewrite_file(manifest);
    int result = settle(manifest);
    if (result == 0)
        result = manifest->failed != 0 ? manifest->failed : manifest->rewrite_error;
    manifest->file.has_loss = was_there;
    manifest->is_lost = false;
    return result;
}

int manifest_open(struct io *io, const struct log *log, const struct manifest_options *options,
                  manifest_each *each, void *each_context, struct manifest **ret_manifest)
{
    assert(options->snapshot != NULL);
    assert(options->position != NULL);
    assert((uintptr_t)options->memory % MANIFEST_BLOCK_SIZE == 0);
    struct manifest *manifest = calloc(1, sizeof *manifest);
    if (manifest == NULL) {
        return filesystem_cannot(log, "open the manifest of", options->path, -ENOMEM);
    }
    manifest->rewrite.handle = -1;
    int result = manifest_file_open(io, log, options, each, each_context, &manifest->file);
    if (result > 0)
        result = make_file(manifest);
    if (result < 0) {
        (void)manifest_file_close(&manifest->file);
        manifest_free(manifest);
        return result;
    }
    *ret_manifest = manifest;
    return 0;
}
