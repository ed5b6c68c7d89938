/* Writing a value file. Its way:
 *
 *   OPENING -> [ALLOCATING ->] WRITING -> [TRUNCATING ->] SYNCING -> FINISHED
 *   any of them -> ENDING -> [CLOSING ->] [UNLINKING ->] GONE
 *
 * WRITING: bytes are taken in every state up to here; full buffers are written from here on,
 * several at once. TRUNCATING: the value turned out smaller than its hint. SYNCING: the file and,
 * at the same time, its folder, so that they share the file system's commit. ENDING: it failed or
 * its user closed it; waits for what is in flight. GONE: nothing is left but the memory, which goes
 * when the user closes.
 *
 * A write belongs to nobody but the writer: its buffer is in `queue` until the file is open, then
 * in flight, then back in the pool. */
#include "store/value/stream.h"

#include "base/checksum.h"

#include <errno.h>
#include <string.h>

enum writer_state {
    WRITER_OPENING,
    WRITER_ALLOCATING,
    WRITER_WRITING,
    WRITER_TRUNCATING,
    WRITER_SYNCING,
    WRITER_FINISHED,
    WRITER_ENDING,
    WRITER_CLOSING,
    WRITER_UNLINKING,
    WRITER_GONE,
};

struct value_writer {
    struct stream stream;
    struct value_writer_events events;
    enum writer_state state;
    int error;
    bool is_created;    /* there may be a file of ours */
    bool is_finishing;  /* value_writer_finish was called */
    bool is_kept;       /* the file stays */
    bool is_told;       /* `finished` was called */
    bool is_handed_out; /* the user fills `filling` just now */
    bool room_wanted;
    uint8_t partition;
    uint8_t syncs_pending;
    uint32_t writes_in_flight;
    struct stream_buffer *filling; /* NULL: none */
    struct list queue;             /* full, to be written */
    struct directory_waiter directory_waiter;
    uint64_t size;
    uint64_t size_max;
    uint64_t size_hint;
    uint8_t *descriptor;
};

#define STATE(name) (1u << WRITER_##name)

static const uint32_t next_states[] = {
    [WRITER_OPENING] = STATE(ALLOCATING) | STATE(WRITING) | STATE(ENDING),
    [WRITER_ALLOCATING] = STATE(WRITING) | STATE(ENDING),
    [WRITER_WRITING] = STATE(TRUNCATING) | STATE(SYNCING) | STATE(ENDING),
    [WRITER_TRUNCATING] = STATE(SYNCING) | STATE(ENDING),
    [WRITER_SYNCING] = STATE(FINISHED) | STATE(ENDING),
    [WRITER_FINISHED] = STATE(ENDING),
    [WRITER_ENDING] = STATE(CLOSING) | STATE(UNLINKING) | STATE(GONE),
    [WRITER_CLOSING] = STATE(UNLINKING) | STATE(GONE),
    [WRITER_UNLINKING] = STATE(GONE),
    [WRITER_GONE] = 0,
};

static void set_state(struct value_writer *writer, enum writer_state state)
{
    assert((next_states[writer->state] & 1u << state) != 0);
    writer->state = state;
}

static struct value_writer *writer_of(struct stream *stream)
{
    return container_of(stream, struct value_writer, stream);
}

static struct value_writer *writer_of_op(struct io_op *op)
{
    return writer_of(container_of(op, struct stream, op));
}

/* The last thing that its caller does with the writer, which may be gone afterwards. */
static void tell(struct value_writer *writer)
{
    if (writer->is_finishing && !writer->is_told) {
        if (writer->error == 0 && writer->state != WRITER_FINISHED)
            return;
        writer->is_told = true;
        writer->events.finished(writer->events.context, writer->error);
    } else if (writer->room_wanted && (writer->error != 0 || writer->filling != NULL)) {
        writer->room_wanted = false;
        writer->events.room(writer->events.context);
    }
}

/* ---- the end ---- */

static void become_gone(struct value_writer *writer)
{
    set_state(writer, WRITER_GONE);
    if (!writer->stream.is_user)
        stream_free(&writer->stream);
}

static void note_unlinked(const struct stream *stream, int32_t result)
{
    if (result < 0 && result != -ENOENT)
        log_warn(stream->pool->log, "%s: removing it failed: %s; the next start tries again",
                 stream->path, strerror(-result));
}

static void unlink_done(struct io_op *op, int32_t result)
{
    struct value_writer *writer = writer_of_op(op);
    note_unlinked(&writer->stream, result);
    become_gone(writer);
}

static void remove_file(struct value_writer *writer)
{
    struct stream *stream = &writer->stream;
    stream->handle = -1;
    if (!writer->is_created || writer->is_kept) {
        become_gone(writer);
        return;
    }
    set_state(writer, WRITER_UNLINKING);
    stream->op.done = unlink_done;
    io_unlink(stream->pool->io, &stream->op, stream->path);
}

static void close_done(struct io_op *op, int32_t result)
{
    (void)result;
    remove_file(writer_of_op(op));
}

/* Goes on once nothing is in flight; frees a writer that its user closed. */
static void end(struct value_writer *writer)
{
    struct stream *stream = &writer->stream;
    assert(writer->state == WRITER_ENDING);
    if (writer->writes_in_flight > 0 || io_op_is_active(&stream->op))
        return;
    if (stream->handle < 0) {
        remove_file(writer);
        return;
    }
    set_state(writer, WRITER_CLOSING);
    stream->op.done = close_done;
    io_close_file(stream->pool->io, &stream->op, stream->handle);
}

static void drop_filling(struct value_writer *writer)
{
    if (writer->filling == NULL)
        return;
    stream_put(writer->filling);
    writer->filling = NULL;
}

static void begin_end(struct value_writer *writer)
{
    set_state(writer, WRITER_ENDING);
    stream_stop_waiting(&writer->stream);
    stream_set_sated(&writer->stream);
    directory_forget(&writer->directory_waiter);
    struct list_node *node;
    while ((node = list_pop_front(&writer->queue)) != NULL)
        stream_put(container_of(node, struct stream_buffer, node));
    if (!writer->is_handed_out)
        drop_filling(writer);
    end(writer);
}

/* A full disk and too many files are the store's to report: they meet every writer. */
static bool is_ours_to_log(int error)
{
    return error != -ENOSPC && error != -EDQUOT && error != -EMFILE && error != -ENFILE &&
           error != -EFBIG;
}

/* Not for closed writers: those are ENDING already. */
static void fail(struct value_writer *writer, int error)
{
    assert(error < 0);
    assert(writer->error == 0);
    assert(writer->stream.is_user);
    writer->error = error;
    if (is_ours_to_log(error))
        log_error(writer->stream.pool->log, "%s: writing it failed: %s", writer->stream.path,
                  strerror(-error));
    begin_end(writer);
}

static void fail_and_tell(struct value_writer *writer, int error)
{
    fail(writer, error);
    tell(writer);
}

/* ---- syncing ---- */

static void synced(struct value_writer *writer, int result)
{
    writer->syncs_pending--;
    if (result < 0) {
        fail_and_tell(writer, result);
        return;
    }
    if (writer->syncs_pending > 0)
        return;
    store_u32(writer->descriptor, VALUE_FILE_FORMAT);
    store_u32(writer->descriptor + 4, VALUE_FILE_BLOCK_SIZE);
    store_u64(writer->descriptor + 8, writer->size);
    set_state(writer, WRITER_FINISHED);
    tell(writer);
}

static void sync_done(struct io_op *op, int32_t result)
{
    struct value_writer *writer = writer_of_op(op);
    if (writer->state == WRITER_ENDING)
        end(writer);
    else
        synced(writer, result);
}

static void directory_done(struct directory_waiter *waiter, int result)
{
    synced(container_of(waiter, struct value_writer, directory_waiter), result);
}

static void start_syncs(struct value_writer *writer)
{
    struct stream *stream = &writer->stream;
    set_state(writer, WRITER_SYNCING);
    writer->syncs_pending = 2;
    stream->op.done = sync_done;
    io_sync(stream->pool->io, &stream->op, stream->handle);
    directory_sync(stream_directory(stream->pool, writer->partition), &writer->directory_waiter,
                   directory_done);
}

static void truncate_done(struct io_op *op, int32_t result)
{
    struct value_writer *writer = writer_of_op(op);
    if (writer->state == WRITER_ENDING)
        end(writer);
    else if (result < 0)
        fail_and_tell(writer, result);
    else
        start_syncs(writer);
}

/* Once all bytes are there and written. */
static void complete(struct value_writer *writer)
{
    struct stream *stream = &writer->stream;
    if (writer->state != WRITER_WRITING || !writer->is_finishing || writer->writes_in_flight > 0)
        return;
    assert(list_is_empty(&writer->queue));
    uint64_t file_size = round_up(writer->size, DISK_BLOCK_SIZE);
    if (file_size >= writer->size_hint) {
        start_syncs(writer);
        return;
    }
    set_state(writer, WRITER_TRUNCATING);
    stream->op.done = truncate_done;
    io_truncate(stream->pool->io, &stream->op, stream->path, file_size);
}

/* ---- writing ---- */

static uint32_t write_size(const struct stream_buffer *buffer)
{
    return (uint32_t)round_up(buffer->size, DISK_BLOCK_SIZE);
}

static void write_done(struct io_op *op, int32_t result)
{
    struct stream_buffer *buffer = container_of(op, struct stream_buffer, op);
    struct value_writer *writer = writer_of(buffer->stream);
    bool is_whole = result >= 0 && (uint32_t)result == write_size(buffer);
    writer->writes_in_flight--;
    stream_put(buffer);
    if (writer->state == WRITER_ENDING) {
        end(writer);
        return;
    }
    if (!is_whole) {
        fail_and_tell(writer, result < 0 ? result : -EIO);
        return;
    }
    if (writer->room_wanted && writer->filling == NULL)
        writer->filling = stream_take(&writer->stream);
    complete(writer);
    tell(writer);
}

static void start_writes(struct value_writer *writer)
{
    if (writer->state != WRITER_WRITING)
        return;
    struct list_node *node;
    while ((node = list_pop_front(&writer->queue)) != NULL) {
        struct stream_buffer *buffer = container_of(node, struct stream_buffer, node);
        writer->writes_in_flight++;
        buffer->op.done = write_done;
        io_write(writer->stream.pool->io, &buffer->op, writer->stream.handle, buffer->data,
                 write_size(buffer), buffer->offset, IO_WRITE_PLAIN);
    }
}

static void begin_writing(struct value_writer *writer)
{
    set_state(writer, WRITER_WRITING);
    start_writes(writer);
    complete(writer);
}

/* ---- opening ---- */

static void allocate_done(struct io_op *op, int32_t result)
{
    struct value_writer *writer = writer_of_op(op);
    if (writer->state == WRITER_ENDING)
        end(writer);
    else if (result < 0 && result != -EOPNOTSUPP)
        fail_and_tell(writer, result);
    else
        begin_writing(writer);
}

static void open_done(struct io_op *op, int32_t result)
{
    struct value_writer *writer = writer_of_op(op);
    struct stream *stream = &writer->stream;
    writer->is_created = result != -EEXIST;
    stream->handle = result >= 0 ? result : -1;
    if (writer->state == WRITER_ENDING) {
        end(writer);
    } else if (result < 0) {
        fail_and_tell(writer, result);
    } else if (writer->size_hint > 0) {
        set_state(writer, WRITER_ALLOCATING);
        stream->op.done = allocate_done;
        io_allocate(stream->pool->io, &stream->op, stream->handle, writer->size_hint);
    } else {
        begin_writing(writer);
    }
}

static void granted(struct stream *stream, struct stream_buffer *buffer)
{
    struct value_writer *writer = writer_of(stream);
    assert(writer->filling == NULL);
    writer->filling = buffer;
    tell(writer);
}

static void called(struct stream *stream)
{
    tell(writer_of(stream));
}

static const struct stream_kind writer_kind = {.granted = granted, .called = called};

int value_writer_open(struct stream_pool *pool, const struct value_file_name *name,
                      uint64_t size_max, uint64_t size_hint,
                      const struct value_writer_events *events, struct value_writer **ret_writer)
{
    assert(size_max <= VALUE_FILE_SIZE_MAX);
    assert(size_hint <= size_max);
    uint8_t *descriptor;
    struct stream *stream = stream_create(pool, &writer_kind, sizeof(struct value_writer), name,
                                          value_file_descriptor_size(size_max), &descriptor);
    if (stream == NULL)
        return -ENOMEM;
    struct value_writer *writer = writer_of(stream);
    writer->events = *events;
    writer->partition = name->partition;
    writer->size_max = size_max;
    writer->size_hint = round_up(size_hint, DISK_BLOCK_SIZE);
    writer->descriptor = descriptor;
    store_u64(descriptor + 16, name->version.clock);
    store_u32(descriptor + 24, name->version.origin);
    list_init(&writer->queue);
    stream_join(stream);
    stream->op.done = open_done;
    io_open_file(pool->io, &stream->op, stream->path,
                 IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE | IO_OPEN_DIRECT);
    *ret_writer = writer;
    return 0;
}

/* ---- filling ---- */

uint8_t *value_writer_buffer(struct value_writer *writer, uint32_t *ret_room)
{
    assert(!writer->is_finishing);
    if (writer->error != 0)
        return NULL;
    if (writer->filling == NULL)
        writer->filling = stream_take(&writer->stream);
    writer->room_wanted = writer->filling == NULL;
    if (writer->filling == NULL)
        return NULL;
    writer->is_handed_out = true;
    *ret_room = VALUE_FILE_BUFFER_SIZE - writer->filling->size;
    return writer->filling->data + writer->filling->size;
}

/* A block's checksum grows in the descriptor, which began as zeros: the checksum of no bytes. */
static void add_checksums(struct value_writer *writer, const uint8_t *data, uint32_t size)
{
    while (size > 0) {
        uint32_t within = (uint32_t)(writer->size % VALUE_FILE_BLOCK_SIZE);
        uint32_t part = (uint32_t)min_u64(size, VALUE_FILE_BLOCK_SIZE - within);
        uint64_t block = writer->size / VALUE_FILE_BLOCK_SIZE;
        uint8_t *entry = writer->descriptor + VALUE_FILE_DESCRIPTOR_HEADER_SIZE + 4 * block;
        store_u32(entry, crc32c_more(load_u32(entry), data, part));
        writer->size += part;
        data += part;
        size -= part;
    }
}

/* Hands the buffer on to be written. */
static void enqueue_filling(struct value_writer *writer)
{
    struct stream_buffer *buffer = writer->filling;
    writer->filling = NULL;
    buffer->offset = writer->size - buffer->size;
    memset(buffer->data + buffer->size, 0, write_size(buffer) - buffer->size);
    list_push_back(&writer->queue, &buffer->node);
    start_writes(writer);
}

int value_writer_filled(struct value_writer *writer, uint32_t size)
{
    struct stream_buffer *buffer = writer->filling;
    assert(writer->is_handed_out);
    assert(size <= VALUE_FILE_BUFFER_SIZE - buffer->size);
    writer->is_handed_out = false;
    if (writer->error == 0 && size > writer->size_max - writer->size)
        fail(writer, -EFBIG);
    if (writer->error != 0) {
        drop_filling(writer);
        return writer->error;
    }
    add_checksums(writer, buffer->data + buffer->size, size);
    buffer->size += size;
    if (buffer->size == VALUE_FILE_BUFFER_SIZE)
        enqueue_filling(writer);
    else if (buffer->size == 0)
        drop_filling(writer);
    return 0;
}

int value_writer_error(const struct value_writer *writer)
{
    return writer->error;
}

void value_writer_finish(struct value_writer *writer)
{
    assert(!writer->is_finishing);
    writer->is_finishing = true;
    writer->is_handed_out = false;
    writer->room_wanted = false;
    if (writer->filling != NULL && writer->filling->size > 0 && writer->error == 0)
        enqueue_filling(writer);
    drop_filling(writer);
    stream_stop_waiting(&writer->stream);
    stream_set_sated(&writer->stream);
    complete(writer);
    if (writer->error != 0)
        stream_call_later(&writer->stream);
}

/* ---- finished ---- */

struct slice value_writer_descriptor(const struct value_writer *writer)
{
    assert(writer->state == WRITER_FINISHED);
    return (struct slice){writer->descriptor, (uint32_t)value_file_descriptor_size(writer->size)};
}

uint64_t value_writer_size(const struct value_writer *writer)
{
    return writer->size;
}

void value_writer_close(struct value_writer *writer, bool keep)
{
    writer->is_kept = keep && writer->state == WRITER_FINISHED;
    writer->is_handed_out = false;
    drop_filling(writer);
    stream_leave(&writer->stream);
    if (writer->state < WRITER_ENDING)
        begin_end(writer);
    else if (writer->state == WRITER_GONE)
        stream_free(&writer->stream);
}

/* ---- removing: an unlink that nobody waits for ---- */

static const struct stream_kind removal_kind = {.granted = NULL};

static void removed(struct io_op *op, int32_t result)
{
    struct stream *stream = container_of(op, struct stream, op);
    note_unlinked(stream, result);
    stream_free(stream);
}

void value_file_remove(struct stream_pool *pool, const struct value_file_name *name)
{
    struct stream *stream = stream_create(pool, &removal_kind, sizeof *stream, name, 0, NULL);
    if (stream == NULL)
        return;
    stream->op.done = removed;
    io_unlink(pool->io, &stream->op, stream->path);
}
