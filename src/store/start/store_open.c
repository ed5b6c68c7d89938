/* Opening and closing a store: superblock -> probe -> recovery -> log; and back. */
#include "store/disk/filesystem.h"
#include "store/store_internal.h"
#include "store/store_large.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_BUFFER_SIZE ((uint32_t)(256 * KIB))
#define LOG_BUFFER_COUNT 8u

/* Sealed log files that stay in the log: what is overwritten meanwhile is never copied. */
#define LOG_KEEP_SEGMENTS 4u

/* How long background work may oversleep on an idle server. */
#define HEARTBEAT_NS NS_PER_S

/* Of the cache's budget, for marks of what is dead but has its slot still: 8 bytes each. */
#define DOOMED_SHARE 32u

/* Memory for what a job of the mover carries, of all shards and the least of one; its table comes
 * on top. A shard has its part of the partitions, so what a job writes to each is as much. */
#define STAGE_SIZE_MAX (32 * MIB)
#define STAGE_SIZE_MIN (4 * MIB)

/* For records that are being read and do not fit into a fetch's own buffer, of all shards and the
 * least of one; the largest record fits. */
#define FETCH_LARGE_MAX (128 * MIB)
#define FETCH_LARGE_MIN (1 * MIB)

/* Frames that are decoded while they arrive, of all shards and the least of one: each may have a
 * window of 8 MiB. */
#define DECODE_STREAMS_MAX 8u
#define DECODE_STREAMS_MIN 2u

/* One read of the mover. */
#define MOVER_WINDOW (1 * MIB)

/* Partition segments open at once, for reading. */
#define SEGMENTS_OPEN_MAX 2000u

/* The log's files: what it keeps, spares, and what waits to be moved. */
#define LOG_FILES_MAX 192u

/* Large values that were ended and are still closing their files. Should there be more of them, who
 * begins one is told to try again. */
#define STREAMS_CLOSING_MAX 256u

/* The superblock, the manifest and its successor, an index checkpoint, the reserve, what the
 * scrubber reads, files that are being closed. */
#define OTHER_FILES_MAX 64u

/* Everything that a store has open at once. */
#define FILES_MAX                                                                                  \
    (SEGMENTS_OPEN_MAX + MOVER_OUTPUTS_MAX + MOVER_FOLDERS_MAX + STORE_STREAMS_MAX +               \
     STREAMS_CLOSING_MAX + STREAM_FOLDERS_MAX + LOG_FILES_MAX + OTHER_FILES_MAX)

static_assert(FILES_MAX <= 4096, "docs/operations.md says so: the rest are for connections");

static uint64_t fetch_memory_size(void)
{
    return (LOOKUPS_MAX + PROOFS_MAX) * FETCH_BUFFER_SIZE;
}

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

/* The region's slices, one behind the other. */
struct layout {
    uint64_t fetches, log, manifest, mover, checkpoint, scrub, large;
    uint64_t size;
};

static struct layout lay_out(const struct store_options *options)
{
    struct wal_options log;
    fill_log_options(options, &log);
    struct layout layout = {.fetches = 0};
    layout.log = layout.fetches + fetch_memory_size();
    layout.manifest = layout.log + round_up(wal_memory_size(&log), DISK_BLOCK_SIZE);
    layout.mover = layout.manifest + MANIFEST_MEMORY_SIZE;
    layout.checkpoint = layout.mover + MOVER_MEMORY_SIZE;
    layout.scrub = layout.checkpoint + CHECKPOINT_MEMORY_SIZE;
    layout.large = layout.scrub + (options->scrub_rate == SCRUB_OFF ? 0 : SCRUB_MEMORY_SIZE);
    layout.size = layout.large + large_memory_size(options);
    return layout;
}

size_t store_region_size(const struct store_options *options)
{
    return lay_out(options).size;
}

uint32_t store_files_max(void)
{
    return FILES_MAX;
}

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

static void log_room(void *context)
{
    store_made_room(context);
}

/* Deletes make room in the end, so that they are not refused while the mover is at it. */
static bool log_may_clear(void *context)
{
    struct store *store = context;
    return store->mover != NULL &&
           (reserve_is_busy(&store->reserve) || segments_are_going(store->segments) ||
            mover_may_free(store->mover));
}

static void log_failed(void *context, int error)
{
    struct store *store = context;
    log_error(store->log,
              "the log cannot be written: %s. Nothing is acknowledged any more; this process ends. "
              "Check the "
              "device and the kernel's messages, then start it again: what was acknowledged is on "
              "the disk",
              strerror(error < 0 ? -error : error));
    store_fail(store, error);
}

static void log_options(const struct store *store, const char *directory,
                        struct wal_options *ret_options)
{
    const struct superblock *superblock = &store->superblock.now;
    fill_log_options(&store->options, ret_options);
    ret_options->directory = directory;
    ret_options->directory_id = superblock->directory_id;
    ret_options->file_size = superblock->log_file_size;
    ret_options->writes_in_flight = superblock->writes_in_flight;
    ret_options->use_dsync = superblock->use_dsync;
    ret_options->base = superblock->log_base;
    ret_options->last_known = max_u64(superblock->log_last, store->recovered.log_last);
    ret_options->number_known = superblock->log_number;
    ret_options->memory = io_region(store->io) + lay_out(&store->options).log;
    ret_options->events = (struct wal_events){
        .context = (void *)store,
        .durable = log_durable,
        .room = log_room,
        .failed = log_failed,
        .may_clear = log_may_clear,
        .note = log_note,
    };
}

/* ---- the ladder ---- */

static int create_slots(struct store *store)
{
    uint8_t *buffer = io_region(store->io);
    list_init(&store->lookups_free);
    list_init(&store->proofs_free);
    store->lookups = calloc(LOOKUPS_MAX, sizeof *store->lookups);
    store->proofs = calloc(PROOFS_MAX, sizeof *store->proofs);
    if (store->lookups == NULL || store->proofs == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < LOOKUPS_MAX; i++, buffer += FETCH_BUFFER_SIZE) {
        store->lookups[i].fetch.buffer = buffer;
        list_push_back(&store->lookups_free, &store->lookups[i].node);
    }
    for (uint32_t i = 0; i < PROOFS_MAX; i++, buffer += FETCH_BUFFER_SIZE) {
        store->proofs[i].fetch.buffer = buffer;
        list_push_back(&store->proofs_free, &store->proofs[i].node);
    }
    return 0;
}

static int init_squeeze(struct store *store)
{
    uint64_t seed;
    io_random(store->io, &seed, sizeof seed);
    return squeeze_init(&store->squeeze, store->options.value_file_min, seed);
}

static int init_decodes(struct store *store)
{
    uint64_t streams =
        share_u64(DECODE_STREAMS_MAX, store->options.shard_count, DECODE_STREAMS_MIN);
    return decode_queue_init(&store->decodes, (uint32_t)streams);
}

static int create_memory(struct store *store)
{
    uint64_t doomed_size = store->options.cache_size / DOOMED_SHARE;
    int result =
        cache_create(store->options.cache_size - doomed_memory(doomed_size), &store->cache);
    if (result == 0)
        result = doomed_create(doomed_size, store->superblock.now.secret, &store->doomed);
    if (result == 0)
        result = index_create(0, &store->index);
    if (result == 0)
        result = bloom_create(&store->bloom);
    if (result == 0)
        result = init_squeeze(store);
    if (result == 0)
        result = init_decodes(store);
    if (result == 0)
        result = create_slots(store);
    if (result == 0)
        result = large_open(store, io_region(store->io) + lay_out(&store->options).large);
    if (result < 0)
        log_error(store->log, "not enough memory for a cache of %" PRIu64 " MiB: lower -cache",
                  store->options.cache_size / MIB);
    return result;
}

static int probe(struct store *store)
{
    bool is_wanted = store->options.probe && store->options.directory == NULL;
    if (store->superblock.now.probed && !is_wanted)
        return 0;
    return store_probe(store->io, store->log, store->log_directory, &store->superblock.now);
}

static int open_segments(struct store *store)
{
    uint8_t *region = io_region(store->io);
    struct layout layout = lay_out(&store->options);
    store->checkpoint_memory = region + layout.checkpoint;
    struct segments_options options = {
        .path = store->options.path,
        .directory_id = store->superblock.now.directory_id,
        .log_id = store->options.shard,
        .open_max = SEGMENTS_OPEN_MAX,
    };
    struct wal_options log;
    log_options(store, store->log_directory, &log);
    struct wal_note note;
    int result = wal_recover_note(store->io, &log, &note);
    if (result == 0)
        result = segments_create(store->io, store->log, &options, &store->segments);
    if (result == 0)
        result = store_open_manifest(store, &note, region + layout.manifest);
    return result < 0 ? result : store_recover_segments(store);
}

static void mover_failed(void *context, int error)
{
    struct store *store = context;
    log_error(store->log,
              "the segments cannot be written: %s. Nothing is acknowledged any more; this process "
              "ends. Check the device and the kernel's messages, then start it again: what was "
              "acknowledged is on the disk",
              strerror(-error));
    store_fail(store, error);
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

static void mover_futile(void *context)
{
    store_made_room(context);
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

static void start_heartbeat(struct store *store);

static void beat(struct io_op *op, int32_t result)
{
    struct store *store = container_of(op, struct store, heartbeat);
    if (result == 0 && !store->is_shutting)
        start_heartbeat(store);
}

/* The pass that it wakes ends in store_flush. */
static void start_heartbeat(struct store *store)
{
    store->heartbeat.done = beat;
    io_timer(store->io, &store->heartbeat, io_now_ns(store->io) + HEARTBEAT_NS);
}

static uint64_t stage_size(const struct store *store)
{
    const struct store_options *from = &store->options;
    uint64_t usual = min_u64(share_u64(STAGE_SIZE_MAX, from->shard_count, STAGE_SIZE_MIN),
                             2 * store->superblock.now.log_file_size);
    return from->mover_stage != 0 ? min_u64(from->mover_stage, usual) : usual;
}

static int open_mover(struct store *store)
{
    const struct store_options *from = &store->options;
    uint64_t stage_bytes = stage_size(store);
    uint64_t reserved = reserve_size(store, stage_bytes);
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
        .segment_size = store->superblock.now.log_file_size,
        .log_keep_bytes = from->log_keep_bytes != 0
                              ? from->log_keep_bytes
                              : LOG_KEEP_SEGMENTS * store->superblock.now.log_file_size,
        .compact_min =
            from->compact_min != 0 ? from->compact_min : store->superblock.now.log_file_size,
        .stage_bytes = stage_bytes,
        .window_size = from->mover_window != 0 ? from->mover_window : MOVER_WINDOW,
        .tight_bytes = reserved - reserved / 4,
        .number_last = store->recovered.number_last,
        .sequence_last = store->recovered.sequence_last,
        .memory = io_region(store->io) + lay_out(from).mover,
        .context = store,
        .failed = mover_failed,
        .full = disk_full,
        .futile = mover_futile,
        /* For a log file and two jobs, beside what the log leaves free. */
        .room_bytes = reserved + 2 * stage_bytes + store->superblock.now.log_file_size,
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
    return store->checkpoint_number;
}

/* Without memory for it the next pass comes again. */
static void prove_hidden(void *context, uint8_t partition, uint64_t hash)
{
    (void)store_add_suspect(context, (struct key_place){.partition = partition, .hash = hash},
                            false);
}

static void replace_checkpoint(void *context)
{
    struct store *store = context;
    store->is_checkpoint_wanted = true;
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
        .shard = store->options.shard,
        .shard_count = store->options.shard_count,
        .owner = {store, tell_checkpoint, prove_hidden, replace_checkpoint},
        .rate = store->options.scrub_rate,
        .memory = io_region(store->io) + lay_out(&store->options).scrub,
    };
    if (options.rate == SCRUB_OFF)
        return 0;
    return scrub_create(store->io, store->log, &options, &store->scrub);
}

static int open_log(struct store *store, const char *directory)
{
    struct wal_options options;
    log_options(store, directory, &options);
    struct wal_state *state;
    int result = store_replay_log(store, &options, &state);
    if (result < 0)
        return result;
    result = store_survey(store, state);
    store->superblock.now.clean = false;
    if (result == 0)
        result = superblock_update(&store->superblock);
    if (result < 0) {
        wal_state_free(store->io, state);
        return result;
    }
    result = wal_open(store->io, store->log, &options, state, &store->wal);
    store->fetcher = (struct fetcher){
        .io = store->io,
        .log = store->log,
        .wal = store->wal,
        .segments = store->segments,
        .segment_size = options.file_size,
        .large_bytes_max = share_u64(FETCH_LARGE_MAX, store->options.shard_count, FETCH_LARGE_MIN)};
    return result;
}

static int open_all(struct store *store)
{
    if (store->options.directory == NULL) /* otherwise it was told before */
        filesystem_warn(store->io, store->log, store->options.path);
    store->recovered.number_last = store->superblock.now.segment_base;
    int result = create_memory(store);
    if (result == 0)
        result = store_make_folders(store);
    if (result == 0)
        result = probe(store);
    if (result == 0)
        result = open_segments(store);
    if (result == 0)
        result = open_log(store, store->log_directory);
    if (result == 0)
        result = open_mover(store);
    if (result == 0)
        result = open_scrub(store);
    if (result == 0)
        result = store_match_files(store);
    return result;
}

int store_open(struct io *io, const struct log *log, const struct store_options *options,
               struct store **ret_store)
{
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return -ENOMEM;
    store->io = io;
    store->log = log;
    store->options = *options;
    store->options.shard_count = (uint32_t)max_u64(options->shard_count, 1);
    assert(options->shard < store->options.shard_count);
    store->superblock.handle = -1;
    list_init(&store->checkpoint_removals);
    int result = store_name_paths(store);
    if (result == 0)
        result = store_open_superblock(store);
    if (result < 0) {
        superblock_close(&store->superblock);
        free(store);
        return result;
    }
    store->origin =
        (uint32_t)((store->superblock.now.directory_id & 0xFFFFFF) << 8 | options->shard);
    result = open_all(store);
    if (result < 0) {
        filesystem_explain(io, log, options->path, result);
        log_error(log, "cannot open the data directory %s: %s", options->path, strerror(-result));
        superblock_close(&store->superblock);
        store_free(store);
        return result;
    }
    start_heartbeat(store);
    *ret_store = store;
    return 0;
}
