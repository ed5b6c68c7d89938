/* The table of partition segments: found, counted, in order. */
#include "segment_files.h"

#include "base/prng.h"
#include "store/memory/location.h"

struct bench {
    struct world *world;
    struct segments *segments;
    struct log log;
};

static void bench_open(struct bench *bench)
{
    bench->world = world_open(NULL);
    bench->log = (struct log){.level_min = LOG_ERROR + 1};
    struct segments_options options = {.path = world_path(bench->world, "."), .open_max = 4};
    cr_assert_eq(segments_create(world_io(bench->world), &bench->log, &options, &bench->segments),
                 0);
}

static void bench_close(struct bench *bench)
{
    cr_assert_eq(segments_shut(bench->segments), 0);
    segments_free(bench->segments);
    world_close(bench->world);
}

static struct segment *add(struct bench *bench, uint8_t partition, uint64_t number)
{
    struct segment *segment = NULL;
    cr_assert_eq(segments_add(bench->segments, partition, 1, number, &segment), 0);
    return segment;
}

static void remove_now(struct bench *bench, struct segment *segment)
{
    uint32_t file = segment->file;
    segment->state = SEGMENT_LEAVING;
    segments_remove(bench->segments, segment, false);
    cr_assert_null(segments_find(bench->segments, file), "there is nothing to wait for");
}

static struct segments_stats stats_of(const struct bench *bench)
{
    struct segments_stats stats;
    segments_stats(bench->segments, &stats);
    return stats;
}

/* ---- locations and names ---- */

Test(segments_table, locations_are_taken_apart)
{
    static const uint32_t files[] = {0, 1, LOCATION_FILES_MAX - 1};
    static const uint64_t offsets[] = {0, 8, 4096 + 152, (1ull << 31) - 8};
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t j = 0; j < 4; j++) {
            uint64_t location = location_in_segment(files[i], offsets[j]);
            cr_assert(location_is_segment(location));
            cr_assert_lt(location, 1ull << 48);
            cr_assert_eq(location_file(location), files[i]);
            cr_assert_eq(location_offset(location), offsets[j]);
        }
    cr_assert(!location_is_segment((1ull << 47) - 1));
}

Test(segments_table, names_are_parsed)
{
    uint64_t number = 7;
    cr_expect_eq(segment_name_parse("seg-00000000deadbeef", &number), 0);
    cr_expect_eq(number, 0xDEADBEEF);
    cr_expect_eq(segment_name_parse("seg-ffffffffffffffff", &number), 0);
    cr_expect_eq(number, UINT64_MAX);
    static const char *const others[] = {"",
                                         "seg-",
                                         "seg-00000000deadbee",
                                         "seg-00000000deadbeef0",
                                         "seg-00000000DEADBEEF",
                                         "seg-00000000deadbeeg",
                                         "seg--0000000deadbeef",
                                         "seg- 0000000deadbeef",
                                         "seg-00000000deadbeef.tmp",
                                         "Seg-00000000deadbeef",
                                         "xseg-00000000deadbeef",
                                         "0000000000000000-000000000000000000000000"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        cr_expect_eq(segment_name_parse(others[i], &number), -EINVAL, "%s", others[i]);
    cr_expect_eq(number, UINT64_MAX, "untouched");
}

Test(segments_table, path_names_what_is_parsed)
{
    struct bench bench;
    bench_open(&bench);
    struct segment *segment = add(&bench, 0x0F, 0x1234567890ABCDEF);
    char path[SEGMENT_PATH_MAX];
    (void)snprintf(path, SEGMENT_PATH_MAX, "%s", segment->path);
    const char *expected = "/0f/seg-1234567890abcdef";
    cr_assert_geq(strlen(path), strlen(expected));
    cr_expect_str_eq(path + strlen(path) - strlen(expected), expected);
    uint64_t number;
    cr_expect_eq(segment_name_parse(path + strlen(path) - 20, &number), 0);
    cr_expect_eq(number, segment->number);
    bench_close(&bench);
}

Test(segments_table, directory_whose_paths_are_too_long_is_refused)
{
    struct world *world = world_open(NULL);
    struct log log = {.level_min = LOG_ERROR + 1};
    struct segments *segments = NULL;
    char directory[SEGMENT_PATH_MAX];
    size_t fits = SEGMENT_PATH_MAX - sizeof "/0f/seg-1234567890abcdef";
    memset(directory, 'd', sizeof directory);
    directory[fits + 1] = '\0';
    struct segments_options options = {.path = directory};
    cr_expect_eq(segments_create(world_io(world), &log, &options, &segments), -ENAMETOOLONG);
    cr_assert_null(segments);
    directory[fits] = '\0';
    cr_assert_eq(segments_create(world_io(world), &log, &options, &segments), 0);
    struct segment *segment;
    cr_assert_eq(segments_add(segments, 0, 1, 1, &segment), 0);
    char path[SEGMENT_PATH_MAX];
    (void)snprintf(path, SEGMENT_PATH_MAX, "%s", segment->path);
    cr_expect_eq(strlen(path), SEGMENT_PATH_MAX - 1);
    segments_free(segments);
    world_close(world);
}

/* ---- who is there ---- */

Test(segments_table, empty_table_finds_nothing)
{
    struct bench bench;
    bench_open(&bench);
    cr_expect_null(segments_find(bench.segments, 0));
    cr_expect_null(segments_find(bench.segments, LOCATION_FILES_MAX - 1));
    cr_expect_null(segments_find_number(bench.segments, 0));
    cr_expect_null(segments_nth(bench.segments, 0));
    cr_expect(segments_first(bench.segments, 255) == NULL);
    cr_expect(!segments_have_empty(bench.segments));
    cr_expect_eq(stats_of(&bench).segments, 0);
    bench_close(&bench);
    segments_free(NULL);
}

Test(segments_table, partition_is_in_order_of_numbers)
{
    static const uint64_t numbers[] = {50, 10, 70, 60, 20, UINT64_MAX, 30};
    static const uint64_t sorted[] = {10, 20, 30, 50, 60, 70, UINT64_MAX};
    struct bench bench;
    bench_open(&bench);
    for (uint32_t i = 0; i < 7; i++) {
        (void)add(&bench, 9, numbers[i]);
        (void)add(&bench, 8, i + 1);
    }
    const struct segment *segment = segments_first(bench.segments, 9);
    for (uint32_t i = 0; i < 7; i++, segment = segment_next(segment)) {
        cr_assert_not_null(segment);
        cr_assert_eq(segment->number, sorted[i]);
        cr_assert_eq(segment->partition, 9);
    }
    cr_assert_null(segment);
    bench_close(&bench);
}

static void add_twice(void *context)
{
    (void)add(context, 1, 5);
}

Test(segments_table, number_that_is_used_twice_is_refused)
{
    struct bench bench;
    bench_open(&bench);
    struct segment *segment = add(&bench, 0, 5);
    cr_assert(is_refused(add_twice, &bench));
    remove_now(&bench, segment);
    (void)add(&bench, 1, 5);
    bench_close(&bench);
}

/* ---- what counts ---- */

Test(segments_table, only_what_the_manifest_names_counts)
{
    struct bench bench;
    bench_open(&bench);
    struct segment *first = add(&bench, 0, 1);
    struct segment *second = add(&bench, 0, 2);
    cr_expect_null(segments_nth(bench.segments, 0), "not in the manifest yet");
    cr_expect_eq(stats_of(&bench).segments, 0);
    cr_expect(!segments_have_empty(bench.segments));
    segment_set_end(bench.segments, second, 8192);
    cr_expect_eq(segments_nth(bench.segments, 0), second);
    cr_expect_null(segments_nth(bench.segments, 1));
    segment_set_end(bench.segments, second, 12288);
    segment_set_end(bench.segments, first, 4096);
    cr_expect_not_null(segments_nth(bench.segments, 1));
    cr_expect_null(segments_nth(bench.segments, 2));
    cr_expect_eq(stats_of(&bench).segments, 2);
    cr_expect_eq(stats_of(&bench).size_bytes, 16384);
    remove_now(&bench, second);
    cr_expect_eq(segments_nth(bench.segments, 0), first);
    cr_expect_null(segments_nth(bench.segments, 1));
    cr_expect_eq(stats_of(&bench).size_bytes, 4096);
    bench_close(&bench);
}

static uint64_t place_in(const struct segment *segment)
{
    return location_in_segment(segment->file, 4096);
}

Test(segments_table, the_living_are_counted)
{
    struct bench bench;
    bench_open(&bench);
    struct segment *segment = add(&bench, 0, 1);
    segment->created = 100;
    segment_set_end(bench.segments, segment, 8192);
    cr_expect(segments_have_empty(bench.segments));
    segment_add_live(bench.segments, segment, 64);
    segment_add_live(bench.segments, segment, 192);
    cr_expect(!segments_have_empty(bench.segments));
    cr_expect_eq(segment->live_records, 2);
    cr_expect_eq(segment->live_bytes, 256);
    cr_expect_eq(stats_of(&bench).live_records, 2);
    cr_expect_eq(stats_of(&bench).live_bytes, 256);
    segment_record_dead(bench.segments, place_in(segment), 64, UINT64_MAX);
    cr_expect(!segments_have_empty(bench.segments));
    cr_expect_eq(segment->live_bytes, 192);
    segment_record_dead(bench.segments, place_in(segment), 192, 101);
    cr_expect(segments_have_empty(bench.segments));
    cr_expect_eq(stats_of(&bench).live_records, 0);
    cr_expect_eq(stats_of(&bench).live_bytes, 0);
    cr_expect_eq(segment->created, 100, "both died after it was begun");
    cr_expect(!segment->created_changed);
    cr_expect_eq(segment->killer_last, 101, "moving away kills nothing");
    bench_close(&bench);
}

/* Its tombstone must be kept as long as the segment is, which was begun after it. */
Test(segments_table, death_before_the_segment_was_begun_makes_it_older)
{
    struct bench bench;
    bench_open(&bench);
    struct segment *segment = add(&bench, 0, 1);
    segment->created = 100;
    segment_set_end(bench.segments, segment, 8192);
    for (uint32_t i = 0; i < 4; i++)
        segment_add_live(bench.segments, segment, 64);
    segment_record_dead(bench.segments, place_in(segment), 64, 100);
    cr_expect_eq(segment->created, 99);
    cr_expect(segment->created_changed);
    segment_record_dead(bench.segments, place_in(segment), 64, 40);
    cr_expect_eq(segment->created, 39);
    segment_record_dead(bench.segments, place_in(segment), 64, 50);
    cr_expect_eq(segment->created, 39, "it never grows");
    segment_record_dead(bench.segments, place_in(segment), 64, 0);
    cr_expect_eq(segment->created, 0);
    bench_close(&bench);
}

Test(segments_table, damaged_segment_does_not_count_as_empty)
{
    struct bench bench;
    bench_open(&bench);
    struct segment *damaged = add(&bench, 0, 1);
    segment_set_end(bench.segments, damaged, 8192);
    damaged->is_damaged = true;
    cr_expect(!segments_have_empty(bench.segments));
    struct segment *sound = add(&bench, 0, 2);
    segment_set_end(bench.segments, sound, 8192);
    cr_expect(segments_have_empty(bench.segments));
    remove_now(&bench, sound);
    cr_expect(!segments_have_empty(bench.segments));
    bench_close(&bench);
}

/* ---- many, against a model ---- */

#define NUMBERS 3000u
#define STEPS 30000u

struct model {
    struct segment *at[NUMBERS]; /* by number; NULL: not there */
    uint64_t ends[NUMBERS];
    uint32_t there;
};

static void check_model(const struct bench *bench, const struct model *model)
{
    uint64_t named = 0;
    uint64_t size = 0;
    for (uint32_t number = 0; number < NUMBERS; number++) {
        struct segment *segment = model->at[number];
        cr_assert_eq(segments_find_number(bench->segments, number), segment);
        if (segment == NULL)
            continue;
        cr_assert_eq(segments_find(bench->segments, segment->file), segment);
        named += model->ends[number] > 0;
        size += model->ends[number];
    }
    cr_assert_eq(stats_of(bench).segments, named);
    cr_assert_eq(stats_of(bench).size_bytes, size);
    for (uint64_t i = 0; i < named; i++) {
        const struct segment *segment = segments_nth(bench->segments, i);
        cr_assert_not_null(segment);
        cr_assert_gt(segment->end, 0);
        cr_assert_eq(segment->end, model->ends[segment->number]);
    }
    cr_assert_null(segments_nth(bench->segments, named));
    uint64_t listed = 0;
    for (uint32_t partition = 0; partition < 256; partition++) {
        const struct segment *segment = segments_first(bench->segments, partition);
        for (; segment != NULL; segment = segment_next(segment))
            listed++;
    }
    cr_assert_eq(listed, model->there);
}

Test(segments_table, many_come_and_go_as_a_model_says)
{
    static struct model model;
    struct bench bench;
    struct prng prng = {1};
    bench_open(&bench);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint64_t number = prng_below(&prng, NUMBERS);
        struct segment **at = &model.at[number];
        uint64_t choice = prng_below(&prng, 4);
        if (*at == NULL && choice < 3) {
            *at = add(&bench, (uint8_t)(number % 7), number);
            model.ends[number] = 0;
            model.there++;
        } else if (*at != NULL && choice < 2) {
            model.ends[number] = prng_below(&prng, 100) * SEGMENT_BLOCK_SIZE;
            segment_set_end(bench.segments, *at, model.ends[number]);
        } else if (*at != NULL) {
            remove_now(&bench, *at);
            *at = NULL;
            model.there--;
        }
        if (step % 3000 == 0)
            check_model(&bench, &model);
    }
    check_model(&bench, &model);
    bench_close(&bench);
}
