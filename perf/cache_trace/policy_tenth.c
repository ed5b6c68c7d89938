/* The policy that evicts a tenth of all keys at once, those with the fewest hits. */
#include "policy.h"

#include "base/prng.h"

#include <stdlib.h>

#define EVICTED_PART 10

struct entry {
    uint32_t hits;
    uint32_t lot; /* orders entries with as many hits: nothing else is known of them */
    uint32_t key;
};

#define NOWHERE UINT32_MAX

struct state {
    struct entry *entries;
    uint32_t *places; /* of keys among the entries */
    uint64_t capacity;
    uint64_t count;
    struct prng prng;
};

static void tenth_close(void *context)
{
    struct state *state = context;
    free(state->entries);
    free(state->places);
    free(state);
}

static void *tenth_open(uint64_t capacity, uint64_t key_bound)
{
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    *state = (struct state){.capacity = capacity, .prng = {2}};
    state->entries = malloc(capacity * sizeof *state->entries);
    state->places = malloc(key_bound * sizeof *state->places);
    if (state->entries == NULL || state->places == NULL) {
        tenth_close(state);
        return NULL;
    }
    for (uint64_t i = 0; i < key_bound; i++)
        state->places[i] = NOWHERE;
    return state;
}

/* The hottest first. */
static int compare_entries(const void *a, const void *b)
{
    const struct entry *left = a;
    const struct entry *right = b;
    if (left->hits != right->hits)
        return left->hits < right->hits ? 1 : -1;
    return left->lot < right->lot ? 1 : -1;
}

static void evict(struct state *state)
{
    qsort(state->entries, state->count, sizeof *state->entries, compare_entries);
    uint64_t kept = state->count - (state->count + EVICTED_PART - 1) / EVICTED_PART;
    while (state->count > kept)
        state->places[state->entries[--state->count].key] = NOWHERE;
    for (uint64_t i = 0; i < kept; i++)
        state->places[state->entries[i].key] = (uint32_t)i;
}

static bool tenth_ask(void *context, uint64_t key)
{
    struct state *state = context;
    uint32_t place = state->places[key];
    if (place != NOWHERE) {
        state->entries[place].hits++;
        return true;
    }
    if (state->count == state->capacity)
        evict(state);
    state->places[key] = (uint32_t)state->count;
    state->entries[state->count++] =
        (struct entry){.lot = (uint32_t)prng_next(&state->prng), .key = (uint32_t)key};
    return false;
}

static uint64_t tenth_count(const void *context)
{
    const struct state *state = context;
    return state->count;
}

const struct policy policy_tenth = {
    .name = "coldest tenth",
    .open = tenth_open,
    .ask = tenth_ask,
    .count = tenth_count,
    .close = tenth_close,
};
