/* Tombstones: purged when nothing older of their key can be found any more, and not before. */
#include "tests/support/mover_bench.h"

#include "store/wal/wal_internal.h"
#include "store/memory/location.h"

/* ---- the rule ---- */

#define RULE_SEGMENTS_MAX 4u

/* A mover that is nothing but what the rule looks at: a log that begins somewhere, the segments of
 * a partition, the slots of a hash. */
struct rule {
    struct mover_options options;
    struct mover_stage stage;
    struct wal_files files;
    struct wal wal;
    struct log_file *log_file;
    struct segments *segments;
    struct segment *at[RULE_SEGMENTS_MAX];
    struct index *index;
    struct mover_record record;
};

static void rule_open(struct rule *rule, uint64_t position)
{
    *rule = (struct rule){.record = {.partition = 9, .hash = 77, .record.position = position}};
    struct segments_options options = {.path = "nowhere", .open_max = 4};
    cr_assert_eq(segments_create(NULL, NULL, &options, &rule->segments), 0);
    for (uint32_t i = 0; i < RULE_SEGMENTS_MAX; i++) {
        uint8_t partition = i + 1 < RULE_SEGMENTS_MAX ? 9 : 10; /* the last one is another's */
        cr_assert_eq(segments_add(rule->segments, partition, 1, i + 1, &rule->at[i]), 0);
        rule->at[i]->created = i + 1 < RULE_SEGMENTS_MAX ? position : 0;
    }
    cr_assert_eq(index_create(0, &rule->index), 0);
    struct index_entry entry = {.version = {.clock = 5}, .read_size = 64, .tombstone = true};
    cr_assert_eq(index_add(rule->index, 9, 77, &entry), 0);
    rule->log_file = calloc(1, sizeof *rule->log_file);
    rule->log_file->state = LOG_FILE_OPEN;
    rule->log_file->header.last_before = position;
    rule->files = (struct wal_files){.table = &rule->log_file, .capacity = 1, .count = 1};
    rule->wal = (struct wal){.files = &rule->files, .buffers = {.position_last = position + 10}};
    rule->options =
        (struct mover_options){.wal = &rule->wal, .segments = rule->segments, .index = rule->index};
    rule->stage = (struct mover_stage){.options = &rule->options};
    rule->stage.created[9] = UINT64_MAX;
    rule->record.location = location_in_segment(rule->at[0]->file, 4096);
}

static void rule_close(struct rule *rule)
{
    free(rule->log_file);
    segments_free(rule->segments);
    index_free(rule->index);
}

static bool may_purge(const struct rule *rule)
{
    return mover_stage_may_purge(&rule->stage, &rule->record);
}

Test(mover_tombstones, purged_when_log_and_segments_are_younger)
{
    struct rule rule;
    rule_open(&rule, 100);
    cr_assert(may_purge(&rule));
    rule.at[0]->created = 0;
    cr_assert(may_purge(&rule), "its own segment goes with it");
    rule_close(&rule);
}

Test(mover_tombstones, kept_when_another_segment_of_the_partition_is_older)
{
    struct rule rule;
    rule_open(&rule, 100);
    rule.at[2]->created = 99;
    cr_assert_not(may_purge(&rule));
    rule.at[2]->created = 100;
    cr_assert(may_purge(&rule));
    rule_close(&rule);
}

/* What was read before the proof of its death is carried on by this job, to a segment that is not
 * made yet. */
Test(mover_tombstones, kept_when_the_job_carries_on_an_older_record)
{
    struct rule rule;
    rule_open(&rule, 100);
    rule.stage.created[9] = 99;
    cr_assert_not(may_purge(&rule));
    rule.stage.created[9] = 100;
    cr_assert(may_purge(&rule));
    rule_close(&rule);
}

Test(mover_tombstones, kept_when_the_log_begins_before)
{
    struct rule rule;
    rule_open(&rule, 100);
    rule.log_file->header.last_before = 99; /* it may hold the position 100 */
    cr_assert_not(may_purge(&rule));
    rule.log_file->header.last_before = 0;
    cr_assert_not(may_purge(&rule));
    rule.log_file->state = LOG_FILE_LEAVING; /* a start would still read it */
    cr_assert_not(may_purge(&rule));
    rule.log_file->state = LOG_FILE_SPARE;
    cr_assert(may_purge(&rule));
    rule_close(&rule);
}

Test(mover_tombstones, kept_when_its_hash_has_another_slot)
{
    struct rule rule;
    rule_open(&rule, 100);
    struct index_entry older = {.version = {.clock = 4}, .read_size = 64};
    cr_assert_eq(index_add(rule.index, 9, 77, &older), 0);
    cr_assert_not(may_purge(&rule));
    rule_close(&rule);
}

Test(mover_tombstones, kept_when_it_comes_from_the_log)
{
    struct rule rule;
    rule_open(&rule, 100);
    rule.record.location = location_in_log(1, 4096);
    cr_assert_not(may_purge(&rule));
    rule_close(&rule);
}

/* ---- a store ---- */

static struct bench *bench_new(uint32_t key_count)
{
    struct bench *bench = malloc(sizeof *bench);
    cr_assert_not_null(bench);
    bench_open(bench, 11, key_count, 1);
    return bench;
}

static void bench_delete_it(struct bench *bench)
{
    bench_close(bench);
    free(bench);
}

static void write_keys(struct bench *bench, uint32_t from, uint32_t upto)
{
    for (uint32_t key = from; key < upto; key++) {
        cr_assert_eq(bench_write(bench, key, 3000), STORE_OK);
        cr_assert(bench_pass(bench));
    }
}

static void delete_keys(struct bench *bench, uint32_t from, uint32_t upto)
{
    for (uint32_t key = from; key < upto; key++) {
        cr_assert_eq(bench_delete(bench, key), STORE_OK);
        cr_assert(bench_pass(bench));
    }
}

/* What stands before [from, upto) dies; then all is moved and compacted. */
static void turn_over(struct bench *bench, uint32_t from, uint32_t upto)
{
    for (uint32_t i = 0; i < 2; i++) {
        write_keys(bench, from, upto);
        bench_roll(bench);
        bench_settle(bench);
    }
}

static uint64_t purged(const struct bench *bench)
{
    return bench->purged + bench_moves(bench).purged_tombstones;
}

/* A start without a checkpoint reads what is on the disk: what was purged too early comes back. */
Test(mover_tombstones, deleted_keys_stay_deleted_when_their_tombstones_are_gone)
{
    struct bench *bench = bench_new(600);
    write_keys(bench, 0, 300);
    bench_roll(bench);
    bench_settle(bench);
    delete_keys(bench, 0, 300);
    uint64_t tombstones = 0;
    for (uint32_t round = 0; round < 6; round++) {
        turn_over(bench, 300, 600);
        tombstones = index_tombstones(bench->store->index);
        bench_check_all(bench);
        bench_restart(bench, round % 2 == 0);
        bench_check_all(bench);
    }
    cr_assert_gt(purged(bench), 0);
    cr_assert_lt(tombstones, 300);
    bench_delete_it(bench);
}

/* A segment that is older than the deletes, and has nothing dead in it, so that it stays. */
Test(mover_tombstones, old_segment_keeps_all_younger_tombstones_of_its_partition)
{
    struct bench *bench = bench_new(500);
    write_keys(bench, 0, 120);
    bench_roll(bench);
    bench_settle(bench);
    write_keys(bench, 120, 200);
    delete_keys(bench, 120, 200);
    for (uint32_t round = 0; round < 3; round++)
        turn_over(bench, 200, 500);
    cr_assert_gt(bench_moves(bench).compacted_bytes, 0);
    cr_assert_eq(purged(bench), 0);
    cr_assert_geq(index_tombstones(bench->store->index), 80);
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* ---- deaths that nobody knows of yet ---- */

static void empty_cache(struct bench *bench)
{
    bench_restart(bench, true);
    for (uint32_t key = 0; key < bench->key_count; key++) {
        struct slice name = bench_name(bench, key);
        uint64_t keyed = store_place(bench->store, name).keyed;
        struct cache_entry *entry = cache_find(bench->store->cache, keyed, name);
        if (entry != NULL)
            cache_remove(bench->store->cache, entry);
    }
}

static uint64_t slots_of(const struct bench *bench, uint32_t key)
{
    struct key_place place = store_place(bench->store, bench_name(bench, key));
    struct index_entry entries[CANDIDATES_MAX];
    return index_find(bench->store->index, place.partition, place.hash, entries, CANDIDATES_MAX);
}

/* No room for marks of what is dead: it has to be proved by reading. */
static void fill_doomed(struct bench *bench)
{
    while (doomed_has_room(bench->store->doomed, 1))
        doomed_add(bench->store->doomed, prng_next(&bench->prng) | 1ull << 63);
}

/* Deletes the keys while nobody can read what they were: both records of each stay alive. */
static void delete_unproved(struct bench *bench, uint32_t from, uint32_t upto)
{
    fill_doomed(bench);
    sim_disk_options(bench->disk)->read_error_ppm = 1000000;
    delete_keys(bench, from, upto);
    cr_assert(bench_run(bench, NS_PER_S));
    sim_disk_options(bench->disk)->read_error_ppm = 0;
    for (uint32_t key = from; key < upto; key++)
        cr_assert_eq(slots_of(bench, key), 2, "key %u", key);
}

/* No segment that holds a record was created after what killed it, as the manifest says, too. */
Test(mover_tombstones, copy_of_a_record_that_is_dead_unproved_counts_as_older_than_its_tombstone)
{
    struct bench *bench = bench_new(450);
    bench_pause(bench, true);
    write_keys(bench, 0, 20);
    bench_roll(bench);
    empty_cache(bench);
    uint64_t before = wal_durable(bench->store->wal);
    delete_unproved(bench, 0, 20);
    bench_pause(bench, false);
    bench_roll(bench);
    bench_settle(bench);
    cr_assert_geq(bench_files(bench, 0), 1);
    const struct segment *segment = segments_first(bench->store->segments, 0);
    for (; segment != NULL; segment = segment_next(segment))
        cr_assert_lt(segment->created, before);
    /* Killed with nothing proved, then again and again, while all that can be purged is. */
    for (uint32_t round = 0; round < 5; round++) {
        bench_restart(bench, false);
        for (uint32_t key = 0; key < 20; key++)
            cr_assert_eq(bench->keys[key].newest, bench->keys[key].deleted);
        turn_over(bench, 20, 450);
    }
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* The proof comes while the mover has the record in hand: it arrives dead, in a segment that is
 * younger than its tombstone. */
Test(mover_tombstones, record_that_is_proved_dead_on_its_way_does_not_come_back)
{
    struct bench *bench = bench_new(450);
    bench_pause(bench, true);
    write_keys(bench, 0, 20);
    bench_roll(bench);
    empty_cache(bench);
    delete_unproved(bench, 0, 20);
    struct mover *mover = bench->store->mover;
    bench_pause(bench, false);
    for (uint32_t i = 0; i < 10000 && mover->phase != MOVER_SYNCING; i++)
        cr_assert(bench_pass(bench));
    cr_assert_eq(mover->phase, MOVER_SYNCING);
    for (uint32_t key = 0; key < 20; key++)
        cr_assert_eq(proofs_add_suspect(&bench->store->proofs,
                                        store_place(bench->store, bench_name(bench, key)), true),
                     0);
    proofs_work_off_suspects(&bench->store->proofs);
    bench_settle(bench);
    for (uint32_t key = 0; key < 20; key++)
        cr_assert_leq(slots_of(bench, key), 1, "the tombstone's, if that is still there");
    for (uint32_t round = 0; round < 5; round++) {
        turn_over(bench, 20, 450);
        bench_restart(bench, false);
        for (uint32_t key = 0; key < 20; key++)
            cr_assert_eq(bench->keys[key].newest, bench->keys[key].deleted);
    }
    bench_delete_it(bench);
}

/* What dies while a job has it in hand is in a segment that counts as older than what killed it. */
Test(mover_tombstones, segment_is_as_old_as_the_begin_of_its_job)
{
    struct bench *bench = bench_new(20);
    bench_pause(bench, true);
    write_keys(bench, 0, 20);
    bench_roll(bench);
    cr_assert(bench_run(bench, NS_PER_S));
    uint64_t durable = wal_durable(bench->store->wal);
    cr_assert_eq(durable, wal_last(bench->store->wal));
    bench_pause(bench, false);
    const struct mover *mover = bench->store->mover;
    for (uint32_t i = 0; i < 10000 && mover->phase != MOVER_WRITING; i++) {
        cr_assert_geq(io_run(bench->io, NS_PER_MS), 0);
        (void)store_flush(bench->store, STORE_PASS_BYTES);
    }
    cr_assert_eq(mover->phase, MOVER_WRITING);
    cr_assert_null(segments_first(bench->store->segments, 0), "it is not begun yet");
    for (uint32_t key = 0; key < 10; key++)
        cr_assert_eq(bench_delete(bench, key), STORE_OK);
    bench_settle(bench);
    const struct segment *segment = segments_first(bench->store->segments, 0);
    cr_assert_not_null(segment);
    for (; segment != NULL; segment = segment_next(segment))
        cr_assert_leq(segment->created, durable);
    bench_check_all(bench);
    bench_delete_it(bench);
}

/* ---- rounds ---- */

static uint64_t files_left(struct bench *bench)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < STORE_PARTITIONS; i++)
        count += i == BENCH_FILLER_PARTITION ? 0 : bench_files(bench, i);
    return count;
}

/* Little is left but what was never deleted; and it stays deleted. */
static void expect_purged(struct bench *bench, uint64_t slots_max)
{
    bench_settle(bench);
    cr_assert(bench_run(bench, 10 * NS_PER_S));
    bench_settle(bench);
    cr_assert_leq(index_count(bench->store->index), slots_max,
                  "seed %" PRIu64 ": %" PRIu64 " slots, %" PRIu64 " of them tombstones",
                  bench->seed, index_count(bench->store->index),
                  index_tombstones(bench->store->index));
    bench_check_all(bench);
}

static void delete_everything(uint32_t partitions, bool restarts)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_init(bench, 21, 1500, partitions);
    bench->options.log_keep_bytes = 0; /* as usual */
    cr_assert_eq(bench_start(bench), 0);
    write_keys(bench, 0, 1500);
    cr_assert(bench_run(bench, NS_PER_S));
    if (restarts)
        bench_restart(bench, false);
    delete_keys(bench, 0, 1500);
    expect_purged(bench, 16);
    cr_assert_eq(index_tombstones(bench->store->index), 0);
    cr_assert_eq(files_left(bench), 0);
    struct wal_stats wal;
    wal_stats(bench->store->wal, &wal);
    cr_assert_leq(wal.files, WAL_SPARES_WANTED + 1, "the open one and the spares");
    bench_restart(bench, restarts);
    cr_assert_leq(index_count(bench->store->index), 16);
    bench_delete_it(bench);
}

Test(mover_tombstones, all_go_when_everything_was_deleted)
{
    delete_everything(1, false);
    delete_everything(200, false);
    delete_everything(50, true);
}

/* A segment that is older than all deletes, and in which nothing is dead. */
Test(mover_tombstones, old_segment_does_not_keep_them_for_ever)
{
    struct bench *bench = bench_new(900);
    write_keys(bench, 0, 60);
    bench_roll(bench);
    bench_settle(bench);
    const struct segment *old = segments_first(bench->store->segments, 0);
    uint64_t number = old->number;
    for (uint32_t key = 60; key < 900; key++) {
        cr_assert_eq(bench_write(bench, key, 8), STORE_OK);
        cr_assert(bench_pass(bench));
    }
    delete_keys(bench, 60, 900);
    bench_roll(bench);
    expect_purged(bench, 2 * (60 + 8)); /* no more tombstones than what is alive */
    cr_assert_null(segments_find_number(bench->store->segments, number));
    bench_restart(bench, false);
    bench_delete_it(bench);
}

/* A damaged one does: nobody knows what it holds. And it is no reason for jobs. */
Test(mover_tombstones, damaged_segment_keeps_them)
{
    struct bench *bench = bench_new(900);
    write_keys(bench, 0, 60);
    bench_roll(bench);
    bench_settle(bench);
    struct segment *old = segments_first(bench->store->segments, 0);
    old->is_damaged = true;
    delete_keys(bench, 0, 50);
    write_keys(bench, 60, 500);
    delete_keys(bench, 60, 500);
    bench_roll(bench);
    bench_settle(bench);
    cr_assert(bench_run(bench, 5 * NS_PER_S));
    cr_assert_geq(index_tombstones(bench->store->index), 440);
    uint64_t jobs = bench_moves(bench).jobs;
    cr_assert(bench_run(bench, 20 * NS_PER_S));
    cr_assert_eq(bench_moves(bench).jobs, jobs);
    bench_delete_it(bench);
}

/* With as many keys alive, tombstones are not worth copying those; nor is the log emptied. */
Test(mover_tombstones, few_ones_begin_no_round)
{
    struct bench *bench = bench_new(1200);
    write_keys(bench, 0, 700);
    bench_roll(bench);
    bench_settle(bench);
    struct mover_stats before = bench_moves(bench);
    for (uint32_t key = 700; key < 1000; key++)
        cr_assert_eq(bench_write(bench, key, 8), STORE_OK);
    delete_keys(bench, 700, 1000);
    bench_roll(bench);
    cr_assert(bench_run(bench, 20 * NS_PER_S));
    cr_assert_eq(bench->store->mover->policy.purge.stage, MOVER_PURGE_NONE);
    cr_assert_eq(bench_moves(bench).compacted_bytes, before.compacted_bytes);
    bench_check_all(bench);
    bench_delete_it(bench);
}

/* Crashes at any moment of a round, without a checkpoint: nothing comes back. */
Test(mover_tombstones, deleted_keys_stay_deleted_whenever_a_round_is_killed)
{
    for (uint32_t seed = 1; seed <= 30; seed++) {
        struct bench *bench = malloc(sizeof *bench);
        bench_init(bench, seed, 700, 3);
        cr_assert_eq(bench_start(bench), 0);
        write_keys(bench, 0, 60); /* stays */
        bench_roll(bench);
        bench_settle(bench);
        for (uint32_t key = 60; key < 700; key++) {
            cr_assert_eq(bench_write(bench, key, 100), STORE_OK);
            if (key % 8 == 0)
                cr_assert(bench_pass(bench));
        }
        bench_roll(bench);
        delete_keys(bench, 60, 700);
        for (uint32_t i = 0; i < 4; i++) {
            cr_assert(bench_run(bench, prng_below(&bench->prng, 1500) * NS_PER_MS));
            bench_restart(bench, false);
        }
        expect_purged(bench, 2 * (60 + 8) + 16); /* tombstones may be as many as values */
        bench_delete_it(bench);
    }
}

/* ---- what the manifest has to know ---- */

/* More segments than one group of the manifest takes edits. Also the open ones, while a job writes
 * to them. */
Test(mover_tombstones, checkpoint_counts_when_every_lowered_created_is_told)
{
    struct bench *bench = malloc(sizeof *bench);
    bench_init(bench, 31, 1024, STORE_PARTITIONS);
    cr_assert_eq(bench_start(bench), 0);
    for (uint32_t round = 0; round < 4; round++) {
        write_keys(bench, 256 * round, 256 * round + 256);
        bench_roll(bench);
        bench_settle(bench);
        for (uint32_t i = 0; round < 3 && i < STORE_PARTITIONS; i++)
            mover_outputs_seal_partition(&bench->store->mover->outputs, i);
    }
    cr_assert_gt(bench_segments(bench).segments, 1000);
    struct segment *segment;
    for (uint64_t i = 0; (segment = segments_nth(bench->store->segments, i)) != NULL; i++) {
        cr_assert_gt(segment->created, 1);
        segment->created = 1;
        segment->created_changed = true;
    }
    bench->store->checkpoints.options.moved_min = 1;
    for (uint32_t i = 0; i < 10000 && bench->store->checkpoints.number == 0; i++)
        cr_assert(bench_pass(bench));
    cr_assert_neq(bench->store->checkpoints.number, 0);
    bench->is_paused = true;
    bench_restart(bench, false);
    uint64_t count = 0;
    for (; (segment = segments_nth(bench->store->segments, count)) != NULL; count++)
        cr_assert_eq(segment->created, 1);
    cr_assert_gt(count, 1000);
    bench_delete_it(bench);
}
