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

/* Memory for texts of a shard that has one of so many parts. */
uint64_t http_memory_max(uint32_t parts);

/* Errors: -ENOMEM. */
int http_open(struct http_shared *http, uint32_t parts);

void http_close(struct http_shared *http);

extern const struct protocol protocol_http;

#endif
