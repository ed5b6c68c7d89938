/* Who is told what by whom: the one place where the store's parts are connected.
 *
 *     wal       -> store    durable, room, failed; asks whether waiting for space may help, and how
 *                           far the manifest has come
 *     manifest  -> store    asks for its whole state and for the log's position (load_segments.c)
 *     mover     -> store    failed, full, futile
 *     reserve   -> mover, store   released
 *     scrub     -> checkpoints, proofs
 *     lookups, proofs, dead, checkpoints: which parts they work on; who is told when one ends */
#include "store/start/start.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/catalog/superblock.h"

#include <string.h>

/* Sealed log files that stay in the log: what is overwritten meanwhile is never copied. */
#define LOG_KEEP_FILES 4u

/* Memory for what a job of the mover carries, of all shards and the least of one; its table comes
 * on top, half as much. A shard has its part of the partitions, so what a job writes to each is as
 * much. Where memory is short it is half of that: a job syncs all its files, however little it
 * writes to each. */
#define STAGE_SIZE_MAX (32 * MIB)
#define STAGE_SIZE_MIN (4 * MIB)
#define STAGE_SHORT 2u

/* For records that are being read and do not fit into a fetch's own buffer, of all shards and the
 * least of one; the largest record fits. */
#define FETCH_LARGE_MAX (128 * MIB)
#define FETCH_LARGE_MIN (1 * MIB)

/* Frames that are decoded while they arrive, of all shards and the least of one: each may have a
 * window of 8 MiB, beside which zstd has buffers. */
#define DECODE_STREAMS_MAX 8u
#define DECODE_STREAMS_MIN 2u
#define DECODE_STREAM_MEMORY (9 * MIB)

/* The rest: contexts for small frames and for compressing, tables of files and segments. */
#define OTHER_MEMORY (8 * MIB)

/* One read of the mover. */
#define MOVER_WINDOW (1 * MIB)

#define LOG_BUFFER_SIZE ((uint32_t)(256 * KIB))
#define LOG_BUFFER_COUNT 8u

/* ---- the region ---- */

static void fill_log_options(const struct store_options *options, struct wal_options *ret_options)
{
    *ret_options = (struct wal_options){
        .log_id = options->shard,
        .file_size = options->log_file_size,
        .buffer_size = LOG_BUFFER_SIZE,
        .buffer_count = LOG_BUFFER_COUNT,
        .record_size_max =
            RECORD_HEADER_SIZE + RECORD_ATTRIBUTES_MAX + UINT16_MAX + large_stored_max(options),
        .writes_in_flight = 2,
        .use_dsync = true,
        .durability = options->durability,
        .is_brief = options->is_brief,
    };
}

/* Where the part begins in the region; of REGION_PARTS, where the region ends. */
static uint64_t offset_of(const struct store_options *options, enum region_part part)
{
    struct wal_options log;
    fill_log_options(options, &log);
    const uint64_t sizes[REGION_PARTS] = {
        [REGION_LOOKUPS] = LOOKUPS_MAX * FETCH_BUFFER_SIZE,
        [REGION_PROOFS] = PROOFS_MAX * FETCH_BUFFER_SIZE,
        [REGION_LOG] = wal_memory_size(&log),
        [REGION_MANIFEST] = MANIFEST_MEMORY_SIZE,
        [REGION_MOVER] = MOVER_MEMORY_SIZE,
        [REGION_CHECKPOINT] = CHECKPOINT_MEMORY_SIZE,
        [REGION_SCRUB] = options->scrub_rate == SCRUB_OFF ? 0 : SCRUB_MEMORY_SIZE,
        [REGION_LARGE] = large_memory_size(options),
    };
    uint64_t offset = 0;
    for (uint32_t i = 0; i < part; i++)
        offset += round_up(sizes[i], DISK_BLOCK_SIZE);
    return offset;
}

size_t store_region_size(const struct store_options *options)
{
    return offset_of(options, REGION_PARTS);
}

/* At least one. */
static uint32_t parts_of(const struct store_options *options)
{
    return (uint32_t)max_u64(max_u64(options->parts, options->shard_count), 1);
}

static uint64_t stage_size_max(const struct store_options *options)
{
    uint64_t shards = max_u64(options->shard_count, 1);
    return share_u64(STAGE_SIZE_MAX, min_u64(parts_of(options), STAGE_SHORT * shards),
                     STAGE_SIZE_MIN);
}

static uint64_t fetch_large_max(const struct store_options *options)
{
    return share_u64(FETCH_LARGE_MAX, parts_of(options), FETCH_LARGE_MIN);
}

uint32_t store_decode_streams(const struct store_options *options)
{
    return (uint32_t)share_u64(DECODE_STREAMS_MAX, parts_of(options), DECODE_STREAMS_MIN);
}

uint64_t store_memory_max(const struct store_options *options)
{
    return store_region_size(options) + stage_size_max(options) / 2 * 3 + fetch_large_max(options) +
           store_decode_streams(options) * DECODE_STREAM_MEMORY + OTHER_MEMORY;
}

uint8_t *store_memory(const struct store *store, enum region_part part)
{
    assert(part < REGION_PARTS);
    return io_region(store->io) + offset_of(&store->options, part);
}

/* ---- the log ---- */

/* In the log's headers: an older manifest than that is not taken for the present one. */
static struct wal_note log_note(void *context)
{
    struct store *store = context;
    struct manifest_mark mark = manifest_tell(store->manifest);
    return (struct wal_note){mark.edition, mark.blocks};
}

static void log_durable(void *context, uint64_t position)
{
    struct store *store = context;
    store->options.events.durable(store->options.events.context, position);
}

/* Deletes make room in the end, so that they are not refused while the mover is at it. */
static bool log_may_clear(void *context)
{
    struct store *store = context;
    return store->mover != NULL &&
           (reserve_is_busy(&store->reserve) || segments_are_going(store->segments) ||
            mover_may_free(store->mover));
}

static void cannot_write(struct store *store, const char *what, int error)
{
    assert(error < 0);
    log_error(store->log,
              "the %s cannot be written: %s. Nothing is acknowledged any more; this process ends. "
              "Check the device and the kernel's messages, then start it again: what was "
              "acknowledged is on the disk",
              what, strerror(-error));
    store_fail(store, error);
}

static void log_failed(void *context, int error)
{
    cannot_write(context, "log", error);
}

void wire_log(const struct store *store, struct wal_options *ret_options)
{
    const struct superblock *superblock = &store->superblock.now;
    fill_log_options(&store->options, ret_options);
    ret_options->directory = store->log_directory;
    ret_options->directory_id = superblock->directory_id;
    ret_options->file_size = superblock->log_file_size;
    ret_options->writes_in_flight = superblock->writes_in_flight;
    ret_options->use_dsync = superblock->use_dsync;
    ret_options->base = superblock->log_base;
    ret_options->last_known = max_u64(superblock->log_last, store->log_last);
    if (store->options.handover != NULL)
        ret_options->last_known =
            max_u64(ret_options->last_known, store->options.handover->reached[superblock->shard]);
    ret_options->number_known = superblock->log_number;
    ret_options->memory = store_memory(store, REGION_LOG);
    ret_options->events = (struct wal_events){
        .context = (void *)store,
        .durable = log_durable,
        .room = store_made_room,
        .failed = log_failed,
        .may_clear = log_may_clear,
        .note = log_note,
    };
}

/* ---- the mover and the reserve ---- */

static void mover_failed(void *context, int error)
{
    cannot_write(context, "segments", error);
}

static void disk_full(void *context)
{
    struct store *store = context;
    reserve_release(&store->reserve);
    mover_set_tight(store->mover, true);
}

static void reserve_released(void *context)
{
    struct store *store = context;
    mover_wake(store->mover);
    store_made_room(store);
}

/* At most a 32nd of the disk for all shards, so that small disks have some use. */
static uint64_t reserve_size(const struct store *store, uint64_t stage_bytes)
{
    uint64_t free_size, total_size;
    uint64_t size = stage_bytes + stage_bytes / 4;
    if (io_disk_space(store->io, store->options.path, &free_size, &total_size) == 0)
        size = min_u64(size, total_size / 32 / store->options.shard_count);
    return max_u64(round_up(size, DISK_BLOCK_SIZE), RESERVE_SIZE_MIN);
}

static uint64_t stage_size(const struct store *store)
{
    const struct store_options *from = &store->options;
    uint64_t usual = min_u64(stage_size_max(from), 2 * store->superblock.now.log_file_size);
    return from->mover_stage != 0 ? min_u64(from->mover_stage, usual) : usual;
}

static int open_mover(struct store *store, const struct segments_found *found)
{
    const struct store_options *from = &store->options;
    uint64_t file_size = store->superblock.now.log_file_size;
    uint64_t stage_bytes = stage_size(store);
    uint64_t reserved = reserve_size(store, stage_bytes);
    assert(stage_bytes > 0);
    assert(reserved >= RESERVE_SIZE_MIN);
    struct mover_options options = {
        .path = from->path,
        .directory_id = store->superblock.now.directory_id,
        .log_id = from->shard,
        .shard_count = from->shard_count,
        .secret = store->superblock.now.secret,
        .wal = store->wal,
        .segments = store->segments,
        .manifest = store->manifest,
        .index = store->index,
        .doomed = store->doomed,
        .findings = &store->findings,
        .segment_size = file_size,
        .log_keep_bytes =
            from->log_keep_bytes != 0 ? from->log_keep_bytes : LOG_KEEP_FILES * file_size,
        .compact_min = from->compact_min != 0 ? from->compact_min : file_size,
        .stage_bytes = stage_bytes,
        .window_size = from->mover_window != 0 ? from->mover_window : MOVER_WINDOW,
        .tight_bytes = reserved - reserved / 4,
        .number_last = checkpoints_segment_last(&store->checkpoints),
        .sequence_last = found->sequence_last,
        .memory = store_memory(store, REGION_MOVER),
        .context = store,
        .failed = mover_failed,
        .full = disk_full,
        .futile = store_made_room,
        /* For a log file and two jobs, beside what the log leaves free. */
        .room_bytes = reserved + 2 * stage_bytes + file_size,
    };
    int result = mover_create(store->io, store->log, &options, &store->mover);
    if (result == 0)
        result = reserve_init(&store->reserve, store->io, store->log, store->state_path, reserved);
    store->reserve.released = reserve_released;
    store->reserve.context = store;
    wal_set_room_min(store->wal, reserved * from->shard_count);
    pace_init(&store->pace, store->io);
    return result;
}

static uint64_t tell_checkpoint(void *context)
{
    const struct store *store = context;
    return checkpoints_number(&store->checkpoints);
}

/* Without memory for it the next pass comes again. */
static void prove_hidden(void *context, uint8_t partition, uint64_t hash)
{
    struct store *store = context;
    struct key_place place = {.partition = partition, .hash = hash};
    (void)proofs_add_suspect(&store->proofs, place, false);
}

static void replace_checkpoint(void *context)
{
    struct store *store = context;
    checkpoints_renew(&store->checkpoints);
}

static int open_scrub(struct store *store)
{
    struct scrub_options options = {
        .path = store->options.path,
        .state_path = store->state_path,
        .directory_id = store->superblock.now.directory_id,
        .secret = store->superblock.now.secret,
        .wal = store->wal,
        .segments = store->segments,
        .index = store->index,
        .mover = store->mover,
        .superblock = &store->superblock,
        .manifest = store->manifest,
        .findings = &store->findings,
        .shard = store->options.shard,
        .shard_count = store->options.shard_count,
        .owner = {store, tell_checkpoint, prove_hidden, replace_checkpoint},
        .rate = store->options.scrub_rate,
        .memory = store_memory(store, REGION_SCRUB),
    };
    if (options.rate == SCRUB_OFF)
        return 0;
    return scrub_create(store->io, store->log, &options, &store->scrub);
}

/* ---- all of them ---- */

static void connect_requests(struct store *store)
{
    store->fetcher = (struct fetcher){.io = store->io,
                                      .log = store->log,
                                      .wal = store->wal,
                                      .segments = store->segments,
                                      .findings = &store->findings,
                                      .log_file_size = store->superblock.now.log_file_size,
                                      .large_bytes_max = fetch_large_max(&store->options)};
    store->dead.wal = store->wal;
    store->dead.segments = store->segments;
    store->dead.streams = store->streams;
    store->lookups.parts = (struct lookup_parts){.log = store->log,
                                                 .index = store->index,
                                                 .bloom = store->bloom,
                                                 .cache = store->cache,
                                                 .wal = store->wal,
                                                 .fetcher = &store->fetcher,
                                                 .decodes = &store->decodes,
                                                 .damage = &store->damage,
                                                 .context = store,
                                                 .ended = store_made_room};
    store->proofs.parts = (struct proof_parts){.secret = store->superblock.now.secret,
                                               .index = store->index,
                                               .doomed = store->doomed,
                                               .segments = store->segments,
                                               .wal = store->wal,
                                               .fetcher = &store->fetcher,
                                               .dead = &store->dead,
                                               .context = store,
                                               .ended = store_made_room};
}

int wire_parts(struct store *store, const struct segments_found *found)
{
    assert(store->wal != NULL);
    assert(store->manifest != NULL);
    assert(store->segments != NULL);
    assert(store->mover == NULL); /* nothing has moved: what was found is all that there is */
    connect_requests(store);
    int result = open_mover(store, found);
    store->checkpoints.parts = (struct checkpoint_parts){.index = store->index,
                                                         .wal = store->wal,
                                                         .segments = store->segments,
                                                         .manifest = store->manifest,
                                                         .mover = store->mover,
                                                         .reserve = &store->reserve,
                                                         .clock = &store->clock,
                                                         .moved = found->records,
                                                         .context = store,
                                                         .failed = store_fail};
    return result < 0 ? result : open_scrub(store);
}
