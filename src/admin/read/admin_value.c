/* Loads and verifies the value of a record: inline, as a zstd frame, or in its value file. */
#include "admin/read/admin_value.h"

#include "admin/read/admin_files.h"
#include "base/checksum.h"
#include "base/hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK ((uint64_t)VALUE_FILE_BLOCK_SIZE)

static struct value_file_name file_of(const struct record *record)
{
    return value_file_named(hash_key(record->key.data, record->key.size), record->value);
}

struct catalog_file *value_find_file(const struct admin *admin, const struct record *record)
{
    struct value_file_name name = file_of(record);
    return catalog_find_value(&admin->catalog, name.partition, name.version);
}

void value_name(const struct record *record, char ret_name[VALUE_FILE_NAME_SIZE])
{
    struct value_file_name name = file_of(record);
    char text[VALUE_FILE_NAME_SIZE];
    value_file_name_write(&name, text);
    memcpy(ret_name, text + 1, VALUE_FILE_NAME_SIZE - 1); /* without the slash */
}

/* Reads one block and verifies it against its checksum in the descriptor. Returns NULL, or what is
 * wrong. */
static const char *check_block(int file, struct slice descriptor, uint64_t index, uint64_t size,
                               uint8_t *target)
{
    int64_t count = admin_read(file, target, size, index * BLOCK);
    if (count < 0)
        return strerror((int)-count);
    if ((uint64_t)count < size)
        return "the file ends too early";
    uint32_t expected = load_u32(descriptor.data + VALUE_FILE_DESCRIPTOR_HEADER_SIZE + 4 * index);
    return crc32c(target, size) == expected ? NULL : "the checksum of the block is wrong";
}

static int check_blocks(struct admin *admin, const char *name, int file, struct slice descriptor,
                        uint64_t size, uint8_t *ret_value)
{
    uint8_t *scratch = malloc(BLOCK);
    if (scratch == NULL)
        return -ENOMEM;
    int result = 0;
    for (uint64_t index = 0; index * BLOCK < size; index++) {
        uint64_t block_size = min_u64(BLOCK, size - index * BLOCK);
        uint8_t *target = ret_value != NULL ? ret_value + index * BLOCK : scratch;
        const char *what = check_block(file, descriptor, index, block_size, target);
        if (what != NULL) {
            report_say(&admin->report, REPORT_DAMAGE, name, index * BLOCK,
                       "%s, the value cannot be given to a client from here on: write its key "
                       "again or restore it",
                       what);
            result = -EBADMSG;
        }
        report_progress(&admin->report, block_size, name);
    }
    free(scratch);
    return result;
}

int value_check_file(struct admin *admin, const struct record *record, uint8_t *ret_value)
{
    char name[VALUE_FILE_NAME_SIZE];
    uint64_t size;
    value_name(record, name);
    int error = value_file_descriptor_check(record->value, &size);
    if (error == -EPROTONOSUPPORT) {
        report_say(&admin->report, REPORT_REFUSAL, name, 0,
                   "its record describes it in a format that this program does not know, use "
                   "the release that wrote it");
        return -EBADMSG;
    }
    if (error < 0 || size != record->decoded_size) {
        report_say(&admin->report, REPORT_DAMAGE, name, 0,
                   "its record does not describe a value file, write its key again");
        return -EBADMSG;
    }
    int file = admin_open_file(admin->directory, name);
    if (file < 0) {
        report_say(&admin->report, REPORT_DAMAGE, name, 0,
                   "%s, its key answers CORRUPT until it is written again or restored",
                   file == -ENOENT ? "the value file is missing" : strerror(-file));
        return -EBADMSG;
    }
    int result = check_blocks(admin, name, file, record->value, size, ret_value);
    admin_close(file);
    return result;
}

static int load_file(struct admin *admin, const struct record *record, uint8_t **ret_value)
{
    if (record->decoded_size > VALUE_FILE_SIZE_MAX)
        return -EBADMSG;
    *ret_value = malloc(max_u64(record->decoded_size, 1));
    if (*ret_value == NULL)
        return -ENOMEM;
    int result = value_check_file(admin, record, *ret_value);
    if (result < 0)
        free(*ret_value);
    return result;
}

static int decode(struct decompressor *decompressor, const struct record *record,
                  uint8_t **ret_value)
{
    size_t size;
    int result = 0;
    decompressor_begin(decompressor, record->value.data, record->value.size, record->decoded_size);
    while (result == 0)
        result = decompressor_step(decompressor, MIB);
    if (result < 0)
        return result;
    *ret_value = decompressor_take(decompressor, &size);
    if (size == record->decoded_size)
        return 0;
    free(*ret_value);
    return -EBADMSG;
}

static int copy(const struct record *record, uint8_t **ret_value)
{
    if (record->value.size != record->decoded_size)
        return -EBADMSG;
    *ret_value = malloc(max_u64(record->decoded_size, 1));
    if (*ret_value == NULL)
        return -ENOMEM;
    memcpy(*ret_value, record->value.data, record->value.size);
    return 0;
}

int value_load(struct admin *admin, struct decompressor *decompressor, const struct record *record,
               const char *name, uint64_t offset, uint8_t **ret_value)
{
    if (record->flags & RECORD_IN_VALUE_FILE)
        return load_file(admin, record, ret_value);
    int result = record->flags & RECORD_ZSTD ? decode(decompressor, record, ret_value)
                                             : copy(record, ret_value);
    if (result == 0 || result == -ENOMEM)
        return result;
    report_say(&admin->report, REPORT_DAMAGE, name, offset,
               "the value is not what its record says, write its key again");
    return -EBADMSG;
}
