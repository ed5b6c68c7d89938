/* Reading a value file. Its way:
 *
 *   OPENING -> READING -> ENDING -> [CLOSING ->] freed
 *
 * ENDING: its user closed it; waits for what is in flight. A reader that failed stays READING, and
 * reads no more.
 *
 * The pieces are the file's bytes in order, one buffer each: those that the user has, then those
 * that were read, then those that are being read (which may end in any order):
 *
 *   READING -> READ -> SHOWN -> released        READ -> given back, to be read again later
 *
 * What is wrong with a piece is found when it is its turn to be shown: what comes before it is
 * still good. */
#include "store/value/stream.h"

#include "base/checksum.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum reader_state { READER_OPENING, READER_READING, READER_ENDING, READER_CLOSING };

enum piece_state { PIECE_READING, PIECE_READ, PIECE_SHOWN };

struct value_reader {
    struct stream stream;
    struct value_reader_events events;
    enum reader_state state;
    int error;
    bool ready_wanted;
    uint32_t reads_in_flight;
    struct list pieces;
    uint64_t size;
    uint64_t read_offset; /* where the next read begins */
    uint64_t show_offset; /* where the next piece to be shown begins */
    const uint8_t *checksums;
};

static struct value_reader *reader_of(struct stream *stream)
{
    return container_of(stream, struct value_reader, stream);
}

static struct stream_buffer *piece_of(struct list_node *node)
{
    return node != NULL ? container_of(node, struct stream_buffer, node) : NULL;
}

/* The first piece that was not shown, or NULL. */
static struct stream_buffer *next_piece(const struct value_reader *reader)
{
    struct list_node *node = list_first(&reader->pieces);
    while (node != NULL && piece_of(node)->state == PIECE_SHOWN)
        node = list_next(&reader->pieces, node);
    return piece_of(node);
}

static void put_piece(struct stream_buffer *piece)
{
    list_remove(&piece->node);
    stream_put(piece);
}

/* The last thing that its caller does with the reader, which may be gone afterwards. */
static void tell(struct value_reader *reader)
{
    const struct stream_buffer *piece = next_piece(reader);
    if (!reader->ready_wanted)
        return;
    if (reader->error == 0 && (piece == NULL || piece->state != PIECE_READ))
        return;
    reader->ready_wanted = false;
    reader->events.ready(reader->events.context);
}

/* ---- the end ---- */

static void close_done(struct io_op *op, int32_t result)
{
    (void)result;
    stream_free(container_of(op, struct stream, op));
}

/* Goes on once nothing is in flight. */
static void end(struct value_reader *reader)
{
    struct stream *stream = &reader->stream;
    assert(reader->state == READER_ENDING);
    if (reader->reads_in_flight > 0 || io_op_is_active(&stream->op))
        return;
    if (stream->handle < 0) {
        stream_free(stream);
        return;
    }
    reader->state = READER_CLOSING;
    stream->op.done = close_done;
    io_close_file(stream->pool->io, &stream->op, stream->handle);
}

/* Gives back the pieces that the kernel does not have; `shown`: also those that the user has. */
static void put_pieces(struct value_reader *reader, bool shown)
{
    struct list_node *node = list_first(&reader->pieces);
    while (node != NULL) {
        struct stream_buffer *piece = piece_of(node);
        node = list_next(&reader->pieces, node);
        if (piece->state == PIECE_READ || (shown && piece->state == PIECE_SHOWN))
            put_piece(piece);
    }
}

static void fail(struct value_reader *reader, int error)
{
    assert(reader->error == 0);
    reader->error = error;
    stream_stop_waiting(&reader->stream);
    stream_set_sated(&reader->stream);
    put_pieces(reader, false);
}

/* ---- reading ahead ---- */

static void read_done(struct io_op *op, int32_t result);

static void start_read(struct value_reader *reader, struct stream_buffer *piece)
{
    piece->state = PIECE_READING;
    piece->offset = reader->read_offset;
    piece->size = (uint32_t)min_u64(VALUE_FILE_BUFFER_SIZE, reader->size - piece->offset);
    reader->read_offset += piece->size;
    reader->reads_in_flight++;
    list_push_back(&reader->pieces, &piece->node);
    piece->op.done = read_done;
    io_read(reader->stream.pool->io, &piece->op, reader->stream.handle, piece->data,
            (uint32_t)round_up(piece->size, DISK_BLOCK_SIZE), piece->offset);
}

/* Reads ahead as far as the pool lets it. */
static void read_ahead(struct value_reader *reader)
{
    if (reader->state != READER_READING || reader->error != 0)
        return;
    while (reader->read_offset < reader->size) {
        struct stream_buffer *buffer = stream_take(&reader->stream);
        if (buffer == NULL)
            return;
        start_read(reader, buffer);
    }
}

/* From the end, so that the pieces stay without a gap. */
static void give_back(struct stream *stream)
{
    struct value_reader *reader = reader_of(stream);
    while (stream->owned > 1 && stream_pool_is_short(stream->pool)) {
        struct stream_buffer *piece = piece_of(list_last(&reader->pieces));
        if (piece->state != PIECE_READ)
            return;
        reader->read_offset = piece->offset;
        put_piece(piece);
    }
}

static void read_done(struct io_op *op, int32_t result)
{
    struct stream_buffer *piece = container_of(op, struct stream_buffer, op);
    struct value_reader *reader = reader_of(piece->stream);
    reader->reads_in_flight--;
    piece->state = PIECE_READ;
    piece->result = result;
    if (reader->error != 0 || reader->state == READER_ENDING)
        put_piece(piece);
    if (reader->state == READER_ENDING) {
        end(reader);
        return;
    }
    give_back(&reader->stream);
    read_ahead(reader);
    tell(reader);
}

static void granted(struct stream *stream, struct stream_buffer *buffer)
{
    struct value_reader *reader = reader_of(stream);
    start_read(reader, buffer);
    read_ahead(reader);
}

static const struct stream_kind reader_kind = {.granted = granted, .give_back = give_back};

/* ---- opening ---- */

static void open_done(struct io_op *op, int32_t result)
{
    struct stream *stream = container_of(op, struct stream, op);
    struct value_reader *reader = reader_of(stream);
    stream->handle = result >= 0 ? result : -1;
    if (reader->state == READER_ENDING) {
        end(reader);
        return;
    }
    reader->state = READER_READING;
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
    reader->size = size;
    reader->checksums = copy + VALUE_FILE_DESCRIPTOR_HEADER_SIZE;
    list_init(&reader->pieces);
    stream_join(stream);
    stream->op.done = open_done;
    io_open_file(pool->io, &stream->op, stream->path, IO_OPEN_READ | IO_OPEN_DIRECT);
    *ret_reader = reader;
    return 0;
}

/* ---- showing ---- */

static int check_blocks(const struct value_reader *reader, const struct stream_buffer *piece)
{
    for (uint32_t at = 0; at < piece->size; at += VALUE_FILE_BLOCK_SIZE) {
        uint64_t offset = piece->offset + at;
        uint32_t size = (uint32_t)min_u64(VALUE_FILE_BLOCK_SIZE, piece->size - at);
        uint32_t wanted = load_u32(reader->checksums + 4 * (offset / VALUE_FILE_BLOCK_SIZE));
        if (crc32c(piece->data + at, size) == wanted)
            continue;
        log_error(reader->stream.pool->log,
                  "%s: the block at offset %" PRIu64
                  " is damaged: it is not shown; write the key again or restore it",
                  reader->stream.path, offset);
        return -EBADMSG;
    }
    return 0;
}

static int check_piece(const struct value_reader *reader, const struct stream_buffer *piece)
{
    const struct stream *stream = &reader->stream;
    if (piece->result < 0) {
        log_error(stream->pool->log, "%s: reading at offset %" PRIu64 " failed: %s", stream->path,
                  piece->offset, strerror(-piece->result));
        return piece->result;
    }
    if ((uint32_t)piece->result < piece->size) {
        log_error(stream->pool->log,
                  "%s: the file ends at %" PRIu64 ", its value at %" PRIu64
                  ": it is not shown; write the key again or restore it",
                  stream->path, piece->offset + (uint32_t)piece->result, reader->size);
        return -EBADMSG;
    }
    return check_blocks(reader, piece);
}

const uint8_t *value_reader_piece(struct value_reader *reader, uint32_t *ret_size)
{
    if (reader->error != 0)
        return NULL;
    struct stream_buffer *piece = next_piece(reader);
    if (piece == NULL || piece->state != PIECE_READ) {
        reader->ready_wanted = reader->show_offset < reader->size;
        return NULL;
    }
    assert(piece->offset == reader->show_offset);
    int result = check_piece(reader, piece);
    if (result < 0) {
        fail(reader, result);
        return NULL;
    }
    piece->state = PIECE_SHOWN;
    reader->show_offset += piece->size;
    read_ahead(reader);
    *ret_size = piece->size;
    return piece->data;
}

void value_reader_release(struct value_reader *reader)
{
    struct stream_buffer *piece = piece_of(list_first(&reader->pieces));
    assert(piece != NULL);
    assert(piece->state == PIECE_SHOWN);
    put_piece(piece);
    read_ahead(reader);
    if (reader->read_offset == reader->size && reader->stream.owned == 0)
        stream_set_sated(&reader->stream);
}

int value_reader_error(const struct value_reader *reader)
{
    return reader->error;
}

void value_reader_close(struct value_reader *reader)
{
    assert(reader->state < READER_ENDING);
    stream_leave(&reader->stream);
    put_pieces(reader, true);
    reader->state = READER_ENDING;
    end(reader);
}
