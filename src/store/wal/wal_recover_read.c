#include "store/wal/wal_recover_internal.h"
#include "store/disk/wait.h"

#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

int reader_init(struct reader *reader, struct io *io, const struct log *log, uint64_t capacity)
{
    capacity = round_up(max_u64(capacity, READER_PART_SIZE), READER_PART_SIZE);
    void *image = memory_map(capacity);
    if (image == NULL)
        return -ENOMEM;
    *reader = (struct reader){.io = io, .log = log, .image = image, .capacity = capacity};
    return 0;
}

static void note_unreadable(struct reader *reader, uint64_t offset, int error)
{
    struct wal_scan_segment *place = reader->place;
    if (place->unreadable_last != WAL_READABLE) {
        place->unreadable_last = max_u64(offset, place->unreadable_last);
        return;
    }
    place->unreadable_last = offset;
    log_error(reader->log, "%s: cannot be read at byte %" PRIu64 ": %s", reader->segment->path,
              offset, strerror(-error));
}

/* After the device refused a part: block by block, since some of it may still be readable. */
static int read_blocks(struct reader *reader, uint64_t offset, uint32_t size)
{
    for (uint64_t end = offset + size; offset < end; offset += WAL_BLOCK_SIZE) {
        uint8_t *target = reader->image + offset;
        int result =
            disk_wait_read(reader->io, reader->segment->handle, target, WAL_BLOCK_SIZE, offset);
        if (result == (int)WAL_BLOCK_SIZE)
            continue;
        if (result < 0 && !disk_is_device_error(result))
            return result;
        memset(target, 0, WAL_BLOCK_SIZE);
        note_unreadable(reader, offset, result < 0 ? result : -EIO);
    }
    return 0;
}

/* Waits for the oldest read. */
static int finish_part(struct reader *reader)
{
    struct reader_part *part = &reader->parts[reader->part_first];
    int32_t result = io_wait(reader->io, &part->op);
    if (io_op_is_active(&part->op))
        return result < 0 ? result : -EIO;
    reader->part_first = (reader->part_first + 1) % READER_PARTS;
    reader->part_count--;
    reader->done = part->offset + part->size;
    if (result < 0)
        return disk_is_device_error(result) ? read_blocks(reader, part->offset, part->size)
                                            : result;
    reader->bytes_read += (uint32_t)result;
    memset(reader->image + part->offset + result, 0, part->size - (uint32_t)result);
    return 0;
}

static int finish_all(struct reader *reader)
{
    while (reader->part_count > 0) {
        int error = finish_part(reader);
        if (error < 0)
            return error;
    }
    return 0;
}

void reader_deinit(struct reader *reader)
{
    if (reader->image == NULL)
        return;
    (void)finish_all(reader);
    memory_unmap(reader->image, reader->capacity);
    reader->image = NULL;
}

static uint64_t readable_size(const struct reader *reader)
{
    return min_u64(round_down(reader->segment->size, WAL_BLOCK_SIZE), reader->capacity);
}

/* Starts as many reads as may be under way. */
static int ask(struct reader *reader)
{
    bool any = false;
    uint64_t size = readable_size(reader);
    while (reader->part_count < READER_PARTS && reader->asked < size) {
        struct reader_part *part =
            &reader->parts[(reader->part_first + reader->part_count) % READER_PARTS];
        part->offset = reader->asked;
        part->size = (uint32_t)min_u64(READER_PART_SIZE, size - reader->asked);
        part->op = (struct io_op){0};
        io_read(reader->io, &part->op, reader->segment->handle, reader->image + part->offset,
                part->size, part->offset);
        reader->asked += part->size;
        reader->part_count++;
        any = true;
    }
    int result = any ? io_run(reader->io, 0) : 0;
    return result < 0 ? result : 0;
}

static void give_back(struct reader *reader, uint64_t from)
{
    uint64_t begin = round_down(from, READER_PART_SIZE);
    if (begin < reader->begin + READER_KEPT_SIZE)
        return;
    (void)madvise(reader->image + reader->begin, begin - reader->begin, MADV_DONTNEED);
    reader->begin = begin;
}

int reader_load(struct reader *reader, const struct log_file *segment,
                struct wal_scan_segment *place, uint64_t from, uint64_t upto)
{
    int error = 0;
    if (segment != reader->segment || from < reader->begin || from > reader->asked) {
        error = finish_all(reader);
        reader->segment = segment;
        reader->begin = reader->done = reader->asked = round_down(from, READER_PART_SIZE);
    }
    reader->place = place;
    assert(upto <= readable_size(reader));
    while (error == 0 && reader->done < upto) {
        error = ask(reader);
        if (error == 0)
            error = finish_part(reader);
    }
    if (error == 0)
        error = ask(reader);
    give_back(reader, from);
    return error;
}
