/* The boards: what each shard of a node tells the others of itself, each tick (WATCH_TICK_NS), and
 * where the metrics of all shards lie. A node has one set; each shard's thread writes its own. */
#ifndef MINIVAULT_NET_BOARDS_H
#define MINIVAULT_NET_BOARDS_H

#include "net/watch/metrics.h"
#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>

/* What a shard tells of itself. */
struct shard_report {
    struct store_stats store;
    uint64_t connections, connections_accepted, connections_refused;
    uint64_t gets, sets, deletes, requests_refused;
    uint64_t memory; /* bytes, of connections and replies */
    int failed;
    bool is_draining;
};

struct boards;

/* Opened before the shards' threads begin, closed after they have ended. Errors: -ENOMEM. */
int boards_open(uint32_t shard_count, struct boards **ret_boards);

/* NULL: nothing. */
void boards_close(struct boards *boards);

/* `metrics` stay the shard's. Before the shards serve. */
void boards_set_metrics(struct boards *boards, uint32_t shard, const struct metrics *metrics);

/* Of all shards, by number. */
const struct metrics *const *boards_metrics(const struct boards *boards);

/* The ring of `shard` has made a pass, at `now_ns`. On its thread. */
void boards_passed(struct boards *boards, uint32_t shard, uint64_t now_ns);

/* When it did last. From any thread. */
uint64_t boards_passed_ns(const struct boards *boards, uint32_t shard);

/* Tells what a shard says of itself, and reads what one has said. From any thread; not for the hot
 * path. */
void boards_tell(struct boards *boards, uint32_t shard, const struct shard_report *report);
void boards_read(struct boards *boards, uint32_t shard, struct shard_report *ret_report);

#endif
