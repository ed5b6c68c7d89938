/* The tables of all partitions: what a slot says, and how many there are of each kind.
 *
 * Invariants:
 * 1. `count` is the sum of the tables' slot counts.
 * 2. Tombstones are slots: tombstones <= count.
 * 3. Settled tombstones of a partition are tombstones among its slots. */
#include "store/memory/index.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/memory/index_table.h"
#include "store/memory/location.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PARTITION_COUNT 256
#define SIZE_CLASS_MAX 63u
/* Rows that growing may need beyond memory_max before it gives others back. */
#define ROWS_BEYOND 128

struct index {
    struct index_memory memory;
    uint64_t memory_max;
    uint64_t slots_max;
    uint64_t tombstones;
    uint64_t count;
    uint64_t settled_tombstones[PARTITION_COUNT];
    struct index_table tables[PARTITION_COUNT];
};

/* ---- size classes: two bits of mantissa, four of exponent ---- */

static uint32_t size_class(uint64_t size)
{
    if (size <= 64)
        return 0;
    uint32_t exponent = 61 - (uint32_t)__builtin_clzll(size - 1);
    uint32_t mantissa = (uint32_t)((size - 1) >> exponent) + 1; /* 5 to 8 */
    uint32_t class = (exponent - 4) * 4 + mantissa - 4;
    assert(class <= SIZE_CLASS_MAX);
    return class;
}

static uint64_t size_of_class(uint32_t class)
{
    return (uint64_t)(4 + class % 4) << (class / 4 + 4);
}

uint64_t index_read_size(uint64_t record_size)
{
    assert(record_size <= INDEX_RECORD_SIZE_MAX);
    return size_of_class(size_class(record_size));
}

/* ---- the index ---- */

int index_create(uint64_t memory_max, struct index **ret_index)
{
    struct index *index = calloc(1, sizeof *index);
    if (index == NULL)
        return -ENOMEM;
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    index->slots_max = UINT64_MAX;
    index->memory_max = memory_max == 0 ? machine : min_u64(memory_max, machine);
    uint64_t size = index->memory_max + (uint64_t)ROWS_BEYOND * INDEX_ROW_SIZE;
    int result = index_memory_init(&index->memory, size);
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
    index_memory_deinit(&index->memory);
    free(index);
}

/* In bulk, rows are touched by huge pages. They stay; what is touched later is of small ones again:
 * look-ups gain 7 % by huge pages, but the add that touches a new one waits for 2 MiB of zeros, up
 * to 6 ms in a virtual machine (perf/micro: "longest add"). */
void index_set_bulk(struct index *index, bool is_bulk)
{
    const struct index_memory *memory = &index->memory;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t begin = is_bulk ? 0 : round_up(memory->rows_touched * INDEX_ROW_SIZE, page);
    uint64_t end = round_down(memory->rows_max * INDEX_ROW_SIZE, page);
    if (begin < end)
        (void)madvise(memory->base + begin, end - begin, is_bulk ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

/* Whether this many more rows, whole blocks of them, are within the limit. */
static bool has_memory(const struct index *index, uint64_t rows)
{
    uint64_t blocks = (rows + INDEX_BLOCK_ROWS - 1) / INDEX_BLOCK_ROWS;
    uint64_t size = blocks * INDEX_BLOCK_ROWS * INDEX_ROW_SIZE;
    return index_memory(index) + size <= index->memory_max;
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
        .in_value_file = entry->in_value_file,
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
        .in_value_file = slot->in_value_file,
    };
}

/* Whether the counts can be, after a slot of the partition has come, gone or changed. */
static void check_counts(const struct index *index, uint32_t partition)
{
    uint64_t settled = index->settled_tombstones[partition];
    assert(index->tables[partition].slot_count <= index->count); /* invariant 1 */
    assert(index->tombstones <= index->count);                   /* invariant 2 */
    assert(settled <= index->tombstones);                        /* invariant 3 */
    assert(settled <= index->tables[partition].slot_count);      /* invariant 3 */
}

static bool is_settled_tombstone(const struct index_slot *slot)
{
    return slot->tombstone && location_is_segment(slot->location);
}

int index_add(struct index *index, uint32_t partition, uint64_t hash,
              const struct index_entry *entry)
{
    assert(partition < PARTITION_COUNT);
    struct index_slot slot = slot_make(hash, entry);
    int result = index_table_add(&index->tables[partition], &index->memory, hash, &slot,
                                 has_memory(index, INDEX_BLOCK_ROWS));
    if (result != 0)
        return result;
    index->count++;
    index->tombstones += entry->tombstone;
    index->settled_tombstones[partition] += is_settled_tombstone(&slot);
    check_counts(index, partition);
    return 0;
}

/* The slot says something else from now on. */
static void slot_change(struct index *index, uint32_t partition, struct index_slot *slot,
                        struct index_slot fresh)
{
    index->tombstones += fresh.tombstone;
    index->tombstones -= slot->tombstone;
    index->settled_tombstones[partition] += is_settled_tombstone(&fresh);
    index->settled_tombstones[partition] -= is_settled_tombstone(slot);
    *slot = fresh;
    check_counts(index, partition);
}

/* Begins a search and goes to the slot with this version. NULL: there is none. */
static struct index_slot *search_version(const struct index *index, uint32_t partition,
                                         uint64_t hash, struct version version,
                                         struct index_search *ret_search)
{
    assert(partition < PARTITION_COUNT);
    index_search_begin(&index->tables[partition], &index->memory, hash, ret_search);
    struct index_slot *slot = index_search_next(ret_search);
    while (slot != NULL && (slot->clock != version.clock || slot->origin != version.origin))
        slot = index_search_next(ret_search);
    return slot;
}

int index_put(struct index *index, uint32_t partition, uint64_t hash,
              const struct index_entry *entry)
{
    assert(partition < PARTITION_COUNT);
    struct index_search search;
    index_search_begin(&index->tables[partition], &index->memory, hash, &search);
    struct index_slot *slot;
    int others = 0;
    while ((slot = index_search_next(&search)) != NULL) {
        others++;
        if (slot->clock != entry->version.clock || slot->origin != entry->version.origin)
            continue;
        slot_change(index, partition, slot, slot_make(hash, entry));
        return 0;
    }
    int result = index_add(index, partition, hash, entry);
    return result < 0 ? result : others;
}

int index_get(const struct index *index, uint32_t partition, uint64_t hash, struct version version,
              struct index_entry *ret_entry)
{
    struct index_search search;
    const struct index_slot *slot = search_version(index, partition, hash, version, &search);
    if (slot == NULL)
        return -ENOENT;
    *ret_entry = slot_entry(slot);
    return 0;
}

int index_replace(struct index *index, uint32_t partition, uint64_t hash, struct version version,
                  const struct index_entry *entry, struct index_entry *ret_old)
{
    struct index_search search;
    struct index_slot *slot = search_version(index, partition, hash, version, &search);
    if (slot == NULL)
        return -ENOENT;
    struct index_slot fresh = slot_make(hash, entry); /* ret_old may be entry */
    if (ret_old != NULL)
        *ret_old = slot_entry(slot);
    slot_change(index, partition, slot, fresh);
    return 0;
}

int index_remove(struct index *index, uint32_t partition, uint64_t hash, struct version version,
                 struct index_entry *ret_old)
{
    struct index_search search;
    const struct index_slot *slot = search_version(index, partition, hash, version, &search);
    if (slot == NULL)
        return -ENOENT;
    index->tombstones -= slot->tombstone;
    index->settled_tombstones[partition] -= is_settled_tombstone(slot);
    index->count--;
    if (ret_old != NULL)
        *ret_old = slot_entry(slot);
    index_search_remove(&search, &index->tables[partition], &index->memory);
    check_counts(index, partition);
    return 0;
}

int index_move(struct index *index, uint32_t partition, uint64_t hash, struct version version,
               uint64_t old_location, uint64_t location)
{
    assert(location < 1ull << LOCATION_BITS);
    struct index_search search;
    struct index_slot *slot = search_version(index, partition, hash, version, &search);
    if (slot == NULL || slot->location != old_location)
        return -ENOENT;
    struct index_slot fresh = *slot;
    fresh.location = location;
    slot_change(index, partition, slot, fresh);
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
    struct index_search search;
    index_search_begin(&index->tables[partition], &index->memory, hash, &search);
    uint32_t count = 0;
    const struct index_slot *slot;
    while ((slot = index_search_next(&search)) != NULL) {
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

void index_prefetch_slots(const struct index *index, uint32_t partition, uint64_t hash)
{
    assert(partition < PARTITION_COUNT);
    index_table_prefetch_slots(&index->tables[partition], &index->memory, hash);
}

/* ---- all of a partition ---- */

/* The cursor is the next group. */
uint64_t index_walk(const struct index *index, uint32_t partition, uint64_t cursor,
                    index_each *each, void *context)
{
    assert(partition < PARTITION_COUNT);
    assert(each != NULL);
    const struct index_table *table = &index->tables[partition];
    uint64_t count = index_table_group_count(table);
    if (count == 0)
        return 0;
    const struct index_row *row;
    for (uint32_t i = 0; (row = index_table_group_row(table, &index->memory, cursor, i)); i++) {
        for (uint32_t slot = 0; slot < row->count; slot++) {
            struct index_entry entry = slot_entry(&row->slots[slot]);
            each(context, index_row_hash(row, slot), &entry);
        }
    }
    return cursor + 1 < count ? cursor + 1 : 0;
}

int index_reserve(struct index *index, uint32_t partition, uint64_t count)
{
    assert(partition < PARTITION_COUNT);
    struct index_table *table = &index->tables[partition];
    uint64_t rows = index_table_rows_for(count);
    if (rows > table->row_count && !has_memory(index, rows - table->row_count))
        return -ENOMEM;
    return index_table_reserve(table, &index->memory, rows);
}

/* ---- packed ---- */

/* The hash, then a slot as it lies in memory, without the hash's bits. */
#define PACKED_HASH_SIZE 7u
#define PACKED_SLOT_SIZE (INDEX_PACKED_SIZE - PACKED_HASH_SIZE)
static_assert(PACKED_SLOT_SIZE + 6 == sizeof(struct index_slot), "48 bits of the hash stand last");

void index_pack(uint64_t hash, const struct index_entry *entry, uint8_t *target)
{
    struct index_slot slot = slot_make(hash, entry);
    memcpy(target, &hash, PACKED_HASH_SIZE);
    memcpy(target + PACKED_HASH_SIZE, &slot, PACKED_SLOT_SIZE);
}

void index_unpack(const uint8_t *data, uint64_t *ret_hash, struct index_entry *ret_entry)
{
    struct index_slot slot;
    *ret_hash = 0;
    memcpy(ret_hash, data, PACKED_HASH_SIZE);
    memcpy(&slot, data + PACKED_HASH_SIZE, PACKED_SLOT_SIZE);
    *ret_entry = slot_entry(&slot);
}

/* ---- figures ---- */

void index_set_limit(struct index *index, uint64_t slots)
{
    index->slots_max = slots;
}

bool index_is_full(const struct index *index)
{
    return index->count >= index->slots_max;
}

uint64_t index_count(const struct index *index)
{
    return index->count;
}

uint64_t index_partition_count(const struct index *index, uint32_t partition)
{
    assert(partition < PARTITION_COUNT);
    return index->tables[partition].slot_count;
}

uint64_t index_tombstones(const struct index *index)
{
    return index->tombstones;
}

uint64_t index_settled_tombstones(const struct index *index, uint32_t partition)
{
    assert(partition < PARTITION_COUNT);
    return index->settled_tombstones[partition];
}

uint64_t index_memory(const struct index *index)
{
    uint64_t rows = index->memory.rows_touched * INDEX_ROW_SIZE;
    return sizeof *index + index->memory.directory_size + rows;
}
