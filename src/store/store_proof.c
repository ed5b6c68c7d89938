/* Proving identity: reads old records to tell whose they are. */
#include "store/store_proof.h"

#include "base/assert.h"
#include "store/memory/location.h"

#include <errno.h>
#include <stdlib.h>

/* Of PROOFS_MAX: nobody waits for what recovery left to be sorted out. */
#define SUSPECTS_ACTIVE_MAX 32u

struct proof {
    struct fetch fetch;
    struct proofs *proofs;
    struct key_place place;
    struct slice key; /* a copy */
    uint8_t key_inside[KEY_INSIDE_SIZE];
    uint64_t killer_position;
    struct index_entry candidates[CANDIDATES_MAX];
    uint32_t candidate_count;
    uint32_t candidate;
    uint32_t removed_count; /* slots, in this round */
    bool is_suspect;        /* left by recovery: all slots of the hash are to be sorted out */
    bool is_counted;        /* as the suspect's */
    bool key_known;         /* false: the first candidate's key is the one to prove */
    struct list_node node;
};

/* A hash that recovery left with several slots. */
struct suspect {
    struct key_place place;
    bool is_counted; /* among the keys, though it will turn out to be an older write of one */
};

struct proof *proofs_get(struct proofs *proofs, const struct key_place *place, struct slice key)
{
    struct list_node *node = list_pop_front(&proofs->free);
    if (node == NULL)
        return NULL;
    struct proof *proof = container_of(node, struct proof, node);
    assert(proofs->active < PROOFS_MAX); /* invariant 1 */
    proofs->active++;
    proof->place = *place;
    proof->candidate = 0;
    proof->candidate_count = 0;
    proof->removed_count = 0;
    proof->key_known = true;
    proof->is_suspect = false;
    proof->is_counted = false;
    if (key_copy(key, proof->key_inside, &proof->key) == 0)
        return proof;
    proof_put(proof);
    return NULL;
}

void proof_put(struct proof *proof)
{
    struct proofs *proofs = proof->proofs;
    assert(!list_node_is_linked(&proof->node)); /* invariant 1 */
    fetch_release(&proof->fetch);
    key_forget(&proof->key, proof->key_inside);
    list_push_front(&proofs->free, &proof->node);
    assert(proofs->active > 0);                        /* invariant 1 */
    assert(proofs->suspect_keys >= proof->is_counted); /* invariant 3 */
    proofs->active--;
    proofs->suspect_keys -= proof->is_counted;
    proofs->parts.ended(proofs->parts.context);
}

void proof_add(struct proof *proof, const struct index_entry *candidate)
{
    assert(proof->candidate_count < CANDIDATES_MAX); /* invariant 2 */
    proof->candidates[proof->candidate_count++] = *candidate;
}

/* The mark of its death is gone, and its slot. */
static void record_spared(const struct proof_parts *parts, const struct index_entry *old)
{
    if (location_is_segment(old->location))
        segment_record_spared(parts->segments, old->location, old->read_size);
    else
        wal_record_spared(parts->wal, old->location);
}

/* `record`: the candidate's, or NULL: it cannot be read. */
static void remove_candidate(struct proof *proof, const struct record *record)
{
    const struct proof_parts *parts = &proof->proofs->parts;
    struct index_entry old;
    if (index_remove(parts->index, proof->place.partition, proof->place.hash,
                     proof->candidates[proof->candidate].version, &old) < 0)
        return;
    struct slice key = proof->key;
    uint64_t mark = doomed_mark(parts->doomed, key, old.version, old.tombstone);
    if (doomed_remove(parts->doomed, mark))
        record_spared(parts, &old);
    struct value_file_name file;
    if (record != NULL)
        file = value_file_named(hash_key(key.data, key.size), record->value);
    dead_record(parts->dead, &old, record != NULL ? &file : NULL, proof->killer_position);
    proof->removed_count++;
}

/* What was read is damaged, but still spells another key of the same hash. */
static bool spells_other_key(const struct proof *proof)
{
    struct slice read = fetch_bytes(&proof->fetch);
    if (read.size < RECORD_HEADER_SIZE)
        return false;
    struct slice key = record_told_key(read.data);
    return (uint64_t)(key.data - read.data) + key.size <= read.size &&
           hash_place(proof->proofs->parts.secret, key.data, key.size).hash == proof->place.hash &&
           !slice_equal(key, proof->key);
}

/* The current candidate cannot be read. The write that came after it may have left a mark. Without
 * one, what is damaged on the disk is taken for an older write of the key, which partition and
 * hash say, 64 bits of which 52 are under a secret: nobody needs it any more, and kept, it would
 * keep its segment in quarantine for ever. */
static bool judge_unreadable(struct proof *proof, int error)
{
    if (!proof->key_known)
        return false;
    const struct doomed *doomed = proof->proofs->parts.doomed;
    const struct index_entry *candidate = &proof->candidates[proof->candidate];
    uint64_t mark = doomed_mark(doomed, proof->key, candidate->version, candidate->tombstone);
    if (doomed_has(doomed, mark) || (error == -EBADMSG && !spells_other_key(proof)))
        remove_candidate(proof, NULL);
    return true;
}

/* The current candidate's record is there. Returns whether to go on. */
static bool judge(struct proof *proof)
{
    const struct record *record = fetch_record(&proof->fetch);
    if (!proof->key_known) {
        proof->key_known = true;
        proof->killer_position = record->position;
        return key_copy(record->key, proof->key_inside, &proof->key) == 0;
    }
    if (slice_equal(record->key, proof->key))
        remove_candidate(proof, record);
    return true;
}

/* Takes the newest slots of the hash as candidates; the first of them tells the key. Returns how
 * many there are. */
static uint32_t load(struct proof *proof)
{
    uint32_t count = index_find(proof->proofs->parts.index, proof->place.partition,
                                proof->place.hash, proof->candidates, CANDIDATES_MAX);
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
static bool go_through(struct proof *proof)
{
    const struct proof_parts *parts = &proof->proofs->parts;
    assert(proof->candidate_count <= CANDIDATES_MAX); /* invariant 2 */
    for (; proof->candidate < proof->candidate_count; proof->candidate++) {
        struct index_entry *candidate = &proof->candidates[proof->candidate];
        /* Where it lies by now; its slot may have gone meanwhile, and its file with it. */
        if (index_get(parts->index, proof->place.partition, proof->place.hash, candidate->version,
                      candidate) < 0)
            continue;
        int result = fetch_start(parts->fetcher, &proof->fetch, candidate, fetched);
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
    while (go_through(proof)) {
        key_forget(&proof->key, proof->key_inside);
        if (!proof->is_suspect || proof->removed_count == 0 || load(proof) < 2) {
            proof_put(proof);
            return;
        }
    }
}

static void fetched(struct fetch *fetch, int result)
{
    struct proof *proof = container_of(fetch, struct proof, fetch);
    assert(proof->candidate < proof->candidate_count); /* invariant 2 */
    bool go_on = result == 0 ? judge(proof) : judge_unreadable(proof, result);
    fetch_release(fetch);
    /* Without the newest record's key there is nothing to compare with. */
    proof->candidate = go_on ? proof->candidate + 1 : proof->candidate_count;
    run(proof);
}

void proof_start(struct proof *proof, uint64_t killer_position)
{
    assert(!proof->is_suspect);
    proof->killer_position = killer_position;
    run(proof);
}

/* ---- suspects ---- */

int proofs_add_suspect(struct proofs *proofs, struct key_place place, bool is_counted)
{
    if (proofs->suspect_count == proofs->suspect_capacity) {
        uint64_t capacity = max_u64(1024, 2 * proofs->suspect_capacity);
        struct suspect *grown = realloc(proofs->suspects, capacity * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        proofs->suspects = grown;
        proofs->suspect_capacity = capacity;
    }
    proofs->suspects[proofs->suspect_count++] = (struct suspect){place, is_counted};
    proofs->suspect_keys += is_counted;
    return 0;
}

int proofs_suspect(struct proofs *proofs, const struct index *index, struct key_place place,
                   const struct index_entry *entry)
{
    struct index_entry newest[2];
    if (index_find(index, place.partition, place.hash, newest, 2) < 2)
        return 0;
    const struct index_entry *older = index_entry_is_same(entry, &newest[0]) ? &newest[1] : entry;
    return proofs_add_suspect(proofs, place, !older->tombstone);
}

void proofs_forget_suspects(struct proofs *proofs)
{
    assert(proofs->active == 0);
    proofs->suspect_count = 0;
    proofs->suspect_keys = 0;
}

/* One proof works off all slots of a hash. */
static bool is_being_proved(const struct proofs *proofs, uint64_t hash)
{
    for (uint32_t i = 0; i < PROOFS_MAX; i++) {
        const struct proof *proof = &proofs->all[i];
        if (!list_node_is_linked(&proof->node) && proof->is_suspect && proof->place.hash == hash)
            return true;
    }
    return false;
}

void proofs_work_off_suspects(struct proofs *proofs)
{
    while (proofs->suspect_count > 0 && proofs->active < SUSPECTS_ACTIVE_MAX) {
        const struct suspect *suspect = &proofs->suspects[proofs->suspect_count - 1];
        bool is_waiting = !is_being_proved(proofs, suspect->place.hash);
        struct slice none = {(const uint8_t *)"", 0}; /* the newest record tells the key */
        struct proof *proof = is_waiting ? proofs_get(proofs, &suspect->place, none) : NULL;
        if (is_waiting && proof == NULL)
            return;
        bool is_counted = suspect->is_counted;
        assert(proofs->suspect_keys >= is_counted); /* invariant 3 */
        proofs->suspect_count--;
        if (proof == NULL) {
            proofs->suspect_keys -= is_counted;
            continue;
        }
        proof->is_counted = is_counted;
        proof->is_suspect = true;
        (void)load(proof);
        run(proof);
    }
}

/* ---- opening and closing ---- */

int proofs_init(struct proofs *proofs, uint8_t *buffers)
{
    list_init(&proofs->free);
    proofs->all = calloc(PROOFS_MAX, sizeof *proofs->all);
    if (proofs->all == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < PROOFS_MAX; i++) {
        struct proof *proof = &proofs->all[i];
        proof->proofs = proofs;
        fetch_init(&proof->fetch, buffers + i * FETCH_BUFFER_SIZE);
        proof->fetch.is_hidden = true; /* but for the newest, which a get finds, too */
        list_push_back(&proofs->free, &proof->node);
    }
    return 0;
}

bool proofs_are_busy(const struct proofs *proofs)
{
    return proofs->active > 0;
}

bool proofs_are_pending(const struct proofs *proofs)
{
    return proofs->active + proofs->suspect_count > 0;
}

uint64_t proofs_suspect_keys(const struct proofs *proofs)
{
    return proofs->suspect_keys;
}

void proofs_deinit(struct proofs *proofs)
{
    for (uint32_t i = 0; proofs->all != NULL && i < PROOFS_MAX; i++) {
        fetch_deinit(&proofs->all[i].fetch);
        key_forget(&proofs->all[i].key, proofs->all[i].key_inside);
    }
    free(proofs->all);
    free(proofs->suspects);
}
