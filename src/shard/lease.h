/* A lease: things of the node that are only counted (slots for connections), without a line that
 * every shard writes.
 *
 * What nobody uses is partly in a common stock and partly on the shelf of a shard, whose line only
 * this shard writes as a rule. A shard takes from its shelf, fills that from the stock a chunk at a
 * time, and gives a chunk back when it has two to spare. When the stock is empty it takes single
 * ones from the shelves of others: so nothing is refused while anything is left, and never is more
 * handed out than there is:
 *
 *     count = stock + shelves + used        (but for what is on its way from one to another)
 *
 * The nearer the stock to its end, the smaller the chunks. A shard refuses when it has seen stock
 * and shelves empty one after the other; what comes back just then serves the next one. No data
 * hangs on the counts, so they need no order among each other. */
#ifndef MINIVAULT_SHARD_LEASE_H
#define MINIVAULT_SHARD_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#define LEASE_CHUNK_MAX 64u

struct lease;

/* `count` things for 1 to 65,535 shards. Errors: -ENOMEM. */
int lease_open(uint32_t count, uint32_t shard_count, struct lease **ret_lease);
void lease_close(struct lease *lease);

/* Takes one, on the shard's own thread. False: all are used. */
bool lease_take(struct lease *lease, uint32_t shard);

/* Gives one back that the shard has taken, on its own thread. */
void lease_put(struct lease *lease, uint32_t shard);

/* How many are used, about, while others take and put. From any thread. */
uint32_t lease_used(const struct lease *lease);

#endif
