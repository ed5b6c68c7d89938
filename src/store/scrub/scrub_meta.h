/* Checking what a directory is lost without: superblock, manifest, checkpoint. */
#ifndef MINIVAULT_STORE_SCRUB_META_H
#define MINIVAULT_STORE_SCRUB_META_H

#include "store/catalog/manifest.h"
#include "store/catalog/superblock.h"
#include "store/scrub/scrub_rate.h"
#include "store/scrub/scrub_report.h"

enum scrub_meta_step {
    SCRUB_META_OVER,
    SCRUB_META_OPENING,
    SCRUB_META_READING,
    SCRUB_META_CHECKING,
    SCRUB_META_MENDING,
    SCRUB_META_CLOSING,
};

struct scrub_meta_window {
    uint8_t *data;
    uint64_t offset; /* in the file */
    uint32_t asked;
    uint32_t size; /* valid bytes */
    int error;     /* of the read */
};

struct scrub_meta {
    struct io *io;
    const struct log *log;
    const struct scrub_options *options;
    struct scrub_rate *rate;
    struct scrub_report *report;
    struct io_op op;
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
    struct scrub_meta_window window;
    uint8_t *buffer; /* for a copy of the superblock */
};

/* What is given must outlive it. */
void scrub_meta_init(struct scrub_meta *meta, struct io *io, const struct log *log,
                     const struct scrub_options *options, struct scrub_rate *rate,
                     struct scrub_report *report);

void scrub_meta_begin(struct scrub_meta *meta);

/* A piece of it, about `budget` bytes. Returns whether it waits for nothing. */
bool scrub_meta_step(struct scrub_meta *meta, uint64_t budget);
bool scrub_meta_is_over(const struct scrub_meta *meta);

/* Returns whether something has to be waited for. */
bool scrub_meta_stop(struct scrub_meta *meta);

/* Counts what was written anew since. */
void scrub_meta_settle(struct scrub_meta *meta);

#endif
