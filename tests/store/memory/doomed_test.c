/* The marks of records that are dead while their slots still stand, by themselves. */
#include "store/memory/doomed.h"

#include "base/hash.h"

#include <criterion/criterion.h>

static struct doomed *create(uint64_t memory)
{
    uint8_t secret[HASH_SECRET_SIZE];
    for (uint32_t i = 0; i < HASH_SECRET_SIZE; i++)
        secret[i] = (uint8_t)(37 * i + 11);
    struct doomed *doomed;
    cr_assert_eq(doomed_create(memory, secret, &doomed), 0);
    return doomed;
}

static uint64_t mark_of(const struct doomed *doomed, const char *key, uint64_t clock,
                        uint32_t origin, bool tombstone)
{
    struct slice slice = {(const uint8_t *)key, (uint32_t)strlen(key)};
    return doomed_mark(doomed, slice, (struct version){clock, origin}, tombstone);
}

Test(doomed, mark_names_key_version_and_kind)
{
    struct doomed *doomed = create(4096);
    uint64_t mark = mark_of(doomed, "a", 1, 2, false);
    cr_expect_eq(mark, mark_of(doomed, "a", 1, 2, false));
    cr_expect_neq(mark, 0);
    cr_expect_neq(mark, mark_of(doomed, "b", 1, 2, false));
    cr_expect_neq(mark, mark_of(doomed, "a", 2, 2, false));
    cr_expect_neq(mark, mark_of(doomed, "a", 1, 1, false));
    cr_expect_neq(mark, mark_of(doomed, "a", 1, 2, true));
    doomed_free(doomed);
}

Test(doomed, counts_what_is_there_once)
{
    struct doomed *doomed = create(4096);
    uint64_t value = mark_of(doomed, "a", 1, 2, false);
    uint64_t tombstone = mark_of(doomed, "a", 3, 2, true);
    cr_expect_not(doomed_has(doomed, value));
    cr_expect_not(doomed_remove(doomed, value));
    doomed_add(doomed, value);
    doomed_add(doomed, value);
    doomed_add(doomed, tombstone);
    cr_expect_eq(doomed_count(doomed), 2);
    cr_expect_eq(doomed_values(doomed), 1);
    cr_expect(doomed_has(doomed, value) && doomed_has(doomed, tombstone));
    cr_expect(doomed_remove(doomed, value));
    cr_expect_not(doomed_remove(doomed, value));
    cr_expect_not(doomed_has(doomed, value));
    cr_expect(doomed_has(doomed, tombstone));
    cr_expect_eq(doomed_count(doomed), 1);
    cr_expect_eq(doomed_values(doomed), 0);
    doomed_free(doomed);
}

Test(doomed, takes_the_power_of_two_within_its_memory)
{
    cr_expect_eq(doomed_memory(4096), 4096);
    cr_expect_eq(doomed_memory(8191), 4096);
    cr_expect_eq(doomed_memory(0), 512);
}

/* Against a plain array of what is in: as full as it gets, with removals in between, so that holes
 * are filled across the end of the table. */
Test(doomed, behaves_as_a_set_when_it_is_full)
{
    enum { MARKS = 4096 };
    struct doomed *doomed = create(512 * sizeof(uint64_t));
    static bool is_in[MARKS];
    uint64_t count = 0;
    uint64_t random = 88172645463325252ull;
    for (uint32_t round = 0; round < 200000; round++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint32_t i = (uint32_t)(random >> 20) % MARKS;
        uint64_t mark = mark_of(doomed, "key", i, 0, false);
        cr_assert_eq(doomed_has(doomed, mark), is_in[i], "round %u", round);
        if (is_in[i] && (random & 1)) {
            cr_assert(doomed_remove(doomed, mark));
            is_in[i] = false;
            count--;
        } else if (!is_in[i] && doomed_has_room(doomed, 1)) {
            doomed_add(doomed, mark);
            is_in[i] = true;
            count++;
        }
        cr_assert_eq(doomed_count(doomed), count);
        cr_assert_eq(doomed_has_room(doomed, 1), count < 384);
    }
    for (uint32_t i = 0; i < MARKS; i++)
        cr_assert_eq(doomed_has(doomed, mark_of(doomed, "key", i, 0, false)), is_in[i]);
    cr_expect_geq(count, 300, "the table was never full");
    doomed_free(doomed);
}
