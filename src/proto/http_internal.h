/* What the files of the HTTP parser share: http_parser.c (llhttp, framing), http_target.c (the
 * request's target), http_field.c (its header fields, and what they say together), http_accept.c (one
 * of them), http_text.c (memory). */
#ifndef MINIVAULT_PROTO_HTTP_INTERNAL_H
#define MINIVAULT_PROTO_HTTP_INTERNAL_H

#include "proto/http.h"

#include <string.h>
#include <strings.h>

/* Status 0: nothing to refuse. */
struct http_refusal {
    uint16_t status;
    const char *reason;
};

/* ---- http_text.c ---- */

/* Errors: -ENOMEM (over the budget, or no memory; nothing was appended). */
int http_text_append(struct http_text *text, struct http_budget *budget, const void *data,
                     uint32_t size);

/* Empties it and gives its memory back. */
void http_text_clear(struct http_text *text, struct http_budget *budget);

static inline uint8_t *http_text_data(struct http_text *text)
{
    return text->heap != NULL ? text->heap : text->bytes;
}

/* ---- http_target.c ---- */

/* Of the raw route's path, behind the first slash. */
#define HTTP_RAW_PREFIX "v1/kv/"
#define HTTP_RAW_PREFIX_SIZE ((uint32_t)sizeof HTTP_RAW_PREFIX - 1)

/* Finds request->route, key and is_verbose, and says what is wrong. The path of the target is
 * decoded, without its first slash, to where that begins; *size is then its size. request->method is
 * known, and not CONNECT. */
struct http_refusal http_target_end(uint8_t *target, uint32_t *size, struct http_request *request);

/* ---- http_field.c ---- */

/* A piece of a field's name. */
void http_field_name(struct http_fields *fields, const char *data, size_t size);

/* The name is whole. Returns whether its value, of a request for `route`, is to be collected. */
bool http_field_is_known(struct http_fields *fields, enum http_route route);

/* The value is whole; it begins at `value_begin` of the text. Refusals here end the connection.
 * *ret_is_kept: it has to stay there, for the token lies in it; otherwise it may go. */
struct http_refusal http_field_end(struct http_fields *fields, struct slice value,
                                   uint32_t value_begin, bool *ret_is_kept);

static inline bool http_is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

static inline struct slice http_trim(struct slice value)
{
    while (value.size > 0 && http_is_space(value.data[0])) {
        value.data++;
        value.size--;
    }
    while (value.size > 0 && http_is_space(value.data[value.size - 1]))
        value.size--;
    return value;
}

/* In any case of its letters. */
static inline bool http_is_word(struct slice value, const char *word)
{
    return value.size == strlen(word) &&
           strncasecmp((const char *)value.data, word, value.size) == 0;
}

static inline bool http_equals(struct slice value, const char *text)
{
    return value.size == strlen(text) && memcmp(value.data, text, value.size) == 0;
}

/* Takes off what comes before the separator, with it; or all. */
static inline struct slice http_cut(struct slice *rest, uint8_t separator)
{
    const uint8_t *end = memchr(rest->data, separator, rest->size);
    struct slice part = {rest->data, end != NULL ? (uint32_t)(end - rest->data) : rest->size};
    uint32_t used = part.size + (end != NULL);
    rest->data += used;
    rest->size -= used;
    return part;
}

/* ---- http_accept.c ---- */

/* The value of one field Accept, of which there may be several. */
void http_accept_take(struct http_fields *fields, struct slice value);

/* ---- http_field.c: the whole head ---- */

/* The first refusal is the one that is told. */
static inline void http_head_refuse(struct http_request *request, struct http_refusal refusal)
{
    if (request->refusal != 0 || refusal.status == 0)
        return;
    request->refusal = refusal.status;
    request->reason = refusal.reason;
}

/* All fields are there: completes the request but for its slices. `is_chunked`, `content_length`:
 * as the framing has it. Refusals here end the connection; what is only to be refused the request
 * says. */
struct http_refusal http_head_end(const struct http_fields *fields, bool is_chunked,
                                  uint64_t content_length, struct http_request *request);

/* Lets key and token point to where they have been collected. */
void http_head_point(const struct http_fields *fields, struct http_text *text,
                     struct http_request *request);

/* What the body may have, in bytes. */
uint64_t http_head_body_size_max(const struct http_request *request);

#endif
