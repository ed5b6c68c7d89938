/* The log reader: decides which bytes of a set of segments are the log, and shows their records. No
 * I/O of its own.
 *
 * Terms. A batch belongs where it lies when log, directory, generation, salt, segment number and
 * offset are those of the place. `expected` is the position that must come next, `proof` the
 * greatest position that a sound header of the generation says was durable; of a generation that
 * has a successor it is the position where the successor went on.
 *
 *   a sound batch that belongs here, position = expected     its records are the log's
 *   anything else, expected <= proof                          damage: noted, as much as is sound is
 * shown anything else, expected > proof                           the log ended here: nothing
 * behind it is shown, though it may look sound (two writes were in flight) batches of a generation
 * beyond its successor's start      stale: never shown
 *
 * To know `proof` the reader looks ahead at all headers up to the end of the generation, once, when
 * it meets the first place that is not as it should be. */
#ifndef MINIVAULT_STORE_WAL_SCAN_H
#define MINIVAULT_STORE_WAL_SCAN_H

#include "store/record/record.h"
#include "store/unit/wal_format.h"

#include <stdbool.h>
#include <stdint.h>

#define WAL_READABLE UINT64_MAX

/* How many records are announced before they are shown. */
#define WAL_SCAN_AHEAD 16u

struct wal_scan_segment {
    struct log_file_header header;
    uint64_t size;            /* bytes in the file, a multiple of the block */
    const char *path;         /* the caller's, for messages */
    uint64_t unreadable_last; /* offset of the last block that the device did not give (it reads as
                                 zeros); WAL_READABLE: none. May change during `load`. */
    /* What the scan found: */
    uint64_t end;           /* nothing from here on is the log's */
    uint64_t position_last; /* 0: no record */
    bool is_sealed;
    bool is_damaged;
};

/* What the reader has to tell besides records. */
enum wal_scan_note_kind {
    WAL_SCAN_DAMAGE,  /* [from, upto) is damaged: `what` */
    WAL_SCAN_LOST,    /* the writes at position_first to position_last are missing before `from`,
                         although they were acknowledged */
    WAL_SCAN_UNKNOWN, /* the record at `from` has a format or flags of another release: the scan
                         ends with -EPROTONOSUPPORT */
};

struct wal_scan_note {
    enum wal_scan_note_kind kind;
    uint32_t segment;
    uint64_t from;
    uint64_t upto;
    uint64_t position_first;
    uint64_t position_last;
    const char *what;
    uint8_t format;
    uint8_t flags;
};

struct wal_scan_found {
    uint64_t last_position;
    uint64_t records;
    uint64_t dropped_bytes;
    uint64_t clock_ceiling;
    uint64_t damaged_batches;
    uint64_t damaged_last;
};

struct wal_scan {
    /* The caller's. */
    struct wal_scan_segment *segments; /* ascending in number, without repetition */
    uint32_t segment_count;
    void *context;
    /* Makes the bytes from `from` to `upto` of a segment readable at (*ret_image)[from..upto),
     * until the next call. Errors: -errno, which end the scan. A block that cannot be read is not
     * one: see unreadable_last. */
    int (*load)(void *context, uint32_t segment, uint64_t from, uint64_t upto,
                const uint8_t **ret_image);
    /* One record at `offset` of the segment; anything but 0 ends the scan. */
    int (*record)(void *context, uint32_t segment, uint64_t offset, const struct record *record);
    /* A record of this key is likely to be shown soon. May be NULL. */
    void (*coming)(void *context, struct slice key);
    /* Each is told once, however many there are. */
    void (*note)(void *context, const struct wal_scan_note *note);

    struct wal_scan_found found;

    /* The reader's. */
    uint32_t generation_end; /* the segments of the current generation end before this index */
    uint64_t expected;
    uint64_t limit; /* last position of the current generation that counts */
    uint64_t proof;
    bool is_proved;
    uint64_t tail_bytes; /* what the last look ahead saw from where it began */
};

/* All zero but for the caller's fields before it is called. Errors: -EPROTONOSUPPORT (noted), what
 * `load` and `record` returned. */
int wal_scan_run(struct wal_scan *scan);

/* For a segment whose header is not readable: finds out from its batches which segment it is and
 * fills segments[index].header in; directory and log id must be there already. Only a segment
 * numbered above `number_above` counts. Returns 1, or 0 when there is none. Errors: what `load`
 * returned. */
int wal_scan_infer(struct wal_scan *scan, uint32_t index, uint64_t number_above);

#endif
