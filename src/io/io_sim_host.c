/* A host: its operations and their completions, the loop that hands them over, and what it knows of
 * time and chance. */
#include "io/io_sim_host.h"

#include "base/checksum.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CANCEL_NS_MAX (20 * NS_PER_US)

/* Where the wall clock starts: 2026-01-01. */
#define WALL_START_MS INT64_C(1767225600000)

enum sim_op_state { SIM_IDLE, SIM_ACTIVE };
static_assert(SIM_IDLE == 0, "io_op_is_active");

/* Lent bytes belong to the completion. */
struct completion {
    struct list_node node; /* of its host's ready ones */
    struct sim_op *op;
    int32_t result;
    bool is_last;
    uint8_t *data;
};

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

/* ---- what the caller must leave alone ---- */

static uint32_t sum_of_send(const struct sim_op *op)
{
    const struct io_send *send = container_of(op->op, struct io_send, op);
    uint32_t sum = crc32c(send->slices, op->flags * sizeof *send->slices);
    for (uint32_t i = 0; i < op->flags; i++)
        sum = crc32c_more(sum, send->slices[i].iov_base, send->slices[i].iov_len);
    return sum;
}

static uint32_t sum_of(const struct sim_op *op)
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

static void check_seal(const struct sim_op *op)
{
    if (op->op->state != SIM_ACTIVE || op->op->time[0] != (uintptr_t)op)
        sim_breach(op->io->sim, "a %s operation was changed while it was active", op_name(op));
    if (op->is_sealed && op->sum != sum_of(op))
        sim_breach(op->io->sim,
                   "the buffer of a %s (%" PRIu64 " bytes) was changed while it was active",
                   op_name(op), op->size);
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
    sim_note(io->sim, io->number, op_name(op), (int64_t)op->offset, (int64_t)op->size);
    op->execute(op);
}

struct sim_op *op_begin(struct io *io, struct io_op *op, struct sim_op asked)
{
    bool is_idle = op->state == SIM_IDLE;
    op->state = SIM_ACTIVE;
    if (io->state != SIM_HOST_RUNS)
        return NULL;
    if (!is_idle)
        sim_breach(io->sim, "an operation is used for a %s while it is active",
                   kind_names[asked.kind]);
    struct sim_op *sim_op = sim_allocate(sizeof *sim_op);
    *sim_op = asked;
    sim_op->io = io;
    sim_op->op = op;
    sim_event_init(&sim_op->event, execute);
    sim_op->is_sealed = sim_options(io->sim)->strict;
    sim_op->sum = sim_op->is_sealed ? sum_of(sim_op) : 0;
    list_push_back(&io->active, &sim_op->node);
    op->data = NULL;
    op->time[0] = (uintptr_t)sim_op;
    return sim_op;
}

const char *op_name(const struct sim_op *op)
{
    return kind_names[op->kind];
}

void op_schedule(struct sim_op *op, uint64_t delay_ns)
{
    struct sim *sim = op->io->sim;
    sim_schedule(sim, &op->event, sim_now_ns(sim) + delay_ns);
}

static void op_free(struct sim_op *op)
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
    struct sim_op *timer =
        op_begin(io, op, (struct sim_op){.execute = execute_timer, .kind = SIM_TIMER});
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

static void complete(struct sim_op *op, int32_t result, bool is_last, uint8_t *data)
{
    assert(!op->is_done);
    struct completion *completion = sim_allocate(sizeof *completion);
    *completion = (struct completion){.op = op, .result = result, .is_last = is_last, .data = data};
    op->is_done = is_last;
    if (is_last)
        sim_unschedule(op->io->sim, &op->event);
    list_push_back(&op->io->ready, &completion->node);
    (void)sim_count_ready(op->io->sim, 1);
}

void op_complete_more(struct sim_op *op, int32_t result, uint8_t *data)
{
    complete(op, result, false, data);
}

void op_complete(struct sim_op *op, int32_t result)
{
    complete(op, result, true, NULL);
}

static struct completion *next_completion(struct io *io)
{
    struct list_node *node = list_pop_front(&io->ready);
    if (node == NULL)
        return NULL;
    (void)sim_count_ready(io->sim, -1);
    return container_of(node, struct completion, node);
}

static void completion_free(struct completion *completion)
{
    /* Whoever looks at lent bytes later sees that they are gone. */
    if (completion->data != NULL)
        memset(completion->data, 0xDD, (size_t)completion->result);
    free(completion->data);
    free(completion);
}

/* ---- the loop ---- */

/* The caller may use the operation, and close what it was about, within its last completion. */
static void retire(struct sim_op *op)
{
    op->op->state = SIM_IDLE;
    if (op->active != NULL)
        (*op->active)--;
    if (op->place != NULL)
        *op->place = NULL;
    op_free(op);
}

static void deliver(struct io *io, struct completion *completion)
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
    int count = 0;
    bool goes_on = true;
    /* What completes meanwhile waits for the next pass. */
    for (const struct list_node *last = list_last(&io->ready); last != NULL && goes_on; count++) {
        host_step(io);
        if (io->state != SIM_HOST_RUNS)
            return -ESHUTDOWN;
        struct completion *completion = next_completion(io);
        goes_on = &completion->node != last;
        deliver(io, completion);
    }
    return count;
}

/* Also when another host has completions, so that it gets its turn. */
static bool must_return(const struct io *io)
{
    return io->state != SIM_HOST_RUNS || io->is_woken || sim_count_ready(io->sim, 0) > 0;
}

/* What one pass costs, apart from waiting; and now and then the process gets no CPU for a while. */
static void spend(const struct io *io)
{
    struct sim *sim = io->sim;
    const struct sim_options *options = sim_options(sim);
    uint64_t cost_ns =
        sim_latency(sim, options->pass_ns_max, options->pause_ppm, options->pause_ns_max);
    sim_advance(sim, sim_now_ns(sim) + cost_ns);
}

static void read_clocks(struct io *io)
{
    io->now_ns = sim_now_ns(io->sim);
    if (!io->wall_is_frozen)
        io->wall_ms = (uint64_t)((int64_t)(io->now_ns / NS_PER_MS) + io->wall_offset_ms);
}

static void pass_time(struct io *io, uint64_t wait_ns_max)
{
    struct sim *sim = io->sim;
    uint64_t now_ns = sim_now_ns(sim);
    uint64_t until_ns = now_ns + min_u64(wait_ns_max, UINT64_MAX - now_ns);
    while (!must_return(io) && sim_step(sim, until_ns))
        ;
    if (!must_return(io) && until_ns != UINT64_MAX)
        sim_advance(sim, until_ns);
    read_clocks(io);
    io->is_woken = false;
}

int io_run(struct io *io, uint64_t wait_ns_max)
{
    if (io->is_running)
        sim_breach(io->sim, "io_run is called within a completion");
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
        if (io->state == SIM_HOST_RUNS && !sim_has_events(io->sim) && list_is_empty(&io->ready))
            sim_breach(io->sim, "io_wait waits for what nothing will ever complete");
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

/* ---- its beginning and its end ---- */

struct io *host_create(struct sim *sim, struct sim_disk *disk, const struct io_options *options)
{
    assert(options->region_size % DISK_BLOCK_SIZE == 0);
    struct io *io = sim_allocate(sizeof *io);
    io->sim = sim;
    io->disk = disk;
    io->options = *options;
    io->number = sim_number_host(sim);
    if (options->region_size > 0) {
        io->region = memory_map(options->region_size);
        assert(io->region != NULL);
    }
    io->wall_offset_ms = WALL_START_MS;
    read_clocks(io);
    io->sockets = sim_allocate(options->sockets_max * sizeof(struct sim_socket *));
    io->files = sim_allocate(options->files_max * sizeof(struct sim_file *));
    list_init(&io->active);
    list_init(&io->ready);
    sim_note(sim, io->number, "open", 0, 0);
    return io;
}

void host_forget(struct io *io)
{
    for (struct completion *completion; (completion = next_completion(io)) != NULL;)
        completion_free(completion);
    for (struct list_node *node; (node = list_first(&io->active)) != NULL;)
        op_free(container_of(node, struct sim_op, node));
}

void host_free(struct io *io)
{
    if (io->region != NULL)
        memory_unmap(io->region, io->options.region_size);
    free(io->sockets);
    free(io->files);
    free(io);
}

/* ---- what it knows ---- */

uint8_t *io_region(struct io *io)
{
    return io->region;
}

uint32_t io_sockets_max(const struct io *io)
{
    return io->options.sockets_max;
}

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

/* Time passes between passes only. */
uint64_t io_clock_ns(const struct io *io)
{
    return io->now_ns;
}

/* A simulated ring has no bounds of its own. */
void io_counts(const struct io *io, struct io_counts *ret_counts)
{
    (void)io;
    *ret_counts = (struct io_counts){0};
}

uint64_t io_wall_ms(const struct io *io)
{
    return io->wall_ms;
}

void sim_host_jump(struct io *io, int64_t delta_ms)
{
    io->wall_offset_ms += delta_ms;
    io->wall_ms = (uint64_t)((int64_t)io->wall_ms + delta_ms);
}

void sim_host_freeze(struct io *io, bool is_frozen)
{
    io->wall_is_frozen = is_frozen;
}

void io_random(struct io *io, void *buffer, size_t size)
{
    uint8_t *to = buffer;
    for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
        uint64_t value = prng_next(sim_prng(io->sim));
        memcpy(to + at, &value, min_u64(sizeof value, size - at));
    }
}
