/* Syncs of folders, so that the names of new files in them are durable. */
#ifndef MINIVAULT_STORE_DIRECTORY_SYNC_H
#define MINIVAULT_STORE_DIRECTORY_SYNC_H

#include "base/list.h"
#include "io/io.h"

struct directory_waiter;
typedef void directory_synced(struct directory_waiter *waiter, int result);

struct directory_waiter {
    struct list_node node;
    directory_synced *done;
};

struct directory {
    struct io *io;
    const struct list *users;
    struct io_op op;
    struct list waiting; /* for the next sync */
    struct list covered; /* by the one under way */
    const char *path;
    int handle; /* < 0: not open */
};

/* The folder stays open as long as `users` is not empty. The path and the list stay the caller's.
 */
void directory_init(struct directory *directory, struct io *io, const char *path,
                    const struct list *users);

/* What was created in the directory before this call is durable when `done` says 0. */
void directory_sync(struct directory *directory, struct directory_waiter *waiter,
                    directory_synced *done);

/* `done` will not be called. */
void directory_forget(struct directory_waiter *waiter);

/* It has no more users: it closes once nothing of it is under way. */
void directory_close(struct directory *directory);

/* Whether it is open, or something of it is under way. */
bool directory_is_busy(const struct directory *directory);

#endif
