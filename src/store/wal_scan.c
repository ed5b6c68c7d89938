#include "store/wal_scan.h"

#include "base/assert.h"
#include "base/checksum.h"

#include <errno.h>
#include <inttypes.h>

/* A rotten device must not flood the journal. */
#define NOTES_MAX 100

enum seen {
    SEEN_BATCH, /* a sound header that belongs here; the records are not verified */
    SEEN_OTHER,
    SEEN_TORN,  /* not sound, but it names this very segment */
    SEEN_END,   /* of the file */
};

enum verdict { GO_ON = 0, LOG_ENDED = 1 };

static bool may_note(struct wal_scan *scan)
{
    if (scan->notes == NOTES_MAX)
        log_error(scan->log, "the log has more damage than is worth a line each");
    return scan->notes++ < NOTES_MAX;
}

static bool belongs(const struct wal_batch_header *batch, const struct wal_segment_header *segment,
                    uint64_t offset)
{
#ifdef PLANT_REPLAY_STALE
    if (batch->directory_id == segment->directory_id)
        return true;
#endif
    return batch->directory_id == segment->directory_id && batch->log_id == segment->log_id &&
           batch->generation == segment->generation && batch->salt == segment->salt &&
           batch->segment == segment->number && batch->offset == offset;
}

/* What lies at `offset`. The header is set for SEEN_BATCH only. */
static int look(struct wal_scan *scan, uint32_t index, uint64_t offset, struct wal_batch_header *ret_batch)
{
    const struct wal_scan_segment *segment = &scan->segments[index];
    if (offset + WAL_BLOCK_SIZE > segment->size)
        return SEEN_END;
    const uint8_t *image;
    int error = scan->load(scan->context, index, offset, offset + WAL_BLOCK_SIZE, &image);
    if (error < 0)
        return error;
    struct wal_batch_header batch;
    int result = wal_batch_header_decode(image + offset, &batch);
    if (result == -EPROTONOSUPPORT)
        return result;
    if (result < 0) {
        memcpy(&batch, image + offset, sizeof batch);
        return batch.salt == segment->header.salt && batch.salt != 0 ? SEEN_TORN : SEEN_OTHER;
    }
    if (!belongs(&batch, &segment->header, offset) || wal_batch_size(&batch) > segment->size - offset)
        return SEEN_OTHER;
    scan->found.clock_ceiling = max_u64(scan->found.clock_ceiling, batch.clock_ceiling);
    *ret_batch = batch;
    return SEEN_BATCH;
}

/* Loads the batch's records. Returns 1 when their checksum holds, otherwise 0. */
static int load_payload(struct wal_scan *scan, uint32_t index, uint64_t offset,
                        const struct wal_batch_header *batch, const uint8_t **ret_payload)
{
    const uint8_t *image;
    int error = scan->load(scan->context, index, offset, offset + wal_batch_size(batch), &image);
    if (error < 0)
        return error;
    *ret_payload = image + offset + WAL_BATCH_HEADER_SIZE;
    return crc32c(*ret_payload, batch->payload_size) == batch->payload_crc;
}

/* Adds up what the headers from here to the end of the generation prove, and what they would hold. */
static int look_ahead(struct wal_scan *scan, uint32_t index, uint64_t offset)
{
    scan->tail_bytes = 0;
    for (; index < scan->generation_end; index++, offset = WAL_DATA_OFFSET) {
        const struct wal_scan_segment *segment = &scan->segments[index];
        scan->proof = max_u64(scan->proof, segment->header.durable);
        while (offset < segment->size) {
            struct wal_batch_header batch;
            int seen = look(scan, index, offset, &batch);
            if (seen < 0 && seen != -EPROTONOSUPPORT)
                return seen;
            uint64_t size = seen == SEEN_BATCH ? wal_batch_size(&batch) : WAL_BLOCK_SIZE;
            if (seen == SEEN_BATCH)
                scan->proof = max_u64(scan->proof, batch.durable);
            if (seen == SEEN_BATCH || seen == SEEN_TORN)
                scan->tail_bytes += size;
            offset += size;
        }
    }
    return 0;
}

/* Makes scan->proof final for this generation. */
static int prove(struct wal_scan *scan, uint32_t index, uint64_t offset)
{
    if (scan->is_proved)
        return 0;
    int error = look_ahead(scan, index, offset);
    if (error == 0)
        scan->is_proved = true;
    return error;
}

static void note_place(struct wal_scan *scan, uint32_t index, uint64_t from, uint64_t upto, const char *what)
{
    scan->segments[index].is_damaged = true;
    scan->found.damaged_batches++;
    if (may_note(scan))
        log_error(scan->log, "%s: damage from byte %" PRIu64 " to %" PRIu64 ": %s",
                  scan->segments[index].path, from, upto, what);
}

/* The positions from scan->expected to `last` are not there, although they were durable. */
static void note_lost(struct wal_scan *scan, uint32_t index, uint64_t offset, uint64_t last)
{
    if (last < scan->expected)
        return;
    scan->found.damaged_last = max_u64(scan->found.damaged_last, last);
    if (may_note(scan))
        log_error(scan->log,
                  "%s: the writes at the log positions %" PRIu64 " to %" PRIu64
                  " are missing before byte %" PRIu64 ", although they were acknowledged",
                  scan->segments[index].path, scan->expected, last, offset);
    if (!scan->segments[index].is_damaged)
        note_place(scan, index, offset, offset, "batches are missing before it");
    scan->expected = last + 1;
}

/* Shows one record. Returns its size with padding; 0: it is not sound. */
static int64_t show_record(struct wal_scan *scan, uint32_t index, uint64_t offset, const uint8_t *data,
                           uint64_t size, uint64_t position)
{
    struct record record;
    int64_t result = record_decode(data, size, &record);
    if (result == -EPROTONOSUPPORT) {
        log_error(scan->log,
                  "%s: the record at byte %" PRIu64 " has format %u and flags %02x, which this program does not know: "
                  "use the version that wrote it, or a newer one",
                  scan->segments[index].path, offset, data[6], data[7]);
        return result;
    }
    if (result < 0 || record.position != position)
        return 0;
    int error = scan->record(scan->context, index, offset, &record);
    if (error != 0)
        return error < 0 ? error : -ECANCELED;
    scan->found.records++;
    scan->segments[index].position_last = max_u64(scan->segments[index].position_last, position);
    return (int64_t)round_up((uint64_t)result, WAL_RECORD_ALIGNMENT);
}

/* A batch whose records are sound as a whole. */
static int show_batch(struct wal_scan *scan, uint32_t index, uint64_t offset,
                      const struct wal_batch_header *batch, const uint8_t *payload)
{
    uint64_t done = 0;
    uint32_t i = 0;
    offset += WAL_BATCH_HEADER_SIZE;
    for (; i < batch->record_count && done < batch->payload_size; i++) {
        int64_t size = show_record(scan, index, offset + done, payload + done, batch->payload_size - done,
                                   batch->position_first + i);
        if (size < 0)
            return (int)size;
        if (size == 0)
            break;
        done += (uint64_t)size;
    }
    if (i < batch->record_count) {
        note_place(scan, index, offset + done, offset + batch->payload_size, "a record is not sound");
        scan->found.damaged_last = max_u64(scan->found.damaged_last, wal_batch_position_last(batch));
    }
    scan->expected = batch->position_first + batch->record_count;
    return 0;
}

/* The size, with padding, that the unverified header at `data` tells, or 0 when it cannot be. */
static uint64_t told_size(const uint8_t *data, uint64_t size)
{
    if (size < RECORD_HEADER_SIZE)
        return 0;
    uint64_t told = round_up(record_size(load_u16(data + 8), load_u32(data + 12)), WAL_RECORD_ALIGNMENT);
    return told <= size ? told : 0;
}

/* Whether the sizes that the records tell lead exactly through the batch. If not, a size is wrong, and whatever lies
 * behind it might be a client's bytes that look like a record. */
static bool sizes_add_up(const struct wal_batch_header *batch, const uint8_t *payload)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < batch->record_count; i++) {
        uint64_t size = told_size(payload + done, batch->payload_size - done);
        if (size == 0)
            return false;
        done += size;
    }
    return done == batch->payload_size;
}

/* A damaged batch whose header is sound: shows the records that are sound themselves. */
static int salvage(struct wal_scan *scan, uint32_t index, uint64_t offset,
                   const struct wal_batch_header *batch, const uint8_t *payload)
{
    bool may_skip = sizes_add_up(batch, payload);
    uint64_t done = 0;
    uint32_t shown = 0;
    for (uint32_t i = 0; i < batch->record_count && done < batch->payload_size; i++) {
        uint64_t left = batch->payload_size - done;
        int64_t size = show_record(scan, index, offset + WAL_BATCH_HEADER_SIZE + done, payload + done, left,
                                   batch->position_first + i);
        if (size < 0)
            return (int)size;
        shown += size > 0;
        if (size == 0) {
            scan->found.damaged_last = max_u64(scan->found.damaged_last, batch->position_first + i);
            if (!may_skip)
                break;
            size = (int64_t)told_size(payload + done, left);
        }
        done += (uint64_t)size;
    }
    if (shown < batch->record_count && !may_skip)
        scan->found.damaged_last = max_u64(scan->found.damaged_last, wal_batch_position_last(batch));
    note_place(scan, index, offset, offset + wal_batch_size(batch),
               shown == 0 ? "no record of the batch is sound" : "only some records of the batch are sound");
    scan->expected = batch->position_first + batch->record_count;
    return 0;
}

/* The next offset at or behind `offset` where a batch lies that belongs there and goes on; the segment's size when
 * there is none. */
static int find_batch(struct wal_scan *scan, uint32_t index, uint64_t offset, uint64_t *ret_offset)
{
    for (;; offset += WAL_BLOCK_SIZE) {
        struct wal_batch_header batch;
        int seen = look(scan, index, offset, &batch);
        if (seen < 0 && seen != -EPROTONOSUPPORT)
            return seen;
        if (seen == SEEN_END || (seen == SEEN_BATCH && batch.position_first >= scan->expected)) {
            *ret_offset = offset;
            return 0;
        }
    }
}

#ifdef PLANT_REPLAY_STALE
static int replay_stale(struct wal_scan *scan, uint32_t index, uint64_t offset)
{
    for (; offset < scan->segments[index].size; offset += WAL_BLOCK_SIZE) {
        struct wal_batch_header batch;
        const uint8_t *payload;
        uint64_t expected = scan->expected;
        if (look(scan, index, offset, &batch) == SEEN_BATCH &&
            load_payload(scan, index, offset, &batch, &payload) == 1)
            (void)show_batch(scan, index, offset, &batch, payload);
        scan->expected = expected;
    }
    return LOG_ENDED;
}
#endif

static bool follows(const struct wal_scan *scan, uint32_t index)
{
    return index > 0 && scan->segments[index].header.generation == scan->segments[index - 1].header.generation &&
           scan->segments[index].header.previous == scan->segments[index - 1].header.number;
}

/* The log ends here, unless only the seal was torn and the next segment goes on. */
static int end_log(struct wal_scan *scan, uint32_t index, uint64_t offset)
{
    uint32_t next = index + 1;
    if (next < scan->generation_end && follows(scan, next) &&
        scan->segments[next].header.last_before + 1 == scan->expected)
        return GO_ON;
    const struct wal_scan_segment *segment = &scan->segments[index];
    if (segment->unreadable_last != WAL_READABLE && segment->unreadable_last >= offset) {
        note_place(scan, index, offset, segment->size, "the device does not give it, so this may not be the end");
        scan->found.damaged_last = max_u64(scan->found.damaged_last, scan->expected);
    }
    int error = look_ahead(scan, index, offset);
    if (error < 0)
        return error;
    scan->found.dropped_bytes += scan->tail_bytes;
#ifdef PLANT_REPLAY_STALE
    return replay_stale(scan, index, offset);
#endif
    return LOG_ENDED;
}

/* What comes next begins at `first`, above scan->expected: damage when the gap was durable, otherwise the end. */
static int cross_gap(struct wal_scan *scan, uint32_t index, uint64_t offset, uint64_t first)
{
    int error = prove(scan, index, offset);
    if (error < 0)
        return error;
    note_lost(scan, index, offset, min_u64(first - 1, scan->proof));
    return scan->expected < first ? end_log(scan, index, offset) : GO_ON;
}

/* The place at *offset is not as it should be. Moves *offset behind it when that was damage. */
static int handle_bad(struct wal_scan *scan, uint32_t index, uint64_t *offset,
                      const struct wal_batch_header *batch, const uint8_t *payload)
{
    int error = prove(scan, index, *offset);
    if (error < 0)
        return error;
    if (scan->expected > scan->proof)
        return end_log(scan, index, *offset);
    if (batch != NULL && wal_batch_position_last(batch) <= scan->proof) {
        error = salvage(scan, index, *offset, batch, payload);
        *offset += wal_batch_size(batch);
        return error;
    }
    uint64_t next;
    error = find_batch(scan, index, *offset + WAL_BLOCK_SIZE, &next);
    if (error < 0)
        return error;
    note_place(scan, index, *offset, next, "not the batch that belongs here");
    *offset = next;
    return GO_ON;
}

static int refuse_format(const struct wal_scan *scan, uint32_t index, uint64_t offset)
{
    log_error(scan->log,
              "%s: the batch at byte %" PRIu64 " has a format that this program does not know (it knows %d): use the "
              "version that wrote it, or a newer one",
              scan->segments[index].path, offset, WAL_FORMAT);
    return -EPROTONOSUPPORT;
}

/* Takes the batch at *offset, whose header is sound, and moves behind it. */
static int take_batch(struct wal_scan *scan, uint32_t index, uint64_t *offset,
                      const struct wal_batch_header *batch)
{
    if (batch->position_first < scan->expected)
        return handle_bad(scan, index, offset, NULL, NULL);
    if (batch->position_first > scan->expected) {
        int verdict = cross_gap(scan, index, *offset, batch->position_first);
        if (verdict != GO_ON)
            return verdict;
    }
    const uint8_t *payload;
    int sound = load_payload(scan, index, *offset, batch, &payload);
    if (sound < 0)
        return sound;
    if (sound == 0)
        return handle_bad(scan, index, offset, batch, payload);
    scan->proof = max_u64(scan->proof, batch->durable);
    int error = show_batch(scan, index, *offset, batch, payload);
    *offset += wal_batch_size(batch);
    return error;
}

/* Shows a segment's records. Returns GO_ON at its end, or LOG_ENDED. */
static int scan_segment(struct wal_scan *scan, uint32_t index)
{
    struct wal_scan_segment *segment = &scan->segments[index];
    uint64_t offset = WAL_DATA_OFFSET;
    for (;;) {
        segment->end = min_u64(offset, segment->size);
        if (scan->expected > scan->limit)
            return LOG_ENDED;
        struct wal_batch_header batch;
        int seen = look(scan, index, offset, &batch);
        if (seen == -EPROTONOSUPPORT)
            return refuse_format(scan, index, offset);
        if (seen < 0)
            return seen;
        if (seen == SEEN_END)
            return GO_ON;
        uint64_t before = offset;
        int verdict = seen == SEEN_BATCH ? take_batch(scan, index, &offset, &batch)
                                         : handle_bad(scan, index, &offset, NULL, NULL);
        if (verdict != GO_ON || offset == before)
            return verdict;
        if (seen == SEEN_BATCH && (batch.flags & WAL_BATCH_SEAL) != 0 && !segment->is_sealed) {
            segment->is_sealed = true;
            segment->end = offset;
            return GO_ON;
        }
    }
}
