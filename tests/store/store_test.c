/* The store in the real world: what it answers, and what it still has after shutdowns and kills. */
#include "base/compress.h"
#include "base/hash.h"
#include "base/prng.h"
#include "store/store_internal.h"
#include "tests/support/store_fixture.h"
#include "tests/support/zstd_frame.h"

#include <errno.h>

#define SMALL_CACHE (1 * MIB)

static struct slice numbered(char *buffer, size_t size, const char *prefix, uint64_t number)
{
    int length = snprintf(buffer, size, "%s%012llu", prefix, (unsigned long long)number);
    return (struct slice){(const uint8_t *)buffer, (uint32_t)length};
}

/* Bytes that depend on key number and version, of any size. */
static struct slice pattern(uint8_t *buffer, uint32_t size, uint64_t seed)
{
    struct prng prng = {seed};
    for (uint32_t i = 0; i < size; i++)
        buffer[i] = (uint8_t)prng_next(&prng);
    return (struct slice){buffer, size};
}

Test(store, set_get_overwrite_delete)
{
    struct fixture f;
    fixture_start(&f, 16 * MIB);
    fixture_expect_absent(&f, text("a"));
    fixture_set(&f, text("a"), text("one"));
    fixture_expect(&f, text("a"), text("one"));
    fixture_set(&f, text("a"), text("two"));
    fixture_expect(&f, text("a"), text("two"));
    fixture_delete(&f, text("a"));
    fixture_expect_absent(&f, text("a"));
    fixture_set(&f, text("a"), text(""));
    fixture_expect(&f, text("a"), text(""));
    fixture_shut(&f);
    fixture_remove(&f);
}

Test(store, a_gate_opens_only_when_the_write_is_durable)
{
    struct fixture f;
    fixture_start(&f, 16 * MIB);
    uint64_t gate = fixture_set(&f, text("a"), text("one"));
    cr_assert_gt(gate, store_durable(f.store));
    struct store_value value;
    struct found found;
    cr_assert_eq(store_get(f.store, text("a"), &found.waiter, &value), STORE_OK);
    cr_assert_eq(value.gate, gate);
    fixture_settle(&f, gate);
    fixture_shut(&f);
    fixture_remove(&f);
}

Test(store, deleting_what_was_never_there_writes_nothing)
{
    struct fixture f;
    fixture_start(&f, 16 * MIB);
    cr_assert_eq(fixture_delete(&f, text("a")), 0);
    struct store_stats stats;
    store_stats(f.store, &stats);
    cr_assert_eq(stats.keys, 0);
    fixture_shut(&f);
    fixture_remove(&f);
}

static void fill(struct fixture *f, uint64_t count, uint64_t version, uint64_t *ret_gate)
{
    char key[32];
    uint8_t value[4096];
    for (uint64_t i = 0; i < count; i++) {
        uint32_t size = (uint32_t)(i * 7 % sizeof value);
        *ret_gate =
            fixture_set(f, numbered(key, sizeof key, "key", i), pattern(value, size, i ^ version));
    }
}

static void check(struct fixture *f, uint64_t count, uint64_t version)
{
    char key[32];
    uint8_t value[4096];
    for (uint64_t i = 0; i < count; i++) {
        uint32_t size = (uint32_t)(i * 7 % sizeof value);
        fixture_expect(f, numbered(key, sizeof key, "key", i), pattern(value, size, i ^ version));
    }
}

Test(store, values_beyond_the_cache_are_read_from_disk)
{
    struct fixture f;
    uint64_t gate;
    fixture_start(&f, SMALL_CACHE);
    fill(&f, 3000, 1, &gate);
    check(&f, 3000, 1);
    fixture_settle(&f, gate);
    check(&f, 3000, 1);
    struct store_stats stats;
    store_stats(f.store, &stats);
    cr_assert_gt(stats.cache.evictions, 0);
    cr_assert_leq(stats.cache.memory, SMALL_CACHE);
    fixture_shut(&f);
    fixture_remove(&f);
}

Test(store, an_overwritten_key_that_was_not_in_memory_is_one_key)
{
    struct fixture f;
    uint64_t gate;
    fixture_start(&f, SMALL_CACHE);
    fill(&f, 3000, 1, &gate);
    fixture_settle(&f, gate);
    fill(&f, 3000, 2, &gate);
    check(&f, 3000, 2);
    fixture_settle(&f, gate);
    for (int i = 0; i < 50; i++)
        fixture_pass(&f);
    struct store_stats stats;
    store_stats(f.store, &stats);
    cr_assert_eq(stats.keys, 3000, "%llu slots for 3000 keys: proofs are missing",
                 (unsigned long long)stats.keys);
    fixture_shut(&f);
    fixture_open(&f);
    check(&f, 3000, 2);
    for (int i = 0; i < 50; i++)
        fixture_pass(&f);
    store_stats(f.store, &stats);
    cr_assert_eq(stats.keys, 3000);
    fixture_shut(&f);
    fixture_remove(&f);
}

Test(store, deleted_keys_stay_deleted_out_of_memory_and_after_restarts)
{
    struct fixture f;
    uint64_t gate = 0;
    char key[32];
    fixture_start(&f, SMALL_CACHE);
    fill(&f, 2000, 1, &gate);
    for (uint64_t i = 0; i < 2000; i += 2)
        gate = fixture_delete(&f, numbered(key, sizeof key, "key", i));
    fixture_settle(&f, gate);
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 2000; i += 2)
            fixture_expect_absent(&f, numbered(key, sizeof key, "key", i));
        struct store_stats stats;
        store_stats(f.store, &stats);
        if (round == 0)
            fixture_kill(&f);
        else
            fixture_shut(&f);
        fixture_open(&f);
    }
    fixture_shut(&f);
    fixture_remove(&f);
}

Test(store, what_was_durable_survives_a_kill)
{
    struct fixture f;
    uint64_t gate;
    fixture_start(&f, SMALL_CACHE);
    for (uint64_t round = 1; round <= 5; round++) {
        fill(&f, 500, round, &gate);
        fixture_settle(&f, gate);
        (void)fixture_set(&f, text("in flight"), text("x"));
        fixture_kill(&f);
        fixture_open(&f);
        check(&f, 500, round);
    }
    fixture_shut(&f);
    fixture_remove(&f);
}

Test(store, interval_and_none_lose_nothing_at_a_clean_shutdown)
{
    enum wal_durability modes[] = {WAL_INTERVAL, WAL_NONE};
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        uint64_t gate;
        fixture_init(&f, SMALL_CACHE);
        f.options.durability = modes[i];
        fixture_open(&f);
        fill(&f, 1000, 3, &gate);
        cr_assert_eq(gate, 0);
        fixture_shut(&f);
        fixture_open(&f);
        check(&f, 1000, 3);
        fixture_shut(&f);
        fixture_remove(&f);
    }
}

Test(store, segments_whose_records_are_all_dead_are_recycled)
{
    struct fixture f;
    uint64_t gate;
    fixture_start(&f, 16 * MIB);
    for (uint64_t round = 0; round < 30; round++)
        fill(&f, 500, round, &gate);
    fixture_settle(&f, gate);
    struct store_stats stats;
    store_stats(f.store, &stats);
    cr_assert_gt(stats.wal.recycled, 0);
    cr_assert_leq(stats.wal.files, 10, "%llu files for 1 MB of live data",
                  (unsigned long long)stats.wal.files);
    fixture_kill(&f);
    fixture_open(&f);
    check(&f, 500, 29);
    fixture_shut(&f);
    fixture_remove(&f);
}

Test(store, compressed_values_are_stored_as_they_came_and_shown_decoded)
{
    struct fixture f;
    fixture_start(&f, SMALL_CACHE);
    size_t size = 250 * KIB;
    uint8_t *plain = calloc(1, size);
    (void)pattern(plain, 1000, 7);
    size_t bound = compress_bound(size);
    uint8_t *frame = malloc(bound);
    int64_t frame_size = compress_frame(frame, bound, plain, size);
    cr_assert_gt(frame_size, 0);
    uint64_t gate;
    struct slice stored = {frame, (uint32_t)frame_size};
    struct slice decoded = {plain, (uint32_t)size};
    cr_assert_eq(store_set(f.store, text("z"), stored, decoded, true, &gate), STORE_OK);
    fixture_expect(&f, text("z"), decoded); /* from the log's memory: too large for this cache */
    fixture_settle(&f, gate);
    fixture_expect(&f, text("z"), decoded);
    fixture_shut(&f);
    fixture_open(&f);
    fixture_expect(&f, text("z"), decoded);
    fixture_shut(&f);
    fixture_remove(&f);
    free(plain);
    free(frame);
}

Test(store, a_value_for_a_value_file_is_refused_and_changes_nothing)
{
    struct fixture f;
    fixture_start(&f, 16 * MIB);
    uint8_t *big = calloc(1, VALUE_FILE_MIN);
    uint64_t gate;
    fixture_set(&f, text("a"), text("old"));
    struct slice value = {big, (uint32_t)VALUE_FILE_MIN};
    cr_assert_eq(store_set(f.store, text("a"), value, value, false, &gate), STORE_TOO_LARGE);
    fixture_expect(&f, text("a"), text("old"));
    value.size = (uint32_t)VALUE_FILE_MIN - 1;
    fixture_set(&f, text("a"), value);
    fixture_expect(&f, text("a"), value);
    fixture_shut(&f);
    fixture_remove(&f);
    free(big);
}

Test(store, the_directory_is_locked)
{
    struct fixture first, second;
    fixture_start(&first, SMALL_CACHE);
    second = first;
    second.log.level_min = LOG_ERROR + 1;
    cr_assert_eq(fixture_try_open(&second), -EWOULDBLOCK);
    io_close(second.io);
    fixture_shut(&first);
    fixture_remove(&first);
}

/* The log's biggest file, damaged in its middle. */
static void damage(struct fixture *f, const char *filler)
{
    char command[1024];
    (void)snprintf(command, sizeof command,
                   "f=$(ls -S %s/log/* | tail -n 1); for f in %s/log/*; do printf '%s' | "
                   "dd of=$f bs=1 seek=20480 conv=notrunc status=none; done",
                   f->path, f->path, filler);
    cr_assert_eq(system(command), 0);
}

Test(store, damage_to_acknowledged_writes_is_never_not_found)
{
    struct fixture f;
    uint64_t gate;
    char key[32];
    fixture_init(&f, 16 * MIB);
    f.log.level_min = LOG_ERROR + 1;
    fixture_open(&f);
    fill(&f, 400, 1, &gate);
    fixture_settle(&f, gate);
    gate = fixture_set(&f, text("later"), text("x"));
    fixture_settle(&f, gate);
    fixture_shut(&f);
    damage(&f, "DAMAGEDAMAGEDAMAGE");
    fixture_open(&f);
    struct store_stats stats;
    store_stats(f.store, &stats);
    cr_assert_gt(stats.findings.damaged, 0);
    uint64_t corrupt = 0;
    uint8_t value[4096];
    for (uint64_t i = 0; i < 400; i++) {
        struct found found;
        enum store_status status = fixture_get(&f, numbered(key, sizeof key, "key", i), &found);
        cr_assert_neq(status, STORE_NOT_FOUND, "key %d vanished", (int)i);
        corrupt += status == STORE_CORRUPT;
        if (status == STORE_OK)
            cr_assert_eq(memcmp(found.value, pattern(value, (uint32_t)(i * 7 % 4096), i ^ 1).data,
                                found.size),
                         0);
        free(found.value);
    }
    cr_assert_gt(corrupt, 0);
    struct found found;
    cr_assert_eq(fixture_get(&f, text("never written"), &found), STORE_CORRUPT);
    /* New writes are served, the operator's word lifts the rest. */
    gate = fixture_set(&f, text("new"), text("y"));
    fixture_expect(&f, text("new"), text("y"));
    fixture_settle(&f, gate);
    fixture_shut(&f);
    f.options.accept_loss = true;
    fixture_open(&f);
    fixture_expect_absent(&f, text("never written"));
    fixture_shut(&f);
    f.options.accept_loss = false;
    fixture_open(&f);
    fixture_expect_absent(&f, text("never written"));
    fixture_expect(&f, text("new"), text("y"));
    fixture_shut(&f);
    fixture_remove(&f);
}

/* Many keys of one partition: what a client can arrange by choosing keys. */
Test(store, keys_of_one_partition_are_kept_apart)
{
    struct fixture f;
    fixture_start(&f, SMALL_CACHE);
    char key[32];
    uint64_t written = 0, gate = 0;
    for (uint64_t i = 0; written < 500; i++) {
        struct slice slice = numbered(key, sizeof key, "p", i);
        if (hash_partition(hash_key(slice.data, slice.size)) != 7)
            continue;
        gate = fixture_set(&f, slice, slice);
        written++;
    }
    fixture_settle(&f, gate);
    uint64_t found = 0;
    for (uint64_t i = 0; found < 500; i++) {
        struct slice slice = numbered(key, sizeof key, "p", i);
        if (hash_partition(hash_key(slice.data, slice.size)) != 7)
            continue;
        fixture_expect(&f, slice, slice);
        found++;
    }
    fixture_shut(&f);
    fixture_remove(&f);
}

/* Such values are in no cache, so each overwrite leaves a slot that only reading can prove: after
 * a restart more of them than a look-up holds. */
Test(store, a_key_overwritten_often_and_never_cached_is_found_after_a_kill)
{
    struct fixture f;
    fixture_start(&f, SMALL_CACHE);
    uint8_t *bytes = malloc(200 * KIB);
    uint64_t gate = 0;
    for (uint64_t round = 0; round < 40; round++) {
        gate = fixture_set(&f, text("large"), pattern(bytes, 200 * KIB, round));
        fixture_settle(&f, gate);
    }
    fixture_kill(&f);
    fixture_open(&f);
    fixture_expect(&f, text("large"), pattern(bytes, 200 * KIB, 39));
    gate = fixture_set(&f, text("large"), text("small"));
    fixture_expect(&f, text("large"), text("small"));
    fixture_settle(&f, gate);
    for (int i = 0; i < 100; i++)
        fixture_pass(&f);
    struct store_stats stats;
    store_stats(f.store, &stats);
    cr_assert_eq(stats.keys, 1, "%llu slots for one key", (unsigned long long)stats.keys);
    fixture_shut(&f);
    fixture_remove(&f);
    free(bytes);
}

static uint64_t keys_of(struct fixture *fixture)
{
    struct store_stats stats;
    store_stats(fixture->store, &stats);
    return stats.keys;
}

/* A key of one of the first 32 partitions: a world of a test has few files. */
static struct slice few(char *name, size_t size, uint32_t number)
{
    for (uint32_t i = 0;; i++) {
        (void)snprintf(name, size, "u%u.%u", number, i);
        struct slice key = text(name);
        if (hash_partition(hash_key(key.data, key.size)) < 32)
            return key;
    }
}

/* Sets `count` keys, deletes every eighth, overwrites all others, deletes some of them again. None
 * of the older writes is proved before the kill. Returns how many keys there are. */
static uint64_t overwrite_unproved(struct fixture *f, uint32_t count)
{
    char name[32];
    uint8_t bytes[1000];
    uint64_t gate = 0, keys = 0;
    for (uint32_t i = 0; i < count; i++)
        gate = fixture_set(f, few(name, sizeof name, i), pattern(bytes, sizeof bytes, i));
    for (uint32_t i = 0; i < count; i += 8)
        gate = fixture_delete(f, few(name, sizeof name, i));
    for (uint32_t i = 0; i < count; i++) {
        struct slice key = few(name, sizeof name, i);
        keys += i % 8 != 1;
        gate = i % 8 == 1 ? fixture_delete(f, key) : fixture_set(f, key, pattern(bytes, 900, i));
    }
    fixture_settle(f, gate);
    return keys;
}

Test(store, older_writes_that_a_kill_left_unproved_are_not_counted_as_keys)
{
    struct fixture f;
    fixture_start(&f, SMALL_CACHE);
    uint64_t keys = overwrite_unproved(&f, 2000);
    fixture_kill(&f);
    fixture_open(&f);
    cr_assert_gt(f.store->proofs.suspect_count, 0);
    cr_assert_eq(keys_of(&f), keys);
    for (int i = 0; i < 1000; i++)
        fixture_pass(&f);
    cr_assert_eq(f.store->proofs.suspect_count + f.store->proofs.active, 0);
    cr_assert_eq(keys_of(&f), keys);
    fixture_shut(&f);
    fixture_remove(&f);
}

/* The checkpoint has both slots of such a hash: who loads it suspects them anew. */
Test(store, unproved_writes_do_not_hide_in_a_checkpoint)
{
    struct fixture f;
    fixture_init(&f, SMALL_CACHE);
    f.options.log_keep_bytes = 1;
    fixture_open(&f);
    uint64_t keys = overwrite_unproved(&f, 10000);
    fixture_kill(&f);
    f.options.checkpoint_min = 1;
    fixture_open(&f);
    cr_assert_gt(f.store->proofs.suspect_count, 0);
    f.store->checkpoints.is_wanted = true;
    fixture_shut(&f);
    fixture_open(&f);
    cr_assert_gt(f.store->checkpoints.number, 0);
    cr_assert_gt(f.store->proofs.suspect_count, 0);
    cr_assert_eq(keys_of(&f), keys);
    for (int i = 0; i < 20000 && f.store->proofs.suspect_count + f.store->proofs.active > 0; i++)
        fixture_pass(&f);
    cr_assert_eq(f.store->proofs.suspect_count + f.store->proofs.active, 0);
    cr_assert_eq(keys_of(&f), keys);
    cr_assert_eq(index_count(f.store->index) - index_tombstones(f.store->index), keys);
    fixture_shut(&f);
    fixture_remove(&f);
}

/* The number of the segment that the file holds; 0: it is a spare one. */
static uint64_t segment_number(const char *path)
{
    uint8_t block[WAL_BLOCK_SIZE] = {0};
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file);
    (void)fread(block, 1, sizeof block, file);
    cr_assert_eq(fclose(file), 0);
    struct log_file_header header;
    return log_file_header_decode(block, &header) == 0 ? header.number : 0;
}

static void find_newest_log_file(const struct fixture *fixture, char *path, size_t size)
{
    uint64_t newest = 0;
    for (uint32_t serial = 0; serial < 100; serial++) {
        char name[512];
        (void)snprintf(name, sizeof name, "%s/log/wal-%08x", fixture->path, serial);
        uint64_t number = access(name, F_OK) == 0 ? segment_number(name) : 0;
        if (number <= newest)
            continue;
        newest = number;
        (void)snprintf(path, size, "%s", name);
    }
    cr_assert_gt(newest, 0);
}

/* No header tells how far the newest file went, but a group of the manifest that was written
 * meanwhile. */
Test(store, a_newest_log_file_that_is_gone_after_a_kill_is_missed)
{
    struct fixture f;
    fixture_init(&f, SMALL_CACHE);
    f.options.log_keep_bytes = 1;
    fixture_open(&f);
    char name[32], path[512];
    uint8_t bytes[1000];
    uint64_t gate = 0;
    uint64_t blocks = manifest_tell(f.store->manifest).blocks;
    for (uint32_t i = 0; i < 20000 && manifest_tell(f.store->manifest).blocks == blocks; i++) {
        gate = fixture_set(&f, few(name, sizeof name, i), pattern(bytes, sizeof bytes, i));
        if (i % 8 == 0)
            fixture_settle(&f, gate);
    }
    cr_assert_gt(manifest_tell(f.store->manifest).blocks, blocks);
    fixture_kill(&f);
    find_newest_log_file(&f, path, sizeof path);
    cr_assert_eq(unlink(path), 0);
    log_init_stderr(&f.log, LOG_ERROR + 1);
    fixture_open(&f);
    struct store_stats stats;
    store_stats(f.store, &stats);
    cr_assert_gt(stats.findings.damaged, 0);
    struct found found;
    cr_assert_eq(fixture_get(&f, text("never written"), &found), STORE_CORRUPT);
    fixture_shut(&f);
    f.options.accept_loss = true;
    fixture_open(&f);
    fixture_expect_absent(&f, text("never written"));
    fixture_shut(&f);
    f.options.accept_loss = false;
    fixture_open(&f);
    fixture_expect_absent(&f, text("never written"));
    fixture_shut(&f);
    fixture_remove(&f);
}
