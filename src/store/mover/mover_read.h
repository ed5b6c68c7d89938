/* The mover's reader: an input's live records, one by one.
 *
 * An input is a sealed log file, whose batches are taken apart, or a segment, whose chunks are. What
 * cannot be read is left out, and the store's findings have it; the input is in quarantine then. Where a job's
 * memory is full in the middle of an input, the next job of its kind goes on there. */
#ifndef MINIVAULT_STORE_MOVER_READ_H
#define MINIVAULT_STORE_MOVER_READ_H

#include "store/mover/mover_stage.h"
#include "store/mover/mover_window.h"

/* Where a job's memory was full in the middle of an input. */
struct mover_resume {
    uint64_t number; /* of the input; 0: none */
    uint64_t at;
};

struct mover_input {
    bool is_damaged; /* not all of it could be read */
    uint32_t file;
    int handle;        /* < 0: it is not pinned */
    uint8_t partition; /* of a segment */
    struct unit_scan units;
    struct unit_cursor cursor; /* in the present unit, which the window holds */
    bool is_in_unit;
};

struct mover_reader {
    const struct mover_options *options;
    struct mover_stats *stats;
    struct mover_window window;
    struct segment_pin pin;
    bool is_pinning;
    bool is_closing; /* once nothing of it is on its way any more */
    struct mover_input input;
    bool has_input;
    struct mover_record ahead[MOVER_AHEAD]; /* of the unit, in a ring */
    uint32_t ahead_first;
    uint32_t ahead_count;
    struct mover_resume resume[2]; /* of log files, of segments */
};

enum mover_read {
    MOVER_READ_RECORD,
    MOVER_READ_SKIPPED, /* a record that is not alive, or a bad one */
    MOVER_READ_WAIT,    /* for the disk */
    MOVER_READ_END,     /* of the input */
    MOVER_READ_NONE,    /* no input is open */
};

/* `memory`: MOVER_WINDOW_SIZE bytes of the region, aligned to 4096. The options and the counters
 * stay the owner's. */
void mover_reader_init(struct mover_reader *reader, struct io *io,
                       const struct mover_options *options, struct mover_stats *stats,
                       uint8_t *memory);

/* Opens an input: a sealed log file, or a segment. No input is open, and the reader is free. */
void mover_reader_open_log(struct mover_reader *reader, const struct wal_sealed *sealed);
void mover_reader_open_segment(struct mover_reader *reader, struct segment *segment);

/* Takes the next live record of the input; its data is valid until the next call. What is known to
 * be dead loses its slot instead. */
enum mover_read mover_reader_next(struct mover_reader *reader, struct mover_record *ret_record);

/* The input is not read to its end by this job: the next one of its kind begins where it stands. */
void mover_reader_pause(struct mover_reader *reader);

/* What was read was read for nothing: inputs of this kind begin at their beginning. */
void mover_reader_forget(struct mover_reader *reader, bool is_segment);

/* Lets the input go, once the reads that are in flight are done. Not while it is being pinned. */
void mover_reader_close(struct mover_reader *reader);

/* Finishes mover_reader_close as far as it can. Returns whether nothing is on its way. */
bool mover_reader_settle(struct mover_reader *reader);

#endif
