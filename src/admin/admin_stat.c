/* stat: what a data directory consists of, one number a line. Of the segments only the directories
 * are read, so this takes a small part of the time of a check. */
#include "admin/read/admin_newest.h"
#include "admin/read/admin_value.h"

#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SHARES 10u /* of the histogram */

struct stat_walk {
    struct admin *admin;
    struct newest newest;
    uint64_t *live; /* bytes of each file of the catalog */
    uint64_t log_live;
    uint64_t segments_live;
    uint64_t values_live;
    uint64_t values_live_files;
};

/* ---- what is alive ---- */

/* Only the record itself tells its file. One that cannot be read has none; `check` says why. */
static void count_value(struct stat_walk *stat, const struct newest_slot *slot)
{
    const struct admin *admin = stat->admin;
    struct record record;
    uint8_t *memory;
    if (admin_read_record(admin, slot->file, slot->offset, slot->size, &memory, &record) < 0)
        return;
    const struct catalog_file *file = value_find_file(admin, &record);
    free(memory);
    if (file == NULL)
        return;
    stat->values_live_files++;
    stat->values_live += file->size;
}

static void count_slot(struct stat_walk *stat, const struct newest_slot *slot)
{
    uint64_t size = round_up(slot->size, 8); /* with the padding between records */
    stat->live[slot->file] += size;
    if (stat->admin->catalog.files[slot->file].kind == CATALOG_LOG)
        stat->log_live += size;
    else
        stat->segments_live += size;
    if (slot->in_value_file && !slot->tombstone)
        count_value(stat, slot);
}

static void count_live(struct stat_walk *stat)
{
    for (uint64_t i = 0; i < stat->newest.capacity; i++) {
        const struct newest_slot *slot = newest_nth(&stat->newest, i);
        if (slot != NULL)
            count_slot(stat, slot);
    }
}

/* ---- lines ---- */

static void show_number(const char *name, uint64_t value)
{
    (void)printf("%s: %" PRIu64 "\n", name, value);
}

static void show_ratio(const char *name, uint64_t part, uint64_t whole)
{
    if (whole == 0)
        (void)printf("%s: none\n", name);
    else
        (void)printf("%s: %.4f\n", name, (double)part / (double)whole);
}

static uint32_t count_files(const struct catalog *catalog, enum catalog_kind kind)
{
    return catalog->first[kind + 1] - catalog->first[kind];
}

static uint64_t show_files(const struct catalog *catalog)
{
    static const char *const names[CATALOG_KINDS] = {
        "superblock", "manifests", "checkpoints", "log", "segments", "values", "space", "others"};
    uint64_t all = 0;
    for (uint32_t kind = 0; kind < CATALOG_KINDS; kind++) {
        uint64_t size = 0;
        for (uint32_t i = catalog->first[kind]; i < catalog->first[kind + 1]; i++)
            size += catalog->files[i].size;
        all += size;
        (void)printf("files.%s.count: %" PRIu32 "\nfiles.%s.bytes: %" PRIu64 "\n", names[kind],
                     count_files(catalog, kind), names[kind], size);
    }
    return all;
}

static void show_log(const struct stat_walk *stat)
{
    const struct admin *admin = stat->admin;
    uint64_t files = 0, records = 0, last_position = 0;
    for (uint32_t i = 0; i < admin->shard_count; i++) {
        const struct admin_shard *shard = &admin->shards[i];
        files += shard->log_files;
        records += shard->log.records;
        last_position = max_u64(last_position, shard->log.last_position);
    }
    show_number("log.segments", files);
    show_number("log.spares", count_files(&admin->catalog, CATALOG_LOG) - files);
    show_number("log.records", records);
    show_number("log.last_position", last_position);
    show_number("log.live_bytes", stat->log_live);
}

static void show_shares(const struct stat_walk *stat)
{
    const struct catalog *catalog = &stat->admin->catalog;
    uint64_t counts[SHARES] = {0};
    uint64_t counted = 0;
    for (uint32_t i = catalog->first[CATALOG_SEGMENT]; i < catalog->first[CATALOG_SEGMENT + 1];
         i++) {
        const struct catalog_file *file = &catalog->files[i];
        if (!file->counts || file->end == 0)
            continue;
        counted++;
        counts[min_u64(stat->live[i] * SHARES / file->end, SHARES - 1)]++;
    }
    show_number("segments.counted", counted);
    show_number("segments.bytes", catalog_size(catalog, CATALOG_SEGMENT));
    show_number("segments.live_bytes", stat->segments_live);
    show_ratio("segments.live_share", stat->segments_live, catalog_size(catalog, CATALOG_SEGMENT));
    for (uint32_t share = 0; share < SHARES; share++)
        (void)printf("segments.with_live_percent.%" PRIu32 "-%" PRIu32 ": %" PRIu64 "\n",
                     share * 100 / SHARES, (share + 1) * 100 / SHARES, counts[share]);
}

/* With several shards: the sums, the oldest, and how many shards have one. */
struct checkpoints {
    bool is_named; /* by a manifest */
    uint32_t count;
    struct checkpoint_info info; /* the last one's; slots: of all */
    uint64_t age_s;
    uint64_t positions_behind;
};

static void add_checkpoint(struct admin *admin, const struct admin_shard *shard,
                           struct checkpoints *checkpoints)
{
    const struct catalog_file *file = catalog_find_checkpoint(&admin->catalog, shard);
    struct checkpoint_info info;
    int64_t age_s;
    if (file == NULL)
        return;
    checkpoints->is_named = true;
    int error = checkpoint_look(admin, file, &info, &age_s);
    if (error < 0) {
        report_say(&admin->report, REPORT_DAMAGE, file->name, 0,
                   "it cannot be used (%s), the next start builds the index from the segments "
                   "and takes longer; nothing is lost",
                   strerror(-error));
        return;
    }
    uint64_t last = shard->log.last_position;
    info.slots += checkpoints->info.slots;
    checkpoints->info = info;
    checkpoints->count++;
    checkpoints->age_s = max_u64(checkpoints->age_s, age_s < 0 ? 0 : (uint64_t)age_s);
    checkpoints->positions_behind += last > info.position ? last - info.position : 0;
}

static void show_checkpoints(struct admin *admin)
{
    struct checkpoints checkpoints = {.count = 0};
    for (uint32_t i = 0; i < admin->shard_count; i++)
        add_checkpoint(admin, &admin->shards[i], &checkpoints);
    if (!checkpoints.is_named)
        (void)puts("checkpoint: none");
    if (checkpoints.count == 0)
        return;
    if (admin->shard_count == 1) {
        show_number("checkpoint.number", checkpoints.info.number);
        show_number("checkpoint.position", checkpoints.info.position);
    } else {
        show_number("checkpoint.shards", checkpoints.count);
    }
    show_number("checkpoint.age_s", checkpoints.age_s);
    show_number("checkpoint.slots", checkpoints.info.slots);
    show_number("checkpoint.positions_behind", checkpoints.positions_behind);
}

/* All of them. */
static bool is_closed(const struct admin *admin)
{
    bool is_closed = !admin->is_decided;
    for (uint32_t i = 0; i < admin->shard_count; i++)
        is_closed = is_closed && admin->shards[i].superblock.clean;
    return is_closed;
}

static void show(const struct stat_walk *stat)
{
    struct admin *admin = stat->admin;
    const struct catalog *catalog = &admin->catalog;
    const struct superblock *superblock = &admin->superblock;
    uint64_t live = stat->log_live + stat->segments_live + stat->values_live;
    (void)printf("directory.id: %016" PRIx64 "\ndirectory.format: %" PRIu32
                 "\ndirectory.closed: %s\n",
                 superblock->directory_id, superblock->format, is_closed(admin) ? "yes" : "no");
    show_number("directory.shards", admin->shard_count);
    show_number("keys", stat->newest.count - stat->newest.tombstones);
    show_number("tombstones", stat->newest.tombstones);
    uint64_t all = show_files(catalog);
    show_log(stat);
    show_shares(stat);
    show_number("values.live_files", stat->values_live_files);
    show_number("values.live_bytes", stat->values_live);
    show_number("values.orphans", count_files(catalog, CATALOG_VALUE) - stat->values_live_files);
    show_checkpoints(admin);
    show_number("space.bytes", all);
    show_number("space.live_bytes", live);
    show_ratio("space.amplification", all, live);
    show_ratio("space.amplification_without_log",
               catalog_size(catalog, CATALOG_SEGMENT) + catalog_size(catalog, CATALOG_VALUE),
               stat->segments_live + stat->values_live);
}

int admin_stat(struct admin *admin)
{
    struct stat_walk stat = {.admin = admin};
    newest_init(&stat.newest, false);
    stat.live = calloc((size_t)admin->catalog.count + 1, sizeof *stat.live);
    struct walk walk = {
        .admin = admin, .only_directories = true, .each = newest_take, .context = &stat.newest};
    report_plan(&admin->report, admin_walk_size(admin));
    int result = stat.live == NULL ? -ENOMEM : admin_walk(&walk);
    if (result == 0) {
        count_live(&stat);
        show(&stat);
    }
    free(stat.live);
    newest_free(&stat.newest);
    return result;
}
