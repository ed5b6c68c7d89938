/* What the recovery_*.c files share. */
#ifndef MINIVAULT_STORE_RECOVERY_INTERNAL_H
#define MINIVAULT_STORE_RECOVERY_INTERNAL_H

#include "store/wal/wal_recover.h"
#include "store/wal/wal_files.h"
#include "store/wal/wal_scan.h"

#define READER_PARTS 2
#define READER_PART_SIZE ((uint32_t)MIB)
#define READER_KEPT_SIZE (64 * MIB)

/* Reads segment files ahead, front to back. A whole segment has its place in the address space, so
 * that every batch lies in one piece; memory behind the reader is given back. */
struct reader {
    struct io *io;
    const struct log *log;
    uint8_t *image; /* reserved address space */
    uint64_t capacity;
    const struct log_file *segment;
    struct wal_scan_segment *place;
    uint64_t begin; /* [begin, done) is in memory */
    uint64_t done;
    uint64_t asked; /* reads are under way up to here */
    uint64_t bytes_read;
    uint32_t part_first; /* the oldest one under way */
    uint32_t part_count;
    struct reader_part {
        struct io_op op;
        uint64_t offset;
        uint32_t size;
    } parts[READER_PARTS];
};

/* `capacity`: the size of the largest file. Errors: -ENOMEM. */
int reader_init(struct reader *reader, struct io *io, const struct log *log, uint64_t capacity);
void reader_deinit(struct reader *reader);

/* Makes [from, upto) of the segment readable at image + from. Blocks that the device does not give
 * are zeros, logged, and noted in `place`. Errors: whatever else a read or io_run says. */
int reader_load(struct reader *reader, const struct log_file *segment,
                struct wal_scan_segment *place, uint64_t from, uint64_t upto);

/* Whether [from, upto) of the segment is in memory already. */
static inline bool reader_holds(const struct reader *reader, const struct log_file *segment,
                                uint64_t from, uint64_t upto)
{
    return segment == reader->segment && from >= reader->begin && upto <= reader->done;
}

struct wal_recovery {
    struct io *io;
    const struct log *log;
    const struct wal_options *options;
    wal_recover_each *each;
    void *context;
    int each_result;
    struct wal_state *state;
    struct wal_recovered found;
    struct wal_scan_segment
        *places; /* of the segments with records: the first place_count of the table */
    uint32_t place_count;
    struct reader reader;
    uint32_t notes;      /* of damage */
    uint64_t size_bytes; /* of all files */
    uint64_t reported_ns;
    bool is_unsure;                /* a whole file is beyond reading */
    struct log_file_header newest; /* of the sound headers; number 0: there is none */
    struct wal_listing listing;    /* its */
    uint64_t lost;                 /* greatest one that any header tells */
    uint64_t last_known;           /* the log had reached this position */
    uint64_t number_known;         /* and a segment with this number had its header */
};

/* wal_recover_files.c: opens every segment file into the state's table. Errors: open(2)'s, -ENFILE,
 * -ENOMEM. */
int wal_recover_open_segments(struct wal_recovery *recovery);

/* Finds out what each file is, into its state and header. After it, a segment is SEALED (with
 * records, or with is_discarded an unfinished one), SPARE, or LEAVING: not to be touched. Errors:
 * -EPROTONOSUPPORT, -EXDEV. */
int wal_recover_judge_segments(struct wal_recovery *recovery);

/* wal_recover_listing.c: takes a sound header, of whatever use of its file, or a mark. */
void wal_recover_note_header(struct wal_recovery *recovery, const struct log_file_header *header,
                             const uint8_t *block);

/* Segments that the newest header does not list, and those of before the base, are dead. */
void wal_recover_note_dead(struct wal_recovery *recovery);

/* After the scan, which proved that everything up to `proof` was durable in the newest generation:
 * what is gone with whole files, or with the end of the log, goes into recovery->lost. */
void wal_recover_judge_losses(struct wal_recovery *recovery, uint64_t proof);

#endif
