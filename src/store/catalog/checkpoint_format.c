/* The blocks of a checkpoint: bytes and back, and the names of its files. The tables of offsets stand
 * in checkpoint_format.h. A block is verified whole before any of it is believed. */
#include "store/catalog/checkpoint_format.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define HEADER CHECKPOINT_BLOCK_HEADER_SIZE
#define CRC_FROM offsetof(struct checkpoint_block, format)
#define NAME_PREFIX "checkpoint-"
#define NAME_SUFFIX ".tmp"
#define NAME_DIGITS 16

static const uint8_t MAGIC[8] = "mvCHKBLK";

static_assert(offsetof(struct checkpoint_block, partition) == 15, "as the table says");
static_assert(offsetof(struct checkpoint_block, size) == 52, "as the table says");
static_assert(sizeof(struct checkpoint_block) == HEADER, "as the table says");
static_assert(sizeof(struct checkpoint_begin_entry) == 32, "as the table says");
static_assert(sizeof(struct checkpoint_end_entry) == 16, "as the table says");

enum file_kind { FILE_LOG_SEGMENT = 1, FILE_PARTITION_SEGMENT };

uint32_t checkpoint_entry_size(enum checkpoint_kind kind)
{
    switch (kind) {
    case CHECKPOINT_BEGIN:
        return sizeof(struct checkpoint_begin_entry);
    case CHECKPOINT_FILES:
        return CHECKPOINT_FILE_SIZE;
    case CHECKPOINT_SLOTS:
        return INDEX_PACKED_SIZE;
    case CHECKPOINT_END:
        return sizeof(struct checkpoint_end_entry);
    }
    assert(!"a kind of block");
    return 0;
}

/* ---- blocks ---- */

static uint64_t used_size(const struct checkpoint_block *block)
{
    return HEADER + (uint64_t)block->entry_count * checkpoint_entry_size(block->kind);
}

void checkpoint_block_encode(const struct checkpoint_block *block, uint8_t *data)
{
    uint64_t used = used_size(block);
    assert(block->size % DISK_BLOCK_SIZE == 0);
    assert(block->kind >= CHECKPOINT_BEGIN);
    assert(block->kind <= CHECKPOINT_END);
    assert(used <= block->size);
    assert(block->size <= CHECKPOINT_UNIT_SIZE);
    struct checkpoint_block header = *block;
    memset(data + used, 0, block->size - used);
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    header.format = CHECKPOINT_FORMAT;
    header.body_checksum = crc32c(data + HEADER, block->size - HEADER);
    memcpy(data, &header, sizeof header);
    store_u32(data + 8, crc32c(data + CRC_FROM, HEADER - CRC_FROM));
}

static bool makes_sense(const struct checkpoint_block *block)
{
    if (block->kind < CHECKPOINT_BEGIN || block->kind > CHECKPOINT_END)
        return false;
    if (block->size == 0 || block->size % DISK_BLOCK_SIZE != 0 ||
        block->size > CHECKPOINT_UNIT_SIZE || used_size(block) > block->size)
        return false;
    bool is_single = block->kind == CHECKPOINT_BEGIN || block->kind == CHECKPOINT_END;
    if (is_single && (block->entry_count != 1 || block->size != CHECKPOINT_BLOCK_MIN))
        return false;
    return block->kind == CHECKPOINT_SLOTS || (block->partition == 0 && block->slots_hint == 0);
}

int checkpoint_block_decode(const uint8_t *data, uint32_t size, struct checkpoint_block *ret_block)
{
    struct checkpoint_block block;
    if (size < HEADER)
        return -EBADMSG;
    memcpy(&block, data, sizeof block);
    if (memcmp(block.magic, MAGIC, sizeof MAGIC) != 0 ||
        block.checksum != crc32c(data + CRC_FROM, HEADER - CRC_FROM))
        return -EBADMSG;
    if (block.format != CHECKPOINT_FORMAT)
        return -EPROTONOSUPPORT;
    if (!makes_sense(&block) || block.zero != 0 || block.size > size ||
        block.body_checksum != crc32c(data + HEADER, block.size - HEADER))
        return -EBADMSG;
    *ret_block = block;
    return 0;
}

/* ---- the file table ---- */

void checkpoint_file_encode(const struct checkpoint_file *file, uint8_t *target)
{
    assert(file->file < 1u << CHECKPOINT_FILE_BITS);
    memset(target, 0, 4);
    target[0] = file->is_segment ? FILE_PARTITION_SEGMENT : FILE_LOG_SEGMENT;
    store_u32(target + 4, file->file);
    store_u64(target + 8, file->number);
    store_u64(target + 16, file->end);
}

int checkpoint_file_decode(const uint8_t *data, struct checkpoint_file *ret_file)
{
    uint32_t kind = load_u32(data);
    struct checkpoint_file file = {
        .is_segment = kind == FILE_PARTITION_SEGMENT,
        .file = load_u32(data + 4),
        .number = load_u64(data + 8),
        .end = load_u64(data + 16),
    };
    if (kind != FILE_LOG_SEGMENT && kind != FILE_PARTITION_SEGMENT)
        return -EBADMSG;
    if (file.file >= 1u << CHECKPOINT_FILE_BITS)
        return -EBADMSG;
    *ret_file = file;
    return 0;
}

/* ---- names ---- */

int checkpoint_path(const char *directory, uint64_t number, bool is_temporary, char *ret_path)
{
    int size = snprintf(ret_path, CHECKPOINT_PATH_MAX, "%s/" NAME_PREFIX "%0*" PRIx64 "%s",
                        directory, NAME_DIGITS, number, is_temporary ? NAME_SUFFIX : "");
    return size < (int)CHECKPOINT_PATH_MAX ? 0 : -ENAMETOOLONG;
}

int checkpoint_name_parse(const char *name, uint64_t *ret_number, bool *ret_temporary)
{
    if (strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0)
        return -EINVAL;
    const char *digits = name + strlen(NAME_PREFIX);
    if (strspn(digits, "0123456789abcdef") != NAME_DIGITS)
        return -EINVAL;
    bool is_temporary = strcmp(digits + NAME_DIGITS, NAME_SUFFIX) == 0;
    if (!is_temporary && digits[NAME_DIGITS] != '\0')
        return -EINVAL;
    *ret_number = strtoull(digits, NULL, 16);
    *ret_temporary = is_temporary;
    return 0;
}
