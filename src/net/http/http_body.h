/* A request's body that is a value: collected, on the JSON routes compacted as it comes. Whoever takes
 * the request decides what becomes of it (http_client.c). */
#ifndef MINIVAULT_NET_HTTP_BODY_H
#define MINIVAULT_NET_HTTP_BODY_H

#include "net/client/client.h"
#include "net/client/input.h"
#include "proto/json.h"

/* All zero: of no request yet. */
struct http_body {
    bool is_json;           /* it is an envelope, of which the value is stored */
    enum json_result json;  /* of the envelope so far */
    struct slice value;     /* within one call: what is to be stored, not copied yet */
    struct input collected; /* of the value, otherwise */
    uint64_t value_size;    /* of the value so far */
    struct json_scan scan;
};

/* Of the next request. */
void http_body_begin(struct http_body *body, bool is_json);

/* The request is answered: what was collected goes. */
void http_body_clear(struct http_body *body, struct client_shared *shared);

/* Takes the whole body at once: nothing is copied; JSON is compacted into `scratch`, as many bytes.
 * Returns OK, or the status to refuse it with. */
uint8_t http_body_take(struct http_body *body, struct slice whole, uint8_t *scratch);

/* Collects a piece of it, through `scratch`, LIMITS_RECEIVE_SIZE bytes. Returns OK, or the status to
 * refuse it with. */
uint8_t http_body_collect(struct http_body *body, struct client_shared *shared, struct slice piece,
                          uint8_t *scratch);

/* An upload_filter: compacts bytes of the envelope. */
uint8_t http_body_compact(struct http_body *body, const uint8_t *data, uint32_t size,
                          uint8_t *target, uint32_t *ret_size);

/* The body is whole. Returns 1: the value is to be stored; 0: it was refused before; -EINVAL: it is
 * to be refused. */
int http_body_end(struct http_body *body);

/* What of its bytes is to blame for a refusal; NULL: nothing. */
const char *http_body_blame(const struct http_body *body);

/* The value; not NULL when it is nothing. */
struct slice http_body_value(const struct http_body *body);

/* Whether it still lies where it came. */
static inline bool http_body_is_passing(const struct http_body *body)
{
    return body->value.size > 0;
}

/* Saves it beyond this call. Returns false: there is no memory for it. */
bool http_body_save(struct http_body *body, struct client_shared *shared);

/* The request needs it no more. */
static inline void http_body_drop(struct http_body *body)
{
    body->value = (struct slice){NULL, 0};
}

#endif
