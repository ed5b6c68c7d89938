/* Recovery: the log's files are opened, surveyed (wal_survey.h) and scanned (wal_scan.h); here are
 * their bytes, what is logged of them, and the state that the writer goes on from. */
#include "store/wal/wal_recover.h"

#include "store/disk/filesystem.h"
#include "store/disk/names.h"
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
    struct wal_files *files;
    struct wal_scan scan; /* its files: by index of the table */
    struct wal_survey survey;
    struct wal_window window;
    struct reader reader;
    uint32_t notes;      /* of damage */
    uint64_t size_bytes; /* of all files */
    uint64_t reported_ns;
};

/* ---- the files ---- */

static bool parse_name(const char *name, uint32_t *ret_serial)
{
    char again[WAL_NAME_SIZE];
    if (sscanf(name, "wal-%8" SCNx32, ret_serial) != 1)
        return false;
    (void)snprintf(again, sizeof again, "wal-%08" PRIx32, *ret_serial);
    return strcmp(name, again) == 0;
}

static int list_name(void *context, const char *name)
{
    uint32_t serial;
    return parse_name(name, &serial) ? names_add(context, name) : 0;
}

static int compare_serials(const void *left, const void *right)
{
    uint32_t a = (*(const struct log_file *const *)left)->serial;
    uint32_t b = (*(const struct log_file *const *)right)->serial;
    return (a > b) - (a < b);
}

static int open_file(struct wal_recovery *recovery, const char *name)
{
    struct log_file *file;
    uint32_t serial;
    bool is_ours = parse_name(name, &serial);
    assert(is_ours);
    int error = wal_files_add(recovery->files, recovery->options->directory, serial, &file);
    if (error < 0)
        return error;
    file->state = LOG_FILE_SEALED;
    file->is_settled = true;
    int handle = disk_wait_open(recovery->io, file->path, IO_OPEN_WRITE | IO_OPEN_DIRECT);
    if (handle < 0)
        return filesystem_cannot(recovery->log, "open", file->path, handle);
    file->handle = handle;
    int64_t size = io_file_size(recovery->io, handle);
    if (size < 0)
        return filesystem_cannot(recovery->log, "read", file->path, (int)size);
    file->size = (uint64_t)size;
    recovery->size_bytes += file->size;
    return 0;
}

/* Lists the files for survey and scan, which know them by their places in this list. */
static int lay_out(struct wal_recovery *recovery)
{
    const struct wal_files *files = recovery->files;
    uint64_t largest = 0;
    recovery->survey.file_count = files->count;
    recovery->scan.files = calloc(max_u64(files->count, 1), sizeof(struct wal_scan_file));
    if (recovery->scan.files == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < files->count; i++) {
        const struct log_file *file = files->table[i];
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

/* In the order of their serials. */
static int open_files(struct wal_recovery *recovery)
{
    struct wal_files *files = recovery->files;
    struct names names = {0};
    int error = io_list_directory(recovery->io, recovery->options->directory, list_name, &names);
    if (error < 0)
        (void)filesystem_cannot(recovery->log, "list", recovery->options->directory, error);
    for (const char *name = NULL; error == 0 && (name = names_next(&names, name)) != NULL;)
        error = open_file(recovery, name);
    names_free(&names);
    if (files->count > 0)
        qsort(files->table, files->count, sizeof(struct log_file *), compare_serials);
    return error == 0 ? lay_out(recovery) : error;
}

/* ---- the owner's note ---- */

static void read_note(struct io *io, const struct wal_options *options, const char *name,
                      uint8_t *blocks, struct wal_note *note)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", options->directory, name);
    int handle = length > 0 && (size_t)length < sizeof path
                     ? disk_wait_open(io, path, IO_OPEN_READ | IO_OPEN_DIRECT)
                     : -ENAMETOOLONG;
    if (handle < 0)
        return;
    memset(blocks, 0, 2 * WAL_BLOCK_SIZE);
    for (uint32_t i = 0; i < 2; i++)
        if (disk_wait_read(io, handle, blocks + i * WAL_BLOCK_SIZE, WAL_BLOCK_SIZE,
                           i * WAL_BLOCK_SIZE) == (int)WAL_BLOCK_SIZE)
            wal_note_take(blocks + i * WAL_BLOCK_SIZE, options->directory_id, options->log_id,
                          note);
    (void)disk_wait_close(io, handle);
}

int wal_recover_note(struct io *io, const struct log *log, const struct wal_options *options,
                     struct wal_note *ret_note)
{
    struct names names = {0};
    struct wal_note note = {0};
    uint8_t *blocks = aligned_alloc(WAL_BLOCK_SIZE, 2 * WAL_BLOCK_SIZE);
    int error =
        blocks == NULL ? -ENOMEM : io_list_directory(io, options->directory, list_name, &names);
    if (error < 0)
        (void)filesystem_cannot(log, "list", options->directory, error);
    for (const char *name = NULL; error == 0 && (name = names_next(&names, name)) != NULL;)
        read_note(io, options, name, blocks, &note);
    names_free(&names);
    free(blocks);
    if (error == 0)
        *ret_note = note;
    return error;
}

/* ---- survey and scan ---- */

static struct log_file *file_of(const struct wal_recovery *recovery, uint32_t index)
{
    return recovery->files->table[recovery->scan.files[index].index];
}

static int survey_file(struct wal_recovery *recovery, uint32_t index, uint8_t *head)
{
    const struct log_file *file = file_of(recovery, index);
    /* Whole blocks: a crash may leave a part of a header in a file that was being made. */
    uint32_t size = (uint32_t)min_u64(WAL_HEAD_SIZE, recovery->scan.files[index].size);
    memset(head, 0, WAL_HEAD_SIZE);
    int result = size > 0 ? disk_wait_read(recovery->io, file->handle, head, size, 0) : 0;
    if (result < 0) {
        (void)filesystem_cannot(recovery->log, "read byte 0 of", file->path, result);
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

static void report_progress(struct wal_recovery *recovery)
{
    uint64_t now_ns = io_now_ns(recovery->io);
    if (now_ns - recovery->reported_ns < NS_PER_S)
        return;
    recovery->reported_ns = now_ns;
    log_info(recovery->log,
             "%s: %" PRIu64 " of %" PRIu64 " MiB of the log are read, %" PRIu64 " records",
             recovery->options->directory, recovery->reader.bytes_read / MIB,
             recovery->size_bytes / MIB, recovery->scan.found.records);
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
    return wal_window_load(&recovery->window, index, from, upto, ret_image);
}

static int show(void *context, uint32_t index, uint64_t offset, const struct record *record)
{
    struct wal_recovery *recovery = context;
    file_of(recovery, index)->live++;
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

static void judge_found(struct wal_recovery *recovery)
{
    struct wal_survey *survey = &recovery->survey;
    struct wal_recovered *found = &recovery->scan.found;
    found->last_position = max_u64(found->last_position, recovery->options->base);
    wal_survey_judge_losses(survey, found->last_position, recovery->scan.proof);
    found->repaired_headers = survey->inferred;
    found->damaged_batches += survey->damages;
    found->damaged_last = max_u64(found->damaged_last, survey->lost);
    if (survey->is_unsure)
        found->damaged_last = max_u64(found->damaged_last, found->last_position);
    /* A position that was lost is not given again. */
    found->last_position = max_u64(found->last_position, found->damaged_last);
    found->files = recovery->scan.file_count;
    found->bytes_read = recovery->reader.bytes_read;
    if (found->dropped_bytes > 0)
        log_info(recovery->log,
                 "%s: %" PRIu64
                 " bytes at the end of the log were being written when it stopped; they were never "
                 "acknowledged and are dropped",
                 recovery->options->directory, found->dropped_bytes);
}

/* Puts the file at the end of the table, with what survey and scan found. What is to be left alone is
 * not the log's. */
static void take_file(struct wal_recovery *recovery, struct log_file *file, uint32_t index)
{
    struct wal_files *files = recovery->files;
    const struct wal_scan_file *found = &recovery->scan.files[index];
    if (found->kind == WAL_FILE_UNKNOWN || found->kind == WAL_FILE_COPY) {
        (void)disk_wait_close(recovery->io, file->handle);
        free(file);
        return;
    }
    bool is_scanned = index < recovery->scan.file_count;
    assert(!is_scanned || files->count == index); /* locations name it so */
    file->header = found->header;
    file->mark = found->mark;
    file->state = found->kind == WAL_FILE_SPARE ? LOG_FILE_SPARE : LOG_FILE_SEALED;
    file->is_discarded = found->kind == WAL_FILE_UNFINISHED;
    file->is_dead = found->is_dead;
    file->end = found->end;
    file->position_last = found->position_last;
    file->has_seal = found->is_sealed;
    file->is_damaged = found->is_damaged;
    file->is_unreadable = is_scanned && found->unreadable_last != WAL_READABLE;
    file->index = files->count;
    files->table[files->count++] = file;
    files->generation = max_u64(files->generation, file->header.generation);
    files->number = max_u64(files->number, file->header.number);
}

/* The table gets the survey's order. */
static int take_files(struct wal_recovery *recovery)
{
    struct wal_files *files = recovery->files;
    uint32_t count = files->count;
    struct log_file **table = calloc(max_u64(count, 1), sizeof(struct log_file *));
    if (table == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        table[i] = file_of(recovery, i);
    if (count > 0) /* otherwise there is no table yet */
        memset(files->table, 0, count * sizeof(struct log_file *));
    files->count = 0;
    files->number = recovery->survey.number_known;
    files->lost = recovery->survey.lost;
    files->position_recovered = recovery->scan.found.last_position;
    files->clock_recovered = recovery->scan.found.clock_ceiling;
    for (uint32_t i = 0; i < count; i++)
        take_file(recovery, table[i], i);
    free(table);
    return 0;
}

/* A process that was killed may have left what can be read but would not survive a loss of power.
 */
static int sync_newest(const struct wal_recovery *recovery)
{
    const struct wal_files *files = recovery->files;
    for (uint32_t i = 0; i < recovery->scan.file_count; i++) {
        const struct log_file *file = files->table[i];
        if (file->header.generation != files->generation)
            continue;
        int error = disk_wait_sync(recovery->io, file->handle);
        if (error < 0)
            return filesystem_cannot(recovery->log, "sync", file->path, error);
    }
    const char *folder = recovery->options->directory;
    int error = disk_wait_sync_folder(recovery->io, folder);
    return error < 0 ? filesystem_cannot(recovery->log, "sync", folder, error) : 0;
}

static int recover(struct wal_recovery *recovery)
{
    int error = open_files(recovery);
    if (error == 0)
        error = survey_files(recovery);
    if (error < 0)
        return error;
    recovery->reported_ns = io_now_ns(recovery->io);
    error = wal_scan_run(&recovery->scan);
    if (error < 0)
        return recovery->each_result != 0 ? recovery->each_result : error;
    judge_found(recovery);
    error = take_files(recovery);
    return error < 0 ? error : sync_newest(recovery);
}

int wal_recover(struct io *io, const struct log *log, const struct wal_options *options,
                wal_recover_each *each, void *context, struct wal_recovered *ret_recovered,
                struct wal_files **ret_files)
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
                   .base = options->base,
                   .last_known = options->last_known,
                   .number_known = options->number_known},
        .window = {.scan = &recovery.scan,
                   .context = &recovery,
                   .rewind = rewind_file,
                   .read = read_part},
        .reader = {.io = io},
    };
    recovery.files = calloc(1, sizeof *recovery.files);
    if (recovery.files == NULL)
        return -ENOMEM;
    int error = recover(&recovery);
    (void)reader_stop(&recovery.reader);
    wal_window_deinit(&recovery.window);
    free(recovery.scan.files);
    if (error != 0) {
        wal_files_abandon(io, recovery.files);
        return error;
    }
    *ret_recovered = recovery.scan.found;
    *ret_files = recovery.files;
    return 0;
}

/* ---- what earlier lives left ---- */

/* What is damaged stays as it is: a seal would hide what is missing before it. */
static bool wants_seal(const struct log_file *file)
{
    return file->state == LOG_FILE_SEALED && !file->has_seal && !file->is_damaged &&
           !file->is_unreadable && file->live > 0;
}

static int seal_old(const struct wal_files *files, struct log_file *file, struct io *io,
                    uint8_t *block)
{
    assert(file->position_last > file->header.last_before);
    assert(file->end % WAL_BLOCK_SIZE == 0);
    struct wal_batch_header batch = {
        .flags = WAL_BATCH_SEAL,
        .offset = file->end,
        .position_first = file->position_last + 1,
        .durable = file->position_last,
        .clock_ceiling = files->clock_recovered,
    };
    log_file_identify(file, &batch);
    memset(block, 0, WAL_BLOCK_SIZE);
    wal_batch_header_encode(&batch, block);
    int error = disk_wait_write(io, file->handle, block, WAL_BLOCK_SIZE, file->end);
    if (error < 0)
        return error;
    file->end += WAL_BLOCK_SIZE;
    file->size = max_u64(file->size, file->end);
    file->has_seal = true;
    file->has_tail = file->size > file->end;
    return 0;
}

int wal_recover_seal_old(struct wal_files *files, struct io *io, uint8_t *block)
{
    struct log_file *file;
    int error = 0;
    for (uint32_t i = 0; error == 0 && (file = wal_files_next(files, &i)) != NULL;)
        error = wants_seal(file) ? seal_old(files, file, io, block) : 0;
    return error;
}

/* Behind an unsealed end may lie what a crash tore. It goes for good before anything of the new
 * generation, which knows that it does not count, can be recycled. */
static bool wants_cut(const struct log_file *file)
{
    if (file->state != LOG_FILE_SEALED || file->size <= file->end || file->is_unreadable ||
        (file->live == 0 && !file->is_damaged))
        return false;
    return !file->has_seal || file->has_tail || file->end < file->size / 2;
}

int wal_recover_cut_old(struct wal_files *files, struct io *io)
{
    struct log_file *file;
    int error = 0;
    for (uint32_t i = 0; error == 0 && (file = wal_files_next(files, &i)) != NULL;) {
        if (!wants_cut(file))
            continue;
        error = disk_wait_truncate(io, file->path, file->end);
        if (error == 0)
            error = disk_wait_sync(io, file->handle);
        if (error == 0)
            file->size = file->end;
    }
    return error;
}
