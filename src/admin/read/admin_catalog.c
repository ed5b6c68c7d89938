/* Listing the directory, and finding a file in the list. */
#include "admin/read/admin.h"

#include "admin/read/admin_files.h"
#include "base/assert.h"
#include "base/units.h"
#include "store/catalog/checkpoint.h"
#include "store/segment/segments.h"
#include "store/value/value_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_SIZE 512
#define PARTITIONS 256u
#define PLAN_FOLDER "resharding"

/* ---- one file ---- */

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
    struct catalog_file *added = &catalog->files[catalog->count];
    *added = *file;
    added->name = strdup(file->name);
    if (added->name == NULL)
        return -ENOMEM;
    catalog->count++;
    return 0;
}

/* A file that cannot be opened is listed: whoever needs it says why it cannot. */
static int add_sized(struct admin *admin, struct catalog_file *file)
{
    int handle = admin_open_file(admin->directory, file->name);
    int64_t size = handle < 0 ? handle : admin_file_size(handle);
    file->size = size < 0 ? 0 : (uint64_t)size;
    admin_close(handle);
    return add(admin, file);
}

/* ---- what a name means ---- */

/* Of the files in resharding/, those whose turn it is count instead of the ones they replace. */
static void judge_plan(const struct admin *admin, const char *name, struct catalog_file *file)
{
    static const struct {
        const char *format;
        enum catalog_kind kind;
    } known[] = {{"superblock-%u", CATALOG_SUPERBLOCK}, {"manifest-%u", CATALOG_MANIFEST}};
    file->kind = CATALOG_MANIFEST; /* of a conversion that was not decided, or is over */
    file->number = 1;
    file->is_leftover = true;
    file->counts = false;
    for (size_t i = 0; i < 2; i++)
        for (uint32_t shard = 0; admin->is_decided && shard < admin->shard_count; shard++) {
            char again[32];
            (void)snprintf(again, sizeof again, known[i].format, shard);
            if (strcmp(name, again) != 0)
                continue;
            file->kind = known[i].kind;
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
    char manifest[32];
    (void)snprintf(manifest, sizeof manifest, "manifest-%u", shard);
    size_t length = strlen(manifest);
    file->shard = shard;
    file->counts = shard < admin->shard_count;
    if (strcmp(name, "superblock") == 0) {
        file->kind = CATALOG_SUPERBLOCK;
    } else if (strcmp(name, manifest) == 0) {
        file->kind = CATALOG_MANIFEST;
    } else if (strncmp(name, manifest, length) == 0 && strcmp(name + length, ".new") == 0) {
        file->kind = CATALOG_MANIFEST;
        file->is_leftover = true;
        file->counts = false;
    } else if (strcmp(name, "reserve") == 0) {
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
    char again[32];
    if (strcmp(name, "probe") == 0)
        file->kind = CATALOG_SPACE;
    if (sscanf(name, "wal-%8" SCNx64, &serial) != 1)
        return;
    (void)snprintf(again, sizeof again, "wal-%08" PRIx64, serial);
    if (strcmp(name, again) == 0) {
        file->kind = CATALOG_LOG;
        file->number = serial;
    }
}

static void judge_partition(const char *name, uint8_t partition, struct catalog_file *file)
{
    struct value_file_name value;
    file->partition = partition;
    if (segment_name_parse(name, &file->number) == 0) {
        file->kind = CATALOG_SEGMENT;
        file->counts = false; /* until the manifest names it */
    } else if (value_file_name_parse(partition, name, &value) == 0) {
        file->kind = CATALOG_VALUE;
        file->version = value.version;
        file->key_hash = value.key_hash;
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
    char again[32];
    if (strcmp(name, "log") == 0 || strcmp(name, "lost+found") == 0 ||
        strcmp(name, PLAN_FOLDER) == 0)
        return true;
    if (sscanf(name, "shard-%3u", &number) == 1 && number > 0 && number < shards_max(admin)) {
        (void)snprintf(again, sizeof again, "shard-%u", number);
        return strcmp(name, again) == 0;
    }
    if (strlen(name) != 2 || sscanf(name, "%2x", &number) != 1)
        return false;
    (void)snprintf(again, sizeof again, "%02x", number);
    return strcmp(name, again) == 0;
}

enum folder_kind { FOLDER_STATE, FOLDER_LOG, FOLDER_PLAN, FOLDER_PARTITION };

struct listing {
    struct admin *admin;
    const char *folder; /* "" for the data directory itself */
    enum folder_kind kind;
    uint32_t number; /* shard or partition */
};

static int list_entry(void *context, const char *name)
{
    struct listing *listing = context;
    struct admin *admin = listing->admin;
    char path[NAME_MAX_SIZE];
    bool is_root = *listing->folder == '\0';
    bool is_log = listing->kind == FOLDER_STATE && strcmp(name, "log") == 0;
    if (is_log || (is_root && is_folder(admin, name)))
        return 0;
    (void)snprintf(path, sizeof path, "%s%s%s", listing->folder, is_root ? "" : "/", name);
    struct catalog_file file = {.name = path, .kind = CATALOG_OTHER, .counts = true};
    switch (listing->kind) {
    case FOLDER_STATE:
        judge_state(admin, name, listing->number, &file);
        break;
    case FOLDER_LOG:
        judge_log(admin, name, listing->number, &file);
        break;
    case FOLDER_PLAN:
        judge_plan(admin, name, &file);
        break;
    case FOLDER_PARTITION:
        judge_partition(name, (uint8_t)listing->number, &file);
        break;
    }
    return add_sized(admin, &file);
}

static int list_folder(struct admin *admin, const char *folder, enum folder_kind kind,
                       uint32_t number)
{
    struct listing listing = {admin, folder, kind, number};
    const char *name = *folder == '\0' ? "." : folder;
    int result = admin_list(admin->directory, name, list_entry, &listing);
    if (result == -ENOENT)
        return 0; /* a directory that was formatted and never used */
    if (result == -ENOMEM)
        report_failure(&admin->report, "not enough memory for the list of files");
    else if (result < 0)
        report_failure(&admin->report, "%s/%s cannot be listed: %s", admin->options->data, name,
                       strerror(-result));
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
    int result = list_folder(admin, folder, FOLDER_STATE, shard);
    return result < 0 ? result : list_folder(admin, log, FOLDER_LOG, shard);
}

static int list_all(struct admin *admin)
{
    int result = list_folder(admin, PLAN_FOLDER, FOLDER_PLAN, 0);
    for (uint32_t shard = 0; result == 0 && shard < shards_max(admin); shard++)
        result = list_shard(admin, shard);
    for (uint32_t partition = 0; result == 0 && partition < PARTITIONS; partition++) {
        char folder[8];
        (void)snprintf(folder, sizeof folder, "%02x", partition);
        result = list_folder(admin, folder, FOLDER_PARTITION, partition);
    }
    return result;
}

/* ---- order ---- */

static int compare(const void *left, const void *right)
{
    const struct catalog_file *a = left;
    const struct catalog_file *b = right;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->shard != b->shard)
        return a->shard < b->shard ? -1 : 1;
    if (a->number != b->number)
        return a->number < b->number ? -1 : 1;
    if (a->partition != b->partition)
        return a->partition < b->partition ? -1 : 1;
    if (a->is_leftover != b->is_leftover)
        return a->is_leftover ? 1 : -1;
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

struct catalog_file *catalog_find(const struct catalog *catalog, enum catalog_kind kind,
                                  uint8_t partition, uint64_t number)
{
    struct catalog_file wanted = {.kind = kind, .partition = partition, .number = number};
    return find(catalog, &wanted);
}

struct catalog_file *catalog_find_state(const struct catalog *catalog, enum catalog_kind kind,
                                        uint32_t shard, uint64_t number)
{
    struct catalog_file wanted = {.kind = kind, .shard = shard, .number = number};
    return find(catalog, &wanted);
}

void catalog_range(const struct catalog *catalog, enum catalog_kind kind, uint32_t shard,
                   uint32_t *ret_first, uint32_t *ret_end)
{
    uint32_t first = catalog->first[kind];
    while (first < catalog->first[kind + 1] && catalog->files[first].shard < shard)
        first++;
    uint32_t end = first;
    while (end < catalog->first[kind + 1] && catalog->files[end].shard == shard)
        end++;
    *ret_first = first;
    *ret_end = end;
}

struct catalog_file *catalog_find_segment(const struct catalog *catalog, uint64_t number)
{
    for (uint32_t partition = 0; partition < PARTITIONS; partition++) {
        struct catalog_file *file =
            catalog_find(catalog, CATALOG_SEGMENT, (uint8_t)partition, number);
        if (file != NULL && file->counts)
            return file;
    }
    return NULL;
}

struct catalog_file *catalog_find_value(const struct catalog *catalog, uint8_t partition,
                                        struct version version)
{
    struct catalog_file wanted = {
        .kind = CATALOG_VALUE, .partition = partition, .version = version};
    return find(catalog, &wanted);
}

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
