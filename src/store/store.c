#include "store/store_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int kept_key_set(struct kept_key *kept, struct slice key)
{
    uint8_t *bytes = key.size <= sizeof kept->bytes ? kept->bytes : malloc(key.size);
    if (bytes == NULL)
        return -ENOMEM;
    memcpy(bytes, key.data, key.size);
    kept->slice = (struct slice){bytes, key.size};
    return 0;
}

void kept_key_clear(struct kept_key *kept)
{
    if (kept->slice.data != kept->bytes)
        free((void *)kept->slice.data);
    kept->slice = (struct slice){0};
}

void store_made_room(struct store *store)
{
    if (!store->starved)
        return;
    store->starved = false;
    store->options.events.room(store->options.events.context);
}

void store_fail(struct store *store, int error)
{
    if (store->failed != 0)
        return;
    store->failed = error;
    store->options.events.failed(store->options.events.context, error);
}

enum store_status store_show_entry(const struct store *store, struct cache_entry *entry,
                                   struct store_value *ret_value)
{
    ret_value->gate = wal_gate(store->wal, entry->position);
    if (store_is_damaged_at(store, entry->position))
        return STORE_CORRUPT;
    if (entry->tombstone)
        return STORE_NOT_FOUND;
    ret_value->data = entry->bytes + entry->key_size;
    ret_value->size = entry->value_size;
    ret_value->entry = entry;
    return STORE_OK;
}

enum store_status store_get(struct store *store, struct slice key, struct store_waiter *waiter,
                            struct store_value *ret_value)
{
    uint64_t hash = hash_keyed(store->superblock.now.secret, key.data, key.size);
    struct cache_entry *entry = cache_find(store->cache, hash, key);
    *ret_value = (struct store_value){0};
    if (entry != NULL)
        return store_show_entry(store, entry, ret_value);
    struct place place = {.partition = hash_partition(hash_key(key.data, key.size)), .hash = hash};
    return lookup_start(store, key, place, waiter, ret_value);
}

struct store_place store_prefetch(const struct store *store, struct slice key, bool is_write)
{
    struct store_place place = {hash_keyed(store->superblock.now.secret, key.data, key.size)};
    cache_prefetch(store->cache, place.hash);
    if (is_write)
        index_prefetch(store->index, hash_partition(hash_key(key.data, key.size)), place.hash);
    return place;
}

void store_prefetch_entry(const struct store *store, struct store_place place)
{
    cache_prefetch_entry(store->cache, place.hash);
}

bool store_get_cached(struct store *store, struct slice key, struct store_place place,
                      enum store_status *ret_status, struct store_value *ret_value)
{
    struct cache_entry *entry = cache_find(store->cache, place.hash, key);
    if (entry == NULL)
        return false;
    *ret_value = (struct store_value){0};
    *ret_status = store_show_entry(store, entry, ret_value);
    return true;
}

/* What a write found out about its key before anything is changed. */
struct plan {
    struct place place;
    struct cache_entry *cached;
    struct index_entry same[CANDIDATES_MAX]; /* slots that are this key's for certain */
    uint32_t same_count;
    struct proof *proof; /* for those that may be; NULL: there are none */
    bool absent;         /* the key is not here at all */
};

/* Sorts the slots of a key that is not cached: the log's memory tells of some at once. Returns
 * false: BUSY. */
static bool plan_candidates(struct store *store, struct slice key, struct plan *plan)
{
    struct index_entry found[CANDIDATES_MAX];
    uint32_t count =
        index_find(store->index, plan->place.partition, plan->place.hash, found, CANDIDATES_MAX);
    plan->absent = count == 0;
    /* The newest of many suffice when no proof is about to thin them out: the others cannot be
     * read. */
    if (count >= CANDIDATES_MAX && store->proofs_active + store->suspect_count > 0)
        return false;
    count = count < CANDIDATES_MAX ? count : CANDIDATES_MAX;
    for (uint32_t i = 0; i < count; i++) {
        struct record record;
        const uint8_t *in_memory = wal_peek(store->wal, found[i].location);
        if (in_memory != NULL && record_decode(in_memory, found[i].read_size, &record) >= 0) {
            if (slice_equal(record.key, key))
                plan->same[plan->same_count++] = found[i];
            continue;
        }
        if (plan->proof == NULL)
            plan->proof = proof_get(store);
        if (plan->proof == NULL)
            return false;
        plan->proof->candidates[plan->proof->candidate_count++] = found[i];
    }
    if (plan->proof == NULL)
        return true;
    plan->proof->place = plan->place;
    return kept_key_set(&plan->proof->key, key) == 0;
}

static void plan_drop(struct store *store, struct plan *plan)
{
    if (plan->proof != NULL)
        proof_put(store, plan->proof);
}

/* Fills the plan. Returns OK, BUSY or FAILED. */
static enum store_status plan_write(struct store *store, struct slice key, struct plan *plan)
{
    *plan = (struct plan){.place = store_place(store, key)};
    if (store->failed != 0)
        return STORE_FAILED;
    plan->cached = cache_find(store->cache, plan->place.hash, key);
    if (plan->cached != NULL || plan_candidates(store, key, plan))
        return STORE_OK;
    plan_drop(store, plan);
    store->starved = true;
    return STORE_BUSY;
}

/* The index after the append: the new slot in, what it certainly replaces out. */
static int apply_to_index(struct store *store, struct plan *plan, const struct index_entry *entry,
                          uint64_t position)
{
    const struct place *place = &plan->place;
    if (plan->cached != NULL) {
        wal_location old = plan->cached->location;
        int result = index_replace(store->index, place->partition, place->hash, old, entry);
        assert(result == 0);
        wal_record_dead(store->wal, old, position);
        return 0;
    }
    for (uint32_t i = 0; i < plan->same_count; i++) {
        wal_location old = plan->same[i].location;
        int result = index_remove(store->index, place->partition, place->hash, old);
        assert(result == 0);
        wal_record_dead(store->wal, old, position);
    }
    return index_add(store->index, place->partition, place->hash, entry);
}

static enum store_status status_of_append(struct store *store, int result)
{
    switch (result) {
    case -EAGAIN:
        store->starved = true;
        return STORE_BUSY;
    case -ENOSPC:
        return STORE_NO_SPACE;
    case -EFBIG:
        return STORE_TOO_LARGE;
    default:
        return STORE_FAILED;
    }
}

/* Appends and applies. `decoded` is what the cache shows. */
static enum store_status commit(struct store *store, struct plan *plan, struct record *record,
                                struct slice decoded, uint64_t *ret_gate)
{
    bool tombstone = record->flags & RECORD_TOMBSTONE;
    record->version =
        (struct version){hybrid_clock_stamp(&store->clock, io_wall_ms(store->io)), store->origin};
    struct wal_receipt receipt;
    int result = wal_append(store->wal, record, &receipt);
    if (result < 0) {
        plan_drop(store, plan);
        return status_of_append(store, result);
    }
    struct index_entry entry = {
        .version = record->version,
        .location = receipt.location,
        .read_size = index_read_size(record_size(record->key.size, record->value.size)),
        .tombstone = tombstone,
    };
    result = apply_to_index(store, plan, &entry, receipt.position);
    if (result < 0) {
        /* The record is in the log but nothing leads to it: go on and it would be lost or reappear.
         */
        log_error(store->log, "the index cannot grow: out of memory");
        store_fail(store, result);
        plan_drop(store, plan);
        return STORE_FAILED;
    }
    (void)cache_put(store->cache, plan->place.hash, record->key, decoded, tombstone,
                    record->version, receipt.position, receipt.location);
    if (plan->proof != NULL) {
        plan->proof->killer_position = receipt.position;
        proof_start(plan->proof);
    }
    *ret_gate = wal_gate(store->wal, receipt.position);
    return STORE_OK;
}

enum store_status store_set(struct store *store, struct slice key, struct slice stored,
                            struct slice decoded, bool zstd, uint64_t *ret_gate)
{
    assert(key.size > 0);
    if (stored.size > store->options.value_size_max || decoded.size > store->options.value_size_max)
        return STORE_TOO_LARGE;
    struct plan plan;
    enum store_status status = plan_write(store, key, &plan);
    if (status != STORE_OK)
        return status;
    struct record record = {
        .key = key,
        .value = stored,
        .decoded_size = decoded.size,
        .flags = zstd ? RECORD_ZSTD : 0,
    };
    return commit(store, &plan, &record, decoded, ret_gate);
}

enum store_status store_delete(struct store *store, struct slice key, uint64_t *ret_gate)
{
    assert(key.size > 0);
    struct plan plan;
    enum store_status status = plan_write(store, key, &plan);
    if (status != STORE_OK)
        return status;
    /* Where damage may have taken a newer write, only a tombstone makes sure. */
    bool damaged = store->damage_last != 0;
    bool deleted = plan.cached != NULL && plan.cached->tombstone;
    if (!damaged && (plan.absent || deleted)) {
        *ret_gate = deleted ? wal_gate(store->wal, plan.cached->position) : 0;
        return STORE_OK;
    }
    struct record record = {.key = key, .flags = RECORD_TOMBSTONE};
    return commit(store, &plan, &record, (struct slice){(const uint8_t *)"", 0}, ret_gate);
}

bool store_flush(struct store *store)
{
    bool more = decode_step(&store->decodes);
    proof_work_off_suspects(store);
    wal_flush(store->wal);
    return more;
}

uint64_t store_durable(const struct store *store)
{
    return wal_durable(store->wal);
}

void store_pin(struct store *store, struct cache_entry *entry)
{
    (void)store;
    cache_pin(entry);
}

void store_unpin(struct store *store, struct cache_entry *entry)
{
    cache_unpin(store->cache, entry);
}

int store_decode_small(struct store *store, struct slice frame, uint8_t **ret_data,
                       size_t *ret_size)
{
    return decode_small(&store->decodes, frame.data, frame.size, store->options.value_size_max,
                        ret_data, ret_size);
}

struct decode_queue *store_decodes(struct store *store)
{
    return &store->decodes;
}

void store_stats(struct store *store, struct store_stats *ret_stats)
{
    *ret_stats = (struct store_stats){
        .keys = index_count(store->index) - index_tombstones(store->index),
        .index_memory = index_memory(store->index),
        .damaged = store->damage_last != 0,
    };
    (void)io_disk_space(store->io, store->options.path, &ret_stats->disk_free,
                        &ret_stats->disk_total);
    cache_stats(store->cache, &ret_stats->cache);
    wal_stats(store->wal, &ret_stats->wal);
}
