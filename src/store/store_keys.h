/* How many keys there is memory for, and what becomes of those beyond it.
 *
 * Cache and index each have their part of -memory from the start on, so that neither has to give way
 * while the store runs. A key takes a slot of the index and bits of the filter in front of it. Once
 * there are as many slots as the index's part holds, new keys are refused. Keys that are there are
 * overwritten and deleted as ever: what that adds for a moment is bounded by the proofs under way. A
 * start refuses nothing; when it finds more keys than fit, the cache is smaller instead. */
#ifndef MINIVAULT_STORE_STORE_KEYS_H
#define MINIVAULT_STORE_STORE_KEYS_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

/* Bytes that a key takes at most: of the index 32, of the filter 13 bits. */
#define STORE_KEY_BYTES 34u

/* What the cache has at least. */
#define STORE_CACHE_MIN ((uint64_t)1 << 20)

/* An empty index that knows its limit. Errors: -ENOMEM. */
int store_create_index(struct store *store);

/* The cache, and the set of the dead, which is a part of it. The index has the keys of all segments
 * by now. Errors: -ENOMEM. */
int store_create_cache(struct store *store);

/* After recovery: says so when there are more keys than the memory is for. */
void store_warn_of_keys(const struct store *store);

/* Whether a new key would be taken. */
bool store_has_memory(const struct store *store);

/* Whether this key may be written, as far as memory goes: it is there, or a new one would be taken.
 * Otherwise the refusal is counted, and logged once a second at most. */
bool store_takes_key(struct store *store, struct slice key);

#endif
