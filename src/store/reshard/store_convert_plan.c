/* The second step of a conversion: the manifests and superblocks of the new shards, under
 * DATA/resharding, with all that is left of the old ones. */
#include "store/reshard/store_convert.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/disk/filesystem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One new shard's edits on their way into its manifest. */
struct plan_writer {
    struct conversion *conversion;
    struct manifest_edit *edits; /* MANIFEST_GROUP_MAX */
    uint64_t next;               /* in conversion->edits */
    uint64_t told_end;           /* what lies before is in the manifest */
    uint64_t shown;              /* where a snapshot is */
    struct manifest_op op;
    int result;
    bool is_done;
};

static bool is_of(const struct conversion *conversion, uint64_t index)
{
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
    struct plan_writer *writer = context;
    if (index == 0)
        writer->shown = 0;
    while (writer->shown < writer->told_end && !is_of(writer->conversion, writer->shown))
        writer->shown++;
    if (writer->shown == writer->told_end)
        return false;
    *ret_edit = edit_of(writer->conversion, writer->shown++);
    return true;
}

static uint64_t tell_position(void *context)
{
    const struct plan_writer *writer = context;
    return writer->conversion->position_last;
}

/* The folder was cleared before. */
static int refuse_edit(void *context, const struct manifest_edit *edit)
{
    (void)context;
    (void)edit;
    return -EEXIST;
}

static void appended(struct manifest_op *op, int result)
{
    struct plan_writer *writer = container_of(op, struct plan_writer, op);
    writer->result = result;
    writer->is_done = true;
    if (result == 0)
        writer->told_end = writer->next;
}

static uint32_t collect(struct plan_writer *writer)
{
    const struct conversion *conversion = writer->conversion;
    uint32_t count = 0;
    for (; writer->next < conversion->edit_count && count < MANIFEST_GROUP_MAX; writer->next++)
        if (is_of(conversion, writer->next))
            writer->edits[count++] = edit_of(conversion, writer->next);
    return count;
}

static int append_all(struct plan_writer *writer, struct manifest *manifest)
{
    writer->op.done = appended;
    for (uint32_t count; writer->result == 0 && (count = collect(writer)) > 0;) {
        writer->is_done = false;
        manifest_append(manifest, &writer->op, writer->edits, count);
        while (!writer->is_done) {
            int error = io_run(writer->conversion->io, UINT64_MAX);
            if (error < 0)
                return error;
        }
    }
    return writer->result;
}

static int write_manifest(struct conversion *conversion, struct manifest_edit *edits,
                          struct manifest_mark *ret_mark)
{
    char folder[CONVERT_PATH_SIZE];
    struct plan_writer writer = {.conversion = conversion, .edits = edits};
    int result = convert_join(conversion->options->path, CONVERT_FOLDER, folder);
    if (result < 0)
        return result;
    struct manifest_options options = {
        .path = folder,
        .directory_id = conversion->directory->handover.file.now.directory_id,
        .shard = conversion->shard,
        .snapshot = show_told,
        .position = tell_position,
        .context = &writer,
        .memory = io_region(conversion->io),
        .closed = {.edition = conversion->manifest_edition}, /* newer than all that there were */
    };
    struct manifest *manifest;
    result = manifest_open(conversion->io, conversion->log, &options, refuse_edit, NULL, &manifest);
    if (result < 0)
        return result;
    result = append_all(&writer, manifest);
    int shut = manifest_shut(manifest);
    *ret_mark = manifest_tell(manifest);
    manifest_free(manifest);
    return result < 0 ? result : shut;
}

/* What the new shard is when it was never opened: closed, its log empty. */
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
    superblock->shards_before = 0;
}

static int write_superblock(const struct conversion *conversion,
                            const struct superblock *superblock)
{
    char name[64];
    char path[CONVERT_PATH_SIZE];
    (void)snprintf(name, sizeof name, CONVERT_FOLDER "/superblock-%" PRIu32, conversion->shard);
    int result = convert_join(conversion->options->path, name, path);
    return result < 0 ? result : superblock_make(conversion->io, path, superblock);
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

static int write_shard(struct conversion *conversion, struct manifest_edit *edits,
                       struct superblock *ret_superblock)
{
    struct manifest_mark mark;
    int result = write_manifest(conversion, edits, &mark);
    if (result < 0)
        return result;
    struct superblock superblock;
    fill_superblock(conversion, &mark, &superblock);
    if (conversion->shard > 0)
        return write_superblock(conversion, &superblock);
    *ret_superblock = superblock;
    return 0;
}

static int write_shards(struct conversion *conversion, struct superblock *ret_superblock)
{
    struct manifest_edit *edits = malloc(MANIFEST_GROUP_MAX * sizeof *edits);
    int result = edits == NULL ? -ENOMEM : 0;
    conversion->told_ns = io_now_ns(conversion->io);
    for (uint32_t shard = 0; result == 0 && shard < conversion->count; shard++) {
        conversion->shard = shard;
        result = write_shard(conversion, edits, ret_superblock);
        tell_progress(conversion);
    }
    free(edits);
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
        result = filesystem_sync_folder(conversion->io, folder);
    return result < 0 ? result : filesystem_sync_folder(conversion->io, conversion->options->path);
}

int convert_write_plan(struct conversion *conversion, struct superblock *ret_superblock)
{
    int result = write_plan(conversion, ret_superblock);
    if (result == 0)
        return 0;
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
