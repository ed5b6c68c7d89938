/* Value files: written, read, aborted, removed; one at a time. */
#include "value_streams.h"

#include "base/checksum.h"
#include "tests/support/log_lines.h"

#define POOL_COUNT 16u

struct bench {
    struct world *world;
    struct io *io;
    struct stream_pool *pool;
    struct log_lines lines;
};

static void bench_open(struct bench *bench, uint32_t count)
{
    struct io_options options = WORLD_OPTIONS;
    options.region_size = (size_t)count * VALUE_FILE_BUFFER_SIZE;
    *bench = (struct bench){.world = world_open(&options)};
    log_lines_begin(&bench->lines, LOG_WARN);
    bench->io = world_io(bench->world);
    for (int i = 0; i < 3; i++) {
        char name[] = {'0', (char)('0' + i), '\0'};
        cr_assert_eq(io_make_directory(bench->io, world_path(bench->world, name)), 0);
    }
    cr_assert_eq(stream_pool_create(bench->io, &bench->lines.log, world_path(bench->world, "."),
                                    io_region(bench->io), count, &bench->pool),
                 0);
}

/* Nothing may be left behind. */
static void bench_close(struct bench *bench)
{
    RUN_UNTIL(bench->world, !stream_pool_is_busy(bench->pool));
    assert_pool_is_whole(bench->pool);
    stream_pool_free(bench->pool);
    world_close(bench->world);
}

static const char *file_path(struct bench *bench, uint32_t stream)
{
    char text[VALUE_FILE_NAME_SIZE];
    struct value_file_name name = upload_name(stream);
    value_file_name_write(&name, text);
    return world_path(bench->world, text + 1);
}

static int open_value(struct bench *bench, uint32_t stream, uint32_t flags)
{
    struct io_op op = {0};
    io_open_file(bench->io, &op, file_path(bench, stream), flags);
    return io_wait(bench->io, &op);
}

/* Of the file, or -ENOENT. */
static int64_t file_size(struct bench *bench, uint32_t stream)
{
    int file = open_value(bench, stream, IO_OPEN_READ);
    if (file < 0)
        return file;
    int64_t size = io_file_size(bench->io, file);
    cr_assert_eq(close_file(bench->world, file), 0);
    return size;
}

static void write_value(struct bench *bench, uint32_t stream, uint64_t size, uint64_t size_hint,
                        uint32_t part_max, struct kept_descriptor *ret_kept)
{
    struct upload upload = {.stream = stream, .size = size, .part_max = part_max};
    upload_open(&upload, bench->pool, size_hint);
    upload_pump(&upload);
    RUN_UNTIL(bench->world, upload.finishes > 0);
    cr_assert_eq(upload.result, 0);
    cr_assert_eq(value_writer_size(upload.writer), size);
    keep_descriptor(ret_kept, upload.writer);
    value_writer_close(upload.writer, true);
    RUN_UNTIL(bench->world, !stream_pool_is_busy(bench->pool));
    cr_assert_eq(upload.finishes, 1);
}

/* Reads all of it; returns what the reader ended with. */
static void download_value(struct bench *bench, uint32_t stream, const struct kept_descriptor *kept,
                           struct download *ret_download)
{
    *ret_download = (struct download){.stream = stream};
    download_open(ret_download, bench->pool, kept_slice(kept));
    download_pump(ret_download);
    RUN_UNTIL(bench->world, ret_download->has_ended);
    value_reader_close(ret_download->reader);
    RUN_UNTIL(bench->world, !stream_pool_is_busy(bench->pool));
}

static int read_value(struct bench *bench, uint32_t stream, const struct kept_descriptor *kept,
                      uint64_t *ret_received)
{
    struct download download;
    download_value(bench, stream, kept, &download);
    *ret_received = download.received;
    return download.result;
}

static void check_padding(struct bench *bench, uint32_t stream, uint64_t size)
{
    uint64_t padding = round_up(size, DISK_BLOCK_SIZE) - size;
    uint8_t bytes[DISK_BLOCK_SIZE];
    if (padding == 0)
        return;
    int file = open_value(bench, stream, IO_OPEN_READ);
    cr_assert_eq(read_file(bench->world, file, bytes, sizeof bytes, size), (int32_t)padding);
    for (uint64_t i = 0; i < padding; i++)
        cr_assert_eq(bytes[i], 0);
    cr_assert_eq(close_file(bench->world, file), 0);
}

static const uint64_t sizes[] = {
    0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 256 * KIB, 256 * KIB + 1, 1 * MIB + 3, 5 * MIB};
#define SIZES (sizeof sizes / sizeof sizes[0])

static void write_and_read_sizes(uint32_t pool_count, bool hinted, uint32_t part_max)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, pool_count);
    for (uint32_t i = 0; i < SIZES; i++) {
        uint64_t received;
        write_value(&bench, i, sizes[i], hinted ? sizes[i] : 0, part_max, &kept);
        cr_assert_eq(kept.size, value_file_descriptor_size(sizes[i]));
        cr_assert_eq(file_size(&bench, i), (int64_t)round_up(sizes[i], DISK_BLOCK_SIZE));
        check_padding(&bench, i, sizes[i]);
        cr_assert_eq(read_value(&bench, i, &kept, &received), 0);
        cr_assert_eq(received, sizes[i]);
    }
    cr_assert_eq(bench.lines.count, 0);
    bench_close(&bench);
}

Test(value_file, what_was_written_is_read)
{
    write_and_read_sizes(POOL_COUNT, false, 0);
}

Test(value_file, what_was_written_in_odd_parts_with_a_hint_is_read)
{
    write_and_read_sizes(POOL_COUNT, true, 10007);
}

Test(value_file, one_buffer_is_enough)
{
    write_and_read_sizes(1, true, 0);
}

Test(value_file, a_hint_that_was_too_large_leaves_nothing_behind_the_value)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    uint64_t received;
    write_value(&bench, 1, 300 * KIB + 5, 3 * MIB, 0, &kept);
    cr_assert_eq(file_size(&bench, 1), (int64_t)(304 * KIB));
    cr_assert_eq(read_value(&bench, 1, &kept, &received), 0);
    write_value(&bench, 2, 300 * KIB + 5, 300 * KIB, 0, &kept);
    cr_assert_eq(file_size(&bench, 2), (int64_t)(304 * KIB));
    cr_assert_eq(read_value(&bench, 2, &kept, &received), 0);
    cr_assert_eq(received, 300 * KIB + 5);
    bench_close(&bench);
}

Test(value_file, descriptor_is_what_the_format_says)
{
    static struct kept_descriptor kept;
    static uint8_t block[64 * KIB];
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    write_value(&bench, 1, 128 * KIB + 3, 0, 1000, &kept);
    cr_assert_eq(kept.size, 32 + 3 * 4);
    cr_assert_eq(load_u32(kept.bytes), 2);
    cr_assert_eq(load_u32(kept.bytes + 4), 65536);
    cr_assert_eq(load_u64(kept.bytes + 8), 128 * KIB + 3);
    cr_assert_eq(load_u64(kept.bytes + 16), upload_name(1).version.clock);
    cr_assert_eq(load_u32(kept.bytes + 24), upload_name(1).version.origin);
    cr_assert_eq(load_u32(kept.bytes + 28), 0);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t size = i < 2 ? sizeof block : 3;
        stream_fill(1, (uint64_t)i * sizeof block, block, size);
        cr_assert_eq(load_u32(kept.bytes + 32 + 4 * i), crc32c(block, size));
    }
    bench_close(&bench);
}

/* ---- errors ---- */

Test(value_file, too_large_a_value_fails_once_and_leaves_no_file)
{
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    struct upload upload = {.stream = 5};
    struct value_file_name name = upload_name(5);
    struct value_writer_events events = {&upload, upload_on_room, upload_on_finished};
    cr_assert_eq(value_writer_open(bench.pool, &name, 70000, 0, &events, &upload.writer), 0);
    uint32_t room;
    uint8_t *data = value_writer_buffer(upload.writer, &room);
    cr_assert_eq(room, VALUE_FILE_BUFFER_SIZE);
    memset(data, 1, 70001);
    cr_assert_eq(value_writer_filled(upload.writer, 70000), 0);
    cr_assert_eq(value_writer_buffer(upload.writer, &room), data + 70000);
    cr_assert_eq(value_writer_filled(upload.writer, 1), -EFBIG);
    cr_assert_null(value_writer_buffer(upload.writer, &room));
    cr_assert_eq(value_writer_error(upload.writer), -EFBIG);
    RUN_UNTIL(bench.world, file_size(&bench, 5) == -ENOENT);
    value_writer_finish(upload.writer);
    cr_assert_eq(upload.finishes, 0, "events come from the loop");
    RUN_UNTIL(bench.world, upload.finishes == 1);
    cr_assert_eq(upload.result, -EFBIG);
    value_writer_close(upload.writer, true);
    bench_close(&bench);
}

Test(value_file, without_its_folder_it_fails)
{
    struct bench bench;
    bench_open(&bench, 2);
    struct upload upload = {.stream = 1, .size = 3 * MIB};
    struct value_file_name name = upload_name(1);
    name.partition = 200;
    struct value_writer_events events = {&upload, upload_on_room, upload_on_finished};
    cr_assert_eq(value_writer_open(bench.pool, &name, upload.size, 0, &events, &upload.writer), 0);
    upload_pump(&upload);
    cr_assert_eq(upload.sent, 2 * VALUE_FILE_BUFFER_SIZE, "filled while the file is being opened");
    RUN_UNTIL(bench.world, upload.finishes == 1);
    cr_assert_eq(upload.result, -ENOENT);
    value_writer_close(upload.writer, false);
    bench_close(&bench);
}

Test(value_file, a_name_that_exists_is_not_touched)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    uint64_t received;
    write_value(&bench, 1, 300000, 0, 0, &kept);
    struct upload upload = {.stream = 1, .size = 600000};
    upload_open(&upload, bench.pool, 0);
    upload_pump(&upload);
    RUN_UNTIL(bench.world, upload.finishes == 1);
    cr_assert_eq(upload.result, -EEXIST);
    value_writer_close(upload.writer, false);
    RUN_UNTIL(bench.world, !stream_pool_is_busy(bench.pool));
    cr_assert_eq(read_value(&bench, 1, &kept, &received), 0);
    bench_close(&bench);
}

static uint32_t count_refused(const struct upload *uploads, uint32_t count)
{
    uint32_t refused = 0;
    for (uint32_t i = 0; i < count; i++) {
        int error = value_writer_error(uploads[i].writer);
        cr_assert(error == 0 || error == -ENFILE);
        refused += error != 0;
    }
    return refused;
}

Test(value_file, too_many_files_are_an_error_of_those_too_many)
{
    static struct upload uploads[40];
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    for (uint32_t i = 0; i < 40; i++) {
        uploads[i] = (struct upload){.stream = i, .size = 1000, .pause_at = 1};
        upload_open(&uploads[i], bench.pool, 0);
    }
    RUN_UNTIL(bench.world, count_refused(uploads, 40) == 8);
    run_passes(bench.world, 50);
    cr_assert_eq(count_refused(uploads, 40), 8);
    for (uint32_t i = 0; i < 40; i++)
        value_writer_close(uploads[i].writer, false);
    bench_close(&bench);
}

Test(value_file, what_is_not_there_is_said_to_be_not_there)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    uint64_t received;
    write_value(&bench, 1, 300000, 0, 0, &kept);
    struct value_file_name name = upload_name(1);
    value_file_remove(bench.pool, &name);
    RUN_UNTIL(bench.world, !stream_pool_is_busy(bench.pool));
    cr_assert_eq(read_value(&bench, 1, &kept, &received), -ENOENT);
    cr_assert_eq(received, 0);
    value_file_remove(bench.pool, &name);
    cr_assert_eq(bench.lines.count, 0, "nothing is wrong with that");
    bench_close(&bench);
}

Test(value_file, a_bad_descriptor_is_refused)
{
    struct bench bench;
    bench_open(&bench, 1);
    struct value_file_name name = upload_name(1);
    struct value_reader *reader;
    struct value_reader_events events = {0};
    uint8_t bytes[VALUE_FILE_DESCRIPTOR_HEADER_SIZE + 4] = {0};
    cr_assert_eq(value_reader_open(bench.pool, &name, (struct slice){bytes, 31}, &events, &reader),
                 -EBADMSG);
    cr_assert_eq(value_reader_open(bench.pool, &name, (struct slice){bytes, 36}, &events, &reader),
                 -EPROTONOSUPPORT);
    bench_close(&bench);
}

/* ---- damage ---- */

static void damage(struct bench *bench, uint32_t stream, uint64_t offset)
{
    uint8_t byte;
    int file = open_value(bench, stream, IO_OPEN_WRITE);
    cr_assert_eq(read_file(bench->world, file, &byte, 1, offset), 1);
    byte ^= 4;
    cr_assert_eq(write_file(bench->world, file, &byte, 1, offset, IO_WRITE_PLAIN), 1);
    cr_assert_eq(sync_file(bench->world, file), 0);
    cr_assert_eq(close_file(bench->world, file), 0);
}

Test(value_file, damage_is_never_shown_and_told_with_file_and_offset)
{
    static struct kept_descriptor kept;
    struct bench bench;
    struct download download;
    bench_open(&bench, POOL_COUNT);
    write_value(&bench, 1, 1 * MIB, 0, 0, &kept);
    damage(&bench, 1, 600 * KIB);
    download_value(&bench, 1, &kept, &download);
    cr_assert_eq(download.result, -EBADMSG);
    cr_assert_eq(download.received, 512 * KIB, "the pieces before it are good");
    cr_assert_not_null(strstr(download.path, "/01/0123456789abcdf0-0000000000000001fedcba98"));
    cr_assert_eq(download.told.offset, 589824);
    cr_assert_str_eq(download.told.what, "its checksum is wrong");
    cr_assert(download.told.is_read);
    cr_assert_eq(bench.lines.count, 0, "whose it is says it");
    bench_close(&bench);
}

Test(value_file, damage_in_the_padding_does_not_matter)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    uint64_t received;
    write_value(&bench, 1, 300 * KIB + 1, 0, 0, &kept);
    damage(&bench, 1, 300 * KIB + 1);
    cr_assert_eq(read_value(&bench, 1, &kept, &received), 0);
    damage(&bench, 1, 300 * KIB);
    cr_assert_eq(read_value(&bench, 1, &kept, &received), -EBADMSG);
    bench_close(&bench);
}

Test(value_file, a_file_that_is_too_short_is_damaged)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    struct download download;
    write_value(&bench, 1, 1 * MIB, 0, 0, &kept);
    const uint64_t ends[] = {1 * MIB - 4096, 512 * KIB, 1, 0};
    for (uint32_t i = 0; i < 4; i++) {
        struct io_op op = {0};
        io_truncate(bench.io, &op, file_path(&bench, 1), ends[i]);
        cr_assert_eq(io_wait(bench.io, &op), 0);
        download_value(&bench, 1, &kept, &download);
        cr_assert_eq(download.result, -EBADMSG);
        cr_assert_eq(download.received, round_down(ends[i], 256 * KIB));
        cr_assert_eq(download.told.offset, round_down(ends[i], 64 * KIB));
        cr_assert_str_eq(download.told.what, "the file ends before");
    }
    bench_close(&bench);
}

/* ---- ending early ---- */

/* Closes a writer after `passes`; returns whether it had finished. */
static bool abort_upload(uint32_t passes, bool hinted, bool keep)
{
    struct bench bench;
    bench_open(&bench, 3);
    struct upload upload = {.stream = 4, .size = 1300000};
    upload_open(&upload, bench.pool, hinted ? 2 * upload.size : 0);
    upload_pump(&upload);
    for (uint32_t i = 0; i < passes; i++)
        cr_assert_geq(io_run(bench.io, NS_PER_MS / 20), 0);
    bool has_finished = upload.finishes > 0;
    value_writer_close(upload.writer, keep);
    cr_assert_eq(stream_pool_streams(bench.pool), 0);
    RUN_UNTIL(bench.world, !stream_pool_is_busy(bench.pool));
    cr_assert_eq(upload.finishes, has_finished, "no event follows");
    int64_t expected = has_finished && keep ? (int64_t)round_up(upload.size, 4096) : -ENOENT;
    cr_assert_eq(file_size(&bench, 4), expected);
    bench_close(&bench);
    return has_finished;
}

Test(value_file, a_writer_may_be_closed_in_any_state, .timeout = 60)
{
    for (int keep = 0; keep < 2; keep++) {
        for (int hinted = 0; hinted < 2; hinted++) {
            uint32_t passes = 0;
            while (!abort_upload(passes, hinted, keep))
                passes += passes < 60 ? 1 : 25;
            cr_assert_gt(passes, 5);
        }
    }
}

Test(value_file, a_reader_may_be_closed_in_any_state)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, 3);
    write_value(&bench, 1, 1300000, 0, 0, &kept);
    bool has_ended = false;
    for (uint32_t passes = 0; !has_ended; passes++) {
        struct download download = {.stream = 1, .pause_at = passes % 2 == 0 ? 0 : 600000};
        download_open(&download, bench.pool, kept_slice(&kept));
        download_pump(&download);
        for (uint32_t i = 0; i < passes; i++)
            cr_assert_geq(io_run(bench.io, NS_PER_MS / 20), 0);
        has_ended = download.has_ended;
        cr_assert_eq(download.result, 0);
        value_reader_close(download.reader);
        RUN_UNTIL(bench.world, !stream_pool_is_busy(bench.pool));
        assert_pool_is_whole(bench.pool);
    }
    bench_close(&bench);
}

/* Closes its writer from its own event. */
static void close_on_finished(void *context, int result)
{
    struct upload *upload = context;
    upload->finishes++;
    upload->result = result;
    value_writer_close(upload->writer, true);
}

Test(value_file, an_event_may_close_its_stream)
{
    struct bench bench;
    bench_open(&bench, 2);
    struct upload good = {.stream = 1, .size = 700000}, bad = {.stream = 2, .size = 700000};
    struct value_writer_events events = {&good, upload_on_room, close_on_finished};
    struct value_file_name name = upload_name(1);
    cr_assert_eq(value_writer_open(bench.pool, &name, 700000, 0, &events, &good.writer), 0);
    upload_pump(&good);
    name.partition = 99;
    events.context = &bad;
    cr_assert_eq(value_writer_open(bench.pool, &name, 700000, 0, &events, &bad.writer), 0);
    upload_pump(&bad);
    RUN_UNTIL(bench.world, good.finishes == 1 && bad.finishes == 1);
    cr_assert_eq(good.result, 0);
    cr_assert_eq(bad.result, -ENOENT);
    cr_assert_eq(stream_pool_streams(bench.pool), 0);
    RUN_UNTIL(bench.world, !stream_pool_is_busy(bench.pool));
    cr_assert_eq(file_size(&bench, 1), (int64_t)round_up(700000, 4096));
    bench_close(&bench);
}

Test(value_file, a_closed_world_takes_its_streams_along)
{
    static struct kept_descriptor kept;
    for (uint32_t passes = 0; passes < 8; passes++) {
        struct bench bench;
        bench_open(&bench, 4);
        write_value(&bench, 1, 1300000, 0, 0, &kept);
        struct upload upload = {.stream = 2, .size = 1300000};
        struct download download = {.stream = 1};
        upload_open(&upload, bench.pool, 0);
        download_open(&download, bench.pool, kept_slice(&kept));
        upload_pump(&upload);
        download_pump(&download);
        struct value_file_name name = upload_name(1);
        value_file_remove(bench.pool, &name);
        for (uint32_t i = 0; i < passes; i++)
            cr_assert_geq(io_run(bench.io, NS_PER_MS / 20), 0);
        world_close(bench.world);
        stream_pool_free(bench.pool);
    }
}

Test(value_file, a_removed_file_goes_on_being_read)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, POOL_COUNT);
    write_value(&bench, 1, 5 * MIB, 0, 0, &kept);
    struct download download = {.stream = 1, .pause_at = 1};
    download_open(&download, bench.pool, kept_slice(&kept));
    download_pump(&download);
    RUN_UNTIL(bench.world, download.holds_piece);
    struct value_file_name name = upload_name(1);
    value_file_remove(bench.pool, &name);
    RUN_UNTIL(bench.world, file_size(&bench, 1) == -ENOENT);
    download_resume(&download);
    RUN_UNTIL(bench.world, download.has_ended);
    cr_assert_eq(download.result, 0);
    cr_assert_eq(download.received, 5 * MIB);
    value_reader_close(download.reader);
    bench_close(&bench);
}
