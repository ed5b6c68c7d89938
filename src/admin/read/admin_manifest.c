/* Reading the manifest. Which groups are complete, and what is a torn tail and what is damage, is
 * decided by the rules in manifest.h. */
#include "admin/read/admin.h"

#include "admin/read/admin_files.h"
#include "store/catalog/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK ((uint64_t)MANIFEST_BLOCK_SIZE)

/* An edit with its place in the order. */
struct placed_edit {
    struct manifest_edit edit;
    uint64_t place;
};

struct manifest_reader {
    struct admin *admin;
    struct admin_shard *shard;
    const char *name;
    uint64_t salt;
    uint64_t edition;
    struct placed_edit *edits;
    uint64_t count;
    uint64_t complete; /* of them, in complete groups */
    uint64_t capacity;
    uint64_t end;    /* offset behind the last complete group */
    uint64_t dirty;  /* offset behind the last block that is not all zeros */
    uint64_t broken; /* where the group at `end` is not as it should be */
    bool is_in_group;
    bool is_broken;
    bool is_damaged;
};

/* ---- blocks ---- */

static int keep_edits(struct manifest_reader *reader, const struct manifest_block *block)
{
    if (reader->count + block->count > reader->capacity) {
        uint64_t capacity = 2 * (reader->capacity + MANIFEST_BLOCK_EDITS);
        struct placed_edit *edits = realloc(reader->edits, capacity * sizeof *edits);
        if (edits == NULL)
            return -ENOMEM;
        reader->edits = edits;
        reader->capacity = capacity;
    }
    for (uint32_t i = 0; i < block->count; i++, reader->count++)
        reader->edits[reader->count] = (struct placed_edit){block->edits[i], reader->count};
    return 0;
}

static void note_damage(struct manifest_reader *reader, const char *what)
{
    if (!reader->is_damaged)
        report_damage(&reader->admin->report, reader->name, reader->broken,
                      "%s, so the server refuses to start: restore the directory from a backup, or "
                      "start once with -accept-loss to go on with what stands before this place",
                      what);
    reader->is_damaged = true;
}

/* Takes the block at `offset`, or NULL for one that is not sound. */
static int take_block(struct manifest_reader *reader, uint64_t offset,
                      const struct manifest_block *block)
{
    bool is_first = block != NULL && block->flags & MANIFEST_GROUP_FIRST;
    if (block != NULL && !reader->is_broken && is_first != reader->is_in_group) {
        int error = keep_edits(reader, block);
        reader->is_in_group = !(block->flags & MANIFEST_GROUP_LAST);
        if (error == 0 && !reader->is_in_group) {
            reader->end = offset + BLOCK;
            reader->complete = reader->count;
            reader->shard->log_position = max_u64(reader->shard->log_position, block->position);
        }
        return error;
    }
    if (!reader->is_broken)
        reader->broken = offset;
    reader->is_broken = true;
    if (reader->end == 0)
        note_damage(reader, "the first group, which is the whole state, is not complete");
    else if (is_first && offset > reader->end)
        note_damage(reader, "a group that is not complete has others behind it");
    return 0;
}

/* Whether the block belongs into this file; the first one tells salt and edition. */
static bool belongs(struct manifest_reader *reader, uint64_t offset,
                    const struct manifest_block *block)
{
    const struct admin *admin = reader->admin;
    if (offset == 0) {
        reader->salt = block->salt;
        reader->edition = block->edition;
    }
    return block->directory_id == admin->superblock.directory_id && block->salt == reader->salt &&
           block->edition == reader->edition && block->sequence == offset / BLOCK + 1;
}

static bool is_blank(const uint8_t *data)
{
    return data[0] == 0 && memcmp(data, data + 1, BLOCK - 1) == 0;
}

static int look(struct manifest_reader *reader, uint64_t offset, const uint8_t *data)
{
    struct admin *admin = reader->admin;
    struct manifest_block block;
    int result = manifest_block_decode(data, &block);
    if (result == -EPROTONOSUPPORT) {
        report_refuse(&admin->report, reader->name, offset,
                      "something that this program does not know, use the release that wrote it");
        return result;
    }
    if (result >= 0 && offset == 0 && block.directory_id != admin->superblock.directory_id) {
        report_refuse(&admin->report, reader->name, offset,
                      "it belongs to the data directory %016" PRIx64 ", put back the one that was "
                      "here",
                      block.directory_id);
        return -EXDEV;
    }
    if (!is_blank(data))
        reader->dirty = offset + BLOCK;
    bool is_sound = result >= 0 && belongs(reader, offset, &block);
    return take_block(reader, offset, is_sound ? &block : NULL);
}

static int look_all(struct manifest_reader *reader, int file, uint64_t size)
{
    uint8_t block[MANIFEST_BLOCK_SIZE];
    int result = 0;
    for (uint64_t offset = 0; result == 0 && offset + BLOCK <= size; offset += BLOCK) {
        int64_t count = admin_read(file, block, BLOCK, offset);
        if (count == (int64_t)BLOCK) {
            result = look(reader, offset, block);
        } else {
            reader->broken = reader->is_broken ? reader->broken : offset;
            note_damage(reader, "the device does not give it");
            result = take_block(reader, offset, NULL);
        }
        report_progress(&reader->admin->report, BLOCK, reader->name);
    }
    if (result == 0 && reader->end == 0)
        note_damage(reader, "it is cut off within its first group");
    else if (result == 0 && reader->dirty > reader->end && !reader->is_damaged)
        report_note(&reader->admin->report, reader->name, reader->end,
                    "a group that was cut short, which the next start drops");
    return result;
}

/* Whether what was there at the last clean shutdown cannot have become this file. One block more is
 * the seal, which was not counted then (manifest_file.c has the same rule). */
static bool is_other(const struct manifest_reader *reader)
{
    const struct superblock *superblock = &reader->shard->superblock;
    uint64_t blocks = reader->end / BLOCK;
    if (superblock->manifest_salt == 0)
        return false;
    bool is_older =
        reader->edition < superblock->manifest_edition ||
        (reader->edition == superblock->manifest_edition && blocks < superblock->manifest_blocks);
    bool is_same = reader->salt == superblock->manifest_salt;
    return is_older ||
           (superblock->clean && (!is_same || blocks > superblock->manifest_blocks + 1));
}

static void compare_superblock(struct manifest_reader *reader)
{
    if (!reader->is_damaged && is_other(reader))
        report_damage(&reader->admin->report, reader->name, 0,
                      "it is not the manifest that the superblock tells of, one of the two was "
                      "replaced: put back the one that was there, restore the directory from a "
                      "backup, or start once with -accept-loss");
}

/* ---- what it says ---- */

static int compare_edits(const void *left, const void *right)
{
    const struct placed_edit *a = left;
    const struct placed_edit *b = right;
    if (a->edit.number != b->edit.number)
        return a->edit.number < b->edit.number ? -1 : 1;
    return (a->place > b->place) - (a->place < b->place);
}

static void take_segment(struct manifest_reader *reader, const struct manifest_edit *edit)
{
    struct admin *admin = reader->admin;
    if (edit->partition % admin->shard_count != reader->shard->number) {
        report_damage(&admin->report, reader->name, 0,
                      "it names segment %" PRIu64
                      " of partition %02x, which is another shard's, so "
                      "the server refuses to start: put back the manifest that was here",
                      edit->number, edit->partition);
        return;
    }
    struct catalog_file *file =
        catalog_find(&admin->catalog, CATALOG_SEGMENT, edit->partition, edit->number);
    if (file == NULL) {
        char name[64];
        (void)snprintf(name, sizeof name, "%02x/seg-%016" PRIx64, edit->partition, edit->number);
        report_damage(&admin->report, name, 0,
                      "it is missing although the manifest names it, restore it from a backup or "
                      "its keys from a replica");
        return;
    }
    file->counts = true;
    file->source = edit->source;
    file->end = edit->end;
}

/* Of each number the last edit holds. A checkpoint has numbers of its own; what earlier starts
 * found lost is found again by the walk. */
static void take_edits(struct manifest_reader *reader)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < reader->complete; i++) {
        const struct placed_edit *edit = &reader->edits[i];
        if (edit->edit.kind == MANIFEST_CHECKPOINT)
            reader->shard->checkpoint = edit->edit.number;
        else if (edit->edit.kind == MANIFEST_SEGMENT || edit->edit.kind == MANIFEST_REMOVE)
            reader->edits[count++] = *edit;
    }
    if (count > 0)
        qsort(reader->edits, count, sizeof *reader->edits, compare_edits);
    for (uint64_t i = 0; i < count; i++) {
        const struct manifest_edit *edit = &reader->edits[i].edit;
        bool is_last = i + 1 == count || reader->edits[i + 1].edit.number != edit->number;
        if (is_last && edit->kind == MANIFEST_SEGMENT)
            take_segment(reader, edit);
    }
}

/* ---- files that do not count ---- */

static void judge_checkpoint(struct admin *admin, struct catalog_file *file)
{
    bool is_named = file->counts && file->shard < admin->shard_count &&
                    file->number == admin->shards[file->shard].checkpoint;
    if (!is_named)
        report_note(&admin->report, file->name, 0,
                    "a checkpoint that does not count, removed at the next start");
    file->counts = is_named;
}

/* Of a segment: whether there is a manifest that could have named it. */
static bool has_manifest(const struct admin *admin, const struct catalog_file *file)
{
    uint32_t shard = file->partition % admin->shard_count;
    return catalog_find_state(&admin->catalog, CATALOG_MANIFEST, shard, 0) != NULL ||
           catalog_find_state(&admin->catalog, CATALOG_MANIFEST, shard, 1) != NULL;
}

void admin_note_leftovers(struct admin *admin)
{
    struct catalog *catalog = &admin->catalog;
    for (uint32_t i = 0; i < catalog->count; i++) {
        struct catalog_file *file = &catalog->files[i];
        if (file->kind == CATALOG_CHECKPOINT)
            judge_checkpoint(admin, file);
        else if (file->kind == CATALOG_MANIFEST && !file->counts)
            report_note(&admin->report, file->name, 0,
                        file->number == 0 && !file->is_leftover
                            ? "a manifest of before the conversion, removed by the next start"
                            : "a manifest that was never finished, removed at the next start");
        else if (file->kind == CATALOG_OTHER)
            report_note(&admin->report, file->name, 0, "not a file of ours, it is left alone");
        else if (file->kind == CATALOG_SEGMENT && !file->counts && has_manifest(admin, file))
            report_note(&admin->report, file->name, 0,
                        "a segment that does not count, removed at the next start");
    }
}

static void note_missing(struct admin *admin, const struct admin_shard *shard, const char *name)
{
    const struct catalog *catalog = &admin->catalog;
    bool has_segments = false;
    for (uint32_t i = catalog->first[CATALOG_SEGMENT]; i < catalog->first[CATALOG_SEGMENT + 1]; i++)
        has_segments |= catalog->files[i].partition % admin->shard_count == shard->number;
    if (has_segments)
        report_damage(&admin->report, name, 0,
                      "it is missing although there are segments, restore it from a backup: "
                      "without it nothing says which of them count");
    else
        report_note(&admin->report, name, 0, "there is none yet, the next start makes it");
}

static int read_manifest(struct manifest_reader *reader)
{
    struct admin *admin = reader->admin;
    int file = admin_open_file(admin->directory, reader->name);
    int64_t size = file < 0 ? file : admin_file_size(file);
    int result = 0;
    if (size < 0)
        report_damage(&admin->report, reader->name, 0, "it cannot be opened, %s",
                      strerror((int)-size));
    else
        result = look_all(reader, file, (uint64_t)size);
    admin_close(file);
    if (result < 0)
        return result;
    if (size >= 0)
        compare_superblock(reader);
    if (size >= 0 && !reader->is_damaged)
        reader->shard->manifest = (struct wal_note){reader->edition, reader->end / BLOCK};
    take_edits(reader);
    return 0;
}

static void report_missing_checkpoint(struct admin *admin, const struct admin_shard *shard,
                                      const char *name)
{
    if (shard->checkpoint != 0 && catalog_find_state(&admin->catalog, CATALOG_CHECKPOINT,
                                                     shard->number, shard->checkpoint) == NULL)
        report_damage(&admin->report, name, 0,
                      "the checkpoint %" PRIu64 " that it names is missing, the next start builds "
                      "the index from the segments and takes longer; nothing is lost",
                      shard->checkpoint);
}

int admin_take_manifest(struct admin *admin, struct admin_shard *shard)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%smanifest-%" PRIu32, shard->folder, shard->number);
    const struct catalog_file *file =
        catalog_find_state(&admin->catalog, CATALOG_MANIFEST, shard->number, 1);
    if (file == NULL || !file->counts)
        file = catalog_find_state(&admin->catalog, CATALOG_MANIFEST, shard->number, 0);
    struct manifest_reader reader = {
        .admin = admin, .shard = shard, .name = file != NULL ? file->name : name};
    int result = 0;
    if (file == NULL)
        note_missing(admin, shard, name);
    else
        result = read_manifest(&reader);
    free(reader.edits);
    if (result == -ENOMEM)
        report_failure(&admin->report, "not enough memory for the manifest");
    if (result == 0)
        report_missing_checkpoint(admin, shard, reader.name);
    return result;
}
