/* The index checkpoint in both worlds: written while the index changes, read back, refused. */
#include "checkpoint_fixture.h"

#include "store/catalog/checkpoint_format.h"

static struct world *open_world(void)
{
    static const struct io_options options = CHECKPOINT_OPTIONS;
    return world_open(&options);
}

static const char *folder(struct world *world)
{
    return world_path(world, ".");
}

static int load_into(struct world *world, struct index *index)
{
    return load_checkpoint(world_io(world), folder(world), index);
}

/* ---- round trips ---- */

static void check_round_trip(uint64_t count, uint64_t budget)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    struct index *index = index_with(count);
    cr_assert_eq(write_checkpoint(io, folder(world), index, budget), 0);
    index_free(index);
    struct index *loaded = make_index();
    uint64_t slots;
    cr_assert_eq(load_counted(io, folder(world), loaded, &slots), 0);
    cr_expect(has_slots(loaded, count));
    cr_expect_eq(slots, count);
    index_free(loaded);
    cr_expect_eq(entries_in(io, folder(world)), 1, "the temporary file is gone");
    world_close(world);
}

Test(checkpoint, empty_index_comes_back)
{
    check_round_trip(0, 4096);
}

Test(checkpoint, one_slot_comes_back)
{
    check_round_trip(1, 4096);
}

Test(checkpoint, many_slots_come_back)
{
    check_round_trip(100000, 65536);
}

Test(checkpoint, many_slots_come_back_in_the_smallest_steps)
{
    check_round_trip(20000, 1);
}

Test(checkpoint, many_slots_come_back_in_one_step_a_buffer)
{
    check_round_trip(100000, UINT64_MAX);
}

/* What an overwrite of an uncached key leaves until somebody has compared the keys. */

struct shared {
    uint64_t hash;
    uint32_t partition;
    uint32_t count;
};

static int note_shared(void *context, uint32_t partition, uint64_t hash,
                       const struct index_entry *entry)
{
    struct shared *shared = context;
    cr_assert_eq(partition, shared->partition);
    cr_assert_eq(hash, shared->hash);
    cr_assert(entry->version.clock >= 1 && entry->version.clock <= 3);
    shared->count++;
    return 0;
}

Test(checkpoint, slots_that_share_a_hash_are_told)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    struct index *index = index_with(1000);
    struct slot slot = slot_at(5000);
    for (uint64_t clock = 1; clock <= 3; clock++) {
        slot.entry.version.clock = clock;
        put_slot(index, &slot);
    }
    cr_assert_eq(write_checkpoint(io, folder(world), index, 4096), 0);
    index_free(index);
    struct log log = {.level_min = LOG_WARN, .write = say_nothing};
    struct shared shared = {slot.hash & (((uint64_t)1 << 56) - 1), slot.partition, 0};
    struct checkpoint_options options = checkpoint_options(io, folder(world));
    options.each_twin = note_shared;
    struct checkpoint_info info;
    uint64_t dropped;
    struct index *loaded = make_index();
    cr_assert_eq(
        checkpoint_load(io, &log, &options, NUMBER, loaded, same_file, &shared, &info, &dropped),
        0);
    cr_assert_eq(index_count(loaded), 1003);
    cr_assert_eq(shared.count, 2, "each but the first");
    index_free(loaded);
    world_close(world);
}

/* One partition over several units. */
Test(checkpoint, large_partition_takes_several_blocks)
{
    struct world *world = open_world();
    struct index *index = make_index();
    for (uint64_t i = 0; i < 100000; i++) {
        struct slot slot = slot_at(i);
        slot.partition = 200;
        put_slot(index, &slot);
    }
    cr_assert_eq(write_checkpoint(world_io(world), folder(world), index, 65536), 0);
    struct index *loaded = make_index();
    cr_assert_eq(load_into(world, loaded), 0);
    cr_assert_eq(index_count(loaded), 100000);
    cr_assert_eq(index_partition_count(loaded, 200), 100000);
    cr_assert_eq(index_tombstones(loaded), index_tombstones(index));
    for (uint64_t i = 0; i < 100000; i++) {
        struct slot slot = slot_at(i);
        slot.partition = 200;
        cr_assert(has_slot(loaded, &slot));
    }
    index_free(index);
    index_free(loaded);
    world_close(world);
}

Test(checkpoint, extreme_slots_come_back)
{
    static const struct slot slots[] = {
        {0, 0, {{0, 0}, 0, 64, false, false}},
        {255,
         (1ull << 56) - 1,
         {{UINT64_MAX, UINT32_MAX},
          SEGMENT_BIT | 7ull << OFFSET_BITS | ((1u << OFFSET_BITS) - 1),
          INDEX_RECORD_SIZE_MAX,
          true,
          true}},
        {1, 5, {{9, 1}, SEGMENT_BIT, 80, true, false}},
        {1, 5, {{9, 2}, SEGMENT_BIT, 80, false, true}}, /* another version of the same hash */
        {2, 5, {{9, 1}, 7ull << OFFSET_BITS, 96, false, false}},
    };
    const uint32_t count = sizeof slots / sizeof slots[0];
    struct world *world = open_world();
    struct index *index = make_index();
    for (uint32_t i = 0; i < count; i++)
        put_slot(index, &slots[i]);
    cr_assert_eq(write_checkpoint(world_io(world), folder(world), index, 4096), 0);
    struct index *loaded = make_index();
    cr_assert_eq(load_into(world, loaded), 0);
    cr_expect_eq(index_count(loaded), count);
    cr_expect_eq(index_tombstones(loaded), 2);
    for (uint32_t i = 0; i < count; i++)
        cr_expect(has_slot(loaded, &slots[i]), "slot %u", i);
    index_free(index);
    index_free(loaded);
    world_close(world);
}

Test(checkpoint, same_number_is_written_over_a_leftover)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    int file = open_file(world, CHECKPOINT_NAME ".tmp", IO_OPEN_WRITE | IO_OPEN_CREATE);
    uint8_t *junk = aligned_bytes(4 * MIB);
    memset(junk, 0xA5, 4 * MIB);
    cr_assert_eq(write_file(world, file, junk, 4 * MIB, 0, IO_WRITE_PLAIN), 4 * (int)MIB);
    cr_assert_eq(close_file(world, file), 0);
    free(junk);
    struct index *index = index_with(1000);
    cr_assert_eq(write_checkpoint(io, folder(world), index, 4096), 0);
    cr_expect_eq(try_load(io, folder(world), 1000), 0);
    cr_expect_eq(entries_in(io, folder(world)), 1);
    index_free(index);
    world_close(world);
}

/* ---- while the index changes ---- */

#define STAYING 25000u
#define CHANGING 5000u
#define ADDED 200u /* a turn */

struct seen {
    const struct index *index;
    uint32_t partition;
    bool has_twice;
};

static void look_for_twin(void *context, uint64_t hash, const struct index_entry *entry)
{
    struct seen *seen = context;
    struct index_entry found[16];
    uint32_t count = index_find(seen->index, seen->partition, hash, found, 16);
    uint32_t same = 0;
    for (uint32_t i = 0; i < count && i < 16; i++)
        same += version_compare(found[i].version, entry->version) == 0;
    seen->has_twice |= same != 1;
}

static bool has_twins(const struct index *index)
{
    struct seen seen = {.index = index};
    for (seen.partition = 0; seen.partition < 256; seen.partition++) {
        uint64_t cursor = 0;
        do {
            cursor = index_walk(index, seen.partition, cursor, look_for_twin, &seen);
        } while (cursor != 0);
    }
    return seen.has_twice;
}

/* Slots of one partition, so that its table doubles while it is walked. */
static struct slot crowded_slot(uint64_t i)
{
    struct slot slot = slot_at(i);
    slot.partition = 3;
    return slot;
}

/* Removes, replaces, moves and adds a few slots; `turn` says which. */
static void change_index(struct index *index, uint32_t turn)
{
    if (turn < CHANGING) {
        struct slot slot = crowded_slot(STAYING + turn);
        if (turn % 3 == 0) {
            cr_assert_eq(index_remove(index, slot.partition, slot.hash, slot.entry.version, NULL),
                         0);
        } else if (turn % 3 == 1) {
            struct index_entry newer = slot.entry;
            newer.version.clock += 1000000;
            cr_assert_eq(
                index_replace(index, slot.partition, slot.hash, slot.entry.version, &newer, NULL),
                0);
        } else {
            cr_assert_eq(index_move(index, slot.partition, slot.hash, slot.entry.version,
                                    slot.entry.location, SEGMENT_BIT | turn),
                         0);
        }
    }
    for (uint32_t i = 0; i < ADDED; i++) {
        struct slot slot = crowded_slot(STAYING + CHANGING + (uint64_t)turn * ADDED + i);
        put_slot(index, &slot);
    }
}

Test(checkpoint, slots_that_stay_are_in_it_once_whatever_else_changes)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    struct index *index = make_index();
    for (uint64_t i = 0; i < STAYING + CHANGING; i++) {
        struct slot slot = crowded_slot(i);
        put_slot(index, &slot);
    }
    struct outcome outcome;
    struct checkpoint_writer *writer = begin_checkpoint(io, folder(world), index, &outcome);
    uint32_t turns = 0;
    for (uint32_t pass = 0; outcome.count == 0; pass++) {
        cr_assert_lt(pass, PASSES_MAX);
        if (checkpoint_step(writer, 1) > 0 && index_count(index) < 2 * STAYING)
            change_index(index, turns++);
        cr_assert_geq(io_run(io, 0), 0);
    }
    cr_assert_eq(outcome.result, 0);
    cr_assert_gt(turns, 50, "it changed many times meanwhile");
    struct index *loaded = make_index();
    uint64_t slots;
    cr_assert_eq(load_counted(io, folder(world), loaded, &slots), 0);
    cr_assert_gt(slots, index_count(loaded), "the walk showed some twice");
    cr_assert(!has_twins(loaded));
    for (uint64_t i = 0; i < STAYING; i++) {
        struct slot slot = crowded_slot(i);
        cr_assert(has_slot(loaded, &slot), "slot %lu", i);
    }
    index_free(index);
    index_free(loaded);
    world_close(world);
}

Test(checkpoint, group_larger_than_a_buffer_ends_it)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    struct index *index = make_index();
    struct slot slot = slot_at(1);
    for (uint32_t i = 0; i < 50000; i++) {
        slot.entry.version.clock++;
        put_slot(index, &slot);
    }
    cr_expect_eq(write_checkpoint(io, folder(world), index, 65536), -EOVERFLOW);
    cr_expect_eq(entries_in(io, folder(world)), 0);
    index_free(index);
    world_close(world);
}

/* ---- files ---- */

/* What became of the files of the usual table since. */
static uint32_t move_files(void *context, const struct checkpoint_file *file)
{
    uint32_t *calls = context;
    (*calls)++;
    cr_assert_eq(file->number, 1000 + file->file + (file->is_segment ? FILES_PER_KIND : 0));
    cr_assert_eq(file->end, file->number + 4000);
    if (file->file < 2)
        return UINT32_MAX;
    return file->is_segment ? 524287 - file->file : 100 + file->file;
}

Test(checkpoint, files_are_translated_and_slots_of_gone_ones_left_out)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    struct index *index = index_with(5000);
    cr_assert_eq(write_checkpoint(io, folder(world), index, 65536), 0);
    index_free(index);
    struct index *loaded = make_index();
    struct log log = {.level_min = LOG_WARN, .write = say_nothing};
    struct checkpoint_options options = checkpoint_options(io, folder(world));
    struct checkpoint_info info;
    uint64_t dropped = 0;
    uint32_t calls = 0;
    cr_assert_eq(
        checkpoint_load(io, &log, &options, NUMBER, loaded, move_files, &calls, &info, &dropped),
        0);
    cr_expect_eq(calls, FILES);
    uint64_t gone = 0;
    for (uint64_t i = 0; i < 5000; i++) {
        struct slot slot = slot_at(i);
        bool is_segment = slot.entry.location & SEGMENT_BIT;
        uint64_t file = (slot.entry.location & ~SEGMENT_BIT) >> OFFSET_BITS;
        uint64_t now = is_segment ? 524287 - file : 100 + file;
        slot.entry.location = (is_segment ? SEGMENT_BIT : 0) | now << OFFSET_BITS |
                              (slot.entry.location & ((1u << OFFSET_BITS) - 1));
        gone += file < 2;
        cr_assert_eq(has_slot(loaded, &slot), file >= 2);
    }
    cr_expect_gt(gone, 0);
    cr_expect_eq(dropped, gone);
    cr_expect_eq(index_count(loaded), 5000 - gone);
    cr_expect_eq(info.slots, 5000);
    index_free(loaded);
    world_close(world);
}

Test(checkpoint, slots_of_files_that_came_later_are_left_out)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    struct index *index = index_with(300);
    for (uint64_t i = 300; i < 400; i++) {
        struct slot slot = slot_at(i);
        slot.entry.location = (i % 2 ? SEGMENT_BIT : 0) | (20 + i) << OFFSET_BITS;
        put_slot(index, &slot);
    }
    cr_assert_eq(write_checkpoint(io, folder(world), index, 4096), 0);
    cr_expect_eq(try_load(io, folder(world), 300), 0);
    index_free(index);
    world_close(world);
}

#define MANY_FILES 150000u

Test(checkpoint, table_of_files_may_be_larger_than_a_block)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    struct checkpoint_file *files = calloc(MANY_FILES, sizeof *files);
    cr_assert_not_null(files);
    for (uint32_t i = 0; i < MANY_FILES; i++)
        files[i] = (struct checkpoint_file){.is_segment = true, .file = i, .number = i + 7};
    struct index *index = make_index();
    struct slot slots[3];
    for (uint32_t i = 0; i < 3; i++) {
        slots[i] = slot_at(i);
        slots[i].entry.location = SEGMENT_BIT | (uint64_t)(i * 74999) << OFFSET_BITS;
        put_slot(index, &slots[i]);
    }
    struct checkpoint_options options = checkpoint_options(io, folder(world));
    struct checkpoint_writer *writer;
    struct outcome outcome = {0};
    struct log log = {.level_min = LOG_WARN, .write = say_nothing};
    cr_assert_eq(checkpoint_begin(io, &log, &options, &usual_info, index, files, MANY_FILES,
                                  take_outcome, &outcome, &writer),
                 0);
    free(files); /* it has its own */
    cr_assert_eq(finish_checkpoint(io, writer, &outcome, 65536), 0);
    struct index *loaded = make_index();
    cr_assert_eq(load_into(world, loaded), 0);
    for (uint32_t i = 0; i < 3; i++)
        cr_expect(has_slot(loaded, &slots[i]));
    index_free(index);
    index_free(loaded);
    world_close(world);
}

/* ---- cancelling ---- */

/* Cancels after `passes`. Returns whether it was still under way. */
static bool cancel_after(uint32_t passes, const struct index *index)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    struct outcome outcome;
    struct checkpoint_writer *writer = begin_checkpoint(io, folder(world), index, &outcome);
    for (uint32_t i = 0; i < passes && outcome.count == 0; i++) {
        (void)checkpoint_step(writer, 65536);
        cr_assert_geq(io_run(io, NS_PER_MS), 0);
    }
    bool is_under_way = outcome.count == 0;
    if (is_under_way) {
        checkpoint_cancel(writer);
        cr_assert_eq(outcome.count, 0, "done comes from the loop");
        if (passes % 2 == 0) /* asking again changes nothing */
            checkpoint_cancel(writer);
        cr_assert_eq(checkpoint_step(writer, 65536), 0, "no more work");
        RUN_UNTIL(world, outcome.count > 0);
        cr_assert_eq(outcome.result, -ECANCELED);
        cr_assert_eq(entries_in(io, folder(world)), 0, "after %u passes", passes);
    } else {
        cr_assert_eq(outcome.result, 0);
        cr_assert_eq(entries_in(io, folder(world)), 1);
    }
    run_passes(world, 3);
    cr_assert_eq(outcome.count, 1);
    world_close(world);
    return is_under_way;
}

Test(checkpoint, cancelled_at_any_moment_it_leaves_nothing)
{
    struct index *index = index_with(100000);
    uint32_t passes = 0;
    while (cancel_after(passes, index)) {
        passes++;
        cr_assert_lt(passes, 10000);
    }
    cr_expect_gt(passes, 10, "all states were met");
    index_free(index);
}

Test(checkpoint, world_may_close_at_any_moment)
{
    struct index *index = index_with(50000);
    for (uint32_t passes = 0; passes < 60; passes++) {
        struct world *world = open_world();
        struct outcome outcome;
        struct checkpoint_writer *writer =
            begin_checkpoint(world_io(world), folder(world), index, &outcome);
        for (uint32_t i = 0; i < passes && outcome.count == 0; i++) {
            (void)checkpoint_step(writer, 65536);
            cr_assert_geq(io_run(world_io(world), NS_PER_MS), 0);
        }
        if (outcome.count == 0 && passes % 2 == 0)
            checkpoint_cancel(writer);
        world_close(world);
        if (outcome.count == 0)
            checkpoint_free(writer);
    }
    index_free(index);
}

Test(checkpoint, folder_that_is_not_there_is_an_error)
{
    struct world *world = open_world();
    struct index *index = index_with(10);
    cr_expect_eq(write_checkpoint(world_io(world), world_path(world, "absent"), index, 4096),
                 -ENOENT);
    index_free(index);
    char path[CHECKPOINT_PATH_MAX + 10];
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = '\0';
    struct checkpoint_options options = checkpoint_options(world_io(world), path);
    struct outcome outcome = {0};
    struct checkpoint_writer *writer;
    struct log log = {.level_min = LOG_WARN, .write = say_nothing};
    cr_expect_eq(checkpoint_begin(world_io(world), &log, &options, &usual_info, NULL, NULL, 0,
                                  take_outcome, &outcome, &writer),
                 -ENAMETOOLONG);
    world_close(world);
}
