/* The mover's job: its phase, and how its inputs' records come into the stage, in rounds. */
#ifndef MINIVAULT_STORE_MOVER_JOB_H
#define MINIVAULT_STORE_MOVER_JOB_H

#include "store/mover/mover_read.h"
#include "store/mover/mover_stage.h"

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

struct mover_job {
    struct mover_reader *reader;
    struct mover_stage *stage;
    enum mover_phase phase;
    enum segment_source source; /* of its outputs: whether it moves the log or compacts */
    uint64_t limit;             /* bytes of records that it carries */
    bool is_last_round;         /* nothing is read after it */
    struct mover_record next;   /* for which the round had no room; of the input, as read */
    bool has_next;
};

enum mover_job_read {
    MOVER_JOB_MORE, /* its budget is used up */
    MOVER_JOB_WAIT, /* for the disk */
    MOVER_JOB_OPEN, /* it needs its next input */
    MOVER_JOB_FULL, /* the round is: it is to be written */
};

/* The reader and the stage stay the owner's. */
void mover_job_init(struct mover_job *job, struct mover_reader *reader, struct mover_stage *stage);

/* The one way from phase to phase. */
void mover_job_set_phase(struct mover_job *job, enum mover_phase phase);
enum mover_phase mover_job_phase(const struct mover_job *job);
const char *mover_job_phase_name(const struct mover_job *job);

/* Whether the phase is one of a job. */
bool mover_job_is_under_way(const struct mover_job *job);

/* Of the job under way, or of the last one. */
enum segment_source mover_job_source(const struct mover_job *job);

/* Into READING. `limit`: bytes of records. */
void mover_job_begin(struct mover_job *job, enum segment_source source, uint64_t limit);

/* READING: about `budget` bytes of records come into the stage. */
enum mover_job_read mover_job_read(struct mover_job *job, uint64_t budget);

/* READING, and there is no further input: what was read is the last round. */
void mover_job_end_input(struct mover_job *job);

/* READING -> WRITING. */
void mover_job_begin_writing(struct mover_job *job);
bool mover_job_is_last_round(const struct mover_job *job);

/* WRITING -> READING: what the round had is written. */
void mover_job_next_round(struct mover_job *job);

/* The job is over, whatever became of it: nothing of it is in flight. */
void mover_job_end(struct mover_job *job);

#endif
