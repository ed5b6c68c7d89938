/* The format of segment files by itself, byte for byte, and what of it is refused. */
#include "tests/support/guard.h"

#include "base/checksum.h"
#include "store/record/record.h"
#include "store/unit/segment_format.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#define BLOCK SEGMENT_BLOCK_SIZE
#define CHUNK_HEADER SEGMENT_CHUNK_HEADER_SIZE
#define ENTRY SEGMENT_ENTRY_SIZE

/* ---- the bytes of the tables; checksums are compared with what the bytes say ---- */

static const struct segment_header header_sample = {
    .partition = 0xAB,
    .source = 2,
    .directory_id = 0x1112131415161718,
    .log_id = 0x21222324,
    .number = 0x3132333435363738,
    .salt = 0x4142434445464748,
    .created = 0x5152535455565758,
};

static const uint8_t header_bytes[] = {
    'm',  'v',  'S',  'E',  'G',  'F',  'I',  'L',  0,    0,    0,    0,    1, 0, 0xAB, 2, /* 0 */
    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x24, 0x23, 0x22, 0x21, 0, 0, 0,    0, /* 16 */
    0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,                                        /* 32 */
    0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41,                                        /* 40 */
    0x58, 0x57, 0x56, 0x55, 0x54, 0x53, 0x52, 0x51,                                        /* 48 */
};

/* Records of 49, 56 and 57 bytes: 56 + 56 + 64 with their padding. */
static const struct segment_entry entry_samples[] = {
    {.hash = 0x62636465666768,
     .version = {.clock = 0x7172737475767778, .origin = 0x81828384},
     .record_size = 49},
    {.hash = 1, .version = {.clock = 2, .origin = 3}, .record_size = 56, .in_value_file = true},
    {.hash = 4, .version = {.clock = 5, .origin = 6}, .record_size = 57, .tombstone = true},
};
#define ENTRIES ((uint32_t)(sizeof entry_samples / sizeof entry_samples[0]))
#define RECORDS_SIZE 176u

static const uint8_t entry_bytes[ENTRIES * ENTRY] = {
    0x68, 0x67, 0x66, 0x65, 0x64, 0x63, 0x62, 0,    0x78, 0x77, 0x76, 0x75,
    0x74, 0x73, 0x72, 0x71, 0x84, 0x83, 0x82, 0x81, 49,   0,    0,    0, /* a value */
    1,    0,    0,    0,    0,    0,    0,    0,    2,    0,    0,    0,
    0,    0,    0,    0,    3,    0,    0,    0,    56,   0,    0,    0x40, /* in a value file */
    4,    0,    0,    0,    0,    0,    0,    0,    5,    0,    0,    0,
    0,    0,    0,    0,    6,    0,    0,    0,    57,   0,    0,    0x80, /* a tombstone */
};

static struct segment_chunk_header chunk_sample(void)
{
    return (struct segment_chunk_header){
        .directory_id = 0x1112131415161718,
        .record_count = ENTRIES,
        .salt = 0x4142434445464748,
        .segment = 0x3132333435363738,
        .offset = 0x9192939495969000,
        .sequence = 0xA1A2A3A4A5A6A7A8,
        .records_size = RECORDS_SIZE,
    };
}

static const uint8_t chunk_bytes[] = {
    'm',  'v',  'C',  'H',  'U',  'N',  'K',  '1',  0, 0, 0, 0, 1, 0, 0, 0, /* 0 */
    0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 3, 0, 0, 0, 0, 0, 0, 0, /* 16 */
    0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41,                         /* 32 */
    0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31,                         /* 40 */
    0x00, 0x90, 0x96, 0x95, 0x94, 0x93, 0x92, 0x91,                         /* 48 */
    0xA8, 0xA7, 0xA6, 0xA5, 0xA4, 0xA3, 0xA2, 0xA1,                         /* 56 */
    176,  0,    0,    0,                                                    /* 64 */
};

static void put_directory(const struct segment_entry *entries, uint32_t count, uint8_t *chunk)
{
    for (uint32_t i = 0; i < count; i++)
        segment_entry_encode(&entries[i], chunk + CHUNK_HEADER + (size_t)i * ENTRY);
}

/* A chunk's header and directory. */
static void put_chunk(uint8_t *chunk, struct segment_chunk_header *ret_header)
{
    *ret_header = chunk_sample();
    put_directory(entry_samples, ENTRIES, chunk);
    segment_chunk_header_encode(ret_header, chunk);
}

static void seal(uint8_t *header, uint32_t size)
{
    store_u32(header + 8, crc32c(header + 12, size - 12));
}

/* ---- the segment's header ---- */

Test(segment_format, header_has_its_bytes)
{
    uint8_t block[BLOCK];
    memset(block, 0xEE, sizeof block);
    segment_header_encode(&header_sample, block);
    for (uint32_t i = 0; i < BLOCK; i++)
        if (i < 8 || i >= 12)
            cr_assert_eq(block[i], i < sizeof header_bytes ? header_bytes[i] : 0, "byte %u", i);
    cr_expect_eq(load_u32(block + 8), crc32c(block + 12, BLOCK - 12));
    cr_expect_eq(segment_format_of(block), 1);
}

Test(segment_format, header_is_decoded)
{
    uint8_t block[BLOCK];
    segment_header_encode(&header_sample, block);
    struct segment_header found;
    cr_assert_eq(segment_header_decode(block, &found), 0);
    cr_expect_eq(found.partition, header_sample.partition);
    cr_expect_eq(found.source, header_sample.source);
    cr_expect_eq(found.directory_id, header_sample.directory_id);
    cr_expect_eq(found.log_id, header_sample.log_id);
    cr_expect_eq(found.number, header_sample.number);
    cr_expect_eq(found.salt, header_sample.salt);
    cr_expect_eq(found.created, header_sample.created);
}

Test(segment_format, every_flipped_bit_of_a_header_is_noticed)
{
    uint8_t block[BLOCK];
    segment_header_encode(&header_sample, block);
    struct segment_header found = {.number = 7};
    for (uint32_t bit = 0; bit < BLOCK * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(segment_header_decode(block, &found), -EBADMSG, "bit %u", bit);
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_expect_eq(found.number, 7, "untouched on failure");
}

Test(segment_format, header_cut_short_is_none)
{
    uint8_t block[BLOCK];
    struct segment_header found;
    for (uint32_t size = 0; size < sizeof header_bytes; size++) {
        segment_header_encode(&header_sample, block);
        memset(block + size, 0, BLOCK - size);
        cr_assert_eq(segment_header_decode(block, &found), -EBADMSG, "%u bytes", size);
    }
}

Test(segment_format, headers_that_make_no_sense_are_refused)
{
    static const struct {
        uint32_t offset;
        uint8_t value;
    } changes[] = {{15, 0}, {15, 3}, {28, 1}, {31, 0x80}, {56, 1}, {BLOCK - 1, 1}};
    uint8_t block[BLOCK];
    struct segment_header found;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        segment_header_encode(&header_sample, block);
        block[changes[i].offset] = changes[i].value;
        seal(block, BLOCK);
        cr_expect_eq(segment_header_decode(block, &found), -EBADMSG, "change %zu", i);
    }
}

Test(segment_format, header_of_another_format_is_told_apart)
{
    uint8_t block[BLOCK];
    struct segment_header found;
    segment_header_encode(&header_sample, block);
    store_u16(block + 12, SEGMENT_FORMAT + 1);
    cr_expect_eq(segment_header_decode(block, &found), -EBADMSG, "not sealed");
    seal(block, BLOCK);
    cr_expect_eq(segment_header_decode(block, &found), -EPROTONOSUPPORT);
    cr_expect_eq(segment_format_of(block), SEGMENT_FORMAT + 1);
    memset(block, 0, BLOCK);
    cr_expect_eq(segment_header_decode(block, &found), -EBADMSG, "never written");
}

/* ---- a chunk's header ---- */

Test(segment_format, chunk_header_has_its_bytes)
{
    uint8_t chunk[BLOCK];
    memset(chunk, 0xEE, sizeof chunk);
    struct segment_chunk_header header;
    put_chunk(chunk, &header);
    for (uint32_t i = 0; i < CHUNK_HEADER; i++) {
        bool is_checksum = (i >= 8 && i < 12) || (i >= 28 && i < 32);
        if (!is_checksum)
            cr_assert_eq(chunk[i], i < sizeof chunk_bytes ? chunk_bytes[i] : 0, "byte %u", i);
    }
    cr_expect_eq(load_u32(chunk + 8), crc32c(chunk + 12, CHUNK_HEADER - 12));
    cr_expect_eq(load_u32(chunk + 28), crc32c(entry_bytes, sizeof entry_bytes));
    cr_expect_eq(header.directory_crc, load_u32(chunk + 28));
    cr_expect_arr_eq(chunk + CHUNK_HEADER, entry_bytes, sizeof entry_bytes);
    cr_expect_eq(chunk[CHUNK_HEADER + sizeof entry_bytes], 0xEE, "nothing behind it is written");
}

Test(segment_format, chunk_header_is_decoded_from_its_bytes_alone)
{
    uint8_t chunk[BLOCK] = {0};
    struct segment_chunk_header header;
    put_chunk(chunk, &header);
    struct guard guard;
    guard_init(&guard, CHUNK_HEADER);
    struct segment_chunk_header found;
    cr_assert_eq(segment_chunk_header_decode(guard_copy(&guard, chunk, CHUNK_HEADER), &found), 0);
    cr_expect_eq(found.directory_id, header.directory_id);
    cr_expect_eq(found.record_count, header.record_count);
    cr_expect_eq(found.directory_crc, header.directory_crc);
    cr_expect_eq(found.salt, header.salt);
    cr_expect_eq(found.segment, header.segment);
    cr_expect_eq(found.offset, header.offset);
    cr_expect_eq(found.sequence, header.sequence);
    cr_expect_eq(found.records_size, header.records_size);
    guard_deinit(&guard);
}

Test(segment_format, every_flipped_bit_of_a_chunk_header_is_noticed)
{
    uint8_t chunk[BLOCK] = {0};
    struct segment_chunk_header header;
    put_chunk(chunk, &header);
    struct segment_chunk_header found = {.sequence = 7};
    for (uint32_t bit = 0; bit < CHUNK_HEADER * 8; bit++) {
        chunk[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(segment_chunk_header_decode(chunk, &found), -EBADMSG, "bit %u", bit);
        chunk[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_expect_eq(found.sequence, 7, "untouched on failure");
}

Test(segment_format, chunk_header_cut_short_is_none)
{
    uint8_t chunk[BLOCK] = {0};
    struct segment_chunk_header header;
    for (uint32_t size = 0; size < sizeof chunk_bytes - 3; size++) {
        put_chunk(chunk, &header);
        memset(chunk + size, 0, BLOCK - size);
        cr_assert_eq(segment_chunk_header_decode(chunk, &header), -EBADMSG, "%u bytes", size);
    }
}

/* The most records that a chunk holds, each as small as it can be. */
static uint32_t records_max(void)
{
    return (SEGMENT_CHUNK_SIZE_MAX - CHUNK_HEADER) / (ENTRY + 56);
}

Test(segment_format, chunk_headers_that_make_no_sense_are_refused)
{
    static const struct {
        uint32_t offset;
        uint32_t value; /* of four bytes */
    } changes[] = {
        {12, 0x00010001},                            /* flags */
        {24, 0},                                     /* no records */
        {24, 4},                                     /* more than there is room for */
        {24, UINT32_MAX},                            /* their size wraps around in 32 bits */
        {64, 0},                                     /* no bytes */
        {64, RECORDS_SIZE + 1},                      /* not padded */
        {64, SEGMENT_CHUNK_SIZE_MAX},                /* too many */
        {64, UINT32_MAX - 7},                        /* the chunk's size wraps around */
        {64, SEGMENT_CHUNK_SIZE_MAX - CHUNK_HEADER}, /* with the directory, too many */
        {48, 0x95969001},                            /* not at a block */
        {68, 1},                                     /* reserved */
        {124, 0x80000000},
    };
    uint8_t chunk[BLOCK] = {0};
    struct segment_chunk_header found;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        put_chunk(chunk, &found);
        store_u32(chunk + changes[i].offset, changes[i].value);
        seal(chunk, CHUNK_HEADER);
        cr_expect_eq(segment_chunk_header_decode(chunk, &found), -EBADMSG, "change %zu", i);
    }
    put_chunk(chunk, &found);
    store_u64(chunk + 48, 0); /* where the segment's header lies */
    seal(chunk, CHUNK_HEADER);
    cr_expect_eq(segment_chunk_header_decode(chunk, &found), -EBADMSG);
}

Test(segment_format, chunk_header_of_another_format_is_told_apart)
{
    uint8_t chunk[BLOCK] = {0};
    struct segment_chunk_header found;
    put_chunk(chunk, &found);
    store_u16(chunk + 12, SEGMENT_FORMAT + 1);
    cr_expect_eq(segment_chunk_header_decode(chunk, &found), -EBADMSG, "not sealed");
    seal(chunk, CHUNK_HEADER);
    cr_expect_eq(segment_chunk_header_decode(chunk, &found), -EPROTONOSUPPORT);
    cr_expect_eq(segment_format_of(chunk), SEGMENT_FORMAT + 1);
}

Test(segment_format, largest_chunks_are_accepted)
{
    static uint8_t chunk[SEGMENT_CHUNK_SIZE_MAX];
    struct segment_chunk_header header = chunk_sample();
    header.record_count = 1;
    header.records_size = SEGMENT_CHUNK_SIZE_MAX - CHUNK_HEADER - ENTRY;
    struct segment_entry entry = {.record_size = header.records_size};
    put_directory(&entry, 1, chunk);
    segment_chunk_header_encode(&header, chunk);
    cr_assert_eq(segment_chunk_header_decode(chunk, &header), 0);
    cr_expect_eq(segment_directory_check(&header, chunk), 0);
    cr_expect_eq(segment_chunk_size(1, header.records_size), SEGMENT_CHUNK_SIZE_MAX);
    cr_expect_eq(segment_chunk_size(1, header.records_size + 8), SEGMENT_CHUNK_SIZE_MAX + BLOCK);

    header.record_count = records_max();
    header.records_size = records_max() * 56;
    entry.record_size = 49;
    for (uint32_t i = 0; i < records_max(); i++)
        segment_entry_encode(&entry, chunk + CHUNK_HEADER + (size_t)i * ENTRY);
    segment_chunk_header_encode(&header, chunk);
    cr_assert_eq(segment_chunk_header_decode(chunk, &header), 0);
    cr_expect_eq(segment_directory_check(&header, chunk), 0);
}

Test(segment_format, chunk_sizes_are_blocks)
{
    cr_expect_eq(segment_chunk_records_offset(1), 152);
    cr_expect_eq(segment_chunk_size(1, 56), BLOCK);
    cr_expect_eq(segment_chunk_size(1, BLOCK - 152), BLOCK);
    cr_expect_eq(segment_chunk_size(1, BLOCK - 144), 2 * BLOCK);
}

/* ---- the directory ---- */

Test(segment_format, entries_have_their_bytes)
{
    for (uint32_t i = 0; i < ENTRIES; i++) {
        const struct segment_entry *entry = &entry_samples[i];
        uint8_t target[ENTRY];
        memset(target, 0xEE, sizeof target);
        segment_entry_encode(entry, target);
        cr_expect_arr_eq(target, entry_bytes + (size_t)i * ENTRY, ENTRY, "entry %u", i);
        struct segment_entry found;
        segment_entry_decode(target, &found);
        cr_expect_eq(found.hash, entry->hash);
        cr_expect_eq(version_compare(found.version, entry->version), 0);
        cr_expect_eq(found.record_size, entry->record_size);
        cr_expect_eq(found.in_value_file, entry->in_value_file);
        cr_expect_eq(found.tombstone, entry->tombstone);
    }
}

Test(segment_format, directory_is_checked_within_its_bytes)
{
    uint8_t chunk[BLOCK] = {0};
    struct segment_chunk_header header;
    put_chunk(chunk, &header);
    struct guard guard;
    guard_init(&guard, BLOCK);
    size_t size = CHUNK_HEADER + sizeof entry_bytes;
    cr_expect_eq(segment_directory_check(&header, guard_copy(&guard, chunk, size)), 0);
    guard_deinit(&guard);
}

Test(segment_format, every_flipped_bit_of_a_directory_is_noticed)
{
    uint8_t chunk[BLOCK] = {0};
    struct segment_chunk_header header;
    put_chunk(chunk, &header);
    for (uint32_t bit = 0; bit < sizeof entry_bytes * 8; bit++) {
        uint8_t *byte = chunk + CHUNK_HEADER + bit / 8;
        *byte ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(segment_directory_check(&header, chunk), -EBADMSG, "bit %u", bit);
        *byte ^= (uint8_t)(1u << bit % 8);
    }
}

/* With a checksum that is right. */
static int check_with_sizes(uint32_t first, uint32_t second, uint32_t third)
{
    uint8_t chunk[BLOCK] = {0};
    struct segment_chunk_header header = chunk_sample();
    uint32_t sizes[] = {first, second, third};
    for (uint32_t i = 0; i < ENTRIES; i++)
        store_u32(chunk + CHUNK_HEADER + (size_t)i * ENTRY + 20, sizes[i]);
    segment_chunk_header_encode(&header, chunk);
    return segment_directory_check(&header, chunk);
}

Test(segment_format, sizes_that_do_not_add_up_are_refused)
{
    cr_expect_eq(check_with_sizes(49, 56, 57), 0);
    cr_expect_eq(check_with_sizes(56, 56, 64), 0, "the same with their padding");
    cr_expect_eq(check_with_sizes(57, 56, 57), -EBADMSG, "too many bytes");
    cr_expect_eq(check_with_sizes(49, 56, 56), -EBADMSG, "too few");
    cr_expect_eq(check_with_sizes(48, 56, 65), -EBADMSG, "a record without a key");
    cr_expect_eq(check_with_sizes(0, 112, 64), -EBADMSG, "a record of no bytes");
    cr_expect_eq(check_with_sizes((1u << 30) - 1, (1u << 30) - 1, (1u << 30) - 1), -EBADMSG);
}
