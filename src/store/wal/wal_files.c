/* The table of segments, and the way from one to the next. */
#include "store/wal/wal_internal.h"
#include "store/disk/wait.h"
#include "store/memory/location.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_CAPACITY_MIN 64u

static_assert(LOCATION_FILE_BITS + LOCATION_OFFSET_BITS == LOCATION_BITS - 1,
              "bit 47 of a location is the partition segments'");

/* ---- the table ---- */

static int table_grow(struct wal_table *table)
{
    if (table->capacity == 1u << LOCATION_FILE_BITS)
        return -ENFILE;
    uint32_t capacity = table->capacity == 0 ? TABLE_CAPACITY_MIN : 2 * table->capacity;
    struct log_file **segments = realloc(table->segments, capacity * sizeof(struct log_file *));
    if (segments == NULL)
        return -ENOMEM;
    memset(segments + table->capacity, 0, (capacity - table->capacity) * sizeof(struct log_file *));
    table->segments = segments;
    table->capacity = capacity;
    return 0;
}

int wal_table_add(struct wal_table *table, const char *directory, uint32_t serial,
                  struct log_file **ret_segment)
{
    int error = table->count == table->capacity ? table_grow(table) : 0;
    if (error < 0)
        return error;
    uint32_t file = 0;
    while (table->segments[file] != NULL)
        file++;
    size_t path_size = strlen(directory) + WAL_NAME_SIZE;
    struct log_file *segment = calloc(1, sizeof *segment + path_size);
    if (segment == NULL)
        return -ENOMEM;
    (void)snprintf(segment->path, path_size, "%s/wal-%08x", directory, serial);
    segment->file = file;
    segment->serial = serial;
    segment->handle = -1;
    table->segments[file] = segment;
    table->count++;
    *ret_segment = segment;
    return 0;
}

void wal_table_remove(struct wal_table *table, struct log_file *segment)
{
    assert(table->segments[segment->file] == segment);
    assert(!list_node_is_linked(&segment->node));
    table->segments[segment->file] = NULL;
    table->count--;
    free(segment);
}

void wal_table_close(struct wal_table *table, struct io *io)
{
    for (uint32_t file = 0; file < table->capacity; file++) {
        struct log_file *segment = table->segments[file];
        if (segment == NULL || segment->handle < 0 || segment->pins > 0)
            continue;
        (void)disk_wait_close(io, segment->handle);
        segment->handle = -1;
    }
}

void wal_table_free(struct wal_table *table)
{
    for (uint32_t file = 0; file < table->capacity; file++)
        free(table->segments[file]);
    free(table->segments);
    *table = (struct wal_table){0};
}

/* ---- from one segment to the next ---- */

void wal_judge_hindrance(struct wal *wal)
{
    wal->is_hindered =
        wal->failed != 0 || wal->is_shutting || wal->disk_full || wal->spare_count == 0;
}

static struct wal_buffer *take_block(struct wal *wal, enum wal_buffer_kind kind)
{
    struct list_node *node = list_pop_front(&wal->free_blocks);
    assert(node != NULL);
    struct wal_buffer *block = container_of(node, struct wal_buffer, node);
    block->kind = kind;
    block->segment = wal->segment;
    block->offset = kind == WAL_BUFFER_SEAL ? wal->segment->end : 0;
    block->position_first = wal->position_last + 1;
    block->record_count = 0;
    block->used = WAL_BATCH_HEADER_SIZE;
    memset(block->data, 0, WAL_BLOCK_SIZE);
    block->state = WAL_BUFFER_QUEUED;
    list_push_back(&wal->queue, &block->node);
    wal->queued_count++;
    return block;
}

void wal_seal_segment(struct wal *wal)
{
    struct log_file *segment = wal->segment;
    assert(wal->open == NULL);
    assert(segment->state == LOG_FILE_OPEN);
    assert(segment->end + WAL_BLOCK_SIZE <= segment->size);
    (void)take_block(wal, WAL_BUFFER_SEAL);
    segment->end += WAL_BLOCK_SIZE;
    segment->records = wal->position_last - segment->header.last_before;
    segment->state = LOG_FILE_SEALED;
    wal->segment = NULL;
}

void wal_take_spare(struct wal *wal)
{
    struct list_node *node = list_pop_front(&wal->spares);
    assert(node != NULL);
    struct log_file *segment = container_of(node, struct log_file, node);
    assert(segment->state == LOG_FILE_SPARE);
    assert(segment->live == 0);
    wal->spare_count--;
    wal_judge_hindrance(wal);
    segment->state = LOG_FILE_OPEN;
    segment->is_settled = false;
    segment->end = WAL_DATA_OFFSET;
    segment->records = 0;
    segment->killer_last = 0;
    segment->listed_last = 0;
    segment->is_dead = false;
    segment->header = (struct log_file_header){
        .state = WAL_HEADER_ACTIVE,
        .directory_id = wal->options.directory_id,
        .log_id = wal->options.log_id,
        .generation = wal->generation,
        .number = wal->number + 1,
        .segment_size = segment->size,
        .previous = wal->number,
        .last_before = wal->position_last,
        .generation_base = wal->generation_base,
        .lost = wal->lost,
    };
    while (segment->header.salt == 0)
        io_random(wal->io, &segment->header.salt, sizeof segment->header.salt);
    wal->number++;
    wal->segment = segment;
}

void wal_change_segment(struct wal *wal)
{
    wal_seal_segment(wal);
    wal_take_spare(wal);
    (void)take_block(wal, WAL_BUFFER_HEADER);
    wal_pump(wal);
}

/* ---- who is alive ---- */

/* A newer header has to be durable that says up to where positions were given. */
bool log_file_is_free(const struct wal *wal, const struct log_file *segment)
{
    return segment->header.number < wal->number_durable && log_file_is_dead(wal, segment) &&
           segment->pins == 0;
}

void log_file_check(struct wal *wal, struct log_file *segment)
{
    if (segment->state != LOG_FILE_SEALED || segment->live > 0 || segment->is_damaged ||
        segment->is_unreadable)
        return;
    if (!list_node_is_linked(&segment->node))
        list_push_back(&wal->drained, &segment->node);
}

void wal_record_dead(struct wal *wal, uint64_t location, uint64_t killer_position)
{
    struct log_file *segment = wal_table_find(&wal->table, location_file(location));
    assert(segment->live > 0);
    assert(killer_position <= wal->position_last);
    segment->live--;
    segment->killer_last = max_u64(segment->killer_last, killer_position);
    if (segment->live > 0)
        return;
    log_file_check(wal, segment);
    wal_keep(wal);
}

int wal_pin_file(struct wal *wal, uint32_t file)
{
    struct log_file *segment = wal_table_find(&wal->table, file);
    assert(segment->state == LOG_FILE_OPEN || segment->state == LOG_FILE_SEALED);
    segment->pins++;
    return segment->handle;
}

void wal_unpin_file(struct wal *wal, uint32_t file)
{
    struct log_file *segment = wal_table_find(&wal->table, file);
    assert(segment->pins > 0);
    segment->pins--;
    if (segment->pins == 0 && segment->live == 0)
        wal_keep(wal);
}
