/* The heads and small bodies of HTTP's replies.
 *
 * No Date (RFC 9110, section 6.6.1, lets who receives a reply without one note when it came): the
 * shards have no calendar, and nothing here may be cached by its age. */
#include "proto/http.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DATA_BEGIN "{\"success\":true,\"data\":"
#define DATA_BEGIN_SIZE (sizeof DATA_BEGIN - 1)
#define DATA_END_SIZE (sizeof HTTP_DATA_END - 1)
#define SUCCESS "{\"success\":true}"

struct writer {
    char *begin;
    char *p;
};

static uint32_t size_of(const struct writer *writer)
{
    return (uint32_t)(writer->p - writer->begin);
}

static void put(struct writer *writer, const char *text)
{
    size_t size = strlen(text);
    assert(size_of(writer) + size <= HTTP_REPLY_SIZE_MAX);
    memcpy(writer->p, text, size);
    writer->p += size;
}

static void put_field(struct writer *writer, const char *name, const char *value)
{
    put(writer, name);
    put(writer, ": ");
    put(writer, value);
    put(writer, "\r\n");
}

/* A status, what a reply with it counts as (enum minivault_status), its reason phrase, and what an
 * error says when there is nothing better. */
static const struct status {
    uint16_t number;
    uint8_t outcome;
    const char *phrase;
    const char *reason;
} statuses[] = {
    {200, MINIVAULT_OK, "OK", NULL},
    {204, MINIVAULT_OK, "No Content", NULL},
    {400, MINIVAULT_BAD_REQUEST, "Bad Request", "bad request"},
    {401, MINIVAULT_AUTH_REQUIRED, "Unauthorized", "unauthorized"},
    {404, MINIVAULT_NOT_FOUND, "Not Found", "not found"},
    {405, MINIVAULT_BAD_REQUEST, "Method Not Allowed", "method not allowed"},
    {406, MINIVAULT_BAD_REQUEST, "Not Acceptable", HTTP_REASON_NOT_JSON},
    {408, MINIVAULT_BAD_REQUEST, "Request Timeout", "the request took too long"},
    {409, MINIVAULT_BAD_REQUEST, "Conflict", "superseded by a newer version"},
    {413, MINIVAULT_TOO_LARGE, "Content Too Large", "too large"},
    {414, MINIVAULT_TOO_LARGE, "URI Too Long", "request target too long"},
    {417, MINIVAULT_BAD_REQUEST, "Expectation Failed",
     "unknown expectation: only 100-continue is known"},
    {429, MINIVAULT_OVERLOADED, "Too Many Requests", "rate limit"},
    {431, MINIVAULT_TOO_LARGE, "Request Header Fields Too Large", "header fields too large"},
    {500, MINIVAULT_BAD_REQUEST, "Internal Server Error", "the stored value is damaged"},
    {501, MINIVAULT_UNSUPPORTED, "Not Implemented", "not implemented"},
    {503, MINIVAULT_NOT_READY, "Service Unavailable", "not ready"},
    {504, MINIVAULT_BAD_REQUEST, "Gateway Timeout", "the write may or may not have been applied"},
    {505, MINIVAULT_UNSUPPORTED, "HTTP Version Not Supported", "HTTP version not supported"},
    {507, MINIVAULT_BAD_REQUEST, "Insufficient Storage",
     "no space left: the disk is full, or too small for this value"},
};

static const struct status *find_status(uint16_t number)
{
    const struct status *status = NULL;
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (statuses[i].number == number)
            status = &statuses[i];
    assert(status != NULL);
    return status;
}

static const char *const types[] = {
    [HTTP_CONTENT_JSON] = "application/json",
    [HTTP_CONTENT_BYTES] = "application/octet-stream",
    [HTTP_CONTENT_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
    [HTTP_CONTENT_PROMETHEUS] = "text/plain; version=0.0.4; charset=utf-8",
    [HTTP_CONTENT_HTML] = "text/html; charset=utf-8",
};

/* The methods of a route. */
static const char *allow_of(enum http_route route)
{
    switch (route) {
    case HTTP_ROUTE_NONE: /* of the server as a whole */
    case HTTP_ROUTE_JSON:
        return "GET, HEAD, PUT, POST, DELETE";
    case HTTP_ROUTE_RAW:
        return "GET, HEAD, PUT, DELETE";
    default:
        return "GET, HEAD";
    }
}

static struct writer begin_reply(const struct http_request *request, uint16_t number,
                                 uint8_t *target)
{
    struct writer writer = {(char *)target, (char *)target};
    char line[32];
    (void)snprintf(line, sizeof line, "HTTP/1.1 %u ", number);
    put(&writer, line);
    put(&writer, find_status(number)->phrase);
    put(&writer, "\r\n");
    if (!request->keep_alive)
        put_field(&writer, "Connection", "close");
    else if (request->version_minor == 0)
        put_field(&writer, "Connection", "keep-alive");
    return writer;
}

static void end_head(struct writer *writer, enum http_content content, uint64_t size)
{
    char digits[24];
    (void)snprintf(digits, sizeof digits, "%" PRIu64, size);
    put_field(writer, "Content-Type", types[content]);
    put_field(writer, "Content-Length", digits);
    put(writer, "\r\n");
}

uint32_t http_continue(uint8_t *target)
{
    struct writer writer = {(char *)target, (char *)target};
    put(&writer, "HTTP/1.1 100 Continue\r\n\r\n");
    return size_of(&writer);
}

uint32_t http_reply_head(const struct http_request *request, enum http_content content,
                         uint64_t size, uint8_t *target)
{
    struct writer writer = begin_reply(request, 200, target);
    end_head(&writer, content, size);
    return size_of(&writer);
}

uint32_t http_reply_success(const struct http_request *request, uint8_t *target)
{
    struct writer writer = begin_reply(request, 200, target);
    end_head(&writer, HTTP_CONTENT_JSON, strlen(SUCCESS));
    if (request->method != HTTP_METHOD_HEAD)
        put(&writer, SUCCESS);
    return size_of(&writer);
}

/* RFC 9110, section 8.6: a 204 has no Content-Length. */
uint32_t http_reply_no_content(const struct http_request *request, uint8_t *target)
{
    struct writer writer = begin_reply(request, 204, target);
    put(&writer, "\r\n");
    return size_of(&writer);
}

uint32_t http_reply_data(const struct http_request *request, uint64_t size, uint8_t *target)
{
    struct writer writer = begin_reply(request, 200, target);
    end_head(&writer, HTTP_CONTENT_JSON, DATA_BEGIN_SIZE + size + DATA_END_SIZE);
    if (request->method != HTTP_METHOD_HEAD)
        put(&writer, DATA_BEGIN);
    return size_of(&writer);
}

static void put_error_fields(struct writer *writer, const struct http_request *request,
                             uint16_t number)
{
    if (number == 401)
        put_field(writer, "WWW-Authenticate", "Bearer realm=\"minivault\"");
    if (number == 405)
        put_field(writer, "Allow", allow_of(request->route));
    if (number == 429 || number == 503)
        put_field(writer, "Retry-After", "1");
}

uint32_t http_reply_error(const struct http_request *request, uint16_t status, const char *reason,
                          uint8_t *target)
{
    char body[HTTP_REASON_SIZE_MAX + 64];
    assert(status >= 400);
    if (reason == NULL)
        reason = find_status(status)->reason;
    for (const char *p = reason; *p != 0; p++)
        assert(*p >= ' ' && *p <= '~' && *p != '"' && *p != '\\');
    int size = snprintf(body, sizeof body, "{\"success\":false,\"error\":\"%s\"%s}", reason,
                        status == 504 ? ",\"applied\":\"unknown\"" : "");
    assert(size > 0 && (size_t)size < sizeof body);
    struct writer writer = begin_reply(request, status, target);
    put_error_fields(&writer, request, status);
    end_head(&writer, HTTP_CONTENT_JSON, (uint64_t)size);
    if (request->method != HTTP_METHOD_HEAD)
        put(&writer, body);
    return size_of(&writer);
}

uint8_t http_outcome(uint16_t status)
{
    return find_status(status)->outcome;
}

uint16_t http_status_of(uint8_t status)
{
    static const uint16_t numbers[] = {
        [MINIVAULT_NOT_FOUND] = 404,   [MINIVAULT_NOT_APPLIED] = 503,   [MINIVAULT_AMBIGUOUS] = 504,
        [MINIVAULT_SUPERSEDED] = 409,  [MINIVAULT_OVERLOADED] = 503,    [MINIVAULT_NO_SPACE] = 507,
        [MINIVAULT_CORRUPT] = 500,     [MINIVAULT_AUTH_REQUIRED] = 401, [MINIVAULT_TOO_LARGE] = 413,
        [MINIVAULT_BAD_REQUEST] = 400, [MINIVAULT_UNSUPPORTED] = 501,   [MINIVAULT_NOT_READY] = 503,
    };
    bool is_known = status != MINIVAULT_OK && status < sizeof numbers / sizeof numbers[0];
    return is_known ? numbers[status] : 500;
}
