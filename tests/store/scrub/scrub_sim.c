/* The scrubber over a disk that rots: what is damaged is found within a pass, and told once. */
#include "tests/support/scrub_bench.h"
#include "store/disk/wait.h"
#include "store/memory/location.h"
#include "store/wal/wal_internal.h"

/* ---- damage ---- */

#define DAMAGES_MAX 16u

/* A place, and what a line about it says. */
struct planted_damage {
    char path[128];
    char words[64];
};

static void rot(struct bench *bench, const char *path, uint64_t offset, uint64_t size)
{
    cr_assert(sim_disk_rot(bench->disk, path, offset, size), "%s has no byte %" PRIu64, path,
              offset);
}

static void rot_segment(struct bench *bench, struct segment *segment, uint64_t offset,
                        uint64_t size, const char *words, struct planted_damage *ret_damage)
{
    char path[SEGMENT_PATH_MAX];
    (void)snprintf(path, SEGMENT_PATH_MAX, "%s", segment->path);
    rot(bench, path, offset, size);
    (void)snprintf(ret_damage->path, sizeof ret_damage->path, "%.100s", path);
    (void)snprintf(ret_damage->words, sizeof ret_damage->words, "%s", words);
}

/* A key whose record lies in a segment that is like no other that was taken. */
static uint32_t take_key(const struct bench *bench, uint32_t from, uint8_t *taken)
{
    for (uint32_t number = from; number < KEYS; number++) {
        struct key key;
        make_key(&key, "small", number);
        struct index_entry entry = slot_of(bench, &key);
        if (!location_is_segment(entry.location) ||
            taken[segment_of(bench, entry.location)->partition])
            continue;
        taken[segment_of(bench, entry.location)->partition] = 1;
        return number;
    }
    cr_assert(false, "every partition was taken");
    return 0;
}

/* The first chunk of a segment. */
static struct segment_chunk_header first_chunk(struct bench *bench, struct segment *segment,
                                               uint8_t *buffer, uint32_t size)
{
    char path[SEGMENT_PATH_MAX];
    struct segment_chunk_header header;
    (void)snprintf(path, SEGMENT_PATH_MAX, "%s", segment->path);
    int file = disk_wait_open(bench->io, path, IO_OPEN_READ);
    cr_assert_geq(file, 0);
    cr_assert_gt(disk_wait_read(bench->io, file, buffer, size, SEGMENT_DATA_OFFSET), 0);
    cr_assert_eq(segment_chunk_header_decode(buffer, &header), 0);
    cr_assert_eq(disk_wait_close(bench->io, file), 0);
    return header;
}

static uint32_t plant_in_segments(struct bench *bench, uint8_t *taken,
                                  struct planted_damage *damages, uint32_t *ret_corrupt)
{
    struct key key;
    static const struct {
        uint64_t offset, size;
        const char *words;
    } parts[] = {
        {0, SEGMENT_BLOCK_SIZE, "from offset 0 to 4096"},
        {SEGMENT_DATA_OFFSET, 68, "from offset 4096"},
        {SEGMENT_DATA_OFFSET + SEGMENT_CHUNK_HEADER_SIZE, SEGMENT_ENTRY_SIZE, "from offset 4096"},
    };
    uint32_t count = 0;
    for (; count < 3; count++) {
        make_key(&key, "small", take_key(bench, 0, taken));
        rot_segment(bench, segment_of(bench, slot_of(bench, &key).location), parts[count].offset,
                    parts[count].size, parts[count].words, &damages[count]);
    }
    for (uint32_t i = 0; i < 2; i++, count++) {
        char words[64];
        ret_corrupt[i] = take_key(bench, 0, taken);
        make_key(&key, "small", ret_corrupt[i]);
        uint64_t location = slot_of(bench, &key).location;
        uint64_t offset = location_offset(location);
        (void)snprintf(words, sizeof words, "the record at offset %" PRIu64 " ", offset);
        rot_segment(bench, segment_of(bench, location), offset, 1000, words, &damages[count]);
    }
    return count;
}

static int take_value_name(void *context, const char *entry)
{
    struct value_file_name *file = context;
    struct value_file_name found;
    if (value_file_name_parse(file->partition, entry, &found) == 0 &&
        found.key_hash == file->key_hash)
        *file = found;
    return 0;
}

/* The one file of the key. */
static void value_file_of(struct bench *bench, const struct key *key, char *ret_name)
{
    struct key_place place = store_place(bench->store, key->slice);
    struct value_file_name file = {(uint8_t)place.partition, place.key_hash, {0}};
    char path[32];
    (void)snprintf(path, sizeof path, "/data/%02x", place.partition);
    cr_assert_eq(io_list_directory(bench->io, path, take_value_name, &file), 0);
    cr_assert_neq(file.version.clock, 0);
    value_file_name_write(&file, ret_name);
}

static uint32_t plant_in_values(struct bench *bench, struct planted_damage *damages)
{
    uint32_t count = 0;
    for (uint32_t number = 0; number < 2; number++) {
        struct key key;
        char name[VALUE_FILE_NAME_SIZE];
        make_key(&key, "large", number == 0 ? 0 : LARGE_KEYS - 1);
        value_file_of(bench, &key, name);
        for (uint32_t block = 1; block < 5; block += 3, count++) {
            struct planted_damage *damage = &damages[count];
            uint64_t offset = (uint64_t)block * VALUE_FILE_BLOCK_SIZE;
            (void)snprintf(damage->path, sizeof damage->path, "/data%s", name);
            (void)snprintf(damage->words, sizeof damage->words, "at offset %" PRIu64 ":", offset);
            rot(bench, damage->path, offset, LARGE_SIZE - 4 * VALUE_FILE_BLOCK_SIZE);
        }
    }
    return count;
}

/* In a sealed segment, and in the one that is being written. */
static uint32_t plant_in_log(struct bench *bench, struct planted_damage *damages)
{
    uint32_t count = 0;
    const struct wal *wal = bench->store->wal;
    const struct log_file *seen = NULL;
    for (uint32_t number = KEYS; number-- > 0 && count < 2;) {
        struct key key;
        make_key(&key, "small", number);
        uint64_t location = slot_of(bench, &key).location;
        if (location_is_segment(location))
            continue;
        const struct log_file *file = wal_files_find(wal->files, location_file(location));
        if (file == seen)
            continue;
        seen = file;
        struct planted_damage *damage = &damages[count++];
        (void)snprintf(damage->path, sizeof damage->path, "%.100s", file->path);
        (void)snprintf(damage->words, sizeof damage->words, "the batch is corrupt");
        rot(bench, file->path, location_offset(location), 500);
    }
    cr_assert_eq(count, 2);
    return count;
}

static uint32_t lines_about(const struct bench *bench, const struct planted_damage *damage)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < bench->line_count; i++)
        count += strstr(bench->lines[i], damage->path) != NULL &&
                 strstr(bench->lines[i], damage->words) != NULL;
    return count;
}

static void say_lines(const struct bench *bench)
{
    for (uint32_t i = 0; i < bench->line_count; i++)
        (void)fprintf(stderr, "%s", bench->lines[i]);
}

Test(scrub, every_damage_is_found_in_one_pass_and_told_once, .timeout = 120)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        uint8_t taken[256] = {0};
        struct planted_damage damages[DAMAGES_MAX];
        uint32_t corrupt[2];
        struct bench *bench = bench_open(seed, FAST);
        fill(bench);
        cr_assert_eq(bench->line_count, 0);
        scrub_passes(bench, 1);
        cr_assert_eq(bench->line_count, 0, "a sound disk: %s", bench->lines[0]);
        uint32_t count = plant_in_segments(bench, taken, damages, corrupt);
        count += plant_in_values(bench, damages + count);
        count += plant_in_log(bench, damages + count);
        scrub_passes(bench, 1);
        for (uint32_t i = 0; i < count; i++) {
            if (lines_about(bench, &damages[i]) != 1)
                say_lines(bench);
            cr_assert_eq(lines_about(bench, &damages[i]), 1, "seed %" PRIu64 ": %s %s", seed,
                         damages[i].path, damages[i].words);
        }
        cr_assert_eq(bench->line_count, count, "%s", bench->lines[count]);
        /* With a bad header alone all records are still there: nobody can be hurt. */
        cr_assert_eq(findings_of(bench).damaged, count - 1);
        cr_assert_eq(findings_of(bench).damaged_dead, 1);
        scrub_passes(bench, 2);
        cr_assert_eq(bench->line_count, count, "told twice: %s", bench->lines[count]);
        cr_assert_eq(get_small(bench, corrupt[0]), STORE_CORRUPT);
        cr_assert_eq(get_small(bench, corrupt[1]), STORE_CORRUPT);
        bench_close(bench);
    }
}

/* ---- quarantine ---- */

Test(scrub, only_what_is_alive_puts_a_segment_aside_and_only_as_long)
{
    struct bench *bench = bench_open_with(11, FAST, 64 * MIB); /* overwrites need no proof */
    uint8_t taken[256] = {0};
    struct planted_damage ignored;
    struct key key;
    fill(bench);
    uint32_t dead = take_key(bench, 0, taken);
    uint32_t alive = take_key(bench, 0, taken);
    make_key(&key, "small", dead);
    uint64_t dead_at = slot_of(bench, &key).location;
    make_key(&key, "small", alive);
    uint64_t alive_at = slot_of(bench, &key).location;
    set_small(bench, dead);
    settle(bench);
    uint64_t offset = location_offset(dead_at) + RECORD_HEADER_SIZE;
    rot_segment(bench, segment_of(bench, dead_at), offset, 500, "", &ignored);
    offset = location_offset(alive_at) + RECORD_HEADER_SIZE;
    rot_segment(bench, segment_of(bench, alive_at), offset, 500, "", &ignored);
    scrub_passes(bench, 1);
    cr_assert(!segment_of(bench, dead_at)->is_damaged);
    cr_assert(segment_of(bench, alive_at)->is_damaged);
    cr_assert_eq(findings_of(bench).damaged, 1);
    cr_assert_eq(findings_of(bench).damaged_dead, 1);
    cr_assert_eq(bench->line_count, 1);
    set_small(bench, alive);
    settle(bench);
    scrub_passes(bench, 1);
    cr_assert(!segment_of(bench, alive_at)->is_damaged, "its only damaged record was replaced");
    bench_close(bench);
}

/* ---- a bad block ---- */

static bool covers(const struct scrub *scrub, uint64_t number, uint64_t offset)
{
    const struct scrub_file *file = &scrub->file;
    return file->phase == SCRUB_FILE_LOADING && file->is_segment && file->number == number &&
           file->next_offset <= offset && offset < file->next_offset + file->next_size;
}

/* What the device never gives costs the chunk that it is in, and is asked for once more only. */
Test(scrub, a_bad_block_costs_its_chunk_and_no_more, .timeout = 60)
{
    struct bench *bench = bench_open(13, FAST);
    uint8_t taken[256] = {0};
    uint8_t *chunk = calloc(1, SEGMENT_CHUNK_SIZE_MAX);
    struct key key;
    cr_assert_not_null(chunk);
    fill(bench);
    make_key(&key, "small", take_key(bench, 0, taken));
    struct segment *segment = segment_of(bench, slot_of(bench, &key).location);
    struct segment_chunk_header header = first_chunk(bench, segment, chunk, SEGMENT_CHUNK_SIZE_MAX);
    uint64_t size = segment_chunk_size(header.record_count, header.records_size);
    cr_assert_gt(size, 2 * SEGMENT_BLOCK_SIZE);
    uint64_t until = pass_count(bench) + 3;
    for (uint32_t i = 0; i < PASSES_MAX && pass_count(bench) < until; i++) {
        bool is_bad =
            covers(bench->store->scrub, segment->number, SEGMENT_DATA_OFFSET + SEGMENT_BLOCK_SIZE);
        sim_disk_options(bench->disk)->read_error_ppm = is_bad ? 1000000 : 0;
        pass(bench);
    }
    cr_assert_eq(pass_count(bench), until);
    struct planted_damage damage = {"seg-", ""};
    (void)snprintf(damage.words, sizeof damage.words, "from offset %u to %" PRIu64 ": ",
                   (unsigned)SEGMENT_DATA_OFFSET, SEGMENT_DATA_OFFSET + size);
    cr_assert_eq(lines_about(bench, &damage), 1);
    cr_assert_eq(bench->line_count, 1, "%s", bench->lines[1]);
    cr_assert_eq(findings_of(bench).damaged, 1);
    free(chunk);
    bench_close(bench);
}

/* ---- blocks that went astray, and writes that never came ---- */

static void write_chunk(struct bench *bench, struct segment *segment, const uint8_t *data,
                        uint32_t size)
{
    char path[SEGMENT_PATH_MAX];
    (void)snprintf(path, SEGMENT_PATH_MAX, "%s", segment->path);
    int file = disk_wait_open(bench->io, path, IO_OPEN_WRITE);
    cr_assert_geq(file, 0);
    cr_assert_eq(disk_wait_write(bench->io, file, data, size, SEGMENT_DATA_OFFSET), 0);
    cr_assert_eq(disk_wait_sync(bench->io, file), 0);
    cr_assert_eq(disk_wait_close(bench->io, file), 0);
}

/* The same records, each of them a little older: sound, and of nobody. */
static void make_older(struct segment_chunk_header *header, uint8_t *chunk)
{
    uint8_t *entry_data = chunk + SEGMENT_CHUNK_HEADER_SIZE;
    uint8_t *data = chunk + segment_chunk_records_offset(header->record_count);
    for (uint32_t i = 0; i < header->record_count; i++, entry_data += SEGMENT_ENTRY_SIZE) {
        struct segment_entry entry;
        struct record record;
        uint8_t copy[4096];
        segment_entry_decode(entry_data, &entry);
        cr_assert(entry.record_size <= sizeof copy);
        memcpy(copy, data, entry.record_size);
        cr_assert_eq(record_decode(copy, entry.record_size, &record), entry.record_size);
        record.version.clock--;
        entry.version.clock--;
        record_encode(&record, data);
        segment_entry_encode(&entry, entry_data);
        data += round_up(entry.record_size, SEGMENT_RECORD_ALIGNMENT);
    }
    segment_chunk_header_encode(header, chunk);
}

Test(scrub, a_block_of_another_segment_and_an_older_one_are_damage)
{
    struct bench *bench = bench_open(12, FAST);
    uint8_t taken[256] = {0};
    uint8_t *chunk = calloc(1, SEGMENT_CHUNK_SIZE_MAX);
    struct segment *segments[3];
    cr_assert_not_null(chunk);
    fill(bench);
    for (uint32_t i = 0; i < 3; i++) {
        struct key key;
        make_key(&key, "small", take_key(bench, 0, taken));
        segments[i] = segment_of(bench, slot_of(bench, &key).location);
    }
    struct segment_chunk_header header =
        first_chunk(bench, segments[0], chunk, SEGMENT_CHUNK_SIZE_MAX);
    write_chunk(bench, segments[1], chunk, SEGMENT_BLOCK_SIZE);
    header = first_chunk(bench, segments[2], chunk, SEGMENT_CHUNK_SIZE_MAX);
    make_older(&header, chunk);
    write_chunk(bench, segments[2], chunk,
                (uint32_t)segment_chunk_size(header.record_count, header.records_size));
    scrub_passes(bench, 1);
    cr_assert_eq(bench->line_count, 2, "%" PRIu32 " lines", bench->line_count);
    struct planted_damage astray = {"", "no sound chunk of this segment"};
    struct planted_damage older = {"", "records that should be in it are not"};
    cr_assert_eq(lines_about(bench, &astray), 1);
    cr_assert_eq(lines_about(bench, &older), 1);
    cr_assert(!segments[0]->is_damaged);
    cr_assert(segments[1]->is_damaged);
    cr_assert(segments[2]->is_damaged);
    free(chunk);
    bench_close(bench);
}
