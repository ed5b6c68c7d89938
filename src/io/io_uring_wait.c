/* One enter a pass: it submits, runs the kernel's deferred work and waits. And, where it pays, a
 * little spinning before the sleep.
 *
 * A sleep costs its wake-up, 10 to 20 us on a virtual machine; a spin looks at the ring's flags in
 * shared memory and costs no system call, but the core. So we spin only while the recent past says
 * that work comes within busy_poll_ns:
 *
 * - asleep: each sleep that work ended sooner than busy_poll_ns counts; `near_needed` in a row arm
 * the spin;
 * - armed: we spin before each sleep; one spin that finds nothing disarms and doubles
 * `near_needed`, so that a server whose clients need its own core (they run when we sleep, never
 * while we spin) loses one spin in a thousand sleeps;
 * - a spin that was preempted had no core to spare: it counts as one that found nothing;
 * - spins that find work halve `near_needed` again.
 *
 * Reads of the disk are sure to be answered, and a device takes longer than a client. So while some
 * are under way we spin before each sleep, SPIN_READING_TIMES as long; only after a spin that was
 * preempted the next `rest` sleeps are not put off, more of them each time, fewer again when spins
 * find work. (perf/storage/compare, get-uncached: 1.1 to 1.25 times the reads a second, and as much
 * where the client runs on the same core.)
 *
 * An idle server has no near sleeps, so it does not spin at all. Nor does one with a disk write or
 * a sync under way: the kernel finishes those in a worker thread on this core, which a spin would
 * keep waiting for milliseconds (perf/bound measured 9 k/s instead of 92 k/s durable SETs). */
#include "io/io_uring.h"

#include <errno.h>
#include <time.h>

#define SPIN_NEAR_NEEDED_MIN 4
#define SPIN_NEAR_NEEDED_MAX 1024
#define SPIN_HITS_TO_FORGIVE 64
#define SPIN_LOOKS_PER_CLOCK 16
#define SPIN_PREEMPTED_NS (20 * NS_PER_US)

#define SPIN_READING_TIMES 8
/* The device's interrupts and those of clients' packets are no preemption. */
#define SPIN_READING_PREEMPTED_NS (100 * NS_PER_US)
#define SPIN_REST_MIN 16
#define SPIN_REST_MAX 1024

/* The kernel runs about 20 deferred items an enter. More enters make larger batches, within these
 * bounds. */
#define COLLECT_ENTERS_MAX 16
#define COLLECT_READY_MAX 256

/* Who is to end whose sleep. Only a sleeping world costs its waker a system call. */
enum wake_state {
    WAKE_AWAKE,
    WAKE_ASLEEP,
    WAKE_ASKED, /* the next sleep does not take place */
};

void waiter_init(struct waiter *waiter, uint64_t busy_poll_ns)
{
    waiter->spin = (struct spin){
        .limit_ns = busy_poll_ns,
        .near_needed = SPIN_NEAR_NEEDED_MIN,
        .rest_next = SPIN_REST_MIN,
    };
}

uint64_t monotonic_ns(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#endif
}

/* Deferred work or overflown completions: an enter would bring something. */
static bool has_deferred(const struct io_uring *ring)
{
    unsigned flags = __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED);
    return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

static bool is_wake_asked(const struct waiter *waiter)
{
    return atomic_load_explicit(&waiter->wake_state, memory_order_relaxed) == WAKE_ASKED;
}

/* What a pass gets over: it is tried again by the next one. */
static int ignore_transient(int result)
{
    if (result == -EINTR || result == -ETIME || result == -EAGAIN || result == -EBUSY)
        return 0;
    return result < 0 ? result : 0;
}

static int enter_without_waiting(struct io_uring *ring)
{
    if (io_uring_sq_ready(ring) == 0 && !has_deferred(ring))
        return 0;
    return ignore_transient(io_uring_submit_and_get_events(ring));
}

static int collect_more(struct io_uring *ring)
{
    for (uint32_t i = 0; i < COLLECT_ENTERS_MAX; i++) {
        if (!has_deferred(ring) || io_uring_cq_ready(ring) >= COLLECT_READY_MAX)
            return 0;
        int error = ignore_transient(io_uring_get_events(ring));
        if (error < 0)
            return error;
    }
    return 0;
}

/* ---- spinning ---- */

enum spin_end { SPIN_WORK, SPIN_NOTHING, SPIN_PREEMPTED };

static void spin_found_nothing(struct spin *spin)
{
    spin->is_armed = false;
    spin->near_count = 0;
    spin->hit_count = 0;
    if (spin->near_needed < SPIN_NEAR_NEEDED_MAX)
        spin->near_needed *= 2;
}

static void spin_found_work(struct spin *spin)
{
    if (++spin->hit_count < SPIN_HITS_TO_FORGIVE)
        return;
    spin->hit_count = 0;
    if (spin->near_needed > SPIN_NEAR_NEEDED_MIN)
        spin->near_needed /= 2;
}

static void spin_learn_from_sleep(struct spin *spin, uint64_t slept_ns, bool has_work)
{
    if (!has_work || slept_ns >= spin->limit_ns) {
        spin->near_count = 0;
        return;
    }
    if (++spin->near_count >= spin->near_needed) {
        spin->near_count = 0;
        spin->is_armed = true;
    }
}

static void spin_learn_from_reading(struct spin *spin, enum spin_end end)
{
    if (end == SPIN_WORK && ++spin->reading_hit_count == SPIN_HITS_TO_FORGIVE) {
        spin->reading_hit_count = 0;
        spin->rest_next = (uint32_t)max_u64(spin->rest_next / 2, SPIN_REST_MIN);
    }
    if (end == SPIN_PREEMPTED) {
        spin->reading_hit_count = 0;
        spin->rest = spin->rest_next;
        spin->rest_next = (uint32_t)min_u64(2ull * spin->rest_next, SPIN_REST_MAX);
    }
}

static enum spin_end spin_until_work(const struct waiter *waiter, const struct io_uring *ring,
                                     uint64_t limit_ns, uint64_t preempted_ns)
{
    uint64_t start_ns = monotonic_ns();
    uint64_t last_ns = start_ns;
    for (;;) {
        for (uint32_t i = 0; i < SPIN_LOOKS_PER_CLOCK; i++) {
            if (has_deferred(ring) || is_wake_asked(waiter))
                return SPIN_WORK;
            relax();
        }
        uint64_t now_ns = monotonic_ns();
        if (now_ns - last_ns > preempted_ns)
            return SPIN_PREEMPTED;
        if (now_ns - start_ns >= limit_ns)
            return SPIN_NOTHING;
        last_ns = now_ns;
    }
}

static enum spin_end spin_reading(struct waiter *waiter, const struct io_uring *ring,
                                  uint64_t wait_ns)
{
    uint64_t limit_ns = min_u64(wait_ns, SPIN_READING_TIMES * waiter->spin.limit_ns);
    enum spin_end end = spin_until_work(waiter, ring, limit_ns, SPIN_READING_PREEMPTED_NS);
    spin_learn_from_reading(&waiter->spin, end);
    return end;
}

static enum spin_end spin_plainly(struct waiter *waiter, const struct io_uring *ring,
                                  uint64_t wait_ns)
{
    uint64_t limit_ns = min_u64(wait_ns, waiter->spin.limit_ns);
    enum spin_end end = spin_until_work(waiter, ring, limit_ns, SPIN_PREEMPTED_NS);
    if (end == SPIN_WORK)
        spin_found_work(&waiter->spin);
    else if (limit_ns == waiter->spin.limit_ns)
        spin_found_nothing(&waiter->spin);
    return end;
}

/* Returns 1 when there is something to reap or to look at, 0 when it is time to sleep, or -errno.
 */
static int spin(struct waiter *waiter, struct io_uring *ring, enum under_way under_way,
                uint64_t wait_ns)
{
    int error = enter_without_waiting(ring);
    if (error < 0)
        return error;
    if (io_uring_cq_ready(ring) > 0)
        return 1;
    enum spin_end end = under_way == UNDER_WAY_READS ? spin_reading(waiter, ring, wait_ns)
                                                     : spin_plainly(waiter, ring, wait_ns);
    if (end != SPIN_WORK)
        return 0;
    error = enter_without_waiting(ring);
    return error < 0 ? error : 1;
}

static bool may_spin(struct waiter *waiter, enum under_way under_way)
{
    struct spin *spin = &waiter->spin;
    if (under_way == UNDER_WAY_WORKERS)
        return false;
    if (under_way == UNDER_WAY_PLAIN)
        return spin->is_armed;
    if (spin->rest == 0)
        return spin->limit_ns > 0;
    spin->rest--;
    return false;
}

/* ---- sleeping ---- */

static int enter_and_wait(struct io_uring *ring, uint64_t wait_ns)
{
    if (wait_ns == UINT64_MAX)
        return ignore_transient(io_uring_submit_and_wait(ring, 1));
    struct __kernel_timespec time = {.tv_sec = (int64_t)(wait_ns / NS_PER_S),
                                     .tv_nsec = (int64_t)(wait_ns % NS_PER_S)};
    struct io_uring_cqe *cqe;
    return ignore_transient(io_uring_submit_and_wait_timeout(ring, &cqe, 1, &time, NULL));
}

static int sleep_for_work(struct waiter *waiter, struct io_uring *ring, uint64_t wait_ns)
{
    uint32_t expected = WAKE_AWAKE;
    if (!atomic_compare_exchange_strong(&waiter->wake_state, &expected, WAKE_ASLEEP))
        return enter_without_waiting(ring);
    uint64_t start_ns = waiter->spin.limit_ns > 0 ? monotonic_ns() : 0;
    int error = enter_and_wait(ring, wait_ns);
    if (error == 0 && waiter->spin.limit_ns > 0)
        spin_learn_from_sleep(&waiter->spin, monotonic_ns() - start_ns,
                              io_uring_cq_ready(ring) > 0);
    if (atomic_load_explicit(&waiter->wake_state, memory_order_relaxed) == WAKE_ASLEEP) {
        expected = WAKE_ASLEEP;
        (void)atomic_compare_exchange_strong(&waiter->wake_state, &expected, WAKE_AWAKE);
    }
    return error;
}

static int spin_or_sleep(struct waiter *waiter, struct io_uring *ring, enum under_way under_way,
                         uint64_t wait_ns)
{
    if (may_spin(waiter, under_way)) {
        int found = spin(waiter, ring, under_way, wait_ns);
        if (found != 0)
            return found < 0 ? found : 0;
    }
    return sleep_for_work(waiter, ring, wait_ns);
}

int waiter_wait(struct waiter *waiter, struct io_uring *ring, enum under_way under_way,
                uint64_t wait_ns)
{
    waiter->passes++;
    bool sleeps = wait_ns != 0 && io_uring_cq_ready(ring) == 0;
    int error =
        sleeps ? spin_or_sleep(waiter, ring, under_way, wait_ns) : enter_without_waiting(ring);
    waiter->overflows += io_uring_cq_has_overflow(ring);
    if (error == 0)
        error = collect_more(ring);
    /* Whoever asked wrote what we are to see before it asked. */
    if (is_wake_asked(waiter))
        (void)atomic_exchange(&waiter->wake_state, WAKE_AWAKE);
    assert(atomic_load_explicit(&waiter->wake_state, memory_order_relaxed) != WAKE_ASLEEP);
    return error;
}

bool waiter_ask(struct waiter *waiter)
{
    return atomic_exchange(&waiter->wake_state, WAKE_ASKED) == WAKE_ASLEEP;
}

void waiter_counts(const struct waiter *waiter, struct io_counts *ret_counts)
{
    *ret_counts = (struct io_counts){.passes = waiter->passes, .overflows = waiter->overflows};
}
