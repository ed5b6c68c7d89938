/* Who has a context to decode with, and who waits for one.
 *
 * Invariants:
 * 1. A job that runs has a context, one that waits has none.
 * 2. Contexts are free or a running job's.
 * 3. Nobody waits for a context while one is free: start_waiting, decode_stream_close.
 * 4. At most streams_max streams have a context. */
#include "store/record/decode.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>

int decode_queue_init(struct decode_queue *queue, uint32_t streams_max)
{
    assert(streams_max > 0);
    *queue = (struct decode_queue){.streams_max = streams_max};
    list_init(&queue->waiting);
    list_init(&queue->running);
    list_init(&queue->streams_waiting);
    int result = decompressor_create(&queue->small);
    if (result < 0)
        return result;
    for (uint32_t i = 0; i < DECODE_CONTEXTS; i++) {
        result = decompressor_create(&queue->contexts[i]);
        if (result < 0) {
            decode_queue_deinit(queue);
            return result;
        }
        queue->context_count++;
    }
    return 0;
}

void decode_queue_deinit(struct decode_queue *queue)
{
    for (struct list_node *node; (node = list_pop_front(&queue->running)) != NULL;)
        decompressor_free(container_of(node, struct decode_job, node)->context);
    while (list_pop_front(&queue->waiting) != NULL)
        ;
    while (list_pop_front(&queue->streams_waiting) != NULL)
        ;
    for (uint32_t i = 0; i < queue->context_count; i++)
        decompressor_free(queue->contexts[i]);
    queue->context_count = 0;
    decompressor_free(queue->small);
    queue->small = NULL;
}

static void start_waiting(struct decode_queue *queue)
{
    while (queue->context_count > 0 && !list_is_empty(&queue->waiting)) {
        struct decode_job *job =
            container_of(list_pop_front(&queue->waiting), struct decode_job, node);
        assert(job->context == NULL); /* invariant 1 */
        job->context = queue->contexts[--queue->context_count];
        decompressor_begin(job->context, job->frame, job->frame_size, job->decoded_size_max);
        list_push_back(&queue->running, &job->node);
    }
}

static void give_back(struct decode_queue *queue, struct decompressor *context)
{
    assert(queue->context_count < DECODE_CONTEXTS);
    queue->contexts[queue->context_count++] = context;
}

void decode_submit(struct decode_queue *queue, struct decode_job *job)
{
    job->context = NULL;
    list_push_back(&queue->waiting, &job->node);
    start_waiting(queue);
}

static void finish(struct decode_queue *queue, struct decode_job *job, int result)
{
    struct decompressor *context = job->context;
    assert(context != NULL); /* invariant 1 */
    size_t size = 0;
    uint8_t *data = result == 1 ? decompressor_take(context, &size) : NULL;
    list_remove(&job->node);
    job->context = NULL;
    give_back(queue, context);
    job->done(job, result == 1 ? 0 : result, data, size);
}

bool decode_step(struct decode_queue *queue)
{
    /* Jobs leave and join the list meanwhile, so it is walked by count, from its front to its back. */
    for (uint32_t i = 0; i < DECODE_CONTEXTS && !list_is_empty(&queue->running); i++) {
        struct list_node *node = list_pop_front(&queue->running);
        list_push_back(&queue->running, node);
        struct decode_job *job = container_of(node, struct decode_job, node);
        int result = decompressor_step(job->context, DECODE_SLICE_SIZE);
        if (result != 0)
            finish(queue, job, result);
    }
    start_waiting(queue);
    return !list_is_empty(&queue->running);
}

int decode_small(struct decode_queue *queue, const uint8_t *frame, size_t frame_size,
                 uint64_t decoded_size_max, uint8_t **ret_data, size_t *ret_size)
{
    struct decompressor *context = queue->small;
    decompressor_begin(context, frame, frame_size, decoded_size_max);
    /* A frame may be a little larger than what it holds. */
    int result = decompressor_step(context, DECODE_SLICE_SIZE + DECODE_SLICE_SIZE / 64);
    if (result == 1)
        *ret_data = decompressor_take(context, ret_size);
    return result;
}

/* ---- streams: a context is made for each, so that a large window goes when its stream does ----
 */

static void grant(struct decode_queue *queue, struct decode_stream *stream)
{
    stream->error = decompressor_create(&stream->context);
    if (stream->error < 0)
        return;
    queue->stream_count++;
    assert(queue->stream_count <= queue->streams_max); /* invariant 4 */
    decompressor_begin_moving(stream->context, stream->frame_size, stream->decoded_size_max);
}

void decode_stream_open(struct decode_queue *queue, struct decode_stream *stream, size_t frame_size,
                        uint64_t decoded_size_max, void (*granted)(struct decode_stream *stream))
{
    *stream = (struct decode_stream){
        .granted = granted, .frame_size = frame_size, .decoded_size_max = decoded_size_max};
    if (queue->stream_count < queue->streams_max && list_is_empty(&queue->streams_waiting))
        grant(queue, stream);
    else
        list_push_back(&queue->streams_waiting, &stream->node);
}

void decode_stream_close(struct decode_queue *queue, struct decode_stream *stream)
{
    if (list_node_is_linked(&stream->node))
        list_remove(&stream->node);
    if (stream->context != NULL) {
        assert(queue->stream_count > 0);
        queue->stream_count--;
        decompressor_free(stream->context);
        stream->context = NULL;
    }
    while (queue->stream_count < queue->streams_max && !list_is_empty(&queue->streams_waiting)) {
        struct decode_stream *next =
            container_of(list_pop_front(&queue->streams_waiting), struct decode_stream, node);
        grant(queue, next);
        next->granted(next);
    }
}
