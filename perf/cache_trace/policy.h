/* Caches to compare: each is asked for keys, one after the other, and takes in what it misses. */
#ifndef PERF_CACHE_TRACE_POLICY_H
#define PERF_CACHE_TRACE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct policy {
    const char *name;
    /* A cache for `capacity` entries of keys below `key_bound`. NULL: no memory. */
    void *(*open)(uint64_t capacity, uint64_t key_bound);
    /* Returns whether it was a hit. */
    bool (*ask)(void *state, uint64_t key);
    uint64_t (*count)(const void *state); /* entries held */
    void (*close)(void *state);
};

/* src/store/cache.h itself, with entries of a 16-byte key and a 100-byte value. The capacity is
 * approximate, since what it keeps to is a budget in bytes. */
extern const struct policy policy_minivault;

/* Least recently used. */
extern const struct policy policy_lru;

/* One bit of use and a hand (Zhang et al., NSDI 2024): the simplest that resists scans. */
extern const struct policy policy_sieve;

/* Counts hits, never ages them, and when it is full evicts the tenth that has the fewest: what the
 * first minivault did. */
extern const struct policy policy_tenth;

#endif
