/* Walks through all records: first those of the log, then those of the segments that count. */
#include "admin/read/admin_walk.h"

#include "admin/read/admin_files.h"

#include <errno.h>
#include <stdlib.h>

/* What is reported while a record is shown is always shown. */
static int show(const struct walk *walk, const struct walk_found *found)
{
    walk->admin->report.is_silent = false;
    int result = walk->each(walk->context, found);
    walk->admin->report.is_silent = walk->is_repeated;
    return result;
}

int admin_walk(const struct walk *wanted)
{
    struct walk shown = *wanted;
    const struct walk *walk = &shown;
    const struct catalog *catalog = &walk->admin->catalog;
    shown.show = show;
    walk->admin->report.is_silent = walk->is_repeated;
    int result = admin_walk_log(walk);
    for (uint32_t i = catalog->first[CATALOG_SEGMENT];
         result == 0 && i < catalog->first[CATALOG_SEGMENT + 1]; i++)
        if (catalog->files[i].counts)
            result = admin_walk_segment(walk, i);
    walk->admin->report.is_silent = false;
    if (result == -ENOMEM)
        report_failure(&walk->admin->report, "not enough memory");
    return result;
}

uint64_t admin_walk_size(const struct admin *admin)
{
    return catalog_size(&admin->catalog, CATALOG_LOG) +
           catalog_size(&admin->catalog, CATALOG_SEGMENT);
}

static int read_again(int handle, uint64_t offset, uint32_t size, uint8_t *memory,
                      struct record *ret_record)
{
    int64_t count = admin_read(handle, memory, size, offset);
    if (count < 0)
        return (int)count;
    int64_t result = record_decode(memory, (uint64_t)count, ret_record);
    return result < 0 ? -EBADMSG : 0;
}

int admin_read_record(const struct admin *admin, uint32_t file, uint64_t offset, uint32_t size,
                      uint8_t **ret_memory, struct record *ret_record)
{
    int handle = admin_open_file(admin->directory, admin->catalog.files[file].name);
    if (handle < 0)
        return handle;
    uint8_t *memory = malloc(size);
    int result = memory == NULL ? -ENOMEM : read_again(handle, offset, size, memory, ret_record);
    admin_close(handle);
    if (result < 0) {
        free(memory);
        return result;
    }
    *ret_memory = memory;
    return 0;
}
