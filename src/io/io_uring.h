/* The real world's inside: what the io_uring*.c files share, and the only place that includes
 * liburing.
 *
 *     io_uring.c          the world: its kinds of operations, opening and closing
 *     io_uring_socket.c   the kinds, which submit to the ring and complete through it: accept,
 *     io_uring_file.c       receive, send, close; open, read, write, sync, and the disk buffers;
 *     io_uring_path.c       truncate, rename, unlink
 *     io_uring_ring.c     the ring and the loop: it calls the kinds through their table only
 *     io_uring_buffers.c  the leased receive buffers         (these two know neither a world
 *     io_uring_wait.c     spinning, sleeping, being woken    nor an operation's kind)
 *     io_uring_setup.c    what is asked of a new ring, and what is in the way, in words
 *
 * An operation's way (its `state`):
 *
 *     IDLE -> KERNEL               an entry of the submission queue was filled; completions come
 *     IDLE -> BACKLOG -> KERNEL    no entry was left; a later pass fills one
 *     KERNEL -> KERNEL             what is hidden from above goes on: the rest of a short send
 *     KERNEL -> STARVED -> KERNEL  a receive found no leased buffer and waits until some are back
 *     KERNEL -> REARM -> KERNEL    the kernel ended a multishot that goes on for the caller
 *     IDLE -> TIMER                timers live in a heap of the world's
 *     BACKLOG, STARVED, REARM, TIMER, IDLE -> READY
 *                                  the result is known without the kernel; the pass hands it out
 *     KERNEL, READY, TIMER -> IDLE the last completion, just before it runs
 *
 * The kernel gets the operation's address as user_data. A completion cannot be mistaken for one of
 * an earlier use, since nobody may submit an operation again before its last completion.
 *
 * Invariants (asserts cite the number; "rule" is one of io.h's contract):
 *
 *  1. An operation's node is linked in BACKLOG, STARVED and READY; in KERNEL while its cancel finds
 *     no entry; else never.
 *  2. kernel_count is the number of entries whose last completion is to come; under_way_count
 *     counts those of operations, by what the kernel does for them.
 *  3. Completions run within io_run's pass, never while the world closes.
 *  4. A slot of the table of files is on the stack of free ones, being opened for, or has a
 *     descriptor. */
#ifndef MINIVAULT_IO_IO_URING_H
#define MINIVAULT_IO_IO_URING_H

#include "base/assert.h"
#include "base/list.h"
#include "base/units.h"
#include "io/io.h"

#include <liburing.h>
#include <stdalign.h>
#include <stdatomic.h>

enum op_kind {
    KIND_NONE,
    KIND_ACCEPT,
    KIND_RECEIVE,
    KIND_RECEIVE_INTO,
    KIND_SEND,
    KIND_SHUTDOWN,
    KIND_CLOSE_SOCKET,
    KIND_TIMER,
    KIND_OPEN,
    KIND_CLOSE_FILE,
    KIND_READ,
    KIND_WRITE,
    KIND_SYNC,
    KIND_ALLOCATE,
    KIND_TRUNCATE,
    KIND_RENAME,
    KIND_UNLINK,
    KIND_COUNT,
};

enum op_state {
    OP_IDLE,
    OP_KERNEL,
    OP_BACKLOG,
    OP_STARVED,
    OP_REARM,
    OP_READY,
    OP_TIMER,
};

static_assert(OP_IDLE == 0, "io_op_is_active");

enum op_flags {
    OP_CANCELLED = 1, /* io_cancel was asked: nothing is submitted again */
};

/* What user_data says when it is not an operation's address. */
enum ring_tag {
    RING_TAG_NONE = 0,
    RING_TAG_WAKE = 1,
    RING_TAG_INSTALL = 2,
    RING_TAG_MAX = 15,
};

/* ---- io_uring_setup.c: what is asked of a new ring, in this order; what is in the way ---- */

/* Creates a disabled ring and looks at what the kernel can do. On failure there is none. Errors:
 * io_open's. */
int setup_ring(struct io_uring *ring, bool *ret_has_ftruncate, char *ret_error);

/* Registers the table: sockets first, then `files_max` files. *ret_sockets_max: how many of the
 * former the limit allows. Errors: -EMFILE, io_uring_register(2)'s. */
int setup_table(struct io_uring *ring, const struct io_options *options, uint32_t *ret_sockets_max,
                char *ret_error);

/* Restricts the ring to what this module uses, then enables it. */
int setup_enable(struct io_uring *ring, bool has_ftruncate, char *ret_error);

/* Names the operations that this kernel lacks. Returns 0 when there is none, or -EOPNOTSUPP. */
int explain_probe(const struct io_uring_probe *probe, char *ret_error);

/* Says in words why a registration failed. Returns `error`. */
int explain_register(int error, const char *what, char *ret_error);

/* A warning: added to what `ret_error` holds. */
void warn_region(size_t size, int error, char *ret_error);

/* ---- io_uring_buffers.c: buffers that the kernel receives into and a completion borrows ---- */

struct buffers {
    struct io_uring_buf_ring *ring;
    uint8_t *memory;
    uint32_t size; /* of one */
    uint32_t count;
    int unpublished; /* given back, not yet shown to the kernel */
    bool is_multishot;
};

/* Errors: -ENOMEM, io_uring_register(2)'s. */
int buffers_open(struct buffers *buffers, struct io_uring *ring, const struct io_options *options);
void buffers_close(struct buffers *buffers, struct io_uring *ring);

/* Fills an entry with a receive into whichever buffer is free then. */
void buffers_prepare(const struct buffers *buffers, struct io_uring_sqe *sqe, int socket);

/* The bytes that a completion (its flags) brought: readable until buffers_put. */
const uint8_t *buffers_lend(const struct buffers *buffers, uint32_t cqe_flags, uint32_t size);

/* Takes the completion's buffer back. The kernel sees it at the next buffers_publish. */
void buffers_put(struct buffers *buffers, uint32_t cqe_flags);

/* Shows the buffer of a completion that did not run yet to op->hint. */
void buffers_hint(const struct buffers *buffers, const struct io_op *op,
                  const struct io_uring_cqe *cqe, bool is_next);

/* Shows the kernel what was given back. Returns how many buffers there are in all. */
uint32_t buffers_publish(struct buffers *buffers);

/* ---- io_uring_wait.c: one enter a pass, spinning and sleeping ---- */

/* Whether spinning pays. */
struct spin {
    uint64_t limit_ns;
    bool is_armed;
    uint32_t near_count;  /* sleeps in a row that a spin would have spared */
    uint32_t near_needed; /* that many arm the spin */
    uint32_t hit_count;   /* spins in a row that found work */
    /* the same for spins while reads of the disk are under way, which are always armed */
    uint32_t rest;      /* this many of the next sleeps are not put off by one */
    uint32_t rest_next; /* the same, once one is preempted */
    uint32_t reading_hit_count;
};

struct waiter {
    struct spin spin;
    uint64_t passes;
    uint64_t overflows;
    alignas(64) _Atomic uint32_t wake_state; /* a line of its own: other threads write it */
};

/* What the kernel is doing for us: the last of these that holds. */
enum under_way {
    UNDER_WAY_PLAIN,
    UNDER_WAY_READS,   /* of files */
    UNDER_WAY_WORKERS, /* what it finishes in threads of its own */
};

void waiter_init(struct waiter *waiter, uint64_t busy_poll_ns);

/* Submits and waits at most `wait_ns` for a completion. Errors: io_uring_enter(2)'s. */
int waiter_wait(struct waiter *waiter, struct io_uring *ring, enum under_way under_way,
                uint64_t wait_ns);

/* Asks for the end of the sleep, from any thread. True: it sleeps, and its waker has to end that.
 */
bool waiter_ask(struct waiter *waiter);

/* The counts that are the waiter's. */
void waiter_counts(const struct waiter *waiter, struct io_counts *ret_counts);

uint64_t monotonic_ns(void);

/* ---- io_uring_ring.c: the ring and the loop; the only file that knows struct io ---- */

/* Fills an entry of the submission queue. */
typedef void op_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe);

/* A completion of the kernel's has come. */
typedef void op_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags);

/* How a kind is submitted, and what its completion means. */
struct kind {
    uint8_t opcode;      /* prepare_plain's; of the others it is the first */
    uint8_t entry_flags; /* IOSQE_* */
    enum under_way under_way;
    op_prepare *prepare;
    op_finish *finish;
};

struct files;

/* A world with a disabled ring, without files. `kinds`: by enum op_kind. Errors: io_open's. */
int ring_create(const struct io_options *options, const struct kind *kinds, struct io **ret_io,
                char *ret_error);

/* Enables it. Errors: io_uring_register(2)'s. */
int ring_enable(struct io *io, char *ret_error);

/* The way down. Nothing of ours may be in the kernel's hands when its memory goes: cancels all,
 * and waits for the last completions without running them. */
void ring_drain(struct io *io);
void ring_destroy(struct io *io);

/* Takes an idle operation; fails an assertion when it is active. */
static inline void op_begin(struct io_op *op, enum op_kind kind, int handle)
{
    assert(op->state == OP_IDLE); /* rule 3 */
    op->kind = (uint8_t)kind;
    op->handle = handle;
    op->flags = 0;
    op->spare = 0;
    op->size = 0;
    op->buffer = NULL;
    op->offset = 0;
    op->data = NULL;
    op->result = 0;
    op->time[0] = 0;
    op->time[1] = 0;
}

/* Hands the operation to the kernel, as its kind prepares it, now or in a later pass. */
void ring_submit(struct io *io, struct io_op *op);

/* Submits again what the caller believes to be still active. A cancelled one gets -ECANCELED
 * instead. */
void ring_resubmit(struct io *io, struct io_op *op);

/* A receive found no leased buffer: a later pass submits it again. */
void ring_starve(struct io *io, struct io_op *op);

/* The result is known: a later pass completes the operation. */
void ring_ready(struct io *io, struct io_op *op, int32_t result);

/* The last completion. The operation is its caller's again: do not touch it afterwards. */
void ring_complete(struct io *io, struct io_op *op, int32_t result);

/* A completion of a multishot operation that goes on. */
void ring_deliver(struct io *io, struct io_op *op, int32_t result);

/* Its kind's opcode, with the operation's handle, buffer, size and offset; time[1]: the flags. */
op_prepare prepare_plain;

/* Completes with what the kernel said, except -EINTR and -EAGAIN: those try again. */
op_finish finish_plain;

/* True when the operation failed: then it was submitted again, or it is completed. */
bool finish_failed(struct io *io, struct io_op *op, int32_t result);

/* True when the result says "try again" and the operation was submitted again. */
bool retry_transient(struct io *io, struct io_op *op, int32_t result);

/* An entry of the submission queue, or NULL when not even submitting made room. */
struct io_uring_sqe *ring_entry(struct io *io);

/* What belongs to the world and is used by its kinds. */
struct io_uring *ring_of(struct io *io);
struct buffers *ring_buffers(struct io *io);
struct files *ring_files(struct io *io);
void ring_set_files(struct io *io, struct files *files);
bool ring_is_closing(const struct io *io);
bool ring_has_ftruncate(const struct io *io);

/* ---- io_uring_socket.c, io_uring_file.c, io_uring_path.c: the kinds ---- */

op_prepare accept_prepare, receive_prepare, send_prepare, close_socket_prepare;
op_finish accept_finish, receive_finish, send_finish;
op_prepare open_prepare, close_file_prepare, transfer_prepare, truncate_prepare;
op_finish open_finish, close_file_finish, transfer_finish, truncate_finish;

/* The open files and the region of disk buffers: between ring_create and ring_enable. `ret_error`
 * may get a warning. Errors: -ENOMEM. */
int files_open(struct io *io, const struct io_options *options, char *ret_error);

/* Closes the files that are still open, frees the region. After ring_drain. */
void files_close(struct io *io);

#endif
