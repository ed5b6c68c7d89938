/* The cache's policy: look-up, S3-FIFO, and how the budget is shared.
 *
 * Every linked entry is in one of two queues:
 *
 *   put -> fresh --its turn, hit since--> main --its turn, hit--> main, one hit less
 *            \--its turn, not hit--> evicted     \--its turn, not hit--> evicted
 *
 * The fresh queue's turn comes while it takes more than a tenth of the memory. So what is asked for
 * once, as by a scan, passes through that tenth and evicts nothing that is in use; and what was hot
 * once goes when its hits are used up. Hits are counted up to three, in place.
 *
 * Of what the fresh queue evicts, a ghost remains, 16 bits of its hash, until a newer one takes its
 * place. A key that comes again while its ghost is there goes into the main queue at once: else
 * keys that come again later than a tenth of the memory lasts would never get in, however dead the
 * main queue is.
 *
 * Memory, invariants:
 *   M1  table_size_max + the ghosts' bytes + the arena's bytes = the budget
 *   M2  buckets and overflow buckets take at most table_size_max
 *   M3  an entry is in the table, in a queue and `linked`, or it is pinned and none of the three
 */
#include "store/memory/cache.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/memory/cache_arena.h"
#include "store/memory/cache_table.h"

#include <errno.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>

/* The table's share at the start: enough for entries of 400 bytes and more, others take from the
 * arena. */
#define TABLE_SHARE 32
#define TABLE_SIZE_MIN ((uint64_t)1024)
/* What the table takes from the arena at a time: 1,280 entries' worth. */
#define TABLE_STEP (16 * KIB)
/* How many entries with hits a hand passes before it takes one anyway: bounds a put's time when
 * everything is hot. */
#define HAND_STEPS_MAX 128
#define HITS_MAX 3
/* Parts of the memory, for the fresh queue and for the ghosts. On Zipf traces with entries of 200
 * bytes, 1/5 and 1/128 each cost half a percent of hits; where hot keys change, or scans pass, they
 * would gain as much (perf/cache_trace). */
#define FRESH_PART 10
#define GHOST_PART 256
/* How many places in memory a put tries to clear before it gives up. */
#define CLEAR_TRIES_MAX 16

/* A ring: the newest entry stands behind the hand, the oldest at it. */
struct cache_queue {
    uint32_t hand; /* 0: empty */
    uint64_t units;
};

struct cache {
    struct cache_table table;
    struct cache_arena arena;
    uint64_t entries;
    uint64_t evictions;
    uint64_t budget;
    uint64_t table_size_max;
    struct cache_queue fresh;
    struct cache_queue main;
    uint16_t *ghosts;
    uint64_t ghost_count;
};

static uint64_t ghosts_size(const struct cache *cache)
{
    return cache->ghost_count * sizeof *cache->ghosts;
}

int cache_create(uint64_t budget, struct cache **ret_cache)
{
    struct cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        return -ENOMEM;
    cache->budget = budget;
    cache->ghost_count = budget / GHOST_PART / sizeof *cache->ghosts;
    cache->table_size_max = max_u64(round_up(budget / TABLE_SHARE, 64), TABLE_SIZE_MIN);
    uint64_t others = cache->table_size_max + ghosts_size(cache);
    cache->ghosts = calloc(cache->ghost_count + 1, sizeof *cache->ghosts);
    /* Entries of the smallest size want a sixth of the budget as buckets, and some overflow. */
    if (cache->ghosts != NULL &&
        cache_arena_init(&cache->arena, budget > others ? budget - others : 0) == 0 &&
        cache_table_init(&cache->table, budget / 4 + TABLE_STEP) == 0) {
        *ret_cache = cache;
        return 0;
    }
    cache_free(cache);
    return -ENOMEM;
}

void cache_free(struct cache *cache)
{
    if (cache == NULL)
        return;
    cache_table_deinit(&cache->table);
    cache_arena_deinit(&cache->arena);
    free(cache->ghosts);
    free(cache);
}

/* ---- look-up ---- */

static struct cache_entry *find(const struct cache *cache, uint64_t hash, struct slice key)
{
    const struct cache_bucket *bucket = cache_table_bucket(&cache->table, hash);
    uint16_t tag = cache_table_tag(hash);
    while (bucket != NULL) {
        for (uint32_t match = cache_bucket_match(bucket, tag); match != 0; match &= match - 1) {
            uint32_t offset = bucket->entries[(uint32_t)__builtin_ctz(match)];
            struct cache_entry *entry = cache_arena_at(&cache->arena, offset);
            if (entry->hash == hash && slice_equal(cache_entry_key(entry), key))
                return entry;
        }
        bucket = cache_table_next(&cache->table, bucket);
    }
    return NULL;
}

/* Keys of 8 to 64 bytes, compared without a call. */
static inline bool is_key_inline(const struct cache_entry *entry, struct slice key)
{
    if (entry->key_size != key.size || key.size - 8 > 56)
        return false;
    uint32_t tail_at = key.size - 8;
    uint64_t difference = load_u64(entry->bytes + tail_at) ^ load_u64(key.data + tail_at);
    for (uint32_t at = 0; at < tail_at; at += 8)
        difference |= load_u64(entry->bytes + at) ^ load_u64(key.data + at);
    return difference == 0;
}

/* The lines after the first that a hit reads. Where the value lies depends on the header: without
 * this it were a third miss. */
static inline void prefetch_entry(const struct cache_entry *entry)
{
    const uint8_t *first = (const uint8_t *)&entry->position;
    __builtin_prefetch(first + 64);
    __builtin_prefetch(first + 128);
}

/* The ordinary case in few instructions and without a call: how far the processor looks ahead, and
 * so how many look-ups wait for memory side by side, is a matter of that. Others: NULL. */
static inline struct cache_entry *find_first(const struct cache *cache, uint64_t hash,
                                             struct slice key)
{
    const struct cache_bucket *bucket = cache_table_bucket(&cache->table, hash);
    uint32_t match = cache_bucket_match(bucket, cache_table_tag(hash));
    if (match == 0)
        return NULL;
    uint32_t offset = bucket->entries[(uint32_t)__builtin_ctz(match)];
    struct cache_entry *entry = cache_arena_at(&cache->arena, offset);
    prefetch_entry(entry);
    return is_key_inline(entry, key) ? entry : NULL;
}

static inline void count_hit(struct cache_entry *entry)
{
    if (entry->hits < HITS_MAX) /* so that a hit on a hot entry writes nothing */
        entry->hits++;
}

struct cache_entry *cache_find(struct cache *cache, uint64_t hash, struct slice key)
{
    struct cache_entry *entry = find_first(cache, hash, key);
    if (entry == NULL)
        entry = find(cache, hash, key);
    if (entry != NULL)
        count_hit(entry);
    return entry;
}

void cache_prefetch(const struct cache *cache, uint64_t hash)
{
    __builtin_prefetch(cache_table_bucket(&cache->table, hash));
}

bool cache_prefetch_entry(const struct cache *cache, uint64_t hash)
{
    const struct cache_bucket *bucket = cache_table_bucket(&cache->table, hash);
    uint32_t match = cache_bucket_match(bucket, cache_table_tag(hash));
    if (match == 0)
        return false;
    uint32_t offset = bucket->entries[(uint32_t)__builtin_ctz(match)];
    const struct cache_entry *entry = cache_arena_at(&cache->arena, offset);
    __builtin_prefetch(&entry->position);
    prefetch_entry(entry);
    return true;
}

/* ---- the queues ---- */

static void queue_insert(struct cache *cache, struct cache_queue *queue, struct cache_entry *entry)
{
    uint32_t offset = cache_arena_offset(&cache->arena, entry);
    if (queue->hand == 0) {
        entry->newer = offset;
        entry->older = offset;
        queue->hand = offset;
    } else {
        struct cache_entry *oldest = cache_arena_at(&cache->arena, queue->hand);
        entry->newer = queue->hand;
        entry->older = oldest->older;
        cache_arena_at(&cache->arena, entry->older)->newer = offset;
        oldest->older = offset;
    }
    queue->units += entry->block_units;
}

static void queue_remove(struct cache *cache, struct cache_queue *queue, struct cache_entry *entry)
{
    uint32_t offset = cache_arena_offset(&cache->arena, entry);
    if (queue->hand == offset)
        queue->hand = entry->newer == offset ? 0 : entry->newer;
    cache_arena_at(&cache->arena, entry->older)->newer = entry->newer;
    cache_arena_at(&cache->arena, entry->newer)->older = entry->older;
    assert(queue->units >= entry->block_units); /* a queue has the units of its entries */
    queue->units -= entry->block_units;
    assert(queue->hand != 0 || queue->units == 0);
}

/* ---- ghosts ---- */

/* 0 is nobody's. */
static uint16_t ghost_tag(uint64_t hash)
{
    return (uint16_t)hash | 1;
}

/* Where a hash has its ghost: a newer one takes the place. Without any ghosts it is one place that
 * nobody counts. */
static uint16_t *ghost_of(const struct cache *cache, uint64_t hash)
{
    return &cache->ghosts[(uint64_t)(((unsigned __int128)hash * cache->ghost_count) >> 64)];
}

/* Whether the fresh queue evicted it not long ago. */
static bool ghost_take(struct cache *cache, uint64_t hash)
{
    uint16_t *ghost = ghost_of(cache, hash);
    bool is_there = *ghost == ghost_tag(hash);
    if (is_there)
        *ghost = 0;
    return is_there;
}

/* ---- eviction ---- */

static void promote(struct cache *cache, struct cache_entry *entry)
{
    assert(!entry->in_main);
    queue_remove(cache, &cache->fresh, entry);
    entry->in_main = true;
    entry->hits = 0;
    queue_insert(cache, &cache->main, entry);
}

static struct cache_queue *turn_of(struct cache *cache)
{
    uint64_t units = cache->fresh.units + cache->main.units;
    bool is_fresh = cache->main.hand == 0 || cache->fresh.units * FRESH_PART > units;
    return is_fresh ? &cache->fresh : &cache->main;
}

/* The entry to evict next, or NULL when all are pinned. */
static struct cache_entry *victim_find(struct cache *cache)
{
    uint32_t steps = 0;
    uint64_t pinned = 0; /* in a row: when that is all of a queue, the other one is asked */
    while (pinned < 2 * cache->entries) {
        struct cache_queue *queue = turn_of(cache);
        if (pinned >= cache->entries)
            queue = queue == &cache->fresh ? &cache->main : &cache->fresh;
        if (queue->hand == 0)
            return NULL;
        struct cache_entry *entry = cache_arena_at(&cache->arena, queue->hand);
        pinned = entry->pins > 0 ? pinned + 1 : 0;
        if (pinned == 0 && (entry->hits == 0 || steps++ >= HAND_STEPS_MAX))
            return entry;
        if (pinned == 0 && !entry->in_main) {
            promote(cache, entry);
            continue;
        }
        queue->hand = entry->newer;
        entry->hits -= pinned == 0;
    }
    return NULL;
}

/* ---- memory ---- */

/* Out of the table and its queue. */
static void unlink_entry(struct cache *cache, struct cache_entry *entry)
{
    assert(entry->linked);
    queue_remove(cache, entry->in_main ? &cache->main : &cache->fresh, entry);
    cache_table_remove(&cache->table, entry->hash, cache_arena_offset(&cache->arena, entry));
    assert(cache->entries > 0);
    entry->linked = false;
    cache->entries--;
}

static bool is_evictable(const struct cache_entry *entry)
{
    return entry->linked && entry->pins == 0;
}

/* Returns the free block that the entry is part of now. */
static struct cache_entry *evict(struct cache *cache, struct cache_entry *entry)
{
    assert(is_evictable(entry));
    if (!entry->in_main)
        *ghost_of(cache, entry->hash) = ghost_tag(entry->hash);
    unlink_entry(cache, entry);
    cache->evictions++;
    return cache_arena_give(&cache->arena, entry);
}

/* Evicts what lies beside a free block until it has `units` or pinned entries stand in the way. */
static struct cache_entry *clear_place(struct cache *cache, struct cache_entry *block,
                                       uint32_t units)
{
    while (block->block_units < units) {
        struct cache_entry *beside = cache_arena_after(&cache->arena, block);
        if (!is_evictable(beside))
            beside = cache_arena_before(&cache->arena, block);
        if (!is_evictable(beside))
            break;
        block = evict(cache, beside);
    }
    return block;
}

/* The coldest go first; when as much as is needed went twice, but nowhere in one piece, their
 * neighbours do. */
static struct cache_entry *allocate(struct cache *cache, uint32_t units)
{
    struct cache_entry *entry = cache_arena_take(&cache->arena, units);
    uint64_t units_evicted = 0;
    uint32_t tries = 0;
    while (entry == NULL && tries < CLEAR_TRIES_MAX) {
        struct cache_entry *victim = victim_find(cache);
        if (victim == NULL)
            return NULL;
        units_evicted += victim->block_units;
        struct cache_entry *block = evict(cache, victim);
        if (units_evicted >= 2 * (uint64_t)units) {
            tries++;
            block = clear_place(cache, block, units);
        }
        if (block->block_units >= units)
            entry = cache_arena_take_block(&cache->arena, block, units);
    }
    return entry;
}

/* Takes a step's bytes from the end of the arena for the table. Returns whether that was possible:
 * pinned entries may stand there. */
static bool table_enlarge(struct cache *cache)
{
    uint32_t units = TABLE_STEP / CACHE_UNIT_SIZE;
    while (!cache_arena_cut(&cache->arena, units)) {
        struct cache_entry *wall = cache_arena_at(&cache->arena, cache->arena.wall);
        struct cache_entry *last = cache_arena_before(&cache->arena, wall);
        if (last->is_free)
            last = cache_arena_before(&cache->arena, last);
        if (!is_evictable(last))
            return false;
        (void)evict(cache, last);
    }
    cache->table_size_max += TABLE_STEP;
    return true;
}

/* Prepares the table for one more entry: splits a bucket when it is time, and tells whether there
 * is room for an insert. Without room to grow the table only gets slower. */
static bool table_prepare(struct cache *cache)
{
    struct cache_table *table = &cache->table;
    bool has_room = cache_table_has_room(table, cache->table_size_max, 3);
    if (!has_room && table_enlarge(cache))
        has_room = cache_table_has_room(table, cache->table_size_max, 3);
    if (has_room && cache->entries >= table->count * CACHE_BUCKET_LOAD)
        cache_table_split(table, &cache->arena);
    return cache_table_has_room(table, cache->table_size_max, 1);
}

/* ---- put and remove ---- */

static void entry_fill(struct cache_entry *entry, struct slice value, bool tombstone,
                       bool in_value_file, struct version version, uint64_t position)
{
    if (value.size > 0)
        memcpy(entry->bytes + entry->key_size, value.data, value.size);
    entry->value_size = value.size;
    entry->tombstone = tombstone;
    entry->in_value_file = in_value_file;
    entry->version = version;
    entry->position = position;
}

static struct cache_entry *entry_create(struct cache *cache, uint64_t hash, struct slice key,
                                        uint64_t units)
{
    if (units * CACHE_UNIT_SIZE > cache->budget / 8 || !table_prepare(cache))
        return NULL;
    struct cache_entry *entry = allocate(cache, (uint32_t)units);
    if (entry == NULL)
        return NULL;
    memcpy(entry->bytes, key.data, key.size);
    entry->hash = hash;
    entry->key_size = (uint16_t)key.size;
    entry->pins = 0;
    entry->hits = 0;
    entry->in_main = ghost_take(cache, hash);
    entry->linked = true;
    queue_insert(cache, entry->in_main ? &cache->main : &cache->fresh, entry);
    cache_table_insert(&cache->table, hash, cache_arena_offset(&cache->arena, entry));
    cache->entries++;
    return entry;
}

/* Whether a block of `units` would be this very block again. */
static bool has_room_for(const struct cache_entry *entry, uint64_t units)
{
    return units <= entry->block_units && entry->block_units - units < CACHE_BLOCK_UNITS_MIN;
}

struct cache_entry *cache_put(struct cache *cache, uint64_t hash, struct slice key,
                              struct slice value, bool tombstone, bool in_value_file,
                              struct version version, uint64_t position)
{
    assert(key.size > 0 && key.size <= UINT16_MAX);
    uint64_t size = sizeof(struct cache_entry) + (uint64_t)key.size + value.size;
    uint64_t units = cache_arena_units(size);
    struct cache_entry *entry = find(cache, hash, key);
    bool is_known = entry != NULL;
    if (is_known && (entry->pins > 0 || !has_room_for(entry, units))) {
        cache_remove(cache, entry);
        entry = NULL;
    }
    if (entry == NULL) {
        entry = entry_create(cache, hash, key, units);
        if (entry == NULL)
            return NULL;
    }
    entry_fill(entry, value, tombstone, in_value_file, version, position);
    if (is_known) /* a write is a use, but the first one proves nothing */
        count_hit(entry);
    return entry;
}

void cache_remove(struct cache *cache, struct cache_entry *entry)
{
    unlink_entry(cache, entry);
    if (entry->pins == 0)
        (void)cache_arena_give(&cache->arena, entry);
}

void cache_pin(struct cache_entry *entry)
{
    assert(entry->pins < UINT32_MAX);
    entry->pins++;
}

void cache_unpin(struct cache *cache, struct cache_entry *entry)
{
    assert(entry->pins > 0);
    entry->pins--;
    if (entry->pins == 0 && !entry->linked)
        (void)cache_arena_give(&cache->arena, entry);
}

void cache_stats(const struct cache *cache, struct cache_stats *ret_stats)
{
    *ret_stats = (struct cache_stats){
        .entries = cache->entries,
        .memory = cache_table_size(&cache->table) + ghosts_size(cache) +
                  cache->arena.units_used * CACHE_UNIT_SIZE,
        .evictions = cache->evictions,
    };
}
