/* The index against a model: a plain table of what each hash has. */
#include "base/prng.h"
#include "index_fixture.h"

#include <errno.h>
#include <stdlib.h>

#define MODEL_HASHES 3000
#define MODEL_SLOTS 6

struct model_hash {
    uint32_t count;
    struct index_entry entries[MODEL_SLOTS];
};

struct model {
    struct index *index;
    struct prng prng;
    uint64_t next;
    uint64_t hash_mask; /* which bits of the hashes differ */
    struct model_hash hashes[MODEL_HASHES];
};

static uint64_t model_hash(const struct model *model, uint32_t number)
{
    uint64_t hash = (number + 1) * 0x9E3779B97F4A7C15u;
    return (hash & model->hash_mask) | (uint64_t)number << 16; /* different in any case */
}

static uint32_t partition_of(uint32_t number)
{
    return number % 3 * 100;
}

static void model_add(struct model *model, uint32_t number)
{
    struct model_hash *known = &model->hashes[number];
    if (known->count == MODEL_SLOTS)
        return;
    uint64_t next = ++model->next;
    struct index_entry entry = entry_of(prng_next(&model->prng), next);
    uint64_t hash = model_hash(model, number);
    cr_assert_eq(index_add(model->index, partition_of(number), hash, &entry), 0);
    known->entries[known->count++] = entry;
}

/* One of the entries of this hash; NULL: there is none, and the index says so, too. */
static struct index_entry *model_choose(struct model *model, uint32_t number)
{
    struct model_hash *known = &model->hashes[number];
    if (known->count > 0)
        return &known->entries[prng_below(&model->prng, known->count)];
    uint64_t hash = model_hash(model, number);
    struct version version = {model->next, 1};
    cr_assert_eq(index_remove(model->index, partition_of(number), hash, version, NULL), -ENOENT);
    return NULL;
}

static void model_remove(struct model *model, uint32_t number)
{
    struct index_entry *chosen = model_choose(model, number);
    if (chosen == NULL)
        return;
    struct index_entry old;
    cr_assert_eq(index_remove(model->index, partition_of(number), model_hash(model, number),
                              chosen->version, &old),
                 0);
    expect_equal(&old, chosen);
    struct model_hash *known = &model->hashes[number];
    *chosen = known->entries[--known->count];
}

static void model_replace(struct model *model, uint32_t number)
{
    struct index_entry *chosen = model_choose(model, number);
    if (chosen == NULL)
        return;
    struct index_entry entry = entry_of(prng_next(&model->prng), ++model->next);
    struct index_entry old;
    cr_assert_eq(index_replace(model->index, partition_of(number), model_hash(model, number),
                               chosen->version, &entry, &old),
                 0);
    expect_equal(&old, chosen);
    *chosen = entry;
}

static void model_move(struct model *model, uint32_t number)
{
    struct index_entry *chosen = model_choose(model, number);
    if (chosen == NULL)
        return;
    uint64_t location = ++model->next | 1ull << 47;
    cr_assert_eq(index_move(model->index, partition_of(number), model_hash(model, number),
                            chosen->version, chosen->location, location),
                 0);
    chosen->location = location;
    struct index_entry found;
    cr_assert_eq(index_get(model->index, partition_of(number), model_hash(model, number),
                           chosen->version, &found),
                 0);
    expect_equal(&found, chosen);
}

static int compare_entries(const void *a, const void *b)
{
    return version_compare(((const struct index_entry *)b)->version,
                           ((const struct index_entry *)a)->version);
}

static void model_find(struct model *model, uint32_t number)
{
    struct model_hash *known = &model->hashes[number];
    struct index_entry found[MODEL_SLOTS + 1];
    uint32_t capacity = (uint32_t)prng_below(&model->prng, MODEL_SLOTS + 2);
    uint64_t hash = model_hash(model, number);
    uint32_t count = index_find(model->index, partition_of(number), hash, found, capacity);
    cr_assert_eq(count, known->count);
    qsort(known->entries, known->count, sizeof known->entries[0], compare_entries);
    for (uint32_t i = 0; i < count && i < capacity; i++)
        expect_equal(&found[i], &known->entries[i]);
}

static void model_run(uint64_t seed, uint64_t hash_mask, uint64_t steps)
{
    struct model *model = calloc(1, sizeof *model);
    cr_assert_not_null(model);
    *model = (struct model){.prng = {seed}, .hash_mask = hash_mask};
    cr_assert_eq(index_create(0, &model->index), 0);
    for (uint64_t step = 0; step < steps; step++) {
        /* In turn it grows and shrinks. */
        uint64_t adds = step / (steps / 8) % 2 == 0 ? 40 : 15;
        uint32_t number = (uint32_t)prng_below(&model->prng, MODEL_HASHES);
        uint64_t choice = prng_below(&model->prng, 100);
        if (choice < adds)
            model_add(model, number);
        else if (choice < 55)
            model_remove(model, number);
        else if (choice < 65)
            model_replace(model, number);
        else if (choice < 75)
            model_move(model, number);
        else
            model_find(model, number);
    }
    uint64_t count = 0;
    uint64_t tombstones = 0;
    for (uint32_t i = 0; i < MODEL_HASHES; i++) {
        model_find(model, i);
        count += model->hashes[i].count;
        for (uint32_t j = 0; j < model->hashes[i].count; j++)
            tombstones += model->hashes[i].entries[j].tombstone;
    }
    cr_expect_eq(index_count(model->index), count);
    cr_expect_eq(index_tombstones(model->index), tombstones);
    index_free(model->index);
    free(model);
}

Test(index_model, two_million_random_operations_match_a_model)
{
    model_run(1, UINT64_MAX, 2000000);
}

Test(index_model, crowded_hashes_match_a_model)
{
    model_run(2, 0xFF00000000000000, 300000); /* one group, one row to begin at, one tag */
    model_run(3, 0x0000FFFF00000000, 300000); /* one group, every row */
    model_run(4, 0x00000000000000FF, 300000); /* many groups, one row */
}
