/* HTTP: from bytes to a request, and from its head to its reply.
 *
 * A request is taken when there is room for its reply, and the next one when it is answered or its
 * place in the output is reserved, so replies leave in request order. Its stages; the parser holds
 * it from its head until the call after its end:
 *
 *   HEAD -> (head) -> VALUE -> READY -> HEAD         its body is collected, or it has none
 *                  -> UPLOAD ---------> HEAD         its body goes into a file
 *                  -> BEGIN -> UPLOAD                there was no room for that yet
 *                  -> ANSWERED -------> HEAD         its body is thrown away */
#include "net/http/http_client.h"

#include "net/client/account.h"
#include "net/client/limits.h"
#include "net/client/operation.h"
#include "net/client/output.h"
#include "net/client/upload.h"
#include "net/http/http_body.h"
#include "net/http/http_dialect.h"
#include "net/http/http_pages.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>

#define TEXT_BYTES_MIN (1 * MIB) /* that a shard has at least of LIMITS_HTTP_TEXT_BYTES_MAX */

enum http_stage {
    HTTP_STAGE_HEAD,
    HTTP_STAGE_BEGIN,
    HTTP_STAGE_VALUE,
    HTTP_STAGE_UPLOAD,
    HTTP_STAGE_READY,
    HTTP_STAGE_ANSWERED,
};

struct http_client {
    struct connection connection;
    struct http_shared *shared;
    struct http_parser parser;
    struct http_body body;
    enum http_stage stage;
    bool has_ended;     /* the parser has told the end of the request */
    bool is_late;       /* its body did not come in time */
    uint64_t active_ns; /* when something of the client's was under way last */
};

static struct http_client *http_of(struct connection *connection)
{
    return container_of(connection, struct http_client, connection);
}

static struct client *client_of(struct http_client *http)
{
    return &http->connection.client;
}

static struct client_shared *shared_of(const struct http_client *http)
{
    return http->connection.client.shared;
}

static struct upload *upload_of(const struct http_client *http)
{
    return connection_upload(&http->connection);
}

/* ---- the end of a request ---- */

/* The parser has told the end of a request that is answered. */
static void leave_request(struct http_client *http)
{
    http_body_clear(&http->body, shared_of(http));
    http->stage = HTTP_STAGE_HEAD;
    http->has_ended = false;
    http->is_late = false;
    client_admit_next(client_of(http));
    connection_count_request(&http->connection);
    if (!http->parser.request.keep_alive)
        connection_finish(&http->connection);
}

/* The request that the parser holds has been answered, or is going to be: the next one's turn comes
 * after its body. Ends the connection when it is not to be kept. */
static void answered(struct http_client *http)
{
    http->stage = HTTP_STAGE_ANSWERED;
    if (http->has_ended)
        leave_request(http);
    else if (!http->parser.request.keep_alive)
        connection_finish(&http->connection); /* the rest of its body is thrown away as it comes */
}

/* Refuses a request, or the rest of it, with a status and what it says of it (NULL: the usual). */
static void refuse(struct http_client *http, uint16_t status, const char *reason)
{
    if (!http->has_ended && http->stage != HTTP_STAGE_HEAD)
        http_parser_refuse(&http->parser);
    if (http->stage == HTTP_STAGE_HEAD)
        client_request(client_of(http))->operation = METRICS_OTHER;
    shared_of(http)->requests_refused++;
    http_body_drop(&http->body);
    http_answer_error(client_of(http), &http->parser.request, status, reason);
    answered(http);
}

/* Refuses it for what its body is. */
static void refuse_body(struct http_client *http, uint8_t status)
{
    const char *blame = http_body_blame(&http->body);
    if (upload_of(http) != NULL)
        connection_refuse_upload(&http->connection, status);
    else
        refuse(http, blame != NULL ? 400 : http_status_of(status), blame);
}

/* ---- the head ---- */

static bool is_allowed(const struct http_client *http, const struct http_request *request)
{
    enum auth_mode mode = shared_of(http)->auth_mode;
    bool is_public = request->route == HTTP_ROUTE_HEALTH || request->route == HTTP_ROUTE_LIVEZ ||
                     (request->route == HTTP_ROUTE_READYZ && !request->is_verbose);
    if (mode == AUTH_WRITES)
        is_public = http_request_is_read(request);
    return mode == AUTH_NONE || is_public ||
           (request->has_token && auth_check(&shared_of(http)->auth, request->token));
}

/* Why a request is refused whatever its body says; 0: it is not. */
static uint16_t refusal(struct http_client *http, const char **ret_reason)
{
    const struct http_request *request = &http->parser.request;
    *ret_reason = request->reason;
    if (request->refusal != 0)
        return request->refusal;
    if (!is_allowed(http, request))
        return 401;
    if (http_request_is_about_key(request) && !client_admit(client_of(http)))
        return 429;
    if (request->route == HTTP_ROUTE_RAW &&
        request->content_length > shared_of(http)->value_size_max)
        return 413;
    return 0;
}

static void send_continue(struct http_client *http)
{
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    uint32_t size = http_continue(reply);
    uint8_t operation = client_request(client_of(http))->operation;
    client_request(client_of(http))->operation = METRICS_OPERATION_COUNT; /* the reply is to come */
    http_answer(client_of(http), reply, size);
    client_request(client_of(http))->operation = operation;
}

/* What becomes of the body. */
static void begin_body(struct http_client *http)
{
    const struct http_request *request = &http->parser.request;
    bool is_json = request->route == HTTP_ROUTE_JSON;
    http->stage = HTTP_STAGE_VALUE;
    http_body_begin(&http->body, is_json && http_request_has_value(request));
    if (!http_request_has_value(request)) {
        if (http_request_has_body(request))
            http_parser_refuse(&http->parser); /* nobody waits for it */
        return;
    }
    if (request->expects_continue)
        send_continue(http);
    if (!is_json && shard_is_large(shared_of(http)->shard, request->content_length, false))
        http->stage = HTTP_STAGE_BEGIN;
}

static uint8_t compact(void *context, const uint8_t *data, uint32_t size, uint8_t *target,
                       uint32_t *ret_size)
{
    return http_body_compact(&http_of(context)->body, data, size, target, ret_size);
}

/* Begins to upload. Tried again as often as there is no room. */
static void begin_upload(struct http_client *http)
{
    const struct http_request *request = &http->parser.request;
    struct upload_request upload = {.key = request->key,
                                    .size = http_parser_body_left(&http->parser),
                                    .is_open = true,
                                    .is_counted = !request->is_chunked,
                                    .is_prompt = true,
                                    .begin = http_body_value(&http->body),
                                    .filter = request->route == HTTP_ROUTE_JSON ? compact : NULL,
                                    .form = http_form(request)};
    int result = output_has_room(&client_of(http)->output)
                     ? connection_begin_upload(&http->connection, &upload)
                     : -EAGAIN;
    connection_block(&http->connection, result == -EAGAIN);
    if (result == 0)
        http->stage = HTTP_STAGE_UPLOAD;
    else if (result != -EAGAIN)
        refuse(http, 503, NULL);
}

/* The head is there: refuses the request, or says what becomes of its body. */
static void begin(struct http_client *http)
{
    struct http_request *request = &http->parser.request;
    const char *reason = NULL;
    if (shared_of(http)->is_draining)
        request->keep_alive = false;
    http->stage = HTTP_STAGE_VALUE; /* a request has begun */
    client_take_up(client_of(http), request->refusal != 0 ? METRICS_OTHER : http_operation(request),
                   request->key, 0);
    uint16_t status = refusal(http, &reason);
    if (status != 0)
        refuse(http, status, reason);
    else
        begin_body(http);
}

/* ---- executing ---- */

static enum taken execute_key(struct http_client *http)
{
    const struct http_request *request = &http->parser.request;
    struct reply_form form = http_form(request);
    struct operation_set set = {.key = request->key};
    struct key_place place;
    shard_locate(shared_of(http)->shard, request->key, !http_request_is_read(request), &place);
    switch (request->method) {
    case HTTP_METHOD_GET:
    case HTTP_METHOD_HEAD:
        return operation_get(client_of(http), form, request->key, place);
    case HTTP_METHOD_PUT:
    case HTTP_METHOD_POST:
        set.value = http_body_value(&http->body);
        client_request(client_of(http))->size = set.value.size;
        return operation_set(client_of(http), form, &set, place);
    case HTTP_METHOD_DELETE:
        return operation_delete(client_of(http), form, request->key, place);
    case HTTP_METHOD_OTHER:
        break;
    }
    assert(false); /* the parser refuses it */
    return TAKEN;
}

/* Executes a whole request. Returns false: it has to wait. */
static bool execute(struct http_client *http)
{
    enum taken taken = TAKEN;
    if (!output_has_room(&client_of(http)->output) || !output_has_memory(&shared_of(http)->outputs))
        taken = BLOCKED;
    else if (http_request_is_about_key(&http->parser.request))
        taken = execute_key(http);
    else
        http_page(client_of(http), &http->parser.request);
    connection_block(&http->connection, taken == BLOCKED);
    if (taken != BLOCKED) {
        http_body_drop(&http->body);
        answered(http);
    }
    return taken != BLOCKED;
}

/* ---- the body ---- */

static void collect(struct http_client *http, struct slice piece)
{
    const struct http_request *request = &http->parser.request;
    struct client_shared *shared = shared_of(http);
    if (!http_request_has_value(request))
        return; /* nobody asked for it */
    bool is_whole = piece.size == request->content_length && piece.size <= LIMITS_RECEIVE_SIZE;
    uint8_t status = is_whole
                         ? http_body_take(&http->body, piece, http->shared->scratch)
                         : http_body_collect(&http->body, shared, piece, http->shared->scratch);
    if (status != MINIVAULT_OK)
        refuse_body(http, status);
    else if (!is_whole && shard_is_large(shared->shard, http_body_value(&http->body).size, false))
        http->stage = HTTP_STAGE_BEGIN; /* it is to be uploaded after all */
}

/* Returns false when it was refused. */
static bool end_body(struct http_client *http)
{
    int result = http_body_end(&http->body);
    if (result < 0)
        refuse_body(http, MINIVAULT_BAD_REQUEST);
    return result > 0;
}

/* The parser follows, too. */
static void pass_body(struct http_parser *parser, const uint8_t *data, uint64_t size)
{
    size_t used = 0;
    struct slice piece;
    enum http_event event = http_parser_next(parser, data, size, &used, &piece);
    assert(event == HTTP_EVENT_BODY && used == size);
}

/* Takes bytes of a body that goes into a file, up to the end of what is known to come. */
static uint64_t feed_upload(struct http_client *http, const uint8_t *data, uint64_t size)
{
    struct http_parser *parser = &http->parser;
    uint64_t part = min_u64(size, http_parser_body_left(parser));
    uint64_t taken = part > 0 ? upload_take(upload_of(http), data, part) : 0;
    if (taken > 0)
        pass_body(parser, data, taken);
    return taken;
}

/* ---- events ---- */

static void end_request(struct http_client *http)
{
    http->has_ended = true;
    switch (http->stage) {
    case HTTP_STAGE_ANSWERED:
        leave_request(http);
        break;
    case HTTP_STAGE_UPLOAD:
        if (end_body(http))
            upload_end(upload_of(http));
        break;
    default:
        if (end_body(http))
            http->stage = HTTP_STAGE_READY;
    }
}

/* Nothing more can be understood. */
static void give_up(struct http_client *http)
{
    const struct http_request *request = &http->parser.request;
    connection_stop_upload(&http->connection);
    if (http->stage != HTTP_STAGE_ANSWERED)
        refuse(http, request->refusal, request->reason);
    connection_finish(&http->connection);
}

static void take_event(struct http_client *http, enum http_event event, struct slice piece)
{
    switch (event) {
    case HTTP_EVENT_HEAD:
        begin(http);
        break;
    case HTTP_EVENT_BODY:
        if (http->stage == HTTP_STAGE_VALUE)
            collect(http, piece);
        break;
    case HTTP_EVENT_END:
        end_request(http);
        break;
    case HTTP_EVENT_BROKEN:
        give_up(http);
        break;
    case HTTP_EVENT_MORE:
        break;
    }
}

/* Feeds the parser. Returns whether there is more to do now. */
static bool parse(struct http_client *http, const uint8_t *data, uint64_t size, uint64_t *ret_used)
{
    size_t used = 0;
    struct slice piece = {NULL, 0};
    enum http_event event = http_parser_next(&http->parser, data, size, &used, &piece);
    *ret_used = used;
    take_event(http, event, piece);
    return event != HTTP_EVENT_MORE;
}

/* Of a body that goes into a file. Between chunks the parser is fed byte by byte, so that it never
 * shows what the file may not have room for. */
static bool take_upload(struct http_client *http, const uint8_t *data, uint64_t size,
                        uint64_t *ret_used)
{
    struct http_parser *parser = &http->parser;
    if (http_parser_body_left(parser) > 0) {
        *ret_used = feed_upload(http, data, size);
        return *ret_used > 0;
    }
    bool is_chunked = parser->request.is_chunked;
    bool goes_on = parse(http, data, is_chunked ? min_u64(size, 1) : 0, ret_used);
    uint64_t left = http_parser_body_left(parser);
    if (left > 0 && upload_of(http) != NULL)
        upload_expect(upload_of(http), left);
    return goes_on || *ret_used > 0;
}

static bool take_one(struct http_client *http, const uint8_t *data, uint64_t size,
                     uint64_t *ret_used)
{
    *ret_used = 0;
    switch (http->stage) {
    case HTTP_STAGE_HEAD:
        if (size == 0)
            return false;
        if (!output_has_room(&client_of(http)->output)) {
            connection_block(&http->connection, true);
            return false;
        }
        return parse(http, data, size, ret_used);
    case HTTP_STAGE_BEGIN:
        begin_upload(http);
        return !connection_is_blocked(&http->connection);
    case HTTP_STAGE_READY:
        return execute(http);
    case HTTP_STAGE_UPLOAD:
        return take_upload(http, data, size, ret_used);
    default:
        return parse(http, data, size, ret_used);
    }
}

static uint64_t take(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct http_client *http = http_of(connection);
    uint64_t used = 0;
    bool goes_on = true;
    http->active_ns = client_now_ns(client_of(http));
    while (goes_on && connection_may_take(connection)) {
        uint64_t taken = 0;
        goes_on = take_one(http, size > 0 ? data + used : data, size - used, &taken);
        used += taken;
    }
    if (http_body_is_passing(&http->body) && !http_body_save(&http->body, shared_of(http))) {
        connection_block(connection, false);
        refuse(http, 503, NULL);
        client_wake(client_of(http));
    }
    return used;
}

/* ---- what the connection asks ---- */

/* Bytes of a body that were received straight into its file. */
static void pass(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct http_parser *parser = &http_of(connection)->parser;
    pass_body(parser, data, size);
    if (http_parser_body_left(parser) == 0)
        client_wake(&connection->client); /* its end may be there */
}

static void end_upload(struct connection *connection, struct output_block *block,
                       const struct shard_answer *answer)
{
    struct http_client *http = http_of(connection);
    struct http_parser *parser = &http->parser;
    bool is_refused = answer->status != MINIVAULT_OK;
    const char *blame = is_refused && !http->is_late ? http_body_blame(&http->body) : NULL;
    uint16_t status = is_refused && http->is_late ? 408 : blame != NULL ? 400 : 0;
    struct shard_answer text = *answer;
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    if (is_refused && !http->has_ended)
        http_parser_refuse(parser);
    output_set_form(block, http_form(&parser->request), 0);
    if (status != 0) { /* otherwise the answer's says it */
        uint32_t size = http_reply_error(&parser->request, status, blame, reply);
        output_set_form(block, reply_form_verbatim(), http_outcome(status));
        text = (struct shard_answer){.data = reply, .size = size};
    }
    output_fill(&connection->client.output, block, &text);
    answered(http);
    client_wake(&connection->client);
}

static bool is_partial(const struct connection *connection, bool has_saved)
{
    const struct http_client *http = container_of(connection, const struct http_client, connection);
    (void)has_saved; /* the parser may have looked at it */
    return http->stage != HTTP_STAGE_READY && !http->has_ended &&
           !http_parser_is_idle(&http->parser);
}

static void time_out(struct connection *connection)
{
    struct http_client *http = http_of(connection);
    if (http->stage == HTTP_STAGE_ANSWERED) {
        client_abort(&connection->client);
        return;
    }
    http->parser.request.keep_alive = false;
    http->is_late = true;
    if (upload_of(http) != NULL)
        connection_refuse_upload(connection, MINIVAULT_BAD_REQUEST);
    else
        refuse(http, 408, NULL);
}

static void tick(struct connection *connection, uint64_t now_ns)
{
    struct http_client *http = http_of(connection);
    if (!connection_is_idle(connection))
        http->active_ns = now_ns;
    else if (now_ns - http->active_ns > LIMITS_HTTP_IDLE_NS)
        connection_finish(connection);
}

static void open_client(struct connection *connection, void *shared)
{
    struct http_client *http = http_of(connection);
    http->shared = shared;
    http_parser_init(&http->parser, &http->shared->budget);
    http->body = (struct http_body){.is_json = false};
    http->stage = HTTP_STAGE_HEAD;
    http->has_ended = false;
    http->is_late = false;
    http->active_ns = client_now_ns(&connection->client);
}

static void close_client(struct connection *connection)
{
    struct http_client *http = http_of(connection);
    http_body_clear(&http->body, shared_of(http));
    http_parser_deinit(&http->parser);
}

const struct protocol protocol_http = {.size = sizeof(struct http_client),
                                       .runs_without_bytes = true,
                                       .open = open_client,
                                       .close = close_client,
                                       .take = take,
                                       .pass = pass,
                                       .is_partial = is_partial,
                                       .time_out = time_out,
                                       .tick = tick,
                                       .end_upload = end_upload};

/* ---- what they share ---- */

uint64_t http_memory_max(uint32_t parts)
{
    return share_u64(LIMITS_HTTP_TEXT_BYTES_MAX, parts, TEXT_BYTES_MIN);
}

int http_open(struct http_shared *http, uint32_t parts)
{
    http->budget.max = http_memory_max(parts);
    http->scratch = malloc(LIMITS_RECEIVE_SIZE);
    return http->scratch != NULL ? 0 : -ENOMEM;
}

void http_close(struct http_shared *http)
{
    free(http->scratch);
}
