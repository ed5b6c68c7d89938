/* The policy SIEVE: a hand walks over the queue and evicts the first key that was not visited since
 * the hand's last round. */
#include "key_list.h"
#include "policy.h"

#include <stdlib.h>

struct state {
    struct key_list list;
    uint64_t capacity;
    uint32_t hand; /* KEY_NONE: begins at the oldest */
};

static void sieve_close(void *context)
{
    struct state *state = context;
    key_list_deinit(&state->list);
    free(state);
}

static void *sieve_open(uint64_t capacity, uint64_t key_bound)
{
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->capacity = capacity;
    state->hand = KEY_NONE;
    if (key_list_init(&state->list, key_bound) == 0)
        return state;
    sieve_close(state);
    return NULL;
}

/* The hand goes from old to new, clears the marks of what was visited and stops where there is
 * none: after one round at the latest. */
static void evict(struct state *state)
{
    struct key_list *list = &state->list;
    for (uint64_t passed = 0; passed <= list->count; passed++) {
        uint32_t key = state->hand != KEY_NONE ? state->hand : list->oldest;
        struct key_link *link = &list->links[key];
        state->hand = link->newer;
        if (!link->is_visited) {
            key_list_take(list, key);
            return;
        }
        link->is_visited = false;
    }
}

static bool sieve_ask(void *context, uint64_t key)
{
    struct state *state = context;
    struct key_link *link = &state->list.links[key];
    if (link->is_cached) {
        link->is_visited = true;
        return true;
    }
    if (state->list.count == state->capacity)
        evict(state);
    key_list_push(&state->list, (uint32_t)key);
    return false;
}

static uint64_t sieve_count(const void *context)
{
    const struct state *state = context;
    return state->list.count;
}

const struct policy policy_sieve = {
    .name = "SIEVE",
    .open = sieve_open,
    .ask = sieve_ask,
    .count = sieve_count,
    .close = sieve_close,
};
