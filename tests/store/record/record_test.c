/* The format of records by itself, byte for byte, and what of it is refused. */
#include "store/record/record.h"

#include "base/checksum.h"
#include "tests/support/guard.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#define SIZE_MAX_TESTED (RECORD_HEADER_SIZE + 8 + 32)

static const struct record usual = {
    .key = {(const uint8_t *)"the key", 7},
    .value = {(const uint8_t *)"the value, a little longer", 26},
    .decoded_size = 26,
    .flags = RECORD_JSON,
    .version = {.clock = 0x0102030405060708, .origin = 0x11223344},
    .position = 42,
    .expiry_ms = 99,
};

static uint64_t encode(const struct record *record, uint8_t *target)
{
    record_encode(record, target);
    return record_size(record);
}

/* Puts a changed header right again, as a program that knows more would have written it. */
static void sign(uint8_t *data, uint64_t size)
{
    store_u32(data, crc32c(data + 4, size - 4));
}

Test(record, comes_back_as_it_was)
{
    uint8_t data[SIZE_MAX_TESTED];
    uint64_t size = encode(&usual, data);
    cr_assert_eq(size, 48u + 7 + 26);
    struct record record;
    cr_assert_eq(record_decode(data, size, &record), (int64_t)size);
    cr_assert(slice_equal(record.key, usual.key));
    cr_assert(slice_equal(record.value, usual.value));
    cr_assert_eq(record.decoded_size, 26);
    cr_assert_eq(record.flags, RECORD_JSON);
    cr_assert_eq(version_compare(record.version, usual.version), 0);
    cr_assert_eq(record.position, 42);
    cr_assert_eq(record.expiry_ms, 99);
}

Test(record, has_the_documented_layout)
{
    uint8_t data[SIZE_MAX_TESTED];
    uint64_t size = encode(&usual, data);
    cr_assert_eq(load_u32(data), crc32c(data + 4, size - 4));
    cr_assert_eq(load_u16(data + 4), 48);
    cr_assert_eq(data[6], 1);
    cr_assert_eq(data[7], RECORD_JSON);
    cr_assert_eq(load_u16(data + 8), 7);
    cr_assert_eq(load_u16(data + 10), 0);
    cr_assert_eq(load_u32(data + 12), 26);
    cr_assert_eq(load_u32(data + 16), 26);
    cr_assert_eq(load_u32(data + 20), 0x11223344);
    cr_assert_eq(load_u64(data + 24), 0x0102030405060708);
    cr_assert_eq(load_u64(data + 32), 42);
    cr_assert_eq(load_u64(data + 40), 99);
    cr_assert_eq(memcmp(data + 48, "the keythe value", 16), 0);
}

Test(record, empty_value_and_tombstone_are_different_things)
{
    uint8_t data[SIZE_MAX_TESTED];
    struct record empty = {.key = usual.key, .position = 1};
    struct record tombstone = {.key = usual.key, .position = 1, .flags = RECORD_TOMBSTONE};
    struct record record;
    uint64_t size = encode(&empty, data);
    cr_assert_eq(record_decode(data, size, &record), (int64_t)size);
    cr_assert_eq(record.value.size, 0);
    cr_assert_eq(record.flags, 0);
    size = encode(&tombstone, data);
    cr_assert_eq(record_decode(data, size, &record), (int64_t)size);
    cr_assert_eq(record.flags, RECORD_TOMBSTONE);
}

Test(record, longest_key_fits)
{
    uint32_t key_size = UINT16_MAX;
    uint8_t *key = malloc(key_size);
    memset(key, 'k', key_size);
    uint8_t *data = malloc(RECORD_HEADER_SIZE + key_size + 1);
    struct record longest = {
        .key = {key, key_size}, .value = {(const uint8_t *)"v", 1}, .decoded_size = 1};
    uint64_t size = encode(&longest, data);
    struct record record;
    cr_assert_eq(record_decode(data, size, &record), (int64_t)size);
    cr_assert(slice_equal(record.key, longest.key));
    free(key);
    free(data);
}

Test(record, every_flipped_bit_is_found)
{
    uint8_t data[SIZE_MAX_TESTED];
    uint64_t size = encode(&usual, data);
    for (uint64_t bit = 0; bit < size * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        struct record record = {.position = 77};
        int64_t result = record_decode(data, size, &record);
        cr_assert(result == -EBADMSG || result == -EAGAIN, "bit %d: %d", (int)bit, (int)result);
        cr_assert_eq(record.position, 77, "outputs are untouched on failure");
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

Test(record, any_part_asks_for_more_and_reads_no_further)
{
    uint8_t data[SIZE_MAX_TESTED];
    uint64_t size = encode(&usual, data);
    struct guard guard;
    guard_init(&guard, SIZE_MAX_TESTED);
    struct record record;
    for (uint64_t part = 0; part < size; part++)
        cr_assert_eq(record_decode(guard_copy(&guard, data, part), part, &record), -EAGAIN);
    cr_assert_eq(record_decode(guard_copy(&guard, data, size), size, &record), (int64_t)size);
    guard_deinit(&guard);
}

Test(record, what_is_sound_but_unknown_is_told_apart)
{
    uint8_t data[SIZE_MAX_TESTED + 8];
    uint64_t size = encode(&usual, data);
    struct record record;
    data[6] = 2;
    sign(data, size);
    cr_assert_eq(record_decode(data, size, &record), -EPROTONOSUPPORT, "a newer format");
    size = encode(&usual, data);
    data[7] = 0x10;
    sign(data, size);
    cr_assert_eq(record_decode(data, size, &record), -EPROTONOSUPPORT, "an unknown flag");
    size = encode(&usual, data);
    data[7] = RECORD_IN_VALUE_FILE;
    sign(data, size);
    cr_assert_eq(record_decode(data, size, &record), (int64_t)size, "a value file is known");
    cr_assert_eq(record.flags, RECORD_IN_VALUE_FILE);
    size = encode(&usual, data);
    store_u16(data + 4, 56);
    sign(data, size + 8);
    cr_assert_eq(record_decode(data, size + 8, &record), -EPROTONOSUPPORT, "a longer header");
}

/* ---- attributes ---- */

/* Three entries: 5 bytes of tag 200, none of tag 0, one of tag 255. */
static const uint8_t entries[] = {200, 5, 'h', 'e', 'l', 'l', 'o', 0, 0, 255, 1, 0};

static struct record with_attributes(const uint8_t *data, uint32_t size)
{
    struct record record = usual;
    record.attributes = (struct slice){data, size};
    return record;
}

Test(record, attributes_of_unknown_tags_come_back_as_they_were)
{
    uint8_t data[SIZE_MAX_TESTED + sizeof entries];
    struct record known = with_attributes(entries, sizeof entries);
    uint64_t size = encode(&known, data);
    cr_assert_eq(size, 48u + sizeof entries + 7 + 26);
    cr_assert_eq(load_u16(data + 10), sizeof entries);
    cr_assert_eq(memcmp(data + 48, entries, sizeof entries), 0);
    cr_assert_eq(memcmp(data + 48 + sizeof entries, "the keythe value", 16), 0);
    cr_assert_eq(record_told_size(data), size);
    cr_assert(slice_equal(record_told_key(data), usual.key));
    struct record record;
    cr_assert_eq(record_decode(data, size, &record), (int64_t)size);
    cr_assert(slice_equal(record.attributes, known.attributes));
    cr_assert(slice_equal(record.key, usual.key));
    cr_assert(slice_equal(record.value, usual.value));
}

Test(record, attributes_are_told_one_by_one)
{
    struct slice left = {entries, sizeof entries};
    struct record_attribute attribute;
    cr_assert(record_attribute_next(&left, &attribute));
    cr_expect(attribute.tag == 200 && attribute.bytes.size == 5);
    cr_expect_eq(memcmp(attribute.bytes.data, "hello", 5), 0);
    cr_assert(record_attribute_next(&left, &attribute));
    cr_expect(attribute.tag == 0 && attribute.bytes.size == 0);
    cr_assert(record_attribute_next(&left, &attribute));
    cr_expect(attribute.tag == 255 && attribute.bytes.size == 1);
    cr_expect_not(record_attribute_next(&left, &attribute));
    cr_expect_eq(left.size, 0);
}

Test(record, attributes_that_do_not_fill_their_bytes_are_refused_even_when_signed)
{
    const uint8_t bad[][6] = {
        {1}, {1, 1}, {1, 5, 0, 0, 0, 0}, {1, 3, 0, 0, 0, 0}, {1, 2, 0, 0, 1, 1}};
    const uint32_t sizes[] = {1, 2, 6, 6, 6};
    for (uint32_t i = 0; i < 5; i++) {
        uint8_t data[SIZE_MAX_TESTED + 6];
        uint8_t good[6] = {1, (uint8_t)(sizes[i] - 2), 0, 0, 0, 0};
        struct record known = with_attributes(good, sizes[i] == 1 ? 0 : sizes[i]);
        uint64_t size = encode(&known, data);
        if (sizes[i] == 1) { /* the key's first byte is taken for one */
            store_u16(data + 8, 6);
            store_u16(data + 10, 1);
        }
        memcpy(data + 48, bad[i], sizes[i]);
        sign(data, size);
        struct record record = {.position = 77};
        cr_expect_eq(record_decode(data, size, &record), -EBADMSG, "%u", i);
        cr_expect_eq(record.position, 77);
    }
}

Test(record, attributes_have_a_limit)
{
    uint8_t *bytes = calloc(2, RECORD_ATTRIBUTES_MAX);
    uint8_t *data = calloc(2, RECORD_ATTRIBUTES_MAX);
    struct record known = with_attributes(bytes, RECORD_ATTRIBUTES_MAX); /* 2,048 empty ones */
    uint64_t size = encode(&known, data);
    struct record record;
    cr_expect_eq(record_decode(data, size, &record), (int64_t)size);
    cr_expect_eq(record.attributes.size, RECORD_ATTRIBUTES_MAX);
    store_u16(data + 10, RECORD_ATTRIBUTES_MAX + 2);
    store_u16(data + 8, 5);
    memset(data + 48 + RECORD_ATTRIBUTES_MAX, 0, 2);
    sign(data, size);
    cr_expect_eq(record_decode(data, size, &record), -EBADMSG);
    free(bytes);
    free(data);
}

Test(record, what_cannot_be_is_refused_even_when_signed)
{
    uint8_t data[SIZE_MAX_TESTED];
    uint64_t size = encode(&usual, data);
    struct record record;
    data[7] = RECORD_TOMBSTONE;
    sign(data, size);
    cr_assert_eq(record_decode(data, size, &record), -EBADMSG, "a tombstone with a value");
    size = encode(&usual, data);
    store_u16(data + 4, 40);
    sign(data, size - 8);
    cr_assert_eq(record_decode(data, size, &record), -EBADMSG, "a header that is too short");
    size = encode(&usual, data);
    store_u16(data + 8, 0);
    sign(data, size - 7);
    cr_assert_eq(record_decode(data, size, &record), -EBADMSG, "no key");
    uint8_t zeros[RECORD_HEADER_SIZE] = {0};
    cr_assert_eq(record_decode(zeros, sizeof zeros, &record), -EBADMSG);
}

Test(record, a_huge_size_is_only_a_wish)
{
    uint8_t data[SIZE_MAX_TESTED];
    uint64_t size = encode(&usual, data);
    store_u32(data + 12, UINT32_MAX);
    struct record record;
    cr_assert_eq(record_decode(data, size, &record), -EAGAIN);
}
