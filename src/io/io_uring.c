/* The real world: the kinds of operations that it has, opening it, closing it.
 *
 * The ladder up, and the same ladder down: a disabled ring with its tables and buffers, then the
 * files and the disk buffers, then the ring is enabled. From there on the kernel refuses this
 * process everything on the ring that this module does not use. */
#include "io/io_uring.h"

#include <errno.h>
#include <sys/random.h>

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
