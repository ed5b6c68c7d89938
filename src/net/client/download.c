/* A large value on its way out of a value file.
 *
 *   WAITING: for the replies before it, then for one of the streams that the store has
 *      v
 *   OPENING ---first piece---> SENDING ---all sent---> gone
 *      |  ^                       |
 *   no such file                  +---error---> the connection is reset: no wrong byte follows
 *      v  |
 *   AGAIN: the key is looked up again, since its file was replaced in between
 *
 * Where values are sent as JSON it is read twice: OPENING -> JUDGING -> OPENING -> SENDING.
 *
 * The answer's header is written when the first piece was read and verified. A piece is sent when
 * the one before it has gone, so that a slow client holds what it is being sent and what is read
 * ahead, no more. Of the downloads of a connection only the first holds any of this: otherwise
 * those behind it could hold all that it waits for itself. Nothing else of the connection is
 * executed meanwhile: what it sends later must not show in an answer that comes before. */
#include "net/client/download.h"

#include "net/client/download_json.h"

#include "base/assert.h"
#include "proto/http.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Each time the key has a newer value already. */
#define ATTEMPTS_MAX 16u

#define STARVED_NS NS_PER_S

enum download_state {
    DOWNLOAD_WAITING,
    DOWNLOAD_OPENING,
    DOWNLOAD_JUDGING,
    DOWNLOAD_AGAIN,
    DOWNLOAD_LOOKING,
    DOWNLOAD_SENDING
};

struct download {
    struct output_stream stream;
    struct client *client;
    struct output_block *block;
    struct value_reader *reader;
    enum download_state state;
    uint32_t attempts;
    struct shard_answer
        answer;              /* the newest; its bytes are ours or, while it is taken, another's */
    uint64_t waits_since_ns; /* for a stream or a piece; 0: it does not */
    const uint8_t *first;    /* the first piece, until it is taken */
    uint32_t first_size;
    struct download_json *json; /* or NULL: the value is sent as it is */
    struct list_node node;
    struct slice key;
    uint8_t key_bytes[];
};

static struct client_shared *shared_of(const struct download *download)
{
    return download->client->shared;
}

static struct shard *shard_of(const struct download *download)
{
    return shared_of(download)->shard;
}

static void close_reader(struct download *download)
{
    if (download->reader != NULL)
        store_download_close(shard_of(download)->store, download->reader);
    download->reader = NULL;
}

/* Its file is open, or not wanted: another shard need not keep it any more. */
static void give_back(struct download *download)
{
    if (download->answer.is_lent)
        shard_release_file(shard_of(download), &download->answer.file);
    download->answer.is_lent = false;
}

/* So that the answer can still be opened when its bytes have gone. Errors: -ENOMEM. */
static int save_bytes(struct download *download)
{
    struct shard_answer *answer = &download->answer;
    if (answer->memory != NULL)
        return 0;
    answer->memory = malloc(answer->size);
    if (answer->memory == NULL)
        return -ENOMEM;
    memcpy(answer->memory, answer->data, answer->size);
    answer->data = answer->memory;
    output_take_memory(&shared_of(download)->outputs, answer->size);
    return 0;
}

static void forget_bytes(struct download *download)
{
    struct shard_answer *answer = &download->answer;
    if (answer->memory != NULL)
        output_give_memory(&shared_of(download)->outputs, answer->size);
    free(answer->memory);
    answer->memory = NULL;
    answer->data = NULL;
}

static void free_memory(struct download *download)
{
    download_json_free(download->json);
    forget_bytes(download);
    free(download);
}

static void put(struct download *download)
{
    give_back(download);
    close_reader(download);
    list_remove(&download->node);
    client_wake(download->client);
    free_memory(download);
}

/* It ends before a byte was shown. */
static void end(struct download *download, const struct shard_answer *answer)
{
    struct client *client = download->client;
    output_fill(&client->output, download->block, answer);
    put(download);
}

static void end_status(struct download *download, uint8_t status)
{
    end(download, &(struct shard_answer){.status = status});
}

/* The value could not be read: it is damaged, or only out of reach. */
static void end_unread(struct download *download, int error)
{
    if (error == -EBADMSG || error == -EPROTONOSUPPORT)
        end_status(download, MINIVAULT_CORRUPT);
    else if (disk_is_passing(error))
        end_status(download, MINIVAULT_OVERLOADED);
    else
        end(download, &(struct shard_answer){.status = MINIVAULT_ERROR, .error = error});
}

static int error_of(const struct download *download)
{
    return store_download_error(shard_of(download)->store, download->reader);
}

/* ---- pieces ---- */

static struct download *of_stream(struct output_stream *stream)
{
    return container_of(stream, struct download, stream);
}

/* Also in the middle of a value it may wait long, when all buffers are with others. */
static void note_wait(struct download *download, bool waits)
{
    if (!waits)
        download->waits_since_ns = 0;
    else if (download->waits_since_ns == 0)
        download->waits_since_ns = io_now_ns(shared_of(download)->io);
}

/* Of the value. */
static const uint8_t *next_of_value(struct download *download, uint32_t *ret_size)
{
    const uint8_t *piece = download->first;
    *ret_size = download->first_size;
    download->first = NULL;
    if (piece != NULL)
        return piece;
    piece = value_reader_piece(download->reader, ret_size);
    note_wait(download, piece == NULL);
    int error = piece == NULL ? error_of(download) : 0;
    if (error < 0) {
        struct client_shared *shared = shared_of(download);
        uint64_t count = log_limit_count(&shared->cuts_told, io_now_ns(shared->io));
        if (count > 0)
            log_error(shared->log,
                      "%" PRIu64 " connections are ended: the rest of a large value cannot be "
                      "read: %s",
                      count, strerror(-error));
        client_abort(download->client);
    }
    return piece;
}

static const uint8_t *next_piece(struct output_stream *stream, uint32_t *ret_size)
{
    struct download *download = of_stream(stream);
    if (download->json == NULL)
        return next_of_value(download, ret_size);
    const uint8_t *shown = download_json_next(download->json, ret_size);
    if (shown != NULL)
        return shown;
    uint32_t size = 0;
    const uint8_t *piece = next_of_value(download, &size);
    if (piece == NULL)
        return NULL;
    download_json_put(download->json, piece, size);
    return download_json_next(download->json, ret_size);
}

static void release_piece(struct output_stream *stream)
{
    struct download *download = of_stream(stream);
    if (download->json == NULL || download_json_release(download->json))
        value_reader_release(download->reader);
}

static void stream_ended(struct output_stream *stream)
{
    put(of_stream(stream));
}

/* ---- opening ---- */

static void ready(void *context)
{
    struct download *download = context;
    client_wake(download->client);
}

static bool is_same_file(const struct value_file_name *a, const struct value_file_name *b)
{
    return a->partition == b->partition && a->key_hash == b->key_hash &&
           version_compare(a->version, b->version) == 0;
}

static bool is_head(const struct download *download)
{
    return (output_form(download->block).bits & REPLY_HEAD) != 0;
}

static void end_head(struct download *download, uint64_t size)
{
    output_fill_head(&download->client->output, download->block, download->answer.gate, size);
    put(download);
}

/* In the words of the protocol that wants JSON. */
static void end_refused(struct download *download, uint16_t status, const char *reason)
{
    struct output_block *block = download->block;
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    struct reply_form form = output_form(block);
    uint32_t size = form.dialect->write_error(form, status, reason, reply);
    output_set_form(block, reply_form_verbatim(), 0);
    end(download, &(struct shard_answer){.data = reply, .size = size});
}

/* What is sent is known now. Returns false when that is an error, or the head alone. */
static bool begin_json(struct download *download)
{
    uint16_t status;
    const char *reason;
    uint64_t size = download_json_size(download->json, &status, &reason);
    if (size > 0 && !is_head(download)) {
        download->stream.left = size;
        return true;
    }
    if (size > 0)
        end_head(download, size);
    else
        end_refused(download, status, reason);
    return false;
}

static bool may_open(struct download *download)
{
    struct client *client = download->client;
    bool is_first = output_is_first(&client->output, download->block);
    note_wait(download, is_first);
    if (!is_first || store_has_stream(client->shared->shard->store))
        return is_first;
    client_park(client);
    return false;
}

/* Errors: -ENOMEM. */
static int prepare_json(struct download *download)
{
    download_json_free(download->json);
    download->json = download_json_create(download->stream.left);
    return download->json != NULL ? save_bytes(download) : -ENOMEM;
}

static int open_reader(struct download *download)
{
    struct value_reader_events events = {.context = download, .ready = ready};
    download->state = DOWNLOAD_OPENING;
    return shard_download(shard_of(download), &download->answer, &events, &download->reader);
}

/* Its file may be replaced while it is opened, as it may while it waits for that. */
static void open_file(struct download *download)
{
    struct slice descriptor = {download->answer.data, download->answer.size};
    bool is_json = output_form(download->block).dialect->is_json;
    int result = value_file_descriptor_check(descriptor, &download->stream.left);
    if (result == 0 && download->stream.left == 0) {
        end(download, &(struct shard_answer){.gate = download->answer.gate});
        return;
    }
    if (result == 0 && is_head(download) && !is_json) {
        end_head(download, download->stream.left);
        return;
    }
    if (result == 0 && !may_open(download)) {
        download->state = DOWNLOAD_WAITING;
        result = save_bytes(download);
        if (result == 0)
            return;
    }
    if (result == 0 && is_json)
        result = prepare_json(download);
    if (result == 0 && is_json && download_json_is_too_large(download->json)) {
        (void)begin_json(download);
        return;
    }
    if (result == 0)
        result = open_reader(download);
    if (result < 0) {
        end_unread(download, result);
        return;
    }
    if (!is_json)
        forget_bytes(download);
    client_wake(download->client);
}

/* The newest answer for the key. */
static void take_answer(struct download *download, const struct shard_answer *answer)
{
    bool is_same = download->attempts++ > 0 && is_same_file(&answer->file, &download->answer.file);
    give_back(download);
    forget_bytes(download);
    download->answer = *answer;
    download->answer.memory = NULL;
    if (!answer->in_value_file) {
        end(download, answer);
    } else if (is_same) {
        store_download_missing(shard_of(download)->store, &answer->file);
        end_status(download, MINIVAULT_CORRUPT);
    } else if (download->attempts > ATTEMPTS_MAX) {
        end_status(download, MINIVAULT_OVERLOADED);
    } else {
        open_file(download);
    }
}

/* Of this shard's keys the newest value, of others what their owner says. */
static enum shard_outcome look_up(struct download *download, struct shard_answer *ret_answer)
{
    struct shard *shard = shard_of(download);
    struct output_block *block = download->block;
    struct key_place place;
    shard_locate(shard, download->key, false, &place);
    if (shard_owns(shard, place))
        return shard_get(shard, download->key, output_waiter(block, NULL), ret_answer);
    output_lend(block);
    return shard_ask_get(shard, place, download->key, output_waiter(block, NULL));
}

static void look_again(struct download *download)
{
    struct client *client = download->client;
    struct shard_answer answer;
    download->state = DOWNLOAD_AGAIN;
    switch (look_up(download, &answer)) {
    case SHARD_PENDING:
        download->state = DOWNLOAD_LOOKING;
        client_begin_pending(client, output_is_lent(download->block), false);
        break;
    case SHARD_ANSWERED:
        take_answer(download, &answer);
        break;
    default:
        client_park(client);
        break;
    }
}

/* It could not be read: when its file is gone, the key has a newer value. */
static void end_failed(struct download *download, int error)
{
    close_reader(download);
    if (error == -ENOENT)
        look_again(download);
    else
        end_unread(download, error);
}

/* Reads a piece a pass, for it takes a while to look at every byte of one. */
static void look_at_next(struct download *download)
{
    uint32_t size = 0;
    const uint8_t *piece = value_reader_piece(download->reader, &size);
    note_wait(download, piece == NULL);
    if (piece == NULL) {
        int error = error_of(download);
        if (error < 0)
            end_failed(download, error);
        return;
    }
    bool is_last = download_json_judge(download->json, piece, size);
    value_reader_release(download->reader);
    client_wake(download->client);
    if (!is_last || !begin_json(download))
        return;
    close_reader(download);
    int result = open_reader(download);
    note_wait(download, true);
    if (result < 0)
        end_unread(download, result);
}

static void look_at_first(struct download *download)
{
    if (download->json != NULL && !download_json_is_judged(download->json)) {
        download->state = DOWNLOAD_JUDGING;
        look_at_next(download);
        return;
    }
    download->first = value_reader_piece(download->reader, &download->first_size);
    if (download->first != NULL) {
        give_back(download);
        download->waits_since_ns = 0;
        download->state = DOWNLOAD_SENDING;
        output_fill_stream(&download->client->output, download->block, download->answer.gate,
                           &download->stream);
        return;
    }
    int error = error_of(download);
    if (error < 0)
        end_failed(download, error);
}

void download_go_on(struct client *client)
{
    struct list_node *node = list_first(&client->downloads);
    while (node != NULL) {
        struct download *download = container_of(node, struct download, node);
        node = list_next(&client->downloads, node);
        if (download->state == DOWNLOAD_WAITING && may_open(download))
            open_file(download);
        else if (download->state == DOWNLOAD_OPENING)
            look_at_first(download);
        else if (download->state == DOWNLOAD_JUDGING)
            look_at_next(download);
        else if (download->state == DOWNLOAD_AGAIN)
            look_again(download);
    }
}

/* ---- beginning and end ---- */

static struct download *find(const struct client *client, const struct output_block *block)
{
    for (struct list_node *node = list_first(&client->downloads); node != NULL;
         node = list_next(&client->downloads, node)) {
        struct download *download = container_of(node, struct download, node);
        if (download->block == block)
            return download;
    }
    return NULL;
}

static struct download *create(struct client *client, struct output_block *block, struct slice key)
{
    struct download *download = calloc(1, sizeof *download + key.size);
    if (download == NULL)
        return NULL;
    memcpy(download->key_bytes, key.data, key.size);
    download->key = (struct slice){download->key_bytes, key.size};
    download->client = client;
    download->block = block;
    download->stream =
        (struct output_stream){.next = next_piece, .release = release_piece, .ended = stream_ended};
    list_push_back(&client->downloads, &download->node);
    return download;
}

void download_fill(struct client *client, struct output_block *block,
                   const struct shard_answer *answer)
{
    void *descriptor = answer->in_value_file ? answer->memory : NULL; /* it is copied */
    struct download *download = find(client, block);
    if (download == NULL && answer->in_value_file && !client->is_closing)
        download = create(client, block, answer->key);
    if (download != NULL) {
        take_answer(download, answer);
        free(descriptor);
        return;
    }
    if (answer->is_lent)
        shard_release_file(client->shared->shard, &answer->file);
    struct shard_answer refusal = {.status = MINIVAULT_OVERLOADED};
    output_fill(&client->output, block, answer->in_value_file ? &refusal : answer);
    free(descriptor);
}

void download_stop_all(struct client *client)
{
    struct list_node *node;
    while ((node = list_first(&client->downloads)) != NULL) {
        struct download *download = container_of(node, struct download, node);
        struct output_block *block = download->block;
        if (download->state != DOWNLOAD_LOOKING) /* otherwise its answer is still to come */
            output_forget(block);
        put(download);
    }
}

void download_free_all(struct client *client)
{
    for (struct list_node *node; (node = list_pop_front(&client->downloads)) != NULL;) {
        struct download *download = container_of(node, struct download, node);
        free_memory(download);
    }
}

bool download_is_starved(const struct client *client, uint64_t at_ns)
{
    for (const struct list_node *node = list_first(&client->downloads); node != NULL;
         node = list_next(&client->downloads, node)) {
        const struct download *download = container_of(node, struct download, node);
        bool is_with_owner =
            download->state == DOWNLOAD_AGAIN || download->state == DOWNLOAD_LOOKING;
        if (!is_with_owner && download->waits_since_ns != 0 &&
            at_ns - download->waits_since_ns > STARVED_NS)
            return true;
    }
    return false;
}
