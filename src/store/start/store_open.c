/* Opening and closing a store: superblock -> probe -> recovery -> log; and back. */
#include "store/disk/filesystem.h"
#include "store/start/emptying.h"
#include "store/start/start.h"
#include "store/store_keys.h"
#include "store/store_large.h"
#include "store/value/stream_pool.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long background work may oversleep on an idle server. */
#define HEARTBEAT_NS NS_PER_S

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

uint32_t store_files_max(void)
{
    return FILES_MAX;
}

/* ---- the ladder ---- */

static int create_streams(struct store *store)
{
    uint32_t count = (uint32_t)(large_memory_size(&store->options) / VALUE_FILE_BUFFER_SIZE);
    uint8_t *memory = store_memory(store, REGION_LARGE);
    return stream_pool_create(store->io, store->log, store->options.path, memory, count,
                              &store->streams);
}

static int init_squeeze(struct store *store)
{
    uint64_t seed;
    io_random(store->io, &seed, sizeof seed);
    return squeeze_init(&store->squeeze, store->options.value_file_min, seed);
}

static int init_decodes(struct store *store)
{
    return decode_queue_init(&store->decodes, store_decode_streams(&store->options));
}

static int create_memory(struct store *store)
{
    int result = findings_init(&store->findings, store->log);
    if (result == 0)
        result = store_create_index(store);
    if (result == 0)
        result = bloom_create(&store->bloom);
    if (result == 0)
        result = init_squeeze(store);
    if (result == 0)
        result = init_decodes(store);
    if (result == 0)
        result = lookups_init(&store->lookups, store_memory(store, REGION_LOOKUPS));
    if (result == 0)
        result = proofs_init(&store->proofs, store_memory(store, REGION_PROOFS));
    if (result == 0)
        result = create_streams(store);
    if (result < 0)
        log_error(
            store->log,
            "not enough memory to begin with: give this process more, or lower -cache or -shards");
    return result;
}

static int probe(struct store *store)
{
    bool is_wanted = store->options.probe && store->options.handover == NULL;
    if (store->superblock.now.probed && !is_wanted)
        return 0;
    return store_probe(store->io, store->log, store->log_directory, &store->superblock.now);
}

static int open_segments(struct store *store, struct segments_found *ret_found)
{
    struct segments_options options = {
        .path = store->options.path,
        .directory_id = store->superblock.now.directory_id,
        .log_id = store->options.shard,
        .open_max = SEGMENTS_OPEN_MAX,
    };
    struct wal_options log;
    wire_log(store, &log);
    struct wal_note note;
    int result = wal_recover_note(store->io, store->log, &log, &note);
    if (result == 0)
        result = segments_create(store->io, store->log, &options, &store->segments);
    return result < 0 ? result : store_load_segments(store, &note, ret_found);
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

static int open_log(struct store *store, const struct segments_found *found)
{
    struct wal_options options;
    wire_log(store, &options);
    struct wal_files *files;
    int result = store_replay_log(store, &options, found, &files);
    if (result < 0)
        return result;
    assert(store->mover == NULL); /* nothing moves meanwhile */
    result = store_survey(store, files);
    store->superblock.now.clean = false;
    if (result == 0)
        result = superblock_update(&store->superblock);
    if (result < 0) {
        (void)filesystem_cannot(store->log, "note this start in", store->state_path, result);
        wal_files_abandon(store->io, files);
        return result;
    }
    return wal_open(store->io, store->log, &options, files, &store->wal);
}

static void init_checkpoints(struct store *store)
{
    struct checkpoints_options options = {
        .path = store->options.path,
        .state_path = store->state_path,
        .directory_id = store->superblock.now.directory_id,
        .shard = store->options.shard,
        .shard_count = store->options.shard_count,
        .moved_min = store->options.checkpoint_min,
        .memory = store_memory(store, REGION_CHECKPOINT),
    };
    checkpoints_init(&store->checkpoints, store->io, store->log, &options);
    checkpoints_take_segment(&store->checkpoints, store->superblock.now.segment_base);
}

static int open_all(struct store *store)
{
    if (store->options.handover == NULL) /* otherwise it was told before */
        filesystem_warn(store->io, store->log, store->options.path);
    init_checkpoints(store);
    hybrid_clock_init(&store->clock, store->superblock.now.clock_ceiling);
    struct segments_found found;
    int result = create_memory(store);
    if (result == 0)
        result = store_make_folders(store);
    if (result == 0)
        result = presence_begin(&store->presence, store->io, store->log, store->options.path,
                                store->log_directory);
    if (result == 0)
        result = probe(store);
    if (result == 0)
        result = open_segments(store, &found);
    if (result == 0)
        result = store_create_cache(store);
    if (result == 0)
        result = open_log(store, &found);
    if (result == 0)
        result = wire_parts(store, &found);
    return result < 0 ? result : store_match_files(store);
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
    store->refusals = (struct refusals){.io = io, .log = log, .path = options->path};
    store->options.shard_count = (uint32_t)max_u64(options->shard_count, 1);
    store->options.parts = (uint32_t)max_u64(options->parts, store->options.shard_count);
    assert(options->shard < store->options.shard_count);
    store->superblock.handle = -1;
    dead_init(&store->dead);
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
        (void)filesystem_cannot(log, "open the data directory", options->path, result);
        superblock_close(&store->superblock);
        store_free(store);
        return result;
    }
    store_warn_of_keys(store);
    start_heartbeat(store);
    assert(store->presence.io != NULL);
    *ret_store = store;
    return 0;
}
