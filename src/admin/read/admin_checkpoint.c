/* Reads the index checkpoint block by block, checks the order of its blocks and the files that its
 * slots name. A damaged checkpoint loses nothing: a start rebuilds the index from the segments. */
#include "admin/read/admin.h"

#include "admin/read/admin_files.h"
#include "store/catalog/checkpoint_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define UNIT CHECKPOINT_UNIT_SIZE
#define BLOCK_MIN CHECKPOINT_BLOCK_MIN
#define OFFSET_MASK ((1ull << LOCATION_OFFSET_BITS) - 1)
#define END_UNLISTED 0u
#define END_UNKNOWN UINT64_MAX

struct checkpoint_walk {
    struct admin *admin;
    const struct catalog_file *file;
    uint8_t *unit;
    /* CHECKPOINT_FILES_MAX: END_UNLISTED, END_UNKNOWN (gone, or the log's), or bytes */
    uint64_t *ends;
    struct checkpoint_order order;
    uint64_t slots_gone;
};

/* ---- entries: each returns NULL, or what is wrong ---- */

/* A file that is gone is not damage: what was alive in it has moved since. */
static const char *take_files(struct checkpoint_walk *walk, const struct checkpoint_block *block,
                              const uint8_t *entries)
{
    for (uint32_t i = 0; i < block->entry_count; i++) {
        struct checkpoint_file file;
        if (checkpoint_file_decode(entries + (size_t)i * CHECKPOINT_FILE_SIZE, &file) < 0)
            return "no file of a checkpoint's table";
        uint64_t *end = &walk->ends[checkpoint_file_key(file.is_segment, file.file)];
        if (*end != END_UNLISTED)
            return "a file that is in the table twice";
        *end = file.is_segment ? catalog_segment_end(&walk->admin->catalog, file.number) : 0;
        if (*end != 0 && file.end > *end)
            return "a segment with a greater end than the manifest knows";
        if (*end == 0)
            *end = END_UNKNOWN;
    }
    return NULL;
}

static const char *take_slots(struct checkpoint_walk *walk, const struct checkpoint_block *block,
                              const uint8_t *entries)
{
    for (uint32_t i = 0; i < block->entry_count; i++) {
        struct index_entry entry;
        uint64_t hash;
        index_unpack(entries + (size_t)i * INDEX_PACKED_SIZE, &hash, &entry);
        uint64_t end = walk->ends[checkpoint_location_key(entry.location)];
        if (end == END_UNLISTED)
            return "a slot that names a file that is not in the table";
        if (entry.read_size > checkpoint_read_size_max())
            return "a slot of a record that is larger than any";
        if (end != END_UNKNOWN && (entry.location & OFFSET_MASK) << 3 >= end)
            return "a slot that names a place beyond the end of its segment";
        walk->slots_gone += end == END_UNKNOWN;
    }
    return NULL;
}

/* ---- blocks ---- */

static const char *take_block(struct checkpoint_walk *walk, const struct checkpoint_block *block,
                              const uint8_t *data, uint64_t end)
{
    const uint8_t *entries = data + CHECKPOINT_BLOCK_HEADER_SIZE;
    if (checkpoint_order_take(&walk->order, block, data, end) < 0)
        return walk->order.what;
    if (block->kind == CHECKPOINT_FILES)
        return take_files(walk, block, entries);
    return block->kind == CHECKPOINT_SLOTS ? take_slots(walk, block, entries) : NULL;
}

/* Returns NULL, or what is wrong at *offset. */
static const char *take_unit(struct checkpoint_walk *walk, uint64_t *offset, uint32_t size)
{
    const char *what = NULL;
    for (uint32_t at = 0; what == NULL && at < size;) {
        struct checkpoint_block block;
        const uint8_t *data = walk->unit + at;
        int error = checkpoint_block_decode(data, size - at, &block);
        if (error == -EPROTONOSUPPORT)
            report_say(&walk->admin->report, REPORT_REFUSAL, walk->file->name, *offset,
                       "a block of a format that this program does not know, use the release that "
                       "wrote it");
        if (error < 0)
            return "a block whose checksum is wrong";
        what = take_block(walk, &block, data, *offset + block.size);
        at += block.size;
        *offset += what == NULL ? block.size : 0;
    }
    return what;
}

static const char *take_all(struct checkpoint_walk *walk, int handle, uint64_t *ret_offset)
{
    uint64_t size = walk->file->size;
    for (uint64_t offset = 0; offset < size; offset += UNIT) {
        uint32_t wanted = (uint32_t)min_u64(UNIT, size - offset);
        int64_t count = admin_read(handle, walk->unit, wanted, offset);
        *ret_offset = offset;
        if (count != (int64_t)wanted)
            return count < 0 ? strerror((int)-count) : "the file ends";
        const char *what = take_unit(walk, ret_offset, wanted);
        if (what != NULL)
            return what;
        report_progress(&walk->admin->report, wanted, walk->file->name);
    }
    return walk->order.kind == CHECKPOINT_END ? NULL : "no end: the file was cut off";
}

static void check_file(struct checkpoint_walk *walk, int handle)
{
    struct admin_report *report = &walk->admin->report;
    uint64_t offset = 0;
    const char *what = take_all(walk, handle, &offset);
    if (what != NULL)
        report_say(report, REPORT_DAMAGE, walk->file->name, offset,
                   "%s, the next start builds the index from the segments and takes longer; "
                   "nothing is lost",
                   what);
    else if (walk->slots_gone > 0)
        report_say(report, REPORT_NOTE, walk->file->name, 0,
                   "%" PRIu64 " of %" PRIu64 " slots are of the log or of segments that are gone, "
                   "the log and newer chunks say where their records are now",
                   walk->slots_gone, walk->order.slots);
}

int checkpoint_check(struct admin *admin, const struct catalog_file *file)
{
    struct checkpoint_walk walk = {.admin = admin,
                                   .file = file,
                                   .order = {.directory_id = admin->superblock.directory_id,
                                             .log_id = file->shard,
                                             .number = file->number,
                                             .size = file->size}};
    int handle = admin_open_file(admin->directory, file->name);
    if (handle < 0 && !checkpoint_is_lost(handle))
        return report_cannot(&admin->report, admin->directory, file->name, "opened", handle);
    if (handle < 0) {
        report_say(&admin->report, REPORT_DAMAGE, file->name, 0, "it cannot be opened, %s",
                   strerror(-handle));
        return 0;
    }
    walk.unit = malloc(UNIT);
    walk.ends = calloc(CHECKPOINT_FILES_MAX, sizeof *walk.ends);
    int result = walk.unit == NULL || walk.ends == NULL ? -ENOMEM : 0;
    if (result == 0)
        check_file(&walk, handle);
    free(walk.ends);
    free(walk.unit);
    admin_close(handle);
    return result;
}

/* ---- only the ends ---- */

static int read_block(const struct admin *admin, int handle, uint64_t offset,
                      enum checkpoint_kind kind, uint8_t *data)
{
    struct checkpoint_block block;
    int64_t count = admin_read(handle, data, BLOCK_MIN, offset);
    if (count < 0)
        return (int)count;
    int error = checkpoint_block_decode(data, (uint32_t)count, &block);
    if (error < 0)
        return error;
    bool is_ours = block.directory_id == admin->superblock.directory_id;
    return block.kind == kind && is_ours ? 0 : -EBADMSG;
}

int checkpoint_look(struct admin *admin, const struct catalog_file *file,
                    struct checkpoint_info *ret_info, int64_t *ret_age_s)
{
    uint8_t data[2][CHECKPOINT_BLOCK_MIN];
    struct checkpoint_begin_entry begin;
    struct checkpoint_end_entry end;
    if (file == NULL || file->size < sizeof data)
        return file == NULL ? -ENOENT : -EBADMSG;
    int handle = admin_open_file(admin->directory, file->name);
    if (handle < 0)
        return handle;
    int result = read_block(admin, handle, 0, CHECKPOINT_BEGIN, data[0]);
    if (result == 0)
        result = read_block(admin, handle, file->size - BLOCK_MIN, CHECKPOINT_END, data[1]);
    int64_t age_s = admin_file_age_s(handle);
    admin_close(handle);
    if (result < 0)
        return result;
    memcpy(&begin, data[0] + CHECKPOINT_BLOCK_HEADER_SIZE, sizeof begin);
    memcpy(&end, data[1] + CHECKPOINT_BLOCK_HEADER_SIZE, sizeof end);
    *ret_info = (struct checkpoint_info){.number = file->number,
                                         .position = begin.position,
                                         .chunk_sequence = begin.chunk_sequence,
                                         .clock_ceiling = begin.clock_ceiling,
                                         .slots = end.slots};
    *ret_age_s = age_s;
    return 0;
}
