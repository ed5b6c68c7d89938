/* What one shard tells of itself and of its node: metrics, health, checks.
 *
 * Whoever runs the shard says what the rest of it counts (struct watch_source); nothing here knows
 * a connection or the steering program. On the shard's thread. */
#ifndef MINIVAULT_NET_WATCH_H
#define MINIVAULT_NET_WATCH_H

#include "base/units.h"
#include "io/io.h"
#include "net/watch/metrics.h"
#include "store/store.h"

/* How often a shard looks at its connections' deadlines and tells the others of itself: what one
 * tells of another is at most this, and a pass, old. */
#define WATCH_TICK_NS (NS_PER_S / 2)

/* What the parts of a shard count, where metrics_table.h takes it from. */
struct shard_report {
    struct store_stats store;
    uint64_t connections, connections_accepted, connections_refused;
    uint64_t gets, sets, deletes, requests_refused;
    uint64_t messages_dropped;
    uint64_t reload_s; /* Unix time of the last SIGHUP that was taken, or of the start */
    bool is_reload_good;
    uint64_t memory; /* bytes, of cache, index, connections and replies */
    int failed;
    bool is_draining;
    /* What the watch knows itself. */
    struct io_counts ring;
    uint64_t now_ns, uptime_s;
};

/* Where the numbers come from. */
struct watch_source {
    void *context;

    /* Fills in what the watch does not know; the rest stays. What the node has once, beside its
     * version, is valid until the next call. */
    void (*report)(void *context, struct shard_report *ret_report, struct metrics_node *ret_node);
};

/* What HELLO tells of. */
struct watch_limits {
    uint32_t value_size_max;
    uint32_t connections_max;
    uint32_t pipeline_bytes_max;
};

struct watch {
    struct io *io;
    const struct metrics **shards; /* of the node, by number: each sets its own, and reads all */
    uint32_t shard, shard_count;
    struct watch_source source;
    struct watch_limits limits;
    uint64_t started_ns;
    struct metrics_node node; /* as it was published last */
    struct metrics metrics;   /* of this shard */
};

/* All but the metrics' numbers is filled in. */
void watch_begin(struct watch *watch);

/* Brings what others count into watch->metrics: also tells the others that this shard is alive. */
void watch_publish(struct watch *watch);

/* A value of the whole node: of this shard as it was published last, as of the others. */
uint64_t watch_value(const struct watch *watch, enum metrics_value which);

/* ---- texts, published anew ---- */

/* The text of the whole node for Prometheus, `offset` bytes behind the beginning of memory that is
 * the caller's to free: about 12 KiB a shard. NULL: no memory. */
uint8_t *watch_metrics(struct watch *watch, enum metrics_format format, size_t offset,
                       size_t *ret_size);

/* JSON, of at most METRICS_JSON_MAX bytes, METRICS_HEALTH_MAX and HELLO_TEXT_MAX. Return the length.
 */
#define HELLO_TEXT_MAX 1024u
uint32_t stats_text(struct watch *watch, char *buffer);
uint32_t health_text(struct watch *watch, char *buffer);
uint32_t hello_text(const struct watch *watch, char *buffer);

/* ---- whether the node is alive, and whether it is ready for requests ---- */

/* Whether every shard's ring has made a pass of late. */
bool watch_is_live(const struct watch *watch);

#define WATCH_CHECKS_TEXT_MAX 256u

/* Returns the name of the first check that fails; NULL: ready. *ret_text, WATCH_CHECKS_TEXT_MAX
 * bytes: "name ok, name failed, ...". */
const char *watch_check(struct watch *watch, char *ret_text);

#endif
