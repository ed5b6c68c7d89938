#include "base/hash.h"
#include "store/mover/mover_internal.h"
#include "store/unit/wal_format.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- batches and chunks ---- */

static void note_damage(struct mover *mover)
{
    struct mover_input *input = &mover->reader.input;
    log_error(mover->log,
              "%s segment %" PRIu64 " is damaged at offset %" PRIu64
              ": it is kept as it is, what can be read of it is moved",
              input->is_segment ? "partition" : "log", input->number, input->at);
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
static enum mover_read skip(struct mover *mover, uint64_t size)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    if (!input->is_searching)
        note_damage(mover);
    input->is_searching = true;
    if (mover_window_is_over(&reader->window))
        return MOVER_READ_END;
    input->at += size;
    return MOVER_READ_SKIPPED;
}

/* Sets the input to the unit at input->at. Returns WAIT, SKIPPED, END, or RECORD: it is ready. */
static enum mover_read begin_unit(struct mover *mover)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    if (input->at >= input->end)
        return MOVER_READ_END;
    enum mover_read header = mover_window_need(mover, DISK_BLOCK_SIZE);
    if (header != MOVER_READ_RECORD)
        return header == MOVER_READ_WAIT ? header : skip(mover, DISK_BLOCK_SIZE);
    const uint8_t *data = mover_window_at(&reader->window, input->at);
    struct unit unit;
    int error =
        input->is_segment ? decode_chunk(input, data, &unit) : decode_batch(input, data, &unit);
    if (error < 0 || unit.size > min_u64(MOVER_PART_SIZE, input->end - input->at))
        return skip(mover, DISK_BLOCK_SIZE);
    enum mover_read whole = mover_window_need(mover, unit.size);
    if (whole == MOVER_READ_WAIT)
        return whole;
    if (whole == MOVER_READ_SKIPPED || (input->is_segment && !is_directory_sound(reader)))
        return skip(mover, unit.size);
    input->is_searching = false;
    input->unit_offset = input->at;
    input->unit_end = input->at + unit.size;
    input->record_index = 0;
    input->record_offset = input->at + unit.records_offset;
    input->records_left = unit.records;
    return MOVER_READ_RECORD;
}

/* ---- records ---- */

/* Also tells whether a newer slot of its hash hides it. */
static bool is_alive(const struct mover *mover, struct mover_record *record)
{
    const struct index *index = mover->options.index;
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
static bool locate_in_batch(struct mover *mover, struct mover_record *ret_record)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    const uint8_t *data = mover_window_at(&reader->window, input->record_offset);
    int64_t size = record_decode(data, input->unit_end - input->record_offset, &ret_record->record);
    if (size < 0) {
        /* Where it tells a wrong size, no slot of the index leads to what is found there. */
        uint64_t told = wal_record_told_size(data, input->unit_end - input->record_offset);
        note_damage(mover);
        input->record_offset += told;
        input->records_left = told == 0 ? 0 : input->records_left;
        return false;
    }
    struct slice key = ret_record->record.key;
    ret_record->data = data;
    ret_record->size = (uint32_t)size;
    struct hash_place place = hash_place(mover->options.secret, key.data, key.size);
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

static void look_ahead(struct mover *mover)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    while (reader->ahead_count < MOVER_AHEAD && input->records_left > 0) {
        struct mover_record *record =
            &reader->ahead[(reader->ahead_first + reader->ahead_count) % MOVER_AHEAD];
        input->records_left--;
        if (input->is_segment)
            locate_in_chunk(reader, input, record);
        else if (!locate_in_batch(mover, record))
            return;
        index_prefetch(mover->options.index, record->partition, record->hash);
        reader->ahead_count++;
    }
    if (reader->ahead_count > MOVER_NEAR) {
        const struct mover_record *near =
            &reader->ahead[(reader->ahead_first + MOVER_NEAR) % MOVER_AHEAD];
        index_prefetch_slots(mover->options.index, near->partition, near->hash);
    }
}

/* What its directory says of a record must be what it says itself. */
static bool decode_from_chunk(struct mover *mover, struct mover_record *record)
{
    struct version version = record->record.version;
    int64_t size = record_decode(record->data, record->size, &record->record);
    if (size == record->size && version_compare(record->record.version, version) == 0)
        return true;
    note_damage(mover);
    return false;
}

static enum mover_read take_record(struct mover *mover, struct mover_record *ret_record)
{
    struct mover_reader *reader = &mover->reader;
    look_ahead(mover);
    if (reader->ahead_count == 0)
        return MOVER_READ_SKIPPED;
    *ret_record = reader->ahead[reader->ahead_first];
    reader->ahead_first = (reader->ahead_first + 1) % MOVER_AHEAD;
    reader->ahead_count--;
    if (!is_alive(mover, ret_record))
        return MOVER_READ_SKIPPED;
    if (reader->input.is_segment && !decode_from_chunk(mover, ret_record))
        return MOVER_READ_SKIPPED;
    /* What has a slot may be known to be dead all the same. */
    bool is_dead = ret_record->is_hidden &&
                   mover_bury(mover, mover_mark(mover, &ret_record->record),
                              ret_record->record.version, ret_record->partition, ret_record->hash);
    return is_dead ? MOVER_READ_SKIPPED : MOVER_READ_RECORD;
}

enum mover_read mover_read_next(struct mover *mover, struct mover_record *ret_record)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    assert(reader->has_input);
    if (reader->is_pinning)
        return MOVER_READ_WAIT;
    if (input->handle < 0)
        return MOVER_READ_END;
    if (input->records_left == 0 && reader->ahead_count == 0) {
        if (input->unit_end > 0) {
            input->at = input->unit_end;
            input->unit_end = 0;
        }
        enum mover_read unit = begin_unit(mover);
        if (unit != MOVER_READ_RECORD)
            return unit;
        if (input->records_left == 0) /* a seal */
            return MOVER_READ_SKIPPED;
    }
    return take_record(mover, ret_record);
}

/* ---- opening and closing ---- */

static void pin_done(struct segment_pin *pin, int handle_or_error)
{
    struct mover *mover = container_of(pin, struct mover, reader.pin);
    struct mover_reader *reader = &mover->reader;
    reader->is_pinning = false;
    reader->input.handle = handle_or_error;
    reader->input.is_pinned = handle_or_error >= 0;
    if (handle_or_error < 0) {
        reader->input.is_damaged = !mover_may_retry(handle_or_error);
        log_error(mover->log, "partition segment %" PRIu64 " cannot be opened: %s",
                  reader->input.number, strerror(-handle_or_error));
    }
}

void mover_read_open(struct mover *mover, const struct mover_input *input)
{
    struct mover_reader *reader = &mover->reader;
    assert(!mover_read_is_active(mover) && !reader->has_input);
    reader->has_input = true;
    reader->input = *input;
    reader->ahead_count = 0;
    mover_window_reset(&reader->window);
    if (!input->is_segment) {
        reader->input.handle = wal_pin_file(mover->options.wal, input->file);
        reader->input.is_pinned = true;
        return;
    }
    struct segment *segment = segments_find(mover->options.segments, input->file);
    reader->pin.done = pin_done;
    reader->is_pinning = true;
    int handle = segment_pin(mover->options.segments, segment, &reader->pin);
    if (handle != -EINPROGRESS)
        pin_done(&reader->pin, handle);
}

static void let_go(struct mover *mover)
{
    struct mover_reader *reader = &mover->reader;
    const struct mover_input *input = &reader->input;
    reader->is_closing = false;
    if (input->is_segment) {
        struct segment *segment = segments_find(mover->options.segments, input->file);
        segment->is_damaged |= input->is_damaged;
        if (input->is_pinned)
            segment_unpin(mover->options.segments, segment);
    } else {
        if (input->is_damaged)
            wal_keep_damaged(mover->options.wal, input->file);
        wal_unpin_file(mover->options.wal, input->file);
    }
}

void mover_read_close(struct mover *mover)
{
    struct mover_reader *reader = &mover->reader;
    if (!reader->has_input)
        return;
    assert(!reader->is_pinning);
    reader->has_input = false;
    reader->is_closing = true;
    mover_read_came(mover);
}

void mover_read_came(struct mover *mover)
{
    if (mover->reader.is_closing && !mover_window_is_active(&mover->reader.window))
        let_go(mover);
}

bool mover_read_is_active(const struct mover *mover)
{
    return mover->reader.is_pinning || mover_window_is_active(&mover->reader.window);
}
