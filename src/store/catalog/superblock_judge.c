/* What is wrong with a superblock that is sound by itself: for a start, which refuses it, and for
 * minivault-admin. */
#include "store/catalog/superblock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The bases are those of the last conversion, the same for all shards: another one was there before
 * it. */
bool superblock_is_misplaced(const struct superblock *now, const struct superblock *node,
                             uint32_t shard, char *ret_text)
{
    if (now->directory_id == node->directory_id && now->shard == shard &&
        now->shard_count == node->shard_count && now->log_base == node->log_base &&
        now->segment_base == node->segment_base && now->cluster_id == node->cluster_id &&
        memcmp(now->secret, node->secret, HASH_SECRET_SIZE) == 0)
        return false;
    (void)snprintf(ret_text, SUPERBLOCK_TEXT_SIZE,
                   "it is that of shard %" PRIu32 " of %" PRIu32 " of the directory %016" PRIx64
                   " at some time, this is shard %" PRIu32 " of %" PRIu32 " of %016" PRIx64
                   ": put back the one that was here",
                   now->shard, now->shard_count, now->directory_id, shard, node->shard_count,
                   node->directory_id);
    return true;
}

bool superblock_is_outdated(const struct superblock *now, const struct superblock *newest,
                            char *ret_text)
{
    if (newest->start_number <= now->start_number + 1)
        return false;
    (void)snprintf(ret_text, SUPERBLOCK_TEXT_SIZE,
                   "the superblock of shard %" PRIu32 " has start number %" PRIu64
                   ", that of shard %" PRIu32 " has %" PRIu64 ": shard %" PRIu32
                   " is an older copy. Put back the one that was here, restore all shards from "
                   "one backup, or start once with -accept-loss to go on without its later writes",
                   now->shard, now->start_number, newest->shard, newest->start_number, now->shard);
    return true;
}

/* It would take the segments of the other shards for orphans. */
bool superblock_is_outgrown(const struct superblock *node, const char *folder, char *ret_text)
{
    unsigned shard;
    if (node->shards_before != 0 || sscanf(folder, "shard-%3u", &shard) != 1 ||
        shard < node->shard_count)
        return false;
    (void)snprintf(ret_text, SUPERBLOCK_TEXT_SIZE,
                   "it tells of %" PRIu32 " shards, but there is shard-%u, too: it is one of "
                   "another time. Put back the one that was here",
                   node->shard_count, shard);
    return true;
}
