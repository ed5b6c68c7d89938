/* What a Bloom filter in front of the index saves, and what it costs.
 *
 * A get that the cache could not answer hashes the key twice and asks the index. With the filter
 * (store/bloom.h) it asks that first. Absent keys are what it is for; for those that are there it
 * is one more miss; and whoever adds a key pays for the filter's growth. Two sizes: the filter of a
 * million keys lies in a processor's second or third cache, that of ten million hardly does. */
#include "micro.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "store/memory/bloom.h"

#include <stdlib.h>

#define ROUND_OPERATIONS 1000000
#define MILLION 1000000
#define KEY_SIZE 16
/* A loop pass adds some keys and then lets the filter grow by a step. */
#define ADDS_A_STEP 16
#define SLOTS_A_STEP (6 * ADDS_A_STEP)

struct side {
    uint64_t keys;
    struct index *index;
    struct bloom *bloom;
};

struct absent_state {
    uint8_t secret[HASH_SECRET_SIZE];
    struct prng prng;
    struct side million, many;
    double bytes_max; /* a key, index and filter, from a million keys on */
};

static struct hash_place place_of(const struct absent_state *state, uint64_t number)
{
    uint8_t key[KEY_SIZE] = "benchkey";
    store_u64(key + 8, number);
    return hash_place(state->secret, key, KEY_SIZE);
}

static void side_deinit(struct side *side)
{
    bloom_free(side->bloom);
    index_free(side->index);
}

static bool side_init(struct side *side, bool with_filter)
{
    *side = (struct side){.keys = 0};
    if (index_create(0, &side->index) != 0)
        return false;
    return !with_filter || bloom_create(&side->bloom) == 0;
}

static bool side_add(const struct absent_state *state, struct side *side)
{
    struct hash_place place = place_of(state, side->keys);
    struct index_entry entry = {
        .version = {side->keys, 1}, .location = side->keys & UINT32_MAX, .read_size = 192};
    if (index_add(side->index, place.partition, place.hash, &entry) != 0)
        return false;
    side->keys++;
    if (side->bloom == NULL)
        return true;
    bloom_add(side->bloom, place.partition, place.hash);
    if (side->keys % ADDS_A_STEP == 0)
        (void)bloom_step(side->bloom, side->index, SLOTS_A_STEP);
    return true;
}

static bool side_fill(struct absent_state *state, struct side *side, uint64_t keys)
{
    if (!side_init(side, true))
        return false;
    while (side->keys < keys) {
        if (!side_add(state, side))
            return false;
        if (side->keys % 100000 == 0 && side->keys >= MILLION) {
            uint64_t memory = index_memory(side->index) + bloom_memory(side->bloom);
            double bytes = (double)memory / (double)side->keys;
            state->bytes_max = bytes > state->bytes_max ? bytes : state->bytes_max;
        }
    }
    return true;
}

static void absent_close(void *context)
{
    struct absent_state *state = context;
    side_deinit(&state->million);
    side_deinit(&state->many);
    free(state);
}

static void *absent_open(const struct micro_options *options)
{
    struct absent_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->prng.state = 8;
    for (size_t i = 0; i < sizeof state->secret; i++)
        state->secret[i] = (uint8_t)prng_next(&state->prng);
    if (side_fill(state, &state->million, MILLION) &&
        side_fill(state, &state->many, options->index_keys))
        return state;
    absent_close(state);
    return NULL;
}

static double per_operation(uint64_t start_ns)
{
    return (double)(clock_thread_cpu_ns() - start_ns) / ROUND_OPERATIONS;
}

static uint64_t look_up(const struct side *side, struct hash_place place)
{
    struct index_entry entry;
    return index_find(side->index, place.partition, place.hash, &entry, 1);
}

static uint64_t look_up_filtered(const struct side *side, struct hash_place place)
{
    if (!bloom_may_contain(side->bloom, place.partition, place.hash))
        return 0;
    return look_up(side, place);
}

/* `first` is the first of the numbers to choose from, which are as many as there are keys. */
static double look_ups(struct absent_state *state, const struct side *side, uint64_t first,
                       bool filtered)
{
    uint64_t found = 0;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < ROUND_OPERATIONS; i++) {
        struct hash_place place = place_of(state, first + prng_below(&state->prng, side->keys));
        found += filtered ? look_up_filtered(side, place) : look_up(side, place);
    }
    double time = per_operation(start);
    if (first == 0 ? found < ROUND_OPERATIONS : found > ROUND_OPERATIONS / 100)
        abort();
    return time;
}

static double round_million(void *context)
{
    struct absent_state *state = context;
    return look_ups(state, &state->million, state->million.keys, true);
}

static double round_million_index(void *context)
{
    struct absent_state *state = context;
    return look_ups(state, &state->million, state->million.keys, false);
}

static double round_many(void *context)
{
    struct absent_state *state = context;
    return look_ups(state, &state->many, state->many.keys, true);
}

static double round_many_index(void *context)
{
    struct absent_state *state = context;
    return look_ups(state, &state->many, state->many.keys, false);
}

static double round_present(void *context)
{
    struct absent_state *state = context;
    return look_ups(state, &state->many, 0, true);
}

static double round_present_index(void *context)
{
    struct absent_state *state = context;
    return look_ups(state, &state->many, 0, false);
}

/* From empty to a million. */
static double adds(struct absent_state *state, bool with_filter)
{
    struct side side;
    if (!side_init(&side, with_filter))
        abort();
    uint64_t start = clock_thread_cpu_ns();
    while (side.keys < ROUND_OPERATIONS)
        if (!side_add(state, &side))
            abort();
    double time = per_operation(start);
    side_deinit(&side);
    return time;
}

static double round_add(void *context)
{
    return adds(context, true);
}

static double round_add_index(void *context)
{
    return adds(context, false);
}

/* In percent of absent keys. */
static double passed(struct absent_state *state, const struct side *side)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < ROUND_OPERATIONS; i++) {
        struct hash_place place = place_of(state, 2 * side->keys + i);
        count += bloom_may_contain(side->bloom, place.partition, place.hash);
    }
    return 100 * (double)count / ROUND_OPERATIONS;
}

static size_t absent_figures(void *context, struct micro_figure *ret_figures)
{
    struct absent_state *state = context;
    ret_figures[0] = (struct micro_figure){"filter: % of absent keys that pass, a million",
                                           passed(state, &state->million)};
    ret_figures[1] = (struct micro_figure){"filter: % of absent keys that pass, --index-keys",
                                           passed(state, &state->many)};
    ret_figures[2] = (struct micro_figure){"filter and index: most bytes a key", state->bytes_max};
    return 3;
}

static const struct micro_case cases[] = {
    {"absent of 1 million, with the filter", "absent of 1 million", 0.75, round_million},
    {"absent of 1 million", NULL, 0, round_million_index},
    {"absent of --index-keys, with the filter", "absent of --index-keys", 0.75, round_many},
    {"absent of --index-keys", NULL, 0, round_many_index},
    {"present in --index-keys, with the filter", "present in --index-keys", 2.00, round_present},
    {"present in --index-keys", NULL, 0, round_present_index},
    {"add, 0 to 1 million, with the filter", "add, 0 to 1 million", 2.00, round_add},
    {"add, 0 to 1 million", NULL, 0, round_add_index},
};

const struct micro_group micro_absent = {
    .cases = cases,
    .case_count = sizeof cases / sizeof cases[0],
    .open = absent_open,
    .close = absent_close,
    .figures = absent_figures,
};
