/* Single operations, waited for. */
#include "store/disk/wait.h"

#include "base/assert.h"

#include <errno.h>

int disk_wait_open(struct io *io, const char *path, uint32_t flags)
{
    struct io_op op = {0};
    io_open_file(io, &op, path, flags);
    return io_wait(io, &op);
}

int disk_wait_close(struct io *io, int file)
{
    struct io_op op = {0};
    io_close_file(io, &op, file);
    return io_wait(io, &op);
}

int disk_wait_read(struct io *io, int file, void *buffer, uint32_t size, uint64_t offset)
{
    struct io_op op = {0};
    io_read(io, &op, file, buffer, size, offset);
    int result = io_wait(io, &op);
    assert(result < 0 || (uint32_t)result <= size);
    return result;
}

int disk_wait_write(struct io *io, int file, const void *buffer, uint32_t size, uint64_t offset)
{
    struct io_op op = {0};
    io_write(io, &op, file, buffer, size, offset, IO_WRITE_DSYNC);
    int result = io_wait(io, &op);
    if (result >= 0 && (uint32_t)result != size)
        return -EIO;
    return result < 0 ? result : 0;
}

int disk_wait_sync(struct io *io, int file)
{
    struct io_op op = {0};
    io_sync(io, &op, file);
    return io_wait(io, &op);
}

int disk_wait_truncate(struct io *io, const char *path, uint64_t size)
{
    struct io_op op = {0};
    io_truncate(io, &op, path, size);
    return io_wait(io, &op);
}

int disk_wait_unlink(struct io *io, const char *path)
{
    struct io_op op = {0};
    io_unlink(io, &op, path);
    int result = io_wait(io, &op);
    return result == -ENOENT ? 0 : result;
}

int64_t disk_wait_size(struct io *io, const char *path)
{
    int handle = disk_wait_open(io, path, IO_OPEN_READ);
    if (handle < 0)
        return handle;
    int64_t size = io_file_size(io, handle);
    (void)disk_wait_close(io, handle);
    return size;
}

int disk_wait_sync_folder(struct io *io, const char *path)
{
    int handle = disk_wait_open(io, path, IO_OPEN_DIRECTORY);
    if (handle < 0)
        return handle;
    int result = disk_wait_sync(io, handle);
    (void)disk_wait_close(io, handle);
    return result < 0 ? result : 0;
}

bool disk_is_device_error(int error)
{
    static const int errors[] = {EIO, ENODATA, EILSEQ, EBADMSG, EUCLEAN, EREMOTEIO, ETIMEDOUT};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (error == -errors[i])
            return true;
    }
    return false;
}

bool disk_is_passing(int error)
{
    return error == -ENOMEM || error == -EMFILE || error == -ENFILE;
}

bool disk_is_lost(int error)
{
    return error == -ENOENT || error == -EIO || error == -EBADMSG;
}
