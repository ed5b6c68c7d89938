/* What works on paths: truncate, rename, unlink, and the immediate calls of start-up. */
#include "io/io_uring.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define DIRECTORY_MODE 0700

/* ---- truncate: open, cut, close; `size` is the stage, `handle` the descriptor, `offset` the new
 * size ---- */

enum truncate_stage { TRUNCATE_OPEN, TRUNCATE_CUT };

void truncate_prepare(struct io *io, struct io_op *op, struct io_uring_sqe *sqe)
{
    (void)io;
    if (op->size == TRUNCATE_OPEN)
        io_uring_prep_openat(sqe, AT_FDCWD, op->buffer, O_WRONLY | O_CLOEXEC, 0);
    else
        io_uring_prep_ftruncate(sqe, op->handle, (loff_t)op->offset);
}

static void truncate_cut(struct io *io, struct io_op *op)
{
    op->size = TRUNCATE_CUT;
    if (ring_has_ftruncate(io) && !ring_is_closing(io)) {
        ring_resubmit(io, op);
        return;
    }
    /* Linux before 6.9 cuts no file through a ring. */
    int error = ring_is_closing(io) || ftruncate(op->handle, (off_t)op->offset) == 0 ? 0 : -errno;
    (void)close(op->handle);
    ring_complete(io, op, error);
}

void truncate_finish(struct io *io, struct io_op *op, int32_t result, uint32_t cqe_flags)
{
    (void)cqe_flags;
    if (!ring_is_closing(io) && retry_transient(io, op, result))
        return;
    if (op->size == TRUNCATE_OPEN && result >= 0) {
        op->handle = result;
        truncate_cut(io, op);
        return;
    }
    if (op->size == TRUNCATE_CUT)
        (void)close(op->handle);
    ring_complete(io, op, result);
}

static void begin(struct io_op *op, enum op_kind kind, const char *path)
{
    op_begin(op, kind, AT_FDCWD);
    op->buffer = (void *)(uintptr_t)path;
}

void io_truncate(struct io *io, struct io_op *op, const char *path, uint64_t size)
{
    assert(size <= INT64_MAX);
    begin(op, KIND_TRUNCATE, path);
    op->offset = size;
    op->size = TRUNCATE_OPEN;
    ring_submit(io, op);
}

/* ---- rename and unlink ---- */

void io_rename(struct io *io, struct io_op *op, const char *from, const char *to)
{
    begin(op, KIND_RENAME, from);
    op->size = (uint32_t)AT_FDCWD;
    op->offset = (uintptr_t)to;
    ring_submit(io, op);
}

void io_unlink(struct io *io, struct io_op *op, const char *path)
{
    begin(op, KIND_UNLINK, path);
    ring_submit(io, op);
}

/* ---- immediate ---- */

int io_make_directory(struct io *io, const char *path)
{
    (void)io;
    if (mkdir(path, DIRECTORY_MODE) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    struct stat status;
    if (stat(path, &status) < 0)
        return -errno;
    return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

int io_remove_directory(struct io *io, const char *path)
{
    (void)io;
    return rmdir(path) == 0 ? 0 : -errno;
}

int io_list_directory(struct io *io, const char *path, io_list_each *each, void *context)
{
    (void)io;
    DIR *directory = opendir(path);
    if (directory == NULL)
        return -errno;
    int result = 0;
    errno = 0;
    for (const struct dirent *entry; result == 0 && (entry = readdir(directory)) != NULL; errno = 0)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = each(context, entry->d_name);
    if (result == 0)
        result = -errno;
    (void)closedir(directory);
    return result;
}

int io_identify(struct io *io, const char *path, struct io_file_identity *ret_identity)
{
    (void)io;
    struct stat status;
    if (stat(path, &status) < 0)
        return -errno;
    *ret_identity = (struct io_file_identity){.device = status.st_dev, .inode = status.st_ino};
    return 0;
}

int io_disk_space(struct io *io, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
    (void)io;
    struct statvfs status;
    if (statvfs(path, &status) < 0)
        return -errno;
    *ret_free = (uint64_t)status.f_bavail * status.f_frsize;
    *ret_total = (uint64_t)status.f_blocks * status.f_frsize;
    return 0;
}

/* Btrfs counts none. */
uint64_t io_inodes_free(struct io *io, const char *path)
{
    (void)io;
    struct statvfs status;
    if (statvfs(path, &status) < 0 || status.f_files == 0)
        return UINT64_MAX;
    return status.f_favail;
}

uint64_t io_file_size_max(struct io *io)
{
    (void)io;
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) < 0 ? UINT64_MAX : limit.rlim_cur;
}

/* Whether the file system that holds `path` is mounted with `option`, as mountinfo tells
 * (proc_pid_mountinfo(5): the third field is the device, the options stand behind " - "). */
static bool is_mounted_with(const char *path, const char *option)
{
    struct stat status;
    FILE *mounts = stat(path, &status) == 0 ? fopen("/proc/self/mountinfo", "re") : NULL;
    char *line = NULL;
    size_t size = 0;
    bool is_found = false;
    while (mounts != NULL && !is_found && getline(&line, &size, mounts) > 0) {
        unsigned major_number, minor_number;
        const char *options = strstr(line, " - ");
        is_found = options != NULL && strstr(options, option) != NULL &&
                   sscanf(line, "%*d %*d %u:%u", &major_number, &minor_number) == 2 &&
                   makedev(major_number, minor_number) == status.st_dev;
    }
    free(line);
    if (mounts != NULL)
        (void)fclose(mounts);
    return is_found;
}

const char *io_file_system(struct io *io, const char *path)
{
    static const struct {
        uint32_t magic;
        const char *name;
    } known[] = {
        {EXT4_SUPER_MAGIC, "ext4"},   {XFS_SUPER_MAGIC, "xfs"},
        {BTRFS_SUPER_MAGIC, "btrfs"}, {TMPFS_MAGIC, "tmpfs"},
        {RAMFS_MAGIC, "ramfs"},       {NFS_SUPER_MAGIC, "nfs"},
        {FUSE_SUPER_MAGIC, "fuse"},   {OVERLAYFS_SUPER_MAGIC, "overlay"},
        {F2FS_SUPER_MAGIC, "f2fs"},
    };
    (void)io;
    struct statfs status;
    if (statfs(path, &status) < 0)
        return "other";
    if (status.f_type == EXT4_SUPER_MAGIC && is_mounted_with(path, ",data=journal"))
        return "ext4 with data=journal";
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if ((uint32_t)status.f_type == known[i].magic)
            return known[i].name;
    return "other";
}
