#include "protocol.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

enum { OP_GET = 1, OP_SET = 2, OP_AUTH = 6, STATUS_OK = 0, STATUS_ERROR = 0xFF, HEAD_SIZE = 5 };

static uint8_t *write_head(uint8_t *target, uint8_t op, const void *key, uint16_t key_size)
{
    target[0] = op;
    memcpy(target + 1, &key_size, sizeof key_size);
    memcpy(target + 3, key, key_size);
    return target + 3 + key_size;
}

static size_t write_get(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    return (size_t)(write_head(target, OP_GET, key, (uint16_t)traffic->key_size) - target);
}

static size_t write_set(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = write_head(target, OP_SET, key, (uint16_t)traffic->key_size);
    memcpy(at, &traffic->value_size, sizeof traffic->value_size);
    at[4] = 0; /* not compressed */
    return (size_t)(traffic_write_value(at + 5, traffic) - target);
}

static size_t write_auth(uint8_t *target, const struct traffic *traffic)
{
    return (size_t)(write_head(target, OP_AUTH, traffic->auth, (uint16_t)strlen(traffic->auth)) -
                    target);
}

static int read_reply(const uint8_t *data, size_t size, bool is_get, struct reply *ret_reply)
{
    if (size < HEAD_SIZE)
        return 0;
    uint8_t status = data[0];
    uint32_t value_size = load_u32(data + 1);
    if (status != STATUS_OK && status != STATUS_ERROR)
        return -EBADMSG;
    ret_reply->head_size = HEAD_SIZE;
    ret_reply->body_size = value_size;
    ret_reply->value_size = value_size;
    /* On a plain connection an absent key and a refusal look the same. */
    ret_reply->outcome = status == STATUS_OK ? REPLY_DONE : is_get ? REPLY_MISS : REPLY_ERROR;
    return 1;
}

const struct protocol protocol_binary = {
    .name = "binary",
    .port = 3000,
    .request_overhead = 16,
    .write_get = write_get,
    .write_set = write_set,
    .write_auth = write_auth,
    .read_reply = read_reply,
};
