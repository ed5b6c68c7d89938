#include "histogram.h"

#include <math.h>
#include <string.h>

void histogram_init(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
    histogram->minimum = UINT64_MAX;
}

void histogram_merge(struct histogram *target, const struct histogram *source)
{
    target->count += source->count;
    target->sum += source->sum;
    if (source->maximum > target->maximum)
        target->maximum = source->maximum;
    if (source->minimum < target->minimum)
        target->minimum = source->minimum;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT; i++)
        target->buckets[i] += source->buckets[i];
}

static uint64_t bucket_middle(uint32_t bucket)
{
    if (bucket < 2u << HISTOGRAM_LINEAR_BITS)
        return bucket;
    uint32_t shift = (bucket >> HISTOGRAM_LINEAR_BITS) - 1;
    uint64_t base = bucket - ((uint64_t)shift << HISTOGRAM_LINEAR_BITS);
    return (base << shift) + (1ull << shift) / 2;
}

uint64_t histogram_quantile(const struct histogram *histogram, double share)
{
    if (histogram->count == 0)
        return 0;
    uint64_t rank = (uint64_t)ceil(share * (double)histogram->count);
    if (rank == 0)
        rank = 1;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            uint64_t middle = bucket_middle(i);
            return middle > histogram->maximum ? histogram->maximum : middle;
        }
    }
    return histogram->maximum;
}
