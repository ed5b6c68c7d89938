/* The mover's outputs: the open segments of each partition, two of them by source, and what a job
 * writes to them.
 *
 *   chunks from the stage -> written into the open segments -> each file synced, and the folder of
 *   each new one -> edits for the manifest -> committed, or cut and forgotten
 *
 * What a job wrote counts once the manifest names it (segment->end); until then it lies behind the
 * end, and is written over by the next job. */
#ifndef MINIVAULT_STORE_MOVER_WRITE_H
#define MINIVAULT_STORE_MOVER_WRITE_H

#include "store/mover/mover.h"
#include "store/mover/mover_stage.h"
#include "store/value/directory_sync.h"

#define MOVER_BUFFERS 8u /* chunks being written */
#define MOVER_SYNCS 8u
#define MOVER_OUTPUTS_MEMORY (SEGMENT_BLOCK_SIZE + MOVER_BUFFERS * MOVER_CHUNK_SIZE)
static_assert(MOVER_PARTITIONS * SEGMENT_SOURCES == MOVER_OUTPUTS_MAX, "mover.h tells it");

struct mover_outputs;

struct mover_output {
    struct segment *segment; /* NULL: none yet */
    struct io_op close_op;   /* of a file that it has left */
    int handle;              /* for writing; < 0: not open */
    uint64_t end;            /* written; segment->end is what the manifest knows */
    uint64_t job_bytes;      /* of the records that this job wrote */
    uint64_t job_read_bytes; /* the same as the index knows them */
    bool is_touched;         /* by this job */
    bool is_new;             /* its name is not durable yet */
};

struct mover_buffer {
    struct io_op op;
    struct mover_outputs *outputs;
    struct mover_output *output; /* to which it goes */
    uint8_t *data;
    uint32_t size;
};

/* Of an output's file and, where that is new, of its folder, so that its name is durable, too. */
struct mover_sync {
    struct io_op op;
    struct mover_output *output; /* NULL: none is under way */
    struct directory directory;
    struct directory_waiter waiter;
    int error;
    char path[SEGMENT_PATH_MAX]; /* of the folder */
};

struct mover_outputs {
    struct io *io;
    const struct log *log;
    const struct mover_options *options;
    struct mover_stats *stats;
    struct mover_stage *stage;
    enum segment_source source;               /* of the job's outputs */
    bool is_failure_usual;                    /* the disk is full: a failure is no news */
    int error;                                /* of the job: the first one */
    uint64_t number_last;                     /* of segments */
    uint64_t sequence_last;                   /* of chunks */
    uint64_t filled_bytes, filled_read_bytes; /* of all that was written, as in a segment */
    struct mover_buffer buffers[MOVER_BUFFERS];
    uint32_t partition;   /* that is being written; MOVER_PARTITIONS: all of the round is */
    struct io_op open_op; /* opening, then the header of a new output; cutting after a failure */
    bool is_header_written;
    uint8_t *header;
    char open_path[SEGMENT_PATH_MAX];
    struct mover_output files[SEGMENT_SOURCES][MOVER_PARTITIONS];
    struct mover_sync *syncs; /* MOVER_SYNCS */
    struct list folder_users; /* none, so that a folder is closed behind its sync */
    uint32_t sync_partition;
};

/* Goes on in the newest segments that are not full. `memory`: MOVER_OUTPUTS_MEMORY bytes of the
 * region, aligned to 4096. The options, the counters and the stage stay the owner's.
 * Errors: -ENOMEM. */
int mover_outputs_init(struct mover_outputs *outputs, struct io *io, const struct log *log,
                       const struct mover_options *options, struct mover_stats *stats,
                       struct mover_stage *stage, uint8_t *memory);

/* Closes the files. Synchronous; nothing is on its way but closings. */
void mover_outputs_shut(struct mover_outputs *outputs);

/* Frees the memory: after mover_outputs_shut, or after the world was closed. */
void mover_outputs_deinit(struct mover_outputs *outputs);

/* ---- writing ---- */

/* A job begins. `is_failure_usual`: it is known that the disk is full. */
void mover_outputs_begin_job(struct mover_outputs *outputs, enum segment_source source,
                             bool is_failure_usual);

/* The stage has the records of a round. */
void mover_outputs_begin_round(struct mover_outputs *outputs);

/* Writes at most `chunks_max` chunks; after a failure none. Returns whether it waits for nothing but its next call;
 * `ret_done`: all of the round is written. */
bool mover_outputs_write(struct mover_outputs *outputs, uint32_t chunks_max, bool *ret_done);

/* Of the job's last round: syncs what is written to its end. Returns whether all is synced. */
bool mover_outputs_sync(struct mover_outputs *outputs);

/* Whether something is on its way; closings do not count. */
bool mover_outputs_is_active(const struct mover_outputs *outputs);

/* 0, or the -errno of the job's first failure. */
int mover_outputs_error(const struct mover_outputs *outputs);

/* ---- what the manifest is told ---- */

/* What the manifest is to say of a segment. */
void mover_outputs_edit(const struct mover_outputs *outputs, const struct segment *segment,
                        uint64_t end, enum manifest_kind kind, struct manifest_edit *ret_edit);

/* The job's new ends: at most MOVER_PARTITIONS edits. All is synced. Returns the count. */
uint32_t mover_outputs_new_ends(const struct mover_outputs *outputs,
                                struct manifest_edit *ret_edits);

/* How the group of these edits ended: 0, or an -errno, which is the job's error then. */
void mover_outputs_committed(struct mover_outputs *outputs, int result);

/* ---- after a failure; nothing is on its way ---- */

/* What a failed job wrote behind an end counts for nothing, but would take space until it is
 * overwritten: on a full disk that could be all that there is. Returns whether one is being cut. */
bool mover_outputs_cut(struct mover_outputs *outputs);

/* What was written counts for nothing. A new segment that the manifest does not know goes. */
void mover_outputs_forget(struct mover_outputs *outputs);

/* ---- the open segments ---- */

/* Whether this job wrote to the open segment of its partition and source. */
bool mover_outputs_is_touched(const struct mover_outputs *outputs, const struct segment *segment);

/* The segment takes no more: if it was being filled its file is closed. Nothing of it is in flight.
 */
void mover_outputs_seal(struct mover_outputs *outputs, struct segment *segment);

/* What is written for the partition from now on goes to new segments. No job is under way. */
void mover_outputs_seal_partition(struct mover_outputs *outputs, uint32_t partition);

/* The greatest number given to a segment, the greatest sequence given to a chunk. */
uint64_t mover_outputs_number_last(const struct mover_outputs *outputs);
uint64_t mover_outputs_sequence_last(const struct mover_outputs *outputs);

/* True bytes of a record for each byte that the index knows it as, on the average. */
double mover_outputs_true_share(const struct mover_outputs *outputs);

#endif
