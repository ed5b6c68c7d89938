/* The server's loop: passes, accepting, the drain. */
#include "net/client/server_internal.h"
#include "store/reshard/store_directory.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_POLL_NS (10 * NS_PER_MS)
#define DRAIN_POLL_SHARED_NS NS_PER_MS /* while other shards drain, too */

/* What a shard has at least of what all of them share. */
#define STREAM_BUFFERS_MIN 32u
#define CACHE_SIZE_MIN (1 * MIB)
#define INPUT_BYTES_MIN (8 * MIB)
#define OUTPUT_BLOCKS_MIN 4096u /* what it may have asked others for, each with its place */
#define OUTPUT_MEMORY_MIN (1 * MIB)
#define HTTP_TEXT_BYTES_MIN (1 * MIB)

/* ---- what the store tells ---- */

static void store_durable_event(void *context, uint64_t position)
{
    struct server *server = context;
    server->has_advanced = true;
    if (server->outputs.books.slowlog != NULL)
        slowlog_durable(server->outputs.books.slowlog, position, io_now_ns(server->io));
}

static void store_room_event(void *context)
{
    struct server *server = context;
    server->has_room = true;
}

static void store_failed_event(void *context, int error)
{
    struct server *server = context;
    server->failed = error < 0 ? error : -error;
}

static void shard_room_event(void *context)
{
    struct server *server = context;
    server->has_room = true;
}

static uint32_t share_streams(const struct config *config, uint32_t shard_count)
{
    uint32_t count = config->stream_buffers != 0 ? config->stream_buffers : STORE_STREAM_BUFFERS;
    return shard_count == 1 ? count : (uint32_t)share_u64(count, shard_count, STREAM_BUFFERS_MIN);
}

static uint64_t share_scrub(uint64_t rate, uint32_t shard_count)
{
    return rate == SCRUB_AUTO || rate == SCRUB_OFF ? rate : share_u64(rate, shard_count, 1);
}

static void fill_store_options(const struct config *config, uint32_t shard_count,
                               struct store_options *ret_options)
{
    *ret_options = (struct store_options){
        .path = config->data_path,
        .shard_count = shard_count,
        .cache_size = share_u64(config->cache_size, shard_count, CACHE_SIZE_MIN),
        .log_file_size = config->log_file_size,
        .value_size_max = config->value_size_max,
        .value_file_min = config->value_file_min,
        .stream_buffers = share_streams(config, shard_count),
        .log_keep_bytes = config->log_keep_bytes,
        .compact_min = config->compact_min,
        .mover_window = config->mover_window,
        .mover_stage = config->mover_stage,
        .checkpoint_min = config->checkpoint_min,
        .durability = config->durability,
        .lock_wait_ns = config->lock_wait_ns,
        .probe = config->probe,
        .scrub_rate = share_scrub(config->scrub_rate, shard_count),
        .accept_loss = config->accept_loss,
    };
}

/* More than the shard's part: connections do not spread quite evenly. */
static uint32_t places_of(const struct config *config, uint32_t shard_count)
{
    uint32_t part = config->connections_max / shard_count;
    return shard_count == 1 ? part
                            : (uint32_t)min_u64(part + part / 4 + 1, config->connections_max);
}

void server_io_options(const struct config *config, uint32_t shard_count,
                       struct io_options *ret_options)
{
    struct store_options store;
    fill_store_options(config, shard_count, &store);
    *ret_options = (struct io_options){
        .sockets_max = places_of(config, shard_count) + SERVER_LISTENERS_MAX +
                       SERVER_SPARE_SOCKETS, /* to refuse with */
        .files_max = store_files_max(),
        .receive_buffer_size = CONFIG_RECEIVE_SIZE,
        .receive_buffer_count = CONFIG_RECEIVE_COUNT,
        .region_size = store_region_size(&store),
        .busy_poll_ns = config->busy_poll_ns,
    };
}

/* ---- the clock ---- */

static void tell_node(struct server *server)
{
    server_publish(server);
    node_turned(server->node, server->shard.number, io_now_ns(server->io));
}

static void tick_done(struct io_op *op, int32_t result)
{
    struct server *server = container_of(op, struct server, tick);
    if (result < 0)
        return;
    uint64_t now_ns = io_now_ns(server->io);
    struct list_node *node = list_first(&server->all);
    for (; node != NULL; node = list_next(&server->all, node))
        connection_tick(container_of(node, struct connection, all_node), now_ns);
    server->streams_were_short = server->streams_are_short;
    server->streams_are_short = false;
    tell_node(server);
    listeners_arm(server);
    io_timer(server->io, op, now_ns + CONFIG_TICK_NS);
}

/* ---- passes ---- */

static bool has_room(const struct server *server)
{
    return server->has_room || server->outputs.has_room;
}

/* Blocked connections, when something came free. */
static void retry_parked(struct server *server)
{
    if (!has_room(server))
        return;
    server->has_room = false;
    server->outputs.has_room = false;
    shard_retry(&server->shard);
    struct list retried = server->parked;
    if (list_is_empty(&server->parked))
        return;
    retried.head.next->prev = &retried.head;
    retried.head.prev->next = &retried.head;
    list_init(&server->parked);
    server->is_retrying = true;
    for (struct list_node *node; (node = list_pop_front(&retried)) != NULL;) {
        struct connection *connection = container_of(node, struct connection, parked_node);
        connection_set_waits(connection, false);
        connection_run(connection);
    }
    server->is_retrying = false;
}

/* Connections for which something has come. What wakes them meanwhile wants another pass. */
static void run_woken(struct server *server)
{
    if (list_is_empty(&server->woken))
        return;
    struct list woken = server->woken;
    woken.head.next->prev = &woken.head;
    woken.head.prev->next = &woken.head;
    list_init(&server->woken);
    for (struct list_node *node; (node = list_pop_front(&woken)) != NULL;)
        connection_run(container_of(node, struct connection, woken_node));
}

/* Connections whose first reply's gate is durable now. Gates grow with arrival, so the list is all
 * but sorted: the first that must still wait ends it. */
static void release_waiting(struct server *server)
{
    if (!server->has_advanced)
        return;
    server->has_advanced = false;
    for (struct list_node *node; (node = list_first(&server->waiting)) != NULL;) {
        struct connection *connection = container_of(node, struct connection, waiting_node);
        if (output_gate(&connection->output, &server->outputs) > 0)
            return;
        list_remove(node);
        connection_touch(connection);
    }
}

static uint64_t held_until_ns(const struct list_node *node)
{
    return container_of(node, const struct connection, held_node)->held_ns + CONFIG_HOLD_NS;
}

/* Connections whose replies have waited long enough for those that other shards were asked. */
static void release_held(struct server *server)
{
    uint64_t now_ns = io_now_ns(server->io);
    for (struct list_node *node; (node = list_first(&server->held)) != NULL;) {
        if (held_until_ns(node) > now_ns)
            return;
        list_remove(node);
        connection_touch(container_of(node, struct connection, held_node));
    }
}

static void advance_dirty(struct server *server)
{
    if (!list_is_empty(&server->dirty))
        server->outputs.books.sent_ns = io_clock_ns(server->io);
    for (struct list_node *node; (node = list_pop_front(&server->dirty)) != NULL;)
        connection_advance(container_of(node, struct connection, dirty_node));
}

/* End of a pass: what the completions have prepared goes to the world. Returns whether there is
 * more to do at once. */
static bool flush(struct server *server)
{
    bool more = shard_serve(&server->shard);
    run_woken(server);
    retry_parked(server);
    more = store_flush(server->shard.store) || more;
    release_waiting(server);
    release_held(server);
    advance_dirty(server);
    if (server->shard.post != NULL)
        post_flush(server->shard.post);
    steer_load_publish(&server->load, (uint32_t)server->connection_count, io_now_ns(server->io));
    server->outputs.pass++;
    return more || has_room(server) || !list_is_empty(&server->dirty) ||
           !list_is_empty(&server->woken);
}

/* ---- the drain ---- */

/* How long the drain proper lasts: what a load balancer gets to see that this node is not ready
 * comes before it. */
uint64_t server_drain_ns(const struct server *server)
{
    uint64_t lasted_ns = io_now_ns(server->io) - server->drain_began_ns;
    uint64_t delay_ns = server->config->drain_delay_ns;
    return lasted_ns > delay_ns ? lasted_ns - delay_ns : 0;
}

void server_drain(struct server *server)
{
    if (server->is_draining)
        return;
    server->is_draining = true;
    server->drain_began_ns = io_now_ns(server->io);
    tell_node(server);
    log_info(server->log, "draining: %" PRIu64 " connections open", server->connection_count);
}

/* Finishes connections that have no whole request waiting and no large value on its way. For a
 * moment they are served as before, so that what was on its way when the signal came is answered.
 */
static void drain_connections(struct server *server)
{
    uint64_t now_ns = io_now_ns(server->io);
    bool late = server_drain_ns(server) > CONFIG_DRAIN_NS;
    if (server_drain_ns(server) < CONFIG_DRAIN_GRACE_NS)
        return;
    struct list_node *node = list_first(&server->all);
    for (; node != NULL; node = list_next(&server->all, node)) {
        struct connection *connection = container_of(node, struct connection, all_node);
        if (late || upload_is_stalled(connection, now_ns, CONFIG_DRAIN_STALL_NS))
            connection_abort(connection);
        else if (!connection_is_waiting(connection) && connection->upload == NULL)
            connection_finish(connection);
    }
}

static int finish_drain(struct server *server)
{
    if (io_op_is_active(&server->tick)) {
        io_cancel(server->io, &server->tick);
        return 0;
    }
    if (listeners_are_open(server))
        return 0;
    int result = store_shut(server->shard.store);
    if (result < 0) {
        log_error(server->log, "cannot make everything durable at shutdown: %s", strerror(-result));
        return result;
    }
    log_info(server->log, "drained: everything is on disk");
    return 1;
}

/* Whether nobody needs this shard any more: it asks nothing, and when no other does, it serves
 * nobody. */
static bool is_alone(struct server *server)
{
    if (server->shard.post != NULL && !server->is_alone)
        server->is_alone = post_end(server->shard.post);
    return server->shard.post == NULL || server->is_alone;
}

/* Returns 1 when the drain is over. */
static int drain_pass(struct server *server)
{
    listeners_stop(server);
    drain_connections(server);
    if (server->connection_count > 0 || listeners_are_open(server) || !is_alone(server))
        return 0;
    return finish_drain(server);
}

/* How long the next pass may sleep, but for replies that are held. */
static uint64_t rest_ns(struct server *server, bool more)
{
    struct post *post = server->shard.post;
    if (more || (post != NULL && !server->is_alone && !post_may_sleep(post)))
        return 0;
    if (server->node->rate != NULL)
        rate_rest(server->node->rate, server->shard.number);
    if (!server->is_draining && (post == NULL || server->config->sleep_max_ns == 0))
        return UINT64_MAX;
    if (!server->is_draining)
        return server->config->sleep_max_ns;
    return post != NULL ? DRAIN_POLL_SHARED_NS : DRAIN_POLL_NS;
}

static uint64_t sleep_ns(struct server *server, bool more)
{
    uint64_t sleep_ns = rest_ns(server, more);
    const struct list_node *held = list_first(&server->held);
    if (held == NULL || sleep_ns == 0)
        return sleep_ns;
    uint64_t until_ns = held_until_ns(held);
    uint64_t now_ns = io_now_ns(server->io);
    return min_u64(sleep_ns, until_ns > now_ns ? until_ns - now_ns : 0);
}

int server_pass(struct server *server)
{
    if (server->is_draining) {
        int result = drain_pass(server);
        if (result != 0)
            return result;
    }
    bool more = flush(server);
    if (server->failed != 0)
        return server->failed;
    int result = io_run(server->io, sleep_ns(server, more));
    if (server->shard.post != NULL)
        post_woke(server->shard.post);
    if (result < 0) {
        log_error(server->log, "the event loop failed: %s", strerror(-result));
        return result;
    }
    return server->failed;
}

/* ---- opening and closing ---- */

/* What HTTP needs; nothing when it is not served. */
static int open_http(struct server *server, uint32_t places)
{
    if (server->config->http_port == 0)
        return 0;
    server->scratch = malloc(CONFIG_RECEIVE_SIZE);
    if (server->scratch == NULL)
        return -ENOMEM;
    return pool_init(&server->http_clients, http_client_size(), places);
}

static void share_budgets(struct server *server)
{
    uint32_t count = server->shard.count;
    server->input_bytes_max = share_u64(CONFIG_INPUT_BYTES_MAX, count, INPUT_BYTES_MIN);
    server->http_budget.max = share_u64(CONFIG_HTTP_TEXT_BYTES_MAX, count, HTTP_TEXT_BYTES_MIN);
    server->outputs.memory_bytes_max =
        share_u64(CONFIG_OUTPUT_MEMORY_MAX, count, OUTPUT_MEMORY_MIN);
}

static int open_pools(struct server *server)
{
    uint32_t places = io_sockets_max(server->io);
    uint32_t blocks =
        places + (uint32_t)share_u64(CONFIG_OUTPUT_BLOCKS, server->shard.count, OUTPUT_BLOCKS_MIN);
    int result = pool_init(&server->connections, sizeof(struct connection), places);
    if (result == 0)
        result = pool_init(&server->outputs.blocks, OUTPUT_BLOCK_SIZE, blocks);
    pool_prefer_huge(&server->outputs.blocks);
    server->outputs.reserve = places;
    if (result == 0)
        result = open_http(server, places);
    if (result < 0)
        log_error(server->log, "not enough address space for %u connections", places);
    return result;
}

static int open_store(struct server *server)
{
    struct store_options options;
    fill_store_options(server->config, server->shard.count, &options);
    options.shard = server->shard.number;
    options.directory = server->node->directory;
    options.events = (struct store_events){.context = server,
                                           .durable = store_durable_event,
                                           .room = store_room_event,
                                           .failed = store_failed_event};
    int result = store_open(server->io, server->log, &options, &server->shard.store);
    server->outputs.store = server->shard.store;
    return result;
}

static int open_shard(struct server *server)
{
    server->shard.events = (struct shard_events){.context = server, .room = shard_room_event};
    int result = shard_open(&server->shard, server->io, server->node->office);
    if (result < 0) {
        log_error(server->log, "not enough address space for the mail between shards");
        (void)store_shut(server->shard.store);
    }
    return result;
}

static int open_all(struct server *server)
{
    server_reload(server, &(struct reload){server->config->auth, server->config->slowlog_ns});
    share_budgets(server);
    int result = open_pools(server);
    if (result == 0)
        result = open_store(server);
    return result < 0 ? result : open_shard(server);
}

int server_prepare(struct io *io, struct node *node)
{
    struct store_options options;
    fill_store_options(node->config, node->shard_count, &options);
    struct store_directory *directory = calloc(1, sizeof *directory);
    if (directory == NULL)
        return -ENOMEM;
    node->directory = directory; /* also after a failure: the world may still use what it has */
    return store_directory_prepare(io, node->log, &options, directory);
}

/* Who says it matters where there are several. */
static void open_log(struct server *server)
{
    char name[LOG_PART_SIZE];
    server->log = server->node->log;
    if (server->shard.count == 1)
        return;
    (void)snprintf(name, sizeof name, "shard %u: ", server->shard.number);
    log_init_part(&server->part, server->node->log, name);
    server->log = &server->part;
}

int server_create(struct io *io, struct node *node, uint32_t number, struct server **ret_server)
{
    struct server *server = calloc(1, sizeof *server);
    *ret_server = server;
    if (server == NULL)
        return -ENOMEM;
    server->io = io;
    server->node = node;
    server->config = node->config;
    server->shard.number = number;
    server->shard.count = node->shard_count;
    open_log(server);
    server->started_ns = io_now_ns(io);
    server->outputs.books = (struct account_books){.metrics = &server->metrics, .io = io};
    node->metrics[number] = &server->metrics;
    list_init(&server->all);
    list_init(&server->dirty);
    list_init(&server->waiting);
    list_init(&server->held);
    list_init(&server->parked);
    list_init(&server->woken);
    return open_all(server);
}

void server_begin(struct server *server, struct steer_shard *steer)
{
    uint64_t now_ns = io_now_ns(server->io);
    steer_load_init(&server->load, steer, now_ns);
    tell_node(server);
    listeners_arm(server);
    server->tick.done = tick_done;
    io_timer(server->io, &server->tick, now_ns + CONFIG_TICK_NS);
}

void server_shut(struct server *server)
{
    (void)store_shut(server->shard.store);
}

void server_close(struct server *server)
{
    if (server == NULL)
        return;
    store_free(server->shard.store); /* before what its queues point to */
    struct list_node *node = list_first(&server->all);
    for (; node != NULL; node = list_next(&server->all, node)) {
        struct connection *connection = container_of(node, struct connection, all_node);
        connection_free(connection);
        for (struct list_node *block = list_first(&connection->output.blocks); block != NULL;
             block = list_next(&connection->output.blocks, block))
            free(container_of(block, struct output_block, node)->memory);
    }
    if (server->outputs.blocks.base != NULL)
        pool_deinit(&server->outputs.blocks);
    if (server->connections.base != NULL)
        pool_deinit(&server->connections);
    if (server->http_clients.base != NULL)
        pool_deinit(&server->http_clients);
    free(server->scratch);
    shard_close(&server->shard);
    slowlog_close(server->outputs.books.notes);
    free(server);
}

uint64_t server_keys(const struct server *server)
{
    struct store_stats stats;
    store_stats(server->shard.store, &stats);
    return stats.keys;
}

uint16_t server_port(const struct server *server)
{
    return server->listeners[0].port;
}
