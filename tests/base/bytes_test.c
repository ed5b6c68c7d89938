/* Little-endian numbers and slices, by themselves. */
#include "base/bytes.h"

#include <criterion/criterion.h>

Test(bytes, numbers_are_little_endian)
{
    uint8_t bytes[8];
    store_u16(bytes, 0x0102);
    cr_assert_arr_eq(bytes, ((uint8_t[]){0x02, 0x01}), 2);
    store_u32(bytes, 0x01020304);
    cr_assert_arr_eq(bytes, ((uint8_t[]){0x04, 0x03, 0x02, 0x01}), 4);
    store_u64(bytes, 0x0102030405060708);
    cr_assert_arr_eq(bytes, ((uint8_t[]){8, 7, 6, 5, 4, 3, 2, 1}), 8);
    cr_assert_eq(load_u16(bytes), 0x0708);
    cr_assert_eq(load_u32(bytes), 0x05060708);
    cr_assert_eq(load_u64(bytes), 0x0102030405060708);
}

Test(bytes, every_alignment_works_and_neighbours_stay)
{
    for (size_t offset = 1; offset <= 8; offset++) {
        uint8_t bytes[24];
        memset(bytes, 0xAA, sizeof bytes);
        store_u16(bytes + offset, UINT16_MAX - 1);
        cr_assert_eq(load_u16(bytes + offset), UINT16_MAX - 1);
        store_u32(bytes + offset, UINT32_MAX - 1);
        cr_assert_eq(load_u32(bytes + offset), UINT32_MAX - 1);
        cr_assert_eq(bytes[offset + 4], 0xAA);
        store_u64(bytes + offset, UINT64_MAX - 1);
        cr_assert_eq(load_u64(bytes + offset), UINT64_MAX - 1);
        cr_assert_eq(bytes[offset - 1], 0xAA);
        cr_assert_eq(bytes[offset + 8], 0xAA);
    }
}

Test(bytes, slices_are_equal_by_content)
{
    const uint8_t first[] = "key1 key1 key2 key1\0";
    struct slice key = {first, 4};
    cr_assert(slice_equal(key, (struct slice){first + 5, 4}));
    cr_assert(!slice_equal(key, (struct slice){first + 10, 4}));
    cr_assert(!slice_equal(key, (struct slice){first, 5}), "a prefix is not equal");
    cr_assert(!slice_equal((struct slice){first + 15, 4}, (struct slice){first + 15, 5}),
              "a zero byte counts");
    cr_assert(slice_equal((struct slice){first, 0}, (struct slice){first + 3, 0}));
}
