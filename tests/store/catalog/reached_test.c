/* The note of how far a shard's log had come: it comes back, and nothing else is taken for it. */
#include "store/catalog/reached.h"

#include "base/bytes.h"
#include "base/checksum.h"

#include <criterion/criterion.h>
#include <errno.h>

static const struct reached note = {.directory_id = 0x1234, .shard = 3, .position = 77};

static int decode(const uint8_t *block, uint64_t *ret_position)
{
    struct reached found = {.directory_id = note.directory_id, .shard = note.shard, .position = 5};
    int result = reached_decode(block, &found);
    *ret_position = found.position;
    return result;
}

Test(reached, note_comes_back)
{
    uint8_t block[REACHED_BLOCK_SIZE];
    uint64_t position;
    reached_encode(&note, block);
    cr_assert_eq(decode(block, &position), 0);
    cr_assert_eq(position, 77);
    memset(block, 0, sizeof block);
    cr_assert_eq(decode(block, &position), 0);
    cr_assert_eq(position, 0, "none was ever written");
}

Test(reached, every_bit_counts)
{
    uint8_t block[REACHED_BLOCK_SIZE];
    uint64_t position;
    reached_encode(&note, block);
    for (uint32_t bit = 0; bit < 8 * REACHED_BLOCK_SIZE; bit++) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(decode(block, &position), -EBADMSG);
        cr_assert_eq(position, 5, "it stays");
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(reached, what_is_unknown_or_of_another_is_not_taken)
{
    static const struct {
        uint32_t offset;
        int result;
    } cases[] = {{12, -EPROTONOSUPPORT},  {14, -EPROTONOSUPPORT}, {16, -EBADMSG},
                 {24, -EBADMSG},          {28, -EPROTONOSUPPORT}, {40, -EPROTONOSUPPORT},
                 {4095, -EPROTONOSUPPORT}};
    uint8_t block[REACHED_BLOCK_SIZE];
    uint64_t position;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        reached_encode(&note, block);
        block[cases[i].offset]++;
        store_u32(block + 8, crc32c(block + 12, REACHED_BLOCK_SIZE - 12));
        cr_assert_eq(decode(block, &position), cases[i].result, "offset %u", cases[i].offset);
    }
}

Test(reached, keeper_is_another_shard)
{
    for (uint32_t shard = 0; shard < 256; shard++)
        cr_assert_neq(reached_keeper(shard), shard);
}
