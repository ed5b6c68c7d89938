/* A log in a fresh directory on a real disk, driven pass by pass; and its files, looked at and
 * damaged behind its back.
 *
 * Write number n has the key "key-n" and a value that n and its size determine; its version's clock
 * is n. */
#ifndef TESTS_STORE_WAL_WAL_FIXTURE_H
#define TESTS_STORE_WAL_WAL_FIXTURE_H

#include "base/prng.h"
#include "base/units.h"
#include "store/wal/wal_recover.h"
#include "store/unit/wal_format.h"
#include "store/memory/location.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITES_MAX 100000u
#define FILES_MAX 256u
#define FILE_PATH_SIZE 192u

struct wal_fixture {
    char path[128];
    struct log log;
    struct io *io;
    struct wal *wal;
    struct wal_options options;
    uint32_t written;           /* numbers given so far */
    uint32_t sizes[WRITES_MAX]; /* of the values */
    uint64_t positions[WRITES_MAX];
    uint64_t locations[WRITES_MAX];
    bool shown[WRITES_MAX]; /* by the last recovery */
    uint32_t shown_count;
    struct wal_recovered recovered;
    uint64_t durable; /* the last event's */
    uint32_t rooms;
    int failed;
    char (*files)[FILE_PATH_SIZE]; /* paths, by fixture_list */
    uint32_t file_count;
};

static inline void fixture_durable(void *context, uint64_t position)
{
    struct wal_fixture *fixture = context;
    cr_assert_gt(position, fixture->durable, "durable only grows");
    fixture->durable = position;
}

static inline void fixture_room(void *context)
{
    ((struct wal_fixture *)context)->rooms++;
}

static inline void fixture_failed(void *context, int error)
{
    ((struct wal_fixture *)context)->failed = error;
}

static inline struct wal_fixture *fixture_create(void)
{
    struct wal_fixture *fixture = calloc(1, sizeof *fixture);
    cr_assert_not_null(fixture);
    fixture->files = calloc(FILES_MAX, FILE_PATH_SIZE);
    cr_assert_not_null(fixture->files);
    cr_assert_eq(system("mkdir -p build"), 0);
    (void)snprintf(fixture->path, sizeof fixture->path, "build/tmp-wal-%d-XXXXXX", (int)getpid());
    cr_assert_not_null(mkdtemp(fixture->path));
    log_init_stderr(&fixture->log,
                    getenv("MINIVAULT_TEST_LOG") != NULL ? LOG_DEBUG : LOG_ERROR + 1);
    fixture->options = (struct wal_options){
        .directory = fixture->path,
        .directory_id = 0xD1,
        .log_id = 7,
        .file_size = 256 * KIB,
        .buffer_size = 16 * KIB,
        .buffer_count = 4,
        .record_size_max = 64 * KIB,
        .writes_in_flight = 1,
        .use_dsync = true,
        .durability = WAL_COMMIT,
        .events = {.context = fixture,
                   .durable = fixture_durable,
                   .room = fixture_room,
                   .failed = fixture_failed},
    };
    return fixture;
}

static inline void fixture_free(struct wal_fixture *fixture)
{
    char command[256];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", fixture->path);
    cr_assert_eq(system(command), 0);
    free(fixture->files);
    free(fixture);
}

static inline void fixture_fill(uint32_t number, uint8_t *value, uint32_t size)
{
    struct prng prng = {number};
    for (uint32_t at = 0; at < size; at += 8) {
        uint64_t random = prng_next(&prng);
        memcpy(value + at, &random, size - at < 8 ? size - at : 8);
    }
}

/* Whether the record is write `number`, byte for byte. */
static inline void fixture_check_record(struct wal_fixture *fixture, const struct record *record)
{
    uint32_t number = (uint32_t)record->version.clock;
    cr_assert(number >= 1 && number <= fixture->written);
    char key[16];
    int key_size = snprintf(key, sizeof key, "key-%u", number);
    cr_assert_eq(record->key.size, (uint32_t)key_size);
    cr_assert_eq(memcmp(record->key.data, key, record->key.size), 0);
    cr_assert_eq(record->position, fixture->positions[number]);
    cr_assert_eq(record->value.size, fixture->sizes[number]);
    uint8_t *expected = malloc(record->value.size + 1);
    fixture_fill(number, expected, record->value.size);
    cr_assert_eq(memcmp(record->value.data, expected, record->value.size), 0);
    free(expected);
}

static inline int fixture_each(void *context, const struct record *record, uint64_t location)
{
    struct wal_fixture *fixture = context;
    fixture_check_record(fixture, record);
    uint32_t number = (uint32_t)record->version.clock;
    cr_assert_not(fixture->shown[number], "write %u is shown twice", number);
    fixture->shown[number] = true;
    fixture->locations[number] = location;
    fixture->shown_count++;
    return 0;
}

static inline void fixture_open_world(struct wal_fixture *fixture)
{
    struct io_options options = {.sockets_max = 4,
                                 .files_max = FILES_MAX,
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 4,
                                 .region_size = wal_memory_size(&fixture->options)};
    char message[IO_ERROR_SIZE];
    cr_assert_eq(io_open(&options, &fixture->io, message), 0, "%s", message);
    fixture->options.memory = io_region(fixture->io);
}

static inline int fixture_try_recover(struct wal_fixture *fixture, struct wal_files **ret_files)
{
    memset(fixture->shown, 0, sizeof fixture->shown);
    memset(&fixture->recovered, 0, sizeof fixture->recovered);
    fixture->shown_count = 0;
    return wal_recover(fixture->io, &fixture->log, &fixture->options, fixture_each, fixture,
                       &fixture->recovered, ret_files);
}

/* Recovers and opens. */
static inline void fixture_start(struct wal_fixture *fixture)
{
    fixture_open_world(fixture);
    struct wal_files *files = NULL;
    cr_assert_eq(fixture_try_recover(fixture, &files), 0);
    fixture->durable = fixture->recovered.last_position;
    cr_assert_eq(wal_open(fixture->io, &fixture->log, &fixture->options, files, &fixture->wal), 0);
}

/* Recovers, and leaves everything as it is. */
static inline int fixture_look(struct wal_fixture *fixture)
{
    fixture_open_world(fixture);
    struct wal_files *files = NULL;
    int result = fixture_try_recover(fixture, &files);
    if (result == 0)
        wal_files_abandon(fixture->io, files);
    io_close(fixture->io);
    return result;
}

static inline void fixture_shut(struct wal_fixture *fixture)
{
    cr_assert_eq(wal_shut(fixture->wal), 0);
    cr_assert_eq(wal_durable(fixture->wal), wal_last(fixture->wal));
    io_close(fixture->io);
    wal_free(fixture->wal);
}

/* As by kill -9. */
static inline void fixture_kill(struct wal_fixture *fixture)
{
    io_close(fixture->io);
    wal_free(fixture->wal);
}

static inline int fixture_try_append(struct wal_fixture *fixture, uint32_t size, uint8_t flags,
                                     struct wal_receipt *ret_receipt)
{
    uint32_t number = fixture->written + 1;
    cr_assert_lt(number, WRITES_MAX);
    char key[16];
    uint32_t key_size = (uint32_t)snprintf(key, sizeof key, "key-%u", number);
    uint8_t *value = malloc(size + 8);
    fixture_fill(number, value, size);
    struct record record = {.key = {(uint8_t *)key, key_size},
                            .value = {value, size},
                            .decoded_size = size,
                            .flags = flags,
                            .version = {.clock = number}};
    int result = wal_append(fixture->wal, &record, ret_receipt);
    free(value);
    if (result < 0)
        return result;
    fixture->written = number;
    fixture->sizes[number] = size;
    fixture->positions[number] = ret_receipt->position;
    fixture->locations[number] = ret_receipt->location;
    return result;
}

static inline void fixture_pass(struct wal_fixture *fixture)
{
    wal_flush(fixture->wal);
    cr_assert_geq(io_run(fixture->io, 2 * NS_PER_MS), 0);
}

/* Returns the write's number. Waits for room when there is none. */
static inline uint32_t fixture_append(struct wal_fixture *fixture, uint32_t size)
{
    struct wal_receipt receipt;
    int result = -EAGAIN;
    for (int i = 0; i < 10000 && result == -EAGAIN; i++) {
        result = fixture_try_append(fixture, size, 0, &receipt);
        if (result == -EAGAIN)
            fixture_pass(fixture);
    }
    cr_assert_eq(result, 0, "append: %d", result);
    return fixture->written;
}

static inline void fixture_settle(struct wal_fixture *fixture)
{
    for (int i = 0; i < 10000 && wal_durable(fixture->wal) < wal_last(fixture->wal); i++)
        fixture_pass(fixture);
    cr_assert_eq(wal_durable(fixture->wal), wal_last(fixture->wal));
    cr_assert_eq(fixture->durable, wal_durable(fixture->wal), "the event said so");
}

/* `count` writes as one batch, durable on return. Returns the location of the first. */
static inline uint64_t fixture_batch(struct wal_fixture *fixture, uint32_t count, uint32_t size)
{
    uint32_t first = fixture->written + 1;
    for (uint32_t i = 0; i < count; i++)
        (void)fixture_append(fixture, size);
    fixture_settle(fixture);
    return fixture->locations[first];
}

/* Exactly the writes `first` to `last` were shown by the last recovery (besides others). */
static inline bool fixture_shows(const struct wal_fixture *fixture, uint32_t first, uint32_t last)
{
    for (uint32_t number = first; number <= last; number++) {
        if (!fixture->shown[number])
            return false;
    }
    return true;
}

static inline bool fixture_hides(const struct wal_fixture *fixture, uint32_t first, uint32_t last)
{
    for (uint32_t number = first; number <= last; number++) {
        if (fixture->shown[number])
            return false;
    }
    return true;
}

/* ---- files ---- */

static inline int fixture_compare_names(const void *left, const void *right)
{
    return strcmp(left, right);
}

static inline void fixture_list(struct wal_fixture *fixture)
{
    DIR *directory = opendir(fixture->path);
    cr_assert_not_null(directory);
    fixture->file_count = 0;
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, "wal-", 4) != 0)
            continue;
        cr_assert_lt(fixture->file_count, FILES_MAX);
        (void)snprintf(fixture->files[fixture->file_count++], FILE_PATH_SIZE, "%s/%.12s",
                       fixture->path, entry->d_name);
    }
    closedir(directory);
    qsort(fixture->files, fixture->file_count, FILE_PATH_SIZE, fixture_compare_names);
}

static inline void fixture_read(const char *path, uint64_t offset, void *bytes, size_t size)
{
    int file = open(path, O_RDONLY);
    cr_assert_geq(file, 0);
    cr_assert_eq(pread(file, bytes, size, (off_t)offset), (ssize_t)size, "%s at %llu", path,
                 (unsigned long long)offset);
    close(file);
}

static inline uint64_t fixture_size(const char *path)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    return (uint64_t)status.st_size;
}

static inline void fixture_write(const char *path, uint64_t offset, const void *bytes, size_t size)
{
    int file = open(path, O_WRONLY);
    cr_assert_geq(file, 0);
    cr_assert_eq(pwrite(file, bytes, size, (off_t)offset), (ssize_t)size);
    cr_assert_eq(fsync(file), 0);
    close(file);
}

static inline void fixture_zero(const char *path, uint64_t offset, size_t size)
{
    uint8_t *zeros = calloc(1, size);
    fixture_write(path, offset, zeros, size);
    free(zeros);
}

static inline void fixture_flip(const char *path, uint64_t offset)
{
    uint8_t byte;
    fixture_read(path, offset, &byte, 1);
    byte ^= 0x10;
    fixture_write(path, offset, &byte, 1);
}

/* The file that holds a segment with records, by its place in the order of numbers; NULL: there is
 * none. */
static inline const char *fixture_segment(struct wal_fixture *fixture, uint32_t index,
                                          struct log_file_header *ret_header)
{
    fixture_list(fixture);
    uint64_t above = 0;
    for (uint32_t rank = 0;; rank++) {
        const char *found = NULL;
        struct log_file_header best = {.number = UINT64_MAX};
        for (uint32_t i = 0; i < fixture->file_count; i++) {
            uint8_t blocks[2 * WAL_BLOCK_SIZE];
            struct log_file_header header, mark;
            if (fixture_size(fixture->files[i]) < sizeof blocks)
                continue;
            fixture_read(fixture->files[i], 0, blocks, sizeof blocks);
            if (log_file_header_decode(blocks, &header) != 0 || header.number <= above ||
                header.number >= best.number)
                continue;
            if (log_file_header_decode(blocks + WAL_MARK_OFFSET, &mark) == 0 &&
                mark.number >= header.number)
                continue;
            best = header;
            found = fixture->files[i];
        }
        if (found == NULL || rank == index) {
            if (ret_header != NULL)
                *ret_header = best;
            return found;
        }
        above = best.number;
    }
}

/* The offset of the batch that holds this location. Batches of a test are small: the header is
 * found going back. */
static inline uint64_t fixture_batch_offset(const char *path, uint64_t location)
{
    uint64_t offset = round_down(location_offset(location), WAL_BLOCK_SIZE);
    for (;; offset -= WAL_BLOCK_SIZE) {
        uint8_t bytes[WAL_BATCH_HEADER_SIZE];
        struct wal_batch_header header;
        fixture_read(path, offset, bytes, sizeof bytes);
        if (wal_batch_header_decode(bytes, &header) == 0 && header.offset == offset)
            return offset;
        cr_assert_gt(offset, WAL_DATA_OFFSET);
    }
}

/* ---- a log for damaging ---- */

/* Five batches of four writes each; batch k knows that batch k - 1 is durable. */
#define FIXTURE_BATCHES 5u
#define FIXTURE_BATCH_WRITES 4u
#define FIXTURE_BATCH_VALUE 2500u

static inline void fixture_write_batches(struct wal_fixture *fixture)
{
    fixture_start(fixture);
    for (uint32_t i = 0; i < FIXTURE_BATCHES; i++)
        (void)fixture_batch(fixture, FIXTURE_BATCH_WRITES, FIXTURE_BATCH_VALUE);
    fixture_kill(fixture);
}

static inline uint64_t fixture_offset_of(struct wal_fixture *fixture, const char *path,
                                         uint32_t batch)
{
    return fixture_batch_offset(path, fixture->locations[(batch - 1) * FIXTURE_BATCH_WRITES + 1]);
}

static inline uint64_t fixture_size_of(struct wal_fixture *fixture, const char *path,
                                       uint32_t batch)
{
    uint8_t bytes[WAL_BATCH_HEADER_SIZE];
    struct wal_batch_header header;
    fixture_read(path, fixture_offset_of(fixture, path, batch), bytes, sizeof bytes);
    cr_assert_eq(wal_batch_header_decode(bytes, &header), 0);
    return wal_batch_size(&header);
}

#endif
