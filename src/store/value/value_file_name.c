/* The names and the descriptors of value files. */
#include "store/value/value_file.h"

#include "base/hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static_assert(VALUE_FILE_SIZE_MAX % VALUE_FILE_BLOCK_SIZE == 0, "VALUE_FILE_DESCRIPTOR_MAX");
static_assert(VALUE_FILE_BUFFER_SIZE % VALUE_FILE_BLOCK_SIZE == 0, "blocks lie in one buffer");

void value_file_name_write(const struct value_file_name *name, char *ret_text)
{
    int size = snprintf(ret_text, VALUE_FILE_NAME_SIZE,
                        "/%02" PRIx8 "/%016" PRIx64 "-%016" PRIx64 "%08" PRIx32, name->partition,
                        name->key_hash, name->version.clock, name->version.origin);
    assert(size == (int)VALUE_FILE_NAME_SIZE - 1);
}

/* A name has one spelling. */
int value_file_name_parse(uint8_t partition, const char *entry, struct value_file_name *ret_name)
{
    struct value_file_name name = {.partition = partition};
    char text[VALUE_FILE_NAME_SIZE];
    if (sscanf(entry, "%16" SCNx64 "-%16" SCNx64 "%8" SCNx32, &name.key_hash, &name.version.clock,
               &name.version.origin) != 3)
        return -EINVAL;
    value_file_name_write(&name, text);
    if (strcmp(text + sizeof "/xx", entry) != 0)
        return -EINVAL;
    *ret_name = name;
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
