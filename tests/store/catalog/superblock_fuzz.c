/* One copy of the superblock from bytes that somebody else wrote: no crash, no read past the block,
 * and what is accepted has a sound checksum and is exactly what we would write. The input is laid
 * over a good copy, sealed again when its first byte is odd, so that what lies behind the checksum
 * is reached.
 */
#include "store/catalog/superblock.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "tests/support/fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096

static void make_block(const uint8_t *data, size_t size, uint8_t *block)
{
    struct superblock good = {.format = SUPERBLOCK_FORMAT,
                              .sequence = 9,
                              .directory_id = 1,
                              .shard_count = 1,
                              .start_number = 4,
                              .log_file_size = 4096,
                              .writes_in_flight = 1};
    superblock_encode(&good, block);
    if (size < 3)
        return;
    bool sealed = data[0] & 1;
    size_t offset = load_u16(data + 1) % BLOCK;
    for (size_t i = 3; i < size && offset + i - 3 < BLOCK; i++)
        block[offset + i - 3] ^= data[i];
    if (sealed)
        store_u32(block + 8, crc32c(block + 12, BLOCK - 12));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *block = malloc(BLOCK); /* so that a read past it is seen */
    REQUIRE(block != NULL);
    make_block(data, size, block);
    struct superblock found;
    int result = superblock_decode(block, &found);
    REQUIRE(result == 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
    bool is_sound = load_u32(block + 8) == crc32c(block + 12, BLOCK - 12);
    REQUIRE(result == -EBADMSG || is_sound);
    if (result == 0) {
        uint8_t again[BLOCK];
        superblock_encode(&found, again);
        REQUIRE(memcmp(again, block, BLOCK) == 0);
    }
    free(block);
    return 0;
}
