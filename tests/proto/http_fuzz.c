/* The HTTP parser under libFuzzer.
 *
 * Input: a byte of options (bit 0: what follows are numbers of tokens; bit 1: a small budget; bits
 * 2 to 7 seed the choice of splits), then what a client sends. What must hold:
 *
 * 1. Requests, bodies and errors do not depend on how the stream is cut into pieces.
 * 2. Events come in order: HEAD, BODY in bytes that are there, END; after BROKEN nothing.
 * 3. A request that is not refused has what its route needs, and keeps to the limits.
 * 4. A request that is not refused, written anew in the plainest form, is the same request.
 * 5. Memory stays within the budget and goes with the requests.
 * 6. No byte beyond the given ones is read: each piece lies alone on the heap, under ASan. */
#include "base/prng.h"
#include "tests/support/fuzz.h"
#include "proto/http.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define REQUESTS_MAX 64
#define SMALL_BUDGET 4096

static const char *const tokens[] = {
    "GET ",
    "HEAD ",
    "PUT ",
    "POST ",
    "DELETE ",
    "CONNECT ",
    "OPTIONS ",
    "PATCH ",
    "/",
    "/key",
    "/v1/kv/",
    "/v1/kv/key",
    "/health",
    "/readyz?verbose",
    "?",
    "%",
    "%2F",
    "%00",
    "#",
    "*",
    "http://host/key",
    "http://",
    " ",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    " HTTP/2.0\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Host: a\r\n",
    "Host:",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 18446744073709551615\r\n",
    "Content-Length:",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding:",
    "Connection: close\r\n",
    "Connection: keep-alive, upgrade\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Expect: x\r\n",
    "Authorization: Bearer token\r\n",
    "Authorization: Basic x\r\n",
    "X-Other: y\r\n",
    ":",
    "\t",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "FFFFFFFFFFFFFFFF\r\n",
    "1;extension=\"x\"\r\na\r\n",
    "hello",
    "GET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    "PUT /v1/kv/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "PUT /k HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
};
#define TOKEN_COUNT (sizeof tokens / sizeof tokens[0])

/* What is left of a request to compare. */
struct seen {
    struct http_request request; /* key and token: hashed */
    uint64_t key_hash;
    uint64_t token_hash;
    uint64_t body_hash;
    uint64_t body_size;
    bool has_ended;
};

struct run {
    struct http_parser parser;
    struct http_budget budget;
    struct seen seen[REQUESTS_MAX];
    size_t count;
    bool in_request;
    bool is_broken;
    uint16_t broken_status;
};

static uint64_t hash_add(uint64_t hash, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 0x100000001B3u;
    return hash;
}

/* Rule 3. */
static void require_request(const struct http_request *request)
{
    REQUIRE(request->version_minor <= 1);
    REQUIRE(!request->is_chunked || request->content_length == 0);
    REQUIRE(!request->is_chunked || request->version_minor == 1);
    REQUIRE(!request->expects_continue || http_request_has_body(request));
    REQUIRE(request->has_token == (request->token.size > 0));
    if (request->refusal != 0) {
        REQUIRE(request->refusal >= 400 && request->refusal <= 599);
        REQUIRE(!request->expects_continue || !request->keep_alive);
        return;
    }
    bool has_key = request->route == HTTP_ROUTE_JSON || request->route == HTTP_ROUTE_RAW;
    REQUIRE(request->route != HTTP_ROUTE_NONE && request->method != HTTP_METHOD_OTHER);
    REQUIRE(has_key == (request->key.size > 0));
    REQUIRE(request->key.size <= MINIVAULT_KEY_SIZE_MAX);
    REQUIRE(request->content_length <= MINIVAULT_VALUE_SIZE_MAX);
}

static void see_head(struct run *run)
{
    const struct http_request *request = &run->parser.request;
    REQUIRE(!run->in_request);
    require_request(request);
    run->in_request = true;
    struct seen *seen = &run->seen[run->count++];
    memset(seen, 0, sizeof *seen);
    seen->request = *request;
    seen->key_hash = hash_add(request->key.size, request->key.data, request->key.size);
    seen->token_hash = hash_add(request->token.size, request->token.data, request->token.size);
}

/* Rule 2. Returns whether the run goes on. */
static bool see_event(struct run *run, enum http_event event, struct slice body)
{
    struct seen *seen = run->count > 0 ? &run->seen[run->count - 1] : NULL;
    if (event == HTTP_EVENT_HEAD)
        see_head(run);
    if (event == HTTP_EVENT_BODY) {
        REQUIRE(run->in_request && body.size > 0);
        seen->body_hash = hash_add(seen->body_hash, body.data, body.size);
        seen->body_size += body.size;
    }
    if (event == HTTP_EVENT_END) {
        REQUIRE(run->in_request);
        REQUIRE(seen->request.is_chunked || seen->body_size == seen->request.content_length);
        run->in_request = false;
        seen->has_ended = true;
    }
    if (event == HTTP_EVENT_BROKEN) {
        run->is_broken = true;
        run->broken_status = run->parser.request.refusal;
        REQUIRE(run->broken_status >= 400 && !run->parser.request.keep_alive);
    }
    return event != HTTP_EVENT_MORE && !run->is_broken && run->count < REQUESTS_MAX;
}

static void feed_piece(struct run *run, const uint8_t *data, size_t size)
{
    bool goes_on = true;
    for (size_t position = 0; goes_on;) {
        size_t used = SIZE_MAX;
        struct slice body = {NULL, 0};
        enum http_event event =
            http_parser_next(&run->parser, data + position, size - position, &used, &body);
        REQUIRE(used <= size - position);
        REQUIRE(event != HTTP_EVENT_MORE || position + used == size);
        if (event == HTTP_EVENT_BODY)
            REQUIRE(body.data == data + position + used - body.size);
        REQUIRE(run->budget.used <= run->budget.max);
        position += used;
        goes_on = see_event(run, event, body);
    }
}

static struct run *run_pieces(const uint8_t *data, size_t size, size_t piece_max,
                              uint64_t budget_max, struct prng *prng)
{
    struct run *run = calloc(1, sizeof *run);
    REQUIRE(run != NULL);
    run->budget.max = budget_max;
    http_parser_init(&run->parser, &run->budget);
    for (size_t position = 0; position < size && !run->is_broken && run->count < REQUESTS_MAX;) {
        size_t left = size - position;
        size_t piece_size = piece_max >= size ? left : 1 + prng_below(prng, piece_max);
        piece_size = piece_size < left ? piece_size : left;
        uint8_t *piece = fuzz_copy(data + position, piece_size);
        feed_piece(run, piece, piece_size);
        position += piece_size;
        free(piece);
    }
    return run;
}

static void run_free(struct run *run)
{
    http_parser_deinit(&run->parser);
    REQUIRE(run->budget.used == 0);
    free(run);
}

static void require_same_request(const struct http_request *a, const struct http_request *b)
{
    REQUIRE(a->refusal == b->refusal && a->method == b->method && a->route == b->route);
    REQUIRE(a->version_minor == b->version_minor && a->keep_alive == b->keep_alive);
    REQUIRE(a->expects_continue == b->expects_continue && a->is_chunked == b->is_chunked);
    REQUIRE(a->is_verbose == b->is_verbose && a->content_length == b->content_length);
    REQUIRE((a->reason == NULL) == (b->reason == NULL));
    REQUIRE(a->reason == NULL || strcmp(a->reason, b->reason) == 0);
}

/* Rule 1. */
static void require_same(const struct run *a, const struct run *b)
{
    REQUIRE(a->count == b->count && a->is_broken == b->is_broken);
    REQUIRE(a->broken_status == b->broken_status && a->in_request == b->in_request);
    for (size_t i = 0; i < a->count; i++) {
        require_same_request(&a->seen[i].request, &b->seen[i].request);
        REQUIRE(a->seen[i].key_hash == b->seen[i].key_hash);
        REQUIRE(a->seen[i].token_hash == b->seen[i].token_hash);
        REQUIRE(a->seen[i].body_hash == b->seen[i].body_hash);
        REQUIRE(a->seen[i].body_size == b->seen[i].body_size);
        REQUIRE(a->seen[i].has_ended == b->seen[i].has_ended);
    }
}

/* The head in its plainest form, from docs/protocol.md. Returns its size. */
static size_t write_head(const struct http_request *request, char *target, size_t size)
{
    static const char *const methods[] = {"", "GET", "HEAD", "PUT", "POST", "DELETE"};
    static const char *const paths[] = {"",       "/",       "/v1/kv/",  "/health",
                                        "/livez", "/readyz", "/metrics", "/ui"};
    size_t end =
        (size_t)snprintf(target, size, "%s %s", methods[request->method], paths[request->route]);
    for (uint32_t i = 0; i < request->key.size; i++)
        end += (size_t)snprintf(target + end, size - end, "%%%02X", request->key.data[i]);
    end +=
        (size_t)snprintf(target + end, size - end, "%s HTTP/1.%u\r\nHost: a\r\nConnection: %s\r\n",
                         request->is_verbose ? "?verbose" : "", request->version_minor,
                         request->keep_alive ? "keep-alive" : "close");
    if (request->is_chunked)
        end += (size_t)snprintf(target + end, size - end, "Transfer-Encoding: chunked\r\n");
    if (request->content_length > 0)
        end += (size_t)snprintf(target + end, size - end, "Content-Length: %" PRIu64 "\r\n",
                                request->content_length);
    if (request->expects_continue)
        end += (size_t)snprintf(target + end, size - end, "Expect: 100-continue\r\n");
    if (request->has_token)
        end += (size_t)snprintf(target + end, size - end, "Authorization: Bearer %.*s\r\n",
                                (int)request->token.size, request->token.data);
    return end + (size_t)snprintf(target + end, size - end, "\r\n");
}

/* Rule 4, of the first request. */
static void require_rewritten(const uint8_t *data, size_t size)
{
    struct http_budget budget = {.max = MIB};
    struct http_parser first;
    struct http_parser second;
    http_parser_init(&first, &budget);
    http_parser_init(&second, &budget);
    size_t used = 0;
    struct slice body;
    if (http_parser_next(&first, data, size, &used, &body) == HTTP_EVENT_HEAD &&
        first.request.refusal == 0) {
        size_t room = 3 * (size_t)first.request.key.size + first.request.token.size + 512;
        char *head = malloc(room);
        REQUIRE(head != NULL);
        size_t head_size = write_head(&first.request, head, room);
        REQUIRE(head_size < room);
        REQUIRE(http_parser_next(&second, (uint8_t *)head, head_size, &used, &body) ==
                HTTP_EVENT_HEAD);
        REQUIRE(used == head_size);
        require_same_request(&first.request, &second.request);
        REQUIRE(first.request.token.size == second.request.token.size);
        REQUIRE(first.request.token.size == 0 ||
                slice_equal(first.request.token, second.request.token));
        REQUIRE(first.request.key.size == 0 || slice_equal(first.request.key, second.request.key));
        free(head);
    }
    http_parser_deinit(&first);
    http_parser_deinit(&second);
    REQUIRE(budget.used == 0);
}

static void require_all(const uint8_t *data, size_t size, uint64_t budget_max, struct prng *prng)
{
    struct run *whole = run_pieces(data, size, size, budget_max, prng);
    struct run *pieces = run_pieces(data, size, 12, budget_max, prng);
    struct run *bytes = run_pieces(data, size, 1, budget_max, prng);
    require_same(whole, pieces);
    require_same(whole, bytes);
    run_free(whole);
    run_free(pieces);
    run_free(bytes);
    require_rewritten(data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct prng prng = {data[0]};
    uint64_t budget_max = (data[0] & 2) != 0 ? SMALL_BUDGET : MIB;
    if ((data[0] & 1) == 0) {
        require_all(data + 1, size - 1, budget_max, &prng);
        return 0;
    }
    uint8_t *text = NULL;
    size_t text_size = fuzz_expand(tokens, TOKEN_COUNT, data + 1, size - 1, &text);
    require_all(text, text_size, budget_max, &prng);
    free(text);
    return 0;
}
