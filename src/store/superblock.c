/* Offsets of a copy (one 4 KiB block, the rest is 0):
 *
 *   offset  size  field
 *        0     8  magic "MINIVLT1"
 *        8     4  crc32c of bytes 12 to 4095
 *       12     4  format
 *       16     8  sequence
 *       24     8  directory id
 *       32     8  cluster id
 *       40     8  cluster epoch
 *       48     8  clock ceiling
 *       56     8  segment size
 *       64     8  damage accepted
 *       72     4  flags: 1 probed, 2 RWF_DSYNC, 4 clean
 *       76     4  writes in flight
 *       80   192  secret
 *
 * The format stands behind the checksum: a copy whose checksum holds and whose format is another one is refused with both
 * numbers, a later format must keep these first sixteen bytes. */
#include "store/superblock.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "MINIVLT1"
#define MAGIC_SIZE 8
#define BLOCK ((uint32_t)DISK_BLOCK_SIZE)
#define PATH_MAX_SIZE 4096
#define LOCK_RETRY_NS (50 * NS_PER_MS)
#define SEGMENT_SIZE_LIMIT (2 * GIB)

enum superblock_flags { FLAG_PROBED = 1, FLAG_DSYNC = 2, FLAG_CLEAN = 4 };

void superblock_encode(const struct superblock *superblock, uint8_t *block)
{
    uint32_t flags = (superblock->probed ? FLAG_PROBED : 0u) | (superblock->use_dsync ? FLAG_DSYNC : 0u) |
                     (superblock->clean ? FLAG_CLEAN : 0u);
    memset(block, 0, BLOCK);
    memcpy(block, MAGIC, MAGIC_SIZE);
    store_u32(block + 12, superblock->format);
    store_u64(block + 16, superblock->sequence);
    store_u64(block + 24, superblock->directory_id);
    store_u64(block + 32, superblock->cluster_id);
    store_u64(block + 40, superblock->cluster_epoch);
    store_u64(block + 48, superblock->clock_ceiling);
    store_u64(block + 56, superblock->segment_size);
    store_u64(block + 64, superblock->damage_accepted);
    store_u32(block + 72, flags);
    store_u32(block + 76, superblock->writes_in_flight);
    memcpy(block + 80, superblock->secret, HASH_SECRET_SIZE);
    store_u32(block + 8, crc32c(block + 12, BLOCK - 12));
}

int superblock_decode(const uint8_t *block, struct superblock *ret_superblock)
{
    if (memcmp(block, MAGIC, MAGIC_SIZE) != 0 || load_u32(block + 8) != crc32c(block + 12, BLOCK - 12))
        return -EBADMSG;
    struct superblock found = {
        .format = load_u32(block + 12),
        .sequence = load_u64(block + 16),
        .directory_id = load_u64(block + 24),
        .cluster_id = load_u64(block + 32),
        .cluster_epoch = load_u64(block + 40),
        .clock_ceiling = load_u64(block + 48),
        .segment_size = load_u64(block + 56),
        .damage_accepted = load_u64(block + 64),
        .probed = load_u32(block + 72) & FLAG_PROBED,
        .use_dsync = load_u32(block + 72) & FLAG_DSYNC,
        .clean = load_u32(block + 72) & FLAG_CLEAN,
        .writes_in_flight = (uint8_t)load_u32(block + 76),
    };
    memcpy(found.secret, block + 80, HASH_SECRET_SIZE);
    if (found.format != SUPERBLOCK_FORMAT) {
        *ret_superblock = found;
        return -EPROTONOSUPPORT;
    }
    bool sound = found.segment_size > 0 && found.segment_size % DISK_BLOCK_SIZE == 0 &&
                 found.segment_size <= SEGMENT_SIZE_LIMIT && found.writes_in_flight >= 1 &&
                 found.writes_in_flight <= 2;
    if (!sound)
        return -EBADMSG;
    *ret_superblock = found;
    return 0;
}

/* ---- small synchronous steps ---- */

static int sync_directory(struct io *io, const char *path)
{
    struct io_op op = {0};
    io_open_file(io, &op, path, IO_OPEN_DIRECTORY);
    int handle = io_wait(io, &op);
    if (handle < 0)
        return handle;
    io_sync(io, &op, handle);
    int result = io_wait(io, &op);
    io_close_file(io, &op, handle);
    int closed = io_wait(io, &op);
    return result < 0 ? result : closed;
}

/* The directory that holds `path`'s own entry. */
static void parent_of(const char *path, char *ret_parent)
{
    (void)snprintf(ret_parent, PATH_MAX_SIZE, "%s", path);
    size_t size = strlen(ret_parent);
    while (size > 1 && ret_parent[size - 1] == '/')
        ret_parent[--size] = '\0';
    char *slash = strrchr(ret_parent, '/');
    if (slash == NULL)
        (void)snprintf(ret_parent, PATH_MAX_SIZE, ".");
    else
        slash[slash == ret_parent] = '\0';
}

static int write_block(struct superblock_file *file, uint64_t offset)
{
    struct io_op op = {0};
    io_write(file->io, &op, file->handle, file->block, BLOCK, offset, IO_WRITE_DSYNC);
    int result = io_wait(file->io, &op);
    return result < 0 ? result : (result == (int)BLOCK ? 0 : -EIO);
}

int superblock_update(struct superblock_file *file)
{
    file->now.sequence++;
    superblock_encode(&file->now, file->block);
    return write_block(file, file->now.sequence % 2 * BLOCK);
}

/* ---- what the directory is ---- */

struct listing {
    bool has_superblock;
    bool has_others;
    char other[128];
};

static int list_each(void *context, const char *name)
{
    struct listing *listing = context;
    if (strcmp(name, "superblock") == 0) {
        listing->has_superblock = true;
    } else if (strcmp(name, "lost+found") != 0) {
        listing->has_others = true;
        (void)snprintf(listing->other, sizeof listing->other, "%s", name);
    }
    return 0;
}

static int look(struct io *io, const struct log *log, const char *data_path, struct listing *ret_listing)
{
    *ret_listing = (struct listing){0};
    int result = io_make_directory(io, data_path);
    if (result == 0)
        result = io_list_directory(io, data_path, list_each, ret_listing);
    if (result < 0) {
        log_error(log, "cannot use the data directory %s: %s%s", data_path, strerror(-result),
                  result == -ENOENT ? "; create the directory that is to hold it" : "");
        return result;
    }
    if (!ret_listing->has_superblock && ret_listing->has_others) {
        log_error(log,
                  "%s is not a minivault data directory: it has no superblock, but \"%s\". Give -data an empty "
                  "or new directory",
                  data_path, ret_listing->other);
        return -ENOTEMPTY;
    }
    return 0;
}

static int take_lock(struct superblock_file *file, const struct log *log, const char *data_path,
                     uint64_t lock_wait_ns)
{
    uint64_t give_up_ns = io_now_ns(file->io) + lock_wait_ns;
    int result = io_lock_file(file->io, file->handle);
    while (result == -EWOULDBLOCK && io_now_ns(file->io) < give_up_ns) {
        struct io_op pause = {0};
        io_timer(file->io, &pause, io_now_ns(file->io) + LOCK_RETRY_NS);
        int waited = io_wait(file->io, &pause);
        if (waited < 0)
            return waited;
        result = io_lock_file(file->io, file->handle);
    }
    if (result == -EWOULDBLOCK)
        log_error(log,
                  "the data directory %s is already in use by another process: stop that one (fuser %s/superblock "
                  "names it), or give -data another directory",
                  data_path, data_path);
    else if (result < 0)
        log_error(log, "cannot lock %s/superblock: %s", data_path, strerror(-result));
    return result;
}

/* Both copies, so that each is valid from the first day. */
static int format(struct superblock_file *file, uint64_t segment_size)
{
    struct superblock *now = &file->now;
    *now = (struct superblock){.format = SUPERBLOCK_FORMAT,
                               .segment_size = segment_size,
                               .writes_in_flight = 1,
                               .use_dsync = true,
                               .clean = true};
    io_random(file->io, &now->directory_id, sizeof now->directory_id);
    io_random(file->io, now->secret, sizeof now->secret);
    int result = superblock_update(file);
    if (result == 0)
        result = superblock_update(file);
    struct io_op op = {0};
    if (result == 0) {
        io_sync(file->io, &op, file->handle);
        result = io_wait(file->io, &op);
    }
    return result < 0 ? result : 0;
}

/* The names on the way to the superblock. At every start, not only after formatting: whoever formatted may have been
 * killed before it came to this, and a name that is merely there can still be lost with the power. */
static int sync_names(struct superblock_file *file, const char *data_path)
{
    char parent[PATH_MAX_SIZE];
    parent_of(data_path, parent);
    int result = sync_directory(file->io, data_path);
    if (result >= 0)
        result = sync_directory(file->io, parent);
    return result < 0 ? result : 0;
}

/* Reads both copies, takes the newer valid one. *ret_blank: nothing was ever written, the formatting was cut short. */
static int load(struct superblock_file *file, const struct log *log, const char *data_path, bool *ret_blank)
{
    int best = -EBADMSG;
    struct superblock found;
    bool blank = true;
    for (uint32_t copy = 0; copy < 2; copy++) {
        struct io_op op = {0};
        memset(file->block, 0, BLOCK);
        io_read(file->io, &op, file->handle, file->block, BLOCK, copy * BLOCK);
        int result = io_wait(file->io, &op);
        if (result < 0 && result != -EIO)
            return result;
        for (uint32_t i = 0; i < BLOCK; i++)
            blank = blank && file->block[i] == 0;
        result = superblock_decode(file->block, &found);
        bool newer = result == 0 && (best != 0 || found.sequence > file->now.sequence);
        if (newer || (result == -EPROTONOSUPPORT && best != 0))
            file->now = found;
        if (result == 0 || (result == -EPROTONOSUPPORT && best != 0))
            best = result;
    }
    *ret_blank = blank;
    if (best == -EPROTONOSUPPORT)
        log_error(log,
                  "the data directory %s has format version %" PRIu32
                  ", this program knows version %d: use the release that wrote it",
                  data_path, file->now.format, SUPERBLOCK_FORMAT);
    return best;
}

static int open_file(struct superblock_file *file, const struct log *log, const char *data_path)
{
    char path[PATH_MAX_SIZE];
    int length = snprintf(path, sizeof path, "%s/superblock", data_path);
    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    struct io_op op = {0};
    io_open_file(file->io, &op, path, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_DIRECT);
    file->handle = io_wait(file->io, &op);
    if (file->handle < 0)
        log_error(log, "cannot open %s: %s", path, strerror(-file->handle));
    return file->handle < 0 ? file->handle : 0;
}

static int load_or_format(struct superblock_file *file, const struct log *log, const char *data_path,
                          uint64_t segment_size, const struct listing *listing, bool *ret_formatted)
{
    bool blank = false;
    int result = load(file, log, data_path, &blank);
    *ret_formatted = false;
    if (result != -EBADMSG)
        return result;
    /* A crash while formatting leaves a blank or torn file, before anything else is there. */
    if (listing->has_others) {
        log_error(log,
                  "%s/superblock is %s although there is data beside it: restore it from a backup; nothing was "
                  "changed",
                  data_path, blank ? "empty" : "damaged in both copies");
        return result;
    }
    result = format(file, segment_size);
    if (result < 0) {
        log_error(log, "cannot format the data directory %s: %s", data_path, strerror(-result));
        return result;
    }
    *ret_formatted = true;
    log_info(log, "formatted the data directory %s", data_path);
    return 0;
}

int superblock_open(struct io *io, const struct log *log, const char *data_path, uint64_t segment_size,
                    uint64_t lock_wait_ns, struct superblock_file *ret_file, bool *ret_formatted)
{
    struct listing listing;
    struct superblock_file file = {.io = io, .handle = -1};
    int result = look(io, log, data_path, &listing);
    if (result < 0)
        return result;
    file.block = aligned_alloc(DISK_BLOCK_SIZE, BLOCK);
    if (file.block == NULL)
        return -ENOMEM;
    result = open_file(&file, log, data_path);
    if (result == 0)
        result = take_lock(&file, log, data_path, lock_wait_ns);
    if (result == 0)
        result = load_or_format(&file, log, data_path, segment_size, &listing, ret_formatted);
    if (result == 0)
        result = sync_names(&file, data_path);
    if (result < 0) {
        superblock_close(&file);
        return result;
    }
    *ret_file = file;
    return 0;
}

void superblock_close(struct superblock_file *file)
{
    if (file->handle >= 0) {
        struct io_op op = {0};
        io_close_file(file->io, &op, file->handle);
        (void)io_wait(file->io, &op);
    }
    file->handle = -1;
    free(file->block);
    file->block = NULL;
}
