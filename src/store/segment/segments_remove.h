/* The files of segments that nobody needs any more: removed one after the other, a piece at a time.
 *
 * A file system may discard at once what it frees (mounted with -o discard), and the device is busy
 * with that: writes of the log took 8 ms behind 32 MiB that were discarded. So a file gets shorter
 * piece by piece before it goes. When space is short, or files come faster than they go that way,
 * they go at once.
 *
 * Invariants:
 *
 *   1. `op` is active only while the queue has a first one: that file gets shorter, or goes.
 *   2. `count` is the length of the queue.
 *   3. As long as the queue is not empty, the op or the pause is active. */
#ifndef MINIVAULT_STORE_SEGMENTS_REMOVE_H
#define MINIVAULT_STORE_SEGMENTS_REMOVE_H

#include "store/segment/segments.h"

struct segments_removal {
    struct io *io;
    const struct log *log;
    struct list queue; /* of segments, by handle_node */
    uint32_t count;
    struct io_op op;
    struct io_op pause;
    uint64_t next_ns; /* no further piece before */
    bool is_hurried;
    /* The segment's file has gone, or is left to the next start. */
    void (*removed)(struct segment *segment);
};

void segments_removal_init(struct segments_removal *removal, struct io *io, const struct log *log,
                           void (*removed)(struct segment *segment));

/* Removes the closed file at segment->path when its turn comes, then calls `removed`. */
void segments_removal_add(struct segments_removal *removal, struct segment *segment);

/* segments.h says what it does. */
void segments_removal_set_hurry(struct segments_removal *removal, bool is_hurried);

/* Whether files are still to be removed. */
bool segments_removal_is_active(const struct segments_removal *removal);

#endif
