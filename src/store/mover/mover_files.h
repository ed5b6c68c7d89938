/* What is done with the outputs' files in the background.
 *
 * A sync of a segment's file and, where the file is new, of its folder, so that its name is durable,
 * too. And closings, which nobody waits for. */
#ifndef MINIVAULT_STORE_MOVER_FILES_H
#define MINIVAULT_STORE_MOVER_FILES_H

#include "base/list.h"
#include "io/io.h"
#include "store/segment/segments.h"
#include "store/value/directory_sync.h"

struct mover_sync {
    struct io_op op;
    bool is_new; /* the folder is synced, too */
    int error;
    struct directory directory;
    struct list users; /* of the folder: none, so that it is closed again */
    struct directory_waiter waiter;
    char path[SEGMENT_PATH_MAX]; /* of the folder */
};

/* Begins; it is not active. `path`: of the data directory. */
void mover_sync_begin(struct mover_sync *sync, struct io *io, int handle, bool is_new,
                      const char *path, uint32_t partition);

bool mover_sync_is_active(const struct mover_sync *sync);

/* The folder's path, for messages. */
const char *mover_sync_path(const struct mover_sync *sync);

/* Once it is not active: 0, it is durable, or the -errno. */
int mover_sync_result(const struct mover_sync *sync);

/* ---- closings ---- */

struct mover_closings {
    struct io *io;
    struct list under_way;
};

void mover_closings_init(struct mover_closings *closings, struct io *io);

/* Best effort: without memory the file stays open. */
void mover_close(struct mover_closings *closings, int handle);

/* Waits until all are closed. Synchronous. */
void mover_closings_wait(struct mover_closings *closings);

/* After mover_closings_wait, or after the world was closed. */
void mover_closings_deinit(struct mover_closings *closings);

#endif
