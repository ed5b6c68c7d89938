/* The real world's sleep: who ends it, and that it costs nothing. */
#include "tests/support/support.h"

#include <pthread.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

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

static void nothing_posted_is_slept_over_in(struct world *world)
{
    struct waker waker = {.io = world_io(world)};
    pthread_t threads[WAKERS];
    for (int i = 0; i < WAKERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, wake_often, &waker), 0);
    while (atomic_load_explicit(&waker.posted, memory_order_acquire) < WAKERS * WAKES_EACH)
        cr_assert_geq(io_run(waker.io, UINT64_MAX), 0);
    for (int i = 0; i < WAKERS; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
}

static void nothing_posted_is_slept_over(uint64_t busy_poll_ns)
{
    struct world *world = open_busy(busy_poll_ns);
    nothing_posted_is_slept_over_in(world);
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

/* A read of a file that is not answered before the test writes to it. */
struct slow_read {
    struct probe probe;
    int writer;
    uint8_t buffer[4096];
};

static void slow_read_begin(struct slow_read *slow, struct world *world)
{
    const char *path = world_path(world, "pipe");
    cr_assert_eq(mkfifo(path, 0600), 0);
    slow->writer = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(slow->writer, 0);
    int file = open_file(world, "pipe", IO_OPEN_READ);
    cr_assert_geq(file, 0);
    probe_init(&slow->probe);
    io_read(world_io(world), &slow->probe.op, file, slow->buffer, sizeof slow->buffer, 0);
    cr_assert_geq(io_run(world_io(world), 0), 0);
}

static void slow_read_end(struct slow_read *slow, struct world *world)
{
    cr_assert_eq(slow->probe.count, 0, "it was under way all the time");
    cr_assert_eq(write(slow->writer, slow->buffer, sizeof slow->buffer), sizeof slow->buffer);
    RUN_UNTIL(world, slow->probe.count == 1);
    cr_assert_eq(slow->probe.result, sizeof slow->buffer);
    cr_assert_eq(close(slow->writer), 0);
}

/* While the disk is read a sleep is put off, once and for a while. */
Test(io_wake, a_read_that_takes_long_is_slept_over)
{
    struct world *world = open_busy(50 * NS_PER_US);
    struct slow_read slow = {0};
    slow_read_begin(&slow, world);
    uint64_t before_ns = thread_cpu_ns();
    for (int i = 0; i < 10; i++)
        cr_assert_geq(io_run(world_io(world), 30 * NS_PER_MS), 0);
    uint64_t used_ns = thread_cpu_ns() - before_ns;
    cr_assert_lt(used_ns, 60 * NS_PER_MS, "%llu us of 300 ms", (unsigned long long)used_ns / 1000);
    slow_read_end(&slow, world);
    world_close(world);
}

Test(io_wake, nothing_posted_is_slept_over_while_a_file_is_read, .timeout = 60)
{
    struct world *world = open_busy(50 * NS_PER_US);
    struct slow_read slow = {0};
    slow_read_begin(&slow, world);
    nothing_posted_is_slept_over_in(world);
    slow_read_end(&slow, world);
    world_close(world);
}
