/* The names and the descriptors of value files. */
#include "store/value/value_file.h"

#include "base/hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HASH_DIGITS 16u
#define CLOCK_DIGITS 16u
#define ORIGIN_DIGITS 8u
#define ENTRY_SIZE (HASH_DIGITS + 1 + CLOCK_DIGITS + ORIGIN_DIGITS)

static_assert(VALUE_FILE_NAME_SIZE == sizeof("/xx/") + ENTRY_SIZE, "what the name consists of");
static_assert(VALUE_FILE_SIZE_MAX % VALUE_FILE_BLOCK_SIZE == 0, "VALUE_FILE_DESCRIPTOR_MAX");
static_assert(VALUE_FILE_BUFFER_SIZE % VALUE_FILE_BLOCK_SIZE == 0, "blocks lie in one buffer");

void value_file_name_write(const struct value_file_name *name, char *ret_text)
{
    int size = snprintf(ret_text, VALUE_FILE_NAME_SIZE,
                        "/%02" PRIx8 "/%016" PRIx64 "-%016" PRIx64 "%08" PRIx32, name->partition,
                        name->key_hash, name->version.clock, name->version.origin);
    assert(size == (int)VALUE_FILE_NAME_SIZE - 1);
}

/* Exactly `count` digits, lower case: a name has one spelling. */
static int parse_hex(const char *text, uint32_t count, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < count; i++) {
        char digit = text[i];
        if (digit >= '0' && digit <= '9')
            value = value << 4 | (uint64_t)(digit - '0');
        else if (digit >= 'a' && digit <= 'f')
            value = value << 4 | (uint64_t)(digit - 'a' + 10);
        else
            return -EINVAL;
    }
    *ret_value = value;
    return 0;
}

int value_file_name_parse(uint8_t partition, const char *entry, struct value_file_name *ret_name)
{
    if (strlen(entry) != ENTRY_SIZE || entry[HASH_DIGITS] != '-')
        return -EINVAL;
    uint64_t hash;
    uint64_t clock;
    uint64_t origin;
    const char *version = entry + HASH_DIGITS + 1;
    if (parse_hex(entry, HASH_DIGITS, &hash) < 0 || parse_hex(version, CLOCK_DIGITS, &clock) < 0 ||
        parse_hex(version + CLOCK_DIGITS, ORIGIN_DIGITS, &origin) < 0)
        return -EINVAL;
    ret_name->partition = partition;
    ret_name->key_hash = hash;
    ret_name->version = (struct version){.clock = clock, .origin = (uint32_t)origin};
    return 0;
}

struct value_file_name value_file_named(uint64_t key_hash, struct slice descriptor)
{
    struct value_file_name name = {.partition = (uint8_t)hash_partition(key_hash),
                                   .key_hash = key_hash};
    if (descriptor.size >= VALUE_FILE_DESCRIPTOR_HEADER_SIZE)
        name.version = (struct version){.clock = load_u64(descriptor.data + 16),
                                        .origin = load_u32(descriptor.data + 24)};
    return name;
}

int value_file_descriptor_check(struct slice descriptor, uint64_t *ret_size)
{
    if (descriptor.size < VALUE_FILE_DESCRIPTOR_HEADER_SIZE)
        return -EBADMSG;
    if (load_u32(descriptor.data) != VALUE_FILE_FORMAT)
        return -EPROTONOSUPPORT;
    uint64_t size = load_u64(descriptor.data + 8);
    if (load_u32(descriptor.data + 4) != VALUE_FILE_BLOCK_SIZE || size > VALUE_FILE_SIZE_MAX ||
        load_u32(descriptor.data + 28) != 0)
        return -EBADMSG;
    if (descriptor.size != value_file_descriptor_size(size))
        return -EBADMSG;
    *ret_size = size;
    return 0;
}
