/* The format of checkpoints by itself, byte for byte, and what of it is refused. */
#include "store/catalog/checkpoint_format.h"

#include "base/bytes.h"
#include "base/checksum.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK CHECKPOINT_BLOCK_MIN
#define HEADER CHECKPOINT_BLOCK_HEADER_SIZE

static struct checkpoint_block sample(enum checkpoint_kind kind, uint32_t entry_count)
{
    return (struct checkpoint_block){
        .kind = kind,
        .partition = kind == CHECKPOINT_SLOTS ? 0xAB : 0,
        .directory_id = 0x1122334455667788,
        .number = 0x0102030405060708,
        .sequence = 0x1112131415161718,
        .slots_hint = kind == CHECKPOINT_SLOTS ? 0x2122232425262728 : 0,
        .entry_count = entry_count,
        .size = checkpoint_block_size(kind, entry_count),
    };
}

/* Makes a changed header valid again. */
static void seal(uint8_t *data)
{
    store_u32(data + 8, crc32c(data + 12, HEADER - 12));
}

/* ---- golden bytes ---- */

static const uint8_t begin_bytes[] = {
    'm',  'v',  'C',  'H',  'K',  'B',  'L',  'K',  0x00, 0x97, 0x95, 0x29, 1, 0, 1, 0, /* 0 */
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 8,    7,    6,    5,    4, 3, 2, 1, /* 16 */
    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0,    0,    0,    0,    0, 0, 0, 0, /* 32 */
    1,    0,    0,    0,    0,    0x10, 0,    0,    0x81, 0x3C, 0x6D, 0x52, 0, 0, 0, 0, /* 48 */
    0x31, 0,    0,    0,    0,    0,    0,    0,    0x32, 0,    0,    0,    0, 0, 0, 0, /* 64 */
    0x33, 0,    0,    0,    0,    0,    0,    0x80, 3,    0,    0,    0,    4, 0, 0, 0, /* 80 */
};

static const uint8_t slots_bytes[] = {
    'm',  'v',  'C',  'H',  'K',  'B',  'L',  'K',  0x46, 0x12, 0xAE, 0x81, 1, 0, 3, 0xAB, /* 0 */
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 8,    7,    6,    5,    4, 3, 2, 1,    /* 16 */
    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,                                        /* 32 */
    0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21,                                        /* 40 */
    1,    0,    0,    0,    0,    0x10, 0,    0,    0x8C, 0xA0, 0x4D, 0x4E, 0, 0, 0, 0,    /* 48 */
    0x57, 0x56, 0x55, 0x54, 0x53, 0x52, 0x51,                               /* hash */
    0x68, 0x67, 0x66, 0x65, 0x64, 0x63, 0x62, 0x61, 0x74, 0x73, 0x72, 0x71, /* version */
    0x86, 0x85, 0x84, 0x83, 0x82, 0x81,                                     /* location */
    0xC0,                                                                   /* 64 bytes */
};

static const uint8_t file_bytes[2 * CHECKPOINT_FILE_SIZE] = {
    1,    0,    0,    0,    0x05, 0x04, 0,    0,
    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, /* log segment */
    0,    0,    0,    0,    0,    0,    0,    0,    /* its end */
    2,    0,    0,    0,    0xFF, 0xFF, 7,    0,
    1,    0,    0,    0,    0,    0,    0,    0,    /* partition segment */
    0,    0x10, 0,    0,    0,    0,    0,    0x80, /* its end */
};

static const uint8_t end_bytes[] = {0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0};

static void expect_bytes(const uint8_t *data, const uint8_t *expected, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        cr_expect_eq(data[i], expected[i], "byte %u: %02x", i, data[i]);
    for (uint32_t i = size; i < BLOCK; i++)
        cr_assert_eq(data[i], 0, "byte %u", i);
}

Test(checkpoint_format, begin_has_its_bytes)
{
    uint8_t data[BLOCK];
    memset(data, 0xEE, sizeof data);
    struct checkpoint_begin_entry entry = {.position = 0x31,
                                           .chunk_sequence = 0x32,
                                           .clock_ceiling = 0x8000000000000033,
                                           .log_id = 3,
                                           .file_count = 4};
    memcpy(data + HEADER, &entry, sizeof entry);
    struct checkpoint_block block = sample(CHECKPOINT_BEGIN, 1);
    checkpoint_block_encode(&block, data);
    expect_bytes(data, begin_bytes, sizeof begin_bytes);
    struct checkpoint_begin_entry found;
    memcpy(&found, data + HEADER, sizeof found);
    cr_expect_eq(found.position, entry.position);
    cr_expect_eq(found.chunk_sequence, entry.chunk_sequence);
    cr_expect_eq(found.clock_ceiling, entry.clock_ceiling);
    cr_expect_eq(found.log_id, entry.log_id);
    cr_expect_eq(found.file_count, entry.file_count);
}

Test(checkpoint_format, slots_have_their_bytes)
{
    uint8_t data[BLOCK];
    memset(data, 0xEE, sizeof data);
    struct index_entry entry = {.version = {0x6162636465666768, 0x71727374},
                                .location = 0x818283848586,
                                .read_size = 64,
                                .tombstone = true,
                                .in_value_file = true};
    index_pack(0x51525354555657, &entry, data + HEADER);
    struct checkpoint_block block = sample(CHECKPOINT_SLOTS, 1);
    checkpoint_block_encode(&block, data);
    expect_bytes(data, slots_bytes, sizeof slots_bytes);
}

Test(checkpoint_format, files_have_their_bytes)
{
    static const struct checkpoint_file files[2] = {{false, 0x405, 0x1112131415161718, 0},
                                                    {true, (1u << 19) - 1, 1, 0x8000000000001000}};
    for (uint32_t i = 0; i < 2; i++) {
        uint8_t target[CHECKPOINT_FILE_SIZE];
        memset(target, 0xEE, sizeof target);
        checkpoint_file_encode(&files[i], target);
        cr_expect_arr_eq(target, file_bytes + (size_t)i * CHECKPOINT_FILE_SIZE, sizeof target);
        struct checkpoint_file found;
        cr_assert_eq(checkpoint_file_decode(target, &found), 0);
        cr_expect_eq(found.is_segment, files[i].is_segment);
        cr_expect_eq(found.file, files[i].file);
        cr_expect_eq(found.number, files[i].number);
        cr_expect_eq(found.end, files[i].end);
    }
}

Test(checkpoint_format, end_has_its_bytes)
{
    uint8_t data[BLOCK];
    memset(data, 0xEE, sizeof data);
    struct checkpoint_end_entry entry = {.slots = 0x41, .file_size = 0x5000};
    memcpy(data + HEADER, &entry, sizeof entry);
    struct checkpoint_block block = sample(CHECKPOINT_END, 1);
    checkpoint_block_encode(&block, data);
    cr_expect_arr_eq(data + HEADER, end_bytes, sizeof end_bytes);
    cr_expect_eq(data[14], 4);
    struct checkpoint_end_entry found;
    memcpy(&found, data + HEADER, sizeof found);
    cr_expect_eq(found.slots, entry.slots);
    cr_expect_eq(found.file_size, entry.file_size);
}

/* ---- blocks ---- */

Test(checkpoint_format, blocks_of_every_size_are_decoded)
{
    static const uint32_t counts[] = {0, 1, 155, 156, 40326, 40327};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct checkpoint_block block = sample(CHECKPOINT_SLOTS, counts[i]);
        uint8_t *data = calloc(1, block.size);
        cr_assert_not_null(data);
        for (uint32_t j = 0; j < counts[i] * INDEX_PACKED_SIZE; j++)
            data[HEADER + j] = (uint8_t)(j * 7);
        checkpoint_block_encode(&block, data);
        struct checkpoint_block found;
        cr_assert_eq(checkpoint_block_decode(data, block.size, &found), 0);
        cr_expect_eq(found.kind, block.kind);
        cr_expect_eq(found.partition, block.partition);
        cr_expect_eq(found.directory_id, block.directory_id);
        cr_expect_eq(found.number, block.number);
        cr_expect_eq(found.sequence, block.sequence);
        cr_expect_eq(found.slots_hint, block.slots_hint);
        cr_expect_eq(found.entry_count, counts[i]);
        cr_expect_eq(found.size, block.size);
        cr_expect_eq(checkpoint_block_decode(data, block.size - 1, &found), -EBADMSG);
        cr_expect_eq(checkpoint_block_decode(data, HEADER, &found), -EBADMSG);
        free(data);
    }
    cr_expect_eq(checkpoint_block_room(CHECKPOINT_SLOTS, CHECKPOINT_UNIT_SIZE), 40327);
    cr_expect_eq(checkpoint_block_size(CHECKPOINT_SLOTS, 155), BLOCK);
    cr_expect_eq(checkpoint_block_size(CHECKPOINT_SLOTS, 156), 2 * BLOCK);
}

Test(checkpoint_format, every_flipped_bit_is_noticed)
{
    uint8_t data[BLOCK] = {0};
    struct checkpoint_block block = sample(CHECKPOINT_SLOTS, 100);
    checkpoint_block_encode(&block, data);
    for (uint32_t bit = 0; bit < BLOCK * 8; bit++) {
        struct checkpoint_block found;
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(checkpoint_block_decode(data, BLOCK, &found), -EBADMSG, "bit %u", bit);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(checkpoint_format, too_few_bytes_are_not_looked_at)
{
    struct checkpoint_block block = sample(CHECKPOINT_SLOTS, 1);
    uint8_t data[BLOCK] = {0};
    checkpoint_block_encode(&block, data);
    for (uint32_t size = 0; size <= HEADER; size++) {
        uint8_t *exact = malloc(size > 0 ? size : 1); /* so that a read past it is seen */
        cr_assert_not_null(exact);
        memcpy(exact, data, size);
        struct checkpoint_block found;
        cr_assert_eq(checkpoint_block_decode(exact, size, &found), -EBADMSG, "%u bytes", size);
        free(exact);
    }
}

struct change {
    uint32_t offset;
    uint32_t value; /* of four bytes */
};

Test(checkpoint_format, numbers_that_make_no_sense_are_refused)
{
    static const struct change changes[] = {
        {12, 0x00000001}, /* kind 0 */
        {12, 0x00050001}, /* kind 5 */
        {12, 0xAB020001}, /* files of a partition */
        {48, 156},        /* more entries than bytes */
        {48, UINT32_MAX}, /* their size wraps around in 32 bits */
        {52, 0},          /* no bytes */
        {52, BLOCK - 1},  /* not a block */
        {52, 2 * BLOCK},  /* more than there are */
        {52, 0x80000000}, /* beyond a unit */
        {60, 1},          /* reserved */
    };
    uint8_t data[BLOCK] = {0};
    struct checkpoint_block block = sample(CHECKPOINT_SLOTS, 155);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        checkpoint_block_encode(&block, data);
        store_u32(data + changes[i].offset, changes[i].value);
        seal(data);
        struct checkpoint_block found;
        cr_expect_eq(checkpoint_block_decode(data, BLOCK, &found), -EBADMSG, "change %zu", i);
    }
    static const struct change single[] = {{48, 0}, {48, 2}, {40, 1}};
    block = sample(CHECKPOINT_END, 1);
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++) {
        checkpoint_block_encode(&block, data);
        store_u32(data + single[i].offset, single[i].value);
        seal(data);
        struct checkpoint_block found;
        cr_expect_eq(checkpoint_block_decode(data, BLOCK, &found), -EBADMSG, "change %zu", i);
    }
}

Test(checkpoint_format, other_format_is_told_apart)
{
    uint8_t data[BLOCK] = {0};
    struct checkpoint_block block = sample(CHECKPOINT_SLOTS, 1);
    struct checkpoint_block found;
    checkpoint_block_encode(&block, data);
    store_u16(data + 12, CHECKPOINT_FORMAT + 1);
    cr_expect_eq(checkpoint_block_decode(data, BLOCK, &found), -EBADMSG, "not sealed");
    seal(data);
    cr_expect_eq(checkpoint_block_decode(data, BLOCK, &found), -EPROTONOSUPPORT);
    memset(data, 0, BLOCK);
    cr_expect_eq(checkpoint_block_decode(data, BLOCK, &found), -EBADMSG, "never written");
}

Test(checkpoint_format, files_that_cannot_be_are_refused)
{
    uint8_t data[CHECKPOINT_FILE_SIZE];
    struct checkpoint_file found;
    static const uint32_t kinds[] = {0, 3, 0x101, 0x01000002};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        memcpy(data, file_bytes, sizeof data);
        store_u32(data, kinds[i]);
        cr_expect_eq(checkpoint_file_decode(data, &found), -EBADMSG);
    }
    memcpy(data, file_bytes, sizeof data);
    store_u32(data + 4, 1u << 19);
    cr_expect_eq(checkpoint_file_decode(data, &found), -EBADMSG);
}

/* ---- names ---- */

Test(checkpoint_format, names_are_written_and_parsed)
{
    char path[CHECKPOINT_PATH_MAX];
    uint64_t number = 0;
    bool is_temporary = true;
    cr_assert_eq(checkpoint_path("a/b", 0xC0FFEE, false, path), 0);
    cr_expect_str_eq(path, "a/b/checkpoint-0000000000c0ffee");
    cr_assert_eq(checkpoint_name_parse(path + 4, &number, &is_temporary), 0);
    cr_expect_eq(number, 0xC0FFEE);
    cr_expect(!is_temporary);
    cr_assert_eq(checkpoint_path("a/b", UINT64_MAX, true, path), 0);
    cr_expect_str_eq(path, "a/b/checkpoint-ffffffffffffffff.tmp");
    cr_assert_eq(checkpoint_name_parse(path + 4, &number, &is_temporary), 0);
    cr_expect_eq(number, UINT64_MAX);
    cr_expect(is_temporary);
}

Test(checkpoint_format, other_names_are_none)
{
    static const char *const names[] = {"",
                                        "checkpoint-",
                                        "checkpoint-000000000000001",
                                        "checkpoint-00000000000000001",
                                        "checkpoint-000000000000000A",
                                        "checkpoint-000000000000000g",
                                        "checkpoint-0000000000000001.",
                                        "checkpoint-0000000000000001.tm",
                                        "checkpoint-0000000000000001.tmpx",
                                        "Checkpoint-0000000000000001",
                                        "xcheckpoint-0000000000000001",
                                        "wal-00000001"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint64_t number;
        bool is_temporary;
        cr_expect_eq(checkpoint_name_parse(names[i], &number, &is_temporary), -EINVAL, "%s",
                     names[i]);
    }
}

Test(checkpoint_format, path_that_is_too_long_is_refused)
{
    char directory[CHECKPOINT_PATH_MAX + 1];
    char path[CHECKPOINT_PATH_MAX];
    uint32_t fits = CHECKPOINT_PATH_MAX - sizeof "/checkpoint-0000000000000001.tmp";
    memset(directory, 'd', sizeof directory);
    directory[fits] = '\0';
    cr_expect_eq(checkpoint_path(directory, 1, true, path), 0);
    directory[fits] = 'd';
    directory[fits + 1] = '\0';
    cr_expect_eq(checkpoint_path(directory, 1, true, path), -ENAMETOOLONG);
    cr_expect_eq(checkpoint_path(directory, 1, false, path), 0);
}
