#include "store/memory/doomed.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>

#define PLACES_MIN ((uint64_t)64)
#define EMPTY ((uint64_t)0)
#define MARK_IS_SET ((uint64_t)1 << 63) /* so that no mark is EMPTY */
#define MARK_IS_TOMBSTONE ((uint64_t)1)

struct doomed {
    uint64_t *places;
    uint64_t mask; /* number of places - 1 */
    uint64_t count;
    uint64_t tombstones;
    uint8_t secret[HASH_SECRET_SIZE];
};

static uint64_t place_count(uint64_t memory)
{
    uint64_t count = PLACES_MIN;
    while (2 * count * sizeof(uint64_t) <= memory)
        count *= 2;
    return count;
}

uint64_t doomed_memory(uint64_t memory)
{
    return place_count(memory) * sizeof(uint64_t);
}

int doomed_create(uint64_t memory, const uint8_t *secret, struct doomed **ret_doomed)
{
    struct doomed *doomed = calloc(1, sizeof *doomed);
    if (doomed == NULL)
        return -ENOMEM;
    doomed->mask = place_count(memory) - 1;
    doomed->places = calloc(doomed->mask + 1, sizeof *doomed->places);
    if (doomed->places == NULL) {
        free(doomed);
        return -ENOMEM;
    }
    int error = XXH3_generateSecret(doomed->secret, HASH_SECRET_SIZE, secret, HASH_SECRET_SIZE);
    assert(error == XXH_OK);
    *ret_doomed = doomed;
    return 0;
}

void doomed_free(struct doomed *doomed)
{
    if (doomed == NULL)
        return;
    free(doomed->places);
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

/* The mark's place, or the empty one where it would be. */
static uint64_t find(const struct doomed *doomed, uint64_t mark)
{
    uint64_t place = home_of(doomed, mark);
    while (doomed->places[place] != EMPTY && doomed->places[place] != mark)
        place = (place + 1) & doomed->mask;
    return place;
}

void doomed_add(struct doomed *doomed, uint64_t mark)
{
    uint64_t place = find(doomed, mark);
    if (doomed->places[place] == mark)
        return;
    assert(doomed_has_room(doomed, 1));
    doomed->places[place] = mark;
    doomed->count++;
    doomed->tombstones += mark & MARK_IS_TOMBSTONE;
}

bool doomed_has(const struct doomed *doomed, uint64_t mark)
{
    return doomed->count > 0 && doomed->places[find(doomed, mark)] == mark;
}

bool doomed_remove(struct doomed *doomed, uint64_t mark)
{
    uint64_t hole = doomed->count > 0 ? find(doomed, mark) : 0;
    if (doomed->count == 0 || doomed->places[hole] == EMPTY)
        return false;
    doomed->count--;
    doomed->tombstones -= mark & MARK_IS_TOMBSTONE;
    /* What follows moves up, unless that would take it before its home. */
    for (uint64_t next = (hole + 1) & doomed->mask; doomed->places[next] != EMPTY;
         next = (next + 1) & doomed->mask) {
        uint64_t from_home = (next - home_of(doomed, doomed->places[next])) & doomed->mask;
        if (from_home < ((next - hole) & doomed->mask))
            continue;
        doomed->places[hole] = doomed->places[next];
        hole = next;
    }
    doomed->places[hole] = EMPTY;
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
