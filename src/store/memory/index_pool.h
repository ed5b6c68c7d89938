/* The index's memory: rows out of one mapping, touched only as they are used, never given back.
 *
 * Rows are numbered from 1. A block is four rows beside each other, a page. */
#ifndef MINIVAULT_STORE_INDEX_POOL_H
#define MINIVAULT_STORE_INDEX_POOL_H

#include "store/memory/index_row.h"

#define INDEX_BLOCK_ROWS 4

struct index_pool {
    uint8_t *base;
    uint64_t rows_max;
    uint64_t rows_touched; /* the mapping's used prefix */
    uint32_t free_first;   /* single rows, linked by `next` */
    uint64_t free_count;
};

/* Maps room for `size` bytes of rows. Errors: -ENOMEM. */
int index_pool_init(struct index_pool *pool, uint64_t size);
void index_pool_deinit(struct index_pool *pool);

/* In bulk, rows are touched by huge pages. They stay; what is touched later is of small ones again.
 */
void index_pool_set_bulk(struct index_pool *pool, bool is_bulk);

static inline struct index_row *index_pool_at(const struct index_pool *pool, uint32_t row)
{
    return (struct index_row *)(pool->base + (uint64_t)row * INDEX_ROW_SIZE);
}

/* The first of four empty rows; 0: the mapping is used up. */
uint32_t index_pool_take_block(struct index_pool *pool);

/* An empty row; 0: the mapping is used up. */
uint32_t index_pool_take_row(struct index_pool *pool);
void index_pool_give_row(struct index_pool *pool, uint32_t row);

/* Rows that can still be had. */
uint64_t index_pool_room(const struct index_pool *pool);

#endif
