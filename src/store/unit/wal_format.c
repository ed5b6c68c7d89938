/* Encodes and decodes the headers of log files and of batches. wal_format.h has the tables. */
#include "store/unit/wal_format.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "store/record/record.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define SEGMENT_MAGIC 0x544E4D474553766DULL /* "mvSEGMNT" */
#define BATCH_MAGIC 0x314843544142766DULL   /* "mvBATCH1" */
#define CRC_FROM 12
#define LISTING_OFFSET 136u

static_assert(sizeof(struct log_file_header) == LISTING_OFFSET, "no padding on the disk");
static_assert(sizeof(struct wal_listing) == 8 + 8 * WAL_LISTED_MAX, "no padding on the disk");
static_assert(LISTING_OFFSET + sizeof(struct wal_listing) <= WAL_BLOCK_SIZE, "it fits");
static_assert(offsetof(struct log_file_header, generation) == 32, "as the table says");
static_assert(offsetof(struct log_file_header, clock_ceiling) == 96, "as the table says");
static_assert(sizeof(struct wal_batch_header) == WAL_BATCH_HEADER_SIZE, "no padding on the disk");
static_assert(offsetof(struct wal_batch_header, position_first) == 64, "as the table says");
static_assert(offsetof(struct wal_batch_header, generation_base) == 96, "as the table says");

void log_file_header_encode(struct log_file_header *header, const struct wal_listing *listing,
                            uint8_t *block)
{
    assert(listing == NULL || listing->count <= WAL_LISTED_MAX);
    header->magic = SEGMENT_MAGIC;
    header->format = WAL_FORMAT;
    memset(block, 0, WAL_BLOCK_SIZE);
    memcpy(block, header, sizeof *header);
    if (listing != NULL)
        memcpy(block + LISTING_OFFSET, listing, sizeof *listing);
    header->crc = crc32c(block + CRC_FROM, WAL_BLOCK_SIZE - CRC_FROM);
    memcpy(block, header, sizeof *header);
}

int log_file_header_decode(const uint8_t *block, struct log_file_header *ret_header)
{
    struct log_file_header header;
    memcpy(&header, block, sizeof header);
    if (header.magic != SEGMENT_MAGIC ||
        crc32c(block + CRC_FROM, WAL_BLOCK_SIZE - CRC_FROM) != header.crc)
        return -EBADMSG;
    if (header.format != WAL_FORMAT) {
        *ret_header = header;
        return -EPROTONOSUPPORT;
    }
    if (header.state != WAL_HEADER_ACTIVE && header.state != WAL_HEADER_SPARE)
        return -EBADMSG;
    uint32_t listed;
    memcpy(&listed, block + LISTING_OFFSET, sizeof listed);
    if (header.last_before < header.generation_base || listed > WAL_LISTED_MAX)
        return -EBADMSG;
    *ret_header = header;
    return 0;
}

void wal_note_take(const uint8_t *block, uint64_t directory_id, uint32_t log_id,
                   struct wal_note *note)
{
    struct log_file_header header;
    if (log_file_header_decode(block, &header) == 0 && header.directory_id == directory_id &&
        header.log_id == log_id && wal_note_is_older(note, &header.note))
        *note = header.note;
}

void wal_listing_decode(const uint8_t *block, struct wal_listing *ret_listing)
{
    memcpy(ret_listing, block + LISTING_OFFSET, sizeof *ret_listing);
    assert(ret_listing->count <= WAL_LISTED_MAX);
}

bool wal_listing_has(const struct wal_listing *listing, uint64_t number)
{
    for (uint32_t i = 0; i < listing->count; i++)
        if (listing->numbers[i] == number)
            return true;
    return false;
}

void wal_batch_header_encode(struct wal_batch_header *header, uint8_t *batch)
{
    assert(header->durable < header->position_first);
    header->magic = BATCH_MAGIC;
    header->format = WAL_FORMAT;
    header->payload_crc = crc32c(batch + WAL_BATCH_HEADER_SIZE, header->payload_size);
    memcpy(batch, header, sizeof *header);
    header->crc = crc32c(batch + CRC_FROM, WAL_BATCH_HEADER_SIZE - CRC_FROM);
    memcpy(batch, header, sizeof *header);
}

static bool batch_makes_sense(const struct wal_batch_header *header)
{
    bool is_seal = (header->flags & WAL_BATCH_SEAL) != 0;
    if ((header->flags & ~WAL_BATCH_SEAL) != 0 || is_seal != (header->record_count == 0))
        return false;
    if (is_seal != (header->payload_size == 0) || header->payload_size % WAL_RECORD_ALIGNMENT != 0)
        return false;
    if (header->position_first > UINT64_MAX - UINT32_MAX)
        return false;
    return header->durable < header->position_first &&
           header->generation_base < header->position_first;
}

int wal_batch_header_decode(const uint8_t *batch, struct wal_batch_header *ret_header)
{
    struct wal_batch_header header;
    memcpy(&header, batch, sizeof header);
    if (header.magic != BATCH_MAGIC)
        return -EBADMSG;
    if (crc32c(batch + CRC_FROM, WAL_BATCH_HEADER_SIZE - CRC_FROM) != header.crc)
        return -EBADMSG;
    if (header.format != WAL_FORMAT) {
        *ret_header = header;
        return -EPROTONOSUPPORT;
    }
    if (!batch_makes_sense(&header))
        return -EBADMSG;
    *ret_header = header;
    return 0;
}

uint64_t wal_record_told_size(const uint8_t *data, uint64_t size)
{
    if (size < RECORD_HEADER_SIZE)
        return 0;
    uint64_t told = round_up(record_told_size(data), WAL_RECORD_ALIGNMENT);
    return told <= size ? told : 0;
}
