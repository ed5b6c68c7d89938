/* Looks for older copies of one shard: superblock and log against what another shard noted.
 *
 * Usually the shard's own superblock tells of at least as much. When it does not, it may have lost
 * its newer copy to damage, which is no reason to refuse anything: only the log itself can tell, so it
 * is read, as a recovery reads it, for nothing but its end. */
#include "store/reshard/store_older.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/catalog/reached.h"
#include "store/wal/wal_recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_SIZE 4096

/* A damaged note is no damage to data: it only tells nothing. */
static uint64_t read_note(struct io *io, const struct log *log, const char *data_path,
                          const struct superblock *own, uint8_t *block)
{
    struct reached note = {.directory_id = own->directory_id, .shard = own->shard};
    int result = reached_read(io, data_path, &note, block);
    if (result < 0)
        log_warn(log,
                 "%s: what shard %" PRIu32 " noted of shard %" PRIu32
                 " at its last clean stop cannot be used: %s. Whether shard %" PRIu32
                 " is an older copy of this start is not known; the next clean stop notes it anew",
                 data_path, reached_keeper(own->shard), own->shard, strerror(-result), own->shard);
    return note.position;
}

static int ignore_record(void *context, const struct record *record, uint64_t location)
{
    (void)context;
    (void)record;
    (void)location;
    return 0;
}

static void say_nothing(void *context, const char *line, uint32_t size)
{
    (void)context;
    (void)line;
    (void)size;
}

/* The last position of the shard's log. One that cannot be read is for its store to report. */
static uint64_t end_of_log(struct io *io, const char *data_path, const struct superblock *own)
{
    char state[PATH_SIZE], directory[PATH_SIZE + sizeof "/log"];
    const struct log quiet = {.level_min = LOG_ERROR, .write = say_nothing};
    if (superblock_state_path(data_path, own->shard, state, sizeof state) < 0)
        return UINT64_MAX;
    (void)snprintf(directory, sizeof directory, "%s/log", state);
    struct wal_options options = {
        .directory = directory,
        .directory_id = own->directory_id,
        .log_id = own->shard,
        .last_known = own->log_last,
        .number_known = own->log_number,
        .base = own->log_base,
    };
    struct wal_recovered found;
    struct wal_files *files;
    int result = wal_recover(io, &quiet, &options, ignore_record, NULL, &found, &files);
    if (result < 0)
        return result == -ENOENT ? own->log_base : UINT64_MAX;
    wal_files_abandon(io, files);
    return found.last_position;
}

static int judge(struct io *io, const struct log *log, const struct store_options *options,
                 const struct superblock *own, uint64_t reached, bool *ret_older)
{
    char text[SUPERBLOCK_TEXT_SIZE];
    if (!reached_is_beyond(own, reached) ||
        !reached_is_older(own, reached, end_of_log(io, options->path, own), text))
        return 0;
    *ret_older = true;
    enum log_level level = options->accept_loss ? LOG_WARN : LOG_ERROR;
    log_event(log, level, "%s: %s. %s", options->path, text,
              options->accept_loss
                  ? "-accept-loss: its later writes are lost, it goes on with what is left"
                  : REACHED_REMEDY "; nothing was changed");
    return options->accept_loss ? 0 : -EXDEV;
}

int store_find_older(struct io *io, const struct log *log, const struct store_options *options,
                     struct superblock_handover *handover)
{
    const struct superblock *node = &handover->file.now;
    assert(node->shards_before == 0);
    if (node->shard_count == 1)
        return 0;
    uint8_t *block = aligned_alloc(REACHED_BLOCK_SIZE, REACHED_BLOCK_SIZE);
    int result = block == NULL ? -ENOMEM : 0;
    for (uint32_t shard = 0; result == 0 && shard < node->shard_count; shard++) {
        struct superblock own = *node;
        if (shard > 0) {
            struct superblock_file file;
            result = superblock_open_shard(io, log, options->path, node, shard,
                                           options->lock_wait_ns, &file);
            if (result < 0)
                break;
            own = file.now;
            superblock_close(&file);
        }
        handover->reached[shard] = read_note(io, log, options->path, &own, block);
        bool is_known = own.start_number + 1 < node->start_number; /* and told of there */
        if (!is_known)
            result =
                judge(io, log, options, &own, handover->reached[shard], &handover->is_older[shard]);
    }
    free(block);
    return result;
}
