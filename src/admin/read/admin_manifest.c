/* Reading the manifest: which segments and which checkpoint count. */
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
    struct manifest_known known;
    struct manifest_groups groups;
    struct placed_edit *edits;
    uint64_t count;
    uint64_t complete; /* of them, in complete groups */
    uint64_t capacity;
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

static int take_block(struct manifest_reader *reader, uint32_t index, const uint8_t *data)
{
    struct admin_report *report = &reader->admin->report;
    struct admin_shard *shard = reader->shard;
    struct manifest_block block;
    int result = manifest_groups_take(&reader->groups, index, data, &block);
    if (result == -EPROTONOSUPPORT)
        report_say(report, REPORT_REFUSAL, reader->name, index * BLOCK,
                   "something that this program does not know, use the release that wrote it");
    else if (result == -EXDEV)
        report_say(report, REPORT_REFUSAL, reader->name, 0,
                   "it belongs to the data directory %016" PRIx64
                   ", put back the one that was here",
                   block.directory_id);
    if (result <= 0)
        return result;
    result = keep_edits(reader, &block);
    if (reader->groups.mark.blocks <= index)
        return result;
    reader->complete = reader->count;
    shard->log_position = max_u64(shard->log_position, block.position);
    return result;
}

static int take_blocks(struct manifest_reader *reader, int file, uint64_t size)
{
    uint8_t block[MANIFEST_BLOCK_SIZE];
    uint32_t count = (uint32_t)min_u64(size / BLOCK, UINT32_MAX);
    int result = 0;
    for (uint32_t index = 0; result == 0 && index < count; index++) {
        if (admin_read(file, block, BLOCK, index * BLOCK) == (int64_t)BLOCK)
            result = take_block(reader, index, block);
        else
            manifest_groups_miss(&reader->groups, index);
        report_progress(&reader->admin->report, BLOCK, reader->name);
    }
    if (result == 0)
        manifest_groups_end(&reader->groups);
    return result;
}

static void judge_blocks(const struct manifest_reader *reader)
{
    struct admin_report *report = &reader->admin->report;
    const struct manifest_groups *groups = &reader->groups;
    const char *remedy = manifest_judge(groups, &reader->known);
    if (groups->is_damaged)
        report_say(report, REPORT_STOP, reader->name, groups->damage * BLOCK, "%s: %s",
                   groups->what, remedy);
    else if (remedy != NULL)
        report_say(report, REPORT_STOP, reader->name, 0, "%s", remedy);
    if (!groups->is_damaged && groups->dirty_end > groups->mark.blocks)
        report_say(report, REPORT_NOTE, reader->name, groups->mark.blocks * BLOCK,
                   "a group that was cut short, which the next start drops");
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
    const char *remedy = manifest_judge_edit(edit, reader->shard->number, admin->shard_count);
    if (remedy != NULL) {
        report_say(&admin->report, REPORT_STOP, reader->name, 0,
                   "it names segment %" PRIu64 " of partition %02x, %s", edit->number,
                   edit->partition, remedy);
        return;
    }
    if (catalog_count_segment(&admin->catalog, edit->partition, edit->number, edit->end))
        return;
    char name[64];
    (void)snprintf(name, sizeof name, "%02x/seg-%016" PRIx64, edit->partition, edit->number);
    report_say(&admin->report, REPORT_DAMAGE, name, 0,
               "it is missing although the manifest names it, restore it from a backup or its keys "
               "from a replica");
}

static void take_loss(const struct manifest_reader *reader, const struct manifest_edit *edit)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%02x/seg-%016" PRIx64, edit->partition, edit->number);
    report_say(&reader->admin->report, REPORT_DAMAGE, name, 0,
               "an earlier start found that it has lost records, keys of its partition that were "
               "last written before log position %" PRIu64 " answer CORRUPT until they are written "
               "again, or start once with -accept-loss",
               edit->end);
}

/* Of a segment: the last edit that says where it ends or that it went, and the last one of what it
 * has lost. */
static void take_edits_of(struct manifest_reader *reader, const struct placed_edit *edits,
                          uint64_t count)
{
    const struct manifest_edit *segment = NULL, *loss = NULL;
    for (uint64_t i = 0; i < count; i++) {
        if (edits[i].edit.kind == MANIFEST_DAMAGE)
            loss = &edits[i].edit;
        else
            segment = &edits[i].edit;
    }
    if (segment == NULL || segment->kind != MANIFEST_SEGMENT)
        return;
    take_segment(reader, segment);
    if (loss != NULL && loss->end > 0)
        take_loss(reader, loss);
}

/* A checkpoint has numbers of its own. */
static void take_edits(struct manifest_reader *reader)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < reader->complete; i++) {
        const struct placed_edit *edit = &reader->edits[i];
        if (edit->edit.kind == MANIFEST_CHECKPOINT)
            reader->shard->checkpoint = edit->edit.number;
        else
            reader->edits[count++] = *edit;
    }
    if (count > 0)
        qsort(reader->edits, count, sizeof *reader->edits, compare_edits);
    for (uint64_t from = 0, i = 0; i < count; i++) {
        if (i + 1 < count && reader->edits[i + 1].edit.number == reader->edits[i].edit.number)
            continue;
        take_edits_of(reader, &reader->edits[from], i + 1 - from);
        from = i + 1;
    }
}

/* ---- the file ---- */

static int read_manifest(struct manifest_reader *reader)
{
    struct admin *admin = reader->admin;
    int file = admin_open_file(admin->directory, reader->name);
    int64_t size = file < 0 ? file : admin_file_size(admin->directory, reader->name);
    int result = size < 0 ? (int)size : take_blocks(reader, file, (uint64_t)size);
    admin_close(file);
    if (size < 0)
        return report_cannot(&admin->report, admin->directory, reader->name, "opened", result);
    if (result == 0 || reader->groups.is_damaged)
        judge_blocks(reader);
    if (result == 0)
        take_edits(reader);
    return result;
}

int admin_take_manifest(struct admin *admin, struct admin_shard *shard)
{
    char own_name[64];
    (void)snprintf(own_name, sizeof own_name, "%smanifest-%" PRIu32, shard->folder, shard->number);
    const char *name = catalog_choose(&admin->catalog, CATALOG_MANIFEST, shard->number);
    struct manifest_reader reader = {
        .admin = admin,
        .shard = shard,
        .name = name != NULL ? name : own_name,
        .groups = {.directory_id = admin->superblock.directory_id},
    };
    struct wal_note note;
    int result = admin_read_note(admin, shard, &note);
    if (result < 0)
        return result;
    reader.known = manifest_known_of(&shard->superblock, &note);
    const char *remedy =
        manifest_judge_missing(&reader.known, catalog_has_segments(admin, shard->number));
    if (name != NULL)
        result = read_manifest(&reader);
    else if (remedy != NULL)
        report_say(&admin->report, REPORT_STOP, own_name, 0, "%s", remedy);
    else
        report_say(&admin->report, REPORT_NOTE, own_name, 0,
                   "there is none yet, the next start makes it");
    free(reader.edits);
    if (result == 0 && shard->checkpoint != 0 &&
        catalog_find_checkpoint(&admin->catalog, shard) == NULL)
        report_say(&admin->report, REPORT_DAMAGE, reader.name, 0,
                   "the checkpoint %" PRIu64 " that it names is missing, the next start builds the "
                   "index from the segments and takes longer; nothing is lost",
                   shard->checkpoint);
    return result;
}
