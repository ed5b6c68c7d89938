/* Checking one value file against the descriptor in the record that names it.
 *
 *   OVER -> OPENING -> READING <-> CHECKING
 *    ^---------|          +-> CLOSING -> OVER */
#ifndef MINIVAULT_STORE_SCRUB_VALUE_H
#define MINIVAULT_STORE_SCRUB_VALUE_H

#include "store/record/record.h"
#include "store/scrub/scrub_rate.h"
#include "store/disk/findings.h"
#include "store/value/value_file.h"

enum scrub_value_phase {
    SCRUB_VALUE_OVER,
    SCRUB_VALUE_OPENING,
    SCRUB_VALUE_READING,
    SCRUB_VALUE_CHECKING,
    SCRUB_VALUE_CLOSING,
};

struct scrub_value {
    struct io *io;
    const struct scrub_options *options;
    struct scrub_rate *rate;
    struct findings *findings;
    enum scrub_value_phase phase;
    struct io_op op;
    struct value_file_name name;
    struct version version; /* of its record */
    uint64_t hash;          /* keyed */
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

/* What is given must outlive it. */
void scrub_value_init(struct scrub_value *value, struct io *io, const struct scrub_options *options,
                      struct scrub_rate *rate, struct findings *findings);

/* The value file that this record, which is alive, names. Errors: -EBADMSG, -EPROTONOSUPPORT (its
 * descriptor). */
int scrub_value_begin(struct scrub_value *value, const struct record *record, uint64_t hash);

/* A piece of it, about `budget` bytes. */
enum scrub_progress scrub_value_step(struct scrub_value *value, uint64_t budget);

/* Returns whether something has to be waited for. */
bool scrub_value_stop(struct scrub_value *value);

#endif
