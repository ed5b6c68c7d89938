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
 * log file: the log keeps nothing, and the file that is emptied soonest is moved first, since
 * deletes wait for it. No room for a job (tight): small ones, and whatever frees something.
 *
 * Invariants:
 * 1. A job takes each log file and each segment once, log files in ascending order unless the log is
 *    pressed.
 * 2. A compaction is begun between two jobs only, and what it takes is no longer written to.
 * 3. Jobs have ascending numbers; the number is that of the job under way, or of the next one.
 * 4. A round's size is between the largest record and the memory there is; a job is whole rounds.
 * 5. Between two looks for work, and after a failure, there is a while; UINT64_MAX is for ever. */
#include "store/mover/mover_choose.h"

#include "base/assert.h"
#include "store/disk/refusal.h"

#define HALVINGS_MAX 4u
#define TIGHT_BYTES_MIN (512 * KIB) /* the largest record fits */
#define ROUNDS_MAX 2u               /* of a job: the stage is filled and written so often */
#define ROUNDS_ROOM 16u             /* a job of several takes this part of what is free */
#define RETRY_NS NS_PER_S           /* after a failure, or for nothing */
#define LOOK_NS (100 * NS_PER_MS)   /* between looks at all segments, which are many */
#define CHECK_NS (2 * NS_PER_MS)    /* between looks for work */

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
#define COMPACTIONS_FIRST 3u

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

uint64_t mover_policy_dead_bytes(const struct mover_policy *policy)
{
    struct segments_stats stats;
    segments_stats(policy->options->segments, &stats);
    double live = (double)stats.live_bytes * mover_outputs_true_share(policy->outputs);
    return dead_of(stats.size_bytes, stats.segments, stats.live_records, (uint64_t)live);
}

static bool is_log_pressed(const struct mover_policy *policy)
{
    return !wal_has_space(policy->options->wal);
}

static bool is_pressed(const struct mover_policy *policy)
{
    return policy->is_tight || is_log_pressed(policy);
}

static bool is_room_low(const struct mover_policy *policy)
{
    uint64_t free_size, total_size;
    if (policy->options->room_bytes == 0 ||
        io_disk_space(policy->io, policy->options->path, &free_size, &total_size) < 0)
        return false;
    /* The next checkpoint needs some, too. */
    uint64_t room =
        policy->options->room_bytes + index_count(policy->options->index) * INDEX_PACKED_SIZE;
    return free_size < min_u64(room * policy->options->shard_count, total_size / ROOM_SHARE);
}

/* Eight times the work when the log is twice as long as it should be: the longer it is, the less
 * room is left for it. */
uint64_t mover_policy_urgency(const struct mover_policy *policy)
{
    uint64_t keep = max_u64(policy->options->log_keep_bytes, 1);
    uint64_t sealed = wal_sealed_bytes(policy->options->wal);
    uint64_t excess = sealed > keep ? 8 * (sealed - keep) / keep : 0;
    bool is_short = is_log_pressed(policy) || policy->is_room_low;
    return is_short ? MOVER_URGENCY_MAX : min_u64(1 + excess, MOVER_URGENCY_MAX);
}

bool mover_policy_is_short(const struct mover_policy *policy)
{
    return policy->is_room_low || is_pressed(policy);
}

static bool is_resting(const struct mover_policy *policy, enum segment_source source)
{
    const struct mover_rest *rest = &policy->rests[source - 1];
    bool is_news = is_pressed(policy) && wal_last(policy->options->wal) != rest->last;
    return io_now_ns(policy->io) < rest->until_ns && !is_news;
}

/* Moving reads all of a log file, whatever is alive in it: where the oldest is all but dead it
 * may stay as long again. A few keys that are overwritten all the time need no moving at all. */
static uint64_t log_keep(const struct mover_policy *policy)
{
    struct wal_sealed oldest;
    if (policy->is_log_emptied)
        return 0;
    bool is_fading = wal_next_sealed(policy->options->wal, 0, &oldest) && oldest.is_fading;
    return is_fading ? 2 * policy->options->log_keep_bytes : policy->options->log_keep_bytes;
}

/* Asked once in a while: it is a system call, and the disk does not change. */
static uint64_t log_max(struct mover_policy *policy)
{
    uint64_t now_ns = io_now_ns(policy->io);
    uint64_t keep = max_u64(policy->options->log_keep_bytes, 1);
    uint64_t free_size, total_size;
    if (policy->log_max != 0 && now_ns - policy->log_max_ns < LOOK_NS)
        return policy->log_max;
    policy->log_max_ns = now_ns;
    policy->log_max = keep * LOG_LENGTH_MAX_PERCENT / 100;
    if (io_disk_space(policy->io, policy->options->path, &free_size, &total_size) == 0)
        policy->log_max =
            min_u64(policy->log_max, total_size / ROOM_SHARE / policy->options->shard_count);
    policy->log_max = max_u64(policy->log_max, 2 * keep);
    return policy->log_max;
}

void mover_policy_tell_log(struct mover_policy *policy, struct pace_log *ret_log)
{
    bool is_moved = !policy->is_failing && !is_resting(policy, SEGMENT_FROM_LOG) &&
                    policy->retry_ns != UINT64_MAX;
    ret_log->keep = log_keep(policy);
    ret_log->length = wal_sealed_bytes(policy->options->wal);
    bool is_long = ret_log->length > ret_log->keep;
    policy->is_log_growing |= is_long && is_moved;
    ret_log->max = UINT64_MAX;
    if (is_long &&
        is_moved) /* on a small disk, while the oldest file is fading, both are the same */
        ret_log->max = max_u64(log_max(policy), ret_log->keep + 1);
    ret_log->is_hollow = mover_purge_is_hollow(&policy->purge);
    bool may_spare = policy->is_log_growing && !mover_policy_is_short(policy);
    ret_log->spares_below = may_spare ? log_max(policy) : 0;
}

static bool is_log_due(struct mover_policy *policy)
{
    struct wal_sealed sealed;
    policy->is_log_emptied = mover_purge_empties_log(&policy->purge) || policy->is_draining;
    bool is_long = wal_sealed_bytes(policy->options->wal) > log_keep(policy);
    return (is_long || is_log_pressed(policy)) && !is_resting(policy, SEGMENT_FROM_LOG) &&
           wal_next_sealed(policy->options->wal, 0, &sealed);
}

static uint32_t victim_share(const struct mover_policy *policy)
{
    if (policy->is_tight)
        return VICTIM_SHARE_TIGHT;
    return policy->is_room_low ? VICTIM_SHARE_LOW : VICTIM_SHARE;
}

static bool is_worth_it(const struct mover_policy *policy, const struct segment *segment)
{
    return dead_bytes(segment) > segment->end / victim_share(policy);
}

static bool is_much(const struct mover_policy *policy, uint64_t dead, uint64_t size)
{
    if (policy->is_tight)
        return dead > DEAD_BYTES_MIN_TIGHT;
    return dead > policy->options->compact_min && (policy->is_room_low || dead > size / DEAD_SHARE);
}

/* What the totals say without those that no job may touch: damaged ones keep their dead bytes, and
 * empty ones are about to go. Looks at every segment. */
static bool is_worth_compacting(const struct mover_policy *policy)
{
    uint64_t size = 0, dead = 0;
    bool has_victim = false;
    const struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(policy->options->segments, i)) != NULL; i++) {
        if (!mover_is_usable(policy->outputs, segment, policy->job))
            continue;
        size += segment->end;
        dead += dead_bytes(segment);
        has_victim |= is_worth_it(policy, segment);
    }
    return has_victim && is_much(policy, dead, size);
}

/* The totals first, which are there at once. When they were too optimistic they stay so for a
 * while. */
static bool is_compaction_due(struct mover_policy *policy)
{
    if (is_resting(policy, SEGMENT_FROM_COMPACTION))
        return false;
    struct segments_stats stats;
    segments_stats(policy->options->segments, &stats);
    policy->is_room_low = is_room_low(policy);
    uint64_t dead = dead_of(stats.size_bytes, stats.segments, stats.live_records,
                            OPTIMISM(stats.live_bytes - stats.doomed_bytes));
    if (!is_much(policy, dead, stats.size_bytes))
        return false;
    if (is_worth_compacting(policy))
        return true;
    policy->rests[SEGMENT_FROM_COMPACTION - 1] =
        (struct mover_rest){io_now_ns(policy->io) + LOOK_NS, wal_last(policy->options->wal)};
    return false;
}

bool mover_policy_wants_job(struct mover_policy *policy, enum segment_source *ret_source)
{
    bool log_due = is_log_due(policy);
    bool compaction_due =
        is_compaction_due(policy) || (!is_resting(policy, SEGMENT_FROM_COMPACTION) &&
                                      mover_purge_is_due(&policy->purge, policy->job));
    if (!log_due && !compaction_due)
        return false;
    /* Compaction goes first: moving the log takes room, and lets more die than one job frees; but
     * where there is room, the log has its turn soon enough. On a full disk either may be the one
     * that goes. */
    uint32_t first = policy->is_tight ? 1 : COMPACTIONS_FIRST * (policy->log_rounds + 1);
    if (policy->is_draining && !policy->is_tight)
        first = 0;
    bool were_first = policy->compactions >= first && (policy->is_tight || !policy->is_room_low);
    bool is_log = log_due && (!compaction_due || were_first);
    *ret_source = is_log ? SEGMENT_FROM_LOG : SEGMENT_FROM_COMPACTION;
    return true;
}

/* One file a job: what matters is that it is emptied. */
static bool next_pressed(const struct mover_policy *policy, struct wal_sealed *ret_sealed)
{
    return policy->log_taken == 0 && wal_emptiest_sealed(policy->options->wal, ret_sealed);
}

static bool next_oldest(const struct mover_policy *policy, struct wal_sealed *ret_sealed)
{
    uint64_t sealed_bytes = wal_sealed_bytes(policy->options->wal);
    return sealed_bytes > log_keep(policy) + policy->log_taken_bytes &&
           wal_next_sealed(policy->options->wal, policy->log_taken, ret_sealed);
}

static bool open_log(struct mover_policy *policy, struct mover_reader *reader)
{
    struct wal_sealed sealed;
    if (is_log_pressed(policy) ? !next_pressed(policy, &sealed) : !next_oldest(policy, &sealed))
        return false;
    assert(sealed.number > policy->log_taken); /* invariant 1 */
    policy->log_taken = sealed.number;
    policy->log_taken_bytes += sealed.end;
    mover_reader_open_log(reader, &sealed);
    return true;
}

/* The segment with the smallest live share that is not an output with bytes of this job. */
static struct segment *choose_victim(const struct mover_policy *policy)
{
    struct segment *best = NULL, *segment;
    for (uint64_t i = 0; (segment = segments_nth(policy->options->segments, i)) != NULL; i++)
        if (mover_is_usable(policy->outputs, segment, policy->job) &&
            is_worth_it(policy, segment) &&
            (best == NULL || dead_bytes(segment) * best->end > dead_bytes(best) * segment->end))
            best = segment;
    return best;
}

static bool open_segment(struct mover_policy *policy, struct mover_reader *reader)
{
    struct segment *segment = mover_purge_victim(&policy->purge, policy->job);
    if (segment == NULL)
        segment = choose_victim(policy);
    if (segment == NULL)
        return false;
    assert(segment->taken_by_job < policy->job); /* invariants 1, 3 */
    segment->taken_by_job = policy->job;
    mover_outputs_seal(policy->outputs, segment);
    assert(segment->state == SEGMENT_SEALED); /* invariant 2 */
    mover_reader_open_segment(reader, segment);
    return true;
}

bool mover_policy_open_input(struct mover_policy *policy, enum segment_source source,
                             struct mover_reader *reader)
{
    return source == SEGMENT_FROM_LOG ? open_log(policy, reader) : open_segment(policy, reader);
}

/* ---- how much ---- */

/* Of a round. `room`: what is free on the disk. */
static uint64_t round_bytes(const struct mover_policy *policy, uint64_t room)
{
    const struct mover_options *options = policy->options;
    if (policy->is_tight)
        return max_u64(options->tight_bytes >> policy->halvings, TIGHT_BYTES_MIN);
    /* What is written beside the records is less than a quarter. */
    uint64_t size = min_u64(options->stage_bytes, room / 4 * 3);
    return max_u64(size, min_u64(TIGHT_BYTES_MIN, options->stage_bytes));
}

/* What comes from the log goes to all partitions, so that a job has 256 files to sync: the more it
 * carries the better, where there is room. A compaction's inputs are of a few partitions. */
static uint64_t rounds_of(const struct mover_policy *policy, enum segment_source source,
                          uint64_t round, uint64_t room)
{
    if (source != SEGMENT_FROM_LOG || policy->is_tight)
        return 1;
    return max_u64(min_u64(ROUNDS_MAX, room / ROUNDS_ROOM / round), 1);
}

void mover_policy_sizes(const struct mover_policy *policy, enum segment_source source,
                        uint64_t *ret_round, uint64_t *ret_limit)
{
    uint64_t room, total_size;
    if (io_disk_space(policy->io, policy->options->path, &room, &total_size) < 0)
        room = UINT64_MAX;
    room /= policy->options->shard_count; /* the others begin jobs, too */
    *ret_round = round_bytes(policy, room);
    *ret_limit = *ret_round * rounds_of(policy, source, *ret_round, room);
    assert(*ret_limit >= *ret_round);     /* invariant 4 */
    assert(*ret_limit % *ret_round == 0); /* invariant 4 */
}

/* ---- when the next one ---- */

static void try_again_after(struct mover_policy *policy, uint64_t delay_ns)
{
    policy->retry_ns = io_now_ns(policy->io) + delay_ns;
}

bool mover_policy_may_look(struct mover_policy *policy)
{
    if (io_now_ns(policy->io) < policy->retry_ns)
        return false;
    try_again_after(policy, CHECK_NS);
    return true;
}

void mover_policy_idle(struct mover_policy *policy)
{
    if (!mover_purge_log_is_quiet(&policy->purge))
        return;
    policy->is_log_growing = false;
    (void)wal_shed(policy->options->wal);
}

void mover_policy_postpone(struct mover_policy *policy)
{
    try_again_after(policy, RETRY_NS);
}

void mover_policy_begin_job(struct mover_policy *policy, enum segment_source source)
{
    assert(policy->retry_ns != UINT64_MAX); /* invariant 5 */
    policy->log_taken = 0;
    policy->log_taken_bytes = 0;
    policy->job_last = wal_last(policy->options->wal);
    mover_outputs_begin_job(policy->outputs, source, policy->is_tight);
    policy->compactions = source == SEGMENT_FROM_COMPACTION ? policy->compactions + 1 : 0;
    if (source == SEGMENT_FROM_LOG)
        policy->log_rounds = 0;
}

void mover_policy_next_round(struct mover_policy *policy)
{
    policy->log_rounds++;                    /* a compaction has one */
    assert(policy->log_rounds < ROUNDS_MAX); /* invariant 4 */
}

void mover_policy_done(struct mover_policy *policy)
{
    policy->job++; /* invariant 3 */
    policy->halvings = 0;
    policy->is_failing = false;
    policy->retry_ns = 0;
}

void mover_policy_rest(struct mover_policy *policy, enum segment_source source)
{
    policy->rests[source - 1] =
        (struct mover_rest){io_now_ns(policy->io) + RETRY_NS, policy->job_last};
}

bool mover_policy_failed(struct mover_policy *policy, enum segment_source source, int error)
{
    policy->job++; /* invariant 3 */
    policy->is_failing = error != 0;
    try_again_after(policy, RETRY_NS);
    if (error != 0 && !refusal_may_pass(error))
        policy->retry_ns = UINT64_MAX; /* invariant 5 */
    if (!policy->is_tight || !mover_is_full(error))
        return false;
    /* A smaller job may find room, or one of the other kind. */
    policy->retry_ns = 0;
    bool is_smallest = policy->halvings == HALVINGS_MAX;
    if (is_smallest)
        mover_policy_rest(policy, source);
    else
        policy->halvings++;
    return is_smallest;
}

/* ---- as mover.h tells ---- */

void mover_policy_init(struct mover_policy *policy, struct io *io,
                       const struct mover_options *options, struct mover_outputs *outputs)
{
    *policy = (struct mover_policy){.io = io, .options = options, .outputs = outputs, .job = 1};
    mover_purge_init(&policy->purge, io, options, outputs);
}

void mover_policy_set_tight(struct mover_policy *policy, bool is_tight)
{
    policy->is_tight = is_tight;
}

void mover_policy_wake(struct mover_policy *policy)
{
    if (policy->retry_ns != UINT64_MAX) /* invariant 5 */
        policy->retry_ns = 0;
}

bool mover_policy_may_free(struct mover_policy *policy, bool is_busy)
{
    enum segment_source source;
    if (policy->retry_ns == UINT64_MAX || (!is_busy && !mover_policy_wants_job(policy, &source)))
        return false;
    policy->retry_ns = 0;
    return true;
}

void mover_policy_drain_log(struct mover_policy *policy)
{
    policy->is_draining = true;
    wal_move_damaged(policy->options->wal);
    mover_policy_wake(policy);
}

bool mover_policy_is_stuck(const struct mover_policy *policy)
{
    struct wal_sealed sealed;
    assert(policy->is_draining);
    return is_resting(policy, SEGMENT_FROM_LOG) ||
           !wal_next_sealed(policy->options->wal, 0, &sealed);
}

void mover_policy_go_on(struct mover_policy *policy)
{
    assert(policy->is_draining);
    policy->rests[SEGMENT_FROM_LOG - 1] = (struct mover_rest){0};
}
