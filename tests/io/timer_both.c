/* Time: timers, and the clocks that stand still within a pass. */
#include "base/prng.h"
#include "tests/support/support.h"

Test(io_timer, runs_not_before_its_deadline)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct probe timer;
    probe_init(&timer);
    uint64_t deadline_ns = io_now_ns(io) + 3 * NS_PER_MS;
    io_timer(io, &timer.op, deadline_ns);
    while (timer.count == 0) {
        cr_assert_geq(io_run(io, UINT64_MAX), 0);
        cr_assert_eq(timer.count > 0, io_now_ns(io) >= deadline_ns);
    }
    cr_assert_eq(timer.result, 0);
    world_close(world);
}

Test(io_timer, order_is_that_of_the_deadlines_then_of_submission)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    static const uint32_t deadlines_ms[] = {5, 1, 3, 3, 0, 3, 1, 4};
    static const uint64_t order[] = {8, 2, 4, 5, 1, 6, 3, 7};
    struct probe probes[8];
    uint64_t clock = 0;
    uint64_t base_ns = io_now_ns(io);
    for (int i = 0; i < 8; i++) {
        probe_init(&probes[i]);
        probes[i].clock = &clock;
        io_timer(io, &probes[i].op, base_ns + deadlines_ms[i] * NS_PER_MS);
    }
    RUN_UNTIL(world, clock == 8);
    for (int i = 0; i < 8; i++)
        cr_expect_eq(probes[i].order, order[i], "timer %d ran as number %llu", i,
                     (unsigned long long)probes[i].order);
    world_close(world);
}

Test(io_timer, cancelled_one_says_so_once)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct probe timer;
    probe_init(&timer);
    io_timer(io, &timer.op, io_now_ns(io) + 1000 * NS_PER_S);
    io_cancel(io, &timer.op);
    cr_assert_eq(timer.count, 0, "not within io_cancel");
    io_cancel(io, &timer.op);
    RUN_UNTIL(world, timer.count > 0);
    run_passes(world, 5);
    cr_assert_eq(timer.count, 1);
    cr_assert_eq(timer.result, -ECANCELED);
    world_close(world);
}

#define TIMERS 2000

Test(io_timer, many_with_random_cancels_all_end_in_order)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct prng prng = {.state = 42};
    struct probe *probes = calloc(TIMERS, sizeof *probes);
    uint64_t *deadlines_ns = calloc(TIMERS, sizeof *deadlines_ns);
    uint64_t clock = 0;
    uint64_t base_ns = io_now_ns(io);
    for (uint32_t i = 0; i < TIMERS; i++) {
        probe_init(&probes[i]);
        probes[i].clock = &clock;
        deadlines_ns[i] = base_ns + prng_below(&prng, 50 * NS_PER_MS);
        io_timer(io, &probes[i].op, deadlines_ns[i]);
    }
    for (uint32_t i = 0; i < TIMERS / 3; i++)
        io_cancel(io, &probes[prng_below(&prng, TIMERS)].op);
    RUN_UNTIL(world, clock == TIMERS);
    for (uint32_t i = 0; i < TIMERS; i++) {
        cr_assert_eq(probes[i].count, 1);
        for (uint32_t j = 0; j < i; j++) {
            if (probes[i].result != 0 || probes[j].result != 0)
                continue;
            bool first_i = deadlines_ns[i] < deadlines_ns[j];
            cr_assert_eq(probes[i].order < probes[j].order, first_i);
        }
    }
    free(deadlines_ns);
    free(probes);
    world_close(world);
}

struct reader {
    struct io_op op;
    struct io *io;
    uint64_t now_ns[2];
    uint64_t wall_ms[2];
};

static void reader_done(struct io_op *op, int32_t result)
{
    struct reader *reader = container_of(op, struct reader, op);
    cr_assert_eq(result, 0);
    for (int i = 0; i < 2; i++) {
        reader->now_ns[i] = io_now_ns(reader->io);
        reader->wall_ms[i] = io_wall_ms(reader->io);
        for (volatile int spin = 0; spin < 100000; spin = spin + 1)
            ;
    }
}

Test(io_clock, stands_still_within_a_pass_and_goes_on_between)
{
    struct world *world = world_open(NULL);
    struct reader reader = {.op.done = reader_done, .io = world_io(world)};
    uint64_t last_ns = 0;
    for (int i = 0; i < 10; i++) {
        io_timer(reader.io, &reader.op, io_now_ns(reader.io) + NS_PER_MS);
        cr_assert_eq(io_wait(reader.io, &reader.op), 0);
        cr_assert_eq(reader.now_ns[0], reader.now_ns[1]);
        cr_assert_eq(reader.wall_ms[0], reader.wall_ms[1]);
        cr_assert_gt(reader.now_ns[0], last_ns);
        cr_assert_gt(reader.wall_ms[0], 0);
        last_ns = reader.now_ns[0];
    }
    world_close(world);
}

Test(io_random, bytes_differ)
{
    struct world *world = world_open(NULL);
    uint8_t a[32] = {0}, b[32] = {0};
    io_random(world_io(world), a, sizeof a);
    io_random(world_io(world), b, sizeof b);
    io_random(world_io(world), NULL, 0);
    cr_assert_arr_neq(a, b, sizeof a);
    world_close(world);
}
