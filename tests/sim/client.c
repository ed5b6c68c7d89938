/* A client of the simulation: what it sends, and how it takes answers. */
#include "client.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "minivault/protocol.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECEIVE_SIZE ((size_t)65536)

void workload_fail(struct workload *workload, const char *format, ...)
{
    if (workload->has_failed)
        return;
    workload->has_failed = true;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(workload->message, sizeof workload->message, format, arguments);
    va_end(arguments);
}

static void think_over(struct sim_event *event);

void client_init(struct client *client, struct workload *workload)
{
    *client = (struct client){.workload = workload, .think.fire = think_over};
}

void client_deinit(struct client *client)
{
    client_drop(client);
    free(client->out);
    free(client->in);
}

void client_drop(struct client *client)
{
    struct workload *workload = client->workload;
    if (client->peer != NULL && prng_below(&workload->prng, 2) == 0)
        sim_peer_reset(client->peer);
    else if (client->peer != NULL)
        sim_peer_close(client->peer);
    client->peer = NULL;
    client->request_count = 0;
    client->out_size = client->out_sent = client->in_size = 0;
    sim_unschedule(workload->sim, &client->think);
}

bool client_is_idle(const struct client *client)
{
    return client->request_count == 0 && client->out_sent == client->out_size;
}

uint64_t client_waits_since(const struct client *client)
{
    return client->request_count > 0 ? client->requests[client->request_first].sent_ns : UINT64_MAX;
}

/* ---- sending ---- */

uint8_t *client_reserve(struct client *client, size_t size)
{
    if (client->out_sent == client->out_size)
        client->out_sent = client->out_size = 0;
    if (client->out_size + size > client->out_capacity) {
        client->out_capacity = 2 * (client->out_size + size);
        client->out = realloc(client->out, client->out_capacity);
        assert(client->out != NULL);
    }
    uint8_t *at = client->out + client->out_size;
    client->out_size += size;
    return at;
}

struct request *client_push(struct client *client, uint8_t op)
{
    assert(client->request_count < CLIENT_DEPTH_MAX);
    uint32_t at = (client->request_first + client->request_count++) % CLIENT_DEPTH_MAX;
    struct request *request = &client->requests[at];
    *request = (struct request){.op = op, .sent_ns = sim_now_ns(client->workload->sim)};
    return request;
}

static void flush(struct client *client)
{
    while (client->out_sent < client->out_size) {
        int64_t sent = sim_peer_send(client->peer, client->out + client->out_sent,
                                     client->out_size - client->out_sent);
        if (sent <= 0)
            return; /* an error shows when receiving */
        client->out_sent += (size_t)sent;
    }
}

static bool wants_request(const struct client *client)
{
    const struct workload *workload = client->workload;
    if (client->is_finished || client->request_count >= client->depth)
        return false;
    if (client->is_scanning)
        return client->scan_next < workload->keys.count;
    return workload->budget > 0;
}

static void fill(struct client *client)
{
    struct workload *workload = client->workload;
    while (wants_request(client)) {
        request_make(client);
        if (!client->is_scanning)
            workload->budget--;
    }
    flush(client);
    /* Some say that they are done; the answers have to come all the same. */
    if (!client->is_scanning && workload->budget == 0 && !client->is_finished &&
        client->out_sent == client->out_size && prng_below(&workload->prng, 4) == 0) {
        client->is_finished = true;
        sim_peer_shutdown(client->peer);
    }
}

static void think_over(struct sim_event *event)
{
    struct client *client = container_of(event, struct client, think);
    if (client->peer != NULL && !client->workload->has_failed)
        fill(client);
}

static void go_on(struct client *client)
{
    struct workload *workload = client->workload;
    if (workload->think_ns_max == 0 || client->is_scanning)
        fill(client);
    else if (!client->think.is_scheduled)
        sim_schedule(workload->sim, &client->think,
                     sim_now_ns(workload->sim) +
                         prng_below(&workload->prng, workload->think_ns_max));
}

/* ---- receiving ---- */

/* Takes one answer off the front. Returns its size; 0: it is not whole. */
static size_t take_answer(struct client *client, const uint8_t *data, size_t size)
{
    if (size < MINIVAULT_ANSWER_HEADER_SIZE)
        return 0;
    uint32_t data_size = load_u32(data + 1);
    if (data_size > MINIVAULT_VALUE_SIZE_MAX) {
        workload_fail(client->workload, "an answer says that it has %" PRIu32 " bytes", data_size);
        return 0;
    }
    if (size - MINIVAULT_ANSWER_HEADER_SIZE < data_size)
        return 0;
    if (client->request_count == 0) {
        workload_fail(client->workload, "an answer that nobody asked for");
        return 0;
    }
    struct request request = client->requests[client->request_first];
    client->request_first = (client->request_first + 1) % CLIENT_DEPTH_MAX;
    client->request_count--;
    client->workload->answers++;
    request_judge(client, &request, data[0], data + MINIVAULT_ANSWER_HEADER_SIZE, data_size);
    return MINIVAULT_ANSWER_HEADER_SIZE + data_size;
}

static void take_answers(struct client *client)
{
    size_t taken = 0;
    while (!client->workload->has_failed) {
        size_t size = take_answer(client, client->in + taken, client->in_size - taken);
        if (size == 0)
            break;
        taken += size;
    }
    client->in_size -= taken;
    memmove(client->in, client->in + taken, client->in_size);
}

/* Receives what is there. Returns 1, 0 at the end of the stream, or -errno when it broke. */
static int receive_all(struct client *client)
{
    for (;;) {
        if (client->in_capacity - client->in_size < RECEIVE_SIZE) {
            client->in_capacity = 2 * client->in_capacity + RECEIVE_SIZE;
            client->in = realloc(client->in, client->in_capacity);
            assert(client->in != NULL);
        }
        int64_t got = sim_peer_receive(client->peer, client->in + client->in_size,
                                       client->in_capacity - client->in_size);
        if (got <= 0)
            return got == -EAGAIN ? 1 : (int)got;
        client->in_size += (size_t)got;
    }
}

static void judge_end(struct client *client, int result)
{
    struct workload *workload = client->workload;
    bool is_expected = client->is_finished && client_is_idle(client) && result == 0;
    bool is_crashed = workload->io == NULL || sim_host_is_crashed(workload->io);
    if (!is_expected && !is_crashed && !workload->may_close)
        workload_fail(workload,
                      "connection %" PRIu64 " was ended by the server (%s), %" PRIu32
                      " requests without an answer",
                      client->connection, result == 0 ? "FIN" : strerror(-result),
                      client->request_count);
    client_drop(client);
}

static void changed(struct sim_peer *peer, void *context)
{
    struct client *client = context;
    struct workload *workload = client->workload;
    if (client->peer != peer || workload->has_failed)
        return;
    int result = receive_all(client);
    take_answers(client);
    if (workload->io != NULL && (result <= 0 || client_is_idle(client) || workload->has_failed))
        io_wake(workload->io);
    if (workload->has_failed)
        return;
    if (result <= 0) {
        judge_end(client, result);
        return;
    }
    if (!client->is_scanning && prng_below(&workload->prng, 1000000) < workload->hang_up_ppm) {
        client_drop(client);
        return;
    }
    go_on(client);
}

/* ---- connecting ---- */

static void connect_client(struct client *client, struct io *io, uint16_t port)
{
    struct workload *workload = client->workload;
    client->io = io;
    client->port = port;
    client->connection = ++workload->connections;
    client->is_finished = false;
    client->request_first = 0;
    client->depth = 1 + (uint32_t)prng_below(&workload->prng, workload->depth_max);
    client->is_typed = false;
    client->peer = sim_connect(io, port, changed, client);
    if (prng_below(&workload->prng, 100) < workload->typed_percent) {
        request_hello(client);
        client->is_typed = true;
    }
}

void client_run(struct client *client, struct io *io, uint16_t port)
{
    client->is_scanning = false;
    if (client->peer == NULL)
        connect_client(client, io, port);
    go_on(client);
}

void client_scan(struct client *client, struct io *io, uint16_t port)
{
    client->is_scanning = true;
    client->scan_next = 0;
    if (client->peer == NULL)
        connect_client(client, io, port);
    go_on(client);
}
