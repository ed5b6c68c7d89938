/* check: every checksum of a data directory. Superblock and manifest were verified when the
 * directory was opened; here are the log, the segments, the value files of the newest records, the
 * checkpoint.
 */
#include "admin/read/admin_newest.h"
#include "admin/read/admin_value.h"

#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct check {
    struct admin *admin;
    struct newest newest;
    uint64_t value_files;
};

/* ---- value files ---- */

static int check_value(struct check *check, const struct newest_slot *slot)
{
    struct admin *admin = check->admin;
    struct record record;
    uint8_t *memory;
    int result = admin_read_record(admin, slot->file, slot->offset, slot->size, &memory, &record);
    if (result == -ENOMEM)
        return result;
    if (result < 0) {
        report_say(&admin->report, REPORT_DAMAGE, admin->catalog.files[slot->file].name,
                   slot->offset,
                   "the record reads differently than a moment ago, the device is failing");
        return 0;
    }
    struct catalog_file *file = value_find_file(admin, &record);
    if (file != NULL)
        file->counts = true;
    check->value_files++;
    result = value_check_file(admin, &record, NULL);
    free(memory);
    return result == -ENOMEM ? result : 0;
}

static int check_values(struct check *check)
{
    struct catalog *catalog = &check->admin->catalog;
    uint32_t first = catalog->first[CATALOG_VALUE];
    uint32_t end = catalog->first[CATALOG_VALUE + 1];
    for (uint32_t i = first; i < end; i++)
        catalog->files[i].counts = false;
    int result = 0;
    for (uint64_t i = 0; result == 0 && i < check->newest.capacity; i++) {
        const struct newest_slot *slot = newest_nth(&check->newest, i);
        if (slot != NULL && slot->in_value_file && !slot->tombstone)
            result = check_value(check, slot);
    }
    for (uint32_t i = first; result == 0 && i < end; i++)
        if (!catalog->files[i].counts)
            report_say(&check->admin->report, REPORT_NOTE, catalog->files[i].name, 0,
                       "a value file that no newest record names, removed at the next start");
    return result;
}

/* ---- everything ---- */

static int check_checkpoints(struct admin *admin)
{
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < admin->shard_count; i++) {
        const struct catalog_file *file =
            catalog_find_checkpoint(&admin->catalog, &admin->shards[i]);
        if (file != NULL)
            result = checkpoint_check(admin, file);
    }
    return result;
}

static void summarize(const struct check *check, int result)
{
    const struct admin_report *report = &check->admin->report;
    const struct newest *newest = &check->newest;
    const char *verdict = report->is_refused || result < 0 ? "not understood"
                          : report->damages > 0            ? "damaged"
                                                           : "sound";
    (void)printf("summary: %s, %" PRIu64 " damaged places, %" PRIu64 " notes; %" PRIu64
                 " records, %" PRIu64 " keys, %" PRIu64 " tombstones, %" PRIu64
                 " value files, %" PRIu64 " MiB read%s\n",
                 verdict, report->damages, report->notes, newest->records,
                 newest->count - newest->tombstones, newest->tombstones, check->value_files,
                 report->done_bytes / MIB, report->is_stopped ? "; a server refuses to start" : "");
}

int admin_check(struct admin *admin)
{
    struct check check = {.admin = admin};
    struct walk walk = {.admin = admin, .each = newest_take, .context = &check.newest};
    newest_init(&check.newest, true);
    report_plan(&admin->report, admin_walk_size(admin) +
                                    catalog_size(&admin->catalog, CATALOG_VALUE) +
                                    catalog_size(&admin->catalog, CATALOG_CHECKPOINT));
    int result = admin_walk(&walk);
    if (result == 0)
        result = check_values(&check);
    if (result == 0)
        result = check_checkpoints(admin);
    summarize(&check, result);
    newest_free(&check.newest);
    return result;
}
