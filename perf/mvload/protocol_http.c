/* The requests and replies of minivault's HTTP routes, raw and JSON. */
#include "protocol.h"

#include "text.h"

#include <errno.h>
#include <strings.h>

/* What stands around the value in the answer of the JSON route to a GET. */
#define JSON_ANSWER_OVERHEAD (sizeof "{\"success\":true,\"data\":\"\"}" - 1)

static uint8_t *write_request_head(uint8_t *at, const struct traffic *traffic,
                                   const char *method_and_path, const uint8_t *key)
{
    at = text_append_string(at, method_and_path);
    at = text_append(at, key, traffic->key_size);
    at = text_append_string(at, " HTTP/1.1\r\nHost: ");
    at = text_append_string(at, traffic->host);
    if (traffic->auth != NULL) {
        at = text_append_string(at, "\r\nAuthorization: Bearer ");
        at = text_append_string(at, traffic->auth);
    }
    return text_append(at, "\r\n", 2);
}

static size_t write_get(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = write_request_head(target, traffic, "GET /v1/kv/", key);
    return (size_t)(text_append(at, "\r\n", 2) - target);
}

static size_t write_set(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = write_request_head(target, traffic, "PUT /v1/kv/", key);
    at = text_append_string(at, "Content-Type: application/octet-stream\r\nContent-Length: ");
    at = text_append_number(at, traffic->value_size);
    at = text_append(at, "\r\n\r\n", 4);
    return (size_t)(traffic_write_value(at, traffic) - target);
}

static size_t write_get_json(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = write_request_head(target, traffic, "GET /", key);
    return (size_t)(text_append(at, "\r\n", 2) - target);
}

static size_t write_set_json(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = write_request_head(target, traffic, "PUT /", key);
    at = text_append_string(at, "Content-Type: application/json\r\nContent-Length: ");
    at = text_append_number(at, traffic->value_size + strlen("{\"value\":\"\"}"));
    at = text_append_string(at, "\r\n\r\n{\"value\":\"");
    at = traffic_write_value(at, traffic);
    return (size_t)(text_append(at, "\"}", 2) - target);
}

/* Reads one header line: only the length of the body matters, and that it is not chunked. */
static int read_header(const uint8_t *line, size_t line_size, struct reply *reply)
{
    static const char length[] = "content-length:";
    static const char encoding[] = "transfer-encoding:";
    if (line_size > sizeof encoding &&
        strncasecmp((const char *)line, encoding, sizeof encoding - 1) == 0)
        return -EBADMSG;
    size_t at = sizeof length - 1;
    if (line_size < at || strncasecmp((const char *)line, length, at) != 0)
        return 0;
    while (at < line_size && line[at] == ' ')
        at++;
    return text_read_number(line + at, line_size - at, &reply->body_size) > 0 ? 0 : -EBADMSG;
}

static enum reply_outcome outcome_of(uint64_t status)
{
    if (status == 404)
        return REPLY_MISS;
    if (status == 429)
        return REPLY_REFUSED;
    return status >= 200 && status < 300 ? REPLY_DONE : REPLY_ERROR;
}

static int read_reply(const uint8_t *data, size_t size, bool is_get, struct reply *ret_reply)
{
    (void)is_get;
    size_t line_size = text_line_size(data, size);
    if (line_size == 0)
        return 0;
    uint64_t status = 0;
    static const char version[] = "HTTP/1.1 ";
    if (!text_starts_with(data, line_size, version) ||
        text_read_number(data + sizeof version - 1, line_size - sizeof version + 1, &status) != 3)
        return -EBADMSG;
    *ret_reply = (struct reply){.outcome = outcome_of(status)};
    size_t at = line_size;
    for (;;) {
        line_size = text_line_size(data + at, size - at);
        if (line_size == 0)
            return 0;
        if (line_size == 2)
            break;
        if (read_header(data + at, line_size, ret_reply) < 0)
            return -EBADMSG;
        at += line_size;
    }
    ret_reply->head_size = (uint32_t)at + 2;
    ret_reply->value_size = ret_reply->body_size;
    return 1;
}

static int read_reply_json(const uint8_t *data, size_t size, bool is_get, struct reply *ret_reply)
{
    int result = read_reply(data, size, is_get, ret_reply);
    if (result == 1 && ret_reply->body_size >= JSON_ANSWER_OVERHEAD)
        ret_reply->value_size = ret_reply->body_size - JSON_ANSWER_OVERHEAD;
    return result;
}

const struct protocol protocol_http = {
    .name = "http",
    .port = 3001,
    .request_overhead = 256,
    .write_get = write_get,
    .write_set = write_set,
    .is_auth_in_request = true,
    .read_reply = read_reply,
};

const struct protocol protocol_http_json = {
    .name = "http-json",
    .port = 3001,
    .request_overhead = 256,
    .write_get = write_get_json,
    .write_set = write_set_json,
    .set_tail_size = 2,
    .is_auth_in_request = true,
    .read_reply = read_reply_json,
};
