/* What one shard tells of itself and of its node: metrics, health, checks.
 *
 * Whoever runs the shard says what the rest of it counts (struct watch_source); nothing here knows
 * a connection, a store or the steering program. On the shard's thread. */
#ifndef MINIVAULT_NET_WATCH_H
#define MINIVAULT_NET_WATCH_H

#include "base/units.h"
#include "io/io.h"
#include "net/watch/boards.h"
#include "net/watch/metrics.h"

/* How often a shard looks at its connections' deadlines and tells the others of itself: what one
 * tells of another is at most this, and a pass, old. */
#define WATCH_TICK_NS (NS_PER_S / 2)

/* Where the numbers come from. */
struct watch_source {
    void *context;
    void (*report)(void *context, struct shard_report *ret_report);

    /* What the node has once, beside its version. What it points to is valid until the next call. */
    void (*describe)(void *context, struct metrics_node *ret_node);
};

/* What HELLO tells of. */
struct watch_limits {
    uint32_t value_size_max;
    uint32_t connections_max;
    uint32_t pipeline_bytes_max;
};

struct watch {
    struct io *io;
    struct boards *boards;
    uint32_t shard, shard_count;
    struct watch_source source;
    struct watch_limits limits;
    uint64_t started_ns;
    struct metrics metrics; /* of this shard */
};

/* All but the metrics' numbers is filled in. */
void watch_begin(struct watch *watch);

/* ---- publish.c ---- */

/* Brings what others count into watch->metrics, and tells the node that this shard is alive. */
void watch_publish(struct watch *watch);

/* The text of the whole node for Prometheus, `offset` bytes behind the beginning of memory that is
 * the caller's to free: about 12 KiB a shard. NULL: no memory. */
uint8_t *watch_metrics(struct watch *watch, enum metrics_format format, size_t offset,
                       size_t *ret_size);

/* STATS' JSON, published anew: at most METRICS_JSON_MAX bytes. Returns the length. */
uint32_t stats_text(struct watch *watch, char *buffer);

/* ---- health.c: JSON texts. Return the length; the buffer takes them whole ---- */

#define HEALTH_TEXT_MAX 2048u

/* Of the whole node: this shard's of now, the others' of their last tick. */
void watch_node_report(struct watch *watch, struct shard_report *ret_sum);

uint32_t health_text(struct watch *watch, char *buffer);
uint32_t hello_text(const struct watch *watch, char *buffer);

#endif
