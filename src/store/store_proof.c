/* Proving identity: a key was written while an older slot of its hash was not in memory. The old
 * record is read; if its key is the same, the old slot goes and its record is dead. */
#include "store/store_internal.h"

#include "base/assert.h"
#include "store/memory/location.h"

#include <errno.h>

/* Of PROOFS_MAX: nobody waits for what recovery left to be sorted out. */
#define SUSPECTS_ACTIVE_MAX 32u

struct proof *proof_get(struct store *store)
{
    struct list_node *node = list_pop_front(&store->proofs_free);
    if (node == NULL)
        return NULL;
    struct proof *proof = container_of(node, struct proof, node);
    store->proofs_active++;
    proof->store = store;
    proof->candidate = 0;
    proof->candidate_count = 0;
    proof->removed_count = 0;
    proof->key_known = true;
    proof->is_suspect = false;
    proof->is_counted = false;
    return proof;
}

void proof_put(struct store *store, struct proof *proof)
{
    fetch_release(&proof->fetch);
    kept_key_clear(&proof->key);
    list_push_front(&store->proofs_free, &proof->node);
    assert(store->proofs_active > 0);
    store->proofs_active--;
    store->suspect_keys -= proof->is_counted;
    store_made_room(store);
}

/* Looks where the candidate lies by now. Returns false when its slot has gone meanwhile, and
 * possibly its file with it. */
static bool refresh(const struct proof *proof, struct index_entry *candidate)
{
    return index_get(proof->store->index, proof->place.partition, proof->place.hash,
                     candidate->version, candidate) == 0;
}

/* The mark of its death is gone, and its slot. */
static void record_spared(struct store *store, const struct index_entry *old)
{
    if (location_is_segment(old->location))
        segment_record_spared(store->segments, old->location, old->read_size);
    else
        wal_record_spared(store->wal, old->location);
}

/* `record`: the candidate's, or NULL: it cannot be read. */
static void remove_candidate(struct proof *proof, const struct record *record)
{
    struct store *store = proof->store;
    struct index_entry old;
    if (index_remove(store->index, proof->place.partition, proof->place.hash,
                     proof->candidates[proof->candidate].version, &old) < 0)
        return;
    struct slice key = proof->key.slice;
    uint64_t mark = doomed_mark(store->doomed, key, old.version, old.tombstone);
    if (doomed_remove(store->doomed, mark))
        record_spared(store, &old);
    struct value_file_name file;
    if (record != NULL)
        file = value_file_named(hash_key(key.data, key.size), record->value);
    store_record_dead(store, &old, record != NULL ? &file : NULL, proof->killer_position);
    proof->removed_count++;
}

/* What was read is damaged, but still spells another key of the same hash. */
static bool spells_other_key(const struct proof *proof)
{
    const struct fetch *fetch = &proof->fetch;
    const uint8_t *data = (fetch->large != NULL ? fetch->large : fetch->buffer) + fetch->skip;
    uint64_t size = fetch->read_size - fetch->skip;
    if (size < RECORD_HEADER_SIZE)
        return false;
    struct slice key = record_told_key(data);
    return (uint64_t)(key.data - data) + key.size <= size &&
           store_place(proof->store, key).hash == proof->place.hash &&
           !slice_equal(key, proof->key.slice);
}

/* The current candidate cannot be read. The write that came after it may have left a mark. Without
 * one, what is damaged on the disk is taken for an older write of the key, which partition and
 * hash say, 64 bits of which 52 are under a secret: nobody needs it any more, and kept, it would
 * keep its segment in quarantine for ever. */
static bool judge_unreadable(struct proof *proof, int error)
{
    if (!proof->key_known)
        return false;
    const struct doomed *doomed = proof->store->doomed;
    const struct index_entry *candidate = &proof->candidates[proof->candidate];
    uint64_t mark = doomed_mark(doomed, proof->key.slice, candidate->version, candidate->tombstone);
    if (doomed_has(doomed, mark) || (error == -EBADMSG && !spells_other_key(proof)))
        remove_candidate(proof, NULL);
    return true;
}

/* The current candidate's record is there. Returns whether to go on. */
static bool judge(struct proof *proof)
{
    const struct record *record = &proof->fetch.record;
    if (!proof->key_known) {
        proof->key_known = true;
        proof->killer_position = record->position;
        return kept_key_set(&proof->key, record->key) == 0;
    }
    if (slice_equal(record->key, proof->key.slice))
        remove_candidate(proof, record);
    return true;
}

/* Takes the newest slots of the hash as candidates; the first of them tells the key. Returns how
 * many there are. */
static uint32_t load(struct proof *proof)
{
    uint32_t count = index_find(proof->store->index, proof->place.partition, proof->place.hash,
                                proof->candidates, CANDIDATES_MAX);
    proof->candidate_count = count < CANDIDATES_MAX ? count : CANDIDATES_MAX;
    proof->candidate = 0;
    proof->removed_count = 0;
    proof->key_known = false;
    return count;
}

static void fetched(struct fetch *fetch, int result);

/* Goes through the candidates from proof->candidate on. Returns false when one has to be waited
 * for. A record that cannot be read just now keeps its slot: it stays hidden behind the newer
 * version. */
static bool walk(struct proof *proof)
{
    struct store *store = proof->store;
    for (; proof->candidate < proof->candidate_count; proof->candidate++) {
        struct index_entry *candidate = &proof->candidates[proof->candidate];
        if (!refresh(proof, candidate))
            continue;
        int result = fetch_start(&store->fetcher, &proof->fetch, candidate, fetched);
        if (result == 0)
            return false;
        bool go_on = result == 1 ? judge(proof) : proof->key_known;
        fetch_release(&proof->fetch);
        if (!go_on)
            break;
    }
    return true;
}

/* Ends when nothing has to be waited for. After recovery a hash may have more slots than one round
 * takes: as long as a round removed some, another follows. */
static void run(struct proof *proof)
{
    while (walk(proof)) {
        kept_key_clear(&proof->key);
        if (!proof->is_suspect || proof->removed_count == 0 || load(proof) < 2) {
            proof_put(proof->store, proof);
            return;
        }
    }
}

static void fetched(struct fetch *fetch, int result)
{
    struct proof *proof = container_of(fetch, struct proof, fetch);
    bool go_on = result == 0 ? judge(proof) : judge_unreadable(proof, result);
    fetch_release(fetch);
    /* Without the newest record's key there is nothing to compare with. */
    proof->candidate = go_on ? proof->candidate + 1 : proof->candidate_count;
    run(proof);
}

void proof_start(struct proof *proof)
{
    run(proof);
}

/* One proof works off all slots of a hash. */
static bool is_being_proved(const struct store *store, uint64_t hash)
{
    for (uint32_t i = 0; i < PROOFS_MAX; i++) {
        const struct proof *proof = &store->proofs[i];
        if (!list_node_is_linked(&proof->node) && proof->is_suspect && proof->place.hash == hash)
            return true;
    }
    return false;
}

void proof_work_off_suspects(struct store *store)
{
    while (store->suspect_count > 0 && store->proofs_active < SUSPECTS_ACTIVE_MAX &&
           !store->is_shutting) {
        const struct suspect *suspect = &store->suspects[store->suspect_count - 1];
        struct key_place place = suspect->place;
        struct proof *proof = is_being_proved(store, place.hash) ? NULL : proof_get(store);
        if (proof == NULL && list_is_empty(&store->proofs_free))
            return;
        bool is_counted = suspect->is_counted;
        store->suspect_count--;
        if (proof == NULL) {
            store->suspect_keys -= is_counted;
            continue;
        }
        proof->is_counted = is_counted;
        proof->place = place;
        proof->is_suspect = true;
        (void)load(proof);
        proof_start(proof);
    }
}
