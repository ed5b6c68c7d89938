/* The requests and replies of memcached's text protocol. */
#include "protocol.h"

#include "text.h"

#include <errno.h>

static size_t write_get(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = text_append(target, "get ", 4);
    at = text_append(at, key, traffic->key_size);
    return (size_t)(text_append(at, "\r\n", 2) - target);
}

static size_t write_set(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = text_append(target, "set ", 4);
    at = text_append(at, key, traffic->key_size);
    at = text_append(at, " 0 0 ", 5);
    at = text_append_number(at, traffic->value_size);
    at = text_append(at, "\r\n", 2);
    at = traffic_write_value(at, traffic);
    return (size_t)(text_append(at, "\r\n", 2) - target);
}

/* "VALUE key flags size": the size is the last word of the line. */
static int read_value_line(const uint8_t *line, size_t line_size, struct reply *ret_reply)
{
    size_t at = line_size - 2;
    while (at > 0 && line[at - 1] != ' ')
        at--;
    size_t digit_count = text_read_number(line + at, line_size - at, &ret_reply->value_size);
    if (digit_count == 0 || at + digit_count + 2 != line_size)
        return -EBADMSG;
    ret_reply->outcome = REPLY_DONE;
    ret_reply->body_size = ret_reply->value_size + strlen("\r\nEND\r\n");
    return 1;
}

static int read_reply(const uint8_t *data, size_t size, bool is_get, struct reply *ret_reply)
{
    size_t line_size = text_line_size(data, size);
    if (line_size == 0)
        return 0;
    *ret_reply = (struct reply){.head_size = (uint32_t)line_size};
    if (text_starts_with(data, line_size, "ERROR") ||
        text_starts_with(data, line_size, "SERVER_ERROR") ||
        text_starts_with(data, line_size, "CLIENT_ERROR") ||
        text_starts_with(data, line_size, "NOT_STORED")) {
        ret_reply->outcome = REPLY_ERROR;
        return 1;
    }
    if (is_get && text_starts_with(data, line_size, "VALUE "))
        return read_value_line(data, line_size, ret_reply);
    if (is_get && text_starts_with(data, line_size, "END\r\n")) {
        ret_reply->outcome = REPLY_MISS;
        return 1;
    }
    ret_reply->outcome = REPLY_DONE;
    return !is_get && text_starts_with(data, line_size, "STORED\r\n") ? 1 : -EBADMSG;
}

const struct protocol protocol_memcached = {
    .name = "memcached",
    .port = 11211,
    .request_overhead = 64,
    .write_get = write_get,
    .write_set = write_set,
    .set_tail_size = 2,
    .read_reply = read_reply,
};
