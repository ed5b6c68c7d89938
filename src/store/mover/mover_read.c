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
#include "base/hash.h"
#include "store/memory/location.h"
#include "store/mover/mover_stage.h"
#include "store/unit/segment_format.h"
#include "store/unit/wal_format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- batches and chunks ---- */

/* As messages call it. */
static const char *kind_of(const struct mover_input *input)
{
    return input->is_segment ? "partition" : "log";
}

static void note_damage(struct mover_reader *reader)
{
    struct mover_input *input = &reader->input;
    log_error(reader->log,
              "%s segment %" PRIu64 " is damaged at offset %" PRIu64
              ": it is kept as it is, what can be read of it is moved",
              kind_of(input), input->number, input->at);
    input->is_damaged = true;
}

/* Of a batch or chunk, as its header says. */
struct unit {
    uint64_t size; /* in the file */
    uint32_t records;
    uint32_t records_offset; /* in the unit */
};

/* Each decodes the header at input->at, which is in the window. Errors: -EBADMSG. */
static int decode_batch(const struct mover_input *input, const uint8_t *data, struct unit *ret_unit)
{
    struct wal_batch_header header;
    if (wal_batch_header_decode(data, &header) < 0 || header.segment != input->number ||
        header.salt != input->salt || header.offset != input->at)
        return -EBADMSG;
    *ret_unit = (struct unit){wal_batch_size(&header), header.record_count, WAL_BATCH_HEADER_SIZE};
    return 0;
}

static int decode_chunk(const struct mover_input *input, const uint8_t *data, struct unit *ret_unit)
{
    struct segment_chunk_header header;
    if (segment_chunk_header_decode(data, &header) < 0 || header.segment != input->number ||
        header.salt != input->salt || header.offset != input->at)
        return -EBADMSG;
    *ret_unit = (struct unit){segment_chunk_size(header.record_count, header.records_size),
                              header.record_count,
                              (uint32_t)segment_chunk_records_offset(header.record_count)};
    return 0;
}

static bool is_directory_sound(const struct mover_reader *reader)
{
    const uint8_t *chunk = mover_window_at(&reader->window, reader->input.at);
    struct segment_chunk_header header;
    return segment_chunk_header_decode(chunk, &header) == 0 &&
           segment_directory_check(&header, chunk) == 0;
}

/* Goes on behind what cannot be used: a unit whose header tells how long it is, or a block, and
 * from there on block by block until a header is sound again. No client can make its bytes look
 * like one: it has the segment's salt. */
static enum mover_read skip(struct mover_reader *reader, uint64_t size)
{
    struct mover_input *input = &reader->input;
    assert(size > 0); /* invariant 4 */
    if (!input->is_searching)
        note_damage(reader);
    input->is_searching = true;
    if (mover_window_is_over(&reader->window))
        return MOVER_READ_END;
    input->at += size;
    return MOVER_READ_SKIPPED;
}

/* As mover_window_need, from input->at on; a device's first refusal is said in the log. */
static int need(struct mover_reader *reader, uint64_t size)
{
    struct mover_input *input = &reader->input;
    int got = mover_window_need(&reader->window, input->at, size);
    uint64_t file_offset;
    int failure = mover_window_failure(&reader->window, &file_offset);
    if (failure < 0 && !reader->is_failure_told) {
        log_error(reader->log, "%s segment %" PRIu64 " cannot be read at offset %" PRIu64 ": %s",
                  kind_of(input), input->number, file_offset, strerror(-failure));
        reader->is_failure_told = true;
        input->is_damaged = true;
    }
    return got;
}

static void enter_unit(struct mover_input *input, const struct unit *unit)
{
    assert(input->records_left == 0);             /* invariant 2 */
    assert(input->at >= input->unit_end);         /* invariant 4 */
    assert(unit->size <= input->end - input->at); /* invariant 1 */
    assert(unit->records_offset <= unit->size);   /* invariant 1 */
    input->is_searching = false;
    input->unit_offset = input->at;
    input->unit_end = input->at + unit->size;
    input->record_index = 0;
    input->record_offset = input->at + unit->records_offset;
    input->records_left = unit->records;
}

/* Sets the input to the unit at input->at. Returns WAIT, SKIPPED, END, or RECORD: it is ready. */
static enum mover_read begin_unit(struct mover_reader *reader)
{
    struct mover_input *input = &reader->input;
    if (input->at >= input->end)
        return MOVER_READ_END;
    int got = need(reader, DISK_BLOCK_SIZE);
    if (got <= 0)
        return got == 0 ? MOVER_READ_WAIT : skip(reader, DISK_BLOCK_SIZE);
    const uint8_t *data = mover_window_at(&reader->window, input->at);
    struct unit unit;
    int error =
        input->is_segment ? decode_chunk(input, data, &unit) : decode_batch(input, data, &unit);
    if (error < 0 || unit.size > min_u64(MOVER_PART_SIZE, input->end - input->at))
        return skip(reader, DISK_BLOCK_SIZE);
    got = need(reader, unit.size);
    if (got == 0)
        return MOVER_READ_WAIT;
    if (got < 0 || (input->is_segment && !is_directory_sound(reader)))
        return skip(reader, unit.size);
    enter_unit(input, &unit);
    return MOVER_READ_RECORD;
}

/* ---- records ---- */

/* Also tells whether a newer slot of its hash hides it. */
static bool is_alive(const struct index *index, struct mover_record *record)
{
    struct version version = record->record.version;
    struct index_entry entry;
    if (index_find(index, record->partition, record->hash, &entry, 1) == 0)
        return false;
    record->is_hidden = version_compare(entry.version, version) != 0;
    if (record->is_hidden && index_get(index, record->partition, record->hash, version, &entry) < 0)
        return false;
    return entry.location == record->location;
}

/* A record of a batch has to be decoded to know its size; a bad one is
 * left out. */
static bool locate_in_batch(struct mover_reader *reader, struct mover_record *ret_record)
{
    struct mover_input *input = &reader->input;
    const uint8_t *data = mover_window_at(&reader->window, input->record_offset);
    int64_t size = record_decode(data, input->unit_end - input->record_offset, &ret_record->record);
    if (size < 0) {
        /* Where it tells a wrong size, no slot of the index leads to what is found there. */
        uint64_t told = wal_record_told_size(data, input->unit_end - input->record_offset);
        note_damage(reader);
        input->record_offset += told;
        input->records_left = told == 0 ? 0 : input->records_left;
        return false;
    }
    struct slice key = ret_record->record.key;
    ret_record->data = data;
    ret_record->size = (uint32_t)size;
    struct hash_place place = hash_place(reader->options->secret, key.data, key.size);
    ret_record->partition = (uint8_t)place.partition;
    ret_record->hash = place.hash;
    ret_record->location = location_in_log(input->file, input->record_offset);
    input->record_offset += round_up((uint64_t)size, WAL_RECORD_ALIGNMENT);
    return true;
}

/* The directory tells enough to know whether a record is alive. */
static void locate_in_chunk(const struct mover_reader *reader, struct mover_input *input,
                            struct mover_record *ret_record)
{
    struct segment_entry entry;
    segment_entry_decode(
        mover_window_at(&reader->window, input->unit_offset + SEGMENT_CHUNK_HEADER_SIZE +
                                             (uint64_t)input->record_index * SEGMENT_ENTRY_SIZE),
        &entry);
    uint64_t offset = input->record_offset;
    input->record_index++;
    input->record_offset += round_up(entry.record_size, SEGMENT_RECORD_ALIGNMENT);
    *ret_record = (struct mover_record){
        .record = {.version = entry.version},
        .data = mover_window_at(&reader->window, offset),
        .hash = entry.hash,
        .location = location_in_segment(input->file, offset),
        .partition = input->partition,
        .size = entry.record_size,
    };
}

static void look_ahead(struct mover_reader *reader)
{
    struct mover_input *input = &reader->input;
    while (reader->ahead_count < MOVER_AHEAD && input->records_left > 0) {
        struct mover_record *record =
            &reader->ahead[(reader->ahead_first + reader->ahead_count) % MOVER_AHEAD];
        input->records_left--;
        if (input->is_segment)
            locate_in_chunk(reader, input, record);
        else if (!locate_in_batch(reader, record))
            return;
        index_prefetch(reader->options->index, record->partition, record->hash);
        reader->ahead_count++;
    }
    if (reader->ahead_count > MOVER_NEAR) {
        const struct mover_record *near =
            &reader->ahead[(reader->ahead_first + MOVER_NEAR) % MOVER_AHEAD];
        index_prefetch_slots(reader->options->index, near->partition, near->hash);
    }
}

/* What its directory says of a record must be what it says itself. */
static bool decode_from_chunk(struct mover_reader *reader, struct mover_record *record)
{
    struct version version = record->record.version;
    int64_t size = record_decode(record->data, record->size, &record->record);
    if (size == record->size && version_compare(record->record.version, version) == 0)
        return true;
    note_damage(reader);
    return false;
}

static enum mover_read take_record(struct mover_reader *reader, struct mover_record *ret_record)
{
    look_ahead(reader);
    if (reader->ahead_count == 0)
        return MOVER_READ_SKIPPED;
    *ret_record = reader->ahead[reader->ahead_first];
    reader->ahead_first = (reader->ahead_first + 1) % MOVER_AHEAD;
    reader->ahead_count--;
    if (!is_alive(reader->options->index, ret_record))
        return MOVER_READ_SKIPPED;
    if (reader->input.is_segment && !decode_from_chunk(reader, ret_record))
        return MOVER_READ_SKIPPED;
    /* What has a slot may be known to be dead all the same. */
    bool is_dead = ret_record->is_hidden && mover_bury_record(reader->options, ret_record);
    reader->stats->buried_records += is_dead;
    return is_dead ? MOVER_READ_SKIPPED : MOVER_READ_RECORD;
}

static void leave_unit(struct mover_reader *reader)
{
    struct mover_input *input = &reader->input;
    assert(reader->ahead_count == 0); /* invariant 2 */
    if (input->unit_end == 0)
        return;
    assert(input->unit_end > input->at); /* invariant 4 */
    input->at = input->unit_end;
    input->unit_end = 0;
}

enum mover_read mover_reader_next(struct mover_reader *reader, struct mover_record *ret_record)
{
    struct mover_input *input = &reader->input;
    assert(reader->has_input);
    assert(!reader->is_closing); /* invariant 3 */
    if (reader->is_pinning)
        return MOVER_READ_WAIT;
    if (input->handle < 0)
        return MOVER_READ_END;
    if (input->records_left == 0 && reader->ahead_count == 0) {
        leave_unit(reader);
        enum mover_read unit = begin_unit(reader);
        if (unit != MOVER_READ_RECORD)
            return unit;
        if (input->records_left == 0) /* a seal */
            return MOVER_READ_SKIPPED;
    }
    return take_record(reader, ret_record);
}

/* ---- where the next job goes on ---- */

void mover_reader_pause(struct mover_reader *reader)
{
    const struct mover_input *input = &reader->input;
    assert(reader->has_input);
    reader->resume[input->is_segment] =
        (struct mover_resume){input->number, input->unit_end > 0 ? input->unit_offset : input->at};
}

void mover_reader_forget(struct mover_reader *reader, bool is_segment)
{
    reader->resume[is_segment] = (struct mover_resume){0};
}

/* ---- opening and closing ---- */

void mover_reader_init(struct mover_reader *reader, struct io *io, const struct log *log,
                       const struct mover_options *options, struct mover_stats *stats,
                       uint8_t *memory)
{
    *reader = (struct mover_reader){.log = log, .options = options, .stats = stats};
    mover_window_init(&reader->window, io, options->window_size, memory, &stats->read_bytes);
}

static void begin_input(struct mover_reader *reader, const struct mover_input *input)
{
    const struct mover_resume *resume = &reader->resume[input->is_segment];
    assert(!reader->has_input);
    assert(!reader->is_closing); /* invariant 3 */
    reader->has_input = true;
    reader->is_failure_told = false;
    reader->input = *input;
    reader->input.handle = -1;
    if (resume->number == input->number)
        reader->input.at = resume->at;
    reader->ahead_first = 0;
    reader->ahead_count = 0;
}

static void pinned(struct mover_reader *reader, int handle)
{
    assert(!reader->input.is_pinned); /* invariant 3 */
    reader->input.handle = handle;
    reader->input.is_pinned = true;
    mover_window_open(&reader->window, handle, reader->input.end);
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
    reader->input.is_damaged = !mover_may_retry(handle_or_error);
    log_error(reader->log, "partition segment %" PRIu64 " cannot be opened: %s",
              reader->input.number, strerror(-handle_or_error));
}

void mover_reader_open_log(struct mover_reader *reader, const struct wal_sealed *sealed)
{
    begin_input(reader, &(struct mover_input){
                            .file = sealed->file,
                            .number = sealed->number,
                            .salt = sealed->salt,
                            .at = WAL_DATA_OFFSET,
                            .end = sealed->end,
                        });
    pinned(reader, wal_pin_file(reader->options->wal, sealed->file));
}

void mover_reader_open_segment(struct mover_reader *reader, struct segment *segment)
{
    begin_input(reader, &(struct mover_input){
                            .is_segment = true,
                            .file = segment->file,
                            .partition = segment->partition,
                            .number = segment->number,
                            .salt = segment->salt,
                            .at = SEGMENT_DATA_OFFSET,
                            .end = segment->end,
                        });
    reader->pin.done = pin_done;
    reader->is_pinning = true;
    int handle = segment_pin(reader->options->segments, segment, &reader->pin);
    if (handle != -EINPROGRESS)
        pin_done(&reader->pin, handle);
}

bool mover_reader_has_input(const struct mover_reader *reader)
{
    return reader->has_input;
}

static void let_go(struct mover_reader *reader)
{
    const struct mover_options *options = reader->options;
    const struct mover_input *input = &reader->input;
    assert(!mover_window_is_active(&reader->window)); /* invariant 3 */
    reader->is_closing = false;
    if (input->is_segment) {
        struct segment *segment = segments_find(options->segments, input->file);
        segment->is_damaged |= input->is_damaged;
        if (input->is_pinned)
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

bool mover_reader_is_active(const struct mover_reader *reader)
{
    return reader->is_pinning || mover_window_is_active(&reader->window);
}

bool mover_reader_settle(struct mover_reader *reader)
{
    if (mover_reader_is_active(reader))
        return false;
    if (reader->is_closing)
        let_go(reader);
    return true;
}
