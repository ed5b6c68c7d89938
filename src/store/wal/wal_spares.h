/* Housekeeping of the log's files, one task at a time, on one file:
 *
 *   a new spare       CREATE -> ALLOCATE -> ZERO ... -> SYNC_ZEROS -> SYNC_NAME -> MARK
 *   a recycled one    MARK
 *   one too many      MARK, when the newest durable header lists it; and then, or later:
 *                     UNLINK -> SYNC_UNLINK -> CLOSE
 *
 * The mark comes last: a file that has it is zeroed as a whole, or held records once, and can be
 * written without the file system's journal. A file counts as gone only once that is durable.
 *
 * Invariants:
 *
 *   1. There is a file under way if and only if there is a task.
 *   2. A file under way is PREPARING or LEAVING, and in no list.
 *   3. `zeroed` is at most the file's size; while ZERO lasts, a write of zeros is in flight.
 *   4. No file of an earlier generation is touched before may_touch_old: the new generation's first
 *      header says where the old one ended.
 *   5. Spares are bounded: one is made only when fewer than wanted are there, and a file that
 *      leaves becomes one only as long as they are not too many.
 *   6. After wal_spares_stop no task is begun. */
#ifndef MINIVAULT_STORE_WAL_SPARES_H
#define MINIVAULT_STORE_WAL_SPARES_H

#include "store/wal/wal.h"
#include "store/wal/wal_buffers.h"
#include "store/wal/wal_files.h"

#define WAL_SPARES_WANTED 2u /* fewer: one is made */
/* More: recycled ones are removed. With as few as are wanted, each file would be made before the
 * last one is free, then removed. */
#define WAL_SPARES_KEPT 4u
#define WAL_ZEROS_SIZE ((uint32_t)(512 * KIB)) /* one write when a file is zeroed */
#define WAL_ZEROS_IN_FLIGHT 4u

enum wal_task {
    WAL_TASK_NONE,
    WAL_TASK_CREATE,
    WAL_TASK_ALLOCATE,
    WAL_TASK_ZERO,
    WAL_TASK_SYNC_ZEROS,
    WAL_TASK_SYNC_NAME,
    WAL_TASK_MARK,
    WAL_TASK_UNLINK,
    WAL_TASK_SYNC_UNLINK,
    WAL_TASK_CLOSE,
};

struct wal_spares {
    struct io *io;
    const struct log *log;
    const struct wal_options *options; /* the log's */
    struct wal_files *files;
    const struct wal_buffers *buffers; /* what is durable */
    int directory_handle;
    bool may_touch_old;
    bool is_stopped;
    bool is_held; /* none is made beyond the one for deletes */
    bool disk_full;
    uint64_t file_size_next; /* of the next one that is made */
    uint64_t room_min;       /* bytes of the disk that no new file may take */
    bool are_few;            /* no more are kept than are wanted */
    uint64_t keep_below;     /* sealed files and spares together; beyond it few spares are kept */
    uint64_t recycled;       /* files, since start */

    enum wal_task task;
    struct log_file *file; /* the task's */
    struct io_op op;
    struct wal_zeros {
        struct io_op op;
        struct wal_spares *spares;
        uint32_t size;
    } zeroing[WAL_ZEROS_IN_FLIGHT]; /* ZERO: instead of op */
    uint64_t zeroed;                /* bytes, also those on their way */
    int zero_error;
    struct io_op timer; /* the next attempt on a full disk */
    uint8_t *mark;      /* one block */
    uint8_t *zeros;     /* WAL_ZEROS_SIZE */
    struct wal_driver driver;
};

#define WAL_SPARES_MEMORY_SIZE (WAL_BLOCK_SIZE + WAL_ZEROS_SIZE)

/* `spares` is zeroed; options, files and buffers outlive it. Its WAL_SPARES_MEMORY_SIZE bytes of the
 * region lie behind the buffers'. `directory`: of the files, open, for syncs of names. */
void wal_spares_init(struct wal_spares *spares, struct io *io, const struct log *log,
                     const struct wal_options *options, struct wal_files *files,
                     const struct wal_buffers *buffers, int directory,
                     const struct wal_driver *driver);

/* Starts the next task, if there is anything to do and nothing under way. */
void wal_spares_step(struct wal_spares *spares);

/* Begins no task any more, and ends what waits; and: whether an operation is in flight. */
void wal_spares_stop(struct wal_spares *spares);
bool wal_spares_are_busy(const struct wal_spares *spares);

/* While the log is opened: whether a file could not be made, since the disk is full, and nothing is
 * under way. */
bool wal_spares_have_failed(const struct wal_spares *spares);

/* From now on files are made of this size. */
void wal_spares_set_file_size(struct wal_spares *spares, uint64_t size);

/* The new generation's first header is durable: older files may be touched. */
void wal_spares_begin(struct wal_spares *spares);

/* wal.h says what these set and tell. Three return whether a step may be due. */
static inline bool wal_spares_set_held(struct wal_spares *spares, bool is_held)
{
    bool may_go_on = spares->is_held && !is_held;
    spares->is_held = is_held;
    return may_go_on;
}

static inline bool wal_spares_set_few(struct wal_spares *spares, bool are_few)
{
    bool is_less = are_few && !spares->are_few;
    spares->are_few = are_few;
    return is_less;
}

static inline void wal_spares_set_room_min(struct wal_spares *spares, uint64_t bytes)
{
    spares->room_min = bytes;
}

static inline bool wal_spares_set_keep_below(struct wal_spares *spares, uint64_t bytes)
{
    bool is_less = bytes < spares->keep_below;
    spares->keep_below = bytes;
    return is_less;
}

static inline bool wal_spares_disk_is_full(const struct wal_spares *spares)
{
    return spares->disk_full;
}

/* The spare to go first, when there are more than are kept. NULL: there are not. */
struct log_file *wal_spares_surplus(const struct wal_spares *spares);

/* Whether files are waiting to be recycled or removed, or are on the way. */
bool wal_spares_are_clearing(const struct wal_spares *spares);

/* Adds what was recycled. */
void wal_spares_stats(const struct wal_spares *spares, struct wal_stats *stats);

#endif
