/* What the scrubber's own files share.
 *
 *   scrub.c        passes, the rate, from phase to phase
 *   scrub_meta.c   superblock, manifest, checkpoint
 *   scrub_log.c    what of the log can be read
 *   scrub_file.c   reading a segment, batch by batch or chunk by chunk
 *   scrub_record.c the records of a batch or chunk
 *   scrub_value.c  value files
 *   scrub_report.c what was found, once a place
 *
 * From phase to phase:
 *
 *   RESTING -> META -> CHOOSING -> CHECKING <-> LOADING
 *      ^__________________|  ^________|  ^
 *                                +-> VALUE_OPENING -> VALUE_READING <-> VALUE_CHECKING
 *                                |_____________________________ VALUE_CLOSING <-|
 *   any -> STOPPED */
#ifndef MINIVAULT_STORE_SCRUB_INTERNAL_H
#define MINIVAULT_STORE_SCRUB_INTERNAL_H

#include "base/assert.h"
#include "store/catalog/manifest.h"
#include "store/record/record.h"
#include "store/scrub/scrub.h"
#include "store/unit/segment_format.h"
#include "store/catalog/superblock.h"
#include "store/value/value_file.h"
#include "store/wal/wal.h"

#define SCRUB_PARTITIONS 256u
#define SCRUB_PLACES_MAX 4096u

enum scrub_phase {
    SCRUB_RESTING,  /* until the next pass */
    SCRUB_META,     /* what the directory is lost without: scrub_meta.step */
    SCRUB_CHOOSING, /* the next file */
    SCRUB_CHECKING, /* what is in the window */
    SCRUB_LOADING,  /* the window */
    SCRUB_VALUE_OPENING,
    SCRUB_VALUE_READING,
    SCRUB_VALUE_CHECKING,
    SCRUB_VALUE_CLOSING,
    SCRUB_STOPPED,
};

/* ---- damage ---- */

enum scrub_kind {
    SCRUB_SUPERBLOCK,
    SCRUB_MANIFEST,
    SCRUB_CHECKPOINT,
    SCRUB_LOG,
    SCRUB_SEGMENT,
    SCRUB_VALUE,
};

enum scrub_place_state {
    SCRUB_PLACE_GONE, /* was not met again, or was written anew */
    SCRUB_PLACE_DEAD, /* nobody can be hurt by it */
    SCRUB_PLACE_ALIVE,
};

struct scrub_place {
    uint64_t number; /* of the segment or checkpoint; of the manifest its edition; of a value file
                        its version */
    uint64_t offset;
    uint64_t pass; /* the last one that met it */
    uint32_t origin;
    uint8_t kind;
    uint8_t state;
    bool is_told;
};

/* ---- superblock, manifest, checkpoint ---- */

enum scrub_meta_step {
    SCRUB_META_OPENING,
    SCRUB_META_READING,
    SCRUB_META_CHECKING,
    SCRUB_META_MENDING,
    SCRUB_META_CLOSING,
};

struct scrub_meta {
    enum scrub_kind kind;
    enum scrub_meta_step step;
    char path[SEGMENT_PATH_MAX];
    int handle;
    uint64_t number;
    struct manifest_mark mark; /* of the manifest, when it was opened */
    uint64_t end;
    uint64_t at;
    uint64_t sequence;   /* of the checkpoint's next block */
    uint64_t refused_at; /* what the device has just refused */
    bool is_ended;       /* its last block was seen */
    bool is_bad;         /* enough is known of the file */
};

/* ---- the file that is being checked ---- */

struct scrub_file {
    bool is_segment; /* of a partition; otherwise of the log */
    uint8_t partition;
    uint32_t file; /* in locations */
    uint64_t number;
    uint64_t salt;
    uint64_t end; /* nothing counts from here on */
    uint64_t at;  /* the next batch or chunk; 0: the header */
    /* the batch or chunk that is being taken apart */
    uint32_t records_left;
    uint32_t record_index;
    uint64_t record_offset;
    uint64_t unit_offset;
    uint64_t unit_end;
    uint64_t unit_size; /* of what begins at `at`, when it is read alone; 0: it is not */
    /* damage */
    uint64_t bad_from;     /* no header that belongs there from here on; 0: none is missing */
    int bad_error;         /* of the device, at bad_from */
    bool has_damage;       /* of whatever kind */
    bool has_alive_damage; /* in what the index leads to */
    bool has_bad_part;     /* nobody knows yet whether the index leads there */
    bool is_abandoned;     /* not all of it could be read just now */
    /* what the index has in it */
    uint64_t found_alive;
    uint64_t jobs_begin; /* the mover's */
};

struct scrub_window {
    uint8_t *data;
    uint64_t offset; /* in the file */
    uint32_t asked;
    uint32_t size; /* valid bytes */
    int error;     /* of the read */
};

struct scrub_value {
    struct value_file_name name;
    struct version version; /* of its record */
    uint64_t hash;          /* hash_index */
    char path[SEGMENT_PATH_MAX];
    int handle;
    uint64_t size;
    uint64_t at;         /* the next block to be read */
    uint64_t checked;    /* within the buffer, bytes */
    uint32_t read_size;  /* of a read at most */
    uint32_t asked;      /* bytes of the value */
    int32_t result;      /* of the read */
    uint64_t refused_at; /* the block that the device has just refused */
    bool is_bad;         /* the block before is damaged, and was reported with those behind it */
    uint8_t *buffer;     /* SCRUB_WINDOW_SIZE */
    uint8_t descriptor[VALUE_FILE_DESCRIPTOR_MAX];
};

struct scrub {
    struct io *io;
    const struct log *log;
    struct scrub_options options;
    enum scrub_phase phase;
    bool is_stopping;
    struct io_op timer;
    struct io_op op; /* of a window, or of a value file */
    struct segment_pin pin;
    bool is_pinning;
    /* the rate */
    uint64_t paid_ns; /* what was read is paid for by then */
    uint64_t disk_used;
    uint64_t disk_asked_ns; /* when disk_used was found out */
    /* the pass */
    uint64_t pass_next_ns;
    uint64_t pass_began_ns;
    uint64_t pass_ended_ns; /* the last complete one; without any: the start */
    uint32_t partition_first;
    uint32_t place;          /* 0: the log, then the partitions in order from partition_first */
    uint64_t number_last;    /* of the file before, in this place */
    uint64_t log_last;       /* number of the log's last segment when the pass began */
    bool is_pass_incomplete; /* something could not be read just now */
    struct scrub_meta meta;
    struct scrub_file file;
    struct scrub_window window;
    uint64_t window_next; /* what LOADING reads */
    uint32_t window_wanted;
    struct scrub_value value;
    struct scrub_place *places; /* SCRUB_PLACES_MAX */
    uint32_t place_count;
    struct scrub_stats stats;
};

/* ---- scrub.c ---- */

/* Whether the rate lets another read begin; if not, the timer was set. */
bool scrub_may_read(struct scrub *scrub);

/* So many bytes were asked of the disk. */
void scrub_pay(struct scrub *scrub, uint64_t size);

/* ---- scrub_meta.c ---- */

void scrub_meta_begin(struct scrub *scrub);

/* A piece of it: as scrub_step. */
bool scrub_meta_step(struct scrub *scrub, uint64_t budget);

/* Returns whether something has to be waited for. */
bool scrub_meta_stop(struct scrub *scrub);

/* Counts what was written anew since. */
void scrub_meta_settle(struct scrub *scrub);

/* ---- scrub_file.c ---- */

enum scrub_check {
    SCRUB_CHECK_MORE,
    SCRUB_CHECK_LOAD,  /* wants what scrub_want asked for */
    SCRUB_CHECK_VALUE, /* a value file is to be checked first */
    SCRUB_CHECK_END,   /* of the file */
};

/* What the next piece is; *used grows by what it has cost. */
enum scrub_check scrub_check_next(struct scrub *scrub, uint64_t *used);

/* Whether the file is still the one that was chosen. */
bool scrub_file_is_there(const struct scrub *scrub);

/* NULL: it was removed. */
struct segment *scrub_segment(const struct scrub *scrub);

/* Starts the read that scrub_want asked for: opening the file may come first. */
void scrub_load(struct scrub *scrub);

static inline const uint8_t *scrub_window_at(const struct scrub *scrub, uint64_t offset)
{
    assert(offset >= scrub->window.offset);
    return scrub->window.data + (offset - scrub->window.offset);
}

/* ---- scrub_record.c ---- */

/* The next record of the unit. */
enum scrub_check scrub_check_record(struct scrub *scrub, uint64_t *used);

/* ---- scrub_value.c ---- */

/* The value file that this record, which is alive, names. Errors: -EBADMSG, -EPROTONOSUPPORT (its
 * descriptor). */
int scrub_value_begin(struct scrub *scrub, const struct record *record, uint64_t hash);

/* A piece of it: as scrub_step. */
bool scrub_value_step(struct scrub *scrub, uint64_t budget);

/* ---- scrub_report.c ---- */

/* What the index says of a record. */
enum scrub_life {
    SCRUB_DEAD,   /* nothing leads to it */
    SCRUB_HIDDEN, /* behind a newer write of its hash, until that is proved to be its key's */
    SCRUB_NEWEST,
};

/* [offset, end) of the file cannot be used, and nobody knows what was in there. */
void scrub_report_part(struct scrub *scrub, uint64_t offset, uint64_t end, const char *what);
void scrub_report_record(struct scrub *scrub, uint64_t offset, enum scrub_life life,
                         const char *what);
void scrub_report_value(struct scrub *scrub, uint64_t offset, const char *what);

/* The index has more in the segment than was found there. */
void scrub_report_lost(struct scrub *scrub, uint64_t count);

/* The file was read to its end. `is_complete`: everything that the index has in it was found, so
 * that nothing alive lies in what could not be read. A segment of which nothing that is alive is
 * damaged by now is like any other. */
void scrub_report_end(struct scrub *scrub, bool is_complete);

/* What is in memory, and is going to be written anew. */
void scrub_report_meta(struct scrub *scrub, enum scrub_kind kind, uint64_t number, uint64_t offset,
                       const char *what);
void scrub_report_mended(struct scrub *scrub, enum scrub_kind kind, uint64_t number,
                         uint64_t offset);

/* Behind a pass: what it did not meet counts no longer. */
void scrub_report_pass(struct scrub *scrub);

#endif
