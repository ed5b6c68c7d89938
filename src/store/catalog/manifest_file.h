/* The manifest's file, as a start finds it: which groups are complete, whether what is behind them
 * is a torn tail or damage (the rules stand in manifest.h). manifest.c goes on from there.
 *
 * Positions in the file are counted in blocks. The block at index i has the sequence i + 1. */
#ifndef MINIVAULT_STORE_MANIFEST_FILE_H
#define MINIVAULT_STORE_MANIFEST_FILE_H

#include "base/assert.h"
#include "base/units.h"
#include "store/catalog/manifest.h"

#define MANIFEST_MEMORY_BLOCKS ((uint32_t)(MANIFEST_MEMORY_SIZE / MANIFEST_BLOCK_SIZE))

struct manifest_file {
    struct io *io;
    const struct log *log;
    struct manifest_options options;
    char *path;
    char *path_new;
    int directory; /* < 0: not open */
    int handle;    /* < 0: no file yet */
    uint64_t salt;
    uint64_t edition;
    uint64_t position; /* of the log, as found when it was opened */
    uint32_t used;     /* blocks of complete groups; the next group begins here */
    uint32_t size;     /* blocks of the file; from `used` on they are zeros, or a seal and zeros */
    bool has_loss;
};

static inline uint64_t manifest_offset(uint32_t block)
{
    return (uint64_t)block * MANIFEST_BLOCK_SIZE;
}

static inline uint32_t manifest_blocks_of(uint64_t count)
{
    uint64_t blocks = (count + MANIFEST_BLOCK_EDITS - 1) / MANIFEST_BLOCK_EDITS;
    return blocks == 0 ? 1 : (uint32_t)blocks;
}

/* Opens DATA/manifest-<shard> and shows every edit of its complete groups, which are durable then;
 * clears its torn tail, and removes what is left of an unfinished rewrite. Synchronous. Returns 1:
 * there is none. Errors: manifest_open's; then, too, the file is to be closed and freed. */
int manifest_file_open(struct io *io, const struct log *log, const struct manifest_options *options,
                       manifest_each *each, void *each_context, struct manifest_file *file);

/* Closes what is open. Synchronous; nothing is under way. Errors: those of closing. */
int manifest_file_close(struct manifest_file *file);
void manifest_file_free(struct manifest_file *file);

/* Encodes block `index` of the group of `count` edits, which begins at `mark`: behind its blocks. */
void manifest_file_encode(const struct manifest_file *file, struct manifest_mark mark,
                          const struct manifest_edit *edits, uint64_t count, uint32_t index,
                          uint8_t *target);

#endif
