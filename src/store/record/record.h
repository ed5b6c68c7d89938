/* The record: one write of one key, the same bytes in the log and in every disk file.
 *
 *   offset  size  field
 *        0     4  crc32c of everything that follows: header, attributes, key and value
 *        4     2  header bytes (48)
 *        6     1  format (1)
 *        7     1  flags
 *        8     2  key bytes, 1 to 65535
 *       10     2  attribute bytes, 0 to 4096
 *       12     4  stored bytes: of the value as it lies here
 *       16     4  decoded bytes: of the value as a client gets it
 *       20     4  origin      } the version
 *       24     8  hybrid clock}
 *       32     8  log position
 *       40     8  expiry, Unix ms, 0: never
 *       48        attributes, key, value
 *
 * Attributes say more of the value. They are entries, one behind the other, that fill their bytes
 * exactly:
 *
 *        0     1  tag
 *        1     1  size of what follows
 *        2        bytes
 *
 * A record goes from log to segment and from segment to segment as it is, so an entry whose tag
 * nobody knows stays with its record for as long as that lives. A write that replaces the record
 * has its own attributes or none. No tag has a meaning yet, and no record is written with one. */
#ifndef MINIVAULT_STORE_RECORD_H
#define MINIVAULT_STORE_RECORD_H

#include "base/bytes.h"
#include "base/version.h"

#include <stdbool.h>
#include <stdint.h>

#define RECORD_HEADER_SIZE 48
#define RECORD_FORMAT 1
#define RECORD_ATTRIBUTES_MAX 4096u /* bytes of all entries */

enum record_flags {
    RECORD_TOMBSTONE = 1,
    RECORD_ZSTD = 2,
    RECORD_IN_VALUE_FILE = 4, /* the value here is the descriptor of a value file */
    RECORD_JSON = 8,
    RECORD_FLAGS_KNOWN = 15,
};

struct record {
    struct slice attributes; /* all entries */
    struct slice key;
    struct slice value; /* as stored; empty for a tombstone */
    uint32_t decoded_size;
    uint8_t flags;
    struct version version;
    uint64_t position;
    uint64_t expiry_ms;
};

/* Bytes of a record on disk, unpadded. */
static inline uint64_t record_size(const struct record *record)
{
    return RECORD_HEADER_SIZE + (uint64_t)record->attributes.size + record->key.size +
           record->value.size;
}

/* What the unverified header at `data`, RECORD_HEADER_SIZE bytes, tells of the record: its size, as
 * above, and where its key lies, perhaps beyond what is there. */
static inline uint64_t record_told_size(const uint8_t *data)
{
    return RECORD_HEADER_SIZE + (uint64_t)load_u16(data + 8) + load_u16(data + 10) +
           load_u32(data + 12);
}
static inline struct slice record_told_key(const uint8_t *data)
{
    return (struct slice){data + RECORD_HEADER_SIZE + load_u16(data + 10), load_u16(data + 8)};
}

struct record_attribute {
    uint8_t tag;
    struct slice bytes; /* at most 255 */
};

/* Takes the first entry off the attributes. Returns false when there is no whole one: at the end
 * nothing is left. */
bool record_attribute_next(struct slice *attributes, struct record_attribute *ret_attribute);

/* Writes the record and its checksum to `target` (record_size bytes). Its attributes are sound. */
void record_encode(const struct record *record, uint8_t *target);

/* Decodes and verifies the record at `data`, of which `size` bytes may be looked at. The slices
 * point into `data`. Returns the record's size. Errors: -EAGAIN (more bytes than `size` would be
 * needed, as the unverified header says), -EBADMSG (checksum, lengths or
 * attributes are wrong), -EPROTONOSUPPORT (sound, but of a format or with flags that we do not
 * know). */
int64_t record_decode(const uint8_t *data, uint64_t size, struct record *ret_record);

#endif
