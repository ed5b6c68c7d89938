/* Attributes whose tags this program does not know stay with their record wherever it goes. */
#include "tests/support/attribute_bench.h"

#include "store/memory/location.h"

#define KEYS 200u
#define PARTITIONS 5u

static void check_all(struct bench *bench)
{
    for (uint32_t key = 0; key < KEYS; key++)
        attribute_read(bench, key, attribute_expect_same);
}

static bool is_in_segment(const struct bench *bench, uint32_t key, uint32_t *ret_file)
{
    struct key_place place = store_place(bench->store, bench_name(bench, key));
    struct index_entry entry;
    cr_assert_eq(index_find(bench->store->index, place.partition, place.hash, &entry, 1), 1);
    *ret_file = location_file(entry.location);
    return location_is_segment(entry.location);
}

static void restart(struct bench *bench)
{
    cr_assert_eq(store_shut(bench->store), 0);
    bench_end(bench);
    bench->pending_count = 0;
    cr_assert_eq(bench_start(bench), 0);
}

static struct bench *bench_new(void)
{
    struct bench *bench = malloc(sizeof *bench);
    cr_assert_not_null(bench);
    bench_open(bench, 21, 2 * KEYS, PARTITIONS);
    bench_pause(bench, true);
    for (uint32_t key = 0; key < KEYS; key++)
        attribute_write(bench, key);
    return bench;
}

Test(mover_attributes, survive_log_segment_compaction_and_restarts)
{
    struct bench *bench = bench_new();
    check_all(bench);
    restart(bench);
    check_all(bench); /* replayed from the log */

    /* Others lie beside them, to die in the segments. */
    for (uint32_t key = KEYS; key < 2 * KEYS; key++)
        cr_assert_eq(bench_write(bench, key, BENCH_VALUE_MAX), STORE_OK);
    bench_roll(bench);
    bench_pause(bench, false);
    bench_settle(bench);
    uint32_t files[KEYS], file, moved = 0;
    for (uint32_t key = 0; key < KEYS; key++)
        cr_assert(is_in_segment(bench, key, &files[key]) ||
                  attribute_flags(key) == RECORD_TOMBSTONE);
    check_all(bench);
    restart(bench);
    check_all(bench);

    for (uint32_t key = KEYS; key < 2 * KEYS; key++)
        cr_assert_eq(bench_delete(bench, key), STORE_OK);
    bench_roll(bench);
    bench_settle(bench);
    for (uint32_t key = 0; key < KEYS; key++)
        moved += attribute_flags(key) != RECORD_TOMBSTONE && is_in_segment(bench, key, &file) &&
                 file != files[key];
    cr_assert_gt(moved, KEYS / 4, "compacted");
    for (uint32_t key = 0; key < KEYS; key++)
        if (attribute_flags(key) != RECORD_TOMBSTONE) /* nothing needs these any more */
            attribute_read(bench, key, attribute_expect_same);
    bench_close(bench);
    free(bench);
}

Test(mover_attributes, go_with_the_write_that_replaces_their_record)
{
    struct bench *bench = bench_new();
    for (uint32_t key = 0; key < KEYS; key++)
        cr_assert_eq(bench_write(bench, key, 100), STORE_OK);
    for (uint32_t key = 0; key < KEYS; key++)
        attribute_read(bench, key, attribute_expect_none);
    restart(bench);
    for (uint32_t key = 0; key < KEYS; key++)
        attribute_read(bench, key, attribute_expect_none);
    bench_close(bench);
    free(bench);
}
