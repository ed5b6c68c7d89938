/* Encoding and decoding a record. */
#include "store/record/record.h"

#include "base/assert.h"
#include "base/checksum.h"

#include <errno.h>

/* The header as it lies on the disk; the table stands in record.h. */
struct record_header {
    uint32_t crc;
    uint16_t header_size;
    uint8_t format;
    uint8_t flags;
    uint16_t key_size;
    uint16_t attributes_size;
    uint32_t stored_size;
    uint32_t decoded_size;
    uint32_t origin;
    uint64_t clock;
    uint64_t position;
    uint64_t expiry_ms;
};

static_assert(sizeof(struct record_header) == RECORD_HEADER_SIZE, "no padding on the disk");
static_assert(offsetof(struct record_header, expiry_ms) == 40, "as the table says");

#define CRC_SIZE sizeof(uint32_t)
#define ENTRY_HEADER_SIZE 2u /* tag and size of an attribute */

bool record_attribute_next(struct slice *attributes, struct record_attribute *ret_attribute)
{
    if (attributes->size < ENTRY_HEADER_SIZE)
        return false;
    uint32_t size = ENTRY_HEADER_SIZE + (uint32_t)attributes->data[1];
    if (size > attributes->size)
        return false;
    *ret_attribute = (struct record_attribute){
        .tag = attributes->data[0],
        .bytes = {attributes->data + ENTRY_HEADER_SIZE, attributes->data[1]},
    };
    attributes->data += size;
    attributes->size -= size;
    return true;
}

static bool are_attributes_sound(struct slice attributes)
{
    if (attributes.size > RECORD_ATTRIBUTES_MAX)
        return false;
    struct record_attribute attribute;
    while (record_attribute_next(&attributes, &attribute))
        ;
    return attributes.size == 0;
}

static uint8_t *append(uint8_t *target, struct slice bytes)
{
    if (bytes.size > 0)
        memcpy(target, bytes.data, bytes.size);
    return target + bytes.size;
}

void record_encode(const struct record *record, uint8_t *target)
{
    assert(are_attributes_sound(record->attributes));
    assert(record->key.size > 0 && record->key.size <= UINT16_MAX);
    assert((record->flags & ~RECORD_FLAGS_KNOWN) == 0);
    assert((record->flags & RECORD_TOMBSTONE) == 0 || record->value.size == 0);
    struct record_header header = {
        .header_size = RECORD_HEADER_SIZE,
        .format = RECORD_FORMAT,
        .flags = record->flags,
        .key_size = (uint16_t)record->key.size,
        .attributes_size = (uint16_t)record->attributes.size,
        .stored_size = record->value.size,
        .decoded_size = record->decoded_size,
        .origin = record->version.origin,
        .clock = record->version.clock,
        .position = record->position,
        .expiry_ms = record->expiry_ms,
    };
    memcpy(target, &header, sizeof header);
    uint8_t *end = append(target + RECORD_HEADER_SIZE, record->attributes);
    end = append(append(end, record->key), record->value);
    uint64_t size = record_size(record);
    assert(end == target + size);
    store_u32(target, crc32c(target + CRC_SIZE, size - CRC_SIZE));
}

/* A record whose checksum holds: whether this program knows what it means. */
static bool is_understood(const struct record_header *header)
{
    return header->format == RECORD_FORMAT && header->header_size == RECORD_HEADER_SIZE &&
           (header->flags & ~RECORD_FLAGS_KNOWN) == 0;
}

int64_t record_decode(const uint8_t *data, uint64_t size, struct record *ret_record)
{
    if (size < RECORD_HEADER_SIZE)
        return -EAGAIN;
    struct record_header header;
    memcpy(&header, data, sizeof header);
    if (header.header_size < RECORD_HEADER_SIZE || header.key_size == 0)
        return -EBADMSG;
    uint64_t total = (uint64_t)header.header_size + header.attributes_size + header.key_size +
                     header.stored_size;
    if (total > size)
        return -EAGAIN;
    if (crc32c(data + CRC_SIZE, total - CRC_SIZE) != header.crc)
        return -EBADMSG;
    if (!is_understood(&header))
        return -EPROTONOSUPPORT;
    if ((header.flags & RECORD_TOMBSTONE) != 0 && header.stored_size != 0)
        return -EBADMSG;
    struct slice attributes = {data + header.header_size, header.attributes_size};
    if (!are_attributes_sound(attributes))
        return -EBADMSG;
    const uint8_t *key = attributes.data + attributes.size;
    *ret_record = (struct record){
        .attributes = attributes,
        .key = {key, header.key_size},
        .value = {key + header.key_size, header.stored_size},
        .decoded_size = header.decoded_size,
        .flags = header.flags,
        .version = {.clock = header.clock, .origin = header.origin},
        .position = header.position,
        .expiry_ms = header.expiry_ms,
    };
    return (int64_t)total;
}
