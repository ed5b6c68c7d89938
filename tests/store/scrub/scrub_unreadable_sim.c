/* What the disk does not give is not damaged for that: a get says so, and comes back for it. */
#include "tests/support/scrub_bench.h"

/* A key that is in no memory, in a segment or in the log. */
static uint32_t find_key(const struct bench *bench, bool is_in_segment, uint32_t after)
{
    for (uint32_t number = after + 1; number < KEYS; number++) {
        struct key key;
        make_key(&key, "small", number);
        struct key_place place = store_place(bench->store, key.slice);
        uint64_t location = slot_of(bench, &key).location;
        if (cache_find(bench->store->cache, place.keyed, key.slice) == NULL &&
            location_is_segment(location) == is_in_segment &&
            wal_peek(bench->store->wal, location) == NULL)
            return number;
    }
    cr_assert_fail("there is none");
    return 0;
}

Test(scrub_unreadable, get_of_what_the_disk_does_not_give_is_tried_again, .timeout = 60)
{
    struct bench *bench = bench_open(1, SCRUB_OFF);
    fill(bench);
    cr_assert_eq(bench->line_count, 0);
    for (uint32_t round = 0; round < 4; round++) {
        struct key key;
        uint32_t number = find_key(bench, round % 2 == 0, 100 * round);
        make_key(&key, "small", number);
        sim_disk_options(bench->disk)->read_error_ppm = 1000000;
        for (uint32_t i = 0; i < 3; i++)
            cr_assert_eq(get_small(bench, number), STORE_UNREADABLE);
        cr_assert_eq(findings_of(bench).unreadable, 1);
        cr_assert_eq(findings_of(bench).damaged, 0);
        cr_assert_eq(bench->line_count, round + 1, "once a file, not a request");
        cr_assert_not_null(strstr(bench->lines[round], "cannot be read: Input/output error"));
        sim_disk_options(bench->disk)->read_error_ppm = 0;
        cr_assert_eq(get_small(bench, number), STORE_OK);
        cr_assert_eq(findings_of(bench).unreadable, 0);
    }
    bench_close(bench);
}
