/* The cache, and what the hardware asks for beside it.
 *
 * GET hot is what a server does for a key that is in memory: hash the key, find the entry, copy the
 * value. Its bound does no more than the memory makes necessary: the same hash over the same keys,
 * one line of an index as large as the cache's table, the entry that it leads to, in memory as
 * large as the cache's entries, and the copy of as many bytes as the entry says. It compares
 * nothing: it is told which of a line's offsets is the one. Both run over all keys once a round, in
 * the same random order, so that every line is as cold as it can be.
 *
 * Alone: the next key is known only when the value is there, as when one request comes at a time.
 * Together: the requests of a batch are all known, so that their misses overlap; the bound is a
 * loop in which the processor looks ahead by itself. */
#include "micro.h"

#include "base/hash.h"
#include "base/units.h"
#include "store/memory/cache.h"
#include "store/memory/cache_arena.h"
#include "store/memory/cache_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define KEY_SIZE 16
#define BATCH 16
#define TARGET_SIZE (16 * KIB) /* values are copied to where a send buffer would be */

#define LINE_SLOTS 16
struct line {
    uint32_t entries[LINE_SLOTS];
};

struct cache_state {
    struct micro_options options;
    uint8_t secret[HASH_SECRET_SIZE];
    struct cache *cache;
    uint8_t *keys; /* in the order of the rounds */
    uint8_t *value;
    uint8_t *target;
    uint64_t target_used;
    /* the bound's: lines of entry numbers, which of them is a key's, and the entries */
    struct line *lines;
    uint64_t line_count;
    uint8_t *slots;
    uint8_t *entries;
    uint64_t entry_size;
};

static struct slice key_at(const struct cache_state *state, uint64_t index)
{
    return (struct slice){state->keys + index * KEY_SIZE, KEY_SIZE};
}

static void make_keys(struct cache_state *state)
{
    for (uint64_t i = 0; i < state->options.keys; i++) {
        uint8_t *key = state->keys + i * KEY_SIZE;
        memcpy(key, "benchkey", 8);
        store_u64(key + 8, i); /* also the order in which it is put */
    }
}

static void shuffle_keys(struct cache_state *state, struct prng *prng)
{
    for (uint64_t i = state->options.keys - 1; i > 0; i--) {
        uint8_t *a = state->keys + i * KEY_SIZE + 8;
        uint8_t *b = state->keys + prng_below(prng, i + 1) * KEY_SIZE + 8;
        uint64_t kept = load_u64(a);
        memcpy(a, b, 8);
        store_u64(b, kept);
    }
}

static bool put(struct cache_state *state, struct slice key)
{
    uint64_t hash = hash_keyed(state->secret, key.data, key.size);
    struct slice value = {state->value, (uint32_t)state->options.value_size};
    struct version version = {1, 1};
    return cache_put(state->cache, hash, key, value, false, false, version, 1) != NULL;
}

static bool fill_cache(struct cache_state *state)
{
    for (uint64_t i = 0; i < state->options.keys; i++)
        if (!put(state, key_at(state, i)))
            return false;
    return true;
}

static struct line *line_of(const struct cache_state *state, uint64_t hash)
{
    return &state->lines[(uint64_t)(((unsigned __int128)hash * state->line_count) >> 64)];
}

/* As many lines as the cache has buckets. The entries lie as the cache's do: in the order in which
 * the keys were put. */
static bool make_bound(struct cache_state *state)
{
    uint64_t keys = state->options.keys;
    uint64_t size = sizeof(struct cache_entry) + KEY_SIZE + state->options.value_size;
    state->entry_size = cache_arena_units(size) * CACHE_UNIT_SIZE;
    state->line_count = keys / CACHE_BUCKET_LOAD;
    state->lines = cache_memory_map(state->line_count * sizeof *state->lines);
    state->entries = cache_memory_map(round_up(keys * state->entry_size, DISK_BLOCK_SIZE));
    state->slots = malloc(keys);
    uint8_t *used = calloc(state->line_count, 1);
    bool is_made = state->lines != NULL && state->entries != NULL && state->slots != NULL;
    for (uint64_t i = 0; is_made && used != NULL && i < keys; i++) {
        struct slice key = key_at(state, i);
        uint64_t number = load_u64(key.data + 8);
        struct line *line = line_of(state, hash_keyed(state->secret, key.data, key.size));
        uint8_t *count = &used[line - state->lines];
        state->slots[i] = *count < LINE_SLOTS ? (*count)++ : LINE_SLOTS - 1;
        line->entries[state->slots[i]] = (uint32_t)number;
        struct cache_entry *entry = (void *)(state->entries + number * state->entry_size);
        memset(entry, 0, state->entry_size);
        entry->value_size = (uint32_t)state->options.value_size;
    }
    is_made = is_made && used != NULL;
    free(used);
    return is_made;
}

static void cache_close(void *context)
{
    struct cache_state *state = context;
    uint64_t entries_size = round_up(state->options.keys * state->entry_size, DISK_BLOCK_SIZE);
    if (state->lines != NULL)
        (void)munmap(state->lines, state->line_count * sizeof *state->lines);
    if (state->entries != NULL)
        (void)munmap(state->entries, entries_size);
    cache_free(state->cache);
    free(state->slots);
    free(state->target);
    free(state->value);
    free(state->keys);
    free(state);
}

static void *cache_open(const struct micro_options *options)
{
    struct cache_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->options = *options;
    struct prng prng = {2};
    for (size_t i = 0; i < sizeof state->secret; i++)
        state->secret[i] = (uint8_t)prng_next(&prng);
    state->keys = malloc(options->keys * KEY_SIZE);
    state->value = calloc(1, options->value_size + 1);
    state->target = calloc(1, TARGET_SIZE + options->value_size);
    uint64_t entry_size_max = 2 * (options->value_size + 200);
    bool is_made = state->keys != NULL && state->value != NULL && state->target != NULL &&
                   cache_create(options->keys * entry_size_max, &state->cache) == 0;
    if (is_made) {
        make_keys(state);
        is_made = fill_cache(state);
        shuffle_keys(state, &prng);
        is_made = is_made && make_bound(state);
    }
    if (!is_made) {
        cache_close(state);
        return NULL;
    }
    return state;
}

static void copy_value(struct cache_state *state, const uint8_t *from, uint64_t size)
{
    memcpy(state->target + state->target_used, from, size);
    state->target_used = (state->target_used + size) & (TARGET_SIZE - 1);
}

static double per_key(const struct cache_state *state, uint64_t start_ns)
{
    micro_keep(state->target);
    return (double)(clock_thread_cpu_ns() - start_ns) / (double)state->options.keys;
}

static uint64_t hash_at(const struct cache_state *state, uint64_t index)
{
    struct slice key = key_at(state, index);
    return hash_keyed(state->secret, key.data, key.size);
}

static inline void get(struct cache_state *state, uint64_t index, uint64_t hash)
{
    struct cache_entry *entry = cache_find(state->cache, hash, key_at(state, index));
    if (entry == NULL)
        abort(); /* all keys fit, so this would measure something else */
    struct slice value = cache_entry_value(entry);
    copy_value(state, value.data, value.size);
}

static inline void get_bound(struct cache_state *state, uint64_t index, uint64_t hash)
{
    uint32_t number = line_of(state, hash)->entries[state->slots[index]];
    const struct cache_entry *entry = (void *)(state->entries + number * state->entry_size);
    copy_value(state, entry->bytes + KEY_SIZE, entry->value_size);
}

/* 0, as every value begins, but known only once the value was copied. */
static inline uint64_t wait_for_value(const struct cache_state *state, uint64_t at)
{
    return state->target[at];
}

static double round_alone(void *context)
{
    struct cache_state *state = context;
    uint64_t carried = 0;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < state->options.keys; i++) {
        uint64_t at = state->target_used;
        get(state, i + carried, hash_at(state, i + carried));
        carried = wait_for_value(state, at);
    }
    return per_key(state, start);
}

static double round_alone_bound(void *context)
{
    struct cache_state *state = context;
    uint64_t carried = 0;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < state->options.keys; i++) {
        uint64_t at = state->target_used;
        get_bound(state, i + carried, hash_at(state, i + carried));
        carried = wait_for_value(state, at);
    }
    return per_key(state, start);
}

static double round_loop(void *context)
{
    struct cache_state *state = context;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < state->options.keys; i++)
        get(state, i, hash_at(state, i));
    return per_key(state, start);
}

static double round_loop_bound(void *context)
{
    struct cache_state *state = context;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < state->options.keys; i++)
        get_bound(state, i, hash_at(state, i));
    return per_key(state, start);
}

static double round_together(void *context)
{
    struct cache_state *state = context;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i + BATCH <= state->options.keys; i += BATCH) {
        uint64_t hashes[BATCH];
        for (uint64_t j = 0; j < BATCH; j++) {
            hashes[j] = hash_at(state, i + j);
            cache_prefetch(state->cache, hashes[j]);
        }
        for (uint64_t j = 0; j < BATCH; j++)
            cache_prefetch_entry(state->cache, hashes[j]);
        for (uint64_t j = 0; j < BATCH; j++)
            get(state, i + j, hashes[j]);
    }
    return per_key(state, start);
}

static double round_put(void *context)
{
    struct cache_state *state = context;
    uint64_t start = clock_thread_cpu_ns();
    for (uint64_t i = 0; i < state->options.keys; i++)
        if (!put(state, key_at(state, i)))
            abort();
    return per_key(state, start);
}

static size_t cache_figures(void *context, struct micro_figure *ret_figures)
{
    struct cache_state *state = context;
    struct cache_stats stats;
    cache_stats(state->cache, &stats);
    ret_figures[0] = (struct micro_figure){"cache: bytes an entry, table and all",
                                           (double)stats.memory / (double)stats.entries};
    return 1;
}

static const struct micro_case cases[] = {
    {"GET hot, alone", "GET hot, alone (bound)", 1.3, round_alone},
    {"GET hot, alone (bound)", NULL, 0, round_alone_bound},
    {"GET hot, 16 together", "GET hot, loop (bound)", 1.3, round_together},
    {"GET hot, loop", "GET hot, loop (bound)", 1.3, round_loop},
    {"GET hot, loop (bound)", NULL, 0, round_loop_bound},
    {"cache_put, overwrite", NULL, 0, round_put},
};

const struct micro_group micro_cache = {
    .cases = cases,
    .case_count = sizeof cases / sizeof cases[0],
    .open = cache_open,
    .close = cache_close,
    .figures = cache_figures,
};
