#include "store/index.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/index_table.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define PARTITION_COUNT 256
#define LOCATION_BITS 48
/* Rows that growing may need beyond memory_max before it gives others back. */
#define ROWS_BEYOND 128

struct index {
    struct index_memory memory;
    uint64_t memory_max;
    uint64_t tombstones;
    uint64_t count;
    struct index_table tables[PARTITION_COUNT];
};

/* ---- size classes: two bits of mantissa, five of exponent ---- */

static uint32_t size_class(uint64_t size)
{
    assert(size <= 1ull << 37);
    if (size <= 64)
        return 0;
    uint32_t exponent = 61 - (uint32_t)__builtin_clzll(size - 1);
    uint32_t mantissa = (uint32_t)((size - 1) >> exponent) + 1; /* 5 to 8 */
    return (exponent - 4) * 4 + mantissa - 4;
}

static uint64_t size_of_class(uint32_t class)
{
    return (uint64_t)(4 + class % 4) << (class / 4 + 4);
}

uint64_t index_read_size(uint64_t record_size)
{
    return size_of_class(size_class(record_size));
}

/* ---- the index ---- */

int index_create(uint64_t memory_max, struct index **ret_index)
{
    struct index *index = calloc(1, sizeof *index);
    if (index == NULL)
        return -ENOMEM;
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    index->memory_max = memory_max == 0 ? machine : min_u64(memory_max, machine);
    uint64_t size = index->memory_max + (uint64_t)ROWS_BEYOND * INDEX_ROW_SIZE;
    int result = index_pool_init(&index->memory.pool, size);
    if (result != 0) {
        free(index);
        return result;
    }
    for (uint32_t i = 0; i < PARTITION_COUNT; i++)
        index_table_init(&index->tables[i]);
    *ret_index = index;
    return 0;
}

void index_free(struct index *index)
{
    if (index == NULL)
        return;
    for (uint32_t i = 0; i < PARTITION_COUNT; i++)
        index_table_deinit(&index->tables[i]);
    index_pool_deinit(&index->memory.pool);
    free(index);
}

/* Whether another block of rows is within the limit. */
static bool has_memory(const struct index *index)
{
    return index_memory(index) + INDEX_BLOCK_ROWS * INDEX_ROW_SIZE <= index->memory_max;
}

static struct index_slot slot_make(uint64_t hash, const struct index_entry *entry)
{
    assert(entry->location < 1ull << LOCATION_BITS);
    return (struct index_slot){
        .clock = entry->version.clock,
        .origin = entry->version.origin,
        .location = entry->location,
        .size_class = size_class(entry->read_size),
        .tombstone = entry->tombstone,
        .hash = index_slot_bits(hash),
    };
}

static struct index_entry slot_entry(const struct index_slot *slot)
{
    return (struct index_entry){
        .version = {.clock = slot->clock, .origin = slot->origin},
        .location = slot->location,
        .read_size = size_of_class(slot->size_class),
        .tombstone = slot->tombstone,
    };
}

int index_add(struct index *index, uint32_t partition, uint64_t hash,
              const struct index_entry *entry)
{
    assert(partition < PARTITION_COUNT);
    struct index_slot slot = slot_make(hash, entry);
    int result =
        index_table_add(&index->tables[partition], &index->memory, hash, &slot, has_memory(index));
    if (result != 0)
        return result;
    index->count++;
    index->tombstones += entry->tombstone;
    return 0;
}

/* Begins a walk and goes to the slot with this location. NULL: there is none. */
static struct index_slot *walk_to(const struct index *index, uint32_t partition, uint64_t hash,
                                  uint64_t location, struct index_walk *ret_walk)
{
    assert(partition < PARTITION_COUNT);
    index_walk_begin(&index->tables[partition], &index->memory, hash, ret_walk);
    struct index_slot *slot = index_walk_next(ret_walk);
    while (slot != NULL && slot->location != location)
        slot = index_walk_next(ret_walk);
    return slot;
}

int index_replace(struct index *index, uint32_t partition, uint64_t hash, uint64_t location,
                  const struct index_entry *entry)
{
    struct index_walk walk;
    struct index_slot *slot = walk_to(index, partition, hash, location, &walk);
    if (slot == NULL)
        return -ENOENT;
    index->tombstones += entry->tombstone;
    index->tombstones -= slot->tombstone;
    *slot = slot_make(hash, entry);
    return 0;
}

int index_remove(struct index *index, uint32_t partition, uint64_t hash, uint64_t location)
{
    struct index_walk walk;
    struct index_slot *slot = walk_to(index, partition, hash, location, &walk);
    if (slot == NULL)
        return -ENOENT;
    index->tombstones -= slot->tombstone;
    index->count--;
    index_walk_remove(&walk, &index->tables[partition], &index->memory);
    return 0;
}

/* Keeps the newest `capacity` of the entries, in order. `count` came before this one. */
static void insert_newest(struct index_entry *entries, uint32_t count, uint32_t capacity,
                          const struct index_entry *entry)
{
    uint32_t at = count < capacity ? count : capacity;
    while (at > 0 && version_compare(entries[at - 1].version, entry->version) < 0) {
        if (at < capacity)
            entries[at] = entries[at - 1];
        at--;
    }
    if (at < capacity)
        entries[at] = *entry;
}

uint32_t index_find(const struct index *index, uint32_t partition, uint64_t hash,
                    struct index_entry *ret_entries, uint32_t capacity)
{
    assert(partition < PARTITION_COUNT);
    struct index_walk walk;
    index_walk_begin(&index->tables[partition], &index->memory, hash, &walk);
    uint32_t count = 0;
    const struct index_slot *slot;
    while ((slot = index_walk_next(&walk)) != NULL) {
        struct index_entry entry = slot_entry(slot);
        insert_newest(ret_entries, count, capacity, &entry);
        count++;
    }
    return count;
}

void index_prefetch(const struct index *index, uint32_t partition, uint64_t hash)
{
    assert(partition < PARTITION_COUNT);
    index_table_prefetch(&index->tables[partition], &index->memory, hash);
}

uint64_t index_count(const struct index *index)
{
    return index->count;
}

uint64_t index_tombstones(const struct index *index)
{
    return index->tombstones;
}

uint64_t index_memory(const struct index *index)
{
    uint64_t rows = index->memory.pool.rows_touched * INDEX_ROW_SIZE;
    return sizeof *index + index->memory.directory_size + rows;
}
