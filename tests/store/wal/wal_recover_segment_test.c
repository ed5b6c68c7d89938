/* Recovery of whole segments: their headers, seals and files. */
#include "wal_fixture.h"

#include "base/checksum.h"
#include "store/memory/location.h"

Test(recovery, a_rotten_segment_header_is_inferred_from_the_batches)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    fixture_flip(path, 50);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, 20);
    cr_assert_eq(fixture->recovered.repaired_headers, 1);
    cr_assert_eq(fixture->recovered.damaged_batches, 0);
    fixture_zero(path, 0, WAL_BLOCK_SIZE);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, 20, "also when its block was never written");
    fixture_start(fixture);
    fixture_batch(fixture, 1, 100);
    fixture_kill(fixture);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->shown_count, 21);
    fixture_free(fixture);
}

/* Whoever looked only at what is sound would take the log to begin behind what is lost. */
Test(recovery, a_rotten_segment_header_and_first_batch_are_a_loss)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    fixture_flip(path, 50);
    fixture_flip(path, WAL_DATA_OFFSET + 20);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert_eq(fixture->recovered.repaired_headers, 1);
    cr_assert(fixture->shown_count > 0 && fixture->shown_count < 20, "%u", fixture->shown_count);
    cr_assert_geq(fixture->recovered.damaged_batches, 1);
    cr_assert_eq(fixture->recovered.damaged_last, 20 - fixture->shown_count);
    fixture_free(fixture);
}

Test(recovery, a_file_without_anything_sound_is_damage_and_is_kept)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    char path[FILE_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s", fixture_segment(fixture, 0, NULL));
    fixture_start(fixture);
    fixture_batch(fixture, 2, 100);
    fixture_kill(fixture);
    uint8_t *noise = malloc(256 * KIB);
    fixture_fill(5, noise, 256 * KIB);
    fixture_write(path, 0, noise, 256 * KIB);
    for (int i = 0; i < 2; i++) {
        fixture_start(fixture);
        cr_assert_eq(fixture->shown_count, 2);
        cr_assert_geq(fixture->recovered.damaged_batches, 1);
        cr_assert_eq(fixture->recovered.damaged_last, 22,
                     "it may have held anything up to the end");
        fixture_kill(fixture);
        cr_assert_eq(access(path, F_OK), 0);
    }
    free(noise);
    fixture_free(fixture);
}

static void change_header(const char *path, void (*change)(struct log_file_header *header))
{
    uint8_t block[WAL_BLOCK_SIZE];
    struct log_file_header header;
    fixture_read(path, 0, block, sizeof block);
    cr_assert_eq(log_file_header_decode(block, &header), 0);
    change(&header);
    log_file_header_encode(&header, NULL, block);
    fixture_write(path, 0, block, sizeof block);
}

static void set_directory(struct log_file_header *header)
{
    header->directory_id++;
}

static void set_log(struct log_file_header *header)
{
    header->log_id++;
}

Test(recovery, segments_of_another_directory_are_refused)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    change_header(fixture_segment(fixture, 0, NULL), set_directory);
    cr_assert_eq(fixture_look(fixture), -EXDEV);
    fixture_free(fixture);
}

Test(recovery, segments_of_another_log_are_refused)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    change_header(fixture_segment(fixture, 0, NULL), set_log);
    cr_assert_eq(fixture_look(fixture), -EXDEV);
    fixture_free(fixture);
}

Test(recovery, a_segment_of_an_unknown_format_is_refused)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    uint8_t block[WAL_BLOCK_SIZE];
    fixture_read(path, 0, block, sizeof block);
    store_u16(block + 12, 2);
    store_u32(block + 8, crc32c(block + 12, sizeof block - 12));
    fixture_write(path, 0, block, sizeof block);
    cr_assert_eq(fixture_look(fixture), -EPROTONOSUPPORT);
    fixture_free(fixture);
}

Test(recovery, a_record_with_an_unknown_flag_is_refused)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    const char *path = fixture_segment(fixture, 0, NULL);
    uint64_t begin = fixture_offset_of(fixture, path, 2);
    uint64_t size = fixture_size_of(fixture, path, 2);
    uint8_t *bytes = malloc(size);
    fixture_read(path, begin, bytes, size);
    uint8_t *record = bytes + WAL_BATCH_HEADER_SIZE;
    record[7] |= 0x80;
    uint64_t length = record_told_size(record);
    store_u32(record, crc32c(record + 4, length - 4));
    struct wal_batch_header header;
    cr_assert_eq(wal_batch_header_decode(bytes, &header), 0);
    wal_batch_header_encode(&header, bytes);
    fixture_write(path, begin, bytes, size);
    cr_assert_eq(fixture_look(fixture), -EPROTONOSUPPORT);
    free(bytes);
    fixture_free(fixture);
}

/* ---- several segments ---- */

static void write_segments(struct wal_fixture *fixture, uint32_t count)
{
    fixture_start(fixture);
    for (uint32_t i = 0; i < count; i++)
        (void)fixture_batch(fixture, 2, 7000);
    fixture_kill(fixture);
}

Test(recovery, a_missing_seal_costs_nothing)
{
    struct wal_fixture *fixture = fixture_create();
    write_segments(fixture, 40);
    struct log_file_header second;
    cr_assert_not_null(fixture_segment(fixture, 1, &second));
    const char *path = fixture_segment(fixture, 0, NULL);
    uint64_t last = fixture_batch_offset(path, fixture->locations[second.last_before]);
    uint8_t bytes[WAL_BATCH_HEADER_SIZE];
    struct wal_batch_header batch;
    fixture_read(path, last, bytes, sizeof bytes);
    cr_assert_eq(wal_batch_header_decode(bytes, &batch), 0);
    uint64_t seal = last + wal_batch_size(&batch);
    fixture_read(path, seal, bytes, sizeof bytes);
    cr_assert_eq(wal_batch_header_decode(bytes, &batch), 0);
    cr_assert_eq(batch.flags, WAL_BATCH_SEAL);
    fixture_zero(path, seal, WAL_BLOCK_SIZE);
    for (int i = 0; i < 3; i++) {
        fixture_start(fixture);
        cr_assert_eq(fixture->shown_count, 80);
        cr_assert_eq(fixture->recovered.damaged_batches, 0);
        fixture_kill(fixture);
    }
    fixture_free(fixture);
}

Test(recovery, a_segment_whose_end_is_gone_is_damage)
{
    struct wal_fixture *fixture = fixture_create();
    write_segments(fixture, 40);
    struct log_file_header second;
    cr_assert_not_null(fixture_segment(fixture, 1, &second));
    const char *path = fixture_segment(fixture, 0, NULL);
    uint64_t lost_from = second.last_before - 3;
    uint64_t offset = fixture_batch_offset(path, fixture->locations[lost_from]);
    fixture_zero(path, offset, (size_t)(fixture->options.file_size - offset));
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture_shows(fixture, 1, (uint32_t)lost_from - 1));
    cr_assert(fixture_hides(fixture, (uint32_t)lost_from, (uint32_t)second.last_before));
    cr_assert(fixture_shows(fixture, (uint32_t)second.last_before + 1, 80));
    cr_assert_eq(fixture->recovered.damaged_last, second.last_before);
    cr_assert_eq(fixture->recovered.last_position, 80);
    fixture_free(fixture);
}

Test(recovery, an_unfinished_segment_file_is_cleared_away)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    char path[FILE_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%.128s/wal-00000abc", fixture->path);
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    cr_assert_geq(file, 0);
    cr_assert_eq(ftruncate(file, (off_t)fixture->options.file_size), 0);
    close(file);
    fixture_start(fixture);
    cr_assert_eq(fixture->shown_count, 20);
    for (int i = 0; i < 100 && access(path, F_OK) == 0; i++)
        fixture_pass(fixture);
    cr_assert_neq(access(path, F_OK), 0);
    fixture_kill(fixture);
    fixture_free(fixture);
}

static int stop_at_five(void *context, const struct record *record, uint64_t location)
{
    (void)location;
    ++*(int *)context;
    return record->position == 5 ? -ENOMEM : 0;
}

Test(recovery, stops_when_its_user_says_so)
{
    struct wal_fixture *fixture = fixture_create();
    fixture_write_batches(fixture);
    fixture_open_world(fixture);
    int seen = 0;
    struct wal_recovered recovered;
    struct wal_files *files;
    cr_assert_eq(wal_recover(fixture->io, &fixture->log, &fixture->options, stop_at_five, &seen,
                             &recovered, &files),
                 -ENOMEM);
    cr_assert_eq(seen, 5);
    io_close(fixture->io);
    fixture_free(fixture);
}

Test(recovery, the_dead_are_not_counted_and_their_segments_are_used_again)
{
    struct wal_fixture *fixture = fixture_create();
    write_segments(fixture, 40);
    fixture_open_world(fixture);
    struct wal_files *files;
    cr_assert_eq(fixture_try_recover(fixture, &files), 0);
    wal_files_forget_alive(files);
    wal_files_record_alive(files, fixture->locations[80]);
    fixture->durable = 80;
    cr_assert_eq(wal_open(fixture->io, &fixture->log, &fixture->options, files, &fixture->wal), 0);
    for (int i = 0; i < 100; i++)
        cr_assert_geq(io_run(fixture->io, NS_PER_MS), 0);
    struct wal_stats stats;
    wal_stats(fixture->wal, &stats);
    cr_assert_eq(stats.live_records, 1);
    cr_assert_leq(stats.files, 6, "the open one, the one with the survivor, up to four spares");
    fixture_kill(fixture);
    cr_assert_eq(fixture_look(fixture), 0);
    cr_assert(fixture->shown[80]);
    cr_assert_eq(fixture->recovered.last_position, 80);
    fixture_free(fixture);
}
