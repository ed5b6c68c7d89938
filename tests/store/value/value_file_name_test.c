/* Names and descriptors of value files. */
#include "store/value/value_file.h"

#include "tests/support/guard.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

static const struct value_file_name sample = {
    .partition = 0xAB,
    .key_hash = 0xAB00000000000001u,
    .version = {.clock = 0x00FF00000000000Au, .origin = 0x0000C0DEu},
};

#define SAMPLE_ENTRY "ab00000000000001-00ff00000000000a0000c0de"

Test(value_file_name, is_what_the_format_says)
{
    char text[VALUE_FILE_NAME_SIZE];
    value_file_name_write(&sample, text);
    cr_assert_str_eq(text, "/ab/" SAMPLE_ENTRY);
}

Test(value_file_name, comes_back)
{
    struct value_file_name found;
    cr_assert_eq(value_file_name_parse(0xAB, SAMPLE_ENTRY, &found), 0);
    cr_assert_eq(found.partition, sample.partition);
    cr_assert_eq(found.key_hash, sample.key_hash);
    cr_assert_eq(version_compare(found.version, sample.version), 0);
    struct value_file_name greatest = {
        .partition = 255,
        .key_hash = UINT64_MAX,
        .version = {.clock = UINT64_MAX, .origin = UINT32_MAX},
    };
    char text[VALUE_FILE_NAME_SIZE];
    value_file_name_write(&greatest, text);
    cr_assert_eq(value_file_name_parse(255, text + 4, &found), 0);
    cr_assert_eq(found.key_hash, UINT64_MAX);
    cr_assert_eq(version_compare(found.version, greatest.version), 0);
}

Test(value_file_name, anything_else_is_refused_and_changes_nothing)
{
    static const char *const others[] = {
        "",
        "-",
        "seg-0000000000000001",
        "ab00000000000001-00ff00000000000a0000c0d",
        "ab00000000000001-00ff00000000000a0000c0de0",
        "ab00000000000001-00ff00000000000a0000c0dE",
        "AB00000000000001-00ff00000000000a0000c0de",
        "ab00000000000001_00ff00000000000a0000c0de",
        "ab0000000000000-100ff00000000000a0000c0de",
        "ab00000000000001-00ff00000000000a0000c0dg",
        "ab00000000000001-00ff00000000000a0000c0/e",
        "ab0000000000000 -00ff00000000000a0000c0de",
        "ab00000000000001--0ff00000000000a0000c0de",
        "ab00000000000001-00ff00000000000a0000c0de.tmp",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        struct value_file_name found = {.partition = 7};
        cr_assert_eq(value_file_name_parse(1, others[i], &found), -EINVAL, "%s", others[i]);
        cr_assert_eq(found.partition, 7);
        cr_assert_eq(found.key_hash, 0);
    }
}

static struct guard guard;

static int check(uint32_t format, uint32_t block_size, uint64_t size, uint32_t bytes,
                 uint64_t *ret_size)
{
    uint8_t *descriptor = calloc(1, bytes + 32);
    store_u32(descriptor, format);
    store_u32(descriptor + 4, block_size);
    store_u64(descriptor + 8, size);
    const uint8_t *copy = guard_copy(&guard, descriptor, bytes);
    free(descriptor);
    return value_file_descriptor_check((struct slice){copy, bytes}, ret_size);
}

Test(value_file_descriptor, has_one_checksum_a_block)
{
    cr_assert_eq(value_file_descriptor_size(0), 32);
    cr_assert_eq(value_file_descriptor_size(1), 36);
    cr_assert_eq(value_file_descriptor_size(65536), 36);
    cr_assert_eq(value_file_descriptor_size(65537), 40);
    cr_assert_eq(value_file_descriptor_size(100 * MIB), VALUE_FILE_DESCRIPTOR_MAX);
    guard_init(&guard, VALUE_FILE_DESCRIPTOR_MAX);
    static const uint64_t sizes[] = {0, 1, 65535, 65536, 65537, 262144, 5000000, 100 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t found = 77;
        uint32_t bytes = (uint32_t)value_file_descriptor_size(sizes[i]);
        cr_assert_eq(check(2, 65536, sizes[i], bytes, &found), 0);
        cr_assert_eq(found, sizes[i]);
        cr_assert_eq(check(2, 65536, sizes[i], bytes - 1, &found), -EBADMSG);
        cr_assert_eq(check(2, 65536, sizes[i], bytes - 4, &found), -EBADMSG);
        cr_assert_eq(check(2, 65536, sizes[i], bytes + 1, &found), -EBADMSG);
        cr_assert_eq(found, sizes[i]);
    }
    guard_deinit(&guard);
}

Test(value_file_descriptor, what_makes_no_sense_is_refused)
{
    guard_init(&guard, 4 * VALUE_FILE_DESCRIPTOR_MAX);
    uint64_t found = 77;
    cr_assert_eq(check(0, 65536, 1, 36, &found), -EPROTONOSUPPORT);
    cr_assert_eq(check(1, 65536, 1, 36, &found), -EPROTONOSUPPORT);
    cr_assert_eq(check(2, 65535, 1, 36, &found), -EBADMSG);
    cr_assert_eq(check(2, 0, 1, 36, &found), -EBADMSG);
    cr_assert_eq(check(2, 65536, UINT64_MAX, 32, &found), -EBADMSG);
    cr_assert_eq(check(2, 65536, UINT64_MAX - 65535, 32, &found), -EBADMSG);
    uint32_t more = VALUE_FILE_DESCRIPTOR_MAX + 4;
    cr_assert_eq(check(2, 65536, 100 * MIB + 1, more, &found), -EBADMSG);
    for (uint32_t bytes = 0; bytes < 32; bytes++)
        cr_assert_eq(check(2, 65536, 0, bytes, &found), -EBADMSG);
    cr_assert_eq(found, 77);
    guard_deinit(&guard);
}

Test(value_file_descriptor, names_its_file)
{
    uint8_t descriptor[VALUE_FILE_DESCRIPTOR_HEADER_SIZE] = {0};
    store_u64(descriptor + 16, 0x0102030405060708);
    store_u32(descriptor + 24, 0x11121314);
    struct slice whole = {descriptor, sizeof descriptor};
    struct value_file_name name = value_file_named(0xAB00000000000001, whole);
    cr_expect_eq(name.partition, 0xAB);
    cr_expect_eq(name.key_hash, 0xAB00000000000001);
    cr_expect_eq(name.version.clock, 0x0102030405060708);
    cr_expect_eq(name.version.origin, 0x11121314);
    name = value_file_named(1, (struct slice){descriptor, sizeof descriptor - 1});
    cr_expect(name.version.clock == 0 && name.version.origin == 0, "too short to name one");
}
