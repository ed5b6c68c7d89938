/* Recovery when whole files are gone, old or cut, or the end of a log that was closed. */
#include "wal_fixture.h"

#include "base/checksum.h"

static void write_segments(struct wal_fixture *fixture, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        (void)fixture_batch(fixture, 2, 7000);
}

/* Four segments or so, killed. */
static void write_log(struct wal_fixture *fixture)
{
    fixture_start(fixture);
    write_segments(fixture, 60);
    fixture_kill(fixture);
}

static void expect_sound(struct wal_fixture *fixture, uint32_t last)
{
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.damaged_batches, 0);
    cr_assert_eq(fixture->recovered.damaged_last, 0);
    cr_assert_eq(fixture->recovered.last_position, last);
}

/* Opens with only the writes from `first` on alive, so that segments are recycled, and kills. */
static void recycle(struct wal_fixture *fixture, uint32_t first)
{
    fixture_open_world(fixture);
    struct wal_files *files;
    cr_assert_eq(fixture_try_recover(fixture, &files), 0);
    wal_files_forget_alive(files);
    for (uint32_t number = first; number <= fixture->written; number++)
        wal_files_record_alive(files, fixture->locations[number]);
    fixture->durable = fixture->recovered.last_position;
    cr_assert_eq(wal_open(fixture->io, &fixture->log, &fixture->options, files, &fixture->wal), 0);
}

Test(recovery_loss, each_segment_that_is_gone_is_missed)
{
    struct wal_fixture *fixture = fixture_create();
    write_log(fixture);
    struct log_file_header newest = {0}, header;
    uint32_t count = 0;
    for (; fixture_segment(fixture, count, &header) != NULL; count++)
        newest = header;
    cr_assert_geq(count, 3);
    for (uint32_t index = 0; index + 1 < count; index++) {
        char path[FILE_PATH_SIZE], aside[FILE_PATH_SIZE];
        (void)snprintf(path, sizeof path, "%s", fixture_segment(fixture, index, NULL));
        (void)snprintf(aside, sizeof aside, "%.150s/aside", fixture->path);
        cr_assert_eq(rename(path, aside), 0);
        cr_assert_eq(fixture_look(fixture), 0);
        cr_assert_geq(fixture->recovered.damaged_batches, 1);
        cr_assert_eq(fixture->recovered.damaged_last, newest.last_before);
        cr_assert_eq(rename(aside, path), 0);
        expect_sound(fixture, 120);
    }
    fixture_free(fixture);
}

Test(recovery_loss, a_loss_is_told_at_every_later_start_too_and_does_not_grow)
{
    struct wal_fixture *fixture = fixture_create();
    write_log(fixture);
    cr_assert_eq(unlink(fixture_segment(fixture, 1, NULL)), 0);
    cr_assert_eq(fixture_look(fixture), 0);
    uint64_t lost = fixture->recovered.damaged_last;
    cr_assert_gt(lost, 0);
    for (int i = 0; i < 3; i++) {
        fixture_start(fixture);
        cr_assert_eq(fixture->recovered.damaged_last, lost);
        write_segments(fixture, 20);
        fixture_kill(fixture);
    }
    fixture_free(fixture);
}

Test(recovery_loss, what_was_recycled_is_not_missed)
{
    struct wal_fixture *fixture = fixture_create();
    write_log(fixture);
    recycle(fixture, 110);
    fixture_kill(fixture);
    expect_sound(fixture, 120);
    recycle(fixture, 119);
    write_segments(fixture, 60);
    /* Most of it dies while the newest header still lists it: their files leave marks. */
    for (uint32_t number = 119; number <= 230; number++)
        wal_record_dead(fixture->wal, fixture->locations[number], 240);
    for (int i = 0; i < 50; i++)
        fixture_pass(fixture);
    struct wal_stats stats;
    wal_stats(fixture->wal, &stats);
    cr_assert_geq(stats.recycled, 3);
    fixture_kill(fixture);
    expect_sound(fixture, 240);
    fixture_free(fixture);
}

Test(recovery_loss, more_than_are_kept_go_once_a_newer_header_is_durable)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    write_segments(fixture, 100);
    for (uint32_t number = 1; number <= 190; number++)
        wal_record_dead(fixture->wal, fixture->locations[number], 200);
    for (int i = 0; i < 50; i++)
        fixture_pass(fixture);
    struct wal_stats before, after;
    wal_stats(fixture->wal, &before);
    write_segments(fixture, 20);
    for (int i = 0; i < 50; i++)
        fixture_pass(fixture);
    wal_stats(fixture->wal, &after);
    cr_assert_lt(after.files, before.files);
    fixture_kill(fixture);
    expect_sound(fixture, 240);
    fixture_free(fixture);
}

Test(recovery_loss, an_old_copy_of_a_recycled_segment_is_not_read)
{
    struct wal_fixture *fixture = fixture_create();
    write_log(fixture);
    char path[FILE_PATH_SIZE], command[3 * FILE_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s", fixture_segment(fixture, 0, NULL));
    (void)snprintf(command, sizeof command, "cp '%s' '%s/aside'", path, fixture->path);
    cr_assert_eq(system(command), 0);
    recycle(fixture, 110);
    fixture_kill(fixture);
    (void)snprintf(command, sizeof command, "mv '%s/aside' '%s'", fixture->path, path);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_hides(fixture, 1, 4));
    cr_assert(fixture_shows(fixture, 110, 120));
    fixture_free(fixture);
}

Test(recovery_loss, a_closed_log_that_ends_early_is_damaged_up_to_its_end)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    write_segments(fixture, 60);
    uint64_t number = wal_number(fixture->wal);
    fixture_shut(fixture);
    fixture->options.last_known = 120;
    fixture->options.number_known = number;
    expect_sound(fixture, 120);
    const char *path = NULL;
    for (uint32_t i = 0; fixture_segment(fixture, i, NULL) != NULL; i++)
        path = fixture_segment(fixture, i, NULL);
    cr_assert_not_null(path);
    uint64_t offset = fixture_batch_offset(path, fixture->locations[119]);
    fixture_zero(path, offset, fixture->options.file_size - offset);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_shows(fixture, 1, 118));
    cr_assert_eq(fixture->recovered.damaged_last, 120);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.damaged_last, 120);
    cr_assert_eq(fixture->recovered.last_position, 120, "what was lost is not given again");
    /* From now on the log itself tells. */
    fixture_start(fixture);
    write_segments(fixture, 1);
    fixture_kill(fixture);
    fixture->options.last_known = 0;
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.damaged_last, 120);
    cr_assert_eq(fixture->recovered.last_position, 122);
    fixture_free(fixture);
}

Test(recovery_loss, the_last_segment_of_an_older_generation_misses_its_end)
{
    struct wal_fixture *fixture = fixture_create();
    for (int i = 0; i < 3; i++) {
        fixture_start(fixture);
        write_segments(fixture, 3);
        fixture_kill(fixture);
    }
    expect_sound(fixture, 18);
    const char *path = fixture_segment(fixture, 1, NULL);
    uint64_t offset = fixture_batch_offset(path, fixture->locations[11]);
    cr_assert_eq(truncate(path, (off_t)offset), 0);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_hides(fixture, 11, 12));
    cr_assert_eq(fixture->shown_count, 16);
    cr_assert_eq(fixture->recovered.damaged_last, 12);
    fixture_free(fixture);
}

Test(recovery_loss, a_mark_proves_how_far_the_log_went)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    write_segments(fixture, 40);
    const char *newest = NULL;
    struct log_file_header header;
    uint32_t count = 0;
    for (; fixture_segment(fixture, count, &header) != NULL; count++)
        newest = fixture_segment(fixture, count, NULL);
    cr_assert_gt(count, 2);
    char path[FILE_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s", newest);
    wal_record_dead(fixture->wal, fixture->locations[1], 80);
    struct log_file_header second;
    cr_assert_not_null(fixture_segment(fixture, 1, &second));
    for (uint32_t number = 2; number <= second.last_before; number++)
        wal_record_dead(fixture->wal, fixture->locations[number], 80);
    for (int i = 0; i < 50; i++)
        fixture_pass(fixture);
    fixture_kill(fixture);
    expect_sound(fixture, 80);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.damaged_last, 80, "what killed those that are gone is gone");
    fixture_free(fixture);
}

static struct wal_note note_of(void *context)
{
    struct wal_fixture *fixture = context;
    return (struct wal_note){.major = 3, .minor = fixture->durable};
}

Test(recovery_loss, the_owners_note_is_in_headers_and_marks)
{
    struct wal_fixture *fixture = fixture_create();
    struct wal_note note = {0};
    fixture->options.events.note = note_of;
    fixture_start(fixture);
    cr_assert_eq(wal_recover_note(fixture->io, &fixture->log, &fixture->options, &note), 0);
    cr_assert_eq(note.major, 3);
    cr_assert_eq(note.minor, 0);
    write_segments(fixture, 40);
    cr_assert_eq(wal_recover_note(fixture->io, &fixture->log, &fixture->options, &note), 0);
    uint64_t in_header = note.minor;
    cr_assert_gt(in_header, 0);
    struct log_file_header second;
    cr_assert_not_null(fixture_segment(fixture, 1, &second));
    for (uint32_t number = 1; number <= second.last_before; number++)
        wal_record_dead(fixture->wal, fixture->locations[number], 80);
    for (int i = 0; i < 50; i++)
        fixture_pass(fixture);
    cr_assert_eq(wal_recover_note(fixture->io, &fixture->log, &fixture->options, &note), 0);
    cr_assert_eq(note.minor, 80, "the mark is newer than the newest header");
    fixture_kill(fixture);
    fixture_free(fixture);
}

Test(recovery_loss, more_segments_than_a_header_lists_are_not_all_checked)
{
    struct wal_listing listing = {.count = WAL_LISTED_MAX,
                                  .flags = WAL_LISTING | WAL_LISTING_INCOMPLETE};
    for (uint32_t i = 0; i < WAL_LISTED_MAX; i++)
        listing.numbers[i] = 2 * i;
    struct log_file_header header = {.state = WAL_HEADER_ACTIVE, .number = 2000, .lost = 5};
    struct log_file_header found;
    struct wal_listing listed;
    uint8_t block[WAL_BLOCK_SIZE];
    log_file_header_encode(&header, &listing, block);
    cr_assert_eq(log_file_header_decode(block, &found), 0);
    cr_assert_eq(found.lost, 5);
    wal_listing_decode(block, &listed);
    cr_assert_eq(memcmp(&listed, &listing, sizeof listed), 0);
    cr_assert(wal_listing_has(&listed, 2 * (WAL_LISTED_MAX - 1)));
    cr_assert_not(wal_listing_has(&listed, 3));
    listing.count = WAL_LISTED_MAX - 1;
    log_file_header_encode(&header, &listing, block);
    store_u32(block + 136, WAL_LISTED_MAX + 1);
    store_u32(block + 8, crc32c(block + 12, sizeof block - 12));
    cr_assert_eq(log_file_header_decode(block, &found), -EBADMSG);
}
