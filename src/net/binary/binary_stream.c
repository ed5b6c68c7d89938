/* The binary protocol's stream: frames off the front of what has arrived.
 *
 * A request is refused (too large, not allowed) only after it was consumed: what has not arrived
 * yet is skipped as it comes, without being kept, and then answered, so that value bytes are never
 * read as a command. */
#include "net/binary/request.h"

#include "base/assert.h"

/* A large value whose header is there. Returns the bytes used: the header's. */
static uint64_t begin_upload(struct connection *connection, const struct binary_request *request,
                             uint64_t frame_size)
{
    if (request->op != MINIVAULT_SET ||
        !shard_is_large(&connection->server->shard, request->value.size, request->compressed == 1))
        return 0;
    connection->blocked = request_begin_upload(connection, request) == BLOCKED;
    return connection->blocked ? 0 : frame_size - request->value.size;
}

/* A frame whose rest is still to come. Returns the bytes used: all, when it is refused and being
 * skipped. */
static uint64_t take_partial(struct connection *connection, const struct binary_request *request,
                             uint64_t frame_size, uint64_t size)
{
    request_take_up(connection, request);
    bool close, consume;
    uint8_t status = request_refusal(connection, request, &close, &consume);
    if (status == MINIVAULT_OK)
        return begin_upload(connection, request, frame_size);
    if (consume)
        connection->skip =
            (struct skip){.left = frame_size - size, .status = status, .close = close};
    else
        request_refuse(connection, status, close);
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
    request_refuse(connection, skip->status, skip->close);
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
        struct shard_place place;
        uint64_t frame_size;
    } requests[BATCH_MAX];
};

/* Fills the batch; what follows a HELLO is parsed by other rules and must wait for it. Returns what
 * ended the batch. */
static enum binary_result parse_batch(const struct connection *connection, const uint8_t *data,
                                      uint64_t size, struct batch *ret_batch,
                                      struct binary_request *ret_partial, uint64_t *ret_frame_size)
{
    const struct shard *shard = &connection->server->shard;
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
        next->place = shard_locate(shard, next->request.key, is_write);
        ret_batch->count++;
        ret_batch->size += next->frame_size;
        if (next->request.op == MINIVAULT_HELLO)
            break;
    }
    for (uint32_t i = 0; ret_batch->count > 1 && i < ret_batch->count; i++)
        if (shard_owns(shard, ret_batch->requests[i].place))
            store_prefetch_entry(shard->store, ret_batch->requests[i].place.store);
    return result;
}

/* Returns the bytes used: less than the batch's when the connection is blocked or finishing. */
static uint64_t execute_batch(struct connection *connection, const struct batch *batch)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < batch->count && may_take(connection); i++) {
        const struct batched *next = &batch->requests[i];
        enum taken taken = request_take(connection, &next->request, next->place);
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

static uint64_t take_all(struct connection *connection, const uint8_t *data, uint64_t size)
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
            request_take_up(connection, &(struct binary_request){0});
            request_refuse(connection, MINIVAULT_UNSUPPORTED, true);
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

static void hint(const struct connection *connection, const uint8_t *data, uint64_t size,
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
    const struct shard *shard = &connection->server->shard;
    struct shard_place place = shard_locate(shard, request.key, false);
    if (is_next && shard_owns(shard, place))
        store_prefetch_entry(shard->store, place.store);
}

/* How many more bytes the partial request at the front of the input wants before it is worth
 * another look. */
static uint64_t missing(const struct connection *connection)
{
    const struct input *input = &connection->input;
    struct binary_request request;
    uint64_t frame_size;
    enum binary_result result = binary_parse(input->data + input->begin, input_size(input),
                                             connection->typed, &request, &frame_size);
    if (result == BINARY_PARTIAL && frame_size > input_size(input))
        return frame_size - input_size(input);
    return 256;
}

/* There is no memory for a partial request: it is thrown away and refused. */
static bool overflow(struct connection *connection, uint64_t more)
{
    struct input *input = &connection->input;
    struct binary_request request;
    uint64_t frame_size = 0;
    enum binary_result result = BINARY_UNKNOWN_OP;
    if (input_size(input) > 0 && connection->upload == NULL)
        result = binary_parse(input->data + input->begin, input_size(input), connection->typed,
                              &request, &frame_size);
    if (result != BINARY_PARTIAL || frame_size < input_size(input) + more)
        return false;
    connection->skip =
        (struct skip){.left = frame_size - input_size(input), .status = MINIVAULT_OVERLOADED};
    input_clear(input, &connection->server->input_bytes);
    uint64_t skipped = take_all(connection, NULL, more);
    assert(skipped == more);
    return true;
}

static bool is_partial(const struct connection *connection)
{
    return input_size(&connection->input) > 0 || connection->skip.left > 0 ||
           upload_left(connection) > 0;
}

static void time_out(struct connection *connection)
{
    connection_abort(connection);
}

static void end_upload(struct connection *connection, struct output_block *block,
                       const struct shard_answer *answer)
{
    output_fill(&connection->output, &connection->server->outputs, block, answer);
    connection->requests++;
}

const struct protocol *protocol_binary(void)
{
    static const struct protocol protocol = {.take = take_all,
                                             .hint = hint,
                                             .missing = missing,
                                             .overflow = overflow,
                                             .is_partial = is_partial,
                                             .time_out = time_out,
                                             .end_upload = end_upload};
    return &protocol;
}
