/* The first step of a conversion: each shard's log is emptied into its segments. */
#include "store/reshard/store_convert.h"

#include "base/assert.h"
#include "store/scrub/scrub.h"
#include "store/start/emptying.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a store that nobody asks for anything ---- */

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

static void tell_progress(void *context, uint64_t records_left)
{
    const struct conversion *conversion = context;
    log_info(conversion->log,
             "%s: shard %" PRIu32 " of %" PRIu32 " has %" PRIu64 " records in its log that move to "
             "segments",
             conversion->options->path, conversion->shard, conversion->count_before, records_left);
}

/* ---- what must not be hidden ---- */

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
        log_error(conversion->log, "%s: the log of shard %" PRIu32 " cannot be emptied: %s", path,
                  shard, strerror(-error));
    return error;
}

/* ---- what is left of a shard ---- */

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
    int result = store_shut_keeping(store, &superblock);
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
        result = store_drain(store, tell_progress, conversion);
        if (result < 0)
            (void)say_not_empty(conversion, result);
    }
    return shut(conversion, store, result);
}

int convert_empty_logs(struct conversion *conversion)
{
    int result = 0;
    for (uint32_t shard = 0; result == 0 && shard < conversion->count_before; shard++) {
        conversion->shard = shard;
        result = empty_log(conversion);
    }
    return result;
}
