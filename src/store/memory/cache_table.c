/* Inserting into the table, removing, and splitting a bucket.
 *
 * Invariants:
 * 1. half <= count < 2 * half, or both are 1 at first.
 * 2. Buckets and overflow buckets do not meet in the mapping.
 * 3. A chain is dense: every bucket but its last is full, slots are used from 0. */
#include "store/memory/cache_table.h"

#include "base/memory.h"
#include "base/units.h"

#include <errno.h>

static void set_count(struct cache_table *table, uint64_t count)
{
    table->count = count;
    if (count == 2 * table->half)
        table->half = count;
    table->count_bytes = count * sizeof(struct cache_bucket);
    table->mask = (2 * table->half - 1) * sizeof(struct cache_bucket);
    table->half_bytes = table->half * sizeof(struct cache_bucket);
}

int cache_table_init(struct cache_table *table, uint64_t size_reserved)
{
    uint64_t capacity = min_u64(size_reserved / sizeof(struct cache_bucket), UINT32_MAX / 2);
    assert(capacity >= 8);
    *table = (struct cache_table){.half = 1, .capacity = (uint32_t)capacity};
    set_count(table, 1);
    table->buckets = cache_memory_map(capacity * sizeof(struct cache_bucket));
    return table->buckets == NULL ? -ENOMEM : 0;
}

void cache_table_deinit(struct cache_table *table)
{
    if (table->buckets != NULL)
        memory_unmap(table->buckets, (uint64_t)table->capacity * sizeof(struct cache_bucket));
}

uint64_t cache_table_size(const struct cache_table *table)
{
    uint64_t count = table->count + table->overflow_touched;
    return count * sizeof(struct cache_bucket);
}

bool cache_table_has_room(const struct cache_table *table, uint64_t size, uint32_t buckets)
{
    uint64_t count = table->count + table->overflow_touched + buckets;
    return count <= table->capacity && count * sizeof(struct cache_bucket) <= size;
}

static uint32_t overflow_take(struct cache_table *table)
{
    uint32_t number = table->overflow_free;
    if (number == 0) {
        number = ++table->overflow_touched;
        assert(table->count + number <= table->capacity); /* invariant 2 */
        return number;
    }
    struct cache_bucket *bucket = &table->buckets[table->capacity - number];
    table->overflow_free = bucket->next;
    bucket->next = 0;
    return number;
}

static uint32_t slots_used(const struct cache_bucket *bucket)
{
    uint32_t count = 0;
    while (count < CACHE_BUCKET_SLOTS && bucket->entries[count] != 0)
        count++;
    return count;
}

void cache_table_insert(struct cache_table *table, uint64_t hash, uint32_t entry)
{
    assert(entry != 0);
    struct cache_bucket *bucket = cache_table_bucket(table, hash);
    while (bucket->next != 0)
        bucket = cache_table_next(table, bucket);
    uint32_t slot = slots_used(bucket);
    if (slot == CACHE_BUCKET_SLOTS) {
        bucket->next = overflow_take(table);
        bucket = cache_table_next(table, bucket);
        slot = 0;
    }
    bucket->tags[slot] = cache_table_tag(hash);
    bucket->entries[slot] = entry;
}

/* Fills the hole with the last slot of the chain that begins with `first`. Returns whether `bucket`
 * is free now: it was the chain's last and is empty. */
static bool slot_remove(struct cache_table *table, struct cache_bucket *first,
                        struct cache_bucket *bucket, uint32_t slot)
{
    struct cache_bucket *before = NULL;
    struct cache_bucket *last = first;
    while (last->next != 0) {
        before = last;
        last = cache_table_next(table, last);
    }
    assert(slots_used(last) > 0); /* invariant 3 */
    uint32_t last_slot = slots_used(last) - 1;
    bucket->tags[slot] = last->tags[last_slot];
    bucket->entries[slot] = last->entries[last_slot];
    last->entries[last_slot] = 0;
    if (last_slot > 0 || before == NULL)
        return false;
    uint32_t number = before->next;
    before->next = 0;
    last->next = table->overflow_free;
    table->overflow_free = number;
    return last == bucket;
}

void cache_table_remove(struct cache_table *table, uint64_t hash, uint32_t entry)
{
    struct cache_bucket *first = cache_table_bucket(table, hash);
    uint16_t tag = cache_table_tag(hash);
    for (struct cache_bucket *bucket = first; bucket != NULL;
         bucket = cache_table_next(table, bucket)) {
        for (uint32_t match = cache_bucket_match(bucket, tag); match != 0; match &= match - 1) {
            uint32_t slot = (uint32_t)__builtin_ctz(match);
            if (bucket->entries[slot] == entry) {
                (void)slot_remove(table, first, bucket, slot);
                return;
            }
        }
    }
    assert(false); /* a linked entry is in the table */
}

/* A split reads every entry's hash: fetch them side by side. */
static void prefetch_hashes(const struct cache_arena *arena, const struct cache_bucket *bucket)
{
    for (uint32_t slot = 0; slot < slots_used(bucket); slot++)
        __builtin_prefetch(cache_arena_at(arena, bucket->entries[slot]));
}

void cache_table_split(struct cache_table *table, const struct cache_arena *arena)
{
    struct cache_bucket *first = &table->buckets[table->count - table->half];
    struct cache_bucket *bucket = first;
    assert(table->count + table->overflow_touched < table->capacity); /* invariant 2 */
    set_count(table, table->count + 1);
    while (bucket != NULL) {
        prefetch_hashes(arena, bucket);
        bool is_gone = false;
        uint32_t slot = 0;
        while (!is_gone && slot < CACHE_BUCKET_SLOTS && bucket->entries[slot] != 0) {
            uint32_t entry = bucket->entries[slot];
            uint64_t hash = cache_arena_at(arena, entry)->hash;
            if (cache_table_bucket(table, hash) != first) {
                is_gone = slot_remove(table, first, bucket, slot);
                cache_table_insert(table, hash, entry);
            } else {
                slot++;
            }
        }
        bucket = is_gone ? NULL : cache_table_next(table, bucket);
    }
}
