/* Units: a log file is a sequence of batches, a partition segment a sequence of chunks. Both have a
 * header that says where it belongs, a part that the header's checksum vouches for (a batch's
 * records, a chunk's directory), and records. Here is their only reader. It does no I/O: its users
 * bring the bytes, and map what it finds to what they do about it.
 *
 *   found                          recovery  segment scan  mover    scrubber  minivault-admin
 *   a sound unit                   shows it  shows it      moves    checks    shows it
 *   a sound header, unsound part   salvages  quarantines   skips    reports   reports, salvages
 *   no header that belongs here    end, or damage up to the next sound header
 *
 * Invariants:
 *   1. No length is believed before the checksum over it holds; a record's own size, which no
 *      checksum covers alone, only where the sizes of all the batch's records add up.
 *   2. A unit lies in its file: offset + size <= end.
 *   3. A scan only moves forward, and each step moves it or says why not.
 *   4. Of a gap without headers, the begin is known until its end is told. */
#ifndef MINIVAULT_STORE_UNIT_H
#define MINIVAULT_STORE_UNIT_H

#include "store/record/record.h"
#include "store/unit/segment_format.h"
#include "store/unit/wal_format.h"

#define UNIT_HEADER_SIZE 128u
#define UNIT_SIZE_MAX MIB /* of what unit_scan_step shows */

/* Where a unit must lie: what each header of the file repeats. */
struct unit_file {
    bool is_segment; /* chunks; otherwise batches */
    uint32_t log_id; /* this and the next one of batches; generation 0: not known, nor is log_id */
    uint64_t generation;
    uint64_t directory_id;
    uint64_t salt;
    uint64_t number;
    uint64_t end; /* nothing counts from here on */
};

struct unit {
    bool is_segment;
    uint64_t offset;         /* in the file */
    uint64_t size;           /* in the file, with padding */
    uint64_t records_offset; /* in the unit */
    uint64_t records_end;
    uint32_t record_count;
    union {
        struct wal_batch_header batch;
        struct segment_chunk_header chunk;
    };
};

enum unit_verdict {
    UNIT_SOUND,   /* a sound header that belongs here; what it vouches for is not verified */
    UNIT_FOREIGN, /* a sound header of another place: the unit is set, too */
    UNIT_TORN,    /* not sound, but it names this file's salt */
    UNIT_NONE,
};

/* What the DISK_BLOCK_SIZE bytes at `data`, which lie at `offset` of the file, begin with. */
enum unit_verdict unit_look(const struct unit_file *file, uint64_t offset, const uint8_t *data,
                            struct unit *ret_unit);

/* Whether what the header vouches for holds: a batch's records (unit->size bytes at `data`), or a
 * chunk's directory (unit->records_offset bytes). */
bool unit_is_sound(const struct unit *unit, const uint8_t *data);

/* ---- records ---- */

/* Where in a unit one is; zero at its begin. */
struct unit_cursor {
    uint32_t index;  /* of the next record */
    uint64_t offset; /* of the next record in the unit; 0: of the first one */
};

struct unit_record {
    const uint8_t *data;
    uint64_t offset;            /* in the file */
    uint32_t size;              /* unpadded */
    struct segment_entry entry; /* of a chunk: what the directory says */
    struct record record;       /* of a batch; of a chunk once unit_record_verify has set it */
};

/* The next record of the unit at `data`. Of a batch it is decoded and verified; of a chunk, whose
 * directory holds, it is located. Returns 1, or 0 when there is none left. Errors: -EBADMSG,
 * -EPROTONOSUPPORT (as record_decode; only of a batch): the cursor is behind the record, or at the
 * unit's end when nothing says where the next one begins. `offset` and `data` are set. */
int unit_next(const struct unit *unit, const uint8_t *data, struct unit_cursor *cursor,
              struct unit_record *ret_record);

/* Decodes a chunk's located record. Errors: -EBADMSG, -EPROTONOSUPPORT (of a format or flags that
 * are not known), -ESTALE (sound, but not the one that the directory describes, or of another
 * partition). `secret`: the hash's. */
int unit_record_verify(struct unit_record *record, uint8_t partition, const uint8_t *secret);

/* ---- a file from unit to unit ---- */

/* Makes [offset, offset + size) of the file readable at *ret_data, until the next call. Errors:
 * -EAGAIN (not yet: the step is done again later), -ERANGE (the file ends before), any other one
 * (the device does not give it). */
typedef int unit_need(void *context, uint64_t offset, uint64_t size, const uint8_t **ret_data);

struct unit_scan {
    /* The caller's. */
    struct unit_file file;
    uint64_t at;         /* the next unit */
    bool has_heads_only; /* of a chunk, its directory is enough */
    bool trusts_records; /* a batch's checksum is not verified: the reader looks at each record's */
    unit_need *need;
    void *context;
    /* Of the last step. */
    struct unit unit;    /* FOUND; DAMAGED, when damage.is_unit */
    const uint8_t *data; /* the unit's; NULL: the device does not give it */
    struct unit_damage {
        uint64_t from;
        uint64_t upto;
        int error;        /* the device's; 0: see `what` */
        bool is_cut;      /* the file ends before */
        bool is_unit;     /* it is one unit, whose header is sound */
        const char *what; /* is wrong, without `error` */
    } damage;
    /* The scan's own. */
    bool has_header;   /* the header of `unit`, at `at`, was sound */
    uint64_t gap_from; /* no header that belongs there from here on; 0: none is missing */
    int gap_error;     /* the device's, at gap_from */
};

enum unit_step {
    UNIT_FOUND,
    UNIT_DAMAGED, /* [damage.from, damage.upto) cannot be used */
    UNIT_SKIPPED, /* a block of a gap, which is told of once it ends */
    UNIT_WAIT,    /* `need` has to wait */
    UNIT_END,
};

/* Finds the next unit, and moves behind it. */
enum unit_step unit_scan_step(struct unit_scan *scan);

/* What is wrong, in words. */
const char *unit_describe(const struct unit_damage *damage);

#endif
