/* The format of the manifest by itself, byte for byte, and what of it is refused. */
#include "store/catalog/manifest.h"

#include "base/bytes.h"
#include "base/checksum.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#define BLOCK MANIFEST_BLOCK_SIZE

static struct manifest_block sample(void)
{
    struct manifest_block block = {
        .flags = MANIFEST_GROUP_LAST,
        .directory_id = 0x1122334455667788,
        .sequence = 0x0102,
        .salt = 0xA1A2A3A4A5A6A7A8,
        .position = 0xB1B2B3B4B5B6B7B8,
        .count = 3,
    };
    block.edits[0] =
        (struct manifest_edit){MANIFEST_SEGMENT, 0xAB, 2, 0, 7, 0x1001, 0x2002, 0x3003};
    block.edits[1] =
        (struct manifest_edit){MANIFEST_REMOVE, 0xFF, 1, 0, UINT32_MAX, UINT64_MAX, 5, 6};
    block.edits[2] = (struct manifest_edit){.kind = MANIFEST_CHECKPOINT, .number = 9};
    return block;
}

static void seal(uint8_t *bytes)
{
    store_u32(bytes + 8, crc32c(bytes + 12, BLOCK - 12));
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

Test(manifest_format, a_block_has_these_bytes)
{
    static const uint8_t golden[] = {
        'm',  'v',  'M',  'A',  'N',  'I',  'F',  '1',  /* magic */
        0x5E, 0x92, 0x4E, 0x30,                         /* checksum */
        1,    0,    2,    0,                            /* format, flags */
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, /* directory */
        2,    1,    0,    0,    0,    0,    0,    0,    /* sequence */
        0xA8, 0xA7, 0xA6, 0xA5, 0xA4, 0xA3, 0xA2, 0xA1, /* salt */
        3,    0,    0,    0,                            /* edits */
        0,    0,    0,    0,                            /* nothing */
        0,    0,    0,    0,    0,    0,    0,    0,    /* edition */
        0xB8, 0xB7, 0xB6, 0xB5, 0xB4, 0xB3, 0xB2, 0xB1, /* log position */
        1,    0xAB, 2,    0,                            /* a segment */
        7,    0,    0,    0,                            /* log */
        1,    0x10, 0,    0,    0,    0,    0,    0,    /* number */
        2,    0x20, 0,    0,    0,    0,    0,    0,    /* end */
        3,    0x30, 0,    0,    0,    0,    0,    0,    /* created */
        2,    0xFF, 1,    0,                            /* a removal */
        0xFF, 0xFF, 0xFF, 0xFF,                         /* log */
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, /* number */
        5,    0,    0,    0,    0,    0,    0,    0,    /* end */
        6,    0,    0,    0,    0,    0,    0,    0,    /* created */
        3,    0,    0,    0,                            /* a checkpoint */
        0,    0,    0,    0,                            /* log */
        9,    0,    0,    0,    0,    0,    0,    0,    /* number */
        0,    0,    0,    0,    0,    0,    0,    0,    /* end */
        0,    0,    0,    0,    0,    0,    0,    0,    /* created */
    };
    uint8_t bytes[BLOCK];
    struct manifest_block block = sample();
    manifest_block_encode(&block, bytes);
    for (size_t i = 0; i < sizeof golden; i++)
        cr_expect_eq(bytes[i], golden[i], "byte %zu is %02x", i, bytes[i]);
    cr_assert(is_zero(bytes + sizeof golden, BLOCK - sizeof golden));
}

Test(manifest_format, what_is_encoded_is_decoded)
{
    uint8_t bytes[BLOCK];
    struct manifest_block block = sample();
    manifest_block_encode(&block, bytes);
    struct manifest_block found;
    cr_assert_eq(manifest_block_decode(bytes, &found), 3);
    cr_assert_eq(found.flags, block.flags);
    cr_assert_eq(found.directory_id, block.directory_id);
    cr_assert_eq(found.sequence, block.sequence);
    cr_assert_eq(found.salt, block.salt);
    cr_assert_eq(found.position, block.position);
    cr_assert_eq(found.count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(found.edits[i].kind, block.edits[i].kind);
        cr_assert_eq(found.edits[i].partition, block.edits[i].partition);
        cr_assert_eq(found.edits[i].source, block.edits[i].source);
        cr_assert_eq(found.edits[i].log_id, block.edits[i].log_id);
        cr_assert_eq(found.edits[i].number, block.edits[i].number);
        cr_assert_eq(found.edits[i].end, block.edits[i].end);
        cr_assert_eq(found.edits[i].created, block.edits[i].created);
    }
}

Test(manifest_format, empty_and_full_blocks_are_blocks)
{
    static const uint32_t counts[] = {0, 1, MANIFEST_BLOCK_EDITS - 1, MANIFEST_BLOCK_EDITS};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint8_t bytes[BLOCK + 1];
        uint8_t again[BLOCK];
        struct manifest_block block = {.directory_id = 1, .sequence = 1, .salt = 1};
        block.count = counts[i];
        for (uint32_t j = 0; j < block.count; j++)
            block.edits[j] = (struct manifest_edit){.kind = MANIFEST_SEGMENT, .number = j};
        bytes[BLOCK] = 0xEE;
        manifest_block_encode(&block, bytes);
        cr_assert_eq(bytes[BLOCK], 0xEE);
        struct manifest_block found;
        cr_assert_eq(manifest_block_decode(bytes, &found), (int)counts[i]);
        manifest_block_encode(&found, again);
        cr_assert_arr_eq(again, bytes, BLOCK);
    }
}

Test(manifest_format, every_flipped_bit_is_noticed)
{
    uint8_t bytes[BLOCK];
    struct manifest_block block = sample();
    manifest_block_encode(&block, bytes);
    struct manifest_block found = {.count = 77};
    for (uint32_t bit = 0; bit < BLOCK * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(manifest_block_decode(bytes, &found), -EBADMSG, "bit %u", bit);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert_eq(found.count, 77, "nothing was returned");
}

Test(manifest_format, a_torn_block_is_noticed_wherever_it_is_cut)
{
    uint8_t before[BLOCK];
    uint8_t after[BLOCK];
    uint8_t torn[BLOCK];
    struct manifest_block found;
    struct manifest_block block = sample();
    manifest_block_encode(&block, before);
    block.sequence++;
    block.count = MANIFEST_BLOCK_EDITS;
    for (uint32_t i = 0; i < block.count; i++)
        block.edits[i] = (struct manifest_edit){.kind = MANIFEST_SEGMENT, .number = i + 1};
    manifest_block_encode(&block, after);
    for (uint32_t cut = 9; cut < BLOCK - 32; cut += 1) {
        memcpy(torn, before, BLOCK);
        memcpy(torn, after, cut);
        cr_assert_eq(manifest_block_decode(torn, &found), -EBADMSG, "%u bytes over another", cut);
        memset(torn + cut, 0, BLOCK - cut);
        cr_assert_eq(manifest_block_decode(torn, &found), -EBADMSG, "%u bytes over zeros", cut);
    }
    memset(torn, 0, BLOCK);
    cr_assert_eq(manifest_block_decode(torn, &found), -EBADMSG, "never written");
}

Test(manifest_format, what_this_program_does_not_know_is_refused)
{
    static const struct {
        uint32_t offset;
        uint8_t bits;
    } changes[] = {
        {12, 2},        /* the format */
        {14, 4},        /* a flag */
        {15, 0x80},     /* a flag */
        {44, 1},        /* what is 0 today */
        {47, 0x80},     /* what is 0 today */
        {64, 4},        /* a kind: 5 */
        {64, 1},        /* a kind: 0 */
        {67, 1},        /* the byte in an edit that is 0 today */
        {64 + 96, 1},   /* behind the edits */
        {BLOCK - 1, 1}, /* behind the edits */
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        uint8_t bytes[BLOCK];
        struct manifest_block block = sample();
        struct manifest_block found;
        manifest_block_encode(&block, bytes);
        bytes[changes[i].offset] ^= changes[i].bits;
        seal(bytes);
        cr_expect_eq(manifest_block_decode(bytes, &found), -EPROTONOSUPPORT, "offset %u",
                     changes[i].offset);
    }
}

Test(manifest_format, nonsense_under_a_sound_checksum_is_refused)
{
    uint8_t bytes[BLOCK];
    struct manifest_block block = sample();
    struct manifest_block found;
    static const uint32_t counts[] = {MANIFEST_BLOCK_EDITS + 1, 1000, 1u << 27, UINT32_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        manifest_block_encode(&block, bytes);
        store_u32(bytes + 40, counts[i]);
        seal(bytes);
        cr_expect_eq(manifest_block_decode(bytes, &found), -EBADMSG, "%u edits", counts[i]);
    }
    static const uint32_t offsets[] = {24, 32}; /* sequence, salt: never 0 */
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        manifest_block_encode(&block, bytes);
        store_u64(bytes + offsets[i], 0);
        seal(bytes);
        cr_expect_eq(manifest_block_decode(bytes, &found), -EBADMSG, "offset %u", offsets[i]);
    }
}
