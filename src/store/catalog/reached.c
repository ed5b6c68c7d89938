/* The notes of how far the logs had come: reached.h has the format. */
#include "store/catalog/reached.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "store/catalog/superblock.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "mvREACHD"
#define MAGIC_SIZE 8
#define FORMAT 1u
#define CRC_FROM 12
#define FIELDS_END 40
#define PATH_MAX_SIZE 4096

void reached_encode(const struct reached *note, uint8_t *block)
{
    memset(block, 0, REACHED_BLOCK_SIZE);
    memcpy(block, MAGIC, MAGIC_SIZE);
    store_u16(block + 12, FORMAT);
    store_u64(block + 16, note->directory_id);
    store_u32(block + 24, note->shard);
    store_u64(block + 32, note->position);
    store_u32(block + 8, crc32c(block + CRC_FROM, REACHED_BLOCK_SIZE - CRC_FROM));
}

int reached_decode(const uint8_t *block, struct reached *note)
{
    if (bytes_are_zero(block, REACHED_BLOCK_SIZE)) {
        note->position = 0;
        return 0;
    }
    if (memcmp(block, MAGIC, MAGIC_SIZE) != 0 ||
        load_u32(block + 8) != crc32c(block + CRC_FROM, REACHED_BLOCK_SIZE - CRC_FROM))
        return -EBADMSG;
    if (load_u16(block + 12) != FORMAT || load_u16(block + 14) != 0 || load_u32(block + 28) != 0 ||
        !bytes_are_zero(block + FIELDS_END, REACHED_BLOCK_SIZE - FIELDS_END))
        return -EPROTONOSUPPORT;
    if (load_u64(block + 16) != note->directory_id || load_u32(block + 24) != note->shard)
        return -EBADMSG;
    note->position = load_u64(block + 32);
    return 0;
}

/* The keeper's folder, and the file in it. */
static int name_file(const char *data_path, uint32_t shard, char *ret_folder, char *ret_path)
{
    int result = superblock_state_path(data_path, reached_keeper(shard), ret_folder, PATH_MAX_SIZE);
    if (result < 0)
        return result;
    int length = snprintf(ret_path, PATH_MAX_SIZE, "%s/" REACHED_FILE, ret_folder);
    return length > 0 && length < PATH_MAX_SIZE ? 0 : -ENAMETOOLONG;
}

static uint64_t offset_of(uint32_t shard)
{
    return (uint64_t)shard * REACHED_BLOCK_SIZE;
}

int reached_write(struct io *io, const char *data_path, const struct reached *note, uint8_t *block)
{
    char folder[PATH_MAX_SIZE], path[PATH_MAX_SIZE];
    int result = name_file(data_path, note->shard, folder, path);
    if (result < 0)
        return result;
    int handle = disk_wait_open(io, path, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_DIRECT);
    if (handle < 0)
        return handle;
    reached_encode(note, block);
    result = disk_wait_write(io, handle, block, REACHED_BLOCK_SIZE, offset_of(note->shard));
    (void)disk_wait_close(io, handle);
    return result < 0 ? result : disk_wait_sync_folder(io, folder);
}

int reached_read(struct io *io, const char *data_path, struct reached *note, uint8_t *block)
{
    char folder[PATH_MAX_SIZE], path[PATH_MAX_SIZE];
    int result = name_file(data_path, note->shard, folder, path);
    if (result < 0)
        return result;
    int handle = disk_wait_open(io, path, IO_OPEN_READ | IO_OPEN_DIRECT);
    if (handle == -ENOENT) {
        note->position = 0;
        return 0;
    }
    if (handle < 0)
        return handle;
    memset(block, 0, REACHED_BLOCK_SIZE); /* behind the file's end */
    result = disk_wait_read(io, handle, block, REACHED_BLOCK_SIZE, offset_of(note->shard));
    (void)disk_wait_close(io, handle);
    return result < 0 ? result : reached_decode(block, note);
}

/* ---- what follows from a note ---- */

bool reached_is_beyond(const struct superblock *own, uint64_t position)
{
    return position > own->log_last;
}

bool reached_is_older(const struct superblock *own, uint64_t position, uint64_t end, char *ret_text)
{
    if (!reached_is_beyond(own, position) || end >= position)
        return false;
    (void)snprintf(ret_text, SUPERBLOCK_TEXT_SIZE,
                   "the log of shard %" PRIu32 " ends at position %" PRIu64 ", but shard %" PRIu32
                   " noted position %" PRIu64 " at the last clean stop: shard %" PRIu32
                   " is an older copy",
                   own->shard, end, reached_keeper(own->shard), position, own->shard);
    return true;
}
