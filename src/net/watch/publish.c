/* What others count is brought into the shard's metrics, and told to the node: the store's numbers,
 * the ring's and the connections': each tick, and when somebody asks; it looks at no more than a
 * few structs. */
#include "net/watch/watch.h"

#include "base/units.h"

#include <stdlib.h>
#include <string.h>

#ifndef MINIVAULT_VERSION
#define MINIVAULT_VERSION "unknown"
#endif

static void publish_store(struct metrics *metrics, const struct store_stats *stats)
{
    metrics_set(metrics, METRICS_LOG_COMMITS, stats->wal.batches);
    metrics_set(metrics, METRICS_LOG_BYTES, stats->wal.bytes_written);
    metrics_set(metrics, METRICS_LOG_SEGMENTS, stats->wal.segments);
    metrics_set(metrics, METRICS_KEYS, stats->keys);
    metrics_set(metrics, METRICS_TOMBSTONES, stats->tombstones);
    metrics_set(metrics, METRICS_INDEX_BYTES, stats->index_memory);
    metrics_set(metrics, METRICS_CACHE_HITS, stats->get_hits);
    metrics_set(metrics, METRICS_CACHE_MISSES, stats->get_misses);
    metrics_set(metrics, METRICS_CACHE_EVICTIONS, stats->cache.evictions);
    metrics_set(metrics, METRICS_CACHE_ENTRIES, stats->cache.entries);
    metrics_set(metrics, METRICS_CACHE_BYTES, stats->cache.memory);
    metrics_set(metrics, METRICS_SEGMENTS, stats->segments.segments);
    metrics_set(metrics, METRICS_SEGMENT_BYTES, stats->segments.size_bytes);
    metrics_set(metrics, METRICS_DISK_FREE, stats->disk_free);
    metrics_set(metrics, METRICS_DISK_TOTAL, stats->disk_total);
}

static void publish_background(struct metrics *metrics, const struct store_stats *stats)
{
    const struct mover_stats *mover = &stats->mover;
    const struct scrub_stats *scrub = &stats->scrub;
    metrics_set(metrics, METRICS_LOG_BACKLOG, mover->backlog_bytes);
    metrics_set(metrics, METRICS_MOVER_JOBS, mover->jobs);
    metrics_set(metrics, METRICS_MOVED_BYTES, mover->moved_bytes);
    metrics_set(metrics, METRICS_COMPACTED_BYTES, mover->compacted_bytes);
    metrics_set(metrics, METRICS_MOVER_WRITTEN_BYTES, mover->written_bytes);
    metrics_set(metrics, METRICS_PURGED, mover->purged_tombstones);
    metrics_set(metrics, METRICS_DEAD_BYTES, mover->dead_bytes);
    metrics_set(metrics, METRICS_SCRUB_BYTES, scrub->bytes);
    metrics_set(metrics, METRICS_SCRUB_PASSES, scrub->passes);
    metrics_set(metrics, METRICS_SCRUB_AGE, scrub->pass_age_s);
    metrics_set(metrics, METRICS_DAMAGED, scrub->damaged);
    metrics_set(metrics, METRICS_DAMAGED_DEAD, scrub->damaged_dead);
    metrics_set(metrics, METRICS_MENDED, scrub->mended);
}

void watch_publish(struct watch *watch)
{
    struct metrics *metrics = &watch->metrics;
    uint64_t now_ns = io_now_ns(watch->io);
    struct shard_report report;
    struct io_counts counts;
    watch->source.report(watch->source.context, &report);
    boards_tell(watch->boards, watch->shard, &report);
    boards_passed(watch->boards, watch->shard, now_ns);
    io_counts(watch->io, &counts);
    publish_store(metrics, &report.store);
    publish_background(metrics, &report.store);
    metrics_set(metrics, METRICS_UPTIME, (now_ns - watch->started_ns) / NS_PER_S);
    metrics_set(metrics, METRICS_CONNECTIONS, report.connections);
    metrics_set(metrics, METRICS_ACCEPTED, report.connections_accepted);
    metrics_set(metrics, METRICS_REFUSED, report.connections_refused);
    metrics_set(metrics, METRICS_PASSES, counts.passes);
    metrics_set(metrics, METRICS_OVERFLOWS, counts.overflows);
    metrics_set(metrics, METRICS_STARVED, counts.starved);
}

void watch_begin(struct watch *watch)
{
    watch->started_ns = io_now_ns(watch->io);
    boards_set_metrics(watch->boards, watch->shard, &watch->metrics);
}

static struct metrics_node describe_node(const struct watch *watch)
{
    struct metrics_node described = {.version = MINIVAULT_VERSION};
    watch->source.describe(watch->source.context, &described);
    return described;
}

uint32_t stats_text(struct watch *watch, char *buffer)
{
    struct metrics_node described = describe_node(watch);
    watch_publish(watch);
    return metrics_json(boards_metrics(watch->boards), watch->shard_count, &described, buffer);
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
    watch_publish(watch);
    metrics_text_begin(&text, format, boards_metrics(watch->boards), watch->shard_count,
                       &described);
    return collect(&text, offset, ret_size);
}
