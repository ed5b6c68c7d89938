/* One partition's table of the index: linear hashing by groups of rows, grown evenly.
 *
 * A table has 2^bits groups; a group has `columns` rows, and column c of group g is the table's row
 * c * 2^bits + g. So a table is an array of rows that grows only at its end. Growing takes the
 * group `split`, gives it one more row, and spreads its slots anew over its rows; when all groups
 * had their turn, all have one more column:
 *
 *   columns 8 -> 9 -> ... -> 15 -> every group becomes two of 8, so twice as many groups of 8
 *
 * A group with 15 columns that has its turn gets the 16th and becomes the groups g and g + 2^bits.
 * Both lie where the formula says for twice as many groups, with columns 0, 2, 4, ... and 1, 3, 5,
 * ..., so nothing but the slots themselves moves. (Partial expansions: Larson, 1980.) Plain linear
 * hashing doubles a bucket at a time, so the fullest are twice as full as the others; here it is 9
 * to 8 at most, and that is where 32 bytes a key come from. A new table begins with one group of
 * one row.
 *
 * In a group, the hash says at which row to begin; a slot lies in the first row from there on,
 * cyclically, that had room. A row that turned a slot away is marked as spilled; a look-up ends at
 * the first row that is not. Removing a slot pulls back one that lies further on than it would have
 * to, so that only full rows are marked. When the whole group is full, a slot goes to the group's
 * overflow rows, a chain that begins in column 0.
 *
 * Which bits of the hash say what: 0 to 31 the group, 32 to 47 the row, 48 to 55 the tag. Group and
 * row are wholly under the directory's secret, so nobody who chooses keys makes a chain longer than
 * chance does. Bits 52 to 55 are of the key's XXH64 (base/hash.h), which is public: keys of one
 * slot of the 4096 share the upper half of their tags, and a look-up among nothing but such keys
 * matches up to 16 times as many tags, 39 / 16 a full row instead of 39 / 256, each of which costs
 * the comparison of one slot. */
#ifndef MINIVAULT_STORE_INDEX_TABLE_H
#define MINIVAULT_STORE_INDEX_TABLE_H

#include "base/assert.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* ---- a row: 39 slots, their tags first, in 1 KiB ---- */

#define INDEX_ROW_SLOTS 39
#define INDEX_ROW_SIZE 1024

/* All but the hash lies in a checkpoint as it does here (index_pack). */
struct __attribute__((packed)) index_slot {
    uint64_t clock;
    uint32_t origin;
    uint64_t location : 48;
    uint64_t size_class : 6;
    uint64_t tombstone : 1;
    uint64_t in_value_file : 1;
    uint64_t hash : 48; /* the lowest bits; the tag has the next 8 */
};
static_assert(sizeof(struct index_slot) == 25, "a slot without its tag");

/* Slots are used from 0 to count - 1. */
struct index_row {
    uint8_t tags[INDEX_ROW_SLOTS];
    uint8_t count;
    bool is_spilled; /* slots that belong here, or in a row before, lie further on */
    uint8_t reserved[3];
    uint32_t next; /* the next overflow row, as a row of the memory; 0: none */
    struct index_slot slots[INDEX_ROW_SLOTS];
    uint8_t rest;
};
static_assert(sizeof(struct index_row) == INDEX_ROW_SIZE, "rows do not straddle pages");

static inline uint8_t index_tag(uint64_t hash)
{
    return (uint8_t)(hash >> 48);
}

static inline uint64_t index_slot_bits(uint64_t hash)
{
    return hash & ((1ull << 48) - 1);
}

/* What a slot and its tag know of the hash: all that place and comparison ever use. */
static inline uint64_t index_row_hash(const struct index_row *row, uint32_t slot)
{
    return (uint64_t)row->tags[slot] << 48 | row->slots[slot].hash;
}

/* The slots with this tag, a bit each. */
#ifdef __SSE2__
static inline uint64_t index_row_match(const struct index_row *row, uint8_t tag)
{
    const __m128i *tags = (const __m128i *)row;
    __m128i pattern = _mm_set1_epi8((char)tag);
    uint64_t matches = 0;
    for (uint32_t i = 0; i < 3; i++) {
        __m128i equal = _mm_cmpeq_epi8(_mm_load_si128(tags + i), pattern);
        matches |= (uint64_t)(uint32_t)_mm_movemask_epi8(equal) << (16 * i);
    }
    return matches & ((1ull << row->count) - 1);
}
#else
static inline uint64_t index_row_match(const struct index_row *row, uint8_t tag)
{
    uint64_t matches = 0;
    for (uint32_t slot = 0; slot < INDEX_ROW_SLOTS; slot++)
        matches |= (uint64_t)(row->tags[slot] == tag) << slot;
    return matches & ((1ull << row->count) - 1);
}
#endif

/* ---- tables ---- */

#define INDEX_COLUMNS_MIN 8
#define INDEX_COLUMNS_MAX 15

struct index_table {
    uint32_t *blocks; /* the rows, four by four, as rows of the memory */
    uint32_t block_count;
    uint32_t block_capacity;
    uint32_t bits;
    uint32_t columns;
    uint32_t split;
    uint32_t row_count;
    uint32_t overflow_count;
    uint64_t slot_count;
};

/* What the tables of an index share: rows out of one mapping, touched only as they are used, never
 * given back. They are numbered from 1 on; a block is four rows beside each other, a page. */
#define INDEX_BLOCK_ROWS 4
struct index_memory {
    uint8_t *base;
    uint64_t rows_max;
    uint64_t rows_touched; /* the mapping's used prefix */
    uint32_t free_first;   /* single rows, linked by `next` */
    uint64_t free_count;
    uint64_t directory_size;                     /* bytes of all tables' `blocks` */
    struct index_row scratch[INDEX_COLUMNS_MAX]; /* a group's rows while it grows */
};

/* Maps room for `size` bytes of rows. Errors: -ENOMEM. */
int index_memory_init(struct index_memory *memory, uint64_t size);
void index_memory_deinit(struct index_memory *memory);

/* In bulk, rows are touched by huge pages. They stay; what is touched later is of small ones again.
 */
void index_memory_set_bulk(struct index_memory *memory, bool is_bulk);

static inline struct index_row *index_row_at(const struct index_memory *memory, uint32_t row)
{
    return (struct index_row *)(memory->base + (uint64_t)row * INDEX_ROW_SIZE);
}

void index_table_init(struct index_table *table);
void index_table_deinit(struct index_table *table);

/* Adds a slot for this hash. `may_grow`: whether it may take more memory.
 * Errors: -ENOMEM: no row in reach has room. */
int index_table_add(struct index_table *table, struct index_memory *memory, uint64_t hash,
                    const struct index_slot *slot, bool may_grow);

/* How many rows a table needs for this many slots, so that they do not make it grow. */
uint64_t index_table_rows_for(uint64_t slot_count);

/* Gives a table without slots more rows, up to `rows`. Errors: -ENOMEM: it has some of them. */
int index_table_reserve(struct index_table *table, struct index_memory *memory, uint64_t rows);

/* Groups are numbered from 0 on. A group is divided into itself and a new, last one, and never goes
 * away: whoever goes through all numbers in ascending order, while the table grows, misses no slot
 * that was there all the time. */
uint64_t index_table_group_count(const struct index_table *table);

/* Shows all rows of a group, its overflow rows too. */
typedef void index_row_each(void *context, const struct index_row *row);
void index_table_show_group(const struct index_table *table, const struct index_memory *memory,
                            uint64_t group, index_row_each *each, void *context);

/* Hints that a search for this hash comes soon. */
void index_table_prefetch(const struct index_table *table, const struct index_memory *memory,
                          uint64_t hash);

/* A little later: hints at the slots that the search will look at, and at the one that an add for
 * this hash will fill, as far as they lie in its first row. */
void index_table_prefetch_slots(const struct index_table *table, const struct index_memory *memory,
                                uint64_t hash);

/* Where a hash belongs: a group, by its rows' numbers, and the column at which to begin. */
struct index_position {
    uint32_t group;
    uint32_t stride;
    uint32_t columns;
    uint32_t column;
};

/* A search for the slots that have a hash. Valid until the table changes. */
struct index_search {
    const struct index_table *table;
    const struct index_memory *memory;
    uint64_t hash;
    struct index_position position;
    uint32_t step;         /* rows of the group seen */
    struct index_row *row; /* NULL: at the end */
    uint32_t slot;         /* in `row`, the last one seen */
    uint64_t matches;      /* in `row`, not seen yet */
};

void index_search_begin(const struct index_table *table, const struct index_memory *memory,
                        uint64_t hash, struct index_search *ret_search);

/* The next slot, or NULL. */
struct index_slot *index_search_next(struct index_search *search);

/* Removes the slot at which the search stands. Ends the search. */
void index_search_remove(struct index_search *search, struct index_table *table,
                         struct index_memory *memory);

#endif
