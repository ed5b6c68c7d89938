/* Sets a ring up as the server does, turns its loop once, and keeps its receive buffers. */
#include "ring.h"

#include "clock.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* A completion queue this much larger than the submission queue does not overflow under multishot
 * receives. */
#define COMPLETIONS_PER_ENTRY 4

int ring_open(struct io_uring *ring, unsigned entry_count)
{
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                   IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
                   IORING_SETUP_CQSIZE;
    params.cq_entries = entry_count * COMPLETIONS_PER_ENTRY;
    int error = io_uring_queue_init_params(entry_count, ring, &params);
    if (error < 0)
        return error;
    /* Saves a look-up of the descriptor in every enter; without it everything still works. */
    (void)io_uring_register_ring_fd(ring);
    return 0;
}

const char *ring_explain(int error)
{
    switch (-error) {
    case EPERM:
        return "io_uring is refused: set kernel.io_uring_disabled=0, and in Docker use a seccomp "
               "profile "
               "that allows io_uring";
    case ENOSYS:
        return "this kernel has no io_uring: use Linux 6.1 or later";
    case ENOMEM:
        return "locked memory is short: raise `ulimit -l`";
    case EINVAL:
        return "this kernel's io_uring lacks DEFER_TASKRUN: use Linux 6.1 or later";
    default:
        return strerror(-error);
    }
}

struct io_uring_sqe *ring_get_sqe(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    while (sqe == NULL) {
        (void)io_uring_submit(ring);
        sqe = io_uring_get_sqe(ring);
    }
    return sqe;
}

/* True when work came before the time was over. */
static bool spin(struct io_uring *ring, uint64_t spin_ns)
{
    uint64_t start_ns = clock_now_ns();
    while (!ring_has_work(ring)) {
        clock_relax();
        if (spin_ns != UINT64_MAX && clock_now_ns() - start_ns >= spin_ns)
            return false;
    }
    return true;
}

int ring_turn(struct io_uring *ring, uint64_t spin_ns)
{
    int error;
    if (spin_ns == 0) {
        error = io_uring_submit_and_wait(ring, 1);
    } else {
        /* Sends go out before we spin; the task work that the spin saw is run by the second enter.
         */
        error = io_uring_submit_and_get_events(ring);
        if (error >= 0 && io_uring_cq_ready(ring) == 0)
            error =
                spin(ring, spin_ns) ? io_uring_get_events(ring) : io_uring_submit_and_wait(ring, 1);
    }
    return error == -EINTR ? 0 : error;
}

int ring_turn_awake(struct io_uring *ring, uint64_t spin_ns)
{
    int error = io_uring_submit_and_get_events(ring);
    if (error >= 0 && io_uring_cq_ready(ring) == 0 && spin(ring, spin_ns))
        error = io_uring_get_events(ring);
    return error == -EINTR ? 0 : error;
}

int ring_turn_for(struct io_uring *ring, uint64_t timeout_ns)
{
    struct __kernel_timespec timeout = {
        .tv_sec = (long long)(timeout_ns / NANOSECONDS_PER_SECOND),
        .tv_nsec = (long long)(timeout_ns % NANOSECONDS_PER_SECOND),
    };
    struct io_uring_cqe *cqe;
    int error = io_uring_submit_and_wait_timeout(ring, &cqe, 1, &timeout, NULL);
    return error == -ETIME || error == -EINTR ? 0 : error;
}

int buffer_pool_open(struct buffer_pool *pool, struct io_uring *ring, uint32_t buffer_count,
                     uint32_t buffer_size)
{
    void *memory = mmap(NULL, (size_t)buffer_count * buffer_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    int error = 0;
    struct io_uring_buf_ring *entries =
        io_uring_setup_buf_ring(ring, buffer_count, BUFFER_POOL_GROUP, 0, &error);
    if (entries == NULL) {
        (void)munmap(memory, (size_t)buffer_count * buffer_size);
        return error;
    }
    *pool = (struct buffer_pool){.entries = entries,
                                 .memory = memory,
                                 .buffer_count = buffer_count,
                                 .buffer_size = buffer_size};
    for (uint32_t i = 0; i < buffer_count; i++)
        buffer_pool_put(pool, i);
    buffer_pool_publish(pool);
    return 0;
}

void buffer_pool_put(struct buffer_pool *pool, uint32_t buffer_id)
{
    io_uring_buf_ring_add(pool->entries, pool->memory + (size_t)buffer_id * pool->buffer_size,
                          pool->buffer_size, (unsigned short)buffer_id,
                          io_uring_buf_ring_mask(pool->buffer_count), pool->unpublished_count);
    pool->unpublished_count++;
}

void buffer_pool_publish(struct buffer_pool *pool)
{
    if (pool->unpublished_count == 0)
        return;
    io_uring_buf_ring_advance(pool->entries, pool->unpublished_count);
    pool->unpublished_count = 0;
}

void buffer_pool_close(struct buffer_pool *pool)
{
    (void)munmap(pool->memory, (size_t)pool->buffer_count * pool->buffer_size);
}
