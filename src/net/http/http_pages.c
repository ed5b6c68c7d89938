/* What HTTP tells that is not a value: health, readiness, metrics, a page for people. */
#include "net/http/http_pages.h"

#include "net/client/operation.h"
#include "net/http/http_dialect.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX (METRICS_HEALTH_MAX + WATCH_CHECKS_TEXT_MAX)

static const char ui[] =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>minivault</title>"
    "<style>body{font:16px sans-serif;margin:2em}td{padding:.1em 1em;text-align:right}"
    "td:first-child{text-align:left}</style><h1>minivault</h1><table id=\"t\"></table><script>"
    "async function show(){const r=await fetch('/health');const h=await r.json();"
    "const t=document.getElementById('t');t.replaceChildren();"
    "for(const k in h){const row=t.insertRow();row.insertCell().textContent=k;"
    "row.insertCell().textContent=h[k]}}show();setInterval(show,2000)</script></html>\n";

static void reply(struct client *client, const struct http_request *request,
                  enum http_content content, const char *text, size_t size)
{
    uint8_t bytes[HTTP_REPLY_SIZE_MAX + TEXT_MAX];
    assert(size <= TEXT_MAX);
    uint32_t head_size = http_reply_head(request, content, size, bytes);
    size_t body_size = request->method == HTTP_METHOD_HEAD ? 0 : size;
    memcpy(bytes + head_size, text, body_size);
    http_answer(client, bytes, head_size + body_size);
}

static void health(struct client *client, const struct http_request *request)
{
    char text[METRICS_HEALTH_MAX];
    uint32_t size = health_text(client->shared->watch, text);
    reply(client, request, HTTP_CONTENT_JSON, text, size);
}

static void live(struct client *client, const struct http_request *request)
{
    static const char text[] = "{\"success\":true,\"status\":\"live\"}";
    if (watch_is_live(client->shared->watch))
        reply(client, request, HTTP_CONTENT_JSON, text, sizeof text - 1);
    else
        http_answer_error(client, request, 503, "a shard does not turn");
}

static void ready(struct client *client, const struct http_request *request)
{
    char text[WATCH_CHECKS_TEXT_MAX + 64] = "";
    char checks[WATCH_CHECKS_TEXT_MAX];
    bool is_verbose = request->is_verbose;
    const char *failing = watch_check(client->shared->watch, checks);
    if (failing != NULL) {
        (void)snprintf(text, sizeof text, "not ready: %s", failing);
        http_answer_error(client, request, 503, is_verbose ? checks : text);
        return;
    }
    int size = snprintf(text, sizeof text, "{\"success\":true,\"status\":\"ready\"%s%s%s}",
                        is_verbose ? ",\"checks\":\"" : "", is_verbose ? checks : "",
                        is_verbose ? "\"" : "");
    assert(size > 0 && (size_t)size < sizeof text);
    reply(client, request, HTTP_CONTENT_JSON, text, (size_t)size);
}

static void metrics(struct client *client, const struct http_request *request)
{
    uint8_t head[HTTP_REPLY_SIZE_MAX];
    size_t size = 0;
    bool is_open = request->wants_openmetrics;
    uint8_t *memory =
        watch_metrics(client->shared->watch, is_open ? METRICS_OPENMETRICS : METRICS_PROMETHEUS,
                      HTTP_REPLY_SIZE_MAX, &size);
    if (memory == NULL) {
        http_answer_error(client, request, 503, "no memory for the text");
        return;
    }
    uint32_t head_size = http_reply_head(
        request, is_open ? HTTP_CONTENT_OPENMETRICS : HTTP_CONTENT_PROMETHEUS, size, head);
    uint8_t *whole = memory + HTTP_REPLY_SIZE_MAX - head_size;
    memcpy(whole, head, head_size);
    size_t body_size = request->method == HTTP_METHOD_HEAD ? 0 : size;
    (void)operation_answer(client, reply_form_verbatim(),
                           &(struct shard_answer){.data = whole,
                                                  .size = head_size + (uint32_t)body_size,
                                                  .memory = memory});
}

void http_page(struct client *client, const struct http_request *request)
{
    switch (request->route) {
    case HTTP_ROUTE_HEALTH:
        health(client, request);
        break;
    case HTTP_ROUTE_LIVEZ:
        live(client, request);
        break;
    case HTTP_ROUTE_READYZ:
        ready(client, request);
        break;
    case HTTP_ROUTE_METRICS:
        metrics(client, request);
        break;
    case HTTP_ROUTE_UI:
        reply(client, request, HTTP_CONTENT_HTML, ui, sizeof ui - 1);
        break;
    default:
        assert(false); /* the parser refuses the rest */
    }
}
