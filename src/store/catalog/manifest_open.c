/* What a start finds: which groups are complete, whether what is behind them is a torn tail or
 * damage (the rules stand in manifest.h), and how it goes on from there.
 *
 *   open -> look at every block -> sync -> show -> zeros over the torn tail
 *   none -> write a first one
 *
 * The sync makes durable what a killed process left seen but not yet durable; groups that were
 * shown must not vanish at a loss of power. */
#include "store/catalog/manifest_internal.h"

#include "base/bytes.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the look at all blocks has found so far. */
struct scan {
    uint32_t end;       /* blocks of complete groups */
    uint32_t dirty_end; /* behind the last block that is not all zeros */
    uint32_t damage;    /* the block where the damage begins; valid when is_damaged */
    bool is_in_group;   /* a group has begun at `end` */
    bool is_broken;     /* the group at `end` is not complete */
    bool is_damaged;
    const char *what;
};

/* ---- single operations ---- */

static int wait_read(struct manifest *manifest, uint32_t from, uint32_t count, uint8_t *target)
{
    uint32_t size = count * MANIFEST_BLOCK_SIZE;
    int result =
        disk_wait_read(manifest->io, manifest->handle, target, size, manifest_offset(from));
    if (result >= 0 && (uint32_t)result != size)
        return -EIO;
    return result < 0 ? result : 0;
}

static int wait_sync(struct manifest *manifest, int handle, const char *path)
{
    int result = disk_wait_sync(manifest->io, handle);
    if (result < 0)
        log_error(manifest->log, "cannot sync %s: %s", path, strerror(-result));
    return result < 0 ? result : 0;
}

/* ---- messages ---- */

#define ADVICE                                                                                     \
    "look at it with `minivault-admin check`, restore the data directory from a backup, or start " \
    "once with -accept-loss to go on with what stands before this place"

static int say_damaged(const struct manifest *manifest, const struct scan *scan)
{
    log_error(manifest->log,
              "%s is damaged at offset %" PRIu64 ": %s; nothing was changed: " ADVICE,
              manifest->path, manifest_offset(scan->damage), scan->what);
    return -EBADMSG;
}

static int say_unreadable(const struct manifest *manifest, uint32_t block, int error)
{
    log_error(manifest->log,
              "%s cannot be read at offset %" PRIu64 ": %s; nothing was changed: " ADVICE,
              manifest->path, manifest_offset(block), strerror(-error));
    return error;
}

static int say_unknown(const struct manifest *manifest, uint32_t block)
{
    log_error(manifest->log,
              "%s has something at offset %" PRIu64
              " that this program does not know: use the release that wrote it",
              manifest->path, manifest_offset(block));
    return -EPROTONOSUPPORT;
}

static int say_foreign(const struct manifest *manifest, uint64_t directory_id)
{
    log_error(manifest->log,
              "%s belongs to the data directory with the id %016" PRIx64 ", this is %016" PRIx64
              ": put back the one that was here",
              manifest->path, directory_id, manifest->options.directory_id);
    return -EXDEV;
}

static int say_other(const struct manifest *manifest)
{
    log_error(
        manifest->log,
        "%s is older than the log of %s tells, or not the one that its superblock tells of: one "
        "of them was replaced; nothing was changed. Put back the one that was here, restore "
        "the data directory from a backup, or start once with -accept-loss to go on with what "
        "this one says and with all segments that are there",
        manifest->path, manifest->options.path);
    return -EBADMSG;
}

/* ---- looking ---- */

static bool belongs(const struct manifest *manifest, const struct manifest_block *block,
                    uint32_t index)
{
    return block->directory_id == manifest->options.directory_id && block->salt == manifest->salt &&
           block->edition == manifest->edition && block->sequence == (uint64_t)index + 1;
}

static void note_damage(struct scan *scan, uint32_t block, const char *what)
{
    if (scan->is_damaged)
        return;
    scan->is_damaged = true;
    scan->damage = block;
    scan->what = what;
}

/* Takes the block at `index`, or NULL for one that is not sound. */
static void take_block(struct scan *scan, uint32_t index, const struct manifest_block *block)
{
    assert(!scan->is_damaged); /* the look ends there */
    assert(scan->end <= index);
    bool is_first = block != NULL && block->flags & MANIFEST_GROUP_FIRST;
    bool goes_on = block != NULL && !scan->is_broken && is_first != scan->is_in_group;
    if (goes_on) {
        scan->is_in_group = !(block->flags & MANIFEST_GROUP_LAST);
        if (!scan->is_in_group)
            scan->end = index + 1;
        return;
    }
    if (!scan->is_broken)
        scan->damage = index; /* should it turn out to be damage */
    scan->is_broken = true;
    if (scan->end == 0)
        note_damage(scan, scan->damage, "the first group, the whole state, is not complete");
    else if (is_first && index > scan->end)
        note_damage(scan, scan->damage, "a group that is not complete has others behind it");
}

/* The first block tells the file's salt. */
static int look_first(struct manifest *manifest, const struct manifest_block *block)
{
    if (block->directory_id != manifest->options.directory_id)
        return say_foreign(manifest, block->directory_id);
    manifest->salt = block->salt;
    manifest->edition = block->edition;
    return 0;
}

static int look_block(struct manifest *manifest, struct scan *scan, uint32_t index)
{
    const uint8_t *data =
        manifest->options.memory + manifest_offset(index % MANIFEST_MEMORY_BLOCKS);
    struct manifest_block block;
    int result = manifest_block_decode(data, &block);
    if (result == -EPROTONOSUPPORT)
        return say_unknown(manifest, index);
    if (result >= 0 && index == 0) {
        int error = look_first(manifest, &block);
        if (error < 0)
            return error;
    }
    if (!bytes_are_zero(data, MANIFEST_BLOCK_SIZE))
        scan->dirty_end = index + 1;
    bool is_sound = result >= 0 && belongs(manifest, &block, index);
    take_block(scan, index, is_sound ? &block : NULL);
    return 0;
}

/* Reads `count` blocks into the memory. Returns how many can be read; *ret_error is why no more. */
static uint32_t load(struct manifest *manifest, uint32_t from, uint32_t count, int *ret_error)
{
    *ret_error = wait_read(manifest, from, count, manifest->options.memory);
    if (*ret_error == 0)
        return count;
    for (uint32_t i = 0; i < count; i++) {
        *ret_error =
            wait_read(manifest, from + i, 1, manifest->options.memory + manifest_offset(i));
        if (*ret_error < 0)
            return i;
    }
    return count;
}

static int note_unreadable(struct manifest *manifest, struct scan *scan, uint32_t block, int error)
{
    if (!manifest->options.accept_loss || !disk_is_device_error(error))
        return say_unreadable(manifest, block, error);
    note_damage(scan, scan->is_broken ? scan->damage : block, "the device does not give it");
    return 0;
}

/* Looks at all blocks, up to where damage shows. */
static int look(struct manifest *manifest, struct scan *scan)
{
    uint32_t from = 0;
    while (from < manifest->size && !scan->is_damaged) {
        uint32_t wanted = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, manifest->size - from);
        int error;
        uint32_t count = load(manifest, from, wanted, &error);
        for (uint32_t i = 0; i < count && !scan->is_damaged; i++) {
            int result = look_block(manifest, scan, from + i);
            if (result < 0)
                return result;
        }
        if (error < 0 && !scan->is_damaged)
            error = note_unreadable(manifest, scan, from + count, error);
        if (error < 0 && !scan->is_damaged)
            return error;
        from += wanted;
    }
    if (scan->end == 0)
        note_damage(scan, 0, "it is cut off within its first group");
    return 0;
}

/* ---- showing ---- */

static int show_block(struct manifest *manifest, uint32_t index, manifest_each *each,
                      void *each_context)
{
    struct manifest_block block;
    const uint8_t *data =
        manifest->options.memory + manifest_offset(index % MANIFEST_MEMORY_BLOCKS);
    int count = manifest_block_decode(data, &block);
    if (count < 0 || !belongs(manifest, &block, index)) {
        log_error(manifest->log,
                  "%s reads differently at offset %" PRIu64
                  " than a moment ago: the device is failing",
                  manifest->path, manifest_offset(index));
        return -EIO;
    }
    int result = 0;
    manifest->position = max_u64(manifest->position, block.position);
    for (int i = 0; result == 0 && i < count; i++)
        result = each(each_context, &block.edits[i]);
    return result;
}

/* Shows the complete groups, read once more: they may be larger than the memory. */
static int show(struct manifest *manifest, manifest_each *each, void *each_context)
{
    int result = 0;
    for (uint32_t from = 0; result == 0 && from < manifest->used; from += MANIFEST_MEMORY_BLOCKS) {
        uint32_t wanted = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, manifest->used - from);
        int error;
        uint32_t count = load(manifest, from, wanted, &error);
        if (error < 0)
            return say_unreadable(manifest, from + count, error);
        for (uint32_t i = 0; result == 0 && i < wanted; i++)
            result = show_block(manifest, from + i, each, each_context);
    }
    return result;
}

/* ---- a file that is there ---- */

/* A group that was never told to anybody must not become whole, nor look like damage, when another
 * one comes to lie over its begin. */
static int clear_tail(struct manifest *manifest, const struct scan *scan)
{
    if (scan->dirty_end <= scan->end)
        return 0;
    log_info(manifest->log, "%s: %" PRIu32 " KiB of a group that was cut short are dropped",
             manifest->path, (scan->dirty_end - scan->end) * (MANIFEST_BLOCK_SIZE / 1024));
    assert(!scan->is_damaged); /* a damaged file is not changed */
    memset(manifest->options.memory, 0, MANIFEST_MEMORY_SIZE);
    for (uint32_t from = scan->end; from < scan->dirty_end; from += MANIFEST_MEMORY_BLOCKS) {
        uint32_t count = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, scan->dirty_end - from);
        int error = disk_wait_write(manifest->io, manifest->handle, manifest->options.memory,
                                    count * MANIFEST_BLOCK_SIZE, manifest_offset(from));
        if (error < 0) {
            log_error(manifest->log, "cannot write to %s: %s", manifest->path, strerror(-error));
            return error;
        }
    }
    return 0;
}

static bool is_older(const struct manifest *manifest, uint64_t blocks,
                     const struct manifest_mark *mark)
{
    return manifest->edition < mark->edition ||
           (manifest->edition == mark->edition && blocks < mark->blocks);
}

/* Whether what is known of the manifest cannot have become this file, whose groups have `blocks`.
 * One more is the seal, which was not counted then. */
static bool is_other(const struct manifest *manifest, uint64_t blocks)
{
    const struct manifest_options *options = &manifest->options;
    const struct manifest_mark *closed = &options->closed;
    bool must_be_same = options->is_closed && closed->salt != 0;
    return is_older(manifest, blocks, closed) || is_older(manifest, blocks, &options->seen) ||
           (must_be_same && (manifest->salt != closed->salt || blocks > closed->blocks + 1));
}

/* Finds out what counts. A damaged file is not changed. */
static int judge(struct manifest *manifest, struct scan *scan)
{
    int64_t size = io_file_size(manifest->io, manifest->handle);
    if (size < 0 || (uint64_t)size / MANIFEST_BLOCK_SIZE > UINT32_MAX) {
        int error = size < 0 ? (int)size : -EFBIG;
        log_error(manifest->log, "cannot use %s: %s", manifest->path, strerror(-error));
        return error;
    }
    manifest->size = (uint32_t)((uint64_t)size / MANIFEST_BLOCK_SIZE);
    int error = look(manifest, scan);
    if (error < 0)
        return error;
    if (scan->is_damaged && !manifest->options.accept_loss)
        return say_damaged(manifest, scan);
    bool is_another = !scan->is_damaged && is_other(manifest, scan->end);
    if (is_another && !manifest->options.accept_loss)
        return say_other(manifest);
    if (is_another)
        log_warn(manifest->log,
                 "%s is an older one, or another one: what it does not tell is "
                 "lost, as -accept-loss allows",
                 manifest->path);
    if (scan->is_damaged)
        log_warn(manifest->log,
                 "%s is damaged at offset %" PRIu64 " (%s): what stood there and behind it is "
                 "lost, as -accept-loss allows",
                 manifest->path, manifest_offset(scan->damage), scan->what);
    assert(scan->end <= manifest->size); /* invariant 2 */
    assert(scan->end > 0 || scan->is_damaged);
    manifest->used = scan->end;
    manifest->has_loss = scan->is_damaged || is_another;
    return 0;
}

static int take_file(struct manifest *manifest, manifest_each *each, void *each_context)
{
    struct scan scan = {0};
    int result = judge(manifest, &scan);
    if (result == 0)
        result = wait_sync(manifest, manifest->handle, manifest->path);
    if (result == 0)
        result = wait_sync(manifest, manifest->directory, manifest->options.path);
    if (result == 0)
        result = show(manifest, each, each_context);
    if (result == 0 && !manifest->has_loss)
        result = clear_tail(manifest, &scan);
    return result;
}

/* ---- a new file ---- */

/* The log tells that there was one. Nothing is made in its place before the operator has said so,
 * and then one that is older than what is known, so that only the first append settles the matter.
 */
static int make_file(struct manifest *manifest)
{
    bool was_there = manifest->options.seen.edition > 0;
    if (was_there && !manifest->options.accept_loss) {
        log_error(manifest->log,
                  "%s is missing. Restore it from a backup, or start once with -accept-loss to "
                  "build it anew from the segments: keys that were deleted long ago may come back "
                  "then",
                  manifest->path);
        return -EBADMSG;
    }
    manifest->is_new = true;
    manifest->is_lost = was_there;
    int result = manifest_write_first(manifest);
    manifest->has_loss = was_there;
    manifest->is_lost = false;
    return result;
}

/* ---- opening ---- */

static int remove_leftover(struct manifest *manifest)
{
    struct io_op op = {0};
    io_unlink(manifest->io, &op, manifest->path_new);
    int result = io_wait(manifest->io, &op);
    if (result >= 0 || result == -ENOENT)
        return 0;
    log_error(manifest->log, "cannot remove %s: %s", manifest->path_new, strerror(-result));
    return result;
}

static int say_cannot_open(const struct manifest *manifest, const char *path, int error)
{
    log_error(manifest->log, "cannot open %s: %s", path, strerror(-error));
    return error;
}

static int open_all(struct manifest *manifest, manifest_each *each, void *each_context)
{
    const char *path = manifest->options.path;
    manifest->directory = disk_wait_open(manifest->io, path, IO_OPEN_DIRECTORY);
    if (manifest->directory < 0)
        return say_cannot_open(manifest, path, manifest->directory);
    int error = remove_leftover(manifest);
    if (error < 0)
        return error;
    manifest->handle = disk_wait_open(manifest->io, manifest->path, IO_OPEN_WRITE | IO_OPEN_DIRECT);
    if (manifest->handle == -ENOENT)
        return make_file(manifest);
    if (manifest->handle < 0)
        return say_cannot_open(manifest, manifest->path, manifest->handle);
    return take_file(manifest, each, each_context);
}

static char *make_path(const struct manifest_options *options, const char *ending)
{
    char *path = NULL;
    if (asprintf(&path, "%s/manifest-%" PRIu32 "%s", options->path, options->shard, ending) < 0)
        return NULL;
    return path;
}

static struct manifest *create(struct io *io, const struct log *log,
                               const struct manifest_options *options)
{
    struct manifest *manifest = calloc(1, sizeof *manifest);
    if (manifest == NULL)
        return NULL;
    manifest->io = io;
    manifest->log = log;
    manifest->options = *options;
    manifest->directory = -1;
    manifest->handle = -1;
    manifest->rewrite.handle = -1;
    manifest->edits = malloc(MANIFEST_GROUP_MAX * sizeof *manifest->edits);
    manifest->path = make_path(options, "");
    manifest->path_new = make_path(options, ".new");
    if (manifest->edits != NULL && manifest->path != NULL && manifest->path_new != NULL)
        return manifest;
    manifest_free(manifest);
    return NULL;
}

int manifest_open(struct io *io, const struct log *log, const struct manifest_options *options,
                  manifest_each *each, void *each_context, struct manifest **ret_manifest)
{
    assert(options->snapshot != NULL);
    assert((uintptr_t)options->memory % MANIFEST_BLOCK_SIZE == 0);
    struct manifest *manifest = create(io, log, options);
    if (manifest == NULL) {
        log_error(log, "no memory for the manifest of %s", options->path);
        return -ENOMEM;
    }
    int error = open_all(manifest, each, each_context);
    if (error < 0) {
        (void)manifest_close_files(manifest);
        manifest_free(manifest);
        return error;
    }
    *ret_manifest = manifest;
    return 0;
}
