/* The set of marks: linear probing, without tombstones of its own.
 *
 * Invariants:
 * 1. The number of positions is a power of two, and at most 3/4 of them are taken: a search ends.
 * 2. Of the marks, at most all are tombstones': tombstones <= count.
 * 3. Between a mark's home and its position no position is empty. */
#include "store/memory/doomed.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>

#define POSITIONS_MIN ((uint64_t)64)
#define EMPTY ((uint64_t)0)
#define MARK_IS_SET ((uint64_t)1 << 63) /* so that no mark is EMPTY */
#define MARK_IS_TOMBSTONE ((uint64_t)1)

struct doomed {
    uint64_t mask; /* number of positions - 1 */
    uint64_t count;
    uint64_t tombstones;
    uint8_t secret[HASH_SECRET_SIZE];
    uint64_t positions[];
};

static uint64_t position_count(uint64_t memory)
{
    uint64_t count = POSITIONS_MIN;
    while (2 * count * sizeof(uint64_t) <= memory)
        count *= 2;
    return count;
}

uint64_t doomed_memory(uint64_t memory)
{
    return position_count(memory) * sizeof(uint64_t);
}

int doomed_create(uint64_t memory, const uint8_t *secret, struct doomed **ret_doomed)
{
    struct doomed *doomed = calloc(1, sizeof *doomed + doomed_memory(memory));
    if (doomed == NULL)
        return -ENOMEM;
    doomed->mask = position_count(memory) - 1;
    int error = XXH3_generateSecret(doomed->secret, HASH_SECRET_SIZE, secret, HASH_SECRET_SIZE);
    assert(error == XXH_OK);
    *ret_doomed = doomed;
    return 0;
}

void doomed_free(struct doomed *doomed)
{
    free(doomed);
}

uint64_t doomed_mark(const struct doomed *doomed, struct slice key, struct version version,
                     bool tombstone)
{
    uint64_t words[] = {hash_keyed(doomed->secret, key.data, key.size), version.clock,
                        version.origin};
    uint64_t mark = hash_keyed(doomed->secret, (const uint8_t *)words, sizeof words);
    return (mark & ~MARK_IS_TOMBSTONE) | MARK_IS_SET | (tombstone ? MARK_IS_TOMBSTONE : 0);
}

bool doomed_has_room(const struct doomed *doomed, uint64_t marks)
{
    return doomed->count + marks <= (doomed->mask + 1) / 4 * 3;
}

static uint64_t home_of(const struct doomed *doomed, uint64_t mark)
{
    return mark >> 1 & doomed->mask;
}

/* The mark's position, or the empty one where it would be. */
static uint64_t find(const struct doomed *doomed, uint64_t mark)
{
    uint64_t position = home_of(doomed, mark);
    while (doomed->positions[position] != EMPTY && doomed->positions[position] != mark)
        position = (position + 1) & doomed->mask;
    return position;
}

void doomed_add(struct doomed *doomed, uint64_t mark)
{
    uint64_t position = find(doomed, mark);
    if (doomed->positions[position] == mark)
        return;
    assert(doomed_has_room(doomed, 1)); /* invariant 1 */
    assert((mark & MARK_IS_SET) != 0);  /* a mark is not EMPTY */
    doomed->positions[position] = mark;
    doomed->count++;
    doomed->tombstones += mark & MARK_IS_TOMBSTONE;
    assert(doomed->tombstones <= doomed->count); /* invariant 2 */
}

bool doomed_has(const struct doomed *doomed, uint64_t mark)
{
    return doomed->count > 0 && doomed->positions[find(doomed, mark)] == mark;
}

bool doomed_remove(struct doomed *doomed, uint64_t mark)
{
    uint64_t hole = doomed->count > 0 ? find(doomed, mark) : 0;
    if (doomed->count == 0 || doomed->positions[hole] == EMPTY)
        return false;
    doomed->count--;
    doomed->tombstones -= mark & MARK_IS_TOMBSTONE;
    assert(doomed->tombstones <= doomed->count); /* invariant 2 */
    /* What follows moves up, unless that would take it before its home. */
    for (uint64_t next = (hole + 1) & doomed->mask; doomed->positions[next] != EMPTY;
         next = (next + 1) & doomed->mask) {
        uint64_t from_home = (next - home_of(doomed, doomed->positions[next])) & doomed->mask;
        if (from_home < ((next - hole) & doomed->mask))
            continue;
        doomed->positions[hole] = doomed->positions[next];
        hole = next;
    }
    doomed->positions[hole] = EMPTY;
    return true;
}

uint64_t doomed_count(const struct doomed *doomed)
{
    return doomed->count;
}

uint64_t doomed_values(const struct doomed *doomed)
{
    return doomed->count - doomed->tombstones;
}
