/* A blocked Bloom filter in front of the index: answers most absent keys with one cache line.
 *
 * Each partition has a filter of 64-byte lines (Putze, Sanders, Singler, WEA 2007). A key has one
 * line and in each of its eight words one bit. Like the index, the filter knows no keys: it uses
 * the index hash and the partition, not all of the keyed hash, since that is what a walk over the
 * index shows. Line and bits depend on the 52 bits under the secret; the 4 others, which keys can
 * be crafted to share, add nothing to them.
 *
 * A filter grows by being built anew, larger, from the partition's slots, some in every step, while
 * the old one answers and new keys go into both. That also forgets the bits of removed keys. A
 * partition's turn comes when 56 keys a line have set bits (9.1 bits a key, and 1.8 % of absent
 * keys pass); its next filter is for 9/8 to 45/32 of the slots that there are. The partitions'
 * sizes are spread over that range, so that their turns are spread evenly over time instead of
 * coming all at once: over all of them 1 % of absent keys pass, a key takes 11 bits, and a new key
 * makes the steps walk over about five old ones.
 *
 * perf/micro, 10 million keys: an absent key takes a third of the time, a new one a third more. */
#ifndef MINIVAULT_STORE_BLOOM_H
#define MINIVAULT_STORE_BLOOM_H

#include "store/memory/index.h"

struct bloom;

/* Knows nothing at first: until steps have built a partition's filter, its keys may all be there.
 * So it can be created before or after the index was filled. Errors: -ENOMEM. */
int bloom_create(struct bloom **ret_bloom);
void bloom_free(struct bloom *bloom);

/* To be called for each slot that is added to the index; the arguments are index_add's. */
void bloom_add(struct bloom *bloom, uint32_t partition, uint64_t hash);

/* False: the index has no slot of this hash. */
bool bloom_may_contain(const struct bloom *bloom, uint32_t partition, uint64_t hash);

/* Hints that bloom_may_contain for this hash comes soon. */
void bloom_prefetch(const struct bloom *bloom, uint32_t partition, uint64_t hash);

/* Goes on building, over at least `slots` slots of the index (and not many more than a group of its
 * rows more), which must be the one that all adds went to. Returns whether there is more to build;
 * when memory is short, the old filters stay and pass more. */
bool bloom_step(struct bloom *bloom, const struct index *index, uint32_t slots);

uint64_t bloom_memory(const struct bloom *bloom); /* bytes */

#endif
