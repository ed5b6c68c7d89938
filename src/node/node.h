/* What a node has once and its shards share: slots for connections, the rate limit, the mail
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

struct steer;
struct store_directory;

struct node {
    const struct config *config;
    const struct log *log;
    uint32_t shard_count;
    struct store_directory *directory; /* NULL: not prepared; the store alone opens it */
    struct post_office *office;        /* NULL: there is one shard */
    struct lease *slots;               /* for connections */
    struct rate *rate;                 /* NULL: no limit */
    const struct metrics **metrics;    /* of each shard, once its loop is created */
    const struct steer *steer;         /* NULL: the kernel's hash spreads connections */
};

/* For `shard_count` shards; `config` and `log` outlive it. Errors: -ENOMEM. */
int node_open(const struct config *config, const struct log *log, uint32_t shard_count,
              struct node **ret_node);

/* `steer` spreads connections; the caller's, before the first loop. NULL: the kernel does. */
void node_set_steer(struct node *node, const struct steer *steer);

/* NULL: nothing. */
void node_close(struct node *node);

#endif
