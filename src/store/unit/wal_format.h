/* The log's bytes on disk: files and batches. Little-endian; docs/formats.md tells the story.
 *
 * A log file:
 *
 *        0  the header: what the file is while it holds records
 *     4096  the spare mark: that the file holds nothing any more, although it may look otherwise
 *     8192  batches, one behind the other, each at a multiple of 4096; the last one is the seal
 *
 * The mark has a block of its own, so that a torn write of the next header cannot bring back what
 * the file held before: of header and mark, the valid one with the greater number counts, and at
 * equal numbers the mark.
 *
 * Header and mark, one 4 KiB block each:
 *
 *   offset  size  field
 *        0     8  magic "mvSEGMNT"
 *        8     4  crc32c of the bytes 12..4095
 *       12     2  format (1)
 *       14     2  state: 1 header, 2 spare mark
 *       16     8  directory id
 *       24     4  log id
 *       28     4  reserved, 0
 *       32     8  generation: grows with each opening of the log
 *       40     8  salt: random, in each batch of the file, told to nobody
 *       48     8  number: of the log file, grows with each use of a file, never used again
 *       56     8  bytes of the file
 *       64     8  number of the log file before it, 0: none
 *       72     8  last position before this file
 *       80     8  last position before this generation
 *       88     8  durable: known durable when this was written
 *       96     8  clock ceiling
 *      104     8  lost: writes up to this position were found lost, with files that are gone
 *      112     8  greatest number of a file whose header was known durable
 *      120    16  note: how far the owner's other file (the manifest) had come: edition, blocks
 *      136     4  numbers listed
 *      140     4  flags: 1 lists files, 2 not all of them
 *      144  3840  numbers of the files before it that held records when this was written
 *     3984   112  0
 *
 * The list tells the next start which files must be there: each with its records, or, when it was
 * recycled since, by a mark with its number. The mark stays until a header that does not list the
 * file is durable. A file that is not listed holds nothing that is alive. Headers without the
 * first flag, of an older release, say nothing about other files. What killed the records of a
 * file lies at or before its mark's `durable`: a log that ends before that has lost its end.
 * Marks have 0 from offset 64 on, but for the note and for what was durable.
 *
 * A batch: a header of 128 bytes, then the records, each padded with zeros to a multiple of 8
 * bytes, then zeros up to the next multiple of 4096:
 *
 *   offset  size  field
 *        0     8  magic "mvBATCH1"
 *        8     4  crc32c of the bytes 12..127
 *       12     2  format (1)
 *       14     2  flags: 1 seal (no records, ends the file)
 *       16     8  directory id
 *       24     4  log id
 *       28     4  crc32c of the records with their padding
 *       32     8  generation
 *       40     8  salt
 *       48     8  number of the file
 *       56     8  offset of this batch in the file
 *       64     8  first position: the records have this one and the following
 *       72     4  records
 *       76     4  bytes of the records with their padding
 *       80     8  durable: greatest position that was known durable when this was written
 *       88     8  clock ceiling: no stamp given while this batch was the newest is above
 *       96     8  last position before this generation
 *      104    24  0
 *
 * The first 16 bytes have the same meaning in every format to come. */
#ifndef MINIVAULT_STORE_WAL_FORMAT_H
#define MINIVAULT_STORE_WAL_FORMAT_H

#include "base/units.h"

#include <stdbool.h>
#include <stdint.h>

#define WAL_FORMAT 1
#define WAL_BLOCK_SIZE ((uint32_t)DISK_BLOCK_SIZE)
#define WAL_MARK_OFFSET WAL_BLOCK_SIZE
#define WAL_DATA_OFFSET (2 * WAL_BLOCK_SIZE)
#define WAL_BATCH_HEADER_SIZE 128
#define WAL_RECORD_ALIGNMENT 8
#define LOG_FILE_SIZE_MAX (2 * GIB)
#define WAL_LISTED_MAX 480u

/* Durable progress of the log's owner, which grows, by major, then by minor. */
struct wal_note {
    uint64_t major;
    uint64_t minor;
};

static inline bool wal_note_is_older(const struct wal_note *note, const struct wal_note *other)
{
    return note->major < other->major ||
           (note->major == other->major && note->minor < other->minor);
}

enum log_file_header_state { WAL_HEADER_ACTIVE = 1, WAL_HEADER_SPARE = 2 };

struct log_file_header {
    uint64_t magic; /* this and the next two are the codec's */
    uint32_t crc;
    uint16_t format;
    uint16_t state;
    uint64_t directory_id;
    uint32_t log_id;
    uint32_t reserved;
    uint64_t generation;
    uint64_t salt;
    uint64_t number;
    uint64_t file_size; /* bytes */
    uint64_t previous;
    uint64_t last_before;     /* the file */
    uint64_t generation_base; /* last position before the generation */
    uint64_t durable;
    uint64_t clock_ceiling;
    uint64_t lost;           /* position */
    uint64_t number_durable; /* of files: those up to it must be there */
    struct wal_note note;
};

enum wal_listing_flags { WAL_LISTING = 1, WAL_LISTING_INCOMPLETE = 2 };

struct wal_listing {
    uint32_t count;
    uint32_t flags;
    uint64_t numbers[WAL_LISTED_MAX];
};

enum wal_batch_flags { WAL_BATCH_SEAL = 1 };

struct wal_batch_header {
    uint64_t magic; /* this and the next two are the codec's */
    uint32_t crc;
    uint16_t format;
    uint16_t flags;
    uint64_t directory_id;
    uint32_t log_id;
    uint32_t payload_crc;
    uint64_t generation;
    uint64_t salt;
    uint64_t number; /* of the file */
    uint64_t offset;
    uint64_t position_first;
    uint32_t record_count;
    uint32_t payload_size;
    uint64_t durable;
    uint64_t clock_ceiling;
    uint64_t generation_base;
    uint64_t reserved[3];
};

/* Bytes that a batch with these records takes in the file. */
static inline uint64_t wal_batch_size(const struct wal_batch_header *header)
{
    return round_up(WAL_BATCH_HEADER_SIZE + (uint64_t)header->payload_size, DISK_BLOCK_SIZE);
}

/* The position of the last record; of a seal, that of the last one before it. */
static inline uint64_t wal_batch_position_last(const struct wal_batch_header *header)
{
    return header->position_first + header->record_count - 1;
}

/* Fills magic, format and crc in and writes one block. `listing` may be NULL: there is none. */
void log_file_header_encode(struct log_file_header *header, const struct wal_listing *listing,
                            uint8_t *block);

/* Errors: -EBADMSG (not a header: absent, torn, rotten), -EPROTONOSUPPORT (sound, but of another
 * format: *ret_header holds it, of which only `format` means anything). */
int log_file_header_decode(const uint8_t *block, struct log_file_header *ret_header);

/* Takes the owner's note from a block, header or mark, of this log, when it is a newer one. */
void wal_note_take(const uint8_t *block, uint64_t directory_id, uint32_t log_id,
                   struct wal_note *note);

/* The list of a block that log_file_header_decode found sound. */
void wal_listing_decode(const uint8_t *block, struct wal_listing *ret_listing);
bool wal_listing_has(const struct wal_listing *listing, uint64_t number);

/* Fills magic, format, crc and payload_crc in and writes the 128 bytes at `batch`, behind which the
 * records lie. */
void wal_batch_header_encode(struct wal_batch_header *header, uint8_t *batch);

/* Verifies the header alone, also that its numbers make sense together; the records' checksum is
 * the caller's, once it has all payload_size bytes. Errors: as above. */
int wal_batch_header_decode(const uint8_t *batch, struct wal_batch_header *ret_header);

/* The size, with padding, that the unverified header of the record at `data` tells, of which `size`
 * bytes are there; 0 when it cannot be. */
uint64_t wal_record_told_size(const uint8_t *data, uint64_t size);

#endif
