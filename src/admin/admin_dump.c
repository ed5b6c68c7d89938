/* dump: one record a line, as JSON. By default the newest of each key: one walk finds out which
 * they are, a second one shows them, so that memory is bounded by the keys and not by the values.
 */
#include "admin/admin_json.h"
#include "admin/read/admin_newest.h"
#include "admin/read/admin_value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct dump {
    struct admin *admin;
    struct newest newest;
    struct decompressor *decompressor;
};

/* ---- a line ---- */

static int write_value(struct dump *dump, const struct walk_found *found)
{
    uint8_t *value;
    const char *name = dump->admin->catalog.files[found->file].name;
    int result =
        value_load(dump->admin, dump->decompressor, found->record, name, found->offset, &value);
    if (result == -EBADMSG) {
        (void)printf(", \"value_error\": \"damaged\"");
        return 0;
    }
    if (result < 0)
        return result;
    (void)printf(", ");
    json_write_bytes(stdout, "value", value, found->record->decoded_size);
    free(value);
    return 0;
}

/* Only the newest record of a key has its value file for certain. */
static bool has_value(const struct dump *dump, const struct walk_found *found)
{
    const struct admin *admin = dump->admin;
    if (!admin->options->values || found->tombstone)
        return false;
    return !found->in_value_file || !admin->options->all ||
           value_find_file(admin, found->record) != NULL;
}

/* Nothing when there are none. */
static void write_attributes(struct slice attributes)
{
    if (attributes.size == 0)
        return;
    struct record_attribute attribute;
    const char *before = ", \"attributes\": [";
    while (record_attribute_next(&attributes, &attribute)) {
        (void)printf("%s{\"tag\": %" PRIu8 ", ", before, attribute.tag);
        json_write_bytes(stdout, "bytes", attribute.bytes.data, attribute.bytes.size);
        (void)putchar('}');
        before = ", ";
    }
    (void)putchar(']');
}

static int write_record(void *context, const struct walk_found *found)
{
    struct dump *dump = context;
    const struct record *record = found->record;
    (void)putchar('{');
    json_write_bytes(stdout, "key", record->key.data, record->key.size);
    (void)printf(", \"version\": \"%" PRIu64 ".%" PRIu32 "\", \"position\": %" PRIu64
                 ", \"size\": %" PRIu32
                 ", \"tombstone\": %s, \"file\": \"%s\", \"offset\": %" PRIu64,
                 record->version.clock, record->version.origin, record->position,
                 record->decoded_size, found->tombstone ? "true" : "false",
                 dump->admin->catalog.files[found->file].name, found->offset);
    if (found->in_value_file) {
        char name[VALUE_FILE_NAME_SIZE];
        value_name(record, name);
        (void)printf(", \"value_file\": \"%s\"", name);
    }
    write_attributes(record->attributes);
    int result = has_value(dump, found) ? write_value(dump, found) : 0;
    (void)puts("}");
    return ferror(stdout) ? -EIO : result; /* admin.c says so */
}

static int show_newest(void *context, const struct walk_found *found)
{
    struct dump *dump = context;
    return newest_is(&dump->newest, found) ? write_record(dump, found) : 0;
}

/* ---- the walks ---- */

static int dump_newest(struct dump *dump)
{
    struct walk walk = {.admin = dump->admin, .each = newest_take, .context = &dump->newest};
    int result = admin_walk(&walk);
    if (result != 0)
        return result;
    /* What is damaged was reported; the values are looked at for the first time. */
    walk.each = show_newest;
    walk.context = dump;
    walk.is_repeated = true;
    return admin_walk(&walk);
}

int admin_dump(struct admin *admin)
{
    struct dump dump = {.admin = admin};
    newest_init(&dump.newest, true);
    report_plan(&admin->report, (admin->options->all ? 1 : 2) * admin_walk_size(admin));
    int result = decompressor_create(&dump.decompressor);
    struct walk walk = {.admin = admin, .each = write_record, .context = &dump};
    if (result == 0)
        result = admin->options->all ? admin_walk(&walk) : dump_newest(&dump);
    newest_free(&dump.newest);
    decompressor_free(dump.decompressor);
    return result;
}
