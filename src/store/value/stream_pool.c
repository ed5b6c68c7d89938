/* Buffers: who gets one, who waits, who gives back. The rules stand in stream_pool.h.
 *
 * Invariants:
 * 1. A buffer is free, or a stream's: free_count are free.
 * 2. poor_count streams hold no buffer and are not sated; user_count were not closed.
 * 3. A stream waits only while it holds no buffer, is not sated and has a user.
 * 4. A stream is rich while it holds more than one buffer. */
#include "store/value/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIRECTORY_NAME_SIZE sizeof("/xx")

/* ---- creating ---- */

static int init_directories(struct stream_pool *pool)
{
    size_t size = strlen(pool->path) + DIRECTORY_NAME_SIZE;
    pool->directory_paths = malloc(size * STREAM_PARTITIONS);
    if (pool->directory_paths == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < STREAM_PARTITIONS; i++) {
        char *path = pool->directory_paths + size * i;
        (void)snprintf(path, size, "%s/%02x", pool->path, i);
        directory_init(&pool->directories[i], pool->io, path, &pool->streams);
    }
    return 0;
}

static int init_buffers(struct stream_pool *pool, uint8_t *memory)
{
    pool->buffers = calloc(pool->count, sizeof *pool->buffers);
    if (pool->buffers == NULL)
        return -ENOMEM;
    for (uint32_t i = pool->count; i > 0; i--) {
        struct stream_buffer *buffer = &pool->buffers[i - 1];
        buffer->data = memory + (size_t)(i - 1) * VALUE_FILE_BUFFER_SIZE;
        list_push_front(&pool->free_buffers, &buffer->node);
    }
    pool->free_count = pool->count;
    return 0;
}

static void go_on(struct io_op *op, int32_t result);

int stream_pool_create(struct io *io, const struct log *log, const char *path, uint8_t *memory,
                       uint32_t count, struct stream_pool **ret_pool)
{
    assert(count > 0);
    assert((uintptr_t)memory % DISK_BLOCK_SIZE == 0);
    struct stream_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return -ENOMEM;
    pool->io = io;
    pool->log = log;
    pool->path = strdup(path);
    pool->count = count;
    pool->timer.done = go_on;
    list_init(&pool->streams);
    list_init(&pool->waiting);
    list_init(&pool->calls);
    list_init(&pool->rich);
    list_init(&pool->free_buffers);
    if (pool->path == NULL || init_directories(pool) < 0 || init_buffers(pool, memory) < 0) {
        stream_pool_free(pool);
        return -ENOMEM;
    }
    *ret_pool = pool;
    return 0;
}

void stream_pool_free(struct stream_pool *pool)
{
    struct list_node *node;
    while ((node = list_pop_front(&pool->streams)) != NULL)
        free(container_of(node, struct stream, node));
    free(pool->buffers);
    free(pool->directory_paths);
    free(pool->path);
    free(pool);
}

uint32_t stream_pool_streams(const struct stream_pool *pool)
{
    return pool->user_count;
}

bool stream_pool_is_busy(const struct stream_pool *pool)
{
    if (!list_is_empty(&pool->streams) || io_op_is_active(&pool->timer))
        return true;
    for (uint32_t i = 0; i < STREAM_PARTITIONS; i++) {
        if (directory_is_busy(&pool->directories[i]))
            return true;
    }
    return false;
}

/* ---- streams ---- */

struct stream *stream_create(struct stream_pool *pool, const struct stream_kind *kind, size_t size,
                             const struct value_file_name *name, size_t extra, uint8_t **ret_extra)
{
    size_t path_size = strlen(pool->path) + VALUE_FILE_NAME_SIZE;
    struct stream *stream = calloc(1, size + extra + path_size);
    if (stream == NULL)
        return NULL;
    stream->pool = pool;
    stream->kind = kind;
    stream->handle = -1;
    stream->path = (char *)stream + size + extra;
    memcpy(stream->path, pool->path, path_size - VALUE_FILE_NAME_SIZE);
    value_file_name_write(name, stream->path + path_size - VALUE_FILE_NAME_SIZE);
    list_push_back(&pool->streams, &stream->node);
    if (ret_extra != NULL)
        *ret_extra = (uint8_t *)stream + size;
    return stream;
}

void stream_join(struct stream *stream)
{
    assert(!stream->is_user);
    stream->is_user = true;
    stream->pool->user_count++;
    stream->pool->poor_count++;
}

void stream_leave(struct stream *stream)
{
    assert(stream->is_user);
    stream->is_user = false;
    stream->pool->user_count--;
    stream_stop_waiting(stream);
    stream_set_sated(stream);
    if (list_node_is_linked(&stream->calls_node))
        list_remove(&stream->calls_node);
}

void stream_free(struct stream *stream)
{
    assert(!stream->is_user);
    assert(stream->owned == 0);
    assert(!io_op_is_active(&stream->op));
    struct stream_pool *pool = stream->pool;
    list_remove(&stream->node);
    free(stream);
    for (uint32_t i = 0; list_is_empty(&pool->streams) && i < STREAM_PARTITIONS; i++)
        directory_close(&pool->directories[i]);
}

/* ---- buffers ---- */

static void wake(struct stream_pool *pool)
{
    if (!io_op_is_active(&pool->timer))
        io_timer(pool->io, &pool->timer, io_now_ns(pool->io));
}

static struct stream_buffer *give(struct stream *stream)
{
    struct stream_pool *pool = stream->pool;
    struct stream_buffer *buffer =
        container_of(list_pop_front(&pool->free_buffers), struct stream_buffer, node);
    assert(buffer->stream == NULL); /* invariant 1 */
    assert(!stream->is_sated);
    assert(pool->free_count > 0); /* invariant 1 */
    assert(stream->owned < STREAM_BUFFERS_MAX);
    pool->free_count--;
    buffer->stream = stream;
    buffer->size = 0;
    buffer->state = 0;
    if (stream->owned++ == 0) {
        assert(pool->poor_count > 0); /* invariant 2 */
        pool->poor_count--;
    }
    if (stream->owned == 2)
        list_push_back(&pool->rich, &stream->rich_node);
    return buffer;
}

/* Rule 3. */
static void take_back(struct stream_pool *pool)
{
    struct list_node *node = list_first(&pool->rich);
    while (node != NULL && stream_pool_is_short(pool)) {
        struct stream *stream = container_of(node, struct stream, rich_node);
        node = list_next(&pool->rich, node); /* the stream may leave the list, others do not */
        if (stream->kind->give_back != NULL)
            stream->kind->give_back(stream);
    }
}

struct stream_buffer *stream_take(struct stream *stream)
{
    struct stream_pool *pool = stream->pool;
    if (list_node_is_linked(&stream->waiting_node))
        return NULL;
    if (stream->owned > 0) {
        bool is_allowed = stream->owned < STREAM_BUFFERS_MAX && pool->waiting_count == 0 &&
                          pool->free_count > pool->poor_count;
        return is_allowed ? give(stream) : NULL;
    }
    if (pool->free_count > 0 && pool->waiting_count == 0)
        return give(stream);
    assert(stream->is_user);   /* invariant 3 */
    assert(!stream->is_sated); /* invariant 3 */
    list_push_back(&pool->waiting, &stream->waiting_node);
    pool->waiting_count++;
    take_back(pool);
    return NULL;
}

void stream_put(struct stream_buffer *buffer)
{
    struct stream *stream = buffer->stream;
    struct stream_pool *pool = stream->pool;
    assert(stream->owned > 0);
    assert(!io_op_is_active(&buffer->op));
    if (--stream->owned == 1)
        list_remove(&stream->rich_node);
    if (stream->owned == 0 && !stream->is_sated)
        pool->poor_count++;
    buffer->stream = NULL;
    list_push_front(&pool->free_buffers, &buffer->node);
    pool->free_count++;
    assert(pool->free_count <= pool->count); /* invariant 1 */
    if (pool->waiting_count > 0)
        wake(pool);
}

void stream_stop_waiting(struct stream *stream)
{
    if (!list_node_is_linked(&stream->waiting_node))
        return;
    assert(stream->owned == 0); /* invariant 3 */
    list_remove(&stream->waiting_node);
    stream->pool->waiting_count--;
}

void stream_set_sated(struct stream *stream)
{
    if (stream->is_sated)
        return;
    assert(!list_node_is_linked(&stream->waiting_node));
    stream->is_sated = true;
    if (stream->owned == 0)
        stream->pool->poor_count--;
}

void stream_call_later(struct stream *stream)
{
    if (list_node_is_linked(&stream->calls_node))
        return;
    list_push_back(&stream->pool->calls, &stream->calls_node);
    wake(stream->pool);
}

/* ---- the loop ---- */

/* Calls may ask for calls: those are the next pass's. */
static void run_calls(struct stream_pool *pool)
{
    struct list_node *node;
    for (uint32_t i = pool->user_count; i > 0; i--) {
        if ((node = list_pop_front(&pool->calls)) == NULL)
            break;
        struct stream *stream = container_of(node, struct stream, calls_node);
        stream->kind->called(stream);
    }
}

/* At most as many as there are buffers: what an event gives back at once serves the next pass. */
static void run_grants(struct stream_pool *pool)
{
    for (uint32_t i = 0; i < pool->count && pool->waiting_count > 0 && pool->free_count > 0; i++) {
        struct stream *stream =
            container_of(list_first(&pool->waiting), struct stream, waiting_node);
        stream_stop_waiting(stream);
        stream->kind->granted(stream, give(stream));
    }
}

static void go_on(struct io_op *op, int32_t result)
{
    struct stream_pool *pool = container_of(op, struct stream_pool, timer);
    if (result < 0)
        return;
    run_calls(pool);
    run_grants(pool);
    if (!list_is_empty(&pool->calls) || (pool->waiting_count > 0 && pool->free_count > 0))
        wake(pool);
}
