/* The real world's sleep: who ends it, and that it costs nothing. */
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>

#define WAKERS 4
#define WAKES_EACH 5000

static uint64_t thread_cpu_ns(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

static struct world *open_busy(uint64_t busy_poll_ns)
{
    struct io_options options = WORLD_OPTIONS;
    options.busy_poll_ns = busy_poll_ns;
    return world_open(&options);
}

Test(io_wake, before_the_sleep_is_not_lost, .timeout = 20)
{
    struct world *world = open_busy(0);
    for (int i = 0; i < 100; i++) {
        io_wake(world_io(world));
        io_wake(world_io(world));
        cr_assert_eq(io_run(world_io(world), UINT64_MAX), 0);
    }
    world_close(world);
}

Test(io_wake, one_asked_for_ends_one_sleep)
{
    struct world *world = open_busy(0);
    struct io *io = world_io(world);
    io_wake(io);
    cr_assert_eq(io_run(io, UINT64_MAX), 0);
    uint64_t before_ns = io_now_ns(io);
    cr_assert_eq(io_run(io, 20 * NS_PER_MS), 0);
    cr_assert_geq(io_now_ns(io) - before_ns, 20 * NS_PER_MS, "the next one is slept in full");
    world_close(world);
}

/* Posts to a counter, then wakes: whoever sleeps on must see what was posted. */
struct waker {
    struct io *io;
    _Atomic uint64_t posted;
};

static void *wake_often(void *context)
{
    struct waker *waker = context;
    for (int i = 0; i < WAKES_EACH; i++) {
        atomic_fetch_add_explicit(&waker->posted, 1, memory_order_release);
        io_wake(waker->io);
    }
    return NULL;
}

static void nothing_posted_is_slept_over(uint64_t busy_poll_ns)
{
    struct world *world = open_busy(busy_poll_ns);
    struct waker waker = {.io = world_io(world)};
    pthread_t threads[WAKERS];
    for (int i = 0; i < WAKERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, wake_often, &waker), 0);
    while (atomic_load_explicit(&waker.posted, memory_order_acquire) < WAKERS * WAKES_EACH)
        cr_assert_geq(io_run(waker.io, UINT64_MAX), 0);
    for (int i = 0; i < WAKERS; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    world_close(world);
}

Test(io_wake, nothing_posted_is_slept_over, .timeout = 60)
{
    nothing_posted_is_slept_over(0);
}

Test(io_wake, nothing_posted_is_slept_over_by_a_spinning_one, .timeout = 60)
{
    nothing_posted_is_slept_over(50 * NS_PER_US);
}

static struct io *alarmed; /* what the signal handler wakes; a handler has no argument */

static void on_alarm(int signal)
{
    (void)signal;
    io_wake(alarmed);
}

Test(io_wake, works_from_a_signal_handler, .timeout = 20)
{
    struct world *world = open_busy(0);
    alarmed = world_io(world);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
    struct itimerval soon = {.it_value = {.tv_usec = 20000}};
    cr_assert_eq(setitimer(ITIMER_REAL, &soon, NULL), 0);
    cr_assert_eq(io_run(alarmed, UINT64_MAX), 0);
    world_close(world);
}

Test(io_wake, idle_world_uses_no_processor)
{
    struct world *world = open_busy(50 * NS_PER_US);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    struct receiver receiver;
    receiver_start(&receiver, world, socket, 1);
    for (uint64_t sent = 0; sent < 200;) { /* enough near sleeps to arm the spin */
        peer_send_stream(world, peer, 1, &sent, sent + 1);
        RUN_UNTIL(world, receiver.received == sent);
    }
    uint64_t before_ns = thread_cpu_ns();
    for (int i = 0; i < 10; i++)
        cr_assert_geq(io_run(world_io(world), 30 * NS_PER_MS), 0);
    uint64_t used_ns = thread_cpu_ns() - before_ns;
    cr_assert_lt(used_ns, 5 * NS_PER_MS, "%llu us of 300 ms", (unsigned long long)used_ns / 1000);
    world_close(world);
}
