/* The superblock's file: found, locked, formatted, read and written. */
#include "store/catalog/superblock.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/units.h"
#include "store/disk/filesystem.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK ((uint32_t)DISK_BLOCK_SIZE)
#define PATH_MAX_SIZE 4096
#define LOCK_RETRY_NS (50 * NS_PER_MS)

/* Of a disk, so many log files are what a shard's log may grow to (storage.md): of less than 4 MiB
 * each they would not take a large record and the writes beside it, of more than 32 MiB a file
 * waits longer for its last record to die. */
#define LOG_FILES_OF_DISK 16u
#define LOG_FILE_SIZE_MIN (4 * MIB)
#define LOG_FILE_SIZE_MAX (32 * MIB)

/* ---- small synchronous steps ---- */

void superblock_update_begin(struct superblock_file *file, struct io_op *op)
{
    assert(file->handle >= 0);
    assert(superblock_origin_id(&file->now) != SUPERBLOCK_ORIGIN_NOBODY); /* invariant 3 */
    file->now.sequence++;
    superblock_encode(&file->now, file->block);
    io_write(file->io, op, file->handle, file->block, BLOCK, file->now.sequence % 2 * BLOCK,
             IO_WRITE_DSYNC);
}

int superblock_update_end(struct superblock_file *file, struct io_op *op)
{
    assert(file->now.sequence > 0); /* invariant 1 */
    int result = io_wait(file->io, op);
    if (result == (int)BLOCK)
        return 0;
    /* What failed may be torn now: the next update must not go to the other copy, the good one. */
    file->now.sequence--;
    return result < 0 ? result : -EIO;
}

int superblock_update(struct superblock_file *file)
{
    struct io_op op = {0};
    superblock_update_begin(file, &op);
    return superblock_update_end(file, &op);
}

int superblock_update_both(struct superblock_file *file)
{
    int result = superblock_update(file);
    return result < 0 ? result : superblock_update(file);
}

/* ---- what the directory is ---- */

struct listing {
    bool has_superblock;
    char other[128]; /* the last of the other entries; "": there are none */
};

static int list_each(void *context, const char *name)
{
    struct listing *listing = context;
    if (strcmp(name, "superblock") == 0)
        listing->has_superblock = true;
    else if (strcmp(name, "lost+found") != 0)
        (void)snprintf(listing->other, sizeof listing->other, "%s", name);
    return 0;
}

static int look(struct io *io, const struct log *log, const char *data_path,
                struct listing *ret_listing)
{
    *ret_listing = (struct listing){0};
    int result = io_make_directory(io, data_path);
    if (result == 0)
        result = io_list_directory(io, data_path, list_each, ret_listing);
    if (result < 0) {
        log_error(log, "cannot use the data directory %s: %s; %s", data_path, strerror(-result),
                  result == -ENOENT ? "create the directory that is to hold it"
                                    : filesystem_advice(result));
        return result;
    }
    if (!ret_listing->has_superblock && ret_listing->other[0] != '\0') {
        log_error(log,
                  "%s is not a minivault data directory: it has no superblock, but \"%s\". Give "
                  "-data an empty or new directory",
                  data_path, ret_listing->other);
        return -ENOTEMPTY;
    }
    return 0;
}

static int take_lock(struct superblock_file *file, const struct log *log, const char *data_path,
                     uint64_t lock_wait_ns)
{
    uint64_t give_up_ns = io_now_ns(file->io) + lock_wait_ns;
    int result;
    while ((result = io_lock_file(file->io, file->handle)) == -EWOULDBLOCK &&
           io_now_ns(file->io) < give_up_ns) {
        struct io_op pause = {0};
        io_timer(file->io, &pause, io_now_ns(file->io) + LOCK_RETRY_NS);
        int waited = io_wait(file->io, &pause);
        if (waited < 0)
            return waited;
    }
    if (result == -EWOULDBLOCK)
        log_error(log,
                  "the data directory %s is already in use by another process: stop that one "
                  "(fuser %s/superblock names it), or give -data another directory",
                  data_path, data_path);
    else if (result < 0)
        log_error(log, "cannot lock %s/superblock: %s; %s", data_path, strerror(-result),
                  filesystem_advice(result));
    return result;
}

/* Both copies, so that each is valid from the first day. */
static int write_new(struct superblock_file *file)
{
    int result = superblock_update_both(file);
    return result < 0 ? result : disk_wait_sync(file->io, file->handle);
}

uint64_t superblock_log_file_size(uint64_t disk_size, uint32_t shard_count)
{
    assert(shard_count > 0);
    uint64_t size = round_down(disk_size / LOG_FILES_OF_DISK / shard_count, MIB);
    return min_u64(max_u64(size, LOG_FILE_SIZE_MIN), LOG_FILE_SIZE_MAX);
}

uint64_t superblock_directory_id(uint64_t random)
{
    bool is_nobody = (random & SUPERBLOCK_ORIGIN_NOBODY) == SUPERBLOCK_ORIGIN_NOBODY;
    return is_nobody ? random ^ 1 : random;
}

static uint64_t choose_log_file_size(struct io *io, const char *data_path, uint32_t shard_count)
{
    uint64_t free_size, total_size;
    if (io_disk_space(io, data_path, &free_size, &total_size) < 0)
        return LOG_FILE_SIZE_MAX;
    return superblock_log_file_size(total_size, shard_count);
}

static int format(struct superblock_file *file, const char *data_path,
                  const struct superblock_birth *birth)
{
    struct superblock *now = &file->now;
    uint64_t random;
    *now = (struct superblock){.format = SUPERBLOCK_FORMAT,
                               .log_file_size = birth->log_file_size,
                               .shard_count = 1,
                               .writes_in_flight = 1,
                               .use_dsync = true,
                               .clean = true};
    if (birth->log_file_size == 0)
        now->log_file_size = choose_log_file_size(file->io, data_path, birth->shard_count);
    io_random(file->io, &random, sizeof random);
    now->directory_id = superblock_directory_id(random);
    if (birth->identity == NULL) {
        io_random(file->io, now->secret, sizeof now->secret);
    } else {
        assert(birth->identity->cluster_id != 0);
        now->cluster_id = birth->identity->cluster_id;
        memcpy(now->secret, birth->identity->secret, sizeof now->secret);
    }
    return write_new(file);
}

/* The names on the way to the superblock. At every start, not only after formatting: whoever
 * formatted may have been killed before it came to this, and a name that is merely there can still
 * be lost with the power. */
static int sync_names(struct superblock_file *file, const struct log *log, const char *data_path)
{
    char parent[PATH_MAX_SIZE];
    (void)snprintf(parent, sizeof parent, "%s", data_path);
    const char *const folders[] = {data_path, dirname(parent)};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        int result = disk_wait_sync_folder(file->io, folders[i]);
        if (result < 0)
            return filesystem_cannot(log, "make durable the names in", folders[i], result);
    }
    return 0;
}

static int read_copy(struct superblock_file *file, uint32_t copy, struct superblock *ret_found,
                     bool *ret_blank)
{
    memset(file->block, 0, BLOCK);
    int result = disk_wait_read(file->io, file->handle, file->block, BLOCK, (uint64_t)copy * BLOCK);
    *ret_blank = result >= 0 && bytes_are_zero(file->block, BLOCK);
    return result < 0 ? result : superblock_decode(file->block, ret_found);
}

/* *ret_blank: nothing was ever written, the formatting was cut short. */
static int load(struct superblock_file *file, const struct log *log, const char *path,
                bool *ret_blank)
{
    struct superblock found[SUPERBLOCK_COPIES] = {{0}};
    int results[SUPERBLOCK_COPIES];
    *ret_blank = true;
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES; copy++) {
        bool is_blank;
        results[copy] = read_copy(file, copy, &found[copy], &is_blank);
        *ret_blank = *ret_blank && is_blank;
    }
    int result = superblock_choose(found, results, &file->now);
    for (uint32_t copy = 0; result == 0 && copy < SUPERBLOCK_COPIES; copy++)
        if (results[copy] != 0)
            log_warn(log,
                     "%s/superblock: the copy at byte %" PRIu32
                     " is torn or corrupt (%s). The other one counts and this one is written anew: "
                     "nothing is lost; look at the device if the power was not",
                     path, copy * BLOCK, strerror(-results[copy]));
    return result;
}

static void log_load(const struct superblock_file *file, const struct log *log,
                     const char *data_path, int result)
{
    if (result == -EBADMSG)
        log_error(log,
                  "%s/superblock is damaged in both copies: restore it from a backup; nothing was "
                  "changed",
                  data_path);
    else if (result != -EPROTONOSUPPORT)
        log_error(log, "cannot read %s/superblock: %s; %s", data_path, strerror(-result),
                  filesystem_advice(result));
    else if (file->now.format != SUPERBLOCK_FORMAT)
        log_error(log,
                  "the data directory %s has format version %" PRIu32
                  ", this release wants version %d and converts no other: use the release that "
                  "wrote it, or give -data an empty or new directory; nothing was changed",
                  data_path, file->now.format, SUPERBLOCK_FORMAT);
    else
        log_error(log,
                  "the data directory %s has format version %d as this release, but uses something "
                  "that this release does not know: use the release that wrote it; nothing was "
                  "changed",
                  data_path, SUPERBLOCK_FORMAT);
}

int superblock_state_path(const char *data_path, uint32_t shard, char *ret_path, size_t size)
{
    int length = shard == 0 ? snprintf(ret_path, size, "%s", data_path)
                            : snprintf(ret_path, size, "%s/shard-%" PRIu32, data_path, shard);
    return length > 0 && (size_t)length < size ? 0 : -ENAMETOOLONG;
}

static int open_file(struct superblock_file *file, const struct log *log, const char *data_path,
                     uint32_t flags)
{
    char path[PATH_MAX_SIZE];
    int length = snprintf(path, sizeof path, "%s/superblock", data_path);
    if (length < 0 || (size_t)length >= sizeof path)
        return filesystem_cannot(log, "open the superblock in", data_path, -ENAMETOOLONG);
    file->handle = disk_wait_open(file->io, path, IO_OPEN_WRITE | IO_OPEN_DIRECT | flags);
    return file->handle < 0 ? filesystem_cannot(log, "open", path, file->handle) : 0;
}

static int load_or_format(struct superblock_file *file, const struct log *log,
                          const char *data_path, const struct superblock_birth *birth,
                          const struct listing *listing, bool *ret_formatted)
{
    bool blank = false;
    int result = load(file, log, data_path, &blank);
    *ret_formatted = false;
    if (result < 0 && result != -EBADMSG)
        log_load(file, log, data_path, result);
    if (result != -EBADMSG)
        return result;
    /* A crash while formatting leaves a blank or torn file, before anything else is there. */
    if (listing->other[0] != '\0') {
        log_error(log,
                  "%s/superblock is %s although there is data beside it: restore it from a backup; "
                  "nothing was changed",
                  data_path, blank ? "empty" : "damaged in both copies");
        return result;
    }
    result = format(file, data_path, birth);
    if (result < 0)
        return filesystem_cannot(log, "format the data directory", data_path, result);
    *ret_formatted = true;
    log_info(log, "formatted the data directory %s", data_path);
    return 0;
}

/* Opens and locks the superblock in the folder `path`. */
static int open_locked(struct superblock_file *file, const struct log *log, const char *path,
                       uint32_t flags, uint64_t lock_wait_ns)
{
    file->block = aligned_alloc(DISK_BLOCK_SIZE, BLOCK);
    if (file->block == NULL)
        return filesystem_cannot(log, "open the superblock in", path, -ENOMEM);
    int result = open_file(file, log, path, flags);
    return result < 0 ? result : take_lock(file, log, path, lock_wait_ns);
}

/* What was opened goes to the caller, or is closed when `result` is an error. */
static int finish_open(struct superblock_file *file, int result, struct superblock_file *ret_file)
{
    if (result < 0)
        superblock_close(file);
    else
        *ret_file = *file;
    return result;
}

int superblock_open(struct io *io, const struct log *log, const char *data_path,
                    const struct superblock_birth *birth, uint64_t lock_wait_ns,
                    struct superblock_file *ret_file, bool *ret_formatted)
{
    struct listing listing;
    struct superblock_file file = {.io = io, .handle = -1};
    int result = look(io, log, data_path, &listing);
    if (result == 0)
        result = open_locked(&file, log, data_path, IO_OPEN_CREATE, lock_wait_ns);
    if (result == 0)
        result = load_or_format(&file, log, data_path, birth, &listing, ret_formatted);
    if (result == 0)
        result = sync_names(&file, log, data_path);
    return finish_open(&file, result, ret_file);
}

static int load_shard(struct superblock_file *file, const struct superblock *node, uint32_t shard,
                      const struct log *log, const char *state_path)
{
    bool blank;
    char text[SUPERBLOCK_TEXT_SIZE];
    int result = load(file, log, state_path, &blank);
    if (result < 0)
        log_load(file, log, state_path, result);
    if (result < 0 || !superblock_is_misplaced(&file->now, node, shard, text))
        return result;
    log_error(log, "%s/superblock: %s; nothing was changed", state_path, text);
    return -EXDEV;
}

int superblock_open_shard(struct io *io, const struct log *log, const char *data_path,
                          const struct superblock *node, uint32_t shard, uint64_t lock_wait_ns,
                          struct superblock_file *ret_file)
{
    assert(shard > 0 && shard < node->shard_count);
    char state_path[PATH_MAX_SIZE];
    struct superblock_file file = {.io = io, .handle = -1};
    int result = superblock_state_path(data_path, shard, state_path, sizeof state_path);
    if (result == 0)
        result = open_locked(&file, log, state_path, 0, lock_wait_ns);
    if (result == 0)
        result = load_shard(&file, node, shard, log, state_path);
    return finish_open(&file, result, ret_file);
}

int superblock_make(struct io *io, const char *path, const struct superblock *superblock)
{
    struct superblock_file file = {.io = io, .now = *superblock};
    file.block = aligned_alloc(DISK_BLOCK_SIZE, BLOCK);
    if (file.block == NULL)
        return -ENOMEM;
    file.handle = disk_wait_open(io, path, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_DIRECT);
    int result = file.handle < 0 ? file.handle : write_new(&file);
    superblock_close(&file);
    return result;
}

void superblock_close(struct superblock_file *file)
{
    if (file->handle >= 0)
        (void)disk_wait_close(file->io, file->handle);
    file->handle = -1;
    free(file->block);
    file->block = NULL;
}
