/* One segment's file, read at a start: sound, torn, rotten, another's. */
#include "segment_files.h"

#include "base/checksum.h"
#include "store/segment/segment_scan.h"

#define CHUNKS_MAX 4096u
#define NUMBER 77u
#define STOPPED (-12345)

struct shown {
    uint64_t offset;
    uint64_t sequence;
    uint32_t count;
};

struct bench {
    struct world *world;
    struct log log;
    uint32_t lines;
    char line[LOG_LINE_MAX + 1]; /* the last one */
    struct image image;
    struct segment_scan scan;
    struct shown shown[CHUNKS_MAX];
    uint32_t shown_count;
    uint32_t stop_after; /* 0: never */
};

static void keep_line(void *context, const char *line, uint32_t size)
{
    struct bench *bench = context;
    bench->lines++;
    memcpy(bench->line, line, size);
    bench->line[size] = '\0';
}

static struct bench *bench_open(uint64_t capacity)
{
    struct bench *bench = calloc(1, sizeof *bench);
    cr_assert_not_null(bench);
    bench->world = world_open(NULL);
    bench->log = (struct log){.level_min = LOG_WARN, .write = keep_line, .context = bench};
    make_folder(bench->world);
    image_init(&bench->image, NUMBER, capacity);
    return bench;
}

static void bench_close(struct bench *bench)
{
    image_deinit(&bench->image);
    world_close(bench->world);
    free(bench);
}

/* Every entry of the directory is what was written. */
static int show_chunk(void *context, const struct unit *unit, const uint8_t *data)
{
    struct bench *bench = context;
    struct unit_cursor cursor = {0};
    struct unit_record record;
    uint64_t sequence = unit->chunk.sequence;
    cr_assert_lt(bench->shown_count, CHUNKS_MAX);
    cr_assert_eq(unit->chunk.offset, unit->offset);
    for (uint32_t i = 0; unit_next(unit, data, &cursor, &record) == 1; i++) {
        struct segment_entry expected = entry_of(sequence, i, record.size);
        cr_assert_eq(record.entry.hash, expected.hash);
        cr_assert_eq(version_compare(record.entry.version, expected.version), 0);
        cr_assert_eq(record.entry.in_value_file, expected.in_value_file);
        cr_assert_eq(record.entry.tombstone, expected.tombstone);
    }
    cr_assert_eq(cursor.index, unit->record_count);
    bench->shown[bench->shown_count++] = (struct shown){unit->offset, sequence, unit->record_count};
    return bench->shown_count == bench->stop_after ? STOPPED : 0;
}

/* Up to `end` of the file as it lies there. */
static int scan_file(struct bench *bench, uint64_t from, uint64_t end)
{
    bench->shown_count = 0;
    bench->lines = 0;
    bench->scan = (struct segment_scan){.path = segment_file(bench->world, NUMBER),
                                        .partition = FILES_PARTITION,
                                        .file = {.is_segment = true,
                                                 .directory_id = FILES_DIRECTORY_ID,
                                                 .number = NUMBER,
                                                 .salt = salt_of(NUMBER),
                                                 .end = end},
                                        .from = from,
                                        .each = show_chunk,
                                        .context = bench,
                                        .is_damaged = true,
                                        .bytes_read = 1,
                                        .sequence_max = 1};
    return segment_scan(world_io(bench->world), &bench->log, &bench->scan);
}

/* The image as it is now, all of it. */
static int scan_image(struct bench *bench)
{
    image_write(&bench->image, bench->world, bench->image.end);
    return scan_file(bench, SEGMENT_DATA_OFFSET, bench->image.end);
}

static void expect_sound(const struct bench *bench, uint32_t chunks)
{
    cr_expect_eq(bench->shown_count, chunks);
    cr_expect(!bench->scan.is_damaged);
    cr_expect_eq(bench->lines, 0, "%s", bench->line);
}

/* Damage was logged, with the file and where it begins and ends. */
static void expect_damage(const struct bench *bench, uint64_t from, uint64_t upto)
{
    char text[96];
    (void)snprintf(text, sizeof text, "from offset %" PRIu64 " to %" PRIu64, from, upto);
    cr_expect(bench->scan.is_damaged);
    cr_expect_not_null(strstr(bench->line, text), "%s", bench->line);
    cr_expect_not_null(strstr(bench->line, "/a7/seg-000000000000004d"), "%s", bench->line);
}

/* Chunks of `sizes` bytes a record; returns their offsets. */
static void add_chunks(struct image *image, uint32_t count, uint32_t records, uint32_t record_size,
                       uint64_t *ret_offsets)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = image_add_chunk(image, records, record_size);
        if (ret_offsets != NULL)
            ret_offsets[i] = offset;
    }
}

/* ---- sound ones ---- */

Test(segment_scan, chunks_are_shown_in_order)
{
    struct bench *bench = bench_open(8 * MIB);
    uint64_t offsets[9];
    add_chunks(&bench->image, 3, 3, 49, offsets);
    add_chunks(&bench->image, 3, 1000, 1000, offsets + 3);
    add_chunks(&bench->image, 1, 1, SEGMENT_CHUNK_SIZE_MAX - 152, offsets + 6);
    add_chunks(&bench->image, 1, 13105, 49, offsets + 7);
    add_chunks(&bench->image, 1, 1, 49, offsets + 8);
    cr_assert_eq(scan_image(bench), 0);
    expect_sound(bench, 9);
    for (uint32_t i = 0; i < 9; i++) {
        cr_assert_eq(bench->shown[i].offset, offsets[i]);
        cr_assert_eq(bench->shown[i].sequence, NUMBER * 1000 + 1 + i);
    }
    cr_assert_eq(bench->shown[7].count, 13105);
    cr_assert_eq(bench->scan.sequence_max, bench->image.sequence);
    bench_close(bench);
}

Test(segment_scan, records_of_large_chunks_are_not_read)
{
    struct bench *bench = bench_open(9 * MIB);
    add_chunks(&bench->image, 8, 15, 69000, NULL);
    cr_assert_eq(scan_image(bench), 0);
    expect_sound(bench, 8);
    cr_assert_leq(bench->scan.bytes_read, 256 * KIB + 8 * SEGMENT_BLOCK_SIZE);
    bench_close(bench);
}

Test(segment_scan, small_chunks_are_read_many_at_once)
{
    struct bench *bench = bench_open(4 * MIB);
    add_chunks(&bench->image, 1000, 4, 100, NULL);
    cr_assert_eq(scan_image(bench), 0);
    expect_sound(bench, 1000);
    cr_assert_eq(bench->scan.bytes_read, bench->image.end, "each byte once");
    bench_close(bench);
}

Test(segment_scan, begins_where_it_is_told_to)
{
    struct bench *bench = bench_open(4 * MIB);
    uint64_t offsets[10];
    add_chunks(&bench->image, 10, 100, 1000, offsets);
    image_write(&bench->image, bench->world, bench->image.end);
    for (uint32_t first = 0; first < 10; first++) {
        cr_assert_eq(scan_file(bench, offsets[first], bench->image.end), 0);
        expect_sound(bench, 10 - first);
        cr_assert_eq(bench->shown[0].offset, offsets[first]);
    }
    cr_assert_eq(scan_file(bench, bench->image.end, bench->image.end), 0);
    expect_sound(bench, 0);
    cr_assert_eq(bench->scan.bytes_read, 0);
    cr_assert_eq(bench->scan.sequence_max, 0);
    bench_close(bench);
}

Test(segment_scan, what_lies_behind_the_end_is_not_looked_at)
{
    struct bench *bench = bench_open(4 * MIB);
    uint64_t offsets[4];
    add_chunks(&bench->image, 4, 30, 1000, offsets);
    stream_fill(1, 0, bench->image.bytes + offsets[3],
                4096); /* torn: it was never in the manifest */
    image_write(&bench->image, bench->world, bench->image.end);
    cr_assert_eq(scan_file(bench, SEGMENT_DATA_OFFSET, offsets[3]), 0);
    expect_sound(bench, 3);
    cr_assert_eq(scan_file(bench, SEGMENT_DATA_OFFSET, offsets[2]), 0);
    expect_sound(bench, 2);
    cr_assert_eq(bench->scan.sequence_max, NUMBER * 1000 + 2);
    bench_close(bench);
}

Test(segment_scan, stops_with_what_each_returns)
{
    struct bench *bench = bench_open(4 * MIB);
    add_chunks(&bench->image, 5, 3, 100, NULL);
    bench->stop_after = 2;
    cr_assert_eq(scan_image(bench), STOPPED);
    cr_assert_eq(bench->shown_count, 2);
    cr_assert_eq(bench->lines, 0, "whose error it is tells it");
    bench_close(bench);
}

/* ---- damage ---- */

#define CHUNKS 6u
#define ROTTEN 3u

/* Six chunks with the bytes at `at` of the fourth changed. */
static struct bench *open_rotten(uint32_t records, uint32_t record_size, uint64_t at,
                                 uint64_t *ret_offsets)
{
    struct bench *bench = bench_open(8 * MIB);
    add_chunks(&bench->image, CHUNKS, records, record_size, ret_offsets);
    bench->image.bytes[ret_offsets[ROTTEN] + at] ^= 0x10;
    cr_assert_eq(scan_image(bench), 0);
    return bench;
}

static void expect_all_but_the_rotten(const struct bench *bench, const uint64_t *offsets)
{
    cr_expect_eq(bench->shown_count, CHUNKS - 1);
    for (uint32_t i = 0; i < bench->shown_count; i++)
        cr_expect_eq(bench->shown[i].offset, offsets[i < ROTTEN ? i : i + 1]);
    cr_expect_eq(bench->lines, 1);
    expect_damage(bench, offsets[ROTTEN], offsets[ROTTEN + 1]);
}

Test(segment_scan, rotten_chunk_header_costs_its_chunk_only)
{
    static const uint32_t sizes[] = {100, 5000, 60000};
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t offsets[CHUNKS];
        struct bench *bench = open_rotten(15, sizes[i], 40, offsets);
        expect_all_but_the_rotten(bench, offsets);
        bench_close(bench);
    }
}

Test(segment_scan, rotten_directory_costs_its_chunk_only)
{
    static const uint32_t counts[] = {10, 1000, 13000};
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t offsets[CHUNKS];
        uint64_t last = segment_chunk_records_offset(counts[i]) - 1;
        struct bench *bench = open_rotten(counts[i], 50, last, offsets);
        expect_all_but_the_rotten(bench, offsets);
        bench_close(bench);
    }
}

Test(segment_scan, rotten_record_is_not_seen_here)
{
    uint64_t offsets[CHUNKS];
    struct bench *bench = open_rotten(10, 5000, segment_chunk_records_offset(10) + 100, offsets);
    expect_sound(bench, CHUNKS);
    bench_close(bench);
}

Test(segment_scan, sequence_of_a_sound_header_counts_without_its_directory)
{
    struct bench *bench = bench_open(MIB);
    add_chunks(&bench->image, 1, 3, 100, NULL);
    uint64_t last = image_add_chunk(&bench->image, 3, 100);
    bench->image.bytes[last + SEGMENT_CHUNK_HEADER_SIZE] ^= 1;
    cr_assert_eq(scan_image(bench), 0);
    cr_assert_eq(bench->shown_count, 1);
    cr_assert_eq(bench->scan.sequence_max, bench->image.sequence);
    expect_damage(bench, last, bench->image.end);
    bench_close(bench);
}

Test(segment_scan, first_and_last_chunk_may_be_rotten)
{
    struct bench *bench = bench_open(4 * MIB);
    uint64_t offsets[CHUNKS];
    add_chunks(&bench->image, CHUNKS, 20, 5000, offsets);
    memset(bench->image.bytes + offsets[0], 0, 4096);
    memset(bench->image.bytes + offsets[CHUNKS - 1], 0, 4096);
    cr_assert_eq(scan_image(bench), 0);
    cr_assert_eq(bench->shown_count, CHUNKS - 2);
    cr_assert_eq(bench->lines, 2);
    expect_damage(bench, offsets[CHUNKS - 1], bench->image.end);
    bench_close(bench);
}

static void change_chunk(struct image *image, uint64_t offset, uint32_t at, uint64_t value)
{
    uint8_t *chunk = image->bytes + offset;
    store_u64(chunk + at, value);
    store_u32(chunk + 8, crc32c(chunk + 12, SEGMENT_CHUNK_HEADER_SIZE - 12));
}

Test(segment_scan, sound_chunks_of_others_are_not_shown)
{
    static const struct {
        uint32_t at;
        uint64_t value;
    } changes[] = {
        {16, FILES_DIRECTORY_ID + 1}, /* directory */
        {32, 5},                      /* salt */
        {40, NUMBER + 1},             /* segment */
        {48, 16 * 4096},              /* offset */
    };
    for (uint32_t i = 0; i < 4; i++) {
        struct bench *bench = bench_open(MIB);
        uint64_t offsets[3];
        add_chunks(&bench->image, 3, 5, 1000, offsets);
        change_chunk(&bench->image, offsets[1], changes[i].at, changes[i].value);
        cr_assert_eq(scan_image(bench), 0);
        cr_expect_eq(bench->shown_count, 2, "change %u", i);
        expect_damage(bench, offsets[1], offsets[2]);
        bench_close(bench);
    }
}

Test(segment_scan, chunk_that_reaches_beyond_the_end_is_damage)
{
    struct bench *bench = bench_open(MIB);
    uint64_t offsets[3];
    add_chunks(&bench->image, 3, 5, 2000, offsets);
    image_write(&bench->image, bench->world, bench->image.end);
    cr_assert_eq(scan_file(bench, SEGMENT_DATA_OFFSET, offsets[2] + 4096), 0);
    cr_expect_eq(bench->shown_count, 2);
    cr_expect_eq(bench->scan.sequence_max, NUMBER * 1000 + 2);
    expect_damage(bench, offsets[2], offsets[2] + 4096);
    bench_close(bench);
}

/* A value that a client sent looks like a chunk, behind a chunk that is rotten: without the salt it
 * is none. */
Test(segment_scan, chunk_in_a_value_is_not_taken_for_one)
{
    struct bench *bench = bench_open(MIB);
    struct image *image = &bench->image;
    uint64_t rotten = image_add_chunk(image, 1, 20000);
    uint64_t next = image_add_chunk(image, 1, 100);
    struct image forged;
    image_init(&forged, NUMBER, MIB);
    forged.end = rotten + 4096;
    uint64_t within = image_add_chunk(&forged, 2, 300);
    change_chunk(&forged, within, 32, salt_of(NUMBER) + 1);
    memcpy(image->bytes + within, forged.bytes + within, 4096);
    image->bytes[rotten] ^= 1;
    cr_assert_eq(scan_image(bench), 0);
    cr_assert_eq(bench->shown_count, 1);
    cr_assert_eq(bench->shown[0].offset, next);
    expect_damage(bench, rotten, next);
    image_deinit(&forged);
    bench_close(bench);
}

/* ---- the file ---- */

Test(segment_scan, file_that_is_too_short_is_damage)
{
    struct bench *bench = bench_open(4 * MIB);
    uint64_t offsets[4];
    add_chunks(&bench->image, 4, 15, 60000, offsets);
    static const int32_t beyond[] = {-8192, -4096, 0, 4096, 8192};
    for (uint32_t i = 5; i-- > 0;) {
        uint64_t size = offsets[2] + (uint64_t)(int64_t)beyond[i];
        struct io_op op = {0};
        image_write(&bench->image, bench->world, bench->image.end);
        io_truncate(world_io(bench->world), &op, segment_file(bench->world, NUMBER), size);
        cr_assert_eq(io_wait(world_io(bench->world), &op), 0);
        cr_assert_eq(scan_file(bench, SEGMENT_DATA_OFFSET, bench->image.end), 0);
        cr_expect(bench->scan.is_damaged);
        cr_expect_eq(bench->shown_count, beyond[i] > 0 ? 3 : 2, "%d", beyond[i]);
        cr_expect_eq(bench->lines, 1, "%s", bench->line);
    }
    bench_close(bench);
}

Test(segment_scan, empty_file_is_damage)
{
    struct bench *bench = bench_open(MIB);
    add_chunks(&bench->image, 1, 1, 100, NULL);
    int file = open_segment_file(bench->world, NUMBER, IO_OPEN_WRITE | IO_OPEN_CREATE);
    cr_assert_eq(close_file(bench->world, file), 0);
    cr_assert_eq(scan_file(bench, SEGMENT_DATA_OFFSET, bench->image.end), 0);
    cr_assert_eq(bench->shown_count, 0);
    cr_assert(bench->scan.is_damaged);
    bench_close(bench);
}

Test(segment_scan, missing_file_is_told)
{
    struct bench *bench = bench_open(MIB);
    cr_assert_eq(scan_file(bench, SEGMENT_DATA_OFFSET, 8192), -ENOENT);
    cr_assert_eq(bench->lines, 1);
    bench_close(bench);
}

Test(segment_scan, rotten_header_does_not_cost_the_chunks)
{
    struct bench *bench = bench_open(MIB);
    add_chunks(&bench->image, 3, 5, 1000, NULL);
    bench->image.bytes[17] ^= 1;
    cr_assert_eq(scan_image(bench), 0);
    cr_assert_eq(bench->shown_count, 3);
    cr_assert(bench->scan.is_damaged);
    cr_assert_eq(bench->lines, 1);
    bench_close(bench);
}

static int scan_with_header(const struct segment_header *header, uint16_t format,
                            struct bench **ret_bench)
{
    struct bench *bench = bench_open(MIB);
    add_chunks(&bench->image, 3, 5, 1000, NULL);
    uint8_t *block = bench->image.bytes;
    segment_header_encode(header, block);
    store_u16(block + 12, format);
    store_u32(block + 8, crc32c(block + 12, SEGMENT_BLOCK_SIZE - 12));
    *ret_bench = bench;
    return scan_image(bench);
}

Test(segment_scan, foreign_directory_is_refused)
{
    struct bench *bench;
    struct segment_header header = image_header(&(struct image){.number = NUMBER});
    header.directory_id++;
    cr_assert_eq(scan_with_header(&header, SEGMENT_FORMAT, &bench), -EXDEV);
    cr_assert_eq(bench->shown_count, 0);
    cr_assert_eq(bench->lines, 1);
    bench_close(bench);
}

Test(segment_scan, other_format_is_refused_with_both_formats)
{
    struct bench *bench;
    struct segment_header header = image_header(&(struct image){.number = NUMBER});
    cr_assert_eq(scan_with_header(&header, 9, &bench), -EPROTONOSUPPORT);
    cr_assert_eq(bench->shown_count, 0);
    cr_assert_not_null(strstr(bench->line, "format 9"));
    cr_assert_not_null(strstr(bench->line, "format 1"));
    bench_close(bench);
}

Test(segment_scan, header_of_another_segment_is_damage)
{
    for (uint32_t i = 0; i < 3; i++) {
        struct bench *bench;
        struct segment_header header = image_header(&(struct image){.number = NUMBER});
        header.number += i == 0;
        header.salt += i == 1;
        header.partition += i == 2;
        cr_assert_eq(scan_with_header(&header, SEGMENT_FORMAT, &bench), 0);
        cr_assert_eq(bench->shown_count, 3, "the chunks are its own");
        cr_assert(bench->scan.is_damaged);
        bench_close(bench);
    }
}
