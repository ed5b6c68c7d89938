/* The reader's way through an input:
 *
 *   open -> pin -> [ unit -> its records, some looked up ahead ]* -> end -> close -> unpin
 *
 * A unit is a batch of a log file or a chunk of a segment. What its checksums refuse is searched
 * through block by block for the next sound header.
 *
 * Invariants:
 * 1. The unit lies within the input, and its records within the unit.
 * 2. The records ahead are all of the present unit: it is left when none is ahead and none is left.
 * 3. An input is pinned from its opening until it is let go, which waits for the reads in flight.
 * 4. Positions in an input only grow. */
#include "store/mover/mover_read.h"

#include "base/assert.h"
#include "store/disk/findings.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- batches and chunks ---- */

static struct finding finding_at(const struct mover_input *input, uint64_t offset)
{
    bool is_segment = input->units.file.is_segment;
    return (struct finding){.kind = is_segment ? FINDING_SEGMENT : FINDING_LOG,
                            .number = input->units.file.number,
                            .offset = offset};
}

/* The input's file, which is pinned, or was to be. */
static const char *path_of(const struct mover_reader *reader)
{
    const struct mover_input *input = &reader->input;
    uint64_t number;
    return input->units.file.is_segment
               ? segments_find(reader->options->segments, input->file)->path
               : wal_name_file(reader->options->wal, input->file, &number);
}

/* Whether anything of it is still needed. */
static bool is_needed(const struct mover_reader *reader)
{
    const struct mover_input *input = &reader->input;
    return input->units.file.is_segment
               ? segments_find(reader->options->segments, input->file)->live_records > 0
               : wal_file_is_alive(reader->options->wal, input->file);
}

static void note_damage(struct mover_reader *reader, uint64_t offset, bool is_alive,
                        const char *what)
{
    struct finding finding = finding_at(&reader->input, offset);
    reader->input.is_damaged = true;
    findings_damage(reader->options->findings, &finding, is_alive,
                    "%s is damaged at offset %" PRIu64
                    ": %s. It is kept as it is, what can be read of it is moved; check the device",
                    path_of(reader), offset, what);
}

/* The file does not give what is at this offset. Until it does it is left alone. */
static void note_error(struct mover_reader *reader, uint64_t offset, int error)
{
    struct finding finding = finding_at(&reader->input, offset);
    if (error == -ENOENT || disk_is_device_error(error)) {
        note_damage(reader, offset, is_needed(reader), strerror(-error));
        return;
    }
    reader->input.is_damaged |= !disk_is_passing(error);
    findings_unreadable(reader->options->findings, &finding, path_of(reader), error);
}

/* A unit_need. */
static int need(void *context, uint64_t offset, uint64_t size, const uint8_t **ret_data)
{
    struct mover_reader *reader = context;
    int result = mover_window_need(&reader->window, offset, size, ret_data);
    uint64_t file_offset;
    int failure = mover_window_failure(&reader->window, &file_offset);
    if (failure < 0)
        note_error(reader, file_offset, failure);
    return result;
}

/* Finds the next unit. Returns WAIT, SKIPPED, END, or RECORD: it is ready. */
static enum mover_read begin_unit(struct mover_reader *reader)
{
    struct mover_input *input = &reader->input;
    assert(!input->is_in_unit); /* invariant 2 */
    switch (unit_scan_step(&input->units)) {
    case UNIT_FOUND:
        assert(input->units.at <= input->units.file.end); /* invariant 1 */
        input->is_in_unit = true;
        input->cursor = (struct unit_cursor){0};
        return MOVER_READ_RECORD;
    case UNIT_DAMAGED:
        note_damage(reader, input->units.damage.from, is_needed(reader),
                    unit_describe(&input->units.damage));
        return MOVER_READ_SKIPPED;
    case UNIT_SKIPPED:
        input->is_damaged = true;
        return MOVER_READ_SKIPPED;
    case UNIT_WAIT:
        return MOVER_READ_WAIT;
    case UNIT_END:
        break;
    }
    return MOVER_READ_END;
}

/* ---- records ---- */

static bool has_records_left(const struct mover_input *input)
{
    return input->is_in_unit && input->cursor.index < input->units.unit.record_count;
}

static void look_ahead(struct mover_reader *reader)
{
    struct mover_input *input = &reader->input;
    while (reader->ahead_count < MOVER_AHEAD && has_records_left(input)) {
        uint32_t slot = (reader->ahead_first + reader->ahead_count) % MOVER_AHEAD;
        struct unit_record found;
        if (unit_next(&input->units.unit, input->units.data, &input->cursor, &found) < 0) {
            note_damage(reader, found.offset, is_needed(reader), "a record's checksum is wrong");
            return;
        }
        mover_record_locate(reader->options, input->units.file.is_segment, input->file,
                            input->partition, &found, &reader->ahead[slot]);
        reader->ahead_count++;
    }
    if (reader->ahead_count > MOVER_NEAR)
        mover_record_prefetch(reader->options,
                              &reader->ahead[(reader->ahead_first + MOVER_NEAR) % MOVER_AHEAD]);
}

static enum mover_read take_record(struct mover_reader *reader, struct mover_record *ret_record)
{
    look_ahead(reader);
    if (reader->ahead_count == 0)
        return MOVER_READ_SKIPPED;
    *ret_record = reader->ahead[reader->ahead_first];
    reader->ahead_first = (reader->ahead_first + 1) % MOVER_AHEAD;
    reader->ahead_count--;
    uint64_t offset;
    int result = mover_record_judge(reader->options, reader->stats, ret_record, &offset);
    if (result < 0)
        note_damage(reader, offset, !ret_record->is_hidden, "a record's checksum is wrong");
    return result > 0 ? MOVER_READ_RECORD : MOVER_READ_SKIPPED;
}

enum mover_read mover_reader_next(struct mover_reader *reader, struct mover_record *ret_record)
{
    struct mover_input *input = &reader->input;
    if (!reader->has_input)
        return MOVER_READ_NONE;
    assert(!reader->is_closing); /* invariant 3 */
    if (reader->is_pinning)
        return MOVER_READ_WAIT;
    if (input->handle < 0)
        return MOVER_READ_END;
    if (!has_records_left(input) && reader->ahead_count == 0) {
        input->is_in_unit = false;
        enum mover_read unit = begin_unit(reader);
        if (unit != MOVER_READ_RECORD)
            return unit;
        if (!has_records_left(input)) /* a seal */
            return MOVER_READ_SKIPPED;
    }
    return take_record(reader, ret_record);
}

/* ---- where the next job goes on ---- */

void mover_reader_pause(struct mover_reader *reader)
{
    const struct mover_input *input = &reader->input;
    assert(reader->has_input);
    const struct unit_scan *units = &input->units;
    uint64_t at = input->is_in_unit ? units->unit.offset : units->at;
    reader->resume[units->file.is_segment] =
        (struct mover_resume){units->file.number, units->gap_from != 0 ? units->gap_from : at};
}

void mover_reader_forget(struct mover_reader *reader, bool is_segment)
{
    reader->resume[is_segment] = (struct mover_resume){0};
}

/* ---- opening and closing ---- */

void mover_reader_init(struct mover_reader *reader, struct io *io,
                       const struct mover_options *options, struct mover_stats *stats,
                       uint8_t *memory)
{
    *reader = (struct mover_reader){.options = options, .stats = stats};
    mover_window_init(&reader->window, io, options->window_size, memory, &stats->read_bytes);
}

static void begin_input(struct mover_reader *reader, const struct mover_input *input)
{
    const struct mover_resume *resume = &reader->resume[input->units.file.is_segment];
    assert(!reader->has_input);
    assert(!reader->is_closing); /* invariant 3 */
    reader->has_input = true;
    reader->input = *input;
    reader->input.handle = -1;
    struct unit_scan *units = &reader->input.units;
    units->file.directory_id = reader->options->directory_id;
    units->trusts_records = true;
    units->need = need;
    units->context = reader;
    if (resume->number == units->file.number)
        units->at = resume->at;
    reader->ahead_first = 0;
    reader->ahead_count = 0;
}

static void pinned(struct mover_reader *reader, int handle)
{
    assert(reader->input.handle < 0); /* invariant 3 */
    assert(handle >= 0);
    reader->input.handle = handle;
    mover_window_open(&reader->window, handle, reader->input.units.file.end);
}

static void pin_done(struct segment_pin *pin, int handle_or_error)
{
    struct mover_reader *reader = container_of(pin, struct mover_reader, pin);
    assert(reader->is_pinning);
    reader->is_pinning = false;
    if (handle_or_error >= 0) {
        pinned(reader, handle_or_error);
        return;
    }
    note_error(reader, 0, handle_or_error);
}

void mover_reader_open_log(struct mover_reader *reader, const struct wal_sealed *sealed)
{
    begin_input(
        reader,
        &(struct mover_input){
            .file = sealed->file,
            .units = {.file = {.number = sealed->number, .salt = sealed->salt, .end = sealed->end},
                      .at = WAL_DATA_OFFSET},
        });
    pinned(reader, wal_pin_file(reader->options->wal, sealed->file));
}

void mover_reader_open_segment(struct mover_reader *reader, struct segment *segment)
{
    begin_input(reader,
                &(struct mover_input){
                    .file = segment->file,
                    .partition = segment->partition,
                    .units = {.file = segment_unit_file(segment), .at = SEGMENT_DATA_OFFSET},
                });
    reader->pin.done = pin_done;
    reader->is_pinning = true;
    int handle = segment_pin(reader->options->segments, segment, &reader->pin);
    if (handle != -EINPROGRESS)
        pin_done(&reader->pin, handle);
}

static void let_go(struct mover_reader *reader)
{
    const struct mover_options *options = reader->options;
    const struct mover_input *input = &reader->input;
    assert(!mover_window_is_active(&reader->window)); /* invariant 3 */
    reader->is_closing = false;
    if (input->units.file.is_segment) {
        struct segment *segment = segments_find(options->segments, input->file);
        segment->is_damaged |= input->is_damaged;
        if (input->handle >= 0)
            segment_unpin(options->segments, segment);
    } else {
        if (input->is_damaged)
            wal_keep_damaged(options->wal, input->file);
        wal_unpin_file(options->wal, input->file);
    }
}

void mover_reader_close(struct mover_reader *reader)
{
    if (reader->has_input) {
        assert(!reader->is_pinning); /* invariant 3 */
        assert(!reader->is_closing);
        reader->has_input = false;
        reader->is_closing = true;
    }
    (void)mover_reader_settle(reader); /* also one that was closed while reads were on their way */
}

bool mover_reader_settle(struct mover_reader *reader)
{
    if (reader->is_pinning || mover_window_is_active(&reader->window))
        return false;
    if (reader->is_closing)
        let_go(reader);
    return true;
}
