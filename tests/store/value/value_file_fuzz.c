/* A descriptor from a record, or a name from a directory, that somebody else wrote: no crash, no
 * read past it, and what is accepted has exactly one spelling. The first byte chooses. */
#include "tests/support/fuzz.h"
#include "store/value/value_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void try_name(const uint8_t *data, size_t size)
{
    char *entry = malloc(size + 1); /* so that a read past it is seen */
    REQUIRE(entry != NULL);
    memcpy(entry, data, size);
    entry[size] = '\0';
    struct value_file_name name;
    int result = value_file_name_parse(0x5A, entry, &name);
    REQUIRE(result == 0 || result == -EINVAL);
    if (result == 0) {
        char again[VALUE_FILE_NAME_SIZE];
        value_file_name_write(&name, again);
        REQUIRE(memcmp(again, "/5a/", 4) == 0);
        REQUIRE(strcmp(again + 4, entry) == 0);
    }
    free(entry);
}

static void try_descriptor(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_copy(data, size);
    uint64_t value_size = UINT64_MAX;
    int result = value_file_descriptor_check((struct slice){copy, (uint32_t)size}, &value_size);
    REQUIRE(result == 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
    REQUIRE(result == 0 || value_size == UINT64_MAX);
    if (result == 0) {
        REQUIRE(value_size <= VALUE_FILE_SIZE_MAX);
        REQUIRE(size <= VALUE_FILE_DESCRIPTOR_MAX);
        uint64_t blocks = (size - VALUE_FILE_DESCRIPTOR_HEADER_SIZE) / 4;
        REQUIRE(value_size <= blocks * VALUE_FILE_BLOCK_SIZE);
        REQUIRE(blocks == 0 || value_size > (blocks - 1) * VALUE_FILE_BLOCK_SIZE);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 2 == 0)
        try_name(data + 1, size - 1);
    else
        try_descriptor(data + 1, size - 1);
    return 0;
}
