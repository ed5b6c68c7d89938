/* The file operations: what each does when it is executed, and when its process dies before. */
#include "io/io_sim_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- open files ---- */

static struct sim_file *file_at(struct io *io, int handle)
{
    if (handle < 0 || (uint32_t)handle >= io->options.files_max || io->files[handle] == NULL)
        sim_breach(io, "no file has the handle %d", handle);
    if (io->files[handle]->is_closing)
        sim_breach(io, "file %d is used after its close was submitted", handle);
    return io->files[handle];
}

static int find_handle(const struct io *io)
{
    uint32_t handle = 0;
    while (handle < io->options.files_max && io->files[handle] != NULL)
        handle++;
    return handle < io->options.files_max ? (int)handle : -ENFILE;
}

static void file_attach(struct io *io, int handle, struct sim_inode *inode, uint32_t flags)
{
    struct sim_file *file = sim_allocate(sizeof *file);
    file->inode = inode;
    file->handle = handle;
    file->flags = flags;
    inode->opens++;
    io->files[handle] = file;
}

void file_free(struct sim_file *file)
{
    if (file->inode->locked_by == file)
        file->inode->locked_by = NULL;
    file->inode->opens--;
    free(file);
}

/* ---- executing ---- */

static bool has_space(struct sim_disk *disk, uint64_t more)
{
    if (more == 0)
        return true;
    if (sim_happens(disk->sim, disk->options.no_space_ppm))
        return false;
    return tree_space(disk) + more <= disk->options.capacity;
}

/* The inode that an open leads to, created when asked. */
static int open_inode(struct sim_op *op, struct sim_inode **ret_inode)
{
    struct sim_disk *disk = op->io->disk;
    int result = tree_find(disk, op->path, ret_inode);
    if (result == -ENOENT && op->flags & IO_OPEN_CREATE) {
        if (!has_space(disk, PAGE_SIZE))
            return -ENOSPC;
        return tree_create(disk, op->path, false, ret_inode);
    }
    if (result < 0)
        return result;
    if (op->flags & IO_OPEN_EXCLUSIVE)
        return -EEXIST;
    if (op->flags & IO_OPEN_DIRECTORY && !(*ret_inode)->is_directory)
        return -ENOTDIR;
    if (op->flags & IO_OPEN_WRITE && (*ret_inode)->is_directory)
        return -EISDIR;
    return 0;
}

static int32_t apply_read(struct sim_op *op)
{
    const struct sim_inode *inode = op->file->inode;
    if (sim_happens(op->io->sim, op->io->disk->options.read_error_ppm))
        return -EIO;
    uint64_t left = op->offset < inode->size ? inode->size - op->offset : 0;
    uint64_t size = min_u64(op->size, left);
    inode_read(inode, op->buffer, size, op->offset);
    return (int32_t)size;
}

static int32_t apply_write(struct sim_op *op)
{
    struct sim_disk *disk = op->io->disk;
    struct sim_inode *inode = op->file->inode;
    if (!(op->file->flags & IO_OPEN_WRITE))
        return -EBADF;
    uint64_t end = round_up(op->offset + op->size, PAGE_SIZE);
    if (end > inode->reserved && !has_space(disk, end - inode->reserved))
        return -ENOSPC;
    bool is_durable = op->flags & IO_WRITE_DSYNC;
    uint64_t sequence = ++disk->sequence;
    if (sim_happens(disk->sim, disk->options.write_error_ppm)) {
        inode_write_torn(disk->sim, inode, op->buffer, op->size, op->offset, sequence, is_durable);
        return -EIO;
    }
    inode_write(inode, op->buffer, op->size, op->offset, sequence, is_durable);
    return (int32_t)op->size;
}

static int32_t apply_sync(struct sim_op *op)
{
    struct sim_disk *disk = op->io->disk;
    struct sim_inode *inode = op->file->inode;
    if (sim_happens(disk->sim, disk->options.sync_error_ppm)) {
        inode_sync_failed(disk->sim, inode, (op->file->flags & IO_OPEN_DIRECT) != 0);
        return -EIO;
    }
    if (inode->is_directory)
        tree_sync(disk, inode, op->sequence);
    else
        inode_sync(disk->sim, inode, op->sequence);
    return 0;
}

static int32_t apply_allocate(struct sim_op *op)
{
    struct sim_disk *disk = op->io->disk;
    struct sim_inode *inode = op->file->inode;
    uint64_t reserved = round_up(op->size, PAGE_SIZE);
    if (reserved > inode->reserved && !has_space(disk, reserved - inode->reserved))
        return -ENOSPC;
    if (op->size > inode->size)
        inode_resize(inode, op->size, ++disk->sequence);
    return 0;
}

static int32_t apply_truncate(struct sim_op *op)
{
    struct sim_inode *inode;
    int result = tree_find(op->io->disk, op->path, &inode);
    if (result < 0)
        return result;
    if (inode->is_directory)
        return -EISDIR;
    inode_resize(inode, op->size, ++op->io->disk->sequence);
    return 0;
}

int32_t file_apply(struct sim_op *op)
{
    struct sim_inode *inode;
    switch (op->kind) {
    case SIM_OPEN:
        return open_inode(op, &inode);
    case SIM_READ:
        return apply_read(op);
    case SIM_WRITE:
        return apply_write(op);
    case SIM_SYNC:
        return apply_sync(op);
    case SIM_ALLOCATE:
        return apply_allocate(op);
    case SIM_TRUNCATE:
        return apply_truncate(op);
    case SIM_RENAME:
        return tree_rename(op->io->disk, op->path, op->path_to);
    case SIM_UNLINK:
        return tree_unlink(op->io->disk, op->path);
    default:
        return 0;
    }
}

static int32_t execute_open(struct sim_op *op)
{
    struct sim_inode *inode;
    int handle = find_handle(op->io);
    int result = handle < 0 ? handle : open_inode(op, &inode);
    if (result < 0)
        return result;
    file_attach(op->io, handle, inode, op->flags);
    return handle;
}

static void execute(struct sim_op *op)
{
    struct io *io = op->io;
    if (op->is_cancelled && prng_below(&io->sim->prng, 2) == 0) {
        op_complete(op, -ECANCELED);
        return;
    }
    int32_t result = op->kind == SIM_OPEN ? execute_open(op) : file_apply(op);
    if (op->kind == SIM_CLOSE_FILE) {
        io->files[op->file->handle] = NULL;
        file_free(op->file);
        op->file = NULL;
    }
    op_complete(op, result);
}

static void retire(struct sim_op *op)
{
    if (op->file != NULL)
        op->file->active--;
}

static const struct sim_family files = {.execute = execute, .retire = retire};

/* ---- submitting ---- */

static void schedule(struct sim_op *op)
{
    struct sim *sim = op->io->sim;
    const struct sim_disk_options *options = &op->io->disk->options;
    uint64_t delay_ns = 1 + sim_delay(sim, options->latency_ns_max);
    if (sim_happens(sim, options->stall_ppm))
        delay_ns += prng_below(&sim->prng, options->stall_ns_max + 1);
    op_schedule(op, delay_ns);
}

static struct sim_op *begin_path(struct io *io, struct io_op *op, enum sim_kind kind,
                                 const char *path, const char *path_to)
{
    struct sim_op *sim_op = op_begin(io, op, kind, &files);
    if (sim_op == NULL)
        return NULL;
    sim_op->path = path;
    sim_op->path_to = path_to;
    op_seal(sim_op);
    schedule(sim_op);
    return sim_op;
}

static struct sim_op *begin_file(struct io *io, struct io_op *op, enum sim_kind kind, int handle)
{
    struct sim_op *sim_op = op_begin(io, op, kind, &files);
    if (sim_op == NULL)
        return NULL;
    sim_op->file = file_at(io, handle);
    sim_op->file->active++;
    schedule(sim_op);
    return sim_op;
}

void io_open_file(struct io *io, struct io_op *op, const char *path, uint32_t flags)
{
    struct sim_op *sim_op = begin_path(io, op, SIM_OPEN, path, NULL);
    if (sim_op != NULL)
        sim_op->flags = flags;
}

void io_close_file(struct io *io, struct io_op *op, int file)
{
    struct sim_op *sim_op = begin_file(io, op, SIM_CLOSE_FILE, file);
    if (sim_op == NULL)
        return;
    if (sim_op->file->active > 1)
        sim_breach(io, "file %d is closed while %" PRIu32 " operations on it are active", file,
                   sim_op->file->active - 1);
    sim_op->file->is_closing = true;
}

static void check_range(const struct sim_op *op)
{
    if (op->file->inode->is_directory)
        sim_breach(op->io, "file %d is a directory: only a sync makes sense", op->file->handle);
    if (!(op->file->flags & IO_OPEN_DIRECT))
        return;
    if ((uintptr_t)op->buffer % PAGE_SIZE != 0)
        sim_breach(op->io, "a buffer for direct file %d is not aligned", op->file->handle);
    if (op->size % PAGE_SIZE != 0 || op->offset % PAGE_SIZE != 0)
        sim_breach(op->io, "%" PRIu64 " bytes at %" PRIu64 " of direct file %d are not aligned",
                   op->size, op->offset, op->file->handle);
}

void io_read(struct io *io, struct io_op *op, int file, void *buffer, uint32_t size,
             uint64_t offset)
{
    struct sim_op *sim_op = begin_file(io, op, SIM_READ, file);
    if (sim_op == NULL)
        return;
    sim_op->buffer = buffer;
    sim_op->size = size;
    sim_op->offset = offset;
    check_range(sim_op);
    /* The buffer is the world's: whoever looks at it too early sees this. */
    memset(buffer, 0xA5, size);
}

void io_write(struct io *io, struct io_op *op, int file, const void *buffer, uint32_t size,
              uint64_t offset, uint32_t flags)
{
    struct sim_op *sim_op = begin_file(io, op, SIM_WRITE, file);
    if (sim_op == NULL)
        return;
    sim_op->buffer = (void *)(uintptr_t)buffer;
    sim_op->size = size;
    sim_op->offset = offset;
    sim_op->flags = flags;
    check_range(sim_op);
    op_seal(sim_op);
}

void io_sync(struct io *io, struct io_op *op, int file)
{
    struct sim_op *sim_op = begin_file(io, op, SIM_SYNC, file);
    if (sim_op != NULL)
        sim_op->sequence = io->disk->sequence;
}

void io_allocate(struct io *io, struct io_op *op, int file, uint64_t size)
{
    struct sim_op *sim_op = begin_file(io, op, SIM_ALLOCATE, file);
    if (sim_op != NULL)
        sim_op->size = size;
}

void io_truncate(struct io *io, struct io_op *op, const char *path, uint64_t size)
{
    struct sim_op *sim_op = begin_path(io, op, SIM_TRUNCATE, path, NULL);
    if (sim_op != NULL)
        sim_op->size = size;
}

void io_rename(struct io *io, struct io_op *op, const char *from, const char *to)
{
    (void)begin_path(io, op, SIM_RENAME, from, to);
}

void io_unlink(struct io *io, struct io_op *op, const char *path)
{
    (void)begin_path(io, op, SIM_UNLINK, path, NULL);
}
