/* Mapped memory by itself, with huge pages too. */
#include "base/memory.h"

#include <criterion/criterion.h>
#include <string.h>

Test(memory, every_byte_of_a_mapping_is_zero_and_can_be_written)
{
    uint64_t size = 3 * 4096 + 1;
    uint8_t *memory = memory_map(size);
    cr_assert_not_null(memory);
    for (uint64_t i = 0; i < size; i++)
        cr_assert_eq(memory[i], 0);
    memset(memory, 0xFF, size);
    memory_unmap(memory, size);
}

/* A third of a cache ends in the middle of a page. */
Test(memory, a_huge_mapping_may_end_in_the_middle_of_a_page)
{
    static const uint64_t sizes[] = {1, 4096, MEMORY_HUGE_PAGE_SIZE, MEMORY_HUGE_PAGE_SIZE + 1,
                                     (512u << 20) / 3};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *memory = memory_map_huge(sizes[i]);
        cr_assert_not_null(memory);
        cr_assert_eq((uintptr_t)memory % MEMORY_HUGE_PAGE_SIZE, 0);
        memory[0] = 1;
        memory[sizes[i] - 1] = 1;
        memory_unmap(memory, sizes[i]);
    }
}

Test(memory, what_the_address_space_does_not_hold_is_refused)
{
    cr_assert_null(memory_map(UINT64_C(1) << 62));
    cr_assert_null(memory_map_huge(UINT64_C(1) << 62));
}
