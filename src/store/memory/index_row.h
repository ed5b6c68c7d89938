/* A row of the index: 39 slots, their tags first, in 1 KiB. */
#ifndef MINIVAULT_STORE_INDEX_ROW_H
#define MINIVAULT_STORE_INDEX_ROW_H

#include "base/assert.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define INDEX_ROW_SLOTS 39
#define INDEX_ROW_SIZE 1024

/* In memory only: the layout is the compiler's business as long as it is this small. */
struct __attribute__((packed)) index_slot {
    uint64_t clock;
    uint32_t origin;
    uint64_t location : 48;
    uint64_t size_class : 6;
    uint64_t tombstone : 1;
    uint64_t in_value_file : 1;
    uint64_t hash : 48; /* the lowest bits; the tag has the next 8 */
};
static_assert(sizeof(struct index_slot) == 25, "a slot without its tag");

/* Slots are used from 0 to count - 1. */
struct index_row {
    uint8_t tags[INDEX_ROW_SLOTS];
    uint8_t count;
    bool is_spilled; /* slots that belong here, or in a row before, lie further on */
    uint8_t reserved[3];
    uint32_t next; /* the next overflow row, as a row of the pool; 0: none */
    struct index_slot slots[INDEX_ROW_SLOTS];
    uint8_t rest;
};
static_assert(sizeof(struct index_row) == INDEX_ROW_SIZE, "rows do not straddle pages");

static inline uint8_t index_tag(uint64_t hash)
{
    return (uint8_t)(hash >> 48);
}

static inline uint64_t index_slot_bits(uint64_t hash)
{
    return hash & ((1ull << 48) - 1);
}

/* What a slot and its tag know of the hash: all that place and comparison ever use. */
static inline uint64_t index_row_hash(const struct index_row *row, uint32_t slot)
{
    return (uint64_t)row->tags[slot] << 48 | row->slots[slot].hash;
}

/* The slots with this tag, a bit each. */
#ifdef __SSE2__
static inline uint64_t index_row_match(const struct index_row *row, uint8_t tag)
{
    const __m128i *tags = (const __m128i *)row;
    __m128i pattern = _mm_set1_epi8((char)tag);
    uint64_t matches = 0;
    for (uint32_t i = 0; i < 3; i++) {
        __m128i equal = _mm_cmpeq_epi8(_mm_load_si128(tags + i), pattern);
        matches |= (uint64_t)(uint32_t)_mm_movemask_epi8(equal) << (16 * i);
    }
    return matches & ((1ull << row->count) - 1);
}
#else
static inline uint64_t index_row_match(const struct index_row *row, uint8_t tag)
{
    uint64_t matches = 0;
    for (uint32_t slot = 0; slot < INDEX_ROW_SLOTS; slot++)
        matches |= (uint64_t)(row->tags[slot] == tag) << slot;
    return matches & ((1ull << row->count) - 1);
}
#endif

#endif
