#include "store/memory/doomed.h"
#include "store/mover/mover_internal.h"
#include "store/memory/location.h"

static void record_dead(struct mover *mover, const struct index_entry *old)
{
    /* Who killed it is not known, but has been appended. */
    uint64_t killer_position = wal_last(mover->options.wal);
    if (location_is_segment(old->location)) {
        segment_record_spared(mover->options.segments, old->location, old->read_size);
        segment_record_dead(mover->options.segments, old->location, old->read_size,
                            killer_position);
    } else {
        wal_record_spared(mover->options.wal, old->location);
        wal_record_dead(mover->options.wal, old->location, killer_position);
    }
}

uint64_t mover_mark(const struct mover *mover, const struct record *record)
{
    return doomed_mark(mover->options.doomed, record->key, record->version,
                       (record->flags & RECORD_TOMBSTONE) != 0);
}

bool mover_bury(struct mover *mover, uint64_t mark, struct version version, uint32_t partition,
                uint64_t hash)
{
    if (!doomed_remove(mover->options.doomed, mark))
        return false;
    struct index_entry old;
    int error = index_remove(mover->options.index, partition, hash, version, &old);
    assert(error == 0 && !old.in_value_file);
    record_dead(mover, &old);
    mover->stats.buried_records++;
    return true;
}
