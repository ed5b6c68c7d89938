/* Fetching one record from the log or a segment. */
#include "store/fetch.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool fetch_has_room(const struct fetcher *fetcher, uint64_t read_size)
{
    return read_size + DISK_BLOCK_SIZE <= FETCH_BUFFER_SIZE ||
           fetcher->large_bytes + read_size <= fetcher->large_bytes_max;
}

/* ---- what is wrong with what is read ---- */

/* Notes where the record lies, and returns the file's path; it is alive, or pinned. */
static const char *locate(struct fetch *fetch)
{
    uint64_t location = fetch->location;
    fetch->place = (struct finding){.kind = FINDING_LOG, .offset = location_offset(location)};
    if (!location_is_segment(location))
        return wal_name_file(fetch->fetcher->wal, location_file(location), &fetch->place.number);
    const struct segment *segment =
        segments_find(fetch->fetcher->segments, location_file(location));
    fetch->place.kind = FINDING_SEGMENT;
    fetch->place.number = segment->number;
    return segment->path;
}

static void note_damage(struct fetch *fetch, const char *what)
{
    const char *path = locate(fetch);
    findings_damage(
        fetch->fetcher->findings, &fetch->place, !fetch->is_hidden,
        "%s: the record at offset %" PRIu64
        " is damaged: %s. Its key answers CORRUPT: write it again, or restore it from a "
        "replica or a backup, and check the device",
        path, fetch->place.offset, what);
}

static int decode_at(struct fetch *fetch, const uint8_t *data, uint64_t size)
{
    int64_t result = record_decode(data, size, &fetch->record);
    if (result >= 0)
        return 0;
    note_damage(fetch, "its checksum is wrong");
    return -EBADMSG;
}

/* The file does not give it. */
static int refuse(struct fetch *fetch, int error)
{
    const char *path = locate(fetch);
    if (error != -ENOENT) {
        findings_unreadable(fetch->fetcher->findings, &fetch->place, path, error);
        return error;
    }
    fetch->place.offset = 0; /* all of it is one place */
    findings_damage(fetch->fetcher->findings, &fetch->place, !fetch->is_hidden,
                    "%s is missing: the keys in it answer CORRUPT until they are written again or "
                    "restored from a replica or a backup",
                    path);
    return error;
}

static int judge_read(struct fetch *fetch, int32_t result)
{
    if (result < 0)
        return refuse(fetch, result);
    findings_readable(fetch->fetcher->findings, &fetch->place);
    if ((uint64_t)result <= fetch->skip) {
        note_damage(fetch, "the file ends before it");
        return -EBADMSG;
    }
    const uint8_t *data = fetch->large != NULL ? fetch->large : fetch->buffer;
    return decode_at(fetch, data + fetch->skip, (uint64_t)result - fetch->skip);
}

static void unpin(struct fetch *fetch)
{
    struct fetcher *fetcher = fetch->fetcher;
    if (location_is_segment(fetch->location))
        segment_unpin(fetcher->segments,
                      segments_find(fetcher->segments, location_file(fetch->location)));
    else
        wal_unpin_file(fetcher->wal, location_file(fetch->location));
}

static void read_done(struct io_op *op, int32_t result)
{
    struct fetch *fetch = container_of(op, struct fetch, op);
    int error = judge_read(fetch, result);
    unpin(fetch);
    fetch->done(fetch, error);
}

static void start_read(struct fetch *fetch, int handle)
{
    fetch->op.done = read_done;
    io_read(fetch->fetcher->io, &fetch->op, handle,
            fetch->large != NULL ? fetch->large : fetch->buffer, fetch->read_size,
            fetch->read_offset);
}

static void pinned(struct segment_pin *pin, int handle_or_error)
{
    struct fetch *fetch = container_of(pin, struct fetch, pin);
    assert(fetch->is_pinning);
    fetch->is_pinning = false;
    if (handle_or_error >= 0)
        start_read(fetch, handle_or_error);
    else
        fetch->done(fetch, refuse(fetch, handle_or_error));
}

/* The file may have to be opened first. Returns its handle, or -EINPROGRESS: `pinned` follows. */
static int pin(struct fetch *fetch)
{
    struct fetcher *fetcher = fetch->fetcher;
    if (!location_is_segment(fetch->location))
        return wal_pin_file(fetcher->wal, location_file(fetch->location));
    fetch->pin.done = pinned;
    struct segment *segment = segments_find(fetcher->segments, location_file(fetch->location));
    return segment_pin(fetcher->segments, segment, &fetch->pin);
}

static int take_large(struct fetch *fetch, uint64_t size)
{
    assert(fetch->large == NULL);
    fetch->large = aligned_alloc(DISK_BLOCK_SIZE, size);
    if (fetch->large == NULL)
        return -ENOMEM;
    fetch->large_size = size;
    fetch->fetcher->large_bytes += size;
    return 0;
}

/* Which blocks to read, and where to. Errors: -ENOMEM. */
static int plan_read(struct fetch *fetch, uint64_t read_size)
{
    uint64_t offset = location_offset(fetch->location);
    uint64_t begin = round_down(offset, DISK_BLOCK_SIZE);
    uint64_t end = round_up(offset + read_size, DISK_BLOCK_SIZE);
    if (!location_is_segment(fetch->location))
        end = min_u64(end, fetch->fetcher->log_file_size);
    assert(end > offset);
    fetch->skip = offset - begin;
    fetch->read_offset = begin;
    fetch->read_size = (uint32_t)(end - begin);
    return fetch->read_size > FETCH_BUFFER_SIZE ? take_large(fetch, fetch->read_size) : 0;
}

int fetch_start(struct fetcher *fetcher, struct fetch *fetch, const struct index_entry *entry,
                fetch_done *done)
{
    assert(fetch->large == NULL);
    assert(!io_op_is_active(&fetch->op));
    fetch->fetcher = fetcher;
    fetch->location = entry->location;
    fetch->done = done;
    (void)locate(fetch);
    const uint8_t *in_memory = wal_peek(fetch->fetcher->wal, fetch->location);
    fetch->in_memory = in_memory != NULL;
    if (in_memory != NULL) {
        int result = decode_at(fetch, in_memory, entry->read_size);
        return result < 0 ? result : 1;
    }
    int result = plan_read(fetch, entry->read_size);
    if (result < 0)
        return result;
    int handle = pin(fetch);
    fetch->is_pinning = handle == -EINPROGRESS;
    if (handle >= 0)
        start_read(fetch, handle);
    return 0;
}

int fetch_save(struct fetch *fetch)
{
    if (!fetch->in_memory)
        return 0;
    struct record *record = &fetch->record;
    /* They lie one behind the other in the record, too. */
    uint64_t size = record_size(record) - RECORD_HEADER_SIZE;
    if (take_large(fetch, round_up(size, DISK_BLOCK_SIZE)) < 0)
        return -ENOMEM;
    memcpy(fetch->large, record->attributes.data, size);
    record->attributes.data = fetch->large;
    record->key.data = record->attributes.data + record->attributes.size;
    record->value.data = record->key.data + record->key.size;
    fetch->in_memory = false;
    return 0;
}

void fetch_release(struct fetch *fetch)
{
    assert(!io_op_is_active(&fetch->op) && !fetch->is_pinning);
    if (fetch->large == NULL)
        return;
    assert(fetch->fetcher->large_bytes >= fetch->large_size);
    fetch->fetcher->large_bytes -= fetch->large_size;
    free(fetch->large);
    fetch->large = NULL;
}

const struct record *fetch_record(const struct fetch *fetch)
{
    return &fetch->record;
}

const struct finding *fetch_place(const struct fetch *fetch)
{
    return &fetch->place;
}

struct slice fetch_bytes(const struct fetch *fetch)
{
    const uint8_t *data = fetch->large != NULL ? fetch->large : fetch->buffer;
    return (struct slice){data + fetch->skip, (uint32_t)(fetch->read_size - fetch->skip)};
}

void fetch_init(struct fetch *fetch, uint8_t *buffer)
{
    *fetch = (struct fetch){.buffer = buffer};
}

void fetch_deinit(struct fetch *fetch)
{
    free(fetch->large);
}
