/* A version orders all writes of a key, on all nodes: last write wins.
 *
 * 12 bytes: a hybrid clock (48 bits of Unix milliseconds, 16 bits of counter) and the origin that
 * stamped it (24 bits of directory id, 8 bits of shard). Totally ordered and unique, since no
 * origin stamps a clock value twice. */
#ifndef MINIVAULT_BASE_VERSION_H
#define MINIVAULT_BASE_VERSION_H

#include <stdint.h>

struct version {
    uint64_t clock;
    uint32_t origin;
};

#define VERSION_COUNTER_BITS 16

static inline int version_compare(struct version a, struct version b)
{
    if (a.clock != b.clock)
        return a.clock < b.clock ? -1 : 1;
    return (a.origin > b.origin) - (a.origin < b.origin);
}

static inline uint64_t version_clock_ms(uint64_t clock)
{
    return clock >> VERSION_COUNTER_BITS;
}

static inline uint64_t version_clock_from_ms(uint64_t unix_ms)
{
    return unix_ms << VERSION_COUNTER_BITS;
}

#endif
