/* How far each shard's log had come at its last clean stop, noted in the folder of another shard.
 *
 * An older copy of one shard's whole folder agrees with itself. Where the copy is of the same start,
 * its start number does not tell either (superblock_start.c). What another shard's folder tells does:
 * a log never ends before a position that was durable once.
 *
 * Shard 0 keeps the notes of all others in DATA/reached, shard 1 that of shard 0 in
 * DATA/shard-1/reached. The file has one block of 4096 bytes for each shard, at its number times 4096;
 * each shard writes its own at a clean stop, behind its superblock:
 *
 *   offset  size  field
 *        0     8  magic "mvREACHD"
 *        8     4  crc32c of bytes 12 to 4095
 *       12     2  format: 1
 *       14     2  0
 *       16     8  directory id
 *       24     4  shard
 *       28     4  0
 *       32     8  log position
 *       40  4056  0
 *
 * A block of zeros, or no file: the shard has not stopped cleanly since there are notes. Positions
 * only grow, also when the number of shards changes, so an outdated note says less and nothing
 * wrong. */
#ifndef MINIVAULT_STORE_REACHED_H
#define MINIVAULT_STORE_REACHED_H

#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

struct superblock;

#define REACHED_FILE "reached"
#define REACHED_BLOCK_SIZE 4096u

struct reached {
    uint64_t directory_id;
    uint32_t shard;
    uint64_t position; /* the log's last; 0: not known */
};

/* The shard that keeps the note. */
static inline uint32_t reached_keeper(uint32_t shard)
{
    return shard == 0 ? 1 : 0;
}

/* Writes the note durably, of a directory with several shards. `block`: REACHED_BLOCK_SIZE bytes,
 * aligned to 4096, for the time. Synchronous. Errors: the device's, -ENAMETOOLONG. */
int reached_write(struct io *io, const char *data_path, const struct reached *note, uint8_t *block);

/* Reads the note of note->shard of the directory note->directory_id; position 0: there is none.
 * Synchronous. Errors: reached_decode's, the device's, -ENAMETOOLONG; note->position stays. */
int reached_read(struct io *io, const char *data_path, struct reached *note, uint8_t *block);

/* Whether the superblock `own` leaves it open that its shard is an older copy than what `position`
 * was noted of: then the end of its log decides. */
bool reached_is_beyond(const struct superblock *own, uint64_t position);

/* Whether it is one, with a log that ends at `end`: in a clause, in ret_text (SUPERBLOCK_TEXT_SIZE
 * bytes). For a start, and for minivault-admin. */
bool reached_is_older(const struct superblock *own, uint64_t position, uint64_t end,
                      char *ret_text);

/* What to do then. */
#define REACHED_REMEDY                                                                             \
    "Put back the one that was here, restore all shards from one backup, or start once with "      \
    "-accept-loss to go on without its later writes"

void reached_encode(const struct reached *note, uint8_t *block);

/* Of the note of this shard and directory. Zeros are position 0. Errors: -EBADMSG (damaged, or
 * another's), -EPROTONOSUPPORT (of another format). */
int reached_decode(const uint8_t *block, struct reached *note);

#endif
