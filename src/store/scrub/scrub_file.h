/* Checking one log file or partition segment: its header, each batch or chunk, each record, and the
 * value files that its records name.
 *
 *   OVER -> CHECKING <-> LOADING
 *    ^---------|  ^-> VALUE
 *
 * Invariants:
 *   1. While a record is looked at, the window holds all of its unit.
 *   2. found_alive <= records that were looked at.
 *   3. The file is pinned while LOADING, and then only. */
#ifndef MINIVAULT_STORE_SCRUB_FILE_H
#define MINIVAULT_STORE_SCRUB_FILE_H

#include "store/scrub/scrub_value.h"
#include "store/unit/unit.h"

enum scrub_file_phase {
    SCRUB_FILE_OVER,
    SCRUB_FILE_CHECKING,
    SCRUB_FILE_LOADING,
    SCRUB_FILE_VALUE
};

struct scrub_file {
    struct io *io;
    const struct scrub_options *options;
    struct scrub_rate *rate;
    struct findings *findings;
    struct scrub_value value;
    struct io_op op;
    struct segment_pin pin;
    bool is_pinning;
    struct scrub_window window;
    uint64_t next_offset; /* what LOADING reads */
    uint32_t next_size;
    /* the file that is checked */
    enum scrub_file_phase phase;
    bool is_segment; /* of a partition; otherwise of the log */
    uint8_t partition;
    uint32_t index; /* in locations */
    uint64_t number;
    struct unit_scan units; /* at 0: the header is next */
    struct unit_cursor cursor;
    bool is_in_unit; /* its records are next */
    /* what was found */
    bool has_damage;       /* of whatever kind */
    bool has_alive_damage; /* in what the index leads to */
    bool is_abandoned;     /* not all of it could be read just now */
    uint64_t found_alive;
    uint64_t jobs_begin; /* the mover's */
};

/* What is given must outlive it. */
void scrub_file_init(struct scrub_file *file, struct io *io, const struct scrub_options *options,
                     struct scrub_rate *rate, struct findings *findings);

/* Begins with the log's file, or the partition's segment, with the lowest number above `after` (of
 * the log up to `last`) that has something to check. Returns its number, or 0: there is none. */
uint64_t scrub_file_begin_log(struct scrub_file *file, uint64_t after, uint64_t last);
uint64_t scrub_file_begin_segment(struct scrub_file *file, uint8_t partition, uint64_t after);

/* A piece of it, about `budget` bytes. */
enum scrub_progress scrub_file_step(struct scrub_file *file, uint64_t budget);

/* Returns whether something has to be waited for. */
bool scrub_file_stop(struct scrub_file *file);

#endif
