/* The index checkpoint: the index's slots in a file, so that a start reads them instead of every
 * segment's directory. A cache: without it the segments' directories and the log give the same
 * index.
 *
 * It is written a piece at a time while the store goes on. So it is of no single moment: the chunks
 * from `chunk_sequence` on, taken when it was begun, and the whole log are replayed over it;
 * versions decide. A location in it may have moved on since: the replay of newer chunks says where
 * to; a slot whose file is gone and that no newer chunk moved was dead, and is dropped.
 *
 * DATA/checkpoint-<16 hex: number>, written under that name with ".tmp" behind it, synced, renamed,
 * the directory synced: so what has the name is complete. checkpoint_format.h has the bytes.
 *
 * Slots are copied when their turn comes, also those of log records that are not durable yet: the
 * owner lets a checkpoint count (MANIFEST_CHECKPOINT) only when the log is durable up to the last
 * position that it had given when `done` came. */
#ifndef MINIVAULT_STORE_CHECKPOINT_H
#define MINIVAULT_STORE_CHECKPOINT_H

#include "base/log.h"
#include "io/io.h"
#include "store/disk/wait.h"
#include "store/memory/index.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

struct checkpoint_info {
    uint64_t number;
    uint64_t position; /* of the log, durable when it was begun: a log that ends before it has lost
                          its end. Nothing else is made of it */
    uint64_t chunk_sequence; /* chunks with smaller sequences are in it */
    uint64_t clock_ceiling;
    uint64_t slots; /* in the file; not looked at when one is begun */
};

struct checkpoint_file {
    bool is_segment;
    uint32_t file;   /* id in the locations of this process, below 2^19 */
    uint64_t number; /* of the log file or segment */
    uint64_t end;    /* bytes of it that the index knew at the begin: the owner's, kept as it is */
};

/* ---- writing ---- */

struct checkpoint_writer;

struct checkpoint_options {
    const char *path; /* the data directory */
    uint64_t directory_id;
    uint32_t log_id;
    uint8_t *memory; /* CHECKPOINT_MEMORY_SIZE bytes of the region, aligned to 4096 */
    /* Loading: told of a slot whose hash has another one already, which may be an older or newer
     * write of the same key. Errors: checkpoint_load's, then. */
    int (*each_twin)(void *context, uint32_t partition, uint64_t hash,
                     const struct index_entry *entry);
};
#define CHECKPOINT_MEMORY_SIZE ((size_t)2 * 1024 * 1024)

/* Begins. `options`, `info` and `files` are copied; `index`, the options' `path` and `memory` stay
 * in use until `done`.
 * `files` are all that the index's locations name now. A slot whose file is not among them is left
 * out: what it names is newer than `info` and is replayed. So is one in a file id that was given to
 * a new file meanwhile: the loader finds the file gone.
 *
 * Unless the world is closed before, `done` comes exactly once, from the loop, with nothing in
 * flight any more, and the writer is gone when it is called. 0: the checkpoint is durable under its
 * name. Otherwise nothing of it stays: -ECANCELED, -EOVERFLOW (a group of the index is larger than
 * a buffer), the device's (ENOSPC, EIO, ...). Errors: -ENOMEM, -ENAMETOOLONG. */
typedef void checkpoint_done(void *context, int result);
int checkpoint_begin(struct io *io, const struct log *log, const struct checkpoint_options *options,
                     const struct checkpoint_info *info, const struct index *index,
                     const struct checkpoint_file *files, uint32_t file_count,
                     checkpoint_done *done, void *context, struct checkpoint_writer **ret_writer);

/* A piece of work from the loop: packs about `budget` bytes of slots (one group of the index more
 * at most), as far as a buffer is free. Returns the bytes it looked at; 0: there is nothing to do
 * before an operation of the writer has completed. Every slot that is in the index from the begin
 * to the end, with the same version, is in the file, once or several times. */
uint64_t checkpoint_step(struct checkpoint_writer *writer, uint64_t budget);

/* Ends it in any state: `done` follows, with -ECANCELED or the error that it had met, when what was
 * written is removed. */
void checkpoint_cancel(struct checkpoint_writer *writer);

/* Only after the world was closed: without `done`. */
void checkpoint_free(struct checkpoint_writer *writer);

/* ---- reading ---- */

/* Loads `number` into an empty index: `each_file` translates the table (returns the file id of this
 * process for it, of the same kind, or UINT32_MAX: the file is gone, its slots are left out until a
 * replay brings them: their count is in *ret_dropped). Everything is verified before it is
 * believed. Synchronous; progress once a second on the log. After an error the index may hold a
 * part: throw it away and begin with an empty one, without this checkpoint. Why is logged, with
 * file and offset. Errors: -ENOENT (not logged), -EBADMSG (damaged), -EPROTONOSUPPORT (another
 * format), -EXDEV (of another directory or log), -EIO, -ENOMEM. */
typedef uint32_t checkpoint_each_file(void *context, const struct checkpoint_file *file);
int checkpoint_load(struct io *io, const struct log *log, const struct checkpoint_options *options,
                    uint64_t number, struct index *index, checkpoint_each_file *each_file,
                    void *context, struct checkpoint_info *ret_info, uint64_t *ret_dropped);

/* Whether a checkpoint with which loading ended like this is gone, damaged, or not the one that was
 * here: then a start goes on without it. Otherwise it is refused. */
static inline bool checkpoint_is_lost(int error)
{
    return disk_is_lost(error) || error == -EXDEV;
}

/* From an entry of the data directory: a checkpoint, or what is left of one that was never
 * finished. Errors: -EINVAL (neither). */
int checkpoint_name_parse(const char *name, uint64_t *ret_number, bool *ret_temporary);

#endif
