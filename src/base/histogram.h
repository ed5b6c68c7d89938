/* Latencies in fixed memory, with bounded relative error: log-linear buckets (after Gil Tene's
 * HdrHistogram).
 *
 * Each power of two is cut into 32 equal buckets, so a bucket is at most a 32nd of its values wide
 * and a quantile, which is a bucket's middle, at most 1.6 % wrong; up to 64 all values are exact.
 * A bucket's upper bound belongs to it, as `le` of OpenMetrics wants, and every power of two is the
 * upper bound of one. Values above 2^40 (18 minutes, in nanoseconds) count as that.
 *
 * One thread writes, any number read at the same time: counts are relaxed atomics, which cost the
 * writer plain loads and stores. A reader sees each count as it was at some moment of its reading;
 * the count of all is therefore the sum of the buckets that it read, not a number of its own. */
#ifndef MINIVAULT_BASE_HISTOGRAM_H
#define MINIVAULT_BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_LINEAR_BITS 5
#define HISTOGRAM_VALUE_BITS 40
#define HISTOGRAM_BUCKET_COUNT                                                                     \
    ((HISTOGRAM_VALUE_BITS - HISTOGRAM_LINEAR_BITS + 1) << HISTOGRAM_LINEAR_BITS)

/* All zero: empty. 9 KiB. */
struct histogram {
    _Atomic uint64_t sum;
    _Atomic uint64_t maximum;
    _Atomic uint64_t buckets[HISTOGRAM_BUCKET_COUNT];
};

/* For a counter that this thread alone writes. */
static inline void histogram_count(_Atomic uint64_t *counter, uint64_t count)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + count, memory_order_relaxed);
}

/* The bucket of a value; 0 lies with 1 in the first. */
static inline uint32_t histogram_bucket(uint64_t value)
{
    uint64_t below = value > 0 ? value - 1 : 0;
    if (below >> HISTOGRAM_VALUE_BITS != 0)
        return HISTOGRAM_BUCKET_COUNT - 1;
    if (below < 1u << HISTOGRAM_LINEAR_BITS)
        return (uint32_t)below;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(below) - HISTOGRAM_LINEAR_BITS;
    return (shift << HISTOGRAM_LINEAR_BITS) + (uint32_t)(below >> shift);
}

/* `count` times the same value. On the writer's thread. */
static inline void histogram_add(struct histogram *histogram, uint64_t value, uint64_t count)
{
    histogram_count(&histogram->buckets[histogram_bucket(value)], count);
    histogram_count(&histogram->sum, value * count);
    if (value > atomic_load_explicit(&histogram->maximum, memory_order_relaxed))
        atomic_store_explicit(&histogram->maximum, value, memory_order_relaxed);
}

/* The greatest value that falls into a bucket. */
uint64_t histogram_bucket_max(uint32_t bucket);

/* How many values are at most 2^bits, which is at most HISTOGRAM_VALUE_BITS, and more than
 * 2^(bits - 1); bits 0: of the values 0 and 1. Summed over all bits: every value. */
uint64_t histogram_octave(const struct histogram *histogram, uint32_t bits);

uint64_t histogram_total(const struct histogram *histogram);

/* Adds `source`, which its thread may be writing, to `target`, which is the caller's alone. */
void histogram_merge(struct histogram *target, const struct histogram *source);

/* The value that `share` (0 to 1) of all values do not exceed, within the error above; never more
 * than the greatest value was; 0 when there are none. */
uint64_t histogram_quantile(const struct histogram *histogram, double share);

#endif
