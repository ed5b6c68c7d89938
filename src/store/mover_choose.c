/* What is worth moving, and when.
 *
 * The log is moved once more than `log_keep_bytes` of it are sealed, oldest first: what is
 * overwritten young dies there and is never copied. Segments are compacted once about a quarter
 * of all their bytes is dead, those with the least alive first: that bounds the space at 4/3 of
 * what is alive, and the copying at what the dead share pays for. What a segment needs beside its
 * records is not dead: it would be there again in the next one, and copied for ever. */
#include "store/mover_internal.h"
#include "store/wal_format.h"

/* Compaction begins beyond this part of all bytes. Sizes in the index are rounded up by 11 % on the
 * average, so a sixth in its eyes is about a quarter. */
#define DEAD_SHARE 6u

/* Fewer dead bytes are not worth a job even on a full disk. */
#define DEAD_BYTES_MIN_TIGHT (256 * KIB)

/* Header and padding of a segment, and the directory's entries. */
static uint64_t dead_of(uint64_t size, uint64_t segments, uint64_t records, uint64_t record_bytes)
{
    uint64_t needed =
        record_bytes + records * SEGMENT_ENTRY_SIZE + segments * (2 * SEGMENT_BLOCK_SIZE);
    return size > needed ? size - needed : 0;
}

static uint64_t dead_bytes(const struct segment *segment)
{
    return dead_of(segment->end, 1, segment->live_records,
                   segment->live_bytes - segment->doomed_bytes);
}

bool mover_is_output(const struct mover *mover, const struct segment *segment)
{
    return mover->outputs[segment->generation - 1][segment->partition].segment == segment;
}

uint64_t mover_urgency(const struct mover *mover)
{
    uint64_t keep = max_u64(mover->options.log_keep_bytes, 1);
    return max_u64(1, min_u64(wal_sealed_bytes(mover->options.wal) / keep, MOVER_URGENCY_MAX));
}

static bool is_log_due(const struct mover *mover)
{
    struct wal_sealed sealed;
    return wal_sealed_bytes(mover->options.wal) > mover->options.log_keep_bytes &&
           wal_next_sealed(mover->options.wal, 0, &sealed);
}

/* Whether the segment may be a job's input at all. */
static bool is_usable(const struct mover *mover, const struct segment *segment)
{
    return segment->state != SEGMENT_LEAVING && !segment->is_damaged && segment->live_records > 0 &&
           segment->end > SEGMENT_DATA_OFFSET &&
           !mover->outputs[segment->generation - 1][segment->partition].is_touched;
}

static bool is_worth_it(const struct mover *mover, const struct segment *segment)
{
    return dead_bytes(segment) > segment->end / (mover->is_tight ? 64 : 8);
}

/* What the totals say without those that no job may touch: damaged ones keep their dead bytes, and
 * empty ones are about to go. Looks at every segment. */
static bool is_worth_compacting(const struct mover *mover)
{
    uint64_t size = 0, dead = 0;
    bool has_victim = false;
    const struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(mover->options.segments, i)) != NULL; i++) {
        if (!is_usable(mover, segment))
            continue;
        size += segment->end;
        dead += dead_bytes(segment);
        has_victim |= is_worth_it(mover, segment);
    }
    bool is_much = mover->is_tight ? dead > DEAD_BYTES_MIN_TIGHT
                                   : dead > size / DEAD_SHARE && dead > mover->options.compact_min;
    return is_much && has_victim;
}

/* The totals first, which are there at once. When they were too optimistic they stay so for a
 * while. */
static bool is_compaction_due(struct mover *mover)
{
    struct segments_stats stats;
    segments_stats(mover->options.segments, &stats);
    uint64_t dead = dead_of(stats.size_bytes, stats.segments, stats.live_records,
                            stats.live_bytes - stats.doomed_bytes);
    bool may_be = mover->is_tight
                      ? dead > DEAD_BYTES_MIN_TIGHT
                      : dead > stats.size_bytes / DEAD_SHARE && dead > mover->options.compact_min;
    uint64_t now_ns = io_now_ns(mover->io);
    if (!may_be || now_ns < mover->compact_look_ns)
        return false;
    if (is_worth_compacting(mover))
        return true;
    mover->compact_look_ns = now_ns + MOVER_RETRY_NS;
    return false;
}

bool mover_wants_job(struct mover *mover, uint8_t *ret_generation)
{
    bool log_due = is_log_due(mover);
    bool compaction_due = is_compaction_due(mover);
    if (!log_due && !compaction_due)
        return false;
    /* By turns, so that neither starves. */
    bool is_log = log_due && (!compaction_due || mover->generation != 1);
    *ret_generation = is_log ? 1 : 2;
    return true;
}

static bool choose_log(struct mover *mover, struct mover_input *ret_input)
{
    struct wal_sealed sealed;
    uint64_t sealed_bytes = wal_sealed_bytes(mover->options.wal);
    if (sealed_bytes <= mover->options.log_keep_bytes + mover->log_taken_bytes ||
        !wal_next_sealed(mover->options.wal, mover->log_taken, &sealed))
        return false;
    mover->log_taken = sealed.number;
    mover->log_taken_bytes += sealed.end;
    *ret_input = (struct mover_input){
        .file = sealed.file,
        .handle = -1,
        .number = sealed.number,
        .salt = sealed.salt,
        .at = WAL_DATA_OFFSET,
        .end = sealed.end,
    };
    return true;
}

/* The segment with the smallest live share that is not an output with bytes of this job. */
static struct segment *choose_victim(struct mover *mover)
{
    struct segment *best = NULL;
    for (uint32_t partition = 0; partition < MOVER_PARTITIONS; partition++) {
        const struct list *list = segments_of(mover->options.segments, (uint8_t)partition);
        for (struct list_node *node = list_first(list); node != NULL;
             node = list_next(list, node)) {
            struct segment *segment = container_of(node, struct segment, partition_node);
            if (is_usable(mover, segment) && segment->taken_by_job != mover->stats.jobs &&
                is_worth_it(mover, segment) &&
                (best == NULL || dead_bytes(segment) * best->end > dead_bytes(best) * segment->end))
                best = segment;
        }
    }
    return best;
}

static bool choose_segment(struct mover *mover, struct mover_input *ret_input)
{
    struct segment *segment = choose_victim(mover);
    if (segment == NULL)
        return false;
    segment->taken_by_job = mover->stats.jobs;
    if (mover_is_output(mover, segment))
        mover_seal(mover, segment);
    *ret_input = (struct mover_input){
        .is_segment = true,
        .file = segment->file,
        .handle = -1,
        .partition = segment->partition,
        .number = segment->number,
        .salt = segment->salt,
        .at = SEGMENT_DATA_OFFSET,
        .end = segment->end,
    };
    return true;
}

bool mover_choose_input(struct mover *mover, struct mover_input *ret_input)
{
    return mover->generation == 1 ? choose_log(mover, ret_input) : choose_segment(mover, ret_input);
}

bool mover_may_purge(const struct mover *mover, const struct mover_record *record)
{
    const struct mover_input *input = &mover->reader.input;
    uint64_t position = record->record.position;
    struct index_entry entries[2];
    if (!input->is_segment || wal_first_position(mover->options.wal) <= position ||
        index_find(mover->options.index, record->partition, record->hash, entries, 2) != 1)
        return false;
#ifdef PLANT_DROP_TOMBSTONE
    return true;
#endif
    const struct list *list = segments_of(mover->options.segments, input->partition);
    for (struct list_node *node = list_first(list); node != NULL; node = list_next(list, node)) {
        const struct segment *segment = container_of(node, struct segment, partition_node);
        if (segment->file != input->file && segment->created < position)
            return false;
    }
    return true;
}
