/* A histogram that one thread writes while another reads: what is read only grows, and in the end
 * it is everything. */
#include "threads.h"

#include "base/assert.h"
#include "base/histogram.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct counting {
    struct histogram histogram;
    uint64_t rounds;
    atomic_bool is_over;
};

static void *count_values(void *context)
{
    struct counting *counting = context;
    struct prng prng = {5};
    for (uint64_t i = 0; i < counting->rounds; i++)
        histogram_add(&counting->histogram, prng_next(&prng) >> 30, 1);
    atomic_store_explicit(&counting->is_over, true, memory_order_release);
    return NULL;
}

void run_counts(uint64_t rounds, struct tally *tally)
{
    struct counting *counting = calloc(1, sizeof *counting);
    assert(counting != NULL);
    counting->rounds = rounds;
    pthread_t writer;
    int error = pthread_create(&writer, NULL, count_values, counting);
    assert(error == 0);
    uint64_t reads = 0, seen = 0, shrunk = 0;
    while (!atomic_load_explicit(&counting->is_over, memory_order_acquire)) {
        uint64_t total = histogram_total(&counting->histogram);
        shrunk += total < seen;
        seen = total;
        reads++;
    }
    (void)pthread_join(writer, NULL);
    bool is_whole = histogram_total(&counting->histogram) == rounds;
    (void)printf("a histogram of %llu values, read %llu times meanwhile: %s\n",
                 (unsigned long long)rounds, (unsigned long long)reads,
                 is_whole && shrunk == 0 ? "all there" : "WRONG");
    tally->passed += is_whole && shrunk == 0;
    tally->failed += !is_whole || shrunk > 0;
    free(counting);
}
