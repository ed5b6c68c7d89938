/* Decoding of zstd values a slice at a time, so that a large one cannot hold the loop.
 *
 * A job waits its turn for one of a few contexts; each pass gives every running job one slice of
 * DECODE_SLICE_SIZE. A stream has a context for itself, for a frame that is decoded while it
 * arrives: its owner cuts the work into slices. A frame that is whole and small is decoded at once,
 * with a context that nobody holds. */
#ifndef MINIVAULT_STORE_DECODE_H
#define MINIVAULT_STORE_DECODE_H

#include "base/compress.h"
#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

#define DECODE_SLICE_SIZE ((size_t)256 * 1024)
#define DECODE_CONTEXTS 4

struct decode_job;

/* `result` is 0 or decompressor_step's error. `data`, malloc'ed, belongs to the callee when result
 * is 0. */
typedef void decode_done(struct decode_job *job, int result, uint8_t *data, size_t size);

/* Embedded by its owner; in use until done. */
struct decode_job {
    decode_done *done;
    const uint8_t *frame; /* must stay until done */
    size_t frame_size;
    uint64_t decoded_size_max;
    struct decompressor *context; /* NULL: still waiting for one */
    struct list_node node;
};

/* Embedded by its owner; in use from decode_stream_open to decode_stream_close. */
struct decode_stream {
    void (*granted)(struct decode_stream *stream); /* may not close any stream */
    struct decompressor *context;                  /* NULL: still waiting for one, or `error` */
    int error;
    size_t frame_size;
    uint64_t decoded_size_max;
    struct list_node node;
};

struct decode_queue {
    struct decompressor *contexts[DECODE_CONTEXTS]; /* the free ones */
    uint32_t context_count;
    struct decompressor *small; /* of decode_small */
    struct list waiting;
    struct list running;
    struct list streams_waiting;
    uint32_t stream_count; /* that have a context */
    uint32_t streams_max;
};

/* `streams_max`, at least 1, have a context at once. Errors: -ENOMEM. */
int decode_queue_init(struct decode_queue *queue, uint32_t streams_max);

/* Jobs that are still queued are forgotten. */
void decode_queue_deinit(struct decode_queue *queue);

void decode_submit(struct decode_queue *queue, struct decode_job *job);

/* One slice for every running job; runs their `done`. Returns whether jobs are left. */
bool decode_step(struct decode_queue *queue);

/* Decodes at once when that takes no more than one slice. Returns 1 with malloc'ed *ret_data; 0:
 * too much for one slice. Errors: decompressor_step's. */
int decode_small(struct decode_queue *queue, const uint8_t *frame, size_t frame_size,
                 uint64_t decoded_size_max, uint8_t **ret_data, size_t *ret_size);

/* Asks for a context: as many streams have one as decode_queue_init was told, first come, first
 * served. When it is there at once stream->context is set, otherwise `granted` tells, with the
 * context or stream->error (-ENOMEM). Then decompressor_move on the context. */
void decode_stream_open(struct decode_queue *queue, struct decode_stream *stream, size_t frame_size,
                        uint64_t decoded_size_max, void (*granted)(struct decode_stream *stream));

/* In any state, waiting too. May grant others. */
void decode_stream_close(struct decode_queue *queue, struct decode_stream *stream);

#endif
