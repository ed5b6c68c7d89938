/* The pool: free objects form a list, and the region behind those ever used is fresh. Invariants:
 * (1) count_used <= count_touched <= count_max; (2) an object of the pool begins at a multiple of
 * object_size below count_touched of them. */
#include "base/pool.h"

#include "base/assert.h"
#include "base/memory.h"

#include <errno.h>
#include <sanitizer/asan_interface.h>
#include <string.h>
#include <sys/mman.h>

int pool_init(struct pool *pool, size_t object_size, uint32_t count_max)
{
    assert(object_size > 0);
    size_t rounded = 0;
    size_t region_size = 0;
    if (__builtin_add_overflow(object_size, 15, &rounded))
        return -ENOMEM;
    rounded &= ~(size_t)15;
    if (__builtin_mul_overflow(rounded, count_max, &region_size))
        return -ENOMEM;
    uint8_t *base = NULL;
    if (region_size > 0) {
        base = memory_map(region_size);
        if (base == NULL)
            return -ENOMEM;
        /* Every free object is poisoned as a whole, its link too; pool_get lifts that before it
         * reads the link. */
        ASAN_POISON_MEMORY_REGION(base, region_size);
    }
    *pool = (struct pool){.base = base, .object_size = rounded, .count_max = count_max};
    return 0;
}

void pool_prefer_huge(struct pool *pool)
{
    size_t region_size = pool->object_size * pool->count_max;
    if (region_size > 0)
        (void)madvise(pool->base, region_size, MADV_HUGEPAGE);
}

void pool_deinit(struct pool *pool)
{
    size_t region_size = pool->object_size * pool->count_max;
    if (region_size > 0) {
        ASAN_UNPOISON_MEMORY_REGION(pool->base, region_size);
        memory_unmap(pool->base, region_size);
    }
    memset(pool, 0, sizeof *pool);
}

void *pool_get(struct pool *pool)
{
    void *object = pool->free_first;
    if (object != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(object, pool->object_size);
        memcpy(&pool->free_first, object, sizeof pool->free_first);
    } else {
        if (pool->count_touched == pool->count_max)
            return NULL;
        object = pool->base + pool->object_size * pool->count_touched;
        ASAN_UNPOISON_MEMORY_REGION(object, pool->object_size);
        pool->count_touched++;
    }
    pool->count_used++;
    assert(pool->count_used <= pool->count_touched); /* invariant 1 */
    return object;
}

void pool_put(struct pool *pool, void *object)
{
    uint8_t *bytes = object;
    assert(bytes >= pool->base);
    size_t offset = (size_t)(bytes - pool->base);
    assert(offset < pool->object_size * pool->count_touched); /* invariant 2 */
    assert(offset % pool->object_size == 0);                  /* invariant 2 */
    assert(pool->count_used > 0);
    memcpy(object, &pool->free_first, sizeof pool->free_first);
    ASAN_POISON_MEMORY_REGION(object, pool->object_size);
    pool->free_first = object;
    pool->count_used--;
}
