/* What of the log can be read: sealed segments, and the open one as far as it is on the disk. */
#include "store/scrub/scrub_internal.h"

/* A batch that is not durable yet may not have reached the disk, and all behind it: those in the
 * queue, and the open one, which begins at segment->end. A segment whose header waits in the queue
 * has nothing that could be read. */
static uint64_t readable_end(const struct wal *wal, const struct log_file *segment)
{
    uint64_t end = segment->end;
    for (const struct list_node *node = list_first(&wal->queue); node != NULL;
         node = list_next(&wal->queue, node)) {
        const struct wal_buffer *buffer = container_of(node, struct wal_buffer, node);
        if (buffer->segment == segment)
            end = min_u64(end, buffer->offset);
    }
    return end;
}

static bool has_something(const struct log_file *segment)
{
    return (segment->state == LOG_FILE_OPEN || segment->state == LOG_FILE_SEALED) &&
           !segment->is_discarded && segment->live > 0;
}

bool scrub_log_next(const struct wal *wal, uint64_t after, uint64_t last,
                    struct scrub_file *ret_file)
{
    const struct log_file *first = NULL;
    uint64_t first_end = 0;
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        const struct log_file *segment = wal->table.segments[file];
        if (segment == NULL || !has_something(segment))
            continue;
        uint64_t number = segment->header.number;
        if (number <= after || number > last || (first != NULL && number > first->header.number))
            continue;
        uint64_t end = readable_end(wal, segment);
        if (end <= WAL_DATA_OFFSET)
            continue;
        first = segment;
        first_end = end;
    }
    if (first == NULL)
        return false;
    *ret_file = (struct scrub_file){
        .file = first->file,
        .number = first->header.number,
        .salt = first->header.salt,
        .end = first_end,
    };
    return true;
}

const struct log_file *scrub_log_find(const struct wal *wal, const struct scrub_file *file)
{
    assert(file->file < wal->table.capacity);
    const struct log_file *segment = wal->table.segments[file->file];
    bool is_same = segment != NULL && segment->header.number == file->number &&
                   (segment->state == LOG_FILE_OPEN || segment->state == LOG_FILE_SEALED);
    return is_same ? segment : NULL;
}
