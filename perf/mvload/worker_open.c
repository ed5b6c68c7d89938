/* Opens and closes a client thread: its ring, its connections and its share of the work. */
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING_ENTRIES 1024
#define BUFFER_SIZE 16384
#define BUFFER_COUNT_MIN 64
#define BUFFER_COUNT_MAX 4096

/* The n-th of `count` nearly equal parts of `total` starts here. */
static uint64_t share_start(uint64_t total, uint64_t n, uint64_t count)
{
    return (uint64_t)((unsigned __int128)total * n / count);
}

void worker_init(struct worker *worker, const struct config *config, uint32_t index,
                 pthread_barrier_t *barrier)
{
    memset(worker, 0, sizeof *worker);
    worker->config = config;
    worker->index = index;
    worker->barrier = barrier;
    uint64_t threads = config->threads;
    worker->connection_count = (uint32_t)(share_start(config->connections, index + 1, threads) -
                                          share_start(config->connections, index, threads));
    worker->prefill_next = share_start(config->keys, index, threads);
    worker->prefill_end = share_start(config->keys, index + 1, threads);
    worker->insert_next = config->first_insert + index;
    worker->replies_max = config->requests == 0 ? UINT64_MAX : config->requests / threads;
    worker->depth = (uint32_t)config->depth;
    worker->prng.state = config->seed * 0x9E3779B97F4A7C15u + index;
    worker->prng.state = prng_next(&worker->prng); /* neighbouring seeds are far apart */
    worker->interval_ns = config->rate > 0 ? 1e9 * (double)threads / config->rate : 0;
    worker->tally.latency_min_ns = UINT64_MAX;
    key_prepare(&config->key_space, worker->key);
}

static int allocate(struct worker *worker)
{
    worker->connections = calloc(worker->connection_count, sizeof *worker->connections);
    worker->dirty = calloc(worker->connection_count, sizeof *worker->dirty);
    worker->parked = calloc(worker->connection_count, sizeof *worker->parked);
    if (worker->connections == NULL || worker->dirty == NULL || worker->parked == NULL)
        return -ENOMEM;
    return 0;
}

static int connect_all(struct worker *worker)
{
    const struct config *config = worker->config;
    uint32_t depth_max = worker->depth > PREFILL_DEPTH ? worker->depth : PREFILL_DEPTH;
    int *files = calloc(worker->connection_count, sizeof *files);
    if (files == NULL)
        return -ENOMEM;
    int error = 0;
    for (uint32_t i = 0; i < worker->connection_count && error == 0; i++) {
        error = connection_open(&worker->connections[i], config, depth_max);
        files[i] = worker->connections[i].socket;
        worker->open_count += error == 0;
    }
    if (error < 0)
        fprintf(stderr, "mvload: %s:%llu: %s\n", config->host, (unsigned long long)config->port,
                strerror(-error));
    else
        error = io_uring_register_files(&worker->ring, files, worker->connection_count);
    free(files);
    return error;
}

int worker_open(struct worker *worker)
{
    int error = allocate(worker);
    if (error < 0)
        return error;
    error = ring_open(&worker->ring, RING_ENTRIES);
    if (error < 0) {
        fprintf(stderr, "mvload: %s\n", ring_explain(error));
        return error;
    }
    /* Few buffers, used again soon, stay in the cache. */
    uint32_t buffer_count = BUFFER_COUNT_MIN;
    while (buffer_count < 2 * worker->connection_count && buffer_count < BUFFER_COUNT_MAX)
        buffer_count *= 2;
    error = buffer_pool_open(&worker->buffers, &worker->ring, buffer_count, BUFFER_SIZE);
    if (error < 0) {
        fprintf(stderr, "mvload: receive buffers: %s\n", strerror(-error));
        return error;
    }
    error = connect_all(worker);
    if (error < 0)
        return error;
    worker_start(worker);
    return 0;
}

void worker_close(struct worker *worker)
{
    if (worker->buffers.memory != NULL)
        io_uring_queue_exit(&worker->ring);
    for (uint32_t i = 0; worker->connections != NULL && i < worker->connection_count; i++)
        connection_close(&worker->connections[i]);
    if (worker->buffers.memory != NULL)
        buffer_pool_close(&worker->buffers);
    free(worker->connections);
    free(worker->dirty);
    free(worker->parked);
}
