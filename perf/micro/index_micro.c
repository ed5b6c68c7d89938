/* The index: add, find, replace, bytes a key, and how long one add takes at most. */
#include "micro.h"

#include "base/units.h"
#include "store/memory/index.h"

#include <stdlib.h>

#define ROUND_OPERATIONS 1000000
#define PARTITIONS 256

struct index_state {
    uint64_t keys;
    struct index *index;
    struct prng prng;
    uint64_t pause_ns_max;
    uint64_t pauses; /* adds of more than PAUSE_NS */
    double bytes_at_million;
};

#define PAUSE_NS (100 * NS_PER_US)

/* A number's hash: what hash_keyed would say of some key. */
static uint64_t hash_of(uint64_t number)
{
    struct prng prng = {number};
    return prng_next(&prng);
}

static uint32_t partition_of(uint64_t hash)
{
    return (uint32_t)(hash * 0x9E3779B97F4A7C15u >> 56);
}

static bool add(struct index *index, uint64_t number)
{
    uint64_t hash = hash_of(number);
    struct index_entry entry = {
        .version = {number, 1}, .location = number & UINT32_MAX, .read_size = 192};
    return index_add(index, partition_of(hash), hash, &entry) == 0;
}

/* CPU time, so that what else runs on the machine is not in it; what the kernel does to give us
 * memory is. */
static bool fill_timed(struct index_state *state)
{
    uint64_t before = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < state->keys; i++) {
        if (!add(state->index, i))
            return false;
        uint64_t now = clock_thread_cpu_ns();
        if (now - before > state->pause_ns_max)
            state->pause_ns_max = now - before;
        state->pauses += now - before > PAUSE_NS;
        before = now;
        if (i + 1 == 1000000)
            state->bytes_at_million = (double)index_memory(state->index) / 1000000;
    }
    return true;
}

static void index_close(void *context)
{
    struct index_state *state = context;
    index_free(state->index);
    free(state);
}

static void *index_open(const struct micro_options *options)
{
    struct index_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->keys = options->index_keys;
    state->prng.state = 4;
    if (index_create(0, &state->index) == 0 && fill_timed(state))
        return state;
    index_close(state);
    return NULL;
}

static double per_operation(uint64_t start_ns, uint64_t operations)
{
    return (double)(clock_thread_cpu_ns() - start_ns) / (double)operations;
}

/* Into an index of its own, from empty to a million. */
static double round_add(void *context)
{
    struct index *index;
    (void)context;
    if (index_create(0, &index) != 0)
        abort();
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < ROUND_OPERATIONS; i++)
        if (!add(index, i))
            abort();
    double time = per_operation(start, ROUND_OPERATIONS);
    index_free(index);
    return time;
}

static double round_find(void *context)
{
    struct index_state *state = context;
    uint64_t found = 0;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < ROUND_OPERATIONS; i++) {
        uint64_t hash = hash_of(prng_below(&state->prng, state->keys));
        struct index_entry entry;
        found += index_find(state->index, partition_of(hash), hash, &entry, 1);
    }
    double time = per_operation(start, ROUND_OPERATIONS);
    if (found != ROUND_OPERATIONS)
        abort();
    return time;
}

static double round_absent(void *context)
{
    struct index_state *state = context;
    uint64_t found = 0;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < ROUND_OPERATIONS; i++) {
        uint64_t hash = hash_of(state->keys + prng_next(&state->prng) % (1ull << 60));
        struct index_entry entry;
        found += index_find(state->index, partition_of(hash), hash, &entry, 1);
    }
    micro_keep(&found);
    return per_operation(start, ROUND_OPERATIONS);
}

static double round_replace(void *context)
{
    struct index_state *state = context;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < ROUND_OPERATIONS; i++) {
        uint64_t number = prng_below(&state->prng, state->keys);
        uint64_t hash = hash_of(number);
        struct index_entry entry = {
            .version = {number, 1}, .location = i & UINT32_MAX, .read_size = 192};
        if (index_replace(state->index, partition_of(hash), hash, entry.version, &entry, NULL) != 0)
            abort();
    }
    return per_operation(start, ROUND_OPERATIONS);
}

static size_t index_figures(void *context, struct micro_figure *ret_figures)
{
    struct index_state *state = context;
    double bytes = (double)index_memory(state->index) / (double)index_count(state->index);
    ret_figures[0] = (struct micro_figure){"index: bytes a key", bytes};
    ret_figures[1] =
        (struct micro_figure){"index: bytes a key at a million", state->bytes_at_million};
    ret_figures[2] =
        (struct micro_figure){"index: longest add, us", (double)state->pause_ns_max / 1000};
    ret_figures[3] = (struct micro_figure){"index: adds over 100 us", (double)state->pauses};
    return 4;
}

static const struct micro_case cases[] = {
    {"index_add, 0 to 1 million", NULL, 0, round_add},
    {"index_find", NULL, 0, round_find},
    {"index_find, absent", NULL, 0, round_absent},
    {"index_replace", NULL, 0, round_replace},
};

const struct micro_group micro_index = {
    .cases = cases,
    .case_count = sizeof cases / sizeof cases[0],
    .open = index_open,
    .close = index_close,
    .figures = index_figures,
};
