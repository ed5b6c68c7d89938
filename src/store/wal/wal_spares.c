/* Housekeeping of the log's files: spares are made, recycled, removed. */
#include "store/wal/wal_spares.h"
#include "base/assert.h"
#include "base/plant.h"
#include "store/disk/refusal.h"
#include "store/wal/wal_internal.h"

#include <errno.h>
#include <string.h>

#define RETRY_NS NS_PER_S /* between attempts to make a file on a full disk */

void wal_spares_init(struct wal_spares *spares, struct io *io, const struct log *log,
                     const struct wal_options *options, struct wal_files *files,
                     const struct wal_buffers *buffers, int directory,
                     const struct wal_driver *driver)
{
    uint8_t *memory = options->memory + wal_buffers_memory_size(options);
    assert((uintptr_t)memory % WAL_BLOCK_SIZE == 0);
    assert(options->file_size % WAL_BLOCK_SIZE == 0);
    spares->io = io;
    spares->log = log;
    spares->options = options;
    spares->files = files;
    spares->buffers = buffers;
    spares->driver = *driver;
    spares->directory_handle = directory;
    spares->file_size_next = options->file_size;
    spares->mark = memory;
    spares->zeros = memory + WAL_BLOCK_SIZE;
    memset(spares->zeros, 0, WAL_ZEROS_SIZE);
}

/* ---- tasks ---- */

/* Whether one of the task's operations is in flight. */
static bool is_active(const struct wal_spares *spares)
{
    bool is_active = io_op_is_active(&spares->op);
    for (uint32_t i = 0; i < WAL_ZEROS_IN_FLIGHT; i++)
        is_active |= io_op_is_active(&spares->zeroing[i].op);
    return is_active;
}

static void zeros_done(struct io_op *op, int32_t result);

/* Several writes at once: else the log, at its fastest, fills a file before the next is made. */
static void write_zeros(struct wal_spares *spares)
{
    for (uint32_t i = 0; i < WAL_ZEROS_IN_FLIGHT; i++) {
        struct wal_zeros *zeros = &spares->zeroing[i];
        assert(spares->zeroed <= spares->file->size); /* invariant 3 */
        uint64_t left = spares->file->size - spares->zeroed;
        if (io_op_is_active(&zeros->op) || left == 0)
            continue;
        zeros->spares = spares;
        zeros->size = (uint32_t)min_u64(WAL_ZEROS_SIZE, left);
        zeros->op.done = zeros_done;
        io_write(spares->io, &zeros->op, spares->file->handle, spares->zeros, zeros->size,
                 spares->zeroed, IO_WRITE_PLAIN);
        spares->zeroed += zeros->size;
    }
}

static void write_mark(struct wal_spares *spares)
{
    wal_files_encode_mark(spares->files, spares->file, wal_buffers_durable(spares->buffers),
                          spares->mark);
    io_write(spares->io, &spares->op, spares->file->handle, spares->mark, WAL_BLOCK_SIZE,
             WAL_MARK_OFFSET, IO_WRITE_DSYNC);
}

static void task_done(struct io_op *op, int32_t result);

/* Every change of the task goes through here. */
static void start_task(struct wal_spares *spares, enum wal_task task)
{
    struct log_file *file = spares->file;
    assert(file != NULL);                                               /* invariant 1 */
    assert(!is_active(spares));                                         /* one at a time */
    assert(task == WAL_TASK_NONE || !spares->is_stopped);               /* invariant 6 */
    assert(task == WAL_TASK_NONE || !list_node_is_linked(&file->node)); /* invariant 2 */
    spares->task = task;
    spares->op.done = task_done;
    switch (task) {
    case WAL_TASK_NONE:
        spares->file = NULL;
        break;
    case WAL_TASK_CREATE:
        io_open_file(spares->io, &spares->op, file->path,
                     IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE | IO_OPEN_DIRECT);
        break;
    case WAL_TASK_ALLOCATE:
        io_allocate(spares->io, &spares->op, file->handle, file->size);
        break;
    case WAL_TASK_ZERO:
        write_zeros(spares);
        break;
    case WAL_TASK_SYNC_ZEROS:
        assert(spares->zeroed == file->size); /* invariant 3 */
        io_sync(spares->io, &spares->op, file->handle);
        break;
    case WAL_TASK_MARK:
        write_mark(spares);
        break;
    case WAL_TASK_UNLINK:
        assert(file->state == LOG_FILE_LEAVING); /* invariant 2 */
        io_unlink(spares->io, &spares->op, file->path);
        break;
    case WAL_TASK_SYNC_NAME:
    case WAL_TASK_SYNC_UNLINK:
        io_sync(spares->io, &spares->op, spares->directory_handle);
        break;
    case WAL_TASK_CLOSE:
        io_close_file(spares->io, &spares->op, file->handle);
        break;
    }
}

/* ---- how many ---- */

/* Whether so many spares are not too many. */
static bool may_keep(const struct wal_spares *spares, uint64_t count)
{
    uint64_t kept = spares->are_few ? WAL_SPARES_WANTED : WAL_SPARES_KEPT;
    if (count <= kept)
        return true;
    uint64_t more = (count - kept) * spares->options->file_size;
    return wal_files_sealed_bytes(spares->files) + more <= spares->keep_below;
}

static bool is_wanted(const struct wal_spares *spares, const struct log_file *file)
{
    return !file->is_discarded && file->size == spares->options->file_size &&
           may_keep(spares, wal_files_spare_count(spares->files) + 1u);
}

struct log_file *wal_spares_surplus(const struct wal_spares *spares)
{
    bool are_few = may_keep(spares, wal_files_spare_count(spares->files));
    return are_few ? NULL : wal_files_last_spare(spares->files);
}

bool wal_has_space(const struct wal *wal)
{
    const struct wal_spares *spares = wal_spares_of(wal);
    return !spares->disk_full || wal_files_spare_count(spares->files) >= WAL_SPARES_WANTED;
}

/* ---- a full disk ---- */

/* Goes on with the next task, after one or none. */
static void go_idle(struct wal_spares *spares, bool has_room)
{
    wal_spares_step(spares);
    spares->driver.changed(spares->driver.context, has_room);
}

static void retry_done(struct io_op *op, int32_t result)
{
    if (result == 0)
        go_idle(container_of(op, struct wal_spares, timer), true);
}

static void note_full(struct wal_spares *spares, int error)
{
    assert(error < 0);
    if (!spares->disk_full)
        log_warn(spares->log,
                 "%s: no room for another log file of %llu bytes: %s: %s. Deletes and reads go on; "
                 "sets are refused once the log files at hand are full, until there is room",
                 spares->options->directory, (unsigned long long)spares->options->file_size,
                 strerror(-error), refusal_meaning(spares->io, spares->options->directory, error));
    spares->disk_full = true;
    if (!io_op_is_active(&spares->timer)) {
        spares->timer.done = retry_done;
        io_timer(spares->io, &spares->timer, io_now_ns(spares->io) + RETRY_NS);
    }
}

/* A try on a full disk would take what is left away from others for a moment. */
static bool is_known_full(const struct wal_spares *spares)
{
    uint64_t free_size;
    uint64_t total_size;
    return (spares->disk_full || spares->room_min > 0) &&
           io_disk_space(spares->io, spares->options->directory, &free_size, &total_size) == 0 &&
           free_size < spares->file_size_next + spares->room_min;
}

static void fail(struct wal_spares *spares, int error)
{
    spares->driver.failed(spares->driver.context, error, "preparing or removing a log file");
}

static void task_failed(struct wal_spares *spares, int error)
{
    struct log_file *file = spares->file;
    if (file->state != LOG_FILE_PREPARING || !refusal_may_pass(error)) {
        start_task(spares, WAL_TASK_NONE);
        fail(spares, error);
        return;
    }
    if (spares->task == WAL_TASK_CREATE) {
        start_task(spares, WAL_TASK_NONE);
        wal_files_remove(spares->files, file);
    } else {
        wal_files_leave(spares->files, file, 0);
        start_task(spares, WAL_TASK_UNLINK);
    }
    note_full(spares, error);
    spares->driver.changed(spares->driver.context, true);
}

/* ---- the ways ---- */

static void finish_mark(struct wal_spares *spares)
{
    struct log_file *file = spares->file;
    bool is_recycled = file->state == LOG_FILE_LEAVING;
    bool is_spare = !is_recycled || is_wanted(spares, file);
    start_task(spares, WAL_TASK_NONE);
    if (!is_spare) {
        wal_files_add_marked(spares->files, file);
        go_idle(spares, false);
        return;
    }
    spares->recycled += is_recycled;
    wal_files_add_spare(spares->files, file);
    if (spares->disk_full && wal_files_spare_count(spares->files) >= WAL_SPARES_WANTED) {
        spares->disk_full = false;
        log_info(spares->log, "%s: there is room again: writes are accepted",
                 spares->options->directory);
    }
    go_idle(spares, true);
}

static void finish_removed(struct wal_spares *spares)
{
    struct log_file *file = spares->file;
    start_task(spares, WAL_TASK_NONE);
    wal_files_remove(spares->files, file);
    go_idle(spares, false);
}

static void next_task(struct wal_spares *spares)
{
    static const enum wal_task next[] = {
        [WAL_TASK_CREATE] = WAL_TASK_ALLOCATE,   [WAL_TASK_ALLOCATE] = WAL_TASK_ZERO,
        [WAL_TASK_ZERO] = WAL_TASK_SYNC_ZEROS,   [WAL_TASK_SYNC_ZEROS] = WAL_TASK_SYNC_NAME,
        [WAL_TASK_SYNC_NAME] = WAL_TASK_MARK,    [WAL_TASK_UNLINK] = WAL_TASK_SYNC_UNLINK,
        [WAL_TASK_SYNC_UNLINK] = WAL_TASK_CLOSE,
    };
    if (spares->task == WAL_TASK_MARK)
        finish_mark(spares);
    else if (spares->task == WAL_TASK_CLOSE)
        finish_removed(spares);
    else if (plant_is(PLANT_SKIP_DIRECTORY_SYNC) && spares->task == WAL_TASK_SYNC_ZEROS)
        start_task(spares, WAL_TASK_MARK);
    else
        start_task(spares, next[spares->task]);
}

/* A file system that cannot reserve blocks has them reserved by the zeros. */
static int32_t judge(const struct wal_spares *spares, int32_t result)
{
    if (spares->task == WAL_TASK_ALLOCATE && result == -EOPNOTSUPP)
        return 0;
    if (spares->task == WAL_TASK_UNLINK && result == -ENOENT)
        return 0;
    if (spares->task == WAL_TASK_MARK && result >= 0 && (uint32_t)result != WAL_BLOCK_SIZE)
        return -EIO;
    return result;
}

static void go_on(struct wal_spares *spares, int result)
{
    assert(spares->task != WAL_TASK_NONE); /* invariant 1 */
    if (spares->is_stopped)
        start_task(spares, WAL_TASK_NONE); /* what is half done, recovery clears away */
    else if (result < 0)
        task_failed(spares, result);
    else
        next_task(spares);
}

static void task_done(struct io_op *op, int32_t result)
{
    struct wal_spares *spares = container_of(op, struct wal_spares, op);
    int32_t judged = judge(spares, result);
    if (spares->task == WAL_TASK_CREATE && result >= 0)
        spares->file->handle = result;
    if (spares->task == WAL_TASK_CLOSE)
        spares->file->handle = -1;
    go_on(spares, judged);
}

static void zeros_done(struct io_op *op, int32_t result)
{
    struct wal_zeros *zeros = container_of(op, struct wal_zeros, op);
    struct wal_spares *spares = zeros->spares;
    assert(spares->task == WAL_TASK_ZERO); /* invariant 3 */
    int error = result >= 0 && (uint32_t)result != zeros->size ? -EIO : (result < 0 ? result : 0);
    if (spares->zero_error == 0)
        spares->zero_error = error;
    if (spares->zero_error == 0 && !spares->is_stopped)
        write_zeros(spares);
    if (!is_active(spares))
        go_on(spares, spares->zero_error);
}

static void prepare(struct wal_spares *spares)
{
    bool is_last_try = spares->file_size_next < spares->options->file_size;
    if (io_op_is_active(&spares->timer) && !is_last_try)
        return;
    if (is_known_full(spares)) {
        note_full(spares, -ENOSPC);
        return;
    }
    struct log_file *file;
    int error = wal_files_prepare(spares->files, spares->file_size_next, &file);
    if (error < 0) {
        if (refusal_may_pass(error))
            note_full(spares, error);
        else
            fail(spares, error);
        return;
    }
    spares->file = file;
    spares->zeroed = 0;
    spares->zero_error = 0;
    start_task(spares, WAL_TASK_CREATE);
}

static void leave(struct wal_spares *spares, struct log_file *file)
{
    bool wants_mark = file->state == LOG_FILE_SEALED &&
                      (is_wanted(spares, file) || !wal_files_is_unlisted(spares->files, file));
    wal_files_leave(spares->files, file, wal_buffers_durable(spares->buffers));
    spares->file = file;
    start_task(spares, wants_mark ? WAL_TASK_MARK : WAL_TASK_UNLINK);
}

static struct log_file *find_surplus(const struct wal_spares *spares)
{
    struct log_file *last = wal_spares_surplus(spares);
    return last != NULL && wal_files_is_unlisted(spares->files, last) ? last : NULL;
}

static struct log_file *find_free(const struct wal_spares *spares)
{
    return wal_files_find_free(spares->files, wal_buffers_durable(spares->buffers));
}

static struct log_file *find_leaving(const struct wal_spares *spares)
{
    if (!spares->may_touch_old) /* invariant 4 */
        return NULL;
    struct log_file *file = find_free(spares);
    if (file == NULL)
        file = wal_files_find_marked(spares->files);
    return file != NULL ? file : find_surplus(spares);
}

bool wal_spares_are_clearing(const struct wal_spares *spares)
{
    bool is_leaving = spares->file != NULL && spares->file->state == LOG_FILE_LEAVING;
    return is_leaving || find_free(spares) != NULL || wal_files_find_marked(spares->files) != NULL;
}

void wal_spares_step(struct wal_spares *spares)
{
    assert((spares->task == WAL_TASK_NONE) == (spares->file == NULL)); /* invariant 1 */
    if (spares->task != WAL_TASK_NONE || spares->is_stopped)
        return;
    bool one_is_enough = spares->is_held || spares->options->is_brief;
    struct log_file *file = find_leaving(spares);
    if (file != NULL)
        leave(spares, file);
    else if (wal_files_spare_count(spares->files) < (one_is_enough ? 1 : WAL_SPARES_WANTED))
        prepare(spares); /* invariant 5 */
}

/* ---- what the log says ---- */

void wal_spares_stop(struct wal_spares *spares)
{
    spares->is_stopped = true;
    if (spares->io != NULL) /* else the log was never opened */
        io_cancel(spares->io, &spares->timer);
}

bool wal_spares_are_busy(const struct wal_spares *spares)
{
    return is_active(spares) || io_op_is_active(&spares->timer);
}

bool wal_spares_have_failed(const struct wal_spares *spares)
{
    return spares->disk_full && spares->task == WAL_TASK_NONE;
}

void wal_spares_set_file_size(struct wal_spares *spares, uint64_t size)
{
    assert(size % WAL_BLOCK_SIZE == 0);
    assert(size <= spares->options->file_size);
    spares->file_size_next = size;
}

void wal_spares_begin(struct wal_spares *spares)
{
    assert(!spares->may_touch_old); /* invariant 4 */
    spares->may_touch_old = true;
}

void wal_spares_stats(const struct wal_spares *spares, struct wal_stats *stats)
{
    stats->recycled += spares->recycled;
}
