/* One request of the binary protocol: from a parsed frame to an answer in the connection's output.
 */
#include "net/binary/request.h"

#include <errno.h>

static enum taken answer(struct connection *connection, const struct shard_answer *shard_answer)
{
    return operation_answer(connection, reply_form_binary(connection->typed), shard_answer);
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

uint8_t request_refusal(const struct connection *connection, const struct binary_request *request,
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
    if (request->op == MINIVAULT_STATS)
        return request->key.size + request->value.size > 0 ? MINIVAULT_BAD_REQUEST : MINIVAULT_OK;
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

void request_refuse(struct connection *connection, uint8_t status, bool close)
{
    connection->server->requests_refused++;
    (void)answer_status(connection, status);
    if (close)
        connection_finish(connection);
}

/* ---- operations ---- */

static enum taken begin_upload(struct connection *connection, const struct binary_request *request)
{
    struct upload_request upload = {.key = request->key,
                                    .size = request->value.size,
                                    .is_frame = request->compressed == 1,
                                    .form = reply_form_binary(connection->typed)};
    switch (upload_begin(connection, &upload)) {
    case 0:
        return BEGUN;
    case -EAGAIN:
        return BLOCKED;
    default:
        connection->skip =
            (struct skip){.left = request->value.size, .status = MINIVAULT_OVERLOADED};
        return BEGUN;
    }
}

static enum taken set(struct connection *connection, const struct binary_request *request,
                      struct shard_place place)
{
    struct operation_set set = {request->key, request->value, request->compressed == 1};
    enum taken taken = operation_set(connection, reply_form_binary(connection->typed), &set, place);
    return taken == IS_LARGE ? begin_upload(connection, request) : taken;
}

static enum taken health(struct connection *connection)
{
    char text[HEALTH_TEXT_MAX];
    return answer_text(connection, text, health_text(&connection->server->watch, text));
}

static enum taken stats(struct connection *connection)
{
    char text[METRICS_JSON_MAX];
    return answer_text(connection, text, stats_text(&connection->server->watch, text));
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
    uint32_t size = hello_text(&connection->server->watch, text);
    connection->typed = true;
    return answer_text(connection, text, size);
}

static enum taken execute(struct connection *connection, const struct binary_request *request,
                          struct shard_place place)
{
    switch (request->op) {
    case MINIVAULT_GET:
        return operation_get(connection, reply_form_binary(connection->typed), request->key, place);
    case MINIVAULT_SET:
        return set(connection, request, place);
    case MINIVAULT_DELETE:
        return operation_delete(connection, reply_form_binary(connection->typed), request->key,
                                place);
    case MINIVAULT_HEALTH:
        return health(connection);
    case MINIVAULT_AUTH:
        return authenticate(connection, request->key);
    case MINIVAULT_HELLO:
        return hello(connection, request->key);
    case MINIVAULT_STATS:
        return stats(connection);
    default:
        return answer_status(connection, MINIVAULT_UNSUPPORTED);
    }
}

/* Whether the rate limit lets it be executed: asked once, however often it is tried. */
static bool is_admitted(struct connection *connection, const struct binary_request *request)
{
    bool is_limited = request->op == MINIVAULT_GET || request->op == MINIVAULT_SET ||
                      request->op == MINIVAULT_DELETE;
    if (is_limited && !connection->is_admitted)
        connection->is_admitted = server_may_serve(connection->server);
    return !is_limited || connection->is_admitted;
}

void request_take_up(struct connection *connection, const struct binary_request *request)
{
    account_request(&connection->output.request, &connection->server->outputs.books,
                    metrics_operation_of(request->op), request->key, request->value.size);
}

enum taken request_take(struct connection *connection, const struct binary_request *request,
                        struct shard_place place)
{
    if (!output_has_room(&connection->output, &connection->server->outputs))
        return BLOCKED;
    request_take_up(connection, request);
    bool close, consume;
    uint8_t status = request_refusal(connection, request, &close, &consume);
    if (status == MINIVAULT_OK && !is_admitted(connection, request))
        status = MINIVAULT_OVERLOADED;
    if (status == MINIVAULT_OK) {
        enum taken taken = execute(connection, request, place);
        connection->is_admitted = connection->is_admitted && taken == BLOCKED;
        return taken;
    }
    request_refuse(connection, status, close);
    return TAKEN;
}

enum taken request_begin_upload(struct connection *connection, const struct binary_request *request)
{
    if (!output_has_room(&connection->output, &connection->server->outputs))
        return BLOCKED;
    if (!is_admitted(connection, request)) {
        connection->skip =
            (struct skip){.left = request->value.size, .status = MINIVAULT_OVERLOADED};
        return BEGUN;
    }
    enum taken taken = begin_upload(connection, request);
    connection->is_admitted = connection->is_admitted && taken == BLOCKED;
    return taken;
}
