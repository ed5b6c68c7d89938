/* Operations and their completions, and the loop that hands them over. */
#include "io/io_sim_internal.h"

#include "base/checksum.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CANCEL_NS_MAX (20 * NS_PER_US)

static const char *const kind_names[] = {
    [SIM_NONE] = "none",
    [SIM_TIMER] = "timer",
    [SIM_ACCEPT] = "accept",
    [SIM_RECEIVE] = "receive",
    [SIM_RECEIVE_INTO] = "receive_into",
    [SIM_SEND] = "send",
    [SIM_SHUTDOWN] = "shutdown",
    [SIM_CLOSE_SOCKET] = "close_socket",
    [SIM_OPEN] = "open",
    [SIM_CLOSE_FILE] = "close_file",
    [SIM_READ] = "read",
    [SIM_WRITE] = "write",
    [SIM_SYNC] = "sync",
    [SIM_ALLOCATE] = "allocate",
    [SIM_TRUNCATE] = "truncate",
    [SIM_RENAME] = "rename",
    [SIM_UNLINK] = "unlink",
};

bool io_op_is_active(const struct io_op *op)
{
    return op->state != SIM_IDLE;
}

/* ---- what the caller must leave alone ---- */

static uint32_t sum_of_send(const struct sim_op *op)
{
    const struct io_send *send = container_of(op->op, struct io_send, op);
    uint32_t sum = crc32c(send->slices, op->flags * sizeof *send->slices);
    for (uint32_t i = 0; i < op->flags; i++)
        sum = crc32c_more(sum, send->slices[i].iov_base, send->slices[i].iov_len);
    return sum;
}

uint32_t op_sum(const struct sim_op *op)
{
    if (op->kind == SIM_WRITE)
        return crc32c(op->buffer, op->size);
    if (op->kind == SIM_SEND)
        return sum_of_send(op);
    uint32_t sum = 0;
    if (op->path != NULL)
        sum = crc32c(op->path, strlen(op->path));
    if (op->path_to != NULL)
        sum = crc32c_more(sum, op->path_to, strlen(op->path_to));
    return sum;
}

void op_seal(struct sim_op *op)
{
    op->is_sealed = op->io->sim->options.strict;
    if (op->is_sealed)
        op->sum = op_sum(op);
}

static void check_seal(const struct sim_op *op)
{
    if (op->op->state != SIM_ACTIVE || op->op->time[0] != (uintptr_t)op)
        sim_breach(op->io, "a %s operation was changed while it was active", kind_names[op->kind]);
    if (op->is_sealed && op->sum != op_sum(op))
        sim_breach(op->io, "the buffer of a %s (%" PRIu64 " bytes) was changed while it was active",
                   kind_names[op->kind], op->size);
}

/* ---- submitting ---- */

/* Counts a step; the planned crash comes within. */
static void host_step(struct io *io)
{
    io->steps++;
    if (io->crash_at_steps != 0 && io->steps >= io->crash_at_steps)
        io->crash_now(io, io->crash);
}

static void execute(struct sim_event *event)
{
    struct sim_op *op = container_of(event, struct sim_op, event);
    struct io *io = op->io;
    host_step(io);
    if (io->state != SIM_HOST_RUNS)
        return;
    sim_note(io->sim, io->number, kind_names[op->kind], (int64_t)op->offset, (int64_t)op->size);
    op->family->execute(op);
}

struct sim_op *op_begin(struct io *io, struct io_op *op, enum sim_kind kind,
                        const struct sim_family *family)
{
    if (io->state != SIM_HOST_RUNS) {
        op->state = SIM_ACTIVE;
        return NULL;
    }
    if (op->state != SIM_IDLE)
        sim_breach(io, "an operation is used for a %s while it is active", kind_names[kind]);
    struct sim_op *sim_op = sim_allocate(sizeof *sim_op);
    sim_op->event.fire = execute;
    sim_op->family = family;
    sim_op->io = io;
    sim_op->op = op;
    sim_op->kind = kind;
    list_push_back(&io->active, &sim_op->node);
    op->state = SIM_ACTIVE;
    op->kind = (uint8_t)kind;
    op->data = NULL;
    op->time[0] = (uintptr_t)sim_op;
    return sim_op;
}

void op_schedule(struct sim_op *op, uint64_t delay_ns)
{
    struct sim *sim = op->io->sim;
    sim_schedule(sim, &op->event, sim->now_ns + delay_ns);
}

void op_forget(struct sim_op *op)
{
    sim_unschedule(op->io->sim, &op->event);
    list_remove(&op->node);
    free(op);
}

static void execute_timer(struct sim_op *op)
{
    op_complete(op, op->is_cancelled ? -ECANCELED : 0);
}

void io_timer(struct io *io, struct io_op *op, uint64_t deadline_ns)
{
    static const struct sim_family timers = {.execute = execute_timer};
    struct sim_op *timer = op_begin(io, op, SIM_TIMER, &timers);
    /* On time, in the order of deadlines: it is the pass that comes late. */
    if (timer != NULL)
        sim_schedule(io->sim, &timer->event, deadline_ns);
}

void io_cancel(struct io *io, struct io_op *op)
{
    if (io->state != SIM_HOST_RUNS || op->state != SIM_ACTIVE)
        return;
    struct sim_op *active = (struct sim_op *)(uintptr_t)op->time[0];
    if (active->is_done || active->is_cancelled)
        return;
    active->is_cancelled = true;
    if (active->kind <= SIM_SEND)
        op_schedule(active, sim_delay(io->sim, CANCEL_NS_MAX));
}

/* ---- completing ---- */

static void complete(struct sim_op *op, int32_t result, bool is_last, uint8_t *data,
                     uint32_t data_size)
{
    assert(!op->is_done);
    struct sim_completion *completion = sim_allocate(sizeof *completion);
    completion->op = op;
    completion->result = result;
    completion->is_last = is_last;
    completion->data = data;
    completion->data_size = data_size;
    op->is_done = is_last;
    if (is_last)
        sim_unschedule(op->io->sim, &op->event);
    list_push_back(&op->io->ready, &completion->node);
}

void op_complete_more(struct sim_op *op, int32_t result, uint8_t *data, uint32_t data_size)
{
    complete(op, result, false, data, data_size);
}

void op_complete(struct sim_op *op, int32_t result)
{
    complete(op, result, true, NULL, 0);
}

void op_complete_with(struct sim_op *op, int32_t result, uint8_t *data, uint32_t data_size)
{
    complete(op, result, true, data, data_size);
}

void completion_free(struct sim_completion *completion)
{
    /* Whoever looks at lent bytes later sees that they are gone. */
    if (completion->data != NULL)
        memset(completion->data, 0xDD, completion->data_size);
    free(completion->data);
    free(completion);
}

/* ---- the loop ---- */

/* The caller may use the operation, and close what it was about, within its last completion. */
static void retire(struct sim_op *op)
{
    op->op->state = SIM_IDLE;
    if (op->family->retire != NULL)
        op->family->retire(op);
    op_forget(op);
}

static void deliver(struct io *io, struct sim_completion *completion)
{
    struct sim_op *active = completion->op;
    struct io_op *op = active->op;
    int32_t result = completion->result;
    check_seal(active);
    sim_note(io->sim, io->number, "done", active->kind, result);
    op->result = result;
    op->data = completion->data;
    if (completion->is_last)
        retire(active);
    if (op->done != NULL)
        op->done(op, result);
    completion_free(completion);
}

static int deliver_all(struct io *io)
{
    /* What completes meanwhile waits for the next pass. */
    int count = 0;
    for (const struct list_node *last = list_last(&io->ready); last != NULL; count++) {
        host_step(io);
        if (io->state != SIM_HOST_RUNS)
            return -ESHUTDOWN;
        struct list_node *node = list_pop_front(&io->ready);
        bool is_last = node == last;
        deliver(io, container_of(node, struct sim_completion, node));
        if (is_last)
            last = NULL;
    }
    return count;
}

static bool other_is_ready(const struct io *io)
{
    const struct list *hosts = &io->sim->hosts;
    for (struct list_node *node = list_first(hosts); node; node = list_next(hosts, node)) {
        const struct io *other = container_of(node, struct io, node);
        if (other != io && !list_is_empty(&other->ready))
            return true;
    }
    return false;
}

static bool must_return(const struct io *io)
{
    return io->state != SIM_HOST_RUNS || io->is_woken || !list_is_empty(&io->ready) ||
           other_is_ready(io);
}

/* What one pass costs, apart from waiting; and now and then the process gets no CPU for a while. */
static void spend(struct io *io)
{
    struct sim *sim = io->sim;
    uint64_t cost_ns = 1 + sim_delay(sim, sim->options.pass_ns_max);
    if (sim_happens(sim, sim->options.pause_ppm))
        cost_ns += prng_below(&sim->prng, sim->options.pause_ns_max + 1);
    sim_advance(sim, sim->now_ns + cost_ns);
}

static void pass_time(struct io *io, uint64_t wait_ns_max)
{
    struct sim *sim = io->sim;
    uint64_t until_ns = sim->now_ns + min_u64(wait_ns_max, UINT64_MAX - sim->now_ns);
    while (!must_return(io) && sim_step(sim, until_ns))
        ;
    if (!must_return(io) && until_ns != UINT64_MAX)
        sim->now_ns = max_u64(sim->now_ns, until_ns);
    io->now_ns = sim->now_ns;
    if (!io->wall_is_frozen)
        io->wall_ms = (uint64_t)((int64_t)(sim->now_ns / NS_PER_MS) + io->wall_offset_ms);
    io->is_woken = false;
}

int io_run(struct io *io, uint64_t wait_ns_max)
{
    if (io->is_running)
        sim_breach(io, "io_run is called within a completion");
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    io->is_running = true;
    spend(io);
    pass_time(io, wait_ns_max);
    int result = io->state == SIM_HOST_RUNS ? deliver_all(io) : -ESHUTDOWN;
    io->is_running = false;
    return result;
}

int32_t io_wait(struct io *io, struct io_op *op)
{
    while (op->state != SIM_IDLE) {
        if (io->state == SIM_HOST_RUNS && io->sim->queue_count == 0 && list_is_empty(&io->ready))
            sim_breach(io, "io_wait waits for what nothing will ever complete");
        int result = io_run(io, NS_PER_S);
        if (result < 0)
            return result;
    }
    return op->result;
}

void io_wake(struct io *target)
{
    target->is_woken = true;
}
