/* What a shard tells the steering program about its load (bpf/steer.h), in stores to memory that
 * the program reads: no system call, no lock.
 *
 * A connection that was chosen for the shard counts as pending until the shard accepts it. Some
 * never come: the client went away, or somebody sends SYNs only. So what was pending at one look,
 * and has not come by the next, STEER_PENDING_NS later, is given up: a flood of SYNs makes a shard
 * look loaded for two such periods, not for ever.
 *
 * Without steering (no CAP_BPF, the simulator) `shared` is NULL and everything here does nothing,
 * so that its callers need not know. All functions are called on the shard's own thread. */
#ifndef MINIVAULT_NET_STEER_LOAD_H
#define MINIVAULT_NET_STEER_LOAD_H

#include "bpf/steer.h"

#include "base/units.h"

#include <stdbool.h>
#include <stddef.h>

/* A handshake takes a round trip; a lost SYN-ACK is sent again after a second. */
#define STEER_PENDING_NS (2 * NS_PER_S)

struct steer_load {
    struct steer_shard *shared; /* steer_shard()'s, or NULL */
    uint32_t accepted_count;    /* since the last publication */
    uint64_t marked_chosen;     /* at the last look */
    uint64_t marked_ns;
};

/* `shared` stays the caller's (struct steer's) and outlives this. */
void steer_load_init(struct steer_load *load, struct steer_shard *shared, uint64_t now_ns);

/* A connection was taken from the listener; also one that is refused at once. The program sees it
 * with the next publication, as open and no longer pending. */
void steer_load_accepted(struct steer_load *load);

/* Once a pass, also of an idle shard now and then: writes only what has changed. `open_count`:
 * connections of the shard, on all its ports. */
void steer_load_publish(struct steer_load *load, uint32_t open_count, uint64_t now_ns);

/* The shard takes no new connection from here on. What was chosen before is still to be accepted.
 */
void steer_load_drain(struct steer_load *load);

/* Whether everything that was chosen for this shard has been accepted or given up: a drained shard
 * may now close its listener. Without steering: true. */
bool steer_load_is_settled(const struct steer_load *load);

#endif
