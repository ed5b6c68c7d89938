/* Reading a value file.
 *
 * The pieces are the file's bytes in order, a buffer each, and numbered: those that the user has,
 * then those that were read, then those that are being read (which may end in any order):
 *
 *     0 ... released ... shown ... begun ... count
 *
 *   being read -> read -> shown -> released        read -> given back, to be read again later
 *
 * What is wrong with a piece is found when it is its turn to be shown: what comes before it is
 * still good. A reader that failed reads no more.
 *
 * Invariants:
 * 1. released <= shown <= begun <= count.
 * 2. The reader holds the pieces from `released` to `begun`; after a failure, those up to `shown`,
 *    and what was being read until it ends. */
#include "store/value/stream.h"

#include "base/assert.h"
#include "base/checksum.h"

#include <errno.h>
#include <string.h>

struct piece {
    uint8_t *data;
    int32_t result; /* of its read */
    bool is_read;
};

struct value_reader {
    struct stream stream;
    struct value_reader_events events;
    struct value_file_name name;
    int error;
    uint64_t fault_offset; /* of what failed */
    const char *fault;     /* in words; NULL: the error's */
    bool is_open;
    bool ready_wanted;
    uint32_t released; /* numbers of pieces: the head of the file tells of these */
    uint32_t shown;
    uint32_t begun;
    uint32_t count;
    struct piece pieces[STREAM_BUFFERS_MAX]; /* by number, in a ring */
    uint64_t size;
    const uint8_t *checksums;
};

static struct value_reader *reader_of(struct stream *stream)
{
    return container_of(stream, struct value_reader, stream);
}

static struct piece *piece_of(struct value_reader *reader, uint64_t number)
{
    return &reader->pieces[number % STREAM_BUFFERS_MAX];
}

static uint64_t offset_of(uint32_t number)
{
    return (uint64_t)number * VALUE_FILE_BUFFER_SIZE;
}

static uint32_t size_of(const struct value_reader *reader, uint32_t number)
{
    return (uint32_t)min_u64(VALUE_FILE_BUFFER_SIZE, reader->size - offset_of(number));
}

static bool has_next(struct value_reader *reader)
{
    return reader->shown < reader->begun && piece_of(reader, reader->shown)->is_read;
}

static void put_piece(struct value_reader *reader, uint32_t number)
{
    stream_put(&reader->stream, piece_of(reader, number)->data);
}

/* Gives back the pieces from this one on that the kernel does not have. */
static void put_pieces(struct value_reader *reader, uint32_t from)
{
    for (uint32_t i = from; i < reader->begun; i++)
        if (piece_of(reader, i)->is_read)
            put_piece(reader, i);
}

/* The last thing that its caller does with the reader, which may be gone afterwards. */
static void tell(struct value_reader *reader)
{
    if (!reader->ready_wanted || (reader->error == 0 && !has_next(reader)))
        return;
    reader->ready_wanted = false;
    reader->events.ready(reader->events.context);
}

static void fail(struct value_reader *reader, int error)
{
    assert(reader->error == 0);
    reader->error = error;
    stream_set_sated(&reader->stream);
    put_pieces(reader, reader->shown);
    reader->begun = reader->shown; /* invariant 2 */
}

/* ---- reading ahead ---- */

static void begin_read(struct value_reader *reader, uint8_t *data)
{
    uint32_t number = reader->begun++;
    assert(number < reader->count);                                 /* invariant 1 */
    assert(reader->begun - reader->released <= STREAM_BUFFERS_MAX); /* invariant 2 */
    *piece_of(reader, number) = (struct piece){.data = data};
    stream_read(&reader->stream, data, (uint32_t)round_up(size_of(reader, number), DISK_BLOCK_SIZE),
                offset_of(number));
}

/* Reads ahead as far as the pool lets it. */
static void read_ahead(struct value_reader *reader)
{
    while (reader->is_open && reader->error == 0 && reader->begun < reader->count) {
        uint8_t *data = stream_take(&reader->stream);
        if (data == NULL)
            return;
        begin_read(reader, data);
    }
}

/* From the end, so that the pieces stay without a gap. */
static void give_back(struct stream *stream)
{
    struct value_reader *reader = reader_of(stream);
    while (reader->begun > reader->shown && reader->begun - reader->released > 1 &&
           piece_of(reader, reader->begun - 1)->is_read && stream_is_short(stream))
        put_piece(reader, --reader->begun);
}

static void transferred(struct stream *stream, uint8_t *data, uint64_t offset, int32_t result)
{
    struct value_reader *reader = reader_of(stream);
    struct piece *piece = piece_of(reader, offset / VALUE_FILE_BUFFER_SIZE);
    if (reader->error != 0) {
        stream_put(stream, data);
        return;
    }
    assert(piece->data == data);
    assert(!piece->is_read);
    piece->is_read = true;
    piece->result = result;
    give_back(stream);
    read_ahead(reader);
    tell(reader);
}

static void woken(struct stream *stream, uint8_t *data)
{
    struct value_reader *reader = reader_of(stream);
    begin_read(reader, data);
    read_ahead(reader);
}

static const struct stream_kind reader_kind = {
    .woken = woken, .transferred = transferred, .give_back = give_back};

/* ---- opening ---- */

static void opened(struct stream *stream, int result)
{
    struct value_reader *reader = reader_of(stream);
    reader->is_open = true;
    if (result < 0)
        fail(reader, result);
    read_ahead(reader);
    tell(reader);
}

int value_reader_open(struct stream_pool *pool, const struct value_file_name *name,
                      struct slice descriptor, const struct value_reader_events *events,
                      struct value_reader **ret_reader)
{
    uint64_t size;
    uint8_t *copy;
    int result = value_file_descriptor_check(descriptor, &size);
    if (result < 0)
        return result;
    struct stream *stream = stream_create(pool, &reader_kind, sizeof(struct value_reader), name,
                                          descriptor.size, &copy);
    if (stream == NULL)
        return -ENOMEM;
    struct value_reader *reader = reader_of(stream);
    memcpy(copy, descriptor.data, descriptor.size);
    reader->events = *events;
    reader->name = *name;
    reader->size = size;
    reader->count = (uint32_t)(round_up(size, VALUE_FILE_BUFFER_SIZE) / VALUE_FILE_BUFFER_SIZE);
    reader->checksums = copy + VALUE_FILE_DESCRIPTOR_HEADER_SIZE;
    stream_open(stream, IO_OPEN_READ, opened);
    *ret_reader = reader;
    return 0;
}

/* ---- showing ---- */

static int note_fault(struct value_reader *reader, int error, uint64_t offset, const char *what)
{
    reader->fault_offset = offset;
    reader->fault = what;
    return error;
}

static int check_blocks(struct value_reader *reader, const uint8_t *data, uint64_t offset,
                        uint32_t size)
{
    const uint8_t *checksum = reader->checksums + 4 * (offset / VALUE_FILE_BLOCK_SIZE);
    for (uint32_t at = 0; at < size; at += VALUE_FILE_BLOCK_SIZE, checksum += 4) {
        uint32_t block_size = (uint32_t)min_u64(VALUE_FILE_BLOCK_SIZE, size - at);
        if (crc32c(data + at, block_size) != load_u32(checksum))
            return note_fault(reader, -EBADMSG, offset + at, "its checksum is wrong");
    }
    return 0;
}

static int check_piece(struct value_reader *reader, uint32_t number)
{
    const struct piece *piece = piece_of(reader, number);
    uint64_t offset = offset_of(number);
    uint32_t size = size_of(reader, number);
    if (piece->result < 0)
        return note_fault(reader, piece->result, offset, NULL);
    if ((uint32_t)piece->result < size) {
        uint64_t end = offset + (uint32_t)piece->result;
        return note_fault(reader, -EBADMSG, round_down(end, VALUE_FILE_BLOCK_SIZE),
                          "the file ends before");
    }
    return check_blocks(reader, piece->data, offset, size);
}

const uint8_t *value_reader_piece(struct value_reader *reader, uint32_t *ret_size)
{
    if (reader->error != 0)
        return NULL;
    if (!has_next(reader)) {
        reader->ready_wanted = reader->shown < reader->count;
        return NULL;
    }
    int result = check_piece(reader, reader->shown);
    if (result < 0) {
        fail(reader, result);
        return NULL;
    }
    uint32_t number = reader->shown++;
    read_ahead(reader);
    *ret_size = size_of(reader, number);
    return piece_of(reader, number)->data;
}

void value_reader_release(struct value_reader *reader)
{
    assert(reader->released < reader->shown); /* invariant 1 */
    put_piece(reader, reader->released++);
    read_ahead(reader);
    if (reader->released == reader->count)
        stream_set_sated(&reader->stream);
}

int value_reader_error(const struct value_reader *reader)
{
    return reader->error;
}

struct value_told value_reader_tell(const struct value_reader *reader)
{
    return (struct value_told){.name = reader->name,
                               .path = stream_path(&reader->stream),
                               .is_read = reader->shown > 0,
                               .offset = reader->fault_offset,
                               .what = reader->fault != NULL ? reader->fault
                                                             : strerror(-reader->error)};
}

void value_reader_close(struct value_reader *reader)
{
    put_pieces(reader, reader->released);
    stream_end(&reader->stream, false);
    stream_leave(&reader->stream);
}
