/* The loop of a client thread: it sends at the asked rate or depth, receives, and counts latencies.
 */
#include "worker.h"

#include "../common/clock.h"
#include "../common/cpu.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum operation { OPERATION_RECEIVE, OPERATION_SEND, OPERATION_TICK };

/* The loop looks at the clock at least this often, whatever the server does. */
#define TICK_NS 10000000

/* Of 256 shards the one that is wanted has been drawn by then, but for a chance of e to the -16. */
#define DRAWS_MAX 4096u

/* A server that says nothing for so long is not waited for. */
#define STALL_NS (20 * NANOSECONDS_PER_SECOND)

static void mark_dirty(struct worker *worker, uint32_t index)
{
    struct connection *connection = &worker->connections[index];
    if (connection->is_dirty)
        return;
    connection->is_dirty = true;
    worker->dirty[worker->dirty_count++] = index;
}

static void receive_start(struct worker *worker, uint32_t index)
{
    struct io_uring_sqe *sqe = ring_get_sqe(&worker->ring);
    io_uring_prep_recv_multishot(sqe, (int)index, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_POOL_GROUP;
    io_uring_sqe_set_data64(sqe, ring_tag(OPERATION_RECEIVE, index));
}

static void send_start(struct worker *worker, uint32_t index)
{
    struct connection *connection = &worker->connections[index];
    struct io_uring_sqe *sqe = ring_get_sqe(&worker->ring);
    if (connection->value_size > 0)
        io_uring_prep_sendmsg(sqe, (int)index, connection_message(connection),
                              MSG_NOSIGNAL | MSG_WAITALL);
    else
        io_uring_prep_send(sqe, (int)index, connection->output + connection->output_sent,
                           connection->output_size - connection->output_sent,
                           MSG_NOSIGNAL | MSG_WAITALL);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, ring_tag(OPERATION_SEND, index));
    connection->is_sending = true;
}

static void tick_start(struct worker *worker)
{
    /* The kernel reads it at the submission, which follows within this loop. */
    static const struct __kernel_timespec period = {.tv_nsec = TICK_NS};
    struct io_uring_sqe *sqe = ring_get_sqe(&worker->ring);
    io_uring_prep_timeout(sqe, (struct __kernel_timespec *)&period, 0, IORING_TIMEOUT_MULTISHOT);
    io_uring_sqe_set_data64(sqe, ring_tag(OPERATION_TICK, 0));
}

void worker_start(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->connection_count; i++)
        receive_start(worker, i);
    tick_start(worker);
}

static void lose(struct worker *worker, uint32_t index, const char *why)
{
    struct connection *connection = &worker->connections[index];
    if (!connection->is_open)
        return;
    if (worker->tally.lost == 0 && !worker->is_failed)
        fprintf(stderr, "mvload: connection %u: %s\n", index, why);
    connection->is_open = false;
    worker->open_count--;
    worker->tally.lost += connection->pending_count;
    worker->outstanding -= connection->pending_count;
    worker->is_failed = true;
}

/* Keeps the beginning of an error reply, as text, for the report. */
static void note_error(struct worker *worker, const uint8_t *data, size_t size)
{
    if (worker->first_error[0] != '\0')
        return;
    size_t count = size < FIRST_ERROR_SIZE - 1 ? size : FIRST_ERROR_SIZE - 1;
    for (size_t i = 0; i < count; i++)
        worker->first_error[i] = data[i] >= ' ' && data[i] < 127 ? (char)data[i] : '.';
    worker->first_error[count] = '\0';
}

static void count_reply(struct worker *worker, const struct finished *finished, const uint8_t *data,
                        size_t size)
{
    struct tally *tally = &worker->tally;
    const struct reply *reply = &finished->reply;
    worker->outstanding--;
    if (reply->outcome == REPLY_MISS) {
        tally->misses++;
    } else if (reply->outcome == REPLY_REFUSED) {
        tally->refused++;
    } else if (reply->outcome == REPLY_ERROR) {
        tally->errors++;
        note_error(worker, data, size);
    } else if (finished->is_get && reply->value_size != worker->config->traffic.value_size) {
        tally->errors++;
        note_error(worker, (const uint8_t *)"a value of the wrong size", 25);
    }
    uint64_t latency_ns =
        worker->now_ns > finished->intended_ns ? worker->now_ns - finished->intended_ns : 0;
    histogram_add(&tally->latency, latency_ns, 1);
    if (latency_ns < tally->latency_min_ns)
        tally->latency_min_ns = latency_ns;
    tally->gets += finished->is_get;
    tally->replies++;
}

static void consume(struct worker *worker, uint32_t index, const uint8_t *data, uint32_t size)
{
    struct connection *connection = &worker->connections[index];
    uint64_t replies_before = worker->tally.replies;
    struct finished finished;
    int result = 0;
    for (;;) {
        const uint8_t *reply = data;
        result =
            connection_next_reply(connection, worker->config->protocol, &data, &size, &finished);
        if (result != 1)
            break;
        count_reply(worker, &finished, reply, (size_t)(data - reply));
    }
    if (result < 0)
        lose(worker, index, "the server's bytes are no reply of this protocol");
    worker->last_reply_ns = worker->now_ns;
    uint64_t progress = worker->progress + worker->tally.replies - replies_before;
    __atomic_store_n(&worker->progress, progress, __ATOMIC_RELAXED);
}

static void receive_done(struct worker *worker, const struct io_uring_cqe *cqe)
{
    uint32_t index = ring_tag_index(cqe->user_data);
    struct connection *connection = &worker->connections[index];
    if (cqe->res > 0) {
        uint32_t buffer_id = buffer_pool_id(cqe);
        if (connection->is_open) {
            const uint8_t *data = buffer_pool_at(&worker->buffers, buffer_id);
            consume(worker, index, data, (uint32_t)cqe->res);
        }
        buffer_pool_put(&worker->buffers, buffer_id);
    } else if (cqe->res != -ENOBUFS) {
        lose(worker, index, cqe->res == 0 ? "closed by the server" : strerror(-cqe->res));
    }
    if (!connection->is_open)
        return;
    if (!(cqe->flags & IORING_CQE_F_MORE))
        worker->parked[worker->parked_count++] = index;
    mark_dirty(worker, index);
}

static void send_done(struct worker *worker, const struct io_uring_cqe *cqe)
{
    uint32_t index = ring_tag_index(cqe->user_data);
    struct connection *connection = &worker->connections[index];
    connection->is_sending = false;
    if (cqe->res <= 0) {
        lose(worker, index, strerror(-cqe->res));
        return;
    }
    if (!connection_sent(connection, (uint32_t)cqe->res)) {
        send_start(worker, index);
        return;
    }
    mark_dirty(worker, index);
}

static void completion_dispatch(struct worker *worker, const struct io_uring_cqe *cqe)
{
    switch ((enum operation)ring_tag_operation(cqe->user_data)) {
    case OPERATION_RECEIVE:
        receive_done(worker, cqe);
        return;
    case OPERATION_SEND:
        send_done(worker, cqe);
        return;
    case OPERATION_TICK:
        if (!(cqe->flags & IORING_CQE_F_MORE))
            tick_start(worker);
        return;
    }
}

/* The number of the next key; a SET may take a new one. */
static uint64_t draw(struct worker *worker, bool is_get)
{
    const struct config *config = worker->config;
    if (!is_get && config->insert_threshold > 0 &&
        (uint32_t)prng_next(&worker->prng) <= config->insert_threshold) {
        uint64_t number = worker->insert_next;
        worker->insert_next += config->threads;
        return number;
    }
    return config->first_key + key_draw(&config->key_space, &worker->prng);
}

/* Writes the next key; it is of the shards that the connection may ask. The key space has keys of
 * every shard, so that drawing again soon finds one. */
static void key_choose(struct worker *worker, const struct connection *connection, bool is_get)
{
    const struct config *config = worker->config;
    for (uint32_t tries = 0; tries < DRAWS_MAX; tries++) {
        key_write(&config->key_space, worker->key, draw(worker, is_get));
        if (config->locality == LOCALITY_ANY)
            return;
        uint32_t shard = key_shard(&config->key_space, worker->key, connection->shard_count);
        if ((shard == connection->shard) == (config->locality == LOCALITY_LOCAL))
            return;
    }
    worker->has_strayed = true;
}

/* Writes the next request into a connection that has room. */
static void request_write(struct worker *worker, struct connection *connection,
                          uint64_t intended_ns)
{
    const struct config *config = worker->config;
    bool is_get = false;
    if (worker->mode == WORKER_PREFILL) {
        key_write(&config->key_space, worker->key, config->first_key + worker->prefill_next++);
    } else {
        is_get =
            config->is_all_reads || (config->read_threshold > 0 &&
                                     (uint32_t)prng_next(&worker->prng) < config->read_threshold);
        key_choose(worker, connection, is_get);
    }
    uint8_t *target = connection_output_end(connection);
    size_t size = is_get ? config->protocol->write_get(target, &config->traffic, worker->key)
                         : config->protocol->write_set(target, &config->traffic, worker->key);
    assert(size <= config->request_size_max);
    connection_add(connection, size, is_get, intended_ns);
    if (!is_get && config->traffic.is_value_apart)
        connection_add_value(connection, &config->traffic, config->protocol->set_tail_size);
    worker->outstanding++;
}

static bool has_room(const struct worker *worker, const struct connection *connection)
{
    return connection_has_room(connection, worker->depth, worker->config->request_size_max);
}

/* Closed loop and prefill: a connection takes as many as became free. */
static void refill(struct worker *worker, struct connection *connection)
{
    if (worker->mode == WORKER_PREFILL) {
        while (worker->prefill_next < worker->prefill_end && has_room(worker, connection))
            request_write(worker, connection, worker->now_ns);
    } else if (worker->mode == WORKER_CLOSED) {
        while (has_room(worker, connection))
            request_write(worker, connection, worker->now_ns);
    }
}

/* Open loop: what is due goes to the connections in turn. Full connections leave it due, and its
 * latency running. */
static void issue_due(struct worker *worker)
{
    worker->is_blocked = false;
    while (worker->due_ns <= (double)worker->now_ns) {
        uint32_t tried = 0;
        uint32_t index = worker->next_connection;
        while (tried < worker->connection_count && !has_room(worker, &worker->connections[index])) {
            index = index + 1 < worker->connection_count ? index + 1 : 0;
            tried++;
        }
        worker->is_blocked = tried == worker->connection_count;
        if (worker->is_blocked)
            return;
        request_write(worker, &worker->connections[index], (uint64_t)worker->due_ns);
        mark_dirty(worker, index);
        worker->next_connection = index + 1 < worker->connection_count ? index + 1 : 0;
        worker->due_ns += worker->interval_ns;
    }
}

static void flush(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->dirty_count; i++) {
        uint32_t index = worker->dirty[i];
        struct connection *connection = &worker->connections[index];
        connection->is_dirty = false;
        refill(worker, connection);
        if (connection->is_open && !connection->is_sending && connection->output_size > 0)
            send_start(worker, index);
    }
    worker->dirty_count = 0;
    buffer_pool_publish(&worker->buffers);
    for (uint32_t i = 0; i < worker->parked_count; i++)
        receive_start(worker, worker->parked[i]);
    worker->parked_count = 0;
}

/* Waits until the next request can go: until it is due, or something completes. */
static int wait_until_due(struct worker *worker)
{
    /* Room for what is due comes with a completion only. */
    if (worker->is_blocked)
        return ring_turn(&worker->ring, worker->config->is_busy_poll ? UINT64_MAX : 0);
    double rest_ns = worker->due_ns - (double)clock_now_ns();
    if (rest_ns <= 0) /* it became due since we looked */
        return ring_turn_awake(&worker->ring, 0);
    if (worker->config->is_busy_poll)
        return ring_turn_awake(&worker->ring, (uint64_t)rest_ns);
    return ring_turn_for(&worker->ring, (uint64_t)rest_ns);
}

/* One turn of the loop: submit and wait, take the completions, write and queue new requests. */
static int turn(struct worker *worker)
{
    int error = worker->mode == WORKER_OPEN
                    ? wait_until_due(worker)
                    : ring_turn(&worker->ring, worker->config->is_busy_poll ? UINT64_MAX : 0);
    if (error < 0)
        return error;
    worker->now_ns = clock_now_ns();
    struct io_uring_cqe *cqe;
    unsigned head;
    unsigned count = 0;
    io_uring_for_each_cqe(&worker->ring, head, cqe)
    {
        completion_dispatch(worker, cqe);
        count++;
    }
    io_uring_cq_advance(&worker->ring, count);
    if (worker->mode == WORKER_OPEN)
        issue_due(worker);
    flush(worker);
    return worker->open_count == 0 ? -ENOTCONN : 0;
}

static bool is_stalled(const struct worker *worker)
{
    return worker->outstanding > 0 && worker->now_ns - worker->last_reply_ns > STALL_NS;
}

static void mode_set(struct worker *worker, enum worker_mode mode)
{
    worker->mode = mode;
    worker->now_ns = clock_now_ns();
    worker->last_reply_ns = worker->now_ns;
    for (uint32_t i = 0; i < worker->connection_count; i++)
        mark_dirty(worker, i);
}

/* Turns until nothing is in flight and, when prefilling, nothing is left to send. */
static int finish_outstanding(struct worker *worker)
{
    flush(worker);
    while (worker->outstanding > 0) {
        int error = turn(worker);
        if (error < 0)
            return error;
        if (is_stalled(worker)) {
            fprintf(stderr, "mvload: no reply for %llu s\n", STALL_NS / NANOSECONDS_PER_SECOND);
            worker->tally.lost += worker->outstanding;
            return -ETIMEDOUT;
        }
    }
    return 0;
}

static void tally_reset(struct worker *worker)
{
    memset(&worker->tally, 0, sizeof worker->tally);
    worker->tally.latency_min_ns = UINT64_MAX;
}

static int prefill(struct worker *worker)
{
    if (!worker->config->is_prefill)
        return 0;
    uint32_t depth = worker->depth;
    worker->depth = PREFILL_DEPTH > depth ? PREFILL_DEPTH : depth;
    mode_set(worker, WORKER_PREFILL);
    int error = finish_outstanding(worker);
    worker->depth = depth;
    if (error == 0 && worker->tally.errors + worker->tally.refused + worker->tally.lost > 0)
        error = -EIO;
    if (error < 0)
        fprintf(stderr, "mvload: prefill failed: %s: %s\n", strerror(-error), worker->first_error);
    return error;
}

/* Loads for `seconds`, or until `replies_max` replies came. The tally then stands as of the end of
 * that time. */
static int load_for(struct worker *worker, double seconds, uint64_t replies_max)
{
    uint64_t start_ns = clock_now_ns();
    uint64_t cpu_start_ns = clock_thread_cpu_ns();
    uint64_t end_ns = start_ns + (uint64_t)(seconds * (double)NANOSECONDS_PER_SECOND);
    worker->now_ns = start_ns;
    while (worker->now_ns < end_ns && worker->tally.replies < replies_max) {
        int error = turn(worker);
        if (error < 0)
            return error;
        if (is_stalled(worker)) {
            fprintf(stderr, "mvload: no reply for %llu s\n", STALL_NS / NANOSECONDS_PER_SECOND);
            worker->tally.lost += worker->outstanding;
            return -ETIMEDOUT;
        }
    }
    worker->tally.duration_ns = worker->now_ns - start_ns;
    worker->tally.cpu_ns = clock_thread_cpu_ns() - cpu_start_ns;
    return 0;
}

/* Answers to requests of the measurement that came after its end count for latencies and errors,
 * not for the rate. */
static int drain(struct worker *worker)
{
    uint64_t replies = worker->tally.replies;
    uint64_t gets = worker->tally.gets;
    uint64_t refused = worker->tally.refused;
    if (worker->mode == WORKER_OPEN && worker->due_ns < (double)worker->now_ns)
        worker->tally.unsent =
            (uint64_t)(((double)worker->now_ns - worker->due_ns) / worker->interval_ns) + 1;
    worker->mode = WORKER_DRAIN;
    int error = finish_outstanding(worker);
    worker->tally.replies = replies;
    worker->tally.gets = gets;
    worker->tally.refused = refused;
    return error;
}

static int load(struct worker *worker)
{
    mode_set(worker, worker->config->rate > 0 ? WORKER_OPEN : WORKER_CLOSED);
    /* Threads start out of step, so that their requests are spread evenly. */
    worker->due_ns = (double)worker->now_ns +
                     worker->interval_ns * worker->index / (double)worker->config->threads;
    flush(worker);
    int error = load_for(worker, worker->config->warmup_seconds, UINT64_MAX);
    if (error < 0)
        return error;
    tally_reset(worker);
    error = load_for(worker, worker->config->seconds, worker->replies_max);
    if (error < 0)
        return error;
    return drain(worker);
}

void *worker_run(void *argument)
{
    struct worker *worker = argument;
    if (worker->config->is_pinned)
        (void)cpu_pin(worker->index);
    int error = worker_open(worker);
    if (error == 0)
        error = prefill(worker);
    worker->is_failed |= error < 0;
    (void)pthread_barrier_wait(worker->barrier);
    if (!worker->is_failed && worker->config->seconds > 0) {
        tally_reset(worker);
        error = load(worker);
        if (error < 0)
            fprintf(stderr, "mvload: %s\n", strerror(-error));
        worker->is_failed |= error < 0 || worker->has_strayed;
        if (worker->has_strayed)
            fprintf(stderr, "mvload: --locality: there are no keys of such a shard\n");
    }
    worker_close(worker);
    return NULL;
}
