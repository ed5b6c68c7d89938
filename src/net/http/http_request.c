/* One HTTP request: from its head to its reply. */
#include "net/http/http_client.h"

#include "base/assert.h"

uint8_t http_outcome(uint16_t status)
{
    switch (status) {
    case 401:
        return MINIVAULT_AUTH_REQUIRED;
    case 404:
        return MINIVAULT_NOT_FOUND;
    case 413:
    case 414:
    case 431:
        return MINIVAULT_TOO_LARGE;
    case 429:
        return MINIVAULT_OVERLOADED;
    case 501:
    case 505:
        return MINIVAULT_UNSUPPORTED;
    case 503:
        return MINIVAULT_NOT_READY;
    default:
        return MINIVAULT_BAD_REQUEST;
    }
}

static enum metrics_operation operation_of(const struct http_request *request)
{
    switch (request->route) {
    case HTTP_ROUTE_JSON:
    case HTTP_ROUTE_RAW:
        break;
    case HTTP_ROUTE_HEALTH:
        return METRICS_HEALTH;
    case HTTP_ROUTE_METRICS:
        return METRICS_STATS;
    default:
        return METRICS_OTHER;
    }
    switch (request->method) {
    case HTTP_METHOD_GET:
    case HTTP_METHOD_HEAD:
        return METRICS_GET;
    case HTTP_METHOD_PUT:
    case HTTP_METHOD_POST:
        return METRICS_SET;
    case HTTP_METHOD_DELETE:
        return METRICS_DELETE;
    default:
        return METRICS_OTHER;
    }
}

/* The reply that follows is to this request. */
static void take_up(struct connection *connection, uint64_t value_size)
{
    const struct http_request *request = &connection->http->parser.request;
    enum metrics_operation operation =
        request->refusal != 0 ? METRICS_OTHER : operation_of(request);
    account_request(&connection->output.request, &connection->server->outputs.books, operation,
                    request->key, (uint32_t)value_size);
}

void http_refuse(struct connection *connection, uint16_t status, const char *reason)
{
    struct http_client *http = connection->http;
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    if (!http->has_ended && http->stage != HTTP_STAGE_HEAD)
        http_parser_refuse(&http->parser);
    if (http->stage == HTTP_STAGE_HEAD)
        connection->output.request.operation = METRICS_OTHER;
    connection->output.request.refusal = http_outcome(status);
    uint32_t size = http_reply_error(&http->parser.request, status, reason, reply);
    connection->server->requests_refused++;
    http->value = (struct slice){NULL, 0};
    (void)operation_answer(connection, reply_form_verbatim(),
                           &(struct shard_answer){.data = reply, .size = size});
    http_answered(connection);
}

/* ---- the head ---- */

static bool is_write(const struct http_request *request)
{
    return request->method != HTTP_METHOD_GET && request->method != HTTP_METHOD_HEAD;
}

static bool is_allowed(const struct connection *connection, const struct http_request *request)
{
    switch (connection->server->config->auth_mode) {
    case AUTH_NONE:
        return true;
    case AUTH_WRITES:
        if (!is_write(request))
            return true;
        break;
    case AUTH_ALL:
        if (request->route == HTTP_ROUTE_HEALTH || request->route == HTTP_ROUTE_LIVEZ ||
            (request->route == HTTP_ROUTE_READYZ && !request->is_verbose))
            return true;
        break;
    }
    return request->has_token && auth_check(&connection->server->auth, request->token);
}

static bool is_about_key(const struct http_request *request)
{
    return request->route == HTTP_ROUTE_JSON || request->route == HTTP_ROUTE_RAW;
}

/* The rate limit is asked once a request, however often it is tried. */
static bool is_admitted(struct connection *connection, const struct http_request *request)
{
    if (is_about_key(request) && !connection->is_admitted)
        connection->is_admitted = server_may_serve(connection->server);
    return !is_about_key(request) || connection->is_admitted;
}

/* Why a request is refused whatever its body says; 0: it is not. */
static uint16_t refusal(struct connection *connection, const char **ret_reason)
{
    const struct http_request *request = &connection->http->parser.request;
    *ret_reason = request->reason;
    if (request->refusal != 0)
        return request->refusal;
    if (!is_allowed(connection, request))
        return 401;
    if (!is_admitted(connection, request))
        return 429;
    if (request->route == HTTP_ROUTE_RAW &&
        request->content_length > connection->server->config->value_size_max)
        return 413;
    return 0;
}

static void send_continue(struct connection *connection)
{
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    uint32_t size = http_continue(reply);
    uint8_t operation = connection->output.request.operation;
    connection->output.request.operation = METRICS_OPERATION_COUNT; /* the reply is to come */
    (void)operation_answer(connection, reply_form_verbatim(),
                           &(struct shard_answer){.data = reply, .size = size});
    connection->output.request.operation = operation;
}

/* What becomes of the body. */
static void begin_body(struct connection *connection)
{
    struct http_client *http = connection->http;
    struct http_request *request = &http->parser.request;
    bool has_value = request->method == HTTP_METHOD_PUT || request->method == HTTP_METHOD_POST;
    http->stage = HTTP_STAGE_VALUE;
    http->json = JSON_MORE;
    http->value_size = 0;
    if (!has_value && http_request_has_body(request))
        http_parser_refuse(&http->parser); /* nobody waits for it */
    if (!has_value)
        return;
    if (request->route == HTTP_ROUTE_JSON)
        json_scan_init_envelope(&http->scan);
    if (request->expects_continue)
        send_continue(connection);
    if (http_body_is_upload(connection))
        http->stage = HTTP_STAGE_BEGIN;
}

/* Tried again as often as there is no room. */
static void begin_upload(struct connection *connection)
{
    bool has_room = output_has_room(&connection->output, &connection->server->outputs);
    connection->blocked = !has_room || http_body_upload(connection) == BLOCKED;
}

void http_begin(struct connection *connection)
{
    struct http_client *http = connection->http;
    const char *reason = NULL;
    if (http->stage == HTTP_STAGE_BEGIN) {
        begin_upload(connection);
        return;
    }
    if (connection->server->is_draining)
        http->parser.request.keep_alive = false;
    http->stage = HTTP_STAGE_VALUE; /* a request has begun */
    take_up(connection, 0);
    uint16_t status = refusal(connection, &reason);
    if (status != 0)
        http_refuse(connection, status, reason);
    else
        begin_body(connection);
}

/* ---- executing ---- */

static struct slice value_of(const struct http_client *http)
{
    return http->value.size > 0 ? http->value : http_body_collected(http);
}

static enum taken execute(struct connection *connection)
{
    struct http_client *http = connection->http;
    const struct http_request *request = &http->parser.request;
    struct reply_form form = http_form(request);
    struct operation_set set = {.key = request->key};
    struct shard_place place =
        shard_locate(&connection->server->shard, request->key, is_write(request));
    switch (request->method) {
    case HTTP_METHOD_GET:
    case HTTP_METHOD_HEAD:
        return operation_get(connection, form, request->key, place);
    case HTTP_METHOD_PUT:
    case HTTP_METHOD_POST:
        set.value = value_of(http);
        connection->output.request.size = set.value.size;
        return operation_set(connection, form, &set, place);
    case HTTP_METHOD_DELETE:
        return operation_delete(connection, form, request->key, place);
    case HTTP_METHOD_OTHER:
        break;
    }
    assert(false); /* the parser refuses it */
    return TAKEN;
}

bool http_execute(struct connection *connection)
{
    struct http_client *http = connection->http;
    enum taken taken = TAKEN;
    if (!output_has_room(&connection->output, &connection->server->outputs) ||
        !output_has_memory(&connection->server->outputs))
        taken = BLOCKED;
    else if (is_about_key(&http->parser.request))
        taken = execute(connection);
    else
        http_page(connection);
    connection->blocked = taken == BLOCKED;
    if (taken != BLOCKED) {
        http->value = (struct slice){NULL, 0};
        http_answered(connection);
    }
    return taken != BLOCKED;
}
