/* Decoding of zstd values a slice at a time, so that a large one cannot hold the loop.
 *
 * A job waits its turn for one of a few contexts; each pass gives every running job one slice of
 * DECODE_SLICE_SIZE. */
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

/* Embedded by its owner; in use until done or decode_cancel. */
struct decode_job {
    decode_done *done;
    const uint8_t *frame; /* must stay until done */
    size_t frame_size;
    uint64_t decoded_size_max;
    struct decompressor *context; /* NULL: still waiting for one */
    struct list_node node;
};

struct decode_queue {
    struct decompressor *contexts[DECODE_CONTEXTS]; /* the free ones */
    uint32_t context_count;
    struct list waiting;
    struct list running;
};

int decode_queue_init(struct decode_queue *queue);

/* Jobs that are still queued are forgotten. */
void decode_queue_deinit(struct decode_queue *queue);

void decode_submit(struct decode_queue *queue, struct decode_job *job);
void decode_cancel(struct decode_queue *queue, struct decode_job *job);

/* One slice for every running job; runs their `done`. Returns whether jobs are left. */
bool decode_step(struct decode_queue *queue);

/* Decodes at once when that takes no more than one slice. Returns 1 with malloc'ed *ret_data; 0:
 * too much for one slice or no context is free, submit a job. Errors: decompressor_step's. */
int decode_small(struct decode_queue *queue, const uint8_t *frame, size_t frame_size,
                 uint64_t decoded_size_max, uint8_t **ret_data, size_t *ret_size);

#endif
