/* Which bytes are the log, which are damage, and which are a torn tail that nobody was told of. The
 * rules stand in wal_scan.h. */
#include "store/wal/wal_scan.h"

#include "base/assert.h"
#include "base/plant.h"
#include "store/unit/unit.h"

#include <errno.h>

enum seen {
    SEEN_BATCH, /* a sound header that belongs here; the records are not verified */
    SEEN_OTHER,
    SEEN_TORN, /* not sound, but it names this very file */
    SEEN_END,  /* of the file */
};

enum verdict { GO_ON = 0, LOG_ENDED = 1 };

/* ---- one batch ---- */

static bool is_planted(const struct unit_file *file, const struct unit *unit)
{
    return plant_is(PLANT_REPLAY_STALE) && unit->batch.directory_id == file->directory_id &&
           unit->size <= file->end - unit->offset;
}

/* What lies at `offset`. The unit is set for SEEN_BATCH only. A batch of another format is not
 * ours: the header of its file would have said so. */
static int look(struct wal_scan *scan, uint32_t index, uint64_t offset, struct unit *ret_unit)
{
    const struct wal_scan_file *file = &scan->files[index];
    const struct log_file_header *header = &file->header;
    if (offset + WAL_BLOCK_SIZE > file->size)
        return SEEN_END;
    const uint8_t *image;
    int error = scan->load(scan->context, index, offset, offset + WAL_BLOCK_SIZE, &image);
    if (error < 0)
        return error;
    struct unit_file place = {
        .log_id = header->log_id,
        .generation = header->generation,
        .directory_id = header->directory_id,
        .salt = header->salt,
        .number = header->number,
        .end = file->size,
    };
    enum unit_verdict verdict = unit_look(&place, offset, image + offset, ret_unit);
    if (verdict == UNIT_TORN)
        return SEEN_TORN;
    bool is_ours =
        verdict == UNIT_SOUND || (verdict == UNIT_FOREIGN && is_planted(&place, ret_unit));
    if (!is_ours)
        return SEEN_OTHER;
    scan->found.clock_ceiling = max_u64(scan->found.clock_ceiling, ret_unit->batch.clock_ceiling);
    return SEEN_BATCH;
}

/* Loads the batch's records. Returns 1 when their checksum holds, otherwise 0. */
static int load_batch(struct wal_scan *scan, uint32_t index, const struct unit *unit,
                      const uint8_t **ret_data)
{
    const uint8_t *image;
    int error = scan->load(scan->context, index, unit->offset, unit->offset + unit->size, &image);
    if (error < 0)
        return error;
    *ret_data = image + unit->offset;
    return unit_is_sound(unit, *ret_data);
}

/* ---- what is told ---- */

/* Damage at [from, upto) of a file: counted and noted. */
static void note_place(struct wal_scan *scan, uint32_t index, uint64_t from, uint64_t upto,
                       const char *what)
{
    scan->files[index].is_damaged = true;
    scan->found.damaged_batches++;
    scan->note(
        scan->context,
        &(struct wal_scan_note){
            .kind = WAL_NOTE_DAMAGE, .file = index, .from = from, .upto = upto, .what = what});
}

/* The positions from scan->expected to `last` (none: nothing happens) are missing before `offset`,
 * although they were durable. */
static void note_lost(struct wal_scan *scan, uint32_t index, uint64_t offset, uint64_t last)
{
    if (last < scan->expected)
        return;
    scan->found.damaged_last = max_u64(scan->found.damaged_last, last);
    scan->note(scan->context, &(struct wal_scan_note){.kind = WAL_NOTE_LOST,
                                                      .file = index,
                                                      .from = offset,
                                                      .position_first = scan->expected,
                                                      .position_last = last});
    if (!scan->files[index].is_damaged)
        note_place(scan, index, offset, offset, "batches are missing before it");
    scan->expected = last + 1;
}

static int show_record(struct wal_scan *scan, uint32_t index, const struct unit_record *record)
{
    struct wal_scan_file *file = &scan->files[index];
    int error = scan->record(scan->context, index, record->offset, &record->record);
    if (error != 0)
        return error < 0 ? error : -ECANCELED;
    scan->found.records++;
    scan->found.clock_ceiling = max_u64(scan->found.clock_ceiling, record->record.version.clock);
    file->position_last = max_u64(file->position_last, record->record.position);
    return 0;
}

static int refuse_record(struct wal_scan *scan, uint32_t index, const struct unit_record *record)
{
    scan->note(scan->context, &(struct wal_scan_note){.kind = WAL_NOTE_UNKNOWN,
                                                      .file = index,
                                                      .from = record->offset,
                                                      .format = record->data[6],
                                                      .flags = record->data[7]});
    return -EPROTONOSUPPORT;
}

/* Announces the records of a batch up to `count`. One whose size cannot be ends that. `coming` is
 * the first one that was not announced yet. */
static void announce(const struct wal_scan *scan, const struct unit *unit, const uint8_t *data,
                     uint32_t count, struct unit_cursor *coming)
{
    while (coming->index < min_u64(count, unit->record_count)) {
        const uint8_t *at = data + coming->offset;
        uint64_t size = wal_record_told_size(at, unit->records_end - coming->offset);
        if (size == 0) {
            coming->index = unit->record_count;
            return;
        }
        scan->coming(scan->context, record_told_key(at));
        coming->index++;
        coming->offset += size;
    }
}

/* Shows the records of a batch that are sound themselves, and goes on behind it. */
static int show_batch(struct wal_scan *scan, uint32_t index, const struct unit *unit,
                      const uint8_t *data, bool is_sound)
{
    uint64_t first = unit->batch.position_first;
    uint64_t shown_before = scan->found.records;
    struct unit_cursor cursor = {0};
    struct unit_cursor coming = {.offset = unit->records_offset};
    struct unit_record record;
    for (int result = 1; result != 0;) {
        if (scan->coming != NULL)
            announce(scan, unit, data, cursor.index + 1 + WAL_SCAN_AHEAD, &coming);
        result = unit_next(unit, data, &cursor, &record);
        if (result == -EPROTONOSUPPORT)
            return refuse_record(scan, index, &record);
        int error = result == 1 ? show_record(scan, index, &record) : 0;
        if (error < 0)
            return error;
        is_sound &= result >= 0;
        if (result < 0)
            scan->found.damaged_last = max_u64(scan->found.damaged_last, first + cursor.index - 1);
    }
    if (!is_sound)
        note_place(scan, index, unit->offset, unit->offset + unit->size,
                   scan->found.records == shown_before
                       ? "no record of the batch is sound"
                       : "only some records of the batch are sound");
    scan->expected = first + unit->record_count;
    return 0;
}

/* ---- looking ahead ---- */

/* Adds up what the headers from here to the end of the generation prove, and how many bytes they
 * speak for. */
static int look_ahead(struct wal_scan *scan, uint32_t index, uint64_t offset)
{
    scan->tail_bytes = 0;
    for (; index < scan->generation_end; index++, offset = WAL_DATA_OFFSET) {
        const struct wal_scan_file *file = &scan->files[index];
        scan->proof = max_u64(scan->proof, file->header.durable);
        while (offset < file->size) {
            struct unit unit;
            int seen = look(scan, index, offset, &unit);
            if (seen < 0)
                return seen;
            uint64_t size = seen == SEEN_BATCH ? unit.size : WAL_BLOCK_SIZE;
            if (seen == SEEN_BATCH)
                scan->proof = max_u64(scan->proof, unit.batch.durable);
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

/* The next offset at or behind `offset` where a batch lies that belongs there and goes on; the
 * file's size when there is none. */
static int find_batch(struct wal_scan *scan, uint32_t index, uint64_t offset, uint64_t *ret_offset)
{
    for (;; offset += WAL_BLOCK_SIZE) {
        struct unit unit;
        int seen = look(scan, index, offset, &unit);
        if (seen < 0)
            return seen;
        if (seen == SEEN_END ||
            (seen == SEEN_BATCH && unit.batch.position_first >= scan->expected)) {
            *ret_offset = offset;
            return 0;
        }
    }
}

/* Whether this file is the one right behind the file before it in the list. */
static bool follows(const struct wal_scan *scan, uint32_t index)
{
    return index > 0 &&
           scan->files[index].header.generation == scan->files[index - 1].header.generation &&
           scan->files[index].header.previous == scan->files[index - 1].header.number;
}

/* Whether the file misses nothing but its seal: the next one goes on where it stopped. */
static bool lacks_seal_only(const struct wal_scan *scan, uint32_t index)
{
    uint32_t next = index + 1;
    return next < scan->generation_end && follows(scan, next) &&
           scan->files[next].header.last_before + 1 == scan->expected;
}

/* Planted: shows everything from `offset` on, whatever it was once. */
static int replay_stale(struct wal_scan *scan, uint32_t index, uint64_t offset)
{
    uint64_t expected = scan->expected;
    for (; offset < scan->files[index].size; offset += WAL_BLOCK_SIZE) {
        struct unit unit;
        const uint8_t *data;
        if (look(scan, index, offset, &unit) == SEEN_BATCH &&
            load_batch(scan, index, &unit, &data) == 1)
            (void)show_batch(scan, index, &unit, data, true);
    }
    scan->expected = expected;
    return LOG_ENDED;
}

/* The log ends at `offset`. */
static int end_log(struct wal_scan *scan, uint32_t index, uint64_t offset)
{
    const struct wal_scan_file *file = &scan->files[index];
    if (file->unreadable_last != WAL_READABLE && file->unreadable_last >= offset) {
        note_place(scan, index, offset, file->size,
                   "the device does not give it: this may not be the end");
        scan->found.damaged_last = max_u64(scan->found.damaged_last, scan->expected);
    }
    int error = look_ahead(scan, index, offset);
    if (error < 0)
        return error;
    scan->found.dropped_bytes += scan->tail_bytes;
    return plant_is(PLANT_REPLAY_STALE) ? replay_stale(scan, index, offset) : LOG_ENDED;
}

/* What comes next begins at `first`, above scan->expected: damage when the gap was durable,
 * otherwise the end. */
static int cross_gap(struct wal_scan *scan, uint32_t index, uint64_t offset, uint64_t first)
{
    int error = prove(scan, index, offset);
    if (error < 0)
        return error;
    note_lost(scan, index, offset, min_u64(first - 1, scan->proof));
    return scan->expected < first || first > scan->limit ? end_log(scan, index, offset) : GO_ON;
}

/* The place at *offset is not as it should be. Moves *offset behind it when that was damage. A unit
 * that is given has a sound header but not sound records. */
static int handle_bad(struct wal_scan *scan, uint32_t index, uint64_t *offset,
                      const struct unit *unit)
{
    if (lacks_seal_only(scan, index))
        return GO_ON;
    int error = prove(scan, index, *offset);
    if (error < 0)
        return error;
    if (scan->expected > scan->proof)
        return end_log(scan, index, *offset);
    if (unit != NULL && wal_batch_position_last(&unit->batch) <= scan->proof) {
        const uint8_t *data;
        int sound = load_batch(scan, index, unit, &data); /* the look ahead may have moved on */
        *offset += unit->size;
        return sound < 0 ? sound : show_batch(scan, index, unit, data, false);
    }
    uint64_t next;
    error = find_batch(scan, index, *offset + WAL_BLOCK_SIZE, &next);
    if (error < 0)
        return error;
    note_place(scan, index, *offset, next, "not the batch that belongs here");
    *offset = next;
    return GO_ON;
}

/* Takes the batch at *offset, whose header is sound, and moves behind it. */
static int take_batch(struct wal_scan *scan, uint32_t index, uint64_t *offset,
                      const struct unit *unit)
{
    uint64_t first = unit->batch.position_first;
    if (first < scan->expected)
        return handle_bad(scan, index, offset, NULL);
    if (first > scan->expected) {
        int verdict = cross_gap(scan, index, *offset, first);
        if (verdict != GO_ON)
            return verdict;
    }
    const uint8_t *data;
    int sound = load_batch(scan, index, unit, &data);
    if (sound < 0)
        return sound;
    if (sound == 0)
        return handle_bad(scan, index, offset, unit);
    scan->proof = max_u64(scan->proof, unit->batch.durable);
    *offset += unit->size;
    return show_batch(scan, index, unit, data, true);
}

/* Shows a file's records. Returns GO_ON at its end, or LOG_ENDED. */
static int scan_file(struct wal_scan *scan, uint32_t index)
{
    struct wal_scan_file *file = &scan->files[index];
    uint64_t offset = WAL_DATA_OFFSET;
    for (;;) {
        file->end = min_u64(offset, file->size);
        if (scan->expected > scan->limit)
            return LOG_ENDED;
        struct unit unit;
        int seen = look(scan, index, offset, &unit);
        if (seen < 0)
            return seen;
        if (seen == SEEN_END)
            return GO_ON;
        uint64_t before = offset;
        int verdict = seen == SEEN_BATCH ? take_batch(scan, index, &offset, &unit)
                                         : handle_bad(scan, index, &offset, NULL);
        if (verdict != GO_ON || offset == before)
            return verdict;
        if (seen == SEEN_BATCH && unit.record_count == 0 &&
            unit.batch.position_first == scan->expected) {
            file->is_sealed = true;
            file->end = offset;
            return GO_ON;
        }
    }
}

/* Before a file of the generation, not the first: what the one before it left open. */
static int join_files(struct wal_scan *scan, uint32_t index)
{
    const struct wal_scan_file *before = &scan->files[index - 1];
    uint64_t first = scan->files[index].header.last_before + 1;
    if (first <= scan->expected)
        return GO_ON;
    if (follows(scan, index))
        return cross_gap(scan, index - 1, before->end, first);
    /* Those between were recycled: what they held is known to be dead. Before that, the one before
     * them had its seal: without it, its end is gone. */
    if (!before->is_sealed) {
        int verdict = cross_gap(scan, index - 1, before->end, first);
        if (verdict != GO_ON)
            return verdict;
    }
    scan->expected = first;
    return GO_ON;
}

/* Behind the last file of a generation, whose log did not end in a torn tail. */
static int close_generation(struct wal_scan *scan, uint32_t last)
{
    const struct wal_scan_file *file = &scan->files[last];
    if (file->is_sealed)
        return 0;
    int error = prove(scan, last, file->end);
    if (error < 0)
        return error;
    note_lost(scan, last, file->end, min_u64(scan->proof, scan->limit));
    return 0;
}

/* The files of the newest generation are as long as they were made, if nothing cut them since. How
 * much they held, then, is not known. */
static void note_cut_files(struct wal_scan *scan, uint32_t first)
{
    for (uint32_t i = first; i < scan->file_count; i++) {
        const struct wal_scan_file *file = &scan->files[i];
        if (file->is_sealed || file->size >= file->header.file_size)
            continue;
        note_place(scan, i, file->size, file->header.file_size, "the file is cut short");
        scan->found.damaged_last = max_u64(scan->found.damaged_last, scan->expected);
    }
}

static int scan_generation(struct wal_scan *scan, uint32_t first)
{
    const struct log_file_header *header = &scan->files[first].header;
    scan->generation_end = first + 1;
    while (scan->generation_end < scan->file_count &&
           scan->files[scan->generation_end].header.generation == header->generation)
        scan->generation_end++;
    scan->limit = UINT64_MAX;
    for (uint32_t i = scan->generation_end; i < scan->file_count; i++)
        scan->limit = min_u64(scan->limit, scan->files[i].header.generation_base);
    scan->is_proved = scan->limit != UINT64_MAX;
    scan->proof = scan->is_proved ? scan->limit : header->durable;
    scan->expected = header->last_before + 1;
    if (plant_is(PLANT_REPLAY_STALE))
        scan->limit = UINT64_MAX;
    uint32_t index = first;
    int verdict = GO_ON;
    for (; index < scan->generation_end && verdict == GO_ON; index++) {
        verdict = index > first ? join_files(scan, index) : GO_ON;
        if (verdict == GO_ON)
            verdict = scan_file(scan, index);
    }
    if (verdict == GO_ON)
        verdict = close_generation(scan, scan->generation_end - 1);
    if (verdict >= 0 && scan->generation_end == scan->file_count)
        note_cut_files(scan, first);
    return verdict;
}

int wal_scan_run(struct wal_scan *scan)
{
    for (uint32_t i = 0; i < scan->file_count; i++) {
        struct wal_scan_file *file = &scan->files[i];
        assert(i == 0 || file->header.number > scan->files[i - 1].header.number);
        file->end = min_u64(WAL_DATA_OFFSET, file->size);
        scan->found.clock_ceiling = max_u64(scan->found.clock_ceiling, file->header.clock_ceiling);
    }
    for (uint32_t first = 0; first < scan->file_count; first = scan->generation_end) {
        int verdict = scan_generation(scan, first);
        if (verdict < 0)
            return verdict;
        scan->found.last_position =
            max_u64(scan->found.last_position, min_u64(scan->expected - 1, scan->limit));
    }
    return 0;
}

/* ---- a file without a readable header ---- */

/* Out of the file's first sound batch. When that is not where a file's batches begin, those
 * before it are lost, and nobody knows how many: the gap then begins where the generation did, or
 * where the file before ended. */
static void infer_header(const struct wal_batch_header *batch, uint64_t size,
                         struct log_file_header *ret_header)
{
    bool is_first = batch->offset == WAL_DATA_OFFSET;
    ret_header->state = WAL_HEADER_ACTIVE;
    ret_header->generation = batch->generation;
    ret_header->salt = batch->salt;
    ret_header->number = batch->number;
    ret_header->file_size = size;
    ret_header->previous = batch->number - 1;
    ret_header->last_before = is_first ? batch->position_first - 1 : batch->generation_base;
    ret_header->generation_base = batch->generation_base;
    ret_header->durable = batch->generation_base;
    ret_header->clock_ceiling = batch->clock_ceiling;
}

int wal_scan_infer(struct wal_scan *scan, uint32_t index, uint64_t number_above)
{
    struct wal_scan_file *file = &scan->files[index];
    struct log_file_header *header = &file->header;
    header->number = number_above;
    int found = 0;
    for (uint64_t offset = WAL_DATA_OFFSET; offset < file->size;) {
        const uint8_t *image;
        int error = scan->load(scan->context, index, offset, offset + WAL_BLOCK_SIZE, &image);
        if (error < 0)
            return error;
        struct wal_batch_header batch;
        bool sound = wal_batch_header_decode(image + offset, &batch) == 0 &&
                     batch.offset == offset && batch.directory_id == header->directory_id &&
                     batch.log_id == header->log_id;
        if (sound && batch.number > header->number) {
            infer_header(&batch, file->size, header);
            found = 1;
        }
        offset += sound ? wal_batch_size(&batch) : WAL_BLOCK_SIZE;
    }
    return found;
}
