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

static const struct http_refusal bad_line = {400, "bad request line"};
static const struct http_refusal other_version = {505,
                                                  "only HTTP/1.1 and HTTP/1.0 are spoken here"};
static const struct http_refusal out_of_memory = {503, "too many long requests at once"};

/* ---- what llhttp calls ---- */

/* The part is whole. */
static int pause(llhttp_t *llhttp)
{
    (void)llhttp;
    return HPE_PAUSED;
}

static int stop(struct http_parser *parser, struct http_refusal refusal)
{
    (void)fail(parser, refusal);
    return HPE_USER;
}

static int append(llhttp_t *llhttp, const char *data, size_t size)
{
    struct http_parser *parser = llhttp->data;
    if (http_text_append(&parser->text, parser->budget, data, (uint32_t)size) < 0)
        return stop(parser, out_of_memory);
    return 0;
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
    const struct http_parser *parser = llhttp->data;
    return parser->fields.kind == 0 ? 0 : append(llhttp, data, size);
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

/* Also behind the trailers, where it says that all is there. */
static int on_chunk_complete(llhttp_t *llhttp)
{
    const struct http_parser *parser = llhttp->data;
    return parser->phase == TRAILERS ? HPE_PAUSED : 0;
}

static const llhttp_settings_t settings = {
    .on_method_complete = pause,
    .on_url = append,
    .on_url_complete = pause,
    .on_version_complete = pause,
    .on_header_field = on_header_field,
    .on_header_field_complete = on_header_field_complete,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = pause,
    .on_chunk_header = pause,
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
    static const uint8_t methods[] = {[HTTP_DELETE] = HTTP_METHOD_DELETE,
                                      [HTTP_GET] = HTTP_METHOD_GET,
                                      [HTTP_HEAD] = HTTP_METHOD_HEAD,
                                      [HTTP_POST] = HTTP_METHOD_POST,
                                      [HTTP_PUT] = HTTP_METHOD_PUT};
    return method < sizeof methods ? (enum http_method)methods[method] : HTTP_METHOD_OTHER;
}

static void end_method(struct http_parser *parser)
{
    parser->request.method = method_of(llhttp_get_method(llhttp_of(parser)));
    enter(parser, SPACE, 1);
}

static void end_target(struct http_parser *parser)
{
    struct http_text *text = &parser->text;
    struct http_refusal refusal = {405, NULL};
    if (llhttp_get_method(llhttp_of(parser)) != HTTP_CONNECT)
        refusal = http_target_end(http_text_data(text), &text->size, &parser->request);
    http_head_refuse(&parser->request, refusal);
    enter(parser, VERSION, WORD_SIZE_MAX);
    if (llhttp_get_http_minor(llhttp_of(parser)) == 9) /* a line without a version */
        (void)fail(parser, other_version);
}

static void end_version(struct http_parser *parser)
{
    llhttp_t *llhttp = llhttp_of(parser);
    parser->request.version_minor = llhttp_get_http_minor(llhttp);
    enter(parser, FIELDS, LINE_END_SIZE + HTTP_FIELDS_SIZE_MAX);
    if (llhttp_get_http_major(llhttp) != 1 || parser->request.version_minor > 1)
        (void)fail(parser, other_version);
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
    switch ((enum phase)parser->phase) {
    case METHOD:
        end_method(parser);
        break;
    case TARGET:
        end_target(parser);
        break;
    case VERSION:
        end_version(parser);
        break;
    case FIELDS:
        return end_head(parser);
    case CHUNK_LINE:
        end_chunk_line(parser);
        break;
    case TRAILERS:
        return end_request(parser);
    default:
        assert(false); /* llhttp pauses nowhere else */
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
        return bad_line;
    }
}

/* Where llhttp does not understand what comes; the phase tells more than its own texts. */
static struct http_refusal misunderstood(const struct http_parser *parser, llhttp_errno_t error)
{
    static const char *const reasons[BROKEN] = {[METHOD] = "unknown method, or not HTTP",
                                                [TARGET] = "bad request target",
                                                [FIELDS] = "bad header field",
                                                [CHUNK_LINE] = "bad chunk",
                                                [CHUNK_DATA] = "bad chunk",
                                                [TRAILERS] = "bad trailer field"};
    if (error == HPE_INVALID_VERSION) /* also of what stands right behind one */
        return parser->phase == VERSION ? other_version : bad_line;
    if (error == HPE_INVALID_CONTENT_LENGTH || error == HPE_UNEXPECTED_CONTENT_LENGTH)
        return (struct http_refusal){400, "bad Content-Length"};
    if (error == HPE_INVALID_TRANSFER_ENCODING)
        return (struct http_refusal){400, "bad Transfer-Encoding"};
    const char *reason = reasons[parser->phase];
    return reason != NULL ? (struct http_refusal){400, reason} : bad_line;
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
        return fail(parser, bad_line);
    *ret_used = 1;
    /* The target, the space behind it, and the byte at which llhttp tells that it is whole. */
    enter(parser, TARGET, HTTP_TARGET_SIZE_MAX + 2);
    return HTTP_EVENT_MORE;
}

static enum http_event feed_target(struct http_parser *parser, const uint8_t *data, size_t size,
                                   size_t *ret_used)
{
    if (parser->matched == 0 && data[0] == ' ')
        return fail(parser, bad_line);
    parser->matched = 1;
    return feed(parser, data, size, ret_used);
}

/* Right behind the target's space: llhttp would take more spaces, and RTSP. */
static enum http_event feed_version(struct http_parser *parser, const uint8_t *data, size_t size,
                                    size_t *ret_used)
{
    for (size_t i = 0; i < size && parser->matched < PROTOCOL_SIZE; i++)
        if (data[i] != (uint8_t)PROTOCOL[parser->matched++])
            return fail(parser, bad_line);
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
        return fail(parser, bad_line);
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
