/* A store over a simulated disk, its scrubber at work, and keys in all the places that it reads:
 * the log, partition segments, value files. */
#ifndef TESTS_SUPPORT_SCRUB_BENCH_H
#define TESTS_SUPPORT_SCRUB_BENCH_H

#include "base/prng.h"
#include "io/io_sim.h"
#include "store/scrub/scrub_internal.h"
#include "store/store_internal.h"
#include "store/store_large.h"
#include "store/memory/location.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 4000u
#define LARGE_KEYS 6u
#define LARGE_SIZE ((uint32_t)(300 * KIB))
#define LINES_MAX 64u
#define LINE_SIZE 512u
#define FAST (100 * MIB)
#define PASSES_MAX 2000000u

struct bench {
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
    struct log log;
    struct store *store;
    struct store_options options;
    struct prng prng;
    uint32_t failures;
    char lines[LINES_MAX][LINE_SIZE];
    uint32_t line_count;
};

/* ---- a store ---- */

static inline void keep_line(void *context, const char *line, uint32_t size)
{
    struct bench *bench = context;
    if (bench->line_count == LINES_MAX)
        return;
    (void)snprintf(bench->lines[bench->line_count++], LINE_SIZE, "%.*s", (int)size, line);
}

static inline void on_durable(void *context, uint64_t position)
{
    (void)context;
    (void)position;
}

static inline void on_room(void *context)
{
    (void)context;
}

static inline void on_failed(void *context, int error)
{
    (void)error;
    ((struct bench *)context)->failures++;
}

static inline void bench_start(struct bench *bench)
{
    struct io_options options = {.sockets_max = 16,
                                 .files_max = store_files_max(),
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 16,
                                 .region_size = store_region_size(&bench->options)};
    sim_host_open(bench->sim, bench->disk, &options, &bench->io);
    cr_assert_eq(store_open(bench->io, &bench->log, &bench->options, &bench->store), 0);
}

static inline struct bench *bench_open_with(uint64_t seed, uint64_t rate, uint64_t cache_size)
{
    struct bench *bench = calloc(1, sizeof *bench);
    cr_assert_not_null(bench);
    bench->sim = sim_create(seed);
    bench->disk = sim_disk_create(bench->sim);
    bench->log = (struct log){.level_min = LOG_WARN, .write = keep_line, .context = bench};
    bench->prng.state = seed;
    bench->options = (struct store_options){
        .path = "/data",
        .cache_size = cache_size,
        .log_file_size = 1 * MIB,
        .value_size_max = 1 * MIB,
        .value_file_min = 64 * KIB,
        .stream_buffers = 4,
        .log_keep_bytes = 2 * MIB,
        .scrub_rate = rate,
        .durability = WAL_COMMIT,
        .lock_wait_ns = 10 * NS_PER_S,
        .events = {bench, on_durable, on_room, on_failed},
    };
    bench_start(bench);
    return bench;
}

static inline struct bench *bench_open(uint64_t seed, uint64_t rate)
{
    return bench_open_with(seed, rate, 256 * KIB);
}

static inline void bench_shut(struct bench *bench)
{
    cr_assert_eq(store_shut(bench->store), 0);
    io_close(bench->io);
    store_free(bench->store);
}

static inline void bench_free(struct bench *bench)
{
    sim_free(bench->sim);
    free(bench);
}

static inline void bench_close(struct bench *bench)
{
    bench_shut(bench);
    bench_free(bench);
}

static inline void pass(struct bench *bench)
{
    bool more = store_flush(bench->store, STORE_PASS_BYTES);
    cr_assert_geq(io_run(bench->io, more ? 0 : 20 * NS_PER_MS), 0);
    cr_assert_eq(bench->failures, 0);
}

static inline struct scrub_stats scrubbed(struct bench *bench)
{
    struct store_stats stats;
    store_stats(bench->store, &stats);
    return stats.scrub;
}

static inline struct findings_stats findings_of(struct bench *bench)
{
    struct store_stats stats;
    store_stats(bench->store, &stats);
    return stats.findings;
}

static inline uint64_t pass_count(const struct bench *bench)
{
    struct scrub_stats stats;
    scrub_stats(bench->store->scrub, &stats);
    return stats.passes;
}

/* The pass under way, and `count` whole ones. */
static inline void scrub_passes(struct bench *bench, uint64_t count)
{
    uint64_t until = pass_count(bench) + count + 1;
    for (uint32_t i = 0; i < PASSES_MAX && pass_count(bench) < until; i++)
        pass(bench);
    cr_assert_geq(pass_count(bench), until, "the scrubber stands still");
}

/* ---- keys ---- */

struct key {
    char text[24];
    struct slice slice;
};

static inline struct slice make_key(struct key *key, const char *kind, uint32_t number)
{
    int size = snprintf(key->text, sizeof key->text, "%s-%" PRIu32, kind, number);
    key->slice = (struct slice){(const uint8_t *)key->text, (uint32_t)size};
    return key->slice;
}

static inline void set_small(struct bench *bench, uint32_t number)
{
    struct key key;
    uint8_t value[3000];
    uint64_t gate;
    uint32_t size = 1000 + (uint32_t)prng_below(&bench->prng, 2000);
    for (uint32_t i = 0; i < size; i++)
        value[i] = (uint8_t)prng_below(&bench->prng, 256);
    struct slice slice = {value, size};
    make_key(&key, "small", number);
    enum store_status status;
    while ((status = store_set(bench->store, key.slice, slice, slice, false, &gate)) == STORE_BUSY)
        pass(bench);
    cr_assert_eq(status, STORE_OK);
}

static inline void delete_small(struct bench *bench, uint32_t number)
{
    struct key key;
    uint64_t gate;
    make_key(&key, "small", number);
    while (store_delete(bench->store, key.slice, &gate) == STORE_BUSY)
        pass(bench);
}

struct finished {
    bool done;
    int result;
};

static inline void on_finished(void *context, int result)
{
    *(struct finished *)context = (struct finished){true, result};
}

static inline void set_large(struct bench *bench, uint32_t number)
{
    struct key key;
    struct finished finished = {0};
    struct value_writer_events events = {&finished, on_room, on_finished};
    struct store_upload *upload;
    uint64_t gate;
    make_key(&key, "large", number);
    cr_assert_eq(store_upload_begin(bench->store, key.slice, LARGE_SIZE, NULL, &events, &upload),
                 STORE_OK);
    struct value_writer *writer = store_upload_writer(upload);
    for (uint32_t sent = 0; sent < LARGE_SIZE;) {
        uint32_t room;
        uint8_t *data = value_writer_buffer(writer, &room);
        if (data == NULL) {
            pass(bench);
            continue;
        }
        uint32_t size = (uint32_t)min_u64(room, LARGE_SIZE - sent);
        memset(data, (int)(number + sent / 1000), size);
        cr_assert_eq(value_writer_filled(writer, size), 0);
        sent += size;
    }
    value_writer_finish(writer);
    while (!finished.done)
        pass(bench);
    cr_assert_eq(finished.result, 0);
    while (store_upload_commit(upload, key.slice, &gate) == STORE_BUSY)
        pass(bench);
    store_upload_close(upload);
}

/* Until nothing changes any more: all is durable, what is dead is proved, the mover idle. */
static inline void settle(struct bench *bench)
{
    for (uint32_t calm = 0; calm < 100; calm++) {
        pass(bench);
        if (mover_is_busy(bench->store->mover) || bench->store->proofs.active > 0 ||
            store_durable(bench->store) < wal_last(bench->store->wal))
            calm = 0;
    }
}

static inline void fill(struct bench *bench)
{
    for (uint32_t i = 0; i < KEYS; i++) {
        set_small(bench, i);
        if (i % (KEYS / LARGE_KEYS) == 0)
            set_large(bench, i / (KEYS / LARGE_KEYS));
    }
    settle(bench);
    struct store_stats stats;
    store_stats(bench->store, &stats);
    cr_assert_gt(stats.segments.segments, 100);
}

/* Where a key's newest record lies. */
static inline struct index_entry slot_of(const struct bench *bench, const struct key *key)
{
    struct index_entry entry;
    struct key_place place = store_place(bench->store, key->slice);
    cr_assert_gt(index_find(bench->store->index, place.partition, place.hash, &entry, 1), 0);
    return entry;
}

static inline struct segment *segment_of(const struct bench *bench, uint64_t location)
{
    return segments_find(bench->store->segments, location_file(location));
}

struct answer {
    struct store_waiter waiter;
    enum store_status status;
};

static inline void get_done(struct store_waiter *waiter, enum store_status status,
                            const struct store_value *value)
{
    (void)value;
    container_of(waiter, struct answer, waiter)->status = status;
}

static inline enum store_status get_small(struct bench *bench, uint32_t number)
{
    struct key key;
    struct store_value value;
    struct answer answer = {{get_done}, STORE_PENDING};
    make_key(&key, "small", number);
    enum store_status status = store_get(bench->store, key.slice, &answer.waiter, &value);
    if (status != STORE_PENDING)
        return status;
    while (answer.status == STORE_PENDING)
        pass(bench);
    return answer.status;
}

#endif
