/* A large value on its way out of a value file.
 *
 *   OPENING ---first piece---> SENDING ---all sent---> gone
 *      |  ^                       |
 *   no such file                  +---error---> the connection is reset: no wrong byte follows
 *      v  |
 *   AGAIN: the key is looked up again, since its file was replaced in between
 *
 * The answer's header is written when the first piece was read and verified. A piece is sent when
 * the one before it has gone, so that a slow client holds what it is being sent and what is read
 * ahead, no more. Nothing else of the connection is executed meanwhile: what it sends later must
 * not show in an answer that comes before. */
#include "net/server_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Each time the key has a newer value already. */
#define ATTEMPTS_MAX 16u

#define STARVED_NS NS_PER_S

enum download_state { DOWNLOAD_OPENING, DOWNLOAD_AGAIN, DOWNLOAD_LOOKING, DOWNLOAD_SENDING };

struct download {
    struct output_stream stream;
    struct connection *connection;
    struct output_block *block;
    struct value_reader *reader;
    struct value_file_name file;
    enum download_state state;
    uint32_t attempts;
    uint64_t gate;
    uint64_t waits_since_ns; /* for a piece; 0: it does not */
    const uint8_t *first;    /* the first piece, until it is taken */
    uint32_t first_size;
    struct list_node node;
    struct slice key;
    uint8_t key_bytes[];
};

static struct server *server_of(const struct download *download)
{
    return download->connection->server;
}

static void close_reader(struct download *download)
{
    if (download->reader != NULL)
        store_download_close(server_of(download)->shard.store, download->reader);
    download->reader = NULL;
}

static void put(struct download *download)
{
    close_reader(download);
    list_remove(&download->node);
    connection_wake(download->connection);
    free(download);
}

/* What a client is told when its value could not be read. */
static uint8_t status_of(int error)
{
    bool is_passing = error == -ENOMEM || error == -EMFILE || error == -ENFILE;
    return is_passing ? MINIVAULT_OVERLOADED : MINIVAULT_CORRUPT;
}

/* It ends before a byte was shown. */
static void end(struct download *download, const struct shard_answer *answer)
{
    struct connection *connection = download->connection;
    output_fill(&connection->output, &connection->server->outputs, download->block,
                connection->typed, answer);
    put(download);
}

static void end_status(struct download *download, uint8_t status)
{
    end(download, &(struct shard_answer){.status = status});
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
        download->waits_since_ns = io_now_ns(server_of(download)->io);
}

static const uint8_t *next_piece(struct output_stream *stream, uint32_t *ret_size)
{
    struct download *download = of_stream(stream);
    const uint8_t *piece = download->first;
    *ret_size = download->first_size;
    download->first = NULL;
    if (piece != NULL)
        return piece;
    piece = value_reader_piece(download->reader, ret_size);
    note_wait(download, piece == NULL);
    int error = piece == NULL ? value_reader_error(download->reader) : 0;
    if (error < 0) {
        log_error(server_of(download)->log,
                  "a connection is closed: the rest of a large value cannot be read: %s",
                  strerror(-error));
        connection_abort(download->connection);
    }
    return piece;
}

static void release_piece(struct output_stream *stream)
{
    value_reader_release(of_stream(stream)->reader);
}

static void stream_ended(struct output_stream *stream)
{
    put(of_stream(stream));
}

/* ---- opening ---- */

static void ready(void *context)
{
    struct download *download = context;
    connection_wake(download->connection);
}

static bool is_same_file(const struct value_file_name *a, const struct value_file_name *b)
{
    return a->partition == b->partition && a->key_hash == b->key_hash &&
           version_compare(a->version, b->version) == 0;
}

static void open_file(struct download *download, const struct shard_answer *answer)
{
    struct server *server = server_of(download);
    struct slice descriptor = {answer->data, answer->size};
    struct value_reader_events events = {.context = download, .ready = ready};
    int result = value_file_descriptor_check(descriptor, &download->stream.left);
    if (result == 0 && download->stream.left == 0) {
        end(download, &(struct shard_answer){.status = MINIVAULT_OK, .gate = answer->gate});
        return;
    }
    if (result == 0)
        result = shard_download(&server->shard, answer, &events, &download->reader);
    if (result < 0) {
        end_status(download, status_of(result));
        return;
    }
    download->state = DOWNLOAD_OPENING;
    download->file = answer->file;
    download->gate = answer->gate;
    connection_wake(download->connection);
}

/* The newest answer for the key. */
static void take_answer(struct download *download, const struct shard_answer *answer)
{
    bool is_first = download->attempts++ == 0;
    if (!answer->in_value_file) {
        end(download, answer);
    } else if (!is_first && is_same_file(&answer->file, &download->file)) {
        log_error(server_of(download)->log,
                  "a value file is missing (partition %u, key hash %016llx): answered as CORRUPT; "
                  "restore the key from a replica or a backup",
                  (unsigned)answer->file.partition, (unsigned long long)answer->file.key_hash);
        end_status(download, MINIVAULT_CORRUPT);
    } else if (download->attempts > ATTEMPTS_MAX) {
        end_status(download, MINIVAULT_OVERLOADED);
    } else {
        open_file(download, answer);
    }
}

static void look_again(struct download *download)
{
    struct connection *connection = download->connection;
    struct shard_answer answer;
    download->state = DOWNLOAD_AGAIN;
    switch (
        shard_get(&connection->server->shard, download->key, &download->block->waiter, &answer)) {
    case SHARD_PENDING:
        download->state = DOWNLOAD_LOOKING;
        connection->pending_count++;
        break;
    case SHARD_ANSWERED:
        take_answer(download, &answer);
        break;
    default:
        connection->wants_room = true;
        break;
    }
}

static void look_at_first(struct download *download)
{
    download->first = value_reader_piece(download->reader, &download->first_size);
    if (download->first != NULL) {
        download->waits_since_ns = 0;
        struct connection *connection = download->connection;
        download->state = DOWNLOAD_SENDING;
        output_fill_stream(&connection->output, download->block, download->gate, &download->stream);
        return;
    }
    int error = value_reader_error(download->reader);
    if (error == 0)
        return;
    close_reader(download);
    if (error == -ENOENT)
        look_again(download);
    else
        end_status(download, status_of(error));
}

void download_go_on(struct connection *connection)
{
    struct list_node *node = list_first(&connection->downloads);
    while (node != NULL) {
        struct download *download = container_of(node, struct download, node);
        node = list_next(&connection->downloads, node);
        if (download->state == DOWNLOAD_OPENING)
            look_at_first(download);
        else if (download->state == DOWNLOAD_AGAIN)
            look_again(download);
    }
}

/* ---- beginning and end ---- */

static struct download *find(const struct connection *connection, const struct output_block *block)
{
    for (struct list_node *node = list_first(&connection->downloads); node != NULL;
         node = list_next(&connection->downloads, node)) {
        struct download *download = container_of(node, struct download, node);
        if (download->block == block)
            return download;
    }
    return NULL;
}

static struct download *create(struct connection *connection, struct output_block *block,
                               struct slice key)
{
    struct download *download = calloc(1, sizeof *download + key.size);
    if (download == NULL)
        return NULL;
    memcpy(download->key_bytes, key.data, key.size);
    download->key = (struct slice){download->key_bytes, key.size};
    download->connection = connection;
    download->block = block;
    download->waits_since_ns = io_now_ns(connection->server->io);
    download->stream =
        (struct output_stream){.next = next_piece, .release = release_piece, .ended = stream_ended};
    list_push_back(&connection->downloads, &download->node);
    return download;
}

void download_answer(struct connection *connection, struct output_block *block,
                     const struct shard_answer *answer)
{
    struct download *download = find(connection, block);
    if (download == NULL && answer->in_value_file && connection->state != CONNECTION_CLOSING)
        download = create(connection, block, answer->key);
    if (download != NULL) {
        take_answer(download, answer);
        return;
    }
    struct shard_answer refusal = {.status = MINIVAULT_OVERLOADED};
    output_fill(&connection->output, &connection->server->outputs, block, connection->typed,
                answer->in_value_file ? &refusal : answer);
}

void download_stop_all(struct connection *connection)
{
    struct list_node *node;
    while ((node = list_first(&connection->downloads)) != NULL) {
        struct download *download = container_of(node, struct download, node);
        struct output_block *block = download->block;
        if (download->state == DOWNLOAD_SENDING) {
            block->stream = NULL;
            block->external = NULL;
        } else if (download->state != DOWNLOAD_LOOKING) {
            block->pending = false; /* otherwise its answer is still to come */
        }
        put(download);
    }
}

void download_free_all(struct connection *connection)
{
    for (struct list_node *node; (node = list_pop_front(&connection->downloads)) != NULL;)
        free(container_of(node, struct download, node));
}

bool download_is_starved(const struct connection *connection, uint64_t at_ns)
{
    const struct list_node *node = list_first(&connection->downloads);
    if (node == NULL)
        return false;
    const struct download *download = container_of(node, struct download, node);
    bool waits = download->state == DOWNLOAD_OPENING || download->state == DOWNLOAD_SENDING;
    return waits && download->waits_since_ns != 0 && at_ns - download->waits_since_ns > STARVED_NS;
}
