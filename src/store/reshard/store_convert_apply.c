/* The fourth step of a conversion: what the old shards had goes, what the new ones have takes its
 * place. Each step may be done again: nothing of the new shards is in use before all are done. */
#include "store/reshard/store_convert.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/catalog/checkpoint.h"
#include "store/catalog/reached.h"
#include "store/disk/names.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- paths ---- */

int convert_join(const char *folder, const char *name, char *ret_path)
{
    int length = snprintf(ret_path, CONVERT_PATH_SIZE, "%s/%s", folder, name);
    return length > 0 && (size_t)length < CONVERT_PATH_SIZE ? 0 : -ENAMETOOLONG;
}

/* ---- clearing a folder ---- */

typedef bool is_wanted(const char *name);

struct clearing {
    is_wanted *is_wanted;
    struct names names;
};

static int note_name(void *context, const char *name)
{
    struct clearing *clearing = context;
    return clearing->is_wanted(name) ? names_add(&clearing->names, name) : 0;
}

/* Unlinks the entries that are wanted, durably. A folder that is not there is empty. */
static int clear(struct io *io, const char *folder, is_wanted *is_wanted)
{
    struct clearing clearing = {.is_wanted = is_wanted};
    int result = io_list_directory(io, folder, note_name, &clearing);
    const char *name = NULL;
    while (result == 0 && (name = names_next(&clearing.names, name)) != NULL) {
        char path[CONVERT_PATH_SIZE];
        result = convert_join(folder, name, path);
        if (result == 0)
            result = disk_wait_unlink(io, path);
    }
    names_free(&clearing.names);
    if (result == 0)
        result = disk_wait_sync_folder(io, folder);
    return result == -ENOENT ? 0 : result;
}

/* What somebody else put there keeps it. */
static int remove_folder(struct io *io, const char *folder)
{
    int result = io_remove_directory(io, folder);
    return result == -ENOENT || result == -ENOTEMPTY || result == -EEXIST ? 0 : result;
}

/* ---- names ---- */

static bool is_any(const char *name)
{
    (void)name;
    return true;
}

static bool is_log_file(const char *name)
{
    return strncmp(name, "wal-", 4) == 0 || strcmp(name, "probe") == 0;
}

/* Superblock and manifest are written over. */
static bool is_old_state(const char *name)
{
    uint64_t number;
    bool is_temporary;
    size_t size = strlen(name);
    bool is_new_manifest =
        strncmp(name, "manifest-", 9) == 0 && size > 4 && strcmp(name + size - 4, ".new") == 0;
    return is_new_manifest || strcmp(name, "reserve") == 0 || strcmp(name, REACHED_FILE) == 0 ||
           checkpoint_name_parse(name, &number, &is_temporary) == 0;
}

static bool is_any_state(const char *name)
{
    return is_old_state(name) || strncmp(name, "manifest-", 9) == 0 ||
           strcmp(name, "superblock") == 0;
}

/* ---- applying ---- */

struct application {
    struct io *io;
    const char *data;
    uint64_t told_ns;
    char plan[CONVERT_PATH_SIZE];
};

/* From DATA/resharding into the shard's folder, when that has not been done. */
static int put(struct application *application, const char *name, const char *state,
               const char *name_there)
{
    char from[CONVERT_PATH_SIZE];
    char to[CONVERT_PATH_SIZE];
    int result = convert_join(application->plan, name, from);
    if (result == 0)
        result = convert_join(state, name_there, to);
    if (result < 0)
        return result;
    struct io_op op = {0};
    io_rename(application->io, &op, from, to);
    result = io_wait(application->io, &op);
    return result == -ENOENT ? 0 : result;
}

static int clear_log(struct application *application, const char *state)
{
    char path[CONVERT_PATH_SIZE];
    int result = convert_join(state, "log", path);
    return result < 0 ? result : clear(application->io, path, is_log_file);
}

static int put_shard(struct application *application, uint32_t shard, const char *state)
{
    char manifest[32];
    char superblock[32];
    (void)snprintf(manifest, sizeof manifest, "manifest-%" PRIu32, shard);
    (void)snprintf(superblock, sizeof superblock, "superblock-%" PRIu32, shard);
    int result = clear_log(application, state);
    if (result == 0)
        result = clear(application->io, state, is_old_state);
    if (result == 0)
        result = put(application, manifest, state, manifest);
    if (result == 0 && shard > 0)
        result = put(application, superblock, state, "superblock");
    return result < 0 ? result : disk_wait_sync_folder(application->io, state);
}

static int remove_shard(struct application *application, const char *state)
{
    char log[CONVERT_PATH_SIZE];
    int result = clear_log(application, state);
    if (result == 0)
        result = convert_join(state, "log", log);
    if (result == 0)
        result = remove_folder(application->io, log);
    if (result == 0)
        result = clear(application->io, state, is_any_state);
    return result < 0 ? result : remove_folder(application->io, state);
}

/* The names that came out of it are durable where they are now. */
static int remove_plan(struct application *application)
{
    int result = clear(application->io, application->plan, is_any);
    if (result == 0)
        result = remove_folder(application->io, application->plan);
    return result < 0 ? result : disk_wait_sync_folder(application->io, application->data);
}

int convert_forget_plan(struct io *io, const struct store_options *options)
{
    struct application application = {.io = io, .data = options->path};
    int result = convert_join(application.data, CONVERT_FOLDER, application.plan);
    return result < 0 ? result : remove_plan(&application);
}

/* Durable before anything is renamed into them: what went to a folder that is lost would be, too.
 */
static int make_folders(struct application *application, uint32_t count)
{
    int result = 0;
    for (uint32_t shard = 1; result == 0 && shard < count; shard++) {
        char state[CONVERT_PATH_SIZE];
        result = superblock_state_path(application->data, shard, state, sizeof state);
        if (result == 0)
            result = io_make_directory(application->io, state);
    }
    return result < 0 ? result : disk_wait_sync_folder(application->io, application->data);
}

static void tell_progress(struct application *application, const struct log *log, uint32_t done,
                          uint32_t count)
{
    uint64_t now_ns = io_now_ns(application->io);
    if (now_ns - application->told_ns < NS_PER_S)
        return;
    application->told_ns = now_ns;
    log_info(log, "%s: %" PRIu32 " of %" PRIu32 " shards are what they are to be",
             application->data, done, count);
}

int convert_apply(struct io *io, const struct log *log, const struct store_options *options,
                  uint32_t count_before, uint32_t count)
{
    struct application application = {.io = io, .data = options->path, .told_ns = io_now_ns(io)};
    assert(count > 0);
    assert(count_before > 0);
    uint32_t shards = (uint32_t)max_u64(count_before, count);
    int result = convert_join(application.data, CONVERT_FOLDER, application.plan);
    if (result == 0)
        result = make_folders(&application, count);
    for (uint32_t shard = 0; result == 0 && shard < shards; shard++) {
        char state[CONVERT_PATH_SIZE];
        result = superblock_state_path(application.data, shard, state, sizeof state);
        if (result == 0 && shard < count)
            result = put_shard(&application, shard, state);
        else if (result == 0)
            result = remove_shard(&application, state);
        tell_progress(&application, log, shard + 1, shards);
    }
    return result < 0 ? result : remove_plan(&application);
}
