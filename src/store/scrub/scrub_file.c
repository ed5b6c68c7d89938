/* Reading a log file or segment, unit by unit (unit.h), through a window of a megabyte.
 *
 * Where the device refuses a window, only what is needed is asked for, so that a bad block costs no
 * more than the batch or chunk that it is in. In the log a batch's checksum has spoken for its
 * records; in a segment each speaks for itself, and the directory and the index have to agree. */
#include "store/scrub/scrub_file.h"

#include "base/assert.h"
#include "store/disk/wait.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* What looking at a header costs of a step's budget; and a record beside its bytes: a look into the
 * index. */
#define HEADER_COST 256u
#define RECORD_COST 256u

void scrub_file_init(struct scrub_file *file, struct io *io, const struct scrub_options *options,
                     struct scrub_rate *rate, struct findings *findings)
{
    *file = (struct scrub_file){.io = io,
                                .options = options,
                                .rate = rate,
                                .findings = findings,
                                .window = {.data = options->memory}};
    scrub_value_init(&file->value, io, options, rate, findings);
}

/* NULL: it was removed. */
static struct segment *find_segment(const struct scrub_file *file)
{
    assert(file->is_segment);
    return segments_find_number(file->options->segments, file->number);
}

static bool is_there(const struct scrub_file *file)
{
    return file->is_segment ? find_segment(file) != NULL
                            : wal_file_path(file->options->wal, file->index, file->number) != NULL;
}

/* ---- reports ---- */

static struct finding finding_at(const struct scrub_file *file, uint64_t offset)
{
    return (struct finding){.kind = file->is_segment ? FINDING_SEGMENT : FINDING_LOG,
                            .number = file->number,
                            .offset = offset};
}

static const char *path_of(struct scrub_file *file)
{
    assert(is_there(file));
    if (file->is_segment)
        return find_segment(file)->path;
    return wal_file_path(file->options->wal, file->index, file->number);
}

/* What is alive in a damaged segment stays where it can be read: it is no longer compacted. */
static void note_damage(struct scrub_file *file, bool is_alive)
{
    file->has_damage = true;
    if (is_alive && file->is_segment)
        find_segment(file)->is_damaged = true;
}

/* [offset, end) cannot be used, and nobody knows what was in there. */
static void report_part(struct scrub_file *file, uint64_t offset, uint64_t end, const char *what)
{
    assert(offset < end);
    struct finding finding = finding_at(file, offset);
    bool is_alive = file->is_segment ? find_segment(file)->live_records > 0
                                     : wal_file_is_alive(file->options->wal, file->index);
    note_damage(file, is_alive);
    findings_damage(file->findings, &finding, is_alive,
                    "%s is damaged from offset %" PRIu64 " to %" PRIu64
                    ": %s. Keys that lie there answer CORRUPT, or may be missing after the "
                    "next start: restore them from a replica or a backup, and check the device",
                    path_of(file), offset, end, what);
}

/* `is_slot`: the index leads to it; `is_newest`: and to nothing newer. */
static void report_record(struct scrub_file *file, uint64_t offset, bool is_slot, bool is_newest,
                          const char *what)
{
    assert(is_slot || !is_newest);
    struct finding finding = finding_at(file, offset);
    file->has_alive_damage |= is_slot;
    note_damage(file, is_slot);
    findings_damage(file->findings, &finding, is_newest,
                    "%s: the record at offset %" PRIu64
                    " is damaged: %s. Its key answers CORRUPT: write it again, or restore it "
                    "from a replica or a backup, and check the device",
                    path_of(file), offset, what);
}

/* The index has `count` more in the segment than were found there. */
static void report_lost(struct scrub_file *file, uint64_t count)
{
    struct finding finding = finding_at(file, UINT64_MAX);
    file->has_alive_damage = true;
    note_damage(file, true);
    findings_damage(file->findings, &finding, true,
                    "%s: %" PRIu64 " records that should be in it are not: the device has not "
                    "written all that it said. Their keys answer CORRUPT: restore them from a "
                    "replica or a backup, and replace the device",
                    path_of(file), count);
}

/* ---- the window ---- */

static void unpin(struct scrub_file *file)
{
    if (file->is_segment)
        segment_unpin(file->options->segments, file->pin.segment);
    else
        wal_unpin_file(file->options->wal, file->index);
}

/* It cannot be read, which says nothing of what is in it. */
static void abandon(struct scrub_file *file, int error)
{
    struct finding finding = finding_at(file, 0);
    file->is_abandoned = true;
    if (is_there(file))
        findings_unreadable(file->findings, &finding, path_of(file), error);
}

static void read_done(struct io_op *op, int32_t result)
{
    struct scrub_file *file = container_of(op, struct scrub_file, op);
    assert(file->phase == SCRUB_FILE_LOADING); /* invariant 3 */
    unpin(file);
    file->phase = SCRUB_FILE_CHECKING;
    if (result >= 0) {
        struct finding finding = finding_at(file, 0);
        file->window.size = (uint32_t)result;
        scrub_rate_count(file->rate, (uint32_t)result);
        findings_readable(file->findings, &finding);
        return;
    }
    file->window.error = result;
    if (!disk_is_device_error(result))
        abandon(file, result);
}

static void start_read(struct scrub_file *file, int handle)
{
    struct scrub_window *window = &file->window;
    file->op.done = read_done;
    io_read(file->io, &file->op, handle, window->data, window->asked, window->offset);
    scrub_rate_pay(file->rate, window->asked);
}

static void pinned(struct segment_pin *pin, int handle_or_error)
{
    struct scrub_file *file = container_of(pin, struct scrub_file, pin);
    file->is_pinning = false;
    if (handle_or_error >= 0) {
        start_read(file, handle_or_error);
        return;
    }
    file->phase = SCRUB_FILE_CHECKING;
    bool is_lost = handle_or_error == -ENOENT || disk_is_device_error(handle_or_error);
    file->is_abandoned = true;
    if (!is_lost)
        abandon(file, handle_or_error);
    else if (is_there(file))
        report_part(file, 0, file->units.file.end, strerror(-handle_or_error));
}

/* Opening the file may come first. */
static void load(struct scrub_file *file)
{
    struct scrub_window *window = &file->window;
    if (!scrub_rate_may_read(file->rate))
        return;
    window->offset = file->next_offset;
    window->asked = file->next_size;
    window->size = 0;
    window->error = 0;
    if (!file->is_segment) {
        start_read(file, wal_pin_file(file->options->wal, file->index));
        return;
    }
    file->pin.done = pinned;
    file->is_pinning = true;
    int handle = segment_pin(file->options->segments, find_segment(file), &file->pin);
    if (handle != -EINPROGRESS)
        pinned(&file->pin, handle);
}

/* A unit_need: -EAGAIN has LOADING read it. */
static int need(void *context, uint64_t offset, uint64_t size, const uint8_t **ret_data)
{
    struct scrub_file *file = context;
    struct scrub_window *window = &file->window;
    uint32_t needed = (uint32_t)round_up(size, DISK_BLOCK_SIZE);
    assert(needed <= SCRUB_WINDOW_SIZE);
    if (offset >= window->offset && offset + size <= window->offset + window->size) {
        *ret_data = window->data + (offset - window->offset);
        return 0;
    }
    bool is_narrow = window->offset == offset && window->asked > 0;
    bool was_tried = is_narrow && window->asked >= needed;
    if (was_tried && window->error == 0)
        return -ERANGE;
    if (was_tried && window->asked == needed)
        return window->error;
    file->next_offset = offset;
    file->next_size =
        is_narrow ? needed : (uint32_t)min_u64(SCRUB_WINDOW_SIZE, file->units.file.end - offset);
    file->phase = SCRUB_FILE_LOADING;
    return -EAGAIN;
}

/* ---- the header ---- */

static bool is_header_sound(const struct scrub_file *file, const uint8_t *block)
{
    const struct unit_file *units = &file->units.file;
    if (file->is_segment) {
        struct segment_header expected = {.partition = file->partition,
                                          .directory_id = units->directory_id,
                                          .number = units->number,
                                          .salt = units->salt};
        return segment_header_check(block, &expected) == 0;
    }
    struct log_file_header header;
    return log_file_header_decode(block, &header) == 0 && header.state == WAL_HEADER_ACTIVE &&
           header.directory_id == units->directory_id && header.number == units->number &&
           header.salt == units->salt;
}

static void check_header(struct scrub_file *file)
{
    const uint8_t *block;
    int error = need(file, 0, DISK_BLOCK_SIZE, &block);
    if (error == -EAGAIN)
        return;
    const char *problem = NULL;
    if (error < 0)
        problem = error == -ERANGE ? "the file ends before" : strerror(-error);
    else if (!is_header_sound(file, block))
        problem = file->is_segment ? "the segment's header is corrupt"
                                   : "the log file's header is corrupt";
    if (problem != NULL)
        report_part(file, 0, DISK_BLOCK_SIZE, problem);
    file->units.at = file->is_segment ? SEGMENT_DATA_OFFSET : WAL_DATA_OFFSET;
}

/* ---- records ---- */

static bool is_slot(const struct scrub_file *file, struct hash_place place, struct version version,
                    uint64_t location, struct index_entry *ret_slot)
{
    return index_get(file->options->index, place.partition, place.hash, version, ret_slot) == 0 &&
           ret_slot->location == location;
}

static void check_value(struct scrub_file *file, const struct unit_record *record, uint64_t hash)
{
    if (scrub_value_begin(&file->value, &record->record, hash) == 0)
        file->phase = SCRUB_FILE_VALUE;
    else
        report_record(file, record->offset, true, true, "its value's descriptor makes no sense");
}

/* Only a record that names a file needs more than the batch's checksum. */
static void check_in_batch(struct scrub_file *file, const struct unit_record *record)
{
    struct index_entry slot;
    if ((record->record.flags & RECORD_IN_VALUE_FILE) == 0)
        return;
    const struct slice *key = &record->record.key;
    struct hash_place place = hash_place(file->options->secret, key->data, key->size);
    if (is_slot(file, place, record->record.version, location_in_log(file->index, record->offset),
                &slot))
        check_value(file, record, place.hash);
}

/* NULL: the record is what the directory says, and where it is alive, what the index says. */
static const char *judge_record(const struct scrub_file *file, struct unit_record *record,
                                const struct index_entry *slot)
{
    const struct segment_entry *entry = &record->entry;
    int error = unit_record_verify(record, file->partition, file->options->secret);
    if (error == -ESTALE)
        return "it is not the one that the chunk's directory names";
    if (error < 0)
        return "its checksum is wrong";
    bool is_right =
        slot == NULL || (slot->read_size >= record->size && slot->tombstone == entry->tombstone &&
                         slot->in_value_file == entry->in_value_file);
    return is_right ? NULL : "the index says something else of it";
}

/* A damaged record. Behind a newer write of its hash it can hurt nobody, once that is proved to be
 * its key's. */
static void note_record(struct scrub_file *file, const struct unit_record *record, bool is_alive,
                        const char *problem)
{
    const struct segment_entry *entry = &record->entry;
    bool is_newest = is_alive && index_is_newest(file->options->index, file->partition, entry->hash,
                                                 entry->version);
    if (is_alive && !is_newest)
        file->options->owner.prove(file->options->owner.context, file->partition, entry->hash);
    report_record(file, record->offset, is_alive, is_newest, problem);
}

static void check_in_chunk(struct scrub_file *file, struct unit_record *record)
{
    struct index_entry slot;
    struct hash_place place = {.hash = record->entry.hash, .partition = file->partition};
    bool is_alive = is_slot(file, place, record->entry.version,
                            location_in_segment(file->index, record->offset), &slot);
    file->found_alive += is_alive;
    const char *problem = judge_record(file, record, is_alive ? &slot : NULL);
    if (problem != NULL)
        note_record(file, record, is_alive, problem);
    else if (is_alive && record->entry.in_value_file)
        check_value(file, record, record->entry.hash);
}

/* The next record of the unit. Returns what it costs. */
static uint64_t check_record(struct scrub_file *file)
{
    const struct unit *unit = &file->units.unit;
    struct unit_record record;
    int result = unit_next(unit, file->units.data, &file->cursor, &record);
    file->is_in_unit = result == 1;
    if (result == 0)
        return 0;
    if (result < 0) {
        report_part(file, unit->offset, unit->offset + unit->size,
                    "a record in a sound batch is not one");
        return 0;
    }
    assert(record.offset + record.size <= file->window.offset + file->window.size); /* 1 */
    if (file->is_segment)
        check_in_chunk(file, &record);
    else
        check_in_batch(file, &record);
    return record.size + (file->is_segment ? RECORD_COST : 0);
}

/* ---- units ---- */

/* Returns what it costs. */
static uint64_t check_unit(struct scrub_file *file)
{
    struct unit_scan *units = &file->units;
    enum unit_step step = unit_scan_step(units);
    if (step == UNIT_DAMAGED)
        report_part(file, units->damage.from, units->damage.upto, unit_describe(&units->damage));
    if (step != UNIT_FOUND)
        return HEADER_COST;
    file->is_in_unit = true;
    file->cursor = (struct unit_cursor){0};
    return HEADER_COST + (file->is_segment ? units->unit.records_offset : units->unit.size);
}

/* A chunk that was never written over an older one of the same segment looks sound: only the index
 * knows what should be there. While the mover works, both sides change. A segment of which nothing
 * that is alive is damaged by now is like any other. */
static void end_segment(struct scrub_file *file)
{
    struct mover_stats moved;
    mover_stats(file->options->mover, &moved);
    struct segment *segment = find_segment(file);
    bool is_still = moved.jobs == file->jobs_begin && !mover_is_busy(file->options->mover) &&
                    segment->end == file->units.file.end;
    bool is_complete = segment->live_records <= file->found_alive;
    if (is_still && !is_complete && !file->has_damage)
        report_lost(file, segment->live_records - file->found_alive);
    if (!is_still || !is_complete || file->has_alive_damage)
        return;
    findings_segment_sound(file->findings, file->number);
    if (!segment->has_loss) /* whose lost part a start may have to look for again */
        segment->is_damaged = false;
}

static void check(struct scrub_file *file, uint64_t budget)
{
    for (uint64_t used = 0; used < budget && file->phase == SCRUB_FILE_CHECKING;) {
        bool is_read = file->units.at >= file->units.file.end && file->units.gap_from == 0;
        if (file->is_abandoned) {
            findings_incomplete(file->findings);
            file->phase = SCRUB_FILE_OVER;
        } else if (file->is_in_unit) {
            used += check_record(file);
        } else if (is_read) {
            if (file->is_segment)
                end_segment(file);
            file->phase = SCRUB_FILE_OVER;
        } else if (file->units.at == 0) {
            check_header(file);
        } else {
            used += check_unit(file);
        }
    }
}

/* ---- a file ---- */

static uint64_t begin(struct scrub_file *file, const struct unit_file *units, uint32_t index)
{
    assert(file->phase == SCRUB_FILE_OVER);
    assert(units->end % DISK_BLOCK_SIZE == 0);
    file->phase = SCRUB_FILE_CHECKING;
    file->is_segment = units->is_segment;
    file->index = index;
    file->number = units->number;
    file->units = (struct unit_scan){.file = *units, .need = need, .context = file};
    file->units.file.directory_id = file->options->directory_id;
    file->window.asked = file->window.size = 0;
    file->is_in_unit = file->has_damage = file->has_alive_damage = file->is_abandoned = false;
    file->found_alive = 0;
    return file->number;
}

uint64_t scrub_file_begin_segment(struct scrub_file *file, uint8_t partition, uint64_t after)
{
    const struct segment *segment = segments_first(file->options->segments, partition);
    for (; segment != NULL; segment = segment_next(segment)) {
        if (segment->number <= after || segment->end <= SEGMENT_DATA_OFFSET)
            continue;
        struct mover_stats moved;
        mover_stats(file->options->mover, &moved);
        file->partition = partition;
        file->jobs_begin = mover_is_busy(file->options->mover) ? UINT64_MAX : moved.jobs;
        struct unit_file units = segment_unit_file(segment);
        return begin(file, &units, segment->file);
    }
    return 0;
}

uint64_t scrub_file_begin_log(struct scrub_file *file, uint64_t after, uint64_t last)
{
    struct wal_sealed next;
    if (!wal_next_readable(file->options->wal, after, last, &next))
        return 0;
    struct unit_file units = {.salt = next.salt, .number = next.number, .end = next.end};
    return begin(file, &units, next.file);
}

enum scrub_progress scrub_file_step(struct scrub_file *file, uint64_t budget)
{
    if (file->phase == SCRUB_FILE_OVER)
        return SCRUB_OVER;
    if (file->is_pinning || io_op_is_active(&file->op))
        return SCRUB_WAITS;
    if (file->phase == SCRUB_FILE_VALUE) {
        enum scrub_progress progress = scrub_value_step(&file->value, budget);
        if (progress != SCRUB_OVER)
            return progress;
        file->phase = SCRUB_FILE_CHECKING;
    }
    if (!is_there(file)) {
        file->phase = SCRUB_FILE_OVER;
        return SCRUB_OVER;
    }
    if (file->phase == SCRUB_FILE_LOADING) {
        load(file);
        return SCRUB_WAITS;
    }
    check(file, budget);
    return SCRUB_GOES_ON;
}

bool scrub_file_stop(struct scrub_file *file)
{
    return file->is_pinning || io_op_is_active(&file->op) || scrub_value_stop(&file->value);
}
