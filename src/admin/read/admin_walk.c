/* Walks through all records: first those of the log, then those of the segments that count. Of a
 * segment: header, chunks up to the end that the manifest names, their directories and records.
 * unit.h says what is a chunk and what is damage. */
#include "admin/read/admin_walk.h"

#include "admin/read/admin_files.h"
#include "base/assert.h"
#include "base/hash.h"
#include "store/disk/wait.h"
#include "store/mover/mover.h"
#include "store/unit/unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What is reported while a record is shown is always shown. */
static int show(const struct walk *walk, const struct walk_found *found)
{
    walk->admin->report.is_silent = false;
    int result = walk->each(walk->context, found);
    walk->admin->report.is_silent = walk->is_repeated;
    return result;
}

uint32_t walk_partition(const struct walk *walk, const struct record *record)
{
    return hash_place(walk->admin->superblock.secret, record->key.data, record->key.size).partition;
}

int walk_show(const struct walk *walk, uint32_t file, uint64_t offset, const struct record *record)
{
    const struct slice *key = &record->key;
    struct hash_place place = hash_place(walk->admin->superblock.secret, key->data, key->size);
    struct walk_found found = {
        .file = file,
        .offset = offset,
        .size = (uint32_t)record_size(record),
        .partition = (uint8_t)place.partition,
        .hash = place.hash,
        .version = record->version,
        .tombstone = record->flags & RECORD_TOMBSTONE,
        .in_value_file = record->flags & RECORD_IN_VALUE_FILE,
        .record = record,
    };
    return show(walk, &found);
}

struct segment_walk {
    const struct walk *walk;
    struct admin *admin;
    const struct catalog_file *file;
    uint32_t index; /* of the file */
    int handle;
    struct unit_scan units;
    uint8_t *chunk; /* SEGMENT_CHUNK_SIZE_MAX bytes: `read_size` of those at `offset` of the file */
    uint64_t offset;
    uint64_t read_size;
};

/* A unit_need. */
static int need(void *context, uint64_t offset, uint64_t size, const uint8_t **ret_data)
{
    struct segment_walk *walk = context;
    assert(size <= SEGMENT_CHUNK_SIZE_MAX);
    if (walk->offset != offset)
        walk->read_size = 0;
    walk->offset = offset;
    *ret_data = walk->chunk;
    if (size <= walk->read_size)
        return 0;
    int64_t count = admin_read(walk->handle, walk->chunk + walk->read_size, size - walk->read_size,
                               offset + walk->read_size);
    if (count < 0)
        return (int)count;
    walk->read_size += (uint64_t)count;
    return walk->read_size < size ? -ERANGE : 0;
}

/* ---- records ---- */

static int show_entry(const struct segment_walk *walk, const struct unit_record *record)
{
    const struct segment_entry *entry = &record->entry;
    struct walk_found found = {.file = walk->index,
                               .offset = record->offset,
                               .size = record->size,
                               .partition = walk->file->partition,
                               .hash = entry->hash,
                               .version = entry->version,
                               .tombstone = entry->tombstone,
                               .in_value_file = entry->in_value_file};
    return show(walk->walk, &found);
}

static int take_record(struct segment_walk *walk, struct unit_record *record)
{
    struct admin *admin = walk->admin;
    int error = unit_record_verify(record, walk->file->partition, admin->superblock.secret);
    if (error == 0)
        return walk_show(walk->walk, walk->index, record->offset, &record->record);
    if (error == -EPROTONOSUPPORT)
        report_say(&admin->report, REPORT_REFUSAL, walk->file->name, record->offset,
                   "a record of a format or with flags that this program does not know, use the "
                   "release that wrote it");
    else
        report_say(&admin->report, REPORT_DAMAGE, walk->file->name, record->offset, "%s",
                   error == -ESTALE
                       ? "the record is not the one that the directory of its chunk describes, its "
                         "key may not be found"
                       : "the record is corrupt, its key answers CORRUPT until it is written again "
                         "or restored");
    return error == -EPROTONOSUPPORT ? error : 0;
}

static int take_chunk(struct segment_walk *walk)
{
    struct unit_cursor cursor = {0};
    struct unit_record record;
    int result = 0;
    while (result == 0 && unit_next(&walk->units.unit, walk->units.data, &cursor, &record) == 1)
        result =
            walk->walk->only_directories ? show_entry(walk, &record) : take_record(walk, &record);
    return result;
}

/* Without a directory: one record behind the other, up to one that is not sound. */
static int salvage(struct segment_walk *walk)
{
    const struct unit *unit = &walk->units.unit;
    uint64_t at = unit->records_offset;
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < unit->record_count && at < unit->records_end; i++) {
        struct record record;
        int64_t size = record_decode(walk->units.data + at, unit->records_end - at, &record);
        if (size < 0)
            break;
        result = walk_show(walk->walk, walk->index, unit->offset + at, &record);
        at += round_up((uint64_t)size, SEGMENT_RECORD_ALIGNMENT);
    }
    return result;
}

/* ---- chunks ---- */

static int take_damage(struct segment_walk *walk)
{
    const struct unit_damage *damage = &walk->units.damage;
    struct admin_report *report = &walk->admin->report;
    if (!damage->is_unit || walk->units.data == NULL) {
        report_say(report, REPORT_DAMAGE, walk->file->name, damage->from,
                   "%s up to %" PRIu64 ", keys that were there are lost or answer CORRUPT: "
                   "restore them from a replica or a backup",
                   unit_describe(damage), damage->upto);
        return 0;
    }
    report_say(report, REPORT_DAMAGE, walk->file->name, damage->from + SEGMENT_CHUNK_HEADER_SIZE,
               "%s, a start without an index checkpoint does not find its %" PRIu32 " records",
               unit_describe(damage), walk->units.unit.record_count);
    return walk->walk->only_directories ? 0 : salvage(walk);
}

static int walk_chunks(struct segment_walk *walk)
{
    int result = 0;
    while (result == 0) {
        uint64_t before = walk->units.at;
        enum unit_step step = unit_scan_step(&walk->units);
        assert(step != UNIT_WAIT);
        if (step == UNIT_END)
            break;
        if (step == UNIT_FOUND)
            result = take_chunk(walk);
        else if (step == UNIT_DAMAGED)
            result = take_damage(walk);
        report_progress(&walk->admin->report, walk->units.at - before, walk->file->name);
    }
    return result;
}

/* ---- the segment ---- */

/* The chunks say again what they belong to, so a bad header ends nothing. */
static int check_header(struct segment_walk *walk)
{
    struct admin_report *report = &walk->admin->report;
    const char *name = walk->file->name;
    const struct unit_file *units = &walk->units.file;
    struct segment_header expected = {.partition = walk->file->partition,
                                      .directory_id = units->directory_id,
                                      .number = units->number,
                                      .salt = units->salt};
    const uint8_t *block;
    int error = need(walk, 0, SEGMENT_BLOCK_SIZE, &block);
    error = error < 0 ? -EBADMSG : segment_header_check(block, &expected);
    if (error == -EPROTONOSUPPORT)
        report_say(report, REPORT_REFUSAL, name, 0,
                   "it has format %" PRIu16 ", this program knows format %d: use the release "
                   "that wrote it",
                   segment_format_of(block), SEGMENT_FORMAT);
    else if (error == -EXDEV)
        report_say(report, REPORT_REFUSAL, name, 0,
                   "it belongs to another data directory, move it away");
    else if (error < 0)
        report_say(report, REPORT_DAMAGE, name, 0,
                   "the header is %s, what the file holds can still be read",
                   error == -EBADMSG ? "corrupt" : "another segment's");
    return error == -EPROTONOSUPPORT || error == -EXDEV ? error : 0;
}

static int walk_file(struct segment_walk *walk)
{
    const struct catalog_file *file = walk->file;
    int result = check_header(walk);
    if (result < 0)
        return result;
    result = walk_chunks(walk);
    if (result == 0 && file->size < file->end)
        report_say(&walk->admin->report, REPORT_DAMAGE, file->name, file->size,
                   "the file ends here but had %" PRIu64 " bytes, restore it from a backup or "
                   "its keys from a replica",
                   file->end);
    return result;
}

static int walk_segment(const struct walk *walk, uint32_t file)
{
    struct admin *admin = walk->admin;
    const struct catalog_file *entry = &admin->catalog.files[file];
    struct segment_walk segment = {.walk = walk, .admin = admin, .file = entry, .index = file};
    segment.units = (struct unit_scan){
        .file = {.is_segment = true,
                 .directory_id = admin->superblock.directory_id,
                 .number = entry->number,
                 .salt = segment_salt(admin->superblock.secret, entry->number),
                 .end = min_u64(entry->end, entry->size)},
        .at = SEGMENT_DATA_OFFSET,
        .has_heads_only = walk->only_directories,
        .need = need,
        .context = &segment,
    };
    segment.handle = admin_open_file(admin->directory, entry->name);
    if (segment.handle < 0 && !disk_is_lost(segment.handle))
        return report_cannot(&admin->report, admin->directory, entry->name, "opened",
                             segment.handle);
    if (segment.handle < 0) {
        report_say(&admin->report, REPORT_DAMAGE, entry->name, 0,
                   "it cannot be opened, %s: what it holds is not known",
                   strerror(-segment.handle));
        return 0;
    }
    segment.chunk = malloc(SEGMENT_CHUNK_SIZE_MAX);
    int result = segment.chunk == NULL ? -ENOMEM : walk_file(&segment);
    free(segment.chunk);
    admin_close(segment.handle);
    return result;
}

/* ---- everything ---- */

int admin_walk(const struct walk *walk)
{
    struct admin *admin = walk->admin;
    const struct catalog *catalog = &admin->catalog;
    int result = 0;
    admin->report.is_silent = walk->is_repeated;
    for (uint32_t i = 0; result == 0 && i < admin->shard_count; i++)
        result = admin_walk_log(walk, admin, &admin->shards[i]);
    for (uint32_t i = catalog->first[CATALOG_SEGMENT];
         result == 0 && i < catalog->first[CATALOG_SEGMENT + 1]; i++)
        if (catalog->files[i].counts)
            result = walk_segment(walk, i);
    admin->report.is_silent = false;
    return result;
}

uint64_t admin_walk_size(const struct admin *admin)
{
    return catalog_size(&admin->catalog, CATALOG_LOG) +
           catalog_size(&admin->catalog, CATALOG_SEGMENT);
}

static int read_again(int handle, uint64_t offset, uint32_t size, uint8_t *memory,
                      struct record *ret_record)
{
    int64_t count = admin_read(handle, memory, size, offset);
    if (count < 0)
        return (int)count;
    int64_t result = record_decode(memory, (uint64_t)count, ret_record);
    return result < 0 ? -EBADMSG : 0;
}

int admin_read_record(const struct admin *admin, uint32_t file, uint64_t offset, uint32_t size,
                      uint8_t **ret_memory, struct record *ret_record)
{
    int handle = admin_open_file(admin->directory, admin->catalog.files[file].name);
    if (handle < 0)
        return handle;
    uint8_t *memory = malloc(size);
    int result = memory == NULL ? -ENOMEM : read_again(handle, offset, size, memory, ret_record);
    admin_close(handle);
    if (result < 0) {
        free(memory);
        return result;
    }
    *ret_memory = memory;
    return 0;
}
