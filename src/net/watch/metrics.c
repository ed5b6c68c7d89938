/* The names of what is counted. */
#include "net/watch/metrics.h"

#include "base/assert.h"
#include "minivault/protocol.h"

static const struct metrics_kind kinds[METRICS_VALUE_COUNT] = {
    [METRICS_UPTIME] = {"uptime_seconds", "seconds", "Since the start of the process.", false},
    [METRICS_CONNECTIONS] = {"connections", "", "Clients that are connected.", false},
    [METRICS_ACCEPTED] = {"connections_accepted", "", "Clients that have connected.", true},
    [METRICS_REFUSED] = {"connections_refused", "", "Clients that were one too many.", true},
    [METRICS_RECEIVED_BYTES] = {"received_bytes", "bytes", "From clients.", true},
    [METRICS_SENT_BYTES] = {"sent_bytes", "bytes", "To clients.", true},
    [METRICS_LOG_COMMITS] = {"log_commits", "", "Writes of the log, each with many requests.",
                             true},
    [METRICS_LOG_BYTES] = {"log_written_bytes", "bytes",
                           "Written to the log, with headers and padding.", true},
    [METRICS_LOG_SEGMENTS] = {"log_segments", "", "Files of the log, spare ones too.", false},
    [METRICS_LOG_BACKLOG] = {"log_backlog_bytes", "bytes",
                             "Of the log, what should have been moved to segments by now.", false},
    [METRICS_KEYS] = {"keys", "", "Keys that have a value.", false},
    [METRICS_TOMBSTONES] = {"tombstones", "", "Deleted keys that still have a record.", false},
    [METRICS_INDEX_BYTES] = {"index_memory_bytes", "bytes", "Memory of the index.", false},
    [METRICS_CACHE_HITS] = {"cache_hits", "", "Gets that the cache answered.", true},
    [METRICS_CACHE_MISSES] = {"cache_misses", "", "Gets that the cache did not answer.", true},
    [METRICS_CACHE_EVICTIONS] = {"cache_evictions", "", "Values that left the cache for others.",
                                 true},
    [METRICS_CACHE_ENTRIES] = {"cache_entries", "", "Keys in the cache.", false},
    [METRICS_CACHE_BYTES] = {"cache_memory_bytes", "bytes", "Memory of the cache.", false},
    [METRICS_MOVER_JOBS] = {"mover_jobs", "", "Jobs of moving and compaction.", true},
    [METRICS_MOVED_BYTES] = {"mover_moved_bytes", "bytes",
                             "Records moved, from the log and by compaction.", true},
    [METRICS_COMPACTED_BYTES] = {"mover_compacted_bytes", "bytes", "Of these, by compaction.",
                                 true},
    [METRICS_MOVER_WRITTEN_BYTES] = {"mover_written_bytes", "bytes",
                                     "Written for that, with headers and padding.", true},
    [METRICS_PURGED] = {"tombstones_purged", "", "Deleted keys whose record has gone.", true},
    [METRICS_SEGMENTS] = {"segments", "", "Segments of the partitions.", false},
    [METRICS_SEGMENT_BYTES] = {"segments_size_bytes", "bytes", "Their files, up to their ends.",
                               false},
    [METRICS_DEAD_BYTES] = {"segments_dead_bytes", "bytes", "Of these, what nobody needs, about.",
                            false},
    [METRICS_DISK_FREE] = {"disk_free_bytes", "bytes", "Free on the file system.", false},
    [METRICS_DISK_TOTAL] = {"disk_size_bytes", "bytes", "All of the file system.", false},
    [METRICS_SCRUB_BYTES] = {"scrub_read_bytes", "bytes", "Read in the background.", true},
    [METRICS_SCRUB_PASSES] = {"scrub_passes", "", "Times that all was read.", true},
    [METRICS_SCRUB_AGE] = {"scrub_age_seconds", "seconds", "Since the last whole pass.", false},
    [METRICS_DAMAGED] = {"damaged_places", "", "Damage that can hurt somebody.", false},
    [METRICS_DAMAGED_DEAD] = {"damaged_dead_places", "", "Damage that can hurt nobody.", false},
    [METRICS_MENDED] = {"mended_places", "", "Damage that was written anew.", true},
    [METRICS_PASSES] = {"ring_passes", "", "Passes of the loop.", true},
    [METRICS_OVERFLOWS] = {"ring_overflows", "", "Times that completions were too many for it.",
                           true},
    [METRICS_STARVED] = {"ring_starved_receives", "", "Receives that found no buffer.", true},
    [METRICS_SLOW] = {"slow_requests", "", "Requests above -slowlog.", true},
};

const struct metrics_kind *metrics_kind_of(enum metrics_value which)
{
    assert(which < METRICS_VALUE_COUNT);
    return &kinds[which];
}

enum metrics_operation metrics_operation_of(uint8_t op)
{
    switch (op) {
    case MINIVAULT_GET:
        return METRICS_GET;
    case MINIVAULT_SET:
        return METRICS_SET;
    case MINIVAULT_DELETE:
        return METRICS_DELETE;
    case MINIVAULT_HEALTH:
        return METRICS_HEALTH;
    case MINIVAULT_AUTH:
        return METRICS_AUTH;
    case MINIVAULT_HELLO:
        return METRICS_HELLO;
    case MINIVAULT_STATS:
        return METRICS_STATS;
    default:
        return METRICS_OTHER;
    }
}

const char *metrics_operation_name(enum metrics_operation operation)
{
    static const char *const names[METRICS_OPERATION_COUNT] = {"get",  "set",   "delete", "health",
                                                               "auth", "hello", "stats",  "other"};
    assert(operation < METRICS_OPERATION_COUNT);
    return names[operation];
}

const char *metrics_outcome_name(uint32_t outcome)
{
    static const char *const names[METRICS_OUTCOME_COUNT] = {
        "ok",          "not_found",   "not_applied", "ambiguous", "superseded",
        "overloaded",  "no_space",    "corrupt",     "auth",      "too_large",
        "bad_request", "unsupported", "not_ready",   "error"};
    assert(outcome < METRICS_OUTCOME_COUNT);
    return names[outcome];
}

const char *metrics_error_name(enum metrics_error error)
{
    static const char *const names[METRICS_ERROR_COUNT] = {"unread", "late", "overflow", "accept"};
    assert(error < METRICS_ERROR_COUNT);
    return names[error];
}
