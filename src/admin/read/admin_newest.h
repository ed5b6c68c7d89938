/* The newest write of each key, of all that a walk has shown, and where its record lies.
 *
 * In memory: 48 bytes a key in a table that is filled to 3/4 at most (so 64 to 128 bytes, and 192
 * while it grows), and the keys themselves when they are kept. Without them two keys of one
 * partition with one index hash count as one. */
#ifndef MINIVAULT_ADMIN_ADMIN_NEWEST_H
#define MINIVAULT_ADMIN_ADMIN_NEWEST_H

#include "admin/read/admin_walk.h"

struct newest_slot {
    uint64_t hash;
    uint64_t clock;
    uint64_t offset;
    const uint8_t *key; /* NULL: not kept */
    uint32_t origin;
    uint32_t file;
    uint32_t size; /* of the record; 0: the slot is free */
    uint16_t key_size;
    uint8_t partition;
    uint8_t tombstone : 1;
    uint8_t in_value_file : 1;
};

struct newest {
    bool keeps_keys;
    struct newest_slot *slots;
    uint64_t capacity; /* a power of two, or 0 */
    uint64_t count;
    uint64_t tombstones; /* of them */
    uint64_t records;    /* that were taken */
    uint8_t **arenas;    /* of keys */
    uint32_t arena_count;
    uint32_t arena_used; /* of the last one */
};

void newest_init(struct newest *newest, bool keeps_keys);
void newest_free(struct newest *newest);

/* A walk_each: takes what the walk shows. A record that was shown before with the same version has
 * moved here. Errors: -ENOMEM. */
int newest_take(void *newest, const struct walk_found *found);

/* Whether it is the newest record of its key, and lies where the table says. */
bool newest_is(const struct newest *newest, const struct walk_found *found);

/* Slot number `index` of `capacity`, or NULL when it is free. */
const struct newest_slot *newest_nth(const struct newest *newest, uint64_t index);

#endif
