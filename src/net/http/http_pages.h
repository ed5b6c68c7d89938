/* What HTTP tells that is not a value: health, readiness, metrics, a page for people. */
#ifndef MINIVAULT_NET_HTTP_PAGES_H
#define MINIVAULT_NET_HTTP_PAGES_H

#include "net/client/client.h"
#include "proto/http.h"

/* Replies to a request that is about no key. */
void http_page(struct client *client, const struct http_request *request);

#endif
