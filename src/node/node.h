/* What a node has once and its shards share: places for connections, the rate limit, the mail
 * between shards, and what each tells the others of itself.
 *
 * Opened before the shards' threads begin, closed after they have ended. */
#ifndef MINIVAULT_NODE_NODE_H
#define MINIVAULT_NODE_NODE_H

#include "base/log.h"
#include "node/config.h"
#include "net/watch/metrics.h"
#include "shard/lease.h"
#include "shard/post.h"
#include "shard/rate.h"
#include "store/store.h"

#include <stdalign.h>
#include <stdatomic.h>

/* What a shard tells of itself, each tick (CONFIG_TICK_NS). */
struct node_report {
    struct store_stats store;
    uint64_t connections, connections_accepted, connections_refused;
    uint64_t gets, sets, deletes, requests_refused;
    uint64_t memory; /* bytes, of connections and replies */
    int failed;
    bool is_draining;
};

struct steer;
struct store_directory;

struct node {
    const struct config *config;
    const struct log *log;
    uint32_t shard_count;
    struct store_directory *directory; /* NULL: not prepared; the store alone opens it */
    struct post_office *office;        /* NULL: there is one shard */
    struct lease *places;              /* for connections */
    struct rate *rate;                 /* NULL: no limit */
    struct node_desk *desks;           /* a shard's report each */
    const struct metrics **metrics;    /* of each shard's server, once it is created */
    const struct steer *steer;         /* NULL: the kernel's hash spreads connections */
};

/* For `shard_count` shards; `config` and `log` outlive it. Errors: -ENOMEM. */
int node_open(const struct config *config, const struct log *log, uint32_t shard_count,
              struct node **ret_node);

/* NULL: nothing. */
void node_close(struct node *node);

/* The world of `shard` has turned, at `now_ns`. On its thread. */
void node_turned(struct node *node, uint32_t shard, uint64_t now_ns);

/* When it turned last. From any thread. */
uint64_t node_turned_ns(const struct node *node, uint32_t shard);

/* Tells what a shard says of itself, and reads what one has said. From any thread; not for the hot
 * path. */
void node_tell(struct node *node, uint32_t shard, const struct node_report *report);
void node_read(struct node *node, uint32_t shard, struct node_report *ret_report);

#endif
