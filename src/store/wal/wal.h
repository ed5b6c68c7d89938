/* The write-ahead log: appends records, groups them into batches, says when they are on stable
 * media.
 *
 *   append ... append -> open buffer -- flush --> write in flight -- done --> durable, in log order
 *                                                                                |
 *                                                                              events
 *
 * A write appends its record to the open buffer and gets a position (a count, 1 and up, never
 * reused once it was durable) and a location (where its bytes will lie for good). Group commit has
 * no timer: when no write is in flight the open buffer goes out at the end of the pass; otherwise
 * it fills until one completes. One or two writes are in flight; durability advances in log order
 * only. A record larger than a buffer gets a jumbo buffer of its own.
 *
 * The log lies in `directory`: log files, preallocated, zeroed once, recycled when nothing in them
 * is alive. The byte formats stand in wal_format.h, reading them back in wal_recover.h. */
#ifndef MINIVAULT_STORE_WAL_H
#define MINIVAULT_STORE_WAL_H

#include "base/log.h"
#include "io/io.h"
#include "store/record/record.h"
#include "store/unit/wal_format.h"
#include "store/memory/location.h"

#include <stdbool.h>
#include <stdint.h>

struct wal;

enum wal_durability {
    WAL_COMMIT,   /* acknowledged when on stable media */
    WAL_INTERVAL, /* acknowledged at once, written and synced at least every WAL_INTERVAL_MS */
    WAL_NONE, /* acknowledged at once, written as buffers fill (and at least every second), synced
                 at the end of a file, so that it can be recycled, and at shutdown */
};

#define WAL_INTERVAL_MS 10

struct wal_events {
    void *context;
    /* Everything up to `position` is on stable media. Runs from a completion. */
    void (*durable)(void *context, uint64_t position);
    /* wal_append said -EAGAIN earlier and may succeed now. */
    void (*room)(void *context);
    /* A write or sync failed: nothing that is not durable yet ever will be, wal_append refuses from
     * now on. Once. */
    void (*failed)(void *context, int error);
    /* The disk is full: whether room may come soon without anybody's help. Then an append waits
     * (-EAGAIN) instead of failing. Asked for each append that finds no file; may be NULL. */
    bool (*may_clear)(void *context);
    /* The owner's note as of now, for a header or mark that is about to be written; may be NULL. */
    struct wal_note (*note)(void *context);
    /* Recovery is likely to show a record of this key soon: time to ask the memory for what that
     * takes. Nothing is promised. May be NULL. */
    void (*coming)(void *context, struct slice key);
};

struct wal_options {
    const char *directory; /* of the log files; exists; the caller's as long as the log is open */
    uint64_t directory_id; /* the superblock's: a file of another directory is foreign */
    uint32_t log_id;       /* this shard's log */
    uint64_t file_size;    /* bytes: a multiple of 4096, at most 2 GiB */
    uint32_t buffer_size;  /* bytes of an ordinary batch buffer, with its header */
    uint32_t buffer_count; /* at least 3 */
    uint32_t record_size_max;  /* bytes: what a jumbo buffer must hold */
    uint32_t writes_in_flight; /* 1 or 2 (the probe's) */
    bool use_dsync;            /* RWF_DSYNC, otherwise write then fdatasync (the probe's) */
    enum wal_durability durability;
    bool is_brief; /* opened to be emptied: no file is made ready beyond the one for deletes */
    uint64_t last_known;   /* position that the log reached, as of a clean shutdown; 0: unknown */
    uint64_t number_known; /* of its newest file then */
    uint64_t base;   /* the log begins above this position: without a file it has reached it */
    uint8_t *memory; /* wal_memory_size bytes of the world's region, aligned to 4096: the caller's,
                        for as long as the log is open */
    struct wal_events events;
};

/* How much of the region a log with these options needs. */
size_t wal_memory_size(const struct wal_options *options);

/* The log's files and what recovery knows of them: the writer goes on from there. Made by wal_recover
 * (wal_recover.h). */
struct wal_files;

/* Opens the log for appending in a new generation, after what is in `files`. Synchronous. The files
 * belong to the log from here on (also after an error). Errors: -ENOSPC, -EIO, -ENOMEM, ... */
int wal_open(struct io *io, const struct log *log, const struct wal_options *options,
             struct wal_files *files, struct wal **ret_wal);

/* Writes and syncs everything, so that all is durable whatever the durability mode, then seals.
 * Synchronous. Only wal_durable, wal_last, wal_stats and wal_free may follow; no read of a pinned
 * file may be under way. Errors: what failed: then not everything is durable. */
int wal_shut(struct wal *wal);

/* Frees the memory. Without wal_shut before it, or with operations still active, only after the
 * world was closed. */
void wal_free(struct wal *wal);

struct wal_receipt {
    uint64_t position;
    uint64_t location;
};

/* Appends a record (record->position is set by the log). Key and value are copied before it
 * returns. Errors: -EAGAIN (no buffer or file is free: come back at the `room` event), -ENOSPC
 * (the disk is full: appends are refused; wal_has_space tells when it is over), -EIO (the log
 * failed), -EFBIG (over record_size_max). */
int wal_append(struct wal *wal, struct record *record, struct wal_receipt *ret_receipt);

/* End of a pass: starts the writes that group commit wants now. */
void wal_flush(struct wal *wal);

/* Everything up to here is on stable media. */
uint64_t wal_durable(const struct wal *wal);

/* The position of the last record appended. */
uint64_t wal_last(const struct wal *wal);

/* The number of the newest file. */
uint64_t wal_number(const struct wal *wal);

/* Whether the disk leaves room: false from when no further file could be prepared until one was.
 * Meanwhile sets go on only as long as the files at hand last, deletes longer; reads are not
 * concerned. */
bool wal_has_space(const struct wal *wal);

/* Whether a small set would be taken, at once or when it has waited a little: only a full disk refuses
 * one. */
bool wal_takes_sets(const struct wal *wal);

/* What a reply that shows `position` must wait for: the position itself in commit mode, 0 in the
 * others. */
uint64_t wal_gate(const struct wal *wal, uint64_t position);

/* Prepares no further file unless this much of the disk stays free beside it: what moving
 * records needs comes first. 0 at first. */
void wal_set_room_min(struct wal *wal, uint64_t bytes);

/* Keeps no more spare files than it wants ready: next to nothing is alive, so that the space is
 * worth more than the time. */
void wal_set_few_spares(struct wal *wal, bool are_few);

/* Makes no further files for sets, which wait for recycled ones: the log is too long. */
void wal_set_held(struct wal *wal, bool is_held);

/* A file that comes free stays as a spare as long as sealed files and spares together have less than
 * this many bytes, beside the few that are always kept: a log whose length goes up and down needs them
 * again soon, and new ones have to be filled with zeros first. 0 at first. */
void wal_set_spares_below(struct wal *wal, uint64_t bytes);

/* Goes on in the next file when files are still there only because the newest header lists them;
 * as long as enough files are at hand. Returns whether it did. */
bool wal_shed(struct wal *wal);

/* Goes on in the next file, so that the log can be emptied: when the open one has records, or
 * when that lets files go; as long as enough others are at hand. Returns whether it did. */
bool wal_roll(struct wal *wal);

/* The bytes at `location` while a buffer still holds them (they may not be on disk yet), otherwise
 * NULL: also of a location in a segment. Valid until the end of the pass. */
const uint8_t *wal_peek(const struct wal *wal, uint64_t location);

/* The io handle to read from, and its pin: a pinned file is not recycled. */
int wal_pin_file(struct wal *wal, uint32_t file);
void wal_unpin_file(struct wal *wal, uint32_t file);

/* The record at `location` is no longer alive, because of the record at `killer_position`. A sealed
 * file without live records is recycled once its last killer is durable and nobody pins it. */
void wal_record_dead(struct wal *wal, uint64_t location, uint64_t killer_position);

/* The record at `location` is dead but keeps its slot for now; and: it is about to lose its slot.
 */
void wal_record_doomed(struct wal *wal, uint64_t location);
void wal_record_spared(struct wal *wal, uint64_t location);

/* The sealed files with live records, for the mover: a file goes once its records are dead,
 * and a record that lies elsewhere by now is dead here (wal_record_dead with killer position 0). */
struct wal_sealed {
    uint32_t file;   /* in locations; to be pinned for reading */
    uint64_t number; /* grows with time */
    uint64_t salt;
    uint64_t end;   /* batches lie in [WAL_DATA_OFFSET, end) */
    bool is_fading; /* next to nothing of it is alive: what is left is likely to die as well */
};

/* The one with the lowest number above `after`. Returns false: there is none. */
bool wal_next_sealed(const struct wal *wal, uint64_t after, struct wal_sealed *ret_sealed);

/* The one with the fewest live records: moving these frees it soonest. Returns false: there is
 * none. */
bool wal_emptiest_sealed(const struct wal *wal, struct wal_sealed *ret_sealed);

/* From now on also those that are damaged: what can be read of them. */
void wal_move_damaged(struct wal *wal);

/* Bytes of all of them. */
uint64_t wal_sealed_bytes(const struct wal *wal);

/* No record that a recovery could find in the log has a smaller position than this. */
uint64_t wal_first_position(const struct wal *wal);

/* For the scrubber: the file with live records with the lowest number above `after`, up to `last`,
 * sealed or open; `end`: as far as it is on the disk for certain. Returns false: there is none. */
bool wal_next_readable(const struct wal *wal, uint64_t after, uint64_t last,
                       struct wal_sealed *ret_readable);

/* The path of a file, as long as it is the one with this number. NULL: it has gone. */
const char *wal_file_path(const struct wal *wal, uint32_t file, uint64_t number);

/* The path and the number of a file that has live records, or is pinned. */
const char *wal_name_file(const struct wal *wal, uint32_t file, uint64_t *ret_number);

/* Whether it has live records. */
bool wal_file_is_alive(const struct wal *wal, uint32_t file);

/* A part of it cannot be read: it is never recycled. */
void wal_keep_damaged(struct wal *wal, uint32_t file);

struct wal_stats {
    uint64_t files;      /* spare ones too */
    uint64_t size_bytes; /* of all of them */
    uint64_t live_records;
    uint64_t batches;       /* written since start */
    uint64_t bytes_written; /* since start, headers and padding too */
    uint64_t recycled;      /* files, since start */
};
void wal_stats(const struct wal *wal, struct wal_stats *ret_stats);

#endif
