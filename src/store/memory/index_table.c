/* One partition's table: finding, adding and removing slots, and growing.
 *
 * Invariants:
 * 1. Groups before `split` have had their turn: 2^bits > split, and columns are 1 to 15.
 * 2. A table that has rows has columns * 2^bits + split of them.
 * 3. A row is marked as spilled only while it is full.
 * 4. A slot is in the group that its hash says, in a row or in the chain of the group's first row.
 * 5. overflow_count is the number of rows in all chains, and a row in a chain is not empty.
 * 6. slot_count is the number of slots in all rows.
 * 7. The memory's rows are touched in whole blocks, and not beyond the mapping.
 * 8. Rows of the free list are touched and empty; there are free_count of them. */
#include "store/memory/index_table.h"

#include "base/memory.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* How full a table is before it grows: 88 % makes 26 / 0.88 = 30 bytes a key (perf/micro: at 92 %
 * a look-up costs a third more). */
#define FILL_PERCENT 88
/* Rows that growing may need beyond the limit before it gives others back. */
#define ROWS_SPARE 64

/* ---- the memory ---- */

int index_memory_init(struct index_memory *memory, uint64_t size)
{
    uint64_t rows = min_u64(size / INDEX_ROW_SIZE, UINT32_MAX - INDEX_BLOCK_ROWS);
    rows = round_down(rows, INDEX_BLOCK_ROWS) + INDEX_BLOCK_ROWS; /* the first block is nobody's */
    *memory = (struct index_memory){.rows_max = rows, .rows_touched = INDEX_BLOCK_ROWS};
    memory->base = memory_map(rows * INDEX_ROW_SIZE);
    return memory->base == NULL ? -ENOMEM : 0;
}

void index_memory_deinit(struct index_memory *memory)
{
    memory_unmap(memory->base, memory->rows_max * INDEX_ROW_SIZE);
}

/* Look-ups gain 7 % by huge pages, but the add that touches a new one waits for 2 MiB of zeros, up
 * to 6 ms in a virtual machine (perf/micro: "longest add"). */
void index_memory_set_bulk(struct index_memory *memory, bool is_bulk)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t begin = is_bulk ? 0 : round_up(memory->rows_touched * INDEX_ROW_SIZE, page);
    uint64_t end = round_down(memory->rows_max * INDEX_ROW_SIZE, page);
    if (begin < end)
        (void)madvise(memory->base + begin, end - begin, is_bulk ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

/* The first of four empty rows; 0: the mapping is used up. */
static uint32_t block_take(struct index_memory *memory)
{
    if (memory->rows_touched == memory->rows_max)
        return 0;
    uint32_t block = (uint32_t)memory->rows_touched;
    memory->rows_touched += INDEX_BLOCK_ROWS;
    assert(memory->rows_touched <= memory->rows_max); /* invariant 7 */
    return block;
}

static void row_give(struct index_memory *memory, uint32_t row)
{
    assert(row >= INDEX_BLOCK_ROWS);
    assert(row < memory->rows_touched);
    struct index_row *given = index_row_at(memory, row);
    given->count = 0;
    given->is_spilled = false;
    given->next = memory->free_first;
    memory->free_first = row;
    memory->free_count++;
}

/* An empty row; 0: the mapping is used up. */
static uint32_t row_take(struct index_memory *memory)
{
    if (memory->free_count == 0) {
        uint32_t block = block_take(memory);
        if (block == 0)
            return 0;
        for (uint32_t i = 0; i < INDEX_BLOCK_ROWS; i++)
            row_give(memory, block + i);
    }
    uint32_t number = memory->free_first;
    struct index_row *row = index_row_at(memory, number);
    assert(number >= INDEX_BLOCK_ROWS && number < memory->rows_touched); /* invariant 8 */
    assert(row->count == 0);                                             /* invariant 8 */
    memory->free_first = row->next;
    memory->free_count--;
    row->next = 0;
    return number;
}

/* ---- rows ---- */

void index_table_init(struct index_table *table)
{
    *table = (struct index_table){.columns = 1};
}

void index_table_deinit(struct index_table *table)
{
    free(table->blocks);
}

static struct index_row *row_at(const struct index_memory *memory, const struct index_table *table,
                                uint32_t number)
{
    uint32_t block = table->blocks[number / INDEX_BLOCK_ROWS];
    return index_row_at(memory, block + number % INDEX_BLOCK_ROWS);
}

/* The column of a group at which a hash begins. */
static uint32_t column_of(uint64_t hash, uint32_t columns)
{
    return ((uint32_t)(hash >> 32 & 0xFFFF) * columns) >> 16;
}

static struct index_position position_of(const struct index_table *table, uint64_t hash)
{
    struct index_position position = {
        .stride = 1u << table->bits,
        .columns = table->columns,
    };
    position.group = (uint32_t)hash & (position.stride - 1);
    if (position.group < table->split) {
        position.columns++;
        if (position.columns > INDEX_COLUMNS_MAX) {
            position.stride *= 2;
            position.group = (uint32_t)hash & (position.stride - 1);
            position.columns = INDEX_COLUMNS_MIN;
        }
    }
    position.column = column_of(hash, position.columns);
    return position;
}

static struct index_row *row_of(const struct index_memory *memory, const struct index_table *table,
                                const struct index_position *position, uint32_t step)
{
    uint32_t column = position->column + step;
    if (column >= position->columns)
        column -= position->columns;
    return row_at(memory, table, column * position->stride + position->group);
}

/* The row that holds the beginning of the group's chain. */
static struct index_row *chain_of(const struct index_memory *memory,
                                  const struct index_table *table,
                                  const struct index_position *position)
{
    return row_at(memory, table, position->group);
}

static void row_append(struct index_row *row, uint64_t hash, const struct index_slot *slot)
{
    assert(row->count < INDEX_ROW_SLOTS);
    assert(slot->hash == index_slot_bits(hash));
    row->tags[row->count] = index_tag(hash);
    row->slots[row->count] = *slot;
    row->count++;
}

/* Puts a slot where it belongs. Errors: -ENOMEM. */
static int slot_insert(struct index_table *table, struct index_memory *memory, uint64_t hash,
                       const struct index_slot *slot, bool may_overflow)
{
    struct index_position position = position_of(table, hash);
    for (uint32_t step = 0; step < position.columns; step++) {
        struct index_row *row = row_of(memory, table, &position, step);
        if (row->count < INDEX_ROW_SLOTS) {
            row_append(row, hash, slot);
            return 0;
        }
        row->is_spilled = true;
    }
    struct index_row *chain = chain_of(memory, table, &position);
    /* Only the first row is tried: chains are rare, and last until the group grows. */
    if (chain->next == 0 || index_row_at(memory, chain->next)->count == INDEX_ROW_SLOTS) {
        uint32_t number = may_overflow ? row_take(memory) : 0;
        if (number == 0)
            return -ENOMEM;
        index_row_at(memory, number)->next = chain->next;
        chain->next = number;
        table->overflow_count++;
    }
    row_append(index_row_at(memory, chain->next), hash, slot);
    return 0;
}

/* ---- growing ---- */

/* Appends an empty row to the table. */
static bool table_append_row(struct index_table *table, struct index_memory *memory)
{
    if (table->row_count == table->block_count * INDEX_BLOCK_ROWS) {
        if (table->block_count == table->block_capacity) {
            uint32_t capacity = table->block_capacity == 0 ? 4 : table->block_capacity * 2;
            uint32_t *blocks = realloc(table->blocks, capacity * sizeof *blocks);
            if (blocks == NULL)
                return false;
            memory->directory_size += (capacity - table->block_capacity) * sizeof *blocks;
            table->blocks = blocks;
            table->block_capacity = capacity;
        }
        uint32_t block = block_take(memory);
        if (block == 0)
            return false;
        table->blocks[table->block_count++] = block;
    }
    table->row_count++;
    return true;
}

/* Spreads a row's slots over the group that they belong to now. */
static void row_scatter(struct index_table *table, struct index_memory *memory,
                        const struct index_row *row)
{
    for (uint32_t slot = 0; slot < row->count; slot++) {
        int result = slot_insert(table, memory, index_row_hash(row, slot), &row->slots[slot], true);
        assert(result == 0); /* table_grow made sure of ROWS_SPARE */
        (void)result;
    }
}

/* Moves the group's rows to the scratch memory and empties them. Returns its chain. */
static uint32_t group_collect(struct index_table *table, struct index_memory *memory,
                              uint32_t columns)
{
    uint32_t stride = 1u << table->bits;
    uint32_t chain = row_at(memory, table, table->split)->next;
    for (uint32_t column = 0; column < columns; column++) {
        struct index_row *row = row_at(memory, table, column * stride + table->split);
        memcpy(&memory->scratch[column], row, sizeof *row);
        row->count = 0;
        row->is_spilled = false;
        row->next = 0;
    }
    return chain;
}

static void split_advance(struct index_table *table)
{
    table->split++;
    if (table->split == 1u << table->bits) {
        table->split = 0;
        table->columns++;
    }
    if (table->columns > INDEX_COLUMNS_MAX) {
        table->columns = INDEX_COLUMNS_MIN;
        table->bits++;
    }
    assert(table->split < 1u << table->bits);                                   /* invariant 1 */
    assert(table->row_count == (table->columns << table->bits) + table->split); /* invariant 2 */
}

/* Gives the next group one more row. */
static void table_grow(struct index_table *table, struct index_memory *memory)
{
    uint64_t room = memory->free_count + memory->rows_max - memory->rows_touched;
    if (room < ROWS_SPARE || !table_append_row(table, memory))
        return;
    uint32_t columns = table->columns;
    uint32_t chain = group_collect(table, memory, columns);
    split_advance(table);
    for (uint32_t column = 0; column < columns; column++)
        row_scatter(table, memory, &memory->scratch[column]);
    while (chain != 0) {
        struct index_row *row = &memory->scratch[0];
        memcpy(row, index_row_at(memory, chain), sizeof *row);
        row_give(memory, chain);
        assert(row->count > 0);            /* invariant 5 */
        assert(table->overflow_count > 0); /* invariant 5 */
        table->overflow_count--;
        chain = row->next;
        row_scatter(table, memory, row);
    }
}

static bool is_full(const struct index_table *table)
{
    uint64_t slots = ((uint64_t)table->row_count + table->overflow_count) * INDEX_ROW_SLOTS;
    return table->slot_count * 100 > slots * FILL_PERCENT;
}

uint64_t index_table_rows_for(uint64_t slot_count)
{
    uint64_t slots_a_row = (uint64_t)INDEX_ROW_SLOTS * FILL_PERCENT;
    return (slot_count * 100 + slots_a_row - 1) / slots_a_row;
}

int index_table_reserve(struct index_table *table, struct index_memory *memory, uint64_t rows)
{
    assert(table->slot_count == 0);
    while (table->row_count < rows) {
        bool is_first = table->row_count == 0;
        if (!table_append_row(table, memory))
            return -ENOMEM;
        if (!is_first)
            split_advance(table); /* there is nothing to spread */
    }
    return 0;
}

int index_table_add(struct index_table *table, struct index_memory *memory, uint64_t hash,
                    const struct index_slot *slot, bool may_grow)
{
    if (table->row_count == 0 && !(may_grow && table_append_row(table, memory)))
        return -ENOMEM;
    int result = slot_insert(table, memory, hash, slot, may_grow);
    if (result != 0)
        return result;
    table->slot_count++;
    if (may_grow && is_full(table))
        table_grow(table, memory);
    return 0;
}

void index_table_prefetch(const struct index_table *table, const struct index_memory *memory,
                          uint64_t hash)
{
    if (table->row_count == 0)
        return;
    struct index_position position = position_of(table, hash);
    __builtin_prefetch(row_of(memory, table, &position, 0));
}

/* A slot may straddle two lines. */
static void prefetch_slot(const struct index_row *row, uint32_t slot)
{
    __builtin_prefetch(&row->slots[slot]);
    __builtin_prefetch((const uint8_t *)&row->slots[slot + 1] - 1);
}

void index_table_prefetch_slots(const struct index_table *table, const struct index_memory *memory,
                                uint64_t hash)
{
    if (table->row_count == 0)
        return;
    struct index_position position = position_of(table, hash);
    const struct index_row *row = row_of(memory, table, &position, 0);
    for (uint64_t matches = index_row_match(row, index_tag(hash)); matches != 0;
         matches &= matches - 1)
        prefetch_slot(row, (uint32_t)__builtin_ctzll(matches));
    if (row->count < INDEX_ROW_SLOTS)
        prefetch_slot(row, row->count);
}

/* ---- group by group ---- */

uint64_t index_table_group_count(const struct index_table *table)
{
    if (table->row_count == 0)
        return 0;
    uint64_t divided = table->columns == INDEX_COLUMNS_MAX ? table->split : 0;
    return (1ull << table->bits) + divided;
}

void index_table_show_group(const struct index_table *table, const struct index_memory *memory,
                            uint64_t group, index_row_each *each, void *context)
{
    assert(group < index_table_group_count(table));
    struct index_position position =
        position_of(table, group); /* a hash of this group and of column 0 */
    assert(position.group == group && position.column == 0);
    for (uint32_t column = 0; column < position.columns; column++)
        each(context, row_of(memory, table, &position, column));
    uint32_t number = chain_of(memory, table, &position)->next;
    while (number != 0) {
        const struct index_row *row = index_row_at(memory, number);
        each(context, row);
        number = row->next;
    }
}

/* ---- searches ---- */

static void search_enter(struct index_search *search, struct index_row *row)
{
    search->row = row;
    search->matches = row == NULL ? 0 : index_row_match(row, index_tag(search->hash));
}

void index_search_begin(const struct index_table *table, const struct index_memory *memory,
                        uint64_t hash, struct index_search *ret_search)
{
    *ret_search = (struct index_search){.table = table, .memory = memory, .hash = hash};
    if (table->row_count == 0)
        return;
    ret_search->position = position_of(table, hash);
    search_enter(ret_search, row_of(memory, table, &ret_search->position, 0));
}

/* On to the next row that may have such slots. */
static void search_step(struct index_search *search)
{
    const struct index_row *row = search->row;
    struct index_row *next = NULL;
    if (search->step < search->position.columns && row->is_spilled) {
        search->step++;
        if (search->step < search->position.columns)
            next = row_of(search->memory, search->table, &search->position, search->step);
        else
            row = chain_of(search->memory, search->table, &search->position);
    }
    if (search->step >= search->position.columns && row->next != 0)
        next = index_row_at(search->memory, row->next);
    search_enter(search, next);
}

struct index_slot *index_search_next(struct index_search *search)
{
    while (search->row != NULL) {
        while (search->matches != 0) {
            search->slot = (uint32_t)__builtin_ctzll(search->matches);
            search->matches &= search->matches - 1;
            struct index_slot *slot = &search->row->slots[search->slot];
            if (slot->hash == index_slot_bits(search->hash))
                return slot;
        }
        search_step(search);
    }
    return NULL;
}

/* ---- removing ---- */

/* Takes a slot out of a row: the row's last one fills the gap. */
static void row_drop(struct index_row *row, uint32_t slot)
{
    assert(slot < row->count);
    row->count--;
    row->tags[slot] = row->tags[row->count];
    row->slots[slot] = row->slots[row->count];
}

/* Gives back an overflow row that has become empty. */
static void chain_drop(struct index_table *table, struct index_memory *memory,
                       const struct index_position *position, const struct index_row *empty)
{
    struct index_row *row = chain_of(memory, table, position);
    while (index_row_at(memory, row->next) != empty)
        row = index_row_at(memory, row->next);
    uint32_t number = row->next;
    assert(table->overflow_count > 0); /* invariant 5 */
    row->next = empty->next;
    table->overflow_count--;
    row_give(memory, number);
}

/* The slot of a row, which lies `distance` rows behind the hole, that would rather lie in the hole:
 * its way led past it. -1: there is none. */
static int row_find_passed(const struct index_row *row, uint32_t column, uint32_t columns,
                           uint32_t distance)
{
    for (uint32_t slot = 0; slot < row->count; slot++) {
        uint32_t home = column_of(index_row_hash(row, slot), columns);
        uint32_t way = column >= home ? column - home : column + columns - home;
        if (way >= distance)
            return (int)slot;
    }
    return -1;
}

/* Finds a slot for a hole at the position's column, moves it there, and the position to where it
 * was. Returns false when nothing further on had passed the hole. */
static bool hole_move(struct index_table *table, struct index_memory *memory,
                      struct index_position *position, struct index_row *hole)
{
    const struct index_row *before = hole;
    for (uint32_t distance = 1; distance < position->columns && before->is_spilled; distance++) {
        struct index_row *row = row_of(memory, table, position, distance);
        uint32_t column = (position->column + distance) % position->columns;
        int slot = row_find_passed(row, column, position->columns, distance);
        if (slot >= 0) {
            row_append(hole, index_row_hash(row, (uint32_t)slot), &row->slots[slot]);
            row_drop(row, (uint32_t)slot);
            position->column = column;
            return true;
        }
        before = row;
    }
    return false;
}

/* Fills the hole that a removal left, so that a row is marked as spilled only while it is full:
 * else marks would pile up over the years, and look-ups would go through whole groups. */
static void hole_fill(struct index_table *table, struct index_memory *memory,
                      struct index_position position)
{
    struct index_row *hole = row_of(memory, table, &position, 0);
    assert(!hole->is_spilled || hole->count == INDEX_ROW_SLOTS - 1); /* invariant 3 */
    while (hole->is_spilled && hole_move(table, memory, &position, hole))
        hole = row_of(memory, table, &position, 0);
    struct index_row *chain = chain_of(memory, table, &position);
    if (!hole->is_spilled || chain->next == 0) {
        hole->is_spilled = false;
        return;
    }
    /* Whatever is in the chain has passed every row. */
    struct index_row *first = index_row_at(memory, chain->next);
    uint32_t last = first->count - 1u;
    row_append(hole, index_row_hash(first, last), &first->slots[last]);
    row_drop(first, last);
    if (first->count == 0)
        chain_drop(table, memory, &position, first);
}

void index_search_remove(struct index_search *search, struct index_table *table,
                         struct index_memory *memory)
{
    struct index_row *row = search->row;
    assert(row != NULL && search->table == table);
    search->row = NULL;
    assert(table->slot_count > 0); /* invariant 6 */
    row_drop(row, search->slot);
    table->slot_count--;
    if (search->step < search->position.columns) {
        search->position.column =
            (search->position.column + search->step) % search->position.columns;
        hole_fill(table, memory, search->position);
    } else if (row->count == 0) {
        chain_drop(table, memory, &search->position, row);
    }
}
