/* Prepares the data directory before any store opens: locks it, formats it, converts it to the
 * number of shards, refuses older copies of shards, counts the start. */
#include "store/reshard/store_directory.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/disk/filesystem.h"
#include "store/disk/names.h"
#include "store/disk/wait.h"
#include "store/reshard/store_convert.h"
#include "store/reshard/store_older.h"
#include "store/start/emptying.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the directory as it is found ---- */

/* What another start did not come to the end of; then this start counts. */
static int clean_up(struct io *io, const struct log *log, const struct store_options *options,
                    struct superblock_handover *handover)
{
    struct superblock_file *superblock = &handover->file;
    const struct superblock *now = &superblock->now;
    bool is_converting = now->shards_before != 0;
    int result = 0;
    if (is_converting) {
        log_info(log,
                 "%s: the change of its number of shards from %" PRIu32 " to %" PRIu32
                 ", which was cut short, goes on",
                 options->path, now->shards_before, now->shard_count);
        result = convert_finish(io, log, options, superblock);
    } else {
        result = store_find_older(io, log, options, handover);
    }
    if (result == 0)
        result = superblock_count_start(superblock, log, options->path, options->lock_wait_ns,
                                        options->accept_loss ? handover->is_older : NULL);
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
    if (result == 0) {
        result = io_make_directory(io, path);
        if (result < 0)
            (void)filesystem_cannot(log, "use the folder", path, result);
    }
    if (result == 0)
        result = store_probe(io, log, path, &superblock->now);
    return result < 0 ? result : superblock_update(superblock);
}

/* Log files, and segments with all that one job of the mover may add to them, stay below so many log
 * files. A write that is cut short by the limit would be the end of the log. */
#define LARGEST_FILE 8u

static int check_limit(struct io *io, const struct log *log, const struct store_options *options,
                       const struct superblock *now)
{
    uint64_t limit = io_file_size_max(io);
    uint64_t needed = LARGEST_FILE * now->log_file_size;
    static const char remedy[] =
        "Raise the limit (LimitFSIZE= in the systemd service, `ulimit -f` in a shell)";
    if (limit < needed) {
        log_error(log,
                  "%s: this process may write files of %" PRIu64
                  " bytes (RLIMIT_FSIZE), but needs %" PRIu64 ". %s",
                  options->path, limit, needed, remedy);
        return -EFBIG;
    }
    if (limit < options->value_size_max)
        log_warn(log,
                 "%s: this process may write files of %" PRIu64
                 " bytes (RLIMIT_FSIZE): larger values are refused. %s",
                 options->path, limit, remedy);
    return 0;
}

static int check_owner(const struct log *log, const struct store_options *options,
                       const struct superblock *now)
{
    char text[SUPERBLOCK_TEXT_SIZE];
    if (!superblock_is_misplaced(now, now, 0, text))
        return 0;
    log_error(log, "%s/superblock: %s; nothing was changed", options->path, text);
    return -EXDEV;
}

struct folders {
    const struct superblock *node;
    struct names outgrown; /* perhaps: where a superblock lies in them */
};

static int note_folder(void *context, const char *name)
{
    struct folders *folders = context;
    char text[SUPERBLOCK_TEXT_SIZE];
    return superblock_is_outgrown(folders->node, name, text) ? names_add(&folders->outgrown, name)
                                                             : 0;
}

static bool has_superblock(struct io *io, const char *data, const char *folder)
{
    char state[CONVERT_PATH_SIZE];
    char path[CONVERT_PATH_SIZE];
    return convert_join(data, folder, state) == 0 && convert_join(state, "superblock", path) == 0 &&
           disk_wait_size(io, path) >= 0;
}

static int check_time(struct io *io, const struct log *log, const struct store_options *options,
                      const struct superblock *now)
{
    char text[SUPERBLOCK_TEXT_SIZE];
    struct folders folders = {.node = now};
    int result = io_list_directory(io, options->path, note_folder, &folders);
    if (result < 0)
        (void)filesystem_cannot(log, "list", options->path, result);
    for (const char *name = NULL;
         result == 0 && (name = names_next(&folders.outgrown, name)) != NULL;) {
        if (!has_superblock(io, options->path, name) || !superblock_is_outgrown(now, name, text))
            continue;
        log_error(log, "%s/superblock: %s; nothing was changed", options->path, text);
        result = -EXDEV;
    }
    names_free(&folders.outgrown);
    return result;
}

static int prepare(struct io *io, const struct log *log, const struct store_options *options,
                   bool is_new, struct store_directory *directory)
{
    uint32_t count = (uint32_t)max_u64(options->shard_count, 1);
    struct superblock_file *superblock = &directory->handover.file;
    int result = check_owner(log, options, &superblock->now);
    if (result == 0)
        result = check_limit(io, log, options, &superblock->now);
    if (result == 0)
        result = check_time(io, log, options, &superblock->now);
    if (result == 0)
        result = clean_up(io, log, options, &directory->handover);
    if (result == 0)
        result = probe(io, log, options, superblock);
    directory->handover.node = superblock->now;
    if (result == 0 && superblock->now.shard_count != count)
        result = convert_directory(io, log, options, count, is_new, directory);
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
        (void)filesystem_cannot(log, "prepare the data directory", options->path, result);
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
