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
 *      272     8  last position of the log; 0: unknown. This and the next four are as of the last
 *                 clean shutdown
 *      280     8  number of the log's newest segment
 *      288     8  salt of the manifest
 *      296     8  blocks of the manifest's groups
 *      304     8  edition of the manifest
 *
 * The format stands behind the checksum: a copy whose checksum holds and whose format is another
 * one is refused with both numbers, a later format must keep these first sixteen bytes. */
#include "store/catalog/superblock.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "base/units.h"
#include "store/disk/filesystem.h"

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

enum superblock_flags { FLAG_PROBED = 1, FLAG_DSYNC = 2, FLAG_CLEAN = 4, FLAGS_KNOWN = 7 };

#define FIELDS_SIZE 340 /* the rest of a copy is 0 */

void superblock_encode(const struct superblock *superblock, uint8_t *block)
{
    uint32_t flags = (superblock->probed ? FLAG_PROBED : 0u) |
                     (superblock->use_dsync ? FLAG_DSYNC : 0u) |
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
    store_u64(block + 272, superblock->log_last);
    store_u64(block + 280, superblock->log_number);
    store_u64(block + 288, superblock->manifest_salt);
    store_u64(block + 296, superblock->manifest_blocks);
    store_u64(block + 304, superblock->manifest_edition);
    store_u32(block + 312, superblock->shard_count);
    store_u32(block + 316, superblock->shard);
    store_u64(block + 320, superblock->log_base);
    store_u64(block + 328, superblock->segment_base);
    store_u32(block + 336, superblock->shards_before);
    store_u32(block + 8, crc32c(block + 12, BLOCK - 12));
}

/* Whether this is of our format and says nothing that we do not know. */
static bool is_known(const uint8_t *block)
{
    bool is_known = load_u32(block + 12) == SUPERBLOCK_FORMAT &&
                    (load_u32(block + 72) & ~(uint32_t)FLAGS_KNOWN) == 0;
    for (uint32_t i = FIELDS_SIZE; i < BLOCK; i++)
        is_known = is_known && block[i] == 0;
    return is_known;
}

int superblock_decode(const uint8_t *block, struct superblock *ret_superblock)
{
    if (memcmp(block, MAGIC, MAGIC_SIZE) != 0 ||
        load_u32(block + 8) != crc32c(block + 12, BLOCK - 12))
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
        .log_last = load_u64(block + 272),
        .log_number = load_u64(block + 280),
        .manifest_salt = load_u64(block + 288),
        .manifest_blocks = load_u64(block + 296),
        .manifest_edition = load_u64(block + 304),
        .shard_count = load_u32(block + 312),
        .shard = load_u32(block + 316),
        .log_base = load_u64(block + 320),
        .segment_base = load_u64(block + 328),
        .shards_before = load_u32(block + 336),
    };
    memcpy(found.secret, block + 80, HASH_SECRET_SIZE);
    if (!is_known(block)) {
        *ret_superblock = found;
        return -EPROTONOSUPPORT;
    }
    uint32_t writes_in_flight = load_u32(block + 76);
    bool is_numbered = found.shard_count <= SUPERBLOCK_SHARDS_MAX &&
                       found.shards_before <= SUPERBLOCK_SHARDS_MAX &&
                       found.shard < superblock_shards(&found);
    bool sound =
        is_numbered && found.segment_size > 0 && found.segment_size % DISK_BLOCK_SIZE == 0 &&
        found.segment_size <= SEGMENT_SIZE_LIMIT && writes_in_flight >= 1 && writes_in_flight <= 2;
    if (!sound)
        return -EBADMSG;
    *ret_superblock = found;
    return 0;
}

/* ---- small synchronous steps ---- */

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
    int result = write_block(file, file->now.sequence % 2 * BLOCK);
    /* What failed may be torn now: the next update must not go to the other copy, the good one. */
    if (result < 0)
        file->now.sequence--;
    return result;
}

int superblock_update_both(struct superblock_file *file)
{
    int result = superblock_update(file);
    return result < 0 ? result : superblock_update(file);
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

static int look(struct io *io, const struct log *log, const char *data_path,
                struct listing *ret_listing)
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
                  "%s is not a minivault data directory: it has no superblock, but \"%s\". Give "
                  "-data an empty "
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
                  "the data directory %s is already in use by another process: stop that one "
                  "(fuser %s/superblock "
                  "names it), or give -data another directory",
                  data_path, data_path);
    else if (result < 0)
        log_error(log, "cannot lock %s/superblock: %s", data_path, strerror(-result));
    return result;
}

/* Both copies, so that each is valid from the first day. */
static int write_new(struct superblock_file *file)
{
    int result = superblock_update_both(file);
    struct io_op op = {0};
    if (result == 0) {
        io_sync(file->io, &op, file->handle);
        result = io_wait(file->io, &op);
    }
    return result < 0 ? result : 0;
}

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
    return write_new(file);
}

/* The names on the way to the superblock. At every start, not only after formatting: whoever
 * formatted may have been killed before it came to this, and a name that is merely there can still
 * be lost with the power. */
static int sync_names(struct superblock_file *file, const char *data_path)
{
    char parent[PATH_MAX_SIZE];
    parent_of(data_path, parent);
    int result = filesystem_sync_folder(file->io, data_path);
    if (result >= 0)
        result = filesystem_sync_folder(file->io, parent);
    return result < 0 ? result : 0;
}

static bool is_blank(const uint8_t *block)
{
    uint8_t bits = 0;
    for (uint32_t i = 0; i < BLOCK; i++)
        bits |= block[i];
    return bits == 0;
}

static int read_copy(struct superblock_file *file, uint32_t copy, struct superblock *ret_found,
                     bool *ret_blank)
{
    struct io_op op = {0};
    memset(file->block, 0, BLOCK);
    io_read(file->io, &op, file->handle, file->block, BLOCK, (uint64_t)copy * BLOCK);
    int result = io_wait(file->io, &op);
    *ret_blank = result >= 0 && is_blank(file->block);
    return result < 0 ? result : superblock_decode(file->block, ret_found);
}

/* Takes the newer one of the valid copies. A copy of another format decides, whatever the other one
 * says: somebody has begun to use this directory with another program. *ret_blank: nothing was ever
 * written, the formatting was cut short. */
static int load(struct superblock_file *file, bool *ret_blank)
{
    struct superblock found[2];
    int results[2];
    bool blank[2];
    for (uint32_t copy = 0; copy < 2; copy++) {
        results[copy] = read_copy(file, copy, &found[copy], &blank[copy]);
        if (results[copy] == -EPROTONOSUPPORT) {
            file->now = found[copy];
            return results[copy];
        }
    }
    *ret_blank = blank[0] && blank[1];
    if (results[0] != 0 && results[1] != 0) /* one that cannot be read may be good: no formatting */
        return results[0] != -EBADMSG ? results[0] : results[1];
    bool is_second = results[0] != 0 || (results[1] == 0 && found[1].sequence > found[0].sequence);
    file->now = found[is_second ? 1 : 0];
    /* The one that is lost may have said that the directory is in use. */
    bool is_alone = results[0] != 0 || results[1] != 0;
    file->now.clean = file->now.clean && !is_alone;
    return 0;
}

static void log_load(const struct superblock_file *file, const struct log *log,
                     const char *data_path, int result)
{
    if (result != -EPROTONOSUPPORT)
        log_error(log, "cannot read %s/superblock: %s", data_path, strerror(-result));
    else if (file->now.format != SUPERBLOCK_FORMAT)
        log_error(log,
                  "the data directory %s has format version %" PRIu32
                  ", this program knows version %d: use the release that wrote it",
                  data_path, file->now.format, SUPERBLOCK_FORMAT);
    else
        log_error(log,
                  "the data directory %s has format version %d as this program, but uses something "
                  "that this program does not know: use the release that wrote it",
                  data_path, SUPERBLOCK_FORMAT);
}

static int open_file(struct superblock_file *file, const struct log *log, const char *data_path,
                     uint32_t flags)
{
    char path[PATH_MAX_SIZE];
    int length = snprintf(path, sizeof path, "%s/superblock", data_path);
    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    struct io_op op = {0};
    io_open_file(file->io, &op, path, IO_OPEN_WRITE | IO_OPEN_DIRECT | flags);
    file->handle = io_wait(file->io, &op);
    if (file->handle < 0)
        log_error(log, "cannot open %s: %s", path, strerror(-file->handle));
    return file->handle < 0 ? file->handle : 0;
}

static int load_or_format(struct superblock_file *file, const struct log *log,
                          const char *data_path, uint64_t segment_size,
                          const struct listing *listing, bool *ret_formatted)
{
    bool blank = false;
    int result = load(file, &blank);
    *ret_formatted = false;
    if (result < 0 && result != -EBADMSG)
        log_load(file, log, data_path, result);
    if (result != -EBADMSG)
        return result;
    /* A crash while formatting leaves a blank or torn file, before anything else is there. */
    if (listing->has_others) {
        log_error(log,
                  "%s/superblock is %s although there is data beside it: restore it from a backup; "
                  "nothing was "
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

int superblock_open(struct io *io, const struct log *log, const char *data_path,
                    uint64_t segment_size, uint64_t lock_wait_ns, struct superblock_file *ret_file,
                    bool *ret_formatted)
{
    struct listing listing;
    struct superblock_file file = {.io = io, .handle = -1};
    int result = look(io, log, data_path, &listing);
    if (result < 0)
        return result;
    file.block = aligned_alloc(DISK_BLOCK_SIZE, BLOCK);
    if (file.block == NULL)
        return -ENOMEM;
    result = open_file(&file, log, data_path, IO_OPEN_CREATE);
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

static int load_shard(struct superblock_file *file, const struct log *log, const char *state_path)
{
    bool is_blank;
    int result = load(file, &is_blank);
    if (result == -EBADMSG)
        log_error(log,
                  "%s/superblock is damaged in both copies: restore it from a backup; nothing was "
                  "changed",
                  state_path);
    else if (result < 0)
        log_load(file, log, state_path, result);
    return result;
}

int superblock_open_shard(struct io *io, const struct log *log, const char *state_path,
                          uint64_t lock_wait_ns, struct superblock_file *ret_file)
{
    struct superblock_file file = {.io = io, .handle = -1};
    file.block = aligned_alloc(DISK_BLOCK_SIZE, BLOCK);
    if (file.block == NULL)
        return -ENOMEM;
    int result = open_file(&file, log, state_path, 0);
    if (result == 0)
        result = take_lock(&file, log, state_path, lock_wait_ns);
    if (result == 0)
        result = load_shard(&file, log, state_path);
    if (result < 0) {
        superblock_close(&file);
        return result;
    }
    *ret_file = file;
    return 0;
}

int superblock_make(struct io *io, const char *path, const struct superblock *superblock)
{
    struct superblock_file file = {.io = io, .now = *superblock};
    file.block = aligned_alloc(DISK_BLOCK_SIZE, BLOCK);
    if (file.block == NULL)
        return -ENOMEM;
    struct io_op op = {0};
    io_open_file(io, &op, path, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_DIRECT);
    file.handle = io_wait(io, &op);
    int result = file.handle < 0 ? file.handle : write_new(&file);
    superblock_close(&file);
    return result;
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
