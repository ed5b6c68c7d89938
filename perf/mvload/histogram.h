/* Latencies with bounded relative error (after Gil Tene's HdrHistogram): buckets are linear within
 * a power of two.
 *
 * 128 buckets a power of two: a bucket is at most 1/128 of its value wide, and its middle is
 * reported, so the error is at most 0.4 %. Values below 128 ns are exact; those above 2^40 ns (18
 * minutes) count as that. */
#ifndef PERF_MVLOAD_HISTOGRAM_H
#define PERF_MVLOAD_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_LINEAR_BITS 7
#define HISTOGRAM_VALUE_BITS 40
#define HISTOGRAM_BUCKET_COUNT                                                                     \
    ((HISTOGRAM_VALUE_BITS - HISTOGRAM_LINEAR_BITS + 1) << HISTOGRAM_LINEAR_BITS)

struct histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t maximum;
    uint64_t minimum; /* UINT64_MAX while empty */
    uint64_t buckets[HISTOGRAM_BUCKET_COUNT];
};

void histogram_init(struct histogram *histogram);

static inline uint32_t histogram_bucket(uint64_t value)
{
    if (value >> HISTOGRAM_VALUE_BITS != 0)
        value = (1ull << HISTOGRAM_VALUE_BITS) - 1;
    if (value < 1u << HISTOGRAM_LINEAR_BITS)
        return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HISTOGRAM_LINEAR_BITS;
    return (shift << HISTOGRAM_LINEAR_BITS) + (uint32_t)(value >> shift);
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->buckets[histogram_bucket(value)]++;
    histogram->count++;
    histogram->sum += value;
    if (value > histogram->maximum)
        histogram->maximum = value;
    if (value < histogram->minimum)
        histogram->minimum = value;
}

/* Adds `source` to `target`. */
void histogram_merge(struct histogram *target, const struct histogram *source);

/* The value that `share` (0 to 1) of all values do not exceed; 0 when there are none. */
uint64_t histogram_quantile(const struct histogram *histogram, double share);

#endif
