/* HTTP's stream: requests out of what has arrived, one at a time (http_client.h has the stages). A
 * request is taken when there is room for its reply, and the next one when it is answered or its
 * place in the output is reserved, so replies leave in request order. */
#include "net/http/http_client.h"

#include "base/assert.h"

static bool may_take(const struct connection *connection)
{
    return connection->state == CONNECTION_OPEN && !connection_is_waiting(connection);
}

/* The parser has told the end of a request that is answered. */
static void leave_request(struct connection *connection)
{
    struct http_client *http = connection->http;
    input_clear(&http->collected, &connection->server->input_bytes);
    http->value = (struct slice){NULL, 0};
    http->stage = HTTP_STAGE_HEAD;
    http->has_ended = false;
    http->is_late = false;
    connection->is_admitted = false;
    connection->requests++;
    if (!http->parser.request.keep_alive)
        connection_finish(connection);
}

void http_answered(struct connection *connection)
{
    struct http_client *http = connection->http;
    http->stage = HTTP_STAGE_ANSWERED;
    if (http->has_ended)
        leave_request(connection);
    else if (!http->parser.request.keep_alive)
        connection_finish(connection); /* what is left of its body is thrown away as it comes */
}

/* ---- events ---- */

static void end_request(struct connection *connection)
{
    struct http_client *http = connection->http;
    http->has_ended = true;
    switch (http->stage) {
    case HTTP_STAGE_ANSWERED:
        leave_request(connection);
        break;
    case HTTP_STAGE_UPLOAD:
        if (http_body_end(connection))
            upload_end(connection);
        break;
    default:
        if (http_body_end(connection))
            http->stage = HTTP_STAGE_READY;
    }
}

/* Nothing more can be understood. */
static void give_up(struct connection *connection)
{
    struct http_client *http = connection->http;
    const struct http_request *request = &http->parser.request;
    if (connection->upload != NULL)
        upload_stop(connection);
    if (http->stage != HTTP_STAGE_ANSWERED)
        http_refuse(connection, request->refusal, request->reason);
    connection_finish(connection);
}

static void take_event(struct connection *connection, enum http_event event, struct slice piece)
{
    switch (event) {
    case HTTP_EVENT_HEAD:
        http_begin(connection);
        break;
    case HTTP_EVENT_BODY:
        if (connection->http->stage == HTTP_STAGE_VALUE)
            http_body_collect(connection, piece);
        break;
    case HTTP_EVENT_END:
        end_request(connection);
        break;
    case HTTP_EVENT_BROKEN:
        give_up(connection);
        break;
    case HTTP_EVENT_MORE:
        break;
    }
}

/* Feeds the parser. Returns whether there is more to do now. */
static bool parse(struct connection *connection, const uint8_t *data, uint64_t size,
                  uint64_t *ret_used)
{
    size_t used = 0;
    struct slice piece = {NULL, 0};
    enum http_event event = http_parser_next(&connection->http->parser, data, size, &used, &piece);
    *ret_used = used;
    take_event(connection, event, piece);
    return event != HTTP_EVENT_MORE;
}

/* Of a body that goes into a file. Between chunks the parser is fed byte by byte, so that it never
 * shows what the file may not have room for. */
static bool take_upload(struct connection *connection, const uint8_t *data, uint64_t size,
                        uint64_t *ret_used)
{
    struct http_parser *parser = &connection->http->parser;
    if (http_parser_body_left(parser) > 0) {
        *ret_used = http_body_feed(connection, data, size);
        return *ret_used > 0;
    }
    bool is_chunked = parser->request.is_chunked;
    bool goes_on = parse(connection, data, is_chunked ? min_u64(size, 1) : 0, ret_used);
    uint64_t left = http_parser_body_left(parser);
    if (left > 0 && connection->upload != NULL)
        upload_expect(connection, left);
    return goes_on || *ret_used > 0;
}

static bool take_one(struct connection *connection, const uint8_t *data, uint64_t size,
                     uint64_t *ret_used)
{
    struct http_client *http = connection->http;
    *ret_used = 0;
    switch (http->stage) {
    case HTTP_STAGE_HEAD:
        if (size == 0)
            return false;
        connection->blocked = !output_has_room(&connection->output, &connection->server->outputs);
        return !connection->blocked && parse(connection, data, size, ret_used);
    case HTTP_STAGE_BEGIN:
        http_begin(connection);
        return !connection->blocked;
    case HTTP_STAGE_READY:
        return http_execute(connection);
    case HTTP_STAGE_UPLOAD:
        return take_upload(connection, data, size, ret_used);
    default:
        return parse(connection, data, size, ret_used);
    }
}

static uint64_t take(struct connection *connection, const uint8_t *data, uint64_t size)
{
    uint64_t used = 0;
    bool goes_on = true;
    connection->http->active_ns = io_now_ns(connection->server->io);
    while (goes_on && may_take(connection)) {
        uint64_t taken = 0;
        goes_on = take_one(connection, size > 0 ? data + used : data, size - used, &taken);
        used += taken;
    }
    if (connection->http->value.size > 0 && !http_body_keep(connection)) {
        connection->blocked = false;
        http_refuse(connection, 503, NULL);
        connection_wake(connection);
    }
    return used;
}

/* ---- what the connection asks ---- */

/* Bytes of a body that were received straight into its file. */
static void pass(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct http_parser *parser = &connection->http->parser;
    size_t used = 0;
    struct slice piece;
    enum http_event event = http_parser_next(parser, data, size, &used, &piece);
    assert(event == HTTP_EVENT_BODY && used == size);
    if (http_parser_body_left(parser) == 0)
        connection_wake(connection); /* its end may be there */
}

/* Why the body is refused, when its bytes are to blame; otherwise 0: the answer's status says it.
 */
static uint16_t blame(const struct http_client *http, const char **ret_reason)
{
    *ret_reason = NULL;
    if (http->is_late)
        return 408;
    if (http->json == JSON_MORE || http->json == JSON_GOOD)
        return 0;
    *ret_reason = json_result_text(http->json);
    return 400;
}

static void end_upload(struct connection *connection, struct output_block *block,
                       const struct shard_answer *answer)
{
    struct http_client *http = connection->http;
    struct http_parser *parser = &http->parser;
    bool is_refused = answer->status != MINIVAULT_OK;
    if (is_refused && !http->has_ended)
        http_parser_refuse(parser);
    block->form = http_form(&parser->request);
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    struct shard_answer text = *answer;
    const char *reason;
    uint16_t status = is_refused ? blame(http, &reason) : 0;
    if (status != 0) {
        uint32_t size = http_reply_error(&parser->request, status, reason, reply);
        block->form = reply_form_verbatim();
        text = (struct shard_answer){.data = reply, .size = size};
        block->account.refusal = http_outcome(status);
    }
    output_fill(&connection->output, &connection->server->outputs, block, &text);
    http_answered(connection);
    connection_wake(connection);
}

static bool is_partial(const struct connection *connection)
{
    const struct http_client *http = connection->http;
    return http->stage != HTTP_STAGE_READY && !http->has_ended &&
           !http_parser_is_idle(&http->parser);
}

static void time_out(struct connection *connection)
{
    struct http_client *http = connection->http;
    if (http->stage == HTTP_STAGE_ANSWERED) {
        connection_abort(connection);
        return;
    }
    http->parser.request.keep_alive = false;
    http->is_late = true;
    if (connection->upload != NULL)
        upload_refuse(connection, MINIVAULT_BAD_REQUEST);
    else
        http_refuse(connection, 408, NULL);
}

static void tick(struct connection *connection, uint64_t now_ns)
{
    struct http_client *http = connection->http;
    bool is_idle = connection->state == CONNECTION_OPEN && !connection_is_waiting(connection) &&
                   output_is_empty(&connection->output) && connection->begun_ns == 0;
    if (!is_idle)
        http->active_ns = now_ns;
    else if (now_ns - http->active_ns > LIMITS_HTTP_IDLE_NS)
        connection_finish(connection);
}

static bool open_client(struct connection *connection)
{
    struct loop *server = connection->server;
    struct http_client *http = pool_get(&server->http_clients);
    if (http == NULL)
        return false;
    http_parser_init(&http->parser, &server->http_budget);
    http->stage = HTTP_STAGE_HEAD;
    http->has_ended = false;
    http->is_late = false;
    http->value = (struct slice){NULL, 0};
    http->collected = (struct input){0};
    http->active_ns = io_now_ns(server->io);
    connection->http = http;
    return true;
}

static void close_client(struct connection *connection)
{
    struct loop *server = connection->server;
    input_clear(&connection->http->collected, &server->input_bytes);
    http_parser_deinit(&connection->http->parser);
    pool_put(&server->http_clients, connection->http);
}

size_t http_client_size(void)
{
    return sizeof(struct http_client);
}

const struct protocol *protocol_http(void)
{
    static const struct protocol protocol = {.runs_without_bytes = true,
                                             .open = open_client,
                                             .close = close_client,
                                             .take = take,
                                             .pass = pass,
                                             .is_partial = is_partial,
                                             .time_out = time_out,
                                             .tick = tick,
                                             .end_upload = end_upload};
    return &protocol;
}
