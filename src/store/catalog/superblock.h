/* The superblock: what a data directory is, in two alternating copies.
 *
 * DATA/superblock has 8 KiB, each copy is one 4 KiB block with sequence and CRC32C. The valid copy
 * with the greater sequence counts. An update overwrites the other one (O_DIRECT, DSYNC), so a torn
 * update leaves the old copy whole. The file is also the lock against a second process: an flock on
 * it is owned as long as the directory is open. Each further shard has a superblock of its own.
 *
 * Invariants:
 *   (1) sequence modulo 2 names the copy that was written last; a failed write keeps the sequence
 *   (2) directory id, cluster id, secret and log file size never change after formatting, and are
 *       the same in all superblocks of a directory
 *   (3) the low 24 bits of a directory id are never SUPERBLOCK_ORIGIN_NOBODY
 *   (4) the start numbers of a directory's superblocks are at most one apart, unless one is an older
 *       copy, and equal while a store is open (superblock_start.c) */
#ifndef MINIVAULT_STORE_SUPERBLOCK_H
#define MINIVAULT_STORE_SUPERBLOCK_H

#include "base/hash.h"
#include "base/log.h"
#include "io/io.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SUPERBLOCK_FORMAT 2

/* Low 24 bits of no directory's id: versions of nobody have this origin. */
#define SUPERBLOCK_ORIGIN_NOBODY 0xFFFFFFu

/* As it lies in a copy from byte 8 on; superblock_format.c has the table. */
struct superblock {
    uint32_t checksum; /* superblock_encode sets the copy's */
    uint32_t format;
    uint64_t sequence;
    uint64_t directory_id; /* random at format; its low 24 bits are the origin's */
    uint64_t cluster_id;   /* 0: none yet */
    uint64_t cluster_epoch;
    uint64_t clock_ceiling; /* written at a clean shutdown; the log's batches carry it meanwhile */
    uint64_t log_file_size; /* bytes, for the life of the directory */
    uint64_t damage_accepted; /* log position: losses up to here were accepted by the operator
                                 (-accept-loss) */
    bool probed : 1;          /* the two below are valid */
    bool use_dsync : 1;
    bool clean : 1; /* shut down cleanly, and nothing was written since */
    uint32_t flags_unknown : 29;
    uint32_t writes_in_flight; /* 1 or 2 */
    uint8_t secret[HASH_SECRET_SIZE];
    /* As of the last clean shutdown, 0: unknown. The log never ends before it, so that is also true
     * when it was not shut down cleanly since. */
    uint64_t log_last;        /* position */
    uint64_t log_number;      /* of its newest file */
    uint64_t manifest_salt;   /* which file */
    uint64_t manifest_blocks; /* of complete groups */
    uint64_t manifest_edition;
    /* Of a directory with several shards (store_directory.h). */
    uint32_t shard_count;
    uint32_t shard;         /* whose state this one tells; 0 in DATA/superblock */
    uint64_t log_base;      /* the shard's log begins above this position */
    uint64_t segment_base;  /* numbers of segments up to this were given by earlier shards */
    uint32_t shards_before; /* a conversion from so many is to be finished; 0: none */
    uint32_t gap;           /* 0 */
    uint64_t start_number;  /* grows by two with each start (superblock_start.c) */
};

#define SUPERBLOCK_SHARDS_MAX 256u

static inline uint32_t superblock_origin_id(const struct superblock *superblock)
{
    return (uint32_t)(superblock->directory_id & 0xFFFFFF);
}

struct superblock_file {
    struct io *io;
    int handle;
    uint8_t *block; /* one aligned block of scratch memory */
    struct superblock now;
};

/* What whoever prepares a directory hands over to its stores. */
struct superblock_handover {
    struct superblock_file file; /* DATA/superblock, locked; shard 0's store takes it over */
    struct superblock node;      /* what it says; nobody changes it any more */
    /* Of the shards, as a start finds them: the position that each log had reached at its last clean
     * stop, as another shard noted it (0: unknown), and which of them are older copies, where the
     * operator accepts that. */
    uint64_t reached[SUPERBLOCK_SHARDS_MAX];
    bool is_older[SUPERBLOCK_SHARDS_MAX];
};

/* Whose directory it becomes: a cluster gives all of its directories one secret and one id. */
struct superblock_identity {
    uint64_t cluster_id; /* not 0 */
    uint8_t secret[HASH_SECRET_SIZE];
};

/* How a directory is formatted. */
struct superblock_birth {
    uint64_t log_file_size; /* bytes; 0: superblock_log_file_size of its disk */
    uint32_t shard_count;   /* that it is formatted for; DATA/superblock tells of one at first */
    const struct superblock_identity *identity; /* NULL: no cluster, a secret is drawn */
};

/* Bytes of a log file on a disk of `disk_size` bytes that `shard_count` shards share: a 16th of a
 * shard's part in whole MiB, from 4 to 32 MiB. */
uint64_t superblock_log_file_size(uint64_t disk_size, uint32_t shard_count);

/* A directory id from 64 random bits (invariant 3). */
uint64_t superblock_directory_id(uint64_t random);

/* The folder of a shard's state: DATA, or DATA/shard-<n>. Errors: -ENAMETOOLONG. */
int superblock_state_path(const char *data_path, uint32_t shard, char *ret_path, size_t size);

/* Opens and locks DATA/superblock, formatting an empty directory: DATA is created when absent (not
 * its parents); it is refused when it has no superblock but other entries (except "lost+found"). A
 * lock that another process owns is tried again for `lock_wait_ns` (a dying process's last writes),
 * then refused. *ret_formatted tells whether it was new: then the whole of it (file, directory
 * entry, DATA's own entry in its parent) is durable on return. `birth` is for formatting. Errors
 * are logged, each with what to do: -EWOULDBLOCK (in use), -EPROTONOSUPPORT (another format
 * version), -EBADMSG (neither copy is valid), -ENOTEMPTY (not ours), -EACCES, -EROFS, -ENOSPC,
 * -EIO, ... */
int superblock_open(struct io *io, const struct log *log, const char *data_path,
                    const struct superblock_birth *birth, uint64_t lock_wait_ns,
                    struct superblock_file *ret_file, bool *ret_formatted);

/* Opens and locks the superblock of one more shard of the directory of `node`: it is never
 * formatted. Errors are logged: -ENOENT, -EXDEV (it is another shard's, another directory's or of
 * another time), and those of superblock_open. */
int superblock_open_shard(struct io *io, const struct log *log, const char *data_path,
                          const struct superblock *node, uint32_t shard, uint64_t lock_wait_ns,
                          struct superblock_file *ret_file);

/* superblock_start.c: counts a start in all superblocks of the directory, before any of its stores
 * is opened. `node`: DATA/superblock, open. Synchronous; the others are open only meanwhile. When
 * one of them is older than the others, nothing is changed. `ret_older`: not NULL, for each shard:
 * then those that are older go on with the others, and are told there. Errors are logged: -EXDEV
 * (one is older), -ENOMEM, superblock_open_shard's, the device's. */
int superblock_count_start(struct superblock_file *node, const struct log *log,
                           const char *data_path, uint64_t lock_wait_ns, bool *ret_older);

/* Makes `path`, a superblock whose both copies say `superblock`, and waits until it is durable; its
 * name is not. A file that is there is written over. Synchronous. Errors: the device's, -ENOMEM. */
int superblock_make(struct io *io, const char *path, const struct superblock *superblock);

/* Writes file->now into the older copy and waits until it is durable. Synchronous. */
int superblock_update(struct superblock_file *file);

/* The same in two halves, for several at once; `op` is zero at the begin. The end waits, and must
 * follow. */
void superblock_update_begin(struct superblock_file *file, struct io_op *op);
int superblock_update_end(struct superblock_file *file, struct io_op *op);

/* Into both, one after the other: afterwards neither says what was there before. */
int superblock_update_both(struct superblock_file *file);

/* Gives the lock back. */
void superblock_close(struct superblock_file *file);

/* Serialisation, for the fuzzer: one 4 KiB block. decode: -EBADMSG, -EPROTONOSUPPORT. */
void superblock_encode(const struct superblock *superblock, uint8_t *block);
int superblock_decode(const uint8_t *block, struct superblock *ret_superblock);

/* The newer one of the valid copies counts. A copy of another format decides, whatever the other one
 * says: somebody has begun to use this directory with another program. `results`: superblock_decode's
 * for both, or why they cannot be read. Errors: -EPROTONOSUPPORT (*ret_found holds the format), those
 * of the copies when neither counts. */
#define SUPERBLOCK_COPIES 2u
int superblock_choose(const struct superblock *copies, const int *results,
                      struct superblock *ret_found);

/* ---- superblock_judge.c: why a start is refused with a sound one, in a sentence with the remedy
 * ---- */

#define SUPERBLOCK_TEXT_SIZE 320

/* It is not that of the shard of `node`, which is DATA/superblock: itself, for shard 0. */
bool superblock_is_misplaced(const struct superblock *now, const struct superblock *node,
                             uint32_t shard, char *ret_text);

/* Its shard is an older copy than the one that has `newest`, the greatest start number. */
bool superblock_is_outdated(const struct superblock *now, const struct superblock *newest,
                            char *ret_text);

/* A superblock lies in the folder of DATA of this name, but `node` knows no such shard. */
bool superblock_is_outgrown(const struct superblock *node, const char *folder, char *ret_text);

#endif
