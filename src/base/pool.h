/* Fixed-size objects out of one region that is reserved at start and touched only as it is used. An
 * empty pool says so (NULL) and its user pushes back; nothing is allocated later. Last in, first
 * out, so that warm memory is reused. */
#ifndef MINIVAULT_BASE_POOL_H
#define MINIVAULT_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

struct pool {
    uint8_t *base;
    void *free_first;   /* a free object begins with the pointer to the next */
    size_t object_size; /* rounded up to 16 bytes */
    uint32_t count_max;
    uint32_t count_touched; /* handed out at least once: the region's used prefix */
    uint32_t count_used;
};

/* Reserves address space (MAP_NORESERVE) for `count_max` objects (0: a pool that is always empty);
 * alignment 16, or 4096 when object_size is a multiple of 4096. Errors: -ENOMEM. */
int pool_init(struct pool *pool, size_t object_size, uint32_t count_max);

/* For objects that are used in large numbers at once: they lie in pages of 2 MiB where the kernel
 * has them, so that looking at them costs no walk of page tables. Takes up to a page more of
 * memory. */
void pool_prefer_huge(struct pool *pool);

/* Unmaps. Objects that are still used are gone. */
void pool_deinit(struct pool *pool);

/* An object, its bytes undefined, or NULL when all are used. */
void *pool_get(struct pool *pool);

/* Gives an object back. Under ASan a free object is poisoned. */
void pool_put(struct pool *pool, void *object);

#endif
