/* Opening and closing a store: superblock -> probe -> recovery -> log; and back. */
#include "store/probe.h"
#include "store/store_internal.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_DIRECTORY "log"
#define LOG_BUFFER_SIZE ((uint32_t)(256 * KIB))
#define LOG_BUFFER_COUNT 8u

static uint64_t fetch_memory_size(void)
{
    return (LOOKUPS_MAX + PROOFS_MAX) * FETCH_BUFFER_SIZE;
}

static void fill_log_options(const struct store_options *options, struct wal_options *ret_options)
{
    *ret_options = (struct wal_options){
        .log_id = options->shard,
        .segment_size = options->segment_size,
        .buffer_size = LOG_BUFFER_SIZE,
        .buffer_count = LOG_BUFFER_COUNT,
        .record_size_max = (uint32_t)record_size(UINT16_MAX, options->value_size_max),
        .writes_in_flight = 2,
        .use_dsync = true,
        .durability = options->durability,
    };
}

size_t store_region_size(const struct store_options *options)
{
    struct wal_options log;
    fill_log_options(options, &log);
    return round_up(wal_memory_size(&log), DISK_BLOCK_SIZE) + fetch_memory_size();
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
    ret_options->segment_size = superblock->segment_size;
    ret_options->writes_in_flight = superblock->writes_in_flight;
    ret_options->use_dsync = superblock->use_dsync;
    ret_options->memory = io_region(store->io) + fetch_memory_size();
    ret_options->events = (struct wal_events){
        .context = (void *)store, .durable = log_durable, .room = log_room, .failed = log_failed};
}

/* ---- recovery: every record of the log, in no promised order ---- */

static int add_suspect(struct store *store, struct place place)
{
    if (store->suspect_count == store->suspect_capacity) {
        uint64_t capacity = max_u64(1024, 2 * store->suspect_capacity);
        struct suspect *grown = realloc(store->suspects, capacity * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        store->suspects = grown;
        store->suspect_capacity = capacity;
    }
    store->suspects[store->suspect_count++] = (struct suspect){place};
    return 0;
}

struct replay {
    struct store *store;
    struct wal_state *state; /* set once recovery is over */
    uint64_t dead_count;
    struct dead {
        wal_location location;
    } * dead; /* found dead while recovery runs */
    uint64_t dead_capacity;
};

static int remember_dead(struct replay *replay, wal_location location)
{
    if (replay->dead_count == replay->dead_capacity) {
        uint64_t capacity = max_u64(1024, 2 * replay->dead_capacity);
        struct dead *grown = realloc(replay->dead, capacity * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        replay->dead = grown;
        replay->dead_capacity = capacity;
    }
    replay->dead[replay->dead_count++].location = location;
    return 0;
}

static void keep_in_cache(struct store *store, struct place place, const struct record *record,
                          wal_location location, struct cache_entry *cached)
{
    if (!(record->flags & RECORD_ZSTD)) {
        (void)cache_put(store->cache, place.hash, record->key, record->value,
                        record->flags & RECORD_TOMBSTONE, record->version, record->position,
                        location);
    } else if (cached != NULL) {
        cache_remove(store->cache, cached);
    }
}

static int replay_record(void *context, const struct record *record, wal_location location)
{
    struct replay *replay = context;
    struct store *store = replay->store;
    struct place place = store_place(store, record->key);
    struct index_entry entry = {
        .version = record->version,
        .location = location,
        .read_size = index_read_size(record_size(record->key.size, record->value.size)),
        .tombstone = record->flags & RECORD_TOMBSTONE,
    };
    struct cache_entry *cached = cache_find(store->cache, place.hash, record->key);
    if (cached != NULL) {
        if (version_compare(record->version, cached->version) <= 0)
            return remember_dead(replay, location);
        wal_location old = cached->location;
        int result = index_replace(store->index, place.partition, place.hash, old, &entry);
        assert(result == 0);
        keep_in_cache(store, place, record, location, cached);
        return remember_dead(replay, old);
    }
    struct index_entry newest;
    uint32_t count = index_find(store->index, place.partition, place.hash, &newest, 1);
    int result = index_add(store->index, place.partition, place.hash, &entry);
    if (result == 0 && count > 0)
        result = add_suspect(store, place);
    if (result == 0 && (count == 0 || version_compare(record->version, newest.version) > 0))
        keep_in_cache(store, place, record, location, NULL);
    return result;
}

static void note_damage(struct store *store, const struct wal_recovered *recovered)
{
    struct superblock *superblock = &store->superblock.now;
    if (recovered->damaged_last <= superblock->damage_accepted)
        return;
    if (store->options.accept_loss) {
        superblock->damage_accepted = recovered->damaged_last;
        log_warn(store->log,
                 "-accept-loss: the loss of writes up to log position %" PRIu64
                 " is accepted; keys answer with "
                 "what is left of them",
                 recovered->damaged_last);
        return;
    }
    store->damage_last = recovered->damaged_last;
    log_error(store->log,
              "acknowledged writes are lost: %" PRIu64
              " damaged places in the log, up to position %" PRIu64
              ". Keys that were written later are served; for all others, absent ones too, the "
              "answer is CORRUPT, "
              "since a lost write may have been theirs. Restore the directory from a backup, or "
              "start once with "
              "-accept-loss to go on with what is left",
              recovered->damaged_batches, recovered->damaged_last);
}

static int recover(struct store *store, const struct wal_options *options,
                   struct wal_state **ret_state)
{
    struct replay replay = {.store = store};
    struct wal_recovered recovered;
    int result =
        wal_recover(store->io, store->log, options, replay_record, &replay, &recovered, ret_state);
    if (result == 0) {
        for (uint64_t i = 0; i < replay.dead_count; i++)
            wal_state_record_dead(*ret_state, replay.dead[i].location);
        hybrid_clock_init(&store->clock,
                          max_u64(recovered.clock_ceiling, store->superblock.now.clock_ceiling));
        note_damage(store, &recovered);
        log_info(store->log,
                 "recovered %" PRIu64 " keys from %" PRIu64 " records in %" PRIu64
                 " log segments (%" PRIu64 " bytes read, %" PRIu64
                 " bytes of an unacknowledged tail dropped)",
                 index_count(store->index) - index_tombstones(store->index), recovered.records,
                 recovered.segments, recovered.bytes_read, recovered.dropped_bytes);
    }
    free(replay.dead);
    return result;
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

static int create_memory(struct store *store)
{
    int result = cache_create(store->options.cache_size, &store->cache);
    if (result == 0)
        result = index_create(0, &store->index);
    if (result == 0)
        result = decode_queue_init(&store->decodes);
    if (result == 0)
        result = create_slots(store);
    if (result < 0)
        log_error(store->log, "not enough memory for a cache of %" PRIu64 " MiB: lower -cache",
                  store->options.cache_size / MIB);
    return result;
}

static int make_log_directory(struct store *store, const char *directory)
{
    int result = io_make_directory(store->io, directory);
    struct io_op op = {0};
    if (result == 0) {
        io_open_file(store->io, &op, store->options.path, IO_OPEN_DIRECTORY);
        result = io_wait(store->io, &op);
    }
    if (result < 0)
        return result;
    int handle = result;
    io_sync(store->io, &op, handle);
    result = io_wait(store->io, &op);
    io_close_file(store->io, &op, handle);
    (void)io_wait(store->io, &op);
    return result < 0 ? result : 0;
}

static int probe(struct store *store, const char *directory)
{
    struct superblock *superblock = &store->superblock.now;
    if (superblock->probed && !store->options.probe)
        return 0;
    struct probe_result found;
    int result = probe_device(store->io, store->log, directory, io_region(store->io), &found);
    if (result < 0)
        return result;
    superblock->probed = true;
    superblock->use_dsync = found.use_dsync;
    superblock->writes_in_flight = found.writes_in_flight;
    log_info(store->log,
             "probed the device: 4 KiB durable in %" PRIu32 " us with RWF_DSYNC, %" PRIu32
             " us with fdatasync; the log uses %s, %d in flight",
             found.dsync_us, found.fdatasync_us, found.use_dsync ? "RWF_DSYNC" : "fdatasync",
             found.writes_in_flight);
    return 0;
}

static int open_log(struct store *store, const char *directory)
{
    struct wal_options options;
    log_options(store, directory, &options);
    struct wal_state *state;
    int result = recover(store, &options, &state);
    if (result < 0)
        return result;
    store->superblock.now.clean = false;
    result = superblock_update(&store->superblock);
    if (result < 0) {
        wal_state_free(store->io, state);
        return result;
    }
    result = wal_open(store->io, store->log, &options, state, &store->wal);
    store->fetcher = (struct fetcher){.io = store->io,
                                      .log = store->log,
                                      .wal = store->wal,
                                      .segment_size = options.segment_size};
    return result;
}

static int open_all(struct store *store)
{
    char *directory = store->log_directory;
    size_t size = sizeof store->log_directory;
    int length = snprintf(directory, size, "%s/%s", store->options.path, LOG_DIRECTORY);
    if (length < 0 || (size_t)length >= size)
        return -ENAMETOOLONG;
    int result = create_memory(store);
    if (result == 0)
        result = make_log_directory(store, directory);
    if (result == 0)
        result = probe(store, directory);
    if (result == 0)
        result = open_log(store, directory);
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
    bool formatted;
    int result = superblock_open(io, log, options->path, options->segment_size,
                                 options->lock_wait_ns, &store->superblock, &formatted);
    if (result < 0) {
        free(store);
        return result;
    }
    store->origin =
        (uint32_t)((store->superblock.now.directory_id & 0xFFFFFF) << 8 | options->shard);
    result = open_all(store);
    if (result < 0) {
        log_error(log, "cannot open the data directory %s: %s", options->path, strerror(-result));
        superblock_close(&store->superblock);
        store_free(store);
        return result;
    }
    *ret_store = store;
    return 0;
}

int store_shut(struct store *store)
{
    /* Proofs and look-ups that still wait for the disk end by themselves. */
    int result = 0;
    while (result >= 0 && store->lookups_active + store->proofs_active > 0) {
        (void)store_flush(store);
        result = io_run(store->io, NS_PER_MS);
    }
    if (result >= 0)
        result = wal_shut(store->wal);
    if (result >= 0) {
        store->superblock.now.clean = true;
        store->superblock.now.clock_ceiling = store->clock.last;
        result = superblock_update(&store->superblock);
    }
    superblock_close(&store->superblock);
    return result < 0 ? result : 0;
}

static void free_slots(struct store *store)
{
    for (uint32_t i = 0; store->lookups != NULL && i < LOOKUPS_MAX; i++) {
        free(store->lookups[i].fetch.large);
        kept_key_clear(&store->lookups[i].key);
    }
    for (uint32_t i = 0; store->proofs != NULL && i < PROOFS_MAX; i++) {
        free(store->proofs[i].fetch.large);
        kept_key_clear(&store->proofs[i].key);
    }
    free(store->lookups);
    free(store->proofs);
}

void store_free(struct store *store)
{
    if (store == NULL)
        return;
    if (store->wal != NULL)
        wal_free(store->wal);
    if (store->decodes.running.head.next != NULL)
        decode_queue_deinit(&store->decodes);
    free_slots(store);
    if (store->index != NULL)
        index_free(store->index);
    if (store->cache != NULL)
        cache_free(store->cache);
    free(store->suspects);
    free(store->superblock.block); /* left by a store that was not shut */
    free(store);
}
