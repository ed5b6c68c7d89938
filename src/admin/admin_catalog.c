#include "admin/admin.h"

#include "admin/admin_files.h"
#include "base/assert.h"
#include "base/units.h"
#include "store/checkpoint.h"
#include "store/segments.h"
#include "store/value_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_SIZE 512
#define PARTITIONS 256u

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

/* A manifest with another number. */
static bool is_of_other_shard(const char *name)
{
    unsigned shard;
    char again[32];
    if (sscanf(name, "manifest-%4u", &shard) != 1)
        return false;
    (void)snprintf(again, sizeof again, "manifest-%u", shard);
    return strcmp(name, again) == 0;
}

static void judge_root(const char *name, struct catalog_file *file)
{
    bool is_temporary;
    char manifest[32];
    (void)snprintf(manifest, sizeof manifest, "manifest-%u", ADMIN_SHARD);
    size_t length = strlen(manifest);
    if (strcmp(name, "superblock") == 0) {
        file->kind = CATALOG_SUPERBLOCK;
    } else if (strcmp(name, manifest) == 0) {
        file->kind = CATALOG_MANIFEST;
    } else if (strncmp(name, manifest, length) == 0 && strcmp(name + length, ".new") == 0) {
        file->kind = CATALOG_MANIFEST;
        file->is_leftover = true;
        file->counts = false;
    } else if (is_of_other_shard(name)) {
        file->kind = CATALOG_SHARD;
    } else if (strcmp(name, "reserve") == 0) {
        file->kind = CATALOG_SPACE;
    } else if (checkpoint_name_parse(name, &file->number, &is_temporary) == 0) {
        file->kind = CATALOG_CHECKPOINT;
        file->is_leftover = is_temporary;
        file->counts = !is_temporary;
    }
}

static void judge_log(const char *name, struct catalog_file *file)
{
    uint64_t serial;
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

static bool is_folder(const char *name)
{
    unsigned partition;
    char again[8];
    if (strcmp(name, "log") == 0 || strcmp(name, "lost+found") == 0)
        return true;
    if (strlen(name) != 2 || sscanf(name, "%2x", &partition) != 1)
        return false;
    (void)snprintf(again, sizeof again, "%02x", partition);
    return strcmp(name, again) == 0;
}

struct listing {
    struct admin *admin;
    const char *folder; /* "" for the data directory itself */
    uint32_t partition; /* PARTITIONS: of none */
};

static int list_entry(void *context, const char *name)
{
    struct listing *listing = context;
    char path[NAME_MAX_SIZE];
    bool is_root = *listing->folder == '\0';
    if (is_root && is_folder(name))
        return 0;
    (void)snprintf(path, sizeof path, "%s%s%s", listing->folder, is_root ? "" : "/", name);
    struct catalog_file file = {.name = path, .kind = CATALOG_OTHER, .counts = true};
    if (is_root)
        judge_root(name, &file);
    else if (listing->partition < PARTITIONS)
        judge_partition(name, (uint8_t)listing->partition, &file);
    else
        judge_log(name, &file);
    return add_sized(listing->admin, &file);
}

static int list_folder(struct admin *admin, const char *folder, uint32_t partition)
{
    struct listing listing = {admin, folder, partition};
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

static int list_all(struct admin *admin)
{
    int result = list_folder(admin, "", PARTITIONS);
    if (result == 0)
        result = list_folder(admin, "log", PARTITIONS);
    for (uint32_t partition = 0; result == 0 && partition < PARTITIONS; partition++) {
        char folder[8];
        (void)snprintf(folder, sizeof folder, "%02x", partition);
        result = list_folder(admin, folder, partition);
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
    if (result < 0)
        return result;
    sort(&admin->catalog);
    return admin_take_manifest(admin);
}

void catalog_free(struct catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->count; i++)
        free(catalog->files[i].name);
    free(catalog->files);
    *catalog = (struct catalog){0};
}
