#include "store/wal/wal_recover.h"
#include "store/disk/wait.h"
#include "store/wal/wal_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define JUMBO_BUFFERS 2u

/* ---- memory ---- */

/* 0: every record fits an ordinary buffer. */
static uint64_t jumbo_size(const struct wal_options *options)
{
    uint64_t padded = round_up(options->record_size_max, WAL_RECORD_ALIGNMENT);
    uint64_t size = round_up(WAL_BATCH_HEADER_SIZE + padded, WAL_BLOCK_SIZE);
    return size > options->buffer_size ? size : 0;
}

size_t wal_memory_size(const struct wal_options *options)
{
    return (size_t)options->buffer_size * options->buffer_count +
           JUMBO_BUFFERS * jumbo_size(options) + (WAL_BLOCKS + 1) * (size_t)WAL_BLOCK_SIZE +
           WAL_ZEROS_SIZE;
}

static struct wal_buffer *add_buffers(struct wal *wal, struct wal_buffer *buffer, struct list *home,
                                      uint32_t count, uint64_t size, enum wal_buffer_kind kind,
                                      uint8_t **memory)
{
    list_init(home);
    for (uint32_t i = 0; i < count; i++, buffer++) {
        buffer->wal = wal;
        buffer->home = home;
        buffer->kind = kind;
        buffer->capacity = (uint32_t)size;
        buffer->data = *memory;
        *memory += size;
        list_push_back(home, &buffer->node);
    }
    return buffer;
}

static int lay_out_memory(struct wal *wal)
{
    const struct wal_options *options = &wal->options;
    uint64_t jumbo = jumbo_size(options);
    uint32_t jumbo_count = jumbo > 0 ? JUMBO_BUFFERS : 0;
    wal->buffer_count = options->buffer_count + jumbo_count + WAL_BLOCKS;
    wal->buffers = calloc(wal->buffer_count, sizeof *wal->buffers);
    if (wal->buffers == NULL)
        return -ENOMEM;
    uint8_t *memory = options->memory;
    struct wal_buffer *buffer = wal->buffers;
    buffer = add_buffers(wal, buffer, &wal->free_ordinary, options->buffer_count,
                         options->buffer_size, WAL_BUFFER_ORDINARY, &memory);
    buffer =
        add_buffers(wal, buffer, &wal->free_jumbo, jumbo_count, jumbo, WAL_BUFFER_JUMBO, &memory);
    buffer = add_buffers(wal, buffer, &wal->free_blocks, WAL_BLOCKS, WAL_BLOCK_SIZE,
                         WAL_BUFFER_HEADER, &memory);
    wal->keeper.mark = memory;
    wal->keeper.zeros = memory + WAL_BLOCK_SIZE;
    memory += WAL_BLOCK_SIZE + WAL_ZEROS_SIZE;
    memset(wal->keeper.zeros, 0, WAL_ZEROS_SIZE);
    assert(buffer == wal->buffers + wal->buffer_count);
    assert(memory == options->memory + wal_memory_size(options));
    return 0;
}

/* ---- opening ---- */

/* The largest batch fits, and the seal. */
static uint64_t segment_size_min(const struct wal_options *options)
{
    return WAL_DATA_OFFSET + max_u64(jumbo_size(options), options->buffer_size) + WAL_BLOCK_SIZE;
}

static int check_options(const struct log *log, const struct wal_options *options)
{
    assert(options->buffer_count >= 3);
    assert(options->buffer_size % WAL_BLOCK_SIZE == 0 &&
           options->buffer_size >= 2 * WAL_BLOCK_SIZE);
    assert(options->segment_size % WAL_BLOCK_SIZE == 0 &&
           options->segment_size <= LOG_FILE_SIZE_MAX);
    assert(options->writes_in_flight == 1 || options->writes_in_flight == 2);
    assert((uintptr_t)options->memory % WAL_BLOCK_SIZE == 0);
    uint64_t needed = segment_size_min(options);
    if (needed <= options->segment_size)
        return 0;
    log_error(log,
              "%s: a record of up to %u bytes does not fit into a log segment of %llu bytes: lower "
              "the value limit, or "
              "begin a new directory with segments of at least %llu bytes",
              options->directory, options->record_size_max,
              (unsigned long long)options->segment_size, (unsigned long long)needed);
    return -EINVAL;
}

static void take_over(struct wal *wal, struct wal_state *state)
{
    wal->table = state->table;
    wal->generation = state->generation + 1;
    wal->generation_base = state->last_position;
    wal->number = state->number;
    wal->serial = state->serial;
    wal->position_last = state->last_position;
    wal->durable = state->last_position;
    wal->clock_recovered = state->clock_ceiling;
    wal->number_durable = state->number;
    wal->lost = state->lost;
    free(state);
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        struct log_file *segment = wal->table.segments[file];
        if (segment == NULL)
            continue;
        segment->listed_last = wal->number;
        if (segment->state == LOG_FILE_SPARE && segment->size == wal->options.segment_size) {
            list_push_back(&wal->spares, &segment->node);
            wal->spare_count++;
        } else if (segment->state == LOG_FILE_SPARE) {
            segment->state = LOG_FILE_MARKED;
            list_push_back(&wal->marked, &segment->node);
        } else {
            segment->state = LOG_FILE_SEALED;
            log_file_check(wal, segment);
        }
    }
}

/* On a full disk a small segment will do: whoever wants to delete something has to get in. Where
 * there is nothing yet, nobody has: the disk is too small. */
static int wait_for_spare(struct wal *wal)
{
    bool is_first = wal->number == 0;
    wal->segment_size_next = wal->options.segment_size;
    wal_keep(wal);
    while (wal->spare_count == 0) {
        if (wal->failed != 0)
            return wal->failed;
        bool has_failed = wal->disk_full && wal->keeper.task == WAL_TASK_NONE;
        if (has_failed && (is_first || wal->segment_size_next == segment_size_min(&wal->options)))
            return -ENOSPC;
        if (has_failed) {
            wal->segment_size_next = segment_size_min(&wal->options);
            wal_keep(wal);
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
        error = wal_seal_old_segments(wal);
    if (error < 0)
        return error;
    wal_take_spare(wal);
    uint8_t *block = container_of(list_first(&wal->free_blocks), struct wal_buffer, node)->data;
    wal_finish_header(wal, wal->segment, block);
    error = disk_wait_write(wal->io, wal->segment->handle, block, WAL_BLOCK_SIZE, 0);
    if (error == 0)
        error = wal_cut_old_segments(wal);
    if (error < 0)
        return error;
    wal->has_begun = true;
    wal->number_durable = wal->segment->header.number;
    return 0;
}

/* What earlier lives left behind goes first, so that a process that starts again and again piles up
 * nothing. */
static int clear_old_segments(struct wal *wal)
{
    wal_keep(wal);
    while (wal->failed == 0 && wal_is_clearing(wal)) {
        int result = io_run(wal->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
    return wal->failed;
}

static int start(struct wal *wal)
{
    int error = check_options(wal->log, &wal->options);
    if (error == 0)
        error = lay_out_memory(wal);
    if (error < 0)
        return error;
    int handle = disk_wait_open(wal->io, wal->directory, IO_OPEN_DIRECTORY);
    if (handle < 0)
        return handle;
    wal->directory_handle = handle;
    error = begin_generation(wal);
    if (error < 0)
        return error;
    error = clear_old_segments(wal);
    /* Deletes have their reserve before the first set. On a full disk only they are taken. */
    if (error == 0)
        error = wait_for_spare(wal);
    wal->is_opening = false;
    wal->segment_size_next = wal->options.segment_size;
    return error == -ENOSPC ? 0 : error;
}

static int stop(struct wal *wal);

int wal_open(struct io *io, const struct log *log, const struct wal_options *options,
             struct wal_state *state, struct wal **ret_wal)
{
    struct wal *wal = calloc(1, sizeof *wal);
    char *directory = strdup(options->directory);
    if (wal == NULL || directory == NULL) {
        free(wal);
        free(directory);
        wal_state_free(io, state);
        return -ENOMEM;
    }
    wal->io = io;
    wal->log = log;
    wal->options = *options;
    wal->directory = directory;
    wal->options.directory = directory;
    wal->directory_handle = -1;
    wal->is_opening = true;
    list_init(&wal->spares);
    list_init(&wal->drained);
    list_init(&wal->marked);
    list_init(&wal->queue);
    take_over(wal, state);
    int error = start(wal);
    if (error < 0) {
        (void)stop(wal);
        wal_free(wal);
        return error;
    }
    *ret_wal = wal;
    return 0;
}

/* ---- shutting ---- */

static bool is_busy(const struct wal *wal)
{
    if (io_op_is_active(&wal->timer) || io_op_is_active(&wal->sync) ||
        wal_keeper_is_active(&wal->keeper) || io_op_is_active(&wal->keeper.timer))
        return true;
    for (uint32_t i = 0; wal->buffers != NULL && i < wal->buffer_count; i++) {
        if (io_op_is_active(&wal->buffers[i].op))
            return true;
    }
    return false;
}

/* Ends all operations and closes the files. */
static int stop(struct wal *wal)
{
    wal->is_shutting = true;
    wal_judge_hindrance(wal);
    io_cancel(wal->io, &wal->timer);
    io_cancel(wal->io, &wal->keeper.timer);
    while (is_busy(wal)) {
        int result = io_run(wal->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
    wal_table_close(&wal->table, wal->io);
    if (wal->directory_handle >= 0)
        (void)disk_wait_close(wal->io, wal->directory_handle);
    wal->directory_handle = -1;
    return 0;
}

/* Writes everything that was appended. */
static int drain(struct wal *wal)
{
    if (wal->open != NULL)
        wal_close_buffer(wal);
    wal_pump(wal);
    while (wal->failed == 0 && !list_is_empty(&wal->queue)) {
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
        error = disk_wait_sync(wal->io, wal->segment->handle);
    if (error < 0)
        return error;
    wal->durable = wal->position_last;
    wal_seal_segment(wal);
    return drain(wal);
}

int wal_shut(struct wal *wal)
{
    assert(!wal->is_shutting);
    wal->is_shutting = true;
    wal_judge_hindrance(wal);
    int error = drain_and_seal(wal);
    int stopped = stop(wal);
    return error < 0 ? error : stopped;
}

void wal_free(struct wal *wal)
{
    if (wal == NULL)
        return;
    wal_table_free(&wal->table);
    free(wal->buffers);
    free(wal->directory);
    free(wal);
}

/* ---- asking ---- */

uint64_t wal_durable(const struct wal *wal)
{
    return wal->durable;
}

uint64_t wal_last(const struct wal *wal)
{
    return wal->position_last;
}

uint64_t wal_number(const struct wal *wal)
{
    return wal->number;
}

uint64_t wal_gate(const struct wal *wal, uint64_t position)
{
    return wal->options.durability == WAL_COMMIT ? position : 0;
}

bool wal_has_space(const struct wal *wal)
{
    return !wal->disk_full || wal->spare_count >= WAL_SPARES_WANTED;
}

void wal_set_kept_free(struct wal *wal, uint64_t bytes)
{
    wal->kept_free = bytes;
}

void wal_set_held(struct wal *wal, bool is_held)
{
    if (wal->is_held == is_held)
        return;
    wal->is_held = is_held;
    if (!is_held)
        wal_keep(wal);
}

void wal_set_spares_below(struct wal *wal, uint64_t bytes)
{
    bool is_less = bytes < wal->spares_below;
    wal->spares_below = bytes;
    if (is_less)
        wal_keep(wal);
}

void wal_stats(const struct wal *wal, struct wal_stats *ret_stats)
{
    struct wal_stats stats = wal->stats;
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        const struct log_file *segment = wal->table.segments[file];
        if (segment == NULL)
            continue;
        stats.segments++;
        stats.size_bytes += segment->size;
        stats.live_records += segment->live;
    }
    *ret_stats = stats;
}
