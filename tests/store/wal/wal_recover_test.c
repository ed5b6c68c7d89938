/* Recovery of the log, in the real world: torn tails are dropped, damage is told apart from them.
 */
#include "wal_fixture.h"
#include "store/memory/location.h"

Test(recovery, of_an_empty_directory_finds_nothing)
{
    struct wal_fixture *fixture = fixture_create();
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.last_position, 0);
    cr_assert_eq(fixture->recovered.segments, 0);
    cr_assert_eq(fixture->recovered.damaged_batches, 0);
    fixture_free(fixture);
}

Test(recovery, changes_nothing_and_finds_the_same_again)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(fixture_look(fixture), 0);
        cr_assert_eq(fixture->shown_count, FIXTURE_BATCHES * FIXTURE_BATCH_WRITES);
        cr_assert_eq(fixture->recovered.last_position, FIXTURE_BATCHES * FIXTURE_BATCH_WRITES);
        cr_assert_eq(fixture->recovered.dropped_bytes, 0);
    }
    fixture_free(fixture);
}

enum harm { HARM_ZERO, HARM_FLIP, HARM_OTHER, HARM_COUNT };

static void harm_block(const char *path, uint64_t offset, enum harm harm)
{
    uint8_t block[WAL_BLOCK_SIZE];
    fixture_read(path, offset, block, sizeof block);
    if (harm == HARM_ZERO)
        memset(block, 0, sizeof block);
    else if (harm == HARM_FLIP)
        block[1000] ^= 1;
    else
        fixture_fill(99, block, sizeof block);
    fixture_write(path, offset, block, sizeof block);
}

Test(recovery, a_torn_tail_is_dropped_whatever_block_of_it_is_torn)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    uint64_t begin = fixture_offset_of(fixture, path, FIXTURE_BATCHES);
    uint64_t size = fixture_size_of(fixture, path, FIXTURE_BATCHES);
    uint8_t *sound = malloc(size);
    fixture_read(path, begin, sound, size);
    cr_assert_geq(size, 3 * WAL_BLOCK_SIZE);
    for (uint64_t offset = begin; offset < begin + size; offset += WAL_BLOCK_SIZE) {
        for (int harm = 0; harm < HARM_COUNT; harm++) {
            harm_block(path, offset, (enum harm)harm);
            cr_assert_eq(fixture_look(fixture), 0);
            cr_assert(fixture_shows(fixture, 1, 16));
            cr_assert(fixture_hides(fixture, 17, 20));
            cr_assert_eq(fixture->recovered.last_position, 16);
            cr_assert_eq(fixture->recovered.damaged_batches, 0);
            cr_assert_eq(fixture->recovered.damaged_last, 0);
            if (offset > begin)
                cr_assert_eq(fixture->recovered.dropped_bytes, size);
            fixture_write(path, begin, sound, size);
        }
    }
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, 20);
    free(sound);
    fixture_free(fixture);
}

Test(recovery, a_file_that_ends_early_was_cut_and_that_is_damage)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    uint64_t begin = fixture_offset_of(fixture, path, FIXTURE_BATCHES);
    cr_assert_eq(truncate(path, (off_t)begin + 4096), 0);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_shows(fixture, 1, 16));
    cr_assert_eq(fixture->shown_count, 16);
    cr_assert_eq(fixture->recovered.damaged_batches, 1);
    cr_assert_eq(fixture->recovered.damaged_last, 17, "whatever followed");
    cr_assert_eq(fixture->recovered.last_position, 17, "and its position is not given again");
    fixture_free(fixture);
}

/* Two batches in flight at once: the second one is sound, the first one is not. */
static void write_torn_pair(struct wal_fixture *fixture)
{
    fixture->options.writes_in_flight = 2;
    fixture_start(fixture);
    (void)fixture_batch(fixture, 4, 500);
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 3; j++)
            (void)fixture_append(fixture, 500);
        wal_flush(fixture->wal);
    }
    while (wal_durable(fixture->wal) < 10)
        cr_assert_geq(io_run(fixture->io, NS_PER_MS), 0);
    fixture_kill(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    fixture_zero(path, fixture_batch_offset(path, fixture->locations[5]), WAL_BLOCK_SIZE);
}

Test(recovery, a_sound_batch_behind_a_torn_one_is_dropped_and_never_returns)
{
    struct wal_fixture *fixture = fixture_create();
    write_torn_pair(fixture);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(fixture_look(fixture), 0);
        cr_assert(fixture_shows(fixture, 1, 4));
        cr_assert_eq(fixture->shown_count, 4);
        cr_assert_eq(fixture->recovered.last_position, 4);
        cr_assert_eq(fixture->recovered.dropped_bytes, 4096);
        cr_assert_eq(fixture->recovered.damaged_batches, 0);
    }
    fixture_start(fixture);
    uint32_t next = fixture_append(fixture, 100);
    cr_assert_eq(fixture->positions[next], 5, "the position is given again");
    fixture_settle(fixture);
    fixture_kill(fixture);
    for (int i = 0; i < 3; i++) {
        fixture_start(fixture);
        cr_assert(fixture_shows(fixture, 1, 4));
        cr_assert(fixture_hides(fixture, 5, 10));
        cr_assert(fixture->shown[next]);
        cr_assert_eq(fixture->recovered.damaged_batches, 0);
        fixture_kill(fixture);
    }
    fixture_free(fixture);
}

Test(recovery, the_next_generation_alone_keeps_dropped_batches_away)
{
    struct wal_fixture *fixture = fixture_create();
    write_torn_pair(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    char old[FILE_PATH_SIZE];
    (void)snprintf(old, sizeof old, "%s", path);
    uint8_t *before = malloc(64 * KIB);
    fixture_read(old, 0, before, 64 * KIB);
    fixture_start(fixture);
    uint32_t next = fixture_append(fixture, 100);
    fixture_settle(fixture);
    fixture_kill(fixture);
    /* As if the process had died before it cut the old segment. */
    fixture_write(old, 0, before, 64 * KIB);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(fixture_look(fixture), 0);
        cr_assert(fixture_shows(fixture, 1, 4));
        cr_assert(fixture_hides(fixture, 5, 10));
        cr_assert(fixture->shown[next]);
        cr_assert_eq(fixture->recovered.damaged_batches, 0);
        fixture_start(fixture);
        fixture_kill(fixture);
    }
    free(before);
    fixture_free(fixture);
}

Test(recovery, a_batch_that_is_proved_durable_is_damage_when_it_is_gone)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    uint64_t begin = fixture_offset_of(fixture, path, 3);
    fixture_zero(path, begin, WAL_BLOCK_SIZE);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(fixture_look(fixture), 0);
        cr_assert(fixture_shows(fixture, 1, 8));
        cr_assert(fixture_hides(fixture, 9, 12));
        cr_assert(fixture_shows(fixture, 13, 20));
        cr_assert_eq(fixture->recovered.damaged_batches, 1);
        cr_assert_eq(fixture->recovered.damaged_last, 12);
        cr_assert_eq(fixture->recovered.last_position, 20);
        cr_assert_eq(fixture->recovered.dropped_bytes, 0);
    }
    /* It stays damage, and what is whole stays, in all generations to come. */
    for (int i = 0; i < 3; i++) {
        fixture_start(fixture);
        cr_assert_eq(fixture->recovered.damaged_batches, 1);
        cr_assert_eq(fixture->recovered.damaged_last, 12);
        cr_assert(fixture_shows(fixture, 13, 20));
        fixture_batch(fixture, 1, 100);
        fixture_kill(fixture);
    }
    fixture_free(fixture);
}

Test(recovery, the_last_batches_may_be_damage_when_a_later_generation_proves_them)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    fixture_start(fixture);
    fixture_batch(fixture, 2, 100);
    fixture_kill(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    fixture_flip(path, fixture_offset_of(fixture, path, FIXTURE_BATCHES) + 9);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_shows(fixture, 1, 16));
    cr_assert(fixture_hides(fixture, 17, 20));
    cr_assert(fixture_shows(fixture, 21, 22));
    cr_assert_eq(fixture->recovered.damaged_last, 20);
    cr_assert_eq(fixture->recovered.last_position, 22);
    fixture_free(fixture);
}

Test(recovery, a_rotten_record_costs_only_itself)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    fixture_flip(path, location_offset(fixture->locations[10]) + 500);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_shows(fixture, 1, 9));
    cr_assert(fixture_hides(fixture, 10, 10));
    cr_assert(fixture_shows(fixture, 11, 20));
    cr_assert_eq(fixture->recovered.damaged_batches, 1);
    cr_assert_eq(fixture->recovered.damaged_last, 10);
    fixture_free(fixture);
}

Test(recovery, behind_a_rotten_size_nothing_of_the_batch_is_believed)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    fixture_flip(path, location_offset(fixture->locations[10]) + 12);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_shows(fixture, 1, 9));
    cr_assert(fixture_hides(fixture, 10, 12));
    cr_assert(fixture_shows(fixture, 13, 20));
    cr_assert_eq(fixture->recovered.damaged_last, 12);
    fixture_free(fixture);
}

/* ---- blocks in the wrong place ---- */

Test(recovery, a_misdirected_batch_is_not_taken)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    uint64_t size = fixture_size_of(fixture, path, 2);
    cr_assert_eq(size, fixture_size_of(fixture, path, 3));
    uint8_t *batch = malloc(size);
    fixture_read(path, fixture_offset_of(fixture, path, 2), batch, size);
    fixture_write(path, fixture_offset_of(fixture, path, 3), batch, size);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_hides(fixture, 9, 12));
    cr_assert_eq(fixture->shown_count, 16, "and nothing is shown twice");
    cr_assert_eq(fixture->recovered.damaged_last, 12);
    free(batch);
    fixture_free(fixture);
}

Test(recovery, a_lost_write_leaves_a_stale_block_that_is_not_taken)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    for (int i = 0; i < 1500; i++) { /* so that segments are used again */
        uint32_t number = fixture_append(fixture, 2000);
        if (number > 1)
            wal_record_dead(fixture->wal, fixture->locations[number - 1], wal_last(fixture->wal));
        if (i % 3 == 0)
            fixture_pass(fixture);
    }
    fixture_settle(fixture);
    struct wal_stats stats;
    wal_stats(fixture->wal, &stats);
    cr_assert_gt(stats.recycled, 2);
    fixture_kill(fixture);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.damaged_batches, 0);
    cr_assert_eq(fixture->recovered.last_position, 1500);
    cr_assert(fixture->shown[1500]);
    /* The newest segment with records now begins with a batch of another that was once there. */
    char path[FILE_PATH_SIZE] = "";
    struct wal_batch_header batch = {0};
    struct log_file_header segment;
    const char *file;
    for (uint32_t i = 0; (file = fixture_segment(fixture, i, &segment)) != NULL; i++) {
        uint8_t head[WAL_BATCH_HEADER_SIZE];
        struct wal_batch_header first;
        fixture_read(file, WAL_DATA_OFFSET, head, sizeof head);
        if (wal_batch_header_decode(head, &first) != 0 || first.segment != segment.number)
            continue;
        (void)snprintf(path, sizeof path, "%s", file);
        batch = first;
    }
    cr_assert_gt(batch.record_count, 0);
    uint64_t size = wal_batch_size(&batch);
    uint8_t *bytes = malloc(size);
    fixture_read(path, WAL_DATA_OFFSET, bytes, size);
    batch.segment--;
    batch.salt++;
    wal_batch_header_encode(&batch, bytes);
    fixture_write(path, WAL_DATA_OFFSET, bytes, size);
    free(bytes);
    cr_assert_eq(fixture_look(fixture), 0);
    for (uint64_t i = 0; i < batch.record_count; i++)
        cr_assert_not(fixture->shown[batch.position_first + i], "write n is at position n here");
    fixture_free(fixture);
}

Test(recovery, a_copied_segment_file_is_left_alone)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    char command[600];
    (void)snprintf(command, sizeof command, "cp %s %s/wal-00000777",
                   fixture_segment(fixture, 0, NULL), fixture->path);
    cr_assert_eq(system(command), 0);
    for (int i = 0; i < 2; i++) {
        fixture_start(fixture);
        cr_assert_eq(fixture->shown_count, 20);
        fixture_kill(fixture);
    }
    (void)snprintf(command, sizeof command, "%s/wal-00000777", fixture->path);
    cr_assert_eq(access(command, F_OK), 0);
    fixture_free(fixture);
}

Test(recovery, other_files_are_none_of_its_business)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    char command[600];
    (void)snprintf(command, sizeof command,
                   "cd %s && touch wal-1 wal-0000000g wal-000000001 WAL-00000001 x && mkdir y",
                   fixture->path);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, 20);
    fixture_free(fixture);
}

/* Notes in `rooms` how many were announced. */
static void note_coming(void *context, struct slice key)
{
    struct wal_fixture *fixture = context;
    uint32_t number = 0;
    cr_assert_gt(key.size, 4);
    for (uint32_t i = 4; i < key.size; i++)
        number = 10 * number + (uint32_t)(key.data[i] - '0');
    cr_assert_leq(number, fixture->written);
    cr_assert_not(fixture->shown[number], "write %u was shown before it was announced", number);
    fixture->rooms++;
}

Test(recovery, each_record_of_a_sound_log_is_announced_before_it_is_shown)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    for (uint32_t i = 0; i < 20; i++)
        (void)fixture_batch(fixture, 1 + i * 3, 100);
    (void)fixture_batch(fixture, 1, 40000);
    fixture_kill(fixture);
    fixture->options.events.coming = note_coming;
    fixture->rooms = 0;
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, fixture->written);
    cr_assert_eq(fixture->rooms, fixture->written);
    fixture_free(fixture);
}
