/* Ten numbered invariants of the store, each broken on purpose: the assert that cites it stops the
 * process before anything is built on top of the breach. */
#include "tests/support/breach.h"
#include "tests/store/wal/wal_fixture.h"

#include "store/mover/mover_internal.h"
#include "store/wal/wal_internal.h"

/* ---- the log's files (wal_files.h) and its buffers (wal_buffers.h) ---- */

struct log_bench {
    struct wal_fixture *fixture;
    struct wal_files *files;
    struct wal_buffers *buffers;
    struct log_file *open; /* with a hundred records, all durable */
};

static void log_open(struct log_bench *bench)
{
    bench->fixture = fixture_create();
    fixture_start(bench->fixture);
    (void)fixture_batch(bench->fixture, 100, 100);
    bench->files = &bench->fixture->wal->files;
    bench->buffers = &bench->fixture->wal->buffers;
    for (int i = 0; i < 10000 && wal_files_spare_count(bench->files) == 0; i++)
        fixture_pass(bench->fixture);
    bench->open = wal_files_get_open(bench->files);
}

static void log_close(struct log_bench *bench)
{
    fixture_shut(bench->fixture);
    fixture_free(bench->fixture);
}

static void find_open(void *context)
{
    struct log_bench *bench = context;
    uint32_t index = bench->open->index;
    bench->open->index++;
    (void)wal_files_find(bench->files, index);
}

Test(breaches, a_file_is_where_the_table_says)
{
    struct log_bench bench;
    log_open(&bench);
    cr_expect_eq(wal_files_find(bench.files, bench.open->index), bench.open);
    cr_expect(breach_stops_at("file->index == index", find_open, &bench)); /* files, 1 */
    log_close(&bench);
}

static void take_spare(void *context)
{
    struct log_bench *bench = context;
    bench->files->spare_count = 0;
    (void)wal_files_last_spare(bench->files);
}

Test(breaches, spares_are_counted)
{
    struct log_bench bench;
    log_open(&bench);
    cr_expect_gt(wal_files_spare_count(bench.files), 0);
    cr_expect_not_null(wal_files_last_spare(bench.files));
    cr_expect(breach_stops_at("files->spare_count > 0", take_spare, &bench)); /* files, 4 */
    log_close(&bench);
}

static void open_second(void *context)
{
    struct log_bench *bench = context;
    wal_files_open_spare(bench->files, &bench->open->header);
}

Test(breaches, one_file_is_open)
{
    struct log_bench bench;
    log_open(&bench);
    cr_expect_gt(wal_files_spare_count(bench.files), 0, "it could be opened");
    cr_expect(breach_stops_at("files->open == NULL", open_second, &bench)); /* files, 5 */
    log_close(&bench);
}

static void note_number(void *context)
{
    struct log_bench *bench = context;
    bench->open->header.number = bench->files->number + 1;
    wal_files_note_durable(bench->files, bench->open);
}

Test(breaches, numbers_of_files_grow)
{
    struct log_bench bench;
    log_open(&bench);
    wal_files_note_durable(bench.files, bench.open);
    cr_expect(breach_stops_at("file->header.number <= files->number", note_number,
                              &bench)); /* files, 6 */
    log_close(&bench);
}

static void doom_one_more(void *context)
{
    struct log_bench *bench = context;
    bench->open->doomed = bench->open->live;
    wal_files_record_doomed(bench->files, bench->open->index);
}

Test(breaches, what_is_doomed_is_alive)
{
    struct log_bench bench;
    log_open(&bench);
    wal_files_record_doomed(bench.files, bench.open->index);
    wal_files_record_spared(bench.files, bench.open->index);
    cr_expect(breach_stops_at("file->doomed < file->live", doom_one_more, &bench)); /* files, 8 */
    log_close(&bench);
}

static void unpin(void *context)
{
    struct log_bench *bench = context;
    (void)wal_files_unpin(bench->files, bench->open->index);
}

Test(breaches, who_unpins_has_pinned)
{
    struct log_bench bench;
    log_open(&bench);
    cr_expect_geq(wal_files_pin(bench.files, bench.open->index), 0);
    unpin(&bench);
    cr_expect(breach_stops_at("file->pins > 0", unpin, &bench)); /* files, 9 */
    log_close(&bench);
}

static void lose_position(void *context)
{
    struct log_bench *bench = context;
    bench->buffers->position_queued--;
    (void)wal_buffers_open(bench->buffers, WAL_BLOCK_SIZE);
}

Test(breaches, the_queue_has_no_gap)
{
    struct log_bench bench;
    log_open(&bench);
    cr_expect_eq(bench.buffers->position_queued, bench.buffers->position_last);
    cr_expect(breach_stops_at("buffers->position_queued == buffers->position_last", lose_position,
                              &bench)); /* buffers, 2 */
    log_close(&bench);
}

static void overfill(void *context)
{
    struct log_bench *bench = context;
    struct record record = {0};
    struct wal_receipt receipt;
    if (!wal_buffers_open(bench->buffers, WAL_BLOCK_SIZE))
        return;
    bench->buffers->open->used = bench->buffers->open->limit;
    wal_buffers_add(bench->buffers, &record, 64, &receipt);
}

Test(breaches, a_record_fits_into_its_buffer)
{
    struct log_bench bench;
    log_open(&bench);
    cr_expect(breach_stops_at("padded_size <= buffer->limit - buffer->used", overfill,
                              &bench)); /* buffers, 6 */
    log_close(&bench);
}

/* ---- the mover's job (mover.c) and its stage (mover_stage.c) ---- */

static void commit_unwritten(void *context)
{
    mover_set_phase(context, MOVER_COMMITTING);
}

Test(breaches, a_job_is_written_and_synced_before_it_is_committed)
{
    static struct mover mover;
    mover_set_phase(&mover, MOVER_READING);
    cr_expect(breach_stops_at("phases_next[mover->phase]", commit_unwritten, &mover)); /* mover, 5 */
    mover_set_phase(&mover, MOVER_WRITING);
    cr_expect(breach_stops_at("phases_next[mover->phase]", commit_unwritten, &mover));
    mover_set_phase(&mover, MOVER_SYNCING);
    mover_set_phase(&mover, MOVER_COMMITTING);
    cr_expect_eq(mover.phase, MOVER_COMMITTING);
}

static void begin_next_round(void *context)
{
    struct mover_stage *stage = context;
    stage->count++; /* a record that no chunk has */
    mover_stage_next_round(stage);
}

Test(breaches, a_round_is_written_before_the_next)
{
    struct mover_options options = {0};
    struct mover_stats stats = {0};
    struct mover_stage stage;
    mover_stage_init(&stage, &options, &stats);
    cr_assert_eq(mover_stage_open(&stage, 4096, 1), 0);
    mover_stage_next_round(&stage);
    cr_expect(breach_stops_at("stage->written_count == stage->count", begin_next_round,
                              &stage)); /* stage, 4 */
    mover_stage_close(&stage);
    mover_stage_free(&stage);
}
