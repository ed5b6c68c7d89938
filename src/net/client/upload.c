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
#include "net/client/upload.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* With less than this to come, ending a receive that is under way, to receive straight into the
 * file's buffer, does not pay. */
#define DIRECT_MIN (64 * KIB)

/* Who waits this long for a buffer or a decoder is short of them. */
#define STARVED_NS NS_PER_S

enum upload_state { UPLOAD_RECEIVING, UPLOAD_FINISHING, UPLOAD_COMMITTING, UPLOAD_DISCARDING };

struct upload {
    struct client *client;
    struct upload_request request; /* its key is ours; of `begin` what is still to be taken */
    struct output_block *block;    /* its answer's place */
    struct store_upload *file;     /* NULL: not begun yet, or given up */
    struct decode_stream decoder;
    enum upload_state state;
    uint8_t status; /* DISCARDING: the answer */
    bool is_decoded;
    bool waits;     /* for a buffer of the file, or a decoder */
    bool is_sliced; /* has decoded enough for one pass */
    bool is_asking; /* the owner of its key; the block's waiter is in use */
    int result;     /* COMMITTING: of the file */
    uint64_t left;  /* bytes on the wire that were not taken yet */
    struct key_place place;
    struct version version; /* of another shard's key: its owner's; otherwise none */
    uint8_t *direct;        /* what upload_buffer said, while bytes are received there */
    uint8_t refusal;        /* once that has ended; 0: none */
    uint64_t waits_since_ns;
    uint64_t progress_ns;
    uint8_t key[];
};

static struct client_shared *shared_of(const struct upload *upload)
{
    return upload->client->shared;
}

static struct shard *shard_of(const struct upload *upload)
{
    return shared_of(upload)->shard;
}

static struct decode_queue *decodes_of(const struct upload *upload)
{
    return store_decodes(shard_of(upload)->store);
}

static uint64_t now_ns(const struct upload *upload)
{
    return io_now_ns(shared_of(upload)->io);
}

/* ---- the end ---- */

static void drop_file(struct upload *upload)
{
    if (upload->request.is_frame)
        decode_stream_close(decodes_of(upload), &upload->decoder);
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
    if (upload->request.is_prompt)
        client_wake(upload->client);
}

static void answer(struct upload *upload, const struct shard_answer *shard_answer)
{
    struct output_block *block = upload->block;
    upload_done *done = upload->request.done;
    void *context = upload->request.context;
    drop_file(upload);
    output_whole(&upload->client->output, block);
    free(upload);
    done(context, block, shard_answer);
}

/* Goes on to the next state when everything is there. May free the upload. */
static void settle(struct upload *upload)
{
    bool has_all = upload->left == 0 && upload->request.begin.size == 0 && !upload->request.is_open;
    bool is_whole = has_all && (!upload->request.is_frame || upload->is_decoded);
    if (upload->state == UPLOAD_RECEIVING && is_whole) {
        upload->state = UPLOAD_FINISHING;
        if (upload->request.is_frame)
            decode_stream_close(decodes_of(upload), &upload->decoder);
        value_writer_finish(store_upload_writer(upload->file));
    } else if (upload->state == UPLOAD_DISCARDING && upload->left == 0 &&
               !upload->request.is_prompt) {
        answer(upload, &(struct shard_answer){.status = upload->status});
    }
}

/* ---- asking the owner ---- */

/* Its answer is here: the waiter is free again. */
static struct upload *end_asking(struct shard_waiter *waiter)
{
    void *owner;
    (void)output_waiting(waiter, &owner);
    struct upload *upload = owner;
    assert(upload->is_asking);
    upload->is_asking = false;
    client_end_pending(upload->client, false, false);
    client_wake(upload->client);
    return upload;
}

static struct shard_waiter *begin_asking(struct upload *upload, shard_waiter_done *done)
{
    output_lend(upload->block);
    return output_waiter(upload->block, done);
}

static enum shard_outcome asked(struct upload *upload, enum shard_outcome outcome)
{
    upload->is_asking = outcome == SHARD_PENDING;
    if (upload->is_asking)
        client_begin_pending(upload->client, false, false);
    return outcome;
}

static void committed(struct shard_waiter *waiter, const struct shard_answer *shard_answer)
{
    answer(end_asking(waiter), shard_answer);
}

static enum shard_outcome commit_file(struct upload *upload, struct shard_answer *ret_answer)
{
    struct shard *shard = shard_of(upload);
    if (shard_owns(shard, upload->place))
        return shard_upload_commit(shard, upload->file, upload->request.key, ret_answer);
    struct shard_waiter *waiter = begin_asking(upload, committed);
    return asked(upload,
                 shard_ask_commit(shard, upload->place, upload->request.key, upload->file, waiter));
}

static void commit(struct upload *upload)
{
    struct shard_answer shard_answer = {0};
    enum shard_outcome outcome = SHARD_ANSWERED;
    if (upload->result < 0)
        shard_answer.status = shard_upload_failed(shard_of(upload), upload->result);
    else
        outcome = commit_file(upload, &shard_answer);
    if (outcome == SHARD_ANSWERED)
        answer(upload, &shard_answer);
    else if (outcome == SHARD_BUSY)
        client_park(upload->client);
}

bool upload_stop(struct upload *upload)
{
    struct client *client = upload->client;
    if (upload->is_asking)
        return false;
    drop_file(upload);
    output_unreserve(&client->output, upload->block);
    free(upload);
    return true;
}

void upload_free(struct upload *upload)
{
    decompressor_free(upload->decoder.context);
    store_upload_forget(upload->file);
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
static void end_wait(void *context)
{
    struct upload *upload = context;
    if (upload->waits) {
        upload->client->waited_ns += now_ns(upload) - upload->waits_since_ns;
        upload->progress_ns = now_ns(upload);
    }
    upload->waits = false;
    client_wake(upload->client);
}

static void file_finished(void *context, int result)
{
    struct upload *upload = context;
    assert(upload->state == UPLOAD_FINISHING);
    upload->state = UPLOAD_COMMITTING;
    upload->result = result;
    client_wake(upload->client);
}

static void decoder_granted(struct decode_stream *stream)
{
    end_wait(container_of(stream, struct upload, decoder));
}

/* ---- the file ---- */

static bool open_file(struct upload *upload, uint64_t size_hint)
{
    struct value_writer_events events = {
        .context = upload, .room = end_wait, .finished = file_finished};
    struct shard *shard = shard_of(upload);
    const struct version *version = shard_owns(shard, upload->place) ? NULL : &upload->version;
    uint8_t status =
        shard_upload(shard, upload->request.key, size_hint, version, &events, &upload->file);
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
        fail(upload, shard_upload_failed(shard_of(upload), error));
    else
        wait_for_room(upload);
    return NULL;
}

static void fill_buffer(struct upload *upload, uint32_t size)
{
    int result = value_writer_filled(store_upload_writer(upload->file), size);
    if (result < 0)
        fail(upload, shard_upload_failed(shard_of(upload), result));
}

/* ---- bytes: copied, filtered or decoded into the buffers of the file ---- */

/* `filter`: what is left of the bytes; NULL: all. */
static uint64_t copy(struct upload *upload, upload_filter *filter, const uint8_t *data,
                     uint64_t size)
{
    uint64_t used = 0;
    while (used < size && upload->state == UPLOAD_RECEIVING) {
        uint32_t room = 0;
        uint8_t *buffer = get_buffer(upload, &room);
        if (buffer == NULL)
            break;
        uint32_t part = (uint32_t)min_u64(room, size - used);
        uint32_t filled = part;
        uint8_t status = MINIVAULT_OK;
        if (filter != NULL)
            status = filter(upload->request.context, data + used, part, buffer, &filled);
        else
            memcpy(buffer, data + used, part);
        used += part;
        fill_buffer(upload, filled);
        if (status != MINIVAULT_OK && upload->state == UPLOAD_RECEIVING)
            fail(upload, status);
    }
    return used;
}

/* What came before the upload began. */
static void take_begin(struct upload *upload)
{
    uint64_t used = copy(upload, NULL, upload->request.begin.data, upload->request.begin.size);
    upload->request.begin.data += used;
    upload->request.begin.size -= (uint32_t)used;
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
        client_wake(upload->client);
    }
    return used;
}

/* What the frame says of itself, so that a full disk shows early. What it says too much is the
 * decoder's to refuse; where it says nothing, the file grows until the frame is refused, so that
 * this costs no more than the largest value. */
static bool open_file_of_frame(struct upload *upload, const uint8_t *data, uint64_t size)
{
    uint64_t declared = compress_declared_size(data, size);
    bool is_possible = declared <= shared_of(upload)->value_size_max;
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

static uint64_t take_bytes(struct upload *upload, const uint8_t *data, uint64_t size)
{
    if (upload->request.is_frame)
        return take_frame(upload, data, size);
    return copy(upload, upload->request.filter, data, size);
}

uint64_t upload_take(struct upload *upload, const uint8_t *data, uint64_t size)
{
    uint64_t used = min_u64(size, upload->left);
    if (upload->state == UPLOAD_RECEIVING)
        used = take_bytes(upload, data, used);
    upload->left -= used;
    if (used > 0)
        upload->progress_ns = now_ns(upload);
    settle(upload);
    return used;
}

uint8_t *upload_buffer(struct upload *upload, uint32_t *ret_size)
{
    uint32_t room = 0;
    uint8_t *buffer = get_buffer(upload, &room);
    if (buffer != NULL)
        *ret_size = (uint32_t)min_u64(room, upload->left);
    upload->direct = buffer;
    return buffer;
}

void upload_filled(struct upload *upload, uint32_t size)
{
    assert(size <= upload->left);
    upload->left -= size;
    upload->progress_ns = now_ns(upload);
    fill_buffer(upload, size);
    upload_emptied(upload);
    settle(upload);
}

void upload_emptied(struct upload *upload)
{
    upload->direct = NULL;
    if (upload->refusal != 0 && upload->state == UPLOAD_RECEIVING && upload->left > 0)
        fail(upload, upload->refusal);
}

void upload_expect(struct upload *upload, uint64_t size)
{
    assert(upload->request.is_open && upload->left == 0);
    upload->left = size;
}

void upload_end(struct upload *upload)
{
    upload->request.is_open = false;
    settle(upload);
}

bool upload_refuse(struct upload *upload, uint8_t status)
{
    if (upload->direct != NULL)
        upload->refusal = status;
    else
        fail(upload, status);
    return upload->direct != NULL;
}

void upload_go_on(struct upload *upload)
{
    if (upload->is_asking)
        return;
    upload->is_sliced = false;
    if (upload->state == UPLOAD_COMMITTING) {
        commit(upload);
    } else if (upload->state == UPLOAD_DISCARDING && upload->request.is_prompt) {
        answer(upload, &(struct shard_answer){.status = upload->status});
    } else if (upload->state == UPLOAD_RECEIVING && upload->request.begin.size > 0) {
        take_begin(upload);
        settle(upload);
    } else if (upload->state == UPLOAD_RECEIVING && upload->left == 0 && !upload->waits) {
        (void)upload_take(upload, (const uint8_t *)"", 0); /* more of a frame that is there */
    }
}

/* ---- the beginning ---- */

static struct upload *create(struct client *client, const struct upload_request *request)
{
    struct upload *upload = calloc(1, sizeof *upload + request->key.size);
    if (upload == NULL)
        return NULL;
    memcpy(upload->key, request->key.data, request->key.size);
    upload->client = client;
    upload->request = *request;
    upload->request.key.data = upload->key;
    upload->left = request->size;
    upload->progress_ns = now_ns(upload);
    return upload;
}

static void start(struct upload *upload)
{
    if (upload->request.is_frame)
        decode_stream_open(decodes_of(upload), &upload->decoder, upload->left,
                           shared_of(upload)->value_size_max, decoder_granted);
    else
        (void)open_file(upload, upload->request.filter == NULL ? upload->request.size : 0);
}

static void stamped(struct shard_waiter *waiter, const struct shard_answer *shard_answer)
{
    struct upload *upload = end_asking(waiter);
    if (upload->client->is_closing) {
        answer(upload, &(struct shard_answer){.status = MINIVAULT_OVERLOADED});
    } else if (shard_answer->status != MINIVAULT_OK) {
        fail(upload, shard_answer->status);
    } else {
        upload->version = shard_answer->file.version;
        start(upload);
    }
}

/* Returns false when the key's owner cannot be asked now. */
static bool start_or_ask(struct upload *upload)
{
    struct shard *shard = shard_of(upload);
    shard_locate(shard, upload->request.key, true, &upload->place);
    if (shard_owns(shard, upload->place)) {
        start(upload);
        return true;
    }
    struct shard_waiter *waiter = begin_asking(upload, stamped);
    return asked(upload, shard_ask_version(shard, upload->place, upload->request.key, waiter)) ==
           SHARD_PENDING;
}

int upload_begin(struct client *client, const struct upload_request *request,
                 struct upload **ret_upload)
{
    assert(request->size > 0 || request->is_open);
    if (!store_has_stream(client->shared->shard->store))
        return -EAGAIN;
    struct upload *upload = create(client, request);
    if (upload == NULL)
        return -ENOMEM;
    upload->block = output_reserve(&client->output, upload, request->form);
    if (upload->block == NULL) {
        free(upload);
        return -EAGAIN;
    }
    if (!start_or_ask(upload)) {
        (void)upload_stop(upload);
        return -EAGAIN;
    }
    *ret_upload = upload;
    if (upload->request.begin.size > 0)
        client_wake(client);
    return 0;
}

/* ---- what the connection wants to know ---- */

bool upload_takes(const struct upload *upload)
{
    if (upload->is_asking)
        return false;
    if (upload->state == UPLOAD_DISCARDING)
        return !upload->request.is_prompt;
    bool is_free = !upload->waits && !upload->is_sliced && upload->request.begin.size == 0;
    return upload->state == UPLOAD_RECEIVING && (upload->left > 0 || upload->request.is_open) &&
           is_free;
}

bool upload_is_direct(const struct upload *upload, bool is_receiving)
{
    uint64_t left_min = is_receiving ? DIRECT_MIN : 1;
    return upload->state == UPLOAD_RECEIVING && !upload->request.is_frame && !upload->is_asking &&
           upload->request.filter == NULL && upload->request.begin.size == 0 &&
           upload->left >= left_min;
}

uint64_t upload_left(const struct upload *upload)
{
    return upload->left;
}

bool upload_is_cut_off(const struct upload *upload, uint64_t saved)
{
    return !upload->is_asking &&
           (upload->left > saved ||
            (upload->request.is_open && !upload->request.is_counted && saved == 0));
}

bool upload_is_starved(const struct upload *upload, uint64_t at_ns)
{
    return upload->waits && at_ns - upload->waits_since_ns > STARVED_NS;
}

bool upload_is_stalled(const struct upload *upload, uint64_t at_ns, uint64_t allowed_ns)
{
    return (upload->left > 0 || upload->request.is_open) && !upload->is_asking && !upload->waits &&
           !upload->is_sliced && at_ns - upload->progress_ns > allowed_ns;
}
