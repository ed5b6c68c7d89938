#include "store/index.h"

#include "base/assert.h"
#include "store/index_table.h"

#include <errno.h>
#include <stdlib.h>

#define PARTITIONS 256

struct index {
    struct index_table tables[PARTITIONS];
    struct index_overflow overflow;
    uint64_t memory_max;
    uint64_t tombstones;
    uint64_t count;
};

int index_create(uint64_t memory_max, struct index **ret_index)
{
    struct index *index = calloc(1, sizeof *index);
    if (index == NULL)
        return -ENOMEM;
    index->memory_max = memory_max;
    int result = index_overflow_init(&index->overflow);
    for (uint32_t i = 0; result == 0 && i < PARTITIONS; i++)
        result = index_table_init(&index->tables[i]);
    if (result < 0) {
        index_free(index);
        return result;
    }
    *ret_index = index;
    return 0;
}

void index_free(struct index *index)
{
    for (uint32_t i = 0; i < PARTITIONS; i++)
        index_table_deinit(&index->tables[i]);
    index_overflow_deinit(&index->overflow);
    free(index);
}

int index_add(struct index *index, uint32_t partition, uint64_t hash, const struct index_entry *entry)
{
    assert(partition < PARTITIONS);
    if (index->memory_max != 0 && index_memory(index) + INDEX_BUCKET_SIZE > index->memory_max)
        return -ENOMEM;
    int result = index_table_add(&index->tables[partition], &index->overflow, hash, entry);
    if (result < 0)
        return result;
    index->count++;
    index->tombstones += entry->tombstone;
    return 0;
}

int index_replace(struct index *index, uint32_t partition, uint64_t hash, uint64_t location,
                  const struct index_entry *entry)
{
    struct index_place place;
    struct index_entry old;
    if (!index_table_locate(&index->tables[partition], &index->overflow, hash, location, &place))
        return -ENOENT;
    index_table_get(place, &old);
    index_table_set(place, hash, entry);
    index->tombstones += entry->tombstone;
    index->tombstones -= old.tombstone;
    return 0;
}

int index_remove(struct index *index, uint32_t partition, uint64_t hash, uint64_t location)
{
    struct index_table *table = &index->tables[partition];
    struct index_place place;
    struct index_entry old;
    if (!index_table_locate(table, &index->overflow, hash, location, &place))
        return -ENOENT;
    index_table_get(place, &old);
    index_table_remove(table, &index->overflow, hash, place);
    index->count--;
    index->tombstones -= old.tombstone;
    return 0;
}

uint32_t index_find(const struct index *index, uint32_t partition, uint64_t hash, struct index_entry *ret_entries,
                    uint32_t capacity)
{
    assert(partition < PARTITIONS);
    return index_table_find(&index->tables[partition], &index->overflow, hash, ret_entries, capacity);
}

void index_prefetch(const struct index *index, uint32_t partition, uint64_t hash)
{
    const struct index_bucket *bucket = index_table_bucket(&index->tables[partition], hash);
    __builtin_prefetch(bucket->tags);
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
    uint64_t memory = 0;
    for (uint32_t i = 0; i < PARTITIONS; i++)
        memory += index_table_memory(&index->tables[i]);
    return memory;
}
