/* The request path: gets and sets of values in memory, and what a pass of the loop does. */
#include "store/store_internal.h"

#include "base/assert.h"
#include "store/admission.h"
#include "store/memory/location.h"
#include "store/store_keys.h"
#include "store/store_large.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Slots that the filter in front of the index is rebuilt from between two passes. */
#define BLOOM_SLOTS 256u

void store_made_room(void *context)
{
    struct store *store = context;
    if (!store->starved)
        return;
    store->starved = false;
    store->options.events.room(store->options.events.context);
}

void store_fail(void *context, int error)
{
    struct store *store = context;
    assert(error != 0);
    if (store->failed != 0)
        return;
    store->failed = error;
    store->options.events.failed(store->options.events.context, error);
}

enum store_status store_get(struct store *store, struct slice key, struct store_waiter *waiter,
                            struct store_value *ret_value)
{
    uint64_t keyed = hash_keyed(store->superblock.now.secret, key.data, key.size);
    struct cache_entry *entry = cache_find(store->cache, keyed, key);
    *ret_value = (struct store_value){0};
    if (entry != NULL) {
        store->get_hits++;
        return lookups_show(&store->lookups, entry, ret_value);
    }
    struct key_place place = key_place_of(keyed, hash_key(key.data, key.size));
    enum store_status status = lookups_start(&store->lookups, key, place, waiter, ret_value);
    if (status == STORE_BUSY)
        store->starved = true;
    else
        store->get_misses++;
    return status;
}

void store_prefetch(const struct store *store, struct slice key, bool is_write,
                    struct key_place *ret_place)
{
    uint64_t keyed = hash_keyed(store->superblock.now.secret, key.data, key.size);
    cache_prefetch(store->cache, keyed);
    if (!is_write) {
        *ret_place = (struct key_place){.keyed = keyed};
        return;
    }
    *ret_place = key_place_of(keyed, hash_key(key.data, key.size));
    ret_place->is_write = true;
    index_prefetch(store->index, ret_place->partition, ret_place->hash);
    bloom_prefetch(store->bloom, ret_place->partition, ret_place->hash);
}

void store_prefetch_entry(const struct store *store, struct slice key, struct key_place *place)
{
    bool may_be_cached = cache_prefetch_entry(store->cache, place->keyed);
    if (place->is_write) {
        index_prefetch_slots(store->index, place->partition, place->hash);
    } else if (!may_be_cached) {
        uint16_t owner = place->owner;
        *place = key_place_of(place->keyed, hash_key(key.data, key.size));
        place->owner = owner;
        bloom_prefetch(store->bloom, place->partition, place->hash);
    }
}

/* Whether the filter knows that there is no such key. */
static bool is_absent(struct store *store, struct slice key, struct key_place place,
                      enum store_status *ret_status)
{
    if (!place.is_whole)
        place = key_place_of(place.keyed, hash_key(key.data, key.size));
    if (bloom_may_contain(store->bloom, place.partition, place.hash))
        return false;
    store->get_misses++;
    bool is_doubtful = damage_covers(&store->damage, place.partition, 0);
    *ret_status = is_doubtful ? STORE_CORRUPT : STORE_NOT_FOUND;
    return true;
}

bool store_get_at_once(struct store *store, struct slice key, struct key_place place,
                       enum store_status *ret_status, struct store_value *ret_value)
{
    struct cache_entry *entry = cache_find(store->cache, place.keyed, key);
    *ret_value = (struct store_value){0};
    if (entry == NULL)
        return is_absent(store, key, place, ret_status);
    store->get_hits++;
    *ret_status = lookups_show(&store->lookups, entry, ret_value);
    return true;
}

/* Whether a slot that is not in memory is left to the mover. A value file's space is wanted back
 * sooner than that, and so are slots that new keys wait for. */
static bool is_for_mover(struct store *store, struct slice key, const struct index_entry *found,
                         uint32_t count, struct plan *plan)
{
    if (count >= CANDIDATES_CROWDED || found->in_value_file || !store_has_memory(store))
        return false;
    uint64_t mark = doomed_mark(store->doomed, key, found->version, found->tombstone);
    if (doomed_has(store->doomed, mark))
        return true;
    if (!doomed_has_room(store->doomed, plan->doomed_count + 1))
        return false;
    plan->doomed[plan->doomed_count++] = *found;
    return true;
}

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
    if (count >= CANDIDATES_MAX && proofs_are_pending(&store->proofs))
        return false;
    count = count < CANDIDATES_MAX ? count : CANDIDATES_MAX;
    for (uint32_t i = 0; i < count; i++) {
        struct record record;
        const uint8_t *in_memory = wal_peek(store->wal, found[i].location);
        if (in_memory != NULL && record_decode(in_memory, found[i].read_size, &record) >= 0) {
            if (slice_equal(record.key, key)) {
                plan->same_files[plan->same_count] =
                    value_file_named(plan->place.key_hash, record.value);
                plan->same[plan->same_count++] = found[i];
            }
            continue;
        }
        if (is_for_mover(store, key, &found[i], count, plan))
            continue;
        if (plan->proof == NULL)
            plan->proof = proofs_get(&store->proofs, &plan->place, key);
        if (plan->proof == NULL)
            return false;
        proof_add(plan->proof, &found[i]);
    }
    return true;
}

void plan_drop(struct plan *plan)
{
    if (plan->proof != NULL)
        proof_put(plan->proof);
}

enum store_status plan_write(struct store *store, struct slice key, struct plan *plan)
{
    *plan = (struct plan){.place = store_place(store, key)};
    assert(store_owns(store, plan->place.partition));
    assert(plan->proof == NULL);
    if (store->failed != 0 || store->presence.is_gone)
        return STORE_FAILED;
    plan->cached = cache_find(store->cache, plan->place.keyed, key);
    if (plan->cached != NULL || plan_candidates(store, key, plan))
        return STORE_OK;
    plan_drop(plan);
    store->starved = true;
    return STORE_BUSY;
}

/* Those slots stay until the mover comes to their records. */
static void doom(struct store *store, const struct plan *plan, struct slice key)
{
    for (uint32_t i = 0; i < plan->doomed_count; i++) {
        const struct index_entry *old = &plan->doomed[i];
        doomed_add(store->doomed, doomed_mark(store->doomed, key, old->version, old->tombstone));
        if (location_is_segment(old->location))
            segment_record_doomed(store->segments, old->location, old->read_size);
        else
            wal_record_doomed(store->wal, old->location);
    }
}

/* The index after the append: the new slot in, what it certainly replaces out. */
static int apply_to_index(struct store *store, struct plan *plan, const struct index_entry *entry,
                          uint64_t position)
{
    const struct key_place *place = &plan->place;
    struct index_entry old;
    if (plan->cached != NULL && index_replace(store->index, place->partition, place->hash,
                                              plan->cached->version, entry, &old) == 0) {
        struct value_file_name file =
            value_file_named(place->key_hash, cache_entry_value(plan->cached));
        dead_record(&store->dead, &old, &file, position);
        return 0;
    }
    assert(plan->cached == NULL || plan->cached->tombstone); /* it was purged */
    for (uint32_t i = 0; i < plan->same_count; i++) {
        int result =
            index_remove(store->index, place->partition, place->hash, plan->same[i].version, &old);
        assert(result == 0);
        dead_record(&store->dead, &old, &plan->same_files[i], position);
    }
    bloom_add(store->bloom, place->partition, place->hash);
    return index_add(store->index, place->partition, place->hash, entry);
}

struct version store_stamp(struct store *store)
{
    return (struct version){hybrid_clock_stamp(&store->clock, io_wall_ms(store->io)),
                            store->origin};
}

enum store_status plan_commit(struct store *store, struct plan *plan, struct record *record,
                              struct slice decoded, uint64_t *ret_gate)
{
    bool tombstone = record->flags & RECORD_TOMBSTONE;
    bool in_value_file = record->flags & RECORD_IN_VALUE_FILE;
    record->version = store_stamp(store);
    assert(plan->same_count + plan->doomed_count <= CANDIDATES_MAX);
    assert(plan->cached == NULL || plan->same_count == 0); /* what is cached is the newest */
    struct wal_receipt receipt;
    int result = wal_append(store->wal, record, &receipt);
    if (result < 0) {
        plan_drop(plan);
        store->starved |= result == -EAGAIN;
        return result == -EAGAIN ? STORE_BUSY : admission_failed(store, "a write", result);
    }
    pace_took(&store->pace, record_size(record));
    struct index_entry entry = {
        .version = record->version,
        .location = receipt.location,
        .read_size = index_read_size(record_size(record)),
        .tombstone = tombstone,
        .in_value_file = in_value_file,
    };
    result = apply_to_index(store, plan, &entry, receipt.position);
    if (result < 0) {
        /* The record is in the log but nothing leads to it: go on and it would be lost or reappear.
         */
        log_error(store->log, "the index cannot grow: out of memory");
        store_fail(store, result);
        plan_drop(plan);
        return STORE_FAILED;
    }
    doom(store, plan, record->key);
    (void)cache_put(store->cache, plan->place.keyed, record->key, decoded, tombstone, in_value_file,
                    record->version, receipt.position);
    if (plan->proof != NULL)
        proof_start(plan->proof, receipt.position);
    *ret_gate = wal_gate(store->wal, receipt.position);
    return STORE_OK;
}

enum store_status store_set(struct store *store, struct slice key, struct slice stored,
                            struct slice decoded, bool zstd, uint64_t *ret_gate)
{
    assert(key.size > 0);
    if (stored.size > large_stored_max(&store->options) ||
        decoded.size >= large_value_min(&store->options))
        return STORE_TOO_LARGE;
    struct record record = {.key = key, .value = stored, .decoded_size = decoded.size};
    if (record_size(&record) > INDEX_RECORD_SIZE_MAX)
        return STORE_TOO_LARGE;
    enum admission admission = admission_of_set(store);
    if (admission != ADMISSION_OPEN)
        return admission_refuse(store, "a set", admission);
    if (!store_takes_key(store, key))
        return STORE_NO_MEMORY;
    if (!pace_admits(&store->pace)) {
        store->starved = true;
        return STORE_BUSY;
    }
    struct plan plan;
    enum store_status status = plan_write(store, key, &plan);
    if (status != STORE_OK)
        return status;
    if (zstd || squeeze(&store->squeeze, stored, &record.value) == 1)
        record.flags = RECORD_ZSTD;
    return plan_commit(store, &plan, &record, decoded, ret_gate);
}

enum store_status store_delete(struct store *store, struct slice key, uint64_t *ret_gate)
{
    assert(key.size > 0);
    struct plan plan;
    enum store_status status = plan_write(store, key, &plan);
    if (status != STORE_OK)
        return status;
    /* Where damage may have taken a newer write, only a tombstone makes sure. */
    bool damaged = damage_covers(&store->damage, plan.place.partition, 0);
    bool deleted = plan.cached != NULL && plan.cached->tombstone;
    if (!damaged && (plan.absent || deleted)) {
        *ret_gate = deleted ? wal_gate(store->wal, plan.cached->position) : 0;
        return STORE_OK;
    }
    struct record record = {.key = key, .flags = RECORD_TOMBSTONE};
    return plan_commit(store, &plan, &record, (struct slice){(const uint8_t *)"", 0}, ret_gate);
}

/* Sets wait for the mover: a little each, and at the log's greatest length altogether. */
static void keep_pace(struct store *store)
{
    struct pace_log log;
    mover_tell_log(store->mover, &log);
    wal_set_held(store->wal, log.length > log.max);
    wal_set_spares_below(store->wal, log.spares_below);
    wal_set_few_spares(store->wal, log.is_hollow);
    if (pace_step(&store->pace, &log))
        store_made_room(store);
}

/* What creates and removes files by their names. */
static bool work_in_background(struct store *store, uint64_t budget)
{
    bool more = false;
    if (reserve_step(&store->reserve))
        mover_set_tight(store->mover, false);
    more |= mover_step(store->mover, budget);
    keep_pace(store);
    if (store->failed == 0)
        more |= checkpoints_step(&store->checkpoints, budget);
    return scrub_step(store->scrub, budget) || more;
}

bool store_flush(struct store *store, uint64_t budget)
{
    bool more = decode_step(&store->decodes);
    if (!store->is_shutting)
        proofs_work_off_suspects(&store->proofs);
    wal_flush(store->wal);
    dead_flush(&store->dead);
    more |= bloom_step(store->bloom, store->index, BLOOM_SLOTS);
    if (!presence_step(&store->presence))
        more |= work_in_background(store, budget);
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
        .keys = store_key_count(store),
        .tombstones = index_tombstones(store->index),
        .index_memory = index_memory(store->index),
        .index_limit = store->options.index_size,
        .keys_refused = store->keys_refused,
        .get_hits = store->get_hits,
        .get_misses = store->get_misses,
        .admits_set = admission_of_set(store),
        .admits_key = store_has_memory(store) ? ADMISSION_OPEN : ADMISSION_NO_MEMORY,
        .admits_file = admission_of_file(store, MIB),
    };
    (void)io_disk_space(store->io, store->options.path, &ret_stats->disk_free,
                        &ret_stats->disk_total);
    cache_stats(store->cache, &ret_stats->cache);
    wal_stats(store->wal, &ret_stats->wal);
    segments_stats(store->segments, &ret_stats->segments);
    mover_stats(store->mover, &ret_stats->mover);
    scrub_stats(store->scrub, &ret_stats->scrub);
    findings_stats(&store->findings, &ret_stats->findings);
}
