/* Walking one partition segment: header, chunks up to the end that the manifest names, their
 * directories and records. */
#include "admin/read/admin_walk.h"

#include "admin/read/admin_files.h"
#include "base/assert.h"
#include "base/hash.h"
#include "store/mover/mover.h"
#include "store/unit/segment_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK ((uint64_t)SEGMENT_BLOCK_SIZE)

struct segment_walk {
    const struct walk *walk;
    struct admin *admin;
    const struct catalog_file *file;
    uint32_t index; /* of the file */
    int handle;
    uint64_t salt;
    uint8_t *chunk;       /* SEGMENT_CHUNK_SIZE_MAX bytes */
    uint64_t damage_from; /* 0: what lies before is sound */
    const char *damage;
};

/* ---- places without a sound chunk ---- */

static void begin_damage(struct segment_walk *walk, uint64_t offset, const char *what)
{
    if (walk->damage_from != 0)
        return;
    walk->damage_from = offset;
    walk->damage = what;
}

static void end_damage(struct segment_walk *walk, uint64_t offset)
{
    if (walk->damage_from == 0)
        return;
    report_damage(&walk->admin->report, walk->file->name, walk->damage_from,
                  "%s up to %" PRIu64 ", keys that were there are lost or answer CORRUPT: restore "
                  "them from a replica or a backup",
                  walk->damage, offset);
    walk->damage_from = 0;
}

/* ---- records ---- */

static struct walk_found found_at(const struct segment_walk *walk, uint64_t offset, uint32_t size)
{
    return (struct walk_found){
        .file = walk->index, .offset = offset, .size = size, .partition = walk->file->partition};
}

static void describe(const struct segment_walk *walk, const struct record *record,
                     struct walk_found *found)
{
    const struct slice *key = &record->key;
    found->hash = hash_place(walk->admin->superblock.secret, key->data, key->size).hash;
    found->version = record->version;
    found->tombstone = record->flags & RECORD_TOMBSTONE;
    found->in_value_file = record->flags & RECORD_IN_VALUE_FILE;
    found->record = record;
}

static bool is_described(const struct segment_entry *entry, const struct walk_found *found)
{
    uint64_t key_hash = hash_key(found->record->key.data, found->record->key.size);
    return entry->hash == found->hash && version_compare(entry->version, found->version) == 0 &&
           entry->tombstone == found->tombstone && entry->in_value_file == found->in_value_file &&
           hash_partition(key_hash) == found->partition;
}

/* The record at `at` of the chunk, of which the directory says `entry`. */
static int take_record(struct segment_walk *walk, uint64_t chunk_offset, uint64_t at,
                       const struct segment_entry *entry)
{
    const char *name = walk->file->name;
    struct walk_found found = found_at(walk, chunk_offset + at, entry->record_size);
    struct record record;
    int64_t size = record_decode(walk->chunk + at, entry->record_size, &record);
    if (size == -EPROTONOSUPPORT) {
        report_refuse(&walk->admin->report, name, found.offset,
                      "a record of a format or with flags that this program does not know, use the "
                      "release that wrote it");
        return (int)size;
    }
    if (size != entry->record_size) {
        report_damage(&walk->admin->report, name, found.offset,
                      "the record is corrupt, its key answers CORRUPT until it is written again or "
                      "restored");
        return 0;
    }
    describe(walk, &record, &found);
    if (!is_described(entry, &found)) {
        report_damage(&walk->admin->report, name, found.offset,
                      "the record is not the one that the directory of its chunk describes, its "
                      "key may not be found");
        return 0;
    }
    return walk_show(walk->walk, &found);
}

static int take_entry(struct segment_walk *walk, uint64_t chunk_offset, uint64_t at,
                      const struct segment_entry *entry)
{
    if (!walk->walk->only_directories)
        return take_record(walk, chunk_offset, at, entry);
    struct walk_found found = found_at(walk, chunk_offset + at, entry->record_size);
    found.hash = entry->hash;
    found.version = entry->version;
    found.tombstone = entry->tombstone;
    found.in_value_file = entry->in_value_file;
    return walk_show(walk->walk, &found);
}

/* Without a directory: one record behind the other, up to one that is not sound. */
static int salvage(struct segment_walk *walk, uint64_t chunk_offset,
                   const struct segment_chunk_header *header)
{
    uint64_t at = segment_chunk_records_offset(header->record_count);
    uint64_t end = at + header->records_size;
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < header->record_count && at < end; i++) {
        struct record record;
        int64_t size = record_decode(walk->chunk + at, end - at, &record);
        if (size < 0)
            break;
        struct walk_found found = found_at(walk, chunk_offset + at, (uint32_t)size);
        describe(walk, &record, &found);
        result = walk_show(walk->walk, &found);
        at += round_up((uint64_t)size, SEGMENT_RECORD_ALIGNMENT);
    }
    return result;
}

static int take_chunk(struct segment_walk *walk, uint64_t offset,
                      const struct segment_chunk_header *header)
{
    if (segment_directory_check(header, walk->chunk) < 0) {
        report_damage(&walk->admin->report, walk->file->name, offset + SEGMENT_CHUNK_HEADER_SIZE,
                      "the directory of the chunk is corrupt, a start without an index checkpoint "
                      "does not find its %" PRIu32 " records",
                      header->record_count);
        return walk->walk->only_directories ? 0 : salvage(walk, offset, header);
    }
    uint64_t at = segment_chunk_records_offset(header->record_count);
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < header->record_count; i++) {
        struct segment_entry entry;
        const uint8_t *data = walk->chunk + SEGMENT_CHUNK_HEADER_SIZE;
        segment_entry_decode(data + (uint64_t)i * SEGMENT_ENTRY_SIZE, &entry);
        result = take_entry(walk, offset, at, &entry);
        at += round_up(entry.record_size, SEGMENT_RECORD_ALIGNMENT);
    }
    return result;
}

/* ---- chunks ---- */

static bool belongs(const struct segment_walk *walk, const struct segment_chunk_header *header,
                    uint64_t offset)
{
    uint64_t size = segment_chunk_size(header->record_count, header->records_size);
    return header->directory_id == walk->admin->superblock.directory_id &&
           header->segment == walk->file->number && header->salt == walk->salt &&
           header->offset == offset && size <= walk->file->end - offset;
}

/* Bytes to read of a chunk. */
static uint64_t wanted_size(const struct segment_walk *walk,
                            const struct segment_chunk_header *header)
{
    if (walk->walk->only_directories)
        return segment_chunk_records_offset(header->record_count);
    return segment_chunk_size(header->record_count, header->records_size);
}

/* Reads what lies at `offset` into the chunk. Returns NULL, or what is wrong. */
static const char *read_chunk(struct segment_walk *walk, uint64_t offset,
                              struct segment_chunk_header *ret_header)
{
    int64_t count = admin_read(walk->handle, walk->chunk, BLOCK, offset);
    if (count < (int64_t)BLOCK)
        return count < 0 ? strerror((int)-count) : "the file ends";
    if (segment_chunk_header_decode(walk->chunk, ret_header) < 0)
        return "no chunk with a sound header";
    if (!belongs(walk, ret_header, offset))
        return "not the chunk that belongs there";
    uint64_t wanted = wanted_size(walk, ret_header);
    if (wanted <= BLOCK)
        return NULL;
    count = admin_read(walk->handle, walk->chunk + BLOCK, wanted - BLOCK, offset + BLOCK);
    if (count == (int64_t)(wanted - BLOCK))
        return NULL;
    return count < 0 ? strerror((int)-count) : "the file ends within the chunk";
}

static int walk_chunks(struct segment_walk *walk)
{
    uint64_t end = min_u64(walk->file->end, walk->file->size);
    uint64_t offset = SEGMENT_DATA_OFFSET;
    int result = 0;
    while (result == 0 && offset < end) {
        struct segment_chunk_header header;
        const char *what = read_chunk(walk, offset, &header);
        uint64_t size = BLOCK;
        if (what != NULL) {
            begin_damage(walk, offset, what);
        } else {
            end_damage(walk, offset);
            size = segment_chunk_size(header.record_count, header.records_size);
            result = take_chunk(walk, offset, &header);
        }
        offset += size;
        report_progress(&walk->admin->report, size, walk->file->name);
    }
    end_damage(walk, end);
    return result;
}

/* ---- the segment ---- */

static bool is_ours(const struct segment_walk *walk, const struct segment_header *header)
{
    return header->number == walk->file->number && header->partition == walk->file->partition &&
           header->salt == walk->salt;
}

/* The chunks say again what they belong to, so a bad header ends nothing. */
static int check_header(struct segment_walk *walk)
{
    struct admin_report *report = &walk->admin->report;
    const char *name = walk->file->name;
    struct segment_header header;
    int64_t count = admin_read(walk->handle, walk->chunk, BLOCK, 0);
    int error = count < (int64_t)BLOCK ? -EBADMSG : segment_header_decode(walk->chunk, &header);
    if (error == -EPROTONOSUPPORT) {
        report_refuse(report, name, 0,
                      "it has format %" PRIu16 ", this program knows format %d: use the release "
                      "that wrote it",
                      segment_format_of(walk->chunk), SEGMENT_FORMAT);
        return error;
    }
    if (error == 0 && header.directory_id != walk->admin->superblock.directory_id) {
        report_refuse(report, name, 0, "it belongs to another data directory, move it away");
        return -EXDEV;
    }
    if (error < 0 || !is_ours(walk, &header))
        report_damage(report, name, 0, "the header is %s, what the file holds can still be read",
                      error < 0 ? "corrupt" : "another segment's");
    return 0;
}

static int walk_file(struct segment_walk *walk)
{
    const struct catalog_file *file = walk->file;
    int result = check_header(walk);
    if (result < 0)
        return result;
    result = walk_chunks(walk);
    if (result == 0 && file->size < file->end)
        report_damage(&walk->admin->report, file->name, file->size,
                      "the file ends here but had %" PRIu64 " bytes, restore it from a backup or "
                      "its keys from a replica",
                      file->end);
    return result;
}

int admin_walk_segment(const struct walk *walk, uint32_t file)
{
    struct admin *admin = walk->admin;
    struct segment_walk segment = {
        .walk = walk, .admin = admin, .file = &admin->catalog.files[file], .index = file};
    segment.salt = segment_salt(admin->superblock.secret, segment.file->number);
    segment.handle = admin_open_file(admin->directory, segment.file->name);
    if (segment.handle < 0) {
        report_damage(&admin->report, segment.file->name, 0,
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
