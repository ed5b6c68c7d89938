/* What the manifest's own files share.
 *
 *   manifest.c          appending, refusing, shutting
 *   manifest_open.c     reading, the torn tail, a new file
 *   manifest_rewrite.c  the whole state into a new file
 *   manifest_format.c   the bytes of a block
 *
 * One thing at a time:
 *
 *   IDLE -> WRITING   -> IDLE    a group; then its owner is told
 *        -> SEALING   -> IDLE    an empty group behind the last one, when nothing else is to be
 * done
 *        -> REWRITING -> IDLE    before a group that waits, or when nothing waits
 *        -> REFUSING  -> IDLE    a group, since the manifest failed: its owner is told from the
 * loop
 *
 * Places are counted in blocks. The block at index i has the sequence i + 1. */
#ifndef MINIVAULT_STORE_MANIFEST_INTERNAL_H
#define MINIVAULT_STORE_MANIFEST_INTERNAL_H

#include "base/assert.h"
#include "base/units.h"
#include "store/catalog/manifest.h"

#define MANIFEST_GROUP_BLOCKS                                                                      \
    ((MANIFEST_GROUP_MAX + MANIFEST_BLOCK_EDITS - 1) / MANIFEST_BLOCK_EDITS)
#define MANIFEST_MEMORY_BLOCKS ((uint32_t)(MANIFEST_MEMORY_SIZE / MANIFEST_BLOCK_SIZE))
#define MANIFEST_RESERVE_BLOCKS ((uint32_t)(MANIFEST_RESERVE / MANIFEST_BLOCK_SIZE))

static_assert(MANIFEST_GROUP_BLOCKS <= MANIFEST_MEMORY_BLOCKS, "a group is one write");
static_assert(MANIFEST_GROUP_BLOCKS < MANIFEST_RESERVE_BLOCKS, "a group fits into a new file");

enum manifest_phase {
    MANIFEST_IDLE,
    MANIFEST_WRITING,
    MANIFEST_SEALING,
    MANIFEST_REWRITING,
    MANIFEST_REFUSING,
};

struct manifest_rewrite {
    int handle; /* < 0: not open */
    uint64_t salt;
    uint64_t edition;
    struct manifest_edit *edits; /* the whole state */
    uint64_t count;
    uint64_t capacity;
    uint32_t needed; /* blocks of the state */
    uint32_t size;   /* blocks of the file */
    uint32_t written;
    uint32_t writing; /* blocks in flight */
};

struct manifest {
    struct io *io;
    const struct log *log;
    struct manifest_options options;
    char *path;
    char *path_new;
    int directory;
    int handle;    /* < 0: no file yet */
    uint64_t salt; /* of the file */
    uint64_t edition;
    uint64_t position; /* of the log, as found when it was opened */
    uint32_t used;     /* blocks of complete groups; the next group begins here */
    uint32_t size;     /* blocks of the file; from `used` on they are zeros, or a seal and zeros */
    bool is_new;
    bool is_lost; /* a file is being made in place of one that is gone */
    bool has_loss;
    bool is_worn;     /* the file is to be written anew */
    bool is_unsealed; /* a group was written behind which there is no seal */
    int failed;
    enum manifest_phase phase;
    struct io_op io_op;     /* of whatever is under way */
    struct manifest_op *op; /* the group's owner; NULL: no group */
    struct manifest_edit *edits;
    uint32_t count;
    int rewrite_error; /* of the last attempt, since the last append */
    struct manifest_rewrite rewrite;
    uint64_t groups;
    uint64_t rewrites;
};

static inline uint32_t manifest_blocks_of(uint64_t count)
{
    uint64_t blocks = (count + MANIFEST_BLOCK_EDITS - 1) / MANIFEST_BLOCK_EDITS;
    return blocks == 0 ? 1 : (uint32_t)blocks;
}

static inline uint64_t manifest_offset(uint32_t block)
{
    return (uint64_t)block * MANIFEST_BLOCK_SIZE;
}

/* manifest.c */

/* Into the phase from IDLE, or from it to IDLE. */
void manifest_set_phase(struct manifest *manifest, enum manifest_phase phase);

/* Starts what is to be done next, when nothing is under way. */
void manifest_go_on(struct manifest *manifest);

/* The device failed: nothing that is not durable now ever will be. */
void manifest_fail(struct manifest *manifest, int error, const char *what, const char *path);

/* Encodes block `index` of the group of `count` edits, which begins at `place`: behind its blocks.
 */
void manifest_encode_group(const struct manifest *manifest, struct manifest_mark place,
                           const struct manifest_edit *edits, uint64_t count, uint32_t index,
                           uint8_t *target);

/* manifest_rewrite.c */

/* Starts to write the whole state anew; its end is that of the phase REWRITING. An error that
 * leaves the old file in its place is in rewrite_error, any other one failed the manifest. */
void manifest_rewrite(struct manifest *manifest);

#endif
