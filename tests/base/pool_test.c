/* The pool of objects by itself. */
#include "base/pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

Test(pool, objects_do_not_overlap)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 40, 100), 0);
    cr_assert_eq(pool.object_size, 48);
    uint8_t *objects[100];
    for (int i = 0; i < 100; i++) {
        objects[i] = pool_get(&pool);
        cr_assert_not_null(objects[i]);
        cr_assert_eq((uintptr_t)objects[i] % 16, 0);
        memset(objects[i], i, 40);
    }
    for (int i = 0; i < 100; i++)
        for (int j = 0; j < 40; j++)
            cr_assert_eq(objects[i][j], i);
    pool_deinit(&pool);
}

Test(pool, an_empty_pool_says_so_and_recovers)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 16, 2), 0);
    void *first = pool_get(&pool);
    void *second = pool_get(&pool);
    cr_assert_null(pool_get(&pool));
    cr_assert_null(pool_get(&pool));
    cr_assert_eq(pool.count_used, 2);
    pool_put(&pool, first);
    cr_assert_eq(pool_get(&pool), first);
    cr_assert_null(pool_get(&pool));
    pool_put(&pool, first);
    pool_put(&pool, second);
    cr_assert_eq(pool.count_used, 0);
    pool_deinit(&pool);
}

Test(pool, warm_objects_are_reused_first)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 64, 1000), 0);
    void *first = pool_get(&pool);
    void *second = pool_get(&pool);
    void *third = pool_get(&pool);
    pool_put(&pool, first);
    pool_put(&pool, third);
    cr_assert_eq(pool_get(&pool), third);
    cr_assert_eq(pool_get(&pool), first);
    cr_assert_eq(pool.count_touched, 3, "nothing cold was touched");
    (void)second;
    pool_deinit(&pool);
}

Test(pool, whole_blocks_are_aligned_as_the_disk_wants)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 8192, 3), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq((uintptr_t)pool_get(&pool) % 4096, 0);
    pool_deinit(&pool);
}

Test(pool, a_pool_of_nothing_is_always_empty)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 64, 0), 0);
    cr_assert_null(pool_get(&pool));
    pool_deinit(&pool);
}

Test(pool, what_cannot_be_reserved_is_an_error)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, SIZE_MAX / 2, 3), -ENOMEM, "the product overflows");
    cr_assert_eq(pool_init(&pool, SIZE_MAX / 2 + 1, 2), -ENOMEM, "the product overflows to 0");
    cr_assert_eq(pool_init(&pool, SIZE_MAX - 3, 1), -ENOMEM, "rounding up overflows");
    cr_assert_eq(pool_init(&pool, (size_t)1 << 60, 1), -ENOMEM, "no such address space");
}

Test(pool, a_pointer_into_an_object_is_not_taken_back, .signal = SIGABRT)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 64, 2), 0);
    uint8_t *object = pool_get(&pool);
    pool_put(&pool, object + 16);
}

Test(pool, an_object_that_was_never_handed_out_is_not_taken_back, .signal = SIGABRT)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 64, 2), 0);
    uint8_t *object = pool_get(&pool);
    pool_put(&pool, object + 64);
}

Test(pool, a_foreign_object_is_not_taken_back, .signal = SIGABRT)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 64, 2), 0);
    (void)pool_get(&pool);
    uint64_t foreign[8] = {0};
    pool_put(&pool, foreign);
}

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif

#ifdef UNDER_ASAN
#include <sanitizer/asan_interface.h>

Test(pool, a_free_object_is_poisoned)
{
    struct pool pool;
    cr_assert_eq(pool_init(&pool, 60, 2), 0);
    uint8_t *object = pool_get(&pool);
    cr_assert_null(__asan_region_is_poisoned(object, 64));
    cr_assert(__asan_address_is_poisoned(object + 64), "its neighbour is still free");
    pool_put(&pool, object);
    for (int i = 0; i < 64; i++)
        cr_assert(__asan_address_is_poisoned(object + i), "byte %d", i);
    cr_assert_eq(pool_get(&pool), object);
    cr_assert_null(__asan_region_is_poisoned(object, 64));
    pool_put(&pool, object);
    uint8_t *base = pool.base;
    pool_deinit(&pool);
    cr_assert(!__asan_address_is_poisoned(base), "what is mapped here next is not ours");
}
#endif
