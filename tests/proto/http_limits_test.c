/* The limits of the HTTP parser by itself: keys, targets, fields, chunks and bodies. */
#include "http_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define HOST "Host: a\r\n"
#define STREAM_SIZE_MAX (1024 * 1024)

/* A stream that is put together, and what the parser makes of it. */
struct bench {
    struct transcript transcript;
    size_t size;
    char stream[STREAM_SIZE_MAX];
};

static struct bench *bench_create(void)
{
    struct bench *bench = malloc(sizeof *bench);
    cr_assert_not_null(bench);
    bench->size = 0;
    transcript_init(&bench->transcript);
    return bench;
}

static void bench_free(struct bench *bench)
{
    transcript_deinit(&bench->transcript);
    free(bench);
}

static void add(struct bench *bench, const char *text)
{
    size_t size = strlen(text);
    cr_assert_leq(bench->size + size, STREAM_SIZE_MAX);
    memcpy(bench->stream + bench->size, text, size);
    bench->size += size;
}

static void add_many(struct bench *bench, const char *text, size_t count)
{
    for (size_t i = 0; i < count; i++)
        add(bench, text);
}

static void feed_in_pieces(struct bench *bench, size_t piece_size)
{
    for (size_t position = 0; position < bench->size; position += piece_size) {
        size_t left = bench->size - position;
        transcript_feed(&bench->transcript, (uint8_t *)bench->stream + position,
                        left < piece_size ? left : piece_size);
    }
}

static const struct http_request *request_of(const struct bench *bench)
{
    return &bench->transcript.parser.request;
}

static const size_t piece_sizes[] = {1, 7, 4096, STREAM_SIZE_MAX};
#define PIECE_SIZE_COUNT (sizeof piece_sizes / sizeof piece_sizes[0])

/* Up to the head's event, so that the request's slices are valid. Returns the event. */
static enum http_event feed_to_head(struct bench *bench, size_t piece_size)
{
    enum http_event event = HTTP_EVENT_MORE;
    for (size_t position = 0; position < bench->size && event == HTTP_EVENT_MORE;) {
        size_t left = bench->size - position;
        size_t used = 0;
        struct slice body;
        event = http_parser_next(&bench->transcript.parser, (uint8_t *)bench->stream + position,
                                 left < piece_size ? left : piece_size, &used, &body);
        position += used;
    }
    return event;
}

/* ---- keys ---- */

static enum http_event feed_key(struct bench *bench, const char *route, const char *byte,
                                size_t key_size, size_t piece_size)
{
    add(bench, "GET ");
    add(bench, route);
    add_many(bench, byte, key_size);
    add(bench, " HTTP/1.1\r\n" HOST "Authorization: Bearer token\r\n\r\n");
    return feed_to_head(bench, piece_size);
}

Test(http_limits, keys_have_65535_bytes_on_both_routes_however_they_are_spelled)
{
    static const char *const routes[] = {"/", "/v1/kv/"};
    static const char *const bytes[] = {"k", "%6B"};
    for (size_t i = 0; i < 16; i++) {
        size_t key_size = MINIVAULT_KEY_SIZE_MAX + (i >> 3);
        struct bench *bench = bench_create();
        enum http_event event = feed_key(bench, routes[i & 1], bytes[i >> 1 & 1], key_size,
                                         i >> 2 & 1 ? 1 : STREAM_SIZE_MAX);
        cr_assert_eq(event, HTTP_EVENT_HEAD);
        const struct http_request *request = request_of(bench);
        cr_assert_eq(request->refusal, i >> 3 ? 400 : 0, "case %zu", i);
        if (request->refusal == 0) {
            cr_assert_eq(request->key.size, MINIVAULT_KEY_SIZE_MAX);
            for (size_t j = 0; j < request->key.size; j++)
                cr_assert_eq(request->key.data[j], 'k');
        }
        cr_assert(request->keep_alive);
        cr_assert_eq(request->token.size, 5);
        cr_assert_arr_eq(request->token.data, "token", 5);
        bench_free(bench);
    }
}

Test(http_limits, a_target_has_a_key_of_escapes_and_a_kib_and_no_more)
{
    for (size_t more = 0; more <= 1; more++) {
        for (size_t i = 0; i < PIECE_SIZE_COUNT; i++) {
            struct bench *bench = bench_create();
            add(bench, "GET /");
            add_many(bench, "k", HTTP_TARGET_SIZE_MAX - 1 + more);
            add(bench, " HTTP/1.1\r\n" HOST "\r\n");
            enum http_event event = feed_to_head(bench, piece_sizes[i]);
            cr_assert_eq(event, more ? HTTP_EVENT_BROKEN : HTTP_EVENT_HEAD);
            cr_assert_eq(request_of(bench)->refusal, more ? 414 : 400);
            cr_assert_eq(request_of(bench)->keep_alive, !more);
            bench_free(bench);
        }
    }
}

/* ---- header fields ---- */

/* Fields of `size` bytes altogether, with their last line. */
static void add_fields(struct bench *bench, size_t size)
{
    size_t end = bench->size + size;
    add(bench, HOST);
    while (end - bench->size > 2000)
        add(bench, "X-Field: some value of a field that nobody knows\r\n");
    add(bench, "X: ");
    add_many(bench, "x", end - bench->size - 4);
    add(bench, "\r\n\r\n");
    cr_assert_eq(bench->size, end);
}

Test(http_limits, header_fields_have_16_kib_and_no_more)
{
    for (size_t more = 0; more <= 1; more++) {
        for (size_t i = 0; i < PIECE_SIZE_COUNT; i++) {
            struct bench *bench = bench_create();
            add(bench, "GET /k HTTP/1.1\r\n");
            add_fields(bench, HTTP_FIELDS_SIZE_MAX + more);
            enum http_event event = feed_to_head(bench, piece_sizes[i]);
            cr_assert_eq(event, more ? HTTP_EVENT_BROKEN : HTTP_EVENT_HEAD, "%zu", i);
            cr_assert_eq(request_of(bench)->refusal, more ? 431 : 0);
            bench_free(bench);
        }
    }
}

Test(http_limits, a_field_without_an_end_is_refused)
{
    struct bench *bench = bench_create();
    add(bench, "GET /k HTTP/1.1\r\nAuthorization: Bearer ");
    add_many(bench, "x", 500000);
    cr_assert_eq(feed_to_head(bench, 512), HTTP_EVENT_BROKEN);
    cr_assert_eq(request_of(bench)->refusal, 431);
    bench_free(bench);
}

Test(http_limits, a_hundred_thousand_fields_are_refused)
{
    struct bench *bench = bench_create();
    add(bench, "GET /k HTTP/1.1\r\n");
    add_many(bench, "a:\r\n", 100000);
    cr_assert_eq(feed_to_head(bench, STREAM_SIZE_MAX), HTTP_EVENT_BROKEN);
    cr_assert_eq(request_of(bench)->refusal, 431);
    bench_free(bench);
}

Test(http_limits, the_longest_token_is_kept)
{
    struct bench *bench = bench_create();
    add(bench, "GET /k HTTP/1.1\r\n" HOST "Authorization: Bearer ");
    add_many(bench, "t", 16000);
    add(bench, "\r\nX: y\r\n\r\n");
    cr_assert_eq(feed_to_head(bench, 1), HTTP_EVENT_HEAD);
    cr_assert_eq(request_of(bench)->refusal, 0);
    cr_assert_eq(request_of(bench)->token.size, 16000);
    cr_assert_eq(request_of(bench)->token.data[15999], 't');
    cr_assert_eq(request_of(bench)->key.size, 1);
    cr_assert_eq(request_of(bench)->key.data[0], 'k');
    bench_free(bench);
}

/* ---- chunks and trailers ---- */

#define CHUNKED_HEAD "PUT /v1/kv/k HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"

static void assert_ends(const struct bench *bench, bool is_end, uint16_t refusal, size_t piece_size)
{
    const char *text = bench->transcript.text;
    cr_assert_eq(strstr(text, "| end\n") != NULL, is_end, "pieces of %zu: %s", piece_size, text);
    cr_assert_eq(bench->transcript.is_broken, !is_end);
    cr_assert_eq(request_of(bench)->refusal, refusal);
}

Test(http_limits, chunk_lines_are_bounded)
{
    static const struct {
        const char *before;
        const char *repeated;
        size_t count;
        bool is_end;
    } lines[] = {
        {"1", "", 0, true},       {"", "0", 200, true},      {"", "0", 300, false},
        {"1;a=", "x", 200, true}, {"1;a=", "x", 300, false}, {"1", ";a", 500, false},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        for (size_t j = 0; j < PIECE_SIZE_COUNT; j++) {
            struct bench *bench = bench_create();
            add(bench, CHUNKED_HEAD);
            add(bench, lines[i].before);
            add_many(bench, lines[i].repeated, lines[i].count);
            add(bench, lines[i].repeated[0] == '0' ? "1\r\na" : "\r\na");
            add(bench, "\r\n0\r\n\r\n");
            feed_in_pieces(bench, piece_sizes[j]);
            assert_ends(bench, lines[i].is_end, lines[i].is_end ? 0 : 400, piece_sizes[j]);
            bench_free(bench);
        }
    }
}

Test(http_limits, trailers_have_4_kib_and_no_more)
{
    for (size_t more = 0; more <= 1; more++) {
        for (size_t i = 0; i < PIECE_SIZE_COUNT; i++) {
            struct bench *bench = bench_create();
            add(bench, CHUNKED_HEAD "0\r\n");
            add_fields(bench, HTTP_TRAILERS_SIZE_MAX + more);
            feed_in_pieces(bench, piece_sizes[i]);
            assert_ends(bench, !more, more ? 431 : 0, piece_sizes[i]);
            bench_free(bench);
        }
    }
}

/* ---- bodies ---- */

static enum http_event feed_length(struct bench *bench, const char *line, uint64_t length)
{
    char text[256];
    (void)snprintf(text, sizeof text, "%s HTTP/1.1\r\n" HOST "Content-Length: %" PRIu64 "\r\n\r\n",
                   line, length);
    add(bench, text);
    return feed_to_head(bench, STREAM_SIZE_MAX);
}

Test(http_limits, bodies_have_their_routes_size_and_no_more)
{
    static const struct {
        const char *line;
        uint64_t size_max;
    } lines[] = {
        {"PUT /k", HTTP_JSON_BODY_SIZE_MAX},
        {"POST /k", HTTP_JSON_BODY_SIZE_MAX},
        {"PUT /v1/kv/k", MINIVAULT_VALUE_SIZE_MAX},
        {"GET /k", HTTP_UNWANTED_BODY_SIZE_MAX},
        {"DELETE /v1/kv/k", HTTP_UNWANTED_BODY_SIZE_MAX},
        {"GET /health", HTTP_UNWANTED_BODY_SIZE_MAX},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct bench *bench = bench_create();
        cr_assert_eq(feed_length(bench, lines[i].line, lines[i].size_max), HTTP_EVENT_HEAD);
        cr_assert_eq(request_of(bench)->refusal, 0, "%s", lines[i].line);
        cr_assert(request_of(bench)->keep_alive);
        bench_free(bench);
        bench = bench_create();
        cr_assert_eq(feed_length(bench, lines[i].line, lines[i].size_max + 1), HTTP_EVENT_HEAD);
        cr_assert_eq(request_of(bench)->refusal, 413, "%s", lines[i].line);
        cr_assert_not(request_of(bench)->keep_alive);
        bench_free(bench);
    }
}

Test(http_limits, a_chunked_body_over_the_limit_ends_the_connection)
{
    struct bench *bench = bench_create();
    add(bench, "GET /k HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n");
    add(bench, "8000\r\n");
    add_many(bench, "12345678", 4096);
    add(bench, "\r\n8000\r\n");
    add_many(bench, "12345678", 4096);
    size_t whole_size = bench->size;
    add(bench, "\r\n0\r\n\r\n");
    feed_in_pieces(bench, STREAM_SIZE_MAX);
    assert_ends(bench, true, 0, STREAM_SIZE_MAX);
    bench->size = whole_size;
    add(bench, "\r\n1\r\nx");
    transcript_deinit(&bench->transcript);
    transcript_init(&bench->transcript);
    feed_in_pieces(bench, STREAM_SIZE_MAX);
    assert_ends(bench, false, 413, STREAM_SIZE_MAX);
    bench_free(bench);
}

Test(http_limits, a_refused_body_is_read_only_when_it_is_small)
{
    static const struct {
        const char *fields;
        bool keep_alive;
    } cases[] = {
        {"Content-Length: 65536\r\n", true},
        {"Content-Length: 65537\r\n", false},
        {"Content-Length: 1\r\nExpect: 100-continue\r\n", false},
        {"Transfer-Encoding: chunked\r\n", true},
        {"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        /* Refused by the parser, and by its caller. */
        for (int by_caller = 0; by_caller <= 1; by_caller++) {
            struct bench *bench = bench_create();
            add(bench, by_caller ? "PUT /v1/kv/k" : "PUT /health");
            add(bench, " HTTP/1.1\r\n" HOST);
            add(bench, cases[i].fields);
            add(bench, "\r\n");
            cr_assert_eq(feed_to_head(bench, STREAM_SIZE_MAX), HTTP_EVENT_HEAD);
            cr_assert_eq(request_of(bench)->refusal, by_caller ? 0 : 405);
            if (by_caller)
                http_parser_refuse(&bench->transcript.parser);
            cr_assert_eq(request_of(bench)->keep_alive, cases[i].keep_alive, "case %zu", i);
            bench_free(bench);
        }
    }
}

Test(http_limits, a_refused_chunked_body_is_not_read_for_ever)
{
    struct bench *bench = bench_create();
    add(bench, CHUNKED_HEAD);
    cr_assert_eq(feed_to_head(bench, STREAM_SIZE_MAX), HTTP_EVENT_HEAD);
    http_parser_refuse(&bench->transcript.parser);
    bench->size = 0;
    add(bench, "10001\r\n");
    feed_in_pieces(bench, STREAM_SIZE_MAX);
    cr_assert(bench->transcript.is_broken);
    cr_assert_eq(request_of(bench)->refusal, 413);
    bench_free(bench);
}

Test(http_limits, what_is_left_of_a_body_may_be_received_elsewhere)
{
    static uint8_t elsewhere[1000];
    struct bench *bench = bench_create();
    struct http_parser *parser = &bench->transcript.parser;
    cr_assert_eq(http_parser_body_left(parser), 0);
    cr_assert_eq(feed_length(bench, "PUT /v1/kv/k", sizeof elsewhere), HTTP_EVENT_HEAD);
    cr_assert_eq(http_parser_body_left(parser), sizeof elsewhere);
    size_t used = 0;
    struct slice body = {NULL, 0};
    cr_assert_eq(http_parser_next(parser, elsewhere, 600, &used, &body), HTTP_EVENT_BODY);
    cr_assert_eq(body.data, elsewhere);
    cr_assert_eq(body.size, 600);
    cr_assert_eq(http_parser_body_left(parser), 400);
    cr_assert_eq(http_parser_next(parser, elsewhere, 0, &used, &body), HTTP_EVENT_MORE);
    cr_assert_eq(http_parser_next(parser, elsewhere, 1000, &used, &body), HTTP_EVENT_BODY);
    cr_assert_eq(used, 400, "the rest is the next request's");
    cr_assert_eq(http_parser_next(parser, elsewhere, 0, &used, &body), HTTP_EVENT_END);
    cr_assert_eq(http_parser_body_left(parser), 0);
    bench_free(bench);
}

Test(http_limits, what_is_left_of_a_chunk_may_be_received_elsewhere)
{
    static uint8_t elsewhere[16];
    struct bench *bench = bench_create();
    struct http_parser *parser = &bench->transcript.parser;
    add(bench, CHUNKED_HEAD "10\r\nx");
    feed_in_pieces(bench, STREAM_SIZE_MAX);
    cr_assert_eq(http_parser_body_left(parser), 15);
    transcript_feed(&bench->transcript, elsewhere, 15);
    cr_assert_eq(http_parser_body_left(parser), 0);
    transcript_feed(&bench->transcript, (const uint8_t *)"\r\n0\r\n\r\n", 7);
    cr_assert_not_null(strstr(bench->transcript.text, "| end\n"));
    bench_free(bench);
}

/* ---- memory, and the end of a stream ---- */

Test(http_limits, memory_is_what_arrived_and_goes_with_the_request)
{
    struct bench *bench = bench_create();
    cr_assert_eq(feed_key(bench, "/", "k", 300, 1), HTTP_EVENT_HEAD);
    cr_assert_eq(bench->transcript.budget.used, 0, "what is small lies in the parser");
    bench_free(bench);
    bench = bench_create();
    cr_assert_eq(feed_key(bench, "/", "k", 60000, 1), HTTP_EVENT_HEAD);
    cr_assert_geq(bench->transcript.budget.used, 60000);
    cr_assert_leq(bench->transcript.budget.used, 131072);
    size_t used = 0;
    struct slice body;
    struct http_parser *parser = &bench->transcript.parser;
    cr_assert_eq(http_parser_next(parser, NULL, 0, &used, &body), HTTP_EVENT_END);
    cr_assert_eq(parser->request.key.data[59999], 'k', "valid until the call after END");
    cr_assert_eq(http_parser_next(parser, NULL, 0, &used, &body), HTTP_EVENT_MORE);
    cr_assert_eq(bench->transcript.budget.used, 0);
    bench_free(bench);
}

Test(http_limits, over_the_budget_a_long_request_is_refused_and_a_short_one_is_not)
{
    for (int is_token = 0; is_token <= 1; is_token++) {
        struct bench *bench = bench_create();
        bench->transcript.budget.max = 4096;
        add(bench, is_token ? "GET /k HTTP/1.1\r\n" HOST "Authorization: Bearer " : "GET /");
        add_many(bench, "x", 5000);
        cr_assert_eq(feed_to_head(bench, 100), HTTP_EVENT_BROKEN);
        cr_assert_eq(request_of(bench)->refusal, 503);
        cr_assert_leq(bench->transcript.budget.used, 4096);
        bench_free(bench);
    }
    struct bench *bench = bench_create();
    bench->transcript.budget.max = 0;
    cr_assert_eq(feed_key(bench, "/", "k", 300, STREAM_SIZE_MAX), HTTP_EVENT_HEAD);
    bench_free(bench);
}

Test(http_limits, a_parser_is_idle_between_requests_only)
{
    static const char stream[] = "\r\nGET /k HTTP/1.1\r\n" HOST "\r\n";
    struct bench *bench = bench_create();
    struct http_parser *parser = &bench->transcript.parser;
    for (size_t i = 0; i < sizeof stream - 1; i++) {
        cr_assert_eq(http_parser_is_idle(parser), i == 0 || i == 2, "at %zu", i);
        transcript_feed(&bench->transcript, (const uint8_t *)stream + i, 1);
    }
    cr_assert(http_parser_is_idle(parser));
    bench_free(bench);
}

Test(http_limits, a_connection_that_the_caller_gives_up_takes_no_more_requests)
{
    struct bench *bench = bench_create();
    add(bench, "GET /k HTTP/1.1\r\n" HOST "\r\n");
    cr_assert_eq(feed_to_head(bench, STREAM_SIZE_MAX), HTTP_EVENT_HEAD);
    bench->transcript.parser.request.keep_alive = false;
    feed_in_pieces(bench, STREAM_SIZE_MAX);
    cr_assert_str_eq(bench->transcript.text, " | end\n");
    bench_free(bench);
}
