/* Segments with nothing alive leave the manifest, then their files go. */
#include "store/mover/mover_internal.h"

#include <stdlib.h>

static void cleaned(struct manifest_op *op, int result)
{
    struct mover *mover = container_of(op, struct mover, manifest_op);
    mover->is_committing = false;
    if (result < 0) {
        mover->retry_ns = io_now_ns(mover->io) + MOVER_RETRY_NS;
        if (!mover_may_retry(result))
            mover->options.failed(mover->options.context, result);
        return;
    }
    for (uint32_t i = 0; i < mover->cleaning_count; i++) {
        struct segment *segment = segments_find_number(mover->options.segments, mover->cleaning[i]);
        segment->state = SEGMENT_LEAVING;
        segments_remove(mover->options.segments, segment, true);
        mover->stats.removed_segments++;
    }
}

/* What killed its records must not be lost, or they would be with it. */
static bool is_empty(const struct mover *mover, const struct segment *segment)
{
    return segment->state != SEGMENT_LEAVING && segment->live_records == 0 && segment->end > 0 &&
           !segment->is_damaged && segment->pins == 0 &&
           segment->killer_last <= wal_durable(mover->options.wal) &&
           !mover->outputs[segment->generation - 1][segment->partition].is_touched;
}

/* Collects what has died, up to what one group takes. */
static uint32_t collect_empty(struct mover *mover, struct manifest_edit *edits)
{
    uint32_t count = 0;
    for (uint32_t partition = 0; partition < MOVER_PARTITIONS; partition++) {
        const struct list *list = segments_of(mover->options.segments, (uint8_t)partition);
        for (struct list_node *node = list_first(list); node != NULL && count < MOVER_CLEAN_MAX;
             node = list_next(list, node)) {
            struct segment *segment = container_of(node, struct segment, partition_node);
            if (!is_empty(mover, segment))
                continue;
            if (mover_is_output(mover, segment))
                mover_seal(mover, segment);
            mover_fill_edit(mover, segment, segment->end, MANIFEST_REMOVE, &edits[count]);
            mover->cleaning[count++] = segment->number;
        }
    }
    return count;
}

bool mover_clean_begin(struct mover *mover)
{
    struct manifest_edit *edits = malloc(MOVER_CLEAN_MAX * sizeof *edits);
    if (edits == NULL)
        return false;
    mover->cleaning_count = collect_empty(mover, edits);
    if (mover->cleaning_count > 0) {
        mover_set_phase(mover, MOVER_CLEANING);
        mover->is_committing = true;
        mover->manifest_op.done = cleaned;
        manifest_append(mover->options.manifest, &mover->manifest_op, edits, mover->cleaning_count);
    }
    free(edits);
    return mover->cleaning_count > 0;
}
