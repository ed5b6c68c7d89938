/* The whole front under libFuzzer: a server in the simulated world, with HTTP and binary clients.
 * Each input has its own, so that a finding needs nothing but its input to be seen again.
 *
 * Input: a byte that seeds the world, then steps of two bytes (which client, what it does) and what
 * the step takes: a token, or raw bytes. What must hold:
 *
 * 1. Nothing breaks the server, the contract of io.h (the world's own checks), or memory.
 * 2. Whatever the clients did, somebody else is served afterwards.
 * 3. When they have gone, everything of theirs has come back: blocks, buffers, budgets. */
#include "tests/support/sim_server.h"
#include "base/units.h"
#include "tests/support/fuzz.h"
#include "net/client/clients.h"
#include "net/http/http_client.h"

#include <string.h>

#define CLIENTS 4
#define HTTP_PORT 8080
#define STEPS_MAX 200
#define PATIENCE_NS (30 * NS_PER_S)

static const char *const tokens[] = {
    "GET /k HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /k HTTP/1.1\r\nHost: x\r\n\r\n",
    "DELETE /k HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /readyz?verbose HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /health HTTP/1.0\r\n\r\n",
    "PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{\"value\": [1 ]}",
    "PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{\"value\":\"",
    "PUT /k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n",
    "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n",
    "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "PATCH /k HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n",
    "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "1\r\nx\r\n",
    "3e8\r\n",
    "2710\r\n",
    "\r\n",
    "0\r\n\r\n",
    "{\"value\":\"",
    "\"}",
    "Connection: close\r\n",
};
#define TOKENS (sizeof tokens / sizeof tokens[0])

struct visitor {
    struct sim_peer *peer;
    bool is_silent; /* it does not read */
    uint64_t received;
};

struct front {
    struct sim_server server;
    struct visitor clients[CLIENTS];
};

static void changed(struct sim_peer *peer, void *context)
{
    struct visitor *client = context;
    uint8_t bytes[4096];
    int64_t size = client->is_silent ? 0 : 1;
    while (size > 0) {
        size = sim_peer_receive(peer, bytes, sizeof bytes);
        client->received += size > 0 ? (uint64_t)size : 0;
    }
}

static void front_open(struct front *front, uint8_t seed)
{
    struct config *config = &front->server.config;
    memset(front, 0, sizeof *front);
    sim_server_init(&front->server, seed);
    config->http_port = HTTP_PORT;
    config->connections_max = 8;
    config->cache_size = 256 * KIB;
    config->value_size_max = 16 * KIB;
    config->value_file_min = 4 * KIB;
    config->stream_buffers = 2;
    config->log_file_size = 320 * KIB;
    config->scrub_rate = SCRUB_OFF;
    config->durability = seed % 2 == 0 ? WAL_COMMIT : WAL_INTERVAL;
    sim_server_open(&front->server);
}

static void pass_some(struct front *front, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        sim_server_pass(&front->server);
}

static void hang_up(struct visitor *client, bool is_reset)
{
    if (client->peer == NULL)
        return;
    if (is_reset)
        sim_peer_reset(client->peer);
    else
        sim_peer_close(client->peer);
    *client = (struct visitor){.peer = NULL};
}

static void send_bytes(struct visitor *client, const void *data, size_t size)
{
    if (client->peer != NULL && size > 0)
        (void)sim_peer_send(client->peer, data, size);
}

/* A binary frame around a value of filling bytes. */
static void send_frame(struct visitor *client, uint8_t op, uint8_t size_class)
{
    uint8_t frame[9 + 8 * KIB] = {op, 1, 0, 'k'};
    uint32_t size = (uint32_t)size_class * 32;
    if (op != MINIVAULT_SET) {
        send_bytes(client, frame, 4);
        return;
    }
    store_u32(frame + 4, size);
    memset(frame + 9, '7', size);
    send_bytes(client, frame, 9 + size);
}

static void fill(struct visitor *client, uint8_t count)
{
    uint8_t bytes[32 * 255];
    memset(bytes, 'f', sizeof bytes);
    send_bytes(client, bytes, (size_t)count * 32);
}

/* Returns the bytes of the input that it used. */
static size_t step(struct front *front, const uint8_t *data, size_t size)
{
    struct visitor *client = &front->clients[data[0] % CLIENTS];
    uint8_t argument = data[0] / CLIENTS;
    size_t raw = argument < size - 2 ? argument : size - 2;
    switch (data[1] % 10) {
    case 0:
    case 1:
        hang_up(client, false);
        uint16_t port = data[1] % 10 == 0 ? HTTP_PORT : loop_port(front->server.server);
        client->peer = sim_connect(front->server.io, port, changed, client);
        return 2;
    case 2:
    case 3:
        send_bytes(client, tokens[argument % TOKENS], strlen(tokens[argument % TOKENS]));
        return 2;
    case 4:
        send_bytes(client, data + 2, raw);
        return 2 + raw;
    case 5:
        fill(client, data[1]);
        return 2;
    case 6:
        send_frame(client, argument % 8, data[1]);
        return 2;
    case 7:
        if (client->peer != NULL && argument % 4 == 0)
            sim_peer_shutdown(client->peer);
        else if (argument % 4 == 1)
            hang_up(client, true);
        else
            client->is_silent = argument % 4 == 2;
        return 2;
    default:
        pass_some(front, argument % 16 + 1);
        return 2;
    }
}

/* Somebody else; who comes while too many are there is refused, and comes again. */
static void require_service(struct front *front)
{
    struct visitor client = {.peer = NULL};
    uint64_t end_ns = sim_now_ns(front->server.sim) + PATIENCE_NS;
    while (client.received == 0) {
        REQUIRE(sim_now_ns(front->server.sim) < end_ns);
        hang_up(&client, false);
        client.peer = sim_connect(front->server.io, HTTP_PORT, changed, &client);
        send_bytes(&client, tokens[5], strlen(tokens[5]));
        uint64_t again_ns = sim_now_ns(front->server.sim) + NS_PER_S;
        while (client.received == 0 && sim_now_ns(front->server.sim) < again_ns)
            pass_some(front, 1);
    }
    hang_up(&client, false);
}

static void require_nothing_left(struct front *front)
{
    uint64_t end_ns = sim_now_ns(front->server.sim) + PATIENCE_NS;
    const struct clients *clients = loop_clients(front->server.server);
    const struct client_shared *shared = &clients->shared;
    while (clients->count > 0 && sim_now_ns(front->server.sim) < end_ns)
        pass_some(front, 1);
    REQUIRE(clients->count == 0);
    REQUIRE(shared->input_bytes == 0 &&
            loop_http(front->server.server)->budget.used == 0);
    REQUIRE(shared->outputs.blocks.count_used == 0 && shared->outputs.memory_bytes == 0);
    REQUIRE(clients->protocols[LISTENER_HTTP].connections.count_used == 0 &&
            clients->protocols[LISTENER_BINARY].connections.count_used == 0);
    REQUIRE(shared->sets_waiting == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct front front;
    if (size < 1)
        return 0;
    front_open(&front, data[0]);
    sim_network_options(front.server.sim)->split_ppm = data[0] % 4 * 100000;
    size_t used = 1;
    for (uint32_t i = 0; i < STEPS_MAX && used + 2 <= size; i++)
        used += step(&front, data + used, size - used);
    pass_some(&front, 20);
    for (uint32_t i = 0; i < CLIENTS; i++)
        hang_up(&front.clients[i], i % 2 == 0);
    require_service(&front);
    require_nothing_left(&front);
    sim_server_close(&front.server);
    return 0;
}
