/* Walking the log. wal_survey.h says which file is what and wal_scan.h what is the log, its torn tail
 * and damage, as for a start; here are the bytes, and what is reported. */
#include "admin/read/admin_walk.h"

#include "admin/read/admin_files.h"
#include "store/catalog/reached.h"
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
    char folder[32];      /* the log's */
    struct wal_scan scan; /* its files: by index in the catalog */
    struct wal_survey survey;
    struct wal_window window;
    int handle; /* of the window's file */
    int result; /* of `each` */
};

/* What survey and scan say. */
static void note(void *context, const struct wal_scan_note *note)
{
    static const enum report_kind kinds[] = {
        [WAL_NOTE_DAMAGES] = REPORT_DAMAGE,
        [WAL_NOTE_WARNS] = REPORT_NOTE,
        [WAL_NOTE_REFUSES] = REPORT_REFUSAL,
    };
    struct log_walk *walk = context;
    char text[WAL_NOTE_SIZE];
    bool is_whole = note->kind >= WAL_NOTE_MISSING; /* of the log as a whole */
    wal_note_describe(note, text);
    report_say(&walk->admin->report, kinds[wal_note_weight(note)],
               is_whole ? walk->folder : walk->scan.files[note->file].path, note->from, "%s", text);
}

/* ---- bytes ---- */

static int rewind_file(void *context, uint32_t index, uint64_t offset)
{
    (void)offset;
    struct log_walk *walk = context;
    const char *name = walk->scan.files[index].path;
    admin_close(walk->handle);
    walk->handle = admin_open_file(walk->admin->directory, name);
    return walk->handle >= 0 ? 0
                             : report_cannot(&walk->admin->report, walk->admin->directory, name,
                                             "opened", walk->handle);
}

static int64_t read_part(void *context, uint8_t *target, uint64_t offset, uint32_t size,
                         bool is_block)
{
    struct log_walk *walk = context;
    int64_t count = admin_read(walk->handle, target, size, offset);
    if (!is_block)
        report_progress(&walk->admin->report, size, walk->scan.files[walk->window.file].path);
    if (count >= 0 || disk_is_device_error((int)count))
        return count;
    return report_cannot(&walk->admin->report, walk->admin->directory,
                         walk->scan.files[walk->window.file].path, "read", (int)count);
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
    const char *remedy = wal_judge_record(record, walk_partition(walk->walk, record),
                                          walk->shard->number, walk->admin->shard_count);
    if (remedy != NULL)
        report_say(&walk->admin->report, REPORT_STOP, walk->scan.files[index].path, offset,
                   "a record %s", remedy);
    walk->result = walk_show(walk->walk, walk->scan.files[index].index, offset, record);
    return walk->result == 0 ? 0 : -ECANCELED;
}

/* ---- the files ---- */

static int survey_file(struct log_walk *walk, uint32_t index)
{
    uint8_t head[WAL_HEAD_SIZE] = {0};
    const char *name = walk->scan.files[index].path;
    int handle = admin_open_file(walk->admin->directory, name);
    if (handle < 0)
        return report_cannot(&walk->admin->report, walk->admin->directory, name, "opened", handle);
    int64_t size = admin_read(handle, head, min_u64(sizeof head, walk->scan.files[index].size), 0);
    admin_close(handle);
    if (size < 0 && !disk_is_device_error((int)size))
        return report_cannot(&walk->admin->report, walk->admin->directory, name, "read", (int)size);
    if (size < 0) {
        report_say(&walk->admin->report, REPORT_DAMAGE, name, 0, "it cannot be read, %s",
                   strerror((int)-size));
        memset(head, 0xFF, sizeof head);
    }
    return wal_survey_file(&walk->survey, index, head);
}

static void judge_losses(struct log_walk *walk)
{
    const struct admin_shard *shard = walk->shard;
    if (walk->survey.lost > shard->superblock.damage_accepted)
        report_say(&walk->admin->report, REPORT_DAMAGE, walk->folder, 0,
                   "an earlier start found writes up to log position %" PRIu64 " lost with files "
                   "that are gone, keys last written before it answer CORRUPT until they are "
                   "written again, or start once with -accept-loss",
                   walk->survey.lost);
    wal_survey_judge_losses(&walk->survey, shard->log.last_position, walk->scan.proof);
}

/* What another shard noted of this one at its last clean stop (reached.h). */
static uint64_t read_note(const struct log_walk *walk)
{
    char name[64] = REACHED_FILE;
    uint8_t block[REACHED_BLOCK_SIZE] = {0};
    struct admin *admin = walk->admin;
    struct reached note = {.directory_id = admin->superblock.directory_id,
                           .shard = walk->shard->number};
    if (admin->shard_count == 1 || admin->is_decided)
        return 0;
    if (reached_keeper(note.shard) > 0)
        (void)snprintf(name, sizeof name, "shard-%" PRIu32 "/" REACHED_FILE,
                       reached_keeper(note.shard));
    int handle = admin_open_file(admin->directory, name);
    if (handle == -ENOENT)
        return 0;
    uint64_t offset = (uint64_t)note.shard * REACHED_BLOCK_SIZE;
    int64_t size = handle < 0 ? handle : admin_read(handle, block, sizeof block, offset);
    int error = size < 0 ? (int)size : reached_decode(block, &note);
    admin_close(handle);
    if (error < 0)
        report_say(&admin->report, REPORT_NOTE, name, offset,
                   "it does not tell how far the log of shard %" PRIu32
                   " had come at its last clean stop, %s: whether that is an older copy is not "
                   "known",
                   note.shard, strerror(-error));
    return note.position;
}

/* The log ends where a start would go on: positions that are known to be lost count. */
static void judge_age(const struct log_walk *walk)
{
    const struct admin_shard *shard = walk->shard;
    char text[SUPERBLOCK_TEXT_SIZE];
    uint64_t end =
        max_u64(shard->log.last_position, max_u64(shard->log.damaged_last, walk->survey.lost));
    if (reached_is_older(&shard->superblock, read_note(walk), end, text))
        report_say(&walk->admin->report, REPORT_STOP, walk->folder, 0, "%s. " REACHED_REMEDY, text);
}

/* ---- the walk ---- */

static int scan(struct log_walk *walk)
{
    struct wal_recovered *found = &walk->shard->log;
    int result = wal_scan_run(&walk->scan);
    if (result < 0)
        return walk->result != 0 ? walk->result : result;
    *found = walk->scan.found;
    found->last_position = max_u64(found->last_position, walk->shard->superblock.log_base);
    if (found->dropped_bytes > 0) {
        const struct wal_scan_file *last = &walk->scan.files[walk->scan.file_count - 1];
        report_say(&walk->admin->report, REPORT_NOTE, last->path, last->end,
                   "a torn tail of %" PRIu64 " bytes, writes that were under way when the server "
                   "stopped and that nobody was told of: the next start drops them",
                   found->dropped_bytes);
    }
    judge_losses(walk);
    judge_age(walk);
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
    struct checkpoint_info info;
    int64_t age_s;
    if (checkpoint_look(admin, catalog_find_checkpoint(&admin->catalog, shard), &info, &age_s) == 0)
        wal_survey_take_known(survey, info.position, 0);
}

static int walk_files(struct log_walk *walk)
{
    struct wal_survey *survey = &walk->survey;
    uint64_t largest;
    int result = catalog_list_log(&walk->admin->catalog, walk->shard->number, &walk->scan.files,
                                  &survey->file_count, &largest);
    if (result == 0)
        result = wal_window_init(&walk->window, largest);
    take_known(walk);
    for (uint32_t i = 0; result == 0 && i < survey->file_count; i++)
        result = survey_file(walk, i);
    if (result < 0)
        return result;
    wal_survey_order(survey);
    wal_window_forget(&walk->window);
    walk->shard->log_files = walk->scan.file_count;
    return scan(walk);
}

int admin_read_note(struct admin *admin, const struct admin_shard *shard, struct wal_note *ret_note)
{
    struct wal_scan_file *files;
    uint32_t count;
    uint64_t largest;
    int result = catalog_list_log(&admin->catalog, shard->number, &files, &count, &largest);
    if (result < 0)
        return result;
    *ret_note = (struct wal_note){0};
    for (uint32_t i = 0; i < count; i++) {
        uint8_t blocks[2 * WAL_BLOCK_SIZE] = {0}; /* header and mark */
        int handle = admin_open_file(admin->directory, files[i].path);
        if (handle >= 0)
            (void)admin_read(handle, blocks, min_u64(sizeof blocks, files[i].size), 0);
        admin_close(handle);
        for (uint64_t at = 0; at < sizeof blocks; at += WAL_BLOCK_SIZE)
            wal_note_take(blocks + at, admin->superblock.directory_id, shard->number, ret_note);
    }
    free(files);
    return 0;
}

int admin_walk_log(const struct walk *walk, struct admin *admin, struct admin_shard *shard)
{
    struct log_walk log = {
        .walk = walk,
        .admin = admin,
        .shard = shard,
        .scan = {.context = &log, .load = load, .record = show, .note = note},
        .survey = {.scan = &log.scan,
                   .directory_id = admin->superblock.directory_id,
                   .log_id = shard->number,
                   .base = shard->superblock.log_base},
        .window = {.scan = &log.scan, .context = &log, .rewind = rewind_file, .read = read_part},
        .handle = -1,
    };
    (void)snprintf(log.folder, sizeof log.folder, "%slog", shard->folder);
    int result = walk_files(&log);
    admin_close(log.handle);
    wal_window_deinit(&log.window);
    free(log.scan.files);
    return result;
}
