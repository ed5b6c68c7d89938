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

static bool is_compaction_due(const struct mover *mover)
{
    struct segments_stats stats;
    segments_stats(mover->options.segments, &stats);
    uint64_t dead = dead_of(stats.size_bytes, stats.segments, stats.live_records,
                            stats.live_bytes - stats.doomed_bytes);
    if (mover->is_tight)
        return dead > DEAD_BYTES_MIN_TIGHT;
    return dead > stats.size_bytes / DEAD_SHARE && dead > mover->options.compact_min;
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
            bool is_fit = segment->state != SEGMENT_LEAVING && !segment->is_damaged &&
                          segment->live_records > 0 && segment->taken_by_job != mover->stats.jobs &&
                          segment->end > SEGMENT_DATA_OFFSET &&
                          !mover->outputs[segment->generation - 1][partition].is_touched;
            if (is_fit && dead_bytes(segment) > segment->end / (mover->is_tight ? 64 : 8) &&
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
