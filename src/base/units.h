/* Sizes and times with their names. */
#ifndef MINIVAULT_BASE_UNITS_H
#define MINIVAULT_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define NS_PER_US ((uint64_t)1000)
#define NS_PER_MS (1000 * NS_PER_US)
#define NS_PER_S (1000 * NS_PER_MS)

/* What O_DIRECT wants of an offset, a length and an address, on every device that we support. */
#define DISK_BLOCK_SIZE ((uint64_t)4096)

static inline uint64_t round_up(uint64_t value, uint64_t power_of_two)
{
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

static inline uint64_t round_down(uint64_t value, uint64_t power_of_two)
{
    return value & ~(power_of_two - 1);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What one of `count` has of a limit of all: at least `least`. */
static inline uint64_t share_u64(uint64_t limit, uint64_t count, uint64_t least)
{
    return max_u64(limit / count, least);
}

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#endif
