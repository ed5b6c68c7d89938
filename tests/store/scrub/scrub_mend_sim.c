/* Damage that the scrubber has written anew, and damage that is over once its key was written. */
#include "tests/support/scrub_bench.h"

#include "store/catalog/checkpoint_format.h"
#include "store/memory/location.h"

static bool was_said(const struct bench *bench, const char *path, const char *words)
{
    for (uint32_t i = 0; i < bench->line_count; i++)
        if (strstr(bench->lines[i], path) != NULL && strstr(bench->lines[i], words) != NULL)
            return true;
    return false;
}

static void restart(struct bench *bench)
{
    bench_shut(bench);
    bench->line_count = 0;
    bench_start(bench);
    cr_assert_eq(bench->line_count, 0, "%s", bench->lines[0]);
}

/* Until everything that was found has been written anew. */
static void expect_mended(struct bench *bench, const char *path, uint64_t offset, uint64_t size)
{
    uint64_t before = findings_of(bench).mended;
    bench->line_count = 0;
    cr_assert(sim_disk_rot(bench->disk, path, offset, size), "%s", path);
    scrub_passes(bench, 1);
    cr_assert(was_said(bench, path, "Nothing is lost"), "%s at %" PRIu64, path, offset);
    cr_assert(was_said(bench, "", "was written anew"), "%s at %" PRIu64, path, offset);
    cr_assert_eq(bench->line_count, 2, "%s", bench->lines[2]);
    cr_assert_eq(findings_of(bench).mended, before + 1);
    cr_assert_eq(findings_of(bench).damaged, 0);
    bench->line_count = 0;
    scrub_passes(bench, 2);
    cr_assert_eq(bench->line_count, 0, "%s", bench->lines[0]);
}

static void expect_all_keys(struct bench *bench)
{
    for (uint32_t number = 0; number < KEYS; number += 13)
        cr_assert_eq(get_small(bench, number), STORE_OK, "%" PRIu32, number);
}

Test(scrub, each_copy_of_the_superblock_is_mended, .timeout = 60)
{
    struct bench *bench = bench_open(51, FAST);
    fill(bench);
    for (uint32_t round = 0; round < 2; round++) {
        for (uint64_t copy = 0; copy < 2; copy++)
            expect_mended(bench, "/data/superblock", copy * DISK_BLOCK_SIZE + 100, 20);
        restart(bench); /* each copy is the newer one in one of the rounds */
    }
    expect_all_keys(bench);
    bench_close(bench);
}

/* The copy that was mended serves alone: it says what the other one said. */
Test(scrub, a_mended_copy_of_the_superblock_is_as_good_as_the_other, .timeout = 60)
{
    for (uint64_t copy = 0; copy < 2; copy++) {
        struct bench *bench = bench_open(52, FAST);
        fill(bench);
        expect_mended(bench, "/data/superblock", copy * DISK_BLOCK_SIZE + 300, 8);
        io_close(bench->io); /* a kill: nothing is written any more */
        store_free(bench->store);
        cr_assert(
            sim_disk_rot(bench->disk, "/data/superblock", (1 - copy) * DISK_BLOCK_SIZE + 50, 90));
        bench_start(bench);
        expect_all_keys(bench);
        bench_close(bench);
    }
}

Test(scrub, a_damaged_manifest_is_mended, .timeout = 60)
{
    struct bench *bench = bench_open(53, FAST);
    fill(bench);
    struct manifest_mark mark = manifest_tell(bench->store->manifest);
    cr_assert_gt(mark.blocks, 3);
    expect_mended(bench, "/data/manifest-0", 200, 4);
    cr_assert_gt(manifest_tell(bench->store->manifest).edition, mark.edition);
    mark = manifest_tell(bench->store->manifest);
    expect_mended(bench, "/data/manifest-0", (mark.blocks - 1) * MANIFEST_BLOCK_SIZE, 1);
    restart(bench);
    expect_all_keys(bench);
    bench_close(bench);
}

/* Behind the last group there is a seal, or nothing: no damage. */
Test(scrub, what_lies_behind_the_manifests_groups_is_no_damage, .timeout = 60)
{
    struct bench *bench = bench_open(54, FAST);
    fill(bench);
    uint64_t end = (manifest_tell(bench->store->manifest).blocks + 1) * MANIFEST_BLOCK_SIZE;
    cr_assert(sim_disk_rot(bench->disk, "/data/manifest-0", end, 4096));
    scrub_passes(bench, 2);
    cr_assert_eq(bench->line_count, 0, "%s", bench->lines[0]);
    bench_close(bench);
}

static void checkpoint_name(const struct bench *bench, char *ret_path)
{
    cr_assert_neq(bench->store->checkpoints.number, 0);
    cr_assert_eq(checkpoint_path("/data", bench->store->checkpoints.number, false, ret_path), 0);
}

Test(scrub, a_damaged_checkpoint_is_replaced, .timeout = 60)
{
    static const uint64_t offsets[] = {0, DISK_BLOCK_SIZE + 70, 4 * DISK_BLOCK_SIZE};
    char path[CHECKPOINT_PATH_MAX];
    struct bench *bench = bench_open(55, FAST);
    bench->options.checkpoint_min = 1;
    fill(bench);
    restart(bench);
    bench->options.checkpoint_min = UINT64_MAX; /* from now on only for the scrubber */
    restart(bench);
    for (uint32_t i = 0; i < 3; i++) {
        checkpoint_name(bench, path);
        uint64_t number = bench->store->checkpoints.number;
        expect_mended(bench, path, offsets[i], 10);
        cr_assert_gt(bench->store->checkpoints.number, number);
    }
    restart(bench);
    expect_all_keys(bench);
    bench_close(bench);
}

/* ---- quarantine ---- */

/* A small key whose record lies in a partition's segment and whose value is in no memory. */
static uint32_t take_cold_key(struct bench *bench, struct segment **ret_segment)
{
    for (uint32_t number = 0; number < KEYS; number++) {
        struct key key;
        make_key(&key, "small", number);
        struct key_place place = store_place(bench->store, key.slice);
        struct index_entry entry = slot_of(bench, &key);
        if (!location_is_segment(entry.location) ||
            cache_find(bench->store->cache, place.keyed, key.slice) != NULL)
            continue;
        *ret_segment = segment_of(bench, entry.location);
        return number;
    }
    cr_assert(false, "all keys are cached");
    return 0;
}

/* What is damaged of the record: its value, its key, or all of it. */
Test(scrub, a_damaged_record_is_released_when_its_key_is_written_uncached, .timeout = 60)
{
    static const struct {
        uint64_t offset, size;
    } parts[] = {{RECORD_HEADER_SIZE + 100, 50}, {RECORD_HEADER_SIZE, 3}, {0, 200}};
    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t deletes = 0; deletes < 2; deletes++) {
            char path[SEGMENT_PATH_MAX];
            struct segment *segment;
            struct bench *bench = bench_open(56, FAST);
            fill(bench);
            uint32_t number = take_cold_key(bench, &segment);
            struct key key;
            make_key(&key, "small", number);
            struct key_place place = store_place(bench->store, key.slice);
            struct index_entry old = slot_of(bench, &key);
            uint64_t offset = location_offset(old.location);
            (void)snprintf(path, SEGMENT_PATH_MAX, "%s", segment->path);
            cr_assert(sim_disk_rot(bench->disk, path, offset + parts[i].offset, parts[i].size));
            scrub_passes(bench, 1);
            cr_assert_eq(findings_of(bench).damaged, 1);
            cr_assert(segment->is_damaged);
            cr_assert_eq(get_small(bench, number), STORE_CORRUPT);
            if (deletes)
                delete_small(bench, number);
            else
                set_small(bench, number);
            settle(bench);
            scrub_passes(bench, 1);
            settle(bench);
            struct index_entry gone;
            cr_assert_lt(
                index_get(bench->store->index, place.partition, place.hash, old.version, &gone), 0,
                "its slot is still there");
            cr_assert_eq(get_small(bench, number), deletes ? STORE_NOT_FOUND : STORE_OK);
            scrub_passes(bench, 1);
            cr_assert(!segment->is_damaged, "the segment is still in quarantine");
            cr_assert_eq(findings_of(bench).damaged, 0);
            cr_assert_eq(findings_of(bench).damaged_dead, 1);
            bench_close(bench);
        }
    }
}

/* The next start comes to the same: it proves what it finds behind a newer write. */
Test(scrub, a_damaged_record_behind_a_newer_one_is_released_by_a_start, .timeout = 60)
{
    char path[SEGMENT_PATH_MAX];
    struct segment *segment;
    struct bench *bench = bench_open(57, SCRUB_OFF);
    fill(bench);
    uint32_t number = take_cold_key(bench, &segment);
    struct key key;
    make_key(&key, "small", number);
    struct key_place place = store_place(bench->store, key.slice);
    struct index_entry old = slot_of(bench, &key);
    (void)snprintf(path, SEGMENT_PATH_MAX, "%s", segment->path);
    set_small(bench, number);
    while (store_durable(bench->store) < wal_last(bench->store->wal))
        pass(bench);
    io_close(bench->io);
    store_free(bench->store);
    cr_assert(sim_disk_rot(bench->disk, path, location_offset(old.location) + 60, 500));
    bench_start(bench);
    settle(bench);
    struct index_entry gone;
    cr_assert_lt(index_get(bench->store->index, place.partition, place.hash, old.version, &gone),
                 0);
    cr_assert_eq(get_small(bench, number), STORE_OK);
    bench_close(bench);
}
