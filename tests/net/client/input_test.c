/* The bytes that a connection saves from before, without a connection. */
#include "net/client/input.h"

#include "base/units.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(input, keeps_bytes_in_order_over_partial_consumption)
{
    struct input input = {0};
    uint64_t used = 0;
    uint8_t expected = 0, next = 0;
    for (int round = 0; round < 1000; round++) {
        uint8_t bytes[97];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = next++;
        cr_assert_eq(input_append(&input, bytes, sizeof bytes, &used, MIB), 0);
        uint64_t take = (uint64_t)round % 2 == 0 ? 31 : input_size(&input);
        for (uint64_t i = 0; i < take; i++)
            cr_assert_eq(input.data[input.begin + i], expected++);
        input_consume(&input, take, &used);
    }
    input_clear(&input, &used);
    cr_assert_eq(used, 0);
}

Test(input, bytes_are_received_straight_into_an_empty_one)
{
    struct input input = {0};
    uint64_t used = 0;
    cr_assert_eq(input_append(&input, (const uint8_t *)"before", 6, &used, 0), 0);
    input_consume(&input, 6, &used);
    uint8_t *room = input_room(&input, &used, 0);
    cr_assert_not_null(room, "the floor needs no budget");
    memset(room, 7, INPUT_FLOOR);
    input_filled(&input, 100);
    cr_assert_eq(input_size(&input), 100);
    cr_assert_eq(input_append(&input, (const uint8_t *)"behind", 6, &used, 0), 0);
    cr_assert_eq(input_size(&input), 106);
    cr_assert_arr_eq(input.data + 99, "\7behind", 7);
    input_consume(&input, 106, &used);
    cr_assert_eq(input_room(&input, &used, 0), room, "its memory is still there");
    input_clear(&input, &used);
    cr_assert_eq(used, 0);
}

Test(input, the_budget_holds_and_a_refused_append_changes_nothing)
{
    struct input inputs[3] = {0};
    static uint8_t bytes[64 * 1024];
    uint64_t used = 0;
    const uint64_t budget = 128 * KIB;
    cr_assert_eq(input_append(&inputs[0], bytes, 64 * KIB, &used, budget), 0);
    cr_assert_eq(input_append(&inputs[1], bytes, 64 * KIB, &used, budget), 0);
    cr_assert_eq(used, budget);
    cr_assert_eq(input_append(&inputs[0], bytes, 1, &used, budget), -ENOMEM);
    cr_assert_eq(input_size(&inputs[0]), 64 * KIB);
    /* A small request always gets through. */
    cr_assert_eq(input_append(&inputs[2], bytes, 4 * KIB, &used, budget), 0);
    cr_assert_eq(input_append(&inputs[2], bytes, 1, &used, budget), -ENOMEM);
    input_consume(&inputs[0], 64 * KIB, &used);
    cr_assert_eq(inputs[0].capacity, 0, "a large buffer is given back when it is empty");
    cr_assert_eq(input_append(&inputs[2], bytes, 1, &used, budget), 0);
    for (int i = 0; i < 3; i++)
        input_clear(&inputs[i], &used);
    cr_assert_eq(used, 0);
}

Test(input, memory_follows_what_arrived)
{
    struct input input = {0};
    uint64_t used = 0;
    uint8_t byte = 1;
    for (int i = 0; i < 100; i++)
        cr_assert_eq(input_append(&input, &byte, 1, &used, MIB), 0);
    cr_assert_eq(input.capacity, 4 * KIB);
    input_clear(&input, &used);
}

Test(input, a_crowd_of_small_ones_takes_nothing_of_the_budget)
{
    static uint8_t bytes[8 * KIB];
    struct input crowd[100] = {0}, large = {0};
    uint64_t used = 0;
    for (size_t i = 0; i < 100; i++)
        cr_assert_eq(input_append(&crowd[i], bytes, 100, &used, 8 * KIB), 0);
    cr_assert_eq(used, 0);
    cr_assert_eq(input_append(&large, bytes, sizeof bytes, &used, 8 * KIB), 0);
    cr_assert_eq(input_append(&crowd[0], bytes, 4 * KIB, &used, 8 * KIB), -ENOMEM);
    input_clear(&large, &used);
    cr_assert_eq(input_append(&crowd[0], bytes, 4 * KIB, &used, 8 * KIB), 0);
    for (size_t i = 0; i < 100; i++)
        input_clear(&crowd[i], &used);
    cr_assert_eq(used, 0);
}
