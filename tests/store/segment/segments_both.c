/* The table of partition segments and their open files. */
#include "segment_files.h"

#define SEGMENTS_LIMIT 64u

struct bench {
    struct world *world;
    struct segments *segments;
    struct log log;
    uint32_t lines;
    struct segment *at[SEGMENTS_LIMIT]; /* by number */
    uint8_t *block;
};

static void count_line(void *context, const char *line, uint32_t size)
{
    (void)line;
    (void)size;
    ((struct bench *)context)->lines++;
}

static void bench_open(struct bench *bench, uint32_t open_max)
{
    *bench = (struct bench){.world = world_open(NULL), .block = aligned_bytes(SEGMENT_BLOCK_SIZE)};
    bench->log = (struct log){.level_min = LOG_WARN, .write = count_line, .context = bench};
    make_folder(bench->world);
    struct segments_options options = {.path = world_path(bench->world, "."),
                                       .directory_id = FILES_DIRECTORY_ID,
                                       .log_id = 3,
                                       .open_max = open_max};
    cr_assert_eq(segments_create(world_io(bench->world), &bench->log, &options, &bench->segments),
                 0);
}

static void bench_close(struct bench *bench)
{
    cr_assert_eq(segments_shut(bench->segments), 0);
    struct segments_stats stats;
    segments_stats(bench->segments, &stats);
    cr_assert_eq(stats.open_files, 0);
    cr_assert(!segments_are_busy(bench->segments));
    segments_free(bench->segments);
    world_close(bench->world);
    free(bench->block);
}

/* Segments 1 to `count`, each with a file that holds its header. */
static void add_files(struct bench *bench, uint32_t count)
{
    for (uint32_t number = 1; number <= count; number++) {
        struct image image;
        image_init(&image, number, SEGMENT_BLOCK_SIZE);
        image_write(&image, bench->world, SEGMENT_BLOCK_SIZE);
        image_deinit(&image);
        cr_assert_eq(segments_add(bench->segments, FILES_PARTITION, 1, number, &bench->at[number]),
                     0);
    }
}

static bool file_exists(struct bench *bench, uint64_t number)
{
    int file = open_segment_file(bench->world, number, IO_OPEN_READ);
    if (file >= 0)
        cr_assert_eq(close_file(bench->world, file), 0);
    else
        cr_assert_eq(file, -ENOENT);
    return file >= 0;
}

static uint64_t open_files(const struct bench *bench)
{
    struct segments_stats stats;
    segments_stats(bench->segments, &stats);
    return stats.open_files;
}

/* ---- pins that remember ---- */

struct holder {
    struct segment_pin pin;
    struct bench *bench;
    struct segment *segment;
    uint32_t done;
    int handle;
    bool unpins; /* within its completion */
};

static void hold_done(struct segment_pin *pin, int handle_or_error)
{
    struct holder *holder = container_of(pin, struct holder, pin);
    holder->done++;
    holder->handle = handle_or_error;
    if (holder->unpins && handle_or_error >= 0)
        segment_unpin(holder->bench->segments, holder->segment);
}

static int hold(struct bench *bench, struct holder *holder, uint64_t number)
{
    holder->bench = bench;
    holder->segment = bench->at[number];
    holder->pin.done = hold_done;
    holder->done = 0;
    holder->handle = segment_pin(bench->segments, holder->segment, &holder->pin);
    return holder->handle;
}

static void hold_until_open(struct bench *bench, struct holder *holder, uint64_t number)
{
    if (hold(bench, holder, number) == -EINPROGRESS)
        RUN_UNTIL(bench->world, holder->done == 1);
    cr_assert_geq(holder->handle, 0);
}

static void let_go(struct holder *holder)
{
    segment_unpin(holder->bench->segments, holder->segment);
}

/* The handle reads this very file. */
static void check_reads(struct holder *holder)
{
    struct bench *bench = holder->bench;
    struct segment_header header;
    cr_assert_eq(read_file(bench->world, holder->handle, bench->block, SEGMENT_BLOCK_SIZE, 0),
                 (int32_t)SEGMENT_BLOCK_SIZE);
    cr_assert_eq(segment_header_decode(bench->block, &header), 0);
    cr_assert_eq(header.number, holder->segment->number);
}

Test(segments, first_pin_opens_and_later_ones_find_it_open)
{
    struct bench bench;
    bench_open(&bench, 8);
    add_files(&bench, 1);
    struct holder first = {0};
    struct holder second = {0};
    cr_assert_eq(hold(&bench, &first, 1), -EINPROGRESS);
    cr_assert_eq(first.done, 0, "never from within");
    RUN_UNTIL(bench.world, first.done == 1);
    check_reads(&first);
    cr_assert_eq(hold(&bench, &second, 1), first.handle);
    let_go(&first);
    check_reads(&second);
    let_go(&second);
    cr_assert_eq(open_files(&bench), 1, "it stays open");
    cr_assert_eq(hold(&bench, &first, 1), second.handle);
    let_go(&first);
    run_passes(bench.world, 3);
    cr_assert_eq(first.done, 0);
    cr_assert_eq(second.done, 0, "a pin that is given at once is not told again");
    bench_close(&bench);
}

Test(segments, concurrent_pins_share_one_open)
{
    struct bench bench;
    bench_open(&bench, 8);
    add_files(&bench, 1);
    struct holder holders[5] = {0};
    holders[1].unpins = true;
    holders[4].unpins = true;
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(hold(&bench, &holders[i], 1), -EINPROGRESS);
    cr_assert_eq(bench.at[1]->pins, 5);
    RUN_UNTIL(bench.world, holders[4].done == 1);
    cr_assert_eq(bench.at[1]->pins, 3);
    cr_assert_eq(open_files(&bench), 1);
    for (uint32_t i = 0; i < 5; i++) {
        cr_assert_eq(holders[i].done, 1);
        cr_assert_eq(holders[i].handle, holders[0].handle);
        if (!holders[i].unpins)
            let_go(&holders[i]);
    }
    cr_assert_eq(bench.at[1]->pins, 0);
    bench_close(&bench);
}

Test(segments, failed_open_is_told_and_may_be_tried_again)
{
    struct bench bench;
    bench_open(&bench, 8);
    cr_assert_eq(segments_add(bench.segments, FILES_PARTITION, 2, 1, &bench.at[1]), 0);
    struct holder holders[2] = {0};
    for (uint32_t i = 0; i < 2; i++)
        cr_assert_eq(hold(&bench, &holders[i], 1), -EINPROGRESS);
    RUN_UNTIL(bench.world, holders[0].done == 1 && holders[1].done == 1);
    cr_assert_eq(holders[0].handle, -ENOENT);
    cr_assert_eq(holders[1].handle, -ENOENT);
    cr_assert_eq(bench.at[1]->pins, 0);
    cr_assert_eq(open_files(&bench), 0);
    struct image image;
    image_init(&image, 1, SEGMENT_BLOCK_SIZE);
    image_write(&image, bench.world, SEGMENT_BLOCK_SIZE);
    image_deinit(&image);
    hold_until_open(&bench, &holders[0], 1);
    check_reads(&holders[0]);
    let_go(&holders[0]);
    bench_close(&bench);
}

/* ---- too many open files ---- */

static bool is_open(const struct bench *bench, uint64_t number)
{
    return bench->at[number]->handle >= 0;
}

Test(segments, least_recently_used_file_is_closed)
{
    struct bench bench;
    bench_open(&bench, 3);
    add_files(&bench, 5);
    struct holder holder = {0};
    for (uint64_t number = 1; number <= 3; number++) {
        hold_until_open(&bench, &holder, number);
        let_go(&holder);
    }
    hold_until_open(&bench, &holder, 1); /* now 2 was used least recently */
    let_go(&holder);
    hold_until_open(&bench, &holder, 4);
    let_go(&holder);
    cr_assert(is_open(&bench, 1) && !is_open(&bench, 2) && is_open(&bench, 3) &&
              is_open(&bench, 4));
    hold_until_open(&bench, &holder, 5);
    let_go(&holder);
    cr_assert(is_open(&bench, 1) && !is_open(&bench, 3) && is_open(&bench, 4) &&
              is_open(&bench, 5));
    cr_assert_eq(open_files(&bench), 3);
    bench_close(&bench);
}

Test(segments, pinned_files_stay_open_beyond_the_limit)
{
    struct bench bench;
    bench_open(&bench, 2);
    add_files(&bench, 5);
    struct holder holders[5] = {0};
    for (uint32_t i = 0; i < 5; i++)
        hold_until_open(&bench, &holders[i], i + 1);
    cr_assert_eq(open_files(&bench), 5);
    for (uint32_t i = 0; i < 5; i++)
        check_reads(&holders[i]);
    let_go(&holders[3]);
    let_go(&holders[0]);
    cr_assert_eq(open_files(&bench), 3, "those that are pinned");
    cr_assert(!is_open(&bench, 1) && !is_open(&bench, 4));
    let_go(&holders[1]);
    let_go(&holders[2]);
    let_go(&holders[4]);
    cr_assert_eq(open_files(&bench), 2);
    cr_assert(is_open(&bench, 3) && is_open(&bench, 5), "the last used ones");
    bench_close(&bench);
}

Test(segments, file_that_is_wanted_again_while_it_is_closed_is_opened_again)
{
    struct bench bench;
    bench_open(&bench, 1);
    add_files(&bench, 2);
    struct holder first = {0};
    struct holder second = {0};
    struct holder again = {0};
    hold_until_open(&bench, &first, 1);
    let_go(&first);
    cr_assert_eq(hold(&bench, &second, 2), -EINPROGRESS);
    cr_assert(!is_open(&bench, 1), "its close is under way");
    cr_assert_eq(hold(&bench, &first, 1), -EINPROGRESS);
    cr_assert_eq(hold(&bench, &again, 1), -EINPROGRESS);
    RUN_UNTIL(bench.world, first.done == 1 && second.done == 1 && again.done == 1);
    cr_assert_eq(again.handle, first.handle);
    check_reads(&first);
    check_reads(&second);
    let_go(&first);
    let_go(&second);
    let_go(&again);
    cr_assert_eq(open_files(&bench), 1);
    bench_close(&bench);
}

Test(segments, nothing_stays_open_when_the_limit_is_0)
{
    struct bench bench;
    bench_open(&bench, 0);
    add_files(&bench, 3);
    struct holder holder = {0};
    for (uint64_t round = 0; round < 9; round++) {
        hold_until_open(&bench, &holder, 1 + round % 3);
        check_reads(&holder);
        let_go(&holder);
        cr_assert_eq(open_files(&bench), 0);
    }
    bench_close(&bench);
}

/* ---- removal ---- */

static void remove_segment(struct bench *bench, uint64_t number, bool unlink)
{
    bench->at[number]->state = SEGMENT_LEAVING;
    segments_remove(bench->segments, bench->at[number], unlink);
}

Test(segments, removed_segment_goes_with_its_file)
{
    struct bench bench;
    bench_open(&bench, 8);
    add_files(&bench, 3);
    struct holder holder = {0};
    hold_until_open(&bench, &holder, 1);
    let_go(&holder);
    for (uint64_t number = 1; number <= 3; number++) {
        uint32_t file = bench.at[number]->file;
        remove_segment(&bench, number, number < 3);
        cr_assert_null(segments_find_number(bench.segments, number), "at once");
        RUN_UNTIL(bench.world, !segments_are_busy(bench.segments));
        cr_assert_null(segments_find(bench.segments, file));
        cr_assert_eq(file_exists(&bench, number), number == 3);
    }
    cr_assert(segments_first(bench.segments, FILES_PARTITION) == NULL);
    cr_assert_eq(bench.lines, 0);
    bench_close(&bench);
}

/* Segment 1 with a file of so many bytes, all of which count. */
static void add_large_file(struct bench *bench, uint64_t size)
{
    add_files(bench, 1);
    struct io_op op = {0};
    io_truncate(world_io(bench->world), &op, segment_file(bench->world, 1), size);
    RUN_UNTIL(bench->world, !io_op_is_active(&op));
    segment_set_end(bench->segments, bench->at[1], size);
}

/* Whether the file has a block that begins there. */
static bool file_reaches(struct bench *bench, uint64_t number, uint64_t offset)
{
    int file = open_segment_file(bench->world, number, IO_OPEN_READ);
    if (file < 0)
        return false;
    int32_t result = read_file(bench->world, file, bench->block, SEGMENT_BLOCK_SIZE, offset);
    cr_assert_eq(close_file(bench->world, file), 0);
    return result == (int32_t)SEGMENT_BLOCK_SIZE;
}

#define LARGE_FILE (9 * MIB)

Test(segments, large_file_goes_piece_by_piece)
{
    struct bench bench;
    bench_open(&bench, 8);
    add_large_file(&bench, LARGE_FILE);
    cr_assert(file_reaches(&bench, 1, LARGE_FILE - SEGMENT_BLOCK_SIZE));
    remove_segment(&bench, 1, true);
    for (uint64_t left = LARGE_FILE; left > 2 * MIB; left -= MIB) {
        cr_assert(segments_are_going(bench.segments));
        RUN_UNTIL(bench.world, !file_reaches(&bench, 1, left - SEGMENT_BLOCK_SIZE));
        cr_assert(file_exists(&bench, 1), "%" PRIu64 " bytes are left", left);
    }
    RUN_UNTIL(bench.world, !segments_are_busy(bench.segments));
    cr_assert(!file_exists(&bench, 1));
    bench_close(&bench);
}

Test(segments, large_file_goes_at_once_when_there_is_a_hurry)
{
    struct bench bench;
    bench_open(&bench, 8);
    add_large_file(&bench, LARGE_FILE);
    remove_segment(&bench, 1, true);
    RUN_UNTIL(bench.world, !file_reaches(&bench, 1, LARGE_FILE - SEGMENT_BLOCK_SIZE));
    segments_set_hurry(bench.segments, true);
    for (bool is_whole = true; file_exists(&bench, 1);) {
        cr_assert(is_whole, "no further pieces");
        is_whole = file_reaches(&bench, 1, 4 * MIB);
        run_passes(bench.world, 1);
    }
    bench_close(&bench);
}

Test(segments, removed_segment_is_kept_for_who_pins_it)
{
    struct bench bench;
    bench_open(&bench, 0);
    add_files(&bench, 2);
    struct holder open = {0};
    struct holder opening = {0};
    hold_until_open(&bench, &open, 1);
    cr_assert_eq(hold(&bench, &opening, 2), -EINPROGRESS);
    uint32_t file = bench.at[1]->file;
    remove_segment(&bench, 1, true);
    remove_segment(&bench, 2, true);
    cr_assert_null(segments_find_number(bench.segments, 1));
    RUN_UNTIL(bench.world, opening.done == 1);
    run_passes(bench.world, 5);
    cr_assert_eq(segments_find(bench.segments, file), open.segment);
    check_reads(&open);
    check_reads(&opening);
    cr_assert(file_exists(&bench, 1) && file_exists(&bench, 2));
    let_go(&open);
    let_go(&opening);
    RUN_UNTIL(bench.world, !segments_are_busy(bench.segments));
    cr_assert_null(segments_find(bench.segments, file));
    cr_assert(!file_exists(&bench, 1) && !file_exists(&bench, 2));
    bench_close(&bench);
}

Test(segments, segment_that_is_removed_while_its_file_is_closed_goes)
{
    struct bench bench;
    bench_open(&bench, 0);
    add_files(&bench, 1);
    struct holder holder = {0};
    hold_until_open(&bench, &holder, 1);
    let_go(&holder);
    cr_assert(!is_open(&bench, 1));
    remove_segment(&bench, 1, true);
    cr_assert_eq(segments_shut(bench.segments), 0);
    cr_assert(!file_exists(&bench, 1));
    bench_close(&bench);
}

Test(segments, missing_file_is_no_reason_to_complain_when_it_is_removed)
{
    struct bench bench;
    bench_open(&bench, 1);
    cr_assert_eq(segments_add(bench.segments, FILES_PARTITION, 1, 1, &bench.at[1]), 0);
    remove_segment(&bench, 1, true);
    RUN_UNTIL(bench.world, !segments_are_busy(bench.segments));
    cr_assert_eq(bench.lines, 0);
    bench_close(&bench);
}

static void remove_what_is_alive(void *context)
{
    struct bench *bench = context;
    remove_segment(bench, 1, false);
}

static void pin_what_is_removed(void *context)
{
    struct holder *holder = context;
    struct segment_pin pin;
    remove_segment(holder->bench, 2, false);
    (void)segment_pin(holder->bench->segments, holder->segment, &pin);
}

static void unpin_what_nobody_pins(void *context)
{
    struct bench *bench = context;
    segment_unpin(bench->segments, bench->at[1]);
}

Test(segments, misuse_is_refused)
{
    struct bench bench;
    bench_open(&bench, 4);
    add_files(&bench, 2);
    struct holder holder = {0};
    cr_assert(is_refused(unpin_what_nobody_pins, &bench));
    segment_set_end(bench.segments, bench.at[1], SEGMENT_BLOCK_SIZE);
    segment_add_live(bench.segments, bench.at[1], 64);
    cr_assert(is_refused(remove_what_is_alive, &bench));
    hold_until_open(&bench, &holder, 2);
    cr_assert(is_refused(pin_what_is_removed, &holder));
    let_go(&holder);
    bench_close(&bench);
}
