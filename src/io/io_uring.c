/* The ring and the loop: how an operation reaches the kernel, and how its completion comes back. */
#include "io/io_uring.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* An entry that stays -EAGAIN this often in a row is reported: every loop has a bound. */
#define TRANSIENT_RETRIES_MAX 250

static const struct kind *const kinds[KIND_COUNT] = {
    [KIND_ACCEPT] = &kind_accept,
    [KIND_RECEIVE] = &kind_receive,
    [KIND_RECEIVE_INTO] = &kind_receive_into,
    [KIND_SEND] = &kind_send,
    [KIND_SHUTDOWN] = &kind_shutdown,
    [KIND_CLOSE_SOCKET] = &kind_close_socket,
    [KIND_OPEN] = &kind_open,
    [KIND_CLOSE_FILE] = &kind_close_file,
    [KIND_READ] = &kind_read,
    [KIND_WRITE] = &kind_write,
    [KIND_SYNC] = &kind_sync,
    [KIND_ALLOCATE] = &kind_allocate,
    [KIND_TRUNCATE] = &kind_truncate,
    [KIND_RENAME] = &kind_rename,
    [KIND_UNLINK] = &kind_unlink,
};

bool io_op_is_active(const struct io_op *op)
{
    return op->state != OP_IDLE;
}

/* ---- submission ---- */

struct io_uring_sqe *ring_entry(struct io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
    if (sqe != NULL)
        return sqe;
    /* This runs no task work and no completion: what completes at once waits in the completion
     * queue. */
    (void)io_uring_submit(&io->ring);
    return io_uring_get_sqe(&io->ring);
}

static void fill_entry(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    const struct kind *kind = kinds[op->kind];
    kind->prepare(io, op, sqe);
    io_uring_sqe_set_data(sqe, op);
    op->state = OP_KERNEL;
    io->kernel_count++;
    io->worker_count += kind->uses_workers;
    io->read_count += kind->is_read;
}

void ring_submit(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = list_is_empty(&io->backlog) ? ring_entry(io) : NULL;
    if (sqe != NULL) {
        fill_entry(io, op, sqe);
        return;
    }
    op->state = OP_BACKLOG;
    list_push_back(&io->backlog, &op->node);
}

void ring_resubmit(struct io *io, struct io_op *op)
{
    if (io->is_closing)
        op->state = OP_IDLE;
    else if ((op->flags & OP_CANCELLED) != 0)
        ring_ready(io, op, -ECANCELED);
    else
        ring_submit(io, op);
}

void ring_ready(struct io *io, struct io_op *op, int32_t result)
{
    op->state = OP_READY;
    op->result = result;
    list_push_back(&io->ready, &op->node);
}

static bool submit_cancel(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = ring_entry(io);
    if (sqe == NULL)
        return false;
    io_uring_prep_cancel(sqe, op, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
    io_uring_sqe_set_data64(sqe, RING_TAG_NONE);
    return true;
}

/* Half of a close cannot be undone, and the other half must not be lost. */
static bool can_cancel(const struct io_op *op)
{
    return op->kind != KIND_CLOSE_FILE && op->kind != KIND_CLOSE_SOCKET &&
           op->kind != KIND_TRUNCATE;
}

static void cancel_in_kernel(struct io *io, struct io_op *op)
{
    if ((op->flags & OP_CANCELLED) != 0)
        return;
    op->flags |= OP_CANCELLED;
    if (!submit_cancel(io, op))
        list_push_back(&io->cancels, &op->node);
}

void io_cancel(struct io *io, struct io_op *op)
{
    if (!can_cancel(op))
        return;
    switch ((enum op_state)op->state) {
    case OP_IDLE:
    case OP_READY:
        return;
    case OP_KERNEL:
        cancel_in_kernel(io, op);
        return;
    case OP_REARM: /* its completion is running just now, and looks at the flag when it returns */
        op->flags |= OP_CANCELLED;
        return;
    case OP_TIMER:
        timers_remove(&io->timers, op);
        break;
    case OP_BACKLOG:
    case OP_STARVED:
        list_remove(&op->node);
        break;
    }
    ring_ready(io, op, -ECANCELED);
}

int ring_arm_wake(struct io *io)
{
    struct io_uring_sqe *sqe = ring_entry(io);
    if (sqe == NULL)
        return -EAGAIN;
    io_uring_prep_read(sqe, io->wake_fd, &io->wake_value, sizeof io->wake_value, 0);
    io_uring_sqe_set_data64(sqe, RING_TAG_WAKE);
    io->wake_is_armed = true;
    io->kernel_count++;
    return 0;
}

/* What found no entry earlier, and what waits for buffers. */
static void submit_waiting(struct io *io)
{
    buffers_publish(io);
    if (!io->wake_is_armed)
        (void)ring_arm_wake(io);
    struct list_node *node;
    while ((node = list_first(&io->cancels)) != NULL) {
        if (!submit_cancel(io, container_of(node, struct io_op, node)))
            return;
        list_remove(node);
    }
    while ((node = list_first(&io->backlog)) != NULL) {
        struct io_uring_sqe *sqe = ring_entry(io);
        if (sqe == NULL)
            return;
        list_remove(node);
        fill_entry(io, container_of(node, struct io_op, node), sqe);
    }
}

/* ---- completion ---- */

void ring_complete(struct io *io, struct io_op *op, int32_t result)
{
    op->state = OP_IDLE;
    op->result = result;
    io->ran_count++;
    if (op->done != NULL && !io->is_closing)
        op->done(op, result);
}

void ring_deliver(struct io *io, struct io_op *op, int32_t result)
{
    op->result = result;
    io->ran_count++;
    if (!io->is_closing)
        op->done(op, result);
}

bool retry_transient(struct io *io, struct io_op *op, int32_t result)
{
    if (result != -EINTR && result != -EAGAIN) {
        op->spare = 0;
        return false;
    }
    if (op->spare == TRANSIENT_RETRIES_MAX)
        return false;
    op->spare++;
    ring_resubmit(io, op);
    return true;
}

void finish_plain(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    if (!retry_transient(io, op, result))
        ring_complete(io, op, result);
}

static void reap_one(struct io *io, uint64_t data, int32_t result, uint32_t flags)
{
    if (data == RING_TAG_NONE || data == RING_TAG_INSTALL)
        return;
    bool is_last = (flags & IORING_CQE_F_MORE) == 0;
    if (is_last)
        io->kernel_count--;
    if (data == RING_TAG_WAKE) {
        io->wake_is_armed = false;
        return;
    }
    struct io_op *op = (struct io_op *)(uintptr_t)data;
    if (is_last && list_node_is_linked(&op->node))
        list_remove(&op->node); /* its cancel is no longer needed */
    const struct kind *kind = kinds[op->kind];
    if (is_last) {
        io->worker_count -= kind->uses_workers;
        io->read_count -= kind->is_read;
    }
    kind->finish(io, op, result, flags);
}

/* Shows a completion that is still to come to its owner. */
static void hint(const struct io *io, const struct io_uring_cqe *cqe, bool is_next)
{
    uint64_t data = cqe->user_data;
    if (data == RING_TAG_NONE || data == RING_TAG_INSTALL || data == RING_TAG_WAKE || cqe->res <= 0)
        return;
    const struct io_op *op = (const struct io_op *)(uintptr_t)data;
    if (op->kind == KIND_RECEIVE && op->hint != NULL && (cqe->flags & IORING_CQE_F_BUFFER) != 0)
        buffers_hint(io, op, cqe->flags >> IORING_CQE_BUFFER_SHIFT, (uint32_t)cqe->res, is_next);
}

/* The completions behind the first one that is left: the next is about to run, the one after it
 * comes closer. */
static void hint_ahead(const struct io *io, unsigned head, uint32_t left)
{
    const struct io_uring_cq *cq = &io->ring.cq;
    if (left > 1)
        hint(io, &cq->cqes[(head + 1) & cq->ring_mask], true);
    if (left > 2)
        hint(io, &cq->cqes[(head + 2) & cq->ring_mask], false);
}

void ring_reap(struct io *io)
{
    uint32_t left =
        io_uring_cq_ready(&io->ring); /* what completes meanwhile is for the next pass */
    unsigned head;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(&io->ring, head, cqe)
    {
        if (left == 0)
            break;
        hint_ahead(io, head, left--);
        uint64_t data = cqe->user_data;
        int32_t result = cqe->res;
        uint32_t flags = cqe->flags;
        io_uring_cq_advance(&io->ring, 1);
        reap_one(io, data, result, flags);
    }
}

/* Those that become ready meanwhile wait for the next pass. */
static void run_ready(struct io *io)
{
    struct list_node *last = list_last(&io->ready);
    if (last == NULL)
        return;
    struct list_node *node;
    do {
        node = list_pop_front(&io->ready);
        struct io_op *op = container_of(node, struct io_op, node);
        ring_complete(io, op, op->result);
    } while (node != last);
}

/* ---- the loop ---- */

int io_run(struct io *io, uint64_t wait_ns_max)
{
    assert(!io->is_running);
    submit_waiting(io);
    bool has_more = !list_is_empty(&io->ready) || !list_is_empty(&io->backlog) ||
                    !list_is_empty(&io->starved) || !list_is_empty(&io->cancels);
    int error = wait_for_work(io, has_more ? 0 : wait_ns_max);
    if (error < 0)
        return error;
    io->ran_count = 0;
    io->is_running = true;
    ring_reap(io);
    run_ready(io);
    timers_run(io);
    io->is_running = false;
    return (int)io->ran_count;
}

int32_t io_wait(struct io *io, struct io_op *op)
{
    while (io_op_is_active(op)) {
        int count = io_run(io, UINT64_MAX);
        if (count < 0)
            return count;
    }
    return op->result;
}

void io_wake(struct io *target)
{
    uint32_t before = atomic_exchange(&target->wake_state, WAKE_ASKED);
    if (before != WAKE_ASLEEP)
        return;
    int saved_errno = errno; /* a signal handler must leave it alone */
    uint64_t one = 1;
    (void)!write(target->wake_fd, &one, sizeof one);
    errno = saved_errno;
}

/* ---- clocks and chance ---- */

void ring_read_clocks(struct io *io)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    io->now_ns = (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
    if (io->now_ns - io->wall_read_ns < NS_PER_MS / 2)
        return;
    (void)clock_gettime(CLOCK_REALTIME, &time);
    io->wall_ms = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / NS_PER_MS;
    io->wall_read_ns = io->now_ns;
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_clock_ns(const struct io *io)
{
    (void)io;
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

void io_counts(const struct io *io, struct io_counts *ret_counts)
{
    *ret_counts = io->counts;
}

uint64_t io_wall_ms(const struct io *io)
{
    return io->wall_ms;
}

void io_random(struct io *io, void *buffer, size_t size)
{
    (void)io;
    uint8_t *at = buffer;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        assert(got > 0 || errno == EINTR);
        if (got > 0) {
            at += got;
            size -= (size_t)got;
        }
    }
}

uint8_t *io_region(struct io *io)
{
    return io->region;
}

uint32_t io_sockets_max(const struct io *io)
{
    return io->sockets_max;
}
