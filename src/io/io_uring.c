/* The real world: the kinds of operations that it has, opening it, closing it.
 *
 * The ladder up, and the same ladder down: a disabled ring with its tables and buffers, then the
 * files and the disk buffers, then the ring is enabled. From there on the kernel refuses this
 * process everything on the ring that this module does not use. */
#include "io/io_uring.h"

#include <errno.h>
#include <sys/random.h>

/* The handle is an index of the registered table. */
#define FIXED IOSQE_FIXED_FILE

static const struct kind kinds[KIND_COUNT] = {
    [KIND_ACCEPT] = {IORING_OP_ACCEPT, FIXED, UNDER_WAY_PLAIN, accept_prepare, accept_finish},
    [KIND_RECEIVE] = {IORING_OP_RECV, FIXED, UNDER_WAY_PLAIN, receive_prepare, receive_finish},
    [KIND_RECEIVE_INTO] = {IORING_OP_RECV, FIXED, UNDER_WAY_PLAIN, prepare_plain, finish_plain},
    [KIND_SEND] = {IORING_OP_SEND, FIXED, UNDER_WAY_PLAIN, send_prepare, send_finish},
    [KIND_SHUTDOWN] = {IORING_OP_SHUTDOWN, FIXED, UNDER_WAY_PLAIN, prepare_plain, finish_plain},
    [KIND_CLOSE_SOCKET] = {IORING_OP_CLOSE, 0, UNDER_WAY_PLAIN, close_socket_prepare, finish_plain},
    [KIND_OPEN] = {IORING_OP_OPENAT, 0, UNDER_WAY_WORKERS, open_prepare, open_finish},
    [KIND_CLOSE_FILE] = {IORING_OP_CLOSE, 0, UNDER_WAY_WORKERS, close_file_prepare,
                         close_file_finish},
    [KIND_READ] = {IORING_OP_READ, FIXED, UNDER_WAY_READS, transfer_prepare, transfer_finish},
    [KIND_WRITE] = {IORING_OP_WRITE, FIXED, UNDER_WAY_WORKERS, transfer_prepare, transfer_finish},
    [KIND_SYNC] = {IORING_OP_FSYNC, FIXED, UNDER_WAY_WORKERS, prepare_plain, finish_plain},
    [KIND_ALLOCATE] = {IORING_OP_FALLOCATE, FIXED, UNDER_WAY_WORKERS, prepare_plain, finish_plain},
    [KIND_TRUNCATE] = {IORING_OP_OPENAT, 0, UNDER_WAY_WORKERS, truncate_prepare, truncate_finish},
    [KIND_RENAME] = {IORING_OP_RENAMEAT, 0, UNDER_WAY_WORKERS, prepare_plain, finish_plain},
    [KIND_UNLINK] = {IORING_OP_UNLINKAT, 0, UNDER_WAY_WORKERS, prepare_plain, finish_plain},
};

int io_open(const struct io_options *options, struct io **ret_io, char *ret_error)
{
    assert(options->sockets_max > 0);
    ret_error[0] = '\0';
    struct io *io;
    int error = ring_create(options, kinds, &io, ret_error);
    if (error < 0)
        return error;
    error = files_open(io, options, ret_error);
    if (error < 0)
        goto destroy_ring;
    error = ring_enable(io, ret_error);
    if (error < 0)
        goto close_files;
    *ret_io = io;
    return 0;

close_files:
    files_close(io);
destroy_ring:
    ring_destroy(io);
    return error;
}

void io_close(struct io *io)
{
    ring_drain(io);
    files_close(io);
    ring_destroy(io);
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

uint64_t io_clock_ns(const struct io *io)
{
    (void)io;
    return monotonic_ns();
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
