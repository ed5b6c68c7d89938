/* Housekeeping: one task at a time.
 *
 *   a new spare       CREATE -> ALLOCATE -> ZERO ... -> SYNC_ZEROS -> SYNC_NAME -> MARK
 *   a recycled one    MARK
 *   one too many      MARK, when the newest durable header lists it; and then, or later:
 *                     UNLINK -> SYNC_UNLINK -> CLOSE
 *
 * The mark comes last: a file that has it is zeroed as a whole, or held records once, and can be
 * written without the file system's journal. A segment counts as gone only once that is durable. */
#include "store/wal/wal_internal.h"
#include "base/plant.h"

#include <errno.h>
#include <string.h>

static void task_done(struct io_op *op, int32_t result);

static void write_mark(struct wal *wal, struct log_file *segment)
{
    struct log_file_header mark = {
        .state = WAL_HEADER_SPARE,
        .directory_id = wal->options.directory_id,
        .log_id = wal->options.log_id,
        .generation = segment->header.generation,
        .number = segment->header.number,
        .segment_size = segment->size,
        .durable = wal->keeper.is_recycling ? wal->durable : 0,
        .number_durable = wal->keeper.is_recycling ? wal->number_durable : 0,
        .note = wal_note(wal),
    };
    log_file_header_encode(&mark, NULL, wal->keeper.mark);
    io_write(wal->io, &wal->keeper.op, segment->handle, wal->keeper.mark, WAL_BLOCK_SIZE,
             WAL_MARK_OFFSET, IO_WRITE_DSYNC);
}

bool wal_keeper_is_active(const struct wal_keeper *keeper)
{
    bool is_active = io_op_is_active(&keeper->op);
    for (uint32_t i = 0; i < WAL_ZEROS_IN_FLIGHT; i++)
        is_active |= io_op_is_active(&keeper->zeroing[i].op);
    return is_active;
}

static void zeros_done(struct io_op *op, int32_t result);

/* Several writes at once: else the log, at its fastest, fills a segment before the next is made. */
static void write_zeros(struct wal *wal)
{
    struct wal_keeper *keeper = &wal->keeper;
    for (uint32_t i = 0; i < WAL_ZEROS_IN_FLIGHT; i++) {
        struct wal_zeros *zeros = &keeper->zeroing[i];
        uint64_t left = keeper->segment->size - keeper->zeroed;
        if (io_op_is_active(&zeros->op) || left == 0)
            continue;
        zeros->wal = wal;
        zeros->size = (uint32_t)min_u64(WAL_ZEROS_SIZE, left);
        zeros->op.done = zeros_done;
        io_write(wal->io, &zeros->op, keeper->segment->handle, keeper->zeros, zeros->size,
                 keeper->zeroed, IO_WRITE_PLAIN);
        keeper->zeroed += zeros->size;
    }
}

/* Every change of the keeper's task goes through here. */
static void start_task(struct wal *wal, enum wal_task task)
{
    struct wal_keeper *keeper = &wal->keeper;
    struct log_file *segment = keeper->segment;
    keeper->task = task;
    keeper->op.done = task_done;
    switch (task) {
    case WAL_TASK_NONE:
        keeper->segment = NULL;
        break;
    case WAL_TASK_CREATE:
        io_open_file(wal->io, &keeper->op, segment->path,
                     IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE | IO_OPEN_DIRECT);
        break;
    case WAL_TASK_ALLOCATE:
        io_allocate(wal->io, &keeper->op, segment->handle, segment->size);
        break;
    case WAL_TASK_ZERO:
        write_zeros(wal);
        break;
    case WAL_TASK_SYNC_ZEROS:
        io_sync(wal->io, &keeper->op, segment->handle);
        break;
    case WAL_TASK_MARK:
        write_mark(wal, segment);
        break;
    case WAL_TASK_UNLINK:
        io_unlink(wal->io, &keeper->op, segment->path);
        break;
    case WAL_TASK_SYNC_NAME:
    case WAL_TASK_SYNC_UNLINK:
        io_sync(wal->io, &keeper->op, wal->directory_handle);
        break;
    case WAL_TASK_CLOSE:
        io_close_file(wal->io, &keeper->op, segment->handle);
        break;
    }
}

static void finish_spare(struct wal *wal)
{
    struct wal_keeper *keeper = &wal->keeper;
    struct log_file *segment = keeper->segment;
    wal->stats.recycled += keeper->is_recycling;
    segment->state = LOG_FILE_SPARE;
    list_push_back(&wal->spares, &segment->node);
    wal->spare_count++;
    start_task(wal, WAL_TASK_NONE);
    if (wal->disk_full && wal->spare_count >= WAL_SPARES_WANTED) {
        wal->disk_full = false;
        log_info(wal->log, "%s: there is room again: writes are accepted", wal->directory);
    }
    wal_judge_hindrance(wal);
    wal_keep(wal);
    wal_tell_room(wal);
}

/* Whether so many spares are not too many. */
static bool may_keep(const struct wal *wal, uint64_t count)
{
    if (count <= WAL_SPARES_KEPT)
        return true;
    uint64_t more = (count - WAL_SPARES_KEPT) * wal->options.segment_size;
    return wal_sealed_bytes(wal) + more <= wal->spares_below;
}

static bool is_wanted(const struct wal *wal, const struct log_file *segment)
{
    return !segment->is_discarded && segment->size == wal->options.segment_size &&
           may_keep(wal, wal->spare_count + 1);
}

static void finish_mark(struct wal *wal)
{
    struct log_file *segment = wal->keeper.segment;
    if (!wal->keeper.is_recycling || is_wanted(wal, segment)) {
        finish_spare(wal);
        return;
    }
    segment->state = LOG_FILE_MARKED;
    list_push_back(&wal->marked, &segment->node);
    start_task(wal, WAL_TASK_NONE);
    wal_keep(wal);
}

static void finish_removed(struct wal *wal)
{
    struct log_file *segment = wal->keeper.segment;
    start_task(wal, WAL_TASK_NONE);
    wal_table_remove(&wal->table, segment);
    wal_keep(wal);
}

/* ---- a full disk ---- */

static void retry_done(struct io_op *op, int32_t result)
{
    struct wal *wal = container_of(op, struct wal, keeper.timer);
    if (result != 0)
        return;
    wal_keep(wal);
    wal_tell_room(wal);
}

static void note_full(struct wal *wal, int error)
{
    if (!wal->disk_full)
        log_warn(wal->log,
                 "%s: no room for another segment of %llu bytes: %s. Deletes and reads go on; "
                 "writes are refused once "
                 "the segments at hand are full. Free some space: they go on by themselves",
                 wal->directory, (unsigned long long)wal->options.segment_size, strerror(-error));
    wal->disk_full = true;
    wal_judge_hindrance(wal);
    if (!io_op_is_active(&wal->keeper.timer)) {
        wal->keeper.timer.done = retry_done;
        io_timer(wal->io, &wal->keeper.timer, io_now_ns(wal->io) + WAL_RETRY_NS);
    }
}

static bool is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -ENFILE || error == -EMFILE ||
           error == -EFBIG;
}

/* A try on a full disk would take what is left away from others for a moment. */
static bool is_known_full(const struct wal *wal)
{
    uint64_t free_size;
    uint64_t total_size;
    return (wal->disk_full || wal->kept_free > 0) &&
           io_disk_space(wal->io, wal->directory, &free_size, &total_size) == 0 &&
           free_size < wal->segment_size_next + wal->kept_free;
}

static void task_failed(struct wal *wal, int error)
{
    struct wal_keeper *keeper = &wal->keeper;
    struct log_file *segment = keeper->segment;
    if (segment->state != LOG_FILE_PREPARING || !is_full(error)) {
        start_task(wal, WAL_TASK_NONE);
        wal_fail(wal, error, "keeping segments");
        return;
    }
    if (keeper->task == WAL_TASK_CREATE) {
        start_task(wal, WAL_TASK_NONE);
        wal_table_remove(&wal->table, segment);
    } else {
        segment->state = LOG_FILE_LEAVING;
        start_task(wal, WAL_TASK_UNLINK);
    }
    note_full(wal, error);
    wal_tell_room(wal);
}

/* ---- the ways ---- */

static void next_task(struct wal *wal)
{
    struct wal_keeper *keeper = &wal->keeper;
    switch (keeper->task) {
    case WAL_TASK_NONE:
        assert(false);
        break;
    case WAL_TASK_CREATE:
        start_task(wal, WAL_TASK_ALLOCATE);
        break;
    case WAL_TASK_ALLOCATE:
        start_task(wal, WAL_TASK_ZERO);
        break;
    case WAL_TASK_ZERO:
        start_task(wal, WAL_TASK_SYNC_ZEROS);
        break;
    case WAL_TASK_SYNC_ZEROS:
        start_task(wal, plant_is(PLANT_SKIP_DIRECTORY_SYNC) ? WAL_TASK_MARK : WAL_TASK_SYNC_NAME);
        break;
    case WAL_TASK_SYNC_NAME:
        start_task(wal, WAL_TASK_MARK);
        break;
    case WAL_TASK_MARK:
        finish_mark(wal);
        break;
    case WAL_TASK_UNLINK:
        start_task(wal, WAL_TASK_SYNC_UNLINK);
        break;
    case WAL_TASK_SYNC_UNLINK:
        start_task(wal, WAL_TASK_CLOSE);
        break;
    case WAL_TASK_CLOSE:
        finish_removed(wal);
        break;
    }
}

/* A file system that cannot reserve blocks has them reserved by the zeros. */
static int32_t judge(const struct wal_keeper *keeper, int32_t result)
{
    if (keeper->task == WAL_TASK_ALLOCATE && result == -EOPNOTSUPP)
        return 0;
    if (keeper->task == WAL_TASK_UNLINK && result == -ENOENT)
        return 0;
    if (keeper->task == WAL_TASK_MARK && result >= 0 && (uint32_t)result != WAL_BLOCK_SIZE)
        return -EIO;
    return result;
}

static void go_on(struct wal *wal, int result)
{
    if (wal->failed != 0 || wal->is_shutting) {
        /* What is half done, recovery clears away. */
        start_task(wal, WAL_TASK_NONE);
        return;
    }
    if (result < 0)
        task_failed(wal, result);
    else
        next_task(wal);
}

static void task_done(struct io_op *op, int32_t result)
{
    struct wal *wal = container_of(op, struct wal, keeper.op);
    struct wal_keeper *keeper = &wal->keeper;
    int32_t judged = judge(keeper, result);
    if (keeper->task == WAL_TASK_CREATE && result >= 0)
        keeper->segment->handle = result;
    if (keeper->task == WAL_TASK_CLOSE)
        keeper->segment->handle = -1;
    go_on(wal, judged);
}

static void zeros_done(struct io_op *op, int32_t result)
{
    struct wal_zeros *zeros = container_of(op, struct wal_zeros, op);
    struct wal *wal = zeros->wal;
    struct wal_keeper *keeper = &wal->keeper;
    int error = result >= 0 && (uint32_t)result != zeros->size ? -EIO : (result < 0 ? result : 0);
    if (keeper->zero_error == 0)
        keeper->zero_error = error;
    if (keeper->zero_error == 0 && wal->failed == 0 && !wal->is_shutting)
        write_zeros(wal);
    if (!wal_keeper_is_active(keeper))
        go_on(wal, keeper->zero_error);
}

static void prepare(struct wal *wal)
{
    bool is_last_try = wal->segment_size_next < wal->options.segment_size;
    if (io_op_is_active(&wal->keeper.timer) && !is_last_try)
        return;
    if (is_known_full(wal)) {
        note_full(wal, -ENOSPC);
        return;
    }
    struct log_file *segment;
    int error = wal_table_add(&wal->table, wal->directory, wal->serial + 1, &segment);
    if (error < 0) {
        if (is_full(error))
            note_full(wal, error);
        else
            wal_fail(wal, error, "keeping segments");
        return;
    }
    wal->serial++;
    segment->state = LOG_FILE_PREPARING;
    segment->size = wal->segment_size_next;
    wal->keeper.segment = segment;
    wal->keeper.zeroed = 0;
    wal->keeper.zero_error = 0;
    wal->keeper.is_recycling = false;
    start_task(wal, WAL_TASK_CREATE);
}

static void leave(struct wal *wal, struct log_file *segment)
{
    list_remove(&segment->node);
    bool wants_mark = segment->state == LOG_FILE_SEALED &&
                      (is_wanted(wal, segment) || !log_file_is_unlisted(wal, segment));
    wal->spare_count -= segment->state == LOG_FILE_SPARE;
    wal_judge_hindrance(wal);
    segment->state = LOG_FILE_LEAVING;
    wal->keeper.segment = segment;
    wal->keeper.is_recycling = true;
    start_task(wal, wants_mark ? WAL_TASK_MARK : WAL_TASK_UNLINK);
}

static struct log_file *find_free(const struct wal *wal)
{
    for (struct list_node *node = list_first(&wal->drained); node != NULL;
         node = list_next(&wal->drained, node)) {
        struct log_file *segment = container_of(node, struct log_file, node);
        if (log_file_is_free(wal, segment))
            return segment;
    }
    return NULL;
}

/* A marked one whose mark nobody needs any more. */
static struct log_file *find_marked(const struct wal *wal)
{
    for (struct list_node *node = list_first(&wal->marked); node != NULL;
         node = list_next(&wal->marked, node)) {
        struct log_file *segment = container_of(node, struct log_file, node);
        if (log_file_is_unlisted(wal, segment))
            return segment;
    }
    return NULL;
}

struct log_file *wal_surplus(const struct wal *wal)
{
    return may_keep(wal, wal->spare_count)
               ? NULL
               : container_of(list_last(&wal->spares), struct log_file, node);
}

static struct log_file *find_surplus(const struct wal *wal)
{
    struct log_file *last = wal_surplus(wal);
    return last != NULL && log_file_is_unlisted(wal, last) ? last : NULL;
}

/* Nothing old is touched before the new generation's first header says where the old one ended. */
static struct log_file *find_leaving(const struct wal *wal)
{
    if (!wal->has_begun)
        return NULL;
    struct log_file *segment = find_free(wal);
    if (segment == NULL)
        segment = find_marked(wal);
    return segment != NULL ? segment : find_surplus(wal);
}

bool wal_is_clearing(const struct wal *wal)
{
    bool is_leaving = wal->keeper.segment != NULL && wal->keeper.segment->state == LOG_FILE_LEAVING;
    return is_leaving || find_free(wal) != NULL || find_marked(wal) != NULL;
}

void wal_keep(struct wal *wal)
{
    if (wal->keeper.task != WAL_TASK_NONE || wal->failed != 0 || wal->is_shutting)
        return;
    struct log_file *segment = find_leaving(wal);
    if (segment != NULL)
        leave(wal, segment);
    else if (wal->spare_count < (wal->is_held || wal->options.is_brief ? 1 : WAL_SPARES_WANTED))
        prepare(wal);
}
