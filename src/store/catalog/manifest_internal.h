/* What the manifest's own files share.
 *
 *   manifest.c          appending, writing anew, refusing, shutting
 *   manifest_open.c     reading, the torn tail, a new file
 *   manifest_format.c   the bytes of a block
 *
 * One thing at a time:
 *
 *   IDLE -> WRITING   -> IDLE    a group; then its owner is told
 *        -> SEALING   -> IDLE    an empty group behind the last one, when nothing else is to be done
 *        -> REWRITING -> IDLE    before a group that waits, or when nothing waits
 *        -> REFUSING  -> IDLE    a group, since the manifest failed: its owner is told from the loop
 *
 * Positions in the file are counted in blocks. The block at index i has the sequence i + 1.
 *
 * Invariants:
 * 1. Phases change as above, with no operation in flight; a group's owner is told in IDLE.
 * 2. used <= size. From `used` on the file has zeros, or a seal and zeros.
 * 3. A group is one write, into blocks that the file has.
 * 4. A new file has a greater edition than the one before it, unless that one was lost.
 * 5. A new file has all of its blocks before it takes the old one's place; only one is made at a time.
 * 6. Once the manifest failed nothing is written any more.
 * 7. After a loss that was accepted the first thing that is written is a new file. */
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

/* Writes the first file, with nothing in it: there is none. Synchronous. Errors: -errno. */
int manifest_write_first(struct manifest *manifest);

/* Synchronous; nothing is under way. Errors: those of closing. */
int manifest_close_files(struct manifest *manifest);

#endif
