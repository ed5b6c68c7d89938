/* Bugs planted on purpose. The crash simulator has to find each of them: `make build/plant-NAME/sim`
 * builds it with one, and its run must fail within minutes. In every other program plant_is() is
 * false when it is compiled, so nothing is left of a bug.
 *
 *   bug                    breaks                                               planted in
 *   ACK_BEFORE_SYNC        a write is acknowledged once its bytes are on        wal_buffers.c
 *                          their way, before they are on stable media
 *   REUSE_BUFFER           a batch buffer shares the memory of one that is      wal_buffers.c
 *                          still being written
 *   SKIP_DIRECTORY_SYNC    a new log file is used before its name is durable    wal_spares.c
 *   REPLAY_STALE           recovery believes batches of an earlier use of a     wal_scan.c
 *                          file, and what lies behind the log's end
 *   DROP_TOMBSTONE         compaction drops a tombstone while an older record   mover_stage.c
 *                          of its key can still be found
 *   SKIP_SEGMENT_SYNC      a partition segment's new chunks are committed to    mover_write.c
 *                          the manifest before they are on stable media */
#ifndef MINIVAULT_BASE_PLANT_H
#define MINIVAULT_BASE_PLANT_H

#include <stdbool.h>

enum plant {
    PLANT_NONE,
    PLANT_ACK_BEFORE_SYNC,
    PLANT_REUSE_BUFFER,
    PLANT_SKIP_DIRECTORY_SYNC,
    PLANT_REPLAY_STALE,
    PLANT_DROP_TOMBSTONE,
    PLANT_SKIP_SEGMENT_SYNC,
};

/* The Makefile's plant variants define it. */
#ifndef PLANTED
#define PLANTED PLANT_NONE
#endif

/* Whether this program is built with `bug`. A constant for the compiler. */
static inline bool plant_is(enum plant bug)
{
    return bug == PLANTED;
}

#endif
