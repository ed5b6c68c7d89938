/* Recovery: from log files back to records.
 *
 * Every record of every file is shown to the caller, in no promised order: versions decide, not
 * positions. What the end of the log looks like after a crash:
 *
 *   valid ... valid | torn or absent | possibly valid again (two writes were in flight)
 *                   ^
 *                   the log ends here, unless a valid batch proves that it was durable beyond: then
 *                   it is corruption
 *
 * A batch carries `durable`, the position that was known durable when it was written. The greatest
 * one of a generation is the proof: a bad batch at or below it is corruption, above it the tail of
 * a crash, dropped with all that follows, counted, never revived (the next generation begins with a
 * file that names the last position it follows). */
#ifndef MINIVAULT_STORE_RECOVERY_H
#define MINIVAULT_STORE_RECOVERY_H

#include "store/wal/wal.h"
#include "store/memory/location.h"

/* One record. `location` is where it lies; the slices are valid until it returns. Stops recovery
 * when not 0. */
typedef int wal_recover_each(void *context, const struct record *record, uint64_t location);

struct wal_recovered {
    uint64_t last_position; /* the log goes on after this */
    uint64_t records;
    uint64_t segments;
    uint64_t bytes_read;
    uint64_t dropped_bytes;    /* torn tail: never acknowledged */
    uint64_t clock_ceiling;    /* no stamp above this was ever given */
    uint64_t damaged_batches;  /* below the proven durable position: lost acknowledged writes */
    uint64_t damaged_last;     /* greatest position that may have been lost to damage; 0: none */
    uint64_t repaired_headers; /* files whose header was damaged but could be inferred from their
                                  batches */
};

/* Reads all log files in options->directory. Progress goes to the log as one line a second once it
 * takes longer than a second. Nothing on disk is changed. What it found is synced before it
 * returns, so that what was read is durable. Every problem is logged with file and offset. Errors:
 * -EPROTONOSUPPORT (a format or flag we do not know), -EXDEV (files of another directory), -EIO,
 * -ENOMEM, or what `each` returned. */
int wal_recover(struct io *io, const struct log *log, const struct wal_options *options,
                wal_recover_each *each, void *context, struct wal_recovered *ret_recovered,
                struct wal_state **ret_state);

/* The greatest note in the headers and marks of the log's files, before it is recovered; 0: none,
 * or no log. What cannot be read tells nothing. Errors: -ENOMEM, the directory's. */
int wal_recover_note(struct io *io, const struct wal_options *options, struct wal_note *ret_note);

/* For a state that is not handed to wal_open. Closes its files. */
void wal_state_free(struct io *io, struct wal_state *state);

/* Before the log is open: which records are alive is counted anew, by whoever knows. */
void wal_state_forget_alive(struct wal_state *state);
void wal_state_record_alive(struct wal_state *state, uint64_t location);

#endif
