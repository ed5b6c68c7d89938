/* The ring and the loop: how an operation reaches the kernel, and how its completion comes back.
 *
 * This is the only file that knows struct io. It calls the kinds through their table, and is called
 * by them; what a kind has beyond its operations (buffers, files) it finds here. */
#include "io/io_uring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* An entry that stays -EAGAIN this often in a row is reported: every loop has a bound. */
#define TRANSIENT_RETRIES_MAX 250

struct io {
    struct io_uring ring;
    const struct kind *kinds; /* by enum op_kind */
    uint64_t now_ns;
    uint64_t wall_ms;
    uint64_t wall_read_ns; /* when the wall clock was last read */
    uint32_t kernel_count; /* invariant 2, as the next */
    uint32_t under_way_count[UNDER_WAY_WORKERS + 1];
    uint32_t ran_count; /* completions of this pass */
    bool is_running;    /* within io_run: completions may submit, but not run a pass */
    bool is_closing;    /* completions are no longer called, nothing is submitted */
    bool has_ftruncate;

    struct list backlog; /* operations without an entry, in order of submission */
    struct list cancels; /* operations in the kernel whose cancel found no entry */
    struct list starved; /* receives without a leased buffer */
    struct list ready;   /* operations whose result is known */
    struct heap timers;
    struct buffers buffers;
    struct files *files;
    uint32_t sockets_max; /* the registered table: sockets first, then files */
    uint64_t starved_count;

    int wake_fd;
    bool wake_is_armed;
    uint64_t wake_value;
    struct waiter waiter;
};

struct io_uring *ring_of(struct io *io)
{
    return &io->ring;
}

struct buffers *ring_buffers(struct io *io)
{
    return &io->buffers;
}

struct files *ring_files(struct io *io)
{
    return io->files;
}

void ring_set_files(struct io *io, struct files *files)
{
    io->files = files;
}

bool ring_is_closing(const struct io *io)
{
    return io->is_closing;
}

bool ring_has_ftruncate(const struct io *io)
{
    return io->has_ftruncate;
}

uint32_t io_sockets_max(const struct io *io)
{
    return io->sockets_max;
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
    const struct kind *kind = &io->kinds[op->kind];
    assert(!list_node_is_linked(&op->node)); /* invariant 1 */
    kind->prepare(io, op, sqe);
    sqe->flags |= kind->entry_flags;
    io_uring_sqe_set_data(sqe, op);
    op->state = OP_KERNEL;
    io->kernel_count++;
    io->under_way_count[kind->under_way]++;
}

void prepare_plain(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    io_uring_prep_rw(io->kinds[op->kind].opcode, sqe, op->handle, op->buffer, op->size, op->offset);
    sqe->rw_flags = (int)op->time[1];
}

void ring_submit(struct io *io, struct io_op *op)
{
    assert(!io->is_closing); /* rule 3 */
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

void ring_starve(struct io *io, struct io_op *op)
{
    if (io->is_closing || (op->flags & OP_CANCELLED) != 0) {
        ring_resubmit(io, op);
        return;
    }
    op->state = OP_STARVED;
    io->starved_count++;
    list_push_back(&io->starved, &op->node);
}

void ring_ready(struct io *io, struct io_op *op, int32_t result)
{
    assert(!list_node_is_linked(&op->node)); /* invariant 1 */
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
        heap_remove(&io->timers, &op->timer);
        break;
    case OP_BACKLOG:
    case OP_STARVED:
        list_remove(&op->node);
        break;
    }
    ring_ready(io, op, -ECANCELED);
}

void io_timer(struct io *io, struct io_op *op, uint64_t deadline_ns)
{
    op_begin(op, KIND_TIMER, -1);
    op->state = OP_TIMER;
    heap_add(&io->timers, &op->timer, deadline_ns);
}

/* Arms the read that io_wake ends. Errors: -EAGAIN: no entry. */
static int arm_wake(struct io *io)
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

/* A receive that is armed may find no byte and take no buffer, so nobody else's completion would
 * arm the next: as long as some are starved, every pass arms a ring full of them and does not
 * sleep. */
static void submit_starved(struct io *io, uint32_t buffer_count)
{
    for (uint32_t i = 0; i < buffer_count; i++) {
        struct list_node *node = list_pop_front(&io->starved);
        if (node == NULL)
            return;
        ring_resubmit(io, container_of(node, struct io_op, node));
    }
}

/* What found no entry earlier, and what waits for buffers. */
static void submit_waiting(struct io *io)
{
    submit_starved(io, buffers_publish(&io->buffers));
    if (!io->wake_is_armed)
        (void)arm_wake(io);
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
    assert(op->state != OP_IDLE);             /* rule 2: one last completion */
    assert(!list_node_is_linked(&op->node));  /* invariant 1 */
    assert(io->is_running || io->is_closing); /* invariant 3 */
    op->state = OP_IDLE;
    op->result = result;
    io->ran_count++;
    if (op->done != NULL && !io->is_closing)
        op->done(op, result);
}

void ring_deliver(struct io *io, struct io_op *op, int32_t result)
{
    assert(op->state != OP_IDLE);             /* rule 2: it goes on */
    assert(io->is_running || io->is_closing); /* invariant 3 */
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

bool finish_failed(struct io *io, struct io_op *op, int32_t result)
{
    if (retry_transient(io, op, result))
        return true;
    if (result < 0)
        ring_complete(io, op, result);
    return result < 0;
}

void finish_plain(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    if (!finish_failed(io, op, result))
        ring_complete(io, op, result);
}

static void reap_one(struct io *io, uint64_t data, int32_t result, uint32_t flags)
{
    if (data == RING_TAG_NONE || data == RING_TAG_INSTALL)
        return;
    bool is_last = (flags & IORING_CQE_F_MORE) == 0;
    if (is_last) {
        assert(io->kernel_count > 0); /* invariant 2 */
        io->kernel_count--;
    }
    if (data == RING_TAG_WAKE) {
        io->wake_is_armed = false;
        return;
    }
    struct io_op *op = (struct io_op *)(uintptr_t)data;
    if (is_last && list_node_is_linked(&op->node))
        list_remove(&op->node); /* its cancel is no longer needed */
    const struct kind *kind = &io->kinds[op->kind];
    assert(op->state == OP_KERNEL); /* rule 3: nobody used it meanwhile */
    if (is_last) {
        assert(io->under_way_count[kind->under_way] > 0); /* invariant 2 */
        io->under_way_count[kind->under_way]--;
    }
    kind->finish(io, op, result, flags);
}

/* Shows a completion that is still to come to its owner. */
static void hint(const struct io *io, const struct io_uring_cqe *cqe, bool is_next)
{
    uint64_t data = cqe->user_data;
    if (data <= RING_TAG_MAX || cqe->res <= 0)
        return;
    const struct io_op *op = (const struct io_op *)(uintptr_t)data;
    if (op->kind == KIND_RECEIVE && op->hint != NULL && (cqe->flags & IORING_CQE_F_BUFFER) != 0)
        buffers_hint(&io->buffers, op, cqe, is_next);
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

/* Runs the completions that are there. */
static void reap(struct io *io)
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

static void run_timers(struct io *io)
{
    uint64_t sequence_end = io->timers.sequence; /* later ones wait for the next pass */
    struct heap_node *node;
    while ((node = io->timers.first) != NULL && node->time_ns <= io->now_ns &&
           node->sequence < sequence_end) {
        heap_remove(&io->timers, node);
        ring_complete(io, container_of(node, struct io_op, timer), 0);
    }
}

/* ---- the loop ---- */

static void read_clocks(struct io *io)
{
    io->now_ns = monotonic_ns();
    if (io->now_ns - io->wall_read_ns < NS_PER_MS / 2)
        return;
    struct timespec time;
    (void)clock_gettime(CLOCK_REALTIME, &time);
    io->wall_ms = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / NS_PER_MS;
    io->wall_read_ns = io->now_ns;
}

static enum under_way under_way(const struct io *io)
{
    if (io->under_way_count[UNDER_WAY_WORKERS] > 0)
        return UNDER_WAY_WORKERS;
    return io->under_way_count[UNDER_WAY_READS] > 0 ? UNDER_WAY_READS : UNDER_WAY_PLAIN;
}

/* Waits no longer than until the next timer. */
static int wait_for_work(struct io *io, uint64_t wait_ns)
{
    const struct heap_node *next = io->timers.first;
    if (wait_ns != 0 && next != NULL) {
        uint64_t now_ns = monotonic_ns();
        wait_ns = min_u64(wait_ns, next->time_ns > now_ns ? next->time_ns - now_ns : 0);
    }
    int error = waiter_wait(&io->waiter, &io->ring, under_way(io), wait_ns);
    read_clocks(io);
    return error;
}

int io_run(struct io *io, uint64_t wait_ns_max)
{
    assert(!io->is_running); /* rule 2: never within a completion */
    submit_waiting(io);
    bool has_more = !list_is_empty(&io->ready) || !list_is_empty(&io->backlog) ||
                    !list_is_empty(&io->starved) || !list_is_empty(&io->cancels);
    int error = wait_for_work(io, has_more ? 0 : wait_ns_max);
    if (error < 0)
        return error;
    io->ran_count = 0;
    io->is_running = true;
    reap(io);
    run_ready(io);
    run_timers(io);
    io->is_running = false;
    return (int)io->ran_count;
}

void io_wake(struct io *target)
{
    if (!waiter_ask(&target->waiter))
        return;
    int saved_errno = errno; /* a signal handler must leave it alone */
    uint64_t one = 1;
    (void)!write(target->wake_fd, &one, sizeof one);
    errno = saved_errno;
}

/* ---- what the world tells of itself ---- */

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

uint64_t io_wall_ms(const struct io *io)
{
    return io->wall_ms;
}

void io_counts(const struct io *io, struct io_counts *ret_counts)
{
    waiter_counts(&io->waiter, ret_counts);
    ret_counts->starved = io->starved_count;
}

/* ---- the ladder ---- */

static int register_tables(struct io *io, const struct io_options *options, char *ret_error)
{
    int error = setup_table(&io->ring, options, &io->sockets_max, ret_error);
    if (error < 0)
        return error;
    error = buffers_open(&io->buffers, &io->ring, options);
    return error < 0 ? explain_register(error, "the receive buffers", ret_error) : 0;
}

static struct io *allocate(const struct kind *kinds, uint64_t busy_poll_ns)
{
    struct io *io = aligned_alloc(alignof(struct io), sizeof *io);
    if (io == NULL)
        return NULL;
    memset(io, 0, sizeof *io);
    io->kinds = kinds;
    list_init(&io->backlog);
    list_init(&io->cancels);
    list_init(&io->starved);
    list_init(&io->ready);
    waiter_init(&io->waiter, busy_poll_ns);
    return io;
}

int ring_create(const struct io_options *options, const struct kind *kinds, struct io **ret_io,
                char *ret_error)
{
    struct io *io = allocate(kinds, options->busy_poll_ns);
    if (io == NULL)
        return explain_register(-ENOMEM, "the world", ret_error);
    int error = io->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (error < 0) {
        error = explain_register(-errno, "the wake-up descriptor", ret_error);
        goto free_io;
    }
    error = setup_ring(&io->ring, &io->has_ftruncate, ret_error);
    if (error < 0)
        goto close_wake;
    error = register_tables(io, options, ret_error);
    if (error < 0)
        goto close_ring;
    *ret_io = io;
    return 0;

close_ring:
    io_uring_queue_exit(&io->ring);
close_wake:
    (void)close(io->wake_fd);
free_io:
    free(io);
    return error;
}

int ring_enable(struct io *io, char *ret_error)
{
    int error = setup_enable(&io->ring, io->has_ftruncate, ret_error);
    if (error < 0)
        return error;
    read_clocks(io);
    return arm_wake(io);
}

static void abandon(struct list *list)
{
    struct list_node *node;
    while ((node = list_pop_front(list)) != NULL)
        container_of(node, struct io_op, node)->state = OP_IDLE;
}

void ring_drain(struct io *io)
{
    assert(!io->is_running); /* rule 2 */
    io->is_closing = true;
    abandon(&io->backlog);
    abandon(&io->starved);
    abandon(&io->ready);
    for (struct heap_node *node; (node = io->timers.first) != NULL;) {
        heap_remove(&io->timers, node);
        container_of(node, struct io_op, timer)->state = OP_IDLE;
    }
    struct io_uring_sqe *sqe = ring_entry(io);
    if (sqe != NULL) {
        io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY);
        io_uring_sqe_set_data64(sqe, RING_TAG_NONE);
    }
    while (io->kernel_count > 0) {
        int error = io_uring_submit_and_wait(&io->ring, 1);
        if (error < 0 && error != -EINTR && error != -EAGAIN && error != -EBUSY)
            return; /* the ring itself failed: the kernel's clean-up waits for what is left */
        reap(io);
    }
}

void ring_destroy(struct io *io)
{
    buffers_close(&io->buffers, &io->ring);
    /* Otherwise the kernel closes them some time after the ring: a listener's port would stay taken
     * until then. */
    (void)io_uring_unregister_files(&io->ring);
    io_uring_queue_exit(&io->ring);
    (void)close(io->wake_fd);
    free(io);
}
