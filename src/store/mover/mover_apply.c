/* The index learns where the records lie now, and the accounts what died where they lay. */
#include "store/mover/mover_internal.h"
#include "store/wal/wal_internal.h"
#include "store/memory/location.h"

static void record_dead(struct mover *mover, uint64_t location, uint64_t read_size)
{
    if (location_is_segment(location))
        segment_record_dead(mover->options.segments, location, read_size, UINT64_MAX);
    else
        wal_record_dead(mover->options.wal, location, 0);
}

static void purge(struct mover *mover, const struct staged *staged)
{
    struct index_entry old;
    uint32_t partition = staged->partition;
    /* With a newer slot beside it, it is dead, and somebody is about to find that out. */
    if (index_find(mover->options.index, partition, staged->hash, &old, 1) == 0 ||
        version_compare(old.version, staged->version) != 0 || old.location != staged->old_location)
        return;
    (void)index_remove(mover->options.index, partition, staged->hash, staged->version, &old);
    record_dead(mover, old.location, old.read_size);
    mover->stats.purged_tombstones++;
}

/* Whether it was overwritten on its way, by a key that was not in memory. */
static bool has_died(struct mover *mover, const struct staged *staged)
{
    struct index_entry entry;
    uint32_t partition = staged->partition;
    if (index_find(mover->options.index, partition, staged->hash, &entry, 1) == 0 ||
        version_compare(entry.version, staged->version) == 0 ||
        index_get(mover->options.index, partition, staged->hash, staged->version, &entry) < 0)
        return false;
    return mover_bury(mover, staged->mark, staged->version, partition, staged->hash);
}

static void apply(struct mover *mover, const struct staged *staged)
{
    if (has_died(mover, staged) ||
        index_move(mover->options.index, staged->partition, staged->hash, staged->version,
                   staged->old_location, staged->new_location) < 0)
        return;
    uint64_t read_size = index_read_size(staged->size);
    struct segment *segment =
        segments_find(mover->options.segments, location_file(staged->new_location));
    segment_add_live(mover->options.segments, segment, read_size);
    record_dead(mover, staged->old_location, read_size);
    mover->stats.moved_records++;
    mover->stats.moved_bytes += staged->size;
    mover->stats.compacted_bytes += mover->generation == 2 ? staged->size : 0;
}

static void look_ahead(const struct mover *mover)
{
    const struct mover_stage *stage = &mover->stage;
    const struct staged *staged = &stage->records[mover->apply_next];
    uint64_t left = stage->count - mover->apply_next;
    if (left > MOVER_AHEAD)
        index_prefetch(mover->options.index, staged[MOVER_AHEAD].partition,
                       staged[MOVER_AHEAD].hash);
    if (left > MOVER_NEAR)
        index_prefetch_slots(mover->options.index, staged[MOVER_NEAR].partition,
                             staged[MOVER_NEAR].hash);
}

bool mover_apply_step(struct mover *mover, uint64_t budget)
{
    struct mover_stage *stage = &mover->stage;
    for (uint64_t used = 0; used < budget && mover->apply_next < stage->count;
         used += MOVER_LOOK_COST) {
        look_ahead(mover);
        const struct staged *staged = &stage->records[mover->apply_next++];
        if (staged->size == 0)
            purge(mover, staged);
        else
            apply(mover, staged);
    }
    return mover->apply_next == stage->count;
}
