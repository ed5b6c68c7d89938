/* The records of a batch or chunk. In the log the batch's checksum has spoken for them; in a
 * partition segment each speaks for itself, and the directory and the index have to agree. */
#include "store/scrub/scrub_internal.h"
#include "store/memory/location.h"

/* What a record costs of a step's budget beside its bytes: a look into the index. */
#define RECORD_COST 256u

static struct hash_place place_of(const struct scrub *scrub, struct slice key)
{
    return hash_place(scrub->options.secret, key.data, key.size);
}

static bool is_slot(const struct scrub *scrub, uint8_t partition, uint64_t hash,
                    struct version version, uint64_t location, struct index_entry *ret_slot)
{
    return index_get(scrub->options.index, partition, hash, version, ret_slot) == 0 &&
           ret_slot->location == location;
}

static enum scrub_check check_value(struct scrub *scrub, const struct record *record, uint64_t hash,
                                    uint64_t offset)
{
    if (scrub_value_begin(scrub, record, hash) == 0)
        return SCRUB_CHECK_VALUE;
    scrub_report_record(scrub, offset, SCRUB_NEWEST, "its value's descriptor makes no sense");
    return SCRUB_CHECK_MORE;
}

/* ---- the log ---- */

/* Only a record that names a file needs more than the batch's checksum. */
static enum scrub_check check_in_batch(struct scrub *scrub, uint64_t *used)
{
    struct scrub_file *file = &scrub->file;
    struct record record;
    struct index_entry slot;
    uint64_t offset = file->record_offset;
    int64_t size = record_decode(scrub_window_at(scrub, offset), file->unit_end - offset, &record);
    if (size < 0) {
        scrub_report_part(scrub, file->unit_offset, file->unit_end,
                          "a record in a sound batch is not one");
        file->records_left = 0;
        return SCRUB_CHECK_MORE;
    }
    *used += (uint64_t)size;
    file->records_left--;
    file->record_offset += round_up((uint64_t)size, WAL_RECORD_ALIGNMENT);
    if ((record.flags & RECORD_IN_VALUE_FILE) == 0)
        return SCRUB_CHECK_MORE;
    struct hash_place place = place_of(scrub, record.key);
    if (!is_slot(scrub, (uint8_t)place.partition, place.hash, record.version,
                 location_in_log(file->file, offset), &slot))
        return SCRUB_CHECK_MORE;
    return check_value(scrub, &record, place.hash, offset);
}

/* ---- a partition ---- */

/* NULL: the record is what the directory says. */
static const char *judge_record(const struct scrub *scrub, const struct segment_entry *entry,
                                const uint8_t *data, struct record *ret_record)
{
    if (record_decode(data, entry->record_size, ret_record) != entry->record_size)
        return "its checksum is wrong";
    struct hash_place place = place_of(scrub, ret_record->key);
    bool is_tombstone = (ret_record->flags & RECORD_TOMBSTONE) != 0;
    bool in_value_file = (ret_record->flags & RECORD_IN_VALUE_FILE) != 0;
    bool is_same = version_compare(ret_record->version, entry->version) == 0 &&
                   place.hash == entry->hash && place.partition == scrub->file.partition &&
                   is_tombstone == entry->tombstone && in_value_file == entry->in_value_file;
    return is_same ? NULL : "it is not the one that the chunk's directory names";
}

static bool is_slot_right(const struct segment_entry *entry, const struct index_entry *slot)
{
    return slot->read_size >= entry->record_size && slot->tombstone == entry->tombstone &&
           slot->in_value_file == entry->in_value_file;
}

static enum scrub_life life_of(const struct scrub *scrub, const struct segment_entry *entry,
                               bool is_slot)
{
    struct index_entry newest;
    if (!is_slot)
        return SCRUB_DEAD;
    uint32_t count =
        index_find(scrub->options.index, scrub->file.partition, entry->hash, &newest, 1);
    bool is_newest = count > 0 && version_compare(newest.version, entry->version) == 0;
    return is_newest ? SCRUB_NEWEST : SCRUB_HIDDEN;
}

static enum scrub_check check_in_chunk(struct scrub *scrub, uint64_t *used)
{
    struct scrub_file *file = &scrub->file;
    struct segment_entry entry;
    struct record record;
    struct index_entry slot;
    uint64_t entry_offset = file->unit_offset + SEGMENT_CHUNK_HEADER_SIZE +
                            (uint64_t)file->record_index * SEGMENT_ENTRY_SIZE;
    segment_entry_decode(scrub_window_at(scrub, entry_offset), &entry);
    uint64_t offset = file->record_offset;
    *used += entry.record_size + RECORD_COST;
    file->records_left--;
    file->record_index++;
    file->record_offset += round_up(entry.record_size, SEGMENT_RECORD_ALIGNMENT);
    bool is_alive = is_slot(scrub, file->partition, entry.hash, entry.version,
                            location_in_segment(file->file, offset), &slot);
    file->found_alive += is_alive;
    const char *problem = judge_record(scrub, &entry, scrub_window_at(scrub, offset), &record);
    if (problem == NULL && is_alive && !is_slot_right(&entry, &slot))
        problem = "the index says something else of it";
    enum scrub_life life = problem != NULL ? life_of(scrub, &entry, is_alive) : SCRUB_DEAD;
    if (life == SCRUB_HIDDEN)
        scrub->options.owner.prove(scrub->options.owner.context, file->partition, entry.hash);
    if (problem != NULL)
        scrub_report_record(scrub, offset, life, problem);
    if (problem != NULL || !is_alive || !entry.in_value_file)
        return SCRUB_CHECK_MORE;
    return check_value(scrub, &record, entry.hash, offset);
}

enum scrub_check scrub_check_record(struct scrub *scrub, uint64_t *used)
{
    return scrub->file.is_segment ? check_in_chunk(scrub, used) : check_in_batch(scrub, used);
}
