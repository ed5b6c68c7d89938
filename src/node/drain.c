/* The steps of the drain, one a pass. */
#include "node/drain.h"

#include "net/client/limits.h"
#include "store/store.h"

#include "base/assert.h"
#include "base/units.h"

#include <inttypes.h>
#include <string.h>

#define DRAIN_POLL_NS (10 * NS_PER_MS)
#define DRAIN_POLL_SHARED_NS NS_PER_MS /* while other shards drain, too */

bool drain_begin(struct drain *drain)
{
    if (drain->is_on)
        return false;
    drain->is_on = true;
    drain->began_ns = io_now_ns(drain->io);
    clients_drain(drain->clients);
    return true;
}

bool drain_is_on(const struct drain *drain)
{
    return drain->is_on;
}

/* How long the drain proper lasts: what a load balancer gets to see that this node is not ready
 * comes before it. 0: not yet. */
static uint64_t lasts_ns(const struct drain *drain)
{
    uint64_t lasted_ns = io_now_ns(drain->io) - drain->began_ns;
    return lasted_ns > drain->delay_ns ? lasted_ns - drain->delay_ns : 0;
}

static int finish(struct drain *drain)
{
    assert(drain->clients->count == 0);
    if (io_op_is_active(drain->tick)) {
        io_cancel(drain->io, drain->tick);
        return 0;
    }
    if (listeners_are_open(drain->listeners))
        return 0;
    int result = store_shut(drain->shard->store);
    if (result < 0) {
        log_error(drain->log, "cannot make everything durable at shutdown: %s", strerror(-result));
        return result;
    }
    log_info(drain->log, "drained: everything is on disk");
    return 1;
}

/* Whether nobody needs this shard any more: it asks nothing, and when no other does, it serves
 * nobody. */
static bool is_alone(struct drain *drain)
{
    struct post *post = drain->shard->post;
    if (post != NULL && !drain->is_alone)
        drain->is_alone = post_end(post);
    return post == NULL || drain->is_alone;
}

int drain_pass(struct drain *drain)
{
    if (!drain->is_on)
        return 0;
    uint64_t drain_ns = lasts_ns(drain);
    listeners_stop(drain->listeners, drain_ns);
    /* For a moment connections are served as before, so that what was on its way when the signal
     * came is answered. */
    if (drain_ns >= LIMITS_DRAIN_GRACE_NS)
        clients_finish(drain->clients, drain_ns > LIMITS_DRAIN_NS);
    if (drain->clients->count > 0 || listeners_are_open(drain->listeners) || !is_alone(drain))
        return 0;
    return finish(drain);
}

bool drain_may_post(const struct drain *drain)
{
    return drain->shard->post != NULL && !drain->is_alone;
}

uint64_t drain_rest_ns(const struct drain *drain)
{
    if (!drain->is_on)
        return UINT64_MAX;
    return drain->shard->post != NULL ? DRAIN_POLL_SHARED_NS : DRAIN_POLL_NS;
}
