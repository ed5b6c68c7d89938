/* The superblock: what a data directory is, in two alternating copies.
 *
 * DATA/superblock, 8 KiB, each copy one 4 KiB block: sequence and CRC32C inside; the valid copy
 * with the greater sequence counts; an update overwrites the other one (O_DIRECT, DSYNC), so that a
 * torn update leaves the old copy whole. It is also the lock against a second process: flock on
 * this file, held as long as the directory is open. */
#ifndef MINIVAULT_STORE_SUPERBLOCK_H
#define MINIVAULT_STORE_SUPERBLOCK_H

#include "base/hash.h"
#include "base/log.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define SUPERBLOCK_FORMAT 2

struct superblock {
    uint32_t format;
    uint64_t sequence;
    uint64_t directory_id; /* random at format; its low 24 bits are the origin's */
    uint64_t cluster_id;   /* 0: none yet */
    uint64_t cluster_epoch;
    uint64_t clock_ceiling; /* written at a clean shutdown; the log's batches carry it meanwhile */
    uint64_t segment_size;  /* of the log, for the life of the directory */
    uint64_t damage_accepted; /* log position: losses up to here were accepted by the operator
                                 (-accept-loss) */
    uint8_t secret[HASH_SECRET_SIZE];
    bool probed; /* the three below are valid */
    bool use_dsync;
    uint8_t writes_in_flight; /* 1 or 2 */
    bool clean;               /* shut down cleanly, and nothing was written since */
    /* As of the last clean shutdown, 0: unknown. The log never ends before it, so that is also true
     * when it was not shut down cleanly since. */
    uint64_t log_last;        /* position */
    uint64_t log_number;      /* of its newest segment */
    uint64_t manifest_salt;   /* which file */
    uint64_t manifest_blocks; /* of complete groups */
    uint64_t manifest_edition;
    /* Of a directory with several shards (store_directory.h). */
    uint32_t shard_count;   /* 0: one */
    uint32_t shard;         /* whose state this one tells; 0 in DATA/superblock */
    uint64_t log_base;      /* the shard's log begins above this position */
    uint64_t segment_base;  /* numbers of segments up to this were given by earlier shards */
    uint32_t shards_before; /* a conversion from so many is to be finished; 0: none */
};

#define SUPERBLOCK_SHARDS_MAX 256u

static inline uint32_t superblock_shards(const struct superblock *superblock)
{
    return superblock->shard_count == 0 ? 1 : superblock->shard_count;
}

struct superblock_file {
    struct io *io;
    int handle;
    uint8_t *block; /* one aligned block of scratch memory */
    struct superblock now;
};

/* Opens and locks DATA/superblock, formatting an empty directory: DATA is created when absent (not
 * its parents); it is refused when it holds no superblock but other entries (except "lost+found").
 * A lock that is held is tried again for `lock_wait_ns` (a dying process's last writes), then
 * refused. *ret_formatted tells whether it was new: then the whole of it (file, directory entry,
 * DATA's own entry in its parent) is durable on return. `segment_size` is for formatting. Errors
 * are logged, each with what to do: -EWOULDBLOCK (in use), -EPROTONOSUPPORT (another format
 * version), -EBADMSG (neither copy is valid), -ENOTEMPTY (not ours), -EACCES, -EROFS, -ENOSPC,
 * -EIO, ... */
int superblock_open(struct io *io, const struct log *log, const char *data_path,
                    uint64_t segment_size, uint64_t lock_wait_ns, struct superblock_file *ret_file,
                    bool *ret_formatted);

/* Opens and locks the superblock of one more shard, `state_path`/superblock: it is never formatted.
 * Errors are logged: -ENOENT, and those of superblock_open. */
int superblock_open_shard(struct io *io, const struct log *log, const char *state_path,
                          uint64_t lock_wait_ns, struct superblock_file *ret_file);

/* Makes `path`, a superblock whose both copies say `superblock`, and waits until it is durable; its
 * name is not. A file that is there is written over. Synchronous. Errors: the device's, -ENOMEM. */
int superblock_make(struct io *io, const char *path, const struct superblock *superblock);

/* Writes file->now into the older copy and waits until it is durable. Synchronous. */
int superblock_update(struct superblock_file *file);

/* Into both, one after the other: afterwards neither says what was there before. */
int superblock_update_both(struct superblock_file *file);

/* Gives the lock back. */
void superblock_close(struct superblock_file *file);

/* Serialisation, for the fuzzer: one 4 KiB block. decode: -EBADMSG, -EPROTONOSUPPORT. */
void superblock_encode(const struct superblock *superblock, uint8_t *block);
int superblock_decode(const uint8_t *block, struct superblock *ret_superblock);

#endif
