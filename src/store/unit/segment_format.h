/* The partition segments' bytes on disk: where records live after the log. Little-endian;
 * docs/formats.md tells the story.
 *
 * DATA/<2 hex: partition>/seg-<16 hex: number>, appended to, never overwritten:
 *
 *        0  the segment header, one 4 KiB block
 *     4096  chunks, one behind the other, each at a multiple of 4096
 *
 * The segment header:
 *
 *   offset  size  field
 *        0     8  magic "mvSEGFIL"
 *        8     4  crc32c of the bytes 12..4095
 *       12     2  format (1)
 *       14     1  partition
 *       15     1  source: 1 filled from the log, 2 filled by compaction
 *       16     8  directory id
 *       24     4  log id: the shard that wrote it
 *       28     4  reserved, 0
 *       32     8  number: given again only when no manifest and no checkpoint names this one
 *       40     8  salt: derived from the number and the superblock's secret (segment_salt), in each
 *                 chunk of the segment, told to nobody
 *       48     8  created: the log's durable position when the job began that wrote the first
 * chunk, or lower (segment_record_dead): whatever kills a record of the segment is newer. It may be
 * lowered later: the manifest's counts 56  4040  0
 *
 * A chunk: a header of 128 bytes, a directory of 24 bytes a record, the records, each padded with
 * zeros to a multiple of 8 bytes and with a checksum of its own, then zeros up to the next multiple
 * of 4096. The directory tells an index everything but the key, so that opening a store reads
 * directories, not records.
 *
 *   offset  size  field
 *        0     8  magic "mvCHUNK1"
 *        8     4  crc32c of the bytes 12..127
 *       12     2  format (1)
 *       14     2  flags, 0
 *       16     8  directory id (of the data directory)
 *       24     4  records
 *       28     4  crc32c of the directory
 *       32     8  salt
 *       40     8  number of the segment
 *       48     8  offset of this chunk in the segment
 *       56     8  sequence: grows with each chunk that the shard writes, never used again
 *       64     4  bytes of the records with their padding
 *       68    60  0
 *
 * An entry of the directory; the first record lies right behind the directory, which ends at a
 * multiple of 8, each other one behind the one before it:
 *
 *   offset  size  field
 *        0     8  index hash of the key (hash_index): 52 bits of the keyed hash, 4 of XXH64, then
 *                 8 bits that are 0
 *        8     8  version: clock
 *       16     4  version: origin
 *       20     4  bits 0..29: bytes of the record, unpadded; bit 30: in a value file; bit 31:
 *                 tombstone
 */
#ifndef MINIVAULT_STORE_SEGMENT_FORMAT_H
#define MINIVAULT_STORE_SEGMENT_FORMAT_H

#include "base/bytes.h"
#include "base/units.h"
#include "base/version.h"

#include <stdbool.h>
#include <stdint.h>

#define SEGMENT_FORMAT 1
#define SEGMENT_BLOCK_SIZE ((uint32_t)DISK_BLOCK_SIZE)
#define SEGMENT_DATA_OFFSET SEGMENT_BLOCK_SIZE
#define SEGMENT_CHUNK_HEADER_SIZE 128u
#define SEGMENT_ENTRY_SIZE 24u
#define SEGMENT_RECORD_ALIGNMENT 8u
#define SEGMENT_CHUNK_SIZE_MAX ((uint32_t)(1 * MIB)) /* of a whole chunk */

/* What a segment is filled from: so that what has been alive for long does not share a file with
 * what will soon die. */
enum segment_source {
    SEGMENT_FROM_LOG = 1,
    SEGMENT_FROM_COMPACTION = 2,
};
#define SEGMENT_SOURCES 2u

static inline bool segment_source_is_known(uint8_t source)
{
    return source == SEGMENT_FROM_LOG || source == SEGMENT_FROM_COMPACTION;
}

/* As it lies in the file. */
struct segment_header {
    uint64_t magic; /* this and the next two are the codec's */
    uint32_t crc;
    uint16_t format;
    uint8_t partition;
    uint8_t source; /* enum segment_source */
    uint64_t directory_id;
    uint32_t log_id;
    uint32_t reserved;
    uint64_t number;
    uint64_t salt;
    uint64_t created;
};

/* As it lies in the file. */
struct segment_chunk_header {
    uint64_t magic; /* this and the next two are the codec's */
    uint32_t crc;
    uint16_t format;
    uint16_t flags;
    uint64_t directory_id;
    uint32_t record_count;
    uint32_t directory_crc;
    uint64_t salt;
    uint64_t segment;
    uint64_t offset;
    uint64_t sequence;
    uint32_t records_size;
    uint32_t reserved;
};

struct segment_entry {
    uint64_t hash; /* hash_index */
    struct version version;
    uint32_t record_size; /* unpadded */
    bool in_value_file;
    bool tombstone;
};

/* Where the records begin, from the chunk's start. */
static inline uint64_t segment_chunk_records_offset(uint32_t record_count)
{
    return SEGMENT_CHUNK_HEADER_SIZE + (uint64_t)SEGMENT_ENTRY_SIZE * record_count;
}

/* Bytes that the chunk takes in the segment. */
static inline uint64_t segment_chunk_size(uint32_t record_count, uint64_t records_size)
{
    return round_up(segment_chunk_records_offset(record_count) + records_size, DISK_BLOCK_SIZE);
}

/* The format that a header of 4 KiB or of a chunk names: its first 16 bytes have the same meaning
 * in every format to come. */
static inline uint16_t segment_format_of(const uint8_t *header)
{
    return load_u16(header + 12);
}

/* Writes one block. */
void segment_header_encode(const struct segment_header *header, uint8_t *block);

/* What is accepted is exactly what segment_header_encode would write. Errors: -EBADMSG (not a
 * header: absent, torn, rotten), -EPROTONOSUPPORT (sound, but of another format). */
int segment_header_decode(const uint8_t *block, struct segment_header *ret_header);

/* Decodes a segment's header and compares it with what it should say, but for `created`,
 * `generation` and `log_id`. Errors: -EBADMSG, -EPROTONOSUPPORT (as above), -EXDEV (of another
 * directory), -ESTALE (of another segment). */
int segment_header_check(const uint8_t *block, const struct segment_header *expected);

/* Writes the 128 bytes at `chunk`. Fills directory_crc in from the directory behind it, which is
 * there already. */
void segment_chunk_header_encode(struct segment_chunk_header *header, uint8_t *chunk);

/* Verifies the 128 bytes of the header alone, also that its numbers make sense together (sizes
 * within SEGMENT_CHUNK_SIZE_MAX, at least one record and room for each). Errors: as above. */
int segment_chunk_header_decode(const uint8_t *chunk, struct segment_chunk_header *ret_header);

/* Verifies the directory behind a decoded header, segment_chunk_records_offset bytes from `chunk`
 * on: checksum, and that the sizes of its entries, each at least RECORD_HEADER_SIZE + 1, add up to
 * records_size; also that their hashes have no more than HASH_INDEX_BITS. Errors: -EBADMSG. */
int segment_directory_check(const struct segment_chunk_header *header, const uint8_t *chunk);

void segment_entry_encode(const struct segment_entry *entry, uint8_t *target);
void segment_entry_decode(const uint8_t *data, struct segment_entry *ret_entry);

#endif
