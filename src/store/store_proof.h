/* Proofs: which of a hash's slots that are not in memory belong to one key, and are superseded.
 *
 * A key was written while an older slot of its hash was not in memory. A proof reads the old
 * record.
 * If its key is the same, the old slot goes and its record is dead. A start leaves hashes with
 * several slots, the suspects; they are proved in the background.
 *
 * Invariants: (1) a proof is in `free`, or it counts in `active`; (2) its candidates are at most
 * CANDIDATES_MAX, the one being fetched is below their number; (3) suspect_keys is the number of
 * suspects, waiting or being proved, that count among the keys though they are older writes of
 * one. */
#ifndef MINIVAULT_STORE_STORE_PROOF_H
#define MINIVAULT_STORE_STORE_PROOF_H

#include "base/list.h"
#include "store/fetch.h"
#include "store/key_place.h"
#include "store/memory/doomed.h"
#include "store/store_dead.h"

/* Each owns a buffer in the region. */
#define PROOFS_MAX 256u

/* What they work on: set once the store has all of it, which outlives them. */
struct proof_parts {
    const uint8_t *secret;
    struct index *index;
    struct doomed *doomed;
    struct segments *segments;
    struct wal *wal;
    struct fetcher *fetcher;
    struct dead *dead;
    void *context;
    void (*ended)(void *context); /* one came free */
};

struct proof;
struct suspect;

struct proofs {
    struct proof_parts parts;
    struct proof *all; /* PROOFS_MAX */
    struct list free;
    uint64_t active;
    struct suspect *suspects;
    uint64_t suspect_count;
    uint64_t suspect_capacity;
    uint64_t suspect_keys;
};

/* `buffers`: PROOFS_MAX times FETCH_BUFFER_SIZE bytes of the region. Errors: -ENOMEM. */
int proofs_init(struct proofs *proofs, uint8_t *buffers);
void proofs_deinit(struct proofs *proofs);

bool proofs_are_busy(const struct proofs *proofs);

/* Whether slots may go before long, without a write. */
bool proofs_are_pending(const struct proofs *proofs);

/* How many keys are counted twice. */
uint64_t proofs_suspect_keys(const struct proofs *proofs);

/* ---- of a write that is about to be appended ---- */

/* For a key, which is copied. NULL when all are in use, or there is no memory for the key. */
struct proof *proofs_get(struct proofs *proofs, const struct key_place *place, struct slice key);
void proof_put(struct proof *proof);

void proof_add(struct proof *proof, const struct index_entry *candidate);

/* The write was appended at this position. The proof gives itself back. */
void proof_start(struct proof *proof, uint64_t killer_position);

/* ---- of what a start found ---- */

/* A hash that has several slots. Errors: -ENOMEM. */
int proofs_add_suspect(struct proofs *proofs, struct key_place place, bool is_counted);

/* After the slot `entry` of a hash was found in this index: when the hash has others, they are
 * sorted out once the store is open. Errors: -ENOMEM. */
int proofs_suspect(struct proofs *proofs, const struct index *index, struct key_place place,
                   const struct index_entry *entry);
void proofs_forget_suspects(struct proofs *proofs);

/* Starts as many proofs as there is room for. What a shutdown leaves of it the next start finds
 * again. */
void proofs_work_off_suspects(struct proofs *proofs);

#endif
