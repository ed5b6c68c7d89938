/* What a start finds in the manifest's file, and what it does about it.
 *
 *   look at every block -> sync -> show -> zeros over the torn tail
 *
 * The sync makes durable what a killed process left seen but not yet durable; groups that were
 * shown must not vanish at a loss of power. */
#include "store/catalog/manifest_file.h"

#include "store/disk/filesystem.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* `remedy`: manifest_judge's. */
static int say_refused(const struct manifest_file *file, const struct manifest_groups *groups,
                       const char *remedy)
{
    if (groups->is_damaged)
        log_error(file->log, "%s is damaged at offset %" PRIu64 ": %s; nothing was changed: %s",
                  file->path, manifest_offset(groups->damage), groups->what, remedy);
    else
        log_error(file->log, "%s: %s; nothing was changed", file->path, remedy);
    return -EBADMSG;
}

static int say_unreadable(const struct manifest_file *file, uint32_t block, int error)
{
    log_error(file->log, "%s cannot be read at offset %" PRIu64 ": %s; nothing was changed: %s",
              file->path, manifest_offset(block), strerror(-error), filesystem_advice(error));
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

static int say_foreign(const struct manifest_file *file, uint64_t directory_id)
{
    log_error(file->log,
              "%s belongs to the data directory with the id %016" PRIx64 ", this is %016" PRIx64
              ": put back the one that was here",
              file->path, directory_id, file->options.directory_id);
    return -EXDEV;
}

/* ---- looking ---- */

static int look_block(struct manifest_file *file, struct manifest_groups *groups, uint32_t index)
{
    const uint8_t *data = file->options.memory + manifest_offset(index % MANIFEST_MEMORY_BLOCKS);
    struct manifest_block block;
    assert(!groups->is_damaged); /* the look ends there */
    int result = manifest_groups_take(groups, index, data, &block);
    if (result == -EPROTONOSUPPORT)
        return say_unknown(file, index);
    if (result == -EXDEV)
        return say_foreign(file, block.directory_id);
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

static int note_unreadable(struct manifest_file *file, struct manifest_groups *groups,
                           uint32_t block, int error)
{
    if (!file->options.accept_loss || !disk_is_device_error(error))
        return say_unreadable(file, block, error);
    manifest_groups_miss(groups, block);
    return 0;
}

/* Looks at all blocks, up to where damage shows. */
static int look(struct manifest_file *file, struct manifest_groups *groups)
{
    uint32_t from = 0;
    while (from < file->size && !groups->is_damaged) {
        uint32_t wanted = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, file->size - from);
        int error;
        uint32_t count = load(file, from, wanted, &error);
        for (uint32_t i = 0; i < count && !groups->is_damaged; i++) {
            int result = look_block(file, groups, from + i);
            if (result < 0)
                return result;
        }
        if (error < 0 && !groups->is_damaged)
            error = note_unreadable(file, groups, from + count, error);
        if (error < 0 && !groups->is_damaged)
            return error;
        from += wanted;
    }
    manifest_groups_end(groups);
    return 0;
}

/* ---- showing ---- */

static int show_block(struct manifest_file *file, const struct manifest_groups *groups,
                      uint32_t index, manifest_each *each, void *each_context)
{
    struct manifest_block block;
    const uint8_t *data = file->options.memory + manifest_offset(index % MANIFEST_MEMORY_BLOCKS);
    int count = manifest_block_decode(data, &block);
    if (count < 0 || !manifest_groups_have(groups, index, &block)) {
        log_error(file->log, "%s reads differently at offset %" PRIu64 " than a moment ago: %s",
                  file->path, manifest_offset(index), filesystem_advice(-EIO));
        return -EIO;
    }
    int result = 0;
    file->position = max_u64(file->position, block.position);
    for (int i = 0; result == 0 && i < count; i++)
        result = each(each_context, &block.edits[i]);
    return result;
}

/* Shows the complete groups, read once more: they may be larger than the memory. */
static int show(struct manifest_file *file, const struct manifest_groups *groups,
                manifest_each *each, void *each_context)
{
    int result = 0;
    for (uint32_t from = 0; result == 0 && from < file->used; from += MANIFEST_MEMORY_BLOCKS) {
        uint32_t wanted = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, file->used - from);
        int error;
        uint32_t count = load(file, from, wanted, &error);
        if (error < 0)
            return say_unreadable(file, from + count, error);
        for (uint32_t i = 0; result == 0 && i < wanted; i++)
            result = show_block(file, groups, from + i, each, each_context);
    }
    return result;
}

/* ---- all of it ---- */

/* A group that was never told to anybody must not become whole, nor look like damage, when another
 * one comes to lie over its begin. */
static int clear_tail(struct manifest_file *file, const struct manifest_groups *groups)
{
    uint32_t end = (uint32_t)groups->mark.blocks;
    if (groups->dirty_end <= end)
        return 0;
    log_info(file->log, "%s: %" PRIu32 " KiB of a group that was cut short are dropped", file->path,
             (groups->dirty_end - end) * (MANIFEST_BLOCK_SIZE / 1024));
    assert(!groups->is_damaged); /* a damaged file is not changed */
    memset(file->options.memory, 0, MANIFEST_MEMORY_SIZE);
    for (uint32_t from = end; from < groups->dirty_end; from += MANIFEST_MEMORY_BLOCKS) {
        uint32_t count = (uint32_t)min_u64(MANIFEST_MEMORY_BLOCKS, groups->dirty_end - from);
        int error = disk_wait_write(file->io, file->handle, file->options.memory,
                                    count * MANIFEST_BLOCK_SIZE, manifest_offset(from));
        if (error < 0)
            return filesystem_cannot(file->log, "write to", file->path, error);
    }
    return 0;
}

/* Finds out what counts. A damaged file is not changed. */
static int judge(struct manifest_file *file, struct manifest_groups *groups)
{
    const struct manifest_mark *mark = &groups->mark;
    const struct manifest_options *options = &file->options;
    int64_t size = io_file_size(file->io, file->handle);
    if (size < 0 || (uint64_t)size / MANIFEST_BLOCK_SIZE > UINT32_MAX)
        return filesystem_cannot(file->log, "use", file->path, size < 0 ? (int)size : -EFBIG);
    file->size = (uint32_t)((uint64_t)size / MANIFEST_BLOCK_SIZE);
    int error = look(file, groups);
    if (error < 0)
        return error;
    const char *remedy = manifest_judge(groups, &options->known);
    if (remedy != NULL && !options->accept_loss)
        return say_refused(file, groups, remedy);
    if (remedy != NULL && !groups->is_damaged)
        log_warn(file->log,
                 "%s is an older one, or another one: what it does not tell is "
                 "lost, as -accept-loss allows",
                 file->path);
    if (groups->is_damaged)
        log_warn(file->log,
                 "%s is damaged at offset %" PRIu64 " (%s): what stood there and behind it is "
                 "lost, as -accept-loss allows",
                 file->path, manifest_offset(groups->damage), groups->what);
    assert(mark->blocks <= file->size); /* invariant 2 */
    assert(mark->blocks > 0 || groups->is_damaged);
    file->salt = mark->salt;
    file->edition = mark->edition;
    file->used = (uint32_t)mark->blocks;
    file->has_loss = remedy != NULL;
    return 0;
}

static int take_file(struct manifest_file *file, manifest_each *each, void *each_context)
{
    struct manifest_groups groups = {.directory_id = file->options.directory_id};
    int result = judge(file, &groups);
    if (result < 0)
        return result;
    result = disk_wait_sync(file->io, file->handle);
    if (result < 0)
        return filesystem_cannot(file->log, "sync", file->path, result);
    result = disk_wait_sync(file->io, file->directory);
    if (result < 0)
        return filesystem_cannot(file->log, "sync", file->options.path, result);
    result = show(file, &groups, each, each_context);
    return result == 0 && !file->has_loss ? clear_tail(file, &groups) : result;
}

/* ---- opening and closing ---- */

static int remove_leftover(struct manifest_file *file)
{
    struct io_op op = {0};
    io_unlink(file->io, &op, file->path_new);
    int result = io_wait(file->io, &op);
    if (result >= 0 || result == -ENOENT)
        return 0;
    return filesystem_cannot(file->log, "remove", file->path_new, result);
}

static int open_files(struct manifest_file *file, manifest_each *each, void *each_context)
{
    const char *path = file->options.path;
    file->directory = disk_wait_open(file->io, path, IO_OPEN_DIRECTORY);
    if (file->directory < 0)
        return filesystem_cannot(file->log, "open", path, file->directory);
    int error = remove_leftover(file);
    if (error < 0)
        return error;
    file->handle = disk_wait_open(file->io, file->path, IO_OPEN_WRITE | IO_OPEN_DIRECT);
    if (file->handle == -ENOENT)
        return 1;
    if (file->handle < 0)
        return filesystem_cannot(file->log, "open", file->path, file->handle);
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
    return filesystem_cannot(log, "open the manifest of", options->path, -ENOMEM);
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
