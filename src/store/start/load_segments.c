/* What a start finds: the manifest's segments, the index from the checkpoint and from what is
 * newer, and what nobody names any more.
 *
 *   manifest -> checkpoint -> directories of newer chunks -> the log (replay_log.c)
 *     -> a walk over the index: what is alive where -> orphans go (count_alive.c)
 *
 * Versions decide, so the order does not matter; the same write may be found twice, where a move
 * was under way. */
#include "store/start/emptying.h"
#include "store/start/start.h"

#include "base/assert.h"
#include "store/disk/filesystem.h"
#include "store/disk/wait.h"
#include "store/segment/segment_scan.h"
#include "store/store_keys.h"
#include "store/value/value_file.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Records whose rows of the index are under way from memory. */
#define PREFETCH_AHEAD 12u
#define PREFETCH_NEAR 6u /* and their slots */

/* Edits of one group when the manifest is built anew. */
#define TELL_MAX 256u

/* ---- the manifest ---- */

/* Errors are logged. */
static int list_partition(const struct store *store, uint32_t partition, io_list_each *each,
                          void *context)
{
    char path[SEGMENT_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%02x", store->options.path, partition);
    int result = io_list_directory(store->io, path, each, context);
    return result < 0 ? filesystem_cannot(store->log, "list", path, result) : result;
}

static int add_segment(struct store *store, const struct manifest_edit *edit,
                       struct segment **ret_segment)
{
    const struct store_options *options = &store->options;
    const char *remedy = manifest_judge_edit(edit, options->shard, options->shard_count);
    if (remedy != NULL) {
        log_error(store->log,
                  "%s/manifest-%" PRIu32 " names segment %" PRIu64 " of partition %02x, %s",
                  store->state_path, options->shard, edit->number, edit->partition, remedy);
        return -EBADMSG;
    }
    struct segment *segment;
    int error =
        segments_add(store->segments, edit->partition, edit->source, edit->number, &segment);
    if (error < 0)
        return error;
    segment->state = SEGMENT_SEALED;
    segment->salt = segment_salt(store->superblock.now.secret, edit->number);
    *ret_segment = segment;
    return 0;
}

static int take_edit(void *context, const struct manifest_edit *edit)
{
    struct store *store = context;
    struct segment *segment = segments_find_number(store->segments, edit->number);
    int result;
    assert(store->wal == NULL); /* the log comes after it */
    switch (edit->kind) {
    case MANIFEST_SEGMENT:
        checkpoints_take_segment(&store->checkpoints, edit->number);
        result = segment == NULL ? add_segment(store, edit, &segment) : 0;
        if (result < 0)
            return result;
        segment->created = edit->created;
        segment_set_end(store->segments, segment, edit->end);
        return 0;
    case MANIFEST_REMOVE:
        if (segment != NULL)
            segments_remove(store->segments, segment, false);
        return 0;
    case MANIFEST_CHECKPOINT:
        checkpoints_take_segment(&store->checkpoints, edit->end);
        checkpoints_take(&store->checkpoints, edit->number);
        return 0;
    case MANIFEST_DAMAGE:
        if (segment != NULL) {
            segment->is_loss_told = true;
            segment->loss_position = edit->end;
        }
        return 0;
    }
    return -EBADMSG;
}

/* What the manifest says of the segment: MANIFEST_SEGMENT, or MANIFEST_DAMAGE of one that lost
 * something. */
static struct manifest_edit edit_of(const struct store *store, const struct segment *segment,
                                    enum manifest_kind kind)
{
    bool is_loss = kind == MANIFEST_DAMAGE;
    assert(!is_loss || segment->is_loss_told);
    return (struct manifest_edit){
        .kind = kind,
        .partition = segment->partition,
        .source = segment->source,
        .log_id = store->options.shard,
        .number = segment->number,
        .end = is_loss ? segment->loss_position : segment->end,
        .created = is_loss ? 0 : segment->created,
    };
}

/* Behind all segments come those that lost something. */
static bool show_loss(const struct store *store, uint64_t index, struct manifest_edit *ret_edit)
{
    struct segments_stats stats;
    segments_stats(store->segments, &stats);
    assert(index >= stats.segments);
    uint64_t left = index - stats.segments;
    const struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(store->segments, i)) != NULL; i++) {
        if (!segment->is_loss_told || left-- > 0)
            continue;
        *ret_edit = edit_of(store, segment, MANIFEST_DAMAGE);
        return true;
    }
    return false;
}

/* The whole state, for the manifest's rewriting: the checkpoint first, then the segments, then what
 * they lost. */
bool store_show_state(void *context, uint64_t index, struct manifest_edit *ret_edit)
{
    const struct store *store = context;
    if (checkpoints_show(&store->checkpoints, ret_edit) && index-- == 0)
        return true;
    const struct segment *segment = segments_nth(store->segments, index);
    if (segment == NULL)
        return show_loss(store, index, ret_edit);
    *ret_edit = edit_of(store, segment, MANIFEST_SEGMENT);
    return true;
}

static uint64_t log_position(void *context)
{
    const struct store *store = context;
    return store->wal != NULL ? wal_durable(store->wal) : store->log_last;
}

/* ---- whether there are segments ---- */

static int find_segment(void *context, const char *name)
{
    (void)context;
    uint64_t number;
    return segment_name_parse(name, &number) == 0; /* 1 ends the listing */
}

/* A manifest's has_segments. */
static int has_segments(void *context)
{
    const struct store *store = context;
    int result = 0;
    for (uint32_t partition = 0; result == 0 && partition < STORE_PARTITIONS; partition++)
        if (store_owns(store, partition))
            result = list_partition(store, partition, find_segment, NULL);
    return result;
}

static int open_manifest(struct store *store, const struct wal_note *note)
{
    struct manifest_options options = {
        .path = store->state_path,
        .directory_id = store->superblock.now.directory_id,
        .shard = store->options.shard,
        .snapshot = store_show_state,
        .position = log_position,
        .has_segments = has_segments,
        .context = store,
        .memory = store_memory(store, REGION_MANIFEST),
        .accept_loss = store->options.accept_loss,
        .known = manifest_known_of(&store->superblock.now, note),
    };
    options.known.is_older = store_is_older(store);
    int result = manifest_open(store->io, store->log, &options, take_edit, store, &store->manifest);
    if (result == 0)
        store->log_last = manifest_position(store->manifest);
    return result;
}

/* ---- the index: the checkpoint, then what is newer ---- */

/* The log is replayed as a whole: what the checkpoint knows of it is not needed. */
static uint32_t find_file(void *context, const struct checkpoint_file *file)
{
    struct store *store = context;
    if (!file->is_segment)
        return UINT32_MAX;
    struct segment *segment = segments_find_number(store->segments, file->number);
    if (segment == NULL)
        return UINT32_MAX;
    segment->indexed_end = file->end;
    return segment->file;
}

/* The checkpoint's writer had an overwrite of an uncached key that nobody had proved yet, or that
 * was left to the mover (doomed.h). */
static int suspect_twin(void *context, uint32_t partition, uint64_t hash,
                        const struct index_entry *entry)
{
    struct store *store = context;
    struct key_place place = {.partition = partition, .hash = hash};
    return proofs_suspect(&store->proofs, store->index, place, entry);
}

static int renew_index(struct store *store)
{
    proofs_forget_suspects(&store->proofs);
    index_free(store->index);
    store->index = NULL;
    struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(store->segments, i)) != NULL; i++)
        segment->indexed_end = 0;
    int result = store_create_index(store);
    if (result == 0)
        index_set_bulk(store->index, true);
    return result;
}

static int load_checkpoint(struct store *store, struct segments_found *found)
{
    uint64_t number = checkpoints_number(&store->checkpoints);
    if (number == 0)
        return 0;
    struct checkpoint_options options = checkpoints_file_options(&store->checkpoints);
    options.each_twin = suspect_twin;
    struct checkpoint_info info;
    uint64_t dropped;
    int result = checkpoint_load(store->io, store->log, &options, number, store->index, find_file,
                                 store, &info, &dropped);
    if (result == 0) {
        found->sequence_last = info.chunk_sequence;
        hybrid_clock_see(&store->clock, info.clock_ceiling);
        store->log_last = max_u64(store->log_last, info.position);
        return 0;
    }
    if (!checkpoint_is_lost(result))
        return result;
    log_warn(store->log,
             "%s/checkpoint-%016" PRIx64
             " cannot be used: the index is built from the segments, which takes longer; nothing "
             "is lost",
             store->state_path, number);
    return renew_index(store);
}

struct scanning {
    struct store *store;
    const struct segment *segment;
    struct segments_found found;
    uint64_t clock_ceiling;
    uint64_t reported_ns;
    uint64_t segments;
};

static int take_entry(struct scanning *scanning, const struct segment_entry *found, uint64_t offset)
{
    struct store *store = scanning->store;
    uint32_t partition = scanning->segment->partition;
    struct index_entry entry = {
        .version = found->version,
        .location = location_in_segment(scanning->segment->file, offset),
        .read_size = index_read_size(found->record_size),
        .tombstone = found->tombstone,
        .in_value_file = found->in_value_file,
    };
    assert(entry.location != 0);
    scanning->found.records++;
    scanning->clock_ceiling = max_u64(scanning->clock_ceiling, found->version.clock);
    int others = index_put(store->index, partition, found->hash, &entry);
    struct key_place place = {.partition = partition, .hash = found->hash};
    return others <= 0 ? others : proofs_suspect(&store->proofs, store->index, place, &entry);
}

static bool entry_at(const struct unit *unit, const uint8_t *data, uint32_t i,
                     struct segment_entry *ret_entry)
{
    if (i < unit->record_count)
        segment_entry_decode(data + SEGMENT_CHUNK_HEADER_SIZE + (uint64_t)i * SEGMENT_ENTRY_SIZE,
                             ret_entry);
    return i < unit->record_count;
}

/* Hashes lie anywhere in the index: without this, each record waits for memory. */
static void look_ahead(const struct scanning *scanning, const struct unit *unit,
                       const uint8_t *data, uint32_t i)
{
    const struct index *index = scanning->store->index;
    uint32_t partition = scanning->segment->partition;
    struct segment_entry entry;
    if (entry_at(unit, data, i + PREFETCH_AHEAD, &entry))
        index_prefetch(index, partition, entry.hash);
    if (entry_at(unit, data, i + PREFETCH_NEAR, &entry))
        index_prefetch_slots(index, partition, entry.hash);
}

static int take_chunk(void *context, const struct unit *unit, const uint8_t *data)
{
    struct scanning *scanning = context;
    struct unit_cursor cursor = {0};
    struct unit_record record;
    while (unit_next(unit, data, &cursor, &record) == 1) {
        look_ahead(scanning, unit, data, cursor.index - 1);
        int result = take_entry(scanning, &record.entry, record.offset);
        if (result < 0)
            return result;
    }
    return 0;
}

static void report_progress(struct scanning *scanning, uint64_t done)
{
    struct store *store = scanning->store;
    uint64_t now_ns = io_now_ns(store->io);
    if (now_ns - scanning->reported_ns < NS_PER_S)
        return;
    scanning->reported_ns = now_ns;
    log_info(store->log, "%s: %" PRIu64 " of %" PRIu64 " segments are read, %" PRIu64 " records",
             store->options.path, done, scanning->segments, scanning->found.records);
}

/* What a lost part of a segment may have held is not known: in its partition, only what is written
 * from now on is sure. */
static void note_damaged_segment(struct segment *segment)
{
    segment->is_damaged = true;
    segment->has_loss = true;
}

static int scan_segment(struct scanning *scanning, struct segment *segment)
{
    struct store *store = scanning->store;
    struct segment_scan scan = {
        .path = segment->path,
        .partition = segment->partition,
        .file = segment_unit_file(segment),
        .from = max_u64(segment->indexed_end, SEGMENT_DATA_OFFSET),
        .each = take_chunk,
        .context = scanning,
    };
    scanning->segment = segment;
    int result = segment_scan(store->io, store->log, &scan);
    scanning->found.sequence_last = max_u64(scanning->found.sequence_last, scan.sequence_max);
    if (result < 0 && !disk_is_lost(result))
        return result;
    if (result < 0 || scan.is_damaged) {
        note_damaged_segment(segment);
        segment->loss_offset = scan.damaged_from;
    }
    return 0;
}

static int scan_segments(struct store *store, struct segments_found *found)
{
    struct segments_stats stats;
    segments_stats(store->segments, &stats);
    assert(store->wal == NULL); /* the log comes after it */
    struct scanning scanning = {.store = store,
                                .found = *found,
                                .reported_ns = io_now_ns(store->io),
                                .segments = stats.segments};
    struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(store->segments, i)) != NULL; i++) {
        int result = scan_segment(&scanning, segment);
        if (result < 0)
            return result;
        report_progress(&scanning, i + 1);
    }
    hybrid_clock_see(&store->clock, scanning.clock_ceiling);
    *found = scanning.found;
    return 0;
}

/* ---- telling the manifest ---- */

struct telling {
    struct manifest_op op;
    int result;
    bool is_done;
};

static void told(struct manifest_op *op, int result)
{
    struct telling *telling = container_of(op, struct telling, op);
    telling->result = result;
    telling->is_done = true;
}

int store_tell_manifest(struct io *io, struct manifest *manifest, const struct manifest_edit *edits,
                        uint32_t count)
{
    struct telling telling = {.op.done = told};
    manifest_append(manifest, &telling.op, edits, count);
    while (!telling.is_done) {
        int result = io_run(io, UINT64_MAX);
        if (result < 0)
            return result;
    }
    return telling.result;
}

/* Writes all that is known into the manifest. */
static int tell_manifest(struct store *store)
{
    struct manifest_edit edits[TELL_MAX];
    bool is_more = true;
    int result = 0;
    for (uint64_t at = 0; is_more && result == 0;) {
        uint32_t count = 0;
        while (count < TELL_MAX && (is_more = store_show_state(store, at, &edits[count]))) {
            count++;
            at++;
        }
        assert(count <= TELL_MAX);
        result = store_tell_manifest(store->io, store->manifest, edits, count);
    }
    return result;
}

/* A loss is in doubt up to where the log was when it was found, in whichever life that was. */
static int judge_loss(struct store *store, struct segment *segment, uint64_t last_position)
{
    assert(segment->has_loss);
    bool is_accepted = store->options.accept_loss;
    bool is_told = segment->is_loss_told && (!is_accepted || segment->loss_position == 0);
    if (!is_told) {
        segment->loss_position = is_accepted ? 0 : max_u64(last_position, 1);
        segment->is_loss_told = true;
        struct manifest_edit edit = edit_of(store, segment, MANIFEST_DAMAGE);
        int result = store_tell_manifest(store->io, store->manifest, &edit, 1);
        if (result < 0)
            return result;
    }
    assert(segment->is_loss_told);
    uint64_t *damage = &store->damage.of_partition[segment->partition];
    *damage = max_u64(*damage, segment->loss_position);
    struct finding finding = {.kind = FINDING_SEGMENT,
                              .number = segment->number,
                              .offset = segment->loss_offset,
                              .is_lasting = true};
    if (segment->loss_position > 0)
        (void)findings_note(&store->findings, &finding, true);
    return 0;
}

int store_judge_losses(struct store *store, uint64_t last_position)
{
    uint64_t damaged = 0;
    uint64_t count = 0;
    struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(store->segments, i)) != NULL; i++) {
        if (!segment->has_loss)
            continue;
        damaged++;
        int result = judge_loss(store, segment, last_position);
        if (result < 0)
            return result;
        count += segment->loss_position > 0;
    }
    if (store->options.accept_loss && damaged > 0)
        log_warn(store->log, "-accept-loss: what %" PRIu64 " damaged segments held is given up",
                 damaged);
    if (count > 0)
        log_error(store->log,
                  "%" PRIu64 " partition segments have lost records: in their partitions, keys "
                  "answer CORRUPT until they are written again. Restore the directory from a "
                  "backup, or start once with -accept-loss to go on with what is left",
                  count);
    return 0;
}

/* ---- a manifest that is lost, as a whole or in part ---- */

struct adoption {
    struct store *store;
    uint32_t partition;
    uint64_t found;
};

/* What the manifest would have said of it is not known: all of it counts, and it may be as old as
 * can be. One of an older copy names segments that have grown since. */
static int adopt(void *context, const char *name)
{
    struct adoption *adoption = context;
    struct store *store = adoption->store;
    uint64_t number;
    if (segment_name_parse(name, &number) < 0)
        return 0;
    const struct segment *known = segments_find_number(store->segments, number);
    if (known != NULL && (known->partition != adoption->partition || !store_is_older(store)))
        return 0;
    adoption->found += known == NULL;
    char path[SEGMENT_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%02x/%s", store->options.path, adoption->partition, name);
    int64_t size = disk_wait_size(store->io, path);
    if (size < 0)
        return (int)size;
    struct manifest_edit edit = {
        .kind = MANIFEST_SEGMENT,
        .partition = (uint8_t)adoption->partition,
        .source = SEGMENT_FROM_LOG,
        .number = number,
        .end = max_u64(round_down((uint64_t)size, DISK_BLOCK_SIZE),
                       known != NULL ? known->end : SEGMENT_DATA_OFFSET),
    };
    return take_edit(store, &edit);
}

/* The operator has said so: nothing is taken for an orphan. */
static int adopt_segments(struct store *store)
{
    struct adoption adoption = {.store = store};
    if (!manifest_has_loss(store->manifest))
        return 0;
    assert(store->options.accept_loss);
    for (; adoption.partition < STORE_PARTITIONS; adoption.partition++) {
        if (!store_owns(store, adoption.partition))
            continue;
        int result = list_partition(store, adoption.partition, adopt, &adoption);
        if (result < 0)
            return result;
    }
    if (adoption.found == 0 && !manifest_is_new(store->manifest))
        return 0;
    log_warn(store->log,
             "-accept-loss: the manifest is built anew from the %" PRIu64 " segments that are "
             "there: keys that were deleted long ago may come back",
             adoption.found);
    return tell_manifest(store);
}

/* What an earlier start found lost stays lost, also where a checkpoint saves this one the reading.
 */
static void remember_losses(struct store *store)
{
    struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(store->segments, i)) != NULL; i++)
        if (segment->is_loss_told && segment->loss_position > 0)
            note_damaged_segment(segment);
}

int store_load_segments(struct store *store, const struct wal_note *note,
                        struct segments_found *ret_found)
{
    struct segments_found found = {0};
    assert(store->wal == NULL);
    assert(index_count(store->index) == 0);
    int result = open_manifest(store, note);
    if (result == 0)
        result = adopt_segments(store);
    if (result < 0)
        return result;
    index_set_bulk(store->index, true);
    remember_losses(store);
    result = load_checkpoint(store, &found);
    if (result == 0)
        result = scan_segments(store, &found);
    *ret_found = found;
    return result;
}
