/* From the stage into the partitions' open segments: one partition after the other, in chunks as
 * large as they come. In the job's last round every file that was written to is synced behind
 * that, while others are still being written, and the folder of each new one. */
#include "store/mover/mover_internal.h"
#include "base/plant.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void fail(struct mover *mover, int error, const char *what, const char *path)
{
    if (mover->error != 0)
        return;
    mover->error = error;
    if (mover->is_tight && mover_may_retry(error)) {
        log_debug(mover->log, "%s %s: %s", what, path, strerror(-error));
        return;
    }
    log_error(mover->log, "%s %s: %s", what, path, strerror(-error));
}

/* ---- an output is made ready ---- */

static void output_opened(struct io_op *op, int32_t result)
{
    struct mover *mover = container_of(op, struct mover, open_op);
    struct mover_output *output = mover_output_of(mover, mover->open_partition);
    if (result < 0) {
        fail(mover, result, "cannot open", mover->open_path);
        return;
    }
    output->handle = result;
    mover->is_header_written = !output->is_new;
}

static void header_written(struct io_op *op, int32_t result)
{
    struct mover *mover = container_of(op, struct mover, open_op);
    struct mover_output *output = mover_output_of(mover, mover->open_partition);
    if (result != (int32_t)SEGMENT_BLOCK_SIZE) {
        fail(mover, result < 0 ? result : -EIO, "cannot write", mover->open_path);
        return;
    }
    output->end = SEGMENT_DATA_OFFSET;
    mover->is_header_written = true;
    mover->stats.written_bytes += SEGMENT_BLOCK_SIZE;
}

static void write_header(struct mover *mover, const struct mover_output *output)
{
    const struct segment *segment = output->segment;
    struct segment_header header = {
        .partition = segment->partition,
        .generation = segment->generation,
        .directory_id = mover->options.directory_id,
        .log_id = mover->options.log_id,
        .number = segment->number,
        .salt = segment->salt,
        .created = segment->created,
    };
    segment_header_encode(&header, mover->header);
    mover->open_op.done = header_written;
    io_write(mover->io, &mover->open_op, output->handle, mover->header, SEGMENT_BLOCK_SIZE, 0,
             IO_WRITE_PLAIN);
}

/* No other shard gives the same one. */
static uint64_t next_number(const struct mover *mover)
{
    uint32_t count = mover->options.shard_count;
    uint64_t number = mover->number_last + 1;
    return number + (mover->options.log_id + count - number % count) % count;
}

static int begin_segment(struct mover *mover, struct mover_output *output)
{
    uint64_t number = next_number(mover);
    int error = segments_add(mover->options.segments, (uint8_t)mover->open_partition,
                             mover->generation, number, &output->segment);
    if (error < 0)
        return error;
    mover->number_last = number;
    output->segment->created = mover_stage_created(&mover->stage, mover->open_partition);
    output->segment->salt = segment_salt(mover->options.secret, output->segment->number);
    output->is_new = true;
    output->end = 0;
    return 0;
}

static void open_output(struct mover *mover, struct mover_output *output)
{
    int error = output->segment == NULL ? begin_segment(mover, output) : 0;
    if (error < 0) {
        fail(mover, error, "no further segment in", mover->options.path);
        return;
    }
    segment_path(mover->options.segments, output->segment, mover->open_path);
    mover->open_op.done = output_opened;
    io_open_file(mover->io, &mover->open_op, mover->open_path,
                 IO_OPEN_WRITE | IO_OPEN_DIRECT | (output->is_new ? IO_OPEN_CREATE : 0));
}

/* Returns whether chunks may be written to it. */
static bool make_ready(struct mover *mover, struct mover_output *output)
{
    if (io_op_is_active(&mover->open_op))
        return false;
    bool is_full = output->segment != NULL && !output->is_touched &&
                   output->end >= mover->options.segment_size;
    if (is_full)
        mover_seal(mover, output->segment);
    if (output->handle < 0) {
        open_output(mover, output);
        return false;
    }
    if (!mover->is_header_written) {
        write_header(mover, output);
        return false;
    }
    return true;
}

/* ---- chunks ---- */

static void chunk_written(struct io_op *op, int32_t result)
{
    struct mover_buffer *buffer = container_of(op, struct mover_buffer, op);
    struct mover *mover = buffer->mover;
    if (result < 0 || (uint32_t)result != buffer->size)
        fail(mover, result < 0 ? result : -EIO, "cannot write to a segment in",
             mover->options.path);
    else
        mover->stats.written_bytes += buffer->size;
}

static struct mover_buffer *free_buffer(struct mover *mover)
{
    for (uint32_t i = 0; i < MOVER_BUFFERS; i++)
        if (!io_op_is_active(&mover->buffers[i].op))
            return &mover->buffers[i];
    return NULL;
}

static void write_chunk(struct mover *mover, struct mover_output *output,
                        struct mover_buffer *buffer)
{
    struct segment *segment = output->segment;
    struct segment_chunk_header header = {
        .directory_id = mover->options.directory_id,
        .salt = segment->salt,
        .segment = segment->number,
        .offset = output->end,
        .sequence = ++mover->sequence_last,
    };
    uint64_t read_bytes;
    uint64_t size = mover_stage_fill(&mover->stage, segment->file, output->end, buffer->data,
                                     &header, &read_bytes);
    segment_chunk_header_encode(&header, buffer->data);
    output->job_bytes += header.records_size;
    output->job_read_bytes += read_bytes;
    buffer->size = (uint32_t)size;
    buffer->output = output;
    buffer->op.done = chunk_written;
    io_write(mover->io, &buffer->op, output->handle, buffer->data, buffer->size, output->end,
             IO_WRITE_PLAIN);
    output->end += size;
    output->is_touched = true;
    segment->created =
        min_u64(segment->created, mover_stage_created(&mover->stage, segment->partition));
}

void mover_write_begin(struct mover *mover)
{
    mover_stage_begin_fill(&mover->stage);
    mover->open_partition = 0;
    mover->is_header_written = true;
    mover->sync_partition = 0;
}

static bool is_being_written(const struct mover *mover, const struct mover_output *output)
{
    for (uint32_t i = 0; i < MOVER_BUFFERS; i++)
        if (io_op_is_active(&mover->buffers[i].op) && mover->buffers[i].output == output)
            return true;
    return false;
}

static bool is_writing(const struct mover *mover)
{
    bool is_active = io_op_is_active(&mover->open_op);
    for (uint32_t i = 0; i < MOVER_BUFFERS; i++)
        is_active |= io_op_is_active(&mover->buffers[i].op);
    return is_active;
}

bool mover_write_is_active(const struct mover *mover)
{
    bool is_active = is_writing(mover);
    for (uint32_t i = 0; i < MOVER_SYNCS; i++)
        is_active |= io_op_is_active(&mover->syncs[i].op);
    return is_active;
}

static bool write_next(struct mover *mover, bool *ret_done)
{
    mover->open_partition = mover_stage_fill_partition(&mover->stage);
    if (mover->open_partition == MOVER_PARTITIONS) {
        *ret_done = !is_writing(mover) && mover_reader_settle(&mover->reader);
        return *ret_done;
    }
    struct mover_output *output = mover_output_of(mover, mover->open_partition);
    if (!make_ready(mover, output))
        return false;
    struct mover_buffer *buffer = free_buffer(mover);
    if (buffer == NULL)
        return false;
    write_chunk(mover, output, buffer);
    return true;
}

/* Passes are few when there are many requests: a chunk in each would be too slow then. */
bool mover_write_step(struct mover *mover, uint32_t chunks_max, bool *ret_done)
{
    *ret_done = false;
    bool more = true;
    for (uint32_t i = 0; i < chunks_max && more && !*ret_done; i++)
        more = write_next(mover, ret_done);
    return more;
}

/* ---- syncs ---- */

static void sync_next(struct mover_sync *sync);

static void sync_done(struct io_op *op, int32_t result)
{
    struct mover_sync *sync = container_of(op, struct mover_sync, op);
    if (sync->step == MOVER_SYNC_OPEN && result >= 0)
        sync->directory = result;
    if (result < 0 && sync->step != MOVER_SYNC_CLOSE) {
        fail(sync->mover, result, "cannot sync", sync->path);
        bool is_open = sync->step == MOVER_SYNC_NAME;
        sync->step = MOVER_SYNC_CLOSE;
        if (is_open)
            io_close_file(sync->mover->io, op, sync->directory);
        return;
    }
    sync_next(sync);
}

static void sync_next(struct mover_sync *sync)
{
    struct io *io = sync->mover->io;
    sync->op.done = sync_done;
    switch (sync->step) {
    case MOVER_SYNC_FILE:
        if (!sync->output->is_new)
            return;
        sync->step = MOVER_SYNC_OPEN;
        io_open_file(io, &sync->op, sync->path, IO_OPEN_DIRECTORY);
        break;
    case MOVER_SYNC_OPEN:
        sync->step = MOVER_SYNC_NAME;
        io_sync(io, &sync->op, sync->directory);
        break;
    case MOVER_SYNC_NAME:
        sync->output->is_new = false;
        sync->step = MOVER_SYNC_CLOSE;
        io_close_file(io, &sync->op, sync->directory);
        break;
    case MOVER_SYNC_CLOSE:
        break;
    }
}

static void sync_output(struct mover *mover, struct mover_sync *sync, uint32_t partition)
{
    sync->output = mover_output_of(mover, partition);
    sync->step = MOVER_SYNC_FILE;
    (void)snprintf(sync->path, sizeof sync->path, "%s/%02x", mover->options.path, partition);
    sync->op.done = sync_done;
    io_sync(mover->io, &sync->op, sync->output->handle);
}

/* Whether the file of `sync_partition`, the next one, waits for nothing but its sync. */
static bool has_next_to_sync(struct mover *mover)
{
    uint32_t end = mover->phase == MOVER_WRITING ? mover->open_partition : MOVER_PARTITIONS;
    while (mover->sync_partition < end &&
           !mover_output_of(mover, mover->sync_partition)->is_touched)
        mover->sync_partition++;
    return mover->sync_partition < end &&
           !is_being_written(mover, mover_output_of(mover, mover->sync_partition));
}

bool mover_sync_step(struct mover *mover)
{
    for (uint32_t i = 0; i < MOVER_SYNCS && mover->error == 0; i++) {
        struct mover_sync *sync = &mover->syncs[i];
        if (io_op_is_active(&sync->op))
            continue;
        if (!has_next_to_sync(mover))
            break;
        if (plant_is(PLANT_SKIP_SEGMENT_SYNC)) {
            mover_output_of(mover, mover->sync_partition++)->is_new = false;
            continue;
        }
        sync_output(mover, sync, mover->sync_partition++);
    }
    return mover->sync_partition == MOVER_PARTITIONS && !mover_write_is_active(mover);
}
