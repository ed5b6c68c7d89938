/* Opening a data directory for reading: lock, superblock, catalog. */
#include "admin/read/admin.h"

#include "admin/read/admin_files.h"
#include "base/bytes.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK DISK_BLOCK_SIZE

static int open_superblock(struct admin *admin)
{
    const char *data = admin->options->data;
    admin->report.data = data;
    admin->directory = admin_open_directory(ADMIN_HERE, data);
    if (admin->directory < 0)
        return report_cannot(&admin->report, ADMIN_HERE, data, "opened", admin->directory);
    admin->superblock_file = admin_open_file(admin->directory, "superblock");
    int result = admin->superblock_file;
    if (result == -ENOENT)
        report_failure(&admin->report, "%s is not a minivault data directory: it has no superblock",
                       data);
    else if (result < 0)
        (void)report_cannot(&admin->report, admin->directory, "superblock", "opened", result);
    return result < 0 ? result : 0;
}

static int lock(struct admin *admin)
{
    const char *data = admin->options->data;
    int result = admin_lock_shared(admin->superblock_file);
    if (result == -EWOULDBLOCK)
        report_failure(&admin->report,
                       "the data directory %s is in use by a server: stop it first (fuser "
                       "%s/superblock names it), or look at a snapshot of the directory",
                       data, data);
    else if (result < 0)
        (void)report_cannot(&admin->report, admin->directory, "superblock", "locked", result);
    return result;
}

/* ---- the superblock ---- */

/* Reads the two copies of a superblock; what is damaged of them is reported when the other one
 * counts. Errors: superblock_choose's, the device's: not reported. */
static int read_copies(struct admin *admin, const char *name, int file,
                       struct superblock *ret_found, bool *ret_blank)
{
    struct superblock found[SUPERBLOCK_COPIES] = {{0}};
    int results[SUPERBLOCK_COPIES];
    *ret_blank = true;
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES; copy++) {
        uint8_t block[BLOCK] = {0};
        int64_t count = admin_read(file, block, BLOCK, copy * BLOCK);
        results[copy] = count < 0 ? (int)count : superblock_decode(block, &found[copy]);
        *ret_blank = *ret_blank && bytes_are_zero(block, BLOCK);
    }
    int error = superblock_choose(found, results, ret_found);
    for (uint32_t copy = 0; error == 0 && copy < SUPERBLOCK_COPIES; copy++)
        if (results[copy] != 0)
            report_say(&admin->report, REPORT_DAMAGE, name, copy * BLOCK,
                       "this copy is torn or corrupt (%s), the other one counts: the next start "
                       "writes it anew and nothing is lost",
                       strerror(-results[copy]));
    return error;
}

static int read_own_superblock(struct admin *admin)
{
    bool is_blank;
    const char *data = admin->options->data;
    struct superblock *found = &admin->superblock;
    int result = read_copies(admin, "superblock", admin->superblock_file, found, &is_blank);
    if (result == -EPROTONOSUPPORT)
        report_failure(&admin->report,
                       "the data directory %s has format version %" PRIu32
                       "%s, this program knows version %d: use the release that wrote it",
                       data, found->format,
                       found->format == SUPERBLOCK_FORMAT ? " and something in it that is newer"
                                                          : "",
                       SUPERBLOCK_FORMAT);
    else if (result < 0)
        report_failure(&admin->report, "%s/superblock is %s", data,
                       is_blank ? "empty, the directory was never formatted to the end"
                                : "damaged in both copies: restore it from a backup");
    if (result < 0)
        return result;
    char text[SUPERBLOCK_TEXT_SIZE];
    if (superblock_is_misplaced(found, found, 0, text)) {
        report_failure(&admin->report, "%s/superblock: %s", data, text);
        return -EXDEV;
    }
    admin->shard_count = found->shard_count;
    admin->is_decided = found->shards_before != 0;
    if (admin->is_decided)
        report_say(&admin->report, REPORT_NOTE, "superblock", 0,
                   "a conversion from %" PRIu32 " shards to %" PRIu32
                   " was cut short, the next start finishes it: shown is what counts from then on",
                   found->shards_before, admin->shard_count);
    return 0;
}

/* ---- the shards ---- */

/* Without its own, what the directory's says of all is all that is known. */
static int read_superblock(struct admin *admin, struct admin_shard *shard)
{
    char own_name[64];
    bool is_blank;
    struct superblock found;
    shard->superblock = admin->superblock;
    if (shard->number == 0)
        return 0;
    (void)snprintf(own_name, sizeof own_name, "%ssuperblock", shard->folder);
    const char *name = catalog_choose(&admin->catalog, CATALOG_SUPERBLOCK, shard->number);
    int handle = name != NULL ? admin_open_file(admin->directory, name) : -ENOENT;
    int result = handle < 0 ? handle : read_copies(admin, name, handle, &found, &is_blank);
    admin_close(handle);
    if (result == -EPROTONOSUPPORT) {
        report_say(&admin->report, REPORT_REFUSAL, name, 0,
                   "it has format %" PRIu32 " or something that this program, of format %d, does "
                   "not know: use the release that wrote it",
                   found.format, SUPERBLOCK_FORMAT);
        return result;
    }
    char text[SUPERBLOCK_TEXT_SIZE];
    if (result == 0 && !superblock_is_misplaced(&found, &admin->superblock, shard->number, text)) {
        shard->superblock = found;
        return 0;
    }
    shard->superblock.manifest_salt = shard->superblock.log_last = 0;
    shard->superblock.log_number = shard->superblock.log_base = 0;
    shard->superblock.clean = false;
    if (result < 0)
        (void)snprintf(text, sizeof text, "%s: restore it from a backup",
                       result == -EBADMSG ? "it is damaged in both copies" : strerror(-result));
    report_say(&admin->report, REPORT_STOP, name != NULL ? name : own_name, 0, "%s", text);
    return 0;
}

/* A shard without a sound superblock has the directory's here, and was reported. */
static void judge_ages(struct admin *admin)
{
    const struct superblock *newest = &admin->superblock;
    char name[64], text[SUPERBLOCK_TEXT_SIZE];
    for (uint32_t i = 0; i < admin->shard_count; i++)
        if (admin->shards[i].superblock.start_number > newest->start_number)
            newest = &admin->shards[i].superblock;
    for (uint32_t i = 0; i < admin->shard_count; i++) {
        const struct admin_shard *shard = &admin->shards[i];
        (void)snprintf(name, sizeof name, "%ssuperblock", shard->folder);
        if (shard->superblock.shard == i &&
            superblock_is_outdated(&shard->superblock, newest, text))
            report_say(&admin->report, REPORT_STOP, name, 0, "%s", text);
    }
}

/* An admin_list_each. */
static int judge_folder(void *context, const char *folder)
{
    struct admin *admin = context;
    char name[300], text[SUPERBLOCK_TEXT_SIZE];
    (void)snprintf(name, sizeof name, "%s/superblock", folder);
    if (superblock_is_outgrown(&admin->superblock, folder, text) &&
        admin_file_size(admin->directory, name) >= 0)
        report_say(&admin->report, REPORT_STOP, "superblock", 0, "%s", text);
    return 0;
}

static int take_shards(struct admin *admin)
{
    admin->shards = calloc(admin->shard_count, sizeof *admin->shards);
    int result = admin->shards == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; result == 0 && i < admin->shard_count; i++) {
        struct admin_shard *shard = &admin->shards[i];
        shard->number = i;
        if (i > 0)
            (void)snprintf(shard->folder, sizeof shard->folder, "shard-%" PRIu32 "/", i);
        result = read_superblock(admin, shard);
        if (result == 0)
            result = admin_take_manifest(admin, shard);
    }
    if (result < 0)
        return result;
    judge_ages(admin);
    return admin_list(admin->directory, ".", judge_folder, admin);
}

int admin_start(struct admin *admin)
{
    admin->directory = -1;
    admin->superblock_file = -1;
    int result = open_superblock(admin);
    if (result == 0)
        result = lock(admin);
    if (result == 0)
        result = read_own_superblock(admin);
    if (result == 0)
        result = catalog_load(admin);
    if (result == 0)
        result = take_shards(admin);
    if (result == 0)
        catalog_note_leftovers(admin);
    return result;
}

void admin_shut(struct admin *admin)
{
    catalog_free(&admin->catalog);
    free(admin->shards);
    admin_close(admin->superblock_file);
    admin_close(admin->directory);
}
