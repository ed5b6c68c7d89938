/* The scrubber: reads everything that lies on the disk again and again, in the background, so that
 * what rots is found while it can still be written again, and not years later by a client.
 *
 *   pass:    superblock, manifest, checkpoint; the log's files, then the partitions' segments, from
 *            a partition by chance on
 *   file:    its header, then batch by batch or chunk by chunk, a megabyte at a time
 *   record:  alive and in a value file: the file, before the next record
 *
 * In that order nothing that is there when a pass begins is missed: what the mover carries
 * meanwhile goes from the log to a partition, or to a segment with a greater number. Where a pass
 * is does not survive a restart; since it begins by chance, restarts do not leave the same part
 * unread for ever.
 *
 * Verified are: both copies of the superblock, the manifest's groups, every block of the checkpoint
 * that counts (what is damaged of these is written anew from memory); a segment's header; of each
 * chunk its header (which says where it must lie, so that a block that went astray or was never
 * written shows), its directory, each record, and that a record's slot in the index leads there;
 * that all that the index has in a segment is in its chunks; a log file's header and the
 * checksums of its batches; each block of a value file against the descriptor in its record.
 *
 * What is found goes to the store's findings (findings.h), where it is logged once. Where somebody can
 * be hurt by it, it counts; where its key has a newer version, or nothing is alive, it is counted
 * apart, no more. What a whole pass does not meet again counts no longer, whoever had found it. A file
 * that cannot be read is counted as such, neither as damaged nor as sound. A partition segment is not compacted (is_damaged) as long as the index
 * leads to anything damaged in it; the key itself answers CORRUPT when it is read.
 *
 * A file is pinned for the time of a read only. */
#ifndef MINIVAULT_STORE_SCRUB_H
#define MINIVAULT_STORE_SCRUB_H

#include "base/log.h"
#include "base/units.h"
#include "io/io.h"
#include "store/disk/findings.h"
#include "store/memory/index.h"
#include "store/mover/mover.h"
#include "store/segment/segments.h"
#include "store/wal/wal.h"

struct scrub;

#define SCRUB_OFF 0u
#define SCRUB_AUTO UINT64_MAX /* what reads the disk in SCRUB_PASS_NS, at least SCRUB_RATE_MIN */
#define SCRUB_PASS_NS (7 * 24 * 3600 * NS_PER_S)
#define SCRUB_RATE_MIN MIB

#define SCRUB_WINDOW_SIZE ((uint32_t)MIB) /* of one read; holds a whole batch or chunk */
#define SCRUB_MEMORY_SIZE ((size_t)2 * SCRUB_WINDOW_SIZE)

struct superblock_file;
struct manifest;

/* What only the owner can say and do. */
struct scrub_owner {
    void *context;
    uint64_t (*checkpoint)(void *context); /* number of the one that counts; 0: none */
    /* A write that is damaged is hidden by a newer one of its keyed hash: find out whether it is
     * its key's, so that its slot can go. */
    void (*prove)(void *context, uint8_t partition, uint64_t hash);
    void (*replace_checkpoint)(void *context); /* it is damaged: another one, soon */
};

struct scrub_options {
    const char *path;       /* the data directory */
    const char *state_path; /* of superblock, manifest and checkpoint */
    uint64_t directory_id;
    const uint8_t *secret; /* HASH_SECRET_SIZE bytes */
    struct wal *wal;
    struct segments *segments;
    const struct index *index;
    const struct mover *mover;
    struct superblock_file *superblock;
    struct manifest *manifest;
    struct findings *findings; /* of the store */
    uint32_t shard;
    uint32_t shard_count; /* of the directory: SCRUB_AUTO is divided by it; 0: one */
    struct scrub_owner owner;
    uint64_t rate;   /* bytes a second, or SCRUB_AUTO; not SCRUB_OFF */
    uint8_t *memory; /* SCRUB_MEMORY_SIZE bytes of the region, aligned to 4096 */
};

/* Everything in the options outlives it. Errors: -ENOMEM. */
int scrub_create(struct io *io, const struct log *log, const struct scrub_options *options,
                 struct scrub **ret_scrub);

/* All of these may be called with NULL: there is none. */

/* Does a piece of the work, about `budget` bytes. Returns whether there is more to do without
 * waiting for the disk or the time. */
bool scrub_step(struct scrub *scrub, uint64_t budget);

/* Ends what is under way, through scrub_step, until scrub_is_busy says false. */
void scrub_stop(struct scrub *scrub);
bool scrub_is_busy(const struct scrub *scrub);

/* After that, or after the world was closed. */
void scrub_free(struct scrub *scrub);

struct scrub_stats {
    uint64_t rate;       /* bytes a second, 0: off */
    uint64_t bytes;      /* read since the start */
    uint64_t passes;     /* completed since the start */
    uint64_t pass_age_s; /* since the end of the last one; without any: since the start */
};
void scrub_stats(const struct scrub *scrub, struct scrub_stats *ret_stats);

#endif
