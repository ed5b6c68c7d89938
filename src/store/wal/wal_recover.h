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
#include "store/wal/wal_scan.h"

/* One record. `location` is where it lies; the slices are valid until it returns. Stops recovery
 * when not 0. */
typedef int wal_recover_each(void *context, const struct record *record, uint64_t location);

/* Reads all log files in options->directory. Progress goes to the log as one line a second once it
 * takes longer than a second. Nothing on disk is changed. What it found is synced before it
 * returns, so that what was read is durable. Every problem is logged with file and offset. Errors:
 * -EPROTONOSUPPORT (a format or flag we do not know), -EXDEV (files of another directory), -EIO,
 * -ENOMEM, or what `each` returned. */
int wal_recover(struct io *io, const struct log *log, const struct wal_options *options,
                wal_recover_each *each, void *context, struct wal_recovered *ret_recovered,
                struct wal_files **ret_files);

/* The greatest note in the headers and marks of the log's files, before it is recovered; 0: none,
 * or no log. What cannot be read tells nothing. Errors are logged: -ENOMEM, the directory's. */
int wal_recover_note(struct io *io, const struct log *log, const struct wal_options *options,
                     struct wal_note *ret_note);

/* For files that are not handed to wal_open: closes them. May be NULL. */
void wal_files_abandon(struct io *io, struct wal_files *files);

/* Before the log is open: which records are alive is counted anew, by whoever knows. */
void wal_files_forget_alive(struct wal_files *files);
void wal_files_record_alive(struct wal_files *files, uint64_t location);

/* ---- what earlier lives left; synchronous, while the log is opened. Errors: the device's ---- */

/* Before the new generation's first header: files whose seal a crash prevented get it, so that from
 * now on an end that is missing shows. `block`: room for one. */
int wal_recover_seal_old(struct wal_files *files, struct io *io, uint8_t *block);

/* Behind it: what a crash left behind the ends. */
int wal_recover_cut_old(struct wal_files *files, struct io *io);

#endif
