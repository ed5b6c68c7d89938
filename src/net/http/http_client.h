/* Clients of HTTP (docs/protocol.md): requests off the front of what has arrived, one at a time. */
#ifndef MINIVAULT_NET_HTTP_CLIENT_H
#define MINIVAULT_NET_HTTP_CLIENT_H

#include "net/client/connection.h"
#include "proto/http.h"

/* What the HTTP clients of a shard share: the `shared` of their connections. */
struct http_shared {
    struct http_budget budget;
    uint8_t *scratch; /* LIMITS_RECEIVE_SIZE bytes, for whoever is at work */
};

/* Errors: -ENOMEM. */
int http_open(struct http_shared *http, uint32_t shard_count);

void http_close(struct http_shared *http);

extern const struct protocol protocol_http;

#endif
