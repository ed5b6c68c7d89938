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
 *   UNDO_CLOSE, UNDO_CLOSE_DIRECTORY, UNDO_UNLINK   as far as there is something to undo
 *
 * then done(error). */
#include "store/catalog/checkpoint_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- from state to state ---- */

static void enter(struct checkpoint_writer *writer, enum checkpoint_state state);

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
        enter(writer, WRITER_UNDO_CLOSE);
    else if (writer->directory >= 0)
        enter(writer, WRITER_UNDO_CLOSE_DIRECTORY);
    else if (writer->is_there)
        enter(writer, WRITER_UNDO_UNLINK);
    else
        finish(writer);
}

void checkpoint_fail(struct checkpoint_writer *writer, int error)
{
    assert(error < 0);
    if (writer->error == 0)
        writer->error = error;
    undo(writer);
}

/* What the completed operation of `state` changed, also when the writer has failed meanwhile.
 * Returns the error that ends the checkpoint, if there is one. */
static int take_result(struct checkpoint_writer *writer, int32_t result)
{
    switch (writer->state) {
    case WRITER_REMOVE:
        return result == -ENOENT ? 0 : result;
    case WRITER_OPEN:
        writer->handle = result < 0 ? -1 : result;
        writer->is_there = result >= 0;
        break;
    case WRITER_CLOSE:
    case WRITER_UNDO_CLOSE:
        writer->handle = -1;
        break;
    case WRITER_RENAME:
        writer->is_renamed = result == 0;
        break;
    case WRITER_OPEN_DIRECTORY:
        writer->directory = result < 0 ? -1 : result;
        break;
    case WRITER_CLOSE_DIRECTORY:
    case WRITER_UNDO_CLOSE_DIRECTORY:
        writer->directory = -1;
        break;
    case WRITER_UNDO_UNLINK:
        writer->is_there = false;
        if (result < 0 && result != -ENOENT)
            log_warn(writer->log, "cannot remove %s, an unfinished checkpoint: %s",
                     writer->is_renamed ? writer->path : writer->temporary, strerror(-result));
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
        checkpoint_fail(writer, error);
    else if (writer->state == WRITER_CLOSE_DIRECTORY)
        finish(writer);
    else
        enter(writer, writer->state + 1);
}

static void enter(struct checkpoint_writer *writer, enum checkpoint_state state)
{
    struct io *io = writer->io;
    struct io_op *op = &writer->op;
    assert(!io_op_is_active(op));
    assert(writer->error != 0 ? state >= WRITER_UNDO_CLOSE
                              : state == WRITER_REMOVE || state == writer->state + 1);
    writer->state = state;
    switch (state) {
    case WRITER_REMOVE:
        io_unlink(io, op, writer->temporary);
        break;
    case WRITER_OPEN:
        io_open_file(io, op, writer->temporary,
                     IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE | IO_OPEN_DIRECT);
        break;
    case WRITER_PACK:
        break;
    case WRITER_SYNC:
        io_sync(io, op, writer->handle);
        break;
    case WRITER_CLOSE:
    case WRITER_UNDO_CLOSE:
        io_close_file(io, op, writer->handle);
        break;
    case WRITER_RENAME:
        io_rename(io, op, writer->temporary, writer->path);
        break;
    case WRITER_OPEN_DIRECTORY:
        io_open_file(io, op, writer->data_directory, IO_OPEN_DIRECTORY);
        break;
    case WRITER_SYNC_DIRECTORY:
        io_sync(io, op, writer->directory);
        break;
    case WRITER_CLOSE_DIRECTORY:
    case WRITER_UNDO_CLOSE_DIRECTORY:
        io_close_file(io, op, writer->directory);
        break;
    case WRITER_UNDO_UNLINK:
        io_unlink(io, op, writer->is_renamed ? writer->path : writer->temporary);
        break;
    }
}

/* ---- units ---- */

static void write_rest(struct checkpoint_buffer *buffer)
{
    struct checkpoint_writer *writer = buffer->writer;
    io_write(writer->io, &buffer->op, writer->handle, buffer->data + buffer->written,
             buffer->used - buffer->written, buffer->offset + buffer->written, IO_WRITE_PLAIN);
}

static void write_done(struct io_op *op, int32_t result)
{
    struct checkpoint_buffer *buffer = container_of(op, struct checkpoint_buffer, op);
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
    writer->writing--;
    if (writer->error != 0)
        undo(writer);
    else if (!is_whole)
        checkpoint_fail(writer, result < 0 ? result : -EIO);
    else if (writer->is_packed && writer->writing == 0)
        enter(writer, WRITER_SYNC);
}

void checkpoint_hand_over(struct checkpoint_writer *writer)
{
    struct checkpoint_buffer *buffer = checkpoint_filling(writer);
    assert(!writer->has_block);
    assert(buffer->used > 0);
    buffer->offset = writer->size;
    buffer->op.done = write_done;
    writer->size += buffer->used;
    writer->writing++;
    writer->filling = (writer->filling + 1) % CHECKPOINT_BUFFERS;
    write_rest(buffer);
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
        assert(!checkpoint_knows_file(writer, key));
        writer->known[key / 64] |= 1ull << (key % 64);
        writer->files[i] = files[i];
    }
    writer->file_count = file_count;
    return 0;
}

static int take_paths(struct checkpoint_writer *writer, const char *directory)
{
    size_t size = strlen(directory) + 1;
    if (size > sizeof writer->data_directory)
        return -ENAMETOOLONG;
    memcpy(writer->data_directory, directory, size);
    int error = checkpoint_path(directory, writer->info.number, false, writer->path);
    if (error == 0)
        error = checkpoint_path(directory, writer->info.number, true, writer->temporary);
    return error;
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
    writer->directory_id = options->directory_id;
    writer->info = *info;
    writer->log_id = options->log_id;
    writer->done = done;
    writer->context = context;
    writer->handle = writer->directory = -1;
    writer->kind = CHECKPOINT_BEGIN;
    writer->op.done = step_done;
    for (uint32_t i = 0; i < CHECKPOINT_BUFFERS; i++) {
        writer->buffers[i].writer = writer;
        writer->buffers[i].data = options->memory + (size_t)i * CHECKPOINT_UNIT_SIZE;
    }
    int error = take_paths(writer, options->path);
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
    checkpoint_fail(writer, -ECANCELED);
}
