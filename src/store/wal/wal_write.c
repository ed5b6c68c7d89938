/* From the queue onto the disk. */
#include "store/wal/wal_internal.h"
#include "base/plant.h"

#include <errno.h>
#include <string.h>

void wal_fail(struct wal *wal, int error, const char *what)
{
    assert(error < 0);
    if (wal->failed != 0)
        return;
    wal->failed = error;
    wal_judge_hindrance(wal);
    log_error(wal->log, "%s: %s failed: %s", wal->directory, what, strerror(-error));
    if (!wal->is_opening && wal->options.events.failed != NULL)
        wal->options.events.failed(wal->options.events.context, error);
}

void wal_tell_room(struct wal *wal)
{
    if (!wal->room_wanted)
        return;
    wal->room_wanted = false;
    if (wal->options.events.room != NULL)
        wal->options.events.room(wal->options.events.context);
}

/* Whether the buffer's bytes are on stable media only after a sync. Without durability (WAL_NONE)
 * nothing waits for that but the ends of a segment, so that segments can be recycled. */
static bool needs_sync(const struct wal_buffer *buffer)
{
    if (buffer->wal->options.durability == WAL_NONE)
        return buffer->kind == WAL_BUFFER_SEAL || buffer->kind == WAL_BUFFER_HEADER;
    return !buffer->wal->options.use_dsync;
}

static bool proves_durable(const struct wal_buffer *buffer)
{
    return buffer->wal->options.durability != WAL_NONE || buffer->kind == WAL_BUFFER_SEAL;
}

static uint32_t write_size(const struct wal_buffer *buffer)
{
    return (uint32_t)round_up(buffer->used, WAL_BLOCK_SIZE);
}

static uint64_t clock_ceiling(const struct wal *wal)
{
    uint64_t ahead = version_clock_from_ms(WAL_CLOCK_AHEAD_MS);
    uint64_t ceiling = wal->clock_max > UINT64_MAX - ahead ? UINT64_MAX : wal->clock_max + ahead;
    return max_u64(ceiling, wal->clock_recovered);
}

/* ---- starting ---- */

/* Headers are written at the last moment, so that `durable` is as new as can be. */
static void finish_batch(const struct wal *wal, struct wal_buffer *buffer)
{
    const struct log_file_header *segment = &buffer->segment->header;
    struct wal_batch_header header = {
        .flags = buffer->kind == WAL_BUFFER_SEAL ? WAL_BATCH_SEAL : 0,
        .directory_id = segment->directory_id,
        .log_id = segment->log_id,
        .generation = segment->generation,
        .salt = segment->salt,
        .segment = segment->number,
        .offset = buffer->offset,
        .position_first = buffer->position_first,
        .record_count = buffer->record_count,
        .payload_size = buffer->used - WAL_BATCH_HEADER_SIZE,
        .durable = wal->durable,
        .clock_ceiling = clock_ceiling(wal),
        .generation_base = segment->generation_base,
    };
    wal_batch_header_encode(&header, buffer->data);
}

void wal_finish_header(struct wal *wal, struct log_file *segment, uint8_t *block)
{
    struct wal_listing listing;
    wal_list_segments(wal, segment->header.number, &listing);
    segment->header.durable = wal->durable;
    segment->header.clock_ceiling = clock_ceiling(wal);
    segment->header.number_durable = wal->number_durable;
    segment->header.note = wal_note(wal);
    log_file_header_encode(&segment->header, &listing, block);
}

static void settle(struct wal *wal);

static void write_done(struct io_op *op, int32_t result)
{
    struct wal_buffer *buffer = container_of(op, struct wal_buffer, op);
    struct wal *wal = buffer->wal;
    if (wal->failed != 0)
        return;
    if (result < 0 || (uint32_t)result != write_size(buffer)) {
        wal_fail(wal, result < 0 ? result : -EIO, "a write");
        return;
    }
    wal->stats.batches += buffer->kind != WAL_BUFFER_HEADER;
    wal->stats.bytes_written += write_size(buffer);
    buffer->state = needs_sync(buffer) ? WAL_BUFFER_WRITTEN : WAL_BUFFER_STABLE;
    if (buffer->state == WAL_BUFFER_STABLE)
        wal->in_flight--;
    settle(wal);
}

static void start_write(struct wal *wal, struct wal_buffer *buffer)
{
    assert(buffer->state == WAL_BUFFER_QUEUED);
    if (buffer->kind == WAL_BUFFER_HEADER)
        wal_finish_header(wal, buffer->segment, buffer->data);
    else
        finish_batch(wal, buffer);
    bool dsync = wal->options.use_dsync && wal->options.durability != WAL_NONE;
    buffer->state = WAL_BUFFER_WRITING;
    wal->queued_count--;
    wal->in_flight++;
    buffer->op.done = write_done;
    io_write(wal->io, &buffer->op, buffer->segment->handle, buffer->data, write_size(buffer),
             buffer->offset, dsync ? IO_WRITE_DSYNC : IO_WRITE_PLAIN);
    if (plant_is(PLANT_ACK_BEFORE_SYNC)) {
        wal->durable = max_u64(wal->durable, wal_buffer_position_last(buffer));
        wal->options.events.durable(wal->options.events.context, wal->durable);
    }
}

void wal_pump(struct wal *wal)
{
    if (wal->failed != 0 || wal->queued_count == 0)
        return;
    struct list_node *node = list_first(&wal->queue);
    while (node != NULL && wal->queued_count > 0 &&
           wal->in_flight < wal->options.writes_in_flight) {
        struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
        node = list_next(&wal->queue, node);
        if (buffer->state == WAL_BUFFER_QUEUED)
            start_write(wal, buffer);
    }
}

/* ---- finishing ---- */

static void sync_done(struct io_op *op, int32_t result)
{
    struct wal *wal = container_of(op, struct wal, sync);
    if (wal->failed != 0)
        return;
    if (result < 0) {
        wal_fail(wal, result, "a sync");
        return;
    }
    for (struct list_node *node = list_first(&wal->queue); node != NULL;
         node = list_next(&wal->queue, node)) {
        struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
        if (buffer->state != WAL_BUFFER_SYNCING)
            break;
        buffer->state = WAL_BUFFER_STABLE;
        wal->in_flight--;
    }
    settle(wal);
}

/* One sync covers what was written at the head of the queue, as far as it lies in one file. */
static void start_sync(struct wal *wal)
{
    struct list_node *node = list_first(&wal->queue);
    if (node == NULL || io_op_is_active(&wal->sync))
        return;
    struct log_file *segment = container_of(node, struct wal_buffer, node)->segment;
    bool any = false;
    for (; node != NULL; node = list_next(&wal->queue, node)) {
        struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
        if (buffer->state != WAL_BUFFER_WRITTEN || buffer->segment != segment)
            break;
        buffer->state = WAL_BUFFER_SYNCING;
        any = true;
    }
    if (!any)
        return;
    wal->sync.done = sync_done;
    io_sync(wal->io, &wal->sync, segment->handle);
}

static void release(struct wal *wal, struct wal_buffer *buffer)
{
    struct log_file *segment = buffer->segment;
    if (proves_durable(buffer)) {
        wal->durable = max_u64(wal->durable, wal_buffer_position_last(buffer));
        wal->number_durable = max_u64(wal->number_durable, segment->header.number);
    }
    if (buffer->kind == WAL_BUFFER_HEADER)
        wal->number_durable = max_u64(wal->number_durable, segment->header.number);
    list_remove(&buffer->node);
    buffer->state = WAL_BUFFER_FREE;
    buffer->segment = NULL;
    list_push_front(buffer->home, &buffer->node);
    if (buffer->kind != WAL_BUFFER_SEAL)
        return;
    segment->is_settled = true;
    log_file_check(wal, segment);
}

/* Lets go what is stable, in log order, starts what can start, and tells. */
static void settle(struct wal *wal)
{
    uint64_t durable = wal->durable;
    bool released = false;
    struct list_node *node;
    while ((node = list_first(&wal->queue)) != NULL) {
        struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
        if (buffer->state != WAL_BUFFER_STABLE)
            break;
        release(wal, buffer);
        released = true;
    }
    start_sync(wal);
    wal_pump(wal);
    if (released)
        wal_keep(wal);
    if (wal->durable > durable && wal->options.events.durable != NULL)
        wal->options.events.durable(wal->options.events.context, wal->durable);
    if (released)
        wal_tell_room(wal);
}

/* ---- when ---- */

static uint64_t delay_ns(const struct wal *wal)
{
    return wal->options.durability == WAL_INTERVAL ? WAL_INTERVAL_MS * NS_PER_MS : NS_PER_S;
}

static void timer_done(struct io_op *op, int32_t result)
{
    struct wal *wal = container_of(op, struct wal, timer);
    if (result == 0 && !wal->is_shutting)
        wal_flush(wal);
}

/* Whether the open buffer is to go out now. If only later, a timer wakes the loop for it. */
static bool is_due(struct wal *wal)
{
    if (wal->options.durability == WAL_COMMIT)
        return wal->queued_count == 0 && wal->in_flight < wal->options.writes_in_flight;
    uint64_t deadline_ns = wal->open->opened_ns + delay_ns(wal);
    if (io_now_ns(wal->io) >= deadline_ns)
        return true;
    if (!io_op_is_active(&wal->timer)) {
        wal->timer.done = timer_done;
        io_timer(wal->io, &wal->timer, deadline_ns);
    }
    return false;
}

void wal_flush(struct wal *wal)
{
    if (wal->open == NULL || wal->failed != 0 || !is_due(wal))
        return;
    wal_close_buffer(wal);
    wal_pump(wal);
}
