/* What the kernel refuses on the very ring that the server uses, once it is enabled: everything
 * that io_uring*.c does not do. */
#include "io/io_uring.h"
#include "tests/support/support.h"

#include <sys/syscall.h>
#include <unistd.h>

/* The kernel is asked about every number that it may know, also those that liburing's header does
 * not. */
#define OPERATIONS_ASKED 128
#define REGISTRATIONS_ASKED 64

/* What the files of src/io prepare; FTRUNCATE only where the kernel has it. */
static const uint8_t used[] = {
    IORING_OP_ACCEPT,       IORING_OP_RECV,         IORING_OP_SEND,        IORING_OP_SENDMSG,
    IORING_OP_SHUTDOWN,     IORING_OP_CLOSE,        IORING_OP_OPENAT,      IORING_OP_READ,
    IORING_OP_READ_FIXED,   IORING_OP_WRITE,        IORING_OP_WRITE_FIXED, IORING_OP_FSYNC,
    IORING_OP_FALLOCATE,    IORING_OP_FTRUNCATE,    IORING_OP_RENAMEAT,    IORING_OP_UNLINKAT,
    IORING_OP_ASYNC_CANCEL, IORING_OP_FILES_UPDATE,
};

static bool is_used(uint32_t operation)
{
    return memchr(used, (int)operation, sizeof used) != NULL;
}

/* The result of an entry that names no good descriptor, so that what is allowed fails otherwise
 * than with -EACCES and does nothing. */
static int32_t try_entry(struct io_uring *ring, uint8_t operation, uint8_t flags)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct io_uring_cqe *cqe;
    cr_assert_not_null(sqe);
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = operation;
    sqe->flags = flags;
    sqe->fd = -1;
    sqe->user_data = 0x7E57;
    cr_assert_eq(io_uring_submit(ring), 1);
    cr_assert_eq(io_uring_wait_cqe(ring, &cqe), 0);
    cr_assert_eq(cqe->user_data, 0x7E57);
    int32_t result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return result;
}

/* The world's own entries have to be out of the way: it has just the read that ends its sleep. */
static struct io_uring *idle_ring(struct world *world)
{
    struct io *io = world_io(world);
    (void)io_run(io, 0);
    return ring_of(io);
}

Test(io_restrict, operations_that_the_server_does_not_use_are_refused)
{
    struct world *world = world_open(NULL);
    struct io_uring *ring = idle_ring(world);
    for (uint32_t operation = 0; operation < OPERATIONS_ASKED; operation++) {
        if (is_used(operation))
            continue;
        int32_t result = try_entry(ring, (uint8_t)operation, 0);
        bool is_known = operation < IORING_OP_LAST;
        cr_assert(result == -EACCES || (!is_known && result == -EINVAL), "%u: %d", operation,
                  result);
    }
    world_close(world);
}

Test(io_restrict, operations_that_it_uses_are_not)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct io_uring *ring = idle_ring(world);
    for (size_t i = 0; i < sizeof used; i++)
        if (used[i] != IORING_OP_FTRUNCATE || ring_has_ftruncate(io))
            cr_assert_neq(try_entry(ring, used[i], 0), -EACCES, "%u", used[i]);
    world_close(world);
}

/* Not IOSQE_IO_DRAIN: Linux 6.18 waits for what is before it, here the read that ends a sleep, and
 * refuses it only then. */
Test(io_restrict, flags_that_it_does_not_use_are_refused)
{
    static const uint8_t refused[] = {IOSQE_IO_LINK, IOSQE_IO_HARDLINK};
    struct world *world = world_open(NULL);
    struct io_uring *ring = idle_ring(world);
    for (size_t i = 0; i < sizeof refused; i++)
        cr_assert_eq(try_entry(ring, IORING_OP_SEND, refused[i]), -EACCES, "%u", refused[i]);
    cr_assert_neq(try_entry(ring, IORING_OP_SEND, IOSQE_ASYNC), -EACCES);
    world_close(world);
}

/* Nothing more can be given to the ring: no files, no buffers, no other task's work. */
Test(io_restrict, registrations_that_it_does_not_use_are_refused)
{
    static const uint8_t allowed[] = {
        IORING_REGISTER_FILES_UPDATE, IORING_UNREGISTER_FILES,  IORING_UNREGISTER_BUFFERS,
        IORING_UNREGISTER_PBUF_RING,  IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS,
    };
    struct world *world = world_open(NULL);
    struct io_uring *ring = idle_ring(world);
    for (uint32_t i = 0; i < REGISTRATIONS_ASKED; i++) {
        if (memchr(allowed, (int)i, sizeof allowed) != NULL)
            continue;
        long result = syscall(SYS_io_uring_register, ring->ring_fd, i, NULL, 0);
        bool is_known = i < IORING_REGISTER_LAST;
        cr_assert_eq(result, -1, "registration %u", i);
        cr_assert(errno == EACCES || (!is_known && errno == EINVAL), "registration %u: %s", i,
                  strerror(errno));
    }
    world_close(world);
}

Test(io_restrict, the_ring_has_the_flags_that_make_it_fast)
{
    struct world *world = world_open(NULL);
    struct io_uring *ring = idle_ring(world);
    uint32_t wanted = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                      IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL;
    cr_assert_eq(ring->flags & wanted, wanted);
    cr_assert(ring->enter_ring_fd != ring->ring_fd, "and is registered with its thread");
    world_close(world);
}
