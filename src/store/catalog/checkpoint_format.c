/* The blocks of a checkpoint: bytes and back, and the names of its files. The tables of offsets stand
 * in checkpoint_format.h. A block is verified whole before any of it is believed. */
#include "store/catalog/checkpoint_format.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define MAGIC "mvCHKBLK"
#define MAGIC_SIZE 8
#define CRC_FROM 12
#define HEADER CHECKPOINT_BLOCK_HEADER_SIZE
#define NAME_PREFIX "checkpoint-"
#define NAME_SUFFIX ".tmp"
#define NAME_DIGITS 16

#define BEGIN_SIZE 32u
#define END_SIZE 16u

static_assert(HEADER + BEGIN_SIZE <= CHECKPOINT_BLOCK_MIN, "the begin is one block");
static_assert(HEADER + END_SIZE <= CHECKPOINT_BLOCK_MIN, "the end is one block");

enum file_kind { FILE_LOG_SEGMENT = 1, FILE_PARTITION_SEGMENT };

uint32_t checkpoint_entry_size(enum checkpoint_kind kind)
{
    switch (kind) {
    case CHECKPOINT_BEGIN:
        return BEGIN_SIZE;
    case CHECKPOINT_FILES:
        return CHECKPOINT_FILE_SIZE;
    case CHECKPOINT_SLOTS:
        return INDEX_PACKED_SIZE;
    case CHECKPOINT_END:
        return END_SIZE;
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
    memset(data + used, 0, block->size - used);
    memset(data, 0, HEADER);
    memcpy(data, MAGIC, MAGIC_SIZE);
    store_u16(data + 12, CHECKPOINT_FORMAT);
    data[14] = (uint8_t)block->kind;
    data[15] = block->partition;
    store_u64(data + 16, block->directory_id);
    store_u64(data + 24, block->number);
    store_u64(data + 32, block->sequence);
    store_u64(data + 40, block->slots_hint);
    store_u32(data + 48, block->entry_count);
    store_u32(data + 52, block->size);
    store_u32(data + 56, crc32c(data + HEADER, block->size - HEADER));
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
    if (size < HEADER || memcmp(data, MAGIC, MAGIC_SIZE) != 0 ||
        load_u32(data + 8) != crc32c(data + CRC_FROM, HEADER - CRC_FROM))
        return -EBADMSG;
    if (load_u16(data + 12) != CHECKPOINT_FORMAT)
        return -EPROTONOSUPPORT;
    struct checkpoint_block block = {
        .kind = data[14],
        .partition = data[15],
        .directory_id = load_u64(data + 16),
        .number = load_u64(data + 24),
        .sequence = load_u64(data + 32),
        .slots_hint = load_u64(data + 40),
        .entry_count = load_u32(data + 48),
        .size = load_u32(data + 52),
    };
    if (!makes_sense(&block) || load_u32(data + 60) != 0 || block.size > size ||
        load_u32(data + 56) != crc32c(data + HEADER, block.size - HEADER))
        return -EBADMSG;
    *ret_block = block;
    return 0;
}

/* ---- entries ---- */

void checkpoint_begin_encode(const struct checkpoint_begin_entry *entry, uint8_t *data)
{
    store_u64(data + HEADER, entry->position);
    store_u64(data + HEADER + 8, entry->chunk_sequence);
    store_u64(data + HEADER + 16, entry->clock_ceiling);
    store_u32(data + HEADER + 24, entry->log_id);
    store_u32(data + HEADER + 28, entry->file_count);
}

void checkpoint_begin_decode(const uint8_t *data, struct checkpoint_begin_entry *ret_entry)
{
    *ret_entry = (struct checkpoint_begin_entry){
        .position = load_u64(data + HEADER),
        .chunk_sequence = load_u64(data + HEADER + 8),
        .clock_ceiling = load_u64(data + HEADER + 16),
        .log_id = load_u32(data + HEADER + 24),
        .file_count = load_u32(data + HEADER + 28),
    };
}

void checkpoint_end_encode(const struct checkpoint_end_entry *entry, uint8_t *data)
{
    store_u64(data + HEADER, entry->slots);
    store_u64(data + HEADER + 8, entry->file_size);
}

void checkpoint_end_decode(const uint8_t *data, struct checkpoint_end_entry *ret_entry)
{
    *ret_entry = (struct checkpoint_end_entry){
        .slots = load_u64(data + HEADER),
        .file_size = load_u64(data + HEADER + 8),
    };
}

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

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

int checkpoint_name_parse(const char *name, uint64_t *ret_number, bool *ret_temporary)
{
    if (strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0)
        return -EINVAL;
    const char *digits = name + strlen(NAME_PREFIX);
    uint64_t number = 0;
    for (uint32_t i = 0; i < NAME_DIGITS; i++) {
        int digit = hex_digit(digits[i]);
        if (digit < 0)
            return -EINVAL;
        number = number << 4 | (uint64_t)digit;
    }
    bool is_temporary = strcmp(digits + NAME_DIGITS, NAME_SUFFIX) == 0;
    if (!is_temporary && digits[NAME_DIGITS] != '\0')
        return -EINVAL;
    *ret_number = number;
    *ret_temporary = is_temporary;
    return 0;
}
