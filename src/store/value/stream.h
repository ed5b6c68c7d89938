/* What the value files' own files share; nobody else includes this but tests.
 *
 *   stream.c          streams, and their buffers: who gets one, who waits, who gives back
 *   directory_sync.c  syncs of the partitions' folders, shared by the writers that wait for them
 *   value_writer.c, value_reader.c
 *                     what is read and written through them
 *   value_file_name.c names and descriptors
 *
 * A stream is one allocation that begins with a struct stream: one file, and what is on its way to
 * or from it. It is in pool->streams until it is freed: once it has ended, and its user has left
 * it. */
#ifndef MINIVAULT_STORE_STREAM_H
#define MINIVAULT_STORE_STREAM_H

#include "base/list.h"
#include "store/value/directory_sync.h"
#include "store/value/stream_pool.h"
#include "store/value/value_file.h"

struct stream;

/* How an operation on the whole file ended. This and the events of a kind come from the loop; each
 * may end with an event of the stream's user, after which the stream may be gone. Once
 * stream_end was called none comes but what stream_call_later asked for. */
typedef void stream_done(struct stream *stream, int result);

struct stream_kind {
    /* The buffer that stream_take did not have. NULL: what stream_call_later asked for. */
    void (*woken)(struct stream *stream, uint8_t *data);
    /* The buffer was read or written, at this offset. */
    void (*transferred)(struct stream *stream, uint8_t *data, uint64_t offset, int32_t result);
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
    stream_done *done;
    struct directory_waiter directory_waiter;
    char *path;              /* behind the stream, in the same allocation */
    int handle;              /* < 0: not open; -EEXIST: the file is not ours */
    uint32_t owned;          /* buffers */
    uint32_t transfer_count; /* of these, that are being read or written */
    uint8_t partition;
    uint8_t syncs_pending;
    bool is_user;    /* counted by stream_pool_streams */
    bool is_sated;   /* will not want a buffer again */
    bool is_ending;  /* stream_end was called */
    bool is_removed; /* with its file */
    bool is_gone;    /* nothing is left but the memory */
};

struct stream_buffer {
    struct list_node node; /* in the pool's free list */
    struct io_op op;
    struct stream *stream; /* NULL: free */
    uint64_t offset;       /* in the file, of what is being read or written */
};

struct stream_pool {
    struct io *io;
    const struct log *log;
    const char *path;   /* the data directory */
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
    uint8_t *memory; /* of the buffers */
    struct stream_buffer *buffers;
    struct directory directories[STREAM_FOLDERS_MAX];
    char *directory_paths;
};

/* A stream of `size` bytes, zeroed, with the path of `name` and `extra` bytes (*ret_extra) behind
 * it. stream_open or stream_end follows. NULL: no memory. */
struct stream *stream_create(struct stream_pool *pool, const struct stream_kind *kind, size_t size,
                             const struct value_file_name *name, size_t extra, uint8_t **ret_extra);

/* Opens its file, for its user: it takes part in sharing the buffers from now on. */
void stream_open(struct stream *stream, uint32_t flags, stream_done *done);

/* For messages. */
const struct log *stream_log(const struct stream *stream);
const char *stream_path(const struct stream *stream);

/* ---- the file: one operation at a time ---- */

void stream_allocate(struct stream *stream, uint64_t size, stream_done *done);
void stream_truncate(struct stream *stream, uint64_t size, stream_done *done);

/* The file and, at the same time, its folder, so that they share the file system's commit. */
void stream_sync(struct stream *stream, stream_done *done);

/* Puts an end to it: what is in flight ends first, then the file is closed, and with `removes`
 * removed, unless it is not ours. Its user gives back the buffers that are not in flight. */
void stream_end(struct stream *stream, bool removes);

/* Its user forgets it, which must have ended it: frees it as soon as that is done. */
void stream_leave(struct stream *stream);

/* ---- buffers ---- */

/* A buffer, or NULL; `woken` follows when the stream holds none (a stream that does tries again
 * when something of its own has ended). */
uint8_t *stream_take(struct stream *stream);
void stream_put(struct stream *stream, const uint8_t *data);

/* `transferred` follows. */
void stream_read(struct stream *stream, uint8_t *data, uint32_t size, uint64_t offset);
void stream_write(struct stream *stream, uint8_t *data, uint32_t size, uint64_t offset);

/* Will not take a buffer again, and waits for none. */
void stream_set_sated(struct stream *stream);

/* `woken` follows from the loop. */
void stream_call_later(struct stream *stream);

/* Whether more streams wait than buffers are free. */
bool stream_is_short(const struct stream *stream);

#endif
