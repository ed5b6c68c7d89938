/* Files: opened in the process's table (for flock and fstat), used through the ring's registered
 * one; and the region of disk buffers, which is registered too.
 *
 * A handle is the index in the registered table: files follow the sockets. Reads and writes hide
 * what the kernel cuts short; see transfer_finish. */
#include "io/io_uring.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything that we store is ours alone. */
#define FILE_MODE 0600

struct io_file {
    int fd; /* -1: the slot is free or its file is being opened */
    bool wants_direct;
    bool is_direct;
    bool is_directory;
};

struct files {
    struct io_file *slots;
    uint32_t *free; /* a stack of free slots: invariant 4 */
    uint32_t free_count;
    uint32_t opening; /* opens in the kernel: each will want a slot */
    uint32_t max;
    uint32_t first; /* the first file's handle */
    uint8_t *region;
    size_t region_size;
    bool region_registered;
};

static uint32_t slot_of(const struct files *files, int file)
{
    assert(file >= 0 && (uint32_t)file >= files->first);
    uint32_t slot = (uint32_t)file - files->first;
    assert(slot < files->max);
    return slot;
}

static struct io_file *file_of(struct io *io, int file)
{
    struct files *files = ring_files(io);
    struct io_file *found = &files->slots[slot_of(files, file)];
    assert(found->fd >= 0); /* rule 5 */
    return found;
}

/* ---- the region of disk buffers ---- */

static int region_open(struct files *files, struct io_uring *ring, size_t size, char *ret_error)
{
    assert(size % DISK_BLOCK_SIZE == 0 && size <= GIB);
    if (size == 0)
        return 0;
    /* Huge pages are fewer to pin and to look up. */
    files->region = size < MEMORY_HUGE_PAGE_SIZE ? memory_map(size) : memory_map_huge(size);
    if (files->region == NULL)
        return explain_register(-ENOMEM, "the disk buffers", ret_error);
    files->region_size = size;
    struct iovec whole = {.iov_base = files->region, .iov_len = size};
    int error = io_uring_register_buffers(ring, &whole, 1);
    files->region_registered = error == 0;
    if (error < 0)
        warn_region(size, error, ret_error);
    return 0;
}

static void region_close(struct files *files, struct io_uring *ring)
{
    if (files->region == NULL)
        return;
    if (files->region_registered)
        (void)io_uring_unregister_buffers(ring);
    memory_unmap(files->region, files->region_size);
}

uint8_t *io_region(struct io *io)
{
    return ring_files(io)->region;
}

/* ---- the table ---- */

static void files_free(struct files *files)
{
    free(files->slots);
    free(files->free);
    free(files);
}

static struct files *files_allocate(uint32_t max)
{
    struct files *files = calloc(1, sizeof *files);
    if (files == NULL)
        return NULL;
    files->max = max;
    files->slots = calloc(max, sizeof files->slots[0]);
    files->free = calloc(max, sizeof files->free[0]);
    if ((files->slots == NULL || files->free == NULL) && max > 0) {
        files_free(files);
        return NULL;
    }
    for (uint32_t slot = 0; slot < max; slot++) {
        files->slots[slot].fd = -1;
        files->free[slot] = max - 1 - slot; /* slot 0 is taken first */
    }
    files->free_count = max;
    return files;
}

int files_open(struct io *io, const struct io_options *options, char *ret_error)
{
    struct files *files = files_allocate(options->files_max);
    if (files == NULL)
        return explain_register(-ENOMEM, "the table of files", ret_error);
    files->first = io_sockets_max(io);
    int error = region_open(files, ring_of(io), options->region_size, ret_error);
    if (error < 0) {
        files_free(files);
        return error;
    }
    ring_set_files(io, files);
    return 0;
}

void files_close(struct io *io)
{
    struct files *files = ring_files(io);
    for (uint32_t slot = 0; slot < files->max; slot++)
        if (files->slots[slot].fd >= 0)
            (void)close(files->slots[slot].fd);
    region_close(files, ring_of(io));
    files_free(files);
}

/* ---- open: `size` holds the flags ---- */

static int open_flags(uint32_t flags)
{
    int result = O_CLOEXEC | ((flags & IO_OPEN_WRITE) != 0 ? O_RDWR : O_RDONLY);
    if ((flags & IO_OPEN_CREATE) != 0)
        result |= O_CREAT;
    if ((flags & IO_OPEN_EXCLUSIVE) != 0)
        result |= O_EXCL;
    if ((flags & IO_OPEN_DIRECT) != 0)
        result |= O_DIRECT;
    if ((flags & IO_OPEN_DIRECTORY) != 0)
        result |= O_DIRECTORY;
    return result;
}

void open_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    io_uring_prep_openat(sqe, AT_FDCWD, op->buffer, open_flags(op->size), FILE_MODE);
    ring_files(io)->opening++;
}

/* Returns the handle, or -errno; then `fd` is still the caller's. */
static int register_file(struct io *io, int fd, const struct io_file *file)
{
    struct files *files = ring_files(io);
    if (files->free_count == 0)
        return -ENFILE;
    uint32_t slot = files->free[files->free_count - 1];
    assert(files->slots[slot].fd < 0); /* invariant 4 */
    int count = io_uring_register_files_update(ring_of(io), files->first + slot, &fd, 1);
    if (count < 0)
        return count;
    files->free_count--;
    files->slots[slot] = *file;
    return (int)(files->first + slot);
}

/* time[0] remembers what was asked when O_DIRECT had to be given up. */
void open_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    assert(ring_files(io)->opening > 0); /* invariant 4 */
    ring_files(io)->opening--;
    if (result == -EINVAL && (op->size & IO_OPEN_DIRECT) != 0) {
        /* The file system has no O_DIRECT. It may have created the file before it said so: with
         * IO_OPEN_EXCLUSIVE a file that was there before would have been -EEXIST. */
        op->size &= ~(uint32_t)(IO_OPEN_DIRECT | IO_OPEN_EXCLUSIVE);
        ring_resubmit(io, op);
        return;
    }
    if (finish_failed(io, op, result))
        return;
    struct io_file file = {.fd = result,
                           .wants_direct = (op->time[0] & IO_OPEN_DIRECT) != 0,
                           .is_direct = (op->size & IO_OPEN_DIRECT) != 0,
                           .is_directory = (op->size & IO_OPEN_DIRECTORY) != 0};
    int handle = register_file(io, result, &file);
    if (handle < 0)
        (void)close(result);
    ring_complete(io, op, handle);
}

void io_open_file(struct io *io, struct io_op *op, const char *path, uint32_t flags)
{
    assert((flags & IO_OPEN_CREATE) == 0 || (flags & IO_OPEN_WRITE) != 0);
    assert((flags & IO_OPEN_EXCLUSIVE) == 0 || (flags & IO_OPEN_CREATE) != 0);
    op_begin(op, KIND_OPEN, -1);
    op->buffer = (void *)(uintptr_t)path;
    op->size = flags;
    op->time[0] = flags;
    if (ring_files(io)->free_count <= ring_files(io)->opening)
        ring_ready(io, op, -ENFILE);
    else
        ring_submit(io, op);
}

/* ---- close: first the registered slot, then the descriptor ---- */

enum close_stage { CLOSE_SLOT, CLOSE_DESCRIPTOR };

void close_file_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    if (op->size == CLOSE_SLOT) {
        io_uring_prep_close_direct(sqe, (unsigned)op->handle);
        return;
    }
    int fd = file_of(io, op->handle)->fd;
    /* The last reference may be dropped after the completion: a lock must not outlive it. */
    (void)flock(fd, LOCK_UN);
    io_uring_prep_close(sqe, fd);
    /* Closing an unlinked file frees its blocks, which takes long: not on this thread. */
    io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
}

void close_file_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    if (op->size == CLOSE_SLOT) {
        op->size = CLOSE_DESCRIPTOR;
        ring_resubmit(io, op);
        return;
    }
    if (result == -ECANCELED) {
        /* Only io_close cancels it, and closes the descriptor itself. */
        ring_complete(io, op, result);
        return;
    }
    struct files *files = ring_files(io);
    uint32_t slot = slot_of(files, op->handle);
    assert(files->free_count < files->max); /* invariant 4 */
    files->slots[slot].fd = -1;
    files->free[files->free_count++] = slot;
    ring_complete(io, op, result == -EINTR ? 0 : result);
}

static void begin(struct io *io, struct io_op *op, enum op_kind kind, int file)
{
    (void)file_of(io, file);
    op_begin(op, kind, file);
}

void io_close_file(struct io *io, struct io_op *op, int file)
{
    begin(io, op, KIND_CLOSE_FILE, file);
    op->size = CLOSE_SLOT;
    ring_submit(io, op);
}

/* ---- read and write: time[0] counts the bytes that are done, time[1] holds the flags ---- */

static bool is_in_region(const struct files *files, const void *buffer, uint32_t size)
{
    uintptr_t offset = (uintptr_t)buffer - (uintptr_t)files->region;
    return files->region_registered && offset < files->region_size &&
           size <= files->region_size - offset;
}

void transfer_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    static const uint8_t opcodes[2][2] = {{IORING_OP_READ, IORING_OP_READ_FIXED},
                                          {IORING_OP_WRITE, IORING_OP_WRITE_FIXED}};
    uint8_t *at = (uint8_t *)op->buffer + op->time[0];
    uint32_t left = op->size - (uint32_t)op->time[0];
    bool is_registered = is_in_region(ring_files(io), at, left);
    io_uring_prep_rw(opcodes[op->kind == KIND_WRITE][is_registered], sqe, op->handle, at, left,
                     op->offset + op->time[0]);
    sqe->rw_flags = (int)op->time[1];
}

/* After a short transfer: whether the file ends here, so that asking again is of no use (for
 * O_DIRECT not even allowed, since the rest is not aligned). */
static bool is_at_end(struct io *io, const struct io_op *op, int32_t result)
{
    return result == 0 ||
           (file_of(io, op->handle)->is_direct && op->time[0] % DISK_BLOCK_SIZE != 0);
}

void transfer_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    if (finish_failed(io, op, result))
        return;
    op->time[0] += (uint64_t)result;
    assert(op->time[0] <= op->size);
    if (op->time[0] == op->size)
        ring_complete(io, op, (int32_t)op->size);
    else if (is_at_end(io, op, result))
        /* A write has no end of the file to stop at: the device failed. */
        ring_complete(io, op, op->kind == KIND_READ ? (int32_t)op->time[0] : -EIO);
    else
        ring_resubmit(io, op);
}

static void transfer(struct io *io, struct io_op *op, enum op_kind kind, int file, void *buffer,
                     uint32_t size, uint64_t offset, uint32_t flags)
{
    assert(size > 0 && size <= INT32_MAX);
    if (file_of(io, file)->wants_direct)
        assert(((uintptr_t)buffer | size | offset) % DISK_BLOCK_SIZE == 0);
    op_begin(op, kind, file);
    op->buffer = buffer;
    op->size = size;
    op->offset = offset;
    op->time[1] = (flags & IO_WRITE_DSYNC) != 0 ? RWF_DSYNC : 0;
    ring_submit(io, op);
}

void io_read(struct io *io, struct io_op *op, int file, void *buffer, uint32_t size,
             uint64_t offset)
{
    transfer(io, op, KIND_READ, file, buffer, size, offset, IO_WRITE_PLAIN);
}

void io_write(struct io *io, struct io_op *op, int file, const void *buffer, uint32_t size,
              uint64_t offset, uint32_t flags)
{
    transfer(io, op, KIND_WRITE, file, (void *)(uintptr_t)buffer, size, offset, flags);
}

/* ---- sync and allocate ---- */

void io_sync(struct io *io, struct io_op *op, int file)
{
    begin(io, op, KIND_SYNC, file);
    op->time[1] = file_of(io, file)->is_directory ? 0 : IORING_FSYNC_DATASYNC;
    ring_submit(io, op);
}

/* fallocate has its size where others have their buffer. */
void io_allocate(struct io *io, struct io_op *op, int file, uint64_t size)
{
    assert(size > 0 && size <= INT64_MAX);
    begin(io, op, KIND_ALLOCATE, file);
    op->buffer = (void *)(uintptr_t)size;
    ring_submit(io, op);
}

/* ---- immediate ---- */

int64_t io_file_size(struct io *io, int file)
{
    struct stat status;
    if (fstat(file_of(io, file)->fd, &status) < 0)
        return -errno;
    return status.st_size;
}

bool io_file_is_direct(struct io *io, int file)
{
    return file_of(io, file)->is_direct;
}

int io_lock_file(struct io *io, int file)
{
    return flock(file_of(io, file)->fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}
