/* The policy of minivault's own cache, store/memory/cache.c, with values of one size. */
#include "policy.h"

#include "base/hash.h"
#include "store/memory/cache.h"

#include <stdlib.h>

#define KEY_SIZE 16
#define VALUE_SIZE 100
/* An entry of these sizes, with its share of the table (perf/micro). */
#define ENTRY_BYTES 206

struct state {
    struct cache *cache;
    uint8_t secret[HASH_SECRET_SIZE];
};

static void minivault_close(void *context)
{
    struct state *state = context;
    cache_free(state->cache);
    free(state);
}

static void *minivault_open(uint64_t capacity, uint64_t key_bound)
{
    (void)key_bound;
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    for (uint32_t i = 0; i < sizeof state->secret; i++)
        state->secret[i] = (uint8_t)(i * 151 + 7);
    if (cache_create(capacity * ENTRY_BYTES, &state->cache) == 0)
        return state;
    minivault_close(state);
    return NULL;
}

static bool minivault_ask(void *context, uint64_t key)
{
    struct state *state = context;
    uint8_t text[KEY_SIZE] = "trace...";
    static const uint8_t value[VALUE_SIZE];
    store_u64(text + 8, key);
    struct slice slice = {text, sizeof text};
    uint64_t hash = hash_keyed(state->secret, text, sizeof text);
    if (cache_find(state->cache, hash, slice) != NULL)
        return true;
    struct version version = {key, 1};
    (void)cache_put(state->cache, hash, slice, (struct slice){value, sizeof value}, false, false,
                    version, 1);
    return false;
}

static uint64_t minivault_count(const void *context)
{
    const struct state *state = context;
    struct cache_stats stats;
    cache_stats(state->cache, &stats);
    return stats.entries;
}

const struct policy policy_minivault = {
    .name = "minivault",
    .open = minivault_open,
    .ask = minivault_ask,
    .count = minivault_count,
    .close = minivault_close,
};
