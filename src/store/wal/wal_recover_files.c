/* Opening the files of a log, and finding out what each one is. */
#include "store/wal/wal_recover_internal.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Header, mark and the beginning of the first batch. */
#define HEAD_SIZE (3 * WAL_BLOCK_SIZE)

/* ---- the files ---- */

struct listing {
    uint32_t *serials;
    uint32_t count;
    uint32_t capacity;
};

static int list_name(void *context, const char *name)
{
    struct listing *listing = context;
    uint32_t serial;
    char again[WAL_NAME_SIZE];
    if (sscanf(name, "wal-%8" SCNx32, &serial) != 1)
        return 0;
    (void)snprintf(again, sizeof again, "wal-%08" PRIx32, serial);
    if (strcmp(name, again) != 0)
        return 0;
    if (listing->count == listing->capacity) {
        uint32_t capacity = listing->capacity == 0 ? 64 : 2 * listing->capacity;
        uint32_t *serials = realloc(listing->serials, capacity * sizeof *serials);
        if (serials == NULL)
            return -ENOMEM;
        listing->serials = serials;
        listing->capacity = capacity;
    }
    listing->serials[listing->count++] = serial;
    return 0;
}

static int open_segment(struct wal_recovery *recovery, uint32_t serial)
{
    struct wal_state *state = recovery->state;
    struct log_file *segment;
    int error = wal_files_add(&state->files, recovery->options->directory, serial, &segment);
    if (error < 0)
        return error;
    segment->state = LOG_FILE_SEALED;
    segment->is_settled = true;
    int handle = disk_wait_open(recovery->io, segment->path, IO_OPEN_WRITE | IO_OPEN_DIRECT);
    if (handle < 0) {
        log_error(recovery->log, "%s: cannot be opened: %s%s", segment->path, strerror(-handle),
                  handle == -ENFILE || handle == -EMFILE ? ". Raise the limit of open files" : "");
        return handle;
    }
    segment->handle = handle;
    int64_t size = io_file_size(recovery->io, handle);
    if (size < 0)
        return (int)size;
    segment->size = (uint64_t)size;
    recovery->size_bytes += segment->size;
    return 0;
}

int wal_recover_open_segments(struct wal_recovery *recovery)
{
    struct listing listing = {0};
    int error = io_list_directory(recovery->io, recovery->options->directory, list_name, &listing);
    for (uint32_t i = 0; error == 0 && i < listing.count; i++)
        error = open_segment(recovery, listing.serials[i]);
    free(listing.serials);
    return error;
}

/* ---- the owner's note ---- */

static void take_note(const struct wal_options *options, const uint8_t *block,
                      struct wal_note *note)
{
    struct log_file_header header;
    if (log_file_header_decode(block, &header) < 0 ||
        header.directory_id != options->directory_id || header.log_id != options->log_id)
        return;
    if (header.note.major > note->major ||
        (header.note.major == note->major && header.note.minor > note->minor))
        *note = header.note;
}

static void read_note(struct io *io, const struct wal_options *options, uint32_t serial,
                      uint8_t *blocks, struct wal_note *note)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/wal-%08" PRIx32, options->directory, serial);
    int handle = length > 0 && (size_t)length < sizeof path
                     ? disk_wait_open(io, path, IO_OPEN_READ | IO_OPEN_DIRECT)
                     : -ENAMETOOLONG;
    if (handle < 0)
        return;
    memset(blocks, 0, 2 * WAL_BLOCK_SIZE);
    for (uint32_t i = 0; i < 2; i++)
        if (disk_wait_read(io, handle, blocks + i * WAL_BLOCK_SIZE, WAL_BLOCK_SIZE,
                           i * WAL_BLOCK_SIZE) == (int)WAL_BLOCK_SIZE)
            take_note(options, blocks + i * WAL_BLOCK_SIZE, note);
    (void)disk_wait_close(io, handle);
}

int wal_recover_note(struct io *io, const struct wal_options *options, struct wal_note *ret_note)
{
    struct listing listing = {0};
    struct wal_note note = {0};
    uint8_t *blocks = aligned_alloc(WAL_BLOCK_SIZE, 2 * WAL_BLOCK_SIZE);
    int error =
        blocks == NULL ? -ENOMEM : io_list_directory(io, options->directory, list_name, &listing);
    for (uint32_t i = 0; error == 0 && i < listing.count; i++)
        read_note(io, options, listing.serials[i], blocks, &note);
    free(listing.serials);
    free(blocks);
    if (error == 0)
        *ret_note = note;
    return error;
}

/* ---- what each file is ---- */

static bool is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, WAL_BLOCK_SIZE - 1) == 0;
}

static int refuse(const struct wal_recovery *recovery, const struct log_file *segment,
                  const struct log_file_header *header, int result)
{
    if (result == -EPROTONOSUPPORT) {
        log_error(recovery->log,
                  "%s has format %u; this program knows format %d: use the version that wrote it, "
                  "or a newer one",
                  segment->path, header->format, WAL_FORMAT);
        return -EPROTONOSUPPORT;
    }
    log_error(recovery->log,
              "%s belongs to log %" PRIu32 " of the directory %016" PRIx64
              ", but this is log %" PRIu32 " of the directory %016" PRIx64
              ": move it back where it came from",
              segment->path, header->log_id, header->directory_id, recovery->options->log_id,
              recovery->options->directory_id);
    return -EXDEV;
}

/* Decodes header or mark. Returns 1, or 0 when it is neither. */
static int read_header(const struct wal_recovery *recovery, const struct log_file *segment,
                       const uint8_t *block, uint16_t state, struct log_file_header *ret_header)
{
    struct log_file_header header;
    int result = log_file_header_decode(block, &header);
    if (result == -EPROTONOSUPPORT)
        return refuse(recovery, segment, &header, result);
    if (result < 0 || header.state != state)
        return 0;
    if (header.directory_id != recovery->options->directory_id ||
        header.log_id != recovery->options->log_id)
        return refuse(recovery, segment, &header, -EXDEV);
    *ret_header = header;
    return 1;
}

/* The places of the scan are not laid out yet: one for this file alone. */
static int load_one(void *context, uint32_t index, uint64_t from, uint64_t upto,
                    const uint8_t **ret_image)
{
    struct wal_recovery *recovery = context;
    assert(index == 0);
    struct wal_scan_segment *place = recovery->reader.place;
    *ret_image = recovery->reader.image;
    return reader_load(&recovery->reader, recovery->reader.segment, place, from, upto);
}

/* Looks for batches of a segment numbered above `number`. Returns 1 when it is one, and its header
 * is inferred. */
static int infer(struct wal_recovery *recovery, struct log_file *segment, uint64_t number)
{
    struct wal_scan_segment place = {
        .header = {.directory_id = recovery->options->directory_id,
                   .log_id = recovery->options->log_id},
        .size = min_u64(round_down(segment->size, WAL_BLOCK_SIZE), recovery->reader.capacity),
        .path = segment->path,
        .unreadable_last = WAL_READABLE,
    };
    struct wal_scan scan = {
        .segments = &place,
        .segment_count = 1,
        .context = recovery,
        .load = load_one,
    };
    int error = reader_load(&recovery->reader, segment, &place, 0, 0);
    int found = error < 0 ? error : wal_scan_infer(&scan, 0, number);
    if (found <= 0)
        return found;
    segment->header = place.header;
    recovery->found.repaired_headers++;
    log_warn(recovery->log,
             "%s: the segment's header is damaged; its batches say that it is number %" PRIu64
             " from log position %" PRIu64 " on",
             segment->path, place.header.number, place.header.last_before + 1);
    return 1;
}

/* Whether the first batch is of a later use of the file than header and mark know of: the header
 * was lost. */
static bool is_in_later_use(const struct wal_recovery *recovery, const uint8_t *batch_bytes,
                            uint64_t number)
{
    struct wal_batch_header batch;
    return wal_batch_header_decode(batch_bytes, &batch) == 0 && batch.segment > number &&
           batch.offset == WAL_DATA_OFFSET &&
           batch.directory_id == recovery->options->directory_id &&
           batch.log_id == recovery->options->log_id;
}

/* Neither header nor mark say that this is a segment with records. */
static int judge_without_header(struct wal_recovery *recovery, struct log_file *segment,
                                bool is_marked, uint64_t number, bool header_is_zero,
                                bool batch_is_later)
{
    int found = !batch_is_later && header_is_zero ? 0 : infer(recovery, segment, number);
    if (found != 0)
        return found < 0 ? found : 0;
    if (is_marked) {
        segment->state = LOG_FILE_SPARE;
    } else if (header_is_zero) {
        segment->is_discarded = true;
    } else {
        log_error(recovery->log,
                  "%s: nothing in it can be read as a log segment; it is left as it is. If it held "
                  "writes, they are lost",
                  segment->path);
        recovery->found.damaged_batches++;
        recovery->is_unsure = true;
        segment->is_damaged = true;
        segment->state = LOG_FILE_LEAVING;
    }
    return 0;
}

static int judge_segment(struct wal_recovery *recovery, struct log_file *segment,
                         const uint8_t *head)
{
    struct log_file_header header;
    struct log_file_header mark = {0};
    int is_active = read_header(recovery, segment, head, WAL_HEADER_ACTIVE, &header);
    int is_marked = read_header(recovery, segment, head + WAL_MARK_OFFSET, WAL_HEADER_SPARE, &mark);
    if (is_active < 0 || is_marked < 0)
        return is_active < 0 ? is_active : is_marked;
    segment->mark = is_marked ? mark.number : 0;
    if (is_active)
        wal_recover_note_header(recovery, &header, head);
    if (is_marked)
        wal_recover_note_header(recovery, &mark, head + WAL_MARK_OFFSET);
    bool later = is_in_later_use(recovery, head + WAL_DATA_OFFSET, is_marked ? mark.number : 0);
    if (is_active && (!is_marked || header.number > mark.number)) {
        segment->header = header;
        return 0;
    }
    if (is_marked)
        segment->header = mark;
    /* A header that is as old as the mark is as good as none: its block tells nothing new. */
    return judge_without_header(recovery, segment, is_marked, mark.number,
                                is_active || is_zero(head), later);
}

int wal_recover_judge_segments(struct wal_recovery *recovery)
{
    struct wal_files *files = &recovery->state->files;
    uint8_t *head = recovery->reader.image;
    for (uint32_t file = 0; file < files->count; file++) {
        struct log_file *segment = files->table[file];
        uint32_t size = (uint32_t)min_u64(HEAD_SIZE, round_down(segment->size, WAL_BLOCK_SIZE));
        memset(head, 0, HEAD_SIZE);
        int result = size > 0 ? disk_wait_read(recovery->io, segment->handle, head, size, 0) : 0;
        if (result < 0) {
            log_error(recovery->log, "%s: cannot be read at byte 0: %s", segment->path,
                      strerror(-result));
            if (!disk_is_device_error(result))
                return result;
            memset(head, 0xFF, HEAD_SIZE);
        }
        /* The reader's own bytes of this place are gone. */
        recovery->reader.segment = NULL;
        int error = judge_segment(recovery, segment, head);
        if (error < 0)
            return error;
    }
    return 0;
}
