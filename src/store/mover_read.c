#include "base/hash.h"
#include "store/mover_internal.h"
#include "store/wal_format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- the window ---- */

static void read_done(struct io_op *op, int32_t result)
{
    struct mover *mover = container_of(op, struct mover, reader.op);
    struct mover_reader *reader = &mover->reader;
    if (result < 0) {
        log_error(mover->log, "%s segment %" PRIu64 " cannot be read at offset %" PRIu64 ": %s",
                  reader->input.is_segment ? "partition" : "log", reader->input.number,
                  reader->window_offset, strerror(-result));
        reader->input.is_damaged = true;
        return;
    }
    reader->window_size = (uint32_t)result;
    mover->stats.read_bytes += (uint32_t)result;
}

static void load_window(struct mover *mover)
{
    struct mover_reader *reader = &mover->reader;
    const struct mover_input *input = &reader->input;
    reader->window_offset = input->at;
    reader->window_size = 0;
    reader->op.done = read_done;
    io_read(mover->io, &reader->op, input->handle, reader->window,
            (uint32_t)min_u64(MOVER_WINDOW_SIZE, input->end - input->at), input->at);
}

/* The window's bytes at this offset of the file. */
static const uint8_t *window_at(const struct mover_reader *reader, uint64_t offset)
{
    assert(offset >= reader->window_offset);
    return reader->window + (offset - reader->window_offset);
}

static bool window_holds(const struct mover_reader *reader, uint64_t from, uint64_t upto)
{
    return from >= reader->window_offset && upto <= reader->window_offset + reader->window_size;
}

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

/* Each returns the unit's size in the file, or -EBADMSG. The header is in the window. */
static int64_t begin_batch(struct mover_input *input, const uint8_t *data)
{
    struct wal_batch_header header;
    if (wal_batch_header_decode(data, &header) < 0 || header.segment != input->number ||
        header.salt != input->salt || header.offset != input->at)
        return -EBADMSG;
    input->records_left = header.record_count;
    input->record_offset = input->at + WAL_BATCH_HEADER_SIZE;
    return (int64_t)wal_batch_size(&header);
}

static int64_t begin_chunk(struct mover_input *input, const uint8_t *data)
{
    struct segment_chunk_header header;
    if (segment_chunk_header_decode(data, &header) < 0 || header.segment != input->number ||
        header.salt != input->salt || header.offset != input->at)
        return -EBADMSG;
    input->records_left = header.record_count;
    input->record_offset = input->at + segment_chunk_records_offset(header.record_count);
    return (int64_t)segment_chunk_size(header.record_count, header.records_size);
}

static bool is_directory_sound(const struct mover_reader *reader)
{
    const uint8_t *chunk = window_at(reader, reader->input.at);
    struct segment_chunk_header header;
    return segment_chunk_header_decode(chunk, &header) == 0 &&
           segment_directory_check(&header, chunk) == 0;
}

/* Sets the input to the unit at input->at. Returns WAIT, END, or RECORD: it is ready. */
static enum mover_read begin_unit(struct mover *mover)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    if (input->at >= input->end)
        return MOVER_READ_END;
    if (!window_holds(reader, input->at, input->at + DISK_BLOCK_SIZE)) {
        if (reader->window_offset == input->at) {
            note_damage(mover); /* the file ends early */
            return MOVER_READ_END;
        }
        input->records_left = 0; /* begun anew once all of it is there */
        load_window(mover);
        return MOVER_READ_WAIT;
    }
    const uint8_t *data = window_at(reader, input->at);
    int64_t size = input->is_segment ? begin_chunk(input, data) : begin_batch(input, data);
    if (size < 0 || (uint64_t)size > min_u64(MOVER_WINDOW_SIZE, input->end - input->at)) {
        note_damage(mover);
        return MOVER_READ_END;
    }
    uint64_t unit_end = input->at + (uint64_t)size;
    if (!window_holds(reader, input->at, unit_end)) {
        if (reader->window_offset == input->at) {
            note_damage(mover); /* the file ends early */
            return MOVER_READ_END;
        }
        input->records_left = 0; /* begun anew once all of it is there */
        load_window(mover);
        return MOVER_READ_WAIT;
    }
    if (input->is_segment && !is_directory_sound(reader)) {
        note_damage(mover);
        return MOVER_READ_END;
    }
    input->unit_offset = input->at;
    input->unit_end = unit_end;
    input->record_index = 0;
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

/* What has a slot may be known to be dead all the same. */
static enum mover_read take_alive(struct mover *mover, const struct mover_record *record)
{
    bool is_dead = record->is_hidden &&
                   mover_bury(mover, &record->record, record->partition, record->hash);
    return is_dead ? MOVER_READ_SKIPPED : MOVER_READ_RECORD;
}

/* A record of a batch has to be decoded to know its size; a bad one ends the batch. */
static enum mover_read take_from_batch(struct mover *mover, struct mover_record *ret_record)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    const uint8_t *data = window_at(reader, input->record_offset);
    int64_t size = record_decode(data, input->unit_end - input->record_offset, &ret_record->record);
    if (size < 0) {
        note_damage(mover);
        input->records_left = 0;
        return MOVER_READ_SKIPPED;
    }
    struct slice key = ret_record->record.key;
    ret_record->data = data;
    ret_record->size = (uint32_t)size;
    ret_record->partition = (uint8_t)hash_partition(hash_key(key.data, key.size));
    ret_record->hash = hash_keyed(mover->options.secret, key.data, key.size);
    ret_record->location = wal_location_make(input->file, input->record_offset);
    input->record_offset += round_up((uint64_t)size, WAL_RECORD_ALIGNMENT);
    return is_alive(mover, ret_record) ? take_alive(mover, ret_record) : MOVER_READ_SKIPPED;
}

/* The directory tells whether a record is alive before it is looked at. */
static enum mover_read take_from_chunk(struct mover *mover, struct mover_record *ret_record)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    struct segment_entry entry;
    segment_entry_decode(window_at(reader, input->unit_offset + SEGMENT_CHUNK_HEADER_SIZE +
                                               (uint64_t)input->record_index * SEGMENT_ENTRY_SIZE),
                         &entry);
    uint64_t offset = input->record_offset;
    input->record_index++;
    input->record_offset += round_up(entry.record_size, SEGMENT_RECORD_ALIGNMENT);
    *ret_record = (struct mover_record){
        .record = {.version = entry.version},
        .data = window_at(reader, offset),
        .hash = entry.hash,
        .location = segment_location_make(input->file, offset),
        .partition = input->partition,
        .size = entry.record_size,
    };
    if (!is_alive(mover, ret_record))
        return MOVER_READ_SKIPPED;
    int64_t size = record_decode(ret_record->data, entry.record_size, &ret_record->record);
    if (size == entry.record_size &&
        version_compare(ret_record->record.version, entry.version) == 0)
        return take_alive(mover, ret_record);
    note_damage(mover);
    return MOVER_READ_SKIPPED;
}

enum mover_read mover_read_next(struct mover *mover, struct mover_record *ret_record)
{
    struct mover_reader *reader = &mover->reader;
    struct mover_input *input = &reader->input;
    assert(reader->has_input);
    if (mover_read_is_active(mover))
        return MOVER_READ_WAIT;
    if (input->handle < 0 || (input->is_damaged && reader->window_size == 0))
        return MOVER_READ_END;
    if (input->records_left == 0) {
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
    input->records_left--;
    return input->is_segment ? take_from_chunk(mover, ret_record)
                             : take_from_batch(mover, ret_record);
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
    reader->window_offset = 0;
    reader->window_size = 0;
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

void mover_read_close(struct mover *mover)
{
    struct mover_reader *reader = &mover->reader;
    assert(!mover_read_is_active(mover));
    if (!reader->has_input)
        return;
    const struct mover_input *input = &reader->input;
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
    reader->has_input = false;
}

bool mover_read_is_active(const struct mover *mover)
{
    return mover->reader.is_pinning || io_op_is_active(&mover->reader.op);
}
