/* io.h: everything that touches a socket, a disk, a clock or chance. One contract, two worlds.
 *
 * io_uring.c is the real world: one io_uring, one thread. io_sim.c is a whole simulated host with
 * virtual time. Which one a program gets is settled when it is linked; the code above cannot tell.
 *
 * The contract (tests/io/ asserts it against both):
 *
 * 1. An operation is a struct that its caller owns and embeds; the completion finds its owner with
 * container_of.
 * 2. Submitting never calls a completion: completions run from io_run only. A one-shot operation
 * has exactly one completion; a multishot one (accept, receive) has many, and io_op_is_active
 * tells, within the completion, whether more will come. A completion may submit operations, its own
 * operation too once that is no longer active.
 * 3. From submission to the last completion the operation and its buffer belong to the world.
 * Nothing reuses, frees or changes them.
 * 4. Received bytes are lent to the completion and to nobody after it returns.
 * 5. A socket or file is closed only when none of its operations is active; the close is itself an
 * operation.
 * 6. A write with IO_WRITE_DSYNC that completed with all its bytes is on stable media. Any other
 * write is so only after an io_sync that was submitted after its completion. Creating, renaming and
 * unlinking are so only after an io_sync of the directory.
 * 7. Results are a count of bytes, a handle or 0; errors are -errno. A read or write of a file may
 * be short only at the end of the file or when the device failed; a send is not short unless the
 * connection broke.
 *
 * Every function is called on the thread that opened the world, except io_wake. */
#ifndef MINIVAULT_IO_IO_H
#define MINIVAULT_IO_IO_H

#include "base/heap.h"
#include "base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct io;
struct io_op;

typedef void io_done(struct io_op *op, int32_t result);

/* A world that already knows of later completions may show a receive's bytes ahead, so that its
 * owner can begin to load what it will look at: once from a little way off, once when it `is_next`.
 * Nothing may be changed or submitted. */
typedef void io_hint(const struct io_op *op, const uint8_t *data, uint32_t size, bool is_next);

/* All zero bytes before its first use. The fields are the world's, apart from `done`, which the
 * caller sets before it submits, and those that a comment gives to the caller. */
struct io_op {
    io_done *done;       /* may be NULL for an operation that io_wait waits for */
    io_hint *hint;       /* receive: the caller's too; NULL: none */
    const uint8_t *data; /* receive: the bytes, within the completion only */
    int32_t result;      /* the last completion's, valid until the next submission */
    int32_t handle;
    uint8_t kind;
    uint8_t state;
    uint8_t flags;
    uint8_t spare;
    uint32_t size;
    uint64_t offset;
    union {
        struct heap_node timer; /* in the real world's heap of timers */
        struct {
            uint64_t time[2];
            void *buffer;
            struct list_node node;
        };
    };
};

/* Whether a completion is still to come. In both worlds the state 0 is the idle one. */
static inline bool io_op_is_active(const struct io_op *op)
{
    return op->state != 0;
}

/* ---- the world ---- */

struct io_options {
    uint32_t sockets_max;          /* connections and listeners open at once */
    uint32_t files_max;            /* files and directories open at once */
    uint32_t receive_buffer_size;  /* bytes of one leased buffer: a power of two */
    uint32_t receive_buffer_count; /* a power of two, at most 32768 */
    size_t region_size; /* disk buffers, registered: a multiple of 4096, at most 1 GiB; 0: none */
    uint64_t busy_poll_ns; /* how long to spin before sleeping, while work keeps coming; 0: never */
    bool receive_single;   /* tests: use the fall-back to single receives */
};

#define IO_ERROR_SIZE 512

/* Opens this thread's world. On failure `ret_error` (IO_ERROR_SIZE bytes) says which setting or
 * limit is in the way and what to do about it; on success it holds a warning (what was not granted
 * and what that costs) or "". Errors: -EPERM (io_uring refused: kernel.io_uring_disabled, seccomp),
 * -ENOSYS, -ENOMEM (RLIMIT_MEMLOCK), -EMFILE (RLIMIT_NOFILE), -EOPNOTSUPP (the kernel is too old).
 * io_sim.c has its own way to open a world: io_sim.h. */
int io_open(const struct io_options *options, struct io **ret_io, char *ret_error);

/* Closes the world: cancels what is active, waits for it without calling completions, frees
 * everything. Operations and buffers are the world's until it returns. Never within a completion.
 */
void io_close(struct io *io);

/* The disk buffers: `region_size` bytes, aligned to 4096, owned by the world. Reads and writes
 * whose buffer lies within it are faster (registered). NULL when region_size was 0. */
uint8_t *io_region(struct io *io);

/* How many sockets this world really got (RLIMIT_NOFILE may grant fewer than asked). */
uint32_t io_sockets_max(const struct io *io);

/* Of the world's loop, since it was opened. */
struct io_counts {
    uint64_t passes;
    uint64_t overflows; /* passes that found completions beyond what the ring holds */
    uint64_t starved;   /* receives that found no leased buffer */
};
void io_counts(const struct io *io, struct io_counts *ret_counts);

/* One pass: hands over what was submitted, waits until something completes, at most `wait_ns_max`
 * (0: only looks; UINT64_MAX: as long as it takes; an io_wake ends it too), then runs the
 * completions that are there. Returns how many ran. Never within a completion. Errors: -errno, when
 * the ring itself failed: the process cannot go on. */
int io_run(struct io *io, uint64_t wait_ns_max);

/* Runs passes until `op` has completed and returns its result. For start-up and shutdown, never
 * within a completion. Other completions run meanwhile. Errors: the operation's own, io_run's. */
int32_t io_wait(struct io *io, struct io_op *op);

/* Ends the sleep of `target`'s io_run, from any thread (also from a signal handler). When it does
 * not sleep just now, its next sleep does not take place: what was posted before the wake is never
 * slept over. */
void io_wake(struct io *target);

/* Monotonic nanoseconds, read once a pass: within a pass the time stands still. */
uint64_t io_now_ns(const struct io *io);

/* The same clock as it is now: for what is to be measured within a pass. */
uint64_t io_clock_ns(const struct io *io);

/* Milliseconds since 1970, read once a pass. May jump, also back. */
uint64_t io_wall_ms(const struct io *io);

/* Unpredictable bytes (in the simulator: seeded). */
void io_random(struct io *io, void *buffer, size_t size);

/* ---- sockets: a handle is >= 0 ---- */

/* Who else may listen on a port. Several worlds may share it: each has its own listener, and the
 * kernel says to which of them a connection goes; the simulator chooses by chance. */
enum io_sharing {
    IO_SHARE_NOT,
    IO_SHARE_FIRST, /* takes the port, only when nobody else listens there; others may join */
    IO_SHARE_JOIN,  /* joins the first, of the same user; the port is not 0 */
};

struct io_listener {
    int handle;
    int descriptor; /* of a shared port: the same socket in the process's own table, which is the
                       caller's to close; else, and in the simulator, -1 */
    uint16_t port;
};

/* Listens on `host` (numeric, or NULL: all addresses, IPv6 and IPv4) and `port` (0: any; the
 * listener's says which). TCP_NODELAY and keepalive are set for what is accepted, and a bound of
 * what the kernel takes of a send before the peer has room for it. Immediate, not an operation. The
 * descriptor is for what io.h does not do: steering (net/steer.h). The socket listens until both it
 * and the handle are closed. Returns 0. Errors: -EADDRINUSE, -EACCES, -EADDRNOTAVAIL, -EINVAL (not
 * an address), -ENFILE (no socket left), -EMFILE. */
int io_listen(struct io *io, const char *host, uint16_t port, int backlog, enum io_sharing sharing,
              struct io_listener *ret_listener);

/* Multishot. Each completion: a connection's handle. Errors: -ECANCELED, -ENFILE (no socket left),
 * others of accept(2); after an error it may have ended (io_op_is_active): submit it again. */
void io_accept(struct io *io, struct io_op *op, int listener);

/* Multishot. Each completion: the count of bytes at op->data, lent until it returns; 0 at the end
 * of the stream (the last completion). Errors: -ECANCELED, -ECONNRESET, ... (the last completion).
 * Running out of leased buffers is not seen above: the world re-arms by itself. */
void io_receive(struct io *io, struct io_op *op, int socket);

/* One-shot, into the caller's own buffer: at most `size` bytes, at least one; 0 at the end of the
 * stream. */
void io_receive_into(struct io *io, struct io_op *op, int socket, void *buffer, uint32_t size);

#define IO_SLICES_MAX 8

/* A gathered send. The caller fills slices[0..count), at least one byte in all; the world may
 * change them meanwhile. At most one send of a socket is active at a time (asserted by the
 * simulator). Completes with the sum of all sizes. Errors: -EPIPE, -ECONNRESET, -ECANCELED, ... */
struct io_send {
    struct io_op op;
    struct iovec slices[IO_SLICES_MAX];
    uint64_t message[8]; /* the world's: a struct msghdr */
};

void io_send(struct io *io, struct io_send *send, int socket, uint32_t count);

/* Sends FIN; what arrives can still be received. */
void io_shutdown(struct io *io, struct io_op *op, int socket);

/* The handle is free for reuse when this completes. For connections and listeners. */
void io_close_socket(struct io *io, struct io_op *op, int socket);

/* Asks that `op` end soon; its completion then carries -ECANCELED or whatever it was about to say
 * (a multishot receive may first complete with bytes that had already arrived). Nothing happens
 * when it is not active. A close and a truncate go on to their end. */
void io_cancel(struct io *io, struct io_op *op);

/* ---- time ---- */

/* Completes with 0 at `deadline_ns` of io_now_ns' clock, or soon after. Errors: -ECANCELED. */
void io_timer(struct io *io, struct io_op *op, uint64_t deadline_ns);

/* ---- files: a handle is >= 0; paths are relative to the process's directory, or absolute ---- */

enum io_open_flags {
    IO_OPEN_READ = 0,      /* read-only */
    IO_OPEN_WRITE = 1,     /* read and write */
    IO_OPEN_CREATE = 2,    /* with IO_OPEN_WRITE: create when absent */
    IO_OPEN_EXCLUSIVE = 4, /* with IO_OPEN_CREATE: -EEXIST when present */
    IO_OPEN_DIRECT =
        8, /* O_DIRECT: buffers, sizes and offsets are multiples of 4096. Where the file system has
              no O_DIRECT it is opened without (io_file_is_direct tells) */
    IO_OPEN_DIRECTORY = 16, /* for io_sync only */
};

/* Completes with the handle. Errors: open(2)'s, -ENFILE (files_max are open). `path` belongs to the
 * world until then.
 */
void io_open_file(struct io *io, struct io_op *op, const char *path, uint32_t flags);
void io_close_file(struct io *io, struct io_op *op, int file);

/* `size` is 1 to INT32_MAX. Complete with the count of bytes. Errors: -EIO, -ENOSPC, ... */
void io_read(struct io *io, struct io_op *op, int file, void *buffer, uint32_t size,
             uint64_t offset);

enum io_write_flags { IO_WRITE_PLAIN = 0, IO_WRITE_DSYNC = 1 };
void io_write(struct io *io, struct io_op *op, int file, const void *buffer, uint32_t size,
              uint64_t offset, uint32_t flags);

/* fdatasync of a file, fsync of a directory. Covers the writes that completed before it was
 * submitted. */
void io_sync(struct io *io, struct io_op *op, int file);

/* Reserves blocks for [0, size) and sets the file's size. The content is zeros (unwritten extents:
 * write zeros over them before the hot path overwrites them). Errors: -ENOSPC, -EOPNOTSUPP. */
void io_allocate(struct io *io, struct io_op *op, int file, uint64_t size);

/* Cuts a file, given by its path, to `size` bytes. These three: the paths belong to the world until
 * the completion. */
void io_truncate(struct io *io, struct io_op *op, const char *path, uint64_t size);
void io_rename(struct io *io, struct io_op *op, const char *from, const char *to);
void io_unlink(struct io *io, struct io_op *op, const char *path);

/* Immediate, for start-up: they block. */

/* Creates a directory; 0 when it is already there. Not durable until its parent is synced. */
int io_make_directory(struct io *io, const char *path);

/* Removes an empty directory. Durable once its parent is synced. Errors: -ENOTEMPTY, -ENOENT,
 * -ENOTDIR, ... */
int io_remove_directory(struct io *io, const char *path);

/* Calls `each` for every entry but "." and ".."; stops with what `each` returns when that is not 0.
 */
typedef int io_list_each(void *context, const char *name);
int io_list_directory(struct io *io, const char *path, io_list_each *each, void *context);

/* Returns the size in bytes. */
int64_t io_file_size(struct io *io, int file);
bool io_file_is_direct(struct io *io, int file);

/* Which file or directory has the name `path` now. Immediate; the name is looked up, nothing is read.
 * Errors: stat(2)'s: -ENOENT, -ENOTDIR, -EACCES, ... */
struct io_file_identity {
    uint64_t device, inode;
};
int io_identify(struct io *io, const char *path, struct io_file_identity *ret_identity);

/* Bytes of the file system that holds `path`: free for us, and all of it. */
int io_disk_space(struct io *io, const char *path, uint64_t *ret_free, uint64_t *ret_total);

/* How many files may still be made on the file system that holds `path`; UINT64_MAX: it does not
 * say. */
uint64_t io_inodes_free(struct io *io, const char *path);

/* How large a file this process may make (RLIMIT_FSIZE); a write or an allocation beyond it fails
 * with -EFBIG, once SIGXFSZ is ignored. UINT64_MAX: there is no limit. */
uint64_t io_file_size_max(struct io *io);

/* What kind of file system holds `path`: "ext4", "ext4 with data=journal", "xfs", "btrfs", "tmpfs",
 * ... or "other". */
const char *io_file_system(struct io *io, const char *path);

/* An exclusive lock on an open file (flock), held until the file is closed and none of its
 * operations is active. Errors: -EWOULDBLOCK: somebody else holds it. */
int io_lock_file(struct io *io, int file);

#endif
