/* The HTTP parser by itself: every request at every split, and what it refuses since it could be
 * understood in two ways. */
#include "http_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define TEXT(text) (text), sizeof(text) - 1
#define HOST "Host: a\r\n"
#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

struct stream {
    const char *text;
    size_t size;
    const char *expected; /* of a transcript */
};

/* In two pieces, each against an unreadable page, at every place. */
static void assert_stream(const struct stream *stream)
{
    struct guard guard;
    guard_init(&guard, stream->size);
    struct transcript *transcript = malloc(sizeof *transcript);
    for (size_t split = 0; split <= stream->size; split++) {
        transcript_init(transcript);
        const uint8_t *piece = guard_copy(&guard, stream->text, split);
        transcript_feed(transcript, piece, split);
        piece = guard_copy(&guard, stream->text + split, stream->size - split);
        transcript_feed(transcript, piece, stream->size - split);
        cr_assert_str_eq(transcript->text, stream->expected, "'%s' split at %zu: %s", stream->text,
                         split, transcript->text);
        transcript_deinit(transcript);
    }
    free(transcript);
    guard_deinit(&guard);
}

/* And byte by byte. */
static void assert_bytes(const struct stream *stream)
{
    struct transcript *transcript = malloc(sizeof *transcript);
    transcript_init(transcript);
    for (size_t i = 0; i < stream->size; i++)
        transcript_feed(transcript, (const uint8_t *)stream->text + i, 1);
    cr_assert_str_eq(transcript->text, stream->expected, "'%s': %s", stream->text,
                     transcript->text);
    transcript_deinit(transcript);
    free(transcript);
}

static void assert_streams(const struct stream *streams, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_stream(&streams[i]);
        assert_bytes(&streams[i]);
    }
}

/* ---- what is taken ---- */

static const struct stream requests[] = {
    {TEXT("GET /key HTTP/1.1\r\n" HOST "\r\n"), "GET json 'key' 1.1 keep-alive | end\n"},
    {TEXT("HEAD /key HTTP/1.1\r\n" HOST "\r\n"), "HEAD json 'key' 1.1 keep-alive | end\n"},
    {TEXT("DELETE /key HTTP/1.1\r\n" HOST "\r\n"), "DELETE json 'key' 1.1 keep-alive | end\n"},
    {TEXT("POST /k HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\n{\"value\":1}"),
     "POST json 'k' 1.1 keep-alive length 11 | body '{\"value\":1}' | end\n"},
    {TEXT("PUT /v1/kv/k HTTP/1.1\r\n" HOST "content-length:\t3 \r\n\r\nabc"),
     "PUT raw 'k' 1.1 keep-alive length 3 | body 'abc' | end\n"},
    {TEXT("PUT /v1/kv/k HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n"),
     "PUT raw 'k' 1.1 keep-alive | end\n"},
    {TEXT("PUT /v1/kv/k HTTP/1.1\r\n" HOST "\r\n"), "PUT raw 'k' 1.1 keep-alive | end\n"},
    {TEXT("PUT /v1/kv/k HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked \r\n\r\n"
          "3\r\nabc\r\n00A;x=y\r\n0123456789\r\n0\r\n\r\n"),
     "PUT raw 'k' 1.1 keep-alive chunked | body 'abc0123456789' | end\n"},
    {TEXT("PUT /v1/kv/k HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
          "1\r\na\r\n0;last\r\nHost: b\r\nX: y\r\nConnection: close\r\n\r\n"
          "GET /next HTTP/1.1\r\n" HOST "\r\n"),
     "PUT raw 'k' 1.1 keep-alive chunked | body 'a' | end\n"
     "GET json 'next' 1.1 keep-alive | end\n"},
    {TEXT("PUT /v1/kv/k HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "PUT raw 'k' 1.1 keep-alive chunked | end\n"},
    /* Pipelining, with and without the empty line that is allowed. */
    {TEXT("GET /a HTTP/1.1\r\n" HOST "\r\nPUT /v1/kv/b HTTP/1.1\r\n" HOST
          "Content-Length: 5\r\n\r\nGET /\r\nGET /c HTTP/1.1\r\n" HOST "\r\n"),
     "GET json 'a' 1.1 keep-alive | end\n"
     "PUT raw 'b' 1.1 keep-alive length 5 | body 'GET<20>/' | end\n"
     "GET json 'c' 1.1 keep-alive | end\n"},
    {TEXT("\r\nGET /a HTTP/1.1\r\n" HOST "\r\n"), "GET json 'a' 1.1 keep-alive | end\n"},
    /* Connection. What comes behind the last request is thrown away. */
    {TEXT("GET /a HTTP/1.1\r\n" HOST "Connection: close\r\n\r\nGET /b HTTP/1.1\r\n"),
     "GET json 'a' 1.1 close | end\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "Connection: x, Close\t\r\nconnection: keep-alive\r\n\r\n"),
     "GET json 'a' 1.1 close | end\n"},
    {TEXT("GET /a HTTP/1.0\r\n\r\nGET"), "GET json 'a' 1.0 close | end\n"},
    {TEXT("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n"),
     "GET json 'a' 1.0 keep-alive | end\nGET json 'b' 1.0 close | end\n"},
    {TEXT("GET /a HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\nx"),
     "GET json 'a' 1.0 close | end\n"},
    {TEXT("PUT /v1/kv/a HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx"),
     "PUT raw 'a' 1.0 close length 1 | body 'x' | end\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
          "HTTP2-Settings: AA\r\n\r\nGET /b HTTP/1.1\r\n" HOST "\r\n"),
     "GET json 'a' 1.1 keep-alive | end\nGET json 'b' 1.1 keep-alive | end\n"},
    {TEXT("PUT /v1/kv/a HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: x\r\n"
          "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /b HTTP/1.1\r\n" HOST "\r\n"),
     "PUT raw 'a' 1.1 keep-alive chunked | body 'a' | end\n"
     "GET json 'b' 1.1 keep-alive | end\n"},
    /* Expect. */
    {TEXT("PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 1\r\nExpect: 100-Continue\r\n\r\nx"),
     "PUT raw 'a' 1.1 keep-alive length 1 continue | body 'x' | end\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n\r\n"),
     "GET json 'a' 1.1 keep-alive | end\n"},
    {TEXT("PUT /v1/kv/a HTTP/1.1\r\n" HOST "Content-Length: 1\r\nExpect: x\r\n\r\nx"),
     "PUT raw 'a' 1.1 keep-alive length 1 refused 417 | body 'x' | end\n"},
    /* Authorization. */
    {TEXT("GET /a HTTP/1.1\r\n" HOST "AUTHORIZATION:  bearer\t se cret=\xFF \r\nX: y\r\n\r\n"),
     "GET json 'a' 1.1 keep-alive token 'se<20>cret=<ff>' | end\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "Authorization: Basic c2VjcmV0\r\n\r\n"),
     "GET json 'a' 1.1 keep-alive | end\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "Authorization: Bearer \r\n\r\n"),
     "GET json 'a' 1.1 keep-alive | end\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "Authorization: Bearersecret\r\n\r\n"),
     "GET json 'a' 1.1 keep-alive | end\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost:\r\nX-Authorization-But-Longer: Bearer x\r\n:x: y\r\n\r\n"),
     "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost:\r\nX-Authorization-But-Longer: Bearer x\r\n\r\n"),
     "GET json 'a' 1.1 keep-alive | end\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: [::1]:3000\r\n\r\n"), "GET json 'a' 1.1 keep-alive | end\n"},
};

Test(http, requests_are_taken_at_every_split)
{
    assert_streams(requests, COUNT(requests));
}

/* ---- targets ---- */

static const struct target {
    const char *line; /* method and target */
    const char *expected;
} targets[] = {
    {"GET /a%20b%00c%2Fd%2f", "GET json 'a<20>b<00>c/d/' 1.1 keep-alive"},
    {"GET /a%0D%0Ab", "GET json 'a<0d><0a>b' 1.1 keep-alive"},
    {"GET /%2541", "GET json '%41' 1.1 keep-alive"},
    {"GET /%ff%C3%A4", "GET json '<ff><c3><a4>' 1.1 keep-alive"},
    {"GET /a+b&c=d;e", "GET json 'a+b&c=d;e' 1.1 keep-alive"},
    {"GET /../a/./b//c/", "GET json '../a/./b//c/' 1.1 keep-alive"},
    {"GET //a", "GET json '/a' 1.1 keep-alive"},
    {"GET /a*", "GET json 'a*' 1.1 keep-alive"},
    {"GET /a%3Fb", "GET json 'a?b' 1.1 keep-alive"},
    /* Reserved, whatever their spelling; their neighbours are keys. */
    {"GET /health", "GET health '' 1.1 keep-alive"},
    {"GET /he%61lth", "GET health '' 1.1 keep-alive"},
    {"HEAD /livez", "HEAD livez '' 1.1 keep-alive"},
    {"GET /readyz", "GET readyz '' 1.1 keep-alive"},
    {"GET /readyz?verbose", "GET readyz '' 1.1 keep-alive verbose"},
    {"GET /readyz?x=verbose", "GET readyz '' 1.1 keep-alive"},
    {"GET /readyz?x&verbose=1&y", "GET readyz '' 1.1 keep-alive verbose"},
    {"GET /readyz?verbosely", "GET readyz '' 1.1 keep-alive"},
    {"GET /readyz?verbos", "GET readyz '' 1.1 keep-alive"},
    {"GET /health?cache=no", "GET health '' 1.1 keep-alive"},
    {"GET /metrics", "GET metrics '' 1.1 keep-alive"},
    {"GET /ui", "GET ui '' 1.1 keep-alive"},
    {"GET /Health", "GET json 'Health' 1.1 keep-alive"},
    {"GET /health/", "GET json 'health/' 1.1 keep-alive"},
    {"GET /healthy", "GET json 'healthy' 1.1 keep-alive"},
    {"GET /v1", "GET json 'v1' 1.1 keep-alive"},
    {"GET /v1/kv/health", "GET raw 'health' 1.1 keep-alive"},
    {"GET /v1/kv//v1/kv/x", "GET raw '/v1/kv/x' 1.1 keep-alive"},
    {"GET /%761%2Fkv%2Fx%2Fy", "GET raw 'x/y' 1.1 keep-alive"},
    {"DELETE /v1/kv/%00", "DELETE raw '<00>' 1.1 keep-alive"},
    {"GET /v1/", "GET none '' 1.1 keep-alive refused 404"},
    {"GET /v1/kv", "GET none '' 1.1 keep-alive refused 404"},
    {"PATCH /v1/other", "OTHER none '' 1.1 keep-alive refused 404"},
    /* Absolute form. */
    {"GET http://a/key", "GET json 'key' 1.1 keep-alive"},
    {"GET HTTPS://a:80/v1/kv/key", "GET raw 'key' 1.1 keep-alive"},
    {"GET http://a/readyz?verbose", "GET readyz '' 1.1 keep-alive verbose"},
    {"GET http://a", "GET json '' 1.1 keep-alive refused 400"},
    {"GET http://a?x", "GET json '' 1.1 keep-alive refused 400"},
    {"GET http:///key", "GET none '' 1.1 keep-alive refused 400"},
    {"GET http://u@a/key", "GET none '' 1.1 keep-alive refused 400"},
    {"GET ftp://a/key", "GET none '' 1.1 keep-alive refused 400"},
    {"GET httpss://a/key", "GET none '' 1.1 keep-alive refused 400"},
    {"GET htt://a/key", "GET none '' 1.1 keep-alive refused 400"},
    {"GET p://a/key", "GET none '' 1.1 keep-alive refused 400"},
    /* Bad keys. */
    {"GET /", "GET json '' 1.1 keep-alive refused 400"},
    {"GET /v1/kv/", "GET raw '' 1.1 keep-alive refused 400"},
    {"GET /a%", "GET none '' 1.1 keep-alive refused 400"},
    {"GET /a%4", "GET none '' 1.1 keep-alive refused 400"},
    {"GET /a%4g", "GET none '' 1.1 keep-alive refused 400"},
    {"GET /a%%41", "GET none '' 1.1 keep-alive refused 400"},
    {"GET /a%u0041", "GET none '' 1.1 keep-alive refused 400"},
    {"GET /a?b", "GET json 'a' 1.1 keep-alive refused 400"},
    {"GET /v1/kv/a?", "GET raw 'a' 1.1 keep-alive refused 400"},
    {"GET /a#b", "GET none '' 1.1 keep-alive refused 400"},
    {"GET /readyz?a#b", "GET none '' 1.1 keep-alive refused 400"},
    /* Methods. */
    {"PATCH /a", "OTHER json '' 1.1 keep-alive refused 405"},
    {"OPTIONS /a", "OTHER json '' 1.1 keep-alive refused 405"},
    {"TRACE /a", "OTHER json '' 1.1 keep-alive refused 405"},
    {"POST /v1/kv/a", "POST raw '' 1.1 keep-alive refused 405"},
    {"PUT /health", "PUT health '' 1.1 keep-alive refused 405"},
    {"DELETE /metrics", "DELETE metrics '' 1.1 keep-alive refused 405"},
    {"OPTIONS *", "OTHER none '' 1.1 keep-alive refused 405"},
    {"GET *", "GET none '' 1.1 keep-alive refused 405"},
    {"GET *a", "GET none '' 1.1 keep-alive refused 400"},
    {"CONNECT a:80", "OTHER none '' 1.1 keep-alive refused 405"},
};

Test(http, targets_become_routes_and_keys_at_every_split)
{
    for (size_t i = 0; i < COUNT(targets); i++) {
        char text[256];
        char expected[256];
        int size =
            snprintf(text, sizeof text,
                     "%s HTTP/1.1\r\n" HOST "\r\nGET /b HTTP/1.1\r\n" HOST "\r\n", targets[i].line);
        (void)snprintf(expected, sizeof expected, "%s | end\nGET json 'b' 1.1 keep-alive | end\n",
                       targets[i].expected);
        assert_stream(&(struct stream){text, (size_t)size, expected});
    }
}

/* ---- what is not ---- */

static const struct stream hostile[] = {
    /* Two lengths. */
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "broken 400 bad Transfer-Encoding\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: -5\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 0x5\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 1 1\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n"), "broken 400 bad Content-Length\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551616\r\n\r\n"),
     "broken 400 bad Content-Length\n"},
    /* Codings. */
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n"),
     "broken 501 unknown Transfer-Encoding: only chunked is known\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n"),
     "broken 501 unknown Transfer-Encoding: only chunked is known\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n"),
     "broken 501 unknown Transfer-Encoding: only chunked is known\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked;q=1\r\n\r\n"),
     "broken 501 unknown Transfer-Encoding: only chunked is known\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n\r\n"),
     "broken 501 unknown Transfer-Encoding: only chunked is known\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n"),
     "broken 400 bad Transfer-Encoding\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, gzip\r\n\r\n"),
     "broken 400 bad Transfer-Encoding\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: \x0B"
          "chunked\r\n\r\n"),
     "broken 400 bad header field\n"},
    {TEXT("PUT /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "broken 400 bad Transfer-Encoding\n"},
    /* Lines. */
    {TEXT("GET /a HTTP/1.1\nHost: a\n\n"), "broken 400 bad request line\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: a\n\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: a\r\n\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: a\r\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\nX: a\r\n\tb\r\n" HOST "\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\n Host: a\r\n\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost : a\r\n\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\nContent-Length : 1\r\n" HOST "\r\n"),
     "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST ": x\r\n\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "X\r\n\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "X: \0\r\n\r\n"), "broken 400 bad header field\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "X\0: a\r\n\r\n"), "broken 400 bad header field\n"},
    /* The request line. */
    {TEXT("\r\n\r\nGET /a HTTP/1.1\r\n"), "broken 400 bad request line\n"},
    {TEXT("\nGET /a HTTP/1.1\r\n"), "broken 400 bad request line\n"},
    {TEXT("\rGET /a HTTP/1.1\r\n"), "broken 400 bad request line\n"},
    {TEXT("GET  /a HTTP/1.1\r\n"), "broken 400 bad request line\n"},
    {TEXT("GET\t/a HTTP/1.1\r\n"), "broken 400 bad request line\n"},
    {TEXT("GET /a  HTTP/1.1\r\n"), "broken 400 bad request line\n"},
    {TEXT("GET /a HTTP/1.1 \r\n"), "broken 400 bad request line\n"},
    {TEXT("GET /a\tHTTP/1.1\r\n"), "broken 400 bad request target\n"},
    {TEXT("GET /\xC3\xA4 HTTP/1.1\r\n"), "broken 400 bad request target\n"},
    {TEXT("GET /a\0b HTTP/1.1\r\n"), "broken 400 bad request target\n"},
    {TEXT("GET a HTTP/1.1\r\n"), "broken 400 bad request target\n"},
    {TEXT("get /a HTTP/1.1\r\n"), "broken 400 unknown method, or not HTTP\n"},
    {TEXT("FOO /a HTTP/1.1\r\n"), "broken 400 unknown method, or not HTTP\n"},
    {TEXT("\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03"),
     "broken 400 unknown method, or not HTTP\n"},
    {TEXT("\x01\x03\x00key"), "broken 400 unknown method, or not HTTP\n"},
    {TEXT("GET /a\r\n\r\n"), "broken 505 only HTTP/1.1 and HTTP/1.0 are spoken here\n"},
    {TEXT("GET /a HTTP/2.0\r\n"), "broken 505 only HTTP/1.1 and HTTP/1.0 are spoken here\n"},
    {TEXT("GET /a HTTP/0.9\r\n"), "broken 505 only HTTP/1.1 and HTTP/1.0 are spoken here\n"},
    {TEXT("GET /a HTTP/1.2\r\n"), "broken 505 only HTTP/1.1 and HTTP/1.0 are spoken here\n"},
    {TEXT("GET /a HTTP/1.10\r\n"), "broken 400 bad request line\n"},
    {TEXT("GET /a HTTP/1,1\r\n"), "broken 505 only HTTP/1.1 and HTTP/1.0 are spoken here\n"},
    {TEXT("GET /a http/1.1\r\n"), "broken 400 bad request line\n"},
    {TEXT("GET /a RTSP/1.0\r\n\r\n"), "broken 400 bad request line\n"},
    {TEXT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
     "broken 505 only HTTP/1.1 and HTTP/1.0 are spoken here\n"},
    /* Fields that there may be only one of. */
    {TEXT("GET /a HTTP/1.1\r\n\r\n"), "broken 400 Host required\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST HOST "\r\n"), "broken 400 more than one Host\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: a b\r\n\r\n"), "broken 400 bad Host\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: a,b/\r\n\r\n"), "broken 400 bad Host\n"},
    {TEXT("GET /a HTTP/1.1\r\nHost: u@a\r\n\r\n"), "broken 400 bad Host\n"},
    {TEXT("GET /a HTTP/1.1\r\n" HOST "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"),
     "broken 400 more than one Authorization\n"},
    {TEXT("PUT /a HTTP/1.1\r\n" HOST
          "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "broken 400 bad Transfer-Encoding\n"},
};

Test(http, what_could_be_understood_in_two_ways_ends_the_connection)
{
    assert_streams(hostile, COUNT(hostile));
}

/* A body behind a head that is always the same. */
static const struct stream chunks[] = {
    {TEXT("g\r\n"), "broken 400 bad chunk\n"},
    {TEXT("\r\n"), "broken 400 bad chunk\n"},
    {TEXT(" 1\r\na\r\n"), "broken 400 bad chunk\n"},
    {TEXT("+1\r\na\r\n"), "broken 400 bad chunk\n"},
    {TEXT("-1\r\na\r\n"), "broken 400 bad chunk\n"},
    {TEXT("0x1\r\na\r\n"), "broken 400 bad chunk\n"},
    {TEXT("1 \r\na\r\n"), "broken 400 bad chunk\n"},
    {TEXT("1\na\r\n"), "broken 400 bad chunk\n"},
    {TEXT("1\r\na\n"), " | body 'a'broken 400 bad chunk\n"},
    {TEXT("1\r\nab\r\n"), " | body 'a'broken 400 bad chunk\n"},
    {TEXT("1\r\na0\r\n\r\n"), " | body 'a'broken 400 bad chunk\n"},
    {TEXT("1;\n\r\na\r\n"), "broken 400 bad chunk\n"},
    {TEXT("1; a\r\na\r\n"), "broken 400 bad chunk\n"},
    {TEXT("10000000000000000\r\na"), "broken 400 bad chunk\n"},
    {TEXT("FFFFFFFFFFFFFFFF\r\na"), "broken 413 as usual\n"},
    {TEXT("1\r\na\r\nFFFFFFFFFFFFFFFF\r\na"), " | body 'a'broken 413 as usual\n"},
    {TEXT("0\r\nX : y\r\n\r\n"), "broken 400 bad trailer field\n"},
    {TEXT("0\r\nX: y\n\r\n"), "broken 400 bad trailer field\n"},
    {TEXT("0\r\nX: y\r\n z\r\n\r\n"), "broken 400 bad trailer field\n"},
    {TEXT("0\r\nContent-Length: 5\r\n\r\n"), "broken 400 bad Content-Length\n"},
    {TEXT("0\r\nTransfer-Encoding: chunked\r\n\r\n"), "broken 400 bad Transfer-Encoding\n"},
    {TEXT("0\r\nHost: x y\r\nHost:\r\nExpect: z\r\n\r\n"), " | end\n"},
};

Test(http, bad_chunks_end_the_connection)
{
    static const char head[] =
        "PUT /v1/kv/a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n";
    for (size_t i = 0; i < COUNT(chunks); i++) {
        char text[256];
        char expected[256];
        cr_assert_lt(sizeof head + chunks[i].size, sizeof text);
        memcpy(text, head, sizeof head - 1);
        memcpy(text + sizeof head - 1, chunks[i].text, chunks[i].size);
        (void)snprintf(expected, sizeof expected, "PUT raw 'a' 1.1 keep-alive chunked%s",
                       chunks[i].expected);
        assert_stream(&(struct stream){text, sizeof head - 1 + chunks[i].size, expected});
    }
}
