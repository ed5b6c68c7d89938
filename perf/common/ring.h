/* One thread's io_uring as both tools use it, and its pool of provided receive buffers.
 *
 * The set-up is that of the server under test (SINGLE_ISSUER | DEFER_TASKRUN | COOP_TASKRUN |
 * TASKRUN_FLAG | SUBMIT_ALL, registered ring descriptor): one enter a loop submits, runs task work
 * and waits. */
#ifndef PERF_COMMON_RING_H
#define PERF_COMMON_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What user_data carries: an operation and the index of what it belongs to. */
static inline uint64_t ring_tag(uint32_t operation, uint32_t index)
{
    return (uint64_t)operation << 32 | index;
}

static inline uint32_t ring_tag_operation(uint64_t tag)
{
    return (uint32_t)(tag >> 32);
}

static inline uint32_t ring_tag_index(uint64_t tag)
{
    return (uint32_t)tag;
}

/* Call it in the thread that will use the ring: SINGLE_ISSUER binds the two.
 *
 * Errors: what io_uring_setup returns; ring_explain says what to do about it. */
int ring_open(struct io_uring *ring, unsigned entry_count);

/* One line of advice for an error of ring_open. */
const char *ring_explain(int error);

/* Never NULL: submits what is queued when the queue is full. */
struct io_uring_sqe *ring_get_sqe(struct io_uring *ring);

/* Whether a completion is there, or task work that will make one: seen without a system call. */
static inline bool ring_has_work(struct io_uring *ring)
{
    if (io_uring_cq_ready(ring) != 0)
        return true;
    unsigned flags = __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED);
    return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

/* Submits, then waits for work at most `spin_ns` awake and after that asleep. 0: sleep at once;
 * UINT64_MAX: never.
 *
 * Errors: -errno of io_uring_enter, except -EINTR, which is a turn without work. */
int ring_turn(struct io_uring *ring, uint64_t spin_ns);

/* Submits, then waits for work at most `spin_ns`, awake all the time. The same errors. */
int ring_turn_awake(struct io_uring *ring, uint64_t spin_ns);

/* Submits, then waits at most so long for a completion, asleep. The same errors. */
int ring_turn_for(struct io_uring *ring, uint64_t timeout_ns);

/* Buffers for multishot receives: the kernel picks one, we put it back when its bytes are used. */
struct buffer_pool {
    struct io_uring_buf_ring *entries;
    uint8_t *memory;
    uint32_t buffer_count; /* a power of two */
    uint32_t buffer_size;
    int unpublished_count; /* put back, but not yet shown to the kernel */
};

#define BUFFER_POOL_GROUP 0

/* Errors: -errno of the mapping or of the registration. */
int buffer_pool_open(struct buffer_pool *pool, struct io_uring *ring, uint32_t buffer_count,
                     uint32_t buffer_size);

static inline const uint8_t *buffer_pool_at(const struct buffer_pool *pool, uint32_t buffer_id)
{
    return pool->memory + (size_t)buffer_id * pool->buffer_size;
}

static inline uint32_t buffer_pool_id(const struct io_uring_cqe *cqe)
{
    return cqe->flags >> IORING_CQE_BUFFER_SHIFT;
}

/* Gives a buffer back; the kernel sees it after buffer_pool_publish. */
void buffer_pool_put(struct buffer_pool *pool, uint32_t buffer_id);

void buffer_pool_publish(struct buffer_pool *pool);

/* Frees the memory: after the ring is closed. */
void buffer_pool_close(struct buffer_pool *pool);

#endif
