/* The log reader: decides which bytes of a set of log files are the log, and shows their records.
 * No I/O of its own: its users are recovery and minivault-admin.
 *
 * Terms. A batch belongs where it lies when log, directory, generation, salt, file number and
 * offset are those of the file (unit.h). `expected` is the position that must come next, `proof`
 * the greatest position that a sound header of the generation says was durable; of a generation
 * that has a successor it is the position where the successor went on.
 *
 *   a sound batch that belongs here,      its records are the log's
 *     position = expected
 *   anything else, expected <= proof      damage: noted, as much as is sound is shown
 *   anything else, expected > proof       the log ended here: nothing behind it is shown, though
 *                                         it may look sound (two writes were in flight)
 *   batches of a generation beyond        stale: never shown
 *     its successor's start
 *
 * To know `proof` the reader looks ahead at all headers up to the end of the generation, once, when
 * it meets the first place that is not as it should be.
 *
 * Invariants:
 *   1. The files ascend in number, without repetition.
 *   2. `expected` only grows within a generation; a position is shown once.
 *   3. Once is_proved, `proof` is final for the generation.
 *   4. What is shown is at most `limit`. */
#ifndef MINIVAULT_STORE_WAL_SCAN_H
#define MINIVAULT_STORE_WAL_SCAN_H

#include "store/record/record.h"
#include "store/unit/wal_format.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAL_READABLE UINT64_MAX

/* How many records are announced before they are shown. */
#define WAL_SCAN_AHEAD 16u

enum wal_file_kind {
    WAL_FILE_RECORDS,
    WAL_FILE_SPARE,      /* its mark says that it holds nothing */
    WAL_FILE_UNFINISHED, /* it was never put to use */
    WAL_FILE_UNKNOWN,    /* nothing in it can be read: to be left alone */
    WAL_FILE_COPY,       /* of another one: to be left alone */
};

struct wal_scan_file {
    uint32_t index;           /* the caller's: before wal_survey_order, this file's in the list */
    uint64_t size;            /* bytes in the file, a multiple of the block */
    const char *path;         /* the caller's, for messages */
    uint64_t unreadable_last; /* offset of the last block that the device did not give (it reads as
                                 zeros); WAL_READABLE: none. May change during `load`. */
    /* What the survey found (wal_survey.h): */
    enum wal_file_kind kind;
    struct log_file_header header;
    uint64_t mark; /* the number in its spare mark; 0: there is none */
    bool is_dead;  /* it has records that count no more */
    /* What the scan found: */
    uint64_t end;           /* nothing from here on is the log's */
    uint64_t position_last; /* 0: no record */
    bool is_sealed;
    bool is_damaged;
};

/* What the reader has to tell besides records. */
enum wal_note_kind {
    /* the scan */
    WAL_NOTE_DAMAGE,  /* [from, upto) is damaged: `what` */
    WAL_NOTE_LOST,    /* the writes at position_first to position_last are missing before `from`,
                         although they were acknowledged */
    WAL_NOTE_UNKNOWN, /* the record at `from` has a format or flags of another release: the scan
                         ends with -EPROTONOSUPPORT */
    /* the window */
    WAL_NOTE_UNREADABLE, /* from the block at `from` on, in part: `error` */
    /* the survey */
    WAL_NOTE_FORMAT,      /* `header` is of another release: it ends with -EPROTONOSUPPORT */
    WAL_NOTE_FOREIGN,     /* `header` is of another log: it ends with -EXDEV */
    WAL_NOTE_INFERRED,    /* `header` was damaged, but follows from the batches */
    WAL_NOTE_NOTHING,     /* nothing in the file can be read */
    WAL_NOTE_COPY,        /* a copy of the file `what` */
    WAL_NOTE_BEFORE_BASE, /* of a log that was here before */
    WAL_NOTE_MISSING,     /* the file `number` is gone, with writes up to position_last at most */
    WAL_NOTE_MAY_MISS,    /* it is gone, and whether it was needed is not known */
    WAL_NOTE_END_GONE,    /* the log ends at position_first, but had reached position_last */
};

struct wal_scan_note {
    enum wal_note_kind kind;
    uint32_t file; /* in the scan's list, but for MISSING, MAY_MISS, END_GONE */
    uint64_t from;
    uint64_t upto;
    uint64_t position_first;
    uint64_t position_last;
    uint64_t number;
    const struct log_file_header *header;
    const char *what;
    int error;
    uint8_t format;
    uint8_t flags;
};

/* What follows from a note. */
enum wal_note_weight {
    WAL_NOTE_DAMAGES,
    WAL_NOTE_WARNS,   /* nothing is known to be lost */
    WAL_NOTE_REFUSES, /* only another release, or another directory, can explain it */
};
enum wal_note_weight wal_note_weight(const struct wal_scan_note *note);

/* The finding in words, in ret_text (WAL_NOTE_SIZE bytes): what it is, what it means, without the
 * file and note->from. */
#define WAL_NOTE_SIZE ((size_t)512)
void wal_note_describe(const struct wal_scan_note *note, char *ret_text);

/* Why a start is refused with this record, which is sound, in a clause with the remedy; NULL: it is
 * not. `partition`: of its key. */
const char *wal_judge_record(const struct record *record, uint32_t partition, uint32_t shard,
                             uint32_t shard_count);

/* What a recovery finds. The scan leaves out what only survey and recovery know. */
struct wal_recovered {
    uint64_t last_position; /* the log goes on after this */
    uint64_t records;
    uint64_t files;            /* recovery's */
    uint64_t bytes_read;       /* recovery's */
    uint64_t dropped_bytes;    /* torn tail: never acknowledged */
    uint64_t clock_ceiling;    /* no stamp above this was ever given */
    uint64_t damaged_batches;  /* below the proven durable position: lost acknowledged writes */
    uint64_t damaged_last;     /* greatest position that may have been lost to damage; 0: none */
    uint64_t repaired_headers; /* the survey's: files whose header was damaged but could be inferred
                                  from their batches */
};

struct wal_scan {
    /* The caller's. */
    struct wal_scan_file *files; /* invariant 1 */
    uint32_t file_count;
    void *context;
    /* Makes the bytes from `from` to `upto` of a file readable at (*ret_image)[from..upto),
     * until the next call. Errors: -errno, which end the scan. A block that cannot be read is not
     * one: see unreadable_last. */
    int (*load)(void *context, uint32_t file, uint64_t from, uint64_t upto,
                const uint8_t **ret_image);
    /* One record at `offset` of the file; anything but 0 ends the scan. */
    int (*record)(void *context, uint32_t file, uint64_t offset, const struct record *record);
    /* A record of this key is likely to be shown soon. May be NULL. */
    void (*coming)(void *context, struct slice key);
    /* Each is told once, however many there are. */
    void (*note)(void *context, const struct wal_scan_note *note);

    struct wal_recovered found;

    /* The reader's. */
    uint32_t generation_end; /* the files of the current generation end before this index */
    uint64_t expected;
    uint64_t limit; /* last position of the current generation that counts */
    uint64_t proof;
    bool is_proved;
    uint64_t tail_bytes; /* what the last look ahead saw from where it began */
};

/* All zero but for the caller's fields before it is called. Errors: -EPROTONOSUPPORT (noted), what
 * `load` and `record` returned. */
int wal_scan_run(struct wal_scan *scan);

/* For a file whose header is not readable: finds out from its batches which one it is and fills
 * files[index].header in; directory and log id must be there already. Only a file numbered above
 * `number_above` counts. Returns 1, or 0 when there is none. Errors: what `load` returned. */
int wal_scan_infer(struct wal_scan *scan, uint32_t index, uint64_t number_above);

#endif
