/* The clock that stamps versions, by itself: its stamps always grow. */
#include "base/clock.h"

#include "base/version.h"

#include <criterion/criterion.h>
#include <signal.h>

Test(clock, stamps_follow_the_wall_clock)
{
    struct hybrid_clock clock;
    hybrid_clock_init(&clock, 0);
    cr_assert_eq(hybrid_clock_stamp(&clock, 1000), version_clock_from_ms(1000));
    cr_assert_eq(hybrid_clock_stamp(&clock, 2000), version_clock_from_ms(2000));
    cr_assert_eq(version_clock_ms(clock.last), 2000);
}

Test(clock, stamps_grow_while_the_wall_clock_stands_or_goes_back)
{
    struct hybrid_clock clock;
    hybrid_clock_init(&clock, 0);
    uint64_t last = hybrid_clock_stamp(&clock, 5000);
    const uint64_t times_ms[] = {5000, 5000, 4999, 0, 5000};
    for (size_t i = 0; i < sizeof times_ms / sizeof times_ms[0]; i++) {
        uint64_t stamp = hybrid_clock_stamp(&clock, times_ms[i]);
        cr_assert_eq(stamp, last + 1);
        last = stamp;
    }
    cr_assert_eq(hybrid_clock_stamp(&clock, 5001), version_clock_from_ms(5001));
}

Test(clock, a_full_counter_carries_into_the_milliseconds)
{
    struct hybrid_clock clock;
    hybrid_clock_init(&clock, 0);
    uint64_t last = hybrid_clock_stamp(&clock, 7);
    for (int i = 0; i < 70000; i++) {
        uint64_t stamp = hybrid_clock_stamp(&clock, 7);
        cr_assert_eq(stamp, last + 1);
        last = stamp;
    }
    cr_assert_eq(version_clock_ms(last), 8);
    cr_assert_eq(hybrid_clock_stamp(&clock, 8), last + 1, "the wall clock has yet to catch up");
    cr_assert_eq(hybrid_clock_stamp(&clock, 9), version_clock_from_ms(9));
}

Test(clock, stamps_come_after_what_recovery_found)
{
    struct hybrid_clock clock;
    uint64_t found = version_clock_from_ms(9000) + 3;
    hybrid_clock_init(&clock, found);
    cr_assert_eq(hybrid_clock_stamp(&clock, 100), found + 1);
}

Test(clock, stamps_come_after_what_was_seen)
{
    struct hybrid_clock clock;
    hybrid_clock_init(&clock, 0);
    uint64_t seen = version_clock_from_ms(9000) + 3;
    hybrid_clock_see(&clock, seen);
    cr_assert_eq(hybrid_clock_stamp(&clock, 100), seen + 1);
    hybrid_clock_see(&clock, 50);
    cr_assert_eq(hybrid_clock_stamp(&clock, 100), seen + 2, "an older one changes nothing");
    cr_assert_eq(hybrid_clock_stamp(&clock, 9001), version_clock_from_ms(9001));
}

Test(clock, it_goes_on_from_the_greatest_stamp_there_may_be)
{
    struct hybrid_clock clock;
    hybrid_clock_init(&clock, 0);
    hybrid_clock_see(&clock, HYBRID_CLOCK_LIMIT - 1);
    cr_assert_eq(hybrid_clock_stamp(&clock, 1), HYBRID_CLOCK_LIMIT);
    cr_assert_eq(hybrid_clock_stamp(&clock, 1), HYBRID_CLOCK_LIMIT + 1);
}

Test(clock, a_stamp_at_the_limit_must_not_get_here, .signal = SIGABRT)
{
    struct hybrid_clock clock;
    hybrid_clock_init(&clock, 0);
    hybrid_clock_see(&clock, HYBRID_CLOCK_LIMIT);
}

Test(clock, versions_order_by_clock_then_origin)
{
    struct version first = {10, 5};
    cr_assert_eq(version_compare(first, first), 0);
    cr_assert_lt(version_compare(first, (struct version){11, 1}), 0);
    cr_assert_gt(version_compare(first, (struct version){9, UINT32_MAX}), 0);
    cr_assert_lt(version_compare(first, (struct version){10, 6}), 0);
    cr_assert_gt(version_compare(first, (struct version){10, 4}), 0);
    cr_assert_lt(version_compare((struct version){0, 0}, (struct version){UINT64_MAX, 0}), 0);
}
