/* What a reader makes of a histogram: counts, sums over shards, quantiles. The writer's side is in the
 * header, since it runs with every request. */
#include "base/histogram.h"

#include "base/assert.h"

#define LINEAR_COUNT (1u << HISTOGRAM_LINEAR_BITS)

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

uint64_t histogram_bucket_max(uint32_t bucket)
{
    assert(bucket < HISTOGRAM_BUCKET_COUNT);
    if (bucket < LINEAR_COUNT)
        return bucket + 1;
    uint32_t shift = (bucket >> HISTOGRAM_LINEAR_BITS) - 1;
    uint64_t first = (uint64_t)(bucket - (shift << HISTOGRAM_LINEAR_BITS)) << shift;
    return first + (1ull << shift);
}

uint64_t histogram_octave(const struct histogram *histogram, uint32_t bits)
{
    assert(bits <= HISTOGRAM_VALUE_BITS);
    uint32_t begin = bits == 0 ? 0 : histogram_bucket((1ull << (bits - 1)) + 1);
    uint32_t end = histogram_bucket(1ull << bits) + 1;
    uint64_t count = 0;
    for (uint32_t i = begin; i < end; i++)
        count += read_counter(&histogram->buckets[i]);
    return count;
}

uint64_t histogram_total(const struct histogram *histogram)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT; i++)
        count += read_counter(&histogram->buckets[i]);
    return count;
}

void histogram_merge(struct histogram *target, const struct histogram *source)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT; i++)
        histogram_count(&target->buckets[i], read_counter(&source->buckets[i]));
    histogram_count(&target->sum, read_counter(&source->sum));
    uint64_t maximum = read_counter(&source->maximum);
    if (maximum > read_counter(&target->maximum))
        atomic_store_explicit(&target->maximum, maximum, memory_order_relaxed);
}

uint64_t histogram_quantile(const struct histogram *histogram, double share)
{
    assert(share >= 0 && share <= 1);
    uint64_t total = histogram_total(histogram);
    uint64_t maximum = read_counter(&histogram->maximum);
    double exact = share * (double)total;
    uint64_t rank = (uint64_t)exact;
    rank += (double)rank < exact || rank == 0; /* the first value that reaches the share */
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT && total > 0; i++) {
        seen += read_counter(&histogram->buckets[i]);
        if (seen < rank)
            continue;
        uint64_t last = histogram_bucket_max(i);
        uint64_t below = i > 0 ? histogram_bucket_max(i - 1) : 0;
        uint64_t middle = last - (last - below) / 2;
        return middle < maximum ? middle : maximum;
    }
    return total > 0 ? maximum : 0;
}
