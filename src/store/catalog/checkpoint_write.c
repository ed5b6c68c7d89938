/* Writing a checkpoint. The way of a writer, of its states WRITER_...:
 *
 *   REMOVE  a leftover of the same name     OPEN  the temporary file
 *   PACK    checkpoint_step fills one buffer while the other is written
 *   SYNC    once everything is written      CLOSE, RENAME
 *   OPEN_DIRECTORY, SYNC_DIRECTORY, CLOSE_DIRECTORY, then done(0)
 *
 * Each state but PACK has one operation, and the next state begins when that completes. An error or
 * a cancel, in any state, waits for what is in flight and goes on with
 *
 *   CLOSE, UNLINK   as far as there is something to undo
 *
 * then done(error).
 *
 * Invariants:
 * 1. States follow each other in their order, until an error; UNLINK comes after an error only.
 * 2. Blocks are packed by ascending kind, slots by ascending partition.
 * 3. A buffer is filled only while no write of it is in flight; `writing` of them are.
 * 4. Every unit that is handed over is full, but for the last one; their sizes add up to the file's.
 * 5. An open block's entries fit into what is left of its unit.
 * 6. The table of files is complete before the first slot; no file is in it twice.
 * 7. The end counts all slots that were packed, and nothing is packed behind it. */
#include "store/catalog/checkpoint_format.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUFFERS 2u
#define PARTITION_COUNT 256u
/* What looking at a group costs at least, even when none of its slots is packed. */
#define GROUP_COST ((uint64_t)1 * KIB)

enum writer_state {
    WRITER_REMOVE,
    WRITER_OPEN,
    WRITER_PACK,
    WRITER_SYNC,
    WRITER_CLOSE,
    WRITER_RENAME,
    WRITER_OPEN_DIRECTORY,
    WRITER_SYNC_DIRECTORY,
    WRITER_CLOSE_DIRECTORY,
    WRITER_UNLINK,
};

struct buffer {
    struct io_op op;
    struct checkpoint_writer *writer;
    uint8_t *data;
    uint32_t used;    /* whole blocks */
    uint32_t written; /* of them, by the write in flight */
    uint64_t offset;  /* in the file */
};

struct checkpoint_writer {
    struct io *io;
    const struct log *log;
    const struct index *index;
    struct checkpoint_options options;
    struct checkpoint_info info;
    checkpoint_done *done;
    void *context;

    enum writer_state state;
    int error;
    struct io_op op;
    int handle;    /* of the file, later of the directory; < 0: not open */
    bool is_there; /* under the temporary name, or when it is renamed, the other one */
    bool is_renamed;

    struct buffer buffers[BUFFERS];
    uint32_t filling; /* the buffer that is filled next */
    uint32_t writing; /* buffers in flight */
    bool is_packed;   /* the last block is in a buffer */
    uint64_t size;    /* of the units that were handed over */
    uint64_t sequence;
    uint64_t slots;

    enum checkpoint_kind kind; /* of what is packed next */
    uint32_t files_packed;
    uint32_t partition;
    bool is_walking; /* `partition` was begun */
    uint64_t cursor;
    uint64_t slots_hint;
    bool has_block; /* a block of slots is open, behind `used` in the buffer */
    uint32_t entry_count;
    uint32_t room; /* entries that fit in it */
    bool is_over;  /* a group did not fit */

    struct checkpoint_file *files;
    uint32_t file_count;
    /* A bit a file of the table, by checkpoint_file_key. */
    uint64_t known[CHECKPOINT_FILES_MAX / 64];
    char path[CHECKPOINT_PATH_MAX];
    char temporary[CHECKPOINT_PATH_MAX];
};

static struct buffer *filling(struct checkpoint_writer *writer)
{
    return &writer->buffers[writer->filling];
}

/* Where the entries of the next block lie. */
static uint8_t *next_entries(struct checkpoint_writer *writer)
{
    const struct buffer *buffer = filling(writer);
    return buffer->data + buffer->used + CHECKPOINT_BLOCK_HEADER_SIZE;
}

static bool knows_file(const struct checkpoint_writer *writer, uint32_t key)
{
    return writer->known[key / 64] >> (key % 64) & 1;
}

/* ---- from state to state ---- */

static void enter(struct checkpoint_writer *writer, enum writer_state state);

void checkpoint_free(struct checkpoint_writer *writer)
{
    if (writer == NULL)
        return;
    free(writer->files);
    free(writer);
}

static void finish(struct checkpoint_writer *writer)
{
    checkpoint_done *done = writer->done;
    void *context = writer->context;
    int result = writer->error;
    assert(writer->writing == 0); /* invariant 3 */
    assert(writer->handle < 0);
    checkpoint_free(writer);
    done(context, result);
}

/* After an error: the next thing to undo. */
static void undo(struct checkpoint_writer *writer)
{
    assert(writer->error < 0);
    if (io_op_is_active(&writer->op) || writer->writing > 0)
        return;
    if (writer->handle >= 0)
        enter(writer, WRITER_CLOSE);
    else if (writer->is_there)
        enter(writer, WRITER_UNLINK);
    else
        finish(writer);
}

static void fail(struct checkpoint_writer *writer, int error)
{
    assert(error < 0);
    if (writer->error == 0)
        writer->error = error;
    undo(writer);
}

/* The name that the file has now. */
static const char *name_of(const struct checkpoint_writer *writer)
{
    return writer->is_renamed ? writer->path : writer->temporary;
}

/* What the completed operation of `state` changed, also when the writer has failed meanwhile.
 * Returns the error that ends the checkpoint, if there is one. */
static int take_result(struct checkpoint_writer *writer, int32_t result)
{
    switch (writer->state) {
    case WRITER_REMOVE:
        return result == -ENOENT ? 0 : result;
    case WRITER_OPEN:
        writer->is_there = result >= 0;
        writer->handle = result;
        break;
    case WRITER_OPEN_DIRECTORY:
        writer->handle = result;
        break;
    case WRITER_CLOSE:
    case WRITER_CLOSE_DIRECTORY:
        writer->handle = -1;
        break;
    case WRITER_RENAME:
        writer->is_renamed = result == 0;
        break;
    case WRITER_UNLINK:
        writer->is_there = false;
        if (result < 0 && result != -ENOENT)
            log_warn(writer->log, "cannot remove %s, an unfinished checkpoint: %s", name_of(writer),
                     strerror(-result));
        break;
    case WRITER_PACK:
    case WRITER_SYNC:
    case WRITER_SYNC_DIRECTORY:
        break;
    }
    return result < 0 ? result : 0;
}

static void step_done(struct io_op *op, int32_t result)
{
    struct checkpoint_writer *writer = container_of(op, struct checkpoint_writer, op);
    int error = take_result(writer, result);
    if (writer->error != 0)
        undo(writer);
    else if (error < 0)
        fail(writer, error);
    else if (writer->state == WRITER_CLOSE_DIRECTORY)
        finish(writer);
    else
        enter(writer, writer->state + 1);
}

static void enter(struct checkpoint_writer *writer, enum writer_state state)
{
    struct io *io = writer->io;
    struct io_op *op = &writer->op;
    assert(!io_op_is_active(op));
    bool is_next = state == writer->state + 1 || state == WRITER_REMOVE;
    assert(writer->error != 0 || (is_next && state != WRITER_UNLINK)); /* invariant 1 */
    writer->state = state;
    switch (state) {
    case WRITER_REMOVE:
    case WRITER_UNLINK:
        io_unlink(io, op, name_of(writer));
        break;
    case WRITER_OPEN:
        io_open_file(io, op, writer->temporary,
                     IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE | IO_OPEN_DIRECT);
        break;
    case WRITER_PACK:
        break;
    case WRITER_SYNC:
    case WRITER_SYNC_DIRECTORY:
        io_sync(io, op, writer->handle);
        break;
    case WRITER_CLOSE:
    case WRITER_CLOSE_DIRECTORY:
        io_close_file(io, op, writer->handle);
        break;
    case WRITER_RENAME:
        io_rename(io, op, writer->temporary, writer->path);
        break;
    case WRITER_OPEN_DIRECTORY:
        io_open_file(io, op, writer->options.path, IO_OPEN_DIRECTORY);
        break;
    }
}

/* ---- units ---- */

static void write_rest(struct buffer *buffer)
{
    struct checkpoint_writer *writer = buffer->writer;
    io_write(writer->io, &buffer->op, writer->handle, buffer->data + buffer->written,
             buffer->used - buffer->written, buffer->offset + buffer->written, IO_WRITE_PLAIN);
}

static void write_done(struct io_op *op, int32_t result)
{
    struct buffer *buffer = container_of(op, struct buffer, op);
    struct checkpoint_writer *writer = buffer->writer;
    if (result > 0)
        buffer->written += (uint32_t)result;
    /* A write is short when the device has failed, or is full: asked again, it says which. */
    bool goes_on = result > 0 && buffer->written < buffer->used && writer->error == 0 &&
                   buffer->written % DISK_BLOCK_SIZE == 0;
    if (goes_on) {
        write_rest(buffer);
        return;
    }
    bool is_whole = buffer->written == buffer->used;
    buffer->used = buffer->written = 0;
    assert(writer->writing > 0); /* invariant 3 */
    writer->writing--;
    if (writer->error != 0)
        undo(writer);
    else if (!is_whole)
        fail(writer, result < 0 ? result : -EIO);
    else if (writer->is_packed && writer->writing == 0)
        enter(writer, WRITER_SYNC);
}

static void hand_over(struct checkpoint_writer *writer)
{
    struct buffer *buffer = filling(writer);
    assert(!writer->has_block);            /* invariant 5 */
    assert(!io_op_is_active(&buffer->op)); /* invariant 3 */
    assert(buffer->used > 0);
    assert(buffer->used == CHECKPOINT_UNIT_SIZE || writer->is_packed); /* invariant 4 */
    buffer->offset = writer->size;
    buffer->op.done = write_done;
    writer->size += buffer->used;
    writer->writing++;
    writer->filling = (writer->filling + 1) % BUFFERS;
    write_rest(buffer);
}

/* ---- blocks ---- */

/* Ends the block behind `used`. */
static void put_block(struct checkpoint_writer *writer, enum checkpoint_kind kind,
                      uint32_t entry_count, uint32_t size)
{
    struct buffer *buffer = filling(writer);
    bool is_slots = kind == CHECKPOINT_SLOTS;
    assert(kind == writer->kind);                                  /* invariant 2 */
    assert(!io_op_is_active(&buffer->op));                         /* invariant 3 */
    assert((uint64_t)buffer->used + size <= CHECKPOINT_UNIT_SIZE); /* invariant 5 */
    struct checkpoint_block block = {
        .kind = kind,
        .partition = is_slots ? (uint8_t)writer->partition : 0,
        .directory_id = writer->options.directory_id,
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
        hand_over(writer);
}

/* ---- pieces: each packs one and returns what it cost ---- */

static uint64_t pack_begin(struct checkpoint_writer *writer)
{
    struct checkpoint_begin_entry entry = {
        .position = writer->info.position,
        .chunk_sequence = writer->info.chunk_sequence,
        .clock_ceiling = writer->info.clock_ceiling,
        .log_id = writer->options.log_id,
        .file_count = writer->file_count,
    };
    memcpy(next_entries(writer), &entry, sizeof entry);
    put_block(writer, CHECKPOINT_BEGIN, 1, CHECKPOINT_BLOCK_MIN);
    writer->kind = CHECKPOINT_FILES;
    return CHECKPOINT_BLOCK_MIN;
}

static uint64_t pack_files(struct checkpoint_writer *writer)
{
    struct buffer *buffer = filling(writer);
    uint32_t rest = writer->file_count - writer->files_packed;
    if (rest == 0) {
        writer->kind = CHECKPOINT_SLOTS;
        return GROUP_COST;
    }
    uint32_t room = checkpoint_block_room(CHECKPOINT_FILES, CHECKPOINT_UNIT_SIZE - buffer->used);
    uint32_t count = rest < room ? rest : room;
    uint8_t *target = next_entries(writer);
    for (uint32_t i = 0; i < count; i++)
        checkpoint_file_encode(&writer->files[writer->files_packed + i],
                               target + (size_t)i * CHECKPOINT_FILE_SIZE);
    writer->files_packed += count;
    assert(count > 0);                                  /* a unit that is full was handed over */
    assert(writer->files_packed <= writer->file_count); /* invariant 6 */
    put_block(writer, CHECKPOINT_FILES, count, checkpoint_block_size(CHECKPOINT_FILES, count));
    return (uint64_t)count * CHECKPOINT_FILE_SIZE;
}

static uint64_t pack_end(struct checkpoint_writer *writer)
{
    struct buffer *buffer = filling(writer);
    assert(writer->partition == PARTITION_COUNT); /* invariant 7 */
    assert(!writer->has_block);                   /* invariant 7 */
    struct checkpoint_end_entry entry = {
        .slots = writer->slots,
        .file_size = writer->size + buffer->used + CHECKPOINT_BLOCK_MIN,
    };
    memcpy(next_entries(writer), &entry, sizeof entry);
    writer->is_packed = true;
    put_block(writer, CHECKPOINT_END, 1, CHECKPOINT_BLOCK_MIN);
    if (filling(writer) == buffer)
        hand_over(writer);
    return CHECKPOINT_BLOCK_MIN;
}

static void pack_slot(void *context, uint64_t hash, const struct index_entry *entry)
{
    struct checkpoint_writer *writer = context;
    if (!knows_file(writer, checkpoint_location_key(entry->location)))
        return;
    if (writer->entry_count == writer->room) {
        writer->is_over = true;
        return;
    }
    size_t offset = (size_t)writer->entry_count * INDEX_PACKED_SIZE;
    index_pack(hash, entry, next_entries(writer) + offset);
    writer->entry_count++;
    assert(writer->entry_count <= writer->room); /* invariant 5 */
}

static void open_block(struct checkpoint_writer *writer)
{
    uint32_t rest = CHECKPOINT_UNIT_SIZE - filling(writer)->used;
    assert(writer->files_packed == writer->file_count); /* invariant 6 */
    assert(rest > 0);                                   /* invariant 4 */
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
    assert(writer->partition <= PARTITION_COUNT); /* invariant 2 */
}

/* The group at the cursor did not fit: its turn comes again in the next unit, and the block takes
 * the rest of this one. */
static void end_unit(struct checkpoint_writer *writer, uint32_t entry_count)
{
    uint32_t used = filling(writer)->used;
    if (used == 0 && entry_count == 0) {
        fail(writer, -EOVERFLOW);
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
           !writer->is_packed && !io_op_is_active(&filling(writer)->op))
        cost += pack_piece(writer);
    return cost;
}

/* ---- beginning and ending ---- */

static int take_files(struct checkpoint_writer *writer, const struct checkpoint_file *files,
                      uint32_t file_count)
{
    writer->files = calloc(file_count > 0 ? file_count : 1, sizeof *files);
    if (writer->files == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < file_count; i++) {
        assert(files[i].file < 1u << CHECKPOINT_FILE_BITS);
        uint32_t key = checkpoint_file_key(files[i].is_segment, files[i].file);
        assert(!knows_file(writer, key)); /* invariant 6 */
        writer->known[key / 64] |= 1ull << (key % 64);
        writer->files[i] = files[i];
    }
    writer->file_count = file_count;
    return 0;
}

int checkpoint_begin(struct io *io, const struct log *log, const struct checkpoint_options *options,
                     const struct checkpoint_info *info, const struct index *index,
                     const struct checkpoint_file *files, uint32_t file_count,
                     checkpoint_done *done, void *context, struct checkpoint_writer **ret_writer)
{
    assert(done != NULL);
    assert((uintptr_t)options->memory % DISK_BLOCK_SIZE == 0);
    struct checkpoint_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return -ENOMEM;
    writer->io = io;
    writer->log = log;
    writer->index = index;
    writer->options = *options;
    writer->info = *info;
    writer->done = done;
    writer->context = context;
    writer->handle = -1;
    writer->kind = CHECKPOINT_BEGIN;
    writer->op.done = step_done;
    for (uint32_t i = 0; i < BUFFERS; i++) {
        writer->buffers[i].writer = writer;
        writer->buffers[i].data = options->memory + (size_t)i * CHECKPOINT_UNIT_SIZE;
    }
    int error = checkpoint_path(options->path, info->number, false, writer->path);
    if (error == 0)
        error = checkpoint_path(options->path, info->number, true, writer->temporary);
    if (error == 0)
        error = take_files(writer, files, file_count);
    if (error < 0) {
        checkpoint_free(writer);
        return error;
    }
    enter(writer, WRITER_REMOVE);
    *ret_writer = writer;
    return 0;
}

void checkpoint_cancel(struct checkpoint_writer *writer)
{
    fail(writer, -ECANCELED);
}
