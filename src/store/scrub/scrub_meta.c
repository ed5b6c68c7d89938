/* What a directory is lost without, once a pass, before all else: the superblock's two copies, the
 * manifest, and the checkpoint that counts. What they say is in memory, so that what is damaged is
 * written anew at once:
 *
 *   superblock   the damaged copy alone, in its place: the good one stays as it is
 *   manifest     the whole state into a new file (manifest_renew)
 *   checkpoint   another one (scrub_owner.replace_checkpoint)
 *
 *   OPENING -> READING <-> CHECKING -> CLOSING -> the next file
 *                 ^-- MENDING <-| (a copy of the superblock)
 *
 * The manifest grows and is replaced while it is read: what is judged is what was durable when it
 * was opened, and nothing is said of a file that was replaced meanwhile. */
#include "store/scrub/scrub_meta.h"

#include "base/assert.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BLOCK ((uint32_t)DISK_BLOCK_SIZE)

static const struct superblock *superblock_now(const struct scrub_meta *meta)
{
    return &meta->options->superblock->now;
}

static uint64_t checkpoint_now(const struct scrub_meta *meta)
{
    return meta->options->owner.checkpoint(meta->options->owner.context);
}

/* ---- which file ---- */

static int name_file(struct scrub_meta *meta)
{
    const char *folder = meta->options->state_path;
    size_t size = sizeof meta->path;
    if (meta->kind == FINDING_CHECKPOINT)
        return checkpoint_path(folder, meta->number, false, meta->path);
    int length =
        meta->kind == FINDING_SUPERBLOCK
            ? snprintf(meta->path, size, "%s/superblock", folder)
            : snprintf(meta->path, size, "%s/manifest-%" PRIu32, folder, meta->options->shard);
    return length > 0 && (size_t)length < size ? 0 : -ENAMETOOLONG;
}

/* How much of it counts. Returns false: nothing, just now. */
static bool take_file(struct scrub_meta *meta)
{
    struct manifest *manifest = meta->options->manifest;
    meta->at = 0;
    meta->refused_at = UINT64_MAX;
    meta->is_bad = false;
    meta->number = 0;
    meta->end = (uint64_t)SUPERBLOCK_COPIES * BLOCK;
    if (meta->kind == FINDING_MANIFEST) {
        /* A damaged one whose loss was accepted is written anew with the first append. */
        if (manifest_is_busy(manifest) || manifest_has_loss(manifest))
            return false;
        meta->groups.mark = manifest_tell(manifest);
        meta->number = meta->groups.mark.edition;
        meta->end = meta->groups.mark.blocks * MANIFEST_BLOCK_SIZE;
    }
    if (meta->kind == FINDING_CHECKPOINT) {
        meta->number = checkpoint_now(meta);
        meta->end = UINT64_MAX; /* the file's own, once it is open */
    }
    return meta->kind != FINDING_CHECKPOINT || meta->number != 0;
}

/* Whether what is read is still the file that counts. */
static bool is_same_file(const struct scrub_meta *meta)
{
    const struct manifest *manifest = meta->options->manifest;
    if (meta->kind == FINDING_MANIFEST)
        return !manifest_is_busy(manifest) &&
               manifest_tell(manifest).salt == meta->groups.mark.salt;
    return meta->kind == FINDING_SUPERBLOCK || checkpoint_now(meta) == meta->number;
}

static void next_kind(struct scrub_meta *meta)
{
    assert(meta->handle < 0);
    bool is_last = meta->kind == FINDING_CHECKPOINT;
    meta->step = is_last ? SCRUB_META_OVER : SCRUB_META_OPENING;
    meta->kind += !is_last;
}

void scrub_meta_init(struct scrub_meta *meta, struct io *io, const struct log *log,
                     const struct scrub_options *options, struct scrub_rate *rate,
                     struct findings *findings)
{
    *meta = (struct scrub_meta){.io = io,
                                .log = log,
                                .options = options,
                                .rate = rate,
                                .findings = findings,
                                .step = SCRUB_META_OVER,
                                .handle = -1,
                                .groups = {.directory_id = options->directory_id},
                                .window = {.data = options->memory},
                                .buffer = options->memory + SCRUB_WINDOW_SIZE};
}

void scrub_meta_begin(struct scrub_meta *meta)
{
    assert(meta->step == SCRUB_META_OVER);
    meta->kind = FINDING_SUPERBLOCK;
    meta->step = SCRUB_META_OPENING;
}

/* ---- damage ---- */

static void mended(struct io_op *op, int32_t result)
{
    struct scrub_meta *meta = container_of(op, struct scrub_meta, op);
    meta->step = SCRUB_META_READING;
    if (result == (int32_t)BLOCK)
        findings_mended(meta->findings, meta->at);
    else
        log_error(meta->log, "%s: its damaged copy cannot be written anew: %s", meta->path,
                  strerror(result < 0 ? -result : EIO));
    meta->at += BLOCK;
}

static uint64_t sequence_of_copy(const struct superblock *now, uint64_t offset)
{
    bool is_current = now->sequence % SUPERBLOCK_COPIES == offset / BLOCK;
    return is_current ? now->sequence : now->sequence - 1;
}

static void mend_copy(struct scrub_meta *meta)
{
    struct superblock copy = *superblock_now(meta);
    copy.sequence = sequence_of_copy(&copy, meta->at);
    superblock_encode(&copy, meta->buffer);
    meta->op.done = mended;
    io_write(meta->io, &meta->op, meta->options->superblock->handle, meta->buffer, BLOCK, meta->at,
             IO_WRITE_DSYNC);
}

static void note_bad(struct scrub_meta *meta, const char *what)
{
    struct finding finding = {
        .kind = (uint8_t)meta->kind, .number = meta->number, .offset = meta->at};
    assert(meta->kind <= FINDING_CHECKPOINT);
    findings_damage(meta->findings, &finding, true,
                    "%s is damaged at offset %" PRIu64
                    ": %s. Nothing is lost: it is written anew from memory. Check the device",
                    meta->path, meta->at, what);
    if (meta->kind == FINDING_SUPERBLOCK) {
        meta->step = SCRUB_META_MENDING;
        return;
    }
    meta->is_bad = true; /* one place is enough: all of it is written anew */
    if (meta->kind == FINDING_MANIFEST)
        manifest_renew(meta->options->manifest);
    else
        meta->options->owner.replace_checkpoint(meta->options->owner.context);
}

static struct finding whole_file(const struct scrub_meta *meta)
{
    return (struct finding){.kind = (uint8_t)meta->kind, .number = meta->number};
}

/* Which says nothing of what is in it; one that was replaced meanwhile is gone. */
static void note_unreadable(struct scrub_meta *meta, int error)
{
    struct finding finding = whole_file(meta);
    findings_incomplete(meta->findings);
    if (error != -ENOENT)
        findings_unreadable(meta->findings, &finding, meta->path, error);
}

void scrub_meta_settle(struct scrub_meta *meta)
{
    findings_settle(meta->findings, manifest_tell(meta->options->manifest).edition,
                    checkpoint_now(meta));
}

/* ---- what is in the window ---- */

/* Each judges what lies at meta->at. NULL: it is sound. */
static const char *judge_copy(const struct scrub_meta *meta, const uint8_t *data)
{
    struct superblock found;
    const struct superblock *now = superblock_now(meta);
    if (superblock_decode(data, &found) != 0)
        return "this copy is corrupt";
    bool is_written = found.directory_id == now->directory_id &&
                      found.sequence == sequence_of_copy(now, meta->at);
    return is_written ? NULL : "this copy is not the one that was written";
}

static const char *judge_manifest_block(const struct scrub_meta *meta, const uint8_t *data)
{
    struct manifest_block block;
    if (manifest_block_decode(data, &block) < 0)
        return "a block is corrupt";
    uint32_t index = (uint32_t)(meta->at / MANIFEST_BLOCK_SIZE);
    return manifest_groups_have(&meta->groups, index, &block)
               ? NULL
               : "a block is not the one that was written there";
}

static const char *judge_checkpoint_block(struct scrub_meta *meta, const uint8_t *data,
                                          uint32_t *size)
{
    struct checkpoint_block block;
    if (checkpoint_block_decode(data, *size, &block) < 0)
        return "a block is corrupt";
    *size = block.size;
    int error = checkpoint_order_take(&meta->order, &block, data, meta->at + block.size);
    return error < 0 ? meta->order.what : NULL;
}

/* Of the `size` bytes at `data`, the first block, whose size *size becomes. */
static const char *judge(struct scrub_meta *meta, const uint8_t *data, uint32_t *size)
{
    if (*size < BLOCK)
        return "the file ends before";
    if (meta->kind == FINDING_CHECKPOINT)
        return judge_checkpoint_block(meta, data, size);
    *size = BLOCK;
    return meta->kind == FINDING_MANIFEST ? judge_manifest_block(meta, data)
                                          : judge_copy(meta, data);
}

/* The block at meta->at. Returns its size. */
static uint32_t check_block(struct scrub_meta *meta)
{
    const struct scrub_window *window = &meta->window;
    uint64_t within = meta->at - window->offset;
    assert(within <= window->asked);
    uint32_t size = within < window->size ? window->size - (uint32_t)within : 0;
    const char *problem = judge(meta, window->data + within, &size);
    if (problem == NULL)
        meta->at += size;
    else if (is_same_file(meta))
        note_bad(meta, problem);
    else
        meta->is_bad = true; /* it was replaced: the new one is for the next pass */
    return size > BLOCK ? size : BLOCK;
}

/* Nothing of the window could be read. */
static void take_error(struct scrub_meta *meta)
{
    bool is_device = disk_is_device_error(meta->window.error);
    if (is_device && meta->refused_at != meta->at) {
        meta->refused_at = meta->at; /* once more */
        meta->step = SCRUB_META_READING;
        return;
    }
    if (is_device && is_same_file(meta)) {
        note_bad(meta, strerror(-meta->window.error));
        return;
    }
    note_unreadable(meta, meta->window.error);
    meta->is_bad = true;
}

static void check_window(struct scrub_meta *meta, uint64_t budget)
{
    const struct scrub_window *window = &meta->window;
    uint64_t used = 0;
    if (window->error < 0)
        take_error(meta);
    while (meta->step == SCRUB_META_CHECKING && !meta->is_bad && used < budget) {
        if (meta->at >= meta->end) {
            if (meta->kind == FINDING_CHECKPOINT && meta->order.kind != CHECKPOINT_END)
                note_bad(meta, "it has no end");
            meta->is_bad = true;
        } else if (meta->at >= window->offset + window->asked) {
            meta->step = SCRUB_META_READING;
        } else {
            used += check_block(meta);
        }
    }
    if (meta->is_bad)
        meta->step = SCRUB_META_CLOSING;
}

/* ---- opening, reading, closing ---- */

static void opened(struct io_op *op, int32_t result)
{
    struct scrub_meta *meta = container_of(op, struct scrub_meta, op);
    meta->handle = result;
    meta->step = SCRUB_META_READING;
    if (result >= 0 && meta->kind == FINDING_CHECKPOINT) {
        int64_t size = io_file_size(meta->io, result);
        meta->end = size < 0 ? 0 : round_down((uint64_t)size, BLOCK);
        meta->order = (struct checkpoint_order){.directory_id = meta->options->directory_id,
                                                .log_id = meta->options->shard,
                                                .number = meta->number,
                                                .size = meta->end};
    }
    if (result >= 0)
        return;
    meta->step = SCRUB_META_CLOSING;
    bool is_lost = result == -ENOENT || disk_is_device_error(result);
    if (is_lost && meta->kind != FINDING_SUPERBLOCK && is_same_file(meta))
        note_bad(meta, strerror(-result));
    else
        note_unreadable(meta, result);
}

static enum scrub_progress open_file(struct scrub_meta *meta)
{
    assert(meta->handle < 0);
    if (!take_file(meta) || name_file(meta) < 0) {
        next_kind(meta);
        return SCRUB_GOES_ON;
    }
    meta->op.done = opened;
    io_open_file(meta->io, &meta->op, meta->path, IO_OPEN_READ | IO_OPEN_DIRECT);
    return SCRUB_WAITS;
}

static void read_done(struct io_op *op, int32_t result)
{
    struct scrub_meta *meta = container_of(op, struct scrub_meta, op);
    struct finding finding = whole_file(meta);
    if (result >= 0)
        findings_readable(meta->findings, &finding);
    meta->step = SCRUB_META_CHECKING;
    meta->window.error = result < 0 ? result : 0;
    meta->window.size = result < 0 ? 0 : (uint32_t)result;
    scrub_rate_count(meta->rate, meta->window.size);
}

/* A copy of the superblock at a time: the device may refuse one of them. */
static enum scrub_progress read_window(struct scrub_meta *meta)
{
    struct scrub_window *window = &meta->window;
    uint32_t size = meta->kind == FINDING_SUPERBLOCK ? BLOCK : SCRUB_WINDOW_SIZE;
    assert(meta->at <= meta->end);
    window->offset = meta->at;
    window->asked = (uint32_t)min_u64(size, meta->end - meta->at);
    if (window->asked == 0) {
        window->error = 0;
        meta->step = SCRUB_META_CHECKING;
        return SCRUB_GOES_ON;
    }
    if (!scrub_rate_may_read(meta->rate))
        return SCRUB_WAITS;
    meta->op.done = read_done;
    io_read(meta->io, &meta->op, meta->handle, window->data, window->asked, meta->at);
    scrub_rate_pay(meta->rate, window->asked);
    return SCRUB_WAITS;
}

static void closed(struct io_op *op, int32_t result)
{
    struct scrub_meta *meta = container_of(op, struct scrub_meta, op);
    (void)result;
    meta->handle = -1;
    next_kind(meta);
}

static void close_file(struct scrub_meta *meta)
{
    assert(meta->handle >= 0);
    meta->op.done = closed;
    io_close_file(meta->io, &meta->op, meta->handle);
}

enum scrub_progress scrub_meta_step(struct scrub_meta *meta, uint64_t budget)
{
    if (io_op_is_active(&meta->op))
        return SCRUB_WAITS;
    switch (meta->step) {
    case SCRUB_META_OPENING:
        return open_file(meta);
    case SCRUB_META_READING:
        return read_window(meta);
    case SCRUB_META_CHECKING:
        check_window(meta, budget);
        return SCRUB_GOES_ON;
    case SCRUB_META_MENDING:
        mend_copy(meta);
        return SCRUB_WAITS;
    case SCRUB_META_CLOSING:
        if (meta->handle < 0)
            next_kind(meta);
        else
            close_file(meta);
        return SCRUB_GOES_ON;
    case SCRUB_META_OVER:
        break;
    }
    return SCRUB_OVER;
}

bool scrub_meta_stop(struct scrub_meta *meta)
{
    bool is_busy = io_op_is_active(&meta->op);
    if (!is_busy && meta->handle >= 0)
        close_file(meta);
    return is_busy || meta->handle >= 0;
}
