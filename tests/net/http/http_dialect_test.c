/* How the shard's answers become HTTP replies, without a connection. */
#include "net/http/http_dialect.h"

#include "net/client/output.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

struct page {
    uint8_t bytes[OUTPUT_BLOCK_SIZE];
};

static struct http_request get_of(enum http_route route)
{
    return (struct http_request){
        .method = HTTP_METHOD_GET, .route = route, .version_minor = 1, .keep_alive = true};
}

/* The whole reply as a text; freed by the caller. */
static char *write(const struct http_request *request, const struct shard_answer *answer,
                   struct page *page)
{
    struct reply_form form = http_form(request);
    struct reply_value value = {.size = 0};
    int32_t size = form.dialect->write(form, answer, page->bytes, &value);
    cr_assert_gt(size, 0);
    char *text = calloc(1, (size_t)size + value.size + 1);
    memcpy(text, page->bytes, (size_t)size);
    if (value.size > 0)
        memcpy(text + size, value.data, value.size);
    free(value.memory);
    return text;
}

static void expect(const struct http_request *request, const char *value, const char *end)
{
    struct page page;
    struct shard_answer answer = {.data = (const uint8_t *)value, .size = (uint32_t)strlen(value)};
    char *text = write(request, &answer, &page);
    size_t size = strlen(end);
    cr_assert(strlen(text) >= size && strcmp(text + strlen(text) - size, end) == 0, "%s", text);
    free(text);
}

Test(http_dialect, a_value_is_json_or_a_string)
{
    struct http_request request = get_of(HTTP_ROUTE_JSON);
    expect(&request, "{\"a\":1}", "\r\n\r\n{\"success\":true,\"data\":{\"a\":1}}");
    expect(&request, "text", "\r\n\r\n{\"success\":true,\"data\":\"text\"}");
    expect(&request, "", "\r\n\r\n{\"success\":true,\"data\":\"\"}");
    expect(&request, "\n\"", "\r\n\r\n{\"success\":true,\"data\":\"\\n\\\"\"}");
    expect(&request, "\xFF", "{\"success\":false,\"error\":\"" HTTP_REASON_NOT_JSON "\"}");
    request.route = HTTP_ROUTE_RAW;
    expect(&request, "\xFF", "Content-Length: 1\r\n\r\n\xFF");
    request.method = HTTP_METHOD_HEAD;
    expect(&request, "12345", "Content-Length: 5\r\n\r\n");
    request.route = HTTP_ROUTE_JSON;
    expect(&request, "12345", "Content-Length: 29\r\n\r\n");
}

/* Wherever the value lies in the page, the head is written over nothing that is still needed. */
Test(http_dialect, a_value_that_lies_in_its_replys_page)
{
    enum http_route routes[] = {HTTP_ROUTE_JSON, HTTP_ROUTE_RAW};
    struct page page;
    for (uint32_t i = 0; i < 2; i++) {
        struct http_request request = get_of(routes[i]);
        uint32_t offset = http_form(&request).dialect->value_offset;
        for (uint32_t size = 2; size <= 3500; size += 7) {
            uint8_t *value = page.bytes + offset;
            memset(value, 'v', size);
            value[0] = value[size - 1] = '"';
            struct shard_answer answer = {.data = value, .size = size, .is_in_lent = true};
            char *text = write(&request, &answer, &page);
            const char *body = strstr(text, "\r\n\r\n") + 4;
            cr_assert_eq(strlen(body), size + (i == 0 ? 24 : 0), "%u bytes", size);
            cr_assert_eq(strspn(strchr(body, 'v') != NULL ? strchr(body, 'v') : "", "v"), size - 2);
            free(text);
        }
    }
}

Test(http_dialect, a_string_that_grows_beyond_the_page)
{
    struct http_request request = get_of(HTTP_ROUTE_JSON);
    for (uint32_t size = 1; size < 3000; size += 13) {
        struct page page;
        char *value = malloc(size);
        memset(value, 1, size);
        struct shard_answer answer = {.data = (uint8_t *)value, .size = size};
        cr_assert_leq(reply_need(http_form(&request).dialect, &answer),
                      sizeof((struct output_block *)0)->bytes);
        char *text = write(&request, &answer, &page);
        const char *body = strstr(text, "\r\n\r\n") + 4;
        cr_assert_eq(strlen(body), 24 + 2 + 6 * (size_t)size);
        free(text);
        free(value);
    }
}

Test(http_dialect, errors_say_what_the_shard_said)
{
    static const struct {
        uint8_t status;
        const char *begin;
    } cases[] = {{MINIVAULT_NOT_FOUND, "HTTP/1.1 404 "}, {MINIVAULT_CORRUPT, "HTTP/1.1 500 "},
                 {MINIVAULT_NO_SPACE, "HTTP/1.1 507 "},  {MINIVAULT_OVERLOADED, "HTTP/1.1 503 "},
                 {MINIVAULT_AMBIGUOUS, "HTTP/1.1 504 "}, {MINIVAULT_TOO_LARGE, "HTTP/1.1 413 "}};
    struct http_request request = get_of(HTTP_ROUTE_RAW);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct page page;
        struct shard_answer answer = {.status = cases[i].status};
        char *text = write(&request, &answer, &page);
        cr_assert_eq(strncmp(text, cases[i].begin, strlen(cases[i].begin)), 0, "%s", text);
        free(text);
    }
}

Test(http_dialect, writes_are_told_in_the_routes_way)
{
    struct page page;
    struct shard_answer answer = {.status = MINIVAULT_OK};
    struct http_request request = get_of(HTTP_ROUTE_RAW);
    request.method = HTTP_METHOD_PUT;
    char *text = write(&request, &answer, &page);
    cr_assert_str_eq(text, "HTTP/1.1 204 No Content\r\n\r\n");
    free(text);
    request.route = HTTP_ROUTE_JSON;
    request.keep_alive = false;
    text = write(&request, &answer, &page);
    cr_assert_not_null(strstr(text, "Connection: close\r\n"));
    cr_assert_not_null(strstr(text, "\r\n\r\n{\"success\":true}"));
    free(text);
}
