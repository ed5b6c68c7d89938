/* Reading ahead for the scan of a segment, and saying what it found. */
#include "store/segment/segment_scan.h"
#include "store/disk/filesystem.h"
#include "store/disk/wait.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Of a chunk, header and directory are read. Of small chunks many at once, since a read costs more
 * than the records that it brings along. */
#define READ_AHEAD_SIZE ((uint32_t)(256 * KIB))
#define SMALL_CHUNK_SIZE ((uint32_t)(128 * KIB))
#define WINDOW_SIZE SEGMENT_CHUNK_SIZE_MAX

static_assert(READ_AHEAD_SIZE <= WINDOW_SIZE, "a read fits into the window");

struct scanner {
    struct io *io;
    const struct log *log;
    struct segment_scan *scan;
    struct unit_scan units;
    int file;
    uint64_t file_size;
    uint8_t *window;
    uint64_t window_offset;
    uint32_t window_size;
    uint32_t read_size; /* of the next read, at least */
    bool is_unreadable; /* the device refused a read: from now on no more than is needed is read */
    int error;          /* that says nothing of the device: it ends the scan */
};

/* ---- reading ---- */

static bool holds(const struct scanner *scanner, uint64_t from, uint64_t size)
{
    return from >= scanner->window_offset &&
           from + size <= scanner->window_offset + scanner->window_size;
}

static int read_window(struct scanner *scanner, uint64_t offset, uint32_t size)
{
    scanner->window_offset = offset;
    scanner->window_size = 0;
    int result = disk_wait_read(scanner->io, scanner->file, scanner->window, size, offset);
    if (result < 0)
        return result;
    scanner->window_size = (uint32_t)result;
    scanner->scan->bytes_read += (uint32_t)result;
    return 0;
}

/* Makes [offset, offset + size), which is within the file, readable. What is read ahead may lie on
 * a bad place that is not needed: then only what is needed is read. Errors: the read's; of the
 * device, when disk_is_device_error says so. */
static int load(struct scanner *scanner, uint64_t offset, uint64_t size)
{
    if (holds(scanner, offset, size))
        return 0;
    uint64_t end = round_up(max_u64(scanner->scan->file.end, offset + size), DISK_BLOCK_SIZE);
    uint32_t needed = (uint32_t)round_up(size, DISK_BLOCK_SIZE);
    uint32_t wanted = (uint32_t)min_u64(max_u64(needed, scanner->read_size), end - offset);
    assert(needed <= WINDOW_SIZE && wanted <= WINDOW_SIZE);
    if (!scanner->is_unreadable && wanted > needed) {
        int error = read_window(scanner, offset, wanted);
        if (error < 0 && !disk_is_device_error(error))
            return error;
        if (holds(scanner, offset, size))
            return 0;
        scanner->is_unreadable = true;
    }
    int error = read_window(scanner, offset, needed);
    return error == 0 && !holds(scanner, offset, size) ? -EIO : error;
}

static const uint8_t *window_at(const struct scanner *scanner, uint64_t offset)
{
    return scanner->window + (offset - scanner->window_offset);
}

/* A unit_need. */
static int need(void *context, uint64_t offset, uint64_t size, const uint8_t **ret_data)
{
    struct scanner *scanner = context;
    if (offset + size > scanner->file_size)
        return -ERANGE;
    int error = load(scanner, offset, size);
    if (error < 0 && !disk_is_device_error(error))
        scanner->error = error;
    *ret_data = window_at(scanner, offset);
    return error;
}

/* ---- chunks ---- */

/* How much to read next: what the last chunk tells about its neighbours. */
static void plan_read(struct scanner *scanner, const struct unit *unit)
{
    scanner->read_size = unit->size <= SMALL_CHUNK_SIZE
                             ? READ_AHEAD_SIZE
                             : (uint32_t)round_up(unit->records_offset, DISK_BLOCK_SIZE);
}

static void mark_damaged(struct scanner *scanner, uint64_t offset)
{
    if (!scanner->scan->is_damaged)
        scanner->scan->damaged_from = offset;
    scanner->scan->is_damaged = true;
}

/* That the file is cut short was noted when it was opened. */
static void note_damage(struct scanner *scanner, const struct unit_damage *damage)
{
    mark_damaged(scanner, damage->from);
    if (!damage->is_cut)
        log_error(scanner->log,
                  "%s is damaged from offset %" PRIu64 " to %" PRIu64
                  ": %s. Keys that were there may be missing: restore them from a replica or a "
                  "backup",
                  scanner->scan->path, damage->from, min_u64(damage->upto, scanner->file_size),
                  unit_describe(damage));
}

/* Shows a chunk, or notes damage. Returns what `each` does. */
static int take_step(struct scanner *scanner, enum unit_step step)
{
    struct segment_scan *scan = scanner->scan;
    const struct unit_scan *units = &scanner->units;
    assert(step != UNIT_WAIT);
    scanner->read_size = READ_AHEAD_SIZE;
    if (step == UNIT_FOUND || (step == UNIT_DAMAGED && units->damage.is_unit))
        scan->sequence_max = max_u64(scan->sequence_max, units->unit.chunk.sequence);
    if (step == UNIT_DAMAGED)
        note_damage(scanner, &units->damage);
    if (step != UNIT_FOUND)
        return 0;
    plan_read(scanner, &units->unit);
    return scan->each(scan->context, &units->unit, units->data);
}

static int scan_chunks(struct scanner *scanner)
{
    for (;;) {
        enum unit_step step = unit_scan_step(&scanner->units);
        if (scanner->error < 0) {
            return filesystem_cannot(scanner->log, "read", scanner->scan->path, scanner->error);
        }
        int result = take_step(scanner, step);
        if (step == UNIT_END || result != 0)
            return result;
    }
}

/* The segment goes on without its header: each chunk says again what it belongs to. */
static int note_bad_header(struct scanner *scanner, const char *what)
{
    log_error(scanner->log,
              "%s: the header is not sound: %s. What can be read of it is kept; restore it from a "
              "backup when keys answer CORRUPT",
              scanner->scan->path, what);
    mark_damaged(scanner, 0);
    return 0;
}

static int judge_header(struct scanner *scanner, const uint8_t *block)
{
    const struct segment_scan *scan = scanner->scan;
    const struct segment_header expected = {.partition = scan->partition,
                                            .directory_id = scan->file.directory_id,
                                            .number = scan->file.number,
                                            .salt = scan->file.salt};
    int error = segment_header_check(block, &expected);
    if (error == -EPROTONOSUPPORT)
        log_error(scanner->log,
                  "%s has format %" PRIu16 ", this release reads format %d: use the release that "
                  "wrote it",
                  scanner->scan->path, segment_format_of(block), SEGMENT_FORMAT);
    else if (error == -EXDEV)
        log_error(scanner->log, "%s belongs to another data directory: move it away",
                  scanner->scan->path);
    else if (error < 0)
        return note_bad_header(scanner,
                               error == -ESTALE ? "it is another segment's" : "it is corrupt");
    return error;
}

static int check_header(struct scanner *scanner)
{
    scanner->read_size = scanner->scan->from == SEGMENT_DATA_OFFSET ? READ_AHEAD_SIZE : 0;
    if (scanner->file_size < SEGMENT_BLOCK_SIZE)
        return note_bad_header(scanner, "the file is too short");
    int error = load(scanner, 0, SEGMENT_BLOCK_SIZE);
    if (error < 0 && disk_is_device_error(error))
        return note_bad_header(scanner, strerror(-error));
    if (error < 0)
        return filesystem_cannot(scanner->log, "read", scanner->scan->path, error);
    return judge_header(scanner, window_at(scanner, 0));
}

/* Records that are not there answer CORRUPT when they are asked for. */
static int check_size(struct scanner *scanner)
{
    int64_t size = io_file_size(scanner->io, scanner->file);
    if (size < 0)
        return filesystem_cannot(scanner->log, "read", scanner->scan->path, (int)size);
    scanner->file_size = (uint64_t)size;
    if (scanner->file_size >= scanner->scan->file.end)
        return 0;
    log_error(scanner->log,
              "%s ends at offset %" PRIu64 ", but had %" PRIu64
              " bytes: restore it from a backup, or its keys from a replica",
              scanner->scan->path, scanner->file_size, scanner->scan->file.end);
    mark_damaged(scanner, scanner->file_size);
    return 0;
}

static int scan_file(struct scanner *scanner)
{
    scanner->file = disk_wait_open(scanner->io, scanner->scan->path, IO_OPEN_READ | IO_OPEN_DIRECT);
    if (scanner->file < 0)
        return filesystem_cannot(scanner->log, "open the segment", scanner->scan->path,
                                 scanner->file);
    int result = check_size(scanner);
    if (result == 0)
        result = check_header(scanner);
    scanner->read_size = READ_AHEAD_SIZE;
    if (result == 0)
        result = scan_chunks(scanner);
    (void)disk_wait_close(scanner->io, scanner->file);
    return result;
}

int segment_scan(struct io *io, const struct log *log, struct segment_scan *scan)
{
    assert(scan->from >= SEGMENT_DATA_OFFSET);
    assert(scan->from % DISK_BLOCK_SIZE == 0 && scan->file.end % DISK_BLOCK_SIZE == 0);
    scan->is_damaged = false;
    scan->damaged_from = 0;
    scan->bytes_read = 0;
    scan->sequence_max = 0;
    assert(scan->file.is_segment);
    if (scan->from >= scan->file.end)
        return 0;
    struct scanner scanner = {
        .io = io,
        .log = log,
        .scan = scan,
        .window = aligned_alloc(DISK_BLOCK_SIZE, WINDOW_SIZE),
        .units = {.file = scan->file, .at = scan->from, .has_heads_only = true, .need = need},
    };
    scanner.units.context = &scanner;
    int result = scanner.window != NULL ? scan_file(&scanner) : -ENOMEM;
    free(scanner.window);
    return result;
}
