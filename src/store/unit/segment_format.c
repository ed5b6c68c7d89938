/* Encodes and decodes the headers and directories of a segment. segment_format.h has the tables. */
#include "store/unit/segment_format.h"

#include "base/assert.h"
#include "base/checksum.h"
#include "base/hash.h"
#include "store/record/record.h"

#include <errno.h>

#define HEADER_MAGIC "mvSEGFIL"
#define CHUNK_MAGIC "mvCHUNK1"
#define MAGIC_SIZE 8
#define CRC_FROM 12

#define RECORD_SIZE_MIN ((uint32_t)RECORD_HEADER_SIZE + 1)
#define RECORD_SIZE_BITS ((1u << 30) - 1)
#define IN_VALUE_FILE_BIT (1u << 30)
#define TOMBSTONE_BIT (1u << 31)

static_assert(sizeof(struct segment_header) == 56, "no padding on the disk");
static_assert(sizeof(struct segment_chunk_header) == 72, "no padding on the disk");
static_assert(SEGMENT_CHUNK_HEADER_SIZE % SEGMENT_RECORD_ALIGNMENT == 0 &&
                  SEGMENT_ENTRY_SIZE % SEGMENT_RECORD_ALIGNMENT == 0,
              "the records begin right behind the directory");
static_assert(SEGMENT_CHUNK_SIZE_MAX <= RECORD_SIZE_BITS, "an entry holds every record's size");

/* Checksum and format, of a header of either kind. */
static int check(const uint8_t *data, uint32_t size, const char *magic)
{
    if (memcmp(data, magic, MAGIC_SIZE) != 0 ||
        load_u32(data + 8) != crc32c(data + CRC_FROM, size - CRC_FROM))
        return -EBADMSG;
    return segment_format_of(data) == SEGMENT_FORMAT ? 0 : -EPROTONOSUPPORT;
}

static void seal(uint8_t *target, uint32_t size, const char *magic)
{
    memcpy(target, magic, MAGIC_SIZE);
    store_u16(target + 12, SEGMENT_FORMAT);
    store_u32(target + 8, crc32c(target + CRC_FROM, size - CRC_FROM));
}

/* ---- the segment's header ---- */

void segment_header_encode(const struct segment_header *header, uint8_t *block)
{
    assert(segment_source_is_known(header->source));
    memset(block, 0, SEGMENT_BLOCK_SIZE);
    memcpy(block, header, sizeof *header);
    seal(block, SEGMENT_BLOCK_SIZE, HEADER_MAGIC);
}

int segment_header_decode(const uint8_t *block, struct segment_header *ret_header)
{
    int error = check(block, SEGMENT_BLOCK_SIZE, HEADER_MAGIC);
    if (error < 0)
        return error;
    struct segment_header header;
    memcpy(&header, block, sizeof header);
    if (!segment_source_is_known(header.source) || header.reserved != 0 ||
        !bytes_are_zero(block + sizeof header, SEGMENT_BLOCK_SIZE - sizeof header))
        return -EBADMSG;
    *ret_header = header;
    return 0;
}

int segment_header_check(const uint8_t *block, const struct segment_header *expected)
{
    struct segment_header header;
    int error = segment_header_decode(block, &header);
    if (error < 0)
        return error;
    if (header.directory_id != expected->directory_id)
        return -EXDEV;
    bool is_same = header.number == expected->number && header.salt == expected->salt &&
                   header.partition == expected->partition;
    return is_same ? 0 : -ESTALE;
}

/* ---- a chunk ---- */

static bool makes_sense(const struct segment_chunk_header *header)
{
    uint64_t records_min =
        (uint64_t)header->record_count * round_up(RECORD_SIZE_MIN, SEGMENT_RECORD_ALIGNMENT);
    if (header->record_count == 0 || header->records_size < records_min ||
        header->records_size % SEGMENT_RECORD_ALIGNMENT != 0)
        return false;
    if (header->offset < SEGMENT_DATA_OFFSET || header->offset % DISK_BLOCK_SIZE != 0)
        return false;
    return segment_chunk_size(header->record_count, header->records_size) <= SEGMENT_CHUNK_SIZE_MAX;
}

static uint32_t directory_crc(const struct segment_chunk_header *header, const uint8_t *chunk)
{
    return crc32c(chunk + SEGMENT_CHUNK_HEADER_SIZE,
                  (size_t)header->record_count * SEGMENT_ENTRY_SIZE);
}

void segment_chunk_header_encode(struct segment_chunk_header *header, uint8_t *chunk)
{
    assert(makes_sense(header));
    header->directory_crc = directory_crc(header, chunk);
    memset(chunk, 0, SEGMENT_CHUNK_HEADER_SIZE);
    memcpy(chunk, header, sizeof *header);
    seal(chunk, SEGMENT_CHUNK_HEADER_SIZE, CHUNK_MAGIC);
}

int segment_chunk_header_decode(const uint8_t *chunk, struct segment_chunk_header *ret_header)
{
    int error = check(chunk, SEGMENT_CHUNK_HEADER_SIZE, CHUNK_MAGIC);
    if (error < 0)
        return error;
    struct segment_chunk_header header;
    memcpy(&header, chunk, sizeof header);
    if (header.flags != 0 || header.reserved != 0 || !makes_sense(&header) ||
        !bytes_are_zero(chunk + sizeof header, SEGMENT_CHUNK_HEADER_SIZE - sizeof header))
        return -EBADMSG;
    *ret_header = header;
    return 0;
}

int segment_directory_check(const struct segment_chunk_header *header, const uint8_t *chunk)
{
    if (directory_crc(header, chunk) != header->directory_crc)
        return -EBADMSG;
    const uint8_t *data = chunk + SEGMENT_CHUNK_HEADER_SIZE;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < header->record_count; i++, data += SEGMENT_ENTRY_SIZE) {
        struct segment_entry entry;
        segment_entry_decode(data, &entry);
        if (entry.record_size < RECORD_SIZE_MIN || entry.hash >> HASH_INDEX_BITS != 0)
            return -EBADMSG;
        sum += round_up(entry.record_size, SEGMENT_RECORD_ALIGNMENT);
    }
    return sum == header->records_size ? 0 : -EBADMSG;
}

void segment_entry_encode(const struct segment_entry *entry, uint8_t *target)
{
    assert(entry->hash >> HASH_INDEX_BITS == 0);
    assert(entry->record_size >= RECORD_SIZE_MIN);
    assert(entry->record_size <= RECORD_SIZE_BITS);
    store_u64(target, entry->hash);
    store_u64(target + 8, entry->version.clock);
    store_u32(target + 16, entry->version.origin);
    store_u32(target + 20, entry->record_size | (entry->in_value_file ? IN_VALUE_FILE_BIT : 0) |
                               (entry->tombstone ? TOMBSTONE_BIT : 0));
}

void segment_entry_decode(const uint8_t *data, struct segment_entry *ret_entry)
{
    uint32_t bits = load_u32(data + 20);
    *ret_entry = (struct segment_entry){
        .hash = load_u64(data),
        .version = {.clock = load_u64(data + 8), .origin = load_u32(data + 16)},
        .record_size = bits & RECORD_SIZE_BITS,
        .in_value_file = (bits & IN_VALUE_FILE_BIT) != 0,
        .tombstone = (bits & TOMBSTONE_BIT) != 0,
    };
}
