/* One block of the manifest: bytes and back. The table of offsets stands in manifest.h. */
#include "store/catalog/manifest.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"

#include <errno.h>

#define MAGIC "mvMANIF1"
#define MAGIC_SIZE 8u
#define CRC_FROM 12u
#define FORMAT 1u
#define FLAGS_KNOWN (MANIFEST_GROUP_FIRST | MANIFEST_GROUP_LAST)
#define EDITION_OFFSET 48u
#define POSITION_OFFSET 56u
#define EDITS_OFFSET 64u
#define EDIT_SIZE 32u

static_assert(EDITS_OFFSET + MANIFEST_BLOCK_EDITS * EDIT_SIZE == MANIFEST_BLOCK_SIZE,
              "the edits fill the block");

static void encode_edit(const struct manifest_edit *edit, uint8_t *target)
{
    assert(edit->kind >= MANIFEST_SEGMENT && edit->kind <= MANIFEST_DAMAGE);
    target[0] = (uint8_t)edit->kind;
    target[1] = edit->partition;
    target[2] = edit->source;
    target[3] = 0;
    store_u32(target + 4, edit->log_id);
    store_u64(target + 8, edit->number);
    store_u64(target + 16, edit->end);
    store_u64(target + 24, edit->created);
}

void manifest_block_encode(const struct manifest_block *block, uint8_t *target)
{
    assert(block->count <= MANIFEST_BLOCK_EDITS);
    assert((block->flags & ~FLAGS_KNOWN) == 0);
    assert(block->sequence > 0);
    assert(block->salt != 0);
    memset(target, 0, MANIFEST_BLOCK_SIZE);
    memcpy(target, MAGIC, MAGIC_SIZE);
    store_u16(target + 12, FORMAT);
    store_u16(target + 14, block->flags);
    store_u64(target + 16, block->directory_id);
    store_u64(target + 24, block->sequence);
    store_u64(target + 32, block->salt);
    store_u32(target + 40, block->count);
    store_u64(target + EDITION_OFFSET, block->edition);
    store_u64(target + POSITION_OFFSET, block->position);
    for (uint32_t i = 0; i < block->count; i++)
        encode_edit(&block->edits[i], target + EDITS_OFFSET + (size_t)i * EDIT_SIZE);
    store_u32(target + 8, crc32c(target + CRC_FROM, MANIFEST_BLOCK_SIZE - CRC_FROM));
}

static bool is_zero(const uint8_t *data, uint32_t from, uint32_t upto)
{
    uint8_t bits = 0;
    for (uint32_t i = from; i < upto; i++)
        bits |= data[i];
    return bits == 0;
}

/* Returns whether this release knows what it says. */
static bool decode_edit(const uint8_t *data, struct manifest_edit *ret_edit)
{
    uint8_t kind = data[0];
    if (kind < MANIFEST_SEGMENT || kind > MANIFEST_DAMAGE || data[3] != 0)
        return false;
    *ret_edit = (struct manifest_edit){
        .kind = (enum manifest_kind)kind,
        .partition = data[1],
        .source = data[2],
        .log_id = load_u32(data + 4),
        .number = load_u64(data + 8),
        .end = load_u64(data + 16),
        .created = load_u64(data + 24),
    };
    return true;
}

int manifest_block_decode(const uint8_t *data, struct manifest_block *ret_block)
{
    if (memcmp(data, MAGIC, MAGIC_SIZE) != 0 ||
        load_u32(data + 8) != crc32c(data + CRC_FROM, MANIFEST_BLOCK_SIZE - CRC_FROM))
        return -EBADMSG;
    uint16_t flags = load_u16(data + 14);
    if (load_u16(data + 12) != FORMAT || (flags & ~FLAGS_KNOWN) != 0 || load_u32(data + 44) != 0)
        return -EPROTONOSUPPORT;
    struct manifest_block block = {
        .flags = flags,
        .directory_id = load_u64(data + 16),
        .sequence = load_u64(data + 24),
        .salt = load_u64(data + 32),
        .edition = load_u64(data + EDITION_OFFSET),
        .position = load_u64(data + POSITION_OFFSET),
        .count = load_u32(data + 40),
    };
    if (block.count > MANIFEST_BLOCK_EDITS || block.sequence == 0 || block.salt == 0)
        return -EBADMSG;
    uint32_t end = EDITS_OFFSET + block.count * EDIT_SIZE;
    if (!is_zero(data, end, MANIFEST_BLOCK_SIZE))
        return -EPROTONOSUPPORT;
    for (uint32_t i = 0; i < block.count; i++)
        if (!decode_edit(data + EDITS_OFFSET + (size_t)i * EDIT_SIZE, &block.edits[i]))
            return -EPROTONOSUPPORT;
    *ret_block = block;
    return (int)block.count;
}
