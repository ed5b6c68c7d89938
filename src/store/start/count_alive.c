/* The survey: one walk over the index once recovery is over. What is alive in which file; which
 * value files are named by a record; and what lies in the partitions' folders that nothing names.
 */
#include "store/start/start.h"

#include "base/assert.h"
#include "store/disk/filesystem.h"
#include "store/disk/names.h"
#include "store/disk/wait.h"
#include "store/value/value_file.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Slots of a partition of the 4096 (hash_slot): an index slot and a value file's name both tell it.
 */
#define GROUPS 16u

/* A value file that a record names, or first that record. */
struct named_file {
    struct index_entry record;
    struct version version; /* in the file's name */
    uint32_t group;
    bool is_seen; /* in its folder, or need not be there */
};

/* Of one record, before anybody looks anything up. */
struct reading {
    struct fetch fetch;
    int result;
    bool is_done;
};

struct survey {
    struct store *store;
    struct wal_files *log_files; /* until the log is open */
    uint32_t partition;
    uint16_t doubtful[STORE_PARTITIONS]; /* slots whose value files are to be matched */
    /* of the partition, while files are counted */
    uint64_t named[GROUPS];
    uint64_t found[GROUPS];
    /* while they are matched */
    uint32_t groups;  /* whose files are matched, a bit each */
    uint32_t unknown; /* of them: with a record that cannot be read */
    struct reading reading;
    struct named_file *files; /* sorted by their versions */
    uint64_t file_count;
    uint64_t file_capacity;
    uint64_t removed;     /* orphans */
    struct names orphans; /* in one folder, which is not changed while it is listed */
    int error;
};

/* ---- what is alive ---- */

/* A slot beside a newer one is probably an older write of the same key, whose file may be gone. */
static bool is_newest(const struct survey *survey, uint64_t hash, const struct index_entry *entry)
{
    return index_is_newest(survey->store->index, survey->partition, hash, entry->version);
}

static void count_slot(void *context, uint64_t hash, const struct index_entry *entry)
{
    struct survey *survey = context;
    struct store *store = survey->store;
    assert(store->wal == NULL); /* nothing dies meanwhile */
    if (location_is_segment(entry->location))
        segment_add_live(store->segments,
                         segments_find(store->segments, location_file(entry->location)),
                         entry->read_size);
    else
        wal_files_record_alive(survey->log_files, entry->location);
    uint32_t group = hash_slot(survey->partition, hash) % GROUPS;
    if (!entry->in_value_file)
        return;
    survey->named[group]++;
    if (!is_newest(survey, hash, entry))
        survey->doubtful[survey->partition] |= (uint16_t)(1u << group);
}

static void walk_partition(struct survey *survey, index_each *each)
{
    uint64_t cursor = 0;
    do
        cursor = index_walk(survey->store->index, survey->partition, cursor, each, survey);
    while (cursor != 0);
}

/* ---- what nothing names ---- */

static void remove_orphan(struct survey *survey, const char *name)
{
    struct store *store = survey->store;
    char path[SEGMENT_PATH_MAX];
    int length =
        snprintf(path, sizeof path, "%s/%02x/%s", store->options.path, survey->partition, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return;
    int result = disk_wait_unlink(store->io, path);
    survey->removed++;
    if (result < 0)
        log_warn(store->log, "%s: nothing needs it any more, but it cannot be removed: %s", path,
                 strerror(-result));
}

static void remove_orphans(struct survey *survey)
{
    for (const char *name = NULL; (name = names_next(&survey->orphans, name)) != NULL;)
        remove_orphan(survey, name);
    names_free(&survey->orphans);
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
        return is_named ? 0 : names_add(&survey->orphans, name);
    }
    if (value_file_name_parse((uint8_t)survey->partition, name, &file) == 0) {
        /* A stamp whose record was lost must not be given again: the name may still be there. */
        if (file.version.clock < HYBRID_CLOCK_LIMIT)
            hybrid_clock_see(&store->clock, file.version.clock);
        survey->found[(file.key_hash >> 52) % GROUPS]++;
        return 0;
    }
    log_warn(store->log, "%s/%02x/%s is not ours: it is left alone", store->options.path,
             survey->partition, name);
    return 0;
}

/* A segment that the checkpoint spared recovery from reading, and that is not there. */
static void report_missing_segments(const struct survey *survey)
{
    struct segment *segment = segments_first(survey->store->segments, survey->partition);
    for (; segment != NULL; segment = segment_next(segment)) {
        if (segment->is_seen || segment->is_damaged)
            continue;
        struct finding finding = {.kind = FINDING_SEGMENT, .number = segment->number};
        segment->is_damaged = true;
        findings_damage(&survey->store->findings, &finding, true,
                        "%s is missing: the keys in it answer CORRUPT until they are written again "
                        "or restored from a backup",
                        segment->path);
    }
}

static int list_folder(struct survey *survey, int (*judge)(void *context, const char *name))
{
    struct store *store = survey->store;
    char path[SEGMENT_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%02x", store->options.path, survey->partition);
    int result = io_list_directory(store->io, path, judge, survey);
    if (result < 0)
        return filesystem_cannot(store->log, "list", path, result);
    remove_orphans(survey);
    return 0;
}

static int survey_partition(struct survey *survey)
{
    uint16_t *doubtful = &survey->doubtful[survey->partition];
    memset(survey->named, 0, sizeof survey->named);
    memset(survey->found, 0, sizeof survey->found);
    walk_partition(survey, count_slot);
    int result = list_folder(survey, judge_entry);
    if (result < 0)
        return result;
    report_missing_segments(survey);
    for (uint32_t group = 0; group < GROUPS; group++)
        if (survey->found[group] != survey->named[group])
            *doubtful |= (uint16_t)(1u << group);
    return 0;
}

/* ---- value files and the records that name them ----
 *
 * Which file a record names, its descriptor tells, and to read every one at each start would take
 * long. Where a slot of the 4096 has as many files as records that name one, each has its own:
 * a record counts only when its file is there, and a file goes only when its record is dead. So the
 * records of the other slots are read alone: a crash leaves few files that nothing names. */

static void note_record(void *context, uint64_t hash, const struct index_entry *entry)
{
    struct survey *survey = context;
    uint32_t group = hash_slot(survey->partition, hash) % GROUPS;
    if (!entry->in_value_file || (survey->groups & 1u << group) == 0)
        return;
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
    survey->files[survey->file_count++] =
        (struct named_file){*entry, {0}, group, !is_newest(survey, hash, entry)};
}

static void record_read(struct fetch *fetch, int result)
{
    struct reading *reading = container_of(fetch, struct reading, fetch);
    reading->result = result;
    reading->is_done = true;
}

/* Reads which file the record names. Where it cannot be read, no file of its slot goes. Errors: the
 * ring's. */
static int read_name(struct survey *survey, struct named_file *named)
{
    struct store *store = survey->store;
    struct reading *reading = &survey->reading;
    assert((survey->groups & 1u << named->group) != 0);
    assert(named->record.in_value_file);
    reading->is_done = false;
    int result = fetch_start(&store->fetcher, &reading->fetch, &named->record, record_read);
    if (result != 0)
        record_read(&reading->fetch, result < 0 ? result : 0);
    while (!reading->is_done) {
        result = io_run(store->io, NS_PER_S);
        if (result < 0)
            return result;
    }
    if (reading->result == 0) {
        const struct record *record = fetch_record(&reading->fetch);
        uint64_t key_hash = hash_key(record->key.data, record->key.size);
        named->version = value_file_named(key_hash, record->value).version;
    } else {
        survey->unknown |= 1u << named->group;
        named->is_seen = true;
    }
    fetch_release(&reading->fetch);
    return 0;
}

static int compare_versions(const void *left, const void *right)
{
    return version_compare(((const struct named_file *)left)->version,
                           ((const struct named_file *)right)->version);
}

static struct named_file *find_file(const struct survey *survey, struct version version)
{
    struct named_file wanted = {.version = version};
    return survey->file_count == 0 ? NULL
                                   : bsearch(&wanted, survey->files, survey->file_count,
                                             sizeof wanted, compare_versions);
}

static int judge_file(void *context, const char *name)
{
    struct survey *survey = context;
    struct value_file_name file;
    if (value_file_name_parse((uint8_t)survey->partition, name, &file) < 0)
        return 0;
    uint32_t group = 1u << (file.key_hash >> 52) % GROUPS;
    if ((survey->groups & group) == 0)
        return 0;
    struct named_file *named = find_file(survey, file.version);
    if (named != NULL)
        named->is_seen = true;
    /* Where damage took records, or one cannot be read, it may have named the file. */
    bool is_orphan = named == NULL && (survey->unknown & group) == 0 &&
                     !damage_covers(&survey->store->damage, survey->partition, 0);
    return is_orphan ? names_add(&survey->orphans, name) : 0;
}

static void report_missing_files(const struct survey *survey)
{
    struct store *store = survey->store;
    uint64_t missing = 0;
    for (uint64_t i = 0; i < survey->file_count; i++) {
        const struct version *version = &survey->files[i].version;
        struct finding finding = {
            .kind = FINDING_VALUE, .number = version->clock, .origin = version->origin};
        if (survey->files[i].is_seen)
            continue;
        (void)findings_note(&store->findings, &finding, true);
        missing++;
    }
    if (missing == 0)
        return;
    log_error(store->log,
              "%s/%02x: %" PRIu64 " large values are missing: their keys answer CORRUPT until they "
              "are written again or restored from a backup",
              store->options.path, survey->partition, missing);
}

static int match_partition(struct survey *survey)
{
    assert(survey->groups < 1u << GROUPS);
    survey->file_count = 0;
    survey->unknown = 0;
    walk_partition(survey, note_record);
    int result = survey->error;
    for (uint64_t i = 0; result == 0 && i < survey->file_count; i++)
        result = read_name(survey, &survey->files[i]);
    if (result < 0)
        return result;
    if (survey->file_count > 0)
        qsort(survey->files, survey->file_count, sizeof *survey->files, compare_versions);
    result = list_folder(survey, judge_file);
    if (result == 0)
        report_missing_files(survey);
    return result;
}

int store_match_files(struct store *store)
{
    struct survey *survey = store->survey;
    assert(survey != NULL);
    int result = 0;
    /* The first look-up's buffer. */
    fetch_init(&survey->reading.fetch, store_memory(store, REGION_LOOKUPS));
    for (uint32_t i = 0; result == 0 && i < STORE_PARTITIONS; i++) {
        survey->partition = i;
        survey->groups = survey->doubtful[i];
        if (survey->groups != 0)
            result = match_partition(survey);
    }
    if (survey->removed > 0)
        log_info(store->log,
                 "%s: %" PRIu64 " files that were never finished, or had been replaced, "
                 "are removed",
                 store->options.path, survey->removed);
    store_end_survey(store);
    return result;
}

/* ---- checkpoints that no longer count ---- */

static int judge_checkpoint(void *context, const char *name)
{
    struct store *store = context;
    checkpoints_see(&store->checkpoints, name);
    return 0;
}

int store_survey(struct store *store, struct wal_files *files)
{
    assert(store->survey == NULL);
    struct survey *survey = calloc(1, sizeof *survey);
    if (survey == NULL)
        return -ENOMEM;
    store->survey = survey;
    survey->store = store;
    survey->log_files = files;
    int result = io_list_directory(store->io, store->state_path, judge_checkpoint, store);
    wal_files_forget_alive(files);
    for (uint32_t i = 0; result >= 0 && i < STORE_PARTITIONS; i++) {
        survey->partition = i;
        if (store_owns(store, i))
            result = survey_partition(survey);
    }
    index_set_bulk(store->index, false);
    return result < 0 ? result : 0;
}

void store_end_survey(struct store *store)
{
    if (store->survey == NULL)
        return;
    free(store->survey->files);
    names_free(&store->survey->orphans);
    free(store->survey);
    store->survey = NULL;
}
