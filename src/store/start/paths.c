/* Where a shard's state lies in the data directory, and whose it is. */
#include "base/assert.h"
#include "store/disk/filesystem.h"
#include "store/disk/wait.h"
#include "store/disk/probe.h"
#include "store/start/emptying.h"
#include "store/start/start.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int store_name_paths(struct store *store)
{
    const struct store_options *options = &store->options;
    int result =
        superblock_state_path(options->path, options->shard, store->state_path, STORE_PATH_SIZE);
    if (result < 0)
        return result;
    int length = snprintf(store->log_directory, STORE_PATH_SIZE, "%s/log", store->state_path);
    return length > 0 && (size_t)length < STORE_PATH_SIZE ? 0 : -ENAMETOOLONG;
}

/* ---- the superblock ---- */

/* Without store_directory_prepare: a directory of one shard. */
static int check_alone(const struct store *store)
{
    const struct superblock *now = &store->superblock.now;
    if (now->shard_count == 1 && now->shards_before == 0) /* then its shard is 0 */
        return 0;
    log_error(store->log,
              "the data directory %s has %" PRIu32
              " shards%s: this program opens one of a single shard: use the server",
              store->options.path, now->shard_count,
              now->shards_before != 0 ? ", and is being converted" : "");
    return -EINVAL;
}

static int open_alone(struct store *store)
{
    const struct store_options *options = &store->options;
    assert(options->shard_count == 1);
    struct superblock_birth birth = {options->log_file_size, 1, options->identity};
    bool is_formatted;
    int result = superblock_open(store->io, store->log, options->path, &birth,
                                 options->lock_wait_ns, &store->superblock, &is_formatted);
    if (result == 0)
        result = check_alone(store);
    return result < 0
               ? result
               : superblock_count_start(&store->superblock, store->log, options->path, 0, NULL);
}

/* What the whole directory has once is in DATA/superblock. */
static int open_own(struct store *store)
{
    const struct store_options *options = &store->options;
    const struct superblock *node = &options->handover->node;
    struct superblock *now = &store->superblock.now;
    int result = superblock_open_shard(store->io, store->log, options->path, node, options->shard,
                                       options->lock_wait_ns, &store->superblock);
    if (result < 0)
        return result;
    if (now->start_number != node->start_number) {
        log_error(store->log,
                  "%s/superblock was replaced during this start: start it again, and see that "
                  "nothing else writes there",
                  store->state_path);
        return -EXDEV;
    }
    now->probed = node->probed;
    now->use_dsync = node->use_dsync;
    now->writes_in_flight = node->writes_in_flight;
    return 0;
}

int store_open_superblock(struct store *store)
{
    struct superblock_handover *handover = store->options.handover;
    if (handover == NULL)
        return open_alone(store);
    assert(handover->node.shard_count == store->options.shard_count);
    assert(handover->node.directory_id != 0);
    if (store->options.shard > 0)
        return open_own(store);
    assert(handover->file.handle >= 0);
    store->superblock = handover->file;
    handover->file = (struct superblock_file){.handle = -1};
    return 0;
}

bool store_is_older(const struct store *store)
{
    const struct superblock_handover *handover = store->options.handover;
    return handover != NULL && handover->is_older[store->options.shard];
}

int store_probe(struct io *io, const struct log *log, const char *folder,
                struct superblock *superblock)
{
    struct probe_result found;
    int result = probe_device(io, log, folder, io_region(io), &found);
    if (result < 0)
        return filesystem_cannot(log, "measure how to write durably in", folder, result);
    superblock->probed = true;
    superblock->use_dsync = found.use_dsync;
    superblock->writes_in_flight = found.writes_in_flight;
    log_info(log,
             "probed the device: 4 KiB durable in %" PRIu32 " us with RWF_DSYNC, %" PRIu32
             " us with fdatasync; the log uses %s, %d in flight",
             found.dsync_us, found.fdatasync_us, found.use_dsync ? "RWF_DSYNC" : "fdatasync",
             found.writes_in_flight);
    return 0;
}

/* ---- folders ---- */

static int make_folder(const struct store *store, const char *path)
{
    int result = io_make_directory(store->io, path);
    return result < 0 ? filesystem_cannot(store->log, "use the folder", path, result) : 0;
}

static int sync_folder(const struct store *store, const char *path)
{
    int result = disk_wait_sync_folder(store->io, path);
    return result < 0 ? filesystem_cannot(store->log, "sync", path, result) : 0;
}

int store_make_folders(struct store *store)
{
    int result = make_folder(store, store->log_directory);
    for (uint32_t i = 0; result == 0 && i < STORE_PARTITIONS; i++) {
        char path[SEGMENT_PATH_MAX];
        if (!store_owns(store, i))
            continue;
        (void)snprintf(path, sizeof path, "%s/%02x", store->options.path, i);
        result = make_folder(store, path);
    }
    if (result == 0 && store->options.shard > 0)
        result = sync_folder(store, store->state_path);
    return result < 0 ? result : sync_folder(store, store->options.path);
}
