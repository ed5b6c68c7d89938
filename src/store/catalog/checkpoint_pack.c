/* Packing: the blocks of a checkpoint, piece by piece, into whichever buffer is free. */
#include "store/catalog/checkpoint_internal.h"

#include "base/assert.h"

#include <errno.h>

#define PARTITION_COUNT 256u
/* What looking at a group costs at least, even when none of its slots is packed. */
#define GROUP_COST ((uint64_t)1 * KIB)

/* Ends the block behind `used`. */
static void put_block(struct checkpoint_writer *writer, enum checkpoint_kind kind,
                      uint32_t entry_count, uint32_t size)
{
    struct checkpoint_buffer *buffer = checkpoint_filling(writer);
    bool is_slots = kind == CHECKPOINT_SLOTS;
    struct checkpoint_block block = {
        .kind = kind,
        .partition = is_slots ? (uint8_t)writer->partition : 0,
        .directory_id = writer->directory_id,
        .number = writer->info.number,
        .sequence = writer->sequence++,
        .slots_hint = is_slots ? writer->slots_hint : 0,
        .entry_count = entry_count,
        .size = size,
    };
    checkpoint_block_encode(&block, buffer->data + buffer->used);
    buffer->used += size;
    writer->has_block = false;
    if (buffer->used == CHECKPOINT_UNIT_SIZE)
        checkpoint_hand_over(writer);
}

/* ---- packing: each does one piece and returns what it cost ---- */

static uint64_t pack_begin(struct checkpoint_writer *writer)
{
    struct checkpoint_buffer *buffer = checkpoint_filling(writer);
    struct checkpoint_begin_entry entry = {
        .position = writer->info.position,
        .chunk_sequence = writer->info.chunk_sequence,
        .clock_ceiling = writer->info.clock_ceiling,
        .log_id = writer->log_id,
        .file_count = writer->file_count,
    };
    checkpoint_begin_encode(&entry, buffer->data + buffer->used);
    put_block(writer, CHECKPOINT_BEGIN, 1, CHECKPOINT_BLOCK_MIN);
    writer->kind = CHECKPOINT_FILES;
    return CHECKPOINT_BLOCK_MIN;
}

static uint64_t pack_files(struct checkpoint_writer *writer)
{
    struct checkpoint_buffer *buffer = checkpoint_filling(writer);
    uint32_t rest = writer->file_count - writer->files_packed;
    if (rest == 0) {
        writer->kind = CHECKPOINT_SLOTS;
        return GROUP_COST;
    }
    uint32_t room = checkpoint_block_room(CHECKPOINT_FILES, CHECKPOINT_UNIT_SIZE - buffer->used);
    uint32_t count = rest < room ? rest : room;
    uint8_t *target = buffer->data + buffer->used + CHECKPOINT_BLOCK_HEADER_SIZE;
    for (uint32_t i = 0; i < count; i++)
        checkpoint_file_encode(&writer->files[writer->files_packed + i],
                               target + (size_t)i * CHECKPOINT_FILE_SIZE);
    writer->files_packed += count;
    put_block(writer, CHECKPOINT_FILES, count, checkpoint_block_size(CHECKPOINT_FILES, count));
    return (uint64_t)count * CHECKPOINT_FILE_SIZE;
}

static uint64_t pack_end(struct checkpoint_writer *writer)
{
    struct checkpoint_buffer *buffer = checkpoint_filling(writer);
    struct checkpoint_end_entry entry = {
        .slots = writer->slots,
        .file_size = writer->size + buffer->used + CHECKPOINT_BLOCK_MIN,
    };
    checkpoint_end_encode(&entry, buffer->data + buffer->used);
    writer->is_packed = true;
    put_block(writer, CHECKPOINT_END, 1, CHECKPOINT_BLOCK_MIN);
    if (checkpoint_filling(writer) == buffer)
        checkpoint_hand_over(writer);
    return CHECKPOINT_BLOCK_MIN;
}

static void pack_slot(void *context, uint64_t hash, const struct index_entry *entry)
{
    struct checkpoint_writer *writer = context;
    if (!checkpoint_knows_file(writer, checkpoint_location_key(entry->location)))
        return;
    if (writer->entry_count == writer->room) {
        writer->is_over = true;
        return;
    }
    struct checkpoint_buffer *buffer = checkpoint_filling(writer);
    uint8_t *target = buffer->data + buffer->used + CHECKPOINT_BLOCK_HEADER_SIZE;
    index_pack(hash, entry, target + (size_t)writer->entry_count * INDEX_PACKED_SIZE);
    writer->entry_count++;
}

static void open_block(struct checkpoint_writer *writer)
{
    uint32_t rest = CHECKPOINT_UNIT_SIZE - checkpoint_filling(writer)->used;
    writer->has_block = true;
    writer->entry_count = 0;
    writer->room = checkpoint_block_room(CHECKPOINT_SLOTS, rest);
}

static void end_partition(struct checkpoint_writer *writer)
{
    uint32_t count = writer->entry_count;
    if (count > 0)
        put_block(writer, CHECKPOINT_SLOTS, count, checkpoint_block_size(CHECKPOINT_SLOTS, count));
    writer->has_block = false;
    writer->is_walking = false;
    writer->partition++;
}

/* The group at the cursor did not fit: its turn comes again in the next unit, and the block takes
 * the rest of this one. */
static void end_unit(struct checkpoint_writer *writer, uint32_t entry_count)
{
    uint32_t used = checkpoint_filling(writer)->used;
    if (used == 0 && entry_count == 0) {
        checkpoint_fail(writer, -EOVERFLOW);
        return;
    }
    put_block(writer, CHECKPOINT_SLOTS, entry_count, CHECKPOINT_UNIT_SIZE - used);
}

static uint64_t pack_slots(struct checkpoint_writer *writer)
{
    if (writer->partition == PARTITION_COUNT) {
        writer->kind = CHECKPOINT_END;
        return GROUP_COST;
    }
    if (!writer->is_walking) {
        writer->is_walking = true;
        writer->cursor = 0;
        writer->slots_hint = index_partition_count(writer->index, writer->partition);
    }
    if (!writer->has_block)
        open_block(writer);
    uint32_t before = writer->entry_count;
    writer->is_over = false;
    uint64_t cursor =
        index_walk(writer->index, writer->partition, writer->cursor, pack_slot, writer);
    if (writer->is_over) {
        end_unit(writer, before);
        return GROUP_COST;
    }
    uint64_t added = writer->entry_count - before;
    writer->slots += added;
    writer->cursor = cursor;
    if (cursor == 0)
        end_partition(writer);
    return max_u64(added * INDEX_PACKED_SIZE, GROUP_COST);
}

static uint64_t pack_piece(struct checkpoint_writer *writer)
{
    switch (writer->kind) {
    case CHECKPOINT_BEGIN:
        return pack_begin(writer);
    case CHECKPOINT_FILES:
        return pack_files(writer);
    case CHECKPOINT_SLOTS:
        return pack_slots(writer);
    case CHECKPOINT_END:
        return pack_end(writer);
    }
    assert(!"a kind of block");
    return 0;
}

uint64_t checkpoint_step(struct checkpoint_writer *writer, uint64_t budget)
{
    uint64_t cost = 0;
    while (cost < budget && writer->error == 0 && writer->state == WRITER_PACK &&
           !writer->is_packed && !io_op_is_active(&checkpoint_filling(writer)->op))
        cost += pack_piece(writer);
    return cost;
}
