/* One block of the manifest: bytes and back. The table of offsets stands in manifest.h. */
#include "store/catalog/manifest.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"

#include <errno.h>

static const uint8_t MAGIC[8] = "mvMANIF1";
#define CRC_FROM offsetof(struct manifest_block, format)
#define FORMAT 1u
#define FLAGS_KNOWN (MANIFEST_GROUP_FIRST | MANIFEST_GROUP_LAST)

static_assert(sizeof(struct manifest_edit) == 32, "as the table says");
static_assert(offsetof(struct manifest_edit, log_id) == 4, "as the table says");
static_assert(offsetof(struct manifest_block, edition) == 48, "as the table says");
static_assert(offsetof(struct manifest_block, edits) == 64, "as the table says");
static_assert(sizeof(struct manifest_block) == MANIFEST_BLOCK_SIZE, "the edits fill the block");

static bool is_edit_known(const struct manifest_edit *edit)
{
    return edit->kind >= MANIFEST_SEGMENT && edit->kind <= MANIFEST_DAMAGE && edit->zero == 0;
}

void manifest_block_encode(const struct manifest_block *block, uint8_t *target)
{
    assert(block->count <= MANIFEST_BLOCK_EDITS);
    assert((block->flags & ~FLAGS_KNOWN) == 0);
    assert(block->sequence > 0);
    assert(block->salt != 0);
    for (uint32_t i = 0; i < block->count; i++)
        assert(is_edit_known(&block->edits[i]));
    size_t used = offsetof(struct manifest_block, edits) + block->count * sizeof *block->edits;
    memcpy(target, block, used);
    memset(target + used, 0, MANIFEST_BLOCK_SIZE - used);
    memcpy(target, MAGIC, sizeof MAGIC);
    store_u16(target + CRC_FROM, FORMAT);
    store_u32(target + 8, crc32c(target + CRC_FROM, MANIFEST_BLOCK_SIZE - CRC_FROM));
}

int manifest_block_decode(const uint8_t *data, struct manifest_block *ret_block)
{
    struct manifest_block block;
    memcpy(&block, data, sizeof block);
    if (memcmp(block.magic, MAGIC, sizeof MAGIC) != 0 ||
        block.checksum != crc32c(data + CRC_FROM, MANIFEST_BLOCK_SIZE - CRC_FROM))
        return -EBADMSG;
    if (block.format != FORMAT || (block.flags & ~FLAGS_KNOWN) != 0 || block.zero != 0)
        return -EPROTONOSUPPORT;
    if (block.count > MANIFEST_BLOCK_EDITS || block.sequence == 0 || block.salt == 0)
        return -EBADMSG;
    size_t used = offsetof(struct manifest_block, edits) + block.count * sizeof *block.edits;
    if (!bytes_are_zero(data + used, MANIFEST_BLOCK_SIZE - used))
        return -EPROTONOSUPPORT;
    for (uint32_t i = 0; i < block.count; i++)
        if (!is_edit_known(&block.edits[i]))
            return -EPROTONOSUPPORT;
    *ret_block = block;
    return (int)block.count;
}
