/* What others count is brought into the shard's metrics, and told to the node: the store's numbers,
 * the ring's and the connections': each tick, and when somebody asks; it looks at no more than a
 * few structs. */
#include "net/client/server_internal.h"
#include "net/steer/steer.h"

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

void server_publish(struct loop *server)
{
    struct metrics *metrics = &server->metrics;
    struct node_report report;
    struct io_counts counts;
    server_report(server, &report);
    node_tell(server->node, server->shard.number, &report);
    io_counts(server->io, &counts);
    publish_store(metrics, &report.store);
    publish_background(metrics, &report.store);
    metrics_set(metrics, METRICS_UPTIME, (io_now_ns(server->io) - server->started_ns) / NS_PER_S);
    metrics_set(metrics, METRICS_CONNECTIONS, server->connection_count);
    metrics_set(metrics, METRICS_ACCEPTED, server->connections_accepted);
    metrics_set(metrics, METRICS_REFUSED, server->connections_refused);
    metrics_set(metrics, METRICS_PASSES, counts.passes);
    metrics_set(metrics, METRICS_OVERFLOWS, counts.overflows);
    metrics_set(metrics, METRICS_STARVED, counts.starved);
    if (server->outputs.books.slowlog != NULL)
        slowlog_tick(server->outputs.books.slowlog, io_now_ns(server->io));
}

void loop_apply(struct loop *server, const struct settings *reload)
{
    struct account_books *books = &server->outputs.books;
    server->auth = reload->auth;
    int error = 0;
    if (reload->slowlog_ns > 0 && books->notes == NULL)
        error = slowlog_open(server->log, reload->slowlog_ns, &books->notes);
    if (error < 0)
        log_error(server->log, "cannot log slow requests: %s", strerror(-error));
    if (books->notes != NULL && reload->slowlog_ns > 0)
        slowlog_set_threshold(books->notes, reload->slowlog_ns);
    books->slowlog = reload->slowlog_ns > 0 ? books->notes : NULL;
}

/* What there is once. `counters` and `names` are the caller's. */
static struct metrics_node describe_node(const struct node *node, struct steer_counters *counters,
                                         const char **names)
{
    struct metrics_node described = {.version = MINIVAULT_VERSION};
    if (node->steer == NULL)
        return described;
    steer_read_counters(node->steer, counters);
    for (uint32_t i = 0; i < STEER_DECISION_COUNT; i++)
        names[i] = steer_decision_name((enum steer_decision)i);
    described.decisions = counters->decisions;
    described.decision_names = names;
    described.decision_count = STEER_DECISION_COUNT;
    return described;
}

uint32_t stats_text(struct loop *server, char *buffer)
{
    const struct node *node = server->node;
    struct steer_counters counters;
    const char *names[STEER_DECISION_COUNT];
    struct metrics_node described = describe_node(node, &counters, names);
    server_publish(server);
    return metrics_json(node->metrics, node->shard_count, &described, buffer);
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

uint8_t *server_metrics(struct loop *server, enum metrics_format format, size_t offset,
                        size_t *ret_size)
{
    const struct node *node = server->node;
    struct steer_counters counters;
    const char *names[STEER_DECISION_COUNT];
    struct metrics_node described = describe_node(node, &counters, names);
    struct metrics_text text;
    server_publish(server);
    metrics_text_begin(&text, format, node->metrics, node->shard_count, &described);
    return collect(&text, offset, ret_size);
}
