/* The file operations: what each does when it is executed, and what io.h asks of files at once. */
#include "io/io_sim_host.h"

#include "io/io_sim_tree.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- open files ---- */

static struct sim_file *file_at(struct io *io, int handle)
{
    if (handle < 0 || (uint32_t)handle >= io->options.files_max || io->files[handle] == NULL)
        sim_breach(io->sim, "no file has the handle %d", handle);
    if (io->files[handle]->is_closing)
        sim_breach(io->sim, "file %d is used after its close was submitted", handle);
    return io->files[handle];
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
    return !sim_happens(disk->sim, disk->options.no_space_ppm) &&
           tree_space(disk) + more <= disk->options.capacity;
}

/* Whether a file may reach up to `end`. */
static bool has_space_until(struct sim_disk *disk, const struct sim_inode *inode, uint64_t end)
{
    uint64_t reserved = round_up(end, PAGE_SIZE);
    return reserved <= inode->reserved || has_space(disk, reserved - inode->reserved);
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
    if (op->offset + op->size > io_file_size_max(op->io))
        return -EFBIG;
    if (!has_space_until(disk, inode, op->offset + op->size))
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
    if (op->size > io_file_size_max(op->io))
        return -EFBIG;
    if (!has_space_until(disk, inode, op->size))
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
        return tree_remove(op->io->disk, op->path, false);
    default:
        return 0;
    }
}

static int32_t execute_open(struct sim_op *op)
{
    struct io *io = op->io;
    uint32_t handle = 0;
    while (handle < io->options.files_max && io->files[handle] != NULL)
        handle++;
    if (handle == io->options.files_max)
        return -ENFILE;
    struct sim_inode *inode;
    int result = open_inode(op, &inode);
    if (result < 0)
        return result;
    struct sim_file *file = io->files[handle] = sim_allocate(sizeof *file);
    *file = (struct sim_file){.inode = inode, .handle = (int)handle, .flags = op->flags};
    inode->opens++;
    return file->handle;
}

static int32_t execute_close(struct sim_op *op)
{
    op->io->files[op->file->handle] = NULL;
    file_free(op->file);
    op->active = NULL;
    return 0;
}

static void execute(struct sim_op *op)
{
    if (op->is_cancelled && sim_below(op->io->sim, 2) == 0)
        op_complete(op, -ECANCELED);
    else if (op->kind == SIM_OPEN)
        op_complete(op, execute_open(op));
    else if (op->kind == SIM_CLOSE_FILE)
        op_complete(op, execute_close(op));
    else
        op_complete(op, file_apply(op));
}

/* ---- submitting ---- */

static void check_range(const struct sim_op *op)
{
    struct sim *sim = op->io->sim;
    if (op->file->inode->is_directory)
        sim_breach(sim, "file %d is a directory: only a sync makes sense", op->file->handle);
    if (!(op->file->flags & IO_OPEN_DIRECT))
        return;
    if ((uintptr_t)op->buffer % PAGE_SIZE != 0)
        sim_breach(sim, "a buffer for direct file %d is not aligned", op->file->handle);
    if (op->size % PAGE_SIZE != 0 || op->offset % PAGE_SIZE != 0)
        sim_breach(sim, "%" PRIu64 " bytes at %" PRIu64 " of direct file %d are not aligned",
                   op->size, op->offset, op->file->handle);
}

static void begin_on(struct sim_op *op, int handle)
{
    struct sim_file *file = op->file = file_at(op->io, handle);
    op->active = &file->active;
    file->active++;
    op->sequence = op->io->disk->sequence;
    if (op->kind == SIM_READ || op->kind == SIM_WRITE)
        check_range(op);
    /* The buffer is the world's: whoever looks at it too early sees this. */
    if (op->kind == SIM_READ)
        memset(op->buffer, 0xA5, op->size);
    if (op->kind == SIM_CLOSE_FILE && file->active > 1)
        sim_breach(op->io->sim, "file %d is closed while %" PRIu32 " operations on it are active",
                   handle, file->active - 1);
    file->is_closing = op->kind == SIM_CLOSE_FILE;
}

/* `handle`: the open file's, for what is asked of none by its path. */
static void submit(struct io *io, struct io_op *op, int handle, struct sim_op asked)
{
    asked.execute = execute;
    struct sim_op *sim_op = op_begin(io, op, asked);
    if (sim_op == NULL)
        return;
    if (asked.path == NULL)
        begin_on(sim_op, handle);
    const struct sim_disk_options *options = &io->disk->options;
    op_schedule(sim_op, sim_latency(io->sim, options->latency_ns_max, options->stall_ppm,
                                    options->stall_ns_max));
}

void io_open_file(struct io *io, struct io_op *op, const char *path, uint32_t flags)
{
    submit(io, op, -1, (struct sim_op){.kind = SIM_OPEN, .path = path, .flags = flags});
}

void io_close_file(struct io *io, struct io_op *op, int file)
{
    submit(io, op, file, (struct sim_op){.kind = SIM_CLOSE_FILE});
}

void io_read(struct io *io, struct io_op *op, int file, void *buffer, uint32_t size,
             uint64_t offset)
{
    submit(io, op, file,
           (struct sim_op){.kind = SIM_READ, .buffer = buffer, .size = size, .offset = offset});
}

void io_write(struct io *io, struct io_op *op, int file, const void *buffer, uint32_t size,
              uint64_t offset, uint32_t flags)
{
    submit(io, op, file,
           (struct sim_op){.kind = SIM_WRITE,
                           .buffer = (void *)(uintptr_t)buffer,
                           .size = size,
                           .offset = offset,
                           .flags = flags});
}

void io_sync(struct io *io, struct io_op *op, int file)
{
    submit(io, op, file, (struct sim_op){.kind = SIM_SYNC});
}

void io_allocate(struct io *io, struct io_op *op, int file, uint64_t size)
{
    submit(io, op, file, (struct sim_op){.kind = SIM_ALLOCATE, .size = size});
}

void io_truncate(struct io *io, struct io_op *op, const char *path, uint64_t size)
{
    submit(io, op, -1, (struct sim_op){.kind = SIM_TRUNCATE, .path = path, .size = size});
}

void io_rename(struct io *io, struct io_op *op, const char *from, const char *to)
{
    submit(io, op, -1, (struct sim_op){.kind = SIM_RENAME, .path = from, .path_to = to});
}

void io_unlink(struct io *io, struct io_op *op, const char *path)
{
    submit(io, op, -1, (struct sim_op){.kind = SIM_UNLINK, .path = path});
}

/* ---- at once ---- */

/* Errors: -ESHUTDOWN, tree_find's. */
static int find(const struct io *io, const char *path, struct sim_inode **ret_inode)
{
    return io->state == SIM_HOST_RUNS ? tree_find(io->disk, path, ret_inode) : -ESHUTDOWN;
}

int io_make_directory(struct io *io, const char *path)
{
    struct sim_inode *inode;
    int result = find(io, path, &inode);
    if (result == 0)
        return inode->is_directory ? 0 : -EEXIST;
    if (result != -ENOENT)
        return result;
    return tree_create(io->disk, path, true, &inode);
}

int io_remove_directory(struct io *io, const char *path)
{
    return io->state == SIM_HOST_RUNS ? tree_remove(io->disk, path, true) : -ESHUTDOWN;
}

int io_list_directory(struct io *io, const char *path, io_list_each *each, void *context)
{
    struct sim_inode *inode;
    int result = find(io, path, &inode);
    if (result < 0)
        return result;
    if (!inode->is_directory)
        return -ENOTDIR;
    for (uint32_t i = 0; result == 0 && i < inode->now.count; i++)
        result = each(context, inode->now.entries[i].name);
    return result;
}

int64_t io_file_size(struct io *io, int file)
{
    return io->state == SIM_HOST_RUNS ? (int64_t)file_at(io, file)->inode->size : -ESHUTDOWN;
}

bool io_file_is_direct(struct io *io, int file)
{
    return io->state == SIM_HOST_RUNS && file_at(io, file)->flags & IO_OPEN_DIRECT;
}

int io_identify(struct io *io, const char *path, struct io_file_identity *ret_identity)
{
    struct sim_inode *inode;
    int result = find(io, path, &inode);
    if (result == 0)
        *ret_identity = (struct io_file_identity){.inode = (uintptr_t)inode};
    return result;
}

int io_disk_space(struct io *io, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
    struct sim_inode *inode;
    int result = find(io, path, &inode);
    if (result < 0)
        return result;
    uint64_t taken = tree_space(io->disk);
    *ret_total = io->disk->options.capacity;
    *ret_free = *ret_total > taken ? *ret_total - taken : 0;
    return 0;
}

uint64_t io_inodes_free(struct io *io, const char *path)
{
    (void)io;
    (void)path;
    return UINT64_MAX;
}

uint64_t io_file_size_max(struct io *io)
{
    uint64_t limit = io->disk->options.file_size_max;
    return limit == 0 ? UINT64_MAX : limit;
}

const char *io_file_system(struct io *io, const char *path)
{
    (void)io;
    (void)path;
    return "ext4";
}

int io_lock_file(struct io *io, int file)
{
    if (io->state != SIM_HOST_RUNS)
        return -ESHUTDOWN;
    struct sim_file *locked = file_at(io, file);
    if (locked->inode->locked_by != NULL && locked->inode->locked_by != locked)
        return -EWOULDBLOCK;
    locked->inode->locked_by = locked;
    return 0;
}
