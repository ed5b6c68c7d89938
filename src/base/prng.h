/* A small seeded generator (splitmix64; Steele, Lea, Flood, 2014) for choices that need no secrecy.
 * The seed is passed in, so that the simulator can replay it. */
#ifndef MINIVAULT_BASE_PRNG_H
#define MINIVAULT_BASE_PRNG_H

#include <stdint.h>

struct prng {
    uint64_t state;
};

static inline uint64_t prng_next(struct prng *prng)
{
    uint64_t z = (prng->state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* A number below `bound`, which is not 0. */
static inline uint64_t prng_below(struct prng *prng, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)prng_next(prng) * bound) >> 64);
}

#endif
