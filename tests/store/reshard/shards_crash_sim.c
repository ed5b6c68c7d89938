/* Conversions that are cut short at any step, on full disks, and over damage. */
#include "shards_bench.h"
#include "store/wal/wal_internal.h"

#include <errno.h>

/* ---- crashes ---- */

static uint32_t any_count(struct shards *shards)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 6};
    return counts[shards_below(shards, 5)];
}

/* A conversion that dies after so many steps. Returns false when it came to its end before. */
static bool crash_conversion(struct shards *shards, uint32_t count, uint64_t steps)
{
    uint32_t before = shards->count;
    shards_begin(shards);
    sim_host_crash_after(shards->bench.io, steps,
                         shards_below(shards, 2) == 0 ? SIM_KILL : SIM_POWER_LOSS);
    int result = shards_prepare(shards, count);
    bool is_crashed = sim_host_is_crashed(shards->bench.io);
    cr_assert(is_crashed || result == 0, "seed %" PRIu64 ", %u to %u shards, step %" PRIu64 ": %d",
              shards->bench.seed, before, count, steps, result);
    shards_end(shards);
    if (is_crashed)
        shards->count = before;
    if (shards_below(shards, 3) == 0)
        sim_disk_lose_power(shards->bench.disk);
    return is_crashed;
}

/* Whoever starts next, asking for whatever number, finds everything. `stride` leaves steps out. */
static void crash_at_steps(uint64_t seed, uint64_t stride)
{
    struct shards *shards = shards_create(seed);
    shards_restart(shards, 1);
    shards_live(shards, 100);
    bool goes_on = true;
    for (uint64_t step = 1 + seed % stride; goes_on; step += stride) {
        uint32_t count = any_count(shards);
        if (count == shards->count)
            count = count % 6 + 1;
        goes_on = crash_conversion(shards, count, step);
        for (uint32_t i = 0; goes_on && i < shards_below(shards, 3); i++)
            (void)crash_conversion(shards, any_count(shards), 1 + shards_below(shards, 400));
        /* What it finds is unknown: the old number or the new one. */
        shards_restart(shards, any_count(shards));
        if (step / stride % 8 == 0)
            shards_live(shards, 20);
    }
    shards_free(shards);
}

Test(shards_crash, conversion_may_be_cut_short_at_every_step, .timeout = 300)
{
    const char *text = getenv("MINIVAULT_SEED");
    uint64_t first = text != NULL ? strtoull(text, NULL, 10) : 1;
    const char *many = getenv("MINIVAULT_SEEDS");
    uint64_t count = many != NULL ? strtoull(many, NULL, 10) : text != NULL ? 1 : 3;
    for (uint64_t seed = first; seed < first + count; seed++)
        crash_at_steps(seed, many != NULL ? 1 : 13);
}

/* ---- a disk that is full ---- */

static uint64_t used_bytes(struct shards *shards)
{
    uint64_t free_size = 0, total_size = 0;
    cr_assert_eq(io_disk_space(shards->bench.io, BENCH_PATH, &free_size, &total_size), 0);
    return total_size - free_size;
}

/* A directory of two shards whose logs hold much that is alive. */
static struct shards *two_shards(uint64_t seed)
{
    struct shards *shards = shards_create(seed);
    shards_restart(shards, 1);
    shards_restart(shards, 2);
    shards->bench.options.log_keep_bytes = 64 * MIB;
    shards_live(shards, 100);
    shards->bench.options.log_keep_bytes = 1;
    return shards;
}

/* With `count` shards wanted and so much space free. Returns what the preparation said. */
static int prepare_on_full_disk(struct shards *shards, uint32_t count, uint64_t free_bytes)
{
    shards_begin(shards);
    sim_disk_options(shards->bench.disk)->capacity = used_bytes(shards) + free_bytes;
    int result = shards_prepare(shards, count);
    sim_disk_options(shards->bench.disk)->capacity = 4 * GIB;
    shards_end(shards);
    return result;
}

Test(shards_crash, full_disk_leaves_the_directory_as_it_was, .timeout = 300)
{
    uint32_t refused = 0, done = 0;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        struct shards *shards = two_shards(seed);
        uint64_t free_bytes = seed * 256 * KIB;
        uint32_t count = seed % 2 == 0 ? 1 : 3;
        int result = prepare_on_full_disk(shards, count, free_bytes);
        cr_assert(result == 0 || result == -ENOSPC, "seed %" PRIu64 ": %d", seed, result);
        refused += result < 0;
        done += result == 0;
        shards_restart(shards, result == 0 ? count : 2);
        shards_live(shards, 30);
        shards_restart(shards, 3);
        shards_free(shards);
    }
    cr_assert(refused > 3 && done > 3, "%u refused, %u done", refused, done);
}

Test(shards_crash, files_that_may_not_become_large_enough_are_refused_at_once)
{
    struct shards *shards = two_shards(1);
    uint64_t needed = 8 * shards->bench.options.log_file_size;
    sim_disk_options(shards->bench.disk)->file_size_max = needed - 1;
    shards_begin(shards);
    cr_assert_eq(shards_prepare(shards, 3), -EFBIG);
    shards_end(shards);
    sim_disk_options(shards->bench.disk)->file_size_max = needed;
    shards_restart(shards, 3);
    shards_free(shards);
}

/* Before anything is moved: a shard that cannot be opened would keep its keys from everybody. */
Test(shards_crash, more_shards_than_the_disk_has_room_for_are_refused_at_once)
{
    struct shards *shards = two_shards(1);
    cr_assert_eq(prepare_on_full_disk(shards, 100, 100 * MIB), -ENOSPC);
    shards_begin_with(shards, 2);
    cr_assert_eq(shards_open(shards, 1), 0);
    cr_assert_eq(bench_segments(&shards->bench).segments, 0, "nothing was moved");
    shards_shut(shards);
    shards_end(shards);
    shards_restart(shards, 100);
    shards_free(shards);
}

/* ---- a device that fails ---- */

/* Whatever fails, the next start on a sound device has everything: under the old number or the new
 * one. */
Test(shards_crash, failing_writes_and_syncs_lose_nothing, .timeout = 300)
{
    uint32_t failed = 0, done = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct shards *shards = two_shards(seed);
        struct sim_disk_options *disk = sim_disk_options(shards->bench.disk);
        shards_begin(shards);
        disk->write_error_ppm = disk->sync_error_ppm = (uint32_t)(seed % 4 * 2000 + 200);
        int result = shards_prepare(shards, seed % 2 == 0 ? 1 : 5);
        disk->write_error_ppm = disk->sync_error_ppm = 0;
        cr_assert(result == 0 || result == -EIO, "seed %" PRIu64 ": %d", seed, result);
        failed += result < 0;
        done += result == 0;
        shards_end(shards);
        shards_restart(shards, any_count(shards));
        shards_free(shards);
    }
    cr_assert(failed > 10 && done > 3, "%u failed, %u done", failed, done);
}

/* ---- damage ---- */

struct chosen {
    char name[64];
    uint32_t count;
};

static int choose_log_file(void *context, const char *name)
{
    struct chosen *chosen = context;
    if (chosen->count++ == 0 || strcmp(name, chosen->name) < 0)
        (void)snprintf(chosen->name, sizeof chosen->name, "%s", name);
    return 0;
}

/* In a shard's log, where something lies that was acknowledged. */
static void damage_log(struct shards *shards, uint32_t shard)
{
    char path[256] = "";
    shards->bench.options.log_keep_bytes = 64 * MIB;
    shards_begin_with(shards, shards->count);
    cr_assert_eq(shards_open(shards, shard), 0);
    const struct wal_files *files = shards->bench.store->wal->files;
    for (uint32_t i = 0; i < files->capacity && path[0] == '\0'; i++)
        if (files->table[i] != NULL && files->table[i]->live > 0)
            (void)snprintf(path, sizeof path, "%s", files->table[i]->path);
    shards_shut(shards);
    shards_end(shards);
    shards->bench.options.log_keep_bytes = 1;
    cr_assert(sim_disk_rot(shards->bench.disk, path, WAL_DATA_OFFSET + 200, 200), "%s", path);
}

static struct superblock superblock_now(struct shards *shards)
{
    shards_begin_with(shards, shards->count);
    struct superblock now = shards->directory.handover.node;
    shards_end(shards);
    return now;
}

Test(shards_crash, damage_of_the_log_is_not_hidden_and_its_acceptance_not_forgotten)
{
    struct shards *shards = two_shards(5);
    damage_log(shards, 1);
    shards_begin(shards);
    cr_assert_eq(shards_prepare(shards, 3), -EBADMSG);
    shards_end(shards);
    /* What is left is served with the old number. */
    shards_begin_with(shards, 2);
    cr_assert_eq(shards_open(shards, 1), 0);
    uint64_t lost = shards->bench.store->damage.log_last;
    cr_assert_gt(lost, 0);
    shards_shut(shards);
    shards_end(shards);
    shards->bench.options.accept_loss = true;
    shards_begin_with(shards, 3);
    shards_end(shards);
    shards->bench.options.accept_loss = false;
    struct superblock now = superblock_now(shards);
    cr_assert_geq(now.damage_accepted, lost);
    cr_assert_geq(now.log_base, lost);
    /* What the damage did not take is there. */
    uint32_t found = 0;
    shards_begin_with(shards, 3);
    for (uint32_t shard = 0; shard < 3; shard++) {
        cr_assert_eq(shards_open(shards, shard), 0);
        for (uint32_t key = 0; key < SHARDS_KEYS; key++) {
            struct bench_found got;
            if (!shards_has(shards, bench_partition(&shards->bench, key)))
                continue;
            cr_assert(bench_get(&shards->bench, key, &got));
            cr_assert(got.status == STORE_OK || got.status == STORE_NOT_FOUND);
            found += got.status == STORE_OK && got.number == shards->bench.keys[key].newest;
        }
        shards_shut(shards);
    }
    shards_end(shards);
    cr_assert_gt(found, SHARDS_KEYS / 2);
    shards_free(shards);
}

enum stage {
    STAGE_EARLY, /* a start goes on with the old number */
    STAGE_DECIDED,
    STAGE_LATE, /* the new file is where it belongs, or everything is */
};

static enum stage stage_of(struct shards *shards, uint32_t count, const char *path)
{
    struct superblock_file file;
    bool is_formatted;
    struct io_op op = {0};
    shards_begin(shards);
    static const struct superblock_birth birth = {BENCH_SEGMENT_SIZE, 1, NULL};
    cr_assert_eq(superblock_open(shards->bench.io, &shards->bench.log, BENCH_PATH, &birth,
                                 10 * NS_PER_S, &file, &is_formatted),
                 0);
    bool is_decided = file.now.shards_before != 0;
    bool is_done = !is_decided && file.now.shard_count == count;
    superblock_close(&file);
    io_open_file(shards->bench.io, &op, path, IO_OPEN_READ);
    bool is_there = io_wait(shards->bench.io, &op) >= 0;
    shards_end(shards);
    if (is_done || (is_decided && !is_there))
        return STAGE_LATE;
    return is_decided ? STAGE_DECIDED : STAGE_EARLY;
}

/* A conversion dies with the decision made and a new file where it was written. Looked for from the
 * end, in large steps as long as they do not lead over it. */
static void stop_when_decided(struct shards *shards, uint32_t count, const char *path)
{
    uint32_t before = shards->count;
    uint64_t stride = 32;
    shards_begin_with(shards, count);
    uint64_t steps = sim_host_steps(shards->bench.io);
    shards_end(shards);
    for (;;) {
        cr_assert_gt(steps, stride);
        shards_begin_with(shards, before);
        shards_end(shards);
        (void)crash_conversion(shards, count, steps - stride);
        enum stage stage = stage_of(shards, count, path);
        if (stage == STAGE_DECIDED)
            return;
        if (stage == STAGE_EARLY && stride > 1)
            stride = 1;
        else
            steps -= stride;
    }
}

Test(shards_crash, rot_in_a_new_manifest_is_found_before_anything_is_removed, .timeout = 300)
{
    struct shards *shards = two_shards(7);
    shards_restart(shards, 2);
    stop_when_decided(shards, 3, BENCH_PATH "/resharding/manifest-2");
    cr_assert(sim_disk_rot(shards->bench.disk, BENCH_PATH "/resharding/manifest-2", 4096, 4096));
    shards_begin_with(shards, 3);
    cr_assert_eq(shards_open(shards, 2), -EBADMSG);
    shards_end(shards);
    shards->bench.options.accept_loss = true;
    shards_begin_with(shards, 3);
    shards_check_all(shards);
    shards_end(shards);
    shards->bench.options.accept_loss = false;
    shards_restart(shards, 1);
    shards_free(shards);
}

/* A log of a converted directory that is gone is missed like any other. */
Test(shards_crash, log_that_is_lost_after_a_conversion_is_missed)
{
    struct shards *shards = two_shards(9);
    shards_restart(shards, 3);
    shards_begin_with(shards, 3);
    cr_assert_eq(shards_open(shards, 1), 0);
    shards_write(shards, 100);
    shards_shut(shards);
    struct chosen chosen;
    do {
        char path[128];
        chosen = (struct chosen){.count = 0};
        cr_assert_eq(io_list_directory(shards->bench.io, BENCH_PATH "/shard-1/log", choose_log_file,
                                       &chosen),
                     0);
        (void)snprintf(path, sizeof path, BENCH_PATH "/shard-1/log/%s", chosen.name);
        struct io_op op = {0};
        io_unlink(shards->bench.io, &op, path);
        cr_assert_eq(io_wait(shards->bench.io, &op), 0);
    } while (chosen.count > 1);
    cr_assert_eq(shards_open(shards, 1), 0);
    cr_assert_gt(shards->bench.store->damage.log_last, shards->directory.handover.node.log_base);
    shards_shut(shards);
    shards_end(shards);
    shards_free(shards);
}
