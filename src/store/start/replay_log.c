/* The log's part of recovery: every record of it, in no promised order, over what the segments gave
 * (load_segments.c). */
#include "store/start/start.h"

#include "base/assert.h"
#include "store/wal/wal_scan.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Records that are announced at once, and how much nearer one is when its cached entry is wanted.
 */
#define COMING_MAX 32u
#define COMING_NEAR 8u

static_assert(COMING_MAX >= WAL_SCAN_AHEAD, "what is announced is still known when it is shown");

/* A record that will be shown soon. */
struct coming {
    struct slice key;
    struct key_place place;
};

/* Of the log's records, with those that come next: of some of them the index's rows and the cache's
 * buckets are under way from memory, of the nearer ones the cached entry. */
struct replay {
    struct store *store;
    struct coming coming[COMING_MAX]; /* a ring */
    uint64_t announced;
    uint64_t shown;
};

static void announce(void *context, struct slice key)
{
    struct replay *replay = context;
    struct store *store = replay->store;
    assert(replay->announced - replay->shown <= COMING_MAX);
    if (replay->announced - replay->shown == COMING_MAX)
        replay->shown++;
    struct coming *coming = &replay->coming[replay->announced++ % COMING_MAX];
    *coming = (struct coming){key, store_place(store, key)};
    cache_prefetch(store->cache, coming->place.keyed);
    index_prefetch(store->index, coming->place.partition, coming->place.hash);
    if (replay->announced - replay->shown > COMING_NEAR) {
        struct key_place near =
            replay->coming[(replay->announced - 1 - COMING_NEAR) % COMING_MAX].place;
        cache_prefetch_entry(store->cache, near.keyed);
        index_prefetch_slots(store->index, near.partition, near.hash);
    }
}

/* Damage ends announcements too early, or leaves records out that were announced. */
static struct key_place place_of(struct replay *replay, struct slice key)
{
    assert(replay->shown <= replay->announced);
    while (replay->shown < replay->announced) {
        const struct coming *coming = &replay->coming[replay->shown++ % COMING_MAX];
        if (coming->key.data == key.data && coming->key.size == key.size)
            return coming->place;
    }
    return store_place(replay->store, key);
}

static void put_in_cache(struct store *store, struct key_place place, const struct record *record,
                         struct cache_entry *cached)
{
    if (!(record->flags & RECORD_ZSTD)) {
        (void)cache_put(store->cache, place.keyed, record->key, record->value,
                        record->flags & RECORD_TOMBSTONE, record->flags & RECORD_IN_VALUE_FILE,
                        record->version, record->position);
    } else if (cached != NULL) {
        cache_remove(store->cache, cached);
    }
}

/* A record of a key that is not cached. It may be in the index already, moved to a segment, or
 * stand beside another slot of its hash, which is sorted out later. */
static int replay_uncached(struct store *store, struct key_place place, const struct record *record,
                           const struct index_entry *entry)
{
    struct index_entry found;
    bool is_known =
        index_get(store->index, place.partition, place.hash, record->version, &found) == 0;
    struct index_entry newest;
    uint32_t count = index_find(store->index, place.partition, place.hash, &newest, 1);
    int result = is_known ? 0 : index_add(store->index, place.partition, place.hash, entry);
    if (result == 0 && !is_known && count > 0)
        result = proofs_suspect(&store->proofs, store->index, place, entry);
    bool is_newest = count == 0 || version_compare(record->version, newest.version) >= 0;
    if (result == 0 && is_newest)
        put_in_cache(store, place, record, NULL);
    return result;
}

static int replay_record(void *context, const struct record *record, uint64_t location)
{
    struct replay *replay = context;
    struct store *store = replay->store;
    assert(!location_is_segment(location));
    struct key_place place = place_of(replay, record->key);
    const char *remedy =
        wal_judge_record(record, place.partition, store->options.shard, store->options.shard_count);
    if (remedy != NULL) {
        log_error(store->log, "%s has a record of position %" PRIu64 " %s", store->log_directory,
                  record->position, remedy);
        return -EBADMSG;
    }
    struct index_entry entry = {
        .version = record->version,
        .location = location,
        .read_size = index_read_size(record_size(record)),
        .tombstone = record->flags & RECORD_TOMBSTONE,
        .in_value_file = record->flags & RECORD_IN_VALUE_FILE,
    };
    struct cache_entry *cached = cache_find(store->cache, place.keyed, record->key);
    if (cached == NULL)
        return replay_uncached(store, place, record, &entry);
    if (version_compare(record->version, cached->version) <= 0)
        return 0;
    int result =
        index_replace(store->index, place.partition, place.hash, cached->version, &entry, NULL);
    assert(result == 0);
    put_in_cache(store, place, record, cached);
    return 0;
}

static void note_damage(struct store *store, const struct wal_recovered *recovered)
{
    struct superblock *superblock = &store->superblock.now;
    struct finding loss = {.kind = FINDING_LOG, .offset = UINT64_MAX, .is_lasting = true};
    if (store_is_older(store)) /* said before; how much is gone nobody can tell */
        (void)findings_note(&store->findings, &loss, true);
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
    store->damage.log_last = recovered->damaged_last;
    (void)findings_note(&store->findings, &loss, true);
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

int store_replay_log(struct store *store, const struct wal_options *options,
                     const struct segments_found *found, struct wal_files **ret_files)
{
    assert(store->wal == NULL);
    struct wal_recovered recovered;
    struct replay replay = {.store = store};
    struct wal_options announcing = *options;
    announcing.events = (struct wal_events){.context = &replay, .coming = announce};
    int result = wal_recover(store->io, store->log, &announcing, replay_record, &replay, &recovered,
                             ret_files);
    if (result < 0)
        return result;
    hybrid_clock_see(&store->clock, recovered.clock_ceiling);
    note_damage(store, &recovered);
    result = store_judge_losses(store, recovered.last_position);
    if (result < 0) {
        wal_files_abandon(store->io, *ret_files);
        return result;
    }
    log_info(store->log,
             "recovered %" PRIu64 " keys from %" PRIu64 " records in %" PRIu64
             " log files (%" PRIu64 " bytes read, %" PRIu64
             " bytes of an unacknowledged tail dropped) and %" PRIu64
             " records in segments newer than the index checkpoint",
             store_key_count(store), recovered.records, recovered.files, recovered.bytes_read,
             recovered.dropped_bytes, found->records);
    return 0;
}
