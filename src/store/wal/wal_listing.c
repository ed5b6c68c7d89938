/* Which segments a header names, so that the next start knows what must be there; and what may go,
 * because no header that counts names it. */
#include "store/wal/wal_internal.h"

bool log_file_is_dead(const struct wal *wal, const struct log_file *segment)
{
    return segment->state == LOG_FILE_SEALED && segment->is_settled && !segment->is_damaged &&
           !segment->is_unreadable && segment->live == 0 && segment->killer_last <= wal->durable;
}

bool log_file_is_unlisted(const struct wal *wal, const struct log_file *segment)
{
    return segment->listed_last < wal->number_durable;
}

struct wal_note wal_note(const struct wal *wal)
{
    const struct wal_events *events = &wal->options.events;
    return events->note != NULL ? events->note(events->context) : (struct wal_note){0};
}

static bool has_records(const struct wal *wal, const struct log_file *segment)
{
    bool is_in_use = segment->state == LOG_FILE_OPEN || segment->state == LOG_FILE_SEALED;
    return is_in_use && !log_file_is_dead(wal, segment);
}

void wal_list_segments(struct wal *wal, uint64_t number, struct wal_listing *ret_listing)
{
    *ret_listing = (struct wal_listing){.flags = WAL_LISTING};
    for (uint32_t file = 0; file < wal->table.capacity; file++) {
        struct log_file *segment = wal->table.segments[file];
        if (segment == NULL || segment->header.number >= number || !has_records(wal, segment))
            continue;
        segment->listed_last = max_u64(segment->listed_last, number);
        if (ret_listing->count < WAL_LISTED_MAX)
            ret_listing->numbers[ret_listing->count++] = segment->header.number;
        else
            ret_listing->flags |= WAL_LISTING_INCOMPLETE;
    }
}
