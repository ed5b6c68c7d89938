/* The connections of a shard, and their part of its passes. */
#include "net/client/clients.h"

#include "net/client/limits.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

/* What a shard has at least of what all of them share. */
#define INPUT_BYTES_MIN (8 * MIB)
#define INPUT_PARTS_MAX 8u      /* for each shard, however little memory there is */
#define OUTPUT_BLOCKS_MIN 4096u /* what it may have asked others for, each with its place */
#define OUTPUT_BLOCKS_MIN_ALONE 1024u
#define OUTPUT_MEMORY_MIN (1 * MIB)

/* ---- sizes ---- */

/* Beside one a connection. */
static uint32_t output_blocks(uint32_t shard_count, uint32_t parts)
{
    uint32_t least = shard_count > 1 ? OUTPUT_BLOCKS_MIN : OUTPUT_BLOCKS_MIN_ALONE;
    return (uint32_t)share_u64(LIMITS_OUTPUT_BLOCKS, parts, least);
}

/* What has arrived cannot be left to the kernel: pipelines that wait need some in little memory, too. */
static uint64_t input_bytes(uint32_t shard_count, uint32_t parts)
{
    uint64_t most = (uint64_t)INPUT_PARTS_MAX * shard_count;
    return share_u64(LIMITS_INPUT_BYTES_MAX, min_u64(parts, most), INPUT_BYTES_MIN);
}

static uint64_t output_memory(uint32_t parts)
{
    return share_u64(LIMITS_OUTPUT_MEMORY_MAX, parts, OUTPUT_MEMORY_MIN);
}

uint64_t clients_memory_max(uint32_t shard_count, uint32_t parts)
{
    return input_bytes(shard_count, parts) + output_memory(parts) +
           (uint64_t)output_blocks(shard_count, parts) * OUTPUT_BLOCK_SIZE;
}

/* ---- opening and closing ---- */

int clients_open(struct clients *clients)
{
    struct client_shared *shared = &clients->shared;
    uint32_t slots = io_sockets_max(shared->io), parts = shared->shard->parts;
    uint32_t blocks = slots + output_blocks(shared->shard->count, parts);
    shared->input_bytes_max = input_bytes(shared->shard->count, parts);
    shared->outputs.books = (struct account_books){.metrics = shared->metrics, .io = shared->io};
    list_init(&clients->all);
    list_init(&shared->woken);
    list_init(&shared->parked);
    list_init(&shared->waiting);
    list_init(&shared->held);
    list_init(&shared->dirty);
    int result = output_shared_open(&shared->outputs, blocks, slots, output_memory(parts));
    if (result < 0)
        log_error(shared->log,
                  "not enough address space for %u connections: lower -connections, or raise the "
                  "limit (ulimit -v, LimitAS=)",
                  slots);
    return result;
}

void clients_begin(struct clients *clients)
{
    output_shared_begin(&clients->shared.outputs, clients->shared.shard->store);
}

int clients_add(struct clients *clients, const struct protocol *protocol, void *shared)
{
    struct clients_protocol *added = &clients->protocols[clients->protocol_count];
    uint32_t slots = io_sockets_max(clients->shared.io);
    assert(clients->protocol_count < CLIENTS_PROTOCOLS_MAX);
    assert(protocol->size >= sizeof(struct connection));
    int result = pool_init(&added->connections, protocol->size, slots);
    if (result < 0) {
        log_error(clients->shared.log,
                  "not enough address space for %u connections: lower -connections, or raise the "
                  "limit (ulimit -v, LimitAS=)",
                  slots);
        return result;
    }
    added->protocol = protocol;
    added->shared = shared;
    clients->protocol_count++;
    return 0;
}

void clients_close(struct clients *clients)
{
    struct list_node *node = clients->all.head.next != NULL ? list_first(&clients->all) : NULL;
    for (; node != NULL; node = list_next(&clients->all, node)) {
        struct connection *connection = container_of(node, struct connection, all_node);
        connection_free(connection);
        output_free(&connection->client.output);
    }
    output_shared_close(&clients->shared.outputs);
    for (uint32_t i = 0; i < clients->protocol_count; i++)
        pool_deinit(&clients->protocols[i].connections);
}

void clients_apply(struct clients *clients, const struct auth *auth, uint64_t slowlog_ns)
{
    struct client_shared *shared = &clients->shared;
    shared->auth = *auth;
    int result = account_apply(&shared->outputs.books, shared->log, slowlog_ns);
    if (result < 0)
        log_error(
            shared->log,
            "cannot log slow requests: %s; give this process more memory, or leave -slowlog out",
            strerror(-result));
}

/* ---- one comes, one goes ---- */

bool clients_accept(struct clients *clients, uint32_t number, int socket)
{
    struct clients_protocol *protocol = &clients->protocols[number];
    assert(number < clients->protocol_count);
    if (!lease_take(clients->slots, clients->shared.shard->number))
        return false;
    struct connection *connection = pool_get(&protocol->connections);
    assert(connection != NULL); /* there are as many as sockets */
    clients->count++;
    clients->accepted++;
    connection->pool = &protocol->connections;
    connection_open(connection, &clients->shared, protocol->protocol, protocol->shared, socket,
                    clients->accepted);
    list_push_back(&clients->all, &connection->all_node);
    return true;
}

static void put_away(struct clients *clients, struct connection *connection)
{
    assert(clients->count > 0); /* invariant 1 */
    list_remove(&connection->all_node);
    connection_free(connection);
    clients->count--;
    lease_put(clients->slots, clients->shared.shard->number); /* invariant 2 */
    pool_put(connection->pool, connection);
}

/* ---- what happens elsewhere ---- */

void clients_durable(struct clients *clients, uint64_t position)
{
    clients->has_advanced = true;
    account_durable(&clients->shared.outputs.books, position);
}

void clients_room(struct clients *clients)
{
    clients->has_room = true;
}

void clients_tick(struct clients *clients, uint64_t now_ns)
{
    struct client_shared *shared = &clients->shared;
    struct list_node *node = list_first(&clients->all);
    for (; node != NULL; node = list_next(&clients->all, node))
        connection_tick(container_of(node, struct connection, all_node), now_ns);
    shared->streams_were_short = shared->streams_are_short;
    shared->streams_are_short = false;
    account_tick(&shared->outputs.books, now_ns);
}

void clients_drain(struct clients *clients)
{
    clients->shared.is_draining = true;
}

void clients_finish(struct clients *clients, bool is_late)
{
    struct list_node *node = list_first(&clients->all);
    for (; node != NULL; node = list_next(&clients->all, node))
        connection_drain(container_of(node, struct connection, all_node), is_late);
}

uint64_t clients_memory(const struct clients *clients)
{
    return clients->shared.input_bytes + output_shared_memory(&clients->shared.outputs);
}

/* ---- the pass ---- */

/* Connections for which something has come. Those that join meanwhile come in the next pass, here
 * and below. */
static void run_woken(struct client_shared *shared)
{
    const struct list_node *last = list_last(&shared->woken);
    for (struct list_node *node = NULL; node != last;) {
        node = list_pop_front(&shared->woken);
        assert(node != NULL); /* nobody else takes it out */
        connection_run(container_of(node, struct connection, client.woken_node));
    }
}

static bool has_room(const struct clients *clients)
{
    return clients->has_room || output_shared_has_room(&clients->shared.outputs);
}

/* Blocked connections, when something came free: behind what other shards wait for. */
static void retry_parked(struct clients *clients)
{
    struct client_shared *shared = &clients->shared;
    if (!has_room(clients))
        return;
    clients->has_room = false;
    output_shared_retried(&shared->outputs);
    shard_retry(shared->shard);
    shared->is_retrying = true;
    const struct list_node *last = list_last(&shared->parked);
    for (struct list_node *node = NULL; node != last;) {
        node = list_pop_front(&shared->parked);
        assert(node != NULL);
        struct connection *connection = container_of(node, struct connection, client.parked_node);
        client_set_waits(&connection->client, false);
        connection_run(connection);
    }
    shared->is_retrying = false;
}

void clients_take(struct clients *clients)
{
    run_woken(&clients->shared);
    retry_parked(clients);
}

static void advance_dirty(struct clients *clients)
{
    struct client_shared *shared = &clients->shared;
    if (!list_is_empty(&shared->dirty))
        account_send_now(&shared->outputs.books);
    for (struct list_node *node; (node = list_pop_front(&shared->dirty)) != NULL;) {
        struct connection *connection = container_of(node, struct connection, client.dirty_node);
        if (connection_advance(connection))
            put_away(clients, connection);
    }
}

bool clients_answer(struct clients *clients)
{
    struct client_shared *shared = &clients->shared;
    if (clients->has_advanced)
        client_release_waiting(shared);
    clients->has_advanced = false;
    client_release_held(shared);
    advance_dirty(clients);
    output_shared_end_pass(&shared->outputs);
    return has_room(clients) || !list_is_empty(&shared->woken);
}

uint64_t clients_rest_ns(const struct clients *clients)
{
    uint64_t until_ns = client_held_until_ns(&clients->shared);
    if (until_ns == UINT64_MAX)
        return UINT64_MAX;
    return until_ns - min_u64(until_ns, io_now_ns(clients->shared.io));
}
