/* What the server tells of itself, as JSON. */
#include "net/server_internal.h"

#include "base/assert.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdio.h>

#ifndef MINIVAULT_VERSION
#define MINIVAULT_VERSION "unknown"
#endif

static const char *health_status(const struct server *server, const struct store_stats *stats)
{
    if (server->failed != 0)
        return "failed";
    if (server->is_draining)
        return "draining";
    return stats->damaged ? "damaged" : "healthy";
}

/* Clients of the reference decode "goroutines": it is the number of shard threads. */
uint32_t health_text(struct server *server, char *buffer)
{
    struct store_stats stats;
    store_stats(server->shard.store, &stats);
    const struct mover_stats *mover = &stats.mover;
    uint64_t memory = stats.cache.memory + stats.index_memory + server->input_bytes +
                      (uint64_t)server->outputs.blocks.count_touched * OUTPUT_BLOCK_SIZE;
    int size = snprintf(
        buffer, HEALTH_TEXT_MAX,
        "{\"status\":\"%s\",\"uptime_seconds\":%" PRIu64 ",\"cache_items\":%" PRIu64
        ",\"cache_size_mb\":%" PRIu64 ",\"storage_size_mb\":%" PRIu64
        ",\"goroutines\":1,\"memory_mb\":%" PRIu64 ",\"version\":\"%s\",\"keys\":%" PRIu64
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
        health_status(server, &stats), (io_now_ns(server->io) - server->started_ns) / NS_PER_S,
        stats.cache.entries, stats.cache.memory / MIB,
        (stats.wal.size_bytes + stats.segments.size_bytes) / MIB, memory / MIB, MINIVAULT_VERSION,
        stats.keys, server->connection_count, server->shard.gets, server->shard.sets,
        server->shard.deletes, server->requests_refused, server->connections_refused,
        stats.get_hits, stats.get_misses, stats.cache.evictions, stats.wal.segments,
        stats.wal.batches, stats.wal.bytes_written, stats.disk_free / MIB, stats.disk_total / MIB,
        stats.scrub.rate, stats.scrub.bytes, stats.scrub.passes, stats.scrub.pass_age_s,
        stats.scrub.damaged, stats.scrub.damaged_dead, stats.scrub.mended, stats.tombstones,
        mover->purged_tombstones, mover->phase, mover->job, mover->jobs, mover->moved_bytes,
        mover->compacted_bytes, mover->written_bytes, stats.segments.segments,
        stats.segments.size_bytes, mover->dead_bytes, mover->log_sealed_bytes,
        mover->backlog_bytes);
    assert(size > 0 && (uint32_t)size < HEALTH_TEXT_MAX);
    return (uint32_t)size;
}

uint32_t hello_text(const struct server *server, char *buffer)
{
    int size = snprintf(buffer, HEALTH_TEXT_MAX,
                        "{\"server\":\"minivault\",\"version\":\"%s\",\"shards\":1,\"shard\":0,"
                        "\"limits\":{\"key_bytes\":%u,\"value_bytes\":%u,\"connections\":%u,"
                        "\"pipeline_bytes\":%u},\"features\":[\"typed-status\",\"zstd\"]}",
                        MINIVAULT_VERSION, MINIVAULT_KEY_SIZE_MAX, server->config->value_size_max,
                        server->config->connections_max, (unsigned)CONFIG_OUTPUT_BYTES_MAX);
    assert(size > 0 && (uint32_t)size < HEALTH_TEXT_MAX);
    return (uint32_t)size;
}
