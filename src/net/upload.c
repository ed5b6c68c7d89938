/* A large value on its way into a value file.
 *
 *   RECEIVING ---all are there---> FINISHING ---durable---> COMMITTING ---> answered
 *       |                               |                       |
 *       +---refused, or an error--------+-----------------------+---> DISCARDING ---> answered
 *
 * The first bytes are copied from where they arrived; then a value as it is is received straight
 * into the file's buffers, a frame is decoded into them, at most a slice a pass. What is refused is
 * consumed all the same (DISCARDING), so that no byte of a value is taken for a request. The
 * connection's next requests wait until the answer's place is filled. */
#include "net/server_internal.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

/* With less than this to come, ending a receive that is under way, to receive straight into the
 * file's buffer, does not pay. */
#define DIRECT_MIN (64 * KIB)

/* While the server drains, a client that sends nothing for this long is not waited for. */
#define STALL_NS NS_PER_S

enum upload_state { UPLOAD_RECEIVING, UPLOAD_FINISHING, UPLOAD_COMMITTING, UPLOAD_DISCARDING };

struct upload {
    struct connection *connection;
    struct output_block *block; /* its answer's place */
    struct store_upload *file;  /* NULL: not begun yet, or given up */
    struct decode_stream decoder;
    enum upload_state state;
    uint8_t status; /* DISCARDING: the answer */
    bool is_frame;
    bool is_decoded;
    bool waits;     /* for a buffer of the file, or a decoder */
    bool is_sliced; /* has decoded enough for one pass */
    int result;     /* COMMITTING: of the file */
    uint64_t left;  /* bytes on the wire that were not taken yet */
    uint64_t waits_since_ns;
    uint64_t progress_ns;
    struct slice key;
    uint8_t key_bytes[];
};

static struct server *server_of(const struct upload *upload)
{
    return upload->connection->server;
}

static uint64_t now_ns(const struct upload *upload)
{
    return io_now_ns(server_of(upload)->io);
}

/* ---- the end ---- */

static void drop_file(struct upload *upload)
{
    if (upload->is_frame)
        decode_stream_close(store_decodes(server_of(upload)->shard.store), &upload->decoder);
    if (upload->file != NULL)
        store_upload_close(upload->file);
    upload->file = NULL;
}

static void fail(struct upload *upload, uint8_t status)
{
    drop_file(upload);
    upload->state = UPLOAD_DISCARDING;
    upload->status = status;
    upload->waits = false;
    upload->is_sliced = false;
}

static void answer(struct upload *upload, const struct shard_answer *shard_answer)
{
    struct connection *connection = upload->connection;
    struct server *server = connection->server;
    if (shard_answer->status != MINIVAULT_OK)
        server->requests_refused++;
    drop_file(upload);
    output_fill(&connection->output, &server->outputs, upload->block, connection->typed,
                shard_answer);
    connection->requests++;
    connection->expects_value = !upload->is_frame;
    connection->upload = NULL;
    free(upload);
    connection_touch(connection);
}

/* Goes on to the next state when everything is there. May free the upload. */
static void settle(struct upload *upload)
{
    bool is_whole = upload->left == 0 && (!upload->is_frame || upload->is_decoded);
    if (upload->state == UPLOAD_RECEIVING && is_whole) {
        upload->state = UPLOAD_FINISHING;
        if (upload->is_frame)
            decode_stream_close(store_decodes(server_of(upload)->shard.store), &upload->decoder);
        value_writer_finish(store_upload_writer(upload->file));
    } else if (upload->state == UPLOAD_DISCARDING && upload->left == 0) {
        answer(upload, &(struct shard_answer){.status = upload->status});
    }
}

static void commit(struct upload *upload)
{
    struct connection *connection = upload->connection;
    struct shard_answer shard_answer = {.status = shard_upload_status(upload->result)};
    if (upload->result == 0 && shard_upload_commit(&connection->server->shard, upload->file,
                                                   upload->key, &shard_answer) == SHARD_BUSY) {
        connection->wants_room = true;
        return;
    }
    answer(upload, &shard_answer);
}

void upload_stop(struct connection *connection)
{
    struct upload *upload = connection->upload;
    if (upload == NULL)
        return;
    drop_file(upload);
    output_unreserve(&connection->output, &connection->server->outputs, upload->block);
    connection->upload = NULL;
    free(upload);
}

void upload_free(struct connection *connection)
{
    struct upload *upload = connection->upload;
    if (upload == NULL)
        return;
    decompressor_free(upload->decoder.context);
    store_upload_forget(upload->file);
    connection->upload = NULL;
    free(upload);
}

/* ---- what the store tells; the connection goes on at the end of the pass ---- */

static void wait_for_room(struct upload *upload)
{
    if (upload->waits)
        return;
    upload->waits = true;
    upload->waits_since_ns = now_ns(upload);
}

/* The client is not to blame for the time. */
static void end_wait(struct upload *upload)
{
    struct connection *connection = upload->connection;
    if (upload->waits && connection->begun_ns != 0)
        connection->begun_ns += now_ns(upload) - upload->waits_since_ns;
    if (upload->waits)
        upload->progress_ns = now_ns(upload);
    upload->waits = false;
    connection_wake(connection);
}

static void file_room(void *context)
{
    end_wait(context);
}

static void file_finished(void *context, int result)
{
    struct upload *upload = context;
    assert(upload->state == UPLOAD_FINISHING);
    upload->state = UPLOAD_COMMITTING;
    upload->result = result;
    connection_wake(upload->connection);
}

static void decoder_granted(struct decode_stream *stream)
{
    end_wait(container_of(stream, struct upload, decoder));
}

/* ---- the file ---- */

/* Returns false when it is refused. */
static bool open_file(struct upload *upload, uint64_t size_hint)
{
    struct value_writer_events events = {
        .context = upload, .room = file_room, .finished = file_finished};
    uint8_t status =
        shard_upload(&server_of(upload)->shard, upload->key, size_hint, &events, &upload->file);
    if (status == MINIVAULT_OK)
        return true;
    upload->file = NULL;
    fail(upload, status);
    return false;
}

/* NULL: it waits for room, or has failed. */
static uint8_t *get_buffer(struct upload *upload, uint32_t *ret_room)
{
    struct value_writer *writer = store_upload_writer(upload->file);
    uint8_t *buffer = value_writer_buffer(writer, ret_room);
    if (buffer != NULL)
        return buffer;
    int error = value_writer_error(writer);
    if (error < 0)
        fail(upload, shard_upload_status(error));
    else
        wait_for_room(upload);
    return NULL;
}

static void fill_buffer(struct upload *upload, uint32_t size)
{
    int result = value_writer_filled(store_upload_writer(upload->file), size);
    if (result < 0)
        fail(upload, shard_upload_status(result));
}

/* ---- bytes ---- */

static uint64_t copy(struct upload *upload, const uint8_t *data, uint64_t size)
{
    uint64_t used = 0;
    while (used < size && upload->state == UPLOAD_RECEIVING) {
        uint32_t room = 0;
        uint8_t *buffer = get_buffer(upload, &room);
        if (buffer == NULL)
            break;
        uint32_t part = (uint32_t)min_u64(room, size - used);
        memcpy(buffer, data + used, part);
        used += part;
        fill_buffer(upload, part);
    }
    return used;
}

/* One call of the decoder. Returns false when there is nothing more to do now. */
static bool decode_piece(struct upload *upload, struct decompressor_buffers *buffers)
{
    uint32_t room = 0;
    uint8_t *output = get_buffer(upload, &room);
    buffers->input_used = 0;
    buffers->output_used = 0;
    if (output == NULL)
        return false;
    buffers->output = output;
    buffers->output_size = min_u64(room, buffers->output_size);
    int result = decompressor_move(upload->decoder.context, buffers);
    if (result < 0) {
        fail(upload, shard_decode_status(result));
        return false;
    }
    upload->is_decoded = result == 1;
    if (buffers->output_used > 0)
        fill_buffer(upload, (uint32_t)buffers->output_used);
    return upload->state == UPLOAD_RECEIVING && !upload->is_decoded &&
           buffers->input_used + buffers->output_used > 0;
}

/* A slice of a frame. */
static uint64_t decode(struct upload *upload, const uint8_t *data, uint64_t size)
{
    uint64_t used = 0;
    uint64_t made = 0;
    bool goes_on = true;
    while (goes_on && used < DECODE_SLICE_SIZE && made < DECODE_SLICE_SIZE) {
        struct decompressor_buffers buffers = {
            .input = data + used,
            .input_size = min_u64(size - used, DECODE_SLICE_SIZE - used),
            .output_size = DECODE_SLICE_SIZE - made,
        };
        goes_on = decode_piece(upload, &buffers);
        used += buffers.input_used;
        made += buffers.output_used;
    }
    if (goes_on) {
        upload->is_sliced = true;
        connection_wake(upload->connection);
    }
    return used;
}

/* What the frame says of itself, so that a full disk shows early. What it says too much is the
 * decoder's to refuse; where it says nothing, the file grows until the frame is refused, so that
 * this costs no more than the largest value. */
static bool open_file_of_frame(struct upload *upload, const uint8_t *data, uint64_t size)
{
    uint64_t declared = compress_declared_size(data, size);
    bool is_possible = declared <= server_of(upload)->config->value_size_max;
    return open_file(upload, is_possible ? declared : 0);
}

/* A decoder comes first, so that who waits for one holds nothing else. */
static uint64_t take_frame(struct upload *upload, const uint8_t *data, uint64_t size)
{
    if (upload->decoder.error < 0) {
        fail(upload, MINIVAULT_OVERLOADED);
        return 0;
    }
    if (upload->decoder.context == NULL) {
        wait_for_room(upload);
        return 0;
    }
    if (upload->file == NULL && !open_file_of_frame(upload, data, size))
        return 0;
    return decode(upload, data, size);
}

uint64_t upload_take(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct upload *upload = connection->upload;
    uint64_t used = min_u64(size, upload->left);
    if (upload->state == UPLOAD_RECEIVING)
        used = upload->is_frame ? take_frame(upload, data, used) : copy(upload, data, used);
    upload->left -= used;
    if (used > 0)
        upload->progress_ns = now_ns(upload);
    settle(upload);
    return used;
}

uint8_t *upload_buffer(struct connection *connection, uint32_t *ret_size)
{
    struct upload *upload = connection->upload;
    uint32_t room = 0;
    uint8_t *buffer = get_buffer(upload, &room);
    if (buffer != NULL)
        *ret_size = (uint32_t)min_u64(room, upload->left);
    return buffer;
}

void upload_filled(struct connection *connection, uint32_t size)
{
    struct upload *upload = connection->upload;
    assert(size <= upload->left);
    upload->left -= size;
    upload->progress_ns = now_ns(upload);
    fill_buffer(upload, size);
    settle(upload);
}

void upload_go_on(struct connection *connection)
{
    struct upload *upload = connection->upload;
    if (upload == NULL)
        return;
    upload->is_sliced = false;
    if (upload->state == UPLOAD_COMMITTING)
        commit(upload);
    else if (upload->state == UPLOAD_RECEIVING && upload->left == 0 && !upload->waits)
        (void)upload_take(connection, (const uint8_t *)"", 0); /* more of a frame that is there */
}

/* ---- the beginning ---- */

static struct upload *create(struct connection *connection, const struct binary_request *request)
{
    struct upload *upload = calloc(1, sizeof *upload + request->key.size);
    if (upload == NULL)
        return NULL;
    memcpy(upload->key_bytes, request->key.data, request->key.size);
    upload->connection = connection;
    upload->key = (struct slice){upload->key_bytes, request->key.size};
    upload->left = request->value.size;
    upload->is_frame = request->compressed == 1;
    upload->progress_ns = now_ns(upload);
    return upload;
}

bool upload_begin(struct connection *connection, const struct binary_request *request)
{
    struct server *server = connection->server;
    assert(connection->upload == NULL && request->value.size > 0);
    if (!store_has_stream(server->shard.store))
        return false;
    struct output_block *block = output_reserve(&connection->output, &server->outputs, connection);
    if (block == NULL)
        return false;
    struct upload *upload = create(connection, request);
    if (upload == NULL) {
        output_unreserve(&connection->output, &server->outputs, block);
        connection->skip =
            (struct skip){.left = request->value.size, .status = MINIVAULT_OVERLOADED};
        return true;
    }
    upload->block = block;
    connection->upload = upload;
    if (upload->is_frame)
        decode_stream_open(store_decodes(server->shard.store), &upload->decoder,
                           request->value.size, server->config->value_size_max, decoder_granted);
    else
        (void)open_file(upload, request->value.size);
    return true;
}

/* ---- what the connection wants to know ---- */

bool upload_takes(const struct connection *connection)
{
    const struct upload *upload = connection->upload;
    if (upload->state == UPLOAD_DISCARDING)
        return true;
    return upload->state == UPLOAD_RECEIVING && upload->left > 0 && !upload->waits &&
           !upload->is_sliced;
}

bool upload_is_direct(const struct connection *connection)
{
    const struct upload *upload = connection->upload;
    uint64_t left_min = io_op_is_active(&connection->receive) ? DIRECT_MIN : 1;
    return upload != NULL && upload->state == UPLOAD_RECEIVING && !upload->is_frame &&
           upload->left >= left_min;
}

uint64_t upload_left(const struct connection *connection)
{
    return connection->upload != NULL ? connection->upload->left : 0;
}

bool upload_is_starved(const struct connection *connection, uint64_t at_ns)
{
    const struct upload *upload = connection->upload;
    return upload != NULL && upload->waits && at_ns - upload->waits_since_ns > STALL_NS;
}

bool upload_is_stalled(const struct connection *connection, uint64_t at_ns, uint64_t allowed_ns)
{
    const struct upload *upload = connection->upload;
    return upload != NULL && upload->left > 0 && !upload->waits && !upload->is_sliced &&
           at_ns - upload->progress_ns > allowed_ns;
}
