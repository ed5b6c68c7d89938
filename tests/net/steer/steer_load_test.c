/* The numbers by which connections are steered to shards, by themselves. */
#include "net/steer/steer_load.h"

#include <criterion/criterion.h>
#include <signal.h>

/* What the program does when it chooses the shard. */
static void choose(struct steer_shard *shard, uint64_t count)
{
    shard->chosen += count;
}

static void accept_all(struct steer_load *load, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        steer_load_accepted(load);
}

Test(steer_load, a_chosen_connection_counts_once_before_and_after_its_accept)
{
    struct steer_shard shard = {0};
    struct steer_load load;
    steer_load_init(&load, &shard, 0);
    choose(&shard, 3);
    cr_assert_eq(steer_shard_load(&shard), 3);
    cr_assert(!steer_load_is_settled(&load));
    accept_all(&load, 2);
    steer_load_publish(&load, 2, 1);
    cr_assert_eq(shard.open, 2);
    cr_assert_eq(steer_shard_pending(&shard), 1);
    cr_assert_eq(steer_shard_load(&shard), 3);
    accept_all(&load, 1);
    steer_load_publish(&load, 3, 2);
    cr_assert_eq(steer_shard_load(&shard), 3);
    cr_assert(steer_load_is_settled(&load));
    steer_load_publish(&load, 0, 3);
    cr_assert_eq(steer_shard_load(&shard), 0);
}

Test(steer_load, what_never_comes_is_given_up_after_two_periods_at_most)
{
    struct steer_shard shard = {0};
    struct steer_load load;
    steer_load_init(&load, &shard, 0);
    choose(&shard, 5);
    steer_load_publish(&load, 0, STEER_PENDING_NS); /* sees the five for the first time */
    choose(&shard, 2);
    steer_load_publish(&load, 0, 2 * STEER_PENDING_NS - 1);
    cr_assert_eq(steer_shard_pending(&shard), 7);
    steer_load_publish(&load, 0, 2 * STEER_PENDING_NS);
    cr_assert_eq(steer_shard_pending(&shard), 2);
    steer_load_publish(&load, 0, 3 * STEER_PENDING_NS);
    cr_assert_eq(steer_shard_pending(&shard), 0);
    cr_assert(steer_load_is_settled(&load));
}

Test(steer_load, one_that_comes_after_it_was_given_up_hides_nothing_for_long)
{
    struct steer_shard shard = {0};
    struct steer_load load;
    steer_load_init(&load, &shard, 0);
    choose(&shard, 1);
    steer_load_publish(&load, 0, STEER_PENDING_NS);
    steer_load_publish(&load, 0, 2 * STEER_PENDING_NS);
    cr_assert_eq(steer_shard_pending(&shard), 0);
    accept_all(&load, 1);
    steer_load_publish(&load, 1, 2 * STEER_PENDING_NS + 1);
    cr_assert_eq(steer_shard_load(&shard), 1);
    choose(&shard, 4);
    cr_assert_eq(steer_shard_load(&shard), 5);
}

/* The kernel's hash sends connections that nobody chose. */
Test(steer_load, more_accepted_than_chosen_leaves_nothing_pending_and_hides_nothing)
{
    struct steer_shard shard = {0};
    struct steer_load load;
    steer_load_init(&load, &shard, 0);
    accept_all(&load, 10);
    steer_load_publish(&load, 10, 1);
    cr_assert_eq(shard.settled, 0);
    choose(&shard, 1);
    cr_assert_eq(steer_shard_load(&shard), 11);
}

/* The program may read `chosen`, then we publish, then it reads `settled`. */
Test(steer_load, settled_that_is_newer_than_chosen_is_no_load_of_2_to_the_64)
{
    struct steer_shard shard = {.chosen = 3, .settled = 4, .open = 2};
    cr_assert_eq(steer_shard_pending(&shard), 0);
    cr_assert_eq(steer_shard_load(&shard), 2);
}

Test(steer_load, draining_changes_only_what_has_a_listener)
{
    struct steer_shard shard = {.state = STEER_ABSENT};
    struct steer_load load;
    steer_load_init(&load, &shard, 0);
    steer_load_drain(&load);
    cr_assert_eq(shard.state, STEER_ABSENT);
    shard.state = STEER_OPEN;
    steer_load_drain(&load);
    cr_assert_eq(shard.state, STEER_DRAINING);
    steer_load_drain(&load);
    cr_assert_eq(shard.state, STEER_DRAINING);
}

Test(steer_load, without_steering_everything_does_nothing)
{
    struct steer_load load;
    steer_load_init(&load, NULL, 0);
    accept_all(&load, 3);
    steer_load_publish(&load, 3, STEER_PENDING_NS);
    steer_load_drain(&load);
    cr_assert(steer_load_is_settled(&load));
}

Test(steer_load, time_that_goes_back_is_our_own_error, .signal = SIGABRT)
{
    struct steer_shard shard = {0};
    struct steer_load load;
    steer_load_init(&load, &shard, 10);
    steer_load_publish(&load, 0, 9);
}

/* All SYNs on one CPU: its shard gets one more than the margin allows, then the others catch up. */
Test(steer_load, the_margin_keeps_shards_within_5_percent_of_even_from_120_connections_on)
{
    for (uint64_t least = 120; least < 50000; least++)
        cr_assert_leq((steer_margin(least) + 1) * 20, least);
    cr_assert_eq(steer_margin(0), STEER_MARGIN);
}
