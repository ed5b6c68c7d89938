/* What becomes of a body. One that is known to be large goes into a file from its first byte on;
 * another is collected, and goes into a file when it turns out to be large. On the JSON routes it
 * is the envelope's value that is kept, compacted as it comes. */
#include "net/http/http_client.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

static const struct http_request *request_of(const struct connection *connection)
{
    return &connection->http->parser.request;
}

static bool is_json(const struct connection *connection)
{
    return request_of(connection)->route == HTTP_ROUTE_JSON;
}

bool http_body_is_upload(const struct connection *connection)
{
    const struct http_request *request = request_of(connection);
    return !is_json(connection) &&
           shard_is_large(&connection->server->shard, request->content_length, false);
}

/* ---- JSON ---- */

/* Compacts bytes of the body. Returns OK or why it is refused; http->json tells more. */
static uint8_t compact(struct connection *connection, const uint8_t *data, uint32_t size,
                       uint8_t *target, uint32_t *ret_size)
{
    struct http_client *http = connection->http;
    size_t made = 0;
    http->json = json_scan(&http->scan, data, size, target, &made);
    *ret_size = (uint32_t)made;
    http->value_size += made;
    if (http->json != JSON_MORE)
        return MINIVAULT_BAD_REQUEST;
    return http->value_size > HTTP_JSON_VALUE_SIZE_MAX ? MINIVAULT_TOO_LARGE : MINIVAULT_OK;
}

static void refuse(struct connection *connection, uint8_t status)
{
    struct http_client *http = connection->http;
    if (connection->upload != NULL)
        upload_refuse(connection, status);
    else if (http->json != JSON_MORE && http->json != JSON_GOOD)
        http_refuse(connection, 400, json_result_text(http->json));
    else
        http_refuse(connection, http_status_of(status), NULL);
}

bool http_body_end(struct connection *connection)
{
    struct http_client *http = connection->http;
    const struct http_request *request = request_of(connection);
    bool has_value = request->method == HTTP_METHOD_PUT || request->method == HTTP_METHOD_POST;
    if (!has_value || !is_json(connection) || http->json != JSON_MORE)
        return http->json == JSON_MORE || http->json == JSON_GOOD;
    http->json = json_scan_end(&http->scan);
    if (http->json == JSON_GOOD)
        return true;
    refuse(connection, MINIVAULT_BAD_REQUEST);
    return false;
}

/* ---- collecting ---- */

static bool append(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct loop *server = connection->server;
    return size == 0 || input_append(&connection->http->collected, data, size, &server->input_bytes,
                                     server->input_bytes_max) == 0;
}

bool http_body_keep(struct connection *connection)
{
    struct http_client *http = connection->http;
    struct slice value = http->value;
    http->value = (struct slice){NULL, 0};
    return append(connection, value.data, value.size);
}

/* The whole body in one piece: it is executed before anything else happens, so nothing is copied.
 * JSON is compacted into memory that is the shard's for this. */
static void take_whole(struct connection *connection, struct slice piece)
{
    struct http_client *http = connection->http;
    if (!is_json(connection)) {
        http->value = piece;
        return;
    }
    uint8_t *scratch = connection->server->scratch;
    uint32_t size = 0;
    uint8_t status = compact(connection, piece.data, piece.size, scratch, &size);
    if (status == MINIVAULT_OK)
        http->value = (struct slice){scratch, size};
    else
        refuse(connection, status);
}

static bool collect_part(struct connection *connection, const uint8_t *data, uint32_t size)
{
    if (!is_json(connection)) {
        if (append(connection, data, size))
            return true;
        refuse(connection, MINIVAULT_OVERLOADED);
        return false;
    }
    uint8_t *scratch = connection->server->scratch;
    uint32_t made = 0;
    uint8_t status = compact(connection, data, size, scratch, &made);
    if (status == MINIVAULT_OK && !append(connection, scratch, made))
        status = MINIVAULT_OVERLOADED;
    if (status != MINIVAULT_OK)
        refuse(connection, status);
    return status == MINIVAULT_OK;
}

void http_body_collect(struct connection *connection, struct slice piece)
{
    struct http_client *http = connection->http;
    const struct http_request *request = request_of(connection);
    if (request->method != HTTP_METHOD_PUT && request->method != HTTP_METHOD_POST)
        return; /* nobody asked for it */
    if (piece.size == request->content_length && piece.size <= LIMITS_RECEIVE_SIZE) {
        take_whole(connection, piece);
        return;
    }
    for (uint32_t used = 0; used < piece.size;) {
        uint32_t part = (uint32_t)min_u64(piece.size - used, LIMITS_RECEIVE_SIZE);
        if (!collect_part(connection, piece.data + used, part))
            return;
        used += part;
    }
    if (shard_is_large(&connection->server->shard, input_size(&http->collected), false))
        http->stage = HTTP_STAGE_BEGIN; /* it is to be uploaded after all */
}

struct slice http_body_collected(const struct http_client *http)
{
    const struct input *collected = &http->collected;
    if (input_size(collected) == 0)
        return (struct slice){(const uint8_t *)"", 0};
    return (struct slice){collected->data + collected->begin, (uint32_t)input_size(collected)};
}

/* ---- uploading ---- */

enum taken http_body_upload(struct connection *connection)
{
    struct http_client *http = connection->http;
    struct upload_request upload = {.key = request_of(connection)->key,
                                    .size = http_parser_body_left(&http->parser),
                                    .is_open = true,
                                    .is_counted = !request_of(connection)->is_chunked,
                                    .is_prompt = true,
                                    .begin = http_body_collected(connection->http),
                                    .filter = is_json(connection) ? compact : NULL,
                                    .form = http_form(request_of(connection))};
    switch (upload_begin(connection, &upload)) {
    case 0:
        http->stage = HTTP_STAGE_UPLOAD;
        return BEGUN;
    case -EAGAIN:
        return BLOCKED;
    default:
        http_refuse(connection, 503, NULL);
        return TAKEN;
    }
}

uint64_t http_body_feed(struct connection *connection, const uint8_t *data, uint64_t size)
{
    struct http_parser *parser = &connection->http->parser;
    uint64_t part = min_u64(size, http_parser_body_left(parser));
    uint64_t taken = part > 0 ? upload_take(connection, data, part) : 0;
    size_t used = 0;
    struct slice piece;
    if (taken == 0)
        return 0;
    enum http_event event = http_parser_next(parser, data, taken, &used, &piece);
    assert(event == HTTP_EVENT_BODY && used == taken);
    return taken;
}
