#include "store/wal/wal_recover_internal.h"
#include "store/disk/wait.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table in order: segments with records first, ascending in number ---- */

static bool has_records(const struct log_file *segment)
{
    return segment->state == LOG_FILE_SEALED && !segment->is_discarded && !segment->is_dead;
}

static int compare_segments(const void *left, const void *right)
{
    const struct log_file *a = *(struct log_file *const *)left;
    const struct log_file *b = *(struct log_file *const *)right;
    if (has_records(a) != has_records(b))
        return has_records(a) ? -1 : 1;
    if (a->header.number != b->header.number)
        return a->header.number < b->header.number ? -1 : 1;
    return (a->serial > b->serial) - (a->serial < b->serial);
}

static void forget(struct wal_recovery *recovery, struct log_file *segment)
{
    (void)disk_wait_close(recovery->io, segment->handle);
    free(segment);
}

/* Sorts, and takes out what is not to be touched. */
static void order_segments(struct wal_recovery *recovery)
{
    struct wal_files *files = &recovery->state->files;
    uint32_t count = files->count;
    if (count == 0)
        return;
    qsort(files->table, count, sizeof(struct log_file *), compare_segments);
    files->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct log_file *segment = files->table[i];
        struct log_file *before = files->count > 0 ? files->table[files->count - 1] : NULL;
        files->table[i] = NULL;
        bool is_copy = before != NULL && has_records(before) && has_records(segment) &&
                       before->header.number == segment->header.number;
        if (is_copy)
            log_warn(recovery->log, "%s is a copy of %s: it is left alone, move it away",
                     segment->path, before->path);
        if (is_copy || segment->state == LOG_FILE_LEAVING) {
            forget(recovery, segment);
            continue;
        }
        segment->index = files->count;
        files->table[files->count++] = segment;
        recovery->place_count += has_records(segment);
    }
}

/* ---- scanning ---- */

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

static int load(void *context, uint32_t index, uint64_t from, uint64_t upto,
                const uint8_t **ret_image)
{
    struct wal_recovery *recovery = context;
    struct reader *reader = &recovery->reader;
    const struct log_file *segment = recovery->state->files.table[index];
    *ret_image = reader->image;
    if (reader_holds(reader, segment, from, upto))
        return 0;
    report_progress(recovery);
    return reader_load(reader, segment, &recovery->places[index], from, upto);
}

static int show(void *context, uint32_t index, uint64_t offset, const struct record *record)
{
    struct wal_recovery *recovery = context;
    recovery->state->files.table[index]->live++;
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

/* A rotten device must not flood the journal. */
#define NOTES_MAX 100

static void note(void *context, const struct wal_scan_note *note)
{
    struct wal_recovery *recovery = context;
    const char *path = recovery->places[note->segment].path;
    if (note->kind == WAL_SCAN_UNKNOWN) {
        log_error(recovery->log,
                  "%s: the record at byte %" PRIu64
                  " has format %u and flags %02x, which this program does not know: "
                  "use the version that wrote it, or a newer one",
                  path, note->from, note->format, note->flags);
        return;
    }
    if (recovery->notes++ == NOTES_MAX)
        log_error(recovery->log, "the log has more damage than is worth a line each");
    if (recovery->notes > NOTES_MAX)
        return;
    if (note->kind == WAL_SCAN_DAMAGE)
        log_error(recovery->log, "%s: damage from byte %" PRIu64 " to %" PRIu64 ": %s", path,
                  note->from, note->upto, note->what);
    else
        log_error(recovery->log,
                  "%s: the writes at the log positions %" PRIu64 " to %" PRIu64
                  " are missing before byte %" PRIu64 ", although they were acknowledged",
                  path, note->position_first, note->position_last, note->from);
}

static int lay_out_places(struct wal_recovery *recovery)
{
    recovery->places = calloc(max_u64(recovery->place_count, 1), sizeof *recovery->places);
    if (recovery->places == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < recovery->place_count; i++) {
        const struct log_file *segment = recovery->state->files.table[i];
        recovery->places[i] = (struct wal_scan_segment){
            .header = segment->header,
            .size = min_u64(round_down(segment->size, WAL_BLOCK_SIZE), recovery->reader.capacity),
            .path = segment->path,
            .unreadable_last = WAL_READABLE,
        };
    }
    return 0;
}

static void take_found(struct wal_recovery *recovery, const struct wal_scan_found *scan,
                       uint64_t proof)
{
    struct wal_recovered *found = &recovery->found;
    found->last_position = max_u64(scan->last_position, recovery->options->base);
    found->dropped_bytes = scan->dropped_bytes;
    found->clock_ceiling = max_u64(found->clock_ceiling, scan->clock_ceiling);
    found->damaged_batches += scan->damaged_batches;
    found->damaged_last = scan->damaged_last;
    if (recovery->is_unsure)
        found->damaged_last = max_u64(found->damaged_last, found->last_position);
    wal_recover_judge_losses(recovery, proof);
    found->damaged_last = max_u64(found->damaged_last, recovery->lost);
    /* A position that was lost is not given again. */
    found->last_position = max_u64(found->last_position, found->damaged_last);
    found->segments = recovery->place_count;
    found->bytes_read = recovery->reader.bytes_read;
    if (found->dropped_bytes > 0)
        log_info(recovery->log,
                 "%s: %" PRIu64
                 " bytes at the end of the log were being written when it stopped; they were never "
                 "acknowledged and are dropped",
                 recovery->options->directory, found->dropped_bytes);
}

static int scan_segments(struct wal_recovery *recovery)
{
    int error = lay_out_places(recovery);
    if (error < 0)
        return error;
    struct wal_scan scan = {
        .segments = recovery->places,
        .segment_count = recovery->place_count,
        .context = recovery,
        .load = load,
        .record = show,
        .coming = recovery->options->events.coming != NULL ? announce : NULL,
        .note = note,
    };
    recovery->reported_ns = io_now_ns(recovery->io);
    error = wal_scan_run(&scan);
    if (error < 0)
        return recovery->each_result != 0 ? recovery->each_result : error;
    take_found(recovery, &scan.found, scan.proof);
    return 0;
}

/* ---- the state ---- */

static void fill_state(struct wal_recovery *recovery)
{
    struct wal_state *state = recovery->state;
    state->last_position = recovery->found.last_position;
    state->clock_ceiling = recovery->found.clock_ceiling;
    state->lost = recovery->lost;
    state->files.number = recovery->number_known;
    for (uint32_t file = 0; file < state->files.count; file++) {
        struct log_file *segment = state->files.table[file];
        state->generation = max_u64(state->generation, segment->header.generation);
        state->files.number = max_u64(state->files.number, segment->header.number);
        if (file >= recovery->place_count)
            continue;
        segment->end = recovery->places[file].end;
        segment->position_last = recovery->places[file].position_last;
        segment->has_seal = recovery->places[file].is_sealed;
        segment->is_damaged = recovery->places[file].is_damaged;
        segment->is_unreadable = recovery->places[file].unreadable_last != WAL_READABLE;
    }
}

/* A process that was killed may have left what can be read but would not survive a loss of power.
 */
static int sync_newest(const struct wal_recovery *recovery)
{
    const struct wal_state *state = recovery->state;
    for (uint32_t file = 0; file < recovery->place_count; file++) {
        const struct log_file *segment = state->files.table[file];
        if (segment->header.generation != state->generation)
            continue;
        int error = disk_wait_sync(recovery->io, segment->handle);
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

static uint64_t largest_file(const struct wal_files *files)
{
    uint64_t size = 0;
    for (uint32_t file = 0; file < files->count; file++)
        size = max_u64(size, files->table[file]->size);
    return min_u64(size, LOG_FILE_SIZE_MAX);
}

static int recover(struct wal_recovery *recovery)
{
    int error = wal_recover_open_segments(recovery);
    if (error == 0)
        error = reader_init(&recovery->reader, recovery->io, recovery->log,
                            largest_file(&recovery->state->files));
    if (error == 0)
        error = wal_recover_judge_segments(recovery);
    if (error < 0)
        return error;
    wal_recover_note_dead(recovery);
    order_segments(recovery);
    error = scan_segments(recovery);
    if (error != 0)
        return error;
    fill_state(recovery);
    return sync_newest(recovery);
}

int wal_recover(struct io *io, const struct log *log, const struct wal_options *options,
                wal_recover_each *each, void *context, struct wal_recovered *ret_recovered,
                struct wal_state **ret_state)
{
    struct wal_recovery recovery = {.io = io,
                                    .log = log,
                                    .options = options,
                                    .each = each,
                                    .context = context,
                                    .last_known = options->last_known,
                                    .number_known = options->number_known};
    recovery.state = calloc(1, sizeof *recovery.state);
    if (recovery.state == NULL)
        return -ENOMEM;
    int error = recover(&recovery);
    reader_deinit(&recovery.reader);
    free(recovery.places);
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
