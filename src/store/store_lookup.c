/* A get that the cache could not answer: candidates from the index, newest first, until the key is
 * equal. */
#include "store/store_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>

static void lookup_put(struct lookup *lookup)
{
    struct store *store = lookup->store;
    fetch_release(&lookup->fetch);
    kept_key_clear(&lookup->key);
    list_push_front(&store->lookups_free, &lookup->node);
    assert(store->lookups_active > 0);
    store->lookups_active--;
    store_made_room(store);
}

/* Only what is the newest version now may go into the cache: a write may have come while the disk
 * was read. */
static bool is_newest(const struct store *store, const struct lookup *lookup)
{
    struct index_entry newest;
    uint32_t count =
        index_find(store->index, lookup->place.partition, lookup->place.hash, &newest, 1);
    return count > 0 && index_entry_is_same(&newest, &lookup->candidates[lookup->candidate]);
}

static void show(struct lookup *lookup, const struct record *record, struct slice value,
                 struct store_value *ret_value)
{
    struct store *store = lookup->store;
    bool tombstone = record->flags & RECORD_TOMBSTONE;
    struct cache_entry *entry = NULL;
    if (is_newest(store, lookup) &&
        cache_find(store->cache, lookup->place.keyed, record->key) == NULL)
        entry = cache_put(store->cache, lookup->place.keyed, record->key, value, tombstone,
                          record->flags & RECORD_IN_VALUE_FILE, record->version, record->position);
    *ret_value = (struct store_value){
        .data = value.data,
        .size = value.size,
        .version = record->version,
        .gate = wal_gate(store->wal, record->position),
    };
    if (entry != NULL && !tombstone) {
        ret_value->data = cache_entry_value(entry).data;
        ret_value->entry = entry;
    }
    if (record->flags & RECORD_IN_VALUE_FILE)
        store_show_file(lookup->place.key_hash, lookup->key.slice, value, ret_value);
}

static void decode_finished(struct decode_job *job, int result, uint8_t *data, size_t size)
{
    struct lookup *lookup = container_of(job, struct lookup, decode);
    struct store_waiter *waiter = lookup->waiter;
    struct store_value value = {0};
    if (result == 0)
        show(lookup, &lookup->fetch.record, (struct slice){data, (uint32_t)size}, &value);
    else
        log_error(lookup->store->log, "a stored zstd value does not decode: answered as CORRUPT");
    waiter->done(waiter, result == 0 ? STORE_OK : STORE_CORRUPT, &value);
    free(data);
    lookup_put(lookup);
}

/* The record with the right key is there. */
static enum store_status answer(struct lookup *lookup, struct store_value *ret_value)
{
    struct store *store = lookup->store;
    const struct record *record = &lookup->fetch.record;
    if (store_is_damaged_at(store, lookup->place.partition, record->position))
        return STORE_CORRUPT;
    if (!(record->flags & RECORD_ZSTD)) {
        show(lookup, record, record->value, ret_value);
        return record->flags & RECORD_TOMBSTONE ? STORE_NOT_FOUND : STORE_OK;
    }
    if (fetch_keep(&lookup->fetch) < 0)
        return STORE_BUSY;
    lookup->decode = (struct decode_job){.done = decode_finished,
                                         .frame = record->value.data,
                                         .frame_size = record->value.size,
                                         .decoded_size_max = record->decoded_size};
    decode_submit(&store->decodes, &lookup->decode);
    return STORE_PENDING;
}

static void fetched(struct fetch *fetch, int result);

/* While a candidate was read, others may have moved to other files, and writes may have come: then
 * what is left of the list may be stale. Returns whether it has other writes now. */
static bool reload(struct lookup *lookup)
{
    struct index_entry fresh[CANDIDATES_MAX];
    uint32_t count = index_find(lookup->store->index, lookup->place.partition, lookup->place.hash,
                                fresh, CANDIDATES_MAX);
    count = count < CANDIDATES_MAX ? count : CANDIDATES_MAX;
    bool same = count == lookup->candidate_count;
    for (uint32_t i = 0; i < count; i++) {
        same = same && index_entry_is_same(&fresh[i], &lookup->candidates[i]);
        lookup->candidates[i] = fresh[i];
    }
    lookup->candidate_count = count;
    return !same;
}

/* Walks the candidates from lookup->candidate on. */
static enum store_status walk(struct lookup *lookup, struct store_value *ret_value)
{
    struct store *store = lookup->store;
    for (; lookup->candidate < lookup->candidate_count; lookup->candidate++) {
        int result = fetch_start(&store->fetcher, &lookup->fetch,
                                 &lookup->candidates[lookup->candidate], fetched);
        if (result == 0)
            return STORE_PENDING;
        if (result < 0)
            return STORE_CORRUPT;
        if (slice_equal(lookup->fetch.record.key, lookup->key.slice))
            return answer(lookup, ret_value);
        fetch_release(&lookup->fetch);
    }
    /* All slots that this look-up could hold belonged to other keys: more of them may be there. */
    if (lookup->candidate_count == CANDIDATES_MAX)
        return STORE_CORRUPT;
    return store_is_damaged_at(store, lookup->place.partition, 0) ? STORE_CORRUPT : STORE_NOT_FOUND;
}

/* The candidate that was read is another key's. */
static enum store_status go_on(struct lookup *lookup, struct store_value *ret_value)
{
    lookup->candidate++;
    if (!reload(lookup))
        return walk(lookup, ret_value);
    if (++lookup->reloads > LOOKUP_RELOADS_MAX)
        return STORE_BUSY;
    lookup->candidate = 0;
    struct cache_entry *entry =
        cache_find(lookup->store->cache, lookup->place.keyed, lookup->key.slice);
    return entry != NULL ? store_show_entry(lookup->store, entry, ret_value)
                         : walk(lookup, ret_value);
}

static void fetched(struct fetch *fetch, int result)
{
    struct lookup *lookup = container_of(fetch, struct lookup, fetch);
    struct store_value value = {0};
    bool is_passing = result == -ENOMEM || result == -ENFILE || result == -EMFILE;
    enum store_status status = is_passing ? STORE_BUSY : STORE_CORRUPT;
    if (result == 0 && slice_equal(fetch->record.key, lookup->key.slice)) {
        status = answer(lookup, &value);
    } else if (result == 0) {
        fetch_release(fetch);
        status = go_on(lookup, &value);
    }
    if (status == STORE_PENDING)
        return;
    lookup->waiter->done(lookup->waiter, status, &value);
    lookup_put(lookup);
}

enum store_status lookup_start(struct store *store, struct slice key, struct key_place place,
                               struct store_waiter *waiter, struct store_value *ret_value)
{
    struct index_entry candidates[CANDIDATES_MAX];
    uint32_t count = 0;
    if (bloom_may_contain(store->bloom, place.partition, place.hash))
        count = index_find(store->index, place.partition, place.hash, candidates, CANDIDATES_MAX);
    if (count == 0)
        return store_is_damaged_at(store, place.partition, 0) ? STORE_CORRUPT : STORE_NOT_FOUND;
    if (list_is_empty(&store->lookups_free) ||
        !fetch_has_room(&store->fetcher, candidates[0].read_size)) {
        store->starved = true;
        return STORE_BUSY;
    }
    struct lookup *lookup = container_of(list_pop_front(&store->lookups_free), struct lookup, node);
    store->lookups_active++;
    lookup->store = store;
    lookup->waiter = waiter;
    lookup->place = place;
    lookup->candidate = 0;
    lookup->reloads = 0;
    lookup->candidate_count = count < CANDIDATES_MAX ? count : CANDIDATES_MAX;
    bool may_be_large = false;
    for (uint32_t i = 0; i < lookup->candidate_count; i++) {
        lookup->candidates[i] = candidates[i];
        may_be_large = may_be_large || candidates[i].in_value_file;
    }
    enum store_status status = STORE_BUSY;
    if (kept_key_set(&lookup->key, key) == 0)
        status = walk(lookup, ret_value);
    if (status == STORE_PENDING)
        ret_value->in_value_file = may_be_large;
    else
        lookup_put(lookup);
    ret_value->key = key;
    return status;
}
