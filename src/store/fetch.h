/* A fetch: one record from where it lies: from the log's memory at once, or from the log's or a
 * partition's segment on disk through a registered buffer.
 *
 * Records up to FETCH_BUFFER_SIZE less a block come into the fetch's own slice of the region; a
 * larger one gets memory of its own for the time, counted against a budget that only new fetches
 * respect, so that a look-up once begun ends. */
#ifndef MINIVAULT_STORE_FETCH_H
#define MINIVAULT_STORE_FETCH_H

#include "base/log.h"
#include "io/io.h"
#include "store/disk/findings.h"
#include "store/memory/index.h"
#include "store/record/record.h"
#include "store/segment/segments.h"
#include "store/wal/wal.h"

#include <stdbool.h>
#include <stdint.h>

#define FETCH_BUFFER_SIZE ((uint64_t)16 * 1024)

struct fetcher {
    struct io *io;
    const struct log *log;
    struct wal *wal;
    struct segments *segments;
    struct findings *findings;
    uint64_t log_file_size;
    uint64_t large_bytes; /* in use for large records */
    uint64_t large_bytes_max;
};

struct fetch;

/* `result` 0: fetch->record is valid until fetch_release. -EBADMSG: not the record that must be
 * there; -ENOENT: its file is gone; others: it cannot be read now. The findings have it. */
typedef void fetch_done(struct fetch *fetch, int result);

struct fetch {
    struct io_op op;
    struct fetcher *fetcher;
    fetch_done *done;
    uint8_t *buffer; /* its slice of the region, FETCH_BUFFER_SIZE bytes */
    uint8_t *large;  /* memory of its own, or NULL */
    uint64_t large_size;
    struct segment_pin pin; /* of a partition's segment */
    uint32_t read_size;     /* bytes from read_offset on */
    uint64_t read_offset;
    uint64_t skip; /* bytes before the record in what was read */
    uint64_t location;
    struct finding place;
    bool is_pinning;
    bool in_memory; /* the record lies in the log's memory */
    bool is_hidden; /* the caller's: it reads what newer writes hide, damage hurts nobody */
    struct record record;
};

/* Whether a new fetch of this size fits into the budget now. */
bool fetch_has_room(const struct fetcher *fetcher, uint64_t read_size);

/* Begins. Returns 1 when the record was in memory: fetch->record is valid until the end of the
 * pass, done is not called; 0: done will be called. Either way fetch_release must follow. Errors:
 * -ENOMEM, -EBADMSG (in memory and wrong: our own error, logged). */
int fetch_start(struct fetcher *fetcher, struct fetch *fetch, const struct index_entry *entry,
                fetch_done *done);

/* Makes fetch->record outlive the pass when it was in the log's memory. Errors: -ENOMEM. */
int fetch_save(struct fetch *fetch);

void fetch_release(struct fetch *fetch);

/* The record, between the fetch and its release. */
const struct record *fetch_record(const struct fetch *fetch);

/* Where it lies, should it turn out to be damaged after all. Kind, number and offset. */
const struct finding *fetch_place(const struct fetch *fetch);

/* What was read of it, when it turned out not to be the record. */
struct slice fetch_bytes(const struct fetch *fetch);

/* `buffer`: FETCH_BUFFER_SIZE bytes of the region, its own. */
void fetch_init(struct fetch *fetch, uint8_t *buffer);

/* Of a fetch in any state, when the world is closed. */
void fetch_deinit(struct fetch *fetch);

#endif
