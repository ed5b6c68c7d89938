#include "store/wal/wal_internal.h"
#include "base/plant.h"
#include "store/memory/location.h"

#include <errno.h>

static uint64_t batch_space(uint64_t records_size)
{
    return round_up(WAL_BATCH_HEADER_SIZE + records_size, WAL_BLOCK_SIZE);
}

/* Bytes that batches may still take in the open segment: the seal always fits behind them. */
static uint64_t segment_room(const struct wal *wal)
{
    return wal->segment->size - wal->segment->end - WAL_BLOCK_SIZE;
}

void wal_close_buffer(struct wal *wal)
{
    struct wal_buffer *buffer = wal->open;
    assert(buffer->state == WAL_BUFFER_OPEN);
    assert(buffer->record_count > 0);
    uint64_t size = round_up(buffer->used, WAL_BLOCK_SIZE);
    memset(buffer->data + buffer->used, 0, size - buffer->used);
    buffer->segment->end += size;
    buffer->state = WAL_BUFFER_QUEUED;
    list_push_back(&wal->queue, &buffer->node);
    wal->queued_count++;
    wal->open = NULL;
}

static int wait_for_room(struct wal *wal)
{
    wal->room_wanted = true;
    return -EAGAIN;
}

/* On a full disk only as long as there is hope. */
static int wait_for_segment(struct wal *wal)
{
    const struct wal_events *events = &wal->options.events;
    bool may_clear = !wal->disk_full || wal_is_clearing(wal) ||
                     (events->may_clear != NULL && events->may_clear(events->context));
    return may_clear ? wait_for_room(wal) : -ENOSPC;
}

/* The last spare segment is kept for deletes, which make room in the end: a set waits for another
 * one, in the open segment as well when deletes have taken the last. */
static int next_segment(struct wal *wal, bool is_tombstone)
{
    uint32_t needed = is_tombstone ? 1 : 2;
    if (wal->spare_count < needed) {
        wal_keep(wal);
        return wait_for_segment(wal);
    }
    const struct list_node *first = list_first(&wal->free_blocks);
    if (first == NULL || list_next(&wal->free_blocks, first) == NULL)
        return wait_for_room(wal);
    wal_change_segment(wal);
    wal_keep(wal);
    return 0;
}

static struct wal_buffer *take_buffer(struct wal *wal, uint64_t space)
{
    bool is_ordinary = space <= wal->options.buffer_size;
    struct list_node *node = list_pop_front(is_ordinary ? &wal->free_ordinary : &wal->free_jumbo);
    if (node == NULL)
        return NULL;
    struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
    assert(buffer->state == WAL_BUFFER_FREE);
    assert(space <= buffer->capacity);
    struct list_node *first = plant_is(PLANT_REUSE_BUFFER) ? list_first(&wal->queue) : NULL;
    if (first != NULL && container_of(first, struct wal_buffer, node)->kind == buffer->kind)
        buffer->data = container_of(first, struct wal_buffer, node)->data;
    return buffer;
}

static void open_buffer(struct wal *wal, struct wal_buffer *buffer)
{
    buffer->state = WAL_BUFFER_OPEN;
    buffer->segment = wal->segment;
    buffer->offset = wal->segment->end;
    buffer->limit = (uint32_t)min_u64(buffer->capacity, segment_room(wal));
    buffer->used = WAL_BATCH_HEADER_SIZE;
    buffer->record_count = 0;
    buffer->position_first = wal->position_last + 1;
    if (wal->options.durability != WAL_COMMIT)
        buffer->opened_ns = io_now_ns(wal->io);
    wal->open = buffer;
}

/* Sees to it that the open buffer has room for a record of `size` bytes. */
static int make_room(struct wal *wal, uint64_t size, bool is_tombstone)
{
    if (size > wal->options.record_size_max)
        return -EFBIG;
    if (wal->open != NULL) {
        wal_close_buffer(wal);
        wal_pump(wal);
    }
    uint64_t space = batch_space(round_up(size, WAL_RECORD_ALIGNMENT));
    if (space > segment_room(wal)) {
        int error = next_segment(wal, is_tombstone);
        if (error < 0)
            return error;
    }
    struct wal_buffer *buffer = take_buffer(wal, space);
    if (buffer == NULL)
        return wait_for_room(wal);
    open_buffer(wal, buffer);
    return 0;
}

static int admit(struct wal *wal, bool is_tombstone)
{
    if (wal->failed != 0 || wal->is_shutting)
        return -EIO;
    if (wal->spare_count > 0 || is_tombstone)
        return 0;
    return wait_for_segment(wal);
}

/* Files that have to stay only because the newest header lists them. */
static bool wants_header(const struct wal *wal)
{
    const struct list_node *first = list_first(&wal->marked);
    const struct log_file *marked =
        first != NULL ? container_of(first, const struct log_file, node) : wal_surplus(wal);
    return marked != NULL && wal->number_durable == wal->number &&
           !log_file_is_unlisted(wal, marked);
}

static bool roll(struct wal *wal, bool is_worth_it)
{
    if (!is_worth_it || wal->failed != 0 || wal->is_shutting ||
        wal->spare_count < WAL_SPARES_WANTED)
        return false;
    if (wal->open != NULL) {
        wal_close_buffer(wal);
        wal_pump(wal);
    }
    return next_segment(wal, false) == 0;
}

bool wal_shed(struct wal *wal)
{
    return roll(wal, wants_header(wal));
}

bool wal_roll(struct wal *wal)
{
    return roll(wal, wal->position_last > wal->segment->header.last_before || wants_header(wal));
}

int wal_append(struct wal *wal, struct record *record, struct wal_receipt *ret_receipt)
{
    uint64_t size = record_size(record->key.size, record->value.size);
    uint64_t padded = round_up(size, WAL_RECORD_ALIGNMENT);
    bool is_tombstone = (record->flags & RECORD_TOMBSTONE) != 0;
    int error = wal->is_hindered ? admit(wal, is_tombstone) : 0;
    if (error == 0 && (wal->open == NULL || wal->open->limit - wal->open->used < padded))
        error = make_room(wal, size, is_tombstone);
    if (error < 0)
        return error;
    struct wal_buffer *buffer = wal->open;
    uint8_t *target = buffer->data + buffer->used;
    record->position = ++wal->position_last;
    store_u64(target + padded - WAL_RECORD_ALIGNMENT, 0);
    record_encode(record, target);
    ret_receipt->position = record->position;
    ret_receipt->location = location_in_log(buffer->segment->file, buffer->offset + buffer->used);
    buffer->used += (uint32_t)padded;
    buffer->record_count++;
    buffer->segment->live++;
    wal->clock_max = max_u64(wal->clock_max, record->version.clock);
    return 0;
}

const uint8_t *wal_peek(const struct wal *wal, uint64_t location)
{
    uint32_t file = location_file(location);
    uint64_t offset = location_offset(location);
    const struct wal_buffer *open = wal->open;
    if (open != NULL && open->segment->file == file && offset >= open->offset)
        return offset - open->offset < open->used ? open->data + (offset - open->offset) : NULL;
    for (const struct list_node *node = list_last(&wal->queue);
         node != NULL && node != &wal->queue.head; node = node->prev) {
        const struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
        if (buffer->segment->file == file && offset >= buffer->offset &&
            offset - buffer->offset < buffer->used)
            return buffer->data + (offset - buffer->offset);
    }
    return NULL;
}
