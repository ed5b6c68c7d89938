/* The record: one write of one key, the same bytes in the log and in every disk file.
 *
 *   offset  size  field
 *        0     4  crc32c of everything that follows, header, key and value
 *        4     2  header bytes (48)
 *        6     1  format (1)
 *        7     1  flags
 *        8     2  key bytes, 1 to 65535
 *       10     2  reserved, 0
 *       12     4  stored bytes: of the value as it lies here
 *       16     4  decoded bytes: of the value as a client gets it
 *       20     4  origin      } the version
 *       24     8  hybrid clock}
 *       32     8  log position
 *       40     8  expiry, Unix ms, 0: never
 *       48        key, value
 */
#ifndef MINIVAULT_STORE_RECORD_H
#define MINIVAULT_STORE_RECORD_H

#include "base/bytes.h"
#include "base/version.h"

#include <stddef.h>
#include <stdint.h>

#define RECORD_HEADER_SIZE 48
#define RECORD_FORMAT 1

enum record_flags {
    RECORD_TOMBSTONE = 1,
    RECORD_ZSTD = 2,
    RECORD_IN_VALUE_FILE = 4, /* the value here is the descriptor of a value file */
    RECORD_JSON = 8,
    RECORD_FLAGS_KNOWN = 15,
};

struct record {
    struct slice key;
    struct slice value; /* as stored; empty for a tombstone */
    uint32_t decoded_size;
    uint8_t flags;
    struct version version;
    uint64_t position;
    uint64_t expiry_ms;
};

/* Bytes of a record on disk, unpadded. */
static inline uint64_t record_size(uint32_t key_size, uint32_t value_size)
{
    return RECORD_HEADER_SIZE + (uint64_t)key_size + value_size;
}

/* Writes the record and its checksum to `target` (record_size bytes). */
void record_encode(const struct record *record, uint8_t *target);

/* Decodes and verifies the record at `data`, of which `size` bytes may be looked at. The slices
 * point into `data`. Returns the record's size. Errors: -EAGAIN (more bytes than `size` would be
 * needed, as the unverified header says), -EBADMSG (checksum or lengths are wrong),
 * -EPROTONOSUPPORT (sound, but of a format or with flags that we do not know). */
int64_t record_decode(const uint8_t *data, uint64_t size, struct record *ret_record);

#endif
