/* The shard's answers as HTTP replies. */
#include "net/http/http_dialect.h"

#include "net/client/operation.h"

#include "base/assert.h"
#include "proto/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum metrics_operation http_operation(const struct http_request *request)
{
    static const uint8_t of_keys[] = {
        [HTTP_METHOD_OTHER] = METRICS_OTHER, [HTTP_METHOD_GET] = METRICS_GET,
        [HTTP_METHOD_HEAD] = METRICS_GET,    [HTTP_METHOD_PUT] = METRICS_SET,
        [HTTP_METHOD_POST] = METRICS_SET,    [HTTP_METHOD_DELETE] = METRICS_DELETE,
    };
    if (http_request_is_about_key(request))
        return (enum metrics_operation)of_keys[request->method];
    if (request->route == HTTP_ROUTE_HEALTH)
        return METRICS_HEALTH;
    return request->route == HTTP_ROUTE_METRICS ? METRICS_STATS : METRICS_OTHER;
}

void http_answer(struct client *client, const uint8_t *bytes, size_t size)
{
    (void)operation_answer(client, reply_form_verbatim(),
                           &(struct shard_answer){.data = bytes, .size = (uint32_t)size});
}

void http_answer_error(struct client *client, const struct http_request *request, uint16_t status,
                       const char *reason)
{
    uint8_t reply[HTTP_REPLY_SIZE_MAX];
    client_request(client)->refusal = http_outcome(status);
    http_answer(client, reply, http_reply_error(request, status, reason, reply));
}

/* The bits of a form, beside REPLY_HEAD: what a reply depends on. */
enum form_bits {
    FORM_WRITE = 2,
    FORM_KEEP_ALIVE = 4,
    FORM_HTTP_1_0 = 8,
};

/* The request as far as its reply depends on it. */
static struct http_request request_of(struct reply_form form)
{
    return (struct http_request){
        .method = (form.bits & REPLY_HEAD) != 0 ? HTTP_METHOD_HEAD : HTTP_METHOD_GET,
        .keep_alive = (form.bits & FORM_KEEP_ALIVE) != 0,
        .version_minor = (form.bits & FORM_HTTP_1_0) != 0 ? 0 : 1,
    };
}

static uint32_t write_error(struct reply_form form, uint16_t status, const char *reason,
                            uint8_t *target)
{
    struct http_request request = request_of(form);
    return http_reply_error(&request, status, reason, target);
}

static int32_t write_refusal(struct reply_form form, const struct shard_answer *answer,
                             uint8_t *target)
{
    char text[REPLY_TEXT_MAX];
    return (int32_t)write_error(form, http_status_of(answer->status), reply_text(answer, text),
                                target);
}

/* ---- the raw route ---- */

static int32_t write_raw(struct reply_form form, const struct shard_answer *answer, uint8_t *target,
                         struct reply_value *ret_value)
{
    struct http_request request = request_of(form);
    uint8_t head[HTTP_REPLY_SIZE_MAX];
    if (answer->status != MINIVAULT_OK)
        return write_refusal(form, answer, target);
    if ((form.bits & FORM_WRITE) != 0)
        return (int32_t)http_reply_no_content(&request, target);
    uint32_t size = http_reply_head(&request, HTTP_CONTENT_BYTES, answer->size, head);
    uint32_t value_size = 0;
    if (request.method != HTTP_METHOD_HEAD)
        value_size = reply_put_value(answer, target + size, ret_value);
    memcpy(target, head, size);
    return (int32_t)(size + value_size);
}

static uint32_t write_raw_stream(struct reply_form form, uint64_t size, uint8_t *target)
{
    struct http_request request = request_of(form);
    return http_reply_head(&request, HTTP_CONTENT_BYTES, size, target);
}

/* ---- the JSON routes ---- */

/* What a value is, and how many bytes it is in a reply. Most are JSON: they are scanned once. */
static enum json_kind judge(const uint8_t *data, uint32_t size, uint64_t *ret_size)
{
    struct json_scan scan;
    size_t scanned;
    json_scan_init(&scan, false);
    if (json_scan(&scan, data, size, NULL, &scanned) == JSON_MORE &&
        json_scan_end(&scan) == JSON_GOOD) {
        *ret_size = size;
        return JSON_KIND_JSON;
    }
    struct json_judge judge;
    json_judge_init(&judge);
    json_judge_take(&judge, data, size);
    return json_judge_end(&judge, size, ret_size);
}

/* Writes the value with what follows it; `size` as the judge says. */
static void put_json(enum json_kind kind, const struct shard_answer *answer, uint64_t size,
                     uint8_t *target)
{
    size_t taken = answer->size;
    if (kind == JSON_KIND_JSON) {
        memmove(target, answer->data, answer->size);
    } else {
        target[0] = '"';
        (void)json_escape(answer->data, answer->size, target + 1, size - 2, &taken);
        target[size - 1] = '"';
    }
    assert(taken == answer->size);
    memcpy(target + size, HTTP_DATA_END, sizeof HTTP_DATA_END - 1);
}

/* A value that is not small goes behind the head in memory of its own: it was looked at byte by
 * byte, so that a copy costs nothing beside. Errors: -ENOMEM. */
static int put_apart(enum json_kind kind, const struct shard_answer *answer, uint64_t size,
                     struct reply_value *ret_value)
{
    uint64_t whole = size + sizeof HTTP_DATA_END - 1;
    uint8_t *memory = malloc(whole);
    if (memory == NULL)
        return -ENOMEM;
    put_json(kind, answer, size, memory);
    *ret_value = (struct reply_value){.data = memory, .size = (uint32_t)whole, .memory = memory};
    return 0;
}

static int32_t write_value(struct reply_form form, const struct shard_answer *answer,
                           uint8_t *target, struct reply_value *ret_value)
{
    struct http_request request = request_of(form);
    uint8_t small[REPLY_INLINE_MAX + sizeof HTTP_DATA_END];
    uint64_t size = 0;
    enum json_kind kind = judge(answer->data, answer->size, &size);
    if (kind == JSON_KIND_DEEP)
        return (int32_t)write_error(form, 400, HTTP_REASON_DEEP_FOR_JSON, target);
    if (kind == JSON_KIND_BYTES)
        return (int32_t)write_error(form, 406, NULL, target);
    if (request.method == HTTP_METHOD_HEAD)
        return (int32_t)http_reply_data(&request, size, target);
    if (size > REPLY_INLINE_MAX) {
        int result = put_apart(kind, answer, size, ret_value);
        return result < 0 ? result : (int32_t)http_reply_data(&request, size, target);
    }
    put_json(kind, answer, size, small); /* the value may lie where the head goes */
    uint32_t head_size = http_reply_data(&request, size, target);
    uint32_t rest = (uint32_t)size + sizeof HTTP_DATA_END - 1;
    memcpy(target + head_size, small, rest);
    return (int32_t)(head_size + rest);
}

static int32_t write_json(struct reply_form form, const struct shard_answer *answer,
                          uint8_t *target, struct reply_value *ret_value)
{
    struct http_request request = request_of(form);
    if (answer->status != MINIVAULT_OK)
        return write_refusal(form, answer, target);
    if ((form.bits & FORM_WRITE) != 0)
        return (int32_t)http_reply_success(&request, target);
    return write_value(form, answer, target, ret_value);
}

/* The stream is the value and what follows it. */
static uint32_t write_json_stream(struct reply_form form, uint64_t size, uint8_t *target)
{
    struct http_request request = request_of(form);
    return http_reply_data(&request, size - (sizeof HTTP_DATA_END - 1), target);
}

#define HEAD_MAX 192u /* of a reply that says OK, with all that is around a value */

static const struct dialect raw = {.head_max = HEAD_MAX,
                                   .error_max = HTTP_REPLY_SIZE_MAX,
                                   .growth = 1,
                                   .value_offset = HEAD_MAX,
                                   .write = write_raw,
                                   .write_stream = write_raw_stream};

static const struct dialect json = {.head_max = HTTP_REPLY_SIZE_MAX,
                                    .error_max = HTTP_REPLY_SIZE_MAX,
                                    .growth = JSON_ESCAPE_MAX,
                                    .value_offset = HEAD_MAX,
                                    .is_json = true,
                                    .write = write_json,
                                    .write_error = write_error,
                                    .write_stream = write_json_stream};

struct reply_form http_form(const struct http_request *request)
{
    uint32_t bits = http_request_is_read(request) ? 0 : FORM_WRITE;
    if (request->method == HTTP_METHOD_HEAD)
        bits |= REPLY_HEAD;
    if (request->keep_alive)
        bits |= FORM_KEEP_ALIVE;
    if (request->version_minor == 0)
        bits |= FORM_HTTP_1_0;
    return (struct reply_form){request->route == HTTP_ROUTE_RAW ? &raw : &json, bits};
}
