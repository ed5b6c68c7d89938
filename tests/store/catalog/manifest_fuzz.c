/* One block of the manifest from bytes that somebody else wrote: no crash, no read past the block,
 * and what is accepted has a sound checksum and is exactly what we would write. The input is laid
 * over a good block, sealed again when its first byte is odd, so that what lies behind the checksum
 * is reached; the second byte says how many edits the good block has. */
#include "store/catalog/manifest.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "tests/support/fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK MANIFEST_BLOCK_SIZE
#define PREFIX_SIZE 4u /* sealed, edits, offset (u16) */

static void make_block(const uint8_t *data, size_t size, uint8_t *bytes)
{
    struct manifest_block good = {.flags = 3, .directory_id = 1, .sequence = 9, .salt = 5};
    good.count = data[1] % (MANIFEST_BLOCK_EDITS + 1);
    for (uint32_t i = 0; i < good.count; i++)
        good.edits[i] = (struct manifest_edit){.kind = (enum manifest_kind)(1 + i % 3),
                                               .partition = (uint8_t)i,
                                               .source = 1,
                                               .number = i,
                                               .end = (uint64_t)i << 40};
    manifest_block_encode(&good, bytes);
    size_t offset = load_u16(data + 2) % BLOCK;
    for (size_t i = PREFIX_SIZE; i < size && offset + i - PREFIX_SIZE < BLOCK; i++)
        bytes[offset + i - PREFIX_SIZE] ^= data[i];
    if (data[0] & 1)
        store_u32(bytes + 8, crc32c(bytes + 12, BLOCK - 12));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < PREFIX_SIZE)
        return 0;
    uint8_t *bytes = malloc(BLOCK); /* so that a read past it is seen */
    REQUIRE(bytes != NULL);
    make_block(data, size, bytes);
    struct manifest_block found;
    memset(&found, 0xEE, sizeof found);
    int result = manifest_block_decode(bytes, &found);
    REQUIRE(result >= 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
    bool is_sound = load_u32(bytes + 8) == crc32c(bytes + 12, BLOCK - 12);
    REQUIRE(result == -EBADMSG || is_sound);
    if (result >= 0) {
        uint8_t again[BLOCK];
        REQUIRE((uint32_t)result == found.count && found.count <= MANIFEST_BLOCK_EDITS);
        manifest_block_encode(&found, again);
        REQUIRE(memcmp(again, bytes, BLOCK) == 0);
    } else {
        REQUIRE(found.count == 0xEEEEEEEE); /* untouched on failure */
    }
    free(bytes);
    return 0;
}
