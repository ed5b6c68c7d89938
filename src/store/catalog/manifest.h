/* The manifest: which partition segments count, and how far. A segment file that it does not name
 * was never finished, or is no longer needed, and is removed at the next start. Bytes beyond the
 * end that it names were never finished either: they stay, count for nothing, and the next chunk is
 * written over them. A file that it names and that is missing is damage.
 *
 * DATA/manifest-<shard>, appended to in blocks of 4 KiB. A group of edits, possibly over several
 * blocks, takes effect as a whole or not at all: that is what makes a move of records atomic (all
 * its new ends are one group; its inputs go with a later one, once nothing in them is alive:
 * between the two, a record is in both, and versions make it one). The file is as long as it will
 * ever be, zeros behind the last group, so that a full disk does not hinder an append. When it has
 * grown beyond MANIFEST_SIZE_MAX and twice what is needed, it is written anew as
 * DATA/manifest-<shard>.new and renamed over the old one; the last MANIFEST_RESERVE bytes are for
 * what is appended when there is no space for that.
 *
 *   offset  size  field
 *        0     8  magic "mvMANIF1"
 *        8     4  crc32c of the bytes 12..4095
 *       12     2  format (1)
 *       14     2  flags: 1 first block of a group, 2 last block of a group
 *       16     8  directory id
 *       24     8  sequence of the block: 1, 2, 3 ... from the file's begin
 *       32     8  salt: random for each file, not 0, the same in all its blocks
 *       40     4  edits in this block (at most 126)
 *       44     4  0
 *       48     8  edition: grows each time the manifest is written anew; 0: of an older release
 *       56     8  log position that was durable when this was written; 0: unknown
 *       64        edits of 32 bytes: kind u8, partition u8, source u8, 0 u8, log id u32,
 *                 number u64, end u64, created u64; 0 behind them
 *
 * What is a torn tail and what is damage:
 *
 * 1. The first group of a file is the whole state at that time, and is durable before the file has
 * its name: when it is not complete, it is damaged.
 * 2. A group is begun only when the one before it is durable: when a sound first block lies behind
 * a group that is not complete, that group is damaged. So that this is known of the last group,
 * too, an empty group, the seal, is written behind it when nothing else is to be done. It proves
 * and says nothing; the next group is written over it.
 * 3. Any other group that is not complete was never told to anybody. It is dropped, and zeros are
 * written over it before anything is appended. */
#ifndef MINIVAULT_STORE_MANIFEST_H
#define MINIVAULT_STORE_MANIFEST_H

#include "base/log.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define MANIFEST_SIZE_MAX ((uint64_t)1024 * 1024)
#define MANIFEST_RESERVE ((uint64_t)256 * 1024)
#define MANIFEST_GROUP_MAX 4096u /* edits */

enum manifest_kind {
    MANIFEST_SEGMENT = 1, /* the segment `number` exists and reaches up to `end` (new or grown) */
    MANIFEST_REMOVE,      /* it no longer counts */
    MANIFEST_CHECKPOINT,  /* the index checkpoint `number` is complete; older ones do not count.
                             `end` is the greatest number given to a segment so far */
    MANIFEST_DAMAGE, /* the segment `number` lost a part: what is known in its partition up to the
                        log position `end` is in doubt; 0: the operator has accepted it */
};

/* As it lies in the file. */
struct manifest_edit {
    enum manifest_kind kind : 8;
    uint8_t partition;
    uint8_t source; /* enum segment_source, where it is a segment's */
    uint8_t zero;
    uint32_t log_id;
    uint64_t number;
    uint64_t end;
    uint64_t created;
};

/* How far a manifest has come, durably: by edition, then by blocks of groups. The salt is the
 * file's. */
struct manifest_mark {
    uint64_t salt;
    uint64_t edition;
    uint64_t blocks;
};

/* What is known of a manifest from elsewhere. `closed`: as of the last clean shutdown, and is_closed:
 * nothing was written since. `seen`: later or earlier. All 0: unknown. */
struct manifest_known {
    struct manifest_mark closed;
    struct manifest_mark seen;
    bool is_closed;
    bool is_older; /* there was a newer one: the shard's files are an older copy */
};

struct manifest;

struct manifest_options {
    const char *path; /* the data directory */
    uint64_t directory_id;
    uint32_t shard;
    /* Shows the whole present state as edits, one a call, from index 0 on; returns false behind the
     * last. For rewriting: the whole of it is asked for at one instant, from a completion. It is
     * exactly what the groups up to now say: nothing that is not in the manifest yet, nothing that
     * was removed by it. */
    bool (*snapshot)(void *context, uint64_t index, struct manifest_edit *ret_edit);
    /* The log position that is durable now, for the blocks that are about to be written. */
    uint64_t (*position)(void *context);
    void *context;
    uint8_t *memory;  /* MANIFEST_MEMORY_SIZE bytes of the region, aligned to 4096 */
    bool accept_loss; /* go on with what stands before the damage */
    /* Whether there are segments that it must have named: asked when there is no file. Errors are
     * logged. NULL: there are none. */
    int (*has_segments)(void *context);
    struct manifest_known known; /* an older one is refused like a damaged one */
};

#define MANIFEST_MEMORY_SIZE ((size_t)256 * 1024)

/* Opens or creates DATA/manifest-<shard> and shows every edit of every complete group in order. The
 * data directory is locked by the caller. Synchronous. A leftover of an unfinished rewrite is
 * removed. What was shown is durable on return. Errors are logged: -EBADMSG (damaged; not with
 * accept_loss), -EPROTONOSUPPORT (of a later release), -EXDEV (of another directory), -EIO,
 * -ENOSPC (only a new file), -ENOMEM; what `each` returned is not logged. */
typedef int manifest_each(void *context, const struct manifest_edit *edit);
int manifest_open(struct io *io, const struct log *log, const struct manifest_options *options,
                  manifest_each *each, void *each_context, struct manifest **ret_manifest);

/* There was none: it was made just now. Where the log or segments tell of one, it is made only with
 * accept_loss, and has_loss holds. */
bool manifest_is_new(const struct manifest *manifest);

/* A loss was accepted: what stood behind the damage is not known, so no file is an orphan just
 * because it was not shown. Holds until the first append, which begins with writing the whole state
 * anew; until then the damaged file stays as it is, and each start needs accept_loss again. An
 * append without edits does only that. */
bool manifest_has_loss(const struct manifest *manifest);

/* Writes a group durably; `done` from the loop. One group at a time. The edits are copied. At most
 * MANIFEST_GROUP_MAX of them, in the order in which they are to be shown. `snapshot` must show the
 * group's effect from `done` on, when it returns or appends again, and not before. While the
 * manifest is written anew, the group waits. Errors (through done):
 * -ENOSPC and all that refusal_may_pass(): no room left in the file, nor for a new one; nothing was
 * written and it may be tried again later; others are the device's: nothing is known of the group,
 * and the manifest takes no more, later groups fail with the same error. */
struct manifest_op;
typedef void manifest_done(struct manifest_op *op, int result);
struct manifest_op {
    manifest_done *done;
};
void manifest_append(struct manifest *manifest, struct manifest_op *op,
                     const struct manifest_edit *edits, uint32_t count);

/* Writes the whole state into a new file when nothing else is under way: the present one is
 * damaged. Tried once, and again with each append as long as that failed. */
void manifest_renew(struct manifest *manifest);

/* How far it has come. Also after manifest_shut. */
struct manifest_mark manifest_tell(const struct manifest *manifest);

/* The greatest log position that its complete groups told of when it was opened: the log has been
 * as far. */
uint64_t manifest_position(const struct manifest *manifest);

/* Whether an append or a rewrite is under way. */
bool manifest_is_busy(const struct manifest *manifest);

/* Waits until what is under way has ended (an append's `done` runs), and closes the file.
 * Synchronous. Errors: the one that the manifest failed with, io_run's. */
int manifest_shut(struct manifest *manifest);

/* After manifest_shut, or after the world was closed. May be NULL. */
void manifest_free(struct manifest *manifest);

/* ---- the codec, for the fuzzer and the tools: one block ---- */

#define MANIFEST_BLOCK_SIZE 4096u
#define MANIFEST_BLOCK_EDITS 126u
#define MANIFEST_GROUP_FIRST 1u
#define MANIFEST_GROUP_LAST 2u

/* As it lies in the file. The first three are the encoder's. */
struct manifest_block {
    uint8_t magic[8];
    uint32_t checksum;
    uint16_t format;
    uint16_t flags;
    uint64_t directory_id;
    uint64_t sequence; /* from 1 on */
    uint64_t salt;     /* not 0 */
    uint32_t count;
    uint32_t zero;
    uint64_t edition;
    uint64_t position;
    struct manifest_edit edits[MANIFEST_BLOCK_EDITS];
};

/* Writes MANIFEST_BLOCK_SIZE bytes. */
void manifest_block_encode(const struct manifest_block *block, uint8_t *target);

/* Returns the count of edits; what is accepted is exactly what manifest_block_encode would write.
 * Errors: -EBADMSG, -EPROTONOSUPPORT (sound, but it says something that this release does not
 * know). */
int manifest_block_decode(const uint8_t *data, struct manifest_block *ret_block);

/* ---- which blocks count, for a start and for the tools ---- */

/* What the look at a file's blocks, in order, has found so far. */
struct manifest_groups {
    uint64_t directory_id;     /* the caller's */
    struct manifest_mark mark; /* as the first block tells; blocks: of complete groups */
    uint32_t dirty_end;        /* behind the last block that is not all zeros */
    uint32_t broken;           /* where the group behind mark.blocks is not as it should be */
    bool is_broken;
    bool is_in_group; /* a group has begun at mark.blocks */
    bool is_damaged;
    uint32_t damage; /* valid when is_damaged: where it begins, and `what` it is */
    const char *what;
};

/* Takes the block at `index`. Returns 1: it is sound and goes on; or 0. Errors: -EPROTONOSUPPORT (it
 * says something that this release does not know), -EXDEV (the file is of another directory:
 * ret_block->directory_id). */
int manifest_groups_take(struct manifest_groups *groups, uint32_t index, const uint8_t *data,
                         struct manifest_block *ret_block);

/* The device does not give the block at `index`. */
void manifest_groups_miss(struct manifest_groups *groups, uint32_t index);

/* All blocks were taken. */
void manifest_groups_end(struct manifest_groups *groups);

/* Whether the block, which is sound, is the file's at `index`. */
bool manifest_groups_have(const struct manifest_groups *groups, uint32_t index,
                          const struct manifest_block *block);

/* What superblock and log tell. */
struct superblock;
struct wal_note;
struct manifest_known manifest_known_of(const struct superblock *superblock,
                                        const struct wal_note *note);

/* Why a start is refused, but with accept_loss, in a clause with the remedy; NULL: it is not.
 * `groups`: of the whole file. */
const char *manifest_judge(const struct manifest_groups *groups,
                           const struct manifest_known *known);

/* The same where there is no file; has_segments: there are some that it must have named. */
const char *manifest_judge_missing(const struct manifest_known *known, bool has_segments);

/* Why a start is refused that finds this edit of a segment; NULL: it is not. */
const char *manifest_judge_edit(const struct manifest_edit *edit, uint32_t shard,
                                uint32_t shard_count);

#endif
