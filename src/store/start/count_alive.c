/* The survey: a walk over the index once recovery is over. What is alive in which file; which
 * value files are named by a record; and what lies in the partitions' folders that nothing names.
 */
#include "store/start/start.h"

#include "base/assert.h"
#include "store/catalog/checkpoint.h"
#include "store/value/value_file.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A value file that a record names. */
struct named_file {
    struct version version;
    bool is_seen; /* in its folder, or need not be there */
};

struct survey {
    struct store *store;
    struct wal_state *state;
    uint32_t partition;
    struct named_file *files; /* of one partition, sorted */
    uint64_t file_count;
    uint64_t file_capacity;
    char *orphans; /* names in one folder, one behind the other with their NULs */
    size_t orphans_size;
    size_t orphans_capacity;
    int error;
};

/* ---- what is alive ---- */

static void remember_file(struct survey *survey, struct version version, bool is_newest)
{
    if (survey->file_count == survey->file_capacity) {
        uint64_t capacity = max_u64(1024, 2 * survey->file_capacity);
        struct named_file *grown = realloc(survey->files, capacity * sizeof *grown);
        if (grown == NULL) {
            survey->error = -ENOMEM;
            return;
        }
        survey->files = grown;
        survey->file_capacity = capacity;
    }
    survey->files[survey->file_count++] = (struct named_file){version, !is_newest};
}

/* A slot beside a newer one is probably an older write of the same key, whose file may be gone. */
static bool is_newest(const struct survey *survey, uint64_t hash, const struct index_entry *entry)
{
    struct index_entry newest;
    uint32_t count = index_find(survey->store->index, survey->partition, hash, &newest, 1);
    return count > 0 && version_compare(newest.version, entry->version) == 0;
}

static void count_slot(void *context, uint64_t hash, const struct index_entry *entry)
{
    struct survey *survey = context;
    struct store *store = survey->store;
    if (location_is_segment(entry->location))
        segment_add_live(store->segments,
                         segments_find(store->segments, location_file(entry->location)),
                         entry->read_size);
    else
        wal_state_record_alive(survey->state, entry->location);
    if (entry->in_value_file)
        remember_file(survey, entry->version, is_newest(survey, hash, entry));
}

static int compare_versions(const void *left, const void *right)
{
    return version_compare(((const struct named_file *)left)->version,
                           ((const struct named_file *)right)->version);
}

static void walk_partition(struct survey *survey)
{
    survey->file_count = 0;
    uint64_t cursor = 0;
    do
        cursor = index_walk(survey->store->index, survey->partition, cursor, count_slot, survey);
    while (cursor != 0);
    if (survey->file_count > 0)
        qsort(survey->files, survey->file_count, sizeof *survey->files, compare_versions);
}

/* ---- what nothing names ---- */

/* A folder is not changed while it is listed. Errors: -ENOMEM. */
static int note_orphan(struct survey *survey, const char *name)
{
    size_t size = strlen(name) + 1;
    if (survey->orphans_size + size > survey->orphans_capacity) {
        size_t capacity = 2 * survey->orphans_capacity + 4096;
        char *grown = realloc(survey->orphans, capacity);
        if (grown == NULL)
            return -ENOMEM;
        survey->orphans = grown;
        survey->orphans_capacity = capacity;
    }
    memcpy(survey->orphans + survey->orphans_size, name, size);
    survey->orphans_size += size;
    return 0;
}

static void remove_orphan(struct survey *survey, const char *name)
{
    struct store *store = survey->store;
    char path[SEGMENT_PATH_MAX];
    int length =
        snprintf(path, sizeof path, "%s/%02x/%s", store->options.path, survey->partition, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return;
    struct io_op op = {0};
    io_unlink(store->io, &op, path);
    int result = io_wait(store->io, &op);
    store->recovered->orphans++;
    if (result < 0 && result != -ENOENT)
        log_warn(store->log, "%s: nothing needs it any more, but it cannot be removed: %s", path,
                 strerror(-result));
}

static void remove_orphans(struct survey *survey)
{
    for (size_t at = 0; at < survey->orphans_size; at += strlen(survey->orphans + at) + 1)
        remove_orphan(survey, survey->orphans + at);
    survey->orphans_size = 0;
}

static struct named_file *find_file(struct survey *survey, struct version version)
{
    struct named_file wanted = {version, false};
    return survey->file_count == 0 ? NULL
                                   : bsearch(&wanted, survey->files, survey->file_count,
                                             sizeof wanted, compare_versions);
}

static uint64_t count_missing(const struct survey *survey)
{
    uint64_t missing = 0;
    for (uint64_t i = 0; i < survey->file_count; i++)
        missing += !survey->files[i].is_seen;
    return missing;
}

static int judge_entry(void *context, const char *name)
{
    struct survey *survey = context;
    struct store *store = survey->store;
    struct value_file_name file;
    uint64_t number;
    if (segment_name_parse(name, &number) == 0) {
        struct segment *segment = segments_find_number(store->segments, number);
        bool is_named = segment != NULL && segment->partition == survey->partition;
        if (is_named)
            segment->is_seen = true;
        return is_named ? 0 : note_orphan(survey, name);
    }
    if (value_file_name_parse((uint8_t)survey->partition, name, &file) == 0) {
        struct named_file *named = find_file(survey, file.version);
        /* A stamp whose record was lost must not be given again: the name may still be there. */
        if (file.version.clock < HYBRID_CLOCK_LIMIT)
            hybrid_clock_see(&store->clock, file.version.clock);
        /* Where damage took records, one of them may have named it. */
        if (named == NULL)
            return damage_covers(&store->damage, survey->partition, 0) ? 0
                                                                       : note_orphan(survey, name);
        named->is_seen = true;
        return 0;
    }
    log_warn(store->log, "%s/%02x/%s is not ours: it is left alone", store->options.path,
             survey->partition, name);
    return 0;
}

/* A segment that the checkpoint spared recovery from reading, and that is not there. */
static void report_missing_segments(const struct survey *survey)
{
    const struct list *list = segments_of(survey->store->segments, (uint8_t)survey->partition);
    for (struct list_node *node = list_first(list); node != NULL; node = list_next(list, node)) {
        struct segment *segment = container_of(node, struct segment, partition_node);
        if (segment->is_seen || segment->is_damaged)
            continue;
        segment->is_damaged = true;
        log_error(survey->store->log,
                  "%s/%02x/seg-%016" PRIx64 " is missing: the keys in it answer CORRUPT until they "
                  "are written again or restored from a backup",
                  survey->store->options.path, survey->partition, segment->number);
    }
}

static int survey_folder(struct survey *survey)
{
    struct store *store = survey->store;
    char path[SEGMENT_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%02x", store->options.path, survey->partition);
    int result = io_list_directory(store->io, path, judge_entry, survey);
    if (result < 0) {
        log_error(store->log, "%s cannot be listed: %s", path, strerror(-result));
        return result;
    }
    remove_orphans(survey);
    report_missing_segments(survey);
    uint64_t missing = count_missing(survey);
    if (missing > 0) {
        store->recovered->missing_files += missing;
        log_error(store->log,
                  "%s: %" PRIu64 " large values are missing: their keys answer CORRUPT until they "
                  "are written again or restored from a backup",
                  path, missing);
    }
    return 0;
}

/* ---- checkpoints that no longer count ---- */

static int judge_checkpoint(void *context, const char *name)
{
    struct store *store = context;
    checkpoints_see(&store->checkpoints, name);
    return 0;
}

int store_survey(struct store *store, struct wal_state *state)
{
    struct survey survey = {.store = store, .state = state};
    int result = io_list_directory(store->io, store->state_path, judge_checkpoint, store);
    wal_state_forget_alive(state);
    for (; result >= 0 && survey.partition < STORE_PARTITIONS; survey.partition++) {
        if (!store_owns(store, survey.partition))
            continue;
        walk_partition(&survey);
        result = survey.error < 0 ? survey.error : survey_folder(&survey);
    }
    free(survey.files);
    free(survey.orphans);
    index_set_bulk(store->index, false);
    if (store->recovered->orphans > 0)
        log_info(store->log,
                 "%s: %" PRIu64 " files that were never finished, or had been replaced, "
                 "are removed",
                 store->options.path, store->recovered->orphans);
    return result < 0 ? result : 0;
}
