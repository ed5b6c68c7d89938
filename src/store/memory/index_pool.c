/* The mapping and the list of single rows.
 *
 * Invariants:
 * 1. Rows are touched in whole blocks, and not beyond the mapping.
 * 2. Rows of the free list are touched and empty; there are free_count of them. */
#include "store/memory/index_pool.h"

#include "base/memory.h"
#include "base/units.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int index_pool_init(struct index_pool *pool, uint64_t size)
{
    uint64_t rows = min_u64(size / INDEX_ROW_SIZE, UINT32_MAX - INDEX_BLOCK_ROWS);
    rows = round_down(rows, INDEX_BLOCK_ROWS) + INDEX_BLOCK_ROWS; /* the first block is nobody's */
    *pool = (struct index_pool){.rows_max = rows, .rows_touched = INDEX_BLOCK_ROWS};
    pool->base = memory_map(rows * INDEX_ROW_SIZE);
    return pool->base == NULL ? -ENOMEM : 0;
}

/* Look-ups gain 7 % by huge pages, but the add that touches a new one waits for 2 MiB of zeros, up
 * to 6 ms in a virtual machine (perf/micro: "longest add"). */
void index_pool_set_bulk(struct index_pool *pool, bool is_bulk)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t begin = is_bulk ? 0 : round_up(pool->rows_touched * INDEX_ROW_SIZE, page);
    uint64_t end = round_down(pool->rows_max * INDEX_ROW_SIZE, page);
    if (begin < end)
        (void)madvise(pool->base + begin, end - begin, is_bulk ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void index_pool_deinit(struct index_pool *pool)
{
    if (pool->base != NULL)
        memory_unmap(pool->base, pool->rows_max * INDEX_ROW_SIZE);
    pool->base = NULL;
}

uint32_t index_pool_take_block(struct index_pool *pool)
{
    if (pool->rows_touched == pool->rows_max)
        return 0;
    uint32_t block = (uint32_t)pool->rows_touched;
    pool->rows_touched += INDEX_BLOCK_ROWS;
    assert(pool->rows_touched <= pool->rows_max); /* invariant 1 */
    return block;
}

uint32_t index_pool_take_row(struct index_pool *pool)
{
    if (pool->free_count == 0) {
        uint32_t block = index_pool_take_block(pool);
        if (block == 0)
            return 0;
        for (uint32_t i = 0; i < INDEX_BLOCK_ROWS; i++)
            index_pool_give_row(pool, block + i);
    }
    uint32_t row = pool->free_first;
    assert(row >= INDEX_BLOCK_ROWS && row < pool->rows_touched); /* invariant 2 */
    assert(index_pool_at(pool, row)->count == 0);                /* invariant 2 */
    pool->free_first = index_pool_at(pool, row)->next;
    pool->free_count--;
    index_pool_at(pool, row)->next = 0;
    return row;
}

void index_pool_give_row(struct index_pool *pool, uint32_t row)
{
    assert(row >= INDEX_BLOCK_ROWS);
    assert(row < pool->rows_touched);
    struct index_row *given = index_pool_at(pool, row);
    given->count = 0;
    given->is_spilled = false;
    given->next = pool->free_first;
    pool->free_first = row;
    pool->free_count++;
}

uint64_t index_pool_room(const struct index_pool *pool)
{
    return pool->free_count + pool->rows_max - pool->rows_touched;
}
