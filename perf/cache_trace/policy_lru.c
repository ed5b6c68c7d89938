/* The policy LRU: the key that was not used for the longest time goes first. */
#include "key_list.h"
#include "policy.h"

#include <stdlib.h>

struct state {
    struct key_list list;
    uint64_t capacity;
};

static void lru_close(void *context)
{
    struct state *state = context;
    key_list_deinit(&state->list);
    free(state);
}

static void *lru_open(uint64_t capacity, uint64_t key_bound)
{
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->capacity = capacity;
    if (key_list_init(&state->list, key_bound) == 0)
        return state;
    lru_close(state);
    return NULL;
}

static bool lru_ask(void *context, uint64_t key)
{
    struct state *state = context;
    bool is_hit = state->list.links[key].is_cached;
    if (is_hit)
        key_list_take(&state->list, (uint32_t)key);
    else if (state->list.count == state->capacity)
        key_list_take(&state->list, state->list.oldest);
    key_list_push(&state->list, (uint32_t)key);
    return is_hit;
}

static uint64_t lru_count(const void *context)
{
    const struct state *state = context;
    return state->list.count;
}

const struct policy policy_lru = {
    .name = "LRU",
    .open = lru_open,
    .ask = lru_ask,
    .count = lru_count,
    .close = lru_close,
};
