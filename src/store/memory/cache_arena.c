/* Blocks: taking, giving back, and cutting the arena's end.
 *
 * Invariants:
 * 1. Blocks lie side by side from wall to wall, each knows its size and that of the one before it.
 * 2. No two free blocks lie side by side, and each stands in the list of its class.
 * 3. units_used is the sum of the blocks that are not free. */
#include "store/memory/cache_arena.h"

#include "base/assert.h"
#include "base/memory.h"
#include "base/units.h"

#include <errno.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

/* Below this size, rounding up to huge pages would be a visible part of the budget. */
#define HUGE_PAGES_FROM (16 * MIB)
#define CLASS_EXACT_MAX 32
#define CLASS_STEP_BITS 4

static_assert(sizeof(struct cache_entry) == CACHE_BLOCK_UNITS_MIN * CACHE_UNIT_SIZE,
              "the smallest block holds a header");

void *cache_memory_map(uint64_t size)
{
    return size >= HUGE_PAGES_FROM ? memory_map_huge(size) : memory_map(size);
}

/* The class that a free block of this size stands in. */
static uint32_t class_of(uint32_t units)
{
    if (units < CLASS_EXACT_MAX)
        return units;
    uint32_t exponent = 31 - (uint32_t)__builtin_clz(units);
    uint32_t step = (units >> (exponent - CLASS_STEP_BITS)) & ((1u << CLASS_STEP_BITS) - 1);
    return CLASS_EXACT_MAX + ((exponent - 5) << CLASS_STEP_BITS) + step;
}

uint64_t cache_arena_units(uint64_t size)
{
    uint64_t units = max_u64((size + CACHE_UNIT_SIZE - 1) / CACHE_UNIT_SIZE, CACHE_BLOCK_UNITS_MIN);
    if (units < CLASS_EXACT_MAX)
        return units;
    uint32_t exponent = 63 - (uint32_t)__builtin_clzll(units);
    return round_up(units, 1ull << (exponent - CLASS_STEP_BITS));
}

/* What lies behind the header of a free block must not be touched, so say so to ASan. */
static uint64_t body_size(const struct cache_entry *block)
{
    return (uint64_t)block->block_units * CACHE_UNIT_SIZE - sizeof(struct cache_entry);
}

static void list_insert(struct cache_arena *arena, struct cache_entry *block)
{
    uint32_t class = class_of(block->block_units);
    uint32_t offset = cache_arena_offset(arena, block);
    uint32_t first = arena->class_first[class];
    block->is_free = true;
    block->newer = 0;
    block->older = first;
    if (first != 0)
        cache_arena_at(arena, first)->newer = offset;
    arena->class_first[class] = offset;
    arena->class_bits[class / 64] |= 1ull << (class % 64);
    ASAN_POISON_MEMORY_REGION(block + 1, body_size(block));
}

static void list_remove_block(struct cache_arena *arena, struct cache_entry *block)
{
    assert(block->is_free);
    ASAN_UNPOISON_MEMORY_REGION(block + 1, body_size(block));
    uint32_t class = class_of(block->block_units);
    if (block->older != 0)
        cache_arena_at(arena, block->older)->newer = block->newer;
    if (block->newer != 0)
        cache_arena_at(arena, block->newer)->older = block->older;
    else
        arena->class_first[class] = block->older;
    if (arena->class_first[class] == 0)
        arena->class_bits[class / 64] &= ~(1ull << (class % 64));
    block->is_free = false;
}

/* The first list from `class` on that is not empty; 0: none. */
static uint32_t class_find(const struct cache_arena *arena, uint32_t class)
{
    uint32_t word = class / 64;
    uint64_t bits = arena->class_bits[word] & (UINT64_MAX << (class % 64));
    while (bits == 0 && ++word < CACHE_CLASS_COUNT / 64)
        bits = arena->class_bits[word];
    return bits == 0 ? 0 : word * 64 + (uint32_t)__builtin_ctzll(bits);
}

struct cache_entry *cache_arena_after(const struct cache_arena *arena,
                                      const struct cache_entry *block)
{
    return cache_arena_at(arena, cache_arena_offset(arena, block) + block->block_units);
}

struct cache_entry *cache_arena_before(const struct cache_arena *arena,
                                       const struct cache_entry *block)
{
    return cache_arena_at(arena, cache_arena_offset(arena, block) - block->before_units);
}

/* Sets a block's size, and what the next one knows of it. */
static void set_units(struct cache_arena *arena, struct cache_entry *block, uint32_t units)
{
    block->block_units = units;
    cache_arena_after(arena, block)->before_units = units;
}

static void wall_set(struct cache_arena *arena, uint32_t offset)
{
    *cache_arena_at(arena, offset) = (struct cache_entry){.block_units = CACHE_BLOCK_UNITS_MIN};
}

int cache_arena_init(struct cache_arena *arena, uint64_t size)
{
    *arena = (struct cache_arena){.base = NULL};
    uint64_t units = min_u64(size, CACHE_ARENA_SIZE_MAX) / CACHE_UNIT_SIZE;
    units = max_u64(units, (uint64_t)3 * CACHE_BLOCK_UNITS_MIN);
    arena->size_reserved = round_up(units * CACHE_UNIT_SIZE, DISK_BLOCK_SIZE);
    arena->base = cache_memory_map(arena->size_reserved);
    if (arena->base == NULL)
        return -ENOMEM;
    arena->wall = (uint32_t)units - CACHE_BLOCK_UNITS_MIN;
    wall_set(arena, 0);
    wall_set(arena, arena->wall);
    struct cache_entry *block = cache_arena_at(arena, CACHE_BLOCK_UNITS_MIN);
    block->before_units = CACHE_BLOCK_UNITS_MIN;
    block->linked = false;
    set_units(arena, block, arena->wall - CACHE_BLOCK_UNITS_MIN);
    list_insert(arena, block);
    return 0;
}

void cache_arena_deinit(struct cache_arena *arena)
{
    if (arena->base == NULL)
        return;
    ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->size_reserved);
    memory_unmap(arena->base, arena->size_reserved);
    arena->base = NULL;
}

struct cache_entry *cache_arena_take(struct cache_arena *arena, uint32_t units)
{
    uint32_t class = class_find(arena, class_of(units));
    if (class == 0)
        return NULL;
    struct cache_entry *block = cache_arena_at(arena, arena->class_first[class]);
    return cache_arena_take_block(arena, block, units);
}

struct cache_entry *cache_arena_take_block(struct cache_arena *arena, struct cache_entry *block,
                                           uint32_t units)
{
    assert(block->block_units >= units);
    list_remove_block(arena, block);
    uint32_t rest_units = block->block_units - units;
    if (rest_units >= CACHE_BLOCK_UNITS_MIN) {
        block->block_units = units;
        struct cache_entry *rest = cache_arena_after(arena, block);
        rest->before_units = units;
        rest->linked = false;
        set_units(arena, rest, rest_units);
        list_insert(arena, rest);
    }
    block->linked = false;
    arena->units_used += block->block_units;
    assert(!cache_arena_before(arena, block)->is_free); /* invariant 2: it stood beside no other */
    assert(arena->units_used <= arena->wall);           /* invariant 3 */
    return block;
}

struct cache_entry *cache_arena_give(struct cache_arena *arena, struct cache_entry *block)
{
    assert(!block->is_free && !block->linked);
    assert(arena->units_used >= block->block_units); /* invariant 3 */
    arena->units_used -= block->block_units;
    struct cache_entry *after = cache_arena_after(arena, block);
    if (after->is_free) {
        list_remove_block(arena, after);
        set_units(arena, block, block->block_units + after->block_units);
    }
    struct cache_entry *before = cache_arena_before(arena, block);
    if (before->is_free) {
        list_remove_block(arena, before);
        set_units(arena, before, before->block_units + block->block_units);
        block = before;
    }
    list_insert(arena, block);
    return block;
}

bool cache_arena_cut(struct cache_arena *arena, uint32_t units)
{
    struct cache_entry *last = cache_arena_before(arena, cache_arena_at(arena, arena->wall));
    if (!last->is_free || last->block_units < units + CACHE_BLOCK_UNITS_MIN)
        return false;
    list_remove_block(arena, last);
    uint64_t end_before = ((uint64_t)arena->wall + CACHE_BLOCK_UNITS_MIN) * CACHE_UNIT_SIZE;
    arena->wall -= units;
    uint64_t end = ((uint64_t)arena->wall + CACHE_BLOCK_UNITS_MIN) * CACHE_UNIT_SIZE;
    wall_set(arena, arena->wall);
    set_units(arena, last, last->block_units - units);
    list_insert(arena, last);
    /* Only whole pages can go; the rest of the first one goes with the next cut. */
    uint64_t from = round_up(end, DISK_BLOCK_SIZE);
    uint64_t to = round_up(end_before, DISK_BLOCK_SIZE);
    if (from < to)
        (void)madvise(arena->base + from, to - from, MADV_DONTNEED);
    return true;
}
