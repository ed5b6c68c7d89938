/* Walking the log. wal_survey.h says which file is what and wal_scan.h what is the log, its torn tail
 * and damage, as for a start; here are the bytes, and what is reported. */
#include "admin/read/admin_checkpoint.h"
#include "admin/read/admin_walk.h"

#include "admin/read/admin_files.h"
#include "base/hash.h"
#include "store/disk/wait.h"
#include "store/wal/wal_survey.h"
#include "store/wal/wal_window.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct log_walk {
    const struct walk *walk;
    struct admin *admin;
    struct admin_shard *shard;
    struct wal_scan scan; /* its files: by index in the catalog */
    struct wal_survey survey;
    struct wal_window window;
    int handle; /* of the window's file */
    int result; /* of `each` */
};

/* ---- what survey and scan say ---- */

/* Of the log as a whole. */
static void note_loss(struct log_walk *walk, const struct wal_scan_note *note)
{
    struct admin_report *report = &walk->admin->report;
    char folder[32];
    (void)snprintf(folder, sizeof folder, "%slog", walk->shard->folder);
    if (note->kind == WAL_NOTE_MISSING)
        report_damage(report, folder, 0,
                      "the log file with the number %" PRIu64 " is gone, it held writes up to log "
                      "position %" PRIu64 " at most: put it (wal-...) back",
                      note->number, note->position_last);
    else if (note->kind == WAL_NOTE_MAY_MISS)
        report_note(report, folder, 0,
                    "the log file with the number %" PRIu64 " is gone, whether it was needed is "
                    "not known since the newest header is damaged",
                    note->number);
    else
        report_damage(report, folder, 0,
                      "the log ends at position %" PRIu64 " but had reached %" PRIu64
                      " at least, its newest file is gone or was cut or overwritten: put it back "
                      "or restore the directory from a backup",
                      note->position_first, note->position_last);
}

/* Where nothing can be said of the log. */
static void note_refusal(struct admin_report *report, const char *name,
                         const struct wal_scan_note *note)
{
    if (note->kind == WAL_NOTE_UNKNOWN)
        report_refuse(report, name, note->from,
                      "the record has format %u and flags %02x, which this program does not know: "
                      "use the release that wrote it, or a newer one",
                      note->format, note->flags);
    else if (note->kind == WAL_NOTE_FORMAT)
        report_refuse(report, name, 0,
                      "it has format %" PRIu16 ", this program knows format %d: use the release "
                      "that wrote it",
                      note->header->format, WAL_FORMAT);
    else
        report_refuse(report, name, 0,
                      "it belongs to log %" PRIu32 " of the data directory %016" PRIx64
                      ", move it back where it came from",
                      note->header->log_id, note->header->directory_id);
}

/* Of a file. */
static void note_file(struct admin_report *report, const char *name,
                      const struct wal_scan_note *note)
{
    switch (note->kind) {
    case WAL_NOTE_DAMAGE:
        report_damage(report, name, note->from,
                      "%s up to %" PRIu64 ", acknowledged writes are lost: restore their keys from "
                      "a replica or a backup",
                      note->what, note->upto);
        break;
    case WAL_NOTE_LOST:
        report_damage(report, name, note->from,
                      "the writes at the log positions %" PRIu64 " to %" PRIu64
                      " are missing before it, although they were acknowledged: restore their keys "
                      "from a replica or a backup",
                      note->position_first, note->position_last);
        break;
    case WAL_NOTE_UNREADABLE:
        report_damage(report, name, note->from, "it cannot be read, %s: the device has lost it",
                      strerror(-note->error));
        break;
    case WAL_NOTE_INFERRED:
        report_damage(report, name, 0,
                      "the header is corrupt, the batches say that it is log file %" PRIu64
                      " and can still be read",
                      note->header->number);
        break;
    case WAL_NOTE_NOTHING:
        report_damage(report, name, 0,
                      "nothing in it can be read as a log file, if it held writes they are lost");
        break;
    case WAL_NOTE_COPY:
        report_note(report, name, 0, "a copy of %s, it is left alone: move it away", note->what);
        break;
    case WAL_NOTE_BEFORE_BASE:
        report_note(report, name, 0,
                    "of a log that was here before and was emptied, removed at the next start");
        break;
    default:
        note_refusal(report, name, note);
    }
}

static void note(void *context, const struct wal_scan_note *note)
{
    struct log_walk *walk = context;
    if (note->kind >= WAL_NOTE_MISSING)
        note_loss(walk, note);
    else
        note_file(&walk->admin->report, walk->scan.files[note->file].path, note);
}

/* ---- bytes ---- */

static int rewind_file(void *context, uint32_t index, uint64_t offset)
{
    (void)offset;
    struct log_walk *walk = context;
    const char *name = walk->scan.files[index].path;
    admin_close(walk->handle);
    walk->handle = admin_open_file(walk->admin->directory, name);
    if (walk->handle >= 0)
        return 0;
    report_failure(&walk->admin->report, "%s cannot be opened: %s", name, strerror(-walk->handle));
    return walk->handle;
}

static int64_t read_part(void *context, uint8_t *target, uint64_t offset, uint32_t size,
                         bool is_block)
{
    struct log_walk *walk = context;
    int64_t count = admin_read(walk->handle, target, size, offset);
    if (!is_block)
        report_progress(&walk->admin->report, size, walk->scan.files[walk->window.file].path);
    return count >= 0 || disk_is_device_error((int)count) ? count : -EIO;
}

static int load(void *context, uint32_t index, uint64_t from, uint64_t upto,
                const uint8_t **ret_image)
{
    struct log_walk *walk = context;
    return wal_window_load(&walk->window, index, from, upto, ret_image);
}

static int show(void *context, uint32_t index, uint64_t offset, const struct record *record)
{
    struct log_walk *walk = context;
    const struct slice *key = &record->key;
    struct hash_place place = hash_place(walk->admin->superblock.secret, key->data, key->size);
    struct walk_found found = {
        .file = walk->scan.files[index].index,
        .offset = offset,
        .size = (uint32_t)record_size(record),
        .partition = (uint8_t)place.partition,
        .hash = place.hash,
        .version = record->version,
        .tombstone = record->flags & RECORD_TOMBSTONE,
        .in_value_file = record->flags & RECORD_IN_VALUE_FILE,
        .record = record,
    };
    walk->result = walk->walk->show(walk->walk, &found);
    return walk->result == 0 ? 0 : -ECANCELED;
}

/* ---- the files ---- */

static int survey_file(struct log_walk *walk, uint32_t index)
{
    uint8_t head[WAL_HEAD_SIZE] = {0};
    const char *name = walk->scan.files[index].path;
    int handle = admin_open_file(walk->admin->directory, name);
    int64_t size = handle < 0 ? handle : admin_read(handle, head, sizeof head, 0);
    admin_close(handle);
    if (size < 0) {
        report_damage(&walk->admin->report, name, 0, "it cannot be read, %s", strerror((int)-size));
        memset(head, 0xFF, sizeof head);
    }
    return wal_survey_file(&walk->survey, index, head);
}

/* The log notes how far the manifest had come. */
static void judge_manifest(const struct log_walk *walk)
{
    char name[64];
    const struct admin_shard *shard = walk->shard;
    const struct wal_note *note = &walk->survey.note;
    if (shard->manifest.major == 0 || !wal_note_is_older(&shard->manifest, note))
        return;
    (void)snprintf(name, sizeof name, "%smanifest-%" PRIu32, shard->folder, shard->number);
    report_damage(&walk->admin->report, name, 0,
                  "it is older than the log says (edition %" PRIu64 " with %" PRIu64
                  " blocks, which had come to edition %" PRIu64 " with %" PRIu64
                  "): put back the one that was there, restore the directory from a backup, or "
                  "start once with -accept-loss",
                  shard->manifest.major, shard->manifest.minor, note->major, note->minor);
}

static void judge_losses(struct log_walk *walk)
{
    char folder[32];
    struct admin_shard *shard = walk->shard;
    judge_manifest(walk);
    (void)snprintf(folder, sizeof folder, "%slog", shard->folder);
    if (walk->survey.lost > shard->superblock.damage_accepted)
        report_damage(&walk->admin->report, folder, 0,
                      "an earlier start found writes up to log position %" PRIu64
                      " lost with files "
                      "that are gone, keys last written before it answer CORRUPT until they are "
                      "written again, or start once with -accept-loss",
                      walk->survey.lost);
    wal_survey_judge_losses(&walk->survey, shard->log.scan.last_position, walk->scan.proof);
}

/* ---- the walk ---- */

static int scan(struct log_walk *walk)
{
    struct admin_log *log = &walk->shard->log;
    int result = wal_scan_run(&walk->scan);
    if (result < 0)
        return walk->result != 0 ? walk->result : result;
    log->scan = walk->scan.found;
    log->scan.last_position = max_u64(log->scan.last_position, walk->shard->superblock.log_base);
    if (log->scan.dropped_bytes > 0) {
        const struct wal_scan_file *last = &walk->scan.files[walk->scan.file_count - 1];
        report_note(&walk->admin->report, last->path, last->end,
                    "a torn tail of %" PRIu64 " bytes, writes that were under way when the server "
                    "stopped and that nobody was told of: the next start drops them",
                    log->scan.dropped_bytes);
    }
    judge_losses(walk);
    return 0;
}

/* The manifest, the index checkpoint and a clean shutdown tell how far the log had come. */
static void take_known(struct log_walk *walk)
{
    struct admin *admin = walk->admin;
    const struct admin_shard *shard = walk->shard;
    struct wal_survey *survey = &walk->survey;
    wal_survey_take_known(survey, shard->superblock.log_last, shard->superblock.log_number);
    wal_survey_take_known(survey, shard->log_position, 0);
    const struct catalog_file *file =
        catalog_find_state(&admin->catalog, CATALOG_CHECKPOINT, shard->number, shard->checkpoint);
    struct checkpoint_info info;
    int64_t age_s;
    if (file != NULL && file->counts && checkpoint_look(admin, file, &info, &age_s) == 0)
        wal_survey_take_known(survey, info.position, 0);
}

/* Those of the catalog's files from `first` to before `end` that count. */
static int lay_out(struct log_walk *walk, uint32_t first, uint32_t end)
{
    uint64_t largest = 0;
    walk->scan.files = calloc(end - first + 1, sizeof *walk->scan.files);
    if (walk->scan.files == NULL)
        return -ENOMEM;
    for (uint32_t i = first; i < end; i++) {
        const struct catalog_file *file = &walk->admin->catalog.files[i];
        if (!file->counts)
            continue;
        walk->scan.files[walk->survey.file_count++] =
            (struct wal_scan_file){.index = i,
                                   .size = round_down(file->size, WAL_BLOCK_SIZE),
                                   .path = file->name,
                                   .unreadable_last = WAL_READABLE};
        largest = max_u64(largest, file->size);
    }
    return wal_window_init(&walk->window, largest);
}

static int walk_files(struct log_walk *walk)
{
    uint32_t first, end;
    catalog_range(&walk->admin->catalog, CATALOG_LOG, walk->shard->number, &first, &end);
    int result = lay_out(walk, first, end);
    take_known(walk);
    for (uint32_t i = 0; result == 0 && i < walk->survey.file_count; i++)
        result = survey_file(walk, i);
    if (result < 0)
        return result;
    wal_survey_order(&walk->survey);
    wal_window_forget(&walk->window);
    uint32_t count = walk->scan.file_count;
    walk->shard->log = (struct admin_log){.segments = count, .spares = end - first - count};
    return scan(walk);
}

static int walk_shard(const struct walk *walk, struct admin_shard *shard)
{
    struct log_walk log = {
        .walk = walk,
        .admin = walk->admin,
        .shard = shard,
        .scan = {.context = &log, .load = load, .record = show, .note = note},
        .survey = {.scan = &log.scan,
                   .directory_id = walk->admin->superblock.directory_id,
                   .log_id = shard->number,
                   .base = shard->superblock.log_base},
        .window = {.scan = &log.scan, .context = &log, .rewind = rewind_file, .read = read_part},
        .handle = -1,
    };
    int result = walk_files(&log);
    admin_close(log.handle);
    wal_window_deinit(&log.window);
    free(log.scan.files);
    return result;
}

int admin_walk_log(const struct walk *walk)
{
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < walk->admin->shard_count; i++)
        result = walk_shard(walk, &walk->admin->shards[i]);
    return result;
}
