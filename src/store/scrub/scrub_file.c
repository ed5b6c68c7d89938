/* Reading a segment, batch by batch or chunk by chunk, through a window of a megabyte.
 *
 * Where no header lies that belongs there, the next one is looked for block by block: what is
 * between them is one damaged place. Where the device refuses a window, only what is needed is
 * asked for, so that a bad block costs no more than the batch or chunk that it is in. */
#include "store/scrub/scrub_internal.h"
#include "store/disk/wait.h"

#include "base/checksum.h"
#include "store/wal/wal_recover_internal.h"

#include <errno.h>
#include <string.h>

/* What looking at a header costs of a step's budget. */
#define HEADER_COST 256u

struct segment *scrub_segment(const struct scrub *scrub)
{
    assert(scrub->file.is_segment);
    return segments_find_number(scrub->options.segments, scrub->file.number);
}

bool scrub_file_is_there(const struct scrub *scrub)
{
    const struct scrub_file *file = &scrub->file;
    return file->is_segment ? scrub_segment(scrub) != NULL
                            : wal_file_path(scrub->options.wal, file->file, file->number) != NULL;
}

/* ---- the window ---- */

static void unpin(struct scrub *scrub)
{
    if (scrub->file.is_segment)
        segment_unpin(scrub->options.segments, scrub->pin.segment);
    else
        wal_unpin_file(scrub->options.wal, scrub->file.file);
}

static void read_done(struct io_op *op, int32_t result)
{
    struct scrub *scrub = container_of(op, struct scrub, op);
    unpin(scrub);
    scrub->phase = SCRUB_CHECKING;
    if (result >= 0) {
        scrub->window.size = (uint32_t)result;
        scrub->stats.bytes += (uint32_t)result;
        return;
    }
    scrub->window.error = result;
    if (!disk_is_device_error(result))
        scrub->file.is_abandoned = true;
}

static void start_read(struct scrub *scrub, int handle)
{
    scrub->op.done = read_done;
    io_read(scrub->io, &scrub->op, handle, scrub->window.data, scrub->window.asked,
            scrub->window.offset);
    scrub_pay(scrub, scrub->window.asked);
}

static void pinned(struct segment_pin *pin, int handle_or_error)
{
    struct scrub *scrub = container_of(pin, struct scrub, pin);
    scrub->is_pinning = false;
    if (handle_or_error >= 0) {
        start_read(scrub, handle_or_error);
        return;
    }
    scrub->phase = SCRUB_CHECKING;
    scrub->file.is_abandoned = true;
    bool is_lost = handle_or_error == -ENOENT || disk_is_device_error(handle_or_error);
    if (is_lost && scrub_file_is_there(scrub))
        scrub_report_part(scrub, 0, scrub->file.end, strerror(-handle_or_error));
}

void scrub_load(struct scrub *scrub)
{
    struct scrub_file *file = &scrub->file;
    scrub->window.offset = scrub->window_next;
    scrub->window.asked = scrub->window_wanted;
    scrub->window.size = 0;
    scrub->window.error = 0;
    if (!file->is_segment) {
        start_read(scrub, wal_pin_file(scrub->options.wal, file->file));
        return;
    }
    scrub->pin.done = pinned;
    scrub->is_pinning = true;
    int handle = segment_pin(scrub->options.segments, scrub_segment(scrub), &scrub->pin);
    if (handle != -EINPROGRESS)
        pinned(&scrub->pin, handle);
}

static bool holds(const struct scrub_window *window, uint64_t offset, uint64_t size)
{
    return offset >= window->offset && offset + size <= window->offset + window->size;
}

enum need { NEED_HELD, NEED_LOAD, NEED_REFUSED };

/* Makes [offset, offset + size) the window's. REFUSED: the device did not give it, or the file ends
 * before (window.error is 0). */
static enum need need(struct scrub *scrub, uint64_t offset, uint64_t size)
{
    struct scrub_window *window = &scrub->window;
    uint32_t needed = (uint32_t)round_up(size, DISK_BLOCK_SIZE);
    if (holds(window, offset, size))
        return NEED_HELD;
    bool was_tried = window->offset == offset && window->asked >= needed;
    if (was_tried && (window->error == 0 || window->asked == needed))
        return NEED_REFUSED;
    scrub->window_next = offset;
    bool is_narrow = window->offset == offset && window->asked > 0;
    scrub->window_wanted =
        is_narrow ? needed : (uint32_t)min_u64(SCRUB_WINDOW_SIZE, scrub->file.end - offset);
    return NEED_LOAD;
}

static const char *describe_refusal(const struct scrub *scrub)
{
    return scrub->window.error == 0 ? "the file ends before" : strerror(-scrub->window.error);
}

/* ---- headers ---- */

static bool is_segment_header(const struct scrub *scrub, const uint8_t *block)
{
    const struct scrub_file *file = &scrub->file;
    struct segment_header header;
    return segment_header_decode(block, &header) == 0 &&
           header.directory_id == scrub->options.directory_id && header.number == file->number &&
           header.salt == file->salt && header.partition == file->partition;
}

static bool is_log_header(const struct scrub *scrub, const uint8_t *block)
{
    const struct scrub_file *file = &scrub->file;
    struct log_file_header header;
    return log_file_header_decode(block, &header) == 0 && header.state == WAL_HEADER_ACTIVE &&
           header.directory_id == scrub->options.directory_id && header.number == file->number &&
           header.salt == file->salt;
}

static enum scrub_check check_header(struct scrub *scrub)
{
    struct scrub_file *file = &scrub->file;
    const char *problem = NULL;
    enum need found = need(scrub, 0, DISK_BLOCK_SIZE);
    if (found == NEED_LOAD)
        return SCRUB_CHECK_LOAD;
    if (found == NEED_REFUSED) {
        problem = describe_refusal(scrub);
    } else {
        const uint8_t *block = scrub_window_at(scrub, 0);
        if (file->is_segment ? !is_segment_header(scrub, block) : !is_log_header(scrub, block))
            problem = "the segment's header is corrupt";
    }
    if (problem != NULL)
        scrub_report_part(scrub, 0, DISK_BLOCK_SIZE, problem);
    file->at = file->is_segment ? SEGMENT_DATA_OFFSET : WAL_DATA_OFFSET;
    return SCRUB_CHECK_MORE;
}

/* Each returns the size of what lies at file->at, or 0: nothing that belongs there. */
static uint64_t begin_batch(struct scrub *scrub, const uint8_t *data)
{
    struct scrub_file *file = &scrub->file;
    struct wal_batch_header header;
    if (wal_batch_header_decode(data, &header) < 0 ||
        header.directory_id != scrub->options.directory_id || header.segment != file->number ||
        header.salt != file->salt || header.offset != file->at)
        return 0;
    file->records_left = header.record_count;
    file->record_offset = file->at + WAL_BATCH_HEADER_SIZE;
    return wal_batch_size(&header);
}

static uint64_t begin_chunk(struct scrub *scrub, const uint8_t *data)
{
    struct scrub_file *file = &scrub->file;
    struct segment_chunk_header header;
    if (segment_chunk_header_decode(data, &header) < 0 ||
        header.directory_id != scrub->options.directory_id || header.segment != file->number ||
        header.salt != file->salt || header.offset != file->at)
        return 0;
    file->records_left = header.record_count;
    file->record_offset = file->at + segment_chunk_records_offset(header.record_count);
    return segment_chunk_size(header.record_count, header.records_size);
}

/* What the header vouches for. NULL: it is sound. */
static const char *judge_unit(const struct scrub *scrub)
{
    const uint8_t *data = scrub_window_at(scrub, scrub->file.at);
    if (scrub->file.is_segment) {
        struct segment_chunk_header header;
        (void)segment_chunk_header_decode(data, &header);
        return segment_directory_check(&header, data) == 0 ? NULL
                                                           : "the chunk's directory is corrupt";
    }
    struct wal_batch_header header;
    (void)wal_batch_header_decode(data, &header);
    return crc32c(data + WAL_BATCH_HEADER_SIZE, header.payload_size) == header.payload_crc
               ? NULL
               : "the batch is corrupt";
}

/* ---- where no header is ---- */

static void end_bad(struct scrub *scrub)
{
    struct scrub_file *file = &scrub->file;
    if (file->bad_from == 0)
        return;
    const char *what = file->bad_error < 0 ? strerror(-file->bad_error)
                                           : (file->is_segment ? "no sound chunk of this segment"
                                                               : "no sound batch of this segment");
    scrub_report_part(scrub, file->bad_from, file->at, what);
    file->bad_from = 0;
}

static void skip_block(struct scrub *scrub, int error)
{
    struct scrub_file *file = &scrub->file;
    if (file->bad_from == 0) {
        file->bad_from = file->at;
        file->bad_error = error;
    }
    file->unit_size = 0;
    file->at += DISK_BLOCK_SIZE;
}

/* ---- batches and chunks ---- */

/* The part [at, end) cannot be used. */
static enum scrub_check skip_part(struct scrub *scrub, uint64_t end, const char *what)
{
    scrub_report_part(scrub, scrub->file.at, end, what);
    scrub->file.records_left = 0;
    scrub->file.unit_size = 0;
    scrub->file.at = end;
    return SCRUB_CHECK_MORE;
}

/* A header was found: the rest of its unit. */
static enum scrub_check check_unit(struct scrub *scrub, uint64_t size, uint64_t *used)
{
    struct scrub_file *file = &scrub->file;
    end_bad(scrub);
    enum need found = need(scrub, file->at, size);
    if (found == NEED_LOAD) {
        file->records_left = 0; /* the header is looked at again */
        file->unit_size = scrub->window.offset == file->at ? size : 0;
        return SCRUB_CHECK_LOAD;
    }
    if (found == NEED_REFUSED)
        return skip_part(scrub, scrub->window.error == 0 ? file->end : file->at + size,
                         describe_refusal(scrub));
    const char *problem = judge_unit(scrub);
    *used += file->is_segment ? file->records_left * SEGMENT_ENTRY_SIZE : size;
    if (problem != NULL)
        return skip_part(scrub, file->at + size, problem);
    file->unit_offset = file->at;
    file->unit_end = file->at + size;
    file->record_index = 0;
    file->unit_size = 0;
    file->at = file->unit_end;
    return SCRUB_CHECK_MORE;
}

static enum scrub_check begin_unit(struct scrub *scrub, uint64_t *used)
{
    struct scrub_file *file = &scrub->file;
    *used += HEADER_COST;
    if (file->unit_size > 0 && scrub->window.error < 0)
        return skip_part(scrub, file->at + file->unit_size, describe_refusal(scrub));
    enum need found = need(scrub, file->at, DISK_BLOCK_SIZE);
    if (found == NEED_LOAD)
        return SCRUB_CHECK_LOAD;
    if (found == NEED_REFUSED && scrub->window.error == 0) {
        end_bad(scrub);
        return skip_part(scrub, file->end, describe_refusal(scrub));
    }
    if (found == NEED_REFUSED) {
        skip_block(scrub, scrub->window.error);
        return SCRUB_CHECK_MORE;
    }
    const uint8_t *data = scrub_window_at(scrub, file->at);
    uint64_t size = file->is_segment ? begin_chunk(scrub, data) : begin_batch(scrub, data);
    if (size == 0 || size > min_u64(SCRUB_WINDOW_SIZE, file->end - file->at)) {
        file->records_left = 0;
        skip_block(scrub, 0);
        return SCRUB_CHECK_MORE;
    }
    return check_unit(scrub, size, used);
}

/* ---- the end ---- */

/* A chunk that was never written over an older one of the same segment looks sound: only the index
 * knows what should be there. While the mover works, both sides change. Returns whether all that
 * should be there was found. */
static bool check_count(struct scrub *scrub)
{
    struct scrub_file *file = &scrub->file;
    struct mover_stats moved;
    mover_stats(scrub->options.mover, &moved);
    const struct segment *segment = scrub_segment(scrub);
    bool is_still = moved.jobs == file->jobs_begin && !mover_is_busy(scrub->options.mover) &&
                    segment->end == file->end;
    bool is_complete = segment->live_records <= file->found_alive;
    if (is_still && !is_complete && !file->has_damage)
        scrub_report_lost(scrub, segment->live_records - file->found_alive);
    return is_still && is_complete;
}

static enum scrub_check end_file(struct scrub *scrub)
{
    struct scrub_file *file = &scrub->file;
    end_bad(scrub);
    if (file->is_segment)
        scrub_report_end(scrub, check_count(scrub));
    return SCRUB_CHECK_END;
}

enum scrub_check scrub_check_next(struct scrub *scrub, uint64_t *used)
{
    struct scrub_file *file = &scrub->file;
    if (file->is_abandoned) {
        scrub->is_pass_incomplete = true;
        return SCRUB_CHECK_END;
    }
    if (file->records_left > 0)
        return scrub_check_record(scrub, used);
    if (file->at >= file->end)
        return end_file(scrub);
    return file->at == 0 ? check_header(scrub) : begin_unit(scrub, used);
}
