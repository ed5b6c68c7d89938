/* A data directory on a simulated disk, under one number of shards after another, and a model of
 * what every key must answer. Its stores are opened one after the other, each by a process of its
 * own that ends cleanly or is killed once all is durable. */
#ifndef TESTS_STORE_RESHARD_SHARDS_BENCH_H
#define TESTS_STORE_RESHARD_SHARDS_BENCH_H

#include "tests/support/mover_bench.h"
#include "store/reshard/store_directory.h"
#include "store/store_large.h"

#define SHARDS_KEYS 240u
#define SHARDS_PARTITIONS 60u
#define SHARDS_LARGE 8u
#define SHARDS_LARGE_SIZE 9000u

struct shards {
    struct bench bench; /* of the store that is open */
    struct store_directory directory;
    uint32_t count;               /* of shards, as of the last preparation that succeeded */
    uint32_t large[SHARDS_LARGE]; /* the value that each large key has; 0: none */
    uint32_t large_last;
};

static inline struct shards *shards_create(uint64_t seed)
{
    struct shards *shards = calloc(1, sizeof *shards);
    cr_assert_not_null(shards);
    bench_init(&shards->bench, seed, SHARDS_KEYS, SHARDS_PARTITIONS);
    shards->bench.options.scrub_rate = SCRUB_OFF;
    shards->directory.handover.file.handle = -1;
    shards->count = 1;
    sim_disk_options(shards->bench.disk)->capacity = 4 * GIB;
    return shards;
}

static inline uint64_t shards_below(struct shards *shards, uint64_t limit)
{
    return prng_below(&shards->bench.prng, limit);
}

/* ---- processes ---- */

static inline void shards_begin(struct shards *shards)
{
    bench_open_host(&shards->bench, &shards->bench.io);
}

static inline int shards_prepare(struct shards *shards, uint32_t count)
{
    struct bench *bench = &shards->bench;
    bench->options.shard = 0;
    bench->options.shard_count = count;
    bench->options.handover = NULL;
    int result =
        store_directory_prepare(bench->io, &bench->log, &bench->options, &shards->directory);
    if (result == 0)
        shards->count = count;
    return result;
}

/* A process whose directory is prepared for so many. */
static inline void shards_begin_with(struct shards *shards, uint32_t count)
{
    shards_begin(shards);
    int result = shards_prepare(shards, count);
    cr_assert_eq(result, 0, "seed %" PRIu64 ": %u shards: %d", shards->bench.seed, count, result);
}

/* The process is gone, in whatever state. */
static inline void shards_end(struct shards *shards)
{
    if (!sim_host_is_crashed(shards->bench.io))
        store_directory_release(&shards->directory);
    bench_end(&shards->bench);
    store_directory_free(&shards->directory);
    shards->directory.handover.file.handle = -1;
}

static inline void shards_free(struct shards *shards)
{
    sim_free(shards->bench.sim);
    free(shards);
}

static inline int shards_open(struct shards *shards, uint32_t shard)
{
    struct bench *bench = &shards->bench;
    bench->options.shard = shard;
    bench->options.shard_count = shards->count;
    bench->options.handover = &shards->directory.handover;
    return bench_start(bench);
}

static inline void shards_shut(struct shards *shards)
{
    cr_assert_eq(store_shut(shards->bench.store), 0);
    store_free(shards->bench.store);
    shards->bench.store = NULL;
}

/* ---- large values ---- */

static inline struct slice shards_large_name(uint32_t key, char *name)
{
    int size = snprintf(name, 16, "large-%" PRIu32, key);
    return (struct slice){(const uint8_t *)name, (uint32_t)size};
}

static inline bool shards_has(const struct shards *shards, uint32_t partition)
{
    return partition % shards->count == shards->bench.options.shard;
}

static inline bool shards_has_large(const struct shards *shards, uint32_t key)
{
    char name[16];
    struct slice slice = shards_large_name(key, name);
    return shards_has(shards, hash_partition(hash_key(slice.data, slice.size)));
}

static inline uint8_t shards_byte(uint32_t number, uint32_t at)
{
    return (uint8_t)(number * 31 + at * 7 + (at >> 8));
}

static inline void shards_large_room(void *context)
{
    (void)context;
}

static inline void shards_large_finished(void *context, int result)
{
    cr_assert_eq(result, 0);
    *(bool *)context = true;
}

static inline void shards_set_large(struct shards *shards, uint32_t key)
{
    char name[16];
    struct bench *bench = &shards->bench;
    struct slice slice = shards_large_name(key, name);
    uint32_t number = ++shards->large_last;
    bool is_finished = false;
    struct value_writer_events events = {&is_finished, shards_large_room, shards_large_finished};
    struct store_upload *upload;
    cr_assert_eq(store_upload_begin(bench->store, slice, SHARDS_LARGE_SIZE, NULL, &events, &upload),
                 STORE_OK);
    struct value_writer *writer = store_upload_writer(upload);
    for (uint32_t sent = 0, room = 0; sent < SHARDS_LARGE_SIZE;) {
        uint8_t *buffer = value_writer_buffer(writer, &room);
        if (buffer == NULL) {
            cr_assert(bench_pass(bench));
            continue;
        }
        uint32_t part = (uint32_t)min_u64(room, SHARDS_LARGE_SIZE - sent);
        for (uint32_t i = 0; i < part; i++)
            buffer[i] = shards_byte(number, sent + i);
        sent += part;
        cr_assert_eq(value_writer_filled(writer, part), 0);
    }
    value_writer_finish(writer);
    while (!is_finished)
        cr_assert(bench_pass(bench));
    uint64_t gate = 0;
    enum store_status status;
    while ((status = store_upload_commit(upload, slice, &gate)) == STORE_BUSY)
        cr_assert(bench_pass(bench));
    cr_assert_eq(status, STORE_OK);
    store_upload_close(upload);
    while (store_durable(bench->store) < gate)
        cr_assert(bench_pass(bench));
    shards->large[key] = number;
}

static inline void shards_delete_large(struct shards *shards, uint32_t key)
{
    char name[16];
    uint64_t gate;
    enum store_status status;
    struct store *store = shards->bench.store;
    while ((status = store_delete(store, shards_large_name(key, name), &gate)) == STORE_BUSY)
        cr_assert(bench_pass(&shards->bench));
    cr_assert_eq(status, STORE_OK);
    while (store_durable(store) < gate)
        cr_assert(bench_pass(&shards->bench));
    shards->large[key] = 0;
}

struct shards_found {
    struct store_waiter waiter;
    bool is_done;
    enum store_status status;
    struct store_value value;
    uint8_t descriptor[VALUE_FILE_DESCRIPTOR_MAX];
};

static inline void shards_take(struct shards_found *found, enum store_status status,
                               const struct store_value *value)
{
    found->is_done = true;
    found->status = status;
    found->value = *value;
    if (status != STORE_OK)
        return;
    cr_assert(value->in_value_file);
    memcpy(found->descriptor, value->data, value->size);
    found->value.data = found->descriptor;
}

static inline void shards_answered(struct store_waiter *waiter, enum store_status status,
                                   const struct store_value *value)
{
    shards_take(container_of(waiter, struct shards_found, waiter), status, value);
}

static inline void shards_check_bytes(struct shards *shards, uint32_t key,
                                      struct shards_found *found)
{
    struct value_reader_events events = {NULL, shards_large_room};
    struct value_reader *reader = NULL;
    cr_assert_eq(store_download_open(shards->bench.store, &found->value, &events, &reader), 0);
    for (uint32_t got = 0, size = 0; got < SHARDS_LARGE_SIZE;) {
        const uint8_t *piece = value_reader_piece(reader, &size);
        cr_assert_eq(value_reader_error(reader), 0);
        if (piece == NULL) {
            cr_assert(bench_pass(&shards->bench));
            continue;
        }
        for (uint32_t i = 0; i < size; i++)
            cr_assert_eq(piece[i], shards_byte(shards->large[key], got + i));
        got += size;
        value_reader_release(reader);
    }
    store_download_close(shards->bench.store, reader);
}

static inline void shards_check_large(struct shards *shards, uint32_t key)
{
    char name[16];
    struct shards_found found = {.waiter.done = shards_answered};
    struct store_value value;
    enum store_status status =
        store_get(shards->bench.store, shards_large_name(key, name), &found.waiter, &value);
    if (status != STORE_PENDING)
        shards_take(&found, status, &value);
    while (!found.is_done)
        cr_assert(bench_pass(&shards->bench));
    cr_assert_eq(found.status, shards->large[key] == 0 ? STORE_NOT_FOUND : STORE_OK,
                 "seed %" PRIu64 ": large key %u answers %d", shards->bench.seed, key,
                 found.status);
    if (shards->large[key] != 0)
        shards_check_bytes(shards, key, &found);
}

/* ---- all keys of the shard that is open ---- */

static inline void shards_check_open(struct shards *shards)
{
    struct bench *bench = &shards->bench;
    for (uint32_t key = 0; key < bench->key_count; key++)
        if (shards_has(shards, bench_partition(bench, key)))
            bench_check_key(bench, key);
    for (uint32_t key = 0; key < SHARDS_LARGE; key++)
        if (shards_has_large(shards, key))
            shards_check_large(shards, key);
}

/* Durable when it returns. */
static inline void shards_write(struct shards *shards, uint32_t percent)
{
    struct bench *bench = &shards->bench;
    for (uint32_t key = 0; key < bench->key_count; key++) {
        if (!shards_has(shards, bench_partition(bench, key)) ||
            shards_below(shards, 100) >= percent)
            continue;
        uint32_t size = 8 + (uint32_t)shards_below(shards, shards_below(shards, 4) ? 100 : 3800);
        cr_assert_eq(shards_below(shards, 4) == 0 ? bench_delete(bench, key)
                                                  : bench_write(bench, key, size),
                     STORE_OK);
    }
    for (uint32_t key = 0; key < SHARDS_LARGE; key++) {
        if (!shards_has_large(shards, key) || shards_below(shards, 100) >= percent)
            continue;
        if (shards_below(shards, 4) == 0)
            shards_delete_large(shards, key);
        else
            shards_set_large(shards, key);
    }
    while (bench->pending_count > 0)
        cr_assert(bench_pass(bench));
}

/* In one process: every key of every shard is as it was written last. */
static inline void shards_check_all(struct shards *shards)
{
    for (uint32_t shard = 0; shard < shards->count; shard++) {
        cr_assert_eq(shards_open(shards, shard), 0, "seed %" PRIu64 ": shard %u of %u",
                     shards->bench.seed, shard, shards->count);
        shards_check_open(shards);
        shards_shut(shards);
    }
}

/* A process each: writes into every shard, and dies or not. */
static inline void shards_live(struct shards *shards, uint32_t percent)
{
    for (uint32_t shard = 0; shard < shards->count; shard++) {
        shards_begin_with(shards, shards->count);
        cr_assert_eq(shards_open(shards, shard), 0);
        shards_check_open(shards);
        shards_write(shards, percent);
        if (shards_below(shards, 2) == 0)
            cr_assert(bench_run(&shards->bench, shards_below(shards, 2 * NS_PER_S)));
        if (shards_below(shards, 2) == 0)
            shards_shut(shards);
        else
            sim_host_crash(shards->bench.io,
                           shards_below(shards, 2) == 0 ? SIM_KILL : SIM_POWER_LOSS);
        shards_end(shards);
    }
}

/* A process that begins with `count` shards and shows that nothing is missing. */
static inline void shards_restart(struct shards *shards, uint32_t count)
{
    shards_begin_with(shards, count);
    shards_check_all(shards);
    shards_end(shards);
}

#endif
