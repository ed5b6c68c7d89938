/* The index learns where the records lie now, and the accounts what died where they lay. */
#include "store/mover_internal.h"
#include "store/wal_internal.h"

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
    uint32_t partition = (uint32_t)staged->new_location;
    /* With a newer slot beside it, it is dead, and somebody is about to find that out. */
    if (index_find(mover->options.index, partition, staged->hash, &old, 1) == 0 ||
        version_compare(old.version, staged->version) != 0 || old.location != staged->old_location)
        return;
    (void)index_remove(mover->options.index, partition, staged->hash, staged->version, &old);
    record_dead(mover, old.location, old.read_size);
    mover->stats.purged_tombstones++;
}

/* Whether it was overwritten on its way, by a key that was not in memory. */
static bool has_died(struct mover *mover, const struct staged *staged, uint32_t partition)
{
    struct index_entry entry;
    if (index_find(mover->options.index, partition, staged->hash, &entry, 1) == 0 ||
        version_compare(entry.version, staged->version) == 0 ||
        index_get(mover->options.index, partition, staged->hash, staged->version, &entry) < 0)
        return false;
    struct record record;
    int64_t size = record_decode(mover->stage.arena + staged->offset, staged->size, &record);
    assert(size > 0);
    return mover_bury(mover, &record, partition, staged->hash);
}

static void apply(struct mover *mover, const struct staged *staged, uint32_t partition)
{
    if (has_died(mover, staged, partition) ||
        index_move(mover->options.index, partition, staged->hash, staged->version,
                   staged->old_location, staged->new_location) < 0)
        return;
    uint64_t read_size = index_read_size(staged->size);
    struct segment *segment =
        segments_find(mover->options.segments, segment_location_file(staged->new_location));
    segment_add_live(mover->options.segments, segment, read_size);
    record_dead(mover, staged->old_location, read_size);
    mover->stats.moved_records++;
    mover->stats.moved_bytes += staged->size;
    mover->stats.compacted_bytes += mover->generation == 2 ? staged->size : 0;
}

static void prefetch_slot(const struct mover *mover, const struct staged *staged)
{
    if (staged->size == 0)
        return;
    const struct segment *segment =
        segments_find(mover->options.segments, segment_location_file(staged->new_location));
    index_prefetch(mover->options.index, segment->partition, staged->hash);
}

bool mover_apply_step(struct mover *mover, uint64_t budget)
{
    struct mover_stage *stage = &mover->stage;
    for (uint64_t used = 0; used < budget && mover->apply_next < stage->count;
         used += MOVER_LOOK_COST) {
        const struct staged *staged = &stage->records[mover->apply_next++];
        if (mover->apply_next + MOVER_AHEAD < stage->count)
            prefetch_slot(mover, staged + MOVER_AHEAD);
        if (staged->size == 0) {
            purge(mover, staged);
            continue;
        }
        const struct segment *segment =
            segments_find(mover->options.segments, segment_location_file(staged->new_location));
        apply(mover, staged, segment->partition);
    }
    return mover->apply_next == stage->count;
}
