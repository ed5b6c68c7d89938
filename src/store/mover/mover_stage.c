#include "store/mover/mover_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Records are at least this large on the average, or the table is full before the arena is. */
#define RECORD_SIZE_USUAL 128u

static int take_memory(struct mover_stage *stage, uint64_t size)
{
    uint32_t capacity = (uint32_t)max_u64(size / RECORD_SIZE_USUAL, 16);
    stage->arena = malloc(size);
    stage->records = malloc(capacity * sizeof *stage->records);
    if (stage->arena == NULL || stage->records == NULL) {
        mover_stage_free(stage);
        return -ENOMEM;
    }
    stage->arena_size = size;
    stage->capacity = capacity;
    return 0;
}

int mover_stage_open(struct mover_stage *stage, uint64_t arena_size, uint64_t created)
{
    if (stage->arena_size != arena_size)
        mover_stage_free(stage);
    int error = stage->arena == NULL ? take_memory(stage, arena_size) : 0;
    for (uint32_t i = 0; i < MOVER_PARTITIONS; i++)
        stage->created[i] = created;
    return error;
}

void mover_stage_close(struct mover_stage *stage)
{
    *stage = (struct mover_stage){
        .arena = stage->arena,
        .arena_size = stage->arena_size,
        .records = stage->records,
        .capacity = stage->capacity,
    };
}

void mover_stage_free(struct mover_stage *stage)
{
    free(stage->arena);
    free(stage->records);
    *stage = (struct mover_stage){0};
}

static void link_record(struct mover_stage *stage, uint8_t partition, uint32_t number)
{
    if (stage->last[partition] == 0)
        stage->first[partition] = number;
    else
        stage->records[stage->last[partition] - 1].next = number;
    stage->last[partition] = number;
}

void mover_stage_next_round(struct mover_stage *stage)
{
    stage->arena_used = 0;
    memset(stage->first, 0, sizeof stage->first);
    memset(stage->last, 0, sizeof stage->last);
}

bool mover_stage_add(struct mover_stage *stage, const struct mover_record *record, uint64_t mark,
                     bool purge)
{
    uint32_t size = purge ? 0 : record->size;
    uint64_t padded = round_up(size, SEGMENT_RECORD_ALIGNMENT);
    if (stage->count == stage->capacity || stage->arena_size - stage->arena_used < padded)
        return false;
    struct staged *staged = &stage->records[stage->count++];
    *staged = (struct staged){
        .hash = record->hash,
        .mark = mark,
        .old_location = record->location,
        .version = record->record.version,
        .offset = (uint32_t)stage->arena_used,
        .size = size,
        .partition = record->partition,
        .tombstone = (record->record.flags & RECORD_TOMBSTONE) != 0,
        .in_value_file = (record->record.flags & RECORD_IN_VALUE_FILE) != 0,
    };
    if (purge)
        return true;
    if (record->is_hidden) {
        uint64_t *created = &stage->created[record->partition];
        *created = min_u64(*created, record->record.position);
    }
    memcpy(stage->arena + staged->offset, record->data, size);
    memset(stage->arena + staged->offset + size, 0, padded - size);
    stage->arena_used += padded;
    stage->bytes += padded;
    link_record(stage, record->partition, stage->count);
    return true;
}
