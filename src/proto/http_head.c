/* What a request's head says as a whole: host, body, connection, and how large a body may be. */
#include "proto/http_internal.h"

uint64_t http_head_body_size_max(const struct http_request *request)
{
    bool has_value = request->method == HTTP_METHOD_PUT || request->method == HTTP_METHOD_POST;
    if (request->refusal != 0 || !has_value)
        return HTTP_UNWANTED_BODY_SIZE_MAX;
    return request->route == HTTP_ROUTE_RAW ? MINIVAULT_VALUE_SIZE_MAX : HTTP_JSON_BODY_SIZE_MAX;
}

void http_head_point(const struct http_fields *fields, const struct http_text *text,
                     struct http_request *request)
{
    const uint8_t *data = http_text_data(text);
    if (request->key.size > 0)
        request->key.data = data + (request->route == HTTP_ROUTE_RAW ? HTTP_RAW_PREFIX_SIZE : 0);
    request->has_token = fields->token_size > 0;
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
