/* One request: from a parsed frame to an answer in the connection's output.
 *
 * A request is refused (too large, not allowed) only after it was consumed: what has not arrived
 * yet is skipped as it comes, without being kept, and then answered, so that value bytes are never
 * read as a command. */
#include "net/server_internal.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

enum taken {
    TAKEN,   /* answered, or its answer is on its way */
    BEGUN,   /* its header was taken; its value is taken by an upload */
    BLOCKED, /* nothing was done: try again later */
};

static enum taken answer(struct connection *connection, const struct shard_answer *shard_answer)
{
    struct server *server = connection->server;
    if (output_answer(&connection->output, &server->outputs, connection->typed, shard_answer) == 0)
        return TAKEN;
    /* Not even memory for the reply: this one client loses its connection, nobody else anything. */
    connection_abort(connection);
    return TAKEN;
}

static enum taken answer_status(struct connection *connection, uint8_t status)
{
    return answer(connection, &(struct shard_answer){.status = status});
}

static enum taken answer_text(struct connection *connection, const char *text, uint32_t size)
{
    return answer(connection, &(struct shard_answer){.status = MINIVAULT_OK,
                                                     .data = (const uint8_t *)text,
                                                     .size = size});
}

/* ---- refusals ---- */

static bool needs_secret(const struct connection *connection, uint8_t op)
{
    if (connection->authenticated)
        return false;
    switch (op) {
    case MINIVAULT_SET:
    case MINIVAULT_DELETE:
        return connection->server->config->auth_mode != AUTH_NONE;
    case MINIVAULT_HEALTH:
    case MINIVAULT_AUTH:
    case MINIVAULT_HELLO:
        return false;
    default:
        return connection->server->config->auth_mode == AUTH_ALL;
    }
}

/* Why a request is refused whatever its value says: judged as soon as its header is there. Returns
 * OK: it is not. *ret_close: the connection ends with the answer. *ret_consume: the frame is
 * consumed first. */
static uint8_t refusal(const struct connection *connection, const struct binary_request *request,
                       bool *ret_close, bool *ret_consume)
{
    *ret_close = false;
    *ret_consume = true;
    if (request->value.size > MINIVAULT_VALUE_SIZE_MAX) {
        *ret_close = true;
        *ret_consume = false;
        return MINIVAULT_TOO_LARGE;
    }
    if (needs_secret(connection, request->op)) {
        *ret_close = true;
        return MINIVAULT_AUTH_REQUIRED;
    }
    if (request->op >= MINIVAULT_TYPED)
        return MINIVAULT_UNSUPPORTED;
    if (request->op == MINIVAULT_SET &&
        request->value.size > connection->server->config->value_size_max)
        return MINIVAULT_TOO_LARGE;
    if (request->op == MINIVAULT_SET && request->compressed > 1)
        return MINIVAULT_BAD_REQUEST;
    bool needs_key = request->op != MINIVAULT_HEALTH && request->op != MINIVAULT_AUTH;
    if (needs_key && request->key.size == 0)
        return MINIVAULT_BAD_REQUEST;
    return MINIVAULT_OK;
}

static void refuse(struct connection *connection, uint8_t status, bool close)
{
    connection->server->requests_refused++;
    (void)answer_status(connection, status);
    if (close)
        connection_finish(connection);
}

/* ---- operations ---- */

void request_get_done(struct shard_waiter *waiter, const struct shard_answer *shard_answer)
{
    struct output_block *block = container_of(waiter, struct output_block, waiter);
    struct connection *connection = block->owner;
    if (block->is_large) {
        block->is_large = false;
        connection->large_pending--;
        connection_wake(connection);
    }
    download_answer(connection, block, shard_answer);
    assert(connection->pending_count > 0);
    connection->pending_count--;
    connection_touch(connection);
}

static enum taken get_from_disk(struct connection *connection, struct slice key)
{
    struct server *server = connection->server;
    if (!output_has_memory(&server->outputs))
        return BLOCKED;
    struct output_block *block = output_reserve(&connection->output, &server->outputs, connection);
    if (block == NULL)
        return BLOCKED;
    block->waiter.done = request_get_done;
    struct shard_answer shard_answer;
    switch (shard_get(&server->shard, key, &block->waiter, &shard_answer)) {
    case SHARD_PENDING:
        connection->pending_count++;
        block->is_large = shard_answer.in_value_file;
        connection->large_pending += block->is_large;
        return TAKEN;
    case SHARD_ANSWERED:
        download_answer(connection, block, &shard_answer);
        return TAKEN;
    default:
        output_unreserve(&connection->output, &server->outputs, block);
        return BLOCKED;
    }
}

static enum taken get_from_file(struct connection *connection,
                                const struct shard_answer *shard_answer)
{
    struct server *server = connection->server;
    if (!store_has_stream(server->shard.store))
        return BLOCKED;
    struct output_block *block = output_reserve(&connection->output, &server->outputs, connection);
    if (block == NULL)
        return BLOCKED;
    block->waiter.done = request_get_done; /* should it have to be looked up again */
    download_answer(connection, block, shard_answer);
    return TAKEN;
}

static enum taken get(struct connection *connection, struct slice key, struct store_place place)
{
    struct shard_answer shard_answer;
    if (!shard_get_at_once(&connection->server->shard, key, place, &shard_answer))
        return get_from_disk(connection, key);
    if (shard_answer.in_value_file)
        return get_from_file(connection, &shard_answer);
    return answer(connection, &shard_answer);
}

/* What comes free is for those who wait, in their order, before it is for whoever happens to come:
 * else a few wait for as long as the store is busy. They are retried at the end of the pass. */
static bool has_to_queue(const struct server *server)
{
    return server->sets_waiting > 0 && !server->is_retrying;
}

static enum taken set(struct connection *connection, const struct binary_request *request)
{
    struct shard_answer shard_answer;
    if (has_to_queue(connection->server)) {
        connection_set_waits(connection, true);
        return BLOCKED;
    }
    switch (shard_set(&connection->server->shard, request->key, request->value,
                      request->compressed == 1, &shard_answer)) {
    case SHARD_ANSWERED:
        return answer(connection, &shard_answer);
    case SHARD_LARGE:
        return upload_begin(connection, request) ? BEGUN : BLOCKED;
    default:
        connection_set_waits(connection, true);
        return BLOCKED;
    }
}

static enum taken delete_key(struct connection *connection, struct slice key)
{
    struct shard_answer shard_answer;
    if (shard_delete(&connection->server->shard, key, &shard_answer) == SHARD_BUSY)
        return BLOCKED;
    return answer(connection, &shard_answer);
}

static enum taken health(struct connection *connection)
{
    char text[HEALTH_TEXT_MAX];
    return answer_text(connection, text, health_text(connection->server, text));
}

static enum taken authenticate(struct connection *connection, struct slice secret)
{
    if (!auth_check(&connection->server->auth, secret))
        return answer_status(connection, MINIVAULT_AUTH_REQUIRED);
    connection->authenticated = true;
    return answer_status(connection, MINIVAULT_OK);
}

static enum taken hello(struct connection *connection, struct slice name)
{
    static const char expected[] = MINIVAULT_HELLO_NAME;
    if (!slice_equal(name, (struct slice){(const uint8_t *)expected, sizeof expected - 1}))
        return answer_status(connection, MINIVAULT_UNSUPPORTED);
    char text[HEALTH_TEXT_MAX];
    uint32_t size = hello_text(connection->server, text);
    connection->typed = true;
    return answer_text(connection, text, size);
}

static enum taken execute(struct connection *connection, const struct binary_request *request,
                          struct store_place place)
{
    switch (request->op) {
    case MINIVAULT_GET:
        return get(connection, request->key, place);
    case MINIVAULT_SET:
        return set(connection, request);
    case MINIVAULT_DELETE:
        return delete_key(connection, request->key);
    case MINIVAULT_HEALTH:
        return health(connection);
    case MINIVAULT_AUTH:
        return authenticate(connection, request->key);
    case MINIVAULT_HELLO:
        return hello(connection, request->key);
    default:
        return answer_status(connection, MINIVAULT_UNSUPPORTED);
    }
}

/* ---- the stream ---- */

static enum taken take_whole(struct connection *connection, const struct binary_request *request,
                             struct store_place place)
{
    if (!output_has_room(&connection->output, &connection->server->outputs))
        return BLOCKED;
    bool close, consume;
    uint8_t status = refusal(connection, request, &close, &consume);
    if (status == MINIVAULT_OK)
        return execute(connection, request, place);
    refuse(connection, status, close);
    return TAKEN;
}

/* A large value whose header is there. Returns the bytes used: the header's. */
static uint64_t begin_upload(struct connection *connection, const struct binary_request *request,
                             uint64_t frame_size)
{
    if (request->op != MINIVAULT_SET ||
        !shard_is_large(&connection->server->shard, request->value.size, request->compressed == 1))
        return 0;
    connection->blocked = !output_has_room(&connection->output, &connection->server->outputs) ||
                          !upload_begin(connection, request);
    return connection->blocked ? 0 : frame_size - request->value.size;
}

/* A frame whose rest is still to come. Returns the bytes used: all, when it is refused and being
 * skipped. */
static uint64_t take_partial(struct connection *connection, const struct binary_request *request,
                             uint64_t frame_size, uint64_t size)
{
    bool close, consume;
    uint8_t status = refusal(connection, request, &close, &consume);
    if (status == MINIVAULT_OK)
        return begin_upload(connection, request, frame_size);
    if (consume)
        connection->skip =
            (struct skip){.left = frame_size - size, .status = status, .close = close};
    else
        refuse(connection, status, close);
    return size;
}

static uint64_t take_skipped(struct connection *connection, uint64_t size)
{
    struct skip *skip = &connection->skip;
    uint64_t taken = size < skip->left ? size : skip->left;
    skip->left -= taken;
    if (skip->left > 0)
        return taken;
    connection->requests++;
    refuse(connection, skip->status, skip->close);
    connection->blocked = !output_has_room(&connection->output, &connection->server->outputs);
    return taken;
}

static bool may_take(const struct connection *connection)
{
    return connection->state == CONNECTION_OPEN && !connection_is_waiting(connection);
}

/* Whole requests that stand one behind the other: parsed first, then located, then executed, so
 * that their cache misses overlap. */
#define BATCH_MAX 16

struct batch {
    uint32_t count;
    uint64_t size; /* bytes of all */
    struct batched {
        struct binary_request request;
        struct store_place place;
        uint64_t frame_size;
    } requests[BATCH_MAX];
};

/* Fills the batch; what follows a HELLO is parsed by other rules and must wait for it. Returns what
 * ended the batch. */
static enum binary_result parse_batch(const struct connection *connection, const uint8_t *data,
                                      uint64_t size, struct batch *ret_batch,
                                      struct binary_request *ret_partial, uint64_t *ret_frame_size)
{
    const struct store *store = connection->server->shard.store;
    enum binary_result result = BINARY_DONE;
    ret_batch->count = 0;
    ret_batch->size = 0;
    *ret_frame_size = 0;
    while (ret_batch->count < BATCH_MAX && ret_batch->size < size) {
        struct batched *next = &ret_batch->requests[ret_batch->count];
        result = binary_parse(data + ret_batch->size, size - ret_batch->size, connection->typed,
                              &next->request, &next->frame_size);
        if (result != BINARY_DONE) {
            *ret_partial = next->request;
            *ret_frame_size = next->frame_size;
            break;
        }
        bool is_write = next->request.op == MINIVAULT_SET || next->request.op == MINIVAULT_DELETE;
        next->place = store_prefetch(store, next->request.key, is_write);
        ret_batch->count++;
        ret_batch->size += next->frame_size;
        if (next->request.op == MINIVAULT_HELLO)
            break;
    }
    for (uint32_t i = 0; ret_batch->count > 1 && i < ret_batch->count; i++)
        store_prefetch_entry(store, ret_batch->requests[i].place);
    return result;
}

/* Returns the bytes used: less than the batch's when the connection is blocked or finishing. */
static uint64_t execute_batch(struct connection *connection, const struct batch *batch)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < batch->count && may_take(connection); i++) {
        const struct batched *next = &batch->requests[i];
        enum taken taken = take_whole(connection, &next->request, next->place);
        connection->blocked = taken == BLOCKED;
        if (taken == BEGUN)
            return used + next->frame_size - next->request.value.size;
        if (taken == BLOCKED)
            break;
        connection->requests++;
        used += next->frame_size;
    }
    return used;
}

uint64_t request_take_all(struct connection *connection, const uint8_t *data, uint64_t size)
{
    uint64_t used = 0;
    while (used < size && may_take(connection)) {
        if (connection->skip.left > 0) {
            used += take_skipped(connection, size - used);
            continue;
        }
        if (connection->upload != NULL) {
            used += upload_take(connection, data + used, size - used);
            continue;
        }
        struct batch batch;
        struct binary_request partial = {0};
        uint64_t frame_size;
        enum binary_result result =
            parse_batch(connection, data + used, size - used, &batch, &partial, &frame_size);
        uint64_t executed = execute_batch(connection, &batch);
        used += executed;
        if (result == BINARY_DONE || executed < batch.size || !may_take(connection))
            continue;
        if (result == BINARY_UNKNOWN_OP) {
            refuse(connection, MINIVAULT_UNSUPPORTED, true);
            continue;
        }
        uint64_t taken =
            frame_size > 0 ? take_partial(connection, &partial, frame_size, size - used) : 0;
        if (taken == 0)
            return used;
        used += taken;
    }
    return used;
}

void request_hint(const struct connection *connection, const uint8_t *data, uint64_t size,
                  bool is_next)
{
    struct binary_request request;
    uint64_t frame_size;
    bool parses_here = connection->state == CONNECTION_OPEN && !connection->blocked &&
                       connection->skip.left == 0 && connection->upload == NULL &&
                       input_size(&connection->input) == 0;
    /* A pipeline of requests hides its misses by itself. */
    if (!parses_here ||
        binary_parse(data, size, connection->typed, &request, &frame_size) != BINARY_DONE ||
        frame_size != size || request.op != MINIVAULT_GET)
        return;
    const struct store *store = connection->server->shard.store;
    struct store_place place = store_prefetch(store, request.key, false);
    if (is_next)
        store_prefetch_entry(store, place);
}
