/* A log that begins above the positions of logs that were there before it. */
#include "wal_fixture.h"

#define BASE 1000u

static struct wal_fixture *based(void)
{
    struct wal_fixture *fixture = fixture_create();
    fixture->options.base = BASE;
    fixture->options.last_known = BASE;
    fixture->options.number_known = 17;
    return fixture;
}

static void lose_all_files(struct wal_fixture *fixture)
{
    char command[256];
    (void)snprintf(command, sizeof command, "rm -f '%s'/wal-*", fixture->path);
    cr_assert_eq(system(command), 0);
}

Test(recovery_base, empty_log_has_reached_its_base_and_lost_nothing)
{
    struct wal_fixture *fixture = based();
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.last_position, BASE);
    cr_assert_eq(fixture->recovered.damaged_batches, 0);
    cr_assert_eq(fixture->recovered.damaged_last, 0);
    fixture->options.last_known = BASE + 1;
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.damaged_last, BASE + 1, "one more was known");
    fixture_free(fixture);
}

Test(recovery_base, positions_and_numbers_go_on_above_it)
{
    struct wal_fixture *fixture = based();
    fixture_start(fixture);
    cr_assert_eq(wal_last(fixture->wal), BASE);
    cr_assert_eq(wal_first_position(fixture->wal), BASE + 1);
    cr_assert_eq(wal_number(fixture->wal), 18);
    (void)fixture_batch(fixture, 3, 100);
    cr_assert_eq(fixture->positions[1], BASE + 1);
    fixture_kill(fixture);
    for (int i = 0; i < 3; i++) {
        fixture_start(fixture);
        cr_assert_eq(fixture->recovered.last_position, BASE + 3);
        cr_assert_eq(fixture->recovered.damaged_batches, 0);
        fixture_kill(fixture);
    }
    fixture_free(fixture);
}

Test(recovery_base, log_that_is_lost_later_is_missed)
{
    struct wal_fixture *fixture = based();
    fixture_start(fixture);
    (void)fixture_batch(fixture, 3, 100);
    fixture_shut(fixture);
    lose_all_files(fixture);
    fixture->options.last_known = BASE + 3; /* as the superblock tells */
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.damaged_batches, 1);
    cr_assert_eq(fixture->recovered.damaged_last, BASE + 3);
    cr_assert_eq(fixture->recovered.last_position, BASE + 3, "they are not given again");
    fixture_free(fixture);
}

/* What is unsure reaches as far as the log might have. */
Test(recovery_base, file_that_cannot_be_read_puts_all_up_to_the_base_in_doubt)
{
    struct wal_fixture *fixture = based();
    char path[FILE_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%.120s/wal-00000001", fixture->path);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    for (int i = 0; i < 64 * 1024; i++)
        (void)fputc(i % 251 + 1, file);
    (void)fclose(file);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.damaged_last, BASE);
    fixture_free(fixture);
}

/* A file of the log that was here before it is put back. */
Test(recovery_base, segment_of_before_the_base_counts_for_nothing)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_start(fixture);
    (void)fixture_batch(fixture, 3, 100);
    fixture_kill(fixture);
    fixture->options.base = fixture->options.last_known = BASE;
    fixture->options.number_known = 17;
    fixture_start(fixture);
    cr_assert_eq(fixture->shown_count, 0);
    cr_assert_eq(fixture->recovered.last_position, BASE);
    cr_assert_eq(fixture->recovered.damaged_batches, 0);
    (void)fixture_batch(fixture, 2, 100);
    fixture_kill(fixture);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, 2);
    cr_assert(fixture->shown[4] && fixture->shown[5]);
    cr_assert_eq(fixture->recovered.damaged_batches, 0);
    fixture_free(fixture);
}
