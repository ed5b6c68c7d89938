/* The hybrid logical clock: stamps that follow the wall clock when they can and never go back when
 * it does.
 *
 * Source: Kulkarni et al., "Logical Physical Clocks", 2014, reduced to one 64-bit number: the
 * counter carries into the milliseconds when more than 65,536 stamps fall into one. Time is passed
 * in. */
#ifndef MINIVAULT_BASE_CLOCK_H
#define MINIVAULT_BASE_CLOCK_H

#include "base/assert.h"
#include "base/units.h"
#include "base/version.h"

#include <stdint.h>

struct hybrid_clock {
    uint64_t last; /* the greatest stamp given or seen; never decreases */
};

/* A stamp of the year 6429. Whoever takes stamps from the network or the disk refuses such ones
 * first, so that nobody can wind the clock up to its end. */
#define HYBRID_CLOCK_LIMIT ((uint64_t)1 << 63)

/* Starts the clock above every stamp up to `last`, which recovery found; below the limit. */
static inline void hybrid_clock_init(struct hybrid_clock *clock, uint64_t last)
{
    assert(last < HYBRID_CLOCK_LIMIT);
    clock->last = last;
}

/* The next stamp: greater than every one before, at least the wall clock's `unix_ms` (which has at
 * most 47 bits). */
static inline uint64_t hybrid_clock_stamp(struct hybrid_clock *clock, uint64_t unix_ms)
{
    assert(unix_ms < version_clock_ms(HYBRID_CLOCK_LIMIT));
    /* 2^63 stamps fit above the limit: more than a machine gives in its life. */
    assert(clock->last < UINT64_MAX);
    clock->last = max_u64(version_clock_from_ms(unix_ms), clock->last + 1);
    return clock->last;
}

/* Takes note of a stamp that somebody else gave and the caller has judged: below the limit. */
static inline void hybrid_clock_see(struct hybrid_clock *clock, uint64_t stamp)
{
    assert(stamp < HYBRID_CLOCK_LIMIT);
    clock->last = max_u64(clock->last, stamp);
}

#endif
