/* The requests and replies of RESP, the protocol of Redis. */
#include "protocol.h"

#include "text.h"

#include <errno.h>

static uint8_t *write_bulk(uint8_t *target, const void *data, size_t size)
{
    *target++ = '$';
    target = text_append_number(target, size);
    target = text_append(target, "\r\n", 2);
    target = text_append(target, data, size);
    return text_append(target, "\r\n", 2);
}

static size_t write_get(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = text_append_string(target, "*2\r\n$3\r\nGET\r\n");
    return (size_t)(write_bulk(at, key, traffic->key_size) - target);
}

static size_t write_set(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = text_append_string(target, "*3\r\n$3\r\nSET\r\n");
    at = write_bulk(at, key, traffic->key_size);
    *at++ = '$';
    at = text_append_number(at, traffic->value_size);
    at = text_append(at, "\r\n", 2);
    at = traffic_write_value(at, traffic);
    return (size_t)(text_append(at, "\r\n", 2) - target);
}

static size_t write_auth(uint8_t *target, const struct traffic *traffic)
{
    uint8_t *at = text_append_string(target, "*2\r\n$4\r\nAUTH\r\n");
    return (size_t)(write_bulk(at, traffic->auth, strlen(traffic->auth)) - target);
}

static int read_reply(const uint8_t *data, size_t size, bool is_get, struct reply *ret_reply)
{
    size_t line_size = text_line_size(data, size);
    if (line_size == 0)
        return 0;
    *ret_reply = (struct reply){.head_size = (uint32_t)line_size};
    if (data[0] == '-') {
        ret_reply->outcome = REPLY_ERROR;
        return 1;
    }
    if (!is_get) {
        ret_reply->outcome = REPLY_DONE;
        return data[0] == '+' ? 1 : -EBADMSG;
    }
    if (data[0] != '$')
        return -EBADMSG;
    if (data[1] == '-') {
        ret_reply->outcome = REPLY_MISS;
        return 1;
    }
    size_t digit_count = text_read_number(data + 1, line_size - 1, &ret_reply->value_size);
    if (digit_count == 0 || digit_count + 3 != line_size)
        return -EBADMSG;
    ret_reply->outcome = REPLY_DONE;
    ret_reply->body_size = ret_reply->value_size + 2;
    return 1;
}

const struct protocol protocol_resp = {
    .name = "resp",
    .port = 6379,
    .request_overhead = 64,
    .write_get = write_get,
    .write_set = write_set,
    .set_tail_size = 2,
    .write_auth = write_auth,
    .read_reply = read_reply,
};
