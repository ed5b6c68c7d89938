/* Showing the records of a batch, whole or damaged, and saying what is missing. */
#include "store/wal/wal_scan_internal.h"

#include <errno.h>

void scan_note_place(struct wal_scan *scan, uint32_t index, uint64_t from, uint64_t upto,
                     const char *what)
{
    scan->segments[index].is_damaged = true;
    scan->found.damaged_batches++;
    scan->note(
        scan->context,
        &(struct wal_scan_note){
            .kind = WAL_SCAN_DAMAGE, .segment = index, .from = from, .upto = upto, .what = what});
}

/* The positions from scan->expected to `last` are not there, although they were durable. */
void scan_note_lost(struct wal_scan *scan, uint32_t index, uint64_t offset, uint64_t last)
{
    if (last < scan->expected)
        return;
    scan->found.damaged_last = max_u64(scan->found.damaged_last, last);
    scan->note(scan->context, &(struct wal_scan_note){.kind = WAL_SCAN_LOST,
                                                      .segment = index,
                                                      .from = offset,
                                                      .position_first = scan->expected,
                                                      .position_last = last});
    if (!scan->segments[index].is_damaged)
        scan_note_place(scan, index, offset, offset, "batches are missing before it");
    scan->expected = last + 1;
}

/* Shows one record. Returns its size with padding; 0: it is not sound. */
static int64_t show_record(struct wal_scan *scan, uint32_t index, uint64_t offset,
                           const uint8_t *data, uint64_t size, uint64_t position)
{
    struct record record;
    int64_t result = record_decode(data, size, &record);
    if (result == -EPROTONOSUPPORT) {
        scan->note(scan->context, &(struct wal_scan_note){.kind = WAL_SCAN_UNKNOWN,
                                                          .segment = index,
                                                          .from = offset,
                                                          .format = data[6],
                                                          .flags = data[7]});
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

/* Records that were announced but not shown yet. */
struct announced {
    uint32_t count; /* of the batch, from its begin */
    uint64_t size;
};

/* Announces the records of a batch up to `count`. One whose size cannot be ends that. */
static void announce(const struct wal_scan *scan, const struct wal_batch_header *batch,
                     const uint8_t *payload, uint32_t count, struct announced *announced)
{
    while (announced->count < min_u64(count, batch->record_count)) {
        const uint8_t *data = payload + announced->size;
        uint64_t size = wal_record_told_size(data, batch->payload_size - announced->size);
        if (size == 0) {
            announced->count = batch->record_count;
            return;
        }
        scan->coming(scan->context, record_told_key(data));
        announced->count++;
        announced->size += size;
    }
}

/* A batch whose records are sound as a whole. */
int scan_show_batch(struct wal_scan *scan, uint32_t index, uint64_t offset,
                    const struct wal_batch_header *batch, const uint8_t *payload)
{
    uint64_t done = 0;
    uint32_t i = 0;
    struct announced announced = {0};
    offset += WAL_BATCH_HEADER_SIZE;
    for (; i < batch->record_count && done < batch->payload_size; i++) {
        if (scan->coming != NULL)
            announce(scan, batch, payload, i + 1 + WAL_SCAN_AHEAD, &announced);
        int64_t size = show_record(scan, index, offset + done, payload + done,
                                   batch->payload_size - done, batch->position_first + i);
        if (size < 0)
            return (int)size;
        if (size == 0)
            break;
        done += (uint64_t)size;
    }
    if (i < batch->record_count) {
        scan_note_place(scan, index, offset + done, offset + batch->payload_size,
                        "a record is not sound");
        scan->found.damaged_last =
            max_u64(scan->found.damaged_last, wal_batch_position_last(batch));
    }
    scan->expected = batch->position_first + batch->record_count;
    return 0;
}

/* Whether the sizes that the records tell lead exactly through the batch. If not, a size is wrong,
 * and whatever lies behind it might be a client's bytes that look like a record. */
static bool sizes_add_up(const struct wal_batch_header *batch, const uint8_t *payload)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < batch->record_count; i++) {
        uint64_t size = wal_record_told_size(payload + done, batch->payload_size - done);
        if (size == 0)
            return false;
        done += size;
    }
    return done == batch->payload_size;
}

/* A damaged batch whose header is sound: shows the records that are sound themselves. */
int scan_salvage(struct wal_scan *scan, uint32_t index, uint64_t offset,
                 const struct wal_batch_header *batch, const uint8_t *payload)
{
    bool may_skip = sizes_add_up(batch, payload);
    uint64_t done = 0;
    uint32_t shown = 0;
    for (uint32_t i = 0; i < batch->record_count && done < batch->payload_size; i++) {
        uint64_t left = batch->payload_size - done;
        int64_t size = show_record(scan, index, offset + WAL_BATCH_HEADER_SIZE + done,
                                   payload + done, left, batch->position_first + i);
        if (size < 0)
            return (int)size;
        shown += size > 0;
        if (size == 0) {
            scan->found.damaged_last = max_u64(scan->found.damaged_last, batch->position_first + i);
            if (!may_skip)
                break;
            size = (int64_t)wal_record_told_size(payload + done, left);
        }
        done += (uint64_t)size;
    }
    if (shown < batch->record_count && !may_skip)
        scan->found.damaged_last =
            max_u64(scan->found.damaged_last, wal_batch_position_last(batch));
    scan_note_place(scan, index, offset, offset + wal_batch_size(batch),
                    shown == 0 ? "no record of the batch is sound"
                               : "only some records of the batch are sound");
    scan->expected = batch->position_first + batch->record_count;
    return 0;
}
