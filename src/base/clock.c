/* The hybrid clock. Invariant: `last` never decreases, so every stamp is greater than all before. */
#include "base/clock.h"

#include "base/assert.h"
#include "base/version.h"

void hybrid_clock_init(struct hybrid_clock *clock, uint64_t last)
{
    assert(last < HYBRID_CLOCK_LIMIT);
    clock->last = last;
}

uint64_t hybrid_clock_stamp(struct hybrid_clock *clock, uint64_t unix_ms)
{
    assert(unix_ms < version_clock_ms(HYBRID_CLOCK_LIMIT));
    uint64_t wall = version_clock_from_ms(unix_ms);
    /* 2^63 stamps fit above the limit: more than a machine gives in its life. */
    assert(clock->last < UINT64_MAX);
    clock->last = wall > clock->last ? wall : clock->last + 1;
    return clock->last;
}

void hybrid_clock_see(struct hybrid_clock *clock, uint64_t stamp)
{
    assert(stamp < HYBRID_CLOCK_LIMIT);
    if (stamp > clock->last)
        clock->last = stamp;
}
