/* What the mover's own files share.
 *
 *   mover.c        the job: from phase to phase
 *   mover_choose.c which inputs, and when
 *   mover_purge.c  the same for tombstones
 *   mover_end.c    a job's end
 *   mover_clean.c  segments with nothing alive leave
 *   mover_read.c   an input's live records, one by one
 *   mover_window.c its bytes, read ahead
 *   mover_stage.c  what the job carries, until the index knows where it lies
 *   mover_write.c  chunks into the partitions' open segments, synced
 *
 * A job's way:
 *
 *   IDLE -> READING -> WRITING -> SYNCING -> COMMITTING -> APPLYING -> IDLE
 *              ^----------/  (another round: the stage was full, the job is not)
 *                 \________\_________\-> ENDING (a failure: waits for operations) -> IDLE
 *   IDLE -> CLEANING -> IDLE   (segments with nothing alive leave the manifest) */
#ifndef MINIVAULT_STORE_MOVER_INTERNAL_H
#define MINIVAULT_STORE_MOVER_INTERNAL_H

#include "base/assert.h"
#include "store/mover/mover.h"
#include "store/mover/mover_read.h"
#include "store/mover/mover_stage.h"

#include <errno.h>

#define MOVER_HALVINGS_MAX 4u
#define MOVER_TIGHT_BYTES_MIN (512 * KIB) /* the largest record fits */
#define MOVER_ROUNDS_MAX 2u               /* of a job: the stage is filled and written so often */
#define MOVER_ROUNDS_ROOM 16u             /* a job of several takes this part of what is free */
#define MOVER_GENERATIONS 2u
static_assert(MOVER_PARTITIONS * MOVER_GENERATIONS == MOVER_OUTPUTS_MAX, "mover.h tells it");
#define MOVER_BUFFERS 8u /* chunks being written */
#define MOVER_SYNCS 8u
#define MOVER_CLEAN_MAX 1024u           /* segments that leave with one group of the manifest */
#define MOVER_RETRY_NS NS_PER_S         /* after a failure, or for nothing */
#define MOVER_LOOK_NS (100 * NS_PER_MS) /* between looks at all segments, which are many */
#define MOVER_MEMORY_NS NS_PER_S        /* without a job: then the stage's memory goes */
#define MOVER_CHECK_NS (2 * NS_PER_MS)  /* between looks for work */

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

/* ---- the outputs ---- */

struct mover_output {
    struct segment *segment; /* NULL: none yet */
    int handle;              /* for writing; < 0: not open */
    uint64_t end;            /* written; segment->end is what the manifest knows */
    uint64_t job_bytes;      /* of the records that this job wrote */
    uint64_t job_read_bytes; /* the same as the index knows them */
    bool is_touched;         /* by this job */
    bool is_new;             /* its name is not durable yet */
};

struct mover_buffer {
    struct io_op op;
    struct mover *mover;
    struct mover_output *output; /* to which it goes */
    uint8_t *data;
    uint32_t size;
};

struct mover_sync {
    struct io_op op;
    struct mover *mover;
    struct mover_output *output;
    enum { MOVER_SYNC_FILE, MOVER_SYNC_OPEN, MOVER_SYNC_NAME, MOVER_SYNC_CLOSE } step;
    int directory;
    char path[SEGMENT_PATH_MAX];
};

/* A kind of job was tried in vain. */
struct mover_rest {
    uint64_t until_ns;
    uint64_t last; /* log position when it began: while space is short, a write since then is a
                      reason to try again at once */
};

/* mover_purge.c tells what the stages are. */
enum mover_purge_stage { MOVER_PURGE_NONE, MOVER_PURGE_OLD, MOVER_PURGE_YOUNG };

struct mover_purge {
    enum mover_purge_stage stage;
    uint64_t number_last; /* the stage's segments: their numbers are not above */
    uint64_t log_first;   /* position that the log began with at the last round's begin */
    uint64_t quiet_last;  /* the log's last position, as of the last look */
    uint64_t quiet_ns;    /* from when on it has been quiet since then */
    bool is_emptying;     /* the log, while it is quiet */
    bool is_in[MOVER_PARTITIONS];
};

struct mover {
    struct io *io;
    const struct log *log;
    struct mover_options options;
    enum mover_phase phase;
    uint8_t generation; /* of the job's outputs: 1 moves the log, 2 compacts */
    bool is_stopping;
    bool is_failing; /* the last job was given up */
    bool is_tight;
    bool is_draining;    /* mover_drain_log */
    bool is_log_emptied; /* the log keeps nothing: it is quiet, and tombstones are waiting */
    bool is_log_growing; /* it was longer than it should be, and has not been quiet since then */
    bool is_room_low;    /* less than room_bytes of the disk are free, as of the last look */
    int error;           /* of the job */
    uint64_t retry_ns;   /* no job before */
    struct mover_rest rests[MOVER_GENERATIONS];
    uint64_t filled_bytes, filled_read_bytes; /* of all that was written, as in a segment */
    uint64_t job_end_ns;                      /* of the last one */
    uint64_t job_last;                        /* log position when the job began */
    uint32_t compactions;                     /* since the last job of the log */
    uint32_t log_rounds;                      /* of that one, less one */
    uint32_t halvings; /* of a job's size, since the disk was too full for the last ones */
    uint64_t number_last;
    uint64_t sequence_last;
    uint64_t job_sequence; /* sequence_last when the job began */
    struct mover_reader reader;
    struct mover_stage stage;
    uint64_t job_limit;       /* bytes of records that the job carries */
    bool is_last_round;       /* of the job: nothing is read after it */
    struct mover_record next; /* for which the round had no room; of the input, as read */
    bool has_next;
    uint64_t log_max; /* how long it may become, as of the last look; 0: none yet */
    uint64_t log_max_ns;
    uint64_t log_taken_bytes; /* of the log segments that this job took */
    uint64_t log_taken;       /* number of the last log segment that this job took */
    struct mover_buffer buffers[MOVER_BUFFERS];
    uint32_t open_partition;
    struct io_op open_op; /* opening, then the header of a new output; cutting after a failure */
    bool is_header_written;
    uint8_t *header;
    char open_path[SEGMENT_PATH_MAX];
    struct list closings; /* of outputs: nobody waits for them */
    struct mover_output outputs[MOVER_GENERATIONS][MOVER_PARTITIONS];
    struct mover_sync *syncs; /* MOVER_SYNCS */
    uint32_t sync_partition;
    struct manifest_op manifest_op;
    bool is_committing;
    struct mover_purge purge;
    uint64_t *cleaning; /* numbers of the segments that leave */
    uint32_t cleaning_count;
    struct mover_stats stats;
};

static inline struct mover_output *mover_output_of(struct mover *mover, uint32_t partition)
{
    return &mover->outputs[mover->generation - 1][partition];
}

/* Whether an error may pass: of a full disk, or of what the process may have. */
static inline bool mover_may_retry(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -ENFILE || error == -EMFILE ||
           error == -ENOMEM;
}

/* mover_choose.c */

/* Whether space is short, for the log or for segments. */
bool mover_is_pressed(const struct mover *mover);

/* Whether there is a reason to begin a job, and of which generation. */
bool mover_wants_job(struct mover *mover, uint8_t *ret_generation);

/* How many times the usual work a step is to do: the log has grown that many times as large as it
 * is meant to stay, and requests have to wait a little. At most MOVER_URGENCY_MAX. */
uint64_t mover_urgency(const struct mover *mover);
#define MOVER_URGENCY_MAX 8u

/* Of all segments, without looking at each. */
uint64_t mover_dead_bytes(const struct mover *mover);

/* Opens the job's next input. Returns false: no more. */
bool mover_open_input(struct mover *mover);

/* Whether the segment may be an input of this job. */
bool mover_is_usable(const struct mover *mover, const struct segment *segment);

/* Whether the segment is being filled. */
bool mover_is_output(const struct mover *mover, const struct segment *segment);

/* The segment takes no more: closes its file. Nothing of it is in flight. */
void mover_seal(struct mover *mover, struct segment *segment);

/* mover_purge.c */

/* Whether a compaction is due for tombstones. Begins rounds and ends them; between two jobs. */
bool mover_purge_is_due(struct mover *mover);

/* The next segment that the round wants compacted. NULL: none now. */
struct segment *mover_purge_victim(const struct mover *mover);

/* Whether nothing was written for a while. */
bool mover_log_is_quiet(struct mover *mover);

/* Whether all of the log is to be moved, so that tombstones can be purged. */
bool mover_purge_empties_log(struct mover *mover);

/* mover_clean.c: segments with nothing alive leave the manifest, then the disk. Returns whether
 * that has begun. */
bool mover_clean_begin(struct mover *mover);

/* mover_end.c */

/* The job is over, whatever became of it: nothing of it is in flight. */
void mover_end_job(struct mover *mover);

/* The job was in vain, and others of its kind will be for a while. */
void mover_rest(struct mover *mover);

/* Ends a job that failed or is not wanted; both return whether there is more to do at once. */
bool mover_give_up(struct mover *mover);
bool mover_end_step(struct mover *mover);

/* mover.c */

/* Nobody waits for it. */
void mover_close_output(struct mover *mover, struct mover_output *output);
void mover_fill_edit(const struct mover *mover, const struct segment *segment, uint64_t end,
                     enum manifest_kind kind, struct manifest_edit *ret_edit);
void mover_set_phase(struct mover *mover, enum mover_phase phase);

/* mover_write.c: writing returns whether it waits for nothing but its next call; `done` tells that
 * all is written. Syncing returns whether all is synced; while the last round is being written, it
 * goes as far as that. mover->error tells failures. */
bool mover_write_step(struct mover *mover, uint32_t chunks_max, bool *ret_done);
bool mover_sync_step(struct mover *mover);
bool mover_write_is_active(const struct mover *mover);
void mover_write_begin(struct mover *mover);

#endif
