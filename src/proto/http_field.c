/* The header fields of a request: those that are known are collected, then judged one by one
 * (http_field_*), then together, when the head is whole (http_head_*). */
#include "proto/http_internal.h"

#include "base/assert.h"

#include <string.h>

enum kind { OTHER, HOST, CONNECTION, TRANSFER_ENCODING, EXPECT, AUTHORIZATION, ACCEPT };

/* Of a name that is longer than all that are known. */
#define NAME_TOO_LONG UINT8_MAX

#define BEARER "Bearer"
#define BEARER_SIZE (sizeof BEARER - 1)

void http_field_name(struct http_fields *fields, const char *data, size_t size)
{
    assert(fields->name_size == NAME_TOO_LONG || fields->name_size <= HTTP_FIELD_NAME_SIZE);
    if (fields->name_size == NAME_TOO_LONG || size > HTTP_FIELD_NAME_SIZE - fields->name_size) {
        fields->name_size = NAME_TOO_LONG;
        return;
    }
    memcpy(fields->name + fields->name_size, data, size);
    fields->name_size += (uint8_t)size;
}

bool http_field_is_known(struct http_fields *fields, enum http_route route)
{
    static const char *const names[] = {[HOST] = "host",
                                        [CONNECTION] = "connection",
                                        [TRANSFER_ENCODING] = "transfer-encoding",
                                        [EXPECT] = "expect",
                                        [AUTHORIZATION] = "authorization",
                                        [ACCEPT] = "accept"};
    struct slice name = {(const uint8_t *)fields->name, fields->name_size};
    fields->kind = OTHER;
    for (uint8_t kind = HOST; kind <= ACCEPT; kind++)
        if (http_is_word(name, names[kind]))
            fields->kind = kind;
    if (fields->kind == ACCEPT && route != HTTP_ROUTE_METRICS)
        fields->kind = OTHER; /* whatever they take, there is one form */
    fields->name_size = 0;
    return fields->kind != OTHER;
}

/* A comma-separated list (RFC 9110, section 5.6.1). */
static void end_connection(struct http_fields *fields, struct slice value)
{
    while (value.size > 0) {
        struct slice word = http_trim(http_cut(&value, ','));
        fields->says_close |= http_is_word(word, "close");
        fields->says_keep_alive |= http_is_word(word, "keep-alive");
    }
}

/* RFC 9112, section 3.2: one, and what it has can be a host and a port. It may be empty. */
static struct http_refusal end_host(struct http_fields *fields, struct slice value)
{
    static const char others[] = "-._~!$&'()*+,;=:%[]";
    if (fields->has_host)
        return (struct http_refusal){400, "more than one Host"};
    fields->has_host = true;
    for (uint32_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        uint8_t lower = byte | 0x20;
        bool is_letter = (lower >= 'a' && lower <= 'z') || (byte >= '0' && byte <= '9');
        if (!is_letter && memchr(others, byte, sizeof others - 1) == NULL)
            return (struct http_refusal){400, "bad Host"};
    }
    return (struct http_refusal){0, NULL};
}

static struct http_refusal end_transfer_encoding(struct http_fields *fields, struct slice value)
{
    if (fields->has_transfer_encoding)
        return (struct http_refusal){400, "more than one Transfer-Encoding"};
    fields->has_transfer_encoding = true;
    if (!http_is_word(value, "chunked"))
        return (struct http_refusal){501, "unknown Transfer-Encoding: only chunked is known"};
    return (struct http_refusal){0, NULL};
}

/* RFC 6750, section 2.1. Another scheme is as good as none. */
static struct http_refusal end_authorization(struct http_fields *fields, struct slice value,
                                             uint32_t value_begin, const uint8_t *begin,
                                             bool *ret_is_kept)
{
    if (fields->has_authorization)
        return (struct http_refusal){400, "more than one Authorization"};
    fields->has_authorization = true;
    if (value.size <= BEARER_SIZE || !http_is_space(value.data[BEARER_SIZE]) ||
        !http_is_word((struct slice){value.data, BEARER_SIZE}, BEARER))
        return (struct http_refusal){0, NULL};
    struct slice token =
        http_trim((struct slice){value.data + BEARER_SIZE, value.size - (uint32_t)BEARER_SIZE});
    fields->token_begin = value_begin + (uint32_t)(token.data - begin);
    fields->token_size = token.size;
    *ret_is_kept = true;
    return (struct http_refusal){0, NULL};
}

struct http_refusal http_field_end(struct http_fields *fields, struct slice value,
                                   uint32_t value_begin, bool *ret_is_kept)
{
    const uint8_t *begin = value.data;
    *ret_is_kept = false;
    value = http_trim(value);
    switch ((enum kind)fields->kind) {
    case HOST:
        return end_host(fields, value);
    case CONNECTION:
        end_connection(fields, value);
        break;
    case TRANSFER_ENCODING:
        return end_transfer_encoding(fields, value);
    case EXPECT:
        if (http_is_word(value, "100-continue"))
            fields->expects_continue = true;
        else
            fields->expects_other = true;
        break;
    case AUTHORIZATION:
        return end_authorization(fields, value, value_begin, begin, ret_is_kept);
    case ACCEPT:
        http_accept_take(fields, value);
        break;
    case OTHER:
        break;
    }
    return (struct http_refusal){0, NULL};
}

/* ---- the whole head ---- */

uint64_t http_head_body_size_max(const struct http_request *request)
{
    if (request->refusal != 0 || !http_request_has_value(request))
        return HTTP_UNWANTED_BODY_SIZE_MAX;
    return request->route == HTTP_ROUTE_RAW ? MINIVAULT_VALUE_SIZE_MAX : HTTP_JSON_BODY_SIZE_MAX;
}

void http_head_point(const struct http_fields *fields, struct http_text *text,
                     struct http_request *request)
{
    const uint8_t *data = http_text_data(text);
    if (request->key.size > 0)
        request->key.data = data + (request->route == HTTP_ROUTE_RAW ? HTTP_RAW_PREFIX_SIZE : 0);
    request->has_token = fields->token_size > 0;
    assert((uint64_t)fields->token_begin + fields->token_size <= text->size);
    if (request->has_token)
        request->token = (struct slice){data + fields->token_begin, fields->token_size};
}

/* RFC 9112, sections 3.2, 6 and 9.3; RFC 9110, section 10.1.1: HTTP/1.0 knows no Expect. */
struct http_refusal http_head_end(const struct http_fields *fields, bool is_chunked,
                                  uint64_t content_length, struct http_request *request)
{
    bool is_1_1 = request->version_minor == 1;
    if (is_1_1 && !fields->has_host)
        return (struct http_refusal){400, "Host required"};
    if (is_chunked != fields->has_transfer_encoding || (is_chunked && !is_1_1))
        return (struct http_refusal){400, "bad Transfer-Encoding"};
    request->is_chunked = is_chunked;
    request->content_length = is_chunked ? 0 : content_length;
    request->keep_alive = !fields->says_close && (is_1_1 || fields->says_keep_alive);
    request->expects_continue =
        is_1_1 && fields->expects_continue && http_request_has_body(request);
    request->wants_openmetrics =
        fields->openmetrics_quality > 0 && fields->openmetrics_quality >= fields->text_quality;
    if (is_1_1 && fields->expects_other)
        http_head_refuse(request, (struct http_refusal){417, NULL});
    if (request->content_length > http_head_body_size_max(request))
        http_head_refuse(request, (struct http_refusal){413, NULL});
    return (struct http_refusal){0, NULL};
}
