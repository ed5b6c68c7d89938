/* Records that are dead while their slots still stand.
 *
 * A key that is overwritten while it is not in memory has its old slot still in the index, and
 * whether that slot is this key's can only be told by a key, which the index does not have. To read
 * the old record for that would cost every such write a random read. But the mover reads every
 * record sooner or later, in sequence, to carry on what is alive: so the write leaves a mark of
 * (key, version of the old slot) here, and the mover, when it comes to a record that has a newer
 * slot beside its own, looks for its mark: there, the record is dead and its slot goes.
 *
 * A mark has 62 bits of a hash of the whole key under a secret of its own, so it does not depend on
 * what the index knows of a hash. For a record to be taken for dead that is not, its key must share
 * 64 bits of the index' and the partition's hashes with a newer key, and then a mark too: 2^-126 for
 * two keys, 2^-114 when they were chosen to share the 12 bits of XXH64 among these, and nobody can
 * look for them who does not have the secret.
 *
 * The set is in memory only: recovery finds the slots that share a hash and proves them by reading
 * (store_proof.c), which is also what happens when the set is full. A table with linear probing, 8
 * bytes a position, at most 3/4 full. */
#ifndef MINIVAULT_STORE_DOOMED_H
#define MINIVAULT_STORE_DOOMED_H

#include "base/bytes.h"
#include "base/version.h"

#include <stdbool.h>
#include <stdint.h>

struct doomed;

/* `memory`: bytes at most, all of which are used: a power of two is. `secret`: HASH_SECRET_SIZE
 * bytes, from which another is made. Errors: -ENOMEM. */
int doomed_create(uint64_t memory, const uint8_t *secret, struct doomed **ret_doomed);
void doomed_free(struct doomed *doomed); /* NULL: nothing */

/* The bytes that doomed_create takes of so many. */
uint64_t doomed_memory(uint64_t memory);

/* Tombstones are marked as such, for the count of values. */
uint64_t doomed_mark(const struct doomed *doomed, struct slice key, struct version version,
                     bool tombstone);

bool doomed_has_room(const struct doomed *doomed, uint64_t marks);

/* There is room. A mark that is there already stays. */
void doomed_add(struct doomed *doomed, uint64_t mark);
bool doomed_has(const struct doomed *doomed, uint64_t mark);

/* Returns whether it was there. */
bool doomed_remove(struct doomed *doomed, uint64_t mark);

uint64_t doomed_count(const struct doomed *doomed);
uint64_t doomed_values(const struct doomed *doomed); /* of these, other than tombstones */

#endif
