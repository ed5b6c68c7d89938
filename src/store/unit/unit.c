/* The reader of units. No client can make its bytes look like one: it does not know the file's
 * salt. The invariants stand in unit.h. */
#include "store/unit/unit.h"

#include "base/assert.h"
#include "base/checksum.h"
#include "base/hash.h"

#include <errno.h>
#include <string.h>

static_assert(UNIT_HEADER_SIZE == WAL_BATCH_HEADER_SIZE, "of both kinds");
static_assert(UNIT_HEADER_SIZE == SEGMENT_CHUNK_HEADER_SIZE, "of both kinds");
static_assert(WAL_RECORD_ALIGNMENT == SEGMENT_RECORD_ALIGNMENT, "of both kinds");

/* ---- one unit ---- */

static int decode_batch(const uint8_t *data, struct unit *unit)
{
    struct wal_batch_header *batch = &unit->batch;
    if (wal_batch_header_decode(data, batch) < 0)
        return -EBADMSG;
    unit->size = wal_batch_size(batch);
    unit->record_count = batch->record_count;
    unit->records_offset = WAL_BATCH_HEADER_SIZE;
    unit->records_end = WAL_BATCH_HEADER_SIZE + (uint64_t)batch->payload_size;
    return 0;
}

static int decode_chunk(const uint8_t *data, struct unit *unit)
{
    struct segment_chunk_header *chunk = &unit->chunk;
    if (segment_chunk_header_decode(data, chunk) < 0)
        return -EBADMSG;
    unit->size = segment_chunk_size(chunk->record_count, chunk->records_size);
    unit->record_count = chunk->record_count;
    unit->records_offset = segment_chunk_records_offset(chunk->record_count);
    unit->records_end = unit->records_offset + chunk->records_size;
    return 0;
}

static bool belongs(const struct unit_file *file, const struct unit *unit)
{
    const struct segment_chunk_header *chunk = &unit->chunk;
    const struct wal_batch_header *batch = &unit->batch;
    if (unit->size > file->end - unit->offset)
        return false;
    if (unit->is_segment)
        return chunk->directory_id == file->directory_id && chunk->segment == file->number &&
               chunk->salt == file->salt && chunk->offset == unit->offset;
    bool is_known = file->generation == 0 ||
                    (batch->generation == file->generation && batch->log_id == file->log_id);
    return is_known && batch->directory_id == file->directory_id && batch->salt == file->salt &&
           batch->segment == file->number && batch->offset == unit->offset;
}

/* Salts lie at different places. Zeros are not one. */
static bool names_salt(const struct unit_file *file, const uint8_t *data)
{
    uint64_t salt = load_u64(data + (file->is_segment ? 32 : 40));
    return salt != 0 && salt == file->salt;
}

enum unit_verdict unit_look(const struct unit_file *file, uint64_t offset, const uint8_t *data,
                            struct unit *ret_unit)
{
    assert(offset < file->end);
    struct unit unit = {.is_segment = file->is_segment, .offset = offset};
    int error = file->is_segment ? decode_chunk(data, &unit) : decode_batch(data, &unit);
    if (error < 0)
        return names_salt(file, data) ? UNIT_TORN : UNIT_NONE;
    assert(unit.records_end <= unit.size);
    *ret_unit = unit;
    return belongs(file, &unit) ? UNIT_SOUND : UNIT_FOREIGN;
}

bool unit_is_sound(const struct unit *unit, const uint8_t *data)
{
    if (unit->is_segment)
        return segment_directory_check(&unit->chunk, data) == 0;
    return crc32c(data + WAL_BATCH_HEADER_SIZE, unit->batch.payload_size) ==
           unit->batch.payload_crc;
}

/* ---- records ---- */

/* Whether the sizes that a batch's records tell lead exactly through it. If not, a size is wrong,
 * and whatever lies behind it might be a client's bytes that look like a record. */
static bool sizes_add_up(const struct unit *unit, const uint8_t *data)
{
    uint64_t offset = unit->records_offset;
    for (uint32_t i = 0; i < unit->record_count; i++) {
        uint64_t size = wal_record_told_size(data + offset, unit->records_end - offset);
        if (size == 0)
            return false;
        offset += size;
        assert(offset <= unit->records_end); /* invariant 2 */
    }
    return offset == unit->records_end;
}

static int next_in_batch(const struct unit *unit, const uint8_t *data, struct unit_cursor *cursor,
                         struct unit_record *ret_record)
{
    uint64_t left = unit->records_end - cursor->offset;
    uint64_t position = unit->batch.position_first + cursor->index;
    int64_t size = record_decode(ret_record->data, left, &ret_record->record);
    cursor->index++;
    if (size > 0 && ret_record->record.position == position) {
        ret_record->size = (uint32_t)size;
        cursor->offset += round_up((uint64_t)size, WAL_RECORD_ALIGNMENT);
        return 1;
    }
    uint64_t told = sizes_add_up(unit, data) ? wal_record_told_size(ret_record->data, left) : 0;
    if (told == 0)
        cursor->index = unit->record_count; /* invariant 1 */
    cursor->offset += told;
    return size == -EPROTONOSUPPORT ? -EPROTONOSUPPORT : -EBADMSG;
}

static void next_in_chunk(const uint8_t *data, struct unit_cursor *cursor,
                          struct unit_record *ret_record)
{
    segment_entry_decode(data + SEGMENT_CHUNK_HEADER_SIZE +
                             (uint64_t)cursor->index * SEGMENT_ENTRY_SIZE,
                         &ret_record->entry);
    ret_record->size = ret_record->entry.record_size;
    cursor->index++;
    cursor->offset += round_up(ret_record->size, SEGMENT_RECORD_ALIGNMENT);
}

int unit_next(const struct unit *unit, const uint8_t *data, struct unit_cursor *cursor,
              struct unit_record *ret_record)
{
    assert(cursor->index <= unit->record_count);
    if (cursor->index == unit->record_count)
        return 0;
    if (cursor->offset == 0)
        cursor->offset = unit->records_offset;
    assert(cursor->offset <= unit->records_end); /* invariant 2 */
    ret_record->data = data + cursor->offset;
    ret_record->offset = unit->offset + cursor->offset;
    if (!unit->is_segment)
        return next_in_batch(unit, data, cursor, ret_record);
    next_in_chunk(data, cursor, ret_record);
    assert(cursor->offset <= unit->records_end); /* the directory's sizes add up */
    return 1;
}

int unit_record_verify(struct unit_record *record, uint8_t partition, const uint8_t *secret)
{
    const struct segment_entry *entry = &record->entry;
    const struct record *found = &record->record;
    int64_t size = record_decode(record->data, record->size, &record->record);
    if (size == -EPROTONOSUPPORT)
        return -EPROTONOSUPPORT;
    if (size != record->size)
        return -EBADMSG;
    struct hash_place place = hash_place(secret, found->key.data, found->key.size);
    bool is_tombstone = (found->flags & RECORD_TOMBSTONE) != 0;
    bool in_value_file = (found->flags & RECORD_IN_VALUE_FILE) != 0;
    bool is_described = version_compare(found->version, entry->version) == 0 &&
                        is_tombstone == entry->tombstone && in_value_file == entry->in_value_file &&
                        place.hash == entry->hash && place.partition == partition;
    return is_described ? 0 : -ESTALE;
}

/* ---- a file from unit to unit ---- */

static enum unit_step tell_damage(struct unit_scan *scan, uint64_t from, uint64_t upto, int error,
                                  const char *what)
{
    assert(from < upto); /* invariant 3 */
    scan->damage = (struct unit_damage){.from = from, .upto = upto, .what = what};
    scan->damage.is_cut = error == -ERANGE;
    if (error == -ERANGE)
        scan->damage.what = "the file ends before";
    else
        scan->damage.error = error;
    return UNIT_DAMAGED;
}

static enum unit_step end_gap(struct unit_scan *scan)
{
    uint64_t from = scan->gap_from;
    scan->gap_from = 0;
    return tell_damage(scan, from, scan->at, scan->gap_error,
                       scan->file.is_segment ? "no sound chunk of this segment"
                                             : "no sound batch of this log file");
}

static enum unit_step skip_block(struct unit_scan *scan, int error)
{
    assert(!scan->has_header);
    if (scan->gap_from == 0) {
        scan->gap_from = scan->at;
        scan->gap_error = error;
    }
    scan->at += DISK_BLOCK_SIZE;
    assert(scan->gap_from < scan->at); /* invariant 4 */
    return UNIT_SKIPPED;
}

/* Neither the rest of the file nor a gap before it can be had. */
static enum unit_step end_file(struct unit_scan *scan)
{
    if (scan->gap_from != 0)
        return end_gap(scan);
    uint64_t from = scan->at;
    scan->at = scan->file.end;
    return tell_damage(scan, from, scan->at, -ERANGE, NULL);
}

static bool is_header_sound(struct unit_scan *scan, const uint8_t *data)
{
    return unit_look(&scan->file, scan->at, data, &scan->unit) == UNIT_SOUND &&
           scan->unit.size <= UNIT_SIZE_MAX;
}

/* Finds the header at scan->at. */
static enum unit_step find_header(struct unit_scan *scan)
{
    const uint8_t *data;
    int error = scan->need(scan->context, scan->at, DISK_BLOCK_SIZE, &data);
    if (error == -EAGAIN)
        return UNIT_WAIT;
    if (error == -ERANGE)
        return end_file(scan);
    if (error < 0 || !is_header_sound(scan, data))
        return skip_block(scan, error);
    if (scan->gap_from != 0)
        return end_gap(scan);
    scan->has_header = true;
    return UNIT_FOUND;
}

/* The header is looked at again: it may have been read again, too. */
static enum unit_step take_unit(struct unit_scan *scan)
{
    bool is_head = scan->has_heads_only && scan->file.is_segment;
    uint64_t size = is_head ? scan->unit.records_offset : scan->unit.size;
    const uint8_t *data;
    int error = scan->need(scan->context, scan->at, size, &data);
    if (error == -EAGAIN)
        return UNIT_WAIT;
    scan->has_header = false;
    if (error == -ERANGE)
        return end_file(scan);
    uint64_t from = scan->at;
    uint64_t upto = from + scan->unit.size;
    bool is_same = error < 0 || (is_header_sound(scan, data) && scan->unit.size == upto - from);
    if (!is_same)
        return skip_block(scan, 0);
    scan->at = upto;
    scan->data = error < 0 ? NULL : data;
    bool is_trusted = scan->trusts_records && !scan->file.is_segment;
    if (error == 0 && (is_trusted || unit_is_sound(&scan->unit, data)))
        return UNIT_FOUND;
    (void)tell_damage(scan, from, upto, error,
                      scan->file.is_segment ? "the directory of the chunk is corrupt"
                                            : "the batch is corrupt");
    scan->damage.is_unit = true;
    return UNIT_DAMAGED;
}

const char *unit_describe(const struct unit_damage *damage)
{
    return damage->error < 0 ? strerror(-damage->error) : damage->what;
}

enum unit_step unit_scan_step(struct unit_scan *scan)
{
    scan->data = NULL;
    if (scan->at >= scan->file.end)
        return scan->gap_from != 0 ? end_gap(scan) : UNIT_END;
    assert(scan->at % DISK_BLOCK_SIZE == 0);
    if (scan->has_header)
        return take_unit(scan);
    enum unit_step step = find_header(scan);
    return step == UNIT_FOUND ? take_unit(scan) : step;
}
