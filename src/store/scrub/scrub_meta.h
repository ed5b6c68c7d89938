/* Checking what a directory is lost without: superblock, manifest, checkpoint. */
#ifndef MINIVAULT_STORE_SCRUB_META_H
#define MINIVAULT_STORE_SCRUB_META_H

#include "store/catalog/checkpoint_format.h"
#include "store/catalog/manifest.h"
#include "store/catalog/superblock.h"
#include "store/scrub/scrub_rate.h"
#include "store/disk/findings.h"

enum scrub_meta_step {
    SCRUB_META_OVER,
    SCRUB_META_OPENING,
    SCRUB_META_READING,
    SCRUB_META_CHECKING,
    SCRUB_META_MENDING,
    SCRUB_META_CLOSING,
};

struct scrub_meta {
    struct io *io;
    const struct log *log;
    const struct scrub_options *options;
    struct scrub_rate *rate;
    struct findings *findings;
    struct io_op op;
    enum finding_kind kind;
    enum scrub_meta_step step;
    char path[SEGMENT_PATH_MAX];
    int handle;
    uint64_t number;
    struct manifest_groups groups; /* the manifest's, when it was opened */
    struct checkpoint_order order; /* the checkpoint's */
    uint64_t end;
    uint64_t at;
    uint64_t refused_at; /* what the device has just refused */
    bool is_bad;         /* enough is known of the file */
    struct scrub_window window;
    uint8_t *buffer; /* for a copy of the superblock */
};

/* What is given must outlive it. */
void scrub_meta_init(struct scrub_meta *meta, struct io *io, const struct log *log,
                     const struct scrub_options *options, struct scrub_rate *rate,
                     struct findings *findings);

void scrub_meta_begin(struct scrub_meta *meta);

/* A piece of it, about `budget` bytes. */
enum scrub_progress scrub_meta_step(struct scrub_meta *meta, uint64_t budget);

/* Returns whether something has to be waited for. */
bool scrub_meta_stop(struct scrub_meta *meta);

/* Counts what was written anew since. */
void scrub_meta_settle(struct scrub_meta *meta);

#endif
