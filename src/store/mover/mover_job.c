/* The job's phases and rounds.
 *
 *   from         to
 *   IDLE         READING      a job begins
 *                CLEANING     segments with nothing alive leave the manifest
 *   READING      WRITING      the round is full, or there is no further input
 *                ENDING       (from here on: a failure, or the mover is to stop)
 *   WRITING      READING      another round: the stage was full, the job is not
 *                SYNCING      the last round is written
 *                ENDING
 *   SYNCING      COMMITTING   all files and names are durable
 *                ENDING
 *   COMMITTING   APPLYING     the manifest knows the new ends
 *                ENDING
 *   APPLYING     IDLE         the index knows the new locations
 *   ENDING       IDLE         nothing is in flight any more
 *   CLEANING     IDLE
 *
 * Invariants:
 * 1. Phases change as the table says, by mover_job_set_phase alone.
 * 2. Records come into the stage while READING only.
 * 3. A record that had no room is the first of the next round: nothing of the input is left out.
 * 4. A job carries at most its limit: the round that would go beyond it is not begun. */
#include "store/mover/mover_job.h"

#include "base/assert.h"

#define BIT(phase) (1u << (phase))

static const char *const phase_names[] = {
    [MOVER_IDLE] = "idle",       [MOVER_READING] = "reading",       [MOVER_WRITING] = "writing",
    [MOVER_SYNCING] = "syncing", [MOVER_COMMITTING] = "committing", [MOVER_APPLYING] = "applying",
    [MOVER_ENDING] = "ending",   [MOVER_CLEANING] = "cleaning",
};

static const uint8_t phases_next[] = {
    [MOVER_IDLE] = BIT(MOVER_READING) | BIT(MOVER_CLEANING),
    [MOVER_READING] = BIT(MOVER_WRITING) | BIT(MOVER_ENDING),
    [MOVER_WRITING] = BIT(MOVER_READING) | BIT(MOVER_SYNCING) | BIT(MOVER_ENDING),
    [MOVER_SYNCING] = BIT(MOVER_COMMITTING) | BIT(MOVER_ENDING),
    [MOVER_COMMITTING] = BIT(MOVER_APPLYING) | BIT(MOVER_ENDING),
    [MOVER_APPLYING] = BIT(MOVER_IDLE),
    [MOVER_ENDING] = BIT(MOVER_IDLE),
    [MOVER_CLEANING] = BIT(MOVER_IDLE),
};

void mover_job_init(struct mover_job *job, struct mover_reader *reader, struct mover_stage *stage)
{
    *job = (struct mover_job){.reader = reader, .stage = stage, .source = SEGMENT_FROM_LOG};
}

void mover_job_set_phase(struct mover_job *job, enum mover_phase phase)
{
    assert((phases_next[job->phase] & BIT(phase)) != 0); /* invariant 1 */
    job->phase = phase;
}

enum mover_phase mover_job_phase(const struct mover_job *job)
{
    return job->phase;
}

const char *mover_job_phase_name(const struct mover_job *job)
{
    return phase_names[job->phase];
}

bool mover_job_is_under_way(const struct mover_job *job)
{
    return job->phase != MOVER_IDLE && job->phase != MOVER_CLEANING;
}

enum segment_source mover_job_source(const struct mover_job *job)
{
    return job->source;
}

void mover_job_begin(struct mover_job *job, enum segment_source source, uint64_t limit)
{
    assert(!job->has_next);                   /* invariant 3 */
    assert(mover_stage_is_empty(job->stage)); /* invariant 2 */
    assert(!mover_reader_has_input(job->reader));
    job->source = source;
    job->limit = limit;
    job->is_last_round = false;
    mover_job_set_phase(job, MOVER_READING);
}

/* The round is full; the job, too, or this record is the next one's first. */
static void end_round(struct mover_job *job, const struct mover_record *record)
{
    job->is_last_round = mover_stage_is_full(job->stage, job->limit); /* invariant 4 */
    if (job->is_last_round)
        mover_reader_pause(job->reader);
    else
        job->next = *record;
    job->has_next = !job->is_last_round;
}

static enum mover_job_read read_input(struct mover_job *job, uint64_t budget)
{
    for (uint64_t used = 0, cost = 0; used < budget; used += cost) {
        struct mover_record record;
        switch (mover_reader_next(job->reader, &record)) {
        case MOVER_READ_WAIT:
            return MOVER_JOB_WAIT;
        case MOVER_READ_END:
            mover_reader_close(job->reader);
            return MOVER_JOB_MORE;
        case MOVER_READ_SKIPPED:
            cost = MOVER_LOOK_COST;
            break;
        case MOVER_READ_RECORD:
            cost = mover_stage_add(job->stage, &record);
            if (cost == 0) {
                end_round(job, &record);
                return MOVER_JOB_FULL;
            }
            break;
        }
    }
    return MOVER_JOB_MORE;
}

enum mover_job_read mover_job_read(struct mover_job *job, uint64_t budget)
{
    assert(job->phase == MOVER_READING); /* invariant 2 */
    assert(!job->has_next);              /* invariant 3 */
    if (mover_reader_has_input(job->reader))
        return read_input(job, budget);
    /* What the last one read ahead for nothing may be on its way. */
    return mover_reader_settle(job->reader) ? MOVER_JOB_OPEN : MOVER_JOB_WAIT;
}

void mover_job_end_input(struct mover_job *job)
{
    assert(!mover_reader_has_input(job->reader)); /* invariant 3 */
    job->is_last_round = true;
}

void mover_job_begin_writing(struct mover_job *job)
{
    assert(job->is_last_round != job->has_next); /* invariant 3 */
    if (job->is_last_round)
        mover_reader_close(job->reader);
    mover_job_set_phase(job, MOVER_WRITING);
}

bool mover_job_is_last_round(const struct mover_job *job)
{
    return job->is_last_round;
}

void mover_job_next_round(struct mover_job *job)
{
    assert(!job->is_last_round); /* invariant 4 */
    assert(job->has_next);       /* invariant 3 */
    mover_stage_next_round(job->stage);
    mover_job_set_phase(job, MOVER_READING);
    job->has_next = false;
    uint64_t cost = mover_stage_add(job->stage, &job->next);
    assert(cost > 0); /* the arena has room for any record, and the table was not full */
}

void mover_job_end(struct mover_job *job)
{
    mover_reader_close(job->reader);
    bool is_free = mover_reader_settle(job->reader);
    assert(is_free); /* no input stays pinned behind its job */
    mover_stage_close(job->stage);
    job->has_next = false;
    mover_job_set_phase(job, MOVER_IDLE);
}
