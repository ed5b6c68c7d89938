/* What earlier lives left behind: the ends of segments that no seal closed. */
#include "store/wal/wal_internal.h"
#include "store/disk/wait.h"

#include <string.h>

/* What is damaged stays as it is: a seal would hide what is missing before it. */
static bool wants_seal(const struct log_file *segment)
{
    return !segment->has_seal && !segment->is_damaged && !segment->is_unreadable &&
           segment->live > 0;
}

static int seal(struct wal *wal, struct log_file *segment)
{
    const struct log_file_header *header = &segment->header;
    uint8_t *block = container_of(list_first(&wal->free_blocks), struct wal_buffer, node)->data;
    assert(segment->position_last > header->last_before);
    assert(segment->end % WAL_BLOCK_SIZE == 0);
    struct wal_batch_header batch = {
        .flags = WAL_BATCH_SEAL,
        .directory_id = header->directory_id,
        .log_id = header->log_id,
        .generation = header->generation,
        .salt = header->salt,
        .segment = header->number,
        .offset = segment->end,
        .position_first = segment->position_last + 1,
        .durable = segment->position_last,
        .clock_ceiling = wal->clock_recovered,
        .generation_base = header->generation_base,
    };
    memset(block, 0, WAL_BLOCK_SIZE);
    wal_batch_header_encode(&batch, block);
    int error = disk_wait_write(wal->io, segment->handle, block, WAL_BLOCK_SIZE, segment->end);
    if (error < 0)
        return error;
    segment->end += WAL_BLOCK_SIZE;
    segment->size = max_u64(segment->size, segment->end);
    segment->has_seal = true;
    segment->has_tail = segment->size > segment->end;
    return 0;
}

int wal_seal_old_segments(struct wal *wal)
{
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        struct log_file *segment = wal->table.segments[file];
        if (segment == NULL || segment->state != LOG_FILE_SEALED || !wants_seal(segment))
            continue;
        int error = seal(wal, segment);
        if (error < 0)
            return error;
    }
    return 0;
}

/* Behind an unsealed end may lie what a crash tore. It goes for good before anything of the new
 * generation, which knows that it does not count, can be recycled. */
static bool wants_cut(const struct log_file *segment)
{
    if (segment->size <= segment->end || segment->is_unreadable ||
        (segment->live == 0 && !segment->is_damaged))
        return false;
    return !segment->has_seal || segment->has_tail || segment->end < segment->size / 2;
}

int wal_cut_old_segments(struct wal *wal)
{
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        struct log_file *segment = wal->table.segments[file];
        if (segment == NULL || segment->state != LOG_FILE_SEALED || !wants_cut(segment))
            continue;
        int error = disk_wait_truncate(wal->io, segment->path, segment->end);
        if (error == 0)
            error = disk_wait_sync(wal->io, segment->handle);
        if (error < 0)
            return error;
        segment->size = segment->end;
    }
    return 0;
}
