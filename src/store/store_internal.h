/* The store's insides, shared by the store_*.c files alone. */
#ifndef MINIVAULT_STORE_STORE_INTERNAL_H
#define MINIVAULT_STORE_STORE_INTERNAL_H

#include "base/clock.h"
#include "base/hash.h"
#include "store/decode.h"
#include "store/fetch.h"
#include "store/index.h"
#include "store/recovery.h"
#include "store/store.h"
#include "store/superblock.h"

/* Gets that wait for the disk, and writes whose old slot is being proved. Each owns a buffer in the
 * region. */
#define LOOKUPS_MAX 256u
#define PROOFS_MAX 64u

/* Slots that one hash may have. Two keys with one keyed hash do not happen by chance, so more than
 * one slot is an overwrite that is not proved yet; at this many a write waits for the proofs. */
#define CANDIDATES_MAX 8u

/* How often a look-up starts over because writes changed what it walks through. */
#define LOOKUP_RELOADS_MAX 8u

/* A key's place in the tables. */
struct place {
    uint32_t partition;
    uint64_t hash;
};

/* Whether two entries are the same write. The location alone does not tell: a recycled segment may
 * hold a newer write of the same key at the same place. */
static inline bool index_entry_is_same(const struct index_entry *a, const struct index_entry *b)
{
    return a->location == b->location && version_compare(a->version, b->version) == 0;
}

/* A key that outlives the buffer it came in: short ones inside, others malloc'ed. */
struct kept_key {
    struct slice slice;
    uint8_t bytes[128];
};

struct lookup {
    struct fetch fetch;
    struct store *store;
    struct store_waiter *waiter;
    struct place place;
    struct kept_key key;
    struct index_entry candidates[CANDIDATES_MAX];
    uint32_t candidate_count;
    uint32_t candidate; /* the one being fetched */
    uint32_t reloads;
    struct decode_job decode;
    struct list_node node;
};

struct proof {
    struct fetch fetch;
    struct store *store;
    struct place place;
    struct kept_key key;
    uint64_t killer_position;
    struct index_entry candidates[CANDIDATES_MAX];
    uint32_t candidate_count;
    uint32_t candidate;
    uint32_t removed_count; /* slots, in this round */
    bool is_suspect;        /* left by recovery: all slots of the hash are to be sorted out */
    bool key_known;         /* false: the first candidate's key is the one to prove */
    struct list_node node;
};

/* A hash that recovery left with several slots. */
struct suspect {
    struct place place;
};

struct store {
    struct io *io;
    const struct log *log;
    struct store_options options;
    struct superblock_file superblock;
    char log_directory[4096];
    struct wal *wal;
    struct index *index;
    struct cache *cache;
    struct hybrid_clock clock;
    uint32_t origin;
    int failed;           /* 0, or the log's error */
    uint64_t damage_last; /* log position up to which acknowledged writes were lost; 0: none */
    bool starved;         /* somebody was told BUSY */
    struct fetcher fetcher;
    struct decode_queue decodes;
    struct lookup *lookups; /* LOOKUPS_MAX */
    struct list lookups_free;
    struct proof *proofs; /* PROOFS_MAX */
    struct list proofs_free;
    struct suspect *suspects;
    uint64_t suspect_count;
    uint64_t suspect_capacity;
    uint64_t lookups_active;
    uint64_t proofs_active;
};

static inline struct place store_place(const struct store *store, struct slice key)
{
    return (struct place){
        .partition = hash_partition(hash_key(key.data, key.size)),
        .hash = hash_keyed(store->superblock.now.secret, key.data, key.size),
    };
}

/* Whether what is known at this log position may have been overwritten by a write that damage
 * destroyed. */
static inline bool store_is_damaged_at(const struct store *store, uint64_t position)
{
    return position <= store->damage_last;
}

/* Errors: -ENOMEM. */
int kept_key_set(struct kept_key *kept, struct slice key);
void kept_key_clear(struct kept_key *kept);

/* Tells those who were BUSY that something came free. */
void store_made_room(struct store *store);

/* A log or memory failure after which nothing may be acknowledged. */
void store_fail(struct store *store, int error);

/* What a cached entry answers. */
enum store_status store_show_entry(const struct store *store, struct cache_entry *entry,
                                   struct store_value *ret_value);

/* store_lookup.c: a get whose key is not in the cache. */
enum store_status lookup_start(struct store *store, struct slice key, struct place place,
                               struct store_waiter *waiter, struct store_value *ret_value);

/* store_proof.c: which of the candidates that are not in memory belong to `key` and are superseded.
 */

/* A proof for a write that is about to be appended, or NULL when all are in use. */
struct proof *proof_get(struct store *store);
void proof_put(struct store *store, struct proof *proof);

/* Starts proving; the proof gives itself back. candidates and place are filled, the key too unless
 * !key_known. */
void proof_start(struct proof *proof);

/* Starts as many proofs as there is room for, for what recovery left. */
void proof_work_off_suspects(struct store *store);

#endif
