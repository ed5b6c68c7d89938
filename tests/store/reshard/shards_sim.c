/* One data directory under changing numbers of shards. */
#include "shards_bench.h"
#include "tests/support/attribute_bench.h"

#include <errno.h>

Test(shards, every_key_survives_every_change_of_their_number, .timeout = 120)
{
    static const uint32_t counts[] = {1, 4, 3, 1, 16, 2, 256, 5, 5, 1};
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct shards *shards = shards_create(seed);
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            if (counts[i] > 100 && seed > 1)
                continue;
            shards_restart(shards, counts[i]);
            if (counts[i] <= 16)
                shards_live(shards, i == 0 ? 100 : 30);
        }
        shards_restart(shards, 1);
        shards_free(shards);
    }
}

/* ---- numbers ---- */

struct numbers {
    uint64_t seen[4096];
    uint32_t count;
};

static int take_number(void *context, const char *name)
{
    struct numbers *numbers = context;
    uint64_t number;
    if (segment_name_parse(name, &number) < 0)
        return 0;
    for (uint32_t i = 0; i < numbers->count; i++)
        cr_assert_neq(numbers->seen[i], number);
    cr_assert_lt(numbers->count, 4096);
    numbers->seen[numbers->count++] = number;
    return 0;
}

Test(shards, segments_have_numbers_that_no_other_shard_gives_or_gave)
{
    static const uint32_t counts[] = {3, 1, 4, 2};
    struct shards *shards = shards_create(11);
    uint64_t base = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        shards_restart(shards, counts[i]);
        shards_live(shards, 100);
        struct numbers numbers = {.count = 0};
        shards_begin_with(shards, counts[i]);
        cr_assert_geq(shards->directory.handover.node.segment_base, base);
        base = shards->directory.handover.node.segment_base;
        for (uint32_t partition = 0; partition < 256; partition++) {
            char path[32];
            (void)snprintf(path, sizeof path, BENCH_PATH "/%02x", partition);
            uint32_t first = numbers.count;
            cr_assert_eq(io_list_directory(shards->bench.io, path, take_number, &numbers), 0);
            for (uint32_t n = first; n < numbers.count; n++)
                cr_assert(numbers.seen[n] <= base ||
                          numbers.seen[n] % counts[i] == partition % counts[i]);
        }
        cr_assert(i == 0 || numbers.count > 10, "%u", numbers.count);
        shards_end(shards);
    }
    shards_free(shards);
}

/* The clock stands still: stamps go on above those that any shard gave. */
Test(shards, stamps_and_positions_never_fall_back)
{
    static const uint32_t counts[] = {4, 1, 3};
    struct shards *shards = shards_create(12);
    uint64_t clock = 0, position = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        shards_begin(shards);
        sim_host_jump(shards->bench.io, -(int64_t)(i * 1000000));
        cr_assert_eq(shards_prepare(shards, counts[i]), 0);
        uint64_t clock_now = 0, position_now = 0;
        for (uint32_t shard = 0; shard < counts[i]; shard++) {
            cr_assert_eq(shards_open(shards, shard), 0);
            const struct store *store = shards->bench.store;
            cr_assert_geq(store->clock.last, clock);
            cr_assert_geq(wal_last(store->wal), position);
            shards_write(shards, 100);
            clock_now = max_u64(clock_now, store->clock.last);
            position_now = max_u64(position_now, wal_last(store->wal));
            shards_shut(shards);
        }
        cr_assert(clock_now > clock && position_now > position);
        clock = clock_now;
        position = position_now;
        shards_end(shards);
    }
    shards_free(shards);
}

/* ---- the lock ---- */

static int prepare_beside(struct shards *shards, uint32_t count)
{
    struct io *io;
    struct store_directory directory;
    struct store_options options = shards->bench.options;
    options.shard = 0;
    options.shard_count = count;
    options.handover = NULL;
    bench_open_host(&shards->bench, &io);
    int result = store_directory_prepare(io, &shards->bench.log, &options, &directory);
    store_directory_release(&directory);
    io_close(io);
    store_directory_free(&directory);
    return result;
}

Test(shards, nobody_gets_in_while_one_of_the_stores_is_open)
{
    struct shards *shards = shards_create(13);
    shards_restart(shards, 3);
    shards_begin_with(shards, 3);
    cr_assert_eq(prepare_beside(shards, 3), -EWOULDBLOCK, "prepared");
    cr_assert_eq(shards_open(shards, 0), 0);
    cr_assert_eq(prepare_beside(shards, 3), -EWOULDBLOCK, "taken over");
    shards_shut(shards);
    cr_assert_eq(shards_open(shards, 1), 0);
    cr_assert_eq(prepare_beside(shards, 2), -EWOULDBLOCK, "a shard that is slow to shut");
    shards_shut(shards);
    cr_assert_eq(prepare_beside(shards, 2), 0);
    shards_end(shards);
    shards_restart(shards, 2);
    shards_free(shards);
}

/* Whoever does not prepare it must not take one shard's part for all. */
Test(shards, store_that_opens_a_directory_alone_refuses_one_of_several_shards)
{
    struct shards *shards = shards_create(14);
    shards_restart(shards, 2);
    shards_begin(shards);
    shards->bench.options.shard = 0;
    shards->bench.options.shard_count = 1;
    shards->bench.options.handover = NULL;
    cr_assert_eq(bench_start(&shards->bench), -EINVAL);
    shards_end(shards);
    shards_restart(shards, 1);
    shards_free(shards);
}

Test(shards, superblock_of_another_shard_is_refused)
{
    struct shards *shards = shards_create(15);
    shards_restart(shards, 3);
    shards_begin_with(shards, 3);
    struct io_op op = {0};
    io_rename(shards->bench.io, &op, BENCH_PATH "/shard-2/superblock",
              BENCH_PATH "/shard-1/superblock");
    cr_assert_eq(io_wait(shards->bench.io, &op), 0);
    cr_assert_eq(shards_open(shards, 1), -EXDEV);
    cr_assert_eq(shards_open(shards, 2), -ENOENT);
    shards_end(shards);
    shards_begin(shards);
    io_rename(shards->bench.io, &op, BENCH_PATH "/shard-1/superblock", BENCH_PATH "/superblock");
    cr_assert_eq(io_wait(shards->bench.io, &op), 0);
    cr_assert_eq(shards_prepare(shards, 1), -EXDEV, "of the whole directory");
    shards_end(shards);
    shards_free(shards);
}

/* Of the same shard under the same number of them, but of before. */
Test(shards, superblock_of_an_earlier_time_is_refused)
{
    struct shards *shards = shards_create(17);
    shards_restart(shards, 3);
    shards_live(shards, 100);
    shards_begin_with(shards, 3);
    struct superblock_file old;
    cr_assert_eq(superblock_open_shard(shards->bench.io, &shards->bench.log, BENCH_PATH,
                                       &shards->directory.handover.node, 1, 0, &old),
                 0);
    struct superblock was = old.now;
    superblock_close(&old);
    shards_end(shards);
    shards_restart(shards, 1);
    shards_restart(shards, 3);
    shards_begin_with(shards, 3);
    cr_assert_eq(superblock_make(shards->bench.io, BENCH_PATH "/shard-1/superblock", &was), 0);
    cr_assert_eq(shards_open(shards, 1), -EXDEV);
    shards_end(shards);
    shards_free(shards);
}

/* Of the same shard under the same number of them, of one start before. */
Test(shards, superblock_of_an_earlier_start_is_refused)
{
    struct shards *shards = shards_create(19);
    shards_restart(shards, 3);
    shards_begin_with(shards, 3);
    struct superblock_file old;
    cr_assert_eq(superblock_open_shard(shards->bench.io, &shards->bench.log, BENCH_PATH,
                                       &shards->directory.handover.node, 2, 0, &old),
                 0);
    struct superblock was = old.now;
    superblock_close(&old);
    shards_end(shards);
    shards_begin_with(shards, 3);
    cr_assert_eq(shards->directory.handover.node.start_number, was.start_number + 2);
    shards_end(shards);
    for (uint32_t count = 1; count <= 3; count++) { /* a conversion would hide it */
        shards_begin(shards);
        cr_assert_eq(superblock_make(shards->bench.io, BENCH_PATH "/shard-2/superblock", &was), 0);
        cr_assert_eq(shards_prepare(shards, count), -EXDEV);
        shards_end(shards);
    }
    shards_free(shards);
}

Test(shards, conversion_carries_identity_start_number_and_log_file_size_on)
{
    static const uint32_t counts[] = {1, 3, 8, 2};
    struct superblock_identity identity = {.cluster_id = 77};
    memset(identity.secret, 0xA5, sizeof identity.secret);
    struct shards *shards = shards_create(20);
    shards->bench.options.log_file_size = 0;
    shards->bench.options.identity = &identity;
    uint64_t started = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        shards_begin_with(shards, counts[i]);
        cr_assert_geq(shards->directory.handover.node.start_number, started + 2);
        started = shards->directory.handover.node.start_number;
        for (uint32_t shard = 0; shard < counts[i]; shard++) {
            cr_assert_eq(shards_open(shards, shard), 0);
            const struct superblock *now = &shards->bench.store->superblock.now;
            cr_expect_eq(now->log_file_size, 32 * MIB);
            cr_expect_eq(now->cluster_id, 77);
            cr_expect_arr_eq(now->secret, identity.secret, sizeof identity.secret);
            cr_expect_eq(now->start_number, started);
            shards_shut(shards);
        }
        shards_end(shards);
    }
    shards_free(shards);
}

Test(shards, log_files_are_a_part_of_the_disk_when_it_is_formatted)
{
    static const struct {
        uint64_t disk;
        uint32_t shards;
        uint64_t size;
    } cases[] = {{256 * MIB, 1, 16 * MIB}, {256 * MIB, 3, 5 * MIB}, {512 * MIB, 8, 4 * MIB},
                 {8 * GIB, 1, 32 * MIB},   {8 * GIB, 3, 32 * MIB},  {2 * GIB, 8, 16 * MIB}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct shards *shards = shards_create(21);
        sim_disk_options(shards->bench.disk)->capacity = cases[i].disk;
        shards->bench.options.log_file_size = 0;
        shards_begin_with(shards, cases[i].shards);
        cr_expect_eq(shards->directory.handover.node.log_file_size, cases[i].size, "%zu", i);
        shards_end(shards);
        sim_disk_options(shards->bench.disk)->capacity = 16 * GIB;
        shards_begin_with(shards, 2);
        cr_expect_eq(shards->directory.handover.node.log_file_size, cases[i].size, "%zu", i);
        shards_end(shards);
        shards_free(shards);
    }
}

Test(shards, directory_superblock_of_an_earlier_time_is_refused)
{
    struct shards *shards = shards_create(18);
    shards_restart(shards, 1);
    shards_begin_with(shards, 1);
    struct superblock was = shards->directory.handover.file.now;
    was.clean = false;
    shards_end(shards);
    shards_live(shards, 100);
    shards_restart(shards, 3);
    shards_begin(shards);
    cr_assert_eq(superblock_make(shards->bench.io, BENCH_PATH "/superblock", &was), 0);
    cr_assert_eq(shards_prepare(shards, 1), -EXDEV);
    cr_assert_eq(shards_prepare(shards, 3), -EXDEV);
    shards_end(shards);
    shards_free(shards);
}

/* ---- at once ---- */

/* Each in a world of its own, as the threads of a server. */
Test(shards, stores_are_opened_and_used_side_by_side)
{
    enum { COUNT = 3 };
    struct shards *shards = shards_create(16);
    struct bench *bench = &shards->bench;
    shards_restart(shards, 1);
    shards_live(shards, 100);
    struct io *worlds[COUNT];
    struct store *stores[COUNT];
    for (uint32_t shard = 0; shard < COUNT; shard++) {
        shards_begin(shards);
        worlds[shard] = bench->io;
        if (shard == 0)
            cr_assert_eq(shards_prepare(shards, COUNT), 0);
        cr_assert_eq(shards_open(shards, shard), 0);
        stores[shard] = bench->store;
    }
    for (uint32_t round = 0; round < 3 * COUNT; round++) {
        bench->options.shard = round % COUNT;
        bench->io = worlds[round % COUNT];
        bench->store = stores[round % COUNT];
        shards_check_open(shards);
        shards_write(shards, 60);
        for (uint32_t other = 0; other < COUNT; other++)
            (void)store_flush(stores[other], STORE_PASS_BYTES);
    }
    for (uint32_t shard = 0; shard < COUNT; shard++) {
        cr_assert_eq(store_shut(stores[shard]), 0);
        io_close(worlds[shard]);
        store_free(stores[shard]);
    }
    bench->store = NULL;
    bench->io = NULL;
    shards_restart(shards, COUNT);
    shards_restart(shards, 2);
    shards_free(shards);
}

/* ---- attributes ---- */

Test(shards, attributes_of_unknown_tags_survive_changes_of_their_number)
{
    static const uint32_t counts[] = {1, 3, 2};
    struct shards *shards = shards_create(13);
    struct bench *bench = &shards->bench;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        shards_begin_with(shards, counts[i]);
        for (uint32_t shard = 0; shard < counts[i]; shard++) {
            cr_assert_eq(shards_open(shards, shard), 0);
            for (uint32_t key = 0; key < bench->key_count; key++) {
                if (!shards_has(shards, bench_partition(bench, key)))
                    continue;
                if (i == 0)
                    attribute_write(bench, key);
                if (i > 0 && attribute_flags(key) == RECORD_TOMBSTONE)
                    continue; /* nothing needs it any more */
                attribute_read(bench, key, attribute_expect_same);
            }
            shards_shut(shards);
        }
        shards_end(shards);
    }
    shards_free(shards);
}
