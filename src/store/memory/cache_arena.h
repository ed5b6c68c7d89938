/* The cache's memory: blocks of any size in one mapping, so that the budget is exact.
 *
 * Boundary tags: every block knows its own size and that of the block before it, so that free
 * neighbours merge and whoever needs a large block can clear a place by evicting along the memory.
 * Free blocks stand in lists by size class: exact up to 512 bytes, above that 16 classes a power of
 * two. Sizes are rounded up to a class, so that any block of the class that is found fits (good fit
 * in constant time: TLSF, Masmano et al., ECRTS 2004). Loss by rounding: at most 1/16.
 *
 * A block is a struct cache_entry, used or free. The first and the last one are walls: used for
 * ever, never linked, so that merging and evicting need no other bounds. Offsets are counted in
 * units of 16 bytes: 32 bits address 64 GiB. Offset 0 is the first wall and stands for "none"; its
 * key is empty, so that it is nobody's. */
#ifndef MINIVAULT_STORE_CACHE_ARENA_H
#define MINIVAULT_STORE_CACHE_ARENA_H

#include "store/memory/cache.h"

#define CACHE_UNIT_SIZE 16
#define CACHE_ARENA_SIZE_MAX (((uint64_t)UINT32_MAX + 1) * CACHE_UNIT_SIZE)
/* The smallest block: a header, as a free one has. A used one has at least a byte of a key, too. */
#define CACHE_BLOCK_UNITS_MIN 4
#define CACHE_CLASS_COUNT 512

struct cache_arena {
    uint8_t *base;
    uint64_t size_reserved; /* of the mapping */
    uint32_t wall;          /* offset of the last block */
    uint64_t units_used;    /* in blocks that are not free, without the walls */
    uint64_t class_bits[CACHE_CLASS_COUNT / 64]; /* which lists are not empty */
    uint32_t class_first[CACHE_CLASS_COUNT];
};

/* Maps `size` bytes, touched only as they are used. Errors: -ENOMEM. */
int cache_arena_init(struct cache_arena *arena, uint64_t size);
void cache_arena_deinit(struct cache_arena *arena);

/* Maps `size` bytes of zeros, asks for huge pages where they cost no budget. NULL: no memory. */
void *cache_memory_map(uint64_t size);

static inline struct cache_entry *cache_arena_at(const struct cache_arena *arena, uint32_t offset)
{
    return (struct cache_entry *)(arena->base + (uint64_t)offset * CACHE_UNIT_SIZE);
}

static inline uint32_t cache_arena_offset(const struct cache_arena *arena,
                                          const struct cache_entry *entry)
{
    return (uint32_t)((uint64_t)((const uint8_t *)entry - arena->base) / CACHE_UNIT_SIZE);
}

/* The units that a block for `size` bytes, header included, is asked for with. */
uint64_t cache_arena_units(uint64_t size);

/* A block of at least `units` (a result of cache_arena_units), not linked, its other fields
 * undefined; NULL: there is none, so evict. */
struct cache_entry *cache_arena_take(struct cache_arena *arena, uint32_t units);

/* Takes this free block, which has at least `units`. */
struct cache_entry *cache_arena_take_block(struct cache_arena *arena, struct cache_entry *block,
                                           uint32_t units);

/* Frees a used block. Returns the free block that it is part of now. */
struct cache_entry *cache_arena_give(struct cache_arena *arena, struct cache_entry *block);

/* The blocks beside this one in memory; possibly a wall. */
struct cache_entry *cache_arena_after(const struct cache_arena *arena,
                                      const struct cache_entry *block);
struct cache_entry *cache_arena_before(const struct cache_arena *arena,
                                       const struct cache_entry *block);

/* Gives the last `units` back to the system for good. Returns whether they were free. */
bool cache_arena_cut(struct cache_arena *arena, uint32_t units);

#endif
