/* What a job carries.
 *
 * Invariants:
 * 1. The records of a round lie in the arena one behind the other: arena_used <= arena_size.
 * 2. The table has the records of all rounds in the order of reading: count <= capacity.
 * 3. A list of a partition has records of this round only, in the order of reading.
 * 4. Every record of a round is in a chunk before the next round begins, and before any is applied.
 * 5. A record is applied once, after its new location is known.
 * 6. `created` of a partition only falls during a job. */
#include "store/mover/mover_stage.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/plant.h"
#include "store/memory/doomed.h"
#include "store/memory/location.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Records are at least this large on the average, or the table is full before the arena is. */
#define RECORD_SIZE_USUAL 128u

void mover_stage_init(struct mover_stage *stage, const struct mover_options *options,
                      struct mover_stats *stats)
{
    *stage = (struct mover_stage){.options = options, .stats = stats};
}

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
    assert(stage->count == 0); /* invariant 2: the last job's are gone */
    assert(stage->arena_used == 0);
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
        .options = stage->options,
        .stats = stage->stats,
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
    mover_stage_init(stage, stage->options, stage->stats);
}

/* ---- what is not carried ---- */

bool mover_stage_may_purge(const struct mover_stage *stage, const struct mover_record *record)
{
    const struct mover_options *options = stage->options;
    uint64_t position = record->record.position;
    struct index_entry entries[2];
    if (!location_is_segment(record->location) || wal_first_position(options->wal) <= position ||
        index_find(options->index, record->partition, record->hash, entries, 2) != 1)
        return false;
    if (plant_is(PLANT_DROP_TOMBSTONE))
        return true;
    /* This job may carry on what the tombstone killed, since nobody knew when it was read. */
    if (stage->created[record->partition] < position)
        return false;
    uint32_t file = location_file(record->location);
    const struct segment *segment = segments_first(options->segments, record->partition);
    while (segment != NULL && (segment->file == file || segment->created >= position))
        segment = segment_next(segment);
    return segment == NULL;
}

/* The slot's record was overwritten, by a key that was not in memory. */
static void doomed_dead(const struct mover_options *options, const struct index_entry *old)
{
    /* Who killed it is not known, but has been appended. */
    uint64_t killer_position = wal_last(options->wal);
    if (location_is_segment(old->location)) {
        segment_record_spared(options->segments, old->location, old->read_size);
        segment_record_dead(options->segments, old->location, old->read_size, killer_position);
    } else {
        wal_record_spared(options->wal, old->location);
        wal_record_dead(options->wal, old->location, killer_position);
    }
}

/* What stands for the record in the set of the dead. */
static uint64_t mark_of(const struct mover_options *options, const struct record *record)
{
    return doomed_mark(options->doomed, record->key, record->version,
                       (record->flags & RECORD_TOMBSTONE) != 0);
}

static bool bury(const struct mover_options *options, uint64_t mark, struct version version,
                 uint32_t partition, uint64_t hash)
{
    if (!doomed_remove(options->doomed, mark))
        return false;
    struct index_entry old;
    int error = index_remove(options->index, partition, hash, version, &old);
    assert(error == 0); /* a slot stands as long as its record has a mark */
    assert(!old.in_value_file);
    doomed_dead(options, &old);
    return true;
}

/* ---- records of inputs ---- */

/* Of a chunk, the directory tells enough to know whether a record is alive. */
void mover_record_locate(const struct mover_options *options, bool is_segment, uint32_t file,
                         uint8_t partition, const struct unit_record *found,
                         struct mover_record *ret_record)
{
    *ret_record = (struct mover_record){.data = found->data, .size = found->size};
    if (is_segment) {
        ret_record->record.version = found->entry.version;
        ret_record->hash = found->entry.hash;
        ret_record->partition = partition;
        ret_record->location = location_in_segment(file, found->offset);
    } else {
        struct slice key = found->record.key;
        struct hash_place place = hash_place(options->secret, key.data, key.size);
        ret_record->record = found->record;
        ret_record->hash = place.hash;
        ret_record->partition = (uint8_t)place.partition;
        ret_record->location = location_in_log(file, found->offset);
    }
    index_prefetch(options->index, ret_record->partition, ret_record->hash);
}

void mover_record_prefetch(const struct mover_options *options, const struct mover_record *record)
{
    index_prefetch_slots(options->index, record->partition, record->hash);
}

/* Also tells whether a newer slot of its hash hides it. */
static bool is_alive(const struct index *index, struct mover_record *record)
{
    struct version version = record->record.version;
    struct index_entry entry;
    if (index_find(index, record->partition, record->hash, &entry, 1) == 0)
        return false;
    record->is_hidden = version_compare(entry.version, version) != 0;
    if (record->is_hidden && index_get(index, record->partition, record->hash, version, &entry) < 0)
        return false;
    return entry.location == record->location;
}

/* What its directory says of a record must be what it says itself. */
static bool decode_from_chunk(struct mover_record *record)
{
    struct version version = record->record.version;
    int64_t size = record_decode(record->data, record->size, &record->record);
    return size == record->size && version_compare(record->record.version, version) == 0;
}

int mover_record_judge(const struct mover_options *options, struct mover_stats *stats,
                       struct mover_record *record, uint64_t *ret_offset)
{
    if (!is_alive(options->index, record))
        return 0;
    if (location_is_segment(record->location) && !decode_from_chunk(record)) {
        *ret_offset = location_offset(record->location);
        return -EBADMSG;
    }
    /* What has a slot may be known to be dead all the same. */
    bool is_dead =
        record->is_hidden && bury(options, mark_of(options, &record->record),
                                  record->record.version, record->partition, record->hash);
    stats->buried_records += is_dead;
    return !is_dead;
}

/* ---- records come ---- */

static void link_record(struct mover_stage *stage, uint8_t partition, uint32_t number)
{
    assert((stage->first[partition] == 0) == (stage->last[partition] == 0)); /* invariant 3 */
    assert(stage->last[partition] < number);                                 /* invariant 3 */
    if (stage->last[partition] == 0)
        stage->first[partition] = number;
    else
        stage->records[stage->last[partition] - 1].next = number;
    stage->last[partition] = number;
}

static void copy_record(struct mover_stage *stage, const struct mover_record *record,
                        uint64_t padded)
{
    uint8_t *target = stage->arena + stage->arena_used;
    if (record->is_hidden) {
        uint64_t *created = &stage->created[record->partition];
        *created = min_u64(*created, record->record.position); /* invariant 6 */
    }
    memcpy(target, record->data, record->size);
    memset(target + record->size, 0, padded - record->size);
    stage->arena_used += padded;
    stage->bytes += padded;
    assert(stage->arena_used <= stage->arena_size); /* invariant 1 */
    link_record(stage, record->partition, stage->count);
}

uint64_t mover_stage_add(struct mover_stage *stage, const struct mover_record *record)
{
    bool is_tombstone = (record->record.flags & RECORD_TOMBSTONE) != 0;
    bool is_purged = is_tombstone && mover_stage_may_purge(stage, record);
    uint32_t size = is_purged ? 0 : record->size;
    uint64_t padded = round_up(size, SEGMENT_RECORD_ALIGNMENT);
    assert(stage->apply_next == 0); /* invariant 4 */
    if (stage->count == stage->capacity || stage->arena_size - stage->arena_used < padded)
        return 0;
    stage->records[stage->count++] = (struct staged){
        .hash = record->hash,
        .mark = mark_of(stage->options, &record->record),
        .old_location = record->location,
        .version = record->record.version,
        .offset = (uint32_t)stage->arena_used,
        .size = size,
        .partition = record->partition,
        .tombstone = is_tombstone,
        .in_value_file = (record->record.flags & RECORD_IN_VALUE_FILE) != 0,
    };
    assert(stage->count <= stage->capacity); /* invariant 2 */
    if (is_purged)
        stage->written_count++;
    else
        copy_record(stage, record, padded);
    return MOVER_LOOK_COST + record->size;
}

bool mover_stage_is_full(const struct mover_stage *stage, uint64_t job_limit)
{
    return stage->count == stage->capacity || stage->bytes + stage->arena_size > job_limit;
}

bool mover_stage_is_empty(const struct mover_stage *stage)
{
    return stage->count == 0;
}

/* ---- into chunks ---- */

void mover_stage_begin_fill(struct mover_stage *stage)
{
    stage->fill_partition = 0;
    stage->fill_next = stage->first[0];
}

uint32_t mover_stage_fill_partition(struct mover_stage *stage)
{
    while (stage->fill_next == 0 && stage->fill_partition < MOVER_PARTITIONS)
        if (++stage->fill_partition < MOVER_PARTITIONS)
            stage->fill_next = stage->first[stage->fill_partition];
    return stage->fill_partition;
}

uint64_t mover_stage_created(const struct mover_stage *stage, uint32_t partition)
{
    assert(partition < MOVER_PARTITIONS);
    return stage->created[partition];
}

/* How many of the records from fill_next on fit into a chunk. */
static uint32_t count_for_chunk(const struct mover_stage *stage, uint64_t *ret_records_size)
{
    uint32_t count = 0;
    uint64_t size = 0;
    for (uint32_t next = stage->fill_next; next != 0; next = stage->records[next - 1].next) {
        uint64_t more = round_up(stage->records[next - 1].size, SEGMENT_RECORD_ALIGNMENT);
        if (segment_chunk_size(count + 1, size + more) > MOVER_CHUNK_SIZE)
            break;
        count++;
        size += more;
    }
    assert(count > 0); /* the largest record fits */
    *ret_records_size = size;
    return count;
}

static void fill_entry(const struct staged *staged, uint32_t index, uint8_t *chunk)
{
    struct segment_entry entry = {
        .hash = staged->hash,
        .version = staged->version,
        .record_size = staged->size,
        .in_value_file = staged->in_value_file,
        .tombstone = staged->tombstone,
    };
    segment_entry_encode(&entry,
                         chunk + SEGMENT_CHUNK_HEADER_SIZE + (uint64_t)index * SEGMENT_ENTRY_SIZE);
}

uint64_t mover_stage_fill(struct mover_stage *stage, uint32_t file, uint64_t offset, uint8_t *chunk,
                          struct segment_chunk_header *ret_header, uint64_t *ret_read_bytes)
{
    uint64_t records_size;
    uint32_t count = count_for_chunk(stage, &records_size);
    uint64_t at = segment_chunk_records_offset(count);
    *ret_read_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct staged *staged = &stage->records[stage->fill_next - 1];
        assert(staged->partition == stage->fill_partition); /* invariant 3 */
        assert(staged->new_location == 0);                  /* invariant 4 */
        uint64_t padded = round_up(staged->size, SEGMENT_RECORD_ALIGNMENT);
        fill_entry(staged, i, chunk);
        memcpy(chunk + at, stage->arena + staged->offset, padded);
        staged->new_location = location_in_segment(file, offset + at);
        *ret_read_bytes += index_read_size(staged->size);
        at += padded;
        stage->fill_next = staged->next;
    }
    uint64_t size = segment_chunk_size(count, records_size);
    assert(at <= size);
    memset(chunk + at, 0, size - at);
    stage->written_count += count;
    assert(stage->written_count <= stage->count); /* invariant 4 */
    ret_header->record_count = count;
    ret_header->records_size = (uint32_t)records_size;
    return size;
}

void mover_stage_next_round(struct mover_stage *stage)
{
    assert(stage->written_count == stage->count); /* invariant 4 */
    stage->arena_used = 0;
    memset(stage->first, 0, sizeof stage->first);
    memset(stage->last, 0, sizeof stage->last);
}

/* ---- into the index ---- */

/* Its record lies elsewhere by now, or is needed no more. */
static void record_moved(const struct mover_stage *stage, uint64_t location, uint64_t read_size)
{
    if (location_is_segment(location))
        segment_record_dead(stage->options->segments, location, read_size, UINT64_MAX);
    else
        wal_record_dead(stage->options->wal, location, 0);
}

static void purge(struct mover_stage *stage, const struct staged *staged)
{
    struct index_entry old;
    uint32_t partition = staged->partition;
    /* With a newer slot beside it, it is dead, and somebody is about to find that out. */
    if (index_find(stage->options->index, partition, staged->hash, &old, 1) == 0 ||
        version_compare(old.version, staged->version) != 0 || old.location != staged->old_location)
        return;
    (void)index_remove(stage->options->index, partition, staged->hash, staged->version, &old);
    record_moved(stage, old.location, old.read_size);
    stage->stats->purged_tombstones++;
}

/* Whether it was overwritten on its way, by a key that was not in memory. */
static bool has_died(struct mover_stage *stage, const struct staged *staged)
{
    struct index_entry entry;
    uint32_t partition = staged->partition;
    if (index_find(stage->options->index, partition, staged->hash, &entry, 1) == 0 ||
        version_compare(entry.version, staged->version) == 0 ||
        index_get(stage->options->index, partition, staged->hash, staged->version, &entry) < 0)
        return false;
    if (!bury(stage->options, staged->mark, staged->version, partition, staged->hash))
        return false;
    stage->stats->buried_records++;
    return true;
}

static void apply(struct mover_stage *stage, const struct staged *staged)
{
    assert(location_is_segment(staged->new_location)); /* invariant 5 */
    if (has_died(stage, staged) ||
        index_move(stage->options->index, staged->partition, staged->hash, staged->version,
                   staged->old_location, staged->new_location) < 0)
        return;
    uint64_t read_size = index_read_size(staged->size);
    struct segment *segment =
        segments_find(stage->options->segments, location_file(staged->new_location));
    assert(segment != NULL); /* the manifest names it */
    assert(segment->state != SEGMENT_LEAVING);
    segment_add_live(stage->options->segments, segment, read_size);
    record_moved(stage, staged->old_location, read_size);
    stage->stats->moved_records++;
    stage->stats->moved_bytes += staged->size;
    stage->stats->compacted_bytes += location_is_segment(staged->old_location) ? staged->size : 0;
}

static void look_ahead(const struct mover_stage *stage)
{
    const struct staged *staged = &stage->records[stage->apply_next];
    uint64_t left = stage->count - stage->apply_next;
    if (left > MOVER_AHEAD)
        index_prefetch(stage->options->index, staged[MOVER_AHEAD].partition,
                       staged[MOVER_AHEAD].hash);
    if (left > MOVER_NEAR)
        index_prefetch_slots(stage->options->index, staged[MOVER_NEAR].partition,
                             staged[MOVER_NEAR].hash);
}

bool mover_stage_apply(struct mover_stage *stage, uint64_t budget)
{
    assert(stage->written_count == stage->count); /* invariant 4 */
    for (uint64_t used = 0; used < budget && stage->apply_next < stage->count;
         used += MOVER_LOOK_COST) {
        look_ahead(stage);
        const struct staged *staged = &stage->records[stage->apply_next++];
        if (staged->size == 0)
            purge(stage, staged);
        else
            apply(stage, staged);
    }
    assert(stage->apply_next <= stage->count); /* invariant 5 */
    return stage->apply_next == stage->count;
}
