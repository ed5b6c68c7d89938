/* What the mover is made of. Each part owns its state, knows no part above it, and returns what
 * happened; mover.c drives them.
 *
 *   mover.c         the driver: steps the job through its phases and rounds, commits, cleans
 *   mover_choose.c  the policy: when, which kind, which inputs
 *   mover_purge.c   the same for tombstones
 *   mover_write.c   the outputs: chunks into the partitions' open segments, synced
 *   mover_stage.c   the stage: what the job carries, until the index knows where it lies
 *   mover_read.c    the reader: an input's live records, one by one
 *   mover_window.c  its bytes, read ahead */
#ifndef MINIVAULT_STORE_MOVER_INTERNAL_H
#define MINIVAULT_STORE_MOVER_INTERNAL_H

#include "store/mover/mover_choose.h"
#include "store/mover/mover_read.h"
#include "store/mover/mover_stage.h"
#include "store/mover/mover_write.h"

enum mover_phase {
    MOVER_IDLE,
    MOVER_READING,
    MOVER_WRITING,
    MOVER_SYNCING,
    MOVER_COMMITTING,
    MOVER_APPLYING,
    MOVER_ENDING,
    MOVER_CLEANING,
};

struct mover {
    struct io *io;
    const struct log *log;
    struct mover_options options;
    struct mover_stats stats;
    struct mover_policy policy;
    struct mover_reader reader;
    struct mover_stage stage;
    struct mover_outputs outputs;
    bool is_stopping;
    enum mover_phase phase;
    enum segment_source source; /* of the job's outputs: whether it moves the log or compacts */
    uint64_t limit;             /* bytes of records that the job carries */
    bool is_last_round;         /* nothing is read after it */
    bool has_next;
    struct mover_record next; /* for which the round had no room; of the input, as read */
    uint64_t job_sequence;    /* the outputs' last one when the job began */
    uint64_t job_end_ns;      /* of the last one */
    struct manifest_op manifest_op;
    bool is_committing;
    uint64_t *cleaning; /* numbers of the segments that leave */
    uint32_t cleaning_count;
};

/* The one way from phase to phase; for mover.c and tests. */
void mover_set_phase(struct mover *mover, enum mover_phase phase);

#endif
