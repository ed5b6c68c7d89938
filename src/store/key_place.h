/* A key's place in the tables of the store, and a copy of it that outlives its buffer. */
#ifndef MINIVAULT_STORE_KEY_PLACE_H
#define MINIVAULT_STORE_KEY_PLACE_H

#include "base/bytes.h"
#include "base/hash.h"
#include "store/memory/index.h"
#include "store/store.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Slots that one hash may have. Two keys with one keyed hash do not happen by chance, so more than
 * one slot is an overwrite that is not proved yet; at this many a write waits for the proofs. */
#define CANDIDATES_MAX 8u

/* From this many slots of a hash on they are proved at once, by reading, instead of being left to
 * the mover. */
#define CANDIDATES_CROWDED 4u

static inline struct key_place key_place_of(uint64_t keyed, uint64_t key_hash)
{
    return (struct key_place){
        .partition = (uint16_t)hash_partition(key_hash),
        .hash = hash_index(keyed, key_hash),
        .keyed = keyed,
        .key_hash = key_hash,
        .is_whole = true,
    };
}

/* Whether two entries are the same write, wherever its record lies by now. */
static inline bool index_entry_is_same(const struct index_entry *a, const struct index_entry *b)
{
    return version_compare(a->version, b->version) == 0;
}

#define KEY_INSIDE_SIZE 128u

/* A copy of the key: a short one lies in `inside`, KEY_INSIDE_SIZE bytes of its owner's, another
 * one is malloc'ed. Errors: -ENOMEM. */
static inline int key_copy(struct slice key, uint8_t *inside, struct slice *ret_copy)
{
    uint8_t *bytes = key.size <= KEY_INSIDE_SIZE ? inside : malloc(key.size);
    if (bytes == NULL)
        return -ENOMEM;
    memcpy(bytes, key.data, key.size);
    *ret_copy = (struct slice){bytes, key.size};
    return 0;
}

/* The copy is empty then, as it was before. */
static inline void key_forget(struct slice *copy, const uint8_t *inside)
{
    if (copy->data != inside)
        free((void *)copy->data);
    *copy = (struct slice){0};
}

#endif
