/* The mover's policy: when a job is worth it, of which kind and how large it is, which inputs it
 * has; and how soon the next one may begin. */
#ifndef MINIVAULT_STORE_MOVER_CHOOSE_H
#define MINIVAULT_STORE_MOVER_CHOOSE_H

#include "store/mover/mover_purge.h"
#include "store/mover/mover_read.h"

#define MOVER_URGENCY_MAX 8u

/* A kind of job was tried in vain. */
struct mover_rest {
    uint64_t until_ns;
    uint64_t last; /* log position when it began: while space is short, a write since then is a
                      reason to try again at once */
};

struct mover_policy {
    struct io *io;
    const struct mover_options *options;
    struct mover_outputs *outputs;
    struct mover_purge purge;
    bool is_failing; /* the last job was given up */
    bool is_tight;
    bool is_draining;    /* mover_drain_log */
    bool is_log_emptied; /* the log keeps nothing: it is quiet, and tombstones are waiting */
    bool is_log_growing; /* it was longer than it should be, and has not been quiet since then */
    bool is_room_low;    /* less than room_bytes of the disk are free, as of the last look */
    uint64_t retry_ns;   /* no job before; UINT64_MAX: none ever */
    struct mover_rest rests[SEGMENT_SOURCES];
    uint64_t job;         /* number of the job under way, or of the next one */
    uint64_t job_last;    /* log position when it began */
    uint32_t compactions; /* since the last job of the log */
    uint32_t log_rounds;  /* of that one, less one */
    uint32_t halvings;    /* of a job's size, since the disk was too full for the last ones */
    uint64_t log_max;     /* how long it may become, as of the last look; 0: none yet */
    uint64_t log_max_ns;
    uint64_t log_taken_bytes; /* of the log files that this job took */
    uint64_t log_taken;       /* number of the last log file that this job took */
};

/* The options and the outputs stay the owner's. */
void mover_policy_init(struct mover_policy *policy, struct io *io,
                       const struct mover_options *options, struct mover_outputs *outputs);

/* ---- when ---- */

/* Whether it is time to look for work; then the next look comes a little later. */
bool mover_policy_may_look(struct mover_policy *policy);

/* Whether there is a reason to begin a job, and of which kind. No job is under way. */
bool mover_policy_wants_job(struct mover_policy *policy, enum segment_source *ret_source);

/* No job is wanted: what the log has as spares may go once nobody writes. */
void mover_policy_idle(struct mover_policy *policy);

/* How much the next job carries: bytes of a round, and of all its rounds. */
void mover_policy_sizes(const struct mover_policy *policy, enum segment_source source,
                        uint64_t *ret_round, uint64_t *ret_limit);

/* There was no memory for the job. */
void mover_policy_postpone(struct mover_policy *policy);

/* How many times the usual work a step is to do: the log has grown that many times as large as it
 * is meant to stay, and requests have to wait a little. At most MOVER_URGENCY_MAX. */
uint64_t mover_policy_urgency(const struct mover_policy *policy);

/* Whether space is short, for the log or for segments. */
bool mover_policy_is_short(const struct mover_policy *policy);

/* ---- a job's way ---- */

/* The outputs begin it, too. */
void mover_policy_begin_job(struct mover_policy *policy, enum segment_source source);

/* Opens the job's next input. Returns false: no more. */
bool mover_policy_open_input(struct mover_policy *policy, enum segment_source source,
                             struct mover_reader *reader);

/* The job has another round. */
void mover_policy_next_round(struct mover_policy *policy);

/* The job is over, and nothing went wrong. */
void mover_policy_done(struct mover_policy *policy);

/* The job was given up, because of `error` or for nothing. Returns whether it was too large for
 * what is free, as the smallest one would be, too: others of its kind are in vain for a while. */
bool mover_policy_failed(struct mover_policy *policy, enum segment_source source, int error);

/* The job was in vain, and others of its kind will be for a while. */
void mover_policy_rest(struct mover_policy *policy, enum segment_source source);

/* ---- as mover.h tells ---- */

void mover_policy_tell_log(struct mover_policy *policy, struct pace_log *ret_log);
void mover_policy_set_tight(struct mover_policy *policy, bool is_tight);
void mover_policy_drain_log(struct mover_policy *policy);
bool mover_policy_is_stuck(const struct mover_policy *policy);
void mover_policy_go_on(struct mover_policy *policy);

/* A job may begin at once. */
void mover_policy_wake(struct mover_policy *policy);

/* As mover_may_free; `is_busy`: a job is under way. */
bool mover_policy_may_free(struct mover_policy *policy, bool is_busy);

/* Of all segments, without looking at each. */
uint64_t mover_policy_dead_bytes(const struct mover_policy *policy);

#endif
