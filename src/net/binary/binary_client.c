/* The binary protocol: frames off the front of what has arrived, one answer each.
 *
 * A request is refused (too large, not allowed) only after it was consumed: what has not arrived
 * yet is skipped as it comes, without being saved, and then answered, so that value bytes are never
 * read as a command. */
#include "net/binary/binary_client.h"

#include "net/client/limits.h"
#include "net/client/operation.h"
#include "net/client/upload.h"

#include "base/assert.h"
#include "proto/binary.h"

#include <errno.h>

/* Bytes of a refused request that are thrown away as they come; then it is answered. */
struct skip {
    uint64_t left;
    uint8_t status;
    bool close; /* finish after the answer */
};

struct binary_client {
    struct connection connection;
    struct skip skip;
    bool typed; /* HELLO was said */
    bool authenticated;
};

static struct binary_client *binary_of(struct connection *connection)
{
    return container_of(connection, struct binary_client, connection);
}

static const struct binary_client *const_binary_of(const struct connection *connection)
{
    return container_of(connection, const struct binary_client, connection);
}

static struct client *client_of(struct binary_client *binary)
{
    return &binary->connection.client;
}

static const struct client_shared *shared_of(const struct binary_client *binary)
{
    return binary->connection.client.shared;
}

/* ---- answers ---- */

static struct reply_form form_of(const struct binary_client *binary)
{
    return reply_form_binary(binary->typed);
}

static enum taken answer(struct binary_client *binary, const struct shard_answer *shard_answer)
{
    return operation_answer(client_of(binary), form_of(binary), shard_answer);
}

static enum taken answer_status(struct binary_client *binary, uint8_t status)
{
    return answer(binary, &(struct shard_answer){.status = status});
}

static enum taken answer_text(struct binary_client *binary, const char *text, uint32_t size)
{
    return answer(binary, &(struct shard_answer){
                              .status = MINIVAULT_OK, .data = (const uint8_t *)text, .size = size});
}

/* ---- refusals ---- */

static bool is_write(uint8_t op)
{
    return op == MINIVAULT_SET || op == MINIVAULT_DELETE;
}

static bool needs_secret(const struct binary_client *binary, uint8_t op)
{
    enum auth_mode mode = shared_of(binary)->auth_mode;
    bool is_public = op == MINIVAULT_HEALTH || op == MINIVAULT_AUTH || op == MINIVAULT_HELLO;
    if (binary->authenticated || is_public)
        return false;
    return mode == AUTH_ALL || (mode == AUTH_WRITES && is_write(op));
}

/* Why a request is refused whatever its value says: judged as soon as its header is there. Returns
 * OK: it is not. *ret_close: the connection ends with the answer. */
static uint8_t refusal(const struct binary_client *binary, const struct binary_request *request,
                       bool *ret_close)
{
    bool is_beyond = request->value.size > MINIVAULT_VALUE_SIZE_MAX;
    *ret_close = is_beyond || needs_secret(binary, request->op);
    if (*ret_close)
        return is_beyond ? MINIVAULT_TOO_LARGE : MINIVAULT_AUTH_REQUIRED;
    if (request->op == MINIVAULT_STATS)
        return request->key.size + request->value.size > 0 ? MINIVAULT_BAD_REQUEST : MINIVAULT_OK;
    if (request->op >= MINIVAULT_TYPED)
        return MINIVAULT_UNSUPPORTED;
    if (request->op == MINIVAULT_SET && request->value.size > shared_of(binary)->value_size_max)
        return MINIVAULT_TOO_LARGE;
    if (request->op == MINIVAULT_SET && request->compressed > 1)
        return MINIVAULT_BAD_REQUEST;
    bool needs_key = request->op != MINIVAULT_HEALTH && request->op != MINIVAULT_AUTH;
    if (needs_key && request->key.size == 0)
        return MINIVAULT_BAD_REQUEST;
    return MINIVAULT_OK;
}

static void refuse(struct binary_client *binary, uint8_t status, bool close)
{
    client_of(binary)->shared->requests_refused++;
    (void)answer_status(binary, status);
    if (close)
        connection_finish(&binary->connection);
}

/* ---- operations ---- */

static enum taken begin_upload(struct binary_client *binary, const struct binary_request *request)
{
    struct upload_request upload = {.key = request->key,
                                    .size = request->value.size,
                                    .is_frame = request->compressed == 1,
                                    .form = form_of(binary)};
    switch (connection_begin_upload(&binary->connection, &upload)) {
    case 0:
        return BEGUN;
    case -EAGAIN:
        return BLOCKED;
    default:
        binary->skip = (struct skip){.left = request->value.size, .status = MINIVAULT_OVERLOADED};
        return BEGUN;
    }
}

static enum taken set(struct binary_client *binary, const struct binary_request *request,
                      struct key_place place)
{
    struct operation_set set = {request->key, request->value, request->compressed == 1};
    enum taken taken = operation_set(client_of(binary), form_of(binary), &set, place);
    return taken == IS_LARGE ? begin_upload(binary, request) : taken;
}

static enum taken health(struct binary_client *binary)
{
    char text[METRICS_HEALTH_MAX];
    return answer_text(binary, text, health_text(shared_of(binary)->watch, text));
}

static enum taken stats(struct binary_client *binary)
{
    char text[METRICS_JSON_MAX];
    return answer_text(binary, text, stats_text(shared_of(binary)->watch, text));
}

static enum taken authenticate(struct binary_client *binary, struct slice secret)
{
    if (!auth_check(&shared_of(binary)->auth, secret))
        return answer_status(binary, MINIVAULT_AUTH_REQUIRED);
    binary->authenticated = true;
    return answer_status(binary, MINIVAULT_OK);
}

static enum taken hello(struct binary_client *binary, struct slice name)
{
    static const char expected[] = MINIVAULT_HELLO_NAME;
    if (!slice_equal(name, (struct slice){(const uint8_t *)expected, sizeof expected - 1}))
        return answer_status(binary, MINIVAULT_UNSUPPORTED);
    char text[HELLO_TEXT_MAX];
    uint32_t size = hello_text(shared_of(binary)->watch, text);
    binary->typed = true;
    return answer_text(binary, text, size);
}

static enum taken execute(struct binary_client *binary, const struct binary_request *request,
                          struct key_place place)
{
    switch (request->op) {
    case MINIVAULT_GET:
        return operation_get(client_of(binary), form_of(binary), request->key, place);
    case MINIVAULT_SET:
        return set(binary, request, place);
    case MINIVAULT_DELETE:
        return operation_delete(client_of(binary), form_of(binary), request->key, place);
    case MINIVAULT_HEALTH:
        return health(binary);
    case MINIVAULT_AUTH:
        return authenticate(binary, request->key);
    case MINIVAULT_HELLO:
        return hello(binary, request->key);
    case MINIVAULT_STATS:
        return stats(binary);
    default:
        return answer_status(binary, MINIVAULT_UNSUPPORTED);
    }
}

/* Whether the rate limit lets it be executed. */
static bool is_admitted(struct binary_client *binary, const struct binary_request *request)
{
    bool is_limited = request->op == MINIVAULT_GET || is_write(request->op);
    return !is_limited || client_admit(client_of(binary));
}

/* The replies that follow are to this request. */
static void take_up(struct binary_client *binary, const struct binary_request *request)
{
    client_take_up(client_of(binary), metrics_operation_of(request->op), request->key,
                   request->value.size);
}

/* Executes or refuses a whole request. */
static enum taken take_request(struct binary_client *binary, const struct binary_request *request,
                               struct key_place place)
{
    if (!output_has_room(&client_of(binary)->output))
        return BLOCKED;
    take_up(binary, request);
    bool close;
    uint8_t status = refusal(binary, request, &close);
    if (status == MINIVAULT_OK && !is_admitted(binary, request))
        status = MINIVAULT_OVERLOADED;
    if (status == MINIVAULT_OK) {
        enum taken taken = execute(binary, request, place);
        if (taken != BLOCKED)
            client_admit_next(client_of(binary));
        return taken;
    }
    refuse(binary, status, close);
    return TAKEN;
}

/* Takes the header of a SET whose value is large and still to come: BEGUN or BLOCKED. */
static enum taken take_header(struct binary_client *binary, const struct binary_request *request)
{
    if (!output_has_room(&client_of(binary)->output))
        return BLOCKED;
    if (!is_admitted(binary, request)) {
        binary->skip = (struct skip){.left = request->value.size, .status = MINIVAULT_OVERLOADED};
        return BEGUN;
    }
    enum taken taken = begin_upload(binary, request);
    if (taken != BLOCKED)
        client_admit_next(client_of(binary));
    return taken;
}

/* A large value whose header is there. Returns the bytes used: the header's. */
static uint64_t begin_value(struct binary_client *binary, const struct binary_request *request,
                            uint64_t frame_size)
{
    if (request->op != MINIVAULT_SET ||
        !shard_is_large(shared_of(binary)->shard, request->value.size, request->compressed == 1))
        return 0;
    bool is_blocked = take_header(binary, request) == BLOCKED;
    connection_block(&binary->connection, is_blocked);
    return is_blocked ? 0 : frame_size - request->value.size;
}

/* A frame whose rest is still to come. Returns the bytes used: all, when it is refused and being
 * skipped. */
static uint64_t take_partial(struct binary_client *binary, const struct binary_request *request,
                             uint64_t frame_size, uint64_t size)
{
    take_up(binary, request);
    bool close;
    uint8_t status = refusal(binary, request, &close);
    if (status == MINIVAULT_OK)
        return begin_value(binary, request, frame_size);
    if (request->value.size <= MINIVAULT_VALUE_SIZE_MAX) /* otherwise it is not consumed */
        binary->skip = (struct skip){.left = frame_size - size, .status = status, .close = close};
    else
        refuse(binary, status, close);
    return size;
}

static uint64_t take_skipped(struct binary_client *binary, uint64_t size)
{
    struct skip *skip = &binary->skip;
    uint64_t taken = size < skip->left ? size : skip->left;
    skip->left -= taken;
    if (skip->left > 0)
        return taken;
    connection_count_request(&binary->connection);
    refuse(binary, skip->status, skip->close);
    connection_block(&binary->connection, !output_has_room(&client_of(binary)->output));
    return taken;
}

/* Whole requests that stand one behind the other: parsed first, then located, then executed, so
 * that their cache misses overlap. */
#define BATCH_MAX 16

struct batch {
    uint32_t count;
    uint64_t size; /* bytes of all */
    struct batched {
        struct binary_request request;
        struct key_place place;
        uint64_t frame_size;
    } requests[BATCH_MAX];
};

/* Fills the batch; what follows a HELLO is parsed by other rules and must wait for it. Returns what
 * ended the batch. */
static enum binary_result parse_batch(const struct binary_client *binary, const uint8_t *data,
                                      uint64_t size, struct batch *ret_batch,
                                      struct binary_request *ret_partial, uint64_t *ret_frame_size)
{
    const struct shard *shard = shared_of(binary)->shard;
    enum binary_result result = BINARY_DONE;
    ret_batch->count = 0;
    ret_batch->size = 0;
    *ret_frame_size = 0;
    while (ret_batch->count < BATCH_MAX && ret_batch->size < size) {
        struct batched *next = &ret_batch->requests[ret_batch->count];
        result = binary_parse(data + ret_batch->size, size - ret_batch->size, binary->typed,
                              &next->request, &next->frame_size);
        if (result != BINARY_DONE) {
            *ret_partial = next->request;
            *ret_frame_size = next->frame_size;
            break;
        }
        shard_locate(shard, next->request.key, is_write(next->request.op), &next->place);
        ret_batch->count++;
        ret_batch->size += next->frame_size;
        if (next->request.op == MINIVAULT_HELLO)
            break;
    }
    for (uint32_t i = 0; ret_batch->count > 1 && i < ret_batch->count; i++) {
        struct batched *batched = &ret_batch->requests[i];
        if (shard_owns(shard, batched->place))
            store_prefetch_entry(shard->store, batched->request.key, &batched->place);
    }
    return result;
}

/* Returns the bytes used: less than the batch's when the connection is blocked or finishing. */
static uint64_t execute_batch(struct binary_client *binary, const struct batch *batch)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < batch->count && connection_may_take(&binary->connection); i++) {
        const struct batched *next = &batch->requests[i];
        enum taken taken = take_request(binary, &next->request, next->place);
        connection_block(&binary->connection, taken == BLOCKED);
        if (taken == BEGUN)
            return used + next->frame_size - next->request.value.size;
        if (taken == BLOCKED)
            break;
        connection_count_request(&binary->connection);
        used += next->frame_size;
    }
    return used;
}

static uint64_t take(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct binary_client *binary = binary_of(connection);
    uint64_t used = 0;
    while (used < size && connection_may_take(connection)) {
        if (binary->skip.left > 0) {
            used += take_skipped(binary, size - used);
            continue;
        }
        struct upload *upload = connection_upload(connection);
        if (upload != NULL) {
            used += upload_take(upload, data + used, size - used);
            continue;
        }
        struct batch batch;
        struct binary_request partial = {0};
        uint64_t frame_size;
        enum binary_result result =
            parse_batch(binary, data + used, size - used, &batch, &partial, &frame_size);
        uint64_t executed = execute_batch(binary, &batch);
        used += executed;
        if (result == BINARY_DONE || executed < batch.size || !connection_may_take(connection))
            continue;
        if (result == BINARY_UNKNOWN_OP) {
            take_up(binary, &(struct binary_request){0});
            refuse(binary, MINIVAULT_UNSUPPORTED, true);
            continue;
        }
        uint64_t taken =
            frame_size > 0 ? take_partial(binary, &partial, frame_size, size - used) : 0;
        if (taken == 0)
            return used;
        used += taken;
    }
    return used;
}

/* ---- what the connection asks ---- */

static void hint(const struct connection *connection, const uint8_t *data, uint64_t size,
                 bool is_next)
{
    const struct binary_client *binary = const_binary_of(connection);
    struct binary_request request;
    uint64_t frame_size;
    /* A pipeline of requests hides its misses by itself. */
    if (binary->skip.left > 0 ||
        binary_parse(data, size, binary->typed, &request, &frame_size) != BINARY_DONE ||
        frame_size != size || request.op != MINIVAULT_GET)
        return;
    const struct shard *shard = shared_of(binary)->shard;
    struct key_place place;
    shard_locate(shard, request.key, false, &place);
    if (is_next && shard_owns(shard, place))
        store_prefetch_entry(shard->store, request.key, &place);
}

static uint64_t missing(const struct connection *connection, struct slice saved)
{
    struct binary_request request;
    uint64_t frame_size;
    enum binary_result result = binary_parse(
        saved.data, saved.size, const_binary_of(connection)->typed, &request, &frame_size);
    if (result == BINARY_PARTIAL && frame_size > saved.size)
        return frame_size - saved.size;
    return 256;
}

/* There is no memory for a partial request: it is thrown away and refused. */
static bool overflow(struct connection *connection, struct slice saved, uint64_t more)
{
    struct binary_client *binary = binary_of(connection);
    struct binary_request request;
    uint64_t frame_size = 0;
    enum binary_result result = BINARY_UNKNOWN_OP;
    if (saved.size > 0 && connection_upload(connection) == NULL)
        result = binary_parse(saved.data, saved.size, binary->typed, &request, &frame_size);
    if (result != BINARY_PARTIAL || frame_size < saved.size + more)
        return false;
    binary->skip = (struct skip){.left = frame_size - saved.size, .status = MINIVAULT_OVERLOADED};
    uint64_t skipped = take(connection, NULL, more);
    assert(skipped == more);
    return true;
}

static bool is_partial(const struct connection *connection, bool has_saved)
{
    const struct upload *upload = connection_upload(connection);
    return has_saved || const_binary_of(connection)->skip.left > 0 ||
           (upload != NULL && upload_left(upload) > 0);
}

static void time_out(struct connection *connection)
{
    client_abort(&connection->client);
}

static void end_upload(struct connection *connection, struct output_block *block,
                       const struct shard_answer *answer)
{
    output_fill(&connection->client.output, block, answer);
    connection_count_request(connection);
}

static void open_client(struct connection *connection, void *shared)
{
    struct binary_client *binary = binary_of(connection);
    (void)shared;
    binary->skip = (struct skip){0};
    binary->typed = false;
    binary->authenticated = false;
}

const struct protocol protocol_binary = {.size = sizeof(struct binary_client),
                                         .open = open_client,
                                         .take = take,
                                         .hint = hint,
                                         .missing = missing,
                                         .overflow = overflow,
                                         .is_partial = is_partial,
                                         .time_out = time_out,
                                         .end_upload = end_upload};
