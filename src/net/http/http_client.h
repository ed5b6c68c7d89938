/* What the files of HTTP share: http_stream.c (requests out of bytes), http_body.c (what becomes of
 * a body), http_request.c (one request), http_pages.c (what is not a key), http_dialect.c
 * (replies).
 *
 * A request's stages. The parser holds it from its head until the call after its end.
 *
 *   HEAD -> (head) -> VALUE -> READY -> HEAD         its body is collected, or it has none
 *                  -> UPLOAD ---------> HEAD         its body goes into a file
 *                  -> BEGIN -> UPLOAD                there was no room for that yet
 *                  -> ANSWERED -------> HEAD         its body is thrown away */
#ifndef MINIVAULT_NET_HTTP_CLIENT_H
#define MINIVAULT_NET_HTTP_CLIENT_H

#include "net/client/server_internal.h"
#include "proto/http.h"
#include "proto/json.h"

enum http_stage {
    HTTP_STAGE_HEAD,
    HTTP_STAGE_BEGIN,
    HTTP_STAGE_VALUE,
    HTTP_STAGE_UPLOAD,
    HTTP_STAGE_READY,
    HTTP_STAGE_ANSWERED,
};

/* Of one connection, out of the server's pool. */
struct http_client {
    struct http_parser parser;
    enum http_stage stage;
    bool has_ended;         /* the parser has told the end of the request */
    bool is_late;           /* its body did not come in time */
    enum json_result json;  /* of the body, on a JSON route */
    struct slice value;     /* READY, within one call: what is to be stored, not copied yet */
    struct input collected; /* of the value, otherwise */
    uint64_t value_size;    /* of the value so far */
    uint64_t active_ns;     /* when something of the client's was under way last */
    struct json_scan scan;
};

/* ---- http_dialect.c ---- */

/* How the request is replied to when the shard has answered. */
struct reply_form http_form(const struct http_request *request);

/* An error to a request of which only the form is left. Returns the bytes. */
uint32_t http_form_error(struct reply_form form, uint16_t status, const char *reason,
                         uint8_t *target);

/* ---- http_stream.c ---- */

/* The request that the parser holds has been answered, or is going to be: the next one's turn comes
 * after its body. Ends the connection when it is not to be kept. */
void http_answered(struct connection *connection);

/* ---- http_body.c ---- */

/* Whether the body is as large as to be uploaded from its first byte on. */
bool http_body_is_upload(const struct connection *connection);

/* Begins to upload. BEGUN, BLOCKED, or TAKEN: it was refused, and is answered. */
enum taken http_body_upload(struct connection *connection);

/* Takes a piece of a body that is collected. May refuse the request. */
void http_body_collect(struct connection *connection, struct slice piece);

/* The body is whole: the value is to be stored. Returns false: the request was refused. */
bool http_body_end(struct connection *connection);

/* What was collected; not NULL when it is nothing. */
struct slice http_body_collected(const struct http_client *http);

/* Keeps the value beyond this call. Returns false: there is no memory for it. */
bool http_body_keep(struct connection *connection);

/* Takes bytes of a body that goes into a file, up to the end of what is known to come. */
uint64_t http_body_feed(struct connection *connection, const uint8_t *data, uint64_t size);

/* ---- http_request.c ---- */

/* What a reply with this HTTP status counts as: enum minivault_status. */
uint8_t http_outcome(uint16_t status);

/* Refuses a request, or the rest of it, with a status and what it says of it (NULL: the usual). */
void http_refuse(struct connection *connection, uint16_t status, const char *reason);

/* The head is there: refuses the request, or says what becomes of its body. */
void http_begin(struct connection *connection);

/* Executes a whole request. Returns false: it has to wait. */
bool http_execute(struct connection *connection);

/* ---- http_pages.c ---- */

/* Replies to a request that is about no key. */
void http_page(struct connection *connection);

#endif
