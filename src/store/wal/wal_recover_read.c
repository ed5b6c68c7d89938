/* Reading a log file ahead: while a part is looked at, the next ones are on their way. */
#include "store/wal/wal_recover_read.h"

#include "base/assert.h"
#include "store/disk/wait.h"

#include <errno.h>

/* Waits for the oldest read. Returns how many bytes it gave. Errors: *ret_is_over tells whether it
 * is over. */
static int32_t finish_part(struct reader *reader, bool *ret_is_over)
{
    assert(reader->part_count > 0);
    struct reader_part *part = &reader->parts[reader->part_first];
    int32_t result = io_wait(reader->io, &part->op);
    *ret_is_over = !io_op_is_active(&part->op);
    if (!*ret_is_over)
        return result < 0 ? result : -EIO;
    reader->part_first = (reader->part_first + 1) % READER_PARTS;
    reader->part_count--;
    reader->next += part->size;
    assert(reader->next <= reader->asked);
    return result;
}

int reader_stop(struct reader *reader)
{
    while (reader->part_count > 0) {
        bool is_over;
        int32_t result = finish_part(reader, &is_over);
        if (!is_over)
            return result;
    }
    return 0;
}

int reader_rewind(struct reader *reader, int handle, uint64_t size, uint64_t offset)
{
    int error = reader_stop(reader);
    reader->handle = handle;
    reader->size = size;
    reader->next = reader->asked = offset;
    return error;
}

/* Starts as many reads as may be under way. `target` is where the part at reader->next goes. */
static int ask(struct reader *reader, uint8_t *target)
{
    bool any = false;
    while (reader->part_count < READER_PARTS && reader->asked < reader->size) {
        struct reader_part *part =
            &reader->parts[(reader->part_first + reader->part_count) % READER_PARTS];
        part->size = (uint32_t)min_u64(WAL_PART_SIZE, reader->size - reader->asked);
        part->op = (struct io_op){0};
        io_read(reader->io, &part->op, reader->handle, target + (reader->asked - reader->next),
                part->size, reader->asked);
        reader->asked += part->size;
        reader->part_count++;
        any = true;
    }
    int result = any ? io_run(reader->io, 0) : 0;
    return result < 0 ? result : 0;
}

int64_t reader_read(struct reader *reader, uint8_t *target, uint64_t offset, uint32_t size,
                    bool is_block)
{
    if (is_block)
        return disk_wait_read(reader->io, reader->handle, target, size, offset);
    assert(offset == reader->next);
    int error = ask(reader, target);
    if (error < 0)
        return error;
    bool is_over;
    int32_t result = finish_part(reader, &is_over);
    if (result < 0)
        return result;
    reader->bytes_read += (uint32_t)result;
    error = ask(reader, target + size);
    return error < 0 ? error : result;
}
