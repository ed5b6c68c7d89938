/* Tombstones that outnumber what is alive.
 *
 * A tombstone is alive, so dead bytes alone would never make its segment a victim: after everything
 * was deleted, tombstones would keep their space and their slots in the index for ever, and a
 * single old segment without anything dead in it would keep all the tombstones of its partition. So
 * there are rounds. A round takes the partitions in whose segments lie as many tombstones as other
 * slots exist (each tombstone pays for two records that are copied at most), and goes through two
 * stages:
 *
 *   NONE -> OLD -> YOUNG -> NONE
 *
 * OLD: every segment that was there when the round began is compacted. What is alive is in
 * segments then that were created after every tombstone of the round; many tombstones went on the
 * way. YOUNG: the segments that hold the rest are compacted again, and now nothing is older
 * (mover_stage_may_purge, which alone decides, at both stages).
 *
 * What cannot be purged is carried along, and the next round has to wait until the log has lost a
 * file: before that, nothing can be purged that could not be purged now. Where a segment is
 * damaged, its partition is left alone: it stays, with all that could be in it. In an index that is
 * full (-memory) a 16th is enough, since new keys wait for the slots.
 *
 * The log itself keeps its last files for a long time when nobody writes. When it has been quiet
 * for a while, and tombstones outnumber everything else, it is emptied, the open file, too.
 *
 * Invariants:
 * 1. Stages follow each other as above, and each begins without a job under way.
 * 2. A stage's segments are those that were there when it began: number <= number_last.
 * 3. A partition with damage is in no round. */
#include "store/mover/mover_purge.h"

#include "base/assert.h"

#define QUIET_NS NS_PER_S

/* Fewer tombstones of all shards may stay in a log that has nothing else. */
#define TOMBSTONES_MIN 256u

/* Of all slots, the part that tombstones must be. */
#define SHARE 2u
#define SHARE_FULL 16u

void mover_purge_init(struct mover_purge *purge, struct io *io, const struct mover_options *options,
                      struct mover_outputs *outputs)
{
    *purge = (struct mover_purge){.io = io, .options = options, .outputs = outputs};
}

bool mover_is_usable(const struct mover_outputs *outputs, const struct segment *segment,
                     uint64_t job)
{
    return segment->taken_by_job != job && segment->state != SEGMENT_LEAVING &&
           !segment->is_damaged && segment->live_records > 0 &&
           segment->end > SEGMENT_DATA_OFFSET && !mover_outputs_is_touched(outputs, segment);
}

/* Whether so many of the slots are tombstones that it pays to copy the others. In a full index, sooner:
 * new keys wait for their slots. */
static bool is_worth_purging(const struct index *index, uint64_t tombstones, uint64_t slots)
{
    return (index_is_full(index) ? SHARE_FULL : SHARE) * tombstones >= slots;
}

/* ---- rounds ---- */

static bool is_there_damage(const struct mover_purge *purge, uint32_t partition)
{
    const struct segment *segment = segments_first(purge->options->segments, partition);
    while (segment != NULL && !segment->is_damaged)
        segment = segment_next(segment);
    return segment != NULL;
}

static bool is_partition_due(const struct mover_purge *purge, uint32_t partition)
{
    const struct index *index = purge->options->index;
    uint64_t tombstones = index_settled_tombstones(index, partition);
    return tombstones > 0 &&
           is_worth_purging(index, tombstones, index_partition_count(index, partition)) &&
           !is_there_damage(purge, partition);
}

static void begin_stage(struct mover_purge *purge, enum mover_purge_stage stage)
{
    assert(stage == (purge->stage + 1) % (MOVER_PURGE_YOUNG + 1));           /* invariant 1 */
    assert(!mover_outputs_is_active(purge->outputs));                        /* invariant 1 */
    assert(mover_outputs_number_last(purge->outputs) >= purge->number_last); /* invariant 2 */
    purge->stage = stage;
    purge->number_last = mover_outputs_number_last(purge->outputs);
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++)
        if (purge->is_in[i] && stage != MOVER_PURGE_NONE)
            mover_outputs_seal_partition(purge->outputs, i);
}

static void begin_round(struct mover_purge *purge)
{
    uint64_t first = wal_first_position(purge->options->wal);
    if (index_tombstones(purge->options->index) == 0 || first <= purge->log_first)
        return;
    purge->log_first = first;
    bool is_due = false;
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        purge->is_in[i] = is_partition_due(purge, i);
        is_due |= purge->is_in[i];
    }
    if (is_due)
        begin_stage(purge, MOVER_PURGE_OLD);
}

/* Whether the stage has to do with the partition still. */
static bool is_partition_left(const struct mover_purge *purge, uint32_t partition)
{
    const struct segment *first = segments_first(purge->options->segments, partition);
    return first != NULL && first->number <= purge->number_last; /* invariant 2 */
}

/* No job is under way. */
static void go_on(struct mover_purge *purge)
{
    if (purge->stage == MOVER_PURGE_NONE) {
        begin_round(purge);
        return;
    }
    bool is_left = false;
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        purge->is_in[i] = purge->is_in[i] && !is_there_damage(purge, i);
        is_left |= purge->is_in[i] && is_partition_left(purge, i);
    }
    if (is_left)
        return;
    /* For many the first stage was enough. */
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++)
        purge->is_in[i] = purge->is_in[i] && is_partition_due(purge, i);
    begin_stage(purge, purge->stage == MOVER_PURGE_OLD ? MOVER_PURGE_YOUNG : MOVER_PURGE_NONE);
}

bool mover_purge_is_due(struct mover_purge *purge, uint64_t job)
{
    go_on(purge);
    return mover_purge_victim(purge, job) != NULL;
}

struct segment *mover_purge_victim(const struct mover_purge *purge, uint64_t job)
{
    for (uint32_t i = 0; purge->stage != MOVER_PURGE_NONE && i < MOVER_PARTITIONS; i++) {
        struct segment *segment = segments_first(purge->options->segments, i);
        if (!purge->is_in[i])
            continue;
        for (; segment != NULL && segment->number <= purge->number_last;
             segment = segment_next(segment))
            if (mover_is_usable(purge->outputs, segment, job))
                return segment;
    }
    return NULL;
}

/* ---- the log ---- */

bool mover_purge_log_is_quiet(struct mover_purge *purge)
{
    uint64_t now_ns = io_now_ns(purge->io);
    uint64_t last = wal_last(purge->options->wal);
    if (last != purge->quiet_last) {
        purge->quiet_last = last;
        purge->quiet_ns = now_ns + QUIET_NS;
        purge->is_emptying = false;
    }
    return now_ns >= purge->quiet_ns;
}

bool mover_purge_is_hollow(struct mover_purge *purge)
{
    const struct index *index = purge->options->index;
    return mover_purge_log_is_quiet(purge) && SHARE * index_tombstones(index) >= index_count(index);
}

/* A few tombstones would keep as many files of the log as may stay in it. */
static bool is_worth_emptying(const struct mover_purge *purge)
{
    uint64_t tombstones = index_tombstones(purge->options->index);
    return tombstones >= share_u64(TOMBSTONES_MIN, purge->options->shard_count, 1) ||
           (tombstones > 0 && wal_sealed_bytes(purge->options->wal) > 0);
}

bool mover_purge_empties_log(struct mover_purge *purge)
{
    if (!mover_purge_log_is_quiet(purge))
        return false;
    /* Until the next write: when the tombstones have gone, files of the log still have to. */
    const struct index *index = purge->options->index;
    purge->is_emptying |= is_worth_purging(index, index_tombstones(index), index_count(index)) &&
                          is_worth_emptying(purge);
    if (!purge->is_emptying)
        return false;
    (void)wal_roll(purge->options->wal);
    return true;
}
