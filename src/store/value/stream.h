/* What the value files' own files share; nobody else includes this but tests.
 *
 *   stream_pool.c     buffers: who gets one, who waits, who gives back
 *   directory_sync.c  syncs of the partitions' folders, shared by the writers that wait for them
 *   value_writer.c, value_reader.c
 *                     the streams
 *   value_file_name.c names and descriptors
 *
 * A stream is one allocation that begins with a struct stream. It is in pool->streams until it is
 * freed, which happens when nothing of it is in flight and its user has closed it. */
#ifndef MINIVAULT_STORE_STREAM_H
#define MINIVAULT_STORE_STREAM_H

#include "base/assert.h"
#include "base/list.h"
#include "store/value/directory_sync.h"
#include "store/value/stream_pool.h"
#include "store/value/value_file.h"

#define STREAM_PARTITIONS STREAM_FOLDERS_MAX

struct stream;

struct stream_buffer {
    struct list_node node; /* in the pool's free list, or where its stream puts it */
    struct io_op op;
    struct stream *stream; /* NULL: free */
    uint8_t *data;
    uint64_t offset; /* in the file */
    uint32_t size;   /* of the value, in here */
    int32_t result;  /* of a read */
    uint8_t state;   /* the stream's own */
};

/* Called from the loop, by the pool; each may end with an event of the stream's user, after which
 * the stream may be gone. */
struct stream_kind {
    /* The buffer that stream_take did not have. */
    void (*granted)(struct stream *stream, struct stream_buffer *buffer);
    /* What stream_call_later asked for. */
    void (*called)(struct stream *stream);
    /* Somebody waits: gives back, of more than one buffer, what can be done without. Submits and
     * calls nothing. May be NULL. */
    void (*give_back)(struct stream *stream);
};

struct stream {
    struct list_node node;         /* in pool->streams */
    struct list_node waiting_node; /* in pool->waiting: wants a buffer and holds none */
    struct list_node calls_node;   /* in pool->calls */
    struct list_node rich_node;    /* in pool->rich: holds more than one */
    struct stream_pool *pool;
    const struct stream_kind *kind;
    struct io_op op; /* whatever concerns the whole file */
    char *path;      /* behind the stream, in the same allocation */
    int handle;      /* < 0: not open */
    uint32_t owned;  /* buffers */
    bool is_user;    /* counted by stream_pool_streams */
    bool is_sated;   /* will not want a buffer again */
};

/* ---- the pool: stream_pool.c ---- */

struct stream_pool {
    struct io *io;
    const struct log *log;
    char *path;         /* the data directory */
    struct io_op timer; /* due at once: the loop goes on with what waits */
    struct list streams;
    struct list waiting;
    struct list calls;
    struct list rich;
    struct list free_buffers;
    uint32_t user_count;
    uint32_t poor_count; /* streams that hold none and are not sated */
    uint32_t waiting_count;
    uint32_t free_count;
    uint32_t count;
    struct stream_buffer *buffers;
    struct directory directories[STREAM_PARTITIONS];
    char *directory_paths;
};

/* A stream of `size` bytes, zeroed, with the path of `name` and `extra` bytes (*ret_extra) behind
 * it. NULL: no memory. */
struct stream *stream_create(struct stream_pool *pool, const struct stream_kind *kind, size_t size,
                             const struct value_file_name *name, size_t extra, uint8_t **ret_extra);

/* It takes part in sharing the buffers from now on, until stream_leave. */
void stream_join(struct stream *stream);

/* Its user forgot it: neither granted nor called again. It may still hold buffers of operations in
 * flight. */
void stream_leave(struct stream *stream);

/* Holds nothing, has nothing in flight. */
void stream_free(struct stream *stream);

/* A buffer, or NULL; `granted` follows when the stream holds none (a stream that does tries again
 * when something of its own has ended). */
struct stream_buffer *stream_take(struct stream *stream);
void stream_put(struct stream_buffer *buffer);

/* Takes back the wish for a buffer, if there is one. */
void stream_stop_waiting(struct stream *stream);

/* Will not take a buffer again. */
void stream_set_sated(struct stream *stream);

/* `called` follows from the loop. */
void stream_call_later(struct stream *stream);

/* Whether more streams wait than buffers are free. */
static inline bool stream_pool_is_short(const struct stream_pool *pool)
{
    return pool->waiting_count > pool->free_count;
}

static inline struct directory *stream_directory(struct stream_pool *pool, uint8_t partition)
{
    return &pool->directories[partition];
}

#endif
