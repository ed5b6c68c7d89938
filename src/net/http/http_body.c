/* Bytes of a body: to one value. */
#include "net/http/http_body.h"

#include "net/client/limits.h"
#include "proto/http.h"

#include "base/assert.h"

#include <errno.h>

void http_body_begin(struct http_body *body, bool is_json)
{
    body->is_json = is_json;
    body->json = JSON_MORE;
    body->value_size = 0;
    if (is_json)
        json_scan_init(&body->scan, true);
}

void http_body_clear(struct http_body *body, struct client_shared *shared)
{
    input_clear(&body->collected, &shared->input_bytes);
    http_body_drop(body);
}

uint8_t http_body_compact(struct http_body *body, const uint8_t *data, uint32_t size,
                          uint8_t *target, uint32_t *ret_size)
{
    size_t made = 0;
    assert(body->is_json);
    body->json = json_scan(&body->scan, data, size, target, &made);
    *ret_size = (uint32_t)made;
    body->value_size += made;
    if (body->json != JSON_MORE)
        return MINIVAULT_BAD_REQUEST;
    return body->value_size > HTTP_JSON_VALUE_SIZE_MAX ? MINIVAULT_TOO_LARGE : MINIVAULT_OK;
}

const char *http_body_blame(const struct http_body *body)
{
    bool is_good = body->json == JSON_MORE || body->json == JSON_GOOD;
    return is_good ? NULL : json_result_text(body->json);
}

int http_body_end(struct http_body *body)
{
    if (!body->is_json || body->json != JSON_MORE)
        return http_body_blame(body) == NULL;
    body->json = json_scan_end(&body->scan);
    return body->json == JSON_GOOD ? 1 : -EINVAL;
}

/* ---- collecting ---- */

static bool append(struct http_body *body, struct client_shared *shared, const uint8_t *data,
                   uint64_t size)
{
    return size == 0 || input_append(&body->collected, data, size, &shared->input_bytes,
                                     shared->input_bytes_max) == 0;
}

bool http_body_save(struct http_body *body, struct client_shared *shared)
{
    struct slice value = body->value;
    http_body_drop(body);
    return append(body, shared, value.data, value.size);
}

uint8_t http_body_take(struct http_body *body, struct slice whole, uint8_t *scratch)
{
    body->value = whole;
    if (!body->is_json)
        return MINIVAULT_OK;
    uint32_t size = 0;
    uint8_t status = http_body_compact(body, whole.data, whole.size, scratch, &size);
    body->value = status == MINIVAULT_OK ? (struct slice){scratch, size} : (struct slice){NULL, 0};
    return status;
}

uint8_t http_body_collect(struct http_body *body, struct client_shared *shared, struct slice piece,
                          uint8_t *scratch)
{
    for (uint32_t used = 0; used < piece.size;) {
        const uint8_t *data = piece.data + used;
        uint32_t size = (uint32_t)min_u64(piece.size - used, LIMITS_RECEIVE_SIZE);
        uint8_t status = MINIVAULT_OK;
        used += size;
        if (body->is_json) {
            status = http_body_compact(body, data, size, scratch, &size);
            data = scratch;
        }
        if (status == MINIVAULT_OK && !append(body, shared, data, size))
            status = MINIVAULT_OVERLOADED;
        if (status != MINIVAULT_OK)
            return status;
    }
    return MINIVAULT_OK;
}

struct slice http_body_value(const struct http_body *body)
{
    const struct input *collected = &body->collected;
    if (body->value.size > 0)
        return body->value;
    if (input_size(collected) == 0)
        return (struct slice){(const uint8_t *)"", 0};
    return (struct slice){collected->data + collected->begin, (uint32_t)input_size(collected)};
}
