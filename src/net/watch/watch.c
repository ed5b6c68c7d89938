/* A shard's numbers are copied from where they are counted into its metrics: each tick, and when
 * somebody asks; that looks at no more than a few structs. What is told of the node is made of the
 * metrics of all shards, which any thread may read. */
#include "net/watch/watch.h"

#include "base/assert.h"
#include "minivault/protocol.h"

#include <stdio.h>

/* A shard says each tick that its ring has made a pass; more is given for a busy machine. */
#define LIVE_NS (4 * WATCH_TICK_NS)

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
    watch->node = (struct metrics_node){.version = MINIVAULT_VERSION};
    watch->source.report(watch->source.context, &report, &watch->node);
    io_counts(watch->io, &report.ring);
    report.uptime_s = (report.now_ns - watch->started_ns) / NS_PER_S;
    copy_values(metrics, &report);
    atomic_store_explicit(&metrics->mover_phase, report.store.mover.phase, memory_order_relaxed);
    atomic_store_explicit(&metrics->mover_job, report.store.mover.job, memory_order_relaxed);
}

static struct metrics_shards shards_of(const struct watch *watch)
{
    return (struct metrics_shards){watch->shards, watch->shard_count};
}

uint64_t watch_value(const struct watch *watch, enum metrics_value which)
{
    return metrics_merged(shards_of(watch), which);
}

uint32_t stats_text(struct watch *watch, char *buffer)
{
    watch_publish(watch);
    return metrics_json(shards_of(watch), &watch->node, buffer);
}

uint32_t health_text(struct watch *watch, char *buffer)
{
    watch_publish(watch);
    return metrics_health(shards_of(watch), watch->shard, &watch->node, buffer);
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

uint8_t *watch_metrics(struct watch *watch, enum metrics_format format, size_t offset,
                       size_t *ret_size)
{
    watch_publish(watch);
    return metrics_text(format, shards_of(watch), &watch->node, offset, ret_size);
}

/* ---- alive and ready ---- */

bool watch_is_live(const struct watch *watch)
{
    uint64_t now_ns = io_now_ns(watch->io);
    for (uint32_t i = 0; i < watch->shard_count; i++) {
        uint64_t passed_ns = metrics_read(&watch->shards[i]->values[METRICS_PASSED]);
        if (i != watch->shard && passed_ns + LIVE_NS < now_ns)
            return false;
    }
    return true;
}

/* ---- the checks: whether this one is all right ---- */

static bool is_serving(const struct watch *watch)
{
    return watch_value(watch, METRICS_DRAINING) == 0;
}

static bool is_writing(const struct watch *watch)
{
    return watch_value(watch, METRICS_FAILED) == 0;
}

static bool has_directory(const struct watch *watch)
{
    return watch_value(watch, METRICS_ADMITS_SET) != ADMISSION_GONE;
}

/* Small values find room and large ones. */
static bool has_space(const struct watch *watch)
{
    uint64_t worst =
        max_u64(watch_value(watch, METRICS_ADMITS_SET), watch_value(watch, METRICS_ADMITS_FILE));
    return worst != ADMISSION_NO_SPACE && worst != ADMISSION_NO_INODES;
}

static const struct check {
    const char *name;
    bool (*is_good)(const struct watch *watch);
} checks[] = {
    {"draining", is_serving},  {"log", is_writing},       {"data directory", has_directory},
    {"shards", watch_is_live}, {"disk space", has_space},
};

#define CHECKS_COUNT (sizeof checks / sizeof checks[0])

const char *watch_check(struct watch *watch, char *ret_text)
{
    const char *failing = NULL;
    size_t size = 0;
    watch_publish(watch);
    for (size_t i = 0; i < CHECKS_COUNT; i++) {
        bool is_good = checks[i].is_good(watch);
        if (!is_good && failing == NULL)
            failing = checks[i].name;
        int written = snprintf(ret_text + size, WATCH_CHECKS_TEXT_MAX - size, "%s%s %s",
                               i == 0 ? "" : ", ", checks[i].name, is_good ? "ok" : "failed");
        assert(written > 0);
        assert(size + (size_t)written < WATCH_CHECKS_TEXT_MAX);
        size += (size_t)written;
    }
    return failing;
}
