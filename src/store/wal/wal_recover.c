/* Recovery: the log's files are opened, surveyed (wal_survey.h) and scanned (wal_scan.h); here are
 * their bytes, what is logged of them, and the state that the writer goes on from. */
#include "store/wal/wal_recover.h"

#include "store/disk/wait.h"
#include "store/memory/location.h"
#include "store/wal/wal_internal.h"
#include "store/wal/wal_recover_read.h"
#include "store/wal/wal_survey.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wal_recovery {
    struct io *io;
    const struct log *log;
    const struct wal_options *options;
    wal_recover_each *each;
    void *context;
    int each_result;
    struct wal_state *state;
    struct wal_recovered found;
    struct wal_scan scan; /* its files: by index of the table */
    struct wal_survey survey;
    struct wal_window window;
    struct reader reader;
    uint32_t notes;      /* of damage */
    uint64_t size_bytes; /* of all files */
    uint64_t reported_ns;
};

/* ---- the files ---- */

struct names {
    uint32_t *serials;
    uint32_t count;
    uint32_t capacity;
};

static int list_name(void *context, const char *name)
{
    struct names *names = context;
    uint32_t serial;
    char again[WAL_NAME_SIZE];
    if (sscanf(name, "wal-%8" SCNx32, &serial) != 1)
        return 0;
    (void)snprintf(again, sizeof again, "wal-%08" PRIx32, serial);
    if (strcmp(name, again) != 0)
        return 0;
    if (names->count == names->capacity) {
        uint32_t capacity = names->capacity == 0 ? 64 : 2 * names->capacity;
        uint32_t *serials = realloc(names->serials, capacity * sizeof *serials);
        if (serials == NULL)
            return -ENOMEM;
        names->serials = serials;
        names->capacity = capacity;
    }
    names->serials[names->count++] = serial;
    return 0;
}

static int compare_serials(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* In the order of their serials. Errors: the directory's, -ENOMEM. */
static int list_names(struct io *io, const char *directory, struct names *names)
{
    int error = io_list_directory(io, directory, list_name, names);
    if (names->count > 0)
        qsort(names->serials, names->count, sizeof *names->serials, compare_serials);
    return error;
}

static int open_file(struct wal_recovery *recovery, uint32_t serial)
{
    struct wal_state *state = recovery->state;
    struct log_file *file;
    int error = wal_files_add(&state->files, recovery->options->directory, serial, &file);
    if (error < 0)
        return error;
    file->state = LOG_FILE_SEALED;
    file->is_settled = true;
    int handle = disk_wait_open(recovery->io, file->path, IO_OPEN_WRITE | IO_OPEN_DIRECT);
    if (handle < 0) {
        log_error(recovery->log, "%s: cannot be opened: %s%s", file->path, strerror(-handle),
                  handle == -ENFILE || handle == -EMFILE ? ". Raise the limit of open files" : "");
        return handle;
    }
    file->handle = handle;
    int64_t size = io_file_size(recovery->io, handle);
    if (size < 0)
        return (int)size;
    file->size = (uint64_t)size;
    recovery->size_bytes += file->size;
    return 0;
}

/* Lists the files for survey and scan, which know them by their places in this list. */
static int lay_out(struct wal_recovery *recovery)
{
    const struct wal_files *table = &recovery->state->files;
    uint64_t largest = 0;
    recovery->survey.file_count = table->count;
    recovery->scan.files = calloc(max_u64(table->count, 1), sizeof(struct wal_scan_file));
    if (recovery->scan.files == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < table->count; i++) {
        const struct log_file *file = table->table[i];
        recovery->scan.files[i] = (struct wal_scan_file){
            .index = i,
            .size = min_u64(round_down(file->size, WAL_BLOCK_SIZE), LOG_FILE_SIZE_MAX),
            .path = file->path,
            .unreadable_last = WAL_READABLE,
        };
        largest = max_u64(largest, recovery->scan.files[i].size);
    }
    return wal_window_init(&recovery->window, largest);
}

static int open_files(struct wal_recovery *recovery)
{
    struct names names = {0};
    int error = list_names(recovery->io, recovery->options->directory, &names);
    for (uint32_t i = 0; error == 0 && i < names.count; i++)
        error = open_file(recovery, names.serials[i]);
    free(names.serials);
    return error == 0 ? lay_out(recovery) : error;
}

/* ---- the owner's note ---- */

static void take_note(const struct wal_options *options, const uint8_t *block,
                      struct wal_note *note)
{
    struct log_file_header header;
    if (log_file_header_decode(block, &header) < 0 ||
        header.directory_id != options->directory_id || header.log_id != options->log_id)
        return;
    if (wal_note_is_older(note, &header.note))
        *note = header.note;
}

static void read_note(struct io *io, const struct wal_options *options, uint32_t serial,
                      uint8_t *blocks, struct wal_note *note)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/wal-%08" PRIx32, options->directory, serial);
    int handle = length > 0 && (size_t)length < sizeof path
                     ? disk_wait_open(io, path, IO_OPEN_READ | IO_OPEN_DIRECT)
                     : -ENAMETOOLONG;
    if (handle < 0)
        return;
    memset(blocks, 0, 2 * WAL_BLOCK_SIZE);
    for (uint32_t i = 0; i < 2; i++)
        if (disk_wait_read(io, handle, blocks + i * WAL_BLOCK_SIZE, WAL_BLOCK_SIZE,
                           i * WAL_BLOCK_SIZE) == (int)WAL_BLOCK_SIZE)
            take_note(options, blocks + i * WAL_BLOCK_SIZE, note);
    (void)disk_wait_close(io, handle);
}

int wal_recover_note(struct io *io, const struct wal_options *options, struct wal_note *ret_note)
{
    struct names names = {0};
    struct wal_note note = {0};
    uint8_t *blocks = aligned_alloc(WAL_BLOCK_SIZE, 2 * WAL_BLOCK_SIZE);
    int error = blocks == NULL ? -ENOMEM : list_names(io, options->directory, &names);
    for (uint32_t i = 0; error == 0 && i < names.count; i++)
        read_note(io, options, names.serials[i], blocks, &note);
    free(names.serials);
    free(blocks);
    if (error == 0)
        *ret_note = note;
    return error;
}

/* ---- survey and scan ---- */

static struct log_file *file_of(const struct wal_recovery *recovery, uint32_t index)
{
    return recovery->state->files.table[recovery->scan.files[index].index];
}

static int survey_file(struct wal_recovery *recovery, uint32_t index, uint8_t *head)
{
    const struct log_file *file = file_of(recovery, index);
    uint32_t size = (uint32_t)min_u64(WAL_HEAD_SIZE, recovery->scan.files[index].size);
    memset(head, 0, WAL_HEAD_SIZE);
    int result = size > 0 ? disk_wait_read(recovery->io, file->handle, head, size, 0) : 0;
    if (result < 0) {
        log_error(recovery->log, "%s: cannot be read at byte 0: %s", file->path, strerror(-result));
        if (!disk_is_device_error(result))
            return result;
        memset(head, 0xFF, WAL_HEAD_SIZE);
    }
    return wal_survey_file(&recovery->survey, index, head);
}

static int survey_files(struct wal_recovery *recovery)
{
    uint8_t *head = aligned_alloc(WAL_BLOCK_SIZE, WAL_HEAD_SIZE);
    int error = head == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; error == 0 && i < recovery->survey.file_count; i++)
        error = survey_file(recovery, i, head);
    free(head);
    if (error == 0)
        wal_survey_order(&recovery->survey);
    wal_window_forget(&recovery->window);
    return error;
}

/* The table in the survey's order. What is to be left alone is not the log's. */
static int take_order(struct wal_recovery *recovery)
{
    struct wal_files *files = &recovery->state->files;
    uint32_t count = files->count;
    struct log_file **table = calloc(max_u64(count, 1), sizeof(struct log_file *));
    if (table == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        table[i] = file_of(recovery, i);
    files->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct wal_scan_file *found = &recovery->scan.files[i];
        struct log_file *file = table[i];
        files->table[i] = NULL;
        if (found->kind == WAL_FILE_UNKNOWN || found->kind == WAL_FILE_COPY) {
            (void)disk_wait_close(recovery->io, file->handle);
            free(file);
            continue;
        }
        file->header = found->header;
        file->mark = found->mark;
        file->state = found->kind == WAL_FILE_SPARE ? LOG_FILE_SPARE : LOG_FILE_SEALED;
        file->is_discarded = found->kind == WAL_FILE_UNFINISHED;
        file->is_dead = found->is_dead;
        file->index = files->count;
        files->table[files->count++] = file;
    }
    free(table);
    for (uint32_t i = 0; i < recovery->scan.file_count; i++)
        recovery->scan.files[i].index = i;
    return 0;
}

static void report_progress(struct wal_recovery *recovery)
{
    uint64_t now_ns = io_now_ns(recovery->io);
    if (now_ns - recovery->reported_ns < NS_PER_S)
        return;
    recovery->reported_ns = now_ns;
    log_info(recovery->log,
             "%s: %" PRIu64 " of %" PRIu64 " MiB of the log are read, %" PRIu64 " records",
             recovery->options->directory, recovery->reader.bytes_read / MIB,
             recovery->size_bytes / MIB, recovery->found.records);
}

static int rewind_file(void *context, uint32_t index, uint64_t offset)
{
    struct wal_recovery *recovery = context;
    return reader_rewind(&recovery->reader, file_of(recovery, index)->handle,
                         recovery->scan.files[index].size, offset);
}

static int64_t read_part(void *context, uint8_t *target, uint64_t offset, uint32_t size,
                         bool is_block)
{
    struct wal_recovery *recovery = context;
    report_progress(recovery);
    return reader_read(&recovery->reader, target, offset, size, is_block);
}

static int load(void *context, uint32_t index, uint64_t from, uint64_t upto,
                const uint8_t **ret_image)
{
    struct wal_recovery *recovery = context;
    *ret_image = recovery->window.image;
    if (wal_window_holds(&recovery->window, index, from, upto))
        return 0;
    return wal_window_load(&recovery->window, index, from, upto, ret_image);
}

static int show(void *context, uint32_t index, uint64_t offset, const struct record *record)
{
    struct wal_recovery *recovery = context;
    file_of(recovery, index)->live++;
    recovery->found.records++;
    recovery->found.clock_ceiling = max_u64(recovery->found.clock_ceiling, record->version.clock);
    recovery->each_result =
        recovery->each(recovery->context, record, location_in_log(index, offset));
    return recovery->each_result == 0 ? 0 : -ECANCELED;
}

static void announce(void *context, struct slice key)
{
    const struct wal_recovery *recovery = context;
    recovery->options->events.coming(recovery->options->events.context, key);
}

/* ---- what is logged ---- */

/* A rotten device must not flood the journal. */
#define NOTES_MAX 100

static void note(void *context, const struct wal_scan_note *note)
{
    struct wal_recovery *recovery = context;
    char text[WAL_NOTE_SIZE];
    char place[32] = "";
    bool is_whole = note->kind >= WAL_NOTE_MISSING; /* of the log as a whole */
    const char *path =
        is_whole ? recovery->options->directory : recovery->scan.files[note->file].path;
    if (note->kind <= WAL_NOTE_LOST && recovery->notes++ >= NOTES_MAX) {
        if (recovery->notes == NOTES_MAX + 1)
            log_error(recovery->log, "the log has more damage than is worth a line each");
        return;
    }
    wal_note_describe(note, text);
    if (note->from > 0)
        (void)snprintf(place, sizeof place, " at byte %" PRIu64, note->from);
    if (wal_note_weight(note) == WAL_NOTE_WARNS || note->kind == WAL_NOTE_INFERRED)
        log_warn(recovery->log, "%s%s: %s", path, place, text);
    else
        log_error(recovery->log, "%s%s: %s", path, place, text);
}

/* ---- the result ---- */

static void take_found(struct wal_recovery *recovery)
{
    const struct wal_scan_found *scan = &recovery->scan.found;
    struct wal_survey *survey = &recovery->survey;
    struct wal_recovered *found = &recovery->found;
    found->last_position = max_u64(scan->last_position, recovery->options->base);
    wal_survey_judge_losses(survey, found->last_position, recovery->scan.proof);
    found->dropped_bytes = scan->dropped_bytes;
    found->clock_ceiling = max_u64(found->clock_ceiling, scan->clock_ceiling);
    found->repaired_headers = survey->inferred;
    found->damaged_batches = scan->damaged_batches + survey->damages;
    found->damaged_last = max_u64(scan->damaged_last, survey->lost);
    if (survey->is_unsure)
        found->damaged_last = max_u64(found->damaged_last, found->last_position);
    /* A position that was lost is not given again. */
    found->last_position = max_u64(found->last_position, found->damaged_last);
    found->segments = recovery->scan.file_count;
    found->bytes_read = recovery->reader.bytes_read;
    if (found->dropped_bytes > 0)
        log_info(recovery->log,
                 "%s: %" PRIu64
                 " bytes at the end of the log were being written when it stopped; they were never "
                 "acknowledged and are dropped",
                 recovery->options->directory, found->dropped_bytes);
}

static void fill_state(struct wal_recovery *recovery)
{
    struct wal_state *state = recovery->state;
    state->last_position = recovery->found.last_position;
    state->clock_ceiling = recovery->found.clock_ceiling;
    state->lost = recovery->survey.lost;
    state->files.number = recovery->survey.number_known;
    for (uint32_t i = 0; i < state->files.count; i++) {
        struct log_file *file = state->files.table[i];
        state->generation = max_u64(state->generation, file->header.generation);
        state->files.number = max_u64(state->files.number, file->header.number);
        if (i >= recovery->scan.file_count)
            continue;
        const struct wal_scan_file *found = &recovery->scan.files[i];
        file->end = found->end;
        file->position_last = found->position_last;
        file->has_seal = found->is_sealed;
        file->is_damaged = found->is_damaged;
        file->is_unreadable = found->unreadable_last != WAL_READABLE;
    }
}

/* A process that was killed may have left what can be read but would not survive a loss of power.
 */
static int sync_newest(const struct wal_recovery *recovery)
{
    const struct wal_state *state = recovery->state;
    for (uint32_t i = 0; i < recovery->scan.file_count; i++) {
        const struct log_file *file = state->files.table[i];
        if (file->header.generation != state->generation)
            continue;
        int error = disk_wait_sync(recovery->io, file->handle);
        if (error < 0)
            return error;
    }
    int directory = disk_wait_open(recovery->io, recovery->options->directory, IO_OPEN_DIRECTORY);
    if (directory < 0)
        return directory;
    int error = disk_wait_sync(recovery->io, directory);
    (void)disk_wait_close(recovery->io, directory);
    return error;
}

static int recover(struct wal_recovery *recovery)
{
    int error = open_files(recovery);
    if (error == 0)
        error = survey_files(recovery);
    if (error == 0)
        error = take_order(recovery);
    if (error < 0)
        return error;
    recovery->reported_ns = io_now_ns(recovery->io);
    error = wal_scan_run(&recovery->scan);
    if (error < 0)
        return recovery->each_result != 0 ? recovery->each_result : error;
    take_found(recovery);
    fill_state(recovery);
    return sync_newest(recovery);
}

int wal_recover(struct io *io, const struct log *log, const struct wal_options *options,
                wal_recover_each *each, void *context, struct wal_recovered *ret_recovered,
                struct wal_state **ret_state)
{
    struct wal_recovery recovery = {
        .io = io,
        .log = log,
        .options = options,
        .each = each,
        .context = context,
        .scan = {.context = &recovery,
                 .load = load,
                 .record = show,
                 .coming = options->events.coming != NULL ? announce : NULL,
                 .note = note},
        .survey = {.scan = &recovery.scan,
                   .directory_id = options->directory_id,
                   .log_id = options->log_id,
                   .base = options->base},
        .window = {.scan = &recovery.scan,
                   .context = &recovery,
                   .rewind = rewind_file,
                   .read = read_part},
        .reader = {.io = io},
    };
    wal_survey_take_known(&recovery.survey, options->last_known, options->number_known);
    recovery.state = calloc(1, sizeof *recovery.state);
    if (recovery.state == NULL)
        return -ENOMEM;
    int error = recover(&recovery);
    (void)reader_stop(&recovery.reader);
    wal_window_deinit(&recovery.window);
    free(recovery.scan.files);
    if (error != 0) {
        wal_state_free(io, recovery.state);
        return error;
    }
    *ret_recovered = recovery.found;
    *ret_state = recovery.state;
    return 0;
}

void wal_state_free(struct io *io, struct wal_state *state)
{
    if (state == NULL)
        return;
    wal_files_close(&state->files, io);
    wal_files_free(&state->files);
    free(state);
}

void wal_state_forget_alive(struct wal_state *state)
{
    for (uint32_t file = 0; file < state->files.count; file++)
        state->files.table[file]->live = 0;
}

void wal_state_record_alive(struct wal_state *state, uint64_t location)
{
    wal_files_find(&state->files, location_file(location))->live++;
}
