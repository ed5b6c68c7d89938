/* What is worth moving, and when.
 *
 * The log is moved once more than `log_keep_bytes` of it are sealed, oldest first: what is
 * overwritten young dies there and is never copied. Segments are compacted once a seventh of all
 * their bytes is dead, those with the least alive first: that bounds the space at 7/6 of
 * what is alive, and the copying at what the dead share pays for. What a segment needs beside its
 * records is not dead: it would be there again in the next one, and copied for ever.
 *
 * While space is short, three things change. Less than `room_bytes` free: dead bytes are worth a
 * job sooner, so that the disk is full only when it is full of what is alive. No room for another
 * log segment: the log keeps nothing, and the segment that is emptied soonest is moved first, since
 * deletes wait for it. No room for a job (tight): small ones, and whatever frees something. */
#include "store/mover/mover_internal.h"

/* Compaction begins beyond this part of all bytes. */
#define DEAD_SHARE 7u

/* Sizes in the index are rounded up, by a quarter at most: less is dead than this says. */
#define OPTIMISM(bytes) ((bytes) / 5 * 4)

/* A log that is so long, in percent of what it should be, grows no further while it is being moved:
 * writes are as fast as that then. A start reads all of it, and on a small disk it would take the
 * room that what is alive needs. */
#define LOG_LENGTH_MAX_PERCENT 225u

/* At most this part of the disk is kept free for moving. */
#define ROOM_SHARE 16u

/* Jobs of compaction for each round of one of the log, when both are due. */
#define COMPACTION_TURNS 3u

/* Segments of which less than this part is dead are not worth copying: usually, with little free,
 * and on a full disk. */
#define VICTIM_SHARE 8u
#define VICTIM_SHARE_LOW 16u
#define VICTIM_SHARE_TIGHT 64u

/* Fewer dead bytes are not worth a job even on a full disk. */
#define DEAD_BYTES_MIN_TIGHT (256 * KIB)

/* Header and padding of a segment, and the directory's entries. */
static uint64_t dead_of(uint64_t size, uint64_t segments, uint64_t records, uint64_t record_bytes)
{
    uint64_t needed =
        record_bytes + records * SEGMENT_ENTRY_SIZE + segments * (2 * SEGMENT_BLOCK_SIZE);
    return size > needed ? size - needed : 0;
}

/* What is alive is a part of what was put in, in the index's eyes; so of its true bytes, too. */
static uint64_t dead_bytes(const struct segment *segment)
{
    uint64_t live = segment->live_bytes - segment->doomed_bytes;
    if (segment->filled_read_bytes > 0)
        live = (uint64_t)((double)live * (double)segment->filled_bytes /
                          (double)segment->filled_read_bytes);
    return dead_of(segment->end, 1, segment->live_records, live);
}

uint64_t mover_dead_bytes(const struct mover *mover)
{
    struct segments_stats stats;
    segments_stats(mover->options.segments, &stats);
    double share = mover->filled_read_bytes > 0
                       ? (double)mover->filled_bytes / (double)mover->filled_read_bytes
                       : 1;
    return dead_of(stats.size_bytes, stats.segments, stats.live_records,
                   (uint64_t)((double)stats.live_bytes * share));
}

bool mover_is_output(const struct mover *mover, const struct segment *segment)
{
    return mover->outputs[segment->generation - 1][segment->partition].segment == segment;
}

static bool is_log_pressed(const struct mover *mover)
{
    return !wal_has_space(mover->options.wal);
}

bool mover_is_pressed(const struct mover *mover)
{
    return mover->is_tight || is_log_pressed(mover);
}

static bool is_room_low(const struct mover *mover)
{
    uint64_t free_size, total_size;
    if (mover->options.room_bytes == 0 ||
        io_disk_space(mover->io, mover->options.path, &free_size, &total_size) < 0)
        return false;
    /* The next checkpoint needs some, too. */
    uint64_t room =
        mover->options.room_bytes + index_count(mover->options.index) * INDEX_PACKED_SIZE;
    return free_size < min_u64(room * mover->options.shard_count, total_size / ROOM_SHARE);
}

/* Eight times the work when the log is twice as long as it should be: the longer it is, the less
 * room is left for it. */
uint64_t mover_urgency(const struct mover *mover)
{
    uint64_t keep = max_u64(mover->options.log_keep_bytes, 1);
    uint64_t sealed = wal_sealed_bytes(mover->options.wal);
    uint64_t excess = sealed > keep ? 8 * (sealed - keep) / keep : 0;
    bool is_short = is_log_pressed(mover) || mover->is_room_low;
    return is_short ? MOVER_URGENCY_MAX : min_u64(1 + excess, MOVER_URGENCY_MAX);
}

static bool is_resting(const struct mover *mover, uint8_t generation)
{
    const struct mover_rest *rest = &mover->rests[generation - 1];
    bool is_news = mover_is_pressed(mover) && wal_last(mover->options.wal) != rest->last;
    return io_now_ns(mover->io) < rest->until_ns && !is_news;
}

/* Moving reads all of a segment, whatever is alive in it: where the oldest one is all but dead it
 * may stay as long again. A few keys that are overwritten all the time need no moving at all. */
static uint64_t log_keep(const struct mover *mover)
{
    struct wal_sealed oldest;
    if (mover->is_log_emptied)
        return 0;
    bool is_fading = wal_next_sealed(mover->options.wal, 0, &oldest) && oldest.is_fading;
    return is_fading ? 2 * mover->options.log_keep_bytes : mover->options.log_keep_bytes;
}

/* Asked once in a while: it is a system call, and the disk does not change. */
static uint64_t log_max(struct mover *mover)
{
    uint64_t now_ns = io_now_ns(mover->io);
    uint64_t keep = max_u64(mover->options.log_keep_bytes, 1);
    uint64_t free_size, total_size;
    if (mover->log_max != 0 && now_ns - mover->log_max_ns < MOVER_LOOK_NS)
        return mover->log_max;
    mover->log_max_ns = now_ns;
    mover->log_max = keep * LOG_LENGTH_MAX_PERCENT / 100;
    if (io_disk_space(mover->io, mover->options.path, &free_size, &total_size) == 0)
        mover->log_max =
            min_u64(mover->log_max, total_size / ROOM_SHARE / mover->options.shard_count);
    mover->log_max = max_u64(mover->log_max, 2 * keep);
    return mover->log_max;
}

void mover_tell_log(struct mover *mover, struct pace_log *ret_log)
{
    bool is_moved = !mover->is_failing && !is_resting(mover, 1) && mover->retry_ns != UINT64_MAX;
    ret_log->keep = log_keep(mover);
    ret_log->length = wal_sealed_bytes(mover->options.wal);
    bool is_long = ret_log->length > ret_log->keep;
    mover->is_log_growing |= is_long && is_moved;
    ret_log->max = is_long && is_moved ? log_max(mover) : UINT64_MAX;
    bool is_short = mover->is_room_low || mover_is_pressed(mover);
    ret_log->spares_below = mover->is_log_growing && !is_short ? log_max(mover) : 0;
}

static bool is_log_due(struct mover *mover)
{
    struct wal_sealed sealed;
    mover->is_log_emptied = mover_purge_empties_log(mover) || mover->is_draining;
    bool is_long = wal_sealed_bytes(mover->options.wal) > log_keep(mover);
    return (is_long || is_log_pressed(mover)) && !is_resting(mover, 1) &&
           wal_next_sealed(mover->options.wal, 0, &sealed);
}

bool mover_is_usable(const struct mover *mover, const struct segment *segment)
{
    bool is_taken = mover_is_busy(mover) && segment->taken_by_job == mover->stats.jobs;
    return !is_taken && segment->state != SEGMENT_LEAVING && !segment->is_damaged &&
           segment->live_records > 0 && segment->end > SEGMENT_DATA_OFFSET &&
           !mover->outputs[segment->generation - 1][segment->partition].is_touched;
}

static uint32_t victim_share(const struct mover *mover)
{
    if (mover->is_tight)
        return VICTIM_SHARE_TIGHT;
    return mover->is_room_low ? VICTIM_SHARE_LOW : VICTIM_SHARE;
}

static bool is_worth_it(const struct mover *mover, const struct segment *segment)
{
    return dead_bytes(segment) > segment->end / victim_share(mover);
}

static bool is_much(const struct mover *mover, uint64_t dead, uint64_t size)
{
    if (mover->is_tight)
        return dead > DEAD_BYTES_MIN_TIGHT;
    return dead > mover->options.compact_min && (mover->is_room_low || dead > size / DEAD_SHARE);
}

/* What the totals say without those that no job may touch: damaged ones keep their dead bytes, and
 * empty ones are about to go. Looks at every segment. */
static bool is_worth_compacting(const struct mover *mover)
{
    uint64_t size = 0, dead = 0;
    bool has_victim = false;
    const struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(mover->options.segments, i)) != NULL; i++) {
        if (!mover_is_usable(mover, segment))
            continue;
        size += segment->end;
        dead += dead_bytes(segment);
        has_victim |= is_worth_it(mover, segment);
    }
    return has_victim && is_much(mover, dead, size);
}

/* The totals first, which are there at once. When they were too optimistic they stay so for a
 * while. */
static bool is_compaction_due(struct mover *mover)
{
    if (is_resting(mover, 2))
        return false;
    struct segments_stats stats;
    segments_stats(mover->options.segments, &stats);
    mover->is_room_low = is_room_low(mover);
    uint64_t dead = dead_of(stats.size_bytes, stats.segments, stats.live_records,
                            OPTIMISM(stats.live_bytes - stats.doomed_bytes));
    if (!is_much(mover, dead, stats.size_bytes))
        return false;
    if (is_worth_compacting(mover))
        return true;
    mover->rests[1] =
        (struct mover_rest){io_now_ns(mover->io) + MOVER_LOOK_NS, wal_last(mover->options.wal)};
    return false;
}

static bool is_purge_due(struct mover *mover)
{
    return !mover_is_busy(mover) && !is_resting(mover, 2) && mover_purge_is_due(mover);
}

bool mover_wants_job(struct mover *mover, uint8_t *ret_generation)
{
    bool log_due = is_log_due(mover);
    bool compaction_due = is_compaction_due(mover) || is_purge_due(mover);
    if (!log_due && !compaction_due)
        return false;
    /* Compaction goes first: moving the log takes room, and lets more die than one job frees; but
     * where there is room, the log has its turn soon enough. On a full disk either may be the one
     * that goes. */
    uint32_t turns = mover->is_tight ? 1 : COMPACTION_TURNS * (mover->log_rounds + 1);
    if (mover->is_draining && !mover->is_tight)
        turns = 0;
    bool is_turn = mover->compactions >= turns && (mover->is_tight || !mover->is_room_low);
    bool is_log = log_due && (!compaction_due || is_turn);
    *ret_generation = is_log ? 1 : 2;
    return true;
}

void mover_drain_log(struct mover *mover)
{
    mover->is_draining = true;
    wal_move_damaged(mover->options.wal);
    mover_wake(mover);
}

bool mover_is_stuck(const struct mover *mover)
{
    struct wal_sealed sealed;
    assert(mover->is_draining);
    return !mover_is_busy(mover) &&
           (is_resting(mover, 1) || !wal_next_sealed(mover->options.wal, 0, &sealed));
}

void mover_go_on(struct mover *mover)
{
    assert(mover->is_draining);
    mover->rests[0] = (struct mover_rest){0};
}

/* One segment a job: what matters is that it is emptied. */
static bool next_pressed(const struct mover *mover, struct wal_sealed *ret_sealed)
{
    return mover->log_taken == 0 && wal_emptiest_sealed(mover->options.wal, ret_sealed);
}

static bool next_oldest(const struct mover *mover, struct wal_sealed *ret_sealed)
{
    uint64_t sealed_bytes = wal_sealed_bytes(mover->options.wal);
    return sealed_bytes > log_keep(mover) + mover->log_taken_bytes &&
           wal_next_sealed(mover->options.wal, mover->log_taken, ret_sealed);
}

static bool open_log(struct mover *mover)
{
    struct wal_sealed sealed;
    if (is_log_pressed(mover) ? !next_pressed(mover, &sealed) : !next_oldest(mover, &sealed))
        return false;
    mover->log_taken = sealed.number;
    mover->log_taken_bytes += sealed.end;
    mover_reader_open_log(&mover->reader, &sealed);
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
            if (mover_is_usable(mover, segment) && is_worth_it(mover, segment) &&
                (best == NULL || dead_bytes(segment) * best->end > dead_bytes(best) * segment->end))
                best = segment;
        }
    }
    return best;
}

static bool open_segment(struct mover *mover)
{
    struct segment *segment = mover_purge_victim(mover);
    if (segment == NULL)
        segment = choose_victim(mover);
    if (segment == NULL)
        return false;
    segment->taken_by_job = mover->stats.jobs;
    if (mover_is_output(mover, segment))
        mover_seal(mover, segment);
    mover_reader_open_segment(&mover->reader, segment);
    return true;
}

bool mover_open_input(struct mover *mover)
{
    return mover->generation == 1 ? open_log(mover) : open_segment(mover);
}
