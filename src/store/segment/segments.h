/* The partition segments of a shard: which there are, how much of each is alive, and their open
 * files. What is in them is written by the mover (mover.h) and read by fetches; the manifest
 * (manifest.h) says which of them count.
 *
 * Files are opened when they are needed and stay open, the least recently used ones are closed when
 * more than `open_max` are. Live bytes are sums of index_read_size of the live records: what the
 * index knows.
 *
 * Invariants:
 *
 *   1. A segment has its place in the table, `file`, until it is freed: longer than it counts.
 *   2. Those that were not removed have the ranks 0, 1, 2 ...; the ones in the manifest, whose end
 *      is not 0, have the lowest.
 *   3. A segment is among the empty ones if and only if it is in the manifest with nothing alive.
 *   4. doomed_bytes <= live_bytes, and nothing alive has no bytes.
 *   5. A pinned segment's file is open, or the pin waits for that. A removed one gets no new pin.
 *   6. open_count files are open or being opened; those that nobody pins are in the order of their
 *      last use.
 *   7. A segment has one operation at a time. */
#ifndef MINIVAULT_STORE_SEGMENTS_H
#define MINIVAULT_STORE_SEGMENTS_H

#include "base/list.h"
#include "base/log.h"
#include "io/io.h"
#include "store/memory/location.h"
#include "store/unit/unit.h"

#include <stdbool.h>
#include <stdint.h>

#define SEGMENT_PATH_MAX 4096u

enum segment_state {
    SEGMENT_OPEN,    /* the mover may still append to it */
    SEGMENT_SEALED,  /* complete: may become a victim of compaction */
    SEGMENT_LEAVING, /* nothing points into it any more: goes when nobody pins it */
};

struct segment {
    struct list_node partition_node; /* of its partition, ascending in number */
    struct list_node handle_node;    /* unpinned and open: in the order of their last use; or its
                                        file is to be removed: in the order of their going */
    struct list_node empty_node;     /* in the manifest, with nothing alive */
    struct io_op op;                 /* open, close, truncate, unlink */
    struct list waiters;             /* pins that wait for the open */
    struct segments *owner;
    struct segment *number_next; /* in the hash table of numbers */
    uint32_t file;               /* index in the table */
    uint32_t rank;               /* index for segments_nth */
    uint8_t partition;
    enum segment_source source;
    enum segment_state state;
    bool has_loss;     /* recovery: chunks that only its directories know are lost */
    bool is_loss_told; /* the manifest knows */
    uint64_t loss_position;
    uint64_t loss_offset; /* of what is lost first, as far as is known */
    bool is_damaged;      /* a part of it cannot be read: kept, never a victim */
    bool is_removed;      /* goes once nobody pins it */
    bool is_unlinked;     /* with its file */
    uint64_t file_left;   /* bytes of it, while it is removed */
    int handle;           /* < 0: not open */
    uint32_t pins;
    uint64_t taken_by_job; /* the mover's: the last job that had it as an input */
    uint64_t indexed_end;  /* recovery's: chunks up to here are in the checkpoint */
    uint64_t number;
    uint64_t salt;
    uint64_t created; /* log position, as in its header or lower */
    uint64_t end;     /* durable bytes, as in the manifest */
    /* What was ever put into it, since it was begun by this process (0: by another one): what the
     * rounded sizes of the index are worth here. */
    uint64_t filled_bytes;
    uint64_t filled_read_bytes;
    uint64_t live_records; /* tombstones too */
    uint64_t live_bytes;
    uint64_t doomed_bytes; /* of these: dead, but they still have slots (doomed.h) */
    uint64_t killer_last;  /* log position: it may go once this is durable */
    bool is_seen;          /* recovery: its file is there */
    bool created_telling;  /* the manifest's group under way says how low `created` is */
    bool created_changed;  /* `created` is lower than the manifest says: for its next group */
    char path[];           /* DATA/<2 hex>/seg-<16 hex> */
};

struct segments;

struct segments_options {
    const char *path; /* the data directory; the string stays the caller's */
    uint64_t directory_id;
    uint32_t log_id;
    uint32_t open_max; /* files open at once */
};

/* Errors: -ENOMEM, -ENAMETOOLONG. */
int segments_create(struct io *io, const struct log *log, const struct segments_options *options,
                    struct segments **ret_segments);

/* After the world was closed, or when no pin and no operation is left (segments_shut). May be NULL.
 */
void segments_free(struct segments *segments);

/* Whether files are still to be removed. */
bool segments_are_going(const struct segments *segments);

/* As long as this is so, files go as fast as they can: space is short, or nobody writes. */
void segments_set_hurry(struct segments *segments, bool is_hurried);

/* Waits until nothing is pinned, and what is under way has ended; closes all files. Synchronous.
 * Errors: io_run's. */
int segments_shut(struct segments *segments);

/* A new entry of the table; nothing happens on disk. Numbers are unique. Errors: -ENOMEM, -ENFILE
 * (LOCATION_FILES_MAX). */
int segments_add(struct segments *segments, uint8_t partition, enum segment_source source,
                 uint64_t number, struct segment **ret_segment);

/* Takes it out of the table at once; when nobody pins it any more its file is closed and, with
 * `unlink`, removed (best effort: what stays behind is removed at the next start), then it is
 * freed. Nothing is alive in it. */
void segments_remove(struct segments *segments, struct segment *segment, bool unlink);

/* NULL: no such file. O(1). */
struct segment *segments_find(const struct segments *segments, uint32_t file);

/* NULL: no such number. O(1) (a hash table). */
struct segment *segments_find_number(const struct segments *segments, uint64_t number);

/* Those that are in the manifest (segment_set_end), in no order, which changes only when one is
 * added to it or removed: NULL behind the last. O(1). */
struct segment *segments_nth(const struct segments *segments, uint64_t index);

/* The segments of a partition, ascending in number: the first one, and the one behind. NULL: none. */
struct segment *segments_first(const struct segments *segments, uint32_t partition);
struct segment *segment_next(const struct segment *segment);

/* What each chunk of the segment's file repeats. */
struct unit_file segment_unit_file(const struct segment *segment);

/* Keeps a file open for reading, with O_DIRECT, until segment_unpin. Returns its handle at once
 * when it is open; -EINPROGRESS: pin->done comes later from the loop, with the handle, or with the
 * error of the open: then there is nothing to unpin. Other errors: none. The pin is the caller's,
 * in use until done. A segment that was removed is not pinned again. */
struct segment_pin;
typedef void segment_pin_done(struct segment_pin *pin, int handle_or_error);
struct segment_pin {
    segment_pin_done *done;
    struct segment *segment;
    struct list_node node;
};
int segment_pin(struct segments *segments, struct segment *segment, struct segment_pin *pin);
void segment_unpin(struct segments *segments, struct segment *segment);

/* From a directory entry. Errors: -EINVAL. */
int segment_name_parse(const char *name, uint64_t *ret_number);

/* Whether pins, opens, closes or removals are under way. */
bool segments_are_busy(const struct segments *segments);

/* Accounts. The end is the manifest's, 0: it is not in there. `read_size` is the index entry's. */
void segment_set_end(struct segments *segments, struct segment *segment, uint64_t end);
void segment_add_live(struct segments *segments, struct segment *segment, uint64_t read_size);

/* The record at `location` is no longer alive: moved (killer position UINT64_MAX), or because of
 * the record at `killer_position` of the log. A record that died by a write older than its segment
 * was copied into it while nobody knew: then `created` is lowered, since that is what it says. */
void segment_record_dead(struct segments *segments, uint64_t location, uint64_t read_size,
                         uint64_t killer_position);

/* The record at `location` is dead but keeps its slot for now; and: it is about to lose its slot.
 */
void segment_record_doomed(struct segments *segments, uint64_t location, uint64_t read_size);
void segment_record_spared(struct segments *segments, uint64_t location, uint64_t read_size);

/* Whether there is a segment with nothing alive in it that is sound and that nobody pins. As good
 * as O(1): looks at damaged and pinned ones without anything alive until it finds another. */
bool segments_have_empty(const struct segments *segments);

struct segments_stats {
    uint64_t segments;   /* in the manifest */
    uint64_t size_bytes; /* of the files, up to their ends */
    uint64_t live_records;
    uint64_t live_bytes;
    uint64_t doomed_bytes; /* of the live bytes */
    uint64_t open_files;
};
/* O(1). */
void segments_stats(const struct segments *segments, struct segments_stats *ret_stats);

#endif
