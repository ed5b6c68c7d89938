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

#define FIELDS_OFFSET 8 /* where the struct lies in a copy */
#define FIELDS_END (FIELDS_OFFSET + sizeof(struct superblock))
#define CRC_FROM 12

static_assert(offsetof(struct superblock, writes_in_flight) == 76 - FIELDS_OFFSET, "see the table");
static_assert(offsetof(struct superblock, log_last) == 272 - FIELDS_OFFSET, "see the table");
static_assert(offsetof(struct superblock, start_number) == 344 - FIELDS_OFFSET, "see the table");
static_assert(FIELDS_END == 352, "the rest of a copy is 0");

void superblock_encode(const struct superblock *superblock, uint8_t *block)
{
    memset(block, 0, BLOCK);
    memcpy(block, MAGIC, MAGIC_SIZE);
    memcpy(block + FIELDS_OFFSET, superblock, sizeof *superblock);
    store_u32(block + FIELDS_OFFSET, crc32c(block + CRC_FROM, BLOCK - CRC_FROM));
}

/* Whether this is of our format and says nothing that we do not know. */
static bool is_known(const struct superblock *found, const uint8_t *block)
{
    return found->format == SUPERBLOCK_FORMAT && found->flags_unknown == 0 && found->gap == 0 &&
           bytes_are_zero(block + FIELDS_END, BLOCK - FIELDS_END);
}

int superblock_decode(const uint8_t *block, struct superblock *ret_superblock)
{
    struct superblock found;
    memcpy(&found, block + FIELDS_OFFSET, sizeof found);
    if (memcmp(block, MAGIC, MAGIC_SIZE) != 0 ||
        found.checksum != crc32c(block + CRC_FROM, BLOCK - CRC_FROM))
        return -EBADMSG;
    if (!is_known(&found, block)) {
        *ret_superblock = found;
        return -EPROTONOSUPPORT;
    }
    bool is_numbered = found.shard_count > 0 && found.shard_count <= SUPERBLOCK_SHARDS_MAX &&
                       found.shards_before <= SUPERBLOCK_SHARDS_MAX &&
                       found.shard < found.shard_count;
    bool is_sized = found.log_file_size > 0 && found.log_file_size % DISK_BLOCK_SIZE == 0 &&
                    found.log_file_size <= LOG_FILE_SIZE_LIMIT;
    bool is_named = superblock_origin_id(&found) != SUPERBLOCK_ORIGIN_NOBODY;
    bool is_probed = found.writes_in_flight == 1 || found.writes_in_flight == 2;
    if (!is_numbered || !is_sized || !is_named || !is_probed)
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
