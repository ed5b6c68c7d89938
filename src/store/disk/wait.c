/* Single operations, waited for. */
#include "store/disk/wait.h"

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
    return io_wait(io, &op);
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

bool disk_is_device_error(int error)
{
    static const int errors[] = {EIO, ENODATA, EILSEQ, EBADMSG, EUCLEAN, EREMOTEIO, ETIMEDOUT};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (error == -errors[i])
            return true;
    }
    return false;
}
