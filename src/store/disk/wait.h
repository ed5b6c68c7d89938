/* Single operations on files that are waited for, at start-up and shutdown. Never within a
 * completion. */
#ifndef MINIVAULT_STORE_DISK_WAIT_H
#define MINIVAULT_STORE_DISK_WAIT_H

#include "io/io.h"

/* Each starts one operation and waits for it. Errors: those of the operation in io.h; of a write
 * also -EIO: it was short. */
int disk_wait_open(struct io *io, const char *path, uint32_t flags);
int disk_wait_close(struct io *io, int file);
int disk_wait_read(struct io *io, int file, void *buffer, uint32_t size, uint64_t offset);
int disk_wait_write(struct io *io, int file, const void *buffer, uint32_t size, uint64_t offset);
int disk_wait_sync(struct io *io, int file);
int disk_wait_truncate(struct io *io, const char *path, uint64_t size);

/* A file that is not there counts as unlinked. */
int disk_wait_unlink(struct io *io, const char *path);

/* The size in bytes of the file at `path`. */
int64_t disk_wait_size(struct io *io, const char *path);

/* Makes the names in the folder at `path` durable. */
int disk_wait_sync_folder(struct io *io, const char *path);

/* Whether a read that failed says that the device has lost these bytes, rather than that nothing
 * can be read at all. */
bool disk_is_device_error(int error);

/* Whether an error passes by itself: what the process may have of memory or files is used up. */
bool disk_is_passing(int error);

/* Whether opening or reading a segment or an index checkpoint failed since it is gone or damaged: a
 * start goes on without it. Whatever else was in the way may go away, and a start is refused. */
bool disk_is_lost(int error);

#endif
