/* The note of how far a log had come from bytes that somebody else wrote: no crash, no read past the
 * block, and what is accepted has a sound checksum and is exactly what we would write, or zeros. The
 * input is laid over a good block, sealed again when its first byte is odd. */
#include "store/catalog/reached.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "tests/support/fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *block = malloc(REACHED_BLOCK_SIZE); /* so that a read past it is seen */
    uint8_t again[REACHED_BLOCK_SIZE];
    REQUIRE(block != NULL);
    struct reached note = {.directory_id = 1, .shard = 2, .position = 3};
    reached_encode(&note, block);
    size_t offset = size < 3 ? 0 : load_u16(data + 1) % REACHED_BLOCK_SIZE;
    for (size_t i = 3; i < size && offset + i - 3 < REACHED_BLOCK_SIZE; i++)
        block[offset + i - 3] ^= data[i];
    if (size > 0 && data[0] % 2 == 1)
        store_u32(block + 8, crc32c(block + 12, REACHED_BLOCK_SIZE - 12));
    int result = reached_decode(block, &note);
    REQUIRE(result == 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
    REQUIRE(result == 0 || note.position == 3);
    reached_encode(&note, again);
    bool is_blank = bytes_are_zero(block, REACHED_BLOCK_SIZE) && note.position == 0;
    REQUIRE(result != 0 || is_blank || memcmp(again, block, REACHED_BLOCK_SIZE) == 0);
    free(block);
    return 0;
}
