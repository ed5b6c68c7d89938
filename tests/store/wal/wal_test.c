/* The log in the real world: positions, durability, full buffers and kills. */
#include "wal_fixture.h"
#include "store/memory/location.h"

static struct wal_stats stats_of(const struct wal_fixture *fixture)
{
    struct wal_stats stats;
    wal_stats(fixture->wal, &stats);
    return stats;
}

static void kill_record(struct wal_fixture *fixture, uint32_t number)
{
    wal_record_dead(fixture->wal, fixture->locations[number], wal_last(fixture->wal));
}

Test(wal, positions_count_from_one_and_become_durable)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    cr_assert_eq(wal_last(fixture->wal), 0);
    for (uint32_t i = 1; i <= 10; i++) {
        (void)fixture_append(fixture, 100);
        cr_assert_eq(fixture->positions[i], i);
        cr_assert_eq(wal_gate(fixture->wal, i), i);
    }
    cr_assert_eq(wal_durable(fixture->wal), 0, "nothing is durable before the pass ends");
    fixture_settle(fixture);
    cr_assert_eq(fixture->durable, 10);
    fixture_shut(fixture);
    fixture_free(fixture);
}

/* File numbers of the log and of segments overlap. A record of the open buffer is not what lies at
 * the same offset of the segment with the same number. */
Test(wal, a_location_in_a_segment_is_not_in_memory)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    uint64_t location = fixture->locations[fixture_append(fixture, 100)];
    cr_assert_not_null(wal_peek(fixture->wal, location));
    cr_assert_null(wal_peek(
        fixture->wal, location_in_segment(location_file(location), location_offset(location))));
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, what_is_not_on_the_disk_yet_is_in_memory_and_then_on_the_disk)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    uint32_t first = fixture_append(fixture, 100);
    uint32_t second = fixture_append(fixture, 5000);
    struct record record;
    const uint8_t *bytes = wal_peek(fixture->wal, fixture->locations[second]);
    cr_assert_not_null(bytes);
    cr_assert_gt(record_decode(bytes, RECORD_HEADER_SIZE + 16 + 5000, &record), 0);
    fixture_check_record(fixture, &record);
    wal_flush(fixture->wal);
    cr_assert_not_null(wal_peek(fixture->wal, fixture->locations[first]),
                       "while it is being written, too");
    fixture_settle(fixture);
    cr_assert_null(wal_peek(fixture->wal, fixture->locations[first]));

    uint64_t offset = location_offset(fixture->locations[second]);
    uint32_t file = location_file(fixture->locations[second]);
    int handle = wal_pin_file(fixture->wal, file);
    uint8_t *block = fixture->options.memory; /* a free buffer of the log */
    struct io_op op = {0};
    io_read(fixture->io, &op, handle, block, 8192, round_down(offset, 4096));
    cr_assert_eq(io_wait(fixture->io, &op), 8192);
    wal_unpin_file(fixture->wal, file);
    cr_assert_gt(record_decode(block + offset % 4096, 8192 - offset % 4096, &record), 0);
    fixture_check_record(fixture, &record);
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, writes_that_arrive_during_a_write_share_the_next_one)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    (void)fixture_append(fixture, 100);
    wal_flush(fixture->wal);
    for (int i = 0; i < 20; i++) {
        (void)fixture_append(fixture, 100);
        wal_flush(fixture->wal);
    }
    cr_assert_eq(stats_of(fixture).batches, 0);
    fixture_settle(fixture);
    cr_assert_eq(stats_of(fixture).batches, 2);
    cr_assert_eq(stats_of(fixture).bytes_written, 4096 + 4096, "only what is used is written");
    fixture_shut(fixture);
    fixture_free(fixture);
}

static void write_and_restart(struct wal_fixture *fixture)
{
    fixture_start(fixture);
    for (int i = 0; i < 400; i++) {
        (void)fixture_append(fixture, 100 + (uint32_t)i * 7);
        if (i % 5 == 0)
            fixture_pass(fixture);
    }
    fixture_settle(fixture);
    fixture_kill(fixture);
    fixture_start(fixture);
    cr_assert_eq(fixture->shown_count, 400);
    cr_assert_eq(fixture->recovered.last_position, 400);
    cr_assert_eq(fixture->recovered.damaged_batches, 0);
    cr_assert_gt(fixture->recovered.clock_ceiling, version_clock_from_ms(250));
    (void)fixture_append(fixture, 10);
    cr_assert_eq(fixture->positions[401], 401, "positions go on");
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, survives_a_kill_with_one_write_in_flight)
{
    write_and_restart(fixture_create());
}

Test(wal, survives_a_kill_with_two_writes_in_flight)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.writes_in_flight = 2;
    write_and_restart(fixture);
}

Test(wal, survives_a_kill_with_separate_syncs)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.use_dsync = false;
    write_and_restart(fixture);
}

Test(wal, survives_a_kill_with_two_writes_and_separate_syncs)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.use_dsync = false;
    fixture->options.writes_in_flight = 2;
    write_and_restart(fixture);
}

Test(wal, full_buffers_push_back_and_room_is_told)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    struct wal_receipt receipt;
    int result = 0;
    int taken = 0;
    while ((result = fixture_try_append(fixture, 15000, 0, &receipt)) == 0 && taken < 100)
        taken++;
    cr_assert_eq(result, -EAGAIN);
    cr_assert_eq(taken, (int)fixture->options.buffer_count);
    cr_assert_eq(fixture->rooms, 0, "never from within the append");
    for (int i = 0; i < 1000 && fixture->rooms == 0; i++)
        fixture_pass(fixture);
    cr_assert_eq(fixture->rooms, 1);
    cr_assert_eq(fixture_try_append(fixture, 15000, 0, &receipt), 0);
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, a_record_over_the_limit_is_refused)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    struct wal_receipt receipt;
    uint32_t overhead = RECORD_HEADER_SIZE + (uint32_t)strlen("key-1");
    cr_assert_eq(
        fixture_try_append(fixture, fixture->options.record_size_max - overhead + 1, 0, &receipt),
        -EFBIG);
    cr_assert_eq(
        fixture_try_append(fixture, fixture->options.record_size_max - overhead, 0, &receipt), 0);
    fixture_settle(fixture);
    fixture_shut(fixture);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, 1);
    fixture_free(fixture);
}

Test(wal, records_of_16_mib_go_between_small_ones)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.file_size = 40 * MIB;
    fixture->options.record_size_max = (uint32_t)(16 * MIB + 64 * KIB);
    fixture->options.buffer_size = 64 * KIB;
    fixture_start(fixture);
    for (int i = 0; i < 5; i++) {
        (void)fixture_append(fixture, 10);
        (void)fixture_append(fixture, 16 * MIB);
        (void)fixture_append(fixture, 70000);
    }
    fixture_settle(fixture);
    fixture_kill(fixture);
    fixture_start(fixture);
    cr_assert_eq(fixture->shown_count, 15);
    cr_assert_geq(fixture->recovered.segments, 3);
    fixture_shut(fixture);
    fixture_free(fixture);
}

/* 2,000 writes of 1 KiB of which only the last 20 live, in segments of 256 KiB. */
static void churn(struct wal_fixture *fixture)
{
    for (int i = 0; i < 2000; i++) {
        uint32_t number = fixture_append(fixture, 1000);
        if (number > 20)
            kill_record(fixture, number - 20);
        if (i % 10 == 0)
            fixture_pass(fixture);
    }
    fixture_settle(fixture);
}

Test(wal, segments_without_live_records_are_used_again)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    churn(fixture);
    for (int i = 0; i < 100; i++)
        fixture_pass(fixture);
    struct wal_stats stats = stats_of(fixture);
    cr_assert_gt(stats.recycled, 3);
    cr_assert_leq(stats.segments, 7, "%d segments are kept", (int)stats.segments);
    cr_assert_eq(stats.live_records, 20);
    fixture_list(fixture);
    cr_assert_eq(fixture->file_count, stats.segments);
    fixture_kill(fixture);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_shows(fixture, 1981, 2000));
    cr_assert_eq(fixture->recovered.last_position, 2000);
    cr_assert_eq(fixture->recovered.damaged_batches, 0, "what a segment held before is not damage");
    fixture_free(fixture);
}

Test(wal, a_pinned_segment_is_not_used_again)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    uint32_t pinned = fixture_append(fixture, 1000);
    fixture_settle(fixture);
    uint32_t file = location_file(fixture->locations[pinned]);
    int handle = wal_pin_file(fixture->wal, file);
    churn(fixture);
    uint8_t *block = fixture->options.memory;
    struct io_op op = {0};
    io_read(fixture->io, &op, handle, block, 4096, WAL_DATA_OFFSET);
    cr_assert_eq(io_wait(fixture->io, &op), 4096);
    struct record record;
    cr_assert_gt(
        record_decode(block + WAL_BATCH_HEADER_SIZE, 4096 - WAL_BATCH_HEADER_SIZE, &record), 0);
    fixture_check_record(fixture, &record);
    cr_assert_eq(record.version.clock, pinned);
    uint64_t recycled = stats_of(fixture).recycled;
    uint64_t segments = stats_of(fixture).segments;
    wal_unpin_file(fixture->wal, file);
    for (int i = 0; i < 100; i++)
        fixture_pass(fixture);
    struct wal_stats stats = stats_of(fixture);
    cr_assert(stats.recycled > recycled || stats.segments < segments,
              "it goes once nobody reads it");
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, a_segment_waits_until_its_last_killer_is_durable)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    uint32_t count = 0;
    while (location_file(fixture->locations[count]) ==
           location_file(fixture->locations[count == 0 ? 0 : 1])) {
        (void)fixture_append(fixture, 4000);
        count = fixture->written;
    }
    fixture_settle(fixture);
    (void)fixture_append(fixture, 10);
    for (uint32_t number = 1; number < count; number++)
        kill_record(fixture, number);
    cr_assert_lt(wal_durable(fixture->wal), wal_last(fixture->wal));
    for (int i = 0; i < 50; i++)
        cr_assert_geq(io_run(fixture->io, NS_PER_MS), 0);
    cr_assert_eq(stats_of(fixture).recycled, 0);
    uint64_t segments = stats_of(fixture).segments;
    fixture_settle(fixture);
    for (int i = 0; i < 50; i++)
        cr_assert_geq(io_run(fixture->io, NS_PER_MS), 0);
    cr_assert(stats_of(fixture).recycled == 1 || stats_of(fixture).segments < segments);
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, interval_acknowledges_at_once_and_commits_within_its_time)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.durability = WAL_INTERVAL;
    fixture_start(fixture);
    for (int i = 0; i < 100; i++) /* spare segments are made meanwhile */
        cr_assert_geq(io_run(fixture->io, NS_PER_MS), 0);
    uint64_t begin_ns = io_now_ns(fixture->io);
    (void)fixture_append(fixture, 100);
    cr_assert_eq(wal_gate(fixture->wal, 1), 0);
    while (fixture->durable == 0) {
        wal_flush(fixture->wal);
        cr_assert_geq(io_run(fixture->io, UINT64_MAX), 0, "the log's own timer ends the wait");
    }
    cr_assert_geq(io_now_ns(fixture->io) - begin_ns, WAL_INTERVAL_MS * NS_PER_MS);
    cr_assert_eq(stats_of(fixture).batches, 1);
    for (int i = 0; i < 3; i++) {
        wal_flush(fixture->wal);
        cr_assert_eq(io_run(fixture->io, 30 * NS_PER_MS), 0, "an idle log wakes nobody");
    }
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, interval_commits_by_itself_even_if_nobody_flushes_again)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.durability = WAL_INTERVAL;
    fixture_start(fixture);
    (void)fixture_append(fixture, 100);
    wal_flush(fixture->wal);
    for (int i = 0; i < 1000 && fixture->durable == 0; i++)
        cr_assert_geq(io_run(fixture->io, 20 * NS_PER_MS), 0);
    cr_assert_eq(fixture->durable, 1);
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, without_durability_only_shutting_down_proves_anything)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.durability = WAL_NONE;
    fixture_start(fixture);
    for (int i = 0; i < 100; i++) {
        (void)fixture_append(fixture, 500);
        wal_flush(fixture->wal);
        cr_assert_geq(io_run(fixture->io, 0), 0);
    }
    for (int i = 0; i < 20; i++)
        cr_assert_geq(io_run(fixture->io, NS_PER_MS), 0);
    cr_assert_gt(stats_of(fixture).batches, 1, "full buffers are written");
    cr_assert_eq(wal_durable(fixture->wal), 0, "but not synced");
    cr_assert_eq(wal_gate(fixture->wal, 100), 0);
    fixture_shut(fixture);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, 100);
    fixture_free(fixture);
}

Test(wal, without_durability_segments_are_still_used_again)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.durability = WAL_NONE;
    fixture_start(fixture);
    for (int i = 0; i < 3000; i++) {
        uint32_t number = fixture_append(fixture, 1000);
        if (number > 20)
            kill_record(fixture, number - 20);
        if (i % 10 == 0) {
            wal_flush(fixture->wal);
            cr_assert_geq(io_run(fixture->io, NS_PER_MS), 0);
        }
    }
    cr_assert_gt(stats_of(fixture).recycled, 3);
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, shutting_down_without_a_write_leaves_an_empty_log)
{
    struct wal_fixture *fixture = fixture_create();
    for (int i = 0; i < 5; i++) {
        fixture_start(fixture);
        cr_assert_eq(fixture->shown_count, 0);
        fixture_shut(fixture);
    }
    fixture_list(fixture);
    cr_assert_leq(fixture->file_count, 6, "restarts do not pile up files: %d",
                  (int)fixture->file_count);
    fixture_free(fixture);
}

Test(wal, restarts_do_not_pile_up_space)
{
    struct wal_fixture *fixture = fixture_create();
    for (int i = 0; i < 20; i++) {
        fixture_start(fixture);
        cr_assert_eq(fixture->shown_count, (uint32_t)i);
        fixture_batch(fixture, 1, 100);
        if (i % 2 == 0)
            fixture_kill(fixture);
        else
            fixture_shut(fixture);
    }
    fixture_start(fixture);
    cr_assert_leq(stats_of(fixture).size_bytes, 6 * fixture->options.file_size);
    fixture_shut(fixture);
    fixture_free(fixture);
}

Test(wal, a_value_limit_that_no_segment_can_hold_is_refused)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.record_size_max = (uint32_t)fixture->options.file_size;
    fixture_open_world(fixture);
    struct wal_state *state;
    cr_assert_eq(fixture_try_recover(fixture, &state), 0);
    cr_assert_eq(wal_open(fixture->io, &fixture->log, &fixture->options, state, &fixture->wal),
                 -EINVAL);
    io_close(fixture->io);
    fixture_free(fixture);
}
