/* The driver: it steps a job through its phases and rounds, between the requests.
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
 * 1. One group of the manifest commits a job, before the index learns of a new location, and so
 *    before any of its inputs can go.
 * 2. The manifest has one group of the mover's at most: committing a job, or cleaning.
 * 3. Sequences of chunks grow, and those above job_sequence may not be in the index yet.
 * 4. What leaves the manifest has nothing alive, and what killed its last record is durable.
 * 5. Phases change as the table says, by mover_set_phase alone.
 * 6. Records come into the stage while READING only.
 * 7. A record that had no room is the first of the next round: nothing of the input is left out.
 * 8. A job carries at most its limit: the round that would go beyond it is not begun. */
#include "store/mover/mover_internal.h"

#include "base/assert.h"
#include "store/disk/refusal.h"

#include <errno.h>
#include <stdlib.h>

#define MEMORY_NS NS_PER_S /* without a job: then the stage's memory goes */

/* A job appends what it carries, however full a segment is: a location must still name the end. */
#define SEGMENT_SIZE_LIMIT ((uint64_t)GIB)

static_assert(MOVER_OUTPUTS_MEMORY + MOVER_WINDOW_SIZE == MOVER_MEMORY_SIZE,
              "the region's slice holds all buffers");

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

void mover_set_phase(struct mover *mover, enum mover_phase phase)
{
    assert((phases_next[mover->phase] & BIT(phase)) != 0); /* invariant 5 */
    mover->phase = phase;
}

/* ---- creating ---- */

int mover_create(struct io *io, const struct log *log, const struct mover_options *options,
                 struct mover **ret_mover)
{
    struct mover *mover = calloc(1, sizeof *mover);
    if (mover == NULL)
        return -ENOMEM;
    mover->io = io;
    mover->log = log;
    mover->options = *options;
    mover->options.segment_size = min_u64(options->segment_size, SEGMENT_SIZE_LIMIT);
    assert(options->log_id < options->shard_count);
    mover_stage_init(&mover->stage, &mover->options, &mover->stats);
    mover_reader_init(&mover->reader, io, &mover->options, &mover->stats,
                      options->memory + MOVER_OUTPUTS_MEMORY);
    mover->source = SEGMENT_FROM_LOG;
    mover_policy_init(&mover->policy, io, &mover->options, &mover->outputs);
    mover_outputs_init(&mover->outputs, io, log, &mover->options, &mover->stats, &mover->stage,
                       options->memory);
    *ret_mover = mover;
    return 0;
}

/* ---- the manifest ---- */

static void append(struct mover *mover, const struct manifest_edit *edits, uint32_t count,
                   manifest_done *done)
{
    assert(!mover->is_committing); /* invariant 2 */
    mover->is_committing = true;
    mover->manifest_op.done = done;
    manifest_append(mover->options.manifest, &mover->manifest_op, edits, count);
}

static void committed(struct manifest_op *op, int result)
{
    struct mover *mover = container_of(op, struct mover, manifest_op);
    assert(mover->is_committing);             /* invariant 2 */
    assert(mover->phase == MOVER_COMMITTING); /* invariant 1 */
    mover->is_committing = false;
    mover_outputs_committed(&mover->outputs, result);
}

static void start_commit(struct mover *mover)
{
    struct manifest_edit edits[MOVER_PARTITIONS];
    uint32_t count = mover_outputs_new_ends(&mover->outputs, edits);
    assert(mover_outputs_sequence_last(&mover->outputs) >= mover->job_sequence + count);
    if (count > 0)
        append(mover, edits, count, committed); /* invariant 1 */
}

uint32_t mover_add_changed(struct mover *mover, struct manifest_edit *edits, uint32_t count,
                           uint32_t capacity)
{
    struct segment *segment;
    for (uint64_t i = 0;
         count < capacity && (segment = segments_nth(mover->options.segments, i)) != NULL; i++) {
        if (!segment->created_changed || segment->end == 0)
            continue;
        mover_outputs_edit(&mover->outputs, segment, segment->end, MANIFEST_SEGMENT,
                           &edits[count++]);
        segment->created_changed = false;
        segment->created_telling = true;
    }
    return count;
}

void mover_changed_told(struct mover *mover, bool is_durable)
{
    struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(mover->options.segments, i)) != NULL; i++) {
        segment->created_changed |= segment->created_telling && !is_durable;
        segment->created_telling = false;
    }
}

/* ---- segments with nothing alive leave the manifest, then their files go ---- */

static void cleaned(struct manifest_op *op, int result)
{
    struct mover *mover = container_of(op, struct mover, manifest_op);
    assert(mover->phase == MOVER_CLEANING); /* invariant 2 */
    mover->is_committing = false;
    if (result < 0) {
        mover_policy_postpone(&mover->policy);
        if (!refusal_may_pass(result))
            mover->options.failed(mover->options.context, result);
        return;
    }
    for (uint32_t i = 0; i < mover->cleaning_count; i++) {
        struct segment *segment = segments_find_number(mover->options.segments, mover->cleaning[i]);
        assert(segment->live_records == 0); /* invariant 4 */
        segment->state = SEGMENT_LEAVING;
        segments_remove(mover->options.segments, segment, true);
        mover->stats.removed_segments++;
    }
    mover_policy_wake(&mover->policy);
}

/* What killed its records must not be lost, or they would be with it. */
static bool is_empty(const struct mover *mover, const struct segment *segment)
{
    return segment->state != SEGMENT_LEAVING && segment->live_records == 0 && segment->end > 0 &&
           !segment->is_damaged && segment->pins == 0 &&
           segment->killer_last <= wal_durable(mover->options.wal) &&
           !mover_outputs_is_touched(&mover->outputs, segment);
}

/* Collects what has died, up to what one group takes. */
static uint32_t collect_empty(struct mover *mover, struct manifest_edit *edits)
{
    uint32_t count = 0;
    struct segment *segment;
    for (uint64_t i = 0;
         count < MOVER_CLEAN_MAX && (segment = segments_nth(mover->options.segments, i)) != NULL;
         i++) {
        if (!is_empty(mover, segment))
            continue;
        mover_outputs_seal(&mover->outputs, segment);
        mover_outputs_edit(&mover->outputs, segment, segment->end, MANIFEST_REMOVE, &edits[count]);
        mover->cleaning[count++] = segment->number;
    }
    return count;
}

/* Returns whether it has begun. */
static bool begin_cleaning(struct mover *mover)
{
    struct manifest_edit *edits = malloc(MOVER_CLEAN_MAX * sizeof *edits);
    if (edits == NULL)
        return false;
    mover->cleaning_count = collect_empty(mover, edits);
    if (mover->cleaning_count > 0) {
        mover_set_phase(mover, MOVER_CLEANING);
        append(mover, edits, mover->cleaning_count, cleaned);
    }
    free(edits);
    return mover->cleaning_count > 0;
}

static bool step_cleaning(struct mover *mover)
{
    if (mover->is_committing)
        return false;
    mover_set_phase(mover, MOVER_IDLE);
    return true;
}

/* ---- a job's end ---- */

static void end_job(struct mover *mover)
{
    assert(!mover_outputs_is_active(&mover->outputs));
    assert(!mover->is_committing); /* invariant 1 */
    mover_reader_close(&mover->reader);
    bool is_free = mover_reader_settle(&mover->reader);
    assert(is_free); /* no input stays pinned behind its job */
    mover_stage_close(&mover->stage);
    mover->has_next = false;
    mover_set_phase(mover, MOVER_IDLE);
    mover->job_end_ns = io_now_ns(mover->io);
}

/* What was written for nothing goes, once nothing of the job is in flight. */
static bool step_ending(struct mover *mover)
{
    if (!mover_reader_settle(&mover->reader) || mover_outputs_is_active(&mover->outputs))
        return false;
    int error = mover_outputs_error(&mover->outputs);
    bool is_fatal = error != 0 && !refusal_may_pass(error);
    if (mover_is_full(error) && mover_outputs_cut(&mover->outputs))
        return false;
    /* After a failed commit nobody knows what the manifest names: nothing of it is removed. */
    if (!is_fatal)
        mover_outputs_forget(&mover->outputs);
    mover_reader_forget(&mover->reader, mover->source == SEGMENT_FROM_COMPACTION);
    end_job(mover);
    bool is_vain = mover_policy_failed(&mover->policy, mover->source, error);
    if (is_fatal)
        mover->options.failed(mover->options.context, error);
    else if (mover_is_full(error))
        mover->options.full(mover->options.context);
    if (is_vain)
        mover->options.futile(mover->options.context);
    return false;
}

static bool give_up(struct mover *mover)
{
    mover_set_phase(mover, MOVER_ENDING);
    return step_ending(mover);
}

static bool step_applying(struct mover *mover, uint64_t budget)
{
    assert(!mover->is_committing); /* invariant 1 */
    if (!mover_stage_apply(&mover->stage, budget))
        return true;
    /* Where there was nothing to move there will not be soon. */
    if (mover_stage_is_empty(&mover->stage)) {
        mover_policy_rest(&mover->policy, mover->source);
        mover->options.futile(mover->options.context);
    }
    mover_policy_done(&mover->policy);
    end_job(mover);
    return true;
}

/* ---- a job's way ---- */

static bool begin_job(struct mover *mover, enum segment_source source)
{
    uint64_t round;
    assert(!mover->has_next);                    /* invariant 7 */
    assert(mover_stage_is_empty(&mover->stage)); /* invariant 6 */
    mover_policy_sizes(&mover->policy, source, &round, &mover->limit);
    if (mover_stage_open(&mover->stage, round, wal_durable(mover->options.wal)) < 0) {
        log_warn(mover->log, "not enough memory to move the log to its segments: tried again");
        mover_policy_postpone(&mover->policy);
        return false;
    }
    mover->job_sequence = mover_outputs_sequence_last(&mover->outputs); /* invariant 3 */
    mover->stats.jobs++;
    mover_policy_begin_job(&mover->policy, source);
    mover->source = source;
    mover->is_last_round = false;
    mover_set_phase(mover, MOVER_READING);
    return true;
}

/* Looking for work costs a little, so that an idle mover does it once in a while. */
static bool step_idle(struct mover *mover)
{
    enum segment_source source;
    if (mover->is_stopping || manifest_is_busy(mover->options.manifest) ||
        !mover_policy_may_look(&mover->policy))
        return false;
    if (segments_have_empty(mover->options.segments) && begin_cleaning(mover))
        return false;
    if (mover_policy_wants_job(&mover->policy, &source))
        return begin_job(mover, source);
    if (io_now_ns(mover->io) - mover->job_end_ns > MEMORY_NS)
        mover_stage_free(&mover->stage);
    mover_policy_idle(&mover->policy);
    return false;
}

static bool begin_writing(struct mover *mover)
{
    assert(mover->is_last_round != mover->has_next); /* invariant 7 */
    if (mover->is_last_round)
        mover_reader_close(&mover->reader);
    mover_set_phase(mover, MOVER_WRITING);
    mover_outputs_begin_round(&mover->outputs);
    return true;
}

/* The round is full; the job, too, or this record is the next one's first. */
static bool end_round(struct mover *mover, const struct mover_record *record)
{
    mover->is_last_round = mover_stage_is_full(&mover->stage, mover->limit); /* invariant 8 */
    if (mover->is_last_round)
        mover_reader_pause(&mover->reader);
    else
        mover->next = *record;
    mover->has_next = !mover->is_last_round;
    return begin_writing(mover);
}

static bool open_next(struct mover *mover)
{
    /* What the last one read ahead for nothing may be on its way. */
    if (!mover_reader_settle(&mover->reader))
        return false;
    if (mover_policy_open_input(&mover->policy, mover->source, &mover->reader))
        return true;
    mover->is_last_round = true;
    return begin_writing(mover);
}

static bool step_reading(struct mover *mover, uint64_t budget)
{
    assert(!mover->has_next); /* invariant 7 */
    for (uint64_t used = 0, cost = 0; used < budget; used += cost) {
        struct mover_record record;
        switch (mover_reader_next(&mover->reader, &record)) {
        case MOVER_READ_NONE:
            return open_next(mover);
        case MOVER_READ_WAIT:
            return false;
        case MOVER_READ_END:
            mover_reader_close(&mover->reader);
            return true;
        case MOVER_READ_SKIPPED:
            cost = MOVER_LOOK_COST;
            break;
        case MOVER_READ_RECORD:
            cost = mover_stage_add(&mover->stage, &record);
            if (cost == 0)
                return end_round(mover, &record);
            break;
        }
    }
    return true;
}

/* Goes on to the next phase when this one is done, or gives up. */
static bool go_on(struct mover *mover, bool is_done, enum mover_phase next)
{
    if (mover_outputs_error(&mover->outputs) != 0)
        return give_up(mover);
    if (is_done)
        mover_set_phase(mover, next);
    return is_done;
}

/* What the round had is written. */
static void begin_next_round(struct mover *mover)
{
    assert(mover->has_next); /* invariant 7 */
    mover_stage_next_round(&mover->stage);
    mover_policy_next_round(&mover->policy);
    mover_set_phase(mover, MOVER_READING);
    mover->has_next = false;
    uint64_t cost = mover_stage_add(&mover->stage, &mover->next);
    assert(cost > 0); /* the arena has room for any record, and the table was not full */
}

static bool step_writing(struct mover *mover, uint32_t chunks_max)
{
    bool is_done = false;
    bool more = mover_outputs_write(&mover->outputs, chunks_max, &is_done);
    if (is_done && !mover_reader_settle(&mover->reader)) {
        is_done = false; /* what was read ahead for nothing is on its way */
        more = false;
    }
    if (!mover->is_last_round) {
        if (!is_done || mover_outputs_error(&mover->outputs) != 0)
            return go_on(mover, false, MOVER_WRITING) || more;
        begin_next_round(mover);
        return true;
    }
    (void)mover_outputs_sync(&mover->outputs);
    return go_on(mover, is_done, MOVER_SYNCING) || more;
}

static bool step_syncing(struct mover *mover)
{
    /* A checkpoint's commit may be under way. */
    bool is_done =
        mover_outputs_sync(&mover->outputs) && !manifest_is_busy(mover->options.manifest);
    if (go_on(mover, is_done, MOVER_COMMITTING))
        start_commit(mover);
    return false;
}

bool mover_step(struct mover *mover, uint64_t budget)
{
    enum mover_phase phase = mover->phase;
    segments_set_hurry(mover->options.segments, mover_policy_is_short(&mover->policy));
    if (phase == MOVER_IDLE)
        return step_idle(mover);
    if (mover->is_stopping && (phase == MOVER_READING || phase == MOVER_WRITING))
        return give_up(mover);
    uint64_t urgency = mover_policy_urgency(&mover->policy);
    switch (phase) {
    case MOVER_READING:
        return step_reading(mover, budget * urgency);
    case MOVER_WRITING:
        return step_writing(mover, (uint32_t)urgency);
    case MOVER_SYNCING:
        return step_syncing(mover);
    case MOVER_COMMITTING:
        return !mover->is_committing && go_on(mover, true, MOVER_APPLYING);
    case MOVER_APPLYING:
        return step_applying(mover, budget * urgency);
    case MOVER_ENDING:
        return step_ending(mover);
    case MOVER_CLEANING:
        return step_cleaning(mover);
    case MOVER_IDLE:
        break;
    }
    return false;
}

/* ---- asking, telling ---- */

bool mover_is_busy(const struct mover *mover)
{
    return mover->phase != MOVER_IDLE;
}

uint64_t mover_sequence(const struct mover *mover)
{
    uint64_t last = mover_outputs_sequence_last(&mover->outputs);
    assert(mover->job_sequence <= last); /* invariant 3 */
    return (mover_is_busy(mover) ? mover->job_sequence : last) + 1;
}

uint64_t mover_number_last(const struct mover *mover)
{
    return mover_outputs_number_last(&mover->outputs);
}

void mover_tell_log(struct mover *mover, struct pace_log *ret_log)
{
    mover_policy_tell_log(&mover->policy, ret_log);
}

void mover_set_tight(struct mover *mover, bool is_tight)
{
    mover_policy_set_tight(&mover->policy, is_tight);
}

void mover_drain_log(struct mover *mover)
{
    mover_policy_drain_log(&mover->policy);
}

bool mover_is_stuck(const struct mover *mover)
{
    return !mover_is_busy(mover) && mover_policy_is_stuck(&mover->policy);
}

void mover_go_on(struct mover *mover)
{
    mover_policy_go_on(&mover->policy);
}

void mover_wake(struct mover *mover)
{
    mover_policy_wake(&mover->policy);
}

bool mover_may_free(struct mover *mover)
{
    return !mover->is_stopping && mover_policy_may_free(&mover->policy, mover_is_busy(mover));
}

void mover_stop(struct mover *mover)
{
    mover->is_stopping = true;
}

void mover_shut(struct mover *mover)
{
    assert(!mover_is_busy(mover));
    mover_outputs_shut(&mover->outputs);
}

void mover_free(struct mover *mover)
{
    if (mover == NULL)
        return;
    mover_stage_free(&mover->stage);
    free(mover);
}

void mover_stats(const struct mover *mover, struct mover_stats *ret_stats)
{
    uint64_t sealed = wal_sealed_bytes(mover->options.wal);
    bool is_job = mover->phase != MOVER_IDLE && mover->phase != MOVER_CLEANING;
    *ret_stats = mover->stats;
    ret_stats->dead_bytes = mover_policy_dead_bytes(&mover->policy);
    ret_stats->log_sealed_bytes = sealed;
    ret_stats->backlog_bytes = sealed - min_u64(sealed, mover->options.log_keep_bytes);
    ret_stats->phase = phase_names[mover->phase];
    ret_stats->job = "none";
    if (is_job)
        ret_stats->job = mover->source == SEGMENT_FROM_LOG ? "log" : "compaction";
}
