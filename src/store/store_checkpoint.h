/* The index's checkpoints: when one is written, which one counts, and which go.
 *
 * One is written at a clean shutdown, and whenever as many records have been moved since the last
 * one as the index has. So what a start has to read beside it stays in proportion, and what is
 * written for it, too.
 *
 *     idle -> writing (pieces, between the requests) -> written (the log is not durable so far yet)
 *          -> committing (the manifest names it; the one before goes) -> idle
 *
 * Invariants: (1) is_under_way from the begin to the commit's end, and the mover is idle when it
 * becomes true; (2) number <= last: a number is never given twice; (3) a file that the manifest may
 * name is removed only after a commit that names another one. */
#ifndef MINIVAULT_STORE_STORE_CHECKPOINT_H
#define MINIVAULT_STORE_STORE_CHECKPOINT_H

#include "base/clock.h"
#include "base/list.h"
#include "store/catalog/checkpoint.h"
#include "store/catalog/manifest.h"
#include "store/mover/mover.h"
#include "store/mover/reserve.h"
#include "store/segment/segments.h"
#include "store/wal/wal.h"

#include <stdbool.h>
#include <stdint.h>

struct checkpoints_options {
    const char *path; /* the data directory */
    const char *state_path;
    uint64_t directory_id;
    uint32_t shard, shard_count;
    uint64_t moved_min; /* moved records that are worth one; 0: many */
    uint8_t *memory;    /* CHECKPOINT_MEMORY_SIZE bytes */
};

/* What they work on: set once the store has all of it, which outlives them. */
struct checkpoint_parts {
    struct index *index;
    struct wal *wal;
    struct segments *segments;
    struct manifest *manifest;
    struct mover *mover;
    const struct reserve *reserve;
    const struct hybrid_clock *clock;
    uint64_t moved; /* records that the start found beside the checkpoint */
    void *context;
    void (*failed)(void *context, int error); /* the manifest cannot be written */
};

struct checkpoints {
    struct io *io;
    const struct log *log;
    struct checkpoints_options options;
    struct checkpoint_parts parts;
    struct checkpoint_writer *writer; /* of the one being written, or NULL */
    struct manifest_op op;
    uint64_t number;       /* the one that counts; 0: none */
    uint64_t last;         /* greatest number given */
    uint64_t segment_last; /* greatest number of a segment, until there is a mover */
    uint64_t moved;        /* records moved when the one that counts was begun */
    uint64_t moved_begin;  /* and the one under way */
    uint64_t retry_ns;
    uint64_t gate;        /* log position: what is written counts once this is durable */
    struct list removals; /* of files, under way */
    bool is_under_way;
    bool is_written; /* and now for the manifest */
    bool is_wanted;  /* the one that counts is damaged */
};

void checkpoints_init(struct checkpoints *checkpoints, struct io *io, const struct log *log,
                      const struct checkpoints_options *options);

/* What is under way in a world that was closed goes. */
void checkpoints_deinit(struct checkpoints *checkpoints);

/* ---- of a start ---- */

/* The manifest names this one. */
void checkpoints_take(struct checkpoints *checkpoints, uint64_t number);

/* A segment has, or had, this number: the greatest of them is told with a checkpoint, and is where
 * the mover goes on. */
void checkpoints_take_segment(struct checkpoints *checkpoints, uint64_t number);
uint64_t checkpoints_segment_last(const struct checkpoints *checkpoints);

/* A file that is there. What does not count is removed. */
void checkpoints_see(struct checkpoints *checkpoints, const char *name);

struct checkpoint_options checkpoints_file_options(const struct checkpoints *checkpoints);

/* What the manifest says of the checkpoint that counts. Returns false when there is none. */
bool checkpoints_show(const struct checkpoints *checkpoints, struct manifest_edit *ret_edit);

/* ---- of a store that is open ---- */

uint64_t checkpoints_number(const struct checkpoints *checkpoints);

/* The one that counts is damaged: another one is to replace it. */
void checkpoints_renew(struct checkpoints *checkpoints);

/* A piece of one; begins one when it is time. Returns whether there is more to do at once. */
bool checkpoints_step(struct checkpoints *checkpoints, uint64_t budget);

bool checkpoints_are_writing(const struct checkpoints *checkpoints);

/* The last one, where it is worth it, with the log durable and the mover idle: called until it
 * returns 0. Returns 1 when there is more to do at once, 2 when something has to be waited for.
 * Errors: checkpoint_begin's. */
int checkpoints_shut(struct checkpoints *checkpoints);

#endif
