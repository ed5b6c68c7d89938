/* Sealed segments, for the mover, which carries what is alive out of them. */
#include "store/wal/wal_internal.h"
#include "store/memory/location.h"

/* A segment of which less than this part is alive is all but dead. */
#define FADING_SHARE 64u

static bool is_movable(const struct wal *wal, const struct log_file *segment)
{
    bool is_sound = !segment->is_damaged && !segment->is_unreadable;
    return segment->state == LOG_FILE_SEALED && segment->is_settled && segment->live > 0 &&
           (is_sound || wal->moves_damaged);
}

static bool is_there(const struct wal *wal, uint32_t file)
{
    return wal->table.segments[file] != NULL;
}

void wal_move_damaged(struct wal *wal)
{
    wal->moves_damaged = true;
}

uint64_t wal_sealed_bytes(const struct wal *wal)
{
    uint64_t bytes = 0;
    for (uint32_t file = 0; file < wal->table.capacity; file++)
        if (is_there(wal, file) && is_movable(wal, wal->table.segments[file]))
            bytes += wal->table.segments[file]->end;
    return bytes;
}

static uint64_t really_live(const struct log_file *segment)
{
    return segment->live - segment->doomed;
}

static bool show(const struct log_file *segment, struct wal_sealed *ret_sealed)
{
    if (segment == NULL)
        return false;
    *ret_sealed = (struct wal_sealed){
        .is_fading = really_live(segment) <= segment->records / FADING_SHARE,
        .file = segment->file,
        .number = segment->header.number,
        .salt = segment->header.salt,
        .end = segment->end,
    };
    return true;
}

bool wal_emptiest_sealed(const struct wal *wal, struct wal_sealed *ret_sealed)
{
    const struct log_file *best = NULL;
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        const struct log_file *segment = wal->table.segments[file];
        if (segment != NULL && is_movable(wal, segment) &&
            (best == NULL || really_live(segment) < really_live(best)))
            best = segment;
    }
    return show(best, ret_sealed);
}

bool wal_next_sealed(const struct wal *wal, uint64_t after, struct wal_sealed *ret_sealed)
{
    const struct log_file *first = NULL;
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        const struct log_file *segment = wal->table.segments[file];
        if (segment == NULL || !is_movable(wal, segment) || segment->header.number <= after)
            continue;
        if (first == NULL || segment->header.number < first->header.number)
            first = segment;
    }
    return show(first, ret_sealed);
}

void wal_record_doomed(struct wal *wal, uint64_t location)
{
    struct log_file *segment = wal_table_find(&wal->table, location_file(location));
    assert(segment->doomed < segment->live);
    segment->doomed++;
}

void wal_record_spared(struct wal *wal, uint64_t location)
{
    struct log_file *segment = wal_table_find(&wal->table, location_file(location));
    assert(segment->doomed > 0);
    segment->doomed--;
}

uint64_t wal_first_position(const struct wal *wal)
{
    uint64_t position = wal->position_last + 1;
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        const struct log_file *segment = wal->table.segments[file];
        bool has_records = segment != NULL && segment->state != LOG_FILE_PREPARING &&
                           segment->state != LOG_FILE_SPARE && segment->state != LOG_FILE_MARKED &&
                           !segment->is_dead;
        if (has_records && segment->header.last_before < position)
            position = segment->header.last_before + 1;
    }
    return position;
}

void wal_keep_damaged(struct wal *wal, uint32_t file)
{
    wal_table_find(&wal->table, file)->is_damaged = true;
}
