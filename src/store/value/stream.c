/* Streams, and their buffers: who gets one, who waits, who gives back. The rules stand in
 * stream_pool.h. A stream's way:
 *
 *   created -> opening -> open -> ending -> [closing ->] [removing ->] gone -> freed
 *
 * Invariants:
 * 1. A buffer is free, or a stream's: free_count are free.
 * 2. poor_count streams hold no buffer and are not sated; user_count were not closed.
 * 3. A stream waits only while it holds no buffer, is not sated and has a user.
 * 4. A stream is rich while it holds more than one buffer.
 * 5. Its file is closed and removed only when nothing of it is in flight. */
#include "store/value/stream.h"

#include "base/assert.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIRECTORY_NAME_SIZE sizeof("/xx")

/* ---- creating ---- */

static int init_directories(struct stream_pool *pool)
{
    size_t size = strlen(pool->path) + DIRECTORY_NAME_SIZE;
    pool->directory_paths = malloc(size * STREAM_FOLDERS_MAX);
    if (pool->directory_paths == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < STREAM_FOLDERS_MAX; i++) {
        char *path = pool->directory_paths + size * i;
        (void)snprintf(path, size, "%s/%02x", pool->path, i);
        directory_init(&pool->directories[i], pool->io, path, &pool->streams);
    }
    return 0;
}

static int init_buffers(struct stream_pool *pool)
{
    pool->buffers = calloc(pool->count, sizeof *pool->buffers);
    if (pool->buffers == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < pool->count; i++)
        list_push_back(&pool->free_buffers, &pool->buffers[i].node);
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
    pool->path = path;
    pool->count = count;
    pool->memory = memory;
    pool->timer.done = go_on;
    list_init(&pool->streams);
    list_init(&pool->waiting);
    list_init(&pool->calls);
    list_init(&pool->rich);
    list_init(&pool->free_buffers);
    if (init_directories(pool) < 0 || init_buffers(pool) < 0) {
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
    for (uint32_t i = 0; i < STREAM_FOLDERS_MAX; i++) {
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
    stream->partition = name->partition;
    stream->is_sated = true;
    stream->path = (char *)stream + size + extra;
    memcpy(stream->path, pool->path, path_size - VALUE_FILE_NAME_SIZE);
    value_file_name_write(name, stream->path + path_size - VALUE_FILE_NAME_SIZE);
    list_push_back(&pool->streams, &stream->node);
    if (ret_extra != NULL)
        *ret_extra = (uint8_t *)stream + size;
    return stream;
}

const struct log *stream_log(const struct stream *stream)
{
    return stream->pool->log;
}

const char *stream_path(const struct stream *stream)
{
    return stream->path;
}

/* ---- their end ---- */

static void free_stream(struct stream *stream)
{
    assert(stream->owned == 0);
    assert(!io_op_is_active(&stream->op));
    struct stream_pool *pool = stream->pool;
    list_remove(&stream->node);
    free(stream);
    for (uint32_t i = 0; list_is_empty(&pool->streams) && i < STREAM_FOLDERS_MAX; i++)
        directory_close(&pool->directories[i]);
}

static void become_gone(struct stream *stream)
{
    stream->is_gone = true;
    if (!stream->is_user)
        free_stream(stream);
}

static void removed(struct io_op *op, int32_t result)
{
    struct stream *stream = container_of(op, struct stream, op);
    if (result < 0 && result != -ENOENT)
        log_warn(stream->pool->log, "%s: removing it failed: %s; the next start tries again",
                 stream->path, strerror(-result));
    become_gone(stream);
}

static void closed(struct io_op *op, int32_t result);

/* Goes on once nothing is in flight. */
static void go_on_ending(struct stream *stream)
{
    assert(stream->is_ending);
    if (stream->transfer_count > 0 || io_op_is_active(&stream->op)) /* invariant 5 */
        return;
    if (stream->handle >= 0) {
        stream->op.done = closed;
        io_close_file(stream->pool->io, &stream->op, stream->handle);
    } else if (stream->is_removed && stream->handle != -EEXIST) {
        stream->op.done = removed;
        io_unlink(stream->pool->io, &stream->op, stream->path);
    } else {
        become_gone(stream);
    }
}

static void closed(struct io_op *op, int32_t result)
{
    struct stream *stream = container_of(op, struct stream, op);
    (void)result;
    stream->handle = -1;
    go_on_ending(stream);
}

void stream_end(struct stream *stream, bool removes)
{
    assert(!stream->is_ending);
    stream->is_ending = true;
    stream->is_removed = removes;
    stream_set_sated(stream);
    directory_forget(&stream->directory_waiter);
    go_on_ending(stream);
}

void stream_leave(struct stream *stream)
{
    assert(stream->is_user);
    assert(stream->is_ending);
    stream->is_user = false;
    stream->pool->user_count--;
    if (list_node_is_linked(&stream->calls_node))
        list_remove(&stream->calls_node);
    if (stream->is_gone)
        free_stream(stream);
}

/* ---- their files ---- */

static void end_operation(struct stream *stream, int result)
{
    if (stream->is_ending)
        go_on_ending(stream);
    else
        stream->done(stream, result);
}

static void operation_done(struct io_op *op, int32_t result)
{
    end_operation(container_of(op, struct stream, op), result);
}

static void open_done(struct io_op *op, int32_t result)
{
    struct stream *stream = container_of(op, struct stream, op);
    stream->handle = result;
    end_operation(stream, result);
}

void stream_open(struct stream *stream, uint32_t flags, stream_done *done)
{
    assert(!stream->is_user);
    stream->is_user = true;
    stream->is_sated = false;
    stream->pool->user_count++;
    stream->pool->poor_count++;
    stream->done = done;
    stream->op.done = open_done;
    io_open_file(stream->pool->io, &stream->op, stream->path, flags | IO_OPEN_DIRECT);
}

void stream_allocate(struct stream *stream, uint64_t size, stream_done *done)
{
    stream->done = done;
    stream->op.done = operation_done;
    io_allocate(stream->pool->io, &stream->op, stream->handle, size);
}

void stream_truncate(struct stream *stream, uint64_t size, stream_done *done)
{
    stream->done = done;
    stream->op.done = operation_done;
    io_truncate(stream->pool->io, &stream->op, stream->path, size);
}

/* Of the file or of its folder. The first error is told, or that both are synced. */
static void end_sync(struct stream *stream, int result)
{
    assert(stream->syncs_pending > 0);
    stream->syncs_pending--;
    if (result < 0 || stream->syncs_pending == 0 || stream->is_ending)
        end_operation(stream, result);
}

static void sync_done(struct io_op *op, int32_t result)
{
    end_sync(container_of(op, struct stream, op), result);
}

static void directory_done(struct directory_waiter *waiter, int result)
{
    end_sync(container_of(waiter, struct stream, directory_waiter), result);
}

void stream_sync(struct stream *stream, stream_done *done)
{
    stream->done = done;
    stream->syncs_pending = 2;
    stream->op.done = sync_done;
    io_sync(stream->pool->io, &stream->op, stream->handle);
    directory_sync(&stream->pool->directories[stream->partition], &stream->directory_waiter,
                   directory_done);
}

/* ---- buffers ---- */

static void wake(struct stream_pool *pool)
{
    if (!io_op_is_active(&pool->timer))
        io_timer(pool->io, &pool->timer, io_now_ns(pool->io));
}

static uint8_t *data_of(const struct stream_pool *pool, const struct stream_buffer *buffer)
{
    return pool->memory + (size_t)(buffer - pool->buffers) * VALUE_FILE_BUFFER_SIZE;
}

static struct stream_buffer *buffer_of(const struct stream *stream, const uint8_t *data)
{
    size_t offset = (size_t)(data - stream->pool->memory);
    struct stream_buffer *buffer = &stream->pool->buffers[offset / VALUE_FILE_BUFFER_SIZE];
    assert(offset % VALUE_FILE_BUFFER_SIZE == 0);
    assert(buffer->stream == stream); /* invariant 1 */
    return buffer;
}

static uint8_t *give(struct stream *stream)
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
    if (stream->owned++ == 0) {
        assert(pool->poor_count > 0); /* invariant 2 */
        pool->poor_count--;
    }
    if (stream->owned == 2)
        list_push_back(&pool->rich, &stream->rich_node);
    return data_of(pool, buffer);
}

bool stream_is_short(const struct stream *stream)
{
    return stream->pool->waiting_count > stream->pool->free_count;
}

/* Rule 3. */
static void take_back(struct stream_pool *pool)
{
    struct list_node *node = list_first(&pool->rich);
    while (node != NULL) {
        struct stream *stream = container_of(node, struct stream, rich_node);
        if (!stream_is_short(stream))
            return;
        node = list_next(&pool->rich, node); /* the stream may leave the list, others do not */
        if (stream->kind->give_back != NULL)
            stream->kind->give_back(stream);
    }
}

uint8_t *stream_take(struct stream *stream)
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

void stream_put(struct stream *stream, const uint8_t *data)
{
    struct stream_pool *pool = stream->pool;
    struct stream_buffer *buffer = buffer_of(stream, data);
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

static void transfer_done(struct io_op *op, int32_t result)
{
    struct stream_buffer *buffer = container_of(op, struct stream_buffer, op);
    struct stream *stream = buffer->stream;
    uint8_t *data = data_of(stream->pool, buffer);
    stream->transfer_count--;
    if (stream->is_ending) {
        stream_put(stream, data);
        go_on_ending(stream);
    } else {
        stream->kind->transferred(stream, data, buffer->offset, result);
    }
}

static struct io_op *begin_transfer(struct stream *stream, const uint8_t *data, uint64_t offset)
{
    struct stream_buffer *buffer = buffer_of(stream, data);
    assert(!stream->is_ending);
    stream->transfer_count++;
    buffer->offset = offset;
    buffer->op.done = transfer_done;
    return &buffer->op;
}

void stream_read(struct stream *stream, uint8_t *data, uint32_t size, uint64_t offset)
{
    io_read(stream->pool->io, begin_transfer(stream, data, offset), stream->handle, data, size,
            offset);
}

void stream_write(struct stream *stream, uint8_t *data, uint32_t size, uint64_t offset)
{
    io_write(stream->pool->io, begin_transfer(stream, data, offset), stream->handle, data, size,
             offset, IO_WRITE_PLAIN);
}

static void stop_waiting(struct stream *stream)
{
    assert(stream->owned == 0); /* invariant 3 */
    list_remove(&stream->waiting_node);
    stream->pool->waiting_count--;
}

void stream_set_sated(struct stream *stream)
{
    if (list_node_is_linked(&stream->waiting_node))
        stop_waiting(stream);
    if (stream->is_sated)
        return;
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
        stream->kind->woken(stream, NULL);
    }
}

/* At most as many as there are buffers: what an event gives back at once serves the next pass. */
static void run_grants(struct stream_pool *pool)
{
    for (uint32_t i = 0; i < pool->count && pool->waiting_count > 0 && pool->free_count > 0; i++) {
        struct stream *stream =
            container_of(list_first(&pool->waiting), struct stream, waiting_node);
        stop_waiting(stream);
        stream->kind->woken(stream, give(stream));
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
