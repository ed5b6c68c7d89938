/* The real world's inside: what the io_uring*.c files share, and the only place that includes
 * liburing.
 *
 * An operation's way (the state is its `state`):
 *
 *     IDLE -> KERNEL                      an entry of the submission queue was filled; completions
 * are to come IDLE -> BACKLOG -> KERNEL           there was no entry left; a later pass fills one
 *     KERNEL -> KERNEL                    what is hidden from above goes on: the rest of a short
 * send, a next stage KERNEL -> STARVED -> KERNEL         a receive found no leased buffer and waits
 * until some are back KERNEL -> REARM -> KERNEL           the kernel ended a multishot that has not
 * ended for the caller IDLE -> TIMER                       timers live in a heap of ours BACKLOG,
 * STARVED, REARM, TIMER, IDLE -> READY    the result is known without the kernel; the pass hands it
 * out KERNEL, READY, TIMER -> IDLE        the last completion, just before it runs
 *
 * The kernel gets the operation's address as user_data. A completion cannot be mistaken for one of
 * an earlier use, since nobody may submit an operation again before its last completion. */
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

enum op_flags {
    OP_CANCELLED = 1, /* io_cancel was asked: nothing is submitted again */
    OP_DSYNC = 2,
};

/* What user_data says when it is not an operation's address. */
enum ring_tag {
    RING_TAG_NONE = 0,
    RING_TAG_WAKE = 1,
    RING_TAG_INSTALL = 2,
    RING_TAG_MAX = 15,
};

/* Who is to end whose sleep. Only a sleeping world costs its waker a system call. */
enum wake_state {
    WAKE_AWAKE,
    WAKE_ASLEEP,
    WAKE_ASKED, /* the next sleep does not take place */
};

struct io_file {
    int fd; /* -1: the slot is free or its file is being opened */
    bool wants_direct;
    bool is_direct;
    bool is_directory;
    bool is_locked;
};

/* The heap of timers: io_uring_timer.c. */
struct timers {
    struct io_op *root;
    uint64_t sequence;
};

/* Whether spinning pays: io_uring_wait.c. */
struct spin {
    uint64_t limit_ns;
    bool is_armed;
    uint32_t near_count;  /* sleeps in a row that a spin would have spared */
    uint32_t near_needed; /* that many arm the spin */
    uint32_t hit_count;   /* spins in a row that found work */
    /* the same for spins while reads of the disk are under way, which are always armed */
    uint32_t rest;      /* so many of the next sleeps are not put off by one */
    uint32_t rest_next; /* the same, once one is preempted */
    uint32_t reading_hit_count;
};

struct io {
    struct io_uring ring;
    uint64_t now_ns;
    uint64_t wall_ms;
    uint64_t wall_read_ns; /* when the wall clock was last read */
    uint32_t kernel_count; /* entries handed to the ring whose last completion is to come */
    uint32_t ran_count;    /* completions of this pass */
    uint32_t read_count;   /* of them, reads of files */
    uint32_t worker_count; /* of them, those that workers finish */
    bool is_running;       /* within io_run: completions may submit, but not run a pass */
    bool is_closing;       /* completions are no longer called, nothing is submitted */

    struct list backlog; /* operations without an entry, in order of submission */
    struct list cancels; /* operations in the kernel whose cancel found no entry */
    struct list starved; /* receives without a leased buffer */
    struct list ready;   /* operations whose result is known */
    struct timers timers;
    struct spin spin;
    struct io_counts counts;

    struct io_uring_buf_ring *buffer_ring;
    uint8_t *buffer_memory;
    uint32_t buffer_size;
    uint32_t buffer_count;
    int buffers_unpublished; /* given back, not yet shown to the kernel */
    bool receive_multishot;

    uint32_t sockets_max; /* the registered table: sockets first, then files */
    uint32_t files_max;
    struct io_file *files;
    uint32_t *files_free; /* a stack of free slots */
    uint32_t files_free_count;
    uint32_t files_opening; /* opens in the kernel: each will want a slot */
    bool has_ftruncate;

    uint8_t *region;
    size_t region_size;
    bool region_registered;

    int wake_fd;
    bool wake_is_armed;
    uint64_t wake_value;
    alignas(64) _Atomic uint32_t wake_state; /* a line of its own: other threads write it */
};

/* ---- io_uring.c: the ring and the loop ---- */

/* Takes an idle operation; fails an assertion when it is active. */
static inline void op_begin(struct io_op *op, enum op_kind kind)
{
    assert(op->state == OP_IDLE);
    op->kind = (uint8_t)kind;
    op->flags = 0;
    op->spare = 0;
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

/* The result is known: a later pass completes the operation. */
void ring_ready(struct io *io, struct io_op *op, int32_t result);

/* The last completion. The operation is its caller's again: do not touch it afterwards. */
void ring_complete(struct io *io, struct io_op *op, int32_t result);

/* A completion of a multishot operation that goes on. */
void ring_deliver(struct io *io, struct io_op *op, int32_t result);

/* An entry of the submission queue, or NULL when not even submitting made room. */
struct io_uring_sqe *ring_entry(struct io *io);

/* Runs the completions that are there. */
void ring_reap(struct io *io);

/* Arms the read that io_wake ends. Errors: -EAGAIN: no entry. */
int ring_arm_wake(struct io *io);

void ring_read_clocks(struct io *io);

/* ---- io_uring_wait.c: one enter a pass, spinning and sleeping ---- */

void wait_init(struct io *io, uint64_t busy_poll_ns);

/* Submits and waits at most `wait_ns` for a completion. Errors: io_uring_enter(2)'s. */
int wait_for_work(struct io *io, uint64_t wait_ns);

/* ---- io_uring_timer.c ---- */

void timers_remove(struct timers *timers, struct io_op *op);

/* The earliest deadline, or UINT64_MAX. */
uint64_t timers_next_ns(const struct timers *timers);

/* Completes what is due. */
void timers_run(struct io *io);

/* ---- io_uring_socket.c, io_uring_file.c: how each kind is submitted and what its completion means
 * ---- */

struct kind {
    bool is_read;      /* of a file: the device is sure to answer soon */
    bool uses_workers; /* the kernel finishes it in another thread, which wants this core */
    void (*prepare)(struct io *io, struct io_op *op, struct io_uring_sqe *sqe);
    void (*finish)(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags);
};

extern const struct kind kind_accept, kind_receive, kind_receive_into, kind_send, kind_shutdown,
    kind_close_socket;
extern const struct kind kind_open, kind_close_file, kind_read, kind_write, kind_sync,
    kind_allocate, kind_truncate, kind_rename, kind_unlink;

/* Completes with what the kernel said, except -EINTR and -EAGAIN: those try again. */
void finish_plain(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags);

/* True when the result says "try again" and the operation was submitted again. */
bool retry_transient(struct io *io, struct io_op *op, int32_t result);

/* Closes the files that are still open. */
void files_close(struct io *io);

/* The leased receive buffers. Errors: -ENOMEM, io_uring_register(2)'s. */
int buffers_open(struct io *io, uint32_t size, uint32_t count);
void buffers_close(struct io *io);

/* Shows buffer `id`, which holds a completion that did not run yet, to op->hint. */
void buffers_hint(const struct io *io, const struct io_op *op, uint32_t id, uint32_t size,
                  bool is_next);

/* Shows the kernel the buffers that were given back, and arms starved receives. */
void buffers_publish(struct io *io);

/* ---- io_uring_explain.c: what is in the way, in words ---- */

/* Says why io_uring_setup failed with `error` (-errno). Returns what io_open returns. */
int explain_setup(int error, char *ret_error);

/* Names the operations that this kernel lacks. Returns 0 when there is none, or -EOPNOTSUPP. */
int explain_probe(const struct io_uring_probe *probe, char *ret_error);

/* Says why a registration failed. Returns `error`. */
int explain_register(int error, const char *what, char *ret_error);

/* A table of `wanted` registered files does not fit. Returns -EMFILE. */
int explain_files(uint64_t wanted, uint64_t limit, char *ret_error);

/* Warnings: added to what `ret_error` holds. */
void warn_sockets(uint32_t wanted, uint32_t got, uint64_t limit, char *ret_error);
void warn_region(size_t size, int error, char *ret_error);

#endif
