/* HTTP's deadlines, under virtual time: who begins a request ends it, and who does nothing goes. */
#include "tests/support/sim_server.h"
#include "base/units.h"
#include "net/client/clients.h"
#include "net/client/limits.h"
#include "net/http/http_client.h"
#include "store/value/value_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HTTP_PORT 8080
#define REPLY_MAX 4096u

struct peer {
    struct sim_peer *peer;
    char reply[REPLY_MAX];
    uint32_t size;
    bool has_ended;
    bool is_reset;
};

static void changed(struct sim_peer *sim_peer, void *context)
{
    struct peer *peer = context;
    int64_t size = 1;
    while (size > 0) {
        size = sim_peer_receive(sim_peer, peer->reply + peer->size, REPLY_MAX - 1 - peer->size);
        peer->size += size > 0 ? (uint32_t)size : 0;
    }
    peer->reply[peer->size] = 0;
    peer->has_ended = peer->has_ended || size == 0;
    peer->is_reset = peer->is_reset || size == -ECONNRESET;
}

static void bench_open(struct sim_server *bench)
{
    sim_server_init(bench, 1);
    bench->config.http_port = HTTP_PORT;
    sim_server_open(bench);
}

static void peer_open(struct sim_server *bench, struct peer *peer)
{
    memset(peer, 0, sizeof *peer);
    peer->peer = sim_connect(bench->io, HTTP_PORT, changed, peer);
    sim_server_run(bench, NS_PER_S);
}

static void say(struct sim_server *bench, struct peer *peer, const char *text)
{
    cr_assert_eq(sim_peer_send(peer->peer, text, strlen(text)), (int64_t)strlen(text));
    sim_server_run(bench, NS_PER_S);
}

/* A server, and a client that begins with this. */
static void begin(struct sim_server *bench, struct peer *peer, const char *text)
{
    bench_open(bench);
    peer_open(bench, peer);
    say(bench, peer, text);
}

static bool has_status(const struct peer *peer, const char *status)
{
    char line[64];
    (void)snprintf(line, sizeof line, "HTTP/1.1 %s ", status);
    return strncmp(peer->reply, line, strlen(line)) == 0;
}

Test(http, half_a_head_is_told_that_it_took_too_long)
{
    struct sim_server bench;
    struct peer peer;
    begin(&bench, &peer, "GET /k HTTP/1.1\r\nHost: ");
    sim_server_run(&bench, LIMITS_REQUEST_TIMEOUT_NS - 5 * NS_PER_S);
    cr_assert_eq(peer.size, 0, "a minute is its own");
    sim_server_run(&bench, 10 * NS_PER_S);
    cr_assert(has_status(&peer, "408"), "%s", peer.reply);
    cr_assert_not_null(strstr(peer.reply, "Connection: close"));
    cr_assert(peer.has_ended && !peer.is_reset);
    sim_peer_close(peer.peer);
    sim_server_close(&bench);
}

Test(http, a_byte_every_five_seconds_is_not_enough)
{
    struct sim_server bench;
    struct peer peer;
    begin(&bench, &peer, "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    uint32_t sent = 0;
    for (; sent < 100 && peer.size == 0; sent++) {
        (void)sim_peer_send(peer.peer, "b", 1);
        sim_server_run(&bench, 5 * NS_PER_S);
    }
    cr_assert(sent > 8 && sent < 20, "%u bytes", sent);
    cr_assert(has_status(&peer, "408"), "%s", peer.reply);
    sim_peer_close(peer.peer);
    sim_server_close(&bench);
}

static int count_file(void *context, const char *name)
{
    (void)name;
    ++*(uint32_t *)context;
    return 0;
}

/* Of values, also unfinished ones. */
static uint32_t count_value_files(struct sim_server *bench)
{
    uint32_t count = 0;
    for (uint32_t partition = 0; partition < 256; partition++) {
        char path[16];
        (void)snprintf(path, sizeof path, "/data/%02x", partition);
        (void)io_list_directory(bench->io, path, count_file, &count);
    }
    return count;
}

/* `first`: of a request whose body goes into a file. `more`: of it, 20 s before its time is up. */
static void stall_in_a_large_value(const char *first, const char *more)
{
    struct sim_server bench;
    struct peer peer;
    char *body = malloc(2 * VALUE_FILE_MIN);
    memset(body, '1', 2 * VALUE_FILE_MIN);
    begin(&bench, &peer, first);
    for (size_t sent = 0; sent < 2 * VALUE_FILE_MIN;) {
        sent += (size_t)sim_peer_send(peer.peer, body + sent, 2 * VALUE_FILE_MIN - sent);
        sim_server_run(&bench, NS_PER_S / 10);
    }
    cr_assert_eq(count_value_files(&bench), 1);
    sim_server_run(&bench, LIMITS_REQUEST_TIMEOUT_NS - 20 * NS_PER_S);
    say(&bench, &peer, more);
    cr_assert_eq(peer.size, 0, "%s", peer.reply);
    sim_server_run(&bench, 40 * NS_PER_S);
    cr_assert(has_status(&peer, "408"), "%s", peer.reply);
    cr_assert_not_null(strstr(peer.reply, "Connection: close"));
    cr_assert(peer.has_ended && !peer.is_reset);
    cr_assert_eq(loop_clients(bench.server)->count, 0);
    cr_assert_eq(count_value_files(&bench), 0);
    cr_assert_eq(loop_clients(bench.server)->shared.input_bytes, 0);
    cr_assert_eq(loop_clients(bench.server)->shared.outputs.blocks.count_used, 0);
    sim_peer_close(peer.peer);
    peer_open(&bench, &peer);
    say(&bench, &peer, "GET /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_assert(has_status(&peer, "404"), "%s", peer.reply);
    sim_peer_close(peer.peer);
    sim_server_close(&bench);
    free(body);
}

Test(http, who_stalls_in_a_large_value_is_told_and_nothing_of_it_stays)
{
    stall_in_a_large_value("PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n",
                           "more");
}

Test(http, who_stalls_in_a_large_chunk_is_told_and_nothing_of_it_stays)
{
    stall_in_a_large_value("PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "100000\r\n",
                           "more");
}

Test(http, who_stalls_between_large_chunks_is_told_and_nothing_of_it_stays)
{
    stall_in_a_large_value("PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "80000\r\n",
                           "\r\n5");
}

Test(http, who_stalls_in_large_json_is_told_and_nothing_of_it_stays)
{
    stall_in_a_large_value(
        "PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n{\"value\":", "2");
}

Test(http, an_idle_connection_goes_and_a_used_one_stays)
{
    struct sim_server bench;
    struct peer idle, used;
    bench_open(&bench);
    peer_open(&bench, &idle);
    peer_open(&bench, &used);
    uint64_t began_ns = sim_now_ns(bench.sim) - 2 * NS_PER_S;
    uint64_t lasted_ns = 0;
    while (lasted_ns < LIMITS_HTTP_IDLE_NS + 60 * NS_PER_S) {
        used.size = 0;
        say(&bench, &used, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
        cr_assert(has_status(&used, "200"));
        sim_server_run(&bench, 49 * NS_PER_S);
        lasted_ns = sim_now_ns(bench.sim) - began_ns;
        cr_assert(!used.has_ended);
        cr_assert(lasted_ns > LIMITS_HTTP_IDLE_NS || !idle.has_ended);
    }
    cr_assert(idle.has_ended && !idle.is_reset);
    cr_assert_eq(idle.size, 0, "nothing is said to whom nothing was asked by");
    sim_server_run(&bench, LIMITS_HTTP_IDLE_NS + 5 * NS_PER_S);
    cr_assert(used.has_ended, "and it goes when it is idle, too");
    cr_assert_eq(loop_clients(bench.server)->count, 0);
    sim_peer_close(idle.peer);
    sim_peer_close(used.peer);
    sim_server_close(&bench);
}

Test(http, everything_of_a_connection_comes_back)
{
    struct sim_server bench;
    struct peer peer;
    char text[6000];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    static const char head[] =
        "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n";
    memcpy(text, head, sizeof head - 1);
    begin(&bench, &peer, text);
    cr_assert_gt(loop_clients(bench.server)->shared.input_bytes, 0, "it is collected");
    sim_peer_reset(peer.peer);
    sim_server_run(&bench, NS_PER_S);
    cr_assert_eq(loop_clients(bench.server)->count, 0);
    cr_assert_eq(loop_clients(bench.server)->shared.input_bytes, 0);
    cr_assert_eq(loop_http(bench.server)->budget.used, 0);
    cr_assert_eq(loop_clients(bench.server)->protocols[LISTENER_HTTP].connections.count_used, 0);
    cr_assert_eq(loop_clients(bench.server)->shared.outputs.blocks.count_used, 0);
    sim_server_close(&bench);
}
