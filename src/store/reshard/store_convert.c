/* The first three steps of a conversion: each shard's log is emptied into its segments; the manifests
 * and superblocks of the new shards, with all that is left of the old ones, are written under
 * DATA/resharding; the commit. store_convert_apply.c does the fourth. */
#include "store/reshard/store_convert.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/catalog/manifest.h"
#include "store/disk/filesystem.h"
#include "store/disk/wait.h"
#include "store/mover/reserve.h"
#include "store/scrub/scrub.h"
#include "store/start/emptying.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct conversion {
    struct io *io;
    const struct log *log;
    const struct store_options *options; /* of shard 0's store to be */
    struct store_directory *directory;   /* its superblock is open between two steps */
    uint32_t count_before;
    uint32_t count;
    uint32_t shard; /* the one whose turn it is */
    uint64_t told_ns;
    /* What the old shards have come to: the greatest of each. */
    uint64_t position_last;
    uint64_t log_number;
    uint64_t segment_number;
    uint64_t clock_ceiling;
    uint64_t damage_accepted;
    uint64_t manifest_edition;
    struct manifest_edit *edits; /* of all their manifests: segments, and what they lost */
    uint64_t edit_count;
    uint64_t edit_capacity;
    struct manifest_edit *group; /* MANIFEST_GROUP_MAX edits on their way into a new manifest */
    uint64_t told_end;           /* of the new shard, what lies before in `edits` is in it */
    uint64_t shown;              /* where a snapshot of it is */
};

/* ---- step 1: the logs are emptied, one shard after the other ---- */

static void ignore_position(void *context, uint64_t position)
{
    (void)context;
    (void)position;
}

static void ignore_room(void *context)
{
    (void)context;
}

/* The drain tells. */
static void ignore_error(void *context, int error)
{
    (void)context;
    (void)error;
}

static struct store_options options_for(const struct conversion *conversion)
{
    struct store_options options = *conversion->options;
    options.shard = conversion->shard;
    options.shard_count = conversion->count_before;
    options.handover = &conversion->directory->handover;
    options.scrub_rate = SCRUB_OFF;
    options.checkpoint_min = UINT64_MAX;
    options.is_brief = true;
    options.events = (struct store_events){NULL, ignore_position, ignore_room, ignore_error};
    return options;
}

static void tell_drain(void *context, uint64_t records_left)
{
    const struct conversion *conversion = context;
    log_info(conversion->log,
             "%s: shard %" PRIu32 " of %" PRIu32 " has %" PRIu64 " records in its log that move to "
             "segments",
             conversion->options->path, conversion->shard, conversion->count_before, records_left);
}

/* What the manifest knows of damage goes on into the new one; a log and a checkpoint do not. */
static int check_damage(const struct conversion *conversion, const struct store *store)
{
    enum store_loss loss = store_untold_loss(store);
    if (loss == STORE_LOSS_NONE)
        return 0;
    log_error(conversion->log,
              "%s: %s of shard %" PRIu32
              " is damaged, which a change of the number of shards would "
              "hide. Restore the directory from a backup, start with -shards %" PRIu32
              " to serve what is left, or start once with -accept-loss to give up what is lost",
              conversion->options->path, loss == STORE_LOSS_LOG ? "the log" : "a segment",
              conversion->shard, conversion->count_before);
    return -EBADMSG;
}

static int say_not_empty(const struct conversion *conversion, int error)
{
    const char *path = conversion->options->path;
    uint32_t shard = conversion->shard;
    uint32_t before = conversion->count_before;
    if (error == -ENOSPC)
        log_error(conversion->log,
                  "%s: there is no room to move what is in the log of shard %" PRIu32
                  " to its segments. Free some space on that disk, or start with -shards %" PRIu32
                  " as before",
                  path, shard, before);
    else if (error == -EBADMSG)
        log_error(conversion->log,
                  "%s: some of what is in the log of shard %" PRIu32
                  " cannot be read: start with -shards %" PRIu32
                  " as before, and write those keys again that answer CORRUPT",
                  path, shard, before);
    else
        log_error(conversion->log,
                  "%s: the log of shard %" PRIu32 " cannot be emptied: %s; %s. Until then start "
                  "with -shards %" PRIu32 " as before",
                  path, shard, strerror(-error), filesystem_advice(error), before);
    return error;
}

static int save_edit(struct conversion *conversion, const struct manifest_edit *edit)
{
    if (conversion->edit_count == conversion->edit_capacity) {
        uint64_t capacity = 2 * conversion->edit_capacity + 1024;
        struct manifest_edit *edits = realloc(conversion->edits, capacity * sizeof *edits);
        if (edits == NULL)
            return -ENOMEM;
        conversion->edits = edits;
        conversion->edit_capacity = capacity;
    }
    conversion->edits[conversion->edit_count++] = *edit;
    return 0;
}

static int save_edits(struct conversion *conversion, struct store *store)
{
    struct manifest_edit edit;
    int result = 0;
    for (uint64_t i = 0; result == 0 && store_show_state(store, i, &edit); i++)
        if (edit.kind != MANIFEST_CHECKPOINT)
            result = save_edit(conversion, &edit);
    return result;
}

static void save_bounds(struct conversion *conversion, const struct store *store,
                        const struct superblock *superblock)
{
    conversion->position_last = max_u64(conversion->position_last, superblock->log_last);
    conversion->log_number = max_u64(conversion->log_number, superblock->log_number);
    conversion->segment_number = max_u64(conversion->segment_number, store_segment_last(store));
    conversion->clock_ceiling = max_u64(conversion->clock_ceiling, superblock->clock_ceiling);
    conversion->damage_accepted = max_u64(conversion->damage_accepted, superblock->damage_accepted);
    conversion->manifest_edition =
        max_u64(conversion->manifest_edition, store_manifest_edition(store));
}

/* In any case; of shard 0 the superblock stays open. Of one that could not be shut something may be
 * under way as long as the world is open. */
static int shut(struct conversion *conversion, struct store *store, int error)
{
    struct superblock_file superblock;
    int result = store_shut_locked(store, &superblock);
    bool is_shut = result == 0;
    if (error == 0 && result == 0) {
        save_bounds(conversion, store, &superblock.now);
        result = save_edits(conversion, store);
    }
    if (conversion->shard == 0)
        conversion->directory->handover.file = superblock;
    else
        superblock_close(&superblock);
    if (is_shut)
        store_free(store);
    else
        conversion->directory->stranded = store;
    return error < 0 ? error : result;
}

static int empty_log(struct conversion *conversion)
{
    struct store_options options = options_for(conversion);
    struct store *store;
    struct log *log = &conversion->directory->shard_log;
    char name[LOG_PART_SIZE];
    (void)snprintf(name, sizeof name, "shard %" PRIu32 ": ", conversion->shard);
    log_init_part(log, conversion->log, name);
    int result = store_open(conversion->io, log, &options, &store);
    if (result < 0)
        return result;
    result = check_damage(conversion, store);
    if (result == 0) {
        result = store_drain(store, tell_drain, conversion);
        if (result < 0)
            (void)say_not_empty(conversion, result);
    }
    return shut(conversion, store, result);
}

static int empty_logs(struct conversion *conversion)
{
    int result = 0;
    for (uint32_t shard = 0; result == 0 && shard < conversion->count_before; shard++) {
        conversion->shard = shard;
        result = empty_log(conversion);
    }
    return result;
}

/* ---- step 2: the new state ---- */

static bool is_of(const struct conversion *conversion, uint64_t index)
{
    assert(index < conversion->edit_count);
    return conversion->edits[index].partition % conversion->count == conversion->shard;
}

static struct manifest_edit edit_of(const struct conversion *conversion, uint64_t index)
{
    struct manifest_edit edit = conversion->edits[index];
    edit.log_id = conversion->shard;
    return edit;
}

/* For a manifest that outgrows its file: what was told so far. The indexes come in order. */
static bool show_told(void *context, uint64_t index, struct manifest_edit *ret_edit)
{
    struct conversion *conversion = context;
    assert(conversion->told_end <= conversion->edit_count);
    if (index == 0)
        conversion->shown = 0;
    while (conversion->shown < conversion->told_end && !is_of(conversion, conversion->shown))
        conversion->shown++;
    if (conversion->shown == conversion->told_end)
        return false;
    *ret_edit = edit_of(conversion, conversion->shown++);
    return true;
}

static uint64_t tell_position(void *context)
{
    const struct conversion *conversion = context;
    return conversion->position_last;
}

/* The folder was cleared before. */
static int refuse_edit(void *context, const struct manifest_edit *edit)
{
    (void)context;
    (void)edit;
    return -EEXIST;
}

static int append_all(struct conversion *conversion, struct manifest *manifest)
{
    uint64_t next = 0;
    uint32_t count;
    do {
        for (count = 0; next < conversion->edit_count && count < MANIFEST_GROUP_MAX; next++)
            if (is_of(conversion, next))
                conversion->group[count++] = edit_of(conversion, next);
        int result =
            count > 0 ? store_tell_manifest(conversion->io, manifest, conversion->group, count) : 0;
        if (result < 0)
            return result;
        conversion->told_end = next;
    } while (count > 0);
    return 0;
}

static int write_manifest(struct conversion *conversion, struct manifest_mark *ret_mark)
{
    char folder[CONVERT_PATH_SIZE];
    conversion->told_end = 0;
    int result = convert_join(conversion->options->path, CONVERT_FOLDER, folder);
    if (result < 0)
        return result;
    struct manifest_options options = {
        .path = folder,
        .directory_id = conversion->directory->handover.file.now.directory_id,
        .shard = conversion->shard,
        .snapshot = show_told,
        .position = tell_position,
        .context = conversion,
        .memory = io_region(conversion->io),
        .known.closed = {.edition =
                             conversion->manifest_edition}, /* newer than all that there were */
    };
    struct manifest *manifest;
    result = manifest_open(conversion->io, conversion->log, &options, refuse_edit, NULL, &manifest);
    if (result < 0)
        return result;
    result = append_all(conversion, manifest);
    int shut = manifest_shut(manifest);
    *ret_mark = manifest_tell(manifest);
    manifest_free(manifest);
    return result < 0 ? result : shut;
}

/* What the new shard is when it was never opened: closed, its log empty. Shard 0's says where it came
 * from. */
static void fill_superblock(const struct conversion *conversion, const struct manifest_mark *mark,
                            struct superblock *superblock)
{
    assert(conversion->shard < conversion->count);
    assert(conversion->position_last >= conversion->directory->handover.file.now.log_base);
    *superblock = conversion->directory->handover.file.now;
    superblock->clean = true;
    superblock->clock_ceiling = conversion->clock_ceiling;
    superblock->damage_accepted = conversion->damage_accepted;
    superblock->log_last = superblock->log_base = conversion->position_last;
    superblock->log_number = conversion->log_number;
    superblock->segment_base = conversion->segment_number;
    superblock->manifest_salt = mark->salt;
    superblock->manifest_edition = mark->edition;
    superblock->manifest_blocks = mark->blocks;
    superblock->shard_count = conversion->count;
    superblock->shard = conversion->shard;
    superblock->shards_before = conversion->shard == 0 ? conversion->count_before : 0;
}

static void tell_progress(struct conversion *conversion)
{
    uint64_t now_ns = io_now_ns(conversion->io);
    if (now_ns - conversion->told_ns < NS_PER_S)
        return;
    conversion->told_ns = now_ns;
    log_info(conversion->log, "%s: the state of %" PRIu32 " of %" PRIu32 " shards is written",
             conversion->options->path, conversion->shard + 1, conversion->count);
}

static int write_shard(struct conversion *conversion, struct superblock *ret_superblock)
{
    char name[64];
    char path[CONVERT_PATH_SIZE];
    struct manifest_mark mark;
    struct superblock superblock;
    (void)snprintf(name, sizeof name, CONVERT_FOLDER "/superblock-%" PRIu32, conversion->shard);
    int result = convert_join(conversion->options->path, name, path);
    if (result == 0)
        result = write_manifest(conversion, &mark);
    if (result < 0)
        return result;
    fill_superblock(conversion, &mark, &superblock);
    if (conversion->shard > 0)
        return superblock_make(conversion->io, path, &superblock);
    *ret_superblock = superblock;
    return 0;
}

static int write_shards(struct conversion *conversion, struct superblock *ret_superblock)
{
    conversion->group = malloc(MANIFEST_GROUP_MAX * sizeof *conversion->group);
    int result = conversion->group == NULL ? -ENOMEM : 0;
    conversion->told_ns = io_now_ns(conversion->io);
    for (uint32_t shard = 0; result == 0 && shard < conversion->count; shard++) {
        conversion->shard = shard;
        result = write_shard(conversion, ret_superblock);
        tell_progress(conversion);
    }
    free(conversion->group);
    return result;
}

static int say_not_written(const struct conversion *conversion, int result)
{
    bool is_full = result == -ENOSPC || result == -EDQUOT;
    log_error(conversion->log,
              "%s: the state of %" PRIu32
              " shards cannot be written: %s. %s, or start with -shards "
              "%" PRIu32 " as before",
              conversion->options->path, conversion->count, strerror(-result),
              is_full ? "Free some space on that disk" : "Look at the kernel's messages",
              conversion->count_before);
    (void)convert_forget_plan(conversion->io, conversion->options); /* or the next start does */
    return result;
}

static int write_plan(struct conversion *conversion, struct superblock *ret_superblock)
{
    char folder[CONVERT_PATH_SIZE];
    int result = convert_join(conversion->options->path, CONVERT_FOLDER, folder);
    if (result == 0)
        result = io_make_directory(conversion->io, folder);
    if (result == 0)
        result = write_shards(conversion, ret_superblock);
    if (result == 0)
        result = disk_wait_sync_folder(conversion->io, folder);
    if (result == 0)
        result = disk_wait_sync_folder(conversion->io, conversion->options->path);
    return result < 0 ? say_not_written(conversion, result) : 0;
}

/* ---- steps 1 and 2 ---- */

/* What each shard has on the disk when there is nothing in it: the open log file and two spare
 * ones, the manifest, the reserve. A shard that finds no room for that could not be opened. */
static int check_room(const struct conversion *conversion)
{
    uint64_t each = 3 * conversion->directory->handover.node.log_file_size + MANIFEST_SIZE_MAX +
                    MANIFEST_RESERVE + RESERVE_SIZE_MIN;
    uint64_t free_size, total_size;
    if (conversion->count <= conversion->count_before ||
        io_disk_space(conversion->io, conversion->options->path, &free_size, &total_size) < 0)
        return 0;
    uint64_t needed = (conversion->count - conversion->count_before) * each;
    if (needed <= free_size)
        return 0;
    log_error(conversion->log,
              "%s: %" PRIu32 " shards instead of %" PRIu32 " take %" PRIu64
              " MiB more of the disk, which has %" PRIu64
              " MiB free: free some space on it, or give a lower -shards",
              conversion->options->path, conversion->count, conversion->count_before, needed / MIB,
              free_size / MIB);
    return -ENOSPC;
}

int convert_plan(struct io *io, const struct log *log, const struct store_options *options,
                 uint32_t count, bool is_new, struct store_directory *directory,
                 struct superblock *ret_superblock)
{
    const struct superblock *now = &directory->handover.file.now;
    assert(now->shards_before == 0); /* one conversion at a time */
    struct conversion conversion = {
        .io = io,
        .log = log,
        .options = options,
        .directory = directory,
        .count_before = now->shard_count,
        .count = count,
        .log_number = now->log_number,
        .clock_ceiling = now->clock_ceiling,
    };
    int result = check_room(&conversion);
    if (result == 0 && !is_new)
        result = empty_logs(&conversion);
    if (result == 0)
        result = write_plan(&conversion, ret_superblock);
    free(conversion.edits);
    return result;
}

/* ---- step 3: the commit, and what follows it ---- */

int convert_finish(struct io *io, const struct log *log, const struct store_options *options,
                   struct superblock_file *superblock)
{
    struct superblock *now = &superblock->now;
    assert(now->shard == 0);
    assert(now->shards_before != 0); /* it is decided */
    int result = convert_apply(io, log, options, now->shards_before, now->shard_count);
    if (result < 0) {
        log_error(log,
                  "%s: the change of its number of shards from %" PRIu32 " to %" PRIu32
                  " is decided but not done: %s; %s. The next start goes on with it",
                  options->path, now->shards_before, now->shard_count, strerror(-result),
                  filesystem_advice(result));
        return result;
    }
    now->shards_before = 0;
    /* Both: an older copy must not have it all done again when the shards are in use. */
    return superblock_update_both(superblock);
}

static int commit(const struct superblock *superblock, struct superblock_file *file)
{
    assert(superblock->shard == 0);
    assert(superblock->shards_before == file->now.shard_count);
    assert(superblock->directory_id == file->now.directory_id);
    assert(superblock->log_base >= file->now.log_base); /* positions only grow */
    assert(superblock->segment_base >= file->now.segment_base);
    assert(superblock->start_number == file->now.start_number);
    file->now = *superblock;
    /* Both: before anything is removed, neither says that the old shards count. */
    return superblock_update_both(file);
}

int convert_directory(struct io *io, const struct log *log, const struct store_options *options,
                      uint32_t count, bool is_new, struct store_directory *directory)
{
    struct superblock_file *file = &directory->handover.file;
    struct superblock superblock;
    uint64_t begin_ns = io_now_ns(io);
    if (!is_new)
        log_info(log,
                 "%s: the number of shards changes from %" PRIu32 " to %" PRIu32
                 ": what is in the logs moves to segments, then these go to their new shards",
                 options->path, file->now.shard_count, count);
    int result = convert_plan(io, log, options, count, is_new, directory, &superblock);
    if (result == 0)
        result = commit(&superblock, file);
    if (result == 0)
        result = convert_finish(io, log, options, file);
    if (result < 0)
        return result;
    log_info(log, "%s is for -shards %" PRIu32 " now, after %" PRIu64 " ms", options->path, count,
             (io_now_ns(io) - begin_ns) / NS_PER_MS);
    return 0;
}
