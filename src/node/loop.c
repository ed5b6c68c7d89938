/* The server's loop: passes, accepting, the drain. */
#include "net/client/server_internal.h"
#include "node/report.h"
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
    struct loop *loop = context;
    loop->has_advanced = true;
    if (loop->outputs.books.slowlog != NULL)
        slowlog_durable(loop->outputs.books.slowlog, position, io_now_ns(loop->io));
}

static void store_room_event(void *context)
{
    struct loop *loop = context;
    loop->has_room = true;
}

static void store_failed_event(void *context, int error)
{
    struct loop *loop = context;
    loop->failed = error < 0 ? error : -error;
}

static void shard_room_event(void *context)
{
    struct loop *loop = context;
    loop->has_room = true;
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

void loop_io_options(const struct config *config, uint32_t shard_count,
                     struct io_options *ret_options)
{
    struct store_options store;
    fill_store_options(config, shard_count, &store);
    *ret_options = (struct io_options){
        .sockets_max =
            places_of(config, shard_count) + LISTENERS_MAX + SPARE_SOCKETS, /* to refuse with */
        .files_max = store_files_max(),
        .receive_buffer_size = LIMITS_RECEIVE_SIZE,
        .receive_buffer_count = LIMITS_RECEIVE_COUNT,
        .region_size = store_region_size(&store),
        .busy_poll_ns = config->busy_poll_ns,
    };
}

/* ---- the clock ---- */

static void tick_done(struct io_op *op, int32_t result)
{
    struct loop *loop = container_of(op, struct loop, tick);
    if (result < 0)
        return;
    uint64_t now_ns = io_now_ns(loop->io);
    struct list_node *node = list_first(&loop->all);
    for (; node != NULL; node = list_next(&loop->all, node))
        connection_tick(container_of(node, struct connection, all_node), now_ns);
    loop->streams_were_short = loop->streams_are_short;
    loop->streams_are_short = false;
    watch_publish(&loop->watch);
    if (loop->outputs.books.slowlog != NULL)
        slowlog_tick(loop->outputs.books.slowlog, now_ns);
    listeners_arm(loop);
    io_timer(loop->io, op, now_ns + WATCH_TICK_NS);
}

/* ---- passes ---- */

static bool has_room(const struct loop *loop)
{
    return loop->has_room || loop->outputs.has_room;
}

/* Blocked connections, when something came free. */
static void retry_parked(struct loop *loop)
{
    if (!has_room(loop))
        return;
    loop->has_room = false;
    loop->outputs.has_room = false;
    shard_retry(&loop->shard);
    struct list retried = loop->parked;
    if (list_is_empty(&loop->parked))
        return;
    retried.head.next->prev = &retried.head;
    retried.head.prev->next = &retried.head;
    list_init(&loop->parked);
    loop->is_retrying = true;
    for (struct list_node *node; (node = list_pop_front(&retried)) != NULL;) {
        struct connection *connection = container_of(node, struct connection, parked_node);
        connection_set_waits(connection, false);
        connection_run(connection);
    }
    loop->is_retrying = false;
}

/* Connections for which something has come. What wakes them meanwhile wants another pass. */
static void run_woken(struct loop *loop)
{
    if (list_is_empty(&loop->woken))
        return;
    struct list woken = loop->woken;
    woken.head.next->prev = &woken.head;
    woken.head.prev->next = &woken.head;
    list_init(&loop->woken);
    for (struct list_node *node; (node = list_pop_front(&woken)) != NULL;)
        connection_run(container_of(node, struct connection, woken_node));
}

/* Connections whose first reply's gate is durable now. Gates grow with arrival, so the list is all
 * but sorted: the first that must still wait ends it. */
static void release_waiting(struct loop *loop)
{
    if (!loop->has_advanced)
        return;
    loop->has_advanced = false;
    for (struct list_node *node; (node = list_first(&loop->waiting)) != NULL;) {
        struct connection *connection = container_of(node, struct connection, waiting_node);
        if (output_gate(&connection->output, &loop->outputs) > 0)
            return;
        list_remove(node);
        connection_touch(connection);
    }
}

static uint64_t held_until_ns(const struct list_node *node)
{
    return container_of(node, const struct connection, held_node)->held_ns + LIMITS_HOLD_NS;
}

/* Connections whose replies have waited long enough for those that other shards were asked. */
static void release_held(struct loop *loop)
{
    uint64_t now_ns = io_now_ns(loop->io);
    for (struct list_node *node; (node = list_first(&loop->held)) != NULL;) {
        if (held_until_ns(node) > now_ns)
            return;
        list_remove(node);
        connection_touch(container_of(node, struct connection, held_node));
    }
}

static void advance_dirty(struct loop *loop)
{
    if (!list_is_empty(&loop->dirty))
        loop->outputs.books.sent_ns = io_clock_ns(loop->io);
    for (struct list_node *node; (node = list_pop_front(&loop->dirty)) != NULL;)
        connection_advance(container_of(node, struct connection, dirty_node));
}

/* End of a pass: what the completions have prepared goes to the world. Returns whether there is
 * more to do at once. */
static bool flush(struct loop *loop)
{
    bool more = shard_serve(&loop->shard);
    run_woken(loop);
    retry_parked(loop);
    more = store_flush(loop->shard.store) || more;
    release_waiting(loop);
    release_held(loop);
    advance_dirty(loop);
    if (loop->shard.post != NULL)
        post_flush(loop->shard.post);
    steer_load_publish(&loop->load, (uint32_t)loop->connection_count, io_now_ns(loop->io));
    loop->outputs.pass++;
    return more || has_room(loop) || !list_is_empty(&loop->dirty) || !list_is_empty(&loop->woken);
}

/* ---- the drain ---- */

/* How long the drain proper lasts: what a load balancer gets to see that this node is not ready
 * comes before it. */
uint64_t server_drain_ns(const struct loop *loop)
{
    uint64_t lasted_ns = io_now_ns(loop->io) - loop->drain_began_ns;
    uint64_t delay_ns = loop->config->drain_delay_ns;
    return lasted_ns > delay_ns ? lasted_ns - delay_ns : 0;
}

void loop_drain(struct loop *loop)
{
    if (loop->is_draining)
        return;
    loop->is_draining = true;
    loop->drain_began_ns = io_now_ns(loop->io);
    watch_publish(&loop->watch);
    log_info(loop->log, "draining: %" PRIu64 " connections open", loop->connection_count);
}

/* Finishes connections that have no whole request waiting and no large value on its way. For a
 * moment they are served as before, so that what was on its way when the signal came is answered.
 */
static void drain_connections(struct loop *loop)
{
    uint64_t now_ns = io_now_ns(loop->io);
    bool late = server_drain_ns(loop) > LIMITS_DRAIN_NS;
    if (server_drain_ns(loop) < LIMITS_DRAIN_GRACE_NS)
        return;
    struct list_node *node = list_first(&loop->all);
    for (; node != NULL; node = list_next(&loop->all, node)) {
        struct connection *connection = container_of(node, struct connection, all_node);
        if (late || upload_is_stalled(connection, now_ns, LIMITS_DRAIN_STALL_NS))
            connection_abort(connection);
        else if (!connection_is_waiting(connection) && connection->upload == NULL)
            connection_finish(connection);
    }
}

static int finish_drain(struct loop *loop)
{
    if (io_op_is_active(&loop->tick)) {
        io_cancel(loop->io, &loop->tick);
        return 0;
    }
    if (listeners_are_open(loop))
        return 0;
    int result = store_shut(loop->shard.store);
    if (result < 0) {
        log_error(loop->log, "cannot make everything durable at shutdown: %s", strerror(-result));
        return result;
    }
    log_info(loop->log, "drained: everything is on disk");
    return 1;
}

/* Whether nobody needs this shard any more: it asks nothing, and when no other does, it serves
 * nobody. */
static bool is_alone(struct loop *loop)
{
    if (loop->shard.post != NULL && !loop->is_alone)
        loop->is_alone = post_end(loop->shard.post);
    return loop->shard.post == NULL || loop->is_alone;
}

/* Returns 1 when the drain is over. */
static int drain_pass(struct loop *loop)
{
    listeners_stop(loop);
    drain_connections(loop);
    if (loop->connection_count > 0 || listeners_are_open(loop) || !is_alone(loop))
        return 0;
    return finish_drain(loop);
}

/* How long the next pass may sleep, but for replies that are held. */
static uint64_t rest_ns(struct loop *loop, bool more)
{
    struct post *post = loop->shard.post;
    if (more || (post != NULL && !loop->is_alone && !post_may_sleep(post)))
        return 0;
    if (loop->node->rate != NULL)
        rate_rest(loop->node->rate, loop->shard.number);
    if (!loop->is_draining && (post == NULL || loop->config->sleep_max_ns == 0))
        return UINT64_MAX;
    if (!loop->is_draining)
        return loop->config->sleep_max_ns;
    return post != NULL ? DRAIN_POLL_SHARED_NS : DRAIN_POLL_NS;
}

static uint64_t sleep_ns(struct loop *loop, bool more)
{
    uint64_t sleep_ns = rest_ns(loop, more);
    const struct list_node *held = list_first(&loop->held);
    if (held == NULL || sleep_ns == 0)
        return sleep_ns;
    uint64_t until_ns = held_until_ns(held);
    uint64_t now_ns = io_now_ns(loop->io);
    return min_u64(sleep_ns, until_ns > now_ns ? until_ns - now_ns : 0);
}

int loop_pass(struct loop *loop)
{
    if (loop->is_draining) {
        int result = drain_pass(loop);
        if (result != 0)
            return result;
    }
    bool more = flush(loop);
    if (loop->failed != 0)
        return loop->failed;
    int result = io_run(loop->io, sleep_ns(loop, more));
    if (loop->shard.post != NULL)
        post_woke(loop->shard.post);
    if (result < 0) {
        log_error(loop->log, "the event loop failed: %s", strerror(-result));
        return result;
    }
    return loop->failed;
}

/* ---- opening and closing ---- */

/* What HTTP needs; nothing when it is not served. */
static int open_http(struct loop *loop, uint32_t places)
{
    if (loop->config->http_port == 0)
        return 0;
    loop->scratch = malloc(LIMITS_RECEIVE_SIZE);
    if (loop->scratch == NULL)
        return -ENOMEM;
    return pool_init(&loop->http_clients, http_client_size(), places);
}

static void share_budgets(struct loop *loop)
{
    uint32_t count = loop->shard.count;
    loop->input_bytes_max = share_u64(LIMITS_INPUT_BYTES_MAX, count, INPUT_BYTES_MIN);
    loop->http_budget.max = share_u64(LIMITS_HTTP_TEXT_BYTES_MAX, count, HTTP_TEXT_BYTES_MIN);
    loop->outputs.memory_bytes_max = share_u64(LIMITS_OUTPUT_MEMORY_MAX, count, OUTPUT_MEMORY_MIN);
}

static int open_pools(struct loop *loop)
{
    uint32_t places = io_sockets_max(loop->io);
    uint32_t blocks =
        places + (uint32_t)share_u64(LIMITS_OUTPUT_BLOCKS, loop->shard.count, OUTPUT_BLOCKS_MIN);
    int result = pool_init(&loop->connections, sizeof(struct connection), places);
    if (result == 0)
        result = pool_init(&loop->outputs.blocks, OUTPUT_BLOCK_SIZE, blocks);
    pool_prefer_huge(&loop->outputs.blocks);
    loop->outputs.reserve = places;
    if (result == 0)
        result = open_http(loop, places);
    if (result < 0)
        log_error(loop->log, "not enough address space for %u connections", places);
    return result;
}

static int open_store(struct loop *loop)
{
    struct store_options options;
    fill_store_options(loop->config, loop->shard.count, &options);
    options.shard = loop->shard.number;
    options.handover = &loop->node->directory->handover;
    options.events = (struct store_events){.context = loop,
                                           .durable = store_durable_event,
                                           .room = store_room_event,
                                           .failed = store_failed_event};
    int result = store_open(loop->io, loop->log, &options, &loop->shard.store);
    loop->outputs.store = loop->shard.store;
    return result;
}

static int open_shard(struct loop *loop)
{
    loop->shard.events = (struct shard_events){.context = loop, .room = shard_room_event};
    int result = shard_open(&loop->shard, loop->io, loop->node->office);
    if (result < 0) {
        log_error(loop->log, "not enough address space for the mail between shards");
        (void)store_shut(loop->shard.store);
    }
    return result;
}

static int open_all(struct loop *loop)
{
    loop_apply(loop, &(struct settings){loop->config->auth, loop->config->slowlog_ns});
    share_budgets(loop);
    int result = open_pools(loop);
    if (result == 0)
        result = open_store(loop);
    return result < 0 ? result : open_shard(loop);
}

void loop_apply(struct loop *loop, const struct settings *settings)
{
    struct account_books *books = &loop->outputs.books;
    loop->auth = settings->auth;
    int error = 0;
    if (settings->slowlog_ns > 0 && books->notes == NULL)
        error = slowlog_open(loop->log, settings->slowlog_ns, &books->notes);
    if (error < 0)
        log_error(loop->log, "cannot log slow requests: %s", strerror(-error));
    if (books->notes != NULL && settings->slowlog_ns > 0)
        slowlog_set_threshold(books->notes, settings->slowlog_ns);
    books->slowlog = settings->slowlog_ns > 0 ? books->notes : NULL;
}

int loop_prepare(struct io *io, struct node *node)
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
static void open_log(struct loop *loop)
{
    char name[LOG_PART_SIZE];
    loop->log = loop->node->log;
    if (loop->shard.count == 1)
        return;
    (void)snprintf(name, sizeof name, "shard %u: ", loop->shard.number);
    log_init_part(&loop->part, loop->node->log, name);
    loop->log = &loop->part;
}

static void open_watch(struct loop *loop)
{
    loop->watch.io = loop->io;
    loop->watch.boards = loop->node->boards;
    loop->watch.shard = loop->shard.number;
    loop->watch.shard_count = loop->shard.count;
    loop->watch.source = report_source(loop);
    loop->watch.limits = (struct watch_limits){.value_size_max = loop->config->value_size_max,
                                               .connections_max = loop->config->connections_max,
                                               .pipeline_bytes_max = LIMITS_OUTPUT_BYTES_MAX};
    watch_begin(&loop->watch);
}

int loop_create(struct io *io, struct node *node, uint32_t number, struct loop **ret_loop)
{
    struct loop *loop = calloc(1, sizeof *loop);
    *ret_loop = loop;
    if (loop == NULL)
        return -ENOMEM;
    loop->io = io;
    loop->node = node;
    loop->config = node->config;
    loop->shard.number = number;
    loop->shard.count = node->shard_count;
    open_log(loop);
    open_watch(loop);
    loop->outputs.books = (struct account_books){.metrics = &loop->watch.metrics, .io = io};
    list_init(&loop->all);
    list_init(&loop->dirty);
    list_init(&loop->waiting);
    list_init(&loop->held);
    list_init(&loop->parked);
    list_init(&loop->woken);
    return open_all(loop);
}

void loop_begin(struct loop *loop, struct steer_shard *steer)
{
    uint64_t now_ns = io_now_ns(loop->io);
    steer_load_init(&loop->load, steer, now_ns);
    watch_publish(&loop->watch);
    listeners_arm(loop);
    loop->tick.done = tick_done;
    io_timer(loop->io, &loop->tick, now_ns + WATCH_TICK_NS);
}

void loop_shut(struct loop *loop)
{
    (void)store_shut(loop->shard.store);
}

void loop_close(struct loop *loop)
{
    if (loop == NULL)
        return;
    store_free(loop->shard.store); /* before what its queues point to */
    struct list_node *node = list_first(&loop->all);
    for (; node != NULL; node = list_next(&loop->all, node)) {
        struct connection *connection = container_of(node, struct connection, all_node);
        connection_free(connection);
        for (struct list_node *block = list_first(&connection->output.blocks); block != NULL;
             block = list_next(&connection->output.blocks, block))
            free(container_of(block, struct output_block, node)->memory);
    }
    if (loop->outputs.blocks.base != NULL)
        pool_deinit(&loop->outputs.blocks);
    if (loop->connections.base != NULL)
        pool_deinit(&loop->connections);
    if (loop->http_clients.base != NULL)
        pool_deinit(&loop->http_clients);
    free(loop->scratch);
    shard_close(&loop->shard);
    slowlog_close(loop->outputs.books.notes);
    free(loop);
}

uint64_t loop_keys(const struct loop *loop)
{
    struct store_stats stats;
    store_stats(loop->shard.store, &stats);
    return stats.keys;
}

uint16_t loop_port(const struct loop *loop)
{
    return loop->listeners[0].port;
}
