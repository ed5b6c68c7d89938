/* Listing the directory, and finding a file in the list. */
#include "admin/read/admin.h"

#include "admin/read/admin_files.h"
#include "base/assert.h"
#include "base/units.h"
#include "store/catalog/checkpoint.h"
#include "store/catalog/reached.h"
#include "store/segment/segments.h"
#include "store/value/value_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_SIZE 512
#define PARTITIONS 256u
#define PLAN_FOLDER "resharding"

/* ---- one file ---- */

/* A file that this user may not read ends it. One that cannot be opened otherwise is listed, too: who
 * opens it later reports the error. */
static int add(struct admin *admin, const struct catalog_file *file)
{
    struct catalog *catalog = &admin->catalog;
    if (catalog->count == catalog->capacity) {
        uint32_t capacity = catalog->capacity == 0 ? 1024 : 2 * catalog->capacity;
        struct catalog_file *files = realloc(catalog->files, capacity * sizeof *files);
        if (files == NULL)
            return -ENOMEM;
        catalog->files = files;
        catalog->capacity = capacity;
    }
    bool has_data = file->kind != CATALOG_OTHER && file->kind != CATALOG_SPACE;
    int handle = has_data ? admin_open_file(admin->directory, file->name) : -ENOENT;
    if (handle == -EACCES || handle == -EPERM)
        return report_cannot(&admin->report, admin->directory, file->name, "opened", handle);
    admin_close(handle);
    int64_t size = admin_file_size(admin->directory, file->name);
    struct catalog_file *added = &catalog->files[catalog->count];
    *added = *file;
    added->size = size < 0 ? 0 : (uint64_t)size;
    added->name = strdup(file->name);
    catalog->count += added->name != NULL;
    return added->name != NULL ? 0 : -ENOMEM;
}

/* ---- what a name means ---- */

__attribute__((format(printf, 2, 3))) static bool is_named(const char *name, const char *format,
                                                           ...)
{
    char wanted[32];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(wanted, sizeof wanted, format, arguments);
    va_end(arguments);
    return strcmp(name, wanted) == 0;
}

/* Judges a file of one kind of folder by its name; `number`: the folder's shard or partition. */
typedef void judge(const struct admin *admin, const char *name, uint32_t number,
                   struct catalog_file *file);

/* Of the files in resharding/, those whose turn it is count instead of the ones they replace. */
static void judge_plan(const struct admin *admin, const char *name, uint32_t number,
                       struct catalog_file *file)
{
    (void)number;
    file->kind = CATALOG_MANIFEST; /* of a conversion that was not decided, or is over */
    file->number = 1;
    file->is_leftover = true;
    file->counts = false;
    for (uint32_t shard = 0; admin->is_decided && shard < admin->shard_count; shard++) {
        bool is_superblock = is_named(name, "superblock-%" PRIu32, shard);
        if (!is_superblock && !is_named(name, "manifest-%" PRIu32, shard))
            continue;
        file->kind = is_superblock ? CATALOG_SUPERBLOCK : CATALOG_MANIFEST;
        file->shard = shard;
        file->is_leftover = false;
        file->counts = true;
    }
}

/* In DATA, or in DATA/shard-<n>. What the conversion of a directory replaces does not count. */
static void judge_state(const struct admin *admin, const char *name, uint32_t shard,
                        struct catalog_file *file)
{
    bool is_temporary;
    file->shard = shard;
    file->counts = shard < admin->shard_count;
    if (is_named(name, "superblock")) {
        file->kind = CATALOG_SUPERBLOCK;
    } else if (is_named(name, "manifest-%" PRIu32, shard)) {
        file->kind = CATALOG_MANIFEST;
    } else if (is_named(name, "manifest-%" PRIu32 ".new", shard)) {
        file->kind = CATALOG_MANIFEST;
        file->is_leftover = true;
        file->counts = false;
    } else if (is_named(name, "reserve") || is_named(name, REACHED_FILE)) {
        file->kind = CATALOG_SPACE;
    } else if (checkpoint_name_parse(name, &file->number, &is_temporary) == 0) {
        file->kind = CATALOG_CHECKPOINT;
        file->is_leftover = is_temporary;
        file->counts = !is_temporary && !admin->is_decided;
    }
}

static void judge_log(const struct admin *admin, const char *name, uint32_t shard,
                      struct catalog_file *file)
{
    uint64_t serial;
    file->shard = shard;
    file->counts = !admin->is_decided;
    if (is_named(name, "probe")) {
        file->kind = CATALOG_SPACE;
    } else if (sscanf(name, "wal-%8" SCNx64, &serial) == 1 &&
               is_named(name, "wal-%08" PRIx64, serial)) {
        file->kind = CATALOG_LOG;
        file->number = serial;
    }
}

static void judge_partition(const struct admin *admin, const char *name, uint32_t partition,
                            struct catalog_file *file)
{
    (void)admin;
    struct value_file_name value;
    file->partition = (uint8_t)partition;
    if (segment_name_parse(name, &file->number) == 0) {
        file->kind = CATALOG_SEGMENT;
        file->counts = false; /* until the manifest names it */
    } else if (value_file_name_parse(file->partition, name, &value) == 0) {
        file->kind = CATALOG_VALUE;
        file->version = value.version;
    }
}

/* ---- listing ---- */

static uint32_t shards_max(const struct admin *admin)
{
    return (uint32_t)max_u64(admin->shard_count, admin->superblock.shards_before);
}

/* What is listed by itself. */
static bool is_folder(const struct admin *admin, const char *name)
{
    unsigned number;
    if (is_named(name, "log") || is_named(name, "lost+found") || is_named(name, PLAN_FOLDER))
        return true;
    if (sscanf(name, "shard-%3u", &number) == 1)
        return number > 0 && number < shards_max(admin) && is_named(name, "shard-%u", number);
    return sscanf(name, "%2x", &number) == 1 && is_named(name, "%02x", number);
}

struct listing {
    struct admin *admin;
    const char *folder; /* "" for the data directory itself */
    judge *judge;
    uint32_t number; /* shard or partition */
};

static int list_entry(void *context, const char *name)
{
    struct listing *listing = context;
    struct admin *admin = listing->admin;
    char path[NAME_MAX_SIZE];
    bool is_root = *listing->folder == '\0';
    bool is_log = listing->judge == judge_state && is_named(name, "log");
    if (is_log || (is_root && is_folder(admin, name)))
        return 0;
    (void)snprintf(path, sizeof path, "%s%s%s", listing->folder, is_root ? "" : "/", name);
    struct catalog_file file = {.name = path, .kind = CATALOG_OTHER, .counts = true};
    listing->judge(admin, name, listing->number, &file);
    return add(admin, &file);
}

static int list_folder(struct admin *admin, const char *folder, judge *judge, uint32_t number)
{
    struct listing listing = {admin, folder, judge, number};
    const char *name = *folder == '\0' ? "." : folder;
    int result = admin_list(admin->directory, name, list_entry, &listing);
    if (result == -ENOENT)
        return 0; /* a directory that was formatted and never used */
    if (result < 0 && result != -ENOMEM && !admin->report.is_refused)
        (void)report_cannot(&admin->report, admin->directory, name, "listed", result);
    return result;
}

static int list_shard(struct admin *admin, uint32_t shard)
{
    char folder[32] = "";
    char log[32] = "log";
    if (shard > 0) {
        (void)snprintf(folder, sizeof folder, "shard-%" PRIu32, shard);
        (void)snprintf(log, sizeof log, "shard-%" PRIu32 "/log", shard);
    }
    int result = list_folder(admin, folder, judge_state, shard);
    return result < 0 ? result : list_folder(admin, log, judge_log, shard);
}

static int list_all(struct admin *admin)
{
    int result = list_folder(admin, PLAN_FOLDER, judge_plan, 0);
    for (uint32_t shard = 0; result == 0 && shard < shards_max(admin); shard++)
        result = list_shard(admin, shard);
    for (uint32_t partition = 0; result == 0 && partition < PARTITIONS; partition++) {
        char folder[8];
        (void)snprintf(folder, sizeof folder, "%02x", partition);
        result = list_folder(admin, folder, judge_partition, partition);
    }
    return result;
}

/* ---- order ---- */

static int compare(const void *left, const void *right)
{
    const struct catalog_file *a = left;
    const struct catalog_file *b = right;
    const uint64_t keys[][2] = {{a->kind, b->kind},
                                {a->shard, b->shard},
                                {a->number, b->number},
                                {a->partition, b->partition},
                                {a->is_leftover, b->is_leftover}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (keys[i][0] != keys[i][1])
            return keys[i][0] < keys[i][1] ? -1 : 1;
    int versions = version_compare(a->version, b->version);
    if (versions != 0 || a->name == NULL || b->name == NULL)
        return versions;
    return strcmp(a->name, b->name);
}

static void sort(struct catalog *catalog)
{
    if (catalog->count > 0)
        qsort(catalog->files, catalog->count, sizeof *catalog->files, compare);
    uint32_t index = 0;
    for (uint32_t kind = 0; kind < CATALOG_KINDS; kind++) {
        catalog->first[kind] = index;
        while (index < catalog->count && catalog->files[index].kind == kind)
            index++;
    }
    catalog->first[CATALOG_KINDS] = index;
    assert(index == catalog->count);
}

static struct catalog_file *find(const struct catalog *catalog, const struct catalog_file *wanted)
{
    if (catalog->count == 0)
        return NULL;
    return bsearch(wanted, catalog->files, catalog->count, sizeof *wanted, compare);
}

static struct catalog_file *find_segment(const struct catalog *catalog, uint8_t partition,
                                         uint64_t number)
{
    struct catalog_file wanted = {
        .kind = CATALOG_SEGMENT, .partition = partition, .number = number};
    return find(catalog, &wanted);
}

static struct catalog_file *find_state(const struct catalog *catalog, enum catalog_kind kind,
                                       uint32_t shard, uint64_t number)
{
    struct catalog_file wanted = {.kind = kind, .shard = shard, .number = number};
    return find(catalog, &wanted);
}

struct catalog_file *catalog_find_value(const struct catalog *catalog, uint8_t partition,
                                        struct version version)
{
    struct catalog_file wanted = {
        .kind = CATALOG_VALUE, .partition = partition, .version = version};
    return find(catalog, &wanted);
}

const struct catalog_file *catalog_find_checkpoint(const struct catalog *catalog,
                                                   const struct admin_shard *shard)
{
    const struct catalog_file *file =
        find_state(catalog, CATALOG_CHECKPOINT, shard->number, shard->checkpoint);
    return file != NULL && file->counts ? file : NULL;
}

/* ---- what counts ---- */

const char *catalog_choose(struct catalog *catalog, enum catalog_kind kind, uint32_t shard)
{
    const struct catalog_file *planned = find_state(catalog, kind, shard, 1);
    struct catalog_file *present = find_state(catalog, kind, shard, 0);
    if (planned == NULL)
        return present != NULL ? present->name : NULL;
    if (present != NULL)
        present->counts = false;
    return planned->name;
}

bool catalog_count_segment(struct catalog *catalog, uint8_t partition, uint64_t number,
                           uint64_t end)
{
    struct catalog_file *file = find_segment(catalog, partition, number);
    if (file == NULL)
        return false;
    file->counts = true;
    file->end = end;
    return true;
}

uint64_t catalog_segment_end(const struct catalog *catalog, uint64_t number)
{
    for (uint32_t partition = 0; partition < PARTITIONS; partition++) {
        const struct catalog_file *file = find_segment(catalog, (uint8_t)partition, number);
        if (file != NULL && file->counts)
            return file->end;
    }
    return 0;
}

bool catalog_has_segments(const struct admin *admin, uint32_t shard)
{
    const struct catalog *catalog = &admin->catalog;
    bool has_one = false;
    for (uint32_t i = catalog->first[CATALOG_SEGMENT]; i < catalog->first[CATALOG_SEGMENT + 1]; i++)
        has_one |= catalog->files[i].partition % admin->shard_count == shard;
    return has_one;
}

int catalog_list_log(const struct catalog *catalog, uint32_t shard,
                     struct wal_scan_file **ret_files, uint32_t *ret_count, uint64_t *ret_largest)
{
    uint32_t first = catalog->first[CATALOG_LOG];
    uint32_t end = catalog->first[CATALOG_LOG + 1];
    uint32_t count = 0;
    struct wal_scan_file *files = calloc(end - first + 1, sizeof *files);
    if (files == NULL)
        return -ENOMEM;
    *ret_largest = 0;
    for (uint32_t i = first; i < end; i++) {
        const struct catalog_file *file = &catalog->files[i];
        if (file->shard != shard || !file->counts)
            continue;
        files[count++] = (struct wal_scan_file){.index = i,
                                                .size = round_down(file->size, WAL_BLOCK_SIZE),
                                                .path = file->name,
                                                .unreadable_last = WAL_READABLE};
        *ret_largest = max_u64(*ret_largest, file->size);
    }
    *ret_files = files;
    *ret_count = count;
    return 0;
}

/* ---- files that do not count ---- */

/* Whether there is a manifest that could have named the segment. */
static bool has_manifest(const struct admin *admin, const struct catalog_file *file)
{
    uint32_t shard = file->partition % admin->shard_count;
    return find_state(&admin->catalog, CATALOG_MANIFEST, shard, 0) != NULL ||
           find_state(&admin->catalog, CATALOG_MANIFEST, shard, 1) != NULL;
}

/* NULL: it counts, or nothing can be said of it. */
static const char *describe_leftover(const struct admin *admin, const struct catalog_file *file)
{
    if (file->kind == CATALOG_OTHER)
        return "not a file of ours, it is left alone";
    if (file->counts)
        return NULL;
    if (file->kind == CATALOG_CHECKPOINT)
        return "a checkpoint that does not count, removed at the next start";
    if (file->kind == CATALOG_SEGMENT && has_manifest(admin, file))
        return "a segment that does not count, removed at the next start";
    if (file->kind != CATALOG_MANIFEST)
        return NULL;
    return file->number == 0 && !file->is_leftover
               ? "a manifest of before the conversion, removed by the next start"
               : "a manifest that was never finished, removed at the next start";
}

void catalog_note_leftovers(struct admin *admin)
{
    for (uint32_t i = 0; i < admin->catalog.count; i++) {
        struct catalog_file *file = &admin->catalog.files[i];
        if (file->kind == CATALOG_CHECKPOINT)
            file->counts = file->counts && file->shard < admin->shard_count &&
                           file->number == admin->shards[file->shard].checkpoint;
        const char *what = describe_leftover(admin, file);
        if (what != NULL)
            report_say(&admin->report, REPORT_NOTE, file->name, 0, "%s", what);
    }
}

/* ---- the whole of it ---- */

uint64_t catalog_size(const struct catalog *catalog, enum catalog_kind kind)
{
    uint64_t size = 0;
    for (uint32_t i = catalog->first[kind]; i < catalog->first[kind + 1]; i++) {
        const struct catalog_file *file = &catalog->files[i];
        if (file->counts)
            size += kind == CATALOG_SEGMENT ? file->end : file->size;
    }
    return size;
}

int catalog_load(struct admin *admin)
{
    int result = list_all(admin);
    if (result == 0)
        sort(&admin->catalog);
    return result;
}

void catalog_free(struct catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->count; i++)
        free(catalog->files[i].name);
    free(catalog->files);
    *catalog = (struct catalog){0};
}
