/* A data directory and its shards.
 *
 * Partition p belongs to shard p modulo the number of shards. Each shard has a store (store.h) with
 * a superblock, a log, a manifest and checkpoints of its own; the partitions' folders hold all
 * shards' segments and value files, each store touches those of its partitions only:
 *
 *   DATA/superblock, log/, manifest-0, checkpoint-*, reserve           shard 0
 *   DATA/shard-<n>/superblock, log/, manifest-<n>, checkpoint-*, reserve   shard n, from 1 on
 *   DATA/00 ... ff/                                                     the partitions
 *
 * DATA/superblock is the directory's, too: its lock keeps other processes out, and it says how many
 * shards there are. A start with another number converts the directory:
 *
 *   1. each shard's store is opened, all that is alive in its log is moved to segments, and it is
 *      closed: from then on a shard is nothing but its manifest's segments (a directory that was
 *      just formatted is that already)
 *   2. DATA/resharding/ gets the manifests and superblocks of the new shards, durably
 *   3. DATA/superblock says the new number, and from how many it was: that is the commit
 *   4. the logs, checkpoints and reserves of the old shards go, the new files take their places,
 *      what is not needed any more goes: each step may be done again
 *   5. DATA/superblock says that the conversion is over
 *
 * Until 3 the directory is as it was, whoever starts next; from 3 on the next start finishes it.
 * Numbers of segments and positions of the log go on above all that there were: a segment's
 * `created`, a partition's damage and a record's position mean the same in the new shard. */
#ifndef MINIVAULT_STORE_STORE_DIRECTORY_H
#define MINIVAULT_STORE_STORE_DIRECTORY_H

#include "store/store.h"
#include "store/catalog/superblock.h"

#define STORE_SHARDS_MAX SUPERBLOCK_SHARDS_MAX

struct store_directory {
    struct superblock_handover handover;
    struct log shard_log;   /* of the one whose log is being emptied */
    struct store *stranded; /* of a conversion that failed: until the world is closed */
};

/* Once a process, on shard 0's thread and in its world, before any store of the directory is
 * opened. Takes the lock, formats a new directory, finishes a conversion that was cut short,
 * converts when the directory has another number of shards than options->shard_count, and probes
 * the device when that is due. The options are those of shard 0's store (its events are not
 * called). Synchronous; the world's region has store_region_size(options) bytes, files_max is
 * store_files_max().
 *
 * The lock is held from its return on, by *ret_directory, until shard 0's store, which takes it
 * over when it is opened (or fails to be), is shut; store_directory_release gives it back when that
 * never happens. The superblocks of the other shards are locked as long as their stores are open,
 * so that nothing is converted under a store that is shut later than shard 0's. Every store of the
 * directory, also shard 0's, gets options->handover, which outlives their opening. After an error,
 * too, *ret_directory wants store_directory_free.
 *
 * Errors, logged with what to do: superblock_open's and store_open's; -ENOSPC (no room to convert:
 * nothing has changed), -EBADMSG (damage that a conversion would hide). */
int store_directory_prepare(struct io *io, const struct log *log,
                            const struct store_options *options,
                            struct store_directory *ret_directory);

/* Before the world is closed. Does nothing when the lock is not held. */
void store_directory_release(struct store_directory *directory);

/* After the world was closed. */
void store_directory_free(struct store_directory *directory);

#endif
