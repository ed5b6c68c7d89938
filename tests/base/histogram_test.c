/* The histogram by itself: its buckets, its quantiles and their error, and merging. */
#include "base/histogram.h"

#include "base/prng.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct histogram *new_histogram(void)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);
    cr_assert_not_null(histogram);
    return histogram;
}

Test(histogram, of_nothing_is_zero)
{
    struct histogram *empty = new_histogram();
    cr_assert_eq(histogram_total(empty), 0);
    cr_assert_eq(histogram_quantile(empty, 0.5), 0);
    cr_assert_eq(histogram_quantile(empty, 1), 0);
    free(empty);
}

Test(histogram, buckets_are_gapless_and_know_their_bounds)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT; i++) {
        uint64_t last = histogram_bucket_max(i);
        cr_assert_gt(last, before);
        cr_assert_eq(histogram_bucket(before + 1), i, "the first of bucket %u", i);
        cr_assert_eq(histogram_bucket(last), i, "the last of bucket %u", i);
        cr_assert_leq((last - before) * 32, before < 64 ? 64 * 32 : before, "too wide: %u", i);
        before = last;
    }
    cr_assert_eq(before, 1ull << HISTOGRAM_VALUE_BITS);
}

Test(histogram, every_power_of_two_is_an_upper_bound)
{
    for (uint32_t bits = 0; bits <= HISTOGRAM_VALUE_BITS; bits++)
        cr_assert_eq(histogram_bucket_max(histogram_bucket(1ull << bits)), 1ull << bits);
}

Test(histogram, takes_zero_and_what_is_too_large)
{
    struct histogram *histogram = new_histogram();
    histogram_add(histogram, 0, 1);
    histogram_add(histogram, UINT64_MAX, 1);
    histogram_add(histogram, (1ull << HISTOGRAM_VALUE_BITS) + 1, 1);
    cr_assert_eq(histogram_total(histogram), 3);
    cr_assert_eq(histogram_octave(histogram, 0), 1);
    cr_assert_eq(histogram_octave(histogram, HISTOGRAM_VALUE_BITS), 2);
    cr_assert_eq(histogram->maximum, UINT64_MAX);
    free(histogram);
}

Test(histogram, octaves_count_each_value_once)
{
    struct histogram *histogram = new_histogram();
    for (uint64_t value = 0; value <= 5000; value++)
        histogram_add(histogram, value, 1);
    uint64_t total = 0;
    for (uint32_t bits = 0; bits <= HISTOGRAM_VALUE_BITS; bits++) {
        uint64_t below = bits == 0 ? 0 : (1ull << (bits - 1)) + 1;
        uint64_t end = (1ull << bits) + 1;
        uint64_t expected = below > 5000 ? 0 : (end < 5001 ? end : 5001) - below;
        cr_assert_eq(histogram_octave(histogram, bits), expected, "octave %u", bits);
        total += expected;
    }
    cr_assert_eq(total, 5001);
    free(histogram);
}

Test(histogram, small_values_are_exact)
{
    struct histogram *histogram = new_histogram();
    for (uint64_t value = 1; value <= 64; value++)
        histogram_add(histogram, value, 1);
    for (uint64_t value = 1; value <= 64; value++)
        cr_assert_eq(histogram_quantile(histogram, (double)value / 64), value);
    free(histogram);
}

static int compare(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
    return first < second ? -1 : first > second;
}

/* Uniform over each order of magnitude, as latencies are. */
Test(histogram, quantiles_are_within_their_error)
{
    enum { COUNT = 20000 };
    static const double shares[] = {0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1};
    struct histogram *histogram = new_histogram();
    uint64_t *values = calloc(COUNT, sizeof *values);
    struct prng prng = {7};
    for (uint32_t i = 0; i < COUNT; i++) {
        values[i] = (prng_next(&prng) >> (30 + prng_next(&prng) % 25)) + 1;
        histogram_add(histogram, values[i], 1);
    }
    qsort(values, COUNT, sizeof *values, compare);
    for (uint32_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        uint64_t exact = values[(uint32_t)(shares[i] * COUNT) - 1];
        double got = (double)histogram_quantile(histogram, shares[i]);
        cr_assert_leq(got, (double)exact * (1 + 1.0 / 60), "p%g: %g, not %lu", shares[i] * 100, got,
                      exact);
        cr_assert_geq(got, (double)exact * (1 - 1.0 / 60), "p%g: %g, not %lu", shares[i] * 100, got,
                      exact);
    }
    free(values);
    free(histogram);
}

Test(histogram, a_quantile_is_never_above_the_greatest_value)
{
    struct histogram *histogram = new_histogram();
    histogram_add(histogram, 1000001, 5);
    cr_assert_eq(histogram_quantile(histogram, 0.5), 1000001);
    cr_assert_eq(histogram_quantile(histogram, 1), 1000001);
    free(histogram);
}

Test(histogram, many_at_once_are_as_many_single_ones)
{
    struct histogram *one = new_histogram(), *other = new_histogram();
    for (uint32_t i = 0; i < 100; i++)
        histogram_add(one, 12345, 1);
    histogram_add(other, 12345, 100);
    cr_assert_arr_eq(one, other, sizeof *one);
    cr_assert_eq(one->sum, 1234500);
    free(one);
    free(other);
}

Test(histogram, merging_adds_counts_and_sums_and_keeps_the_maximum)
{
    struct histogram *one = new_histogram(), *other = new_histogram(), *both = new_histogram();
    for (uint64_t value = 1; value < 100000; value = value * 3 + 1) {
        histogram_add(one, value, 2);
        histogram_add(other, value * 7, 3);
        histogram_add(both, value, 2);
        histogram_add(both, value * 7, 3);
    }
    histogram_merge(one, other);
    cr_assert_arr_eq(one, both, sizeof *one);
    free(one);
    free(other);
    free(both);
}
