/* The parser of HTTP/1 requests: llhttp for the syntax, and around it the bounds of each part, the
 * framing of bodies, and what llhttp is too kind about.
 *
 * Where in a request the next byte is. llhttp sees the head, and a chunked body's framing; it
 * pauses at the places that are marked with a star, and before each its input is cut so that no
 * part without a length gets longer than its allowance, however it arrives.
 *
 *   IDLE -> METHOD -*-> SPACE -> TARGET -*-> VERSION -*-> FIELDS -*-> (HEAD)
 *   (HEAD) -> BODY -> DONE                                        a body with a length, or none
 *   (HEAD) -> CHUNK_LINE -*-> CHUNK_DATA -> CHUNK_LINE -*-> ... -> TRAILERS -*-> DONE
 *   DONE -> IDLE, or CLOSED when the connection is not kept
 *   from all but CLOSED: BROKEN
 *
 * Invariants: 1. llhttp is fed at most `allowance` bytes of a part, and stands at a pause or within
 * the part. 2. A chunked body has at most body_size_max bytes. 3. A broken parser is not used again. */
#include "proto/http_internal.h"

#include "base/assert.h"

#include <llhttp.h>
#include <string.h>

enum phase {
    IDLE,
    METHOD,
    SPACE,
    TARGET,
    VERSION,
    FIELDS,
    BODY,
    CHUNK_LINE,
    CHUNK_DATA,
    TRAILERS,
    DONE,
    CLOSED,
    BROKEN
};

/* What llhttp has paused at. */
enum pause { NOTHING, AT_METHOD, AT_TARGET, AT_VERSION, AT_HEAD, AT_CHUNK, AT_END };

#define PROTOCOL "HTTP/"
#define PROTOCOL_SIZE (sizeof PROTOCOL - 1)
/* llhttp knows the names of methods and of versions and stops itself when it sees another. */
#define WORD_SIZE_MAX 32u
#define LINE_END_SIZE 2u

static_assert(sizeof(llhttp_t) <= HTTP_LLHTTP_SIZE,
              "struct http_parser has room for llhttp's state");
static_assert(_Alignof(llhttp_t) <= _Alignof(uint64_t), "and it is aligned there");

static llhttp_t *llhttp_of(struct http_parser *parser)
{
    return (llhttp_t *)parser->llhttp;
}

static enum http_event fail(struct http_parser *parser, struct http_refusal refusal)
{
    parser->request.refusal = refusal.status;
    parser->request.reason = refusal.reason;
    parser->request.keep_alive = false;
    parser->phase = BROKEN;
    return HTTP_EVENT_BROKEN;
}

static struct http_refusal bad_line(void)
{
    return (struct http_refusal){400, "bad request line"};
}

static struct http_refusal other_version(void)
{
    return (struct http_refusal){505, "only HTTP/1.1 and HTTP/1.0 are spoken here"};
}

static struct http_refusal out_of_memory(void)
{
    return (struct http_refusal){503, "too many long requests at once"};
}

/* ---- what llhttp calls ---- */

static int pause_at(llhttp_t *llhttp, enum pause pause)
{
    struct http_parser *parser = llhttp->data;
    parser->paused_at = (uint8_t)pause;
    return HPE_PAUSED;
}

static int stop(struct http_parser *parser, struct http_refusal refusal)
{
    (void)fail(parser, refusal);
    return HPE_USER;
}

static int on_method_complete(llhttp_t *llhttp)
{
    return pause_at(llhttp, AT_METHOD);
}

static int on_url(llhttp_t *llhttp, const char *data, size_t size)
{
    struct http_parser *parser = llhttp->data;
    if (http_target_take(&parser->target, &parser->text, parser->budget, data, size) < 0)
        return stop(parser, out_of_memory());
    return 0;
}

static int on_url_complete(llhttp_t *llhttp)
{
    return pause_at(llhttp, AT_TARGET);
}

static int on_version_complete(llhttp_t *llhttp)
{
    return pause_at(llhttp, AT_VERSION);
}

static int on_header_field(llhttp_t *llhttp, const char *data, size_t size)
{
    struct http_parser *parser = llhttp->data;
    http_field_name(&parser->fields, data, size);
    return 0;
}

static int on_header_field_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = llhttp->data;
    if (!http_field_is_known(&parser->fields, parser->request.route) || parser->phase == TRAILERS)
        parser->fields.kind = 0;
    parser->fields.value_begin = parser->text.size;
    return 0;
}

static int on_header_value(llhttp_t *llhttp, const char *data, size_t size)
{
    struct http_parser *parser = llhttp->data;
    if (parser->fields.kind == 0)
        return 0;
    if (http_text_append(&parser->text, parser->budget, data, (uint32_t)size) < 0)
        return stop(parser, out_of_memory());
    return 0;
}

static int on_header_value_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = llhttp->data;
    uint32_t begin = parser->fields.value_begin;
    struct slice value = {http_text_data(&parser->text) + begin, parser->text.size - begin};
    bool is_kept = false;
    struct http_refusal refusal = http_field_end(&parser->fields, value, begin, &is_kept);
    if (!is_kept)
        parser->text.size = begin;
    return refusal.status != 0 ? stop(parser, refusal) : 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    return pause_at(llhttp, AT_HEAD);
}

static int on_chunk_header(llhttp_t *llhttp)
{
    return pause_at(llhttp, AT_CHUNK);
}

/* Also behind the trailers, where it says that all is there. */
static int on_chunk_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = llhttp->data;
    return parser->phase == TRAILERS ? pause_at(llhttp, AT_END) : 0;
}

static const llhttp_settings_t settings = {
    .on_method_complete = on_method_complete,
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_version_complete = on_version_complete,
    .on_header_field = on_header_field,
    .on_header_field_complete = on_header_field_complete,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_chunk_complete = on_chunk_complete,
};

/* ---- the parts of a head ---- */

static void enter(struct http_parser *parser, enum phase phase, uint32_t allowance)
{
    parser->phase = (uint8_t)phase;
    parser->allowance = allowance;
    parser->matched = 0;
}

static void begin_request(struct http_parser *parser)
{
    parser->request = (struct http_request){0};
    parser->fields = (struct http_fields){0};
    parser->body_left = 0;
    parser->body_size = 0;
    llhttp_init(llhttp_of(parser), HTTP_REQUEST, &settings);
    enter(parser, METHOD, WORD_SIZE_MAX);
}

static enum http_method method_of(uint8_t method)
{
    switch (method) {
    case HTTP_GET:
        return HTTP_METHOD_GET;
    case HTTP_HEAD:
        return HTTP_METHOD_HEAD;
    case HTTP_PUT:
        return HTTP_METHOD_PUT;
    case HTTP_POST:
        return HTTP_METHOD_POST;
    case HTTP_DELETE:
        return HTTP_METHOD_DELETE;
    default:
        return HTTP_METHOD_OTHER;
    }
}

static void end_method(struct http_parser *parser)
{
    uint8_t method = llhttp_get_method(llhttp_of(parser));
    parser->request.method = method_of(method);
    http_target_init(&parser->target, method == HTTP_CONNECT);
    enter(parser, SPACE, 1);
}

static void end_target(struct http_parser *parser)
{
    struct slice path = {http_text_data(&parser->text), parser->text.size};
    http_head_refuse(&parser->request, http_target_end(&parser->target, path, &parser->request));
    enter(parser, VERSION, WORD_SIZE_MAX);
    if (llhttp_get_http_minor(llhttp_of(parser)) == 9) /* a line without a version */
        (void)fail(parser, other_version());
}

static void end_version(struct http_parser *parser)
{
    llhttp_t *llhttp = llhttp_of(parser);
    parser->request.version_minor = llhttp_get_http_minor(llhttp);
    enter(parser, FIELDS, LINE_END_SIZE + HTTP_FIELDS_SIZE_MAX);
    if (llhttp_get_http_major(llhttp) != 1 || parser->request.version_minor > 1)
        (void)fail(parser, other_version());
}

static enum http_event end_head(struct http_parser *parser)
{
    llhttp_t *llhttp = llhttp_of(parser);
    struct http_request *request = &parser->request;
    bool is_chunked = (llhttp->flags & F_CHUNKED) != 0;
    struct http_refusal refusal =
        http_head_end(&parser->fields, is_chunked, llhttp->content_length, request);
    if (refusal.status != 0)
        return fail(parser, refusal);
    http_head_point(&parser->fields, &parser->text, request);
    /* llhttp takes neither a CONNECT nor an Upgrade for the end of HTTP here. */
    llhttp->upgrade = 0;
    parser->body_left = request->content_length;
    parser->body_size_max = http_head_body_size_max(request);
    enter(parser, request->is_chunked ? CHUNK_LINE : BODY, HTTP_CHUNK_LINE_SIZE_MAX);
    if (request->refusal != 0)
        http_parser_refuse(parser);
    return HTTP_EVENT_HEAD;
}

static void end_chunk_line(struct http_parser *parser)
{
    parser->body_left = llhttp_of(parser)->content_length;
    if (parser->body_left > 0)
        enter(parser, CHUNK_DATA, 0);
    else
        enter(parser, TRAILERS, HTTP_TRAILERS_SIZE_MAX);
    assert(parser->body_size <= parser->body_size_max); /* invariant 2 */
    if (parser->body_left > parser->body_size_max - parser->body_size)
        (void)fail(parser, (struct http_refusal){413, NULL});
}

static enum http_event end_request(struct http_parser *parser)
{
    enter(parser, DONE, 0);
    return HTTP_EVENT_END;
}

/* Goes on to the next part. MORE: no event yet. */
static enum http_event end_part(struct http_parser *parser)
{
    enum pause pause = (enum pause)parser->paused_at;
    parser->paused_at = NOTHING;
    switch (pause) {
    case AT_METHOD:
        end_method(parser);
        break;
    case AT_TARGET:
        end_target(parser);
        break;
    case AT_VERSION:
        end_version(parser);
        break;
    case AT_HEAD:
        return end_head(parser);
    case AT_CHUNK:
        end_chunk_line(parser);
        break;
    case AT_END:
        return end_request(parser);
    case NOTHING:
        assert(pause != NOTHING);
    }
    return parser->phase == BROKEN ? HTTP_EVENT_BROKEN : HTTP_EVENT_MORE;
}

/* ---- feeding llhttp ---- */

static struct http_refusal over_allowance(const struct http_parser *parser)
{
    switch ((enum phase)parser->phase) {
    case TARGET:
        return (struct http_refusal){414, NULL};
    case FIELDS:
    case TRAILERS:
        return (struct http_refusal){431, NULL};
    case CHUNK_LINE:
        return (struct http_refusal){400, "bad chunk"};
    default:
        return bad_line();
    }
}

/* Where llhttp does not understand what comes; the phase tells more than its own texts. */
static struct http_refusal misunderstood(const struct http_parser *parser, llhttp_errno_t error)
{
    if (error == HPE_INVALID_VERSION) /* also of what stands right behind one */
        return parser->phase == VERSION ? other_version() : bad_line();
    if (error == HPE_INVALID_CONTENT_LENGTH || error == HPE_UNEXPECTED_CONTENT_LENGTH)
        return (struct http_refusal){400, "bad Content-Length"};
    if (error == HPE_INVALID_TRANSFER_ENCODING)
        return (struct http_refusal){400, "bad Transfer-Encoding"};
    switch ((enum phase)parser->phase) {
    case METHOD:
        return (struct http_refusal){400, "unknown method, or not HTTP"};
    case TARGET:
        return (struct http_refusal){400, "bad request target"};
    case FIELDS:
        return (struct http_refusal){400, "bad header field"};
    case TRAILERS:
        return (struct http_refusal){400, "bad trailer field"};
    case CHUNK_LINE:
    case CHUNK_DATA:
        return (struct http_refusal){400, "bad chunk"};
    default:
        return bad_line();
    }
}

/* Feeds at most what the part may still have. MORE: nothing to tell yet. */
static enum http_event feed(struct http_parser *parser, const uint8_t *data, size_t size,
                            size_t *ret_used)
{
    llhttp_t *llhttp = llhttp_of(parser);
    const char *begin = (const char *)data;
    if (size > parser->allowance)
        size = parser->allowance;
    llhttp->data = parser;
    llhttp_errno_t error = llhttp_execute(llhttp, begin, size);
    if (parser->phase == BROKEN)
        return HTTP_EVENT_BROKEN;
    if (error == HPE_PAUSED) {
        size_t used = (size_t)(llhttp_get_error_pos(llhttp) - begin);
        assert(used <= parser->allowance); /* invariant 1 */
        llhttp_resume(llhttp);
        parser->allowance -= (uint32_t)used;
        *ret_used = used;
        return end_part(parser);
    }
    if (error != HPE_OK)
        return fail(parser, misunderstood(parser, error));
    parser->allowance -= (uint32_t)size;
    *ret_used = size;
    if (parser->allowance == 0)
        return fail(parser, over_allowance(parser));
    return HTTP_EVENT_MORE;
}

/* A single space between method and target: llhttp would take more. */
static enum http_event feed_space(struct http_parser *parser, const uint8_t *data, size_t *ret_used)
{
    llhttp_t *llhttp = llhttp_of(parser);
    if (data[0] != ' ' || llhttp_execute(llhttp, " ", 1) != HPE_OK)
        return fail(parser, bad_line());
    *ret_used = 1;
    /* The target, the space behind it, and the byte at which llhttp tells that it is whole. */
    enter(parser, TARGET, HTTP_TARGET_SIZE_MAX + 2);
    return HTTP_EVENT_MORE;
}

static enum http_event feed_target(struct http_parser *parser, const uint8_t *data, size_t size,
                                   size_t *ret_used)
{
    if (parser->matched == 0 && data[0] == ' ')
        return fail(parser, bad_line());
    parser->matched = 1;
    return feed(parser, data, size, ret_used);
}

/* Right behind the target's space: llhttp would take more spaces, and RTSP. */
static enum http_event feed_version(struct http_parser *parser, const uint8_t *data, size_t size,
                                    size_t *ret_used)
{
    for (size_t i = 0; i < size && parser->matched < PROTOCOL_SIZE; i++)
        if (data[i] != (uint8_t)PROTOCOL[parser->matched++])
            return fail(parser, bad_line());
    return feed(parser, data, size, ret_used);
}

/* ---- between requests, and bodies ---- */

/* RFC 9112, section 2.2: an empty line before a request is ignored, here one at most. */
static enum http_event feed_idle(struct http_parser *parser, const uint8_t *data, size_t *ret_used)
{
    static const uint8_t line[LINE_END_SIZE] = {'\r', '\n'};
    bool is_line_end = data[0] == '\r' || data[0] == '\n';
    if (parser->matched < LINE_END_SIZE && data[0] == line[parser->matched]) {
        parser->matched++;
        *ret_used = 1;
        return HTTP_EVENT_MORE;
    }
    if (is_line_end || parser->matched == 1) {
        parser->request = (struct http_request){0};
        return fail(parser, bad_line());
    }
    begin_request(parser);
    return HTTP_EVENT_MORE;
}

static void take_body(struct http_parser *parser, const uint8_t *data, size_t size,
                      size_t *ret_used, struct slice *ret_body)
{
    size_t used = min_u64(min_u64(size, parser->body_left), UINT32_MAX);
    parser->body_left -= used;
    parser->body_size += used;
    *ret_used = used;
    *ret_body = (struct slice){data, (uint32_t)used};
}

/* Between chunk lines llhttp only counts. */
static enum http_event feed_chunk(struct http_parser *parser, const uint8_t *data, size_t size,
                                  size_t *ret_used, struct slice *ret_body)
{
    take_body(parser, data, size, ret_used, ret_body);
    llhttp_errno_t error = llhttp_execute(llhttp_of(parser), (const char *)data, *ret_used);
    assert(error == HPE_OK);
    if (parser->body_left == 0)
        enter(parser, CHUNK_LINE, HTTP_CHUNK_LINE_SIZE_MAX);
    return HTTP_EVENT_BODY;
}

static enum http_event feed_body(struct http_parser *parser, const uint8_t *data, size_t size,
                                 size_t *ret_used, struct slice *ret_body)
{
    if (parser->body_left == 0)
        return end_request(parser);
    if (size == 0)
        return HTTP_EVENT_MORE;
    take_body(parser, data, size, ret_used, ret_body);
    return HTTP_EVENT_BODY;
}

static void leave_request(struct http_parser *parser)
{
    bool is_kept = parser->request.keep_alive;
    http_text_clear(&parser->text, parser->budget);
    parser->request.key = (struct slice){NULL, 0};
    parser->request.token = (struct slice){NULL, 0};
    enter(parser, is_kept ? IDLE : CLOSED, 0);
}

/* One step: an event, or MORE and the step after it. */
static enum http_event step(struct http_parser *parser, const uint8_t *data, size_t size,
                            size_t *ret_used, struct slice *ret_body)
{
    switch ((enum phase)parser->phase) {
    case IDLE:
        return feed_idle(parser, data, ret_used);
    case SPACE:
        return feed_space(parser, data, ret_used);
    case TARGET:
        return feed_target(parser, data, size, ret_used);
    case VERSION:
        return feed_version(parser, data, size, ret_used);
    case CHUNK_DATA:
        return feed_chunk(parser, data, size, ret_used, ret_body);
    case CLOSED:
        *ret_used = size;
        return HTTP_EVENT_MORE;
    default:
        return feed(parser, data, size, ret_used);
    }
}

enum http_event http_parser_next(struct http_parser *parser, const uint8_t *data, size_t size,
                                 size_t *ret_used, struct slice *ret_body)
{
    size_t position = 0;
    enum http_event event = HTTP_EVENT_MORE;
    assert(parser->phase != BROKEN); /* invariant 3 */
    if (parser->phase == DONE)
        leave_request(parser);
    if (parser->phase == BODY) {
        *ret_used = 0;
        return feed_body(parser, data, size, ret_used, ret_body);
    }
    while (position < size && event == HTTP_EVENT_MORE) {
        size_t used = 0;
        event = step(parser, data + position, size - position, &used, ret_body);
        position += used;
    }
    *ret_used = position;
    return event;
}

/* ---- the rest ---- */

void http_parser_init(struct http_parser *parser, struct http_budget *budget)
{
    memset(parser, 0, sizeof *parser);
    parser->budget = budget;
}

void http_parser_deinit(struct http_parser *parser)
{
    http_text_clear(&parser->text, parser->budget);
}

void http_parser_refuse(struct http_parser *parser)
{
    struct http_request *request = &parser->request;
    if (request->expects_continue || request->content_length > HTTP_UNWANTED_BODY_SIZE_MAX)
        request->keep_alive = false;
    parser->body_size_max = min_u64(parser->body_size_max, HTTP_UNWANTED_BODY_SIZE_MAX);
    parser->body_size_max = max_u64(parser->body_size_max, parser->body_size);
}

uint64_t http_parser_body_left(const struct http_parser *parser)
{
    bool is_body = parser->phase == BODY || parser->phase == CHUNK_DATA;
    return is_body ? parser->body_left : 0;
}

bool http_parser_is_idle(const struct http_parser *parser)
{
    return (parser->phase == IDLE && parser->matched != 1) || parser->phase == DONE ||
           parser->phase == CLOSED;
}
