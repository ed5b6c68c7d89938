/* The bytes of an index checkpoint on disk. Little-endian; docs/formats.md tells the story.
 *
 * DATA/checkpoint-<16 hex: number> is units of 1 MiB, of which the last one may be shorter. A unit
 * is blocks, one behind the other without a gap, each at a multiple of 4096 and none beyond its
 * unit, so that whoever reads whole units has whole blocks. In order: one `begin`, the file table,
 * the slots of each partition in ascending order (a partition may take several blocks or none), one
 * `end`, which ends the file and proves that it is complete.
 *
 * Every block begins with these 64 bytes:
 *
 *   offset  size  field
 *        0     8  magic "mvCHKBLK"
 *        8     4  crc32c of the bytes 12..63
 *       12     2  format (1)
 *       14     1  kind: 1 begin, 2 files, 3 slots, 4 end
 *       15     1  partition, for slots; otherwise 0
 *       16     8  directory id
 *       24     8  number of the checkpoint
 *       32     8  sequence of the block: 0, 1, 2 ... from the file's begin
 *       40     8  slots: how many the partition had when its walk began (a hint); otherwise 0
 *       48     4  entries
 *       52     4  bytes of the block, a multiple of 4096
 *       56     4  crc32c of the bytes from 64 to the block's end
 *       60     4  0
 *
 * then its entries, then zeros:
 *
 *   begin, one entry       64  8  position of the log
 *                          72  8  chunk sequence
 *                          80  8  clock ceiling
 *                          88  4  log id
 *                          92  4  files in the table
 *   files, 24 bytes each    0  1  kind: 1 log file, 2 partition segment
 *                           1  3  0
 *                           4  4  file id, as in the locations of the slots
 *                           8  8  number of the log file or partition segment
 *                          16  8  end, of a partition segment: chunks up to here are in it
 *   slots, 26 bytes each           as index_pack has them (index.h)
 *   end, one entry         64  8  slots in all
 *                          72  8  bytes of the file
 *
 * The first 16 bytes have the same meaning in every format to come. */
#ifndef MINIVAULT_STORE_CHECKPOINT_FORMAT_H
#define MINIVAULT_STORE_CHECKPOINT_FORMAT_H

#include "base/units.h"
#include "store/catalog/checkpoint.h"
#include "store/memory/location.h"

#define CHECKPOINT_FORMAT 1
#define CHECKPOINT_UNIT_SIZE ((uint32_t)(1 * MIB))
#define CHECKPOINT_BLOCK_MIN ((uint32_t)DISK_BLOCK_SIZE)
#define CHECKPOINT_BLOCK_HEADER_SIZE 64u
#define CHECKPOINT_FILE_SIZE 24u /* bytes of an entry of the file table */

enum checkpoint_kind {
    CHECKPOINT_BEGIN = 1,
    CHECKPOINT_FILES,
    CHECKPOINT_SLOTS,
    CHECKPOINT_END,
};

/* A block's header as it lies in the file. Magic, format and checksums are the encoder's. */
struct checkpoint_block {
    uint8_t magic[8];
    uint32_t checksum;
    uint16_t format;
    enum checkpoint_kind kind : 8;
    uint8_t partition;
    uint64_t directory_id;
    uint64_t number;
    uint64_t sequence;
    uint64_t slots_hint;
    uint32_t entry_count;
    uint32_t size;
    uint32_t body_checksum;
    uint32_t zero;
};

/* These two are blocks' only entries, as they lie in the file. */
struct checkpoint_begin_entry {
    uint64_t position;
    uint64_t chunk_sequence;
    uint64_t clock_ceiling;
    uint32_t log_id;
    uint32_t file_count;
};

struct checkpoint_end_entry {
    uint64_t slots;
    uint64_t file_size;
};

/* Bytes of an entry. */
uint32_t checkpoint_entry_size(enum checkpoint_kind kind);

/* How many entries fit in a block of `size` bytes. */
static inline uint32_t checkpoint_block_room(enum checkpoint_kind kind, uint32_t size)
{
    return (size - CHECKPOINT_BLOCK_HEADER_SIZE) / checkpoint_entry_size(kind);
}

/* Bytes that a block with so many entries needs. */
static inline uint32_t checkpoint_block_size(enum checkpoint_kind kind, uint32_t entry_count)
{
    return (uint32_t)round_up(CHECKPOINT_BLOCK_HEADER_SIZE +
                                  (uint64_t)entry_count * checkpoint_entry_size(kind),
                              DISK_BLOCK_SIZE);
}

/* Writes header, padding and checksums around the entries that lie at `data` already. */
void checkpoint_block_encode(const struct checkpoint_block *block, uint8_t *data);

/* Verifies the block at `data`, of which at most `size` bytes are there: header, then all of its
 * bytes, and that its numbers make sense together. Errors: -EBADMSG, -EPROTONOSUPPORT (a sound
 * header, but of another format). */
int checkpoint_block_decode(const uint8_t *data, uint32_t size, struct checkpoint_block *ret_block);

/* The order of a file's blocks, as they are read one behind the other. */
struct checkpoint_order {
    /* The caller's: what is expected. */
    uint64_t directory_id;
    uint32_t log_id;
    uint64_t number;
    uint64_t size; /* of the file */
    /* What was seen. */
    enum checkpoint_kind kind; /* of the last block; 0: none */
    uint8_t partition;         /* of the last block of slots */
    uint64_t sequence;         /* of the next block */
    struct checkpoint_begin_entry begin;
    uint32_t files;
    uint64_t slots;
    const char *what; /* is wrong */
};

/* Takes the decoded block at `data`, which ends at `end` of the file. Errors: -EXDEV (the file is of
 * another directory or log), -EBADMSG; order->what says more. */
int checkpoint_order_take(struct checkpoint_order *order, const struct checkpoint_block *block,
                          const uint8_t *data, uint64_t end);

/* An entry of the file table. Errors: -EBADMSG (no such kind or file id). */
void checkpoint_file_encode(const struct checkpoint_file *file, uint8_t *target);
int checkpoint_file_decode(const uint8_t *data, struct checkpoint_file *ret_file);

/* No slot's read_size is greater. */
static inline uint64_t checkpoint_read_size_max(void)
{
    return index_read_size(INDEX_RECORD_SIZE_MAX);
}

/* Both kinds of files in one numbering: what is above the offset in a location. */
#define CHECKPOINT_FILES_MAX (2 * LOCATION_FILES_MAX)

static inline uint32_t checkpoint_file_key(bool is_segment, uint32_t file)
{
    return (uint32_t)is_segment << LOCATION_FILE_BITS | file;
}

static inline uint32_t checkpoint_location_key(uint64_t location)
{
    return (uint32_t)(location >> LOCATION_OFFSET_BITS);
}

/* "<directory>/checkpoint-<16 hex>", with ".tmp" behind it while it is written, in ret_path
 * (CHECKPOINT_PATH_MAX bytes). Errors: -ENAMETOOLONG. */
#define CHECKPOINT_PATH_MAX 4096u
int checkpoint_path(const char *directory, uint64_t number, bool is_temporary, char *ret_path);

#endif
