/* The mover: carries what is still alive out of the log and out of segments that are mostly dead,
 * into the partitions' segments, so that the log can be recycled and the disk's space comes back.
 *
 *   inputs (log files, or segments with little alive) -> stage: live records, in memory
 *     -> chunks appended to each partition's open segment, and so on, in a few rounds
 *     -> sync -> manifest: the new ends
 *     -> index: the new locations -> the inputs have nothing alive and go
 *
 * One job at a time, in small steps between the requests. The index points to what is durable and
 * in the manifest, always: a job that fails half way leaves bytes beyond the ends in the manifest,
 * which count for nothing and are overwritten by the next one. What dies while a job carries it
 * arrives dead.
 *
 * Two open segments a partition, by their source: one takes what comes from the log, the other what
 * a compaction carries on, so that what has been alive for long does not share a file with what will
 * soon die.
 *
 * Tombstones. A tombstone must outlive every older record of its key that a restart could find. A
 * segment was filled with what was alive at the time, so it can only hold records that this
 * tombstone killed if it was begun (`created`) before it. So a job drops a tombstone instead of
 * carrying it on when every other segment of the partition was created after the tombstone's
 * position, the log begins after it, and no other slot has its hash. A record whose death was
 * proved only after it had been carried on lowers its segment's `created` (segment_record_dead). */
#ifndef MINIVAULT_STORE_MOVER_H
#define MINIVAULT_STORE_MOVER_H

#include "base/hash.h"
#include "base/log.h"
#include "io/io.h"
#include "store/memory/doomed.h"
#include "store/memory/index.h"
#include "store/catalog/manifest.h"
#include "store/mover/pace.h"
#include "store/segment/segments.h"
#include "store/wal/wal.h"

struct mover;

struct mover_options {
    const char *path; /* the data directory; its partition folders exist */
    uint64_t directory_id;
    uint32_t log_id;
    uint32_t shard_count;  /* of the directory: this one's segments have numbers that are log_id
                              modulo this, and it takes its share of the disk */
    const uint8_t *secret; /* HASH_SECRET_SIZE bytes */
    struct wal *wal;
    struct segments *segments;
    struct manifest *manifest;
    struct index *index;
    struct doomed *doomed;
    struct findings *findings; /* of the store */
    uint64_t segment_size;     /* bytes: a segment that has reached it is sealed */
    uint64_t log_keep_bytes;   /* sealed log files beyond this are moved */
    uint64_t compact_min;      /* dead bytes of all segments that are worth a job */
    uint64_t stage_bytes;      /* memory of a round, beside its table; at least a record's size */
    uint32_t window_size;      /* bytes of an input that are read at once: blocks, at most 1 MiB */
    uint64_t number_last;      /* of segments, as recovered */
    uint64_t sequence_last;    /* of chunks, as recovered */
    uint8_t *memory;           /* MOVER_MEMORY_SIZE bytes of the region, aligned to 4096 */
    void *context;
    /* A device or memory error: what the manifest took is unknown. The store must stop. */
    void (*failed)(void *context, int error);
    /* The disk was full: the job was given up, and is tried again in a second, or once mover_wake
     * says that there is room. */
    void (*full)(void *context);
    /* Nothing more can be freed for now: mover_may_free says no. */
    void (*futile)(void *context);
    uint64_t room_bytes;  /* compaction sees to it that this much of the disk is free, and room for
                             a checkpoint, for each shard, at most a 16th of it */
    uint64_t tight_bytes; /* mover_set_tight: a job carries at most this much */
};

/* Files that it has open at most: for writing two segments of each partition, and folders while the
 * names of new ones are synced. */
#define MOVER_OUTPUTS_MAX 512u
#define MOVER_FOLDERS_MAX 32u

#define MOVER_MEMORY_SIZE ((size_t)(8 * 1024 * 1024 + 4096))

/* The salt of the segment with this number: nobody outside can tell it, and no file has to be read
 * to know it. `secret`: HASH_SECRET_SIZE bytes. */
static inline uint64_t segment_salt(const uint8_t *secret, uint64_t number)
{
    return hash_keyed(secret, (const uint8_t *)&number, sizeof number);
}

/* Errors: -ENOMEM. */
int mover_create(struct io *io, const struct log *log, const struct mover_options *options,
                 struct mover **ret_mover);

/* Does a piece of the work, about `budget` bytes of records. Returns whether there is more to do
 * without waiting for the disk. */
bool mover_step(struct mover *mover, uint64_t budget);

/* How long the log is, and may become: as long as jobs shorten it, or nothing would ever go on. */
void mover_tell_log(struct mover *mover, struct pace_log *ret_log);

/* Whether a job is under way. */
bool mover_is_busy(const struct mover *mover);

/* Chunks with this sequence and later ones may not be in the index yet. */
uint64_t mover_sequence(const struct mover *mover);

/* The greatest number given to a segment so far. */
uint64_t mover_number_last(const struct mover *mover);

/* Adds edits for segments whose `created` was lowered, as far as there is room: the manifest has to
 * know of all of them before a checkpoint counts. Returns the new count. */
uint32_t mover_add_changed(struct mover *mover, struct manifest_edit *edits, uint32_t count,
                           uint32_t capacity);

/* How that group ended. */
void mover_changed_told(struct mover *mover, bool is_durable);

/* The disk is full, and there is space for small jobs only: whatever frees some is worth one. */
void mover_set_tight(struct mover *mover, bool is_tight);

/* From now on the log keeps nothing: all of it is moved as soon as it is sealed, out of damaged
 * segments, too. */
void mover_drain_log(struct mover *mover);

/* While draining: whether nothing moves the rest of the log, as far as the mover can tell. */
bool mover_is_stuck(const struct mover *mover);

/* While draining: the log is looked at again at once, though a job of it was in vain. */
void mover_go_on(struct mover *mover);

/* There may be room where there was none: looks again at once. */
void mover_wake(struct mover *mover);

/* Whether space may come free soon: a job is under way, or there is one that has not been tried in
 * vain since the last write. Then it begins at once, also when the mover was resting. */
bool mover_may_free(struct mover *mover);

/* Begins no further jobs; gives up the one under way unless its commit is. Afterwards, once
 * mover_is_busy says false, it may be freed. Goes on through mover_step. */
void mover_stop(struct mover *mover);

/* Closes the files. Synchronous; not busy. */
void mover_shut(struct mover *mover);
void mover_free(struct mover *mover);

struct mover_stats {
    uint64_t jobs;
    uint64_t read_bytes;
    uint64_t moved_records, moved_bytes; /* from the log and by compaction */
    uint64_t compacted_bytes;            /* of these, by compaction */
    uint64_t written_bytes;              /* chunks and headers, with padding */
    uint64_t purged_tombstones;
    uint64_t buried_records; /* known to be dead when they were come upon (doomed.h) */
    uint64_t removed_segments;
    uint64_t dead_bytes;       /* of segments, as far as the sizes that the index knows tell */
    uint64_t log_sealed_bytes; /* of sealed log files with something alive in them */
    uint64_t backlog_bytes;    /* of these, what is to be moved by now */
    const char *phase;         /* what it does now */
    const char *job;           /* "log", "compaction", or "none" */
};
void mover_stats(const struct mover *mover, struct mover_stats *ret_stats);

#endif
