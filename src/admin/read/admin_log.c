/* Walking the log. wal_scan.h decides what is the log, what is its torn tail and what is damage;
 * here is what it needs: which file is which segment (the rules are those of wal_recover_files.c),
 * and their bytes. */
#include "admin/read/admin_checkpoint.h"
#include "admin/read/admin_log_listing.h"
#include "admin/read/admin_log_window.h"
#include "admin/read/admin_walk.h"

#include "admin/read/admin_files.h"
#include "base/hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_SIZE (3 * WAL_BLOCK_SIZE)

struct log_walk {
    const struct walk *walk;
    struct admin *admin;
    struct admin_shard *shard;
    struct log_window window;
    struct log_listing listing;
    struct wal_scan_segment *segments;
    uint32_t *files; /* of each segment, the index in the catalog */
    uint32_t count;
    int result; /* of `each` */
};

/* ---- what the scan says ---- */

static void note(void *context, const struct wal_scan_note *note)
{
    struct log_walk *walk = context;
    struct admin_report *report = &walk->admin->report;
    const char *name = walk->segments[note->segment].path;
    switch (note->kind) {
    case WAL_SCAN_DAMAGE:
        report_damage(report, name, note->from,
                      "%s up to %" PRIu64 ", acknowledged writes are lost: restore their keys from "
                      "a replica or a backup",
                      note->what, note->upto);
        break;
    case WAL_SCAN_LOST:
        report_damage(report, name, note->from,
                      "the writes at the log positions %" PRIu64 " to %" PRIu64
                      " are missing before it, although they were acknowledged: restore their keys "
                      "from a replica or a backup",
                      note->position_first, note->position_last);
        break;
    case WAL_SCAN_UNKNOWN:
        report_refuse(report, name, note->from,
                      "the record has format %u and flags %02x, which this program does not know: "
                      "use the release that wrote it, or a newer one",
                      note->format, note->flags);
        break;
    }
}

static int load(void *context, uint32_t index, uint64_t from, uint64_t upto,
                const uint8_t **ret_image)
{
    struct log_walk *walk = context;
    const struct catalog_file *file = &walk->admin->catalog.files[walk->files[index]];
    int result = window_load(&walk->window, file, &walk->segments[index], from, upto);
    *ret_image = walk->window.image;
    return result;
}

static int show(void *context, uint32_t index, uint64_t offset, const struct record *record)
{
    struct log_walk *walk = context;
    const struct slice *key = &record->key;
    struct hash_place place = hash_place(walk->admin->superblock.secret, key->data, key->size);
    struct walk_found found = {
        .file = walk->files[index],
        .offset = offset,
        .size = (uint32_t)record_size(record),
        .partition = (uint8_t)place.partition,
        .hash = place.hash,
        .version = record->version,
        .tombstone = record->flags & RECORD_TOMBSTONE,
        .in_value_file = record->flags & RECORD_IN_VALUE_FILE,
        .record = record,
    };
    walk->result = walk_show(walk->walk, &found);
    return walk->result == 0 ? 0 : -ECANCELED;
}

/* ---- what each file is ---- */

/* Decodes header or mark. Returns 1, or 0 when it is neither. Errors: reported. */
static int read_header(struct log_walk *walk, const char *name, const uint8_t *block,
                       uint16_t state, struct log_file_header *ret_header)
{
    struct admin_report *report = &walk->admin->report;
    struct log_file_header header;
    int result = log_file_header_decode(block, &header);
    if (result == -EPROTONOSUPPORT) {
        report_refuse(report, name, 0,
                      "it has format %" PRIu16 ", this program knows format %d: use the release "
                      "that wrote it",
                      header.format, WAL_FORMAT);
        return result;
    }
    if (result < 0 || header.state != state)
        return 0;
    if (header.directory_id != walk->admin->superblock.directory_id ||
        header.log_id != walk->shard->number) {
        report_refuse(report, name, 0,
                      "it belongs to log %" PRIu32 " of the data directory %016" PRIx64
                      ", move it back where it came from",
                      header.log_id, header.directory_id);
        return -EXDEV;
    }
    *ret_header = header;
    return 1;
}

/* Looks for batches of a segment numbered above `number`. Returns 1 when it is one, and its header
 * is inferred. */
static int infer(struct log_walk *walk, const char *name, uint64_t number)
{
    struct wal_scan_segment *segment = &walk->segments[walk->count];
    segment->header.directory_id = walk->admin->superblock.directory_id;
    segment->header.log_id = walk->shard->number;
    struct wal_scan scan = {.segments = walk->segments,
                            .segment_count = walk->count + 1,
                            .context = walk,
                            .load = load};
    int found = wal_scan_infer(&scan, walk->count, number);
    if (found == 1)
        report_damage(&walk->admin->report, name, 0,
                      "the header is corrupt, the batches say that it is segment %" PRIu64
                      " and can still be read",
                      segment->header.number);
    return found;
}

static bool is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, WAL_BLOCK_SIZE - 1) == 0;
}

/* Whether the first batch is of a later use of the file than header and mark know of. */
static bool is_in_later_use(const struct log_walk *walk, const uint8_t *data, uint64_t number)
{
    struct wal_batch_header batch;
    return wal_batch_header_decode(data, &batch) == 0 && batch.segment > number &&
           batch.offset == WAL_DATA_OFFSET && batch.log_id == walk->shard->number &&
           batch.directory_id == walk->admin->superblock.directory_id;
}

/* Returns 1 when the file holds records, and fills its segment in. */
static int judge(struct log_walk *walk, const char *name, const uint8_t *head)
{
    struct log_file_header header;
    struct log_file_header mark = {0};
    int is_active = read_header(walk, name, head, WAL_HEADER_ACTIVE, &header);
    if (is_active < 0)
        return is_active;
    int is_marked = read_header(walk, name, head + WAL_MARK_OFFSET, WAL_HEADER_SPARE, &mark);
    if (is_marked < 0)
        return is_marked;
    if (is_active)
        listing_take_header(&walk->listing, &header, head);
    if (is_marked) {
        listing_take_header(&walk->listing, &mark, head + WAL_MARK_OFFSET);
        listing_take_number(&walk->listing, mark.number);
    }
    if (is_active && (!is_marked || header.number > mark.number)) {
        walk->segments[walk->count].header = header;
        return 1;
    }
    bool says_nothing = is_active || is_zero(head);
    if (says_nothing && !is_in_later_use(walk, head + WAL_DATA_OFFSET, mark.number))
        return 0;
    int found = infer(walk, name, mark.number);
    if (found == 0 && !is_marked && !says_nothing)
        report_damage(
            &walk->admin->report, name, 0,
            "nothing in it can be read as a log segment, if it held writes they are lost");
    return found;
}

static int add_file(struct log_walk *walk, uint32_t index)
{
    uint8_t head[HEAD_SIZE];
    const struct catalog_file *file = &walk->admin->catalog.files[index];
    walk->files[walk->count] = index;
    walk->segments[walk->count] = (struct wal_scan_segment){
        .size = round_down(file->size, WAL_BLOCK_SIZE),
        .path = file->name,
        .unreadable_last = WAL_READABLE,
    };
    memset(head, 0, sizeof head);
    int handle = admin_open_file(walk->admin->directory, file->name);
    int64_t size = handle < 0 ? handle : admin_read(handle, head, sizeof head, 0);
    admin_close(handle);
    if (size < 0) {
        report_damage(&walk->admin->report, file->name, 0, "it cannot be read, %s",
                      strerror((int)-size));
        memset(head, 0xFF, sizeof head);
    }
    int result = judge(walk, file->name, head);
    if (result == 1)
        listing_take_number(&walk->listing, walk->segments[walk->count++].header.number);
    return result < 0 ? result : 0;
}

/* ---- in order ---- */

struct ordered {
    struct wal_scan_segment segment;
    uint32_t file;
};

static int compare(const void *left, const void *right)
{
    const struct ordered *a = left;
    const struct ordered *b = right;
    uint64_t number_a = a->segment.header.number;
    uint64_t number_b = b->segment.header.number;
    if (number_a != number_b)
        return number_a < number_b ? -1 : 1;
    return (a->file > b->file) - (a->file < b->file);
}

/* Ascending in number, without copies and without what is dead. */
static int order(struct log_walk *walk)
{
    struct ordered *list = calloc(walk->count + 1, sizeof *list);
    if (list == NULL)
        return -ENOMEM;
    uint32_t count = walk->count;
    for (uint32_t i = 0; i < count; i++)
        list[i] = (struct ordered){walk->segments[i], walk->files[i]};
    qsort(list, count, sizeof *list, compare);
    walk->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct wal_scan_segment *segment = &list[i].segment;
        if (i > 0 && segment->header.number == list[i - 1].segment.header.number) {
            report_note(&walk->admin->report, segment->path, 0,
                        "a copy of %s, it is left alone: move it away", list[i - 1].segment.path);
            continue;
        }
        bool is_before = segment->header.last_before < walk->shard->superblock.log_base;
        if (is_before)
            report_note(&walk->admin->report, segment->path, 0,
                        "of a log that was here before and was emptied, removed at the next start");
        if (is_before || listing_is_dead(&walk->listing, segment->header.number))
            continue;
        walk->segments[walk->count] = *segment;
        walk->files[walk->count++] = list[i].file;
    }
    free(list);
    return 0;
}

/* ---- the walk ---- */

static void take_found(struct log_walk *walk, const struct wal_scan_found *found)
{
    struct admin *admin = walk->admin;
    walk->shard->log.scan = *found;
    walk->shard->log.scan.last_position =
        max_u64(found->last_position, walk->shard->superblock.log_base);
    if (found->dropped_bytes == 0)
        return;
    const struct wal_scan_segment *last = &walk->segments[walk->count - 1];
    report_note(&admin->report, last->path, last->end,
                "a torn tail of %" PRIu64 " bytes, writes that were under way when the server "
                "stopped and that nobody was told of: the next start drops them",
                found->dropped_bytes);
}

static int scan(struct log_walk *walk)
{
    struct wal_scan scan = {.segments = walk->segments,
                            .segment_count = walk->count,
                            .context = walk,
                            .load = load,
                            .record = show,
                            .note = note};
    int result = wal_scan_run(&scan);
    if (result < 0)
        return walk->result != 0 ? walk->result : result;
    take_found(walk, &scan.found);
    listing_judge(&walk->listing, walk->admin, walk->shard, scan.proof);
    return 0;
}

/* The manifest, the index checkpoint and a clean shutdown tell how far the log had come. */
static void take_known(struct log_walk *walk)
{
    struct admin *admin = walk->admin;
    const struct admin_shard *shard = walk->shard;
    listing_take_known(&walk->listing, shard->superblock.log_last, shard->superblock.log_number);
    listing_take_known(&walk->listing, shard->log_position, 0);
    const struct catalog_file *file =
        catalog_find_state(&admin->catalog, CATALOG_CHECKPOINT, shard->number, shard->checkpoint);
    struct checkpoint_info info;
    int64_t age_s;
    if (file != NULL && file->counts && checkpoint_look(admin, file, &info, &age_s) == 0)
        listing_take_known(&walk->listing, info.position, 0);
}

static int walk_files(struct log_walk *walk)
{
    const struct catalog *catalog = &walk->admin->catalog;
    uint32_t first, end;
    int result = 0;
    catalog_range(catalog, CATALOG_LOG, walk->shard->number, &first, &end);
    take_known(walk);
    for (uint32_t i = first; result == 0 && i < end; i++)
        if (catalog->files[i].counts)
            result = add_file(walk, i);
    if (result == 0)
        result = order(walk);
    walk->shard->log =
        (struct admin_log){.segments = walk->count, .spares = end - first - walk->count};
    return result == 0 ? scan(walk) : result;
}

static int walk_shard(const struct walk *walk, struct admin_shard *shard)
{
    struct admin *admin = walk->admin;
    const struct catalog *catalog = &admin->catalog;
    uint32_t first, end;
    uint64_t largest = 0;
    catalog_range(catalog, CATALOG_LOG, shard->number, &first, &end);
    for (uint32_t i = first; i < end; i++)
        largest = max_u64(largest, catalog->files[i].size);
    struct log_walk log_walk = {.walk = walk, .admin = admin, .shard = shard};
    log_walk.segments = calloc(end - first + 1, sizeof *log_walk.segments);
    log_walk.files = calloc(end - first + 1, sizeof *log_walk.files);
    int result = log_walk.segments == NULL || log_walk.files == NULL
                     ? -ENOMEM
                     : window_init(&log_walk.window, admin, largest);
    if (result == 0)
        result = listing_init(&log_walk.listing, end - first);
    log_walk.listing.base = shard->superblock.log_base;
    if (result == 0)
        result = walk_files(&log_walk);
    listing_deinit(&log_walk.listing);
    if (log_walk.window.image != NULL)
        window_deinit(&log_walk.window);
    free(log_walk.files);
    free(log_walk.segments);
    return result;
}

int admin_walk_log(const struct walk *walk)
{
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < walk->admin->shard_count; i++)
        result = walk_shard(walk, &walk->admin->shards[i]);
    return result;
}
