/* A job's end, good or bad: what was written for nothing goes, and how soon the next one begins. */
#include "store/mover/mover_internal.h"

#include <errno.h>

void mover_end_job(struct mover *mover)
{
    mover_reader_close(&mover->reader);
    mover->has_next = false;
    mover_stage_close(&mover->stage);
    mover->error = 0;
    mover->job_end_ns = io_now_ns(mover->io);
    mover_set_phase(mover, MOVER_IDLE);
}

/* The job was in vain, and others of its kind will be for a while. */
void mover_rest(struct mover *mover)
{
    mover->rests[mover->generation - 1] =
        (struct mover_rest){io_now_ns(mover->io) + MOVER_RETRY_NS, mover->job_last};
    if (mover->options.futile != NULL)
        mover->options.futile(mover->options.context);
}

static void cut(struct io_op *op, int32_t result)
{
    (void)op;
    (void)result; /* best effort: what stays is overwritten */
}

/* What a failed job wrote behind an end counts for nothing, but would take space until it is
 * overwritten: on a full disk that could be all that there is. Returns whether one is being cut. */
static bool cut_output(struct mover *mover)
{
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        struct mover_output *output = mover_output_of(mover, i);
        if (!output->is_touched || output->segment->end == 0)
            continue;
        output->is_touched = false;
        output->end = output->segment->end;
        segment_path(mover->options.segments, output->segment, mover->open_path);
        mover->open_op.done = cut;
        io_truncate(mover->io, &mover->open_op, mover->open_path, output->end);
        return true;
    }
    return false;
}

/* What was written counts for nothing. A new segment that the manifest does not know goes. */
static void forget_outputs(struct mover *mover)
{
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        struct mover_output *output = mover_output_of(mover, i);
        struct segment *segment = output->segment;
        if (segment == NULL)
            continue;
        output->is_touched = false;
        output->end = segment->end;
        output->job_bytes = output->job_read_bytes = 0;
        if (segment->end > 0)
            continue;
        mover_close_output(mover, output);
        *output = (struct mover_output){.handle = -1};
        segment->state = SEGMENT_LEAVING;
        segments_remove(mover->options.segments, segment, true);
    }
}

bool mover_end_step(struct mover *mover)
{
    if (mover_reader_is_active(&mover->reader) || mover_write_is_active(mover))
        return false;
    int error = mover->error;
    bool is_fatal = error != 0 && !mover_may_retry(error);
    bool is_full = error == -ENOSPC || error == -EDQUOT;
    if (is_full && cut_output(mover))
        return false;
    /* After a failed commit nobody knows what the manifest names: nothing of it is removed. */
    if (!is_fatal)
        forget_outputs(mover);
    mover_reader_forget(&mover->reader, mover->generation == 2);
    mover_end_job(mover);
    bool was_tight = mover->is_tight;
    mover->is_failing = error != 0;
    mover->retry_ns = is_fatal ? UINT64_MAX : io_now_ns(mover->io) + MOVER_RETRY_NS;
    if (is_fatal)
        mover->options.failed(mover->options.context, error);
    else if (is_full)
        mover->options.full(mover->options.context);
    /* A smaller job may find room, or one of the other kind. */
    if (is_full && was_tight) {
        mover->retry_ns = 0;
        if (mover->halvings < MOVER_HALVINGS_MAX)
            mover->halvings++;
        else
            mover_rest(mover);
    }
    return false;
}

bool mover_give_up(struct mover *mover)
{
    mover_set_phase(mover, MOVER_ENDING);
    return mover_end_step(mover);
}
