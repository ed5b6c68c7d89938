/* Index entries that differ in every field, and how to compare them. */
#ifndef TESTS_STORE_MEMORY_INDEX_FIXTURE_H
#define TESTS_STORE_MEMORY_INDEX_FIXTURE_H

#include "store/memory/index.h"

#include <criterion/criterion.h>

static inline struct index_entry entry_of(uint64_t clock, uint64_t location)
{
    return (struct index_entry){
        .version = {.clock = clock, .origin = (uint32_t)clock ^ 0x80000001u},
        .location = location,
        .read_size = index_read_size(clock % 100000),
        .tombstone = clock % 7 == 0,
        .in_value_file = clock % 5 == 0,
    };
}

static inline struct version version_of(uint64_t clock)
{
    return entry_of(clock, 0).version;
}

static inline void expect_equal(const struct index_entry *found, const struct index_entry *expected)
{
    cr_assert_eq(found->version.clock, expected->version.clock);
    cr_assert_eq(found->version.origin, expected->version.origin);
    cr_assert_eq(found->location, expected->location);
    cr_assert_eq(found->read_size, expected->read_size);
    cr_assert_eq(found->tombstone, expected->tombstone);
    cr_assert_eq(found->in_value_file, expected->in_value_file);
}

#endif
