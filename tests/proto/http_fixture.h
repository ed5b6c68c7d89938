/* What a parser makes of a stream, written down: one line a request, the same however the stream is
 * cut into pieces.
 *
 *   PUT raw 'key' 1.1 keep-alive length 3 token 't' continue verbose refused 405 | body 'abc' | end
 *   broken 400 bad request line */
#ifndef TESTS_PROTO_HTTP_FIXTURE_H
#define TESTS_PROTO_HTTP_FIXTURE_H

#include "proto/http.h"

#include "tests/support/guard.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define TRANSCRIPT_SIZE (256u * 1024)

struct transcript {
    struct http_parser parser;
    struct http_budget budget;
    bool in_body;
    bool is_broken;
    size_t size;
    char text[TRANSCRIPT_SIZE];
};

static inline void transcript_init(struct transcript *transcript)
{
    memset(transcript, 0, offsetof(struct transcript, text));
    transcript->text[0] = 0;
    transcript->budget.max = MIB;
    http_parser_init(&transcript->parser, &transcript->budget);
}

static inline void transcript_print(struct transcript *transcript, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t room = TRANSCRIPT_SIZE - transcript->size;
    int size = vsnprintf(transcript->text + transcript->size, room, format, arguments);
    va_end(arguments);
    assert(size >= 0 && (size_t)size < room);
    transcript->size += (size_t)size;
}

static inline void transcript_bytes(struct transcript *transcript, struct slice bytes)
{
    for (uint32_t i = 0; i < bytes.size; i++) {
        bool is_plain = bytes.data[i] > ' ' && bytes.data[i] <= '~';
        transcript_print(transcript, is_plain ? "%c" : "<%02x>", bytes.data[i]);
    }
}

static inline void transcript_head(struct transcript *transcript)
{
    static const char *const methods[] = {"OTHER", "GET", "HEAD", "PUT", "POST", "DELETE"};
    static const char *const routes[] = {"none",  "json",   "raw",     "health",
                                         "livez", "readyz", "metrics", "ui"};
    const struct http_request *request = &transcript->parser.request;
    transcript_print(transcript, "%s %s '", methods[request->method], routes[request->route]);
    transcript_bytes(transcript, request->key);
    transcript_print(transcript, "' 1.%u %s", request->version_minor,
                     request->keep_alive ? "keep-alive" : "close");
    if (request->is_chunked)
        transcript_print(transcript, " chunked");
    if (request->content_length > 0)
        transcript_print(transcript, " length %" PRIu64, request->content_length);
    if (request->has_token) {
        transcript_print(transcript, " token '");
        transcript_bytes(transcript, request->token);
        transcript_print(transcript, "'");
    }
    transcript_print(transcript, "%s%s%s", request->expects_continue ? " continue" : "",
                     request->is_verbose ? " verbose" : "",
                     request->wants_openmetrics ? " openmetrics" : "");
    if (request->refusal != 0)
        transcript_print(transcript, " refused %u", request->refusal);
}

static inline void transcript_event(struct transcript *transcript, enum http_event event,
                                    struct slice body)
{
    const char *reason = transcript->parser.request.reason;
    if (event != HTTP_EVENT_BODY && transcript->in_body) {
        transcript_print(transcript, "'");
        transcript->in_body = false;
    }
    if (event == HTTP_EVENT_HEAD)
        transcript_head(transcript);
    if (event == HTTP_EVENT_BODY && !transcript->in_body)
        transcript_print(transcript, " | body '");
    if (event == HTTP_EVENT_BODY) {
        transcript_bytes(transcript, body);
        transcript->in_body = true;
    }
    if (event == HTTP_EVENT_END)
        transcript_print(transcript, " | end\n");
    if (event == HTTP_EVENT_BROKEN)
        transcript_print(transcript, "broken %u %s\n", transcript->parser.request.refusal,
                         reason != NULL ? reason : "as usual");
    transcript->is_broken = event == HTTP_EVENT_BROKEN;
}

/* Feeds one piece to its end. Every piece of a body lies within it. */
static inline void transcript_feed(struct transcript *transcript, const uint8_t *data, size_t size)
{
    size_t position = 0;
    enum http_event event = HTTP_EVENT_HEAD;
    while (!transcript->is_broken && event != HTTP_EVENT_MORE) {
        size_t used = SIZE_MAX;
        struct slice body = {NULL, 0};
        event =
            http_parser_next(&transcript->parser, data + position, size - position, &used, &body);
        assert(used <= size - position);
        assert(event != HTTP_EVENT_MORE || position + used == size);
        assert(event != HTTP_EVENT_BODY || (body.size > 0 && body.data >= data + position));
        assert(event != HTTP_EVENT_BODY || body.data + body.size <= data + position + used);
        position += used;
        if (event != HTTP_EVENT_MORE)
            transcript_event(transcript, event, body);
    }
}

static inline void transcript_deinit(struct transcript *transcript)
{
    http_parser_deinit(&transcript->parser);
    assert(transcript->budget.used == 0);
}

#endif
