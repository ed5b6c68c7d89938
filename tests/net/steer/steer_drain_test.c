/* The steering program in the real kernel: draining, and closing a listener. */
#include "steer_fixture.h"

static void publish(struct group *group, struct steer_load *load, uint32_t shard)
{
    for (uint32_t i = accept_queued(group, shard); i > 0; i--)
        steer_load_accepted(load);
    steer_load_publish(load, group->accepted[shard], 1);
}

Test(steer_drain, a_draining_shard_gets_none_and_keeps_those_it_has)
{
    struct group group;
    struct steer_load load;
    open_group(&group, 4, false);
    steer_load_init(&load, steer_shard(group.steer, 1), 0);
    connect_many(&group, 40);
    cr_assert(!steer_load_is_settled(&load));
    steer_load_drain(&load);
    connect_many(&group, 90);
    publish(&group, &load, 1); /* what was queued before is not lost */
    cr_assert_eq(group.accepted[1], 10);
    cr_assert(steer_load_is_settled(&load));
    cr_assert_eq(accept_all(&group), 120);
    expect_all_alive(&group);
    close_group(&group);
}

Test(steer_drain, the_cpu_of_a_draining_shard_is_served_by_another)
{
    struct group group;
    struct steer_load load;
    open_group(&group, 2, false);
    pin_to(0);
    steer_set_home(group.steer, 0, 0);
    steer_load_init(&load, steer_shard(group.steer, 0), 0);
    steer_load_drain(&load);
    connect_many(&group, 5);
    cr_assert_eq(accept_queued(&group, 0), 0);
    cr_assert_eq(accept_queued(&group, 1), 5);
    cr_assert_eq(decided(&group, STEER_DRAINED), 5);
    close_group(&group);
}

/* One shard of a server under load goes away: nobody notices. */
Test(steer_drain, a_drained_shard_closes_and_no_connection_is_lost)
{
    struct group group;
    struct steer_load load;
    open_group(&group, 4, false);
    steer_load_init(&load, steer_shard(group.steer, 2), 0);
    connect_many(&group, 100);
    steer_load_drain(&load);
    connect_many(&group, 100);
    publish(&group, &load, 2);
    cr_assert(steer_load_is_settled(&load));
    close_listener(&group, 2);
    connect_many(&group, 100);
    (void)accept_all(&group);
    cr_assert_eq(group.server_count, 300);
    cr_assert_eq(group.accepted[2], 25);
    cr_assert_eq(decided(&group, STEER_FALLBACK), 0);
    expect_all_alive(&group);
    close_group(&group);
}

/* What comes too late to be accepted there moves to the least loaded of the others. */
Test(steer_drain, closing_a_listener_moves_what_is_queued_on_it)
{
    struct group group;
    struct steer_load load;
    open_group(&group, 4, false);
    connect_many(&group, 40);
    steer_load_init(&load, steer_shard(group.steer, 2), 0);
    steer_load_drain(&load);
    close_listener(&group, 2);
    cr_assert_eq(decided(&group, STEER_MIGRATED), 10);
    cr_assert_eq(accept_all(&group), 40);
    expect_all_alive(&group);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_leq(group.accepted[i], 14);
    close_group(&group);
}

Test(steer_drain, when_all_are_draining_clients_are_refused_at_once)
{
    struct group group;
    open_group(&group, 4, false);
    connect_many(&group, 40);
    drain_all(&group);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(connect_once(&group), -ECONNREFUSED);
    cr_assert_eq(decided(&group, STEER_NONE), 10);
    cr_assert_eq(accept_all(&group), 40); /* what was queued before */
    expect_all_alive(&group);
    close_group(&group);
}
