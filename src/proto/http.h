/* HTTP/1.1 (RFC 9110, RFC 9112): bytes to requests, replies to bytes. No I/O.
 *
 * A parser belongs to a connection and is fed with what arrives, in any pieces. It yields, one
 * event a call, a request's head, its body in pieces that lie where they arrived, and its end;
 * bytes behind that are the next request's. What it keeps is the key and the bearer token, in
 * memory that grows with what really arrived and counts against a budget: 512 bytes are in the
 * parser itself.
 *
 * llhttp does the grammar, with none of its lenient flags. On top of it, so that nobody in front of
 * us can see other requests than we do: single spaces in the request line; no bare LF anywhere; one
 * empty line at most before a request; a single Host; "chunked" as the only transfer coding, and
 * not in HTTP/1.0; a bound for everything that has no length. What loses step, or may have, ends
 * the connection (HTTP_EVENT_BROKEN); what is only refused does not (http_request.refusal). */
#ifndef MINIVAULT_PROTO_HTTP_H
#define MINIVAULT_PROTO_HTTP_H

#include "base/bytes.h"
#include "base/units.h"
#include "minivault/protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- limits; docs/protocol.md tells them ---- */

/* A key of which every byte is escaped, and what may stand around it. Beyond it: 414. */
#define HTTP_TARGET_SIZE_MAX (3 * MINIVAULT_KEY_SIZE_MAX + 1024)
/* All header fields with the empty line at their end. Beyond it: 431. */
#define HTTP_FIELDS_SIZE_MAX 16384u
/* All trailer fields, which are ignored, likewise. */
#define HTTP_TRAILERS_SIZE_MAX 4096u
/* What stands between the data of two chunks: 400 beyond it. */
#define HTTP_CHUNK_LINE_SIZE_MAX 256u
/* The text of a value on the JSON routes, and a body around it: 413. */
#define HTTP_JSON_VALUE_SIZE_MAX (16 * MIB)
#define HTTP_JSON_BODY_SIZE_MAX (17 * MIB)
/* A body that nobody wants is read up to here; with more the connection is closed. */
#define HTTP_UNWANTED_BODY_SIZE_MAX (64 * KIB)

/* ---- requests ---- */

enum http_method {
    HTTP_METHOD_OTHER,
    HTTP_METHOD_GET,
    HTTP_METHOD_HEAD,
    HTTP_METHOD_PUT,
    HTTP_METHOD_POST,
    HTTP_METHOD_DELETE,
};

enum http_route {
    HTTP_ROUTE_NONE,
    HTTP_ROUTE_JSON, /* /KEY */
    HTTP_ROUTE_RAW,  /* /v1/kv/KEY */
    HTTP_ROUTE_HEALTH,
    HTTP_ROUTE_LIVEZ,
    HTTP_ROUTE_READYZ,
    HTTP_ROUTE_METRICS,
    HTTP_ROUTE_UI,
};

struct http_request {
    uint16_t refusal;   /* the status to refuse it with, or 0 */
    const char *reason; /* of the refusal, for people */
    enum http_method method;
    enum http_route route;
    uint8_t version_minor; /* of HTTP/1 */
    bool keep_alive; /* false: after the reply the connection is closed; the caller may say so */
    bool expects_continue; /* the client waits for http_continue before it sends the body */
    bool is_chunked;
    bool is_verbose;        /* ?verbose */
    bool wants_openmetrics; /* METRICS: rather than plain text */
    bool has_token;
    uint64_t content_length; /* 0 when chunked */
    struct slice key;        /* JSON, RAW: decoded; at least a byte unless it is refused */
    struct slice token;      /* of Authorization: Bearer */
};

static inline bool http_request_has_body(const struct http_request *request)
{
    return request->is_chunked || request->content_length > 0;
}

static inline bool http_request_is_read(const struct http_request *request)
{
    return request->method == HTTP_METHOD_GET || request->method == HTTP_METHOD_HEAD;
}

/* Whether its body is a value. */
static inline bool http_request_has_value(const struct http_request *request)
{
    return request->method == HTTP_METHOD_PUT || request->method == HTTP_METHOD_POST;
}

static inline bool http_request_is_about_key(const struct http_request *request)
{
    return request->route == HTTP_ROUTE_JSON || request->route == HTTP_ROUTE_RAW;
}

/* ---- the parser ---- */

#define HTTP_TEXT_INLINE 512u
#define HTTP_FIELD_NAME_SIZE 20u
#define HTTP_LLHTTP_SIZE 96u

/* Memory of all parsers of a shard, beyond what is in themselves. */
struct http_budget {
    uint64_t used; /* bytes */
    uint64_t max;
};

/* Bytes that are collected: the target, then the path that was
 * decoded of it, the token, and the field that is being read. */
struct http_text {
    uint8_t *heap; /* NULL: they are in `bytes` */
    uint32_t size;
    uint32_t capacity; /* of the heap */
    uint8_t bytes[HTTP_TEXT_INLINE];
};

/* The state of http_field.c. */
struct http_fields {
    uint8_t kind; /* of the field that is being read; 0: one of no interest */
    uint8_t name_size;
    bool has_host;
    bool has_authorization;
    bool has_transfer_encoding;
    bool says_close;
    bool says_keep_alive;
    bool expects_continue;
    bool expects_other;
    uint16_t openmetrics_quality; /* as Accept has them, in thousandths */
    uint16_t text_quality;
    uint32_t value_begin; /* in the text */
    uint32_t token_begin;
    uint32_t token_size;
    char name[HTTP_FIELD_NAME_SIZE];
};

struct http_parser {
    struct http_request request; /* of the events since HTTP_EVENT_HEAD */
    uint64_t llhttp[HTTP_LLHTTP_SIZE / 8];
    struct http_budget *budget;
    uint64_t body_left;     /* of a body with a length, or of a chunk */
    uint64_t body_size;     /* so far */
    uint64_t body_size_max; /* of a chunked one */
    uint32_t allowance;     /* bytes that the present part of a head may still have */
    uint8_t phase;
    uint8_t matched; /* of a literal in the request line */
    struct http_fields fields;
    struct http_text text;
};

enum http_event {
    HTTP_EVENT_MORE,  /* all bytes are used: feed more, when there are */
    HTTP_EVENT_HEAD,  /* parser->request is there */
    HTTP_EVENT_BODY,  /* a piece of the body: at least a byte */
    HTTP_EVENT_END,   /* of the request */
    HTTP_EVENT_BROKEN /* parser->request has the refusal; answer it and close */
};

/* `budget` outlives the parser, which lies where the caller wants it. */
void http_parser_init(struct http_parser *parser, struct http_budget *budget);
void http_parser_deinit(struct http_parser *parser);

/* The next event of `size` bytes at `data`, of which it uses *ret_used; call again with the rest
 * until it is MORE, also when nothing is left (an END often needs no byte). *ret_body: BODY only,
 * points into `data`. The request with its key and token is valid from HEAD until the call after
 * END.
 *
 * After HEAD the caller may stop feeding for as long as it likes, for instance until the request
 * has its turn. After an END without keep_alive all that comes is thrown away. After BROKEN only
 * deinit may follow; when it comes behind a HEAD that is answered already, there is nothing more to
 * answer. */
enum http_event http_parser_next(struct http_parser *parser, const uint8_t *data, size_t size,
                                 size_t *ret_used, struct slice *ret_body);

/* After HEAD: the request is answered without its body (when it has a refusal of its own this is
 * done already). The body still comes, in pieces to be ignored, so that the connection stays in
 * step; where that would cost too much, or the client waits to be told to go on, keep_alive is
 * false from now on, so ask it after this. */
void http_parser_refuse(struct http_parser *parser);

/* Bytes of the body that are known to come: of a body with a length all of it that is left, of a
 * chunked one what is left of the chunk. These may be received to where they belong and fed to the
 * parser there: it looks at none of them. */
uint64_t http_parser_body_left(const struct http_parser *parser);

/* No request has begun: the end of the stream here is a clean one. */
bool http_parser_is_idle(const struct http_parser *parser);

/* ---- replies: whole, or their heads. All return the size ---- */

/* What every reply here fits into, and what text may have in one of http_reply_error. */
#define HTTP_REPLY_SIZE_MAX 768u
#define HTTP_REASON_SIZE_MAX 256u

enum http_content {
    HTTP_CONTENT_JSON,
    HTTP_CONTENT_BYTES,
    HTTP_CONTENT_OPENMETRICS, /* 1.0 */
    HTTP_CONTENT_PROMETHEUS,  /* its text format, 0.0.4 */
    HTTP_CONTENT_HTML,
};

/* The interim reply that a client waits for who said Expect: 100-continue. */
uint32_t http_continue(uint8_t *target);

/* 200 with the head for `size` bytes of body, which are not sent to a HEAD. */
uint32_t http_reply_head(const struct http_request *request, enum http_content content,
                         uint64_t size, uint8_t *target);

/* 200 {"success":true} */
uint32_t http_reply_success(const struct http_request *request, uint8_t *target);

/* 204 */
uint32_t http_reply_no_content(const struct http_request *request, uint8_t *target);

/* 200 {"success":true,"data": up to where `size` bytes of JSON follow, then HTTP_DATA_END; for HEAD
 * the head alone, and nothing may follow. */
#define HTTP_DATA_END "}"
uint32_t http_reply_data(const struct http_request *request, uint64_t size, uint8_t *target);

/* An error: {"success":false,"error":"..."} and what belongs to its status: Allow, Retry-After,
 * WWW-Authenticate, and with 504 "applied":"unknown". `reason`: printable ASCII without quotes and
 * backslashes, at most HTTP_REASON_SIZE_MAX bytes; NULL: the status's own. */
uint32_t http_reply_error(const struct http_request *request, uint16_t status, const char *reason,
                          uint8_t *target);

/* The HTTP status of a store's or shard's (enum minivault_status, not OK). */
uint16_t http_status_of(uint8_t status);

/* What a reply with this HTTP status counts as: enum minivault_status. */
uint8_t http_outcome(uint16_t status);

/* Reasons that the caller finds. */
#define HTTP_REASON_NOT_JSON "the value is not UTF-8 text: get its bytes from /v1/kv/KEY"
#define HTTP_REASON_LARGE_FOR_JSON "the value is too large for JSON: use /v1/kv/KEY"
#define HTTP_REASON_DEEP_FOR_JSON "the value has more than 512 levels: use /v1/kv/KEY"

#endif
