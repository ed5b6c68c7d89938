/* The filters of all partitions, and the one that is being built.
 *
 * Invariants:
 * 1. A filter has its lines, aligned to cache lines, or none and lets everything pass.
 * 2. One filter is built at a time: `next` has lines from next_begin to next_finish.
 * 3. The partition of `next` is due until its filter is the one that answers. */
#include "store/memory/bloom.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>

#define PARTITION_COUNT 256
#define LINE_SIZE 64u
#define LINE_WORDS 8u
#define KEYS_PER_LINE 56u
#define LIMIT_MIN 64u

struct line {
    uint64_t words[LINE_WORDS];
};
static_assert(sizeof(struct line) == LINE_SIZE, "a key costs one cache line");

struct filter {
    struct line *lines; /* NULL: everything may be there */
    void *memory;       /* what was allocated for the lines */
    uint32_t line_count;
    uint32_t used;  /* keys that set a bit */
    uint32_t limit; /* of `used`: then it is time to build anew */
};

struct bloom {
    struct filter filters[PARTITION_COUNT];
    uint64_t due[PARTITION_COUNT / 64]; /* partitions to build anew, a bit each */
    /* the one being built; its `lines` are NULL when there is none */
    struct filter next;
    uint32_t next_partition;
    uint64_t cursor; /* of the index's walk */
    uint32_t walked; /* slots, in this step */
};

int bloom_create(struct bloom **ret_bloom)
{
    struct bloom *bloom = calloc(1, sizeof *bloom);
    if (bloom == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < PARTITION_COUNT / 64; i++)
        bloom->due[i] = UINT64_MAX;
    *ret_bloom = bloom;
    return 0;
}

void bloom_free(struct bloom *bloom)
{
    if (bloom == NULL)
        return;
    for (uint32_t i = 0; i < PARTITION_COUNT; i++)
        free(bloom->filters[i].memory);
    free(bloom->next.memory);
    free(bloom);
}

/* ---- lines ---- */

static inline struct line *line_of(const struct filter *filter, uint64_t hash)
{
    return &filter->lines[(hash & UINT32_MAX) * filter->line_count >> 32];
}

/* Six bits for each word, at the top: there the product depends on all bits of the hash, also on
 * those that did not choose the line. The bits above the index hash are shifted out. */
static inline uint64_t line_bits(uint64_t hash)
{
    return (hash << (64 - HASH_INDEX_BITS)) * 0x9E3779B97F4A7C15u >> 16;
}

/* Returns whether a bit is new. */
static bool line_set(struct line *line, uint64_t bits)
{
    uint64_t fresh = 0;
    for (uint32_t i = 0; i < LINE_WORDS; i++) {
        uint64_t mask = 1ull << (bits >> 6 * i & 63);
        fresh |= mask & ~line->words[i];
        line->words[i] |= mask;
    }
    return fresh != 0;
}

static inline bool line_has(const struct line *line, uint64_t bits)
{
    uint64_t all = 1;
    for (uint32_t i = 0; i < LINE_WORDS; i++)
        all &= line->words[i] >> (bits >> 6 * i & 63);
    return all != 0;
}

static void filter_add(struct filter *filter, uint64_t hash)
{
    filter->used += line_set(line_of(filter, hash), line_bits(hash));
}

/* ---- in front of the index ---- */

void bloom_add(struct bloom *bloom, uint32_t partition, uint64_t hash)
{
    assert(partition < PARTITION_COUNT);
    struct filter *filter = &bloom->filters[partition];
    if (filter->lines != NULL) {
        filter_add(filter, hash);
        if (filter->used > filter->limit)
            bloom->due[partition / 64] |= 1ull << partition % 64;
    }
    if (bloom->next.lines != NULL && bloom->next_partition == partition)
        filter_add(&bloom->next, hash);
}

bool bloom_may_contain(const struct bloom *bloom, uint32_t partition, uint64_t hash)
{
    assert(partition < PARTITION_COUNT);
    const struct filter *filter = &bloom->filters[partition];
    return filter->lines == NULL || line_has(line_of(filter, hash), line_bits(hash));
}

void bloom_prefetch(const struct bloom *bloom, uint32_t partition, uint64_t hash)
{
    assert(partition < PARTITION_COUNT);
    const struct filter *filter = &bloom->filters[partition];
    if (filter->lines != NULL)
        __builtin_prefetch(line_of(filter, hash));
}

/* ---- building ---- */

/* A partition's limits are a geometric series, each partition's a 256th further than that of the
 * one before it. */
static uint32_t limit_for(uint32_t partition, uint64_t slots)
{
    uint64_t wanted = slots + slots / 8;
    uint64_t limit = LIMIT_MIN + partition * (LIMIT_MIN / 4) / PARTITION_COUNT;
    while (limit < wanted)
        limit += limit / 4;
    assert(limit <= UINT32_MAX);
    return (uint32_t)limit;
}

static uint64_t filter_size(uint32_t line_count)
{
    return ((uint64_t)line_count + 1) * LINE_SIZE; /* one more, to begin at a cache line */
}

static int filter_init(struct filter *filter, uint32_t limit)
{
    assert(filter->lines == NULL); /* invariant 2 */
    uint32_t line_count = limit / KEYS_PER_LINE + 1;
    uint8_t *memory = calloc(1, filter_size(line_count));
    if (memory == NULL)
        return -ENOMEM;
    *filter = (struct filter){
        .lines = (struct line *)round_up((uintptr_t)memory, LINE_SIZE),
        .memory = memory,
        .line_count = line_count,
        .limit = limit,
    };
    return 0;
}

static int next_begin(struct bloom *bloom, const struct index *index, uint32_t partition)
{
    uint64_t slots = index_partition_count(index, partition);
    int result = filter_init(&bloom->next, limit_for(partition, slots));
    if (result != 0)
        return result;
    bloom->next_partition = partition;
    bloom->cursor = 0;
    return 0;
}

static void next_finish(struct bloom *bloom)
{
    uint32_t partition = bloom->next_partition;
    assert(bloom->next.lines != NULL);                                  /* invariant 2 */
    assert((bloom->due[partition / 64] & 1ull << partition % 64) != 0); /* invariant 3 */
    struct filter *filter = &bloom->filters[partition];
    free(filter->memory);
    *filter = bloom->next;
    bloom->next = (struct filter){.lines = NULL};
    /* More may have come than it was made for. */
    if (filter->used <= filter->limit)
        bloom->due[partition / 64] &= ~(1ull << partition % 64);
}

static void slot_shown(void *context, uint64_t hash, const struct index_entry *entry)
{
    struct bloom *bloom = context;
    (void)entry;
    filter_add(&bloom->next, hash);
    bloom->walked++;
}

/* The first partition that is due, PARTITION_COUNT when none is. */
static uint32_t find_due(const struct bloom *bloom)
{
    for (uint32_t i = 0; i < PARTITION_COUNT / 64; i++)
        if (bloom->due[i] != 0)
            return 64 * i + (uint32_t)__builtin_ctzll(bloom->due[i]);
    return PARTITION_COUNT;
}

bool bloom_step(struct bloom *bloom, const struct index *index, uint32_t slots)
{
    bloom->walked = 0;
    do {
        if (bloom->next.lines == NULL) {
            uint32_t partition = find_due(bloom);
            if (partition == PARTITION_COUNT)
                return false;
            if (next_begin(bloom, index, partition) != 0)
                return false;
        }
        uint32_t partition = bloom->next_partition;
        bloom->cursor = index_walk(index, partition, bloom->cursor, slot_shown, bloom);
        if (bloom->cursor == 0)
            next_finish(bloom);
    } while (bloom->walked < slots);
    return bloom->next.lines != NULL || find_due(bloom) < PARTITION_COUNT;
}

uint64_t bloom_memory(const struct bloom *bloom)
{
    uint64_t memory = sizeof *bloom;
    if (bloom->next.lines != NULL)
        memory += filter_size(bloom->next.line_count);
    for (uint32_t i = 0; i < PARTITION_COUNT; i++)
        if (bloom->filters[i].lines != NULL)
            memory += filter_size(bloom->filters[i].line_count);
    return memory;
}
