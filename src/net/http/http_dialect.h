/* The shard's answers as HTTP replies, and what requests and replies count as. */
#ifndef MINIVAULT_NET_HTTP_DIALECT_H
#define MINIVAULT_NET_HTTP_DIALECT_H

#include "net/client/client.h"
#include "net/client/dialect.h"
#include "net/watch/metrics.h"
#include "proto/http.h"

/* How the request is replied to when the shard has answered. */
struct reply_form http_form(const struct http_request *request);

/* Answers with bytes that are the whole reply; with an error, which counts as what it says. */
void http_answer(struct client *client, const uint8_t *bytes, size_t size);
void http_answer_error(struct client *client, const struct http_request *request, uint16_t status,
                       const char *reason);

/* Of a request that is not refused. */
enum metrics_operation http_operation(const struct http_request *request);

#endif
