/* What the node tells of itself, as JSON. */
#include "net/watch/watch.h"

#include "base/assert.h"
#include "base/units.h"
#include "minivault/protocol.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#ifndef MINIVAULT_VERSION
#define MINIVAULT_VERSION "unknown"
#endif

/* ---- the node's: sums over its shards ---- */

static void add_store(struct store_stats *sum, const struct store_stats *other)
{
    sum->keys += other->keys;
    sum->tombstones += other->tombstones;
    sum->damaged = sum->damaged || other->damaged;
    sum->get_hits += other->get_hits;
    sum->get_misses += other->get_misses;
    sum->cache.entries += other->cache.entries;
    sum->cache.memory += other->cache.memory;
    sum->cache.evictions += other->cache.evictions;
    sum->wal.segments += other->wal.segments;
    sum->wal.batches += other->wal.batches;
    sum->wal.bytes_written += other->wal.bytes_written;
    sum->wal.size_bytes += other->wal.size_bytes;
    sum->segments.segments += other->segments.segments;
    sum->segments.size_bytes += other->segments.size_bytes;
}

/* A pass over the disk is as old, and as many, as that of the shard that is last. */
static void add_scrub(struct scrub_stats *sum, const struct scrub_stats *other)
{
    sum->rate += other->rate;
    sum->bytes += other->bytes;
    sum->passes = min_u64(sum->passes, other->passes);
    sum->pass_age_s = max_u64(sum->pass_age_s, other->pass_age_s);
    sum->damaged += other->damaged;
    sum->damaged_dead += other->damaged_dead;
    sum->mended += other->mended;
}

/* Phase and job are those of the first shard that is at work. */
static void add_mover(struct mover_stats *sum, const struct mover_stats *other)
{
    if (strcmp(sum->phase, "idle") == 0) {
        sum->phase = other->phase;
        sum->job = other->job;
    }
    sum->purged_tombstones += other->purged_tombstones;
    sum->jobs += other->jobs;
    sum->moved_bytes += other->moved_bytes;
    sum->compacted_bytes += other->compacted_bytes;
    sum->written_bytes += other->written_bytes;
    sum->dead_bytes += other->dead_bytes;
    sum->log_sealed_bytes += other->log_sealed_bytes;
    sum->backlog_bytes += other->backlog_bytes;
}

static void add(struct shard_report *sum, const struct shard_report *other)
{
    sum->connections += other->connections;
    sum->connections_accepted += other->connections_accepted;
    sum->connections_refused += other->connections_refused;
    sum->gets += other->gets;
    sum->sets += other->sets;
    sum->deletes += other->deletes;
    sum->requests_refused += other->requests_refused;
    sum->memory += other->memory;
    sum->failed = sum->failed != 0 ? sum->failed : other->failed;
    sum->is_draining = sum->is_draining || other->is_draining;
    add_store(&sum->store, &other->store);
    add_scrub(&sum->store.scrub, &other->store.scrub);
    add_mover(&sum->store.mover, &other->store.mover);
}

/* This shard's is of now, the others' of their last tick. */
void watch_node_report(struct watch *watch, struct shard_report *ret_sum)
{
    watch->source.report(watch->source.context, ret_sum);
    for (uint32_t i = 0; i < watch->shard_count; i++) {
        struct shard_report other;
        if (i == watch->shard)
            continue;
        boards_read(watch->boards, i, &other);
        add(ret_sum, &other);
    }
}

static const char *health_status(const struct shard_report *report)
{
    if (report->failed != 0)
        return "failed";
    if (report->is_draining)
        return "draining";
    return report->store.damaged ? "damaged" : "healthy";
}

/* Clients of the reference decode "goroutines": it is the number of shard threads. */
uint32_t health_text(struct watch *watch, char *buffer)
{
    struct shard_report report;
    watch_node_report(watch, &report);
    const struct store_stats *stats = &report.store;
    const struct mover_stats *mover = &stats->mover;
    int size = snprintf(
        buffer, HEALTH_TEXT_MAX,
        "{\"status\":\"%s\",\"uptime_seconds\":%" PRIu64 ",\"cache_items\":%" PRIu64
        ",\"cache_size_mb\":%" PRIu64 ",\"storage_size_mb\":%" PRIu64
        ",\"goroutines\":%u,\"memory_mb\":%" PRIu64 ",\"version\":\"%s\",\"keys\":%" PRIu64
        ",\"connections\":%" PRIu64 ",\"gets\":%" PRIu64 ",\"sets\":%" PRIu64
        ",\"deletes\":%" PRIu64 ",\"requests_refused\":%" PRIu64 ",\"connections_refused\":%" PRIu64
        ",\"cache_hits\":%" PRIu64 ",\"cache_misses\":%" PRIu64 ",\"cache_evictions\":%" PRIu64
        ",\"log_segments\":%" PRIu64 ",\"log_batches\":%" PRIu64 ",\"log_bytes_written\":%" PRIu64
        ",\"disk_free_mb\":%" PRIu64 ",\"disk_total_mb\":%" PRIu64 ",\"scrub_rate_bytes\":%" PRIu64
        ",\"scrub_bytes_read\":%" PRIu64 ",\"scrub_passes\":%" PRIu64
        ",\"scrub_seconds_since_pass\":%" PRIu64 ",\"scrub_damaged_places\":%" PRIu64
        ",\"scrub_damaged_dead_places\":%" PRIu64 ",\"scrub_mended_places\":%" PRIu64
        ",\"tombstones\":%" PRIu64 ",\"tombstones_purged\":%" PRIu64
        ",\"mover_phase\":\"%s\",\"mover_job\":\"%s\""
        ",\"mover_jobs\":%" PRIu64 ",\"mover_bytes_moved\":%" PRIu64
        ",\"mover_bytes_compacted\":%" PRIu64 ",\"mover_bytes_written\":%" PRIu64
        ",\"segments\":%" PRIu64 ",\"segments_bytes\":%" PRIu64 ",\"segments_dead_bytes\":%" PRIu64
        ",\"log_sealed_bytes\":%" PRIu64 ",\"log_backlog_bytes\":%" PRIu64 "}",
        health_status(&report), (io_now_ns(watch->io) - watch->started_ns) / NS_PER_S,
        stats->cache.entries, stats->cache.memory / MIB,
        (stats->wal.size_bytes + stats->segments.size_bytes) / MIB, watch->shard_count,
        report.memory / MIB, MINIVAULT_VERSION, stats->keys, report.connections, report.gets,
        report.sets, report.deletes, report.requests_refused, report.connections_refused,
        stats->get_hits, stats->get_misses, stats->cache.evictions, stats->wal.segments,
        stats->wal.batches, stats->wal.bytes_written, stats->disk_free / MIB,
        stats->disk_total / MIB, stats->scrub.rate, stats->scrub.bytes, stats->scrub.passes,
        stats->scrub.pass_age_s, stats->scrub.damaged, stats->scrub.damaged_dead,
        stats->scrub.mended, stats->tombstones, mover->purged_tombstones, mover->phase, mover->job,
        mover->jobs, mover->moved_bytes, mover->compacted_bytes, mover->written_bytes,
        stats->segments.segments, stats->segments.size_bytes, mover->dead_bytes,
        mover->log_sealed_bytes, mover->backlog_bytes);
    assert(size > 0 && (uint32_t)size < HEALTH_TEXT_MAX);
    return (uint32_t)size;
}

uint32_t hello_text(const struct watch *watch, char *buffer)
{
    int size =
        snprintf(buffer, HEALTH_TEXT_MAX,
                 "{\"server\":\"minivault\",\"version\":\"%s\",\"shards\":%u,\"shard\":%u,"
                 "\"limits\":{\"key_bytes\":%u,\"value_bytes\":%u,\"connections\":%u,"
                 "\"pipeline_bytes\":%u},\"features\":[\"typed-status\",\"zstd\",\"stats\"]}",
                 MINIVAULT_VERSION, watch->shard_count, watch->shard, MINIVAULT_KEY_SIZE_MAX,
                 watch->limits.value_size_max, watch->limits.connections_max,
                 watch->limits.pipeline_bytes_max);
    assert(size > 0 && (uint32_t)size < HEALTH_TEXT_MAX);
    return (uint32_t)size;
}
