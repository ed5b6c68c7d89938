/* Many streams, few buffers: who gets one, who waits, who gives back. */
#include "value_streams.h"

#include "base/prng.h"

struct bench {
    struct world *world;
    struct io *io;
    struct stream_pool *pool;
    struct log log;
};

static void bench_open(struct bench *bench, uint32_t count)
{
    struct io_options options = WORLD_OPTIONS;
    options.region_size = (size_t)count * VALUE_FILE_BUFFER_SIZE;
    options.files_max = 128;
    bench->world = world_open(&options);
    bench->io = world_io(bench->world);
    log_init_stderr(&bench->log, LOG_WARN);
    for (int i = 0; i < 3; i++) {
        char name[] = {'0', (char)('0' + i), '\0'};
        cr_assert_eq(io_make_directory(bench->io, world_path(bench->world, name)), 0);
    }
    cr_assert_eq(stream_pool_create(bench->io, &bench->log, world_path(bench->world, "."),
                                    io_region(bench->io), count, &bench->pool),
                 0);
}

static void bench_close(struct bench *bench)
{
    RUN_UNTIL(bench->world, !stream_pool_is_busy(bench->pool));
    assert_pool_is_whole(bench->pool);
    stream_pool_free(bench->pool);
    world_close(bench->world);
}

static void finish_upload(struct bench *bench, struct upload *upload, struct kept_descriptor *kept)
{
    RUN_UNTIL(bench->world, upload->finishes > 0);
    cr_assert_eq(upload->result, 0);
    if (kept != NULL)
        keep_descriptor(kept, upload->writer);
    value_writer_close(upload->writer, true);
}

static void write_value(struct bench *bench, uint32_t stream, uint64_t size,
                        struct kept_descriptor *ret_kept)
{
    struct upload upload = {.stream = stream, .size = size};
    upload_open(&upload, bench->pool, size);
    upload_pump(&upload);
    finish_upload(bench, &upload, ret_kept);
    RUN_UNTIL(bench->world, !stream_pool_is_busy(bench->pool));
}

/* While other streams are there. */
static void write_value_beside(struct bench *bench, uint32_t stream, uint64_t size)
{
    struct upload upload = {.stream = stream, .size = size};
    upload_open(&upload, bench->pool, size);
    upload_pump(&upload);
    finish_upload(bench, &upload, NULL);
}

#define MANY 50u

/* All at once; each is read as soon as it is written, while others are still being written. */
static void run_many(uint32_t pool_count, uint64_t size_max)
{
    static struct upload uploads[MANY];
    static struct download downloads[MANY];
    static struct kept_descriptor kept[MANY];
    struct bench bench;
    struct prng prng = {pool_count};
    bench_open(&bench, pool_count);
    for (uint32_t i = 0; i < MANY; i++) {
        uint64_t size = 1 + prng_below(&prng, size_max);
        uploads[i] = (struct upload){
            .stream = i, .size = size, .part_max = 1000 + (uint32_t)prng_below(&prng, 200000)};
        upload_open(&uploads[i], bench.pool, prng_below(&prng, 2) * size);
        upload_pump(&uploads[i]);
    }
    cr_assert_eq(stream_pool_streams(bench.pool), MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        finish_upload(&bench, &uploads[i], &kept[i]);
        downloads[i] = (struct download){.stream = i};
        download_open(&downloads[i], bench.pool, kept_slice(&kept[i]));
        download_pump(&downloads[i]);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        RUN_UNTIL(bench.world, downloads[i].has_ended);
        cr_assert_eq(downloads[i].result, 0);
        cr_assert_eq(downloads[i].received, uploads[i].size);
        value_reader_close(downloads[i].reader);
    }
    bench_close(&bench);
}

Test(stream_pool, fifty_streams_on_eight_buffers_all_finish, .timeout = 60)
{
    run_many(8, 2 * MIB);
}

Test(stream_pool, fifty_streams_on_one_buffer_all_finish, .timeout = 60)
{
    run_many(1, MIB);
}

Test(stream_pool, fifty_streams_on_many_buffers_all_finish, .timeout = 60)
{
    run_many(100, 3 * MIB);
}

Test(stream_pool, a_single_stream_uses_several_buffers_but_not_all)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, 16);
    struct upload upload = {.stream = 1, .size = 5 * MIB};
    upload_open(&upload, bench.pool, 0);
    upload_pump(&upload);
    cr_assert_eq(upload.sent, STREAM_BUFFERS_MAX * VALUE_FILE_BUFFER_SIZE);
    cr_assert_eq(bench.pool->free_count, 8);
    finish_upload(&bench, &upload, &kept);
    struct download download = {.stream = 1, .pause_at = 1};
    download_open(&download, bench.pool, kept_slice(&kept));
    download_pump(&download);
    RUN_UNTIL(bench.world, download.holds_piece);
    cr_assert_eq(bench.pool->free_count, 8, "it reads ahead");
    value_reader_close(download.reader);
    bench_close(&bench);
}

Test(stream_pool, those_that_hold_none_have_their_share_kept_free)
{
    static struct upload uploads[7];
    struct bench bench;
    bench_open(&bench, 8);
    for (uint32_t i = 0; i < 7; i++) {
        uploads[i] = (struct upload){.stream = i, .size = 600000};
        upload_open(&uploads[i], bench.pool, 0);
    }
    for (uint32_t i = 0; i < 7; i++) {
        upload_pump(&uploads[i]);
        cr_assert_geq(uploads[i].sent, VALUE_FILE_BUFFER_SIZE, "nobody had to wait");
    }
    cr_assert_eq(uploads[0].sent, 2 * VALUE_FILE_BUFFER_SIZE, "one was to spare");
    for (uint32_t i = 0; i < 7; i++)
        finish_upload(&bench, &uploads[i], NULL);
    bench_close(&bench);
}

Test(stream_pool, a_client_that_stalls_while_it_sends_keeps_one_buffer)
{
    static struct upload uploads[4];
    struct bench bench;
    bench_open(&bench, 16);
    for (uint32_t i = 0; i < 4; i++) {
        uploads[i] = (struct upload){.stream = i, .size = 2 * MIB, .pause_at = MIB + 5};
        upload_open(&uploads[i], bench.pool, 0);
        upload_pump(&uploads[i]);
    }
    RUN_UNTIL(bench.world, bench.pool->free_count == 12);
    run_passes(bench.world, 50);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(uploads[i].sent, MIB + 5);
    cr_assert_eq(bench.pool->free_count, 12);
    for (uint32_t i = 0; i < 4; i++) {
        upload_resume(&uploads[i]);
        finish_upload(&bench, &uploads[i], NULL);
    }
    bench_close(&bench);
}

static bool is_reading(const struct stream_pool *pool)
{
    for (uint32_t i = 0; i < pool->count; i++) {
        if (io_op_is_active(&pool->buffers[i].op))
            return true;
    }
    return false;
}

static void take_back_from_reader(bool while_reading)
{
    static struct kept_descriptor kept;
    struct bench bench;
    bench_open(&bench, 4);
    write_value(&bench, 1, 5 * MIB, &kept);
    struct download download = {.stream = 1, .pause_at = 300000};
    download_open(&download, bench.pool, kept_slice(&kept));
    download_pump(&download);
    RUN_UNTIL(bench.world, download.holds_piece);
    if (!while_reading)
        RUN_UNTIL(bench.world, !is_reading(bench.pool));
    cr_assert_eq(bench.pool->free_count, 0);
    static struct upload uploads[3];
    for (uint32_t i = 0; i < 3; i++) {
        uploads[i] = (struct upload){.stream = 10 + i, .size = 2 * MIB, .pause_at = MIB};
        upload_open(&uploads[i], bench.pool, 0);
        upload_pump(&uploads[i]);
    }
    for (uint32_t i = 0; i < 3; i++)
        RUN_UNTIL(bench.world, uploads[i].sent == MIB);
    cr_assert(download.holds_piece, "although the client still has its piece");
    download_resume(&download);
    RUN_UNTIL(bench.world, download.has_ended);
    cr_assert_eq(download.result, 0);
    cr_assert_eq(download.received, 5 * MIB, "what was given back was read again");
    value_reader_close(download.reader);
    for (uint32_t i = 0; i < 3; i++) {
        upload_resume(&uploads[i]);
        finish_upload(&bench, &uploads[i], NULL);
    }
    bench_close(&bench);
}

Test(stream_pool, what_was_read_ahead_is_taken_back_when_somebody_waits)
{
    take_back_from_reader(false);
}

Test(stream_pool, what_is_being_read_ahead_is_taken_back_once_it_was_read)
{
    take_back_from_reader(true);
}

Test(stream_pool, first_come_first_served)
{
    static struct upload uploads[5];
    struct bench bench;
    bench_open(&bench, 1);
    for (uint32_t i = 0; i < 5; i++) {
        uploads[i] = (struct upload){.stream = i, .size = 2000, .pause_at = 1000};
        upload_open(&uploads[i], bench.pool, 0);
        upload_pump(&uploads[i]);
    }
    value_writer_close(uploads[2].writer, false); /* one of those that wait gives up */
    for (uint32_t i = 0; i < 5; i++) {
        if (i == 2)
            continue;
        RUN_UNTIL(bench.world, uploads[i].sent == 1000);
        for (uint32_t j = i + 1; j < 5; j++)
            cr_assert_eq(uploads[j].sent, 0);
        upload_resume(&uploads[i]);
        finish_upload(&bench, &uploads[i], NULL);
    }
    cr_assert_eq(uploads[2].sent, 0);
    bench_close(&bench);
}

Test(stream_pool, a_newcomer_does_not_take_what_has_just_become_free)
{
    struct bench bench;
    bench_open(&bench, 1);
    struct upload holder = {.stream = 1, .size = 2, .pause_at = 1};
    struct upload waiter = {.stream = 2, .size = 2, .pause_at = 1};
    struct upload newcomer = {.stream = 3, .size = 1};
    upload_open(&holder, bench.pool, 0);
    upload_open(&waiter, bench.pool, 0);
    upload_open(&newcomer, bench.pool, 0);
    upload_pump(&holder);
    upload_pump(&waiter);
    value_writer_close(holder.writer, false);
    cr_assert_eq(bench.pool->free_count, 1);
    upload_pump(&newcomer);
    cr_assert_eq(newcomer.sent, 0);
    RUN_UNTIL(bench.world, waiter.sent == 1);
    cr_assert_eq(newcomer.sent, 0);
    value_writer_close(waiter.writer, false);
    finish_upload(&bench, &newcomer, NULL);
    bench_close(&bench);
}

/* ---- directory syncs ---- */

struct sync_probe {
    struct directory_waiter waiter;
    uint32_t count;
    int result;
};

static void sync_probe_done(struct directory_waiter *waiter, int result)
{
    struct sync_probe *probe = container_of(waiter, struct sync_probe, waiter);
    probe->count++;
    probe->result = result;
}

Test(directory_sync, one_under_way_covers_nobody_who_comes_later)
{
    struct bench bench;
    struct sync_probe probes[4];
    bench_open(&bench, 1);
    struct directory *directory = &bench.pool->directories[1];
    for (uint32_t i = 0; i < 4; i++)
        probes[i] = (struct sync_probe){0};
    directory_sync(directory, &probes[0].waiter, sync_probe_done);
    RUN_UNTIL(bench.world, !list_is_empty(&directory->covered));
    for (uint32_t i = 1; i < 4; i++)
        directory_sync(directory, &probes[i].waiter, sync_probe_done);
    directory_forget(&probes[2].waiter);
    RUN_UNTIL(bench.world, probes[0].count == 1);
    cr_assert_eq(probes[1].count, 0);
    RUN_UNTIL(bench.world, probes[1].count == 1);
    cr_assert_eq(probes[3].count, 1, "those that waited share the next one");
    cr_assert_eq(probes[2].count, 0, "forgotten");
    cr_assert_eq(probes[0].result | probes[1].result | probes[3].result, 0);
    bench_close(&bench);
}

struct sync_again {
    struct sync_probe first;
    struct sync_probe second;
    struct directory *directory;
};

static void sync_again_done(struct directory_waiter *waiter, int result)
{
    struct sync_again *again = container_of(waiter, struct sync_again, first.waiter);
    sync_probe_done(waiter, result);
    directory_sync(again->directory, &again->second.waiter, sync_probe_done);
}

Test(directory_sync, one_that_begins_while_others_are_told_covers_who_began_it)
{
    struct bench bench;
    bench_open(&bench, 1);
    struct sync_again again = {.directory = &bench.pool->directories[1]};
    struct sync_probe other = {0};
    directory_sync(again.directory, &again.first.waiter, sync_again_done);
    directory_sync(again.directory, &other.waiter, sync_probe_done);
    RUN_UNTIL(bench.world, other.count == 1);
    cr_assert_eq(again.first.count, 1);
    cr_assert_eq(again.second.count, 0, "the sync that had ended does not cover it");
    RUN_UNTIL(bench.world, again.second.count == 1);
    bench_close(&bench);
}

Test(directory_sync, a_folder_stays_open_while_there_are_streams)
{
    struct bench bench;
    bench_open(&bench, 4);
    struct directory *directory = &bench.pool->directories[1];
    struct upload lasting = {.stream = 2, .size = 1000, .pause_at = 1};
    upload_open(&lasting, bench.pool, 0);
    write_value_beside(&bench, 1, 5000);
    int handle = directory->handle;
    cr_assert_geq(handle, 0);
    write_value_beside(&bench, 4, 5000);
    cr_assert_eq(directory->handle, handle, "not opened again");
    value_writer_close(lasting.writer, false);
    RUN_UNTIL(bench.world, directory->handle < 0);
    bench_close(&bench);
}

Test(directory_sync, what_cannot_be_opened_is_an_error_of_each)
{
    struct bench bench;
    struct sync_probe probes[2];
    bench_open(&bench, 1);
    struct directory *directory = &bench.pool->directories[77];
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 2; i++) {
            probes[i] = (struct sync_probe){0};
            directory_sync(directory, &probes[i].waiter, sync_probe_done);
        }
        RUN_UNTIL(bench.world, probes[0].count == 1 && probes[1].count == 1);
        cr_assert_eq(probes[0].result, -ENOENT);
        cr_assert_eq(probes[1].result, -ENOENT);
        cr_assert_lt(directory->handle, 0);
        cr_assert(!io_op_is_active(&directory->op));
    }
    bench_close(&bench);
}

Test(stream_pool, memory_asked_for_and_not_needed_goes_back)
{
    struct bench bench;
    bench_open(&bench, 1);
    struct upload idle = {.stream = 1, .size = 1000, .pause_at = 1};
    struct upload busy = {.stream = 2, .size = 700000};
    upload_open(&idle, bench.pool, 0);
    uint32_t room;
    cr_assert_not_null(value_writer_buffer(idle.writer, &room));
    upload_open(&busy, bench.pool, 0);
    upload_pump(&busy);
    cr_assert_eq(busy.sent, 0);
    cr_assert_eq(value_writer_filled(idle.writer, 0), 0);
    cr_assert_eq(busy.sent, 0, "events come from the loop");
    finish_upload(&bench, &busy, NULL);
    value_writer_close(idle.writer, false);
    bench_close(&bench);
}
