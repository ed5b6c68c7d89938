/* Gets that the cache could not answer: candidates from the index, newest first, until the key is
 * equal.
 *
 * Invariants: (1) a look-up is in `free`, or it counts in `active` and waits for one fetch or one
 * decoding; (2) candidate <= candidate_count <= CANDIDATES_MAX; (3) only the newest version of a
 * key goes into the cache. */
#ifndef MINIVAULT_STORE_STORE_LOOKUP_H
#define MINIVAULT_STORE_STORE_LOOKUP_H

#include "base/list.h"
#include "base/log.h"
#include "store/damage.h"
#include "store/fetch.h"
#include "store/key_place.h"
#include "store/memory/bloom.h"
#include "store/memory/cache.h"
#include "store/record/decode.h"
#include "store/store.h"

/* Each owns a buffer in the region. */
#define LOOKUPS_MAX 256u

/* What they work on: set once the store has all of it, which outlives them. */
struct lookup_parts {
    const struct log *log;
    struct index *index;
    struct bloom *bloom; /* in front of the index */
    struct cache *cache;
    struct wal *wal;
    struct fetcher *fetcher;
    struct decode_queue *decodes;
    const struct damage *damage;
    void *context;
    void (*ended)(void *context); /* one came free */
};

struct lookup;

struct lookups {
    struct lookup_parts parts;
    struct lookup *all; /* LOOKUPS_MAX */
    struct list free;
    uint64_t active;
};

/* `buffers`: LOOKUPS_MAX times FETCH_BUFFER_SIZE bytes of the region. Errors: -ENOMEM. */
int lookups_init(struct lookups *lookups, uint8_t *buffers);
void lookups_deinit(struct lookups *lookups);

bool lookups_are_busy(const struct lookups *lookups);

/* Begins. Returns PENDING: the waiter is told; BUSY: all are in use, after `ended` again; otherwise
 * the answer. */
enum store_status lookups_start(struct lookups *lookups, struct slice key, struct key_place place,
                                struct store_waiter *waiter, struct store_value *ret_value);

/* What a cached entry answers. */
enum store_status lookups_show(const struct lookups *lookups, struct cache_entry *entry,
                               struct store_value *ret_value);

#endif
