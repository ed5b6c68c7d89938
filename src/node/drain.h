/* The way down of a shard: SIGTERM until everything is on disk.
 *
 *   serving as before, but not ready      until the drain's delay is over: the drain proper begins
 *   serving what is on its way            until LIMITS_DRAIN_GRACE_NS later
 *   connections finish, listeners close   until no connection is left
 *   serving the other shards              until none of them asks any more
 *   the store shuts                       the end */
#ifndef MINIVAULT_NODE_DRAIN_H
#define MINIVAULT_NODE_DRAIN_H

#include "net/client/clients.h"
#include "net/listener.h"
#include "shard/shard.h"

struct drain {
    struct io *io;
    const struct log *log;
    struct clients *clients;
    struct listeners *listeners;
    struct shard *shard;
    struct io_op *tick; /* the loop's, which ends with it */
    uint64_t delay_ns;  /* from SIGTERM until the drain proper */
    bool is_on;
    bool is_alone; /* the other shards need nothing any more */
    uint64_t began_ns;
};

/* Returns false: it has begun before. */
bool drain_begin(struct drain *drain);

bool drain_is_on(const struct drain *drain);

/* One step, of a drain that has begun. Returns 0: go on; 1: the drain is over; -errno: what was acknowledged could not be made
 * durable, which has been logged. */
int drain_pass(struct drain *drain);

/* Whether the post is still in use. */
bool drain_may_post(const struct drain *drain);

/* How long the loop may sleep for it. */
uint64_t drain_rest_ns(const struct drain *drain);

#endif
