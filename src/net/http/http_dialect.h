/* The shard's answers as HTTP replies, and what requests and replies count as. */
#ifndef MINIVAULT_NET_HTTP_DIALECT_H
#define MINIVAULT_NET_HTTP_DIALECT_H

#include "net/client/dialect.h"
#include "net/watch/metrics.h"
#include "proto/http.h"

/* How the request is replied to when the shard has answered. */
struct reply_form http_form(const struct http_request *request);

/* Of a request that is not refused. */
enum metrics_operation http_operation(const struct http_request *request);

#endif
