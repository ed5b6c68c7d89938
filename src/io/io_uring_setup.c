/* Opening and closing a world: the ladder up, and the same ladder down.
 *
 * The ring is created disabled; the table of files, the buffers and the restrictions are
 * registered; then it is enabled. From there on the kernel refuses this process everything on the
 * ring that this module does not use. */
#include "io/io_uring.h"

#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* A full submission queue is submitted and filled again, so its size only bounds one enter's batch.
 * Multishot receives complete without an entry of their own: the completion queue is larger. Beyond
 * that the kernel keeps what overflows. */
#define ENTRIES_WANTED 512
#define ENTRIES_MIN 32
#define COMPLETIONS_PER_ENTRY 8

/* ---- the ring ---- */

static int ring_open(struct io *io, char *ret_error)
{
    int error = 0;
    uint32_t entries = ENTRIES_WANTED;
    for (; entries >= ENTRIES_MIN; entries /= 2) {
        struct io_uring_params params = {
            .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                     IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED,
            .cq_entries = entries * COMPLETIONS_PER_ENTRY,
        };
        error = io_uring_queue_init_params(entries, &io->ring, &params);
        if (error != -ENOMEM)
            break;
    }
    return error < 0 ? explain_setup(error, ret_error) : 0;
}

static int probe(struct io *io, char *ret_error)
{
    struct io_uring_probe *found = io_uring_get_probe_ring(&io->ring);
    if (found == NULL)
        return explain_register(-ENOMEM, "the list of operations", ret_error);
    int error = explain_probe(found, ret_error);
    io->has_ftruncate = io_uring_opcode_supported(found, IORING_OP_FTRUNCATE) != 0;
    io_uring_free_probe(found);
    return error;
}

/* ---- the table of files ---- */

/* Raises the soft limit to the hard one; the kernel compares the size of the table with the soft
 * one. */
static uint64_t raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur;
}

static int table_open(struct io *io, const struct io_options *options, char *ret_error)
{
    uint64_t limit = raise_file_limit();
    uint64_t wanted = (uint64_t)options->sockets_max + options->files_max;
    if (limit <= options->files_max + 1)
        return explain_files(wanted, limit, ret_error);
    io->files_max = options->files_max;
    io->sockets_max = (uint32_t)min_u64(options->sockets_max, limit - options->files_max);
    int error = io_uring_register_files_sparse(&io->ring, io->sockets_max + io->files_max);
    if (error == -EMFILE)
        return explain_files(wanted, limit, ret_error);
    if (error == 0)
        error = io_uring_register_file_alloc_range(&io->ring, 0, io->sockets_max);
    if (error < 0)
        return explain_register(error, "the table of files", ret_error);
    if (io->sockets_max < options->sockets_max)
        warn_sockets(options->sockets_max, io->sockets_max, limit, ret_error);
    return 0;
}

static int files_open(struct io *io)
{
    io->files = calloc(io->files_max, sizeof io->files[0]);
    io->files_free = calloc(io->files_max, sizeof io->files_free[0]);
    if ((io->files == NULL || io->files_free == NULL) && io->files_max > 0) {
        free(io->files);
        free(io->files_free);
        return -ENOMEM;
    }
    for (uint32_t slot = 0; slot < io->files_max; slot++) {
        io->files[slot].fd = -1;
        io->files_free[slot] = io->files_max - 1 - slot; /* slot 0 is taken first */
    }
    io->files_free_count = io->files_max;
    return 0;
}

static void files_free(struct io *io)
{
    files_close(io);
    free(io->files);
    free(io->files_free);
}

/* ---- the region of disk buffers ---- */

static int region_open(struct io *io, size_t size, char *ret_error)
{
    assert(size % DISK_BLOCK_SIZE == 0 && size <= GIB);
    if (size == 0)
        return 0;
    /* Huge pages are fewer to pin and to look up. */
    io->region = size < MEMORY_HUGE_PAGE_SIZE ? memory_map(size) : memory_map_huge(size);
    if (io->region == NULL)
        return explain_register(-ENOMEM, "the disk buffers", ret_error);
    io->region_size = size;
    struct iovec whole = {.iov_base = io->region, .iov_len = size};
    int error = io_uring_register_buffers(&io->ring, &whole, 1);
    io->region_registered = error == 0;
    if (error < 0)
        warn_region(size, error, ret_error);
    return 0;
}

static void region_close(struct io *io)
{
    if (io->region == NULL)
        return;
    if (io->region_registered)
        (void)io_uring_unregister_buffers(&io->ring);
    memory_unmap(io->region, io->region_size);
}

/* ---- restrictions ---- */

static int restrict_ring(struct io *io)
{
    static const uint8_t operations[] = {
        IORING_OP_ACCEPT,       IORING_OP_RECV,         IORING_OP_SEND,        IORING_OP_SENDMSG,
        IORING_OP_SHUTDOWN,     IORING_OP_CLOSE,        IORING_OP_OPENAT,      IORING_OP_READ,
        IORING_OP_READ_FIXED,   IORING_OP_WRITE,        IORING_OP_WRITE_FIXED, IORING_OP_FSYNC,
        IORING_OP_FALLOCATE,    IORING_OP_FTRUNCATE,    IORING_OP_RENAMEAT,    IORING_OP_UNLINKAT,
        IORING_OP_ASYNC_CANCEL, IORING_OP_FILES_UPDATE,
    };
    static const uint8_t registrations[] = {
        IORING_REGISTER_FILES_UPDATE, IORING_UNREGISTER_FILES,  IORING_UNREGISTER_BUFFERS,
        IORING_UNREGISTER_PBUF_RING,  IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS,
    };
    struct io_uring_restriction rules[sizeof operations + sizeof registrations + 1];
    memset(rules, 0, sizeof rules);
    unsigned count = 0;
    for (size_t i = 0; i < sizeof operations; i++, count++) {
        if (operations[i] == IORING_OP_FTRUNCATE && !io->has_ftruncate)
            continue;
        rules[count].opcode = IORING_RESTRICTION_SQE_OP;
        rules[count].sqe_op = operations[i];
    }
    for (size_t i = 0; i < sizeof registrations; i++, count++) {
        rules[count].opcode = IORING_RESTRICTION_REGISTER_OP;
        rules[count].register_op = registrations[i];
    }
    rules[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    rules[count++].sqe_flags =
        IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT | IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS;
    return io_uring_register_restrictions(&io->ring, rules, count);
}

static int enable(struct io *io, char *ret_error)
{
    int error = restrict_ring(io);
    if (error < 0)
        return explain_register(error, "the restrictions", ret_error);
    error = io_uring_enable_rings(&io->ring);
    if (error < 0)
        return explain_register(error, "the enabling of the ring", ret_error);
    (void)io_uring_register_ring_fd(&io->ring); /* saves a look-up an enter; without it all works */
    return ring_arm_wake(io);
}

/* ---- the ladder ---- */

static int register_all(struct io *io, const struct io_options *options, char *ret_error)
{
    int error = probe(io, ret_error);
    if (error == 0)
        error = table_open(io, options, ret_error);
    if (error < 0)
        return error;
    error = buffers_open(io, options->receive_buffer_size, options->receive_buffer_count);
    if (error < 0)
        return explain_register(error, "the receive buffers", ret_error);
    error = region_open(io, options->region_size, ret_error);
    if (error < 0)
        goto close_buffers;
    error = files_open(io);
    if (error < 0)
        goto close_region;
    error = enable(io, ret_error);
    if (error < 0)
        goto free_files;
    return 0;

free_files:
    files_free(io);
close_region:
    region_close(io);
close_buffers:
    buffers_close(io);
    return error;
}

static void lists_init(struct io *io)
{
    list_init(&io->backlog);
    list_init(&io->cancels);
    list_init(&io->starved);
    list_init(&io->ready);
}

int io_open(const struct io_options *options, struct io **ret_io, char *ret_error)
{
    assert(options->sockets_max > 0);
    ret_error[0] = '\0';
    struct io *io = aligned_alloc(alignof(struct io), sizeof *io);
    if (io == NULL)
        return explain_register(-ENOMEM, "the world", ret_error);
    memset(io, 0, sizeof *io);
    lists_init(io);
    wait_init(io, options->busy_poll_ns);
    io->receive_multishot = !options->receive_single;
    int error = io->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (error < 0) {
        error = explain_register(-errno, "the wake-up descriptor", ret_error);
        goto free_io;
    }
    error = ring_open(io, ret_error);
    if (error < 0)
        goto close_wake;
    error = register_all(io, options, ret_error);
    if (error < 0)
        goto close_ring;
    ring_read_clocks(io);
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

/* ---- the way down ---- */

static void abandon(struct list *list)
{
    struct list_node *node;
    while ((node = list_pop_front(list)) != NULL)
        container_of(node, struct io_op, node)->state = OP_IDLE;
}

/* Nothing of ours may be in the kernel's hands when its memory goes: cancel, then wait for the last
 * completions. */
static void drain(struct io *io)
{
    io->is_closing = true;
    abandon(&io->backlog);
    abandon(&io->starved);
    abandon(&io->ready);
    while (io->timers.root != NULL) {
        struct io_op *op = io->timers.root;
        timers_remove(&io->timers, op);
        op->state = OP_IDLE;
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
        (void)ring_reap(io);
    }
}

void io_close(struct io *io)
{
    assert(!io->is_running);
    drain(io);
    files_free(io);
    buffers_close(io);
    region_close(io);
    /* Otherwise the kernel closes them some time after the ring: a listener's port would stay taken
     * until then. */
    (void)io_uring_unregister_files(&io->ring);
    io_uring_queue_exit(&io->ring);
    (void)close(io->wake_fd);
    free(io);
}
