/* The log as a whole, for wal.c alone, and for tests. What of wal.h concerns one part alone is in that
 * part's file.
 *
 *   wal.c          drives: opening and shutting, appends, who is told what
 *   wal_buffers.c  records into buffers, buffers onto the disk; what is durable
 *   wal_spares.c   housekeeping: spare files made, recycled, removed
 *   wal_files.c    the table of files, their states, who is alive in them
 *
 *   wal.c --calls--> wal_spares.c --> wal_buffers.c --> wal_files.c
 *     ^                  |                |
 *     +---- events ------+----------------+
 *
 * Each part owns its struct and says its invariants in its header. No part calls the driver: what a
 * completion changed, it tells by the events that the driver gave it. */
#ifndef MINIVAULT_STORE_WAL_INTERNAL_H
#define MINIVAULT_STORE_WAL_INTERNAL_H

#include "store/wal/wal.h"
#include "store/wal/wal_buffers.h"
#include "store/wal/wal_files.h"
#include "store/wal/wal_spares.h"

struct wal {
    struct io *io;
    const struct log *log;
    struct wal_options options;
    int directory_handle;
    bool is_opening; /* wal_open has not returned: no events */
    bool is_shutting;
    bool room_wanted; /* an append was put off */
    bool is_hindered; /* one of: failed, shutting, disk full, no spare file. wal_append looks
                         closer */
    int failed;
    struct wal_buffers buffers;
    struct wal_files *files;
    struct wal_spares spares;
};

static inline struct wal_files *wal_files_of(const struct wal *wal)
{
    return wal->files;
}

static inline const struct wal_spares *wal_spares_of(const struct wal *wal)
{
    return &wal->spares;
}

static inline const struct wal_buffers *wal_buffers_of(const struct wal *wal)
{
    return &wal->buffers;
}

#endif
