/* Judges a value, then shows it piece by piece with what stands around it. */
#include "net/client/download_json.h"

#include "base/assert.h"
#include "base/units.h"
#include "proto/http.h"
#include "proto/json.h"

#include <stdlib.h>
#include <string.h>

#define BUFFER_SIZE (64 * KIB)

struct download_json {
    struct json_judge judge;
    bool is_judged;
    enum json_kind kind;
    uint64_t value_size;
    uint64_t value_left;  /* of the reading that is under way */
    uint64_t size;        /* of what is sent, with what stands around it */
    bool has_begun;       /* the quote in front was sent, or there is none */
    const uint8_t *piece; /* of the value, or NULL */
    uint32_t piece_size;
    uint32_t piece_used;
    bool shows_piece; /* what `next` showed is of the piece */
    uint8_t *buffer;  /* of a string */
};

struct download_json *download_json_create(uint64_t size)
{
    struct download_json *json = calloc(1, sizeof *json);
    if (json == NULL)
        return NULL;
    json->value_size = size;
    json->value_left = size;
    json_judge_init(&json->judge);
    return json;
}

void download_json_free(struct download_json *json)
{
    if (json != NULL)
        free(json->buffer);
    free(json);
}

/* ---- the first reading ---- */

bool download_json_judge(struct download_json *json, const uint8_t *piece, uint32_t size)
{
    assert(size <= json->value_left);
    json_judge_take(&json->judge, piece, size);
    json->value_left -= size;
    json->is_judged = json->value_left == 0;
    if (json->is_judged)
        json->kind = json_judge_end(&json->judge, json->value_size, &json->size);
    return json->is_judged;
}

bool download_json_is_judged(const struct download_json *json)
{
    return json->is_judged;
}

bool download_json_is_too_large(const struct download_json *json)
{
    return json->value_size > HTTP_JSON_VALUE_SIZE_MAX;
}

/* Why it cannot be sent; 0: it can. */
static uint16_t refusal(struct download_json *json, const char **ret_reason)
{
    *ret_reason = NULL;
    if (download_json_is_too_large(json)) {
        *ret_reason = HTTP_REASON_LARGE_FOR_JSON;
        return 413;
    }
    if (json->kind == JSON_KIND_DEEP) {
        *ret_reason = HTTP_REASON_DEEP_FOR_JSON;
        return 400;
    }
    if (json->kind == JSON_KIND_BYTES)
        return 406;
    if (json->kind == JSON_KIND_TEXT && json->buffer == NULL)
        json->buffer = malloc(BUFFER_SIZE);
    return json->kind == JSON_KIND_TEXT && json->buffer == NULL ? 503 : 0;
}

uint64_t download_json_size(struct download_json *json, uint16_t *ret_status,
                            const char **ret_reason)
{
    *ret_status = refusal(json, ret_reason);
    if (*ret_status != 0)
        return 0;
    json->value_left = json->value_size;
    json->has_begun = json->kind == JSON_KIND_JSON;
    return json->size + sizeof HTTP_DATA_END - 1;
}

/* ---- the second ---- */

void download_json_put(struct download_json *json, const uint8_t *piece, uint32_t size)
{
    assert(json->piece == NULL && size <= json->value_left);
    json->value_left -= size;
    json->piece = piece;
    json->piece_size = size;
    json->piece_used = 0;
}

static const uint8_t *around(const char *text, uint32_t *ret_size)
{
    *ret_size = (uint32_t)strlen(text);
    return (const uint8_t *)text;
}

static const uint8_t *escaped(struct download_json *json, uint32_t *ret_size)
{
    size_t taken = 0;
    *ret_size =
        (uint32_t)json_escape(json->piece + json->piece_used, json->piece_size - json->piece_used,
                              json->buffer, BUFFER_SIZE, &taken);
    json->piece_used += (uint32_t)taken;
    return json->buffer;
}

const uint8_t *download_json_next(struct download_json *json, uint32_t *ret_size)
{
    json->shows_piece = json->piece != NULL && json->has_begun;
    if (!json->has_begun) {
        json->has_begun = true;
        return around("\"", ret_size);
    }
    if (json->piece != NULL && json->kind == JSON_KIND_TEXT)
        return escaped(json, ret_size);
    if (json->piece != NULL) {
        *ret_size = json->piece_size;
        json->piece_used = json->piece_size;
        return json->piece;
    }
    if (json->value_left > 0)
        return NULL;
    return around(json->kind == JSON_KIND_TEXT ? "\"" HTTP_DATA_END : HTTP_DATA_END, ret_size);
}

bool download_json_release(struct download_json *json)
{
    if (!json->shows_piece || json->piece_used < json->piece_size)
        return false;
    json->piece = NULL;
    return true;
}
