/* One copy of the superblock in bytes, one block of 4096. docs/superblock.md has the table.
 *
 *   offset  size  field
 *        0     8  magic "MINIVLT1"
 *        8     4  crc32c of bytes 12 to 4095
 *       12     4  format
 *       16     8  sequence
 *       24     8  directory id
 *       32     8  cluster id
 *       40     8  cluster epoch
 *       48     8  clock ceiling
 *       56     8  log file bytes
 *       64     8  damage accepted
 *       72     4  flags: 1 probed, 2 RWF_DSYNC, 4 clean
 *       76     4  writes in flight
 *       80   192  secret
 *      272     8  last position of the log; 0: unknown. This one and the next four are as of the
 *                 last clean shutdown
 *      280     8  number of the log's newest file
 *      288     8  salt of the manifest
 *      296     8  blocks of the manifest's groups
 *      304     8  edition of the manifest
 *      312     4  shards
 *      316     4  shard
 *      320     8  log base
 *      328     8  segment base
 *      336     4  shards before
 *      340     4  0
 *      344     8  start number
 *      352  3744  0
 *
 * The format stands behind the checksum. A copy with a sound checksum and another format is refused
 * with both numbers, so a later format keeps these first sixteen bytes. */
#include "store/catalog/superblock.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "base/units.h"

#include <errno.h>
#include <string.h>

#define MAGIC "MINIVLT1"
#define MAGIC_SIZE 8
#define BLOCK ((uint32_t)DISK_BLOCK_SIZE)
#define LOG_FILE_SIZE_LIMIT (2 * GIB)

enum superblock_flags { FLAG_PROBED = 1, FLAG_DSYNC = 2, FLAG_CLEAN = 4, FLAGS_KNOWN = 7 };

#define GAP_OFFSET 340  /* four bytes that are 0 */
#define FIELDS_SIZE 352 /* the rest of a copy is 0 */

void superblock_encode(const struct superblock *superblock, uint8_t *block)
{
    uint32_t flags = (superblock->probed ? FLAG_PROBED : 0u) |
                     (superblock->use_dsync ? FLAG_DSYNC : 0u) |
                     (superblock->clean ? FLAG_CLEAN : 0u);
    memset(block, 0, BLOCK);
    memcpy(block, MAGIC, MAGIC_SIZE);
    store_u32(block + 12, superblock->format);
    store_u64(block + 16, superblock->sequence);
    store_u64(block + 24, superblock->directory_id);
    store_u64(block + 32, superblock->cluster_id);
    store_u64(block + 40, superblock->cluster_epoch);
    store_u64(block + 48, superblock->clock_ceiling);
    store_u64(block + 56, superblock->log_file_size);
    store_u64(block + 64, superblock->damage_accepted);
    store_u32(block + 72, flags);
    store_u32(block + 76, superblock->writes_in_flight);
    memcpy(block + 80, superblock->secret, HASH_SECRET_SIZE);
    store_u64(block + 272, superblock->log_last);
    store_u64(block + 280, superblock->log_number);
    store_u64(block + 288, superblock->manifest_salt);
    store_u64(block + 296, superblock->manifest_blocks);
    store_u64(block + 304, superblock->manifest_edition);
    store_u32(block + 312, superblock->shard_count);
    store_u32(block + 316, superblock->shard);
    store_u64(block + 320, superblock->log_base);
    store_u64(block + 328, superblock->segment_base);
    store_u32(block + 336, superblock->shards_before);
    store_u64(block + 344, superblock->start_number);
    store_u32(block + 8, crc32c(block + 12, BLOCK - 12));
}

/* Whether this is of our format and says nothing that we do not know. */
static bool is_known(const uint8_t *block)
{
    bool is_known = load_u32(block + 12) == SUPERBLOCK_FORMAT &&
                    (load_u32(block + 72) & ~(uint32_t)FLAGS_KNOWN) == 0 &&
                    load_u32(block + GAP_OFFSET) == 0;
    for (uint32_t i = FIELDS_SIZE; i < BLOCK; i++)
        is_known = is_known && block[i] == 0;
    return is_known;
}

int superblock_decode(const uint8_t *block, struct superblock *ret_superblock)
{
    if (memcmp(block, MAGIC, MAGIC_SIZE) != 0 ||
        load_u32(block + 8) != crc32c(block + 12, BLOCK - 12))
        return -EBADMSG;
    struct superblock found = {
        .format = load_u32(block + 12),
        .sequence = load_u64(block + 16),
        .directory_id = load_u64(block + 24),
        .cluster_id = load_u64(block + 32),
        .cluster_epoch = load_u64(block + 40),
        .clock_ceiling = load_u64(block + 48),
        .log_file_size = load_u64(block + 56),
        .damage_accepted = load_u64(block + 64),
        .probed = load_u32(block + 72) & FLAG_PROBED,
        .use_dsync = load_u32(block + 72) & FLAG_DSYNC,
        .clean = load_u32(block + 72) & FLAG_CLEAN,
        .writes_in_flight = (uint8_t)load_u32(block + 76),
        .log_last = load_u64(block + 272),
        .log_number = load_u64(block + 280),
        .manifest_salt = load_u64(block + 288),
        .manifest_blocks = load_u64(block + 296),
        .manifest_edition = load_u64(block + 304),
        .shard_count = load_u32(block + 312),
        .shard = load_u32(block + 316),
        .log_base = load_u64(block + 320),
        .segment_base = load_u64(block + 328),
        .shards_before = load_u32(block + 336),
        .start_number = load_u64(block + 344),
    };
    memcpy(found.secret, block + 80, HASH_SECRET_SIZE);
    if (!is_known(block)) {
        *ret_superblock = found;
        return -EPROTONOSUPPORT;
    }
    uint32_t writes_in_flight = load_u32(block + 76);
    bool is_numbered = found.shard_count > 0 && found.shard_count <= SUPERBLOCK_SHARDS_MAX &&
                       found.shards_before <= SUPERBLOCK_SHARDS_MAX &&
                       found.shard < found.shard_count;
    bool is_sized = found.log_file_size > 0 && found.log_file_size % DISK_BLOCK_SIZE == 0 &&
                    found.log_file_size <= LOG_FILE_SIZE_LIMIT;
    bool is_named = superblock_origin_id(&found) != SUPERBLOCK_ORIGIN_NOBODY;
    if (!is_numbered || !is_sized || !is_named || writes_in_flight < 1 || writes_in_flight > 2)
        return -EBADMSG;
    *ret_superblock = found;
    return 0;
}

int superblock_choose(const struct superblock *copies, const int *results,
                      struct superblock *ret_found)
{
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++)
        if (results[i] == -EPROTONOSUPPORT) {
            *ret_found = copies[i];
            return results[i];
        }
    if (results[0] != 0 && results[1] != 0) /* one that cannot be read may be good: no formatting */
        return results[0] != -EBADMSG ? results[0] : results[1];
    bool is_second =
        results[0] != 0 || (results[1] == 0 && copies[1].sequence > copies[0].sequence);
    *ret_found = copies[is_second];
    /* The one that is lost may have said that the directory is in use. */
    ret_found->clean = ret_found->clean && results[0] == 0 && results[1] == 0;
    return 0;
}
