/* What a start finds in the manifest's file, and what it does about it.
 *
 *   look at every block -> sync -> show -> zeros over the torn tail
 *
 * The sync makes durable what a killed process left seen but not yet durable; groups that were
 * shown must not vanish at a loss of power. */
#include "store/catalog/manifest_file.h"

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

/* ---- a group's bytes ---- */

void manifest_file_encode(const struct manifest_file *file, struct manifest_mark mark,
                          const struct manifest_edit *edits, uint64_t count, uint32_t index,
                          uint8_t *target)
{
    uint32_t blocks = manifest_blocks_of(count);
    assert(index < blocks);
    uint64_t from = (uint64_t)index * MANIFEST_BLOCK_EDITS;
    struct manifest_block block = {
        .flags = (uint16_t)((index == 0 ? MANIFEST_GROUP_FIRST : 0) |
                            (index + 1 == blocks ? MANIFEST_GROUP_LAST : 0)),
        .directory_id = file->options.directory_id,
        .sequence = mark.blocks + index + 1,
        .salt = mark.salt,
        .edition = mark.edition,
        .position = file->options.position(file->options.context),
        .count = (uint32_t)min_u64(count - from, MANIFEST_BLOCK_EDITS),
    };
    if (block.count > 0)
        memcpy(block.edits, edits + from, block.count * sizeof *edits);
    manifest_block_encode(&block, target);
}

/* ---- single operations ---- */

static int wait_read(struct manifest_file *file, uint32_t from, uint32_t count, uint8_t *target)
{
    uint32_t size = count * MANIFEST_BLOCK_SIZE;
    int result = disk_wait_read(file->io, file->handle, target, size, manifest_offset(from));
    if (result >= 0 && (uint32_t)result != size)
        return -EIO;
    return result < 0 ? result : 0;
}

/* ---- messages ---- */

static int say_cannot(const struct manifest_file *file, const char *what, const char *path,
                      int error)
{
    log_error(file->log, "cannot %s %s: %s", what, path, strerror(-error));
    return error;
}

#define ADVICE                                                                                     \
    "look at it with `minivault-admin check`, restore the data directory from a backup, or start " \
    "once with -accept-loss to go on with what stands before this place"

static int say_damaged(const struct manifest_file *file, const struct scan *scan)
{
    log_error(file->log, "%s is damaged at offset %" PRIu64 ": %s; nothing was changed: " ADVICE,
              file->path, manifest_offset(scan->damage), scan->what);
    return -EBADMSG;
}

static int say_unreadable(const struct manifest_file *file, uint32_t block, int error)
{
    log_error(file->log,
              "%s cannot be read at offset %" PRIu64 ": %s; nothing was changed: " ADVICE,
              file->path, manifest_offset(block), strerror(-error));
    return error;
}

static int say_unknown(const struct manifest_file *file, uint32_t block)
{
    log_error(file->log,
              "%s has something at offset %" PRIu64
              " that this program does not know: use the release that wrote it",
              file->path, manifest_offset(block));
    return -EPROTONOSUPPORT;
}

static int say_other(const struct manifest_file *file)
{
    log_error(
        file->log,
        "%s is older than the log of %s tells, or not the one that its superblock tells of: one "
        "of them was replaced; nothing was changed. Put back the one that was here, restore "
        "the data directory from a backup, or start once with -accept-loss to go on with what "
        "this one says and with all segments that are there",
        file->path, file->options.path);
    return -EBADMSG;
}

/* ---- looking ---- */

static bool belongs(const struct manifest_file *file, const struct manifest_block *block,
                    uint32_t index)
{
    return block->directory_id == file->options.directory_id && block->salt == file->salt &&
           block->edition == file->edition && block->sequence == (uint64_t)index + 1;
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
static int look_first(struct manifest_file *file, const struct manifest_block *block)
{
    if (block->directory_id != file->options.directory_id) {
        log_error(file->log,
                  "%s belongs to the data directory with the id %016" PRIx64 ", this is %016" PRIx64
                  ": put back the one that was here",
                  file->path, block->directory_id, file->options.directory_id);
        return -EXDEV;
    }
    file->salt = block->salt;
    file->edition = block->edition;
    return 0;
}

static int look_block(struct manifest_file *file, struct scan *scan, uint32_t index)
{
    const uint8_t *data = file->options.memory + manifest_offset(index % MANIFEST_MEMORY_BLOCKS);
    struct manifest_block block;
    int result = manifest_block_decode(data, &block);
    if (result == -EPROTONOSUPPORT)
        return say_unknown(file, index);
    if (result >= 0 && index == 0) {
        int error = look_first(file, &block);
        if (error < 0)
            return error;
    }
    if (!bytes_are_zero(data, MANIFEST_BLOCK_SIZE))
        scan->dirty_end = index + 1;
    bool is_sound = result >= 0 && belongs(file, &block, index);
    take_block(scan, index, is_sound ? &block : NULL);
    return 0;
}

/* Reads `count` blocks into the memory. Returns how many can be read; *ret_error is why no more. */
static uint32_t load(struct manifest_file *file, uint32_t from, uint32_t count, int *ret_error)
{
    *ret_error = wait_read(file, from, count, file->options.memory);
    if (*ret_error == 0)
        return count;
    for (uint32_t i = 0; i < count; i++) {
        *ret_error = wait_read(file, from + i, 1, file->options.memory + manifest_offset(i));
        if (*ret_error < 0)
            return i;
    }
    return count;
}

static int note_unreadable(struct manifest_file *file, struct scan *scan, uint32_t block, int error)
{
    if (!file->options.accept_loss || !disk_is_device_error(error))
        return say_unreadable(file, block, error);
    note_damage(scan, scan->is_broken ? scan->damage : block, "the device does not give it");
    return 0;
}

/* Looks at all blocks, up to where damage shows. */
static int look(struct manifest_file *file, struct scan *scan)
{
    uint32_t from = 0;
    while (from < file->size && !scan->is_damaged) {
        uint32_t wanted = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, file->size - from);
        int error;
        uint32_t count = load(file, from, wanted, &error);
        for (uint32_t i = 0; i < count && !scan->is_damaged; i++) {
            int result = look_block(file, scan, from + i);
            if (result < 0)
                return result;
        }
        if (error < 0 && !scan->is_damaged)
            error = note_unreadable(file, scan, from + count, error);
        if (error < 0 && !scan->is_damaged)
            return error;
        from += wanted;
    }
    if (scan->end == 0)
        note_damage(scan, 0, "it is cut off within its first group");
    return 0;
}

/* ---- showing ---- */

static int show_block(struct manifest_file *file, uint32_t index, manifest_each *each,
                      void *each_context)
{
    struct manifest_block block;
    const uint8_t *data = file->options.memory + manifest_offset(index % MANIFEST_MEMORY_BLOCKS);
    int count = manifest_block_decode(data, &block);
    if (count < 0 || !belongs(file, &block, index)) {
        log_error(file->log,
                  "%s reads differently at offset %" PRIu64
                  " than a moment ago: the device is failing",
                  file->path, manifest_offset(index));
        return -EIO;
    }
    int result = 0;
    file->position = max_u64(file->position, block.position);
    for (int i = 0; result == 0 && i < count; i++)
        result = each(each_context, &block.edits[i]);
    return result;
}

/* Shows the complete groups, read once more: they may be larger than the memory. */
static int show(struct manifest_file *file, manifest_each *each, void *each_context)
{
    int result = 0;
    for (uint32_t from = 0; result == 0 && from < file->used; from += MANIFEST_MEMORY_BLOCKS) {
        uint32_t wanted = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, file->used - from);
        int error;
        uint32_t count = load(file, from, wanted, &error);
        if (error < 0)
            return say_unreadable(file, from + count, error);
        for (uint32_t i = 0; result == 0 && i < wanted; i++)
            result = show_block(file, from + i, each, each_context);
    }
    return result;
}

/* ---- all of it ---- */

/* A group that was never told to anybody must not become whole, nor look like damage, when another
 * one comes to lie over its begin. */
static int clear_tail(struct manifest_file *file, const struct scan *scan)
{
    if (scan->dirty_end <= scan->end)
        return 0;
    log_info(file->log, "%s: %" PRIu32 " KiB of a group that was cut short are dropped", file->path,
             (scan->dirty_end - scan->end) * (MANIFEST_BLOCK_SIZE / 1024));
    assert(!scan->is_damaged); /* a damaged file is not changed */
    memset(file->options.memory, 0, MANIFEST_MEMORY_SIZE);
    for (uint32_t from = scan->end; from < scan->dirty_end; from += MANIFEST_MEMORY_BLOCKS) {
        uint32_t count = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, scan->dirty_end - from);
        int error = disk_wait_write(file->io, file->handle, file->options.memory,
                                    count * MANIFEST_BLOCK_SIZE, manifest_offset(from));
        if (error < 0)
            return say_cannot(file, "write to", file->path, error);
    }
    return 0;
}

static bool is_older(const struct manifest_file *file, uint64_t blocks,
                     const struct manifest_mark *mark)
{
    return file->edition < mark->edition ||
           (file->edition == mark->edition && blocks < mark->blocks);
}

/* Whether what is known of the manifest cannot have become this file, whose groups have `blocks`.
 * One more is the seal, which was not counted then. */
static bool is_other(const struct manifest_file *file, uint64_t blocks)
{
    const struct manifest_options *options = &file->options;
    const struct manifest_mark *closed = &options->closed;
    bool must_be_same = options->is_closed && closed->salt != 0;
    return is_older(file, blocks, closed) || is_older(file, blocks, &options->seen) ||
           (must_be_same && (file->salt != closed->salt || blocks > closed->blocks + 1));
}

/* Finds out what counts. A damaged file is not changed. */
static int judge(struct manifest_file *file, struct scan *scan)
{
    int64_t size = io_file_size(file->io, file->handle);
    if (size < 0 || (uint64_t)size / MANIFEST_BLOCK_SIZE > UINT32_MAX)
        return say_cannot(file, "use", file->path, size < 0 ? (int)size : -EFBIG);
    file->size = (uint32_t)((uint64_t)size / MANIFEST_BLOCK_SIZE);
    int error = look(file, scan);
    if (error < 0)
        return error;
    if (scan->is_damaged && !file->options.accept_loss)
        return say_damaged(file, scan);
    bool is_another = !scan->is_damaged && is_other(file, scan->end);
    if (is_another && !file->options.accept_loss)
        return say_other(file);
    if (is_another)
        log_warn(file->log,
                 "%s is an older one, or another one: what it does not tell is "
                 "lost, as -accept-loss allows",
                 file->path);
    if (scan->is_damaged)
        log_warn(file->log,
                 "%s is damaged at offset %" PRIu64 " (%s): what stood there and behind it is "
                 "lost, as -accept-loss allows",
                 file->path, manifest_offset(scan->damage), scan->what);
    assert(scan->end <= file->size); /* invariant 2 */
    assert(scan->end > 0 || scan->is_damaged);
    file->used = scan->end;
    file->has_loss = scan->is_damaged || is_another;
    return 0;
}

static int take_file(struct manifest_file *file, manifest_each *each, void *each_context)
{
    struct scan scan = {0};
    int result = judge(file, &scan);
    if (result < 0)
        return result;
    result = disk_wait_sync(file->io, file->handle);
    if (result < 0)
        return say_cannot(file, "sync", file->path, result);
    result = disk_wait_sync(file->io, file->directory);
    if (result < 0)
        return say_cannot(file, "sync", file->options.path, result);
    result = show(file, each, each_context);
    return result == 0 && !file->has_loss ? clear_tail(file, &scan) : result;
}

/* ---- opening and closing ---- */

static int remove_leftover(struct manifest_file *file)
{
    struct io_op op = {0};
    io_unlink(file->io, &op, file->path_new);
    int result = io_wait(file->io, &op);
    if (result >= 0 || result == -ENOENT)
        return 0;
    return say_cannot(file, "remove", file->path_new, result);
}

static int open_files(struct manifest_file *file, manifest_each *each, void *each_context)
{
    const char *path = file->options.path;
    file->directory = disk_wait_open(file->io, path, IO_OPEN_DIRECTORY);
    if (file->directory < 0)
        return say_cannot(file, "open", path, file->directory);
    int error = remove_leftover(file);
    if (error < 0)
        return error;
    file->handle = disk_wait_open(file->io, file->path, IO_OPEN_WRITE | IO_OPEN_DIRECT);
    if (file->handle == -ENOENT)
        return 1;
    if (file->handle < 0)
        return say_cannot(file, "open", file->path, file->handle);
    return take_file(file, each, each_context);
}

static char *make_path(const struct manifest_options *options, const char *ending)
{
    char *path = NULL;
    if (asprintf(&path, "%s/manifest-%" PRIu32 "%s", options->path, options->shard, ending) < 0)
        return NULL;
    return path;
}

int manifest_file_open(struct io *io, const struct log *log, const struct manifest_options *options,
                       manifest_each *each, void *each_context, struct manifest_file *file)
{
    *file = (struct manifest_file){
        .io = io,
        .log = log,
        .options = *options,
        .path = make_path(options, ""),
        .path_new = make_path(options, ".new"),
        .directory = -1,
        .handle = -1,
    };
    if (file->path != NULL && file->path_new != NULL)
        return open_files(file, each, each_context);
    log_error(log, "no memory for the manifest of %s", options->path);
    return -ENOMEM;
}

static int close_handle(struct manifest_file *file, int *handle)
{
    int result = *handle >= 0 ? disk_wait_close(file->io, *handle) : 0;
    *handle = -1;
    return result;
}

int manifest_file_close(struct manifest_file *file)
{
    int closed = close_handle(file, &file->handle);
    int closed_directory = close_handle(file, &file->directory);
    return closed < 0 ? closed : closed_directory;
}

void manifest_file_free(struct manifest_file *file)
{
    free(file->path);
    free(file->path_new);
}
