/* What one shard counts: its thread alone writes, any thread reads.
 *
 * Counters of requests, bytes and latencies are written where they happen; `values` that others
 * keep (the store, the ring) are copied in by watch_publish, each tick (WATCH_TICK_NS) and when
 * somebody asks. All are relaxed atomics, so a reader on another thread needs no lock and the
 * writer pays plain stores. They never go back while the process lives, but for the gauges.
 *
 * metrics_text renders them for Prometheus, metrics_json as the answer to STATS, metrics_health as
 * that to HEALTH. */
#ifndef MINIVAULT_NET_METRICS_H
#define MINIVAULT_NET_METRICS_H

#include "base/histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first three have a latency histogram. */
enum metrics_operation {
    METRICS_GET,
    METRICS_SET,
    METRICS_DELETE,
    METRICS_HEALTH,
    METRICS_AUTH,
    METRICS_HELLO,
    METRICS_STATS,
    METRICS_OTHER, /* what the server does not know */
    METRICS_OPERATION_COUNT,
};
#define METRICS_TIMED_COUNT 3

/* By enum minivault_status; what is none of the typed ones is the last. */
#define METRICS_OUTCOME_COUNT 14

/* Why a connection ended that the client had not ended. */
enum metrics_error {
    METRICS_ERROR_UNREAD,   /* it did not read its answers */
    METRICS_ERROR_LATE,     /* its request did not become whole in time */
    METRICS_ERROR_OVERFLOW, /* no memory for its unfinished request */
    METRICS_ERROR_ACCEPT,   /* accept failed: there was no connection yet */
    METRICS_ERROR_COUNT,
};

/* What a shard counts once: net/watch/metrics_table.h. */
enum metrics_value {
#define METRIC(id, ...) METRICS_##id,
#define COUNTED(id, ...) METRICS_##id,
#include "net/watch/metrics_table.h"
    METRICS_VALUE_COUNT,
};

/* All zero at first. About 29 KiB. */
struct metrics {
    _Atomic uint64_t requests[METRICS_OPERATION_COUNT][METRICS_OUTCOME_COUNT];
    _Atomic uint64_t errors[METRICS_ERROR_COUNT];
    _Atomic uint64_t values[METRICS_VALUE_COUNT];
    _Atomic(const char *) mover_phase, mover_job;  /* of HEALTH; NULL: not published yet */
    struct histogram latency[METRICS_TIMED_COUNT]; /* nanoseconds */
};

/* The metrics of all shards of a node, by number. */
struct metrics_shards {
    const struct metrics *const *all;
    uint32_t count;
};

/* What a node has once. The strings are the caller's. */
struct metrics_node {
    const char *version;
    const uint64_t *decisions; /* of steering; NULL: the node does not steer */
    const char *const *decision_names;
    uint32_t decision_count;
};

/* On the shard's own thread. */
static inline void metrics_add(_Atomic uint64_t *counter, uint64_t count)
{
    histogram_count(counter, count);
}

static inline void metrics_set(struct metrics *metrics, enum metrics_value which, uint64_t value)
{
    atomic_store_explicit(&metrics->values[which], value, memory_order_relaxed);
}

/* From any thread. */
static inline uint64_t metrics_read(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline uint32_t metrics_outcome(uint8_t status)
{
    return status < METRICS_OUTCOME_COUNT ? status : METRICS_OUTCOME_COUNT - 1;
}

/* Of the binary protocol's operation codes. */
enum metrics_operation metrics_operation_of(uint8_t op);

/* snake_case, as they stand in labels. */
const char *metrics_operation_name(enum metrics_operation operation);
const char *metrics_outcome_name(uint32_t outcome);
const char *metrics_error_name(enum metrics_error error);

enum metrics_type {
    METRICS_COUNTER,
    METRICS_GAUGE,
    METRICS_HIDDEN, /* of HEALTH and the checks alone */
};

/* How the numbers of several shards become the node's. */
enum metrics_merge { METRICS_SUM, METRICS_MAX, METRICS_MIN };

/* Where HEALTH has a value. */
struct metrics_member {
    const char *key; /* NULL: nowhere */
    uint32_t position;
    uint32_t divisor;
};

/* A row of the table. Its full name is minivault_NAME, and as a counter has "_total" behind it. */
struct metrics_kind {
    const char *name;
    enum metrics_type type;
    enum metrics_merge merge;
    struct metrics_member health;
    const char *help;
};
const struct metrics_kind *metrics_kind_of(enum metrics_value which);

/* What a name ends in: "bytes", "seconds", or "" for none. */
const char *metrics_unit_of(const char *name);

/* A value of all shards together. From any thread. */
uint64_t metrics_merged(struct metrics_shards shards, enum metrics_value which);

/* ---- texts for Prometheus ---- */

enum metrics_format {
    METRICS_OPENMETRICS, /* OpenMetrics 1.0 */
    METRICS_PROMETHEUS,  /* the older text, 0.0.4, which promtool checks */
};

/* The text, `offset` bytes behind the beginning of memory that is the caller's to free: about 12 KiB
 * a shard. The shards may go on counting: what is rendered is each counter's value when its line is
 * made. Returns NULL: no memory. */
uint8_t *metrics_text(enum metrics_format format, struct metrics_shards shards,
                      const struct metrics_node *node, size_t offset, size_t *ret_size);

/* ---- STATS and HEALTH ---- */

#define METRICS_JSON_MAX 16384u

/* The sums over all shards as a JSON object, about 3 KiB, at most METRICS_JSON_MAX bytes. Returns
 * its length. */
uint32_t metrics_json(struct metrics_shards shards, const struct metrics_node *node, char *buffer);

#define METRICS_HEALTH_MAX 2048u

/* HEALTH's JSON object, at most METRICS_HEALTH_MAX bytes. Phase and job of the mover are those of
 * the first shard, from `asked` on, whose mover is at work. Returns the length. */
uint32_t metrics_health(struct metrics_shards shards, uint32_t asked,
                        const struct metrics_node *node, char *buffer);

#endif
