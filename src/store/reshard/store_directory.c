/* Prepares the data directory before any store opens: locks it, formats it, converts it to the
 * number of shards, counts the start. */
#include "store/reshard/store_directory.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/disk/filesystem.h"
#include "store/mover/reserve.h"
#include "store/reshard/store_convert.h"
#include "store/start/emptying.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the commit, and what follows it ---- */

static int finish(struct io *io, const struct log *log, const struct store_options *options,
                  struct superblock_file *superblock)
{
    struct superblock *now = &superblock->now;
    assert(now->shard == 0);
    assert(now->shards_before != 0); /* it is decided */
    int result = convert_apply(io, log, options, now->shards_before, now->shard_count);
    if (result < 0) {
        log_error(log,
                  "%s: the change of its number of shards from %" PRIu32 " to %" PRIu32
                  " is decided but not done: %s. The next start goes on with it",
                  options->path, now->shards_before, now->shard_count, strerror(-result));
        return result;
    }
    now->shards_before = 0;
    /* Both: an older copy must not have it all done again when the shards are in use. */
    return superblock_update_both(superblock);
}

static int commit(struct conversion *conversion, const struct superblock *superblock)
{
    struct superblock_file *file = &conversion->directory->handover.file;
    uint64_t sequence = file->now.sequence;
    assert(file->now.shards_before == 0); /* one conversion at a time */
    assert(superblock->shard == 0);
    assert(superblock->directory_id == file->now.directory_id);
    assert(superblock->log_base >= file->now.log_base); /* positions only grow */
    assert(superblock->segment_base >= file->now.segment_base);
    assert(superblock->start_number == file->now.start_number);
    file->now = *superblock;
    file->now.sequence = sequence;
    file->now.shards_before = conversion->count_before;
    /* Both: before anything is removed, neither says that the old shards count. */
    return superblock_update_both(file);
}

/* ---- a conversion ---- */

/* What each shard has on the disk when there is nothing in it: the open log file and two spare
 * ones, the manifest, the reserve. A shard that finds no room for that could not be opened. */
static int check_room(const struct conversion *conversion)
{
    uint64_t each = 3 * conversion->directory->handover.node.log_file_size + MANIFEST_SIZE_MAX +
                    MANIFEST_RESERVE + RESERVE_SIZE_MIN;
    uint64_t free_size, total_size;
    if (conversion->count <= conversion->count_before ||
        io_disk_space(conversion->io, conversion->options->path, &free_size, &total_size) < 0)
        return 0;
    uint64_t needed = (conversion->count - conversion->count_before) * each;
    if (needed <= free_size)
        return 0;
    log_error(conversion->log,
              "%s: %" PRIu32 " shards instead of %" PRIu32 " take %" PRIu64
              " MiB more of the disk, which has %" PRIu64
              " MiB free: free some space on it, or give a lower -shards",
              conversion->options->path, conversion->count, conversion->count_before, needed / MIB,
              free_size / MIB);
    return -ENOSPC;
}

static int run_conversion(struct conversion *conversion)
{
    struct superblock superblock;
    int result = check_room(conversion);
    if (result == 0 && !conversion->is_new)
        result = convert_empty_logs(conversion);
    if (result == 0)
        result = convert_write_plan(conversion, &superblock);
    if (result == 0)
        result = commit(conversion, &superblock);
    if (result < 0)
        return result;
    return finish(conversion->io, conversion->log, conversion->options,
                  &conversion->directory->handover.file);
}

static int convert(struct io *io, const struct log *log, const struct store_options *options,
                   uint32_t count, bool is_new, struct store_directory *directory)
{
    const struct superblock *now = &directory->handover.file.now;
    uint64_t begin_ns = io_now_ns(io);
    struct conversion conversion = {
        .io = io,
        .log = log,
        .options = options,
        .directory = directory,
        .count_before = now->shard_count,
        .count = count,
        .is_new = is_new,
        .log_number = now->log_number,
        .clock_ceiling = now->clock_ceiling,
    };
    if (!is_new)
        log_info(log,
                 "%s: the number of shards changes from %" PRIu32 " to %" PRIu32
                 ": what is in the logs moves to segments, then these go to their new shards",
                 options->path, conversion.count_before, count);
    int result = run_conversion(&conversion);
    free(conversion.edits);
    if (result < 0)
        return result;
    log_info(log, "%s is for -shards %" PRIu32 " now, after %" PRIu64 " ms", options->path, count,
             (io_now_ns(io) - begin_ns) / NS_PER_MS);
    return 0;
}

/* ---- the directory as it is found ---- */

/* What another start did not come to the end of; then this start counts. */
static int clean_up(struct io *io, const struct log *log, const struct store_options *options,
                    struct superblock_file *superblock)
{
    const struct superblock *now = &superblock->now;
    bool is_converting = now->shards_before != 0;
    int result = 0;
    if (is_converting) {
        log_info(log,
                 "%s: the change of its number of shards from %" PRIu32 " to %" PRIu32
                 ", which was cut short, goes on",
                 options->path, now->shards_before, now->shard_count);
        result = finish(io, log, options, superblock);
    }
    if (result == 0)
        result = superblock_count_start(superblock, log, options->path, options->lock_wait_ns);
    return result < 0 || is_converting ? result : convert_forget_plan(io, options);
}

/* In the folder of shard 0's log. The stores of the other shards take over what was found. */
static int probe(struct io *io, const struct log *log, const struct store_options *options,
                 struct superblock_file *superblock)
{
    char path[CONVERT_PATH_SIZE];
    if (superblock->now.probed && !options->probe)
        return 0;
    int result = convert_join(options->path, "log", path);
    if (result == 0)
        result = io_make_directory(io, path);
    if (result == 0)
        result = store_probe(io, log, path, &superblock->now);
    return result < 0 ? result : superblock_update(superblock);
}

static int check_owner(const struct log *log, const struct store_options *options,
                       const struct superblock *now)
{
    if (now->shard == 0)
        return 0;
    log_error(log,
              "%s/superblock is that of shard %" PRIu32
              ": put back the one that was here; nothing was changed",
              options->path, now->shard);
    return -EXDEV;
}

struct folders {
    uint32_t count; /* of shards */
    uint32_t shard; /* one beyond it whose folder is there; 0: none */
};

static int note_folder(void *context, const char *name)
{
    struct folders *folders = context;
    unsigned shard;
    if (sscanf(name, "shard-%3u", &shard) == 1 && shard >= folders->count)
        folders->shard = shard;
    return 0;
}

static bool has_superblock(struct io *io, const char *data, uint32_t shard)
{
    char name[32];
    char path[CONVERT_PATH_SIZE];
    struct io_op op = {0};
    (void)snprintf(name, sizeof name, "shard-%" PRIu32 "/superblock", shard);
    if (convert_join(data, name, path) < 0)
        return false;
    io_open_file(io, &op, path, IO_OPEN_READ);
    int handle = io_wait(io, &op);
    if (handle < 0)
        return false;
    io_close_file(io, &op, handle);
    (void)io_wait(io, &op);
    return true;
}

/* A superblock of before a conversion would take the segments of other shards for orphans. */
static int check_time(struct io *io, const struct log *log, const struct store_options *options,
                      const struct superblock *now)
{
    struct folders folders = {.count = now->shard_count};
    int result = io_list_directory(io, options->path, note_folder, &folders);
    if (result < 0 || folders.shard == 0 || !has_superblock(io, options->path, folders.shard))
        return result;
    log_error(
        log,
        "%s/superblock tells of %" PRIu32 " shards, but there is shard-%" PRIu32
        ", too: it is one of another time. Put back the one that was here; nothing was changed",
        options->path, folders.count, folders.shard);
    return -EXDEV;
}

static int prepare(struct io *io, const struct log *log, const struct store_options *options,
                   bool is_new, struct store_directory *directory)
{
    uint32_t count = (uint32_t)max_u64(options->shard_count, 1);
    struct superblock_file *superblock = &directory->handover.file;
    int result = check_owner(log, options, &superblock->now);
    if (result == 0 && superblock->now.shards_before == 0)
        result = check_time(io, log, options, &superblock->now);
    if (result == 0)
        result = clean_up(io, log, options, superblock);
    if (result == 0)
        result = probe(io, log, options, superblock);
    directory->handover.node = superblock->now;
    if (result == 0 && superblock->now.shard_count != count)
        result = convert(io, log, options, count, is_new, directory);
    directory->handover.node = superblock->now;
    return result;
}

int store_directory_prepare(struct io *io, const struct log *log,
                            const struct store_options *options,
                            struct store_directory *ret_directory)
{
    assert(options->shard == 0);
    assert(options->shard_count <= STORE_SHARDS_MAX);
    bool is_formatted;
    *ret_directory = (struct store_directory){.handover.file.handle = -1};
    struct superblock_birth birth = {options->log_file_size,
                                     (uint32_t)max_u64(options->shard_count, 1), options->identity};
    int result = superblock_open(io, log, options->path, &birth, options->lock_wait_ns,
                                 &ret_directory->handover.file, &is_formatted);
    if (result < 0)
        return result;
    filesystem_warn(io, log, options->path);
    result = prepare(io, log, options, is_formatted, ret_directory);
    if (result < 0) {
        filesystem_explain(io, log, options->path, result);
        log_error(log, "cannot prepare the data directory %s: %s", options->path,
                  strerror(-result));
        store_directory_release(ret_directory);
    }
    return result;
}

void store_directory_release(struct store_directory *directory)
{
    superblock_close(&directory->handover.file);
}

void store_directory_free(struct store_directory *directory)
{
    store_free(directory->stranded);
    directory->stranded = NULL;
    free(directory->handover.file.block); /* left by a world that was closed first */
    directory->handover.file.block = NULL;
}
