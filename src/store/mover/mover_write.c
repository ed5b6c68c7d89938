/* From the stage into the partitions' open segments: one partition after the other, in chunks as
 * large as they come. In the job's last round every file that was written to is synced behind
 * that, while others are still being written, and the folder of each new one.
 *
 * An open segment's way:
 *
 *   none -> begun (new: a name and a header) -> touched by a job -> committed -> touched ... -> full
 *                    ^--- forgotten, where the job failed and the manifest does not know it
 *
 * Invariants:
 * 1. An output's end is never below its segment's end, which is what the manifest knows.
 * 2. An output's end only grows while a job writes; only what failed is taken back, to that end.
 * 3. The open segment of a source and partition is of that source and partition, and is not leaving.
 * 4. Numbers of segments and sequences of chunks only grow; numbers are the shard's own.
 * 5. What is told to the manifest was written to its end and synced, its name too.
 * 6. A segment is sealed when nothing of it is in flight and no job that may fail has written to it.
 * 7. `created` of a segment only falls. */
#include "store/mover/mover_write.h"

#include "base/assert.h"
#include "base/plant.h"
#include "store/disk/refusal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static struct mover_output *output_of(struct mover_outputs *outputs, uint32_t partition)
{
    assert(partition < MOVER_PARTITIONS);
    return &outputs->files[outputs->source - 1][partition];
}

static void fail(struct mover_outputs *outputs, int error, const char *what, const char *path)
{
    assert(error < 0);
    if (outputs->error != 0)
        return;
    outputs->error = error;
    bool is_news = !outputs->is_failure_usual || !refusal_may_pass(error);
    log_event(outputs->log, is_news ? LOG_ERROR : LOG_DEBUG, "%s %s: %s", what, path,
              strerror(-error));
}

/* ---- the open segments ---- */

bool mover_outputs_is_touched(const struct mover_outputs *outputs, const struct segment *segment)
{
    return outputs->files[segment->source - 1][segment->partition].is_touched;
}

static void close_output(struct mover_outputs *outputs, struct mover_output *output)
{
    assert(!io_op_is_active(&output->close_op));
    if (output->handle >= 0)
        io_close_file(outputs->io, &output->close_op, output->handle);
    output->handle = -1;
}

/* All that it was written for is over: nothing but its segment is left to be forgotten. */
static void leave_output(struct mover_outputs *outputs, struct mover_output *output)
{
    close_output(outputs, output);
    output->segment = NULL;
    output->end = 0;
    output->is_new = false;
}

void mover_outputs_seal(struct mover_outputs *outputs, struct segment *segment)
{
    struct mover_output *output = &outputs->files[segment->source - 1][segment->partition];
    if (output->segment != segment)
        return;
    assert(!output->is_touched);         /* invariant 6 */
    assert(output->end == segment->end); /* invariant 1 */
    leave_output(outputs, output);
    segment->state = SEGMENT_SEALED;
}

void mover_outputs_seal_partition(struct mover_outputs *outputs, uint32_t partition)
{
    for (uint32_t i = 0; i < SEGMENT_SOURCES; i++) {
        struct segment *segment = outputs->files[i][partition].segment;
        if (segment != NULL)
            mover_outputs_seal(outputs, segment);
    }
}

uint64_t mover_outputs_number_last(const struct mover_outputs *outputs)
{
    return outputs->number_last;
}

uint64_t mover_outputs_sequence_last(const struct mover_outputs *outputs)
{
    return outputs->sequence_last;
}

double mover_outputs_true_share(const struct mover_outputs *outputs)
{
    if (outputs->filled_read_bytes == 0)
        return 1;
    return (double)outputs->filled_bytes / (double)outputs->filled_read_bytes;
}

/* ---- creating ---- */

/* Whether a segment of an earlier process, or of an earlier job, is filled further. */
static bool is_fit(const struct mover_outputs *outputs, const struct segment *segment)
{
    return segment->state != SEGMENT_LEAVING && !segment->is_damaged &&
           segment->end >= SEGMENT_DATA_OFFSET && segment->end < outputs->options->segment_size;
}

/* The newest segments that are not full are filled further. */
static void resume_partition(struct mover_outputs *outputs, uint32_t partition)
{
    struct segment *segment = segments_first(outputs->options->segments, partition);
    for (; segment != NULL; segment = segment_next(segment)) {
        struct mover_output *output = &outputs->files[segment->source - 1][partition];
        bool is_fit_now = is_fit(outputs, segment);
        segment->state = SEGMENT_SEALED;
        if (!is_fit_now)
            continue;
        if (output->segment != NULL)
            output->segment->state = SEGMENT_SEALED;
        segment->state = SEGMENT_OPEN;
        *output = (struct mover_output){.segment = segment, .handle = -1, .end = segment->end};
    }
}

void mover_outputs_init(struct mover_outputs *outputs, struct io *io, const struct log *log,
                        const struct mover_options *options, struct mover_stats *stats,
                        struct mover_stage *stage, uint8_t *memory)
{
    outputs->io = io;
    outputs->log = log;
    outputs->options = options;
    outputs->stats = stats;
    outputs->stage = stage;
    outputs->source = SEGMENT_FROM_LOG;
    outputs->number_last = options->number_last;
    outputs->sequence_last = options->sequence_last;
    outputs->header = memory;
    outputs->partition = MOVER_PARTITIONS;
    outputs->sync_partition = MOVER_PARTITIONS;
    list_init(&outputs->folder_users);
    for (uint32_t i = 0; i < MOVER_SYNCS; i++)
        directory_init(&outputs->syncs[i].directory, io, outputs->syncs[i].path,
                       &outputs->folder_users);
    for (uint32_t i = 0; i < MOVER_BUFFERS; i++) {
        outputs->buffers[i].outputs = outputs;
        outputs->buffers[i].data = memory + SEGMENT_BLOCK_SIZE + (uint64_t)i * MOVER_CHUNK_SIZE;
    }
    for (uint32_t i = 0; i < SEGMENT_SOURCES; i++)
        for (uint32_t j = 0; j < MOVER_PARTITIONS; j++)
            outputs->files[i][j].handle = -1;
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++)
        resume_partition(outputs, i);
}

void mover_outputs_shut(struct mover_outputs *outputs)
{
    assert(!mover_outputs_is_active(outputs));
    for (uint32_t i = 0; i < SEGMENT_SOURCES * MOVER_PARTITIONS; i++) {
        struct mover_output *output = &outputs->files[i / MOVER_PARTITIONS][i % MOVER_PARTITIONS];
        (void)io_wait(outputs->io, &output->close_op);
        close_output(outputs, output);
        (void)io_wait(outputs->io, &output->close_op);
    }
}

/* ---- an output is made ready ---- */

static void output_opened(struct io_op *op, int32_t result)
{
    struct mover_outputs *outputs = container_of(op, struct mover_outputs, open_op);
    struct mover_output *output = output_of(outputs, outputs->partition);
    if (result < 0) {
        fail(outputs, result, "cannot open", output->segment->path);
        return;
    }
    output->handle = result;
}

static void header_written(struct io_op *op, int32_t result)
{
    struct mover_outputs *outputs = container_of(op, struct mover_outputs, open_op);
    struct mover_output *output = output_of(outputs, outputs->partition);
    if (result != (int32_t)SEGMENT_BLOCK_SIZE) {
        fail(outputs, result < 0 ? result : -EIO, "cannot write", output->segment->path);
        return;
    }
    output->end = SEGMENT_DATA_OFFSET;
    outputs->stats->written_bytes += SEGMENT_BLOCK_SIZE;
}

static void write_header(struct mover_outputs *outputs, const struct mover_output *output)
{
    const struct segment *segment = output->segment;
    struct segment_header header = {
        .partition = segment->partition,
        .source = segment->source,
        .directory_id = outputs->options->directory_id,
        .log_id = outputs->options->log_id,
        .number = segment->number,
        .salt = segment->salt,
        .created = segment->created,
    };
    segment_header_encode(&header, outputs->header);
    outputs->open_op.done = header_written;
    io_write(outputs->io, &outputs->open_op, output->handle, outputs->header, SEGMENT_BLOCK_SIZE, 0,
             IO_WRITE_PLAIN);
}

/* No other shard gives the same one. */
static uint64_t next_number(const struct mover_outputs *outputs)
{
    uint32_t count = outputs->options->shard_count;
    uint64_t number = outputs->number_last + 1;
    return number + (outputs->options->log_id + count - number % count) % count;
}

static int begin_segment(struct mover_outputs *outputs, struct mover_output *output)
{
    uint64_t number = next_number(outputs);
    int error = segments_add(outputs->options->segments, (uint8_t)outputs->partition,
                             outputs->source, number, &output->segment);
    if (error < 0)
        return error;
    assert(number > outputs->number_last);                                      /* invariant 4 */
    assert(number % outputs->options->shard_count == outputs->options->log_id); /* invariant 4 */
    outputs->number_last = number;
    output->segment->created = mover_stage_created(outputs->stage, outputs->partition);
    output->segment->salt = segment_salt(outputs->options->secret, output->segment->number);
    output->is_new = true;
    output->end = 0;
    return 0;
}

static void open_output(struct mover_outputs *outputs, struct mover_output *output)
{
    int error = output->segment == NULL ? begin_segment(outputs, output) : 0;
    if (error < 0) {
        fail(outputs, error, "no further segment in", outputs->options->path);
        return;
    }
    outputs->open_op.done = output_opened;
    io_open_file(outputs->io, &outputs->open_op, output->segment->path,
                 IO_OPEN_WRITE | IO_OPEN_DIRECT | (output->is_new ? IO_OPEN_CREATE : 0));
}

/* Returns whether chunks may be written to it. */
static bool make_ready(struct mover_outputs *outputs, struct mover_output *output)
{
    if (io_op_is_active(&outputs->open_op))
        return false;
    bool is_full = output->segment != NULL && !output->is_touched &&
                   output->end >= outputs->options->segment_size;
    assert(output->segment == NULL || output->segment->state == SEGMENT_OPEN); /* invariant 3 */
    if (is_full)
        mover_outputs_seal(outputs, output->segment);
    if (output->handle < 0) {
        if (!io_op_is_active(&output->close_op))
            open_output(outputs, output);
        return false;
    }
    if (output->end == 0) {
        write_header(outputs, output);
        return false;
    }
    return true;
}

/* ---- chunks ---- */

static void chunk_written(struct io_op *op, int32_t result)
{
    struct mover_buffer *buffer = container_of(op, struct mover_buffer, op);
    struct mover_outputs *outputs = buffer->outputs;
    if (result < 0 || (uint32_t)result != buffer->size)
        fail(outputs, result < 0 ? result : -EIO, "cannot write to a segment in",
             outputs->options->path);
    else
        outputs->stats->written_bytes += buffer->size;
}

static struct mover_buffer *free_buffer(struct mover_outputs *outputs)
{
    for (uint32_t i = 0; i < MOVER_BUFFERS; i++)
        if (!io_op_is_active(&outputs->buffers[i].op))
            return &outputs->buffers[i];
    return NULL;
}

static void write_chunk(struct mover_outputs *outputs, struct mover_output *output,
                        struct mover_buffer *buffer)
{
    struct segment *segment = output->segment;
    assert(segment->source == outputs->source);                        /* invariant 3 */
    assert(segment->partition == outputs->partition);                  /* invariant 3 */
    assert(output->end >= max_u64(segment->end, SEGMENT_DATA_OFFSET)); /* invariant 1 */
    assert(output->end % SEGMENT_BLOCK_SIZE == 0);
    struct segment_chunk_header header = {
        .directory_id = outputs->options->directory_id,
        .salt = segment->salt,
        .segment = segment->number,
        .offset = output->end,
        .sequence = ++outputs->sequence_last,
    };
    uint64_t read_bytes;
    uint64_t size = mover_stage_fill(outputs->stage, segment->file, output->end, buffer->data,
                                     &header, &read_bytes);
    segment_chunk_header_encode(&header, buffer->data);
    output->job_bytes += header.records_size;
    output->job_read_bytes += read_bytes;
    buffer->size = (uint32_t)size;
    buffer->output = output;
    buffer->op.done = chunk_written;
    io_write(outputs->io, &buffer->op, output->handle, buffer->data, buffer->size, output->end,
             IO_WRITE_PLAIN);
    output->end += size;
    output->is_touched = true;
    uint64_t created = mover_stage_created(outputs->stage, segment->partition);
    segment->created = min_u64(segment->created, created); /* invariant 7 */
}

static bool is_being_written(const struct mover_outputs *outputs, const struct mover_output *output)
{
    for (uint32_t i = 0; i < MOVER_BUFFERS; i++)
        if (io_op_is_active(&outputs->buffers[i].op) && outputs->buffers[i].output == output)
            return true;
    return false;
}

static bool is_writing(const struct mover_outputs *outputs)
{
    bool is_active = io_op_is_active(&outputs->open_op);
    for (uint32_t i = 0; i < MOVER_BUFFERS; i++)
        is_active |= io_op_is_active(&outputs->buffers[i].op);
    return is_active;
}

int mover_outputs_error(const struct mover_outputs *outputs)
{
    return outputs->error;
}

static bool is_syncing(const struct mover_sync *sync)
{
    return io_op_is_active(&sync->op) || directory_is_busy(&sync->directory);
}

bool mover_outputs_is_active(const struct mover_outputs *outputs)
{
    bool is_active = is_writing(outputs);
    for (uint32_t i = 0; i < MOVER_SYNCS; i++)
        is_active |= is_syncing(&outputs->syncs[i]);
    return is_active;
}

void mover_outputs_begin_job(struct mover_outputs *outputs, enum segment_source source,
                             bool is_failure_usual)
{
    assert(!mover_outputs_is_active(outputs));
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++)
        assert(!output_of(outputs, i)->is_touched); /* invariant 6: of the last job's source */
    for (uint32_t i = 0; i < MOVER_SYNCS; i++)
        outputs->syncs[i].output = NULL;
    outputs->source = source;
    outputs->is_failure_usual = is_failure_usual;
    outputs->error = 0;
}

void mover_outputs_begin_round(struct mover_outputs *outputs)
{
    assert(!is_writing(outputs)); /* the round before is written */
    mover_stage_begin_fill(outputs->stage);
    outputs->partition = 0;
    outputs->sync_partition = 0;
}

static bool write_next(struct mover_outputs *outputs, bool *ret_done)
{
    outputs->partition = mover_stage_fill_partition(outputs->stage);
    if (outputs->partition == MOVER_PARTITIONS) {
        *ret_done = !is_writing(outputs);
        return *ret_done;
    }
    struct mover_output *output = output_of(outputs, outputs->partition);
    if (!make_ready(outputs, output))
        return false;
    struct mover_buffer *buffer = free_buffer(outputs);
    if (buffer == NULL)
        return false;
    write_chunk(outputs, output, buffer);
    return true;
}

/* Passes are few when there are many requests: a chunk in each would be too slow then. */
bool mover_outputs_write(struct mover_outputs *outputs, uint32_t chunks_max, bool *ret_done)
{
    *ret_done = false;
    bool more = outputs->error == 0;
    for (uint32_t i = 0; i < chunks_max && more && !*ret_done; i++)
        more = write_next(outputs, ret_done);
    return more;
}

/* ---- syncs ---- */

/* Whether the file of `sync_partition`, the next one, waits for nothing but its sync. */
static bool has_next_to_sync(struct mover_outputs *outputs)
{
    uint32_t end = outputs->partition;
    assert(outputs->sync_partition <= MOVER_PARTITIONS);
    while (outputs->sync_partition < end &&
           !output_of(outputs, outputs->sync_partition)->is_touched)
        outputs->sync_partition++;
    return outputs->sync_partition < end &&
           !is_being_written(outputs, output_of(outputs, outputs->sync_partition));
}

/* Takes over what became of a sync. Returns whether there is none now. */
static bool settle_sync(struct mover_outputs *outputs, struct mover_sync *sync)
{
    struct mover_output *output = sync->output;
    if (is_syncing(sync))
        return false;
    sync->output = NULL;
    if (output == NULL)
        return true;
    if (sync->error < 0)
        fail(outputs, sync->error, "cannot sync", sync->path);
    else
        output->is_new = false;
    return true;
}

static void name_synced(struct directory_waiter *waiter, int result)
{
    struct mover_sync *sync = container_of(waiter, struct mover_sync, waiter);
    sync->error = result;
}

static void file_synced(struct io_op *op, int32_t result)
{
    struct mover_sync *sync = container_of(op, struct mover_sync, op);
    sync->error = result;
    if (sync->output->is_new && result >= 0)
        directory_sync(&sync->directory, &sync->waiter, name_synced);
}

static void sync_next(struct mover_outputs *outputs, struct mover_sync *sync)
{
    uint32_t partition = outputs->sync_partition++;
    struct mover_output *output = output_of(outputs, partition);
    assert(!is_being_written(outputs, output)); /* invariant 5 */
    if (plant_is(PLANT_SKIP_SEGMENT_SYNC)) {
        output->is_new = false;
        return;
    }
    (void)snprintf(sync->path, sizeof sync->path, "%s/%02" PRIx32, outputs->options->path,
                   partition);
    sync->output = output;
    sync->op.done = file_synced;
    io_sync(outputs->io, &sync->op, output->handle);
}

bool mover_outputs_sync(struct mover_outputs *outputs)
{
    bool is_settled = true;
    for (uint32_t i = 0; i < MOVER_SYNCS; i++) {
        struct mover_sync *sync = &outputs->syncs[i];
        if (settle_sync(outputs, sync) && outputs->error == 0 && has_next_to_sync(outputs))
            sync_next(outputs, sync);
        is_settled &= sync->output == NULL;
    }
    return is_settled && outputs->sync_partition == MOVER_PARTITIONS && !is_writing(outputs);
}

/* ---- what the manifest is told ---- */

void mover_outputs_edit(const struct mover_outputs *outputs, const struct segment *segment,
                        uint64_t end, enum manifest_kind kind, struct manifest_edit *ret_edit)
{
    *ret_edit = (struct manifest_edit){
        .kind = kind,
        .partition = segment->partition,
        .source = segment->source,
        .log_id = outputs->options->log_id,
        .number = segment->number,
        .end = end,
        .created = segment->created,
    };
}

uint32_t mover_outputs_new_ends(const struct mover_outputs *outputs,
                                struct manifest_edit *ret_edits)
{
    uint32_t count = 0;
    assert(!mover_outputs_is_active(outputs)); /* invariant 5 */
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        const struct mover_output *output = &outputs->files[outputs->source - 1][i];
        if (!output->is_touched)
            continue;
        assert(output->end > output->segment->end); /* invariant 2 */
        assert(!output->is_new);                    /* invariant 5 */
        mover_outputs_edit(outputs, output->segment, output->end, MANIFEST_SEGMENT,
                           &ret_edits[count++]);
    }
    return count;
}

/* Only where all of it is known: the rest of what an earlier process put in may be rounded
 * otherwise. */
static void note_filled(struct mover_outputs *outputs, const struct mover_output *output)
{
    struct segment *segment = output->segment;
    outputs->filled_bytes += output->job_bytes;
    outputs->filled_read_bytes += output->job_read_bytes;
    if (segment->end > 0 && segment->filled_read_bytes == 0)
        return;
    segment->filled_bytes += output->job_bytes;
    segment->filled_read_bytes += output->job_read_bytes;
}

void mover_outputs_committed(struct mover_outputs *outputs, int result)
{
    assert(outputs->error == 0);
    outputs->error = result < 0 ? result : 0;
    for (uint32_t i = 0; result >= 0 && i < MOVER_PARTITIONS; i++) {
        struct mover_output *output = output_of(outputs, i);
        if (!output->is_touched)
            continue;
        output->is_touched = false;
        note_filled(outputs, output);
        output->job_bytes = output->job_read_bytes = 0;
        segment_set_end(outputs->options->segments, output->segment, output->end);
    }
}

/* ---- after a failure ---- */

bool mover_outputs_cut(struct mover_outputs *outputs)
{
    assert(!mover_outputs_is_active(outputs));
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        struct mover_output *output = output_of(outputs, i);
        if (!output->is_touched || output->segment->end == 0)
            continue;
        assert(output->end > output->segment->end); /* invariant 2 */
        output->is_touched = false;
        output->end = output->segment->end;
        outputs->open_op.done = NULL; /* best effort: what stays is overwritten */
        io_truncate(outputs->io, &outputs->open_op, output->segment->path, output->end);
        return true;
    }
    return false;
}

void mover_outputs_forget(struct mover_outputs *outputs)
{
    assert(!mover_outputs_is_active(outputs));
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++) {
        struct mover_output *output = output_of(outputs, i);
        struct segment *segment = output->segment;
        if (segment == NULL)
            continue;
        assert(output->end >= segment->end); /* invariant 1 */
        output->is_touched = false;
        output->end = segment->end;
        output->job_bytes = output->job_read_bytes = 0;
        if (segment->end > 0)
            continue;
        leave_output(outputs, output);
        segment->state = SEGMENT_LEAVING;
        segments_remove(outputs->options->segments, segment, true);
    }
}
