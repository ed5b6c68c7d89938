/* The heads and bodies of HTTP replies, byte for byte. */
#include "proto/http.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <yyjson.h>

static const struct http_request kept = {
    .method = HTTP_METHOD_GET, .route = HTTP_ROUTE_JSON, .version_minor = 1, .keep_alive = true};

static struct http_request with_method(enum http_method method)
{
    struct http_request request = kept;
    request.method = method;
    return request;
}

static void assert_reply(const uint8_t *reply, uint32_t size, const char *expected)
{
    cr_assert_leq(size, HTTP_REPLY_SIZE_MAX);
    cr_assert_eq(size, strlen(expected), "%.*s", (int)size, reply);
    cr_assert_arr_eq(reply, expected, size, "%.*s", (int)size, reply);
}

Test(http_reply, success_is_exact)
{
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    struct http_request put = with_method(HTTP_METHOD_PUT);
    assert_reply(reply, http_reply_success(&put, reply),
                 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
                 "{\"success\":true}");
    assert_reply(reply, http_reply_no_content(&put, reply), "HTTP/1.1 204 No Content\r\n\r\n");
    assert_reply(reply, http_continue(reply), "HTTP/1.1 100 Continue\r\n\r\n");
}

Test(http_reply, data_is_wrapped)
{
    char reply[HTTP_REPLY_SIZE_MAX + 64];
    uint32_t size = http_reply_data(&kept, 4, (uint8_t *)reply);
    (void)snprintf(reply + size, sizeof reply - size, "null%s", HTTP_DATA_END);
    cr_assert_str_eq(reply, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                            "Content-Length: 28\r\n\r\n{\"success\":true,\"data\":null}");
}

Test(http_reply, a_head_request_gets_the_same_head_and_no_body)
{
    uint8_t with_body[HTTP_REPLY_SIZE_MAX];
    uint8_t without[HTTP_REPLY_SIZE_MAX];
    struct http_request head = with_method(HTTP_METHOD_HEAD);
    for (int i = 0; i < 3; i++) {
        uint32_t size = i == 0   ? http_reply_data(&kept, 4, with_body)
                        : i == 1 ? http_reply_error(&kept, 404, NULL, with_body)
                                 : http_reply_success(&kept, with_body);
        uint32_t head_size = i == 0   ? http_reply_data(&head, 4, without)
                             : i == 1 ? http_reply_error(&head, 404, NULL, without)
                                      : http_reply_success(&head, without);
        cr_assert_lt(head_size, size);
        cr_assert_arr_eq(without, with_body, head_size);
        cr_assert_arr_eq(without + head_size - 4, "\r\n\r\n", 4);
    }
}

Test(http_reply, values_are_announced_with_their_type_and_size)
{
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    assert_reply(reply, http_reply_head(&kept, HTTP_CONTENT_BYTES, 104857600, reply),
                 "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                 "Content-Length: 104857600\r\n\r\n");
    assert_reply(reply, http_reply_head(&kept, HTTP_CONTENT_OPENMETRICS, UINT64_MAX, reply),
                 "HTTP/1.1 200 OK\r\n"
                 "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
                 "Content-Length: 18446744073709551615\r\n\r\n");
    assert_reply(reply, http_reply_head(&kept, HTTP_CONTENT_PROMETHEUS, 1, reply),
                 "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                 "Content-Length: 1\r\n\r\n");
    assert_reply(reply, http_reply_head(&kept, HTTP_CONTENT_HTML, 0, reply),
                 "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
                 "Content-Length: 0\r\n\r\n");
}

Test(http_reply, whether_the_connection_stays_is_said_where_it_is_not_clear)
{
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    struct http_request request = kept;
    request.keep_alive = false;
    assert_reply(reply, http_reply_no_content(&request, reply),
                 "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    request.version_minor = 0;
    assert_reply(reply, http_reply_no_content(&request, reply),
                 "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    request.keep_alive = true;
    assert_reply(reply, http_reply_no_content(&request, reply),
                 "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
}

#define FAILURE(text) "{\"success\":false,\"error\":\"" text "\"}"

static const struct {
    uint16_t status;
    enum http_route route;
    const char *reason;
    const char *line;
    const char *field; /* NULL: none of its own */
    const char *body;
} errors[] = {
    {400, HTTP_ROUTE_JSON, "invalid json", "400 Bad Request", NULL, FAILURE("invalid json")},
    {400, HTTP_ROUTE_JSON, "missing value field", "400 Bad Request", NULL,
     FAILURE("missing value field")},
    {401, HTTP_ROUTE_JSON, NULL, "401 Unauthorized", "WWW-Authenticate: Bearer realm=\"minivault\"",
     FAILURE("unauthorized")},
    {404, HTTP_ROUTE_JSON, NULL, "404 Not Found", NULL, FAILURE("not found")},
    {405, HTTP_ROUTE_JSON, NULL, "405 Method Not Allowed", "Allow: GET, HEAD, PUT, POST, DELETE",
     FAILURE("method not allowed")},
    {405, HTTP_ROUTE_RAW, NULL, "405 Method Not Allowed", "Allow: GET, HEAD, PUT, DELETE",
     FAILURE("method not allowed")},
    {405, HTTP_ROUTE_METRICS, NULL, "405 Method Not Allowed", "Allow: GET, HEAD",
     FAILURE("method not allowed")},
    {406, HTTP_ROUTE_JSON, NULL, "406 Not Acceptable", NULL,
     FAILURE("the value is not UTF-8 text: get its bytes from /v1/kv/KEY")},
    {408, HTTP_ROUTE_JSON, NULL, "408 Request Timeout", NULL, FAILURE("the request took too long")},
    {409, HTTP_ROUTE_JSON, NULL, "409 Conflict", NULL, FAILURE("superseded by a newer version")},
    {413, HTTP_ROUTE_JSON, NULL, "413 Content Too Large", NULL, FAILURE("too large")},
    {414, HTTP_ROUTE_JSON, NULL, "414 URI Too Long", NULL, FAILURE("request target too long")},
    {417, HTTP_ROUTE_JSON, NULL, "417 Expectation Failed", NULL,
     FAILURE("unknown expectation: only 100-continue is known")},
    {429, HTTP_ROUTE_JSON, NULL, "429 Too Many Requests", "Retry-After: 1", FAILURE("rate limit")},
    {431, HTTP_ROUTE_JSON, NULL, "431 Request Header Fields Too Large", NULL,
     FAILURE("header fields too large")},
    {500, HTTP_ROUTE_JSON, NULL, "500 Internal Server Error", NULL,
     FAILURE("the stored value is damaged")},
    {501, HTTP_ROUTE_JSON, NULL, "501 Not Implemented", NULL, FAILURE("not implemented")},
    {503, HTTP_ROUTE_JSON, NULL, "503 Service Unavailable", "Retry-After: 1", FAILURE("not ready")},
    {504, HTTP_ROUTE_JSON, NULL, "504 Gateway Timeout", NULL,
     "{\"success\":false,\"error\":\"the write may or may not have been applied\","
     "\"applied\":\"unknown\"}"},
    {505, HTTP_ROUTE_JSON, NULL, "505 HTTP Version Not Supported", NULL,
     FAILURE("HTTP version not supported")},
    {507, HTTP_ROUTE_JSON, NULL, "507 Insufficient Storage", NULL,
     FAILURE("no space left: the disk is full, or too small for this value")},
};

Test(http_reply, every_error_is_exact_and_its_body_is_json)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct http_request request = kept;
        request.route = errors[i].route;
        char expected[HTTP_REPLY_SIZE_MAX + 1];
        (void)snprintf(expected, sizeof expected,
                       "HTTP/1.1 %s\r\n%s%sContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n%s",
                       errors[i].line, errors[i].field != NULL ? errors[i].field : "",
                       errors[i].field != NULL ? "\r\n" : "", strlen(errors[i].body),
                       errors[i].body);
        uint8_t reply[HTTP_REPLY_SIZE_MAX];
        uint32_t size = http_reply_error(&request, errors[i].status, errors[i].reason, reply);
        assert_reply(reply, size, expected);
        yyjson_doc *document = yyjson_read(errors[i].body, strlen(errors[i].body), 0);
        cr_assert_not_null(document);
        yyjson_doc_free(document);
    }
}

Test(http_reply, the_parsers_refusal_is_told)
{
    struct http_request request = kept;
    request.refusal = 400;
    request.reason = "key required";
    request.keep_alive = false;
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    assert_reply(reply, http_reply_error(&request, request.refusal, request.reason, reply),
                 "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"
                 "Content-Type: application/json\r\nContent-Length: 40\r\n\r\n"
                 "{\"success\":false,\"error\":\"key required\"}");
}

Test(http_reply, the_longest_reason_fits)
{
    char reason[HTTP_REASON_SIZE_MAX + 1];
    memset(reason, 'r', HTTP_REASON_SIZE_MAX);
    reason[HTTP_REASON_SIZE_MAX] = 0;
    struct http_request request = kept;
    request.keep_alive = false;
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        cr_assert_leq(http_reply_error(&request, errors[i].status, reason, reply),
                      HTTP_REPLY_SIZE_MAX);
}

Test(http_reply, every_status_of_the_store_has_one_that_can_be_replied)
{
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    for (unsigned status = 1; status <= 255; status++) {
        uint16_t number = http_status_of((uint8_t)status);
        cr_assert_geq(number, 400);
        cr_assert_gt(http_reply_error(&kept, number, NULL, reply), 0);
    }
    cr_assert_eq(http_status_of(MINIVAULT_NOT_FOUND), 404);
    cr_assert_eq(http_status_of(MINIVAULT_AMBIGUOUS), 504, "never 503: proxies repeat that");
    cr_assert_eq(http_status_of(MINIVAULT_NOT_APPLIED), 503);
    cr_assert_eq(http_status_of(MINIVAULT_CORRUPT), 500);
}
