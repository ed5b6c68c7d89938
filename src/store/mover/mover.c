#include "store/mover/mover_internal.h"
#include "store/disk/wait.h"
#include "store/wal/wal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const phase_names[] = {
    [MOVER_IDLE] = "idle",       [MOVER_READING] = "reading",       [MOVER_WRITING] = "writing",
    [MOVER_SYNCING] = "syncing", [MOVER_COMMITTING] = "committing", [MOVER_APPLYING] = "applying",
    [MOVER_ENDING] = "ending",   [MOVER_CLEANING] = "cleaning",
};

/* A job appends what it carries, however full a segment is: a location must still name the end. */
#define SEGMENT_SIZE_LIMIT ((uint64_t)GIB)

void mover_set_phase(struct mover *mover, enum mover_phase phase)
{
    bool is_forward = phase == mover->phase + 1 && phase <= MOVER_APPLYING;
    bool is_round = mover->phase == MOVER_WRITING && phase == MOVER_READING;
    bool is_end = phase == MOVER_IDLE || phase == MOVER_ENDING;
    bool is_cleaning = mover->phase == MOVER_IDLE && phase == MOVER_CLEANING;
    assert(is_forward || is_round || is_end || is_cleaning);
    mover->phase = phase;
}

/* ---- creating ---- */

static void lay_out_memory(struct mover *mover)
{
    uint8_t *memory = mover->options.memory;
    mover->header = memory;
    uint8_t *chunks = memory + SEGMENT_BLOCK_SIZE + MOVER_WINDOW_SIZE;
    mover_reader_init(&mover->reader, mover->io, mover->log, &mover->options, &mover->stats,
                      memory + SEGMENT_BLOCK_SIZE);
    mover_stage_init(&mover->stage, &mover->options, &mover->stats);
    for (uint32_t i = 0; i < MOVER_BUFFERS; i++) {
        mover->buffers[i].mover = mover;
        mover->buffers[i].data = chunks + (uint64_t)i * MOVER_CHUNK_SIZE;
    }
    static_assert(SEGMENT_BLOCK_SIZE + MOVER_WINDOW_SIZE + MOVER_BUFFERS * MOVER_CHUNK_SIZE ==
                      MOVER_MEMORY_SIZE,
                  "the region's slice holds all buffers");
}

/* The newest segments that are not full are filled further. */
static void resume_outputs(struct mover *mover)
{
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        const struct list *list = segments_of(mover->options.segments, (uint8_t)i);
        for (struct list_node *node = list_first(list); node != NULL;
             node = list_next(list, node)) {
            struct segment *segment = container_of(node, struct segment, partition_node);
            struct mover_output *output = &mover->outputs[segment->generation - 1][i];
            bool is_fit = segment->state != SEGMENT_LEAVING && !segment->is_damaged &&
                          segment->end >= SEGMENT_DATA_OFFSET &&
                          segment->end < mover->options.segment_size;
            segment->state = SEGMENT_SEALED;
            if (!is_fit)
                continue;
            output->segment = segment;
            output->end = segment->end;
        }
        for (uint32_t g = 0; g < MOVER_GENERATIONS; g++)
            if (mover->outputs[g][i].segment != NULL)
                mover->outputs[g][i].segment->state = SEGMENT_OPEN;
    }
}

int mover_create(struct io *io, const struct log *log, const struct mover_options *options,
                 struct mover **ret_mover)
{
    struct mover *mover = calloc(1, sizeof *mover);
    if (mover == NULL)
        return -ENOMEM;
    list_init(&mover->closings);
    mover->syncs = calloc(MOVER_SYNCS, sizeof *mover->syncs);
    mover->cleaning = calloc(MOVER_CLEAN_MAX, sizeof *mover->cleaning);
    if (mover->syncs == NULL || mover->cleaning == NULL) {
        mover_free(mover);
        return -ENOMEM;
    }
    mover->io = io;
    mover->log = log;
    mover->options = *options;
    mover->options.segment_size = min_u64(options->segment_size, SEGMENT_SIZE_LIMIT);
    mover->options.shard_count = (uint32_t)max_u64(options->shard_count, 1);
    assert(options->log_id < mover->options.shard_count);
    mover->number_last = options->number_last;
    mover->sequence_last = options->sequence_last;
    for (uint32_t i = 0; i < MOVER_SYNCS; i++)
        mover->syncs[i].mover = mover;
    for (uint32_t g = 0; g < MOVER_GENERATIONS; g++)
        for (uint32_t i = 0; i < MOVER_PARTITIONS; i++)
            mover->outputs[g][i].handle = -1;
    lay_out_memory(mover);
    resume_outputs(mover);
    *ret_mover = mover;
    return 0;
}

/* ---- sealing ---- */

/* Closing is best effort, and no job waits for it. */
struct closing {
    struct list_node node;
    struct io_op op;
};

static void closed(struct io_op *op, int32_t result)
{
    struct closing *closing = container_of(op, struct closing, op);
    (void)result;
    list_remove(&closing->node);
    free(closing);
}

void mover_close_output(struct mover *mover, struct mover_output *output)
{
    struct closing *closing = output->handle >= 0 ? calloc(1, sizeof *closing) : NULL;
    if (closing == NULL)
        return;
    closing->op.done = closed;
    list_push_back(&mover->closings, &closing->node);
    io_close_file(mover->io, &closing->op, output->handle);
    output->handle = -1;
}

void mover_seal(struct mover *mover, struct segment *segment)
{
    struct mover_output *output = &mover->outputs[segment->generation - 1][segment->partition];
    assert(output->segment == segment && !output->is_touched);
    mover_close_output(mover, output);
    segment->state = SEGMENT_SEALED;
    *output = (struct mover_output){.handle = -1};
}

/* ---- committing ---- */

void mover_fill_edit(const struct mover *mover, const struct segment *segment, uint64_t end,
                     enum manifest_kind kind, struct manifest_edit *ret_edit)
{
    *ret_edit = (struct manifest_edit){
        .kind = kind,
        .partition = segment->partition,
        .generation = segment->generation,
        .log_id = mover->options.log_id,
        .number = segment->number,
        .end = end,
        .created = segment->created,
    };
}

/* Only where all of it is known: the rest of what an earlier process put in may be rounded
 * otherwise. */
static void note_filled(struct mover *mover, const struct mover_output *output)
{
    struct segment *segment = output->segment;
    mover->filled_bytes += output->job_bytes;
    mover->filled_read_bytes += output->job_read_bytes;
    if (segment->end > 0 && segment->filled_read_bytes == 0)
        return;
    segment->filled_bytes += output->job_bytes;
    segment->filled_read_bytes += output->job_read_bytes;
}

static void committed(struct manifest_op *op, int result)
{
    struct mover *mover = container_of(op, struct mover, manifest_op);
    mover->is_committing = false;
    if (result < 0) {
        mover->error = result;
        return;
    }
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        struct mover_output *output = mover_output_of(mover, i);
        if (!output->is_touched)
            continue;
        output->is_touched = false;
        note_filled(mover, output);
        output->job_bytes = output->job_read_bytes = 0;
        segment_set_end(mover->options.segments, output->segment, output->end);
    }
}

uint32_t mover_add_changed(struct mover *mover, struct manifest_edit *edits, uint32_t count,
                           uint32_t capacity)
{
    struct segment *segment;
    for (uint64_t i = 0;
         count < capacity && (segment = segments_nth(mover->options.segments, i)) != NULL; i++) {
        if (!segment->created_changed || segment->end == 0)
            continue;
        mover_fill_edit(mover, segment, segment->end, MANIFEST_SEGMENT, &edits[count++]);
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

static void start_commit(struct mover *mover)
{
    struct manifest_edit edits[MOVER_PARTITIONS];
    uint32_t count = 0;
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        const struct mover_output *output = mover_output_of(mover, i);
        if (output->is_touched)
            mover_fill_edit(mover, output->segment, output->end, MANIFEST_SEGMENT, &edits[count++]);
    }
    if (count == 0)
        return;
    mover->is_committing = true;
    mover->manifest_op.done = committed;
    manifest_append(mover->options.manifest, &mover->manifest_op, edits, count);
}

static bool step_applying(struct mover *mover, uint64_t budget)
{
    if (!mover_stage_apply(&mover->stage, budget))
        return true;
    /* Where there was nothing to move there will not be soon. */
    if (mover_stage_is_empty(&mover->stage))
        mover_rest(mover);
    mover->halvings = 0;
    mover->is_failing = false;
    mover->retry_ns = 0;
    mover_end_job(mover);
    return true;
}

/* ---- reading ---- */

static bool begin_writing(struct mover *mover, bool is_last_round)
{
    if (is_last_round)
        mover_reader_close(&mover->reader);
    mover->is_last_round = is_last_round;
    mover_write_begin(mover);
    mover_set_phase(mover, MOVER_WRITING);
    return true;
}

/* The round is full; the job, too, or this record is the next one's first. */
static bool end_round(struct mover *mover, const struct mover_record *record)
{
    bool is_full = mover_stage_is_full(&mover->stage, mover->job_limit);
    if (is_full)
        mover_reader_pause(&mover->reader);
    else
        mover->next = *record;
    mover->has_next = !is_full;
    return begin_writing(mover, is_full);
}

static bool next_round(struct mover *mover)
{
    mover_stage_next_round(&mover->stage);
    mover->log_rounds++; /* a compaction has one */
    mover_set_phase(mover, MOVER_READING);
    assert(mover->has_next);
    mover->has_next = false;
    uint64_t cost = mover_stage_add(&mover->stage, &mover->next);
    assert(cost > 0); /* the arena has room for any record, and the table was not full */
    return true;
}

static bool step_reading(struct mover *mover, uint64_t budget)
{
    struct mover_reader *reader = &mover->reader;
    if (!mover_reader_has_input(reader)) {
        if (!mover_reader_settle(reader)) /* what the last one read ahead for nothing */
            return false;
        if (!mover_open_input(mover))
            return begin_writing(mover, true);
    }
    for (uint64_t used = 0, cost = 0; used < budget; used += cost) {
        struct mover_record record;
        switch (mover_reader_next(reader, &record)) {
        case MOVER_READ_WAIT:
            return false;
        case MOVER_READ_END:
            mover_reader_close(reader);
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

/* ---- from phase to phase ---- */

/* Of a round. `room`: what is free on the disk. */
static uint64_t round_bytes(const struct mover *mover, uint64_t room)
{
    if (mover->is_tight)
        return max_u64(mover->options.tight_bytes >> mover->halvings, MOVER_TIGHT_BYTES_MIN);
    /* What is written beside the records is less than a quarter. */
    uint64_t size = min_u64(mover->options.stage_bytes, room / 4 * 3);
    return max_u64(size, min_u64(MOVER_TIGHT_BYTES_MIN, mover->options.stage_bytes));
}

/* What comes from the log goes to all partitions, so that a job has 256 files to sync: the more it
 * carries the better, where there is room. A compaction's inputs are of a few partitions. */
static uint64_t rounds_of(const struct mover *mover, uint64_t round, uint64_t room)
{
    if (mover->generation != 1 || mover->is_tight)
        return 1;
    return max_u64(min_u64(MOVER_ROUNDS_MAX, room / MOVER_ROUNDS_ROOM / round), 1);
}

/* Looking for work costs a little, so that an idle mover does it once in a while. */
static bool begin_job(struct mover *mover)
{
    uint64_t now_ns = io_now_ns(mover->io);
    if (mover->is_stopping || now_ns < mover->retry_ns || manifest_is_busy(mover->options.manifest))
        return false;
    mover->retry_ns = now_ns + MOVER_CHECK_NS;
    if (segments_have_empty(mover->options.segments) && mover_clean_begin(mover))
        return false;
    if (!mover_wants_job(mover, &mover->generation)) {
        if (now_ns - mover->job_end_ns > MOVER_MEMORY_NS)
            mover_stage_free(&mover->stage);
        if (mover_log_is_quiet(mover)) {
            mover->is_log_growing = false;
            (void)wal_shed(mover->options.wal);
        }
        return false;
    }
    uint64_t durable = wal_durable(mover->options.wal);
    uint64_t room, total_size;
    if (io_disk_space(mover->io, mover->options.path, &room, &total_size) < 0)
        room = UINT64_MAX;
    room /= mover->options.shard_count; /* the others begin jobs, too */
    uint64_t round = round_bytes(mover, room);
    mover->job_limit = round * rounds_of(mover, round, room);
    if (mover_stage_open(&mover->stage, round, durable) < 0) {
        log_warn(mover->log, "not enough memory to move the log to its segments: tried again");
        mover->retry_ns = now_ns + MOVER_RETRY_NS;
        return false;
    }
    mover->log_taken = 0;
    mover->log_taken_bytes = 0;
    mover->job_last = wal_last(mover->options.wal);
    mover->job_sequence = mover->sequence_last;
    mover->stats.jobs++;
    mover->compactions = mover->generation == 2 ? mover->compactions + 1 : 0;
    if (mover->generation == 1)
        mover->log_rounds = 0;
    mover_set_phase(mover, MOVER_READING);
    return true;
}

static bool go_on(struct mover *mover, bool is_done, enum mover_phase next)
{
    if (mover->error != 0)
        return mover_give_up(mover);
    if (is_done)
        mover_set_phase(mover, next);
    return is_done;
}

bool mover_step(struct mover *mover, uint64_t budget)
{
    segments_set_hurry(mover->options.segments, mover->is_room_low || mover_is_pressed(mover));
    uint64_t urgency = mover->phase != MOVER_IDLE ? mover_urgency(mover) : 1;
    budget *= urgency;
    bool is_done = false;
    bool more;
    switch (mover->phase) {
    case MOVER_IDLE:
        return begin_job(mover);
    case MOVER_READING:
        return mover->is_stopping ? mover_give_up(mover) : step_reading(mover, budget);
    case MOVER_WRITING:
        if (mover->is_stopping)
            return mover_give_up(mover);
        more = mover->error == 0 && mover_write_step(mover, (uint32_t)urgency, &is_done);
        if (is_done && mover->error == 0 && !mover->is_last_round)
            return next_round(mover);
        if (mover->is_last_round)
            (void)mover_sync_step(mover);
        return go_on(mover, is_done, MOVER_SYNCING) || more;
    case MOVER_SYNCING:
        /* A checkpoint's commit may be under way. */
        is_done = mover_sync_step(mover) && !manifest_is_busy(mover->options.manifest);
        if (go_on(mover, is_done, MOVER_COMMITTING))
            start_commit(mover);
        return false;
    case MOVER_COMMITTING:
        if (mover->is_committing)
            return false;
        return go_on(mover, true, MOVER_APPLYING);
    case MOVER_APPLYING:
        return step_applying(mover, budget);
    case MOVER_ENDING:
        return mover_end_step(mover);
    case MOVER_CLEANING:
        if (mover->is_committing)
            return false;
        mover->retry_ns = 0;
        mover_set_phase(mover, MOVER_IDLE);
        return true;
    }
    return false;
}

bool mover_is_busy(const struct mover *mover)
{
    return mover->phase != MOVER_IDLE;
}

uint64_t mover_sequence(const struct mover *mover)
{
    return (mover_is_busy(mover) ? mover->job_sequence : mover->sequence_last) + 1;
}

uint64_t mover_number_last(const struct mover *mover)
{
    return mover->number_last;
}

void mover_set_tight(struct mover *mover, bool is_tight)
{
    mover->is_tight = is_tight;
}

void mover_wake(struct mover *mover)
{
    if (mover->retry_ns != UINT64_MAX)
        mover->retry_ns = 0;
}

bool mover_may_free(struct mover *mover)
{
    if (mover->is_stopping || mover->retry_ns == UINT64_MAX)
        return false;
    uint8_t generation = mover->generation;
    if (!mover_is_busy(mover) && !mover_wants_job(mover, &generation))
        return false;
    mover_wake(mover);
    return true;
}

void mover_stop(struct mover *mover)
{
    mover->is_stopping = true;
}

void mover_shut(struct mover *mover)
{
    assert(!mover_is_busy(mover));
    for (uint32_t g = 0; g < MOVER_GENERATIONS; g++)
        for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
            struct mover_output *output = &mover->outputs[g][i];
            if (output->handle >= 0)
                (void)disk_wait_close(mover->io, output->handle);
            output->handle = -1;
        }
    while (!list_is_empty(&mover->closings) && io_run(mover->io, UINT64_MAX) >= 0)
        continue;
}

void mover_free(struct mover *mover)
{
    if (mover == NULL)
        return;
    for (struct list_node *node; (node = list_pop_front(&mover->closings)) != NULL;)
        free(container_of(node, struct closing, node));
    mover_stage_free(&mover->stage);
    free(mover->syncs);
    free(mover->cleaning);
    free(mover);
}

void mover_stats(const struct mover *mover, struct mover_stats *ret_stats)
{
    *ret_stats = mover->stats;
    ret_stats->dead_bytes = mover_dead_bytes(mover);
    ret_stats->log_sealed_bytes = wal_sealed_bytes(mover->options.wal);
    ret_stats->backlog_bytes = ret_stats->log_sealed_bytes -
                               min_u64(ret_stats->log_sealed_bytes, mover->options.log_keep_bytes);
    ret_stats->phase = phase_names[mover->phase];
    bool is_job = mover_is_busy(mover) && mover->phase != MOVER_CLEANING;
    const char *job = mover->generation == 1 ? "log" : "compaction";
    ret_stats->job = is_job ? job : "none";
}
