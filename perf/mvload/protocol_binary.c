/* The requests and replies of minivault's binary protocol. */
#include "protocol.h"

#include "base/bytes.h"
#include "minivault/protocol.h"

#include <errno.h>
#include <string.h>

#define HEAD_SIZE MINIVAULT_ANSWER_HEADER_SIZE

static uint8_t *write_head(uint8_t *target, uint8_t op, const void *key, uint16_t key_size)
{
    target[0] = op;
    memcpy(target + 1, &key_size, sizeof key_size);
    memcpy(target + 3, key, key_size);
    return target + 3 + key_size;
}

static size_t write_get(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    return (size_t)(write_head(target, MINIVAULT_GET, key, (uint16_t)traffic->key_size) - target);
}

static size_t write_set(uint8_t *target, const struct traffic *traffic, const uint8_t *key)
{
    uint8_t *at = write_head(target, MINIVAULT_SET, key, (uint16_t)traffic->key_size);
    memcpy(at, &traffic->value_size, sizeof traffic->value_size);
    at[4] = 0; /* not compressed */
    return (size_t)(traffic_write_value(at + 5, traffic) - target);
}

static size_t write_auth(uint8_t *target, const struct traffic *traffic)
{
    return (
        size_t)(write_head(target, MINIVAULT_AUTH, traffic->auth, (uint16_t)strlen(traffic->auth)) -
                target);
}

static size_t write_hello(uint8_t *target)
{
    static const char name[] = MINIVAULT_HELLO_NAME;
    return (size_t)(write_head(target, MINIVAULT_HELLO, name, sizeof name - 1) - target);
}

static int read_reply(const uint8_t *data, size_t size, bool is_get, struct reply *ret_reply)
{
    if (size < HEAD_SIZE)
        return 0;
    uint8_t status = data[0];
    uint32_t value_size = load_u32(data + 1);
    if (status != MINIVAULT_OK && status != MINIVAULT_ERROR)
        return -EBADMSG;
    ret_reply->head_size = HEAD_SIZE;
    ret_reply->body_size = value_size;
    ret_reply->value_size = value_size;
    /* On a plain connection an absent key and a refusal look the same. */
    ret_reply->outcome = status == MINIVAULT_OK ? REPLY_DONE : is_get ? REPLY_MISS : REPLY_ERROR;
    return 1;
}

static enum reply_outcome outcome_of(uint8_t status)
{
    switch (status) {
    case MINIVAULT_OK:
        return REPLY_DONE;
    case MINIVAULT_NOT_FOUND:
        return REPLY_MISS;
    case MINIVAULT_OVERLOADED:
        return REPLY_REFUSED;
    default:
        return REPLY_ERROR;
    }
}

/* The data of an error is its message. */
static int read_reply_typed(const uint8_t *data, size_t size, bool is_get, struct reply *ret_reply)
{
    (void)is_get;
    if (size < HEAD_SIZE)
        return 0;
    uint32_t value_size = load_u32(data + 1);
    *ret_reply = (struct reply){.outcome = outcome_of(data[0]),
                                .head_size = HEAD_SIZE,
                                .body_size = value_size,
                                .value_size = value_size};
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

const struct protocol protocol_typed = {
    .name = "binary-typed",
    .port = 3000,
    .request_overhead = 16,
    .write_get = write_get,
    .write_set = write_set,
    .write_auth = write_auth,
    .write_hello = write_hello,
    .read_reply = read_reply_typed,
};
