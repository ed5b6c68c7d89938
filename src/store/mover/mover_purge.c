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
 * (mover_may_purge, which alone decides, at both stages).
 *
 * What cannot be purged is carried along, and the next round has to wait until the log has lost a
 * segment: before that, nothing can be purged that could not be purged now. Where a segment is
 * damaged, its partition is left alone: it stays, with all that could be in it.
 *
 * The log itself keeps its last segments for a long time when nobody writes. When it has been quiet
 * for a while, and tombstones outnumber everything else, it is emptied, the open segment, too. */
#include "store/mover/mover_internal.h"

#define QUIET_NS NS_PER_S

/* Fewer tombstones in all may stay in the log. */
#define TOMBSTONES_MIN 256u

/* ---- rounds ---- */

static bool is_there_damage(const struct mover *mover, uint32_t partition)
{
    const struct list *list = segments_of(mover->options.segments, (uint8_t)partition);
    for (struct list_node *node = list_first(list); node != NULL; node = list_next(list, node))
        if (container_of(node, struct segment, partition_node)->is_damaged)
            return true;
    return false;
}

static bool is_partition_due(const struct mover *mover, uint32_t partition)
{
    const struct index *index = mover->options.index;
    uint64_t tombstones = index_settled_tombstones(index, partition);
    return tombstones > 0 && 2 * tombstones >= index_partition_count(index, partition) &&
           !is_there_damage(mover, partition);
}

/* What is written from now on goes to new segments. No job is under way. */
static void seal_outputs(struct mover *mover, uint32_t partition)
{
    for (uint32_t g = 0; g < MOVER_GENERATIONS; g++) {
        struct segment *segment = mover->outputs[g][partition].segment;
        if (segment != NULL)
            mover_seal(mover, segment);
    }
}

static void begin_stage(struct mover *mover, enum mover_purge_stage stage)
{
    struct mover_purge *purge = &mover->purge;
    assert(stage == (purge->stage + 1) % (MOVER_PURGE_YOUNG + 1));
    purge->stage = stage;
    purge->number_last = mover->number_last;
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++)
        if (purge->is_in[i] && stage != MOVER_PURGE_NONE)
            seal_outputs(mover, i);
}

static void begin_round(struct mover *mover)
{
    struct mover_purge *purge = &mover->purge;
    uint64_t first = wal_first_position(mover->options.wal);
    if (index_tombstones(mover->options.index) == 0 || first <= purge->log_first)
        return;
    purge->log_first = first;
    bool is_due = false;
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        purge->is_in[i] = is_partition_due(mover, i);
        is_due |= purge->is_in[i];
    }
    if (is_due)
        begin_stage(mover, MOVER_PURGE_OLD);
}

/* Whether the stage has to do with the partition still. */
static bool is_partition_left(const struct mover *mover, uint32_t partition)
{
    const struct list *list = segments_of(mover->options.segments, (uint8_t)partition);
    /* Ascending in number. */
    const struct list_node *first = list_first(list);
    return first != NULL &&
           container_of(first, struct segment, partition_node)->number <= mover->purge.number_last;
}

/* No job is under way. */
static void go_on(struct mover *mover)
{
    struct mover_purge *purge = &mover->purge;
    if (purge->stage == MOVER_PURGE_NONE) {
        begin_round(mover);
        return;
    }
    bool is_left = false;
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        purge->is_in[i] = purge->is_in[i] && !is_there_damage(mover, i);
        is_left |= purge->is_in[i] && is_partition_left(mover, i);
    }
    if (is_left)
        return;
    /* For many the first stage was enough. */
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++)
        purge->is_in[i] = purge->is_in[i] && is_partition_due(mover, i);
    begin_stage(mover, purge->stage == MOVER_PURGE_OLD ? MOVER_PURGE_YOUNG : MOVER_PURGE_NONE);
}

bool mover_purge_is_due(struct mover *mover)
{
    assert(!mover_is_busy(mover));
    go_on(mover);
    return mover_purge_victim(mover) != NULL;
}

struct segment *mover_purge_victim(const struct mover *mover)
{
    const struct mover_purge *purge = &mover->purge;
    for (uint32_t i = 0; purge->stage != MOVER_PURGE_NONE && i < MOVER_PARTITIONS; i++) {
        const struct list *list = segments_of(mover->options.segments, (uint8_t)i);
        for (struct list_node *node = purge->is_in[i] ? list_first(list) : NULL; node != NULL;
             node = list_next(list, node)) {
            struct segment *segment = container_of(node, struct segment, partition_node);
            if (segment->number > purge->number_last)
                break;
            if (mover_is_usable(mover, segment))
                return segment;
        }
    }
    return NULL;
}

/* ---- the log ---- */

bool mover_log_is_quiet(struct mover *mover)
{
    struct mover_purge *purge = &mover->purge;
    uint64_t now_ns = io_now_ns(mover->io);
    uint64_t last = wal_last(mover->options.wal);
    if (last != purge->quiet_last) {
        purge->quiet_last = last;
        purge->quiet_ns = now_ns + QUIET_NS;
        purge->is_emptying = false;
    }
    return now_ns >= purge->quiet_ns;
}

bool mover_purge_empties_log(struct mover *mover)
{
    struct mover_purge *purge = &mover->purge;
    const struct index *index = mover->options.index;
    uint64_t tombstones = index_tombstones(index);
    if (!mover_log_is_quiet(mover))
        return false;
    /* Until the next write: when the tombstones have gone, files of the log still have to. */
    purge->is_emptying |= tombstones >= TOMBSTONES_MIN && 2 * tombstones >= index_count(index);
    if (!purge->is_emptying)
        return false;
    (void)wal_roll(mover->options.wal);
    return true;
}
