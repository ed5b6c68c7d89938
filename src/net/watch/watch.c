/* A shard's numbers are copied from where they are counted into its metrics: each tick, and when
 * somebody asks; that looks at no more than a few structs. What is told of the node is made of the
 * metrics of all shards, which any thread may read. */
#include "net/watch/watch.h"

#include "base/assert.h"
#include "base/units.h"
#include "minivault/protocol.h"

#include <stdio.h>
#include <stdlib.h>

#ifndef MINIVAULT_VERSION
#define MINIVAULT_VERSION "unknown"
#endif

void watch_begin(struct watch *watch)
{
    assert(watch->shard < watch->shard_count);
    watch->started_ns = io_now_ns(watch->io);
    watch->shards[watch->shard] = &watch->metrics;
}

static void copy_values(struct metrics *metrics, const struct shard_report *report)
{
#define METRIC(id, name, type, merge, health, source, help)                                        \
    metrics_set(metrics, METRICS_##id, source);
#define COUNTED(id, ...)
#include "net/watch/metrics_table.h"
}

void watch_publish(struct watch *watch)
{
    struct metrics *metrics = &watch->metrics;
    struct shard_report report = {.now_ns = io_now_ns(watch->io)};
    watch->source.report(watch->source.context, &report);
    io_counts(watch->io, &report.ring);
    report.uptime_s = (report.now_ns - watch->started_ns) / NS_PER_S;
    copy_values(metrics, &report);
    atomic_store_explicit(&metrics->mover_phase, report.store.mover.phase, memory_order_relaxed);
    atomic_store_explicit(&metrics->mover_job, report.store.mover.job, memory_order_relaxed);
}

uint64_t watch_value(const struct watch *watch, enum metrics_value which)
{
    return metrics_merged(watch->shards, watch->shard_count, which);
}

/* Published anew. */
static struct metrics_node describe_node(struct watch *watch)
{
    struct metrics_node described = {.version = MINIVAULT_VERSION};
    watch->source.describe(watch->source.context, &described);
    watch_publish(watch);
    return described;
}

uint32_t stats_text(struct watch *watch, char *buffer)
{
    struct metrics_node described = describe_node(watch);
    return metrics_json(watch->shards, watch->shard_count, &described, buffer);
}

uint32_t health_text(struct watch *watch, char *buffer)
{
    struct metrics_node described = describe_node(watch);
    return metrics_health(watch->shards, watch->shard_count, watch->shard, &described, buffer);
}

uint32_t hello_text(const struct watch *watch, char *buffer)
{
    int size =
        snprintf(buffer, HELLO_TEXT_MAX,
                 "{\"server\":\"minivault\",\"version\":\"%s\",\"shards\":%u,\"shard\":%u,"
                 "\"limits\":{\"key_bytes\":%u,\"value_bytes\":%u,\"connections\":%u,"
                 "\"pipeline_bytes\":%u},\"features\":[\"typed-status\",\"zstd\",\"stats\"]}",
                 MINIVAULT_VERSION, watch->shard_count, watch->shard, MINIVAULT_KEY_SIZE_MAX,
                 watch->limits.value_size_max, watch->limits.connections_max,
                 watch->limits.pipeline_bytes_max);
    assert(size > 0);
    assert((uint32_t)size < HELLO_TEXT_MAX);
    return (uint32_t)size;
}

#define TEXT_STEP (64 * KIB)

/* All pieces of the text, in memory that grows as they come. Returns NULL: no memory. */
static uint8_t *collect(struct metrics_text *text, size_t offset, size_t *ret_size)
{
    uint8_t *memory = NULL;
    size_t size = 0, room = 0;
    for (;;) {
        if (offset + size == room || memory == NULL) {
            room += offset + TEXT_STEP;
            uint8_t *larger = realloc(memory, room);
            if (larger == NULL) {
                free(memory);
                return NULL;
            }
            memory = larger;
        }
        size_t got = metrics_text_next(text, (char *)memory + offset + size, room - offset - size);
        if (got == 0)
            break;
        size += got;
    }
    *ret_size = size;
    return memory;
}

uint8_t *watch_metrics(struct watch *watch, enum metrics_format format, size_t offset,
                       size_t *ret_size)
{
    struct metrics_node described = describe_node(watch);
    struct metrics_text text;
    metrics_text_begin(&text, format, watch->shards, watch->shard_count, &described);
    return collect(&text, offset, ret_size);
}
