/* Writing a value file. Its way:
 *
 *   OPENING -> [ALLOCATING ->] WRITING -> [TRUNCATING ->] SYNCING -> FINISHED
 *   any of them -> ENDED
 *
 * WRITING: bytes are taken in every state up to here; full buffers are written from here on,
 * several at once. TRUNCATING: the value turned out smaller than its hint. SYNCING: the file and
 * its folder. ENDED: it failed or its user closed it; the stream does the rest.
 *
 * A write belongs to nobody but the writer: its buffer is in `queue` until the file is open, then
 * in flight, then back in the pool. All but the value's last one are full. */
#include "store/value/stream.h"

#include "base/assert.h"
#include "base/checksum.h"
#include "store/disk/refusal.h"

#include <errno.h>
#include <string.h>

enum writer_state {
    WRITER_OPENING,
    WRITER_ALLOCATING,
    WRITER_WRITING,
    WRITER_TRUNCATING,
    WRITER_SYNCING,
    WRITER_FINISHED,
    WRITER_ENDED,
};

struct value_writer {
    struct stream stream;
    struct value_writer_events events;
    enum writer_state state;
    int error;
    bool is_finishing;  /* value_writer_finish was called */
    bool is_told;       /* `finished` was called */
    bool is_handed_out; /* the user fills `filling` just now */
    bool room_wanted;
    uint32_t write_count;               /* in flight */
    uint32_t filled;                    /* bytes of `filling` */
    uint8_t *filling;                   /* NULL: none */
    uint8_t *queue[STREAM_BUFFERS_MAX]; /* full, to be written */
    uint32_t queue_count;
    uint64_t write_offset; /* of the first one in the queue */
    uint64_t size;
    uint64_t size_max;
    uint64_t size_hint;
    uint8_t *descriptor;
};

#define STATE(name) (1u << WRITER_##name)

static const uint32_t next_states[] = {
    [WRITER_OPENING] = STATE(ALLOCATING) | STATE(WRITING) | STATE(ENDED),
    [WRITER_ALLOCATING] = STATE(WRITING) | STATE(ENDED),
    [WRITER_WRITING] = STATE(TRUNCATING) | STATE(SYNCING) | STATE(ENDED),
    [WRITER_TRUNCATING] = STATE(SYNCING) | STATE(ENDED),
    [WRITER_SYNCING] = STATE(FINISHED) | STATE(ENDED),
    [WRITER_FINISHED] = STATE(ENDED),
    [WRITER_ENDED] = 0,
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

static void drop_filling(struct value_writer *writer)
{
    if (writer->filling != NULL)
        stream_put(&writer->stream, writer->filling);
    writer->filling = NULL;
    writer->filled = 0;
}

static void end(struct value_writer *writer, bool removes)
{
    set_state(writer, WRITER_ENDED);
    for (uint32_t i = 0; i < writer->queue_count; i++)
        stream_put(&writer->stream, writer->queue[i]);
    writer->queue_count = 0;
    if (!writer->is_handed_out)
        drop_filling(writer);
    stream_end(&writer->stream, removes);
}

static void fail(struct value_writer *writer, int error)
{
    assert(error < 0);
    assert(writer->error == 0);
    writer->error = error;
    if (!refusal_may_pass(error)) /* others meet every writer: they are the store's to report */
        log_error(stream_log(&writer->stream), "%s: writing it failed: %s",
                  stream_path(&writer->stream), strerror(-error));
    end(writer, true);
}

static void fail_and_tell(struct value_writer *writer, int error)
{
    fail(writer, error);
    tell(writer);
}

/* ---- syncing ---- */

static void synced(struct stream *stream, int result)
{
    struct value_writer *writer = writer_of(stream);
    if (result < 0) {
        fail_and_tell(writer, result);
        return;
    }
    store_u32(writer->descriptor, VALUE_FILE_FORMAT);
    store_u32(writer->descriptor + 4, VALUE_FILE_BLOCK_SIZE);
    store_u64(writer->descriptor + 8, writer->size);
    set_state(writer, WRITER_FINISHED);
    tell(writer);
}

static void start_syncs(struct value_writer *writer)
{
    set_state(writer, WRITER_SYNCING);
    stream_sync(&writer->stream, synced);
}

static void truncated(struct stream *stream, int result)
{
    if (result < 0)
        fail_and_tell(writer_of(stream), result);
    else
        start_syncs(writer_of(stream));
}

/* Once all bytes are there and written. */
static void complete(struct value_writer *writer)
{
    if (writer->state != WRITER_WRITING || !writer->is_finishing || writer->write_count > 0)
        return;
    assert(writer->queue_count == 0);
    uint64_t file_size = round_up(writer->size, DISK_BLOCK_SIZE);
    if (file_size >= writer->size_hint) {
        start_syncs(writer);
        return;
    }
    set_state(writer, WRITER_TRUNCATING);
    stream_truncate(&writer->stream, file_size, truncated);
}

/* ---- writing ---- */

/* Of the buffer whose bytes lie at this offset of the file: all that it has, padded. */
static uint32_t write_size(const struct value_writer *writer, uint64_t offset)
{
    uint64_t size = min_u64(VALUE_FILE_BUFFER_SIZE, writer->size - offset);
    return (uint32_t)round_up(size, DISK_BLOCK_SIZE);
}

static void transferred(struct stream *stream, uint8_t *data, uint64_t offset, int32_t result)
{
    struct value_writer *writer = writer_of(stream);
    writer->write_count--;
    stream_put(stream, data);
    if (result < 0 || (uint32_t)result != write_size(writer, offset)) {
        fail_and_tell(writer, result < 0 ? result : -EIO);
        return;
    }
    if (writer->room_wanted && writer->filling == NULL)
        writer->filling = stream_take(stream);
    complete(writer);
    tell(writer);
}

static void start_writes(struct value_writer *writer)
{
    if (writer->state != WRITER_WRITING)
        return;
    for (uint32_t i = 0; i < writer->queue_count; i++) {
        uint32_t size = write_size(writer, writer->write_offset);
        writer->write_count++;
        stream_write(&writer->stream, writer->queue[i], size, writer->write_offset);
        writer->write_offset += size;
    }
    writer->queue_count = 0;
}

/* ---- opening ---- */

static void begin_writing(struct value_writer *writer)
{
    set_state(writer, WRITER_WRITING);
    start_writes(writer);
    complete(writer);
}

static void allocated(struct stream *stream, int result)
{
    if (result < 0 && result != -EOPNOTSUPP)
        fail_and_tell(writer_of(stream), result);
    else
        begin_writing(writer_of(stream));
}

static void opened(struct stream *stream, int result)
{
    struct value_writer *writer = writer_of(stream);
    if (result < 0) {
        fail_and_tell(writer, result);
    } else if (writer->size_hint > 0) {
        set_state(writer, WRITER_ALLOCATING);
        stream_allocate(stream, writer->size_hint, allocated);
    } else {
        begin_writing(writer);
    }
}

static void woken(struct stream *stream, uint8_t *data)
{
    struct value_writer *writer = writer_of(stream);
    assert(writer->filling == NULL);
    writer->filling = data;
    tell(writer);
}

static const struct stream_kind writer_kind = {.woken = woken, .transferred = transferred};

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
    writer->size_max = size_max;
    writer->size_hint = round_up(size_hint, DISK_BLOCK_SIZE);
    writer->descriptor = descriptor;
    store_u64(descriptor + 16, name->version.clock);
    store_u32(descriptor + 24, name->version.origin);
    stream_open(stream, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE, opened);
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
    *ret_room = VALUE_FILE_BUFFER_SIZE - writer->filled;
    return writer->filling + writer->filled;
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
    uint64_t padded = round_up(writer->filled, DISK_BLOCK_SIZE);
    assert(writer->queue_count < STREAM_BUFFERS_MAX);
    memset(writer->filling + writer->filled, 0, padded - writer->filled);
    writer->queue[writer->queue_count++] = writer->filling;
    writer->filling = NULL;
    writer->filled = 0;
    start_writes(writer);
}

int value_writer_filled(struct value_writer *writer, uint32_t size)
{
    assert(writer->is_handed_out);
    assert(size <= VALUE_FILE_BUFFER_SIZE - writer->filled);
    writer->is_handed_out = false;
    if (writer->error == 0 && size > writer->size_max - writer->size)
        fail(writer, -EFBIG);
    if (writer->error != 0) {
        drop_filling(writer);
        return writer->error;
    }
    add_checksums(writer, writer->filling + writer->filled, size);
    writer->filled += size;
    if (writer->filled == VALUE_FILE_BUFFER_SIZE)
        enqueue_filling(writer);
    else if (writer->filled == 0)
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
    if (writer->filled > 0 && writer->error == 0)
        enqueue_filling(writer);
    drop_filling(writer);
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
    writer->is_handed_out = false;
    drop_filling(writer);
    if (writer->state != WRITER_ENDED)
        end(writer, !keep || writer->state != WRITER_FINISHED);
    stream_leave(&writer->stream);
}

/* ---- removing ---- */

void value_file_remove(struct stream_pool *pool, const struct value_file_name *name)
{
    struct stream *stream = stream_create(pool, NULL, sizeof *stream, name, 0, NULL);
    if (stream != NULL)
        stream_end(stream, true);
}
