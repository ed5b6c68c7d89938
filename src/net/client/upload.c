/* A large value on its way into a value file.
 *
 *   RECEIVING ---all are there---> FINISHING ---durable---> COMMITTING ---> answered
 *       |                               |                       |
 *       +---refused, or an error--------+-----------------------+---> DISCARDING ---> answered
 *
 * Of a key of another shard, its owner is asked for the version before the file is opened, and to
 * commit it; meanwhile the upload and its place in the output are lent.
 *
 * The first bytes are copied from where they arrived; then a value as it is is received straight
 * into the file's buffers, a frame is decoded into them, at most a slice a pass. What is refused is
 * consumed all the same (DISCARDING), so that no byte of a value is taken for a request, unless
 * the protocol wants to answer at once. The connection's next requests wait until the answer's
 * place is filled. */
#include "net/client/upload_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* With less than this to come, ending a receive that is under way, to receive straight into the
 * file's buffer, does not pay. */
#define DIRECT_MIN (64 * KIB)

/* While the server drains, a client that sends nothing for this long is not waited for. */
#define STALL_NS NS_PER_S

static struct loop *server_of(const struct upload *upload)
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

void upload_fail(struct upload *upload, uint8_t status)
{
    drop_file(upload);
    upload->state = UPLOAD_DISCARDING;
    upload->status = status;
    upload->waits = false;
    upload->is_sliced = false;
    if (upload->is_prompt)
        connection_wake(upload->connection);
}

static void answer(struct upload *upload, const struct shard_answer *shard_answer)
{
    struct connection *connection = upload->connection;
    struct output_block *block = upload->block;
    if (shard_answer->status != MINIVAULT_OK)
        connection->server->requests_refused++;
    drop_file(upload);
    account_whole(&block->account, &connection->output.request);
    connection->expects_value = !upload->is_frame;
    connection->upload = NULL;
    free(upload);
    if (connection->state == CONNECTION_CLOSING)
        output_fill(&connection->output, &connection->server->outputs, block, shard_answer);
    else
        connection->protocol->end_upload(connection, block, shard_answer);
    connection_touch(connection);
}

/* Goes on to the next state when everything is there. May free the upload. */
static void settle(struct upload *upload)
{
    bool has_all = upload->left == 0 && upload->begin.size == 0 && !upload->is_open;
    bool is_whole = has_all && (!upload->is_frame || upload->is_decoded);
    if (upload->state == UPLOAD_RECEIVING && is_whole) {
        upload->state = UPLOAD_FINISHING;
        if (upload->is_frame)
            decode_stream_close(store_decodes(server_of(upload)->shard.store), &upload->decoder);
        value_writer_finish(store_upload_writer(upload->file));
    } else if (upload->state == UPLOAD_DISCARDING && upload->left == 0 && !upload->is_prompt) {
        answer(upload, &(struct shard_answer){.status = upload->status});
    }
}

/* ---- asking the owner ---- */

/* Its answer is here: the waiter is free again. */
static struct upload *end_asking(struct shard_waiter *waiter)
{
    struct output_block *block = container_of(waiter, struct output_block, waiter);
    struct connection *connection = block->owner;
    struct upload *upload = connection->upload;
    assert(upload->is_asking && connection->pending_count > 0);
    upload->is_asking = false;
    connection->pending_count--;
    connection_wake(connection);
    return upload;
}

static void begin_asking(struct upload *upload, shard_waiter_done *done)
{
    upload->block->waiter.done = done;
    output_lend(upload->block);
}

static enum shard_outcome asked(struct upload *upload, enum shard_outcome outcome)
{
    upload->is_asking = outcome == SHARD_PENDING;
    upload->connection->pending_count += upload->is_asking;
    return outcome;
}

static void committed(struct shard_waiter *waiter, const struct shard_answer *shard_answer)
{
    answer(end_asking(waiter), shard_answer);
}

static enum shard_outcome commit_file(struct upload *upload, struct shard_answer *ret_answer)
{
    struct shard *shard = &server_of(upload)->shard;
    if (shard_owns(shard, upload->place))
        return shard_upload_commit(shard, upload->file, upload->key, ret_answer);
    begin_asking(upload, committed);
    return asked(upload, shard_ask_commit(shard, upload->place, upload->key, upload->file,
                                          &upload->block->waiter));
}

static void commit(struct upload *upload)
{
    struct shard_answer shard_answer = {.status = shard_upload_status(upload->result)};
    enum shard_outcome outcome = SHARD_ANSWERED;
    if (upload->result == 0)
        outcome = commit_file(upload, &shard_answer);
    if (outcome == SHARD_ANSWERED)
        answer(upload, &shard_answer);
    else if (outcome == SHARD_BUSY)
        upload->connection->wants_room = true;
}

void upload_stop(struct connection *connection)
{
    struct upload *upload = connection->upload;
    if (upload == NULL || upload->is_asking) /* what is lent comes back first */
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

void upload_wait(struct upload *upload)
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

bool upload_open_file(struct upload *upload, uint64_t size_hint)
{
    struct value_writer_events events = {
        .context = upload, .room = file_room, .finished = file_finished};
    struct shard *shard = &server_of(upload)->shard;
    const struct version *version = shard_owns(shard, upload->place) ? NULL : &upload->version;
    uint8_t status = shard_upload(shard, upload->key, size_hint, version, &events, &upload->file);
    if (status == MINIVAULT_OK)
        return true;
    upload->file = NULL;
    upload_fail(upload, status);
    return false;
}

uint64_t upload_take(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct upload *upload = connection->upload;
    uint64_t used = min_u64(size, upload->left);
    if (upload->state == UPLOAD_RECEIVING)
        used = upload_take_bytes(upload, data, used);
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
    uint8_t *buffer = upload_get_buffer(upload, &room);
    if (buffer != NULL)
        *ret_size = (uint32_t)min_u64(room, upload->left);
    upload->direct = buffer;
    return buffer;
}

void upload_filled(struct connection *connection, uint32_t size)
{
    struct upload *upload = connection->upload;
    assert(size <= upload->left);
    if (connection->protocol->pass != NULL)
        connection->protocol->pass(connection, upload->direct, size);
    upload->left -= size;
    upload->progress_ns = now_ns(upload);
    upload_fill_buffer(upload, size);
    upload_emptied(connection);
    settle(upload);
}

void upload_emptied(struct connection *connection)
{
    struct upload *upload = connection->upload;
    upload->direct = NULL;
    if (upload->refusal != 0 && upload->state == UPLOAD_RECEIVING && upload->left > 0)
        upload_fail(upload, upload->refusal);
}

void upload_expect(struct connection *connection, uint64_t size)
{
    struct upload *upload = connection->upload;
    assert(upload->is_open && upload->left == 0);
    upload->left = size;
}

void upload_end(struct connection *connection)
{
    struct upload *upload = connection->upload;
    upload->is_open = false;
    settle(upload);
}

void upload_refuse(struct connection *connection, uint8_t status)
{
    struct upload *upload = connection->upload;
    if (upload->direct == NULL) {
        upload_fail(upload, status);
        return;
    }
    upload->refusal = status;
    io_cancel(server_of(upload)->io, &connection->receive);
}

void upload_go_on(struct connection *connection)
{
    struct upload *upload = connection->upload;
    if (upload == NULL)
        return;
    if (upload->is_asking)
        return;
    upload->is_sliced = false;
    if (upload->state == UPLOAD_COMMITTING) {
        commit(upload);
    } else if (upload->state == UPLOAD_DISCARDING && upload->is_prompt) {
        answer(upload, &(struct shard_answer){.status = upload->status});
    } else if (upload->state == UPLOAD_RECEIVING && upload->begin.size > 0) {
        upload_take_begin(upload);
        settle(upload);
    } else if (upload->state == UPLOAD_RECEIVING && upload->left == 0 && !upload->waits) {
        (void)upload_take(connection, (const uint8_t *)"", 0); /* more of a frame that is there */
    }
}

/* ---- the beginning ---- */

static struct upload *create(struct connection *connection, const struct upload_request *request)
{
    struct upload *upload = calloc(1, sizeof *upload + request->key.size);
    if (upload == NULL)
        return NULL;
    memcpy(upload->key_bytes, request->key.data, request->key.size);
    upload->connection = connection;
    upload->key = (struct slice){upload->key_bytes, request->key.size};
    upload->left = request->size;
    upload->is_frame = request->is_frame;
    upload->is_open = request->is_open;
    upload->is_counted = request->is_counted;
    upload->is_prompt = request->is_prompt;
    upload->filter = request->filter;
    upload->begin = request->begin;
    upload->size_hint = request->filter == NULL ? request->size : 0;
    upload->progress_ns = now_ns(upload);
    return upload;
}

static void start(struct upload *upload)
{
    struct loop *server = server_of(upload);
    if (upload->is_frame)
        decode_stream_open(store_decodes(server->shard.store), &upload->decoder, upload->left,
                           server->config->value_size_max, decoder_granted);
    else
        (void)upload_open_file(upload, upload->size_hint);
}

static void stamped(struct shard_waiter *waiter, const struct shard_answer *shard_answer)
{
    struct upload *upload = end_asking(waiter);
    if (upload->connection->state == CONNECTION_CLOSING) {
        answer(upload, &(struct shard_answer){.status = MINIVAULT_OVERLOADED});
    } else if (shard_answer->status != MINIVAULT_OK) {
        upload_fail(upload, shard_answer->status);
    } else {
        upload->version = shard_answer->file.version;
        start(upload);
    }
}

/* Returns false when the key's owner cannot be asked now. */
static bool start_or_ask(struct upload *upload)
{
    struct shard *shard = &server_of(upload)->shard;
    upload->place = shard_locate(shard, upload->key, true);
    if (shard_owns(shard, upload->place)) {
        start(upload);
        return true;
    }
    begin_asking(upload, stamped);
    return asked(upload, shard_ask_version(shard, upload->place, upload->key,
                                           &upload->block->waiter)) == SHARD_PENDING;
}

int upload_begin(struct connection *connection, const struct upload_request *request)
{
    struct loop *server = connection->server;
    assert(connection->upload == NULL && (request->size > 0 || request->is_open));
    if (!store_has_stream(server->shard.store))
        return -EAGAIN;
    struct output_block *block =
        output_reserve(&connection->output, &server->outputs, connection, request->form);
    if (block == NULL)
        return -EAGAIN;
    struct upload *upload = create(connection, request);
    if (upload == NULL) {
        output_unreserve(&connection->output, &server->outputs, block);
        return -ENOMEM;
    }
    upload->block = block;
    connection->upload = upload;
    if (!start_or_ask(upload)) {
        upload_stop(connection);
        return -EAGAIN;
    }
    if (upload->begin.size > 0)
        connection_wake(connection);
    return 0;
}

/* ---- what the connection wants to know ---- */

bool upload_takes(const struct connection *connection)
{
    const struct upload *upload = connection->upload;
    if (upload->is_asking)
        return false;
    if (upload->state == UPLOAD_DISCARDING)
        return !upload->is_prompt;
    bool is_free = !upload->waits && !upload->is_sliced && upload->begin.size == 0;
    return upload->state == UPLOAD_RECEIVING && (upload->left > 0 || upload->is_open) && is_free;
}

bool upload_is_direct(const struct connection *connection)
{
    const struct upload *upload = connection->upload;
    uint64_t left_min = io_op_is_active(&connection->receive) ? DIRECT_MIN : 1;
    return upload != NULL && upload->state == UPLOAD_RECEIVING && !upload->is_frame &&
           !upload->is_asking && upload->filter == NULL && upload->begin.size == 0 &&
           upload->left >= left_min;
}

uint64_t upload_left(const struct connection *connection)
{
    return connection->upload != NULL ? connection->upload->left : 0;
}

bool upload_is_cut_off(const struct connection *connection)
{
    const struct upload *upload = connection->upload;
    uint64_t kept = input_size(&connection->input);
    return upload != NULL && !upload->is_asking &&
           (upload->left > kept || (upload->is_open && !upload->is_counted && kept == 0));
}

bool upload_is_starved(const struct connection *connection, uint64_t at_ns)
{
    const struct upload *upload = connection->upload;
    return upload != NULL && upload->waits && at_ns - upload->waits_since_ns > STALL_NS;
}

bool upload_is_stalled(const struct connection *connection, uint64_t at_ns, uint64_t allowed_ns)
{
    const struct upload *upload = connection->upload;
    return upload != NULL && (upload->left > 0 || upload->is_open) && !upload->is_asking &&
           !upload->waits && !upload->is_sliced && at_ns - upload->progress_ns > allowed_ns;
}
