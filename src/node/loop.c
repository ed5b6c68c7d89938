/* The loop: the parts of a pass, how they are wired, and their way up and down; and what they share
 * with the loops of other shards.
 *
 * No part of a pass has a budget: each takes all that is there, which the ring, the post's credits
 * and the store's queues bound. */
#include "node/loop.h"

#include "net/binary/binary_client.h"
#include "net/client/clients.h"
#include "net/client/limits.h"
#include "net/http/http_client.h"
#include "net/listener.h"
#include "net/steer/steer.h"
#include "node/drain.h"
#include "node/parts.h"
#include "shard/post.h"
#include "store/reshard/store_directory.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    const struct config *config;
    const struct log *log;
    uint32_t shard_count;
    struct store_directory *directory; /* NULL: not prepared; the store alone opens it */
    struct post_office *office;        /* NULL: there is one shard */
    struct lease *slots;               /* for connections */
    struct rate *rate;                 /* NULL: no limit */
    const struct metrics **metrics;    /* of each shard, once its loop is created */
    const struct steer *steer;         /* NULL: the kernel's hash spreads connections */
};

struct loop {
    struct io *io;
    struct node *node;
    const struct config *config;
    const struct log *log;
    struct log part; /* of a node's log, when it has several shards */
    struct shard shard;
    struct clients clients;
    struct http_shared http;
    struct listeners listeners;
    struct steer_load load;
    struct watch watch;
    uint64_t decisions[STEER_DECISION_COUNT]; /* of steering, as they were read last */
    struct drain drain;
    struct io_op tick;
    bool is_reload_good; /* of the last SIGHUP, or the start */
    uint64_t reload_ms;  /* when one was taken last: Unix time */
    int failed;
};

/* ---- what the shards share ---- */

static int open_shared(struct node *node)
{
    node->metrics = calloc(node->shard_count, sizeof(struct metrics *));
    int result = node->metrics != NULL ? 0 : -ENOMEM;
    if (result == 0)
        result = lease_open(node->config->connections_max, node->shard_count, &node->slots);
    if (result == 0 && node->shard_count > 1)
        result = post_office_open(node->shard_count, &node->office);
    if (result == 0 && node->config->rate_limit > 0)
        result = rate_open(node->config->rate_limit, node->shard_count, 0, &node->rate);
    return result;
}

int node_open(const struct config *config, const struct log *log, uint32_t shard_count,
              const struct steer *steer, struct node **ret_node)
{
    struct node *node = calloc(1, sizeof *node);
    if (node == NULL)
        return -ENOMEM;
    node->config = config;
    node->log = log;
    node->shard_count = shard_count;
    node->steer = steer;
    int result = open_shared(node);
    if (result < 0) {
        log_error(log, "not enough memory for %u shards: lower -shards, or give this process more",
                  shard_count);
        node_close(node);
        return result;
    }
    *ret_node = node;
    return 0;
}

void node_close(struct node *node)
{
    if (node == NULL)
        return;
    if (node->rate != NULL)
        rate_close(node->rate);
    if (node->office != NULL)
        post_office_close(node->office);
    if (node->slots != NULL)
        lease_close(node->slots);
    free(node->metrics);
    if (node->directory != NULL)
        store_directory_free(node->directory);
    free(node->directory);
    free(node);
}

/* ---- options ---- */

/* More than the shard's part: connections do not spread quite evenly. */
static uint32_t slots_of(const struct config *config, uint32_t shard_count)
{
    uint32_t part = config->connections_max / shard_count;
    return shard_count == 1 ? part
                            : (uint32_t)min_u64(part + part / 4 + 1, config->connections_max);
}

void loop_io_options(const struct config *config, uint32_t shard_count,
                     struct io_options *ret_options)
{
    struct store_options store;
    parts_fill_store(config, shard_count, &store);
    *ret_options = (struct io_options){
        .sockets_max = slots_of(config, shard_count) + LISTENERS_MAX + LISTENERS_SPARE_SOCKETS,
        .files_max = store_files_max(),
        .receive_buffer_size = LIMITS_RECEIVE_SIZE,
        .receive_buffer_count = parts_receive_buffers(config),
        .region_size = store_region_size(&store),
        .busy_poll_ns = config->busy_poll_ns,
    };
}

int loop_prepare(struct io *io, struct node *node)
{
    struct store_options options;
    parts_fill_store(node->config, node->shard_count, &options);
    struct store_directory *directory = calloc(1, sizeof *directory);
    if (directory == NULL)
        return -ENOMEM;
    node->directory = directory; /* also after a failure: the world may still use what it has */
    return store_directory_prepare(io, node->log, &options, directory);
}

/* ---- what the parts tell each other ---- */

static void store_durable_event(void *context, uint64_t position)
{
    clients_durable(&((struct loop *)context)->clients, position);
}

static void room_event(void *context)
{
    clients_room(&((struct loop *)context)->clients);
}

static void store_failed_event(void *context, int error)
{
    struct loop *loop = context;
    loop->failed = error < 0 ? error : -error;
}

static void tick_done(struct io_op *op, int32_t result)
{
    struct loop *loop = container_of(op, struct loop, tick);
    if (result < 0)
        return;
    uint64_t now_ns = io_now_ns(loop->io);
    clients_tick(&loop->clients, now_ns);
    watch_publish(&loop->watch);
    listeners_arm(&loop->listeners);
    io_timer(loop->io, op, now_ns + WATCH_TICK_NS);
}

/* ---- who takes part in a pass ---- */

/* A part of the loop. A new one is a row of the table. */
struct participant {
    /* Its part of a pass: what has come, which the ring bounds, and of what can wait about `budget`,
     * in its own unit. Returns whether there is more to do at once. NULL: it has none. */
    bool (*step)(struct loop *loop, uint64_t budget);
    uint64_t budget;

    /* Nobody has more to do at once: how long it may be left alone, 0: not at all. NULL: as long as
     * nothing completes. */
    uint64_t (*rest_ns)(struct loop *loop);
};

static bool step_shard(struct loop *loop, uint64_t budget)
{
    (void)budget;
    return shard_serve(&loop->shard);
}

static bool step_requests(struct loop *loop, uint64_t budget)
{
    (void)budget;
    clients_take(&loop->clients);
    return false;
}

static bool step_store(struct loop *loop, uint64_t budget)
{
    return store_flush(loop->shard.store, budget);
}

static bool step_answers(struct loop *loop, uint64_t budget)
{
    (void)budget;
    return clients_answer(&loop->clients);
}

static uint64_t rest_answers(struct loop *loop)
{
    return clients_rest_ns(&loop->clients);
}

static uint64_t rest_drain(struct loop *loop)
{
    return drain_rest_ns(&loop->drain);
}

static bool step_post(struct loop *loop, uint64_t budget)
{
    (void)budget;
    if (loop->shard.post != NULL)
        post_flush(loop->shard.post);
    return false;
}

/* It says that it sleeps only when nothing else is in the way. */
static uint64_t rest_post(struct loop *loop)
{
    return drain_may_post(&loop->drain) && !post_may_sleep(loop->shard.post) ? 0 : UINT64_MAX;
}

static bool step_load(struct loop *loop, uint64_t budget)
{
    (void)budget;
    steer_load_publish(&loop->load, (uint32_t)loop->clients.count, io_now_ns(loop->io));
    return false;
}

static uint64_t rest_rate(struct loop *loop)
{
    if (loop->node->rate != NULL)
        rate_rest(loop->node->rate, loop->shard.number);
    return UINT64_MAX;
}

/* Of a machine that the simulator runs by itself, shard by shard. */
static uint64_t rest_turn(struct loop *loop)
{
    bool is_bounded = loop->shard.post != NULL && loop->config->sleep_max_ns > 0;
    return is_bounded ? loop->config->sleep_max_ns : UINT64_MAX;
}

/* In their order in a pass: requests first, then the store, so that their writes go out as one;
 * then the answers. The post comes after all that may ask or answer, and its rest after all that
 * may have more to do. */
static const struct participant participants[] = {
    {.step = step_shard},
    {.step = step_requests},
    {.step = step_store, .budget = STORE_PASS_BYTES},
    {.step = step_answers, .rest_ns = rest_answers},
    {.rest_ns = rest_drain},
    {.step = step_post, .rest_ns = rest_post},
    {.step = step_load, .rest_ns = rest_rate},
    {.rest_ns = rest_turn},
};

#define PARTICIPANT_COUNT (sizeof participants / sizeof participants[0])

/* ---- passes ---- */

static bool step_all(struct loop *loop)
{
    bool has_more = false;
    for (size_t i = 0; i < PARTICIPANT_COUNT; i++)
        if (participants[i].step != NULL)
            has_more = participants[i].step(loop, participants[i].budget) || has_more;
    return has_more;
}

/* The shortest that any of them says. */
static uint64_t rest_ns(struct loop *loop)
{
    uint64_t shortest_ns = UINT64_MAX;
    for (size_t i = 0; i < PARTICIPANT_COUNT && shortest_ns > 0; i++)
        if (participants[i].rest_ns != NULL)
            shortest_ns = min_u64(shortest_ns, participants[i].rest_ns(loop));
    return shortest_ns;
}

int loop_pass(struct loop *loop)
{
    int result = drain_pass(&loop->drain);
    if (result != 0)
        return result;
    bool has_more = step_all(loop);
    if (loop->failed != 0)
        return loop->failed;
    result = io_run(loop->io, has_more ? 0 : rest_ns(loop));
    if (loop->shard.post != NULL)
        post_woke(loop->shard.post);
    if (result < 0) {
        log_error(loop->log, "the event loop failed: %s", strerror(-result));
        return result;
    }
    return loop->failed;
}

void loop_drain(struct loop *loop)
{
    if (!drain_begin(&loop->drain))
        return;
    watch_publish(&loop->watch);
    log_info(loop->log, "draining: %" PRIu64 " connections open", loop->clients.count);
}

/* ---- opening and closing ---- */

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

/* What the parts count, for the watch. */
static void report(void *context, struct shard_report *ret_report, struct metrics_node *ret_node)
{
    struct loop *loop = context;
    const struct clients *clients = &loop->clients;
    ret_report->connections = clients->count;
    ret_report->connections_accepted = clients->accepted;
    ret_report->connections_refused = clients->refused;
    ret_report->gets = loop->shard.gets;
    ret_report->sets = loop->shard.sets;
    ret_report->deletes = loop->shard.deletes;
    ret_report->requests_refused = clients->shared.requests_refused;
    ret_report->is_reload_good = loop->is_reload_good;
    ret_report->reload_s = loop->reload_ms / 1000;
    ret_report->messages_dropped = log_dropped(loop->log);
    ret_report->failed = loop->failed;
    ret_report->is_draining = drain_is_on(&loop->drain);
    store_stats(loop->shard.store, &ret_report->store);
    ret_report->memory =
        ret_report->store.cache.memory + ret_report->store.index_memory + clients_memory(clients);
    if (loop->node->steer == NULL)
        return;
    steer_read_decisions(loop->node->steer, loop->decisions);
    ret_node->decisions = loop->decisions;
    ret_node->decision_names = steer_decision_names();
    ret_node->decision_count = STEER_DECISION_COUNT;
}

static void wire(struct loop *loop)
{
    const struct config *config = loop->config;
    loop->is_reload_good = true;
    loop->reload_ms = io_wall_ms(loop->io);
    loop->watch.io = loop->io;
    loop->watch.shards = loop->node->metrics;
    loop->watch.shard = loop->shard.number;
    loop->watch.shard_count = loop->shard.count;
    loop->watch.source = (struct watch_source){.context = loop, .report = report};
    loop->watch.limits = (struct watch_limits){.value_size_max = config->value_size_max,
                                               .connections_max = config->connections_max,
                                               .pipeline_bytes_max = LIMITS_OUTPUT_BYTES_MAX};
    loop->listeners.options = (struct listeners_options){.io = loop->io,
                                                         .log = loop->log,
                                                         .clients = &loop->clients,
                                                         .metrics = &loop->watch.metrics,
                                                         .load = &loop->load,
                                                         .host = config->host,
                                                         .connections_max = config->connections_max,
                                                         .lock_wait_ns = config->lock_wait_ns,
                                                         .shard = loop->shard.number,
                                                         .shard_count = loop->shard.count};
    loop->drain = (struct drain){.io = loop->io,
                                 .log = loop->log,
                                 .clients = &loop->clients,
                                 .listeners = &loop->listeners,
                                 .shard = &loop->shard,
                                 .tick = &loop->tick,
                                 .delay_ns = config->drain_delay_ns};
    loop->shard.events = (struct shard_events){.context = loop, .room = room_event};
    watch_begin(&loop->watch);
}

static int open_clients(struct loop *loop)
{
    loop->clients.slots = loop->node->slots;
    loop->clients.shared = (struct client_shared){.io = loop->io,
                                                  .log = loop->log,
                                                  .shard = &loop->shard,
                                                  .watch = &loop->watch,
                                                  .metrics = &loop->watch.metrics,
                                                  .rate = loop->node->rate,
                                                  .auth_mode = loop->config->auth_mode,
                                                  .value_size_max = loop->config->value_size_max};
    int result = clients_open(&loop->clients);
    clients_apply(&loop->clients, &loop->config->auth, loop->config->slowlog_ns);
    if (result == 0)
        result = clients_add(&loop->clients, &protocol_binary, NULL);
    if (result < 0 || loop->config->http_port == 0)
        return result;
    result = http_open(&loop->http, loop->shard.parts);
    return result < 0 ? result : clients_add(&loop->clients, &protocol_http, &loop->http);
}

static int open_store(struct loop *loop)
{
    struct store_options options;
    struct store_directory *directory = loop->node->directory;
    parts_fill_store(loop->config, loop->shard.count, &options);
    options.shard = loop->shard.number;
    /* Without a prepared directory the store opens one of a single shard by itself. */
    options.handover = directory != NULL ? &directory->handover : NULL;
    options.events = (struct store_events){.context = loop,
                                           .durable = store_durable_event,
                                           .room = room_event,
                                           .failed = store_failed_event};
    return store_open(loop->io, loop->log, &options, &loop->shard.store);
}

static int open_shard(struct loop *loop)
{
    int result = shard_open(&loop->shard, loop->io, loop->node->office);
    if (result < 0) {
        log_error(loop->log, "not enough address space for the mail between shards: lower -shards, "
                             "or raise the limit (ulimit -v, LimitAS=)");
        (void)store_shut(loop->shard.store);
    }
    return result;
}

int loop_create(struct io *io, struct node *node, uint32_t number, struct loop **ret_loop)
{
    struct loop *loop = calloc(1, sizeof *loop);
    assert(number < node->shard_count);
    *ret_loop = loop;
    if (loop == NULL)
        return -ENOMEM;
    loop->io = io;
    loop->node = node;
    loop->config = node->config;
    loop->shard.number = number;
    loop->shard.count = node->shard_count;
    loop->shard.parts = parts_count(node->config, node->shard_count);
    open_log(loop);
    wire(loop);
    int result = open_clients(loop);
    if (result == 0)
        result = open_store(loop);
    if (result == 0)
        result = open_shard(loop);
    if (result == 0)
        clients_begin(&loop->clients);
    return result;
}

int loop_listen(struct loop *loop, uint16_t port, int *ret_descriptors)
{
    ret_descriptors[LISTENER_HTTP] = -1;
    int result = listeners_listen(&loop->listeners, LISTENER_BINARY, port,
                                  &ret_descriptors[LISTENER_BINARY]);
    uint16_t http_port = loop->config->http_port;
    if (result < 0 || http_port == 0)
        return result;
    result = listeners_listen(&loop->listeners, LISTENER_HTTP, http_port,
                              &ret_descriptors[LISTENER_HTTP]);
    if (result == 0 && loop->shard.number == 0)
        log_info(loop->log, "HTTP is served on port %u", http_port);
    return result;
}

void loop_begin(struct loop *loop, struct steer_shard *steer)
{
    uint64_t now_ns = io_now_ns(loop->io);
    steer_load_init(&loop->load, steer, now_ns);
    watch_publish(&loop->watch);
    listeners_arm(&loop->listeners);
    loop->tick.done = tick_done;
    io_timer(loop->io, &loop->tick, now_ns + WATCH_TICK_NS);
}

void loop_apply(struct loop *loop, const struct settings *settings)
{
    clients_apply(&loop->clients, &settings->auth, settings->slowlog_ns);
    loop->is_reload_good = settings->is_good;
    if (settings->is_good)
        loop->reload_ms = io_wall_ms(loop->io);
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
    clients_close(&loop->clients);
    http_close(&loop->http);
    shard_close(&loop->shard);
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
    return listeners_port(&loop->listeners, LISTENER_BINARY);
}

uint64_t loop_slots(const struct loop *loop)
{
    return listeners_slots(&loop->listeners);
}

const struct clients *loop_clients(const struct loop *loop)
{
    return &loop->clients;
}

const struct shard *loop_shard(const struct loop *loop)
{
    return &loop->shard;
}

const struct http_shared *loop_http(const struct loop *loop)
{
    return &loop->http;
}
