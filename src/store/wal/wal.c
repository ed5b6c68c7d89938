/* The driver of the log: opens and shuts it, takes appends, steps the parts (wal_internal.h) and
 * tells its owner. */
#include "store/wal/wal_internal.h"
#include "base/assert.h"
#include "store/disk/filesystem.h"
#include "store/disk/wait.h"
#include "store/memory/location.h"
#include "store/wal/wal_recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the parts tell ---- */

/* Whatever wal->is_hindered depends on may have changed. */
static void judge_hindrance(struct wal *wal)
{
    wal->is_hindered = wal->failed != 0 || wal->is_shutting ||
                       wal_spares_disk_is_full(&wal->spares) ||
                       wal_files_spare_count(wal->files) == 0;
}

/* Does what housekeeping is due now. */
static void keep_house(struct wal *wal)
{
    wal_spares_step(&wal->spares);
    judge_hindrance(wal);
}

/* Tells whoever waits for it that wal_append is worth another try. */
static void tell_room(struct wal *wal)
{
    if (!wal->room_wanted)
        return;
    wal->room_wanted = false;
    if (wal->options.events.room != NULL)
        wal->options.events.room(wal->options.events.context);
}

/* Nothing that is not durable now ever will be. */
static void fail(void *context, int error, const char *what)
{
    struct wal *wal = context;
    assert(error < 0);
    if (wal->failed != 0)
        return;
    wal->failed = error;
    wal_buffers_fail(&wal->buffers);
    wal_spares_stop(&wal->spares);
    judge_hindrance(wal);
    log_error(wal->log, "%s: %s failed: %s; %s", wal->options.directory, what, strerror(-error),
              filesystem_advice(error));
    if (!wal->is_opening && wal->options.events.failed != NULL)
        wal->options.events.failed(wal->options.events.context, error);
}

static void buffers_released(void *context, bool is_durable)
{
    struct wal *wal = context;
    const struct wal_events *events = &wal->options.events;
    keep_house(wal);
    if (is_durable && events->durable != NULL)
        events->durable(events->context, wal_durable(wal));
    tell_room(wal);
}

static void spares_changed(void *context, bool has_room)
{
    struct wal *wal = context;
    judge_hindrance(wal);
    if (has_room)
        tell_room(wal);
}

/* ---- opening ---- */

size_t wal_memory_size(const struct wal_options *options)
{
    return wal_buffers_memory_size(options) + WAL_SPARES_MEMORY_SIZE;
}

/* The largest batch fits, and the seal. */
static uint64_t file_size_min(const struct wal_options *options)
{
    return WAL_DATA_OFFSET + wal_buffers_batch_max(options) + WAL_BLOCK_SIZE;
}

static int check_options(const struct log *log, const struct wal_options *options)
{
    assert(options->buffer_count >= 3);
    assert(options->buffer_size % WAL_BLOCK_SIZE == 0);
    assert(options->buffer_size >= 2 * WAL_BLOCK_SIZE);
    assert(options->file_size % WAL_BLOCK_SIZE == 0);
    assert(options->file_size <= LOG_FILE_SIZE_MAX);
    uint64_t needed = file_size_min(options);
    if (needed <= options->file_size)
        return 0;
    log_error(log,
              "%s: a record of up to %u bytes does not fit into a log file of %llu bytes: lower "
              "the value limit, or begin a new directory with log files of at least %llu bytes",
              options->directory, options->record_size_max, (unsigned long long)options->file_size,
              (unsigned long long)needed);
    return -EINVAL;
}

/* On a full disk a small file will do: whoever wants to delete something has to get in. Where there
 * is nothing yet, nobody has: the disk is too small. */
static int wait_for_spare(struct wal *wal)
{
    bool is_first = wal_number(wal) == 0;
    uint64_t size = wal->options.file_size;
    uint64_t size_min = file_size_min(&wal->options);
    wal_spares_set_file_size(&wal->spares, size);
    keep_house(wal);
    while (wal_files_spare_count(wal->files) == 0) {
        if (wal->failed != 0)
            return wal->failed;
        if (wal_spares_have_failed(&wal->spares)) {
            if (is_first || size == size_min)
                return -ENOSPC;
            size = size_min;
            wal_spares_set_file_size(&wal->spares, size);
            keep_house(wal);
            continue;
        }
        int result = io_run(wal->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
    return 0;
}

static int begin_generation(struct wal *wal)
{
    int error = wait_for_spare(wal);
    if (error == 0)
        error = wal_buffers_begin(&wal->buffers);
    if (error < 0)
        return error;
    judge_hindrance(wal);
    wal_spares_begin(&wal->spares);
    return 0;
}

/* What earlier lives left behind goes first, so that a process that starts again and again piles up
 * nothing. */
static int clear_old_files(struct wal *wal)
{
    keep_house(wal);
    while (wal->failed == 0 && wal_spares_are_clearing(&wal->spares)) {
        int result = io_run(wal->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
    return wal->failed;
}

static int start(struct wal *wal)
{
    int error = begin_generation(wal);
    if (error == 0)
        error = clear_old_files(wal);
    if (error < 0)
        return error;
    /* Deletes have their reserve before the first set. On a full disk only they are taken. */
    error = wait_for_spare(wal);
    wal->is_opening = false;
    wal_spares_set_file_size(&wal->spares, wal->options.file_size);
    return error == -ENOSPC ? 0 : error;
}

static int init_parts(struct wal *wal)
{
    wal->directory_handle = disk_wait_open(wal->io, wal->options.directory, IO_OPEN_DIRECTORY);
    if (wal->directory_handle < 0)
        return wal->directory_handle;
    struct wal_driver buffers_driver = {wal, buffers_released, fail};
    struct wal_driver spares_driver = {wal, spares_changed, fail};
    wal_files_adopt(wal->files, &wal->options);
    wal_spares_init(&wal->spares, wal->io, wal->log, &wal->options, wal->files, &wal->buffers,
                    wal->directory_handle, &spares_driver);
    return wal_buffers_init(&wal->buffers, wal->io, &wal->options, wal->files, &buffers_driver);
}

static int stop(struct wal *wal);

int wal_open(struct io *io, const struct log *log, const struct wal_options *options,
             struct wal_files *files, struct wal **ret_wal)
{
    int error = check_options(log, options);
    struct wal *wal = error == 0 ? calloc(1, sizeof *wal) : NULL;
    if (wal == NULL) {
        wal_files_abandon(io, files);
        return error < 0 ? error : -ENOMEM;
    }
    wal->io = io;
    wal->log = log;
    wal->options = *options;
    wal->files = files;
    wal->is_opening = true;
    error = init_parts(wal);
    if (error == 0)
        error = start(wal);
    if (error < 0) {
        (void)stop(wal);
        wal_free(wal);
        return error;
    }
    *ret_wal = wal;
    return 0;
}

/* ---- shutting ---- */

static void begin_shutting(struct wal *wal)
{
    wal->is_shutting = true;
    wal_spares_stop(&wal->spares);
    judge_hindrance(wal);
}

/* Ends all operations and closes the files. */
static int stop(struct wal *wal)
{
    begin_shutting(wal);
    wal_buffers_stop(&wal->buffers);
    while (wal_buffers_are_busy(&wal->buffers) || wal_spares_are_busy(&wal->spares)) {
        int result = io_run(wal->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
    wal_files_close(wal->files, wal->io);
    if (wal->directory_handle >= 0)
        (void)disk_wait_close(wal->io, wal->directory_handle);
    return 0;
}

/* Writes everything that was appended. */
static int drain(struct wal *wal)
{
    wal_buffers_close(&wal->buffers);
    wal_buffers_pump(&wal->buffers);
    while (wal->failed == 0 && !wal_buffers_are_drained(&wal->buffers)) {
        int result = io_run(wal->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
    return wal->failed;
}

static int drain_and_seal(struct wal *wal)
{
    int error = drain(wal);
    if (error == 0 && wal->options.durability == WAL_NONE)
        error = disk_wait_sync(wal->io, log_file_handle(wal_files_get_open(wal->files)));
    if (error < 0)
        return error;
    wal_buffers_note_synced(&wal->buffers);
    wal_buffers_seal(&wal->buffers);
    return drain(wal);
}

int wal_shut(struct wal *wal)
{
    assert(!wal->is_shutting);
    begin_shutting(wal);
    int error = drain_and_seal(wal);
    int stopped = stop(wal);
    return error < 0 ? error : stopped;
}

void wal_free(struct wal *wal)
{
    if (wal == NULL)
        return;
    wal_files_free(wal->files);
    wal_buffers_deinit(&wal->buffers);
    free(wal);
}

/* ---- appending ---- */

static int wait_for_room(struct wal *wal)
{
    wal->room_wanted = true;
    return -EAGAIN;
}

static bool may_get_file(const struct wal *wal)
{
    const struct wal_events *events = &wal->options.events;
    return !wal_spares_disk_is_full(&wal->spares) || wal_spares_are_clearing(&wal->spares) ||
           (events->may_clear != NULL && events->may_clear(events->context));
}

/* On a full disk only as long as there is hope. */
static int wait_for_file(struct wal *wal)
{
    return may_get_file(wal) ? wait_for_room(wal) : -ENOSPC;
}

/* The last spare file is retained for deletes, which make room in the end: a set waits for another
 * one, in the open file as well when deletes have taken the last. */
static int next_file(struct wal *wal, bool is_tombstone)
{
    if (wal_files_spare_count(wal->files) < (is_tombstone ? 1u : 2u)) {
        keep_house(wal);
        return wait_for_file(wal);
    }
    if (!wal_buffers_next_file(&wal->buffers))
        return wait_for_room(wal);
    keep_house(wal);
    return 0;
}

/* Sees to it that the open buffer has room for a record of `padded` bytes. */
static int make_room(struct wal *wal, uint64_t padded, bool is_tombstone)
{
    wal_buffers_close(&wal->buffers);
    uint64_t space = wal_buffers_space(padded);
    if (space > wal_files_room(wal->files)) {
        int error = next_file(wal, is_tombstone);
        if (error < 0)
            return error;
    }
    return wal_buffers_open(&wal->buffers, space) ? 0 : wait_for_room(wal);
}

static int admit(struct wal *wal, bool is_tombstone)
{
    if (wal->failed != 0 || wal->is_shutting)
        return -EIO;
    if (wal_files_spare_count(wal->files) > 0 || is_tombstone)
        return 0;
    return wait_for_file(wal);
}

bool wal_takes_sets(const struct wal *wal)
{
    uint32_t spares = wal_files_spare_count(wal->files);
    bool has_room = wal_files_room(wal->files) > WAL_BLOCK_SIZE;
    return spares > 1 || (spares > 0 && has_room) || may_get_file(wal);
}

int wal_append(struct wal *wal, struct record *record, struct wal_receipt *ret_receipt)
{
    uint64_t size = record_size(record);
    uint64_t padded = round_up(size, WAL_RECORD_ALIGNMENT);
    bool is_tombstone = (record->flags & RECORD_TOMBSTONE) != 0;
    int error = wal->is_hindered ? admit(wal, is_tombstone) : 0;
    if (error == 0 && !wal_buffers_fits(&wal->buffers, padded))
        error = size > wal->options.record_size_max ? -EFBIG : make_room(wal, padded, is_tombstone);
    if (error < 0)
        return error;
    wal_buffers_add(&wal->buffers, record, padded, ret_receipt);
    return 0;
}

void wal_flush(struct wal *wal)
{
    wal_buffers_flush(&wal->buffers);
}

static bool roll(struct wal *wal, bool is_worth_it)
{
    if (!is_worth_it || wal->failed != 0 || wal->is_shutting ||
        wal_files_spare_count(wal->files) < WAL_SPARES_WANTED)
        return false;
    wal_buffers_close(&wal->buffers);
    return next_file(wal, false) == 0;
}

/* Files that have to stay only because the newest header lists them. */
static bool wants_header(const struct wal *wal)
{
    return wal_files_wants_header(wal->files, wal_spares_surplus(&wal->spares));
}

bool wal_shed(struct wal *wal)
{
    return roll(wal, wants_header(wal));
}

bool wal_roll(struct wal *wal)
{
    return roll(wal, wal_files_open_has_records(wal->files, wal_last(wal)) || wants_header(wal));
}

/* ---- files and what is alive in them ---- */

void wal_unpin_file(struct wal *wal, uint32_t file)
{
    if (wal_files_unpin(wal->files, file))
        keep_house(wal);
}

void wal_record_dead(struct wal *wal, uint64_t location, uint64_t killer_position)
{
    assert(killer_position <= wal_last(wal));
    if (wal_files_record_dead(wal->files, location, killer_position))
        keep_house(wal);
}

uint64_t wal_first_position(const struct wal *wal)
{
    return wal_files_first_position(wal->files, wal_last(wal) + 1);
}

bool wal_next_readable(const struct wal *wal, uint64_t after, uint64_t last,
                       struct wal_sealed *ret_readable)
{
    struct wal_sealed next;
    for (; wal_files_next_live(wal->files, after, last, &next); after = next.number) {
        next.end = wal_buffers_readable_end(&wal->buffers, next.file, next.end);
        if (next.end > WAL_DATA_OFFSET) {
            *ret_readable = next;
            return true;
        }
    }
    return false;
}

/* ---- asking ---- */

const char *wal_name_file(const struct wal *wal, uint32_t file, uint64_t *ret_number)
{
    const struct log_file *found = wal_files_find(wal_files_of(wal), file);
    *ret_number = found->header.number;
    return found->path;
}

uint64_t wal_gate(const struct wal *wal, uint64_t position)
{
    return wal->options.durability == WAL_COMMIT ? position : 0;
}

const uint8_t *wal_peek(const struct wal *wal, uint64_t location)
{
    if (location_is_segment(location))
        return NULL;
    return wal_buffers_peek(&wal->buffers, location_file(location), location_offset(location));
}

void wal_set_room_min(struct wal *wal, uint64_t bytes)
{
    wal_spares_set_room_min(&wal->spares, bytes);
}

void wal_set_few_spares(struct wal *wal, bool are_few)
{
    if (wal_spares_set_few(&wal->spares, are_few))
        keep_house(wal);
}

void wal_set_held(struct wal *wal, bool is_held)
{
    if (wal_spares_set_held(&wal->spares, is_held))
        keep_house(wal);
}

void wal_set_spares_below(struct wal *wal, uint64_t bytes)
{
    if (wal_spares_set_keep_below(&wal->spares, bytes))
        keep_house(wal);
}

void wal_stats(const struct wal *wal, struct wal_stats *ret_stats)
{
    struct wal_stats stats = {0};
    wal_files_stats(wal->files, &stats);
    wal_buffers_stats(&wal->buffers, &stats);
    wal_spares_stats(&wal->spares, &stats);
    *ret_stats = stats;
}
