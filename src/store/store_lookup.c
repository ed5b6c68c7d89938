/* A get that the cache could not answer. A look-up goes through the candidates of its hash; each is
 * fetched, and when its key is another one's, the next follows. */
#include "store/store_lookup.h"

#include "base/assert.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <stdlib.h>

/* How often a look-up starts over because writes changed what it goes through. */
#define RELOADS_MAX 8u

struct lookup {
    struct fetch fetch;
    struct lookups *lookups;
    struct store_waiter *waiter;
    struct key_place place;
    struct slice key; /* a copy */
    uint8_t key_inside[KEY_INSIDE_SIZE];
    struct index_entry candidates[CANDIDATES_MAX];
    uint32_t candidate_count;
    uint32_t candidate; /* the one being fetched */
    uint32_t reloads;
    struct decode_job decode;
    struct list_node node;
};

/* ---- what is shown ---- */

/* What a record in a value file shows: the file's name. `key` lives as long as the value. */
static void show_file(uint64_t key_hash, struct slice key, struct slice descriptor,
                      struct store_value *ret_value)
{
    ret_value->in_value_file = true;
    ret_value->key = key;
    ret_value->file = value_file_named(key_hash, descriptor);
}

enum store_status lookups_show(const struct lookups *lookups, struct cache_entry *entry,
                               struct store_value *ret_value)
{
    ret_value->gate = wal_gate(lookups->parts.wal, entry->position);
    ret_value->version = entry->version;
    uint64_t key_hash = hash_key(entry->bytes, entry->key_size);
    if (damage_covers(lookups->parts.damage, hash_partition(key_hash), entry->position))
        return STORE_CORRUPT;
    if (entry->tombstone)
        return STORE_NOT_FOUND;
    ret_value->data = entry->bytes + entry->key_size;
    ret_value->size = entry->value_size;
    ret_value->entry = entry;
    if (entry->in_value_file)
        show_file(key_hash, cache_entry_key(entry), cache_entry_value(entry), ret_value);
    return STORE_OK;
}

/* ---- a look-up ---- */

static void lookup_put(struct lookup *lookup)
{
    struct lookups *lookups = lookup->lookups;
    assert(!list_node_is_linked(&lookup->node)); /* invariant 1 */
    fetch_release(&lookup->fetch);
    key_forget(&lookup->key, lookup->key_inside);
    list_push_front(&lookups->free, &lookup->node);
    assert(lookups->active > 0); /* invariant 1 */
    lookups->active--;
    lookups->parts.ended(lookups->parts.context);
}

/* Only what is the newest version now may go into the cache: a write may have come while the disk
 * was read. */
static bool is_newest(const struct lookup *lookup)
{
    struct index_entry newest;
    uint32_t count = index_find(lookup->lookups->parts.index, lookup->place.partition,
                                lookup->place.hash, &newest, 1);
    return count > 0 && index_entry_is_same(&newest, &lookup->candidates[lookup->candidate]);
}

static void show(struct lookup *lookup, const struct record *record, struct slice value,
                 struct store_value *ret_value)
{
    const struct lookup_parts *parts = &lookup->lookups->parts;
    bool tombstone = record->flags & RECORD_TOMBSTONE;
    struct cache_entry *entry = NULL;
    if (is_newest(lookup) && cache_find(parts->cache, lookup->place.keyed, record->key) == NULL)
        entry = cache_put(parts->cache, lookup->place.keyed, record->key, value, tombstone,
                          record->flags & RECORD_IN_VALUE_FILE, record->version, record->position);
    *ret_value = (struct store_value){
        .data = value.data,
        .size = value.size,
        .version = record->version,
        .gate = wal_gate(parts->wal, record->position),
    };
    if (entry != NULL && !tombstone) {
        ret_value->data = cache_entry_value(entry).data;
        ret_value->entry = entry;
    }
    if (record->flags & RECORD_IN_VALUE_FILE)
        show_file(lookup->place.key_hash, lookup->key, value, ret_value);
}

static void decode_finished(struct decode_job *job, int result, uint8_t *data, size_t size)
{
    struct lookup *lookup = container_of(job, struct lookup, decode);
    struct store_waiter *waiter = lookup->waiter;
    struct store_value value = {0};
    const struct lookup_parts *parts = &lookup->lookups->parts;
    if (result == 0)
        show(lookup, fetch_record(&lookup->fetch), (struct slice){data, (uint32_t)size}, &value);
    else if (!disk_is_passing(result) &&
             findings_note(parts->fetcher->findings, fetch_place(&lookup->fetch), true))
        log_error(parts->log, "a stored zstd value does not decode: answered as CORRUPT");
    enum store_status status = disk_is_passing(result) ? STORE_BUSY : STORE_CORRUPT;
    waiter->done(waiter, result == 0 ? STORE_OK : status, &value);
    free(data);
    lookup_put(lookup);
}

/* The record with the right key is there. */
static enum store_status answer(struct lookup *lookup, struct store_value *ret_value)
{
    const struct lookup_parts *parts = &lookup->lookups->parts;
    const struct record *record = fetch_record(&lookup->fetch);
    if (damage_covers(parts->damage, lookup->place.partition, record->position))
        return STORE_CORRUPT;
    if (!(record->flags & RECORD_ZSTD)) {
        show(lookup, record, record->value, ret_value);
        return record->flags & RECORD_TOMBSTONE ? STORE_NOT_FOUND : STORE_OK;
    }
    if (fetch_save(&lookup->fetch) < 0)
        return STORE_BUSY;
    lookup->decode = (struct decode_job){.done = decode_finished,
                                         .frame = record->value.data,
                                         .frame_size = record->value.size,
                                         .decoded_size_max = record->decoded_size};
    decode_submit(parts->decodes, &lookup->decode);
    return STORE_PENDING;
}

static void fetched(struct fetch *fetch, int result);

/* Of a record that could not be fetched. */
static enum store_status status_of(int error, struct store_value *ret_value)
{
    if (error == -EBADMSG || error == -ENOENT)
        return STORE_CORRUPT;
    ret_value->error = error;
    return disk_is_passing(error) ? STORE_BUSY : STORE_UNREADABLE;
}

/* While a candidate was read, others may have moved to other files, and writes may have come: then
 * what is left of the list may be stale. Returns whether it has other writes now. */
static bool reload(struct lookup *lookup)
{
    struct index_entry fresh[CANDIDATES_MAX];
    uint32_t count = index_find(lookup->lookups->parts.index, lookup->place.partition,
                                lookup->place.hash, fresh, CANDIDATES_MAX);
    count = count < CANDIDATES_MAX ? count : CANDIDATES_MAX;
    bool same = count == lookup->candidate_count;
    for (uint32_t i = 0; i < count; i++) {
        same = same && index_entry_is_same(&fresh[i], &lookup->candidates[i]);
        lookup->candidates[i] = fresh[i];
    }
    lookup->candidate_count = count;
    return !same;
}

/* Goes through the candidates from lookup->candidate on. */
static enum store_status go_through(struct lookup *lookup, struct store_value *ret_value)
{
    const struct lookup_parts *parts = &lookup->lookups->parts;
    assert(lookup->candidate_count <= CANDIDATES_MAX); /* invariant 2 */
    for (; lookup->candidate < lookup->candidate_count; lookup->candidate++) {
        int result = fetch_start(parts->fetcher, &lookup->fetch,
                                 &lookup->candidates[lookup->candidate], fetched);
        if (result == 0)
            return STORE_PENDING;
        if (result < 0)
            return status_of(result, ret_value);
        if (slice_equal(fetch_record(&lookup->fetch)->key, lookup->key))
            return answer(lookup, ret_value);
        fetch_release(&lookup->fetch);
    }
    /* All slots that this look-up could hold belonged to other keys: more of them may be there. */
    if (lookup->candidate_count == CANDIDATES_MAX)
        return STORE_CORRUPT;
    return damage_covers(parts->damage, lookup->place.partition, 0) ? STORE_CORRUPT
                                                                    : STORE_NOT_FOUND;
}

/* The candidate that was read is another key's. */
static enum store_status go_on(struct lookup *lookup, struct store_value *ret_value)
{
    assert(lookup->candidate < lookup->candidate_count); /* invariant 2 */
    lookup->candidate++;
    if (!reload(lookup))
        return go_through(lookup, ret_value);
    if (++lookup->reloads > RELOADS_MAX)
        return STORE_BUSY;
    lookup->candidate = 0;
    struct cache_entry *entry =
        cache_find(lookup->lookups->parts.cache, lookup->place.keyed, lookup->key);
    return entry != NULL ? lookups_show(lookup->lookups, entry, ret_value)
                         : go_through(lookup, ret_value);
}

static void fetched(struct fetch *fetch, int result)
{
    struct lookup *lookup = container_of(fetch, struct lookup, fetch);
    struct store_value value = {0};
    assert(lookup->candidate < lookup->candidate_count); /* invariant 2 */
    enum store_status status = STORE_BUSY;
    if (result < 0) {
        status = status_of(result, &value);
    } else if (slice_equal(fetch_record(fetch)->key, lookup->key)) {
        status = answer(lookup, &value);
    } else {
        fetch_release(fetch);
        status = go_on(lookup, &value);
    }
    if (status == STORE_PENDING)
        return;
    lookup->waiter->done(lookup->waiter, status, &value);
    lookup_put(lookup);
}

enum store_status lookups_start(struct lookups *lookups, struct slice key, struct key_place place,
                                struct store_waiter *waiter, struct store_value *ret_value)
{
    const struct lookup_parts *parts = &lookups->parts;
    struct index_entry candidates[CANDIDATES_MAX];
    uint32_t count = 0;
    if (bloom_may_contain(parts->bloom, place.partition, place.hash))
        count = index_find(parts->index, place.partition, place.hash, candidates, CANDIDATES_MAX);
    if (count == 0)
        return damage_covers(parts->damage, place.partition, 0) ? STORE_CORRUPT : STORE_NOT_FOUND;
    if (list_is_empty(&lookups->free) || !fetch_has_room(parts->fetcher, candidates[0].read_size))
        return STORE_BUSY;
    struct lookup *lookup = container_of(list_pop_front(&lookups->free), struct lookup, node);
    assert(lookup->key.data == NULL); /* invariant 1 */
    lookups->active++;
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
    if (key_copy(key, lookup->key_inside, &lookup->key) == 0)
        status = go_through(lookup, ret_value);
    if (status == STORE_PENDING)
        ret_value->in_value_file = may_be_large;
    else
        lookup_put(lookup);
    ret_value->key = key;
    return status;
}

/* ---- opening and closing ---- */

int lookups_init(struct lookups *lookups, uint8_t *buffers)
{
    list_init(&lookups->free);
    lookups->all = calloc(LOOKUPS_MAX, sizeof *lookups->all);
    if (lookups->all == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < LOOKUPS_MAX; i++) {
        struct lookup *lookup = &lookups->all[i];
        lookup->lookups = lookups;
        fetch_init(&lookup->fetch, buffers + i * FETCH_BUFFER_SIZE);
        list_push_back(&lookups->free, &lookup->node);
    }
    return 0;
}

bool lookups_are_busy(const struct lookups *lookups)
{
    return lookups->active > 0;
}

void lookups_deinit(struct lookups *lookups)
{
    for (uint32_t i = 0; lookups->all != NULL && i < LOOKUPS_MAX; i++) {
        fetch_deinit(&lookups->all[i].fetch);
        key_forget(&lookups->all[i].key, lookups->all[i].key_inside);
    }
    free(lookups->all);
}
