/* Records into buffers, buffers onto the disk, in log order. */
#include "store/wal/wal_buffers.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "base/plant.h"
#include "store/disk/wait.h"
#include "store/memory/location.h"
#include "store/wal/wal_internal.h"
#include "store/wal/wal_recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define JUMBO_BUFFERS 2u
#define BLOCKS 8u /* for seals and headers: four changes of file */
#define CLOCK_AHEAD_MS 250

#define MAY_BECOME(state) (1u << (state))

/* ---- memory ---- */

/* 0: every record fits an ordinary buffer. */
static uint64_t jumbo_size(const struct wal_options *options)
{
    uint64_t size = wal_buffers_space(round_up(options->record_size_max, WAL_RECORD_ALIGNMENT));
    return size > options->buffer_size ? size : 0;
}

uint64_t wal_buffers_memory_size(const struct wal_options *options)
{
    return (uint64_t)options->buffer_size * options->buffer_count +
           JUMBO_BUFFERS * jumbo_size(options) + BLOCKS * (uint64_t)WAL_BLOCK_SIZE;
}

uint64_t wal_buffers_batch_max(const struct wal_options *options)
{
    return max_u64(jumbo_size(options), options->buffer_size);
}

static void add_buffers(struct wal_buffers *buffers, struct list *home, uint32_t count,
                        uint64_t size, enum wal_buffer_kind kind, uint8_t **memory)
{
    list_init(home);
    for (uint32_t i = 0; i < count; i++) {
        struct wal_buffer *buffer = &buffers->all[buffers->count++];
        buffer->buffers = buffers;
        buffer->home = home;
        buffer->kind = kind;
        buffer->capacity = (uint32_t)size;
        buffer->data = *memory;
        *memory += size;
        list_push_back(home, &buffer->node);
    }
}

int wal_buffers_init(struct wal_buffers *buffers, struct io *io, const struct wal_options *options,
                     struct wal_files *files, const struct wal_driver *driver)
{
    assert(options->writes_in_flight == 1 || options->writes_in_flight == 2);
    assert((uintptr_t)options->memory % WAL_BLOCK_SIZE == 0);
    uint64_t jumbo = jumbo_size(options);
    uint32_t jumbo_count = jumbo > 0 ? JUMBO_BUFFERS : 0;
    uint32_t count = options->buffer_count + jumbo_count + BLOCKS;
    uint64_t position = wal_files_position_recovered(files);
    buffers->io = io;
    buffers->options = options;
    buffers->files = files;
    buffers->driver = *driver;
    buffers->position_last = buffers->position_queued = buffers->durable = position;
    list_init(&buffers->queue);
    buffers->all = calloc(count, sizeof *buffers->all);
    if (buffers->all == NULL)
        return -ENOMEM;
    uint8_t *memory = options->memory;
    add_buffers(buffers, &buffers->free_ordinary, options->buffer_count, options->buffer_size,
                WAL_BUFFER_ORDINARY, &memory);
    add_buffers(buffers, &buffers->free_jumbo, jumbo_count, jumbo, WAL_BUFFER_JUMBO, &memory);
    add_buffers(buffers, &buffers->free_blocks, BLOCKS, WAL_BLOCK_SIZE, WAL_BUFFER_HEADER, &memory);
    assert(buffers->count == count);
    assert(memory == options->memory + wal_buffers_memory_size(options));
    return 0;
}

void wal_buffers_deinit(struct wal_buffers *buffers)
{
    free(buffers->all);
    buffers->all = NULL;
}

/* ---- states ---- */

/* Each change of a buffer's state: wal_buffers.h shows the ways. */
static void set_state(struct wal_buffer *buffer, enum wal_buffer_state state)
{
    static const uint32_t ways[] = {
        [WAL_BUFFER_FREE] = MAY_BECOME(WAL_BUFFER_OPEN) | MAY_BECOME(WAL_BUFFER_QUEUED),
        [WAL_BUFFER_OPEN] = MAY_BECOME(WAL_BUFFER_QUEUED),
        [WAL_BUFFER_QUEUED] = MAY_BECOME(WAL_BUFFER_WRITING),
        [WAL_BUFFER_WRITING] = MAY_BECOME(WAL_BUFFER_WRITTEN) | MAY_BECOME(WAL_BUFFER_STABLE),
        [WAL_BUFFER_WRITTEN] = MAY_BECOME(WAL_BUFFER_SYNCING),
        [WAL_BUFFER_SYNCING] = MAY_BECOME(WAL_BUFFER_STABLE),
        [WAL_BUFFER_STABLE] = MAY_BECOME(WAL_BUFFER_FREE),
    };
    struct wal_buffers *buffers = buffer->buffers;
    assert((ways[buffer->state] & MAY_BECOME(state)) != 0); /* invariant 1 */
    buffers->queued_count += state == WAL_BUFFER_QUEUED;
    buffers->queued_count -= state == WAL_BUFFER_WRITING;
    buffers->in_flight += state == WAL_BUFFER_WRITING;
    buffers->in_flight -= state == WAL_BUFFER_STABLE;
    assert(buffers->in_flight <= buffers->options->writes_in_flight); /* invariant 4 */
    assert(buffers->queued_count <= buffers->count);                  /* invariant 4 */
    buffer->state = state;
}

static struct wal_buffer *first_queued(const struct wal_buffers *buffers)
{
    struct list_node *first = list_first(&buffers->queue);
    return first != NULL ? container_of(first, struct wal_buffer, node) : NULL;
}

static struct wal_buffer *next_queued(const struct wal_buffers *buffers,
                                      const struct wal_buffer *buffer)
{
    struct list_node *next = list_next(&buffers->queue, &buffer->node);
    return next != NULL ? container_of(next, struct wal_buffer, node) : NULL;
}

static uint64_t position_last(const struct wal_buffer *buffer)
{
    return buffer->position_first + buffer->record_count - 1;
}

static void enqueue(struct wal_buffers *buffers, struct wal_buffer *buffer)
{
    assert(buffer->position_first == buffers->position_queued + 1); /* invariant 2 */
    assert(buffer->offset % WAL_BLOCK_SIZE == 0);                   /* invariant 7 */
    set_state(buffer, WAL_BUFFER_QUEUED);
    list_push_back(&buffers->queue, &buffer->node);
    buffers->position_queued = position_last(buffer);
    assert(buffers->position_queued <= buffers->position_last); /* invariant 3 */
}

/* ---- appending ---- */

uint64_t wal_buffers_space(uint64_t padded_size)
{
    return round_up(WAL_BATCH_HEADER_SIZE + padded_size, WAL_BLOCK_SIZE);
}

static struct wal_buffer *take_buffer(struct wal_buffers *buffers, uint64_t space)
{
    bool is_ordinary = space <= buffers->options->buffer_size;
    struct list_node *node =
        list_pop_front(is_ordinary ? &buffers->free_ordinary : &buffers->free_jumbo);
    if (node == NULL)
        return NULL;
    struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
    const struct wal_buffer *first = first_queued(buffers);
    if (plant_is(PLANT_REUSE_BUFFER) && first != NULL && first->kind == buffer->kind)
        buffer->data = first->data;
    return buffer;
}

bool wal_buffers_open(struct wal_buffers *buffers, uint64_t space)
{
    assert(buffers->open == NULL);
    assert(buffers->position_queued == buffers->position_last); /* invariant 2 */
    struct wal_buffer *buffer = take_buffer(buffers, space);
    if (buffer == NULL)
        return false;
    set_state(buffer, WAL_BUFFER_OPEN);
    buffer->file = wal_files_get_open(buffers->files);
    buffer->file_index = log_file_index(buffer->file);
    buffer->offset = log_file_end(buffer->file);
    buffer->limit = (uint32_t)min_u64(buffer->capacity, wal_files_room(buffers->files));
    buffer->used = WAL_BATCH_HEADER_SIZE;
    buffer->record_count = 0;
    buffer->position_first = buffers->position_last + 1;
    assert(space <= buffer->limit); /* invariant 6 */
    if (buffers->options->durability != WAL_COMMIT)
        buffer->opened_ns = io_now_ns(buffers->io);
    buffers->open = buffer;
    return true;
}

void wal_buffers_add(struct wal_buffers *buffers, struct record *record, uint64_t padded_size,
                     struct wal_receipt *ret_receipt)
{
    struct wal_buffer *buffer = buffers->open;
    assert(padded_size <= buffer->limit - buffer->used); /* invariant 6 */
    uint8_t *target = buffer->data + buffer->used;
    record->position = ++buffers->position_last;
    store_u64(target + padded_size - WAL_RECORD_ALIGNMENT, 0);
    record_encode(record, target);
    ret_receipt->position = record->position;
    ret_receipt->location = location_in_log(buffer->file_index, buffer->offset + buffer->used);
    buffer->used += (uint32_t)padded_size;
    buffer->record_count++;
    wal_files_record_added(buffer->file);
    buffers->clock_max = max_u64(buffers->clock_max, record->version.clock);
}

void wal_buffers_close(struct wal_buffers *buffers)
{
    struct wal_buffer *buffer = buffers->open;
    if (buffer == NULL)
        return;
    assert(buffer->record_count > 0);
    assert(buffer->used % WAL_RECORD_ALIGNMENT == 0); /* invariant 6 */
    uint64_t size = round_up(buffer->used, WAL_BLOCK_SIZE);
    memset(buffer->data + buffer->used, 0, size - buffer->used);
    assert(log_file_end(buffer->file) == buffer->offset); /* invariant 7 */
    wal_files_take(buffers->files, buffer->file, size);
    buffers->open = NULL;
    enqueue(buffers, buffer);
    wal_buffers_pump(buffers);
}

/* ---- seals and headers of files ---- */

/* Whether there are blocks for the seal of one file and the header of the next. */
static bool has_blocks(const struct wal_buffers *buffers)
{
    const struct list_node *first = list_first(&buffers->free_blocks);
    return first != NULL && list_next(&buffers->free_blocks, first) != NULL;
}

/* Queues a block of the open file. */
static void queue_block(struct wal_buffers *buffers, enum wal_buffer_kind kind)
{
    assert(buffers->open == NULL);
    struct list_node *node = list_pop_front(&buffers->free_blocks);
    assert(node != NULL);
    struct wal_buffer *block = container_of(node, struct wal_buffer, node);
    block->kind = kind;
    block->file = wal_files_get_open(buffers->files);
    block->file_index = log_file_index(block->file);
    block->offset = kind == WAL_BUFFER_SEAL ? log_file_end(block->file) : 0;
    block->position_first = buffers->position_last + 1;
    block->record_count = 0;
    block->used = WAL_BATCH_HEADER_SIZE;
    memset(block->data, 0, WAL_BLOCK_SIZE);
    enqueue(buffers, block);
}

void wal_buffers_seal(struct wal_buffers *buffers)
{
    queue_block(buffers, WAL_BUFFER_SEAL);
    wal_files_seal(buffers->files, buffers->position_last);
}

static void open_spare(struct wal_buffers *buffers)
{
    uint64_t salt = 0;
    while (salt == 0)
        io_random(buffers->io, &salt, sizeof salt);
    wal_files_open_spare(buffers->files, buffers->position_last, salt);
}

bool wal_buffers_next_file(struct wal_buffers *buffers)
{
    if (!has_blocks(buffers))
        return false;
    wal_buffers_seal(buffers);
    open_spare(buffers);
    queue_block(buffers, WAL_BUFFER_HEADER);
    wal_buffers_pump(buffers);
    return true;
}

static uint64_t clock_ceiling(const struct wal_buffers *buffers)
{
    uint64_t ahead = version_clock_from_ms(CLOCK_AHEAD_MS);
    uint64_t ceiling =
        buffers->clock_max > UINT64_MAX - ahead ? UINT64_MAX : buffers->clock_max + ahead;
    return max_u64(ceiling, wal_files_clock_recovered(buffers->files));
}

int wal_buffers_begin(struct wal_buffers *buffers)
{
    assert(list_is_empty(&buffers->queue));
    struct wal_files *files = buffers->files;
    uint8_t *block = container_of(list_first(&buffers->free_blocks), struct wal_buffer, node)->data;
    open_spare(buffers);
    int error = wal_recover_seal_old(files, buffers->io, block);
    if (error < 0)
        return error;
    struct log_file *file = wal_files_get_open(files);
    wal_files_encode_header(files, file, buffers->durable, clock_ceiling(buffers), block);
    error = disk_wait_write(buffers->io, log_file_handle(file), block, WAL_BLOCK_SIZE, 0);
    if (error < 0)
        return error;
    wal_files_note_durable(files, file);
    return wal_recover_cut_old(files, buffers->io);
}

/* ---- starting writes ---- */

/* Whether the buffer's bytes are on stable media only after a sync. Without durability (WAL_NONE)
 * nothing waits for that but the ends of a file, so that files can be recycled. */
static bool needs_sync(const struct wal_buffer *buffer)
{
    const struct wal_options *options = buffer->buffers->options;
    if (options->durability == WAL_NONE)
        return buffer->kind == WAL_BUFFER_SEAL || buffer->kind == WAL_BUFFER_HEADER;
    return !options->use_dsync;
}

static uint32_t write_size(const struct wal_buffer *buffer)
{
    return (uint32_t)round_up(buffer->used, WAL_BLOCK_SIZE);
}

/* Headers are written at the last moment, so that `durable` is as new as can be. */
static void finish_batch(const struct wal_buffers *buffers, struct wal_buffer *buffer)
{
    assert(buffers->durable < buffer->position_first); /* invariant 3 */
    struct wal_batch_header header = {
        .flags = buffer->kind == WAL_BUFFER_SEAL ? WAL_BATCH_SEAL : 0,
        .offset = buffer->offset,
        .position_first = buffer->position_first,
        .record_count = buffer->record_count,
        .payload_size = buffer->used - WAL_BATCH_HEADER_SIZE,
        .durable = buffers->durable,
        .clock_ceiling = clock_ceiling(buffers),
    };
    log_file_identify(buffer->file, &header);
    wal_batch_header_encode(&header, buffer->data);
}

static void write_done(struct io_op *op, int32_t result);

static void start_write(struct wal_buffers *buffers, struct wal_buffer *buffer)
{
    if (buffer->kind == WAL_BUFFER_HEADER)
        wal_files_encode_header(buffers->files, buffer->file, buffers->durable,
                                clock_ceiling(buffers), buffer->data);
    else
        finish_batch(buffers, buffer);
    bool dsync = buffers->options->use_dsync && buffers->options->durability != WAL_NONE;
    set_state(buffer, WAL_BUFFER_WRITING);
    buffer->op.done = write_done;
    io_write(buffers->io, &buffer->op, log_file_handle(buffer->file), buffer->data,
             write_size(buffer), buffer->offset, dsync ? IO_WRITE_DSYNC : IO_WRITE_PLAIN);
    if (plant_is(PLANT_ACK_BEFORE_SYNC)) {
        buffers->durable = max_u64(buffers->durable, position_last(buffer));
        buffers->options->events.durable(buffers->options->events.context, buffers->durable);
    }
}

void wal_buffers_pump(struct wal_buffers *buffers)
{
    if (buffers->has_failed || buffers->queued_count == 0)
        return;
    struct wal_buffer *buffer = first_queued(buffers);
    while (buffer != NULL && buffers->queued_count > 0 &&
           buffers->in_flight < buffers->options->writes_in_flight) {
        struct wal_buffer *next = next_queued(buffers, buffer);
        if (buffer->state == WAL_BUFFER_QUEUED)
            start_write(buffers, buffer);
        buffer = next;
    }
}

/* ---- finishing ---- */

static void settle(struct wal_buffers *buffers);

static void write_done(struct io_op *op, int32_t result)
{
    struct wal_buffer *buffer = container_of(op, struct wal_buffer, op);
    struct wal_buffers *buffers = buffer->buffers;
    if (buffers->has_failed)
        return;
    if (result < 0 || (uint32_t)result != write_size(buffer)) {
        buffers->driver.failed(buffers->driver.context, result < 0 ? result : -EIO, "a write");
        return;
    }
    buffers->batches += buffer->kind != WAL_BUFFER_HEADER;
    buffers->bytes_written += write_size(buffer);
    set_state(buffer, needs_sync(buffer) ? WAL_BUFFER_WRITTEN : WAL_BUFFER_STABLE);
    settle(buffers);
}

static void sync_done(struct io_op *op, int32_t result)
{
    struct wal_buffers *buffers = container_of(op, struct wal_buffers, sync);
    if (buffers->has_failed)
        return;
    if (result < 0) {
        buffers->driver.failed(buffers->driver.context, result, "a sync");
        return;
    }
    for (struct wal_buffer *buffer = first_queued(buffers);
         buffer != NULL && buffer->state == WAL_BUFFER_SYNCING; /* invariant 5 */
         buffer = next_queued(buffers, buffer))
        set_state(buffer, WAL_BUFFER_STABLE);
    settle(buffers);
}

/* One sync covers what was written at the head of the queue, as far as it lies in one file. */
static void start_sync(struct wal_buffers *buffers)
{
    struct wal_buffer *first = first_queued(buffers);
    if (first == NULL || io_op_is_active(&buffers->sync))
        return;
    struct log_file *file = first->file;
    bool any = false;
    for (struct wal_buffer *buffer = first; buffer != NULL; buffer = next_queued(buffers, buffer)) {
        if (buffer->state != WAL_BUFFER_WRITTEN || buffer->file != file)
            break;
        set_state(buffer, WAL_BUFFER_SYNCING);
        any = true;
    }
    if (!any)
        return;
    buffers->sync.done = sync_done;
    io_sync(buffers->io, &buffers->sync, log_file_handle(file));
}

static void release(struct wal_buffers *buffers, struct wal_buffer *buffer)
{
    struct log_file *file = buffer->file;
    bool is_seal = buffer->kind == WAL_BUFFER_SEAL;
    bool proves_durable = buffers->options->durability != WAL_NONE || is_seal;
    if (proves_durable)
        buffers->durable = max_u64(buffers->durable, position_last(buffer));
    assert(buffers->durable <= buffers->position_queued); /* invariant 3 */
    if (proves_durable || buffer->kind == WAL_BUFFER_HEADER)
        wal_files_note_durable(buffers->files, file);
    list_remove(&buffer->node);
    set_state(buffer, WAL_BUFFER_FREE);
    buffer->file = NULL;
    list_push_front(buffer->home, &buffer->node);
    if (is_seal)
        wal_files_settle(buffers->files, file);
}

/* Lets go what is stable, in log order, starts what can start, and tells. */
static void settle(struct wal_buffers *buffers)
{
    uint64_t durable = buffers->durable;
    bool any = false;
    struct wal_buffer *first;
    while ((first = first_queued(buffers)) != NULL && first->state == WAL_BUFFER_STABLE) {
        release(buffers, first);
        any = true;
    }
    start_sync(buffers);
    wal_buffers_pump(buffers);
    if (any)
        buffers->driver.changed(buffers->driver.context, buffers->durable > durable);
}

void wal_buffers_fail(struct wal_buffers *buffers)
{
    buffers->has_failed = true;
}

void wal_buffers_note_synced(struct wal_buffers *buffers)
{
    assert(buffers->open == NULL);
    assert(list_is_empty(&buffers->queue));
    assert(buffers->position_queued == buffers->position_last); /* invariant 3 */
    buffers->durable = buffers->position_last;
}

/* ---- when ---- */

static uint64_t delay_ns(const struct wal_buffers *buffers)
{
    return buffers->options->durability == WAL_INTERVAL ? WAL_INTERVAL_MS * NS_PER_MS : NS_PER_S;
}

static void timer_done(struct io_op *op, int32_t result)
{
    if (result == 0)
        wal_buffers_flush(container_of(op, struct wal_buffers, timer));
}

/* Whether the open buffer is to go out now. If only later, a timer wakes the loop for it. */
static bool is_due(struct wal_buffers *buffers)
{
    if (buffers->options->durability == WAL_COMMIT)
        return buffers->queued_count == 0 &&
               buffers->in_flight < buffers->options->writes_in_flight;
    uint64_t deadline_ns = buffers->open->opened_ns + delay_ns(buffers);
    if (io_now_ns(buffers->io) >= deadline_ns)
        return true;
    if (!io_op_is_active(&buffers->timer)) {
        buffers->timer.done = timer_done;
        io_timer(buffers->io, &buffers->timer, deadline_ns);
    }
    return false;
}

void wal_buffers_flush(struct wal_buffers *buffers)
{
    if (buffers->open != NULL && !buffers->has_failed && is_due(buffers))
        wal_buffers_close(buffers);
}

void wal_buffers_stop(struct wal_buffers *buffers)
{
    if (buffers->io != NULL) /* else the log was never opened */
        io_cancel(buffers->io, &buffers->timer);
}

bool wal_buffers_are_busy(const struct wal_buffers *buffers)
{
    if (io_op_is_active(&buffers->timer) || io_op_is_active(&buffers->sync))
        return true;
    for (uint32_t i = 0; i < buffers->count; i++) {
        if (io_op_is_active(&buffers->all[i].op))
            return true;
    }
    return false;
}

bool wal_buffers_are_drained(const struct wal_buffers *buffers)
{
    return list_is_empty(&buffers->queue);
}

/* ---- asking ---- */

uint64_t wal_durable(const struct wal *wal)
{
    return wal_buffers_durable(wal_buffers_of(wal));
}

uint64_t wal_last(const struct wal *wal)
{
    return wal_buffers_of(wal)->position_last;
}

const uint8_t *wal_buffers_peek(const struct wal_buffers *buffers, uint32_t file_index,
                                uint64_t offset)
{
    const struct wal_buffer *open = buffers->open;
    if (open != NULL && open->file_index == file_index && offset >= open->offset)
        return offset - open->offset < open->used ? open->data + (offset - open->offset) : NULL;
    for (const struct list_node *node = list_last(&buffers->queue);
         node != NULL && node != &buffers->queue.head; node = node->prev) {
        const struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
        if (buffer->file_index == file_index && offset >= buffer->offset &&
            offset - buffer->offset < buffer->used)
            return buffer->data + (offset - buffer->offset);
    }
    return NULL;
}

uint64_t wal_buffers_readable_end(const struct wal_buffers *buffers, uint32_t file_index,
                                  uint64_t end)
{
    for (const struct wal_buffer *buffer = first_queued(buffers); buffer != NULL;
         buffer = next_queued(buffers, buffer))
        end = buffer->file_index == file_index ? min_u64(end, buffer->offset) : end;
    return end;
}

void wal_buffers_stats(const struct wal_buffers *buffers, struct wal_stats *stats)
{
    stats->batches += buffers->batches;
    stats->bytes_written += buffers->bytes_written;
}
