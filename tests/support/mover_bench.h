/* A store on a simulated disk whose mover has much to do: small segments, a small cache, keys in a
 * few partitions; and a model of what every key may answer. */
#ifndef TESTS_SUPPORT_MOVER_BENCH_H
#define TESTS_SUPPORT_MOVER_BENCH_H

#include "base/units.h"
#include "io/io_sim.h"
#include "store/mover/mover_internal.h"
#include "store/store_internal.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BENCH_PATH "/data"
#define BENCH_KEYS_MAX 2048u
#define BENCH_NAME_SIZE 16u
#define BENCH_VALUE_MAX 3900u
#define BENCH_PENDING_MAX 65536u
#define BENCH_SEGMENT_SIZE (320 * KIB)
#define BENCH_FILLERS 8u /* keys that only make the log grow */
#define BENCH_FILLER_PARTITION 200u

/* Writes have numbers, 1 and up, over all keys; a value tells its own. */
struct bench_key {
    char name[BENCH_NAME_SIZE];
    uint32_t floor;   /* the last write that was acknowledged; 0: none */
    uint32_t newest;  /* the last write */
    uint32_t deleted; /* the last delete */
};

struct bench_pending {
    uint32_t key;
    uint32_t number;
    uint64_t gate;
};

struct bench {
    uint64_t seed;
    struct prng prng;
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
    struct log log;
    struct store *store;
    struct store_options options;
    struct bench_key keys[BENCH_KEYS_MAX];
    uint32_t key_count;
    uint32_t number;
    struct bench_pending pending[BENCH_PENDING_MAX];
    uint32_t pending_first, pending_count;
    bool is_lossy;  /* nothing is acknowledged */
    bool is_paused; /* the mover, also of the next process */
    int failed;
    uint64_t purged; /* by processes that have ended */
    uint64_t moved;
    uint64_t removed;
    uint64_t compacted;
};

static inline void bench_durable(void *context, uint64_t position)
{
    (void)context;
    (void)position;
}

static inline void bench_room(void *context)
{
    (void)context;
}

static inline void bench_failed(void *context, int error)
{
    ((struct bench *)context)->failed = error;
}

static inline void bench_say(void *context, const char *line, uint32_t size)
{
    (void)context;
    if (getenv("MINIVAULT_SEED") != NULL)
        (void)fprintf(stderr, "%.*s", (int)size, line);
}

/* ---- names and values ---- */

static inline struct slice bench_name(const struct bench *bench, uint32_t key)
{
    const char *name = bench->keys[key].name;
    return (struct slice){(const uint8_t *)name, (uint32_t)strlen(name)};
}

static inline uint32_t bench_partition(const struct bench *bench, uint32_t key)
{
    struct slice name = bench_name(bench, key);
    return hash_partition(hash_key(name.data, name.size));
}

static inline void bench_invent_name(struct bench *bench, uint32_t key, uint32_t partition)
{
    for (uint32_t i = 0;; i++) {
        (void)snprintf(bench->keys[key].name, BENCH_NAME_SIZE, "%" PRIu32 "-%" PRIu32, key, i);
        if (bench_partition(bench, key) == partition)
            return;
    }
}

/* The value of a write: its number, its key, then bytes that follow from both. */
static inline void bench_fill(uint32_t key, uint32_t number, uint8_t *value, uint32_t size)
{
    struct prng prng = {(uint64_t)key << 32 | number};
    for (uint32_t i = 0; i < size; i++)
        value[i] = (uint8_t)prng_next(&prng);
    store_u32(value, number);
    store_u32(value + 4, key);
}

/* ---- the process ---- */

static inline void bench_init(struct bench *bench, uint64_t seed, uint32_t key_count,
                              uint32_t partitions)
{
    memset(bench, 0, sizeof *bench);
    bench->seed = seed;
    bench->prng.state = seed;
    bench->log = (struct log){.level_min = LOG_DEBUG, .write = bench_say, .context = bench};
    bench->sim = sim_create(seed);
    bench->disk = sim_disk_create(bench->sim);
    bench->key_count = key_count;
    cr_assert_leq(key_count + BENCH_FILLERS, BENCH_KEYS_MAX);
    for (uint32_t i = 0; i < key_count; i++)
        bench_invent_name(bench, i, i % partitions);
    for (uint32_t i = 0; i < BENCH_FILLERS; i++)
        bench_invent_name(bench, key_count + i, BENCH_FILLER_PARTITION);
    bench->options = (struct store_options){
        .path = BENCH_PATH,
        .cache_size = 64 * KIB,
        .log_file_size = BENCH_SEGMENT_SIZE,
        .value_size_max = 64 * KIB,
        .value_file_min = 4 * KIB,
        .log_keep_bytes = 1,
        .mover_window = 16 * KIB,
        .checkpoint_min = UINT64_MAX,
        .durability = WAL_COMMIT,
        .events = {bench, bench_durable, bench_room, bench_failed},
    };
}

static inline void bench_open_host(const struct bench *bench, struct io **ret_io)
{
    struct io_options options = {.files_max = store_files_max(),
                                 .sockets_max = 4,
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 4,
                                 .region_size = store_region_size(&bench->options)};
    sim_host_open(bench->sim, bench->disk, &options, ret_io);
}

/* Returns what store_open said. */
static inline int bench_start(struct bench *bench)
{
    if (bench->io == NULL)
        bench_open_host(bench, &bench->io);
    bench->store = NULL;
    bench->failed = 0;
    int result = store_open(bench->io, &bench->log, &bench->options, &bench->store);
    if (result == 0 && bench->is_paused)
        bench->store->mover->policy.retry_ns = UINT64_MAX;
    return result;
}

static inline void bench_open(struct bench *bench, uint64_t seed, uint32_t key_count,
                              uint32_t partitions)
{
    bench_init(bench, seed, key_count, partitions);
    cr_assert_eq(bench_start(bench), 0);
}

static inline struct mover_stats bench_moves(const struct bench *bench)
{
    struct mover_stats stats;
    mover_stats(bench->store->mover, &stats);
    return stats;
}

static inline struct segments_stats bench_segments(const struct bench *bench)
{
    struct segments_stats stats;
    segments_stats(bench->store->segments, &stats);
    return stats;
}

static inline void bench_end(struct bench *bench)
{
    if (bench->store != NULL && bench->store->mover != NULL) {
        struct mover_stats stats = bench_moves(bench);
        bench->purged += stats.purged_tombstones;
        bench->moved += stats.moved_records;
        bench->removed += stats.removed_segments;
        bench->compacted += stats.compacted_bytes;
    }
    io_close(bench->io);
    bench->io = NULL;
    store_free(bench->store);
    bench->store = NULL;
    sim_advance(bench->sim, sim_now_ns(bench->sim) + NS_PER_S);
}

static inline void bench_close(struct bench *bench)
{
    bench_end(bench);
    sim_free(bench->sim);
}

/* ---- passes ---- */

static inline void bench_acknowledge(struct bench *bench)
{
    uint64_t durable = store_durable(bench->store);
    while (bench->pending_count > 0) {
        const struct bench_pending *pending =
            &bench->pending[bench->pending_first % BENCH_PENDING_MAX];
        if (pending->gate > durable)
            return;
        struct bench_key *key = &bench->keys[pending->key];
        if (!bench->is_lossy && pending->number > key->floor)
            key->floor = pending->number;
        bench->pending_first++;
        bench->pending_count--;
    }
}

/* Returns false when the host has crashed or the store has failed. */
static inline bool bench_pass(struct bench *bench)
{
    bool more = store_flush(bench->store, STORE_PASS_BYTES);
    int result = io_run(bench->io, more ? 0 : NS_PER_MS);
    if (sim_host_is_crashed(bench->io))
        return false;
    cr_assert_geq(result, 0);
    bench_acknowledge(bench);
    return bench->failed == 0;
}

static inline bool bench_run(struct bench *bench, uint64_t duration_ns)
{
    uint64_t until_ns = io_now_ns(bench->io) + duration_ns;
    while (io_now_ns(bench->io) < until_ns)
        if (!bench_pass(bench))
            return false;
    return true;
}

/* The mover begins no job from now on; the one under way goes on. */
static inline void bench_pause(struct bench *bench, bool is_paused)
{
    while (mover_is_busy(bench->store->mover))
        cr_assert(bench_pass(bench));
    bench->is_paused = is_paused;
    bench->store->mover->policy.retry_ns = is_paused ? UINT64_MAX : 0;
}

/* Until all is durable and the mover has found nothing to do for a while. */
static inline void bench_settle(struct bench *bench)
{
    uint64_t until_ns = io_now_ns(bench->io) + 60 * NS_PER_S;
    for (uint32_t idle = 0; idle < 4; idle++) {
        cr_assert_lt(io_now_ns(bench->io), until_ns, "seed %" PRIu64 ": never done", bench->seed);
        uint64_t jobs = bench_moves(bench).jobs;
        cr_assert(bench_run(bench, 400 * NS_PER_MS));
        if (bench_moves(bench).jobs != jobs || bench->pending_count > 0 ||
            mover_is_busy(bench->store->mover))
            idle = 0;
    }
}

/* ---- writes ---- */

static inline void bench_note(struct bench *bench, uint32_t key, uint32_t number, uint64_t gate)
{
    cr_assert_lt(bench->pending_count, BENCH_PENDING_MAX);
    uint32_t place = (bench->pending_first + bench->pending_count++) % BENCH_PENDING_MAX;
    bench->pending[place] = (struct bench_pending){key, number, gate};
    bench->keys[key].newest = number;
}

/* Waits while the store is busy. Returns another status than OK as it is. */
static inline enum store_status bench_write(struct bench *bench, uint32_t key, uint32_t size)
{
    static uint8_t value[BENCH_VALUE_MAX];
    uint32_t number = ++bench->number;
    cr_assert(size >= 8 && size <= BENCH_VALUE_MAX);
    bench_fill(key, number, value, size);
    struct slice content = {value, size};
    uint64_t gate;
    for (;;) {
        enum store_status status =
            store_set(bench->store, bench_name(bench, key), content, content, false, &gate);
        if (status == STORE_OK)
            bench_note(bench, key, number, gate);
        if (status != STORE_BUSY || !bench_pass(bench))
            return status;
    }
}

static inline enum store_status bench_delete(struct bench *bench, uint32_t key)
{
    uint32_t number = ++bench->number;
    uint64_t gate;
    for (;;) {
        enum store_status status = store_delete(bench->store, bench_name(bench, key), &gate);
        if (status == STORE_OK) {
            bench_note(bench, key, number, gate);
            bench->keys[key].deleted = number;
        }
        if (status != STORE_BUSY || !bench_pass(bench))
            return status;
    }
}

/* Makes the log begin later than all that was written so far, as soon as that was moved. */
static inline void bench_roll(struct bench *bench)
{
    for (uint32_t size = 0; size < 3 * BENCH_SEGMENT_SIZE; size += BENCH_VALUE_MAX) {
        uint32_t key = bench->key_count + (uint32_t)(size / BENCH_VALUE_MAX % BENCH_FILLERS);
        cr_assert_eq(bench_write(bench, key, BENCH_VALUE_MAX), STORE_OK);
        cr_assert(bench_pass(bench));
    }
}

/* ---- reads ---- */

struct bench_found {
    struct store_waiter waiter;
    struct bench *bench;
    uint32_t key;
    bool is_done;
    enum store_status status;
    uint32_t number; /* of the write that it shows; 0: absent */
};

static inline void bench_take(struct bench_found *found, enum store_status status,
                              const struct store_value *value)
{
    static uint8_t expected[BENCH_VALUE_MAX];
    found->is_done = true;
    found->status = status;
    if (status != STORE_OK)
        return;
    cr_assert(value->size >= 8 && value->size <= BENCH_VALUE_MAX);
    found->number = load_u32(value->data);
    bench_fill(found->key, found->number, expected, value->size);
    cr_assert_eq(memcmp(value->data, expected, value->size), 0,
                 "seed %" PRIu64 ": wrong bytes of key %u", found->bench->seed, found->key);
}

static inline void bench_answered(struct store_waiter *waiter, enum store_status status,
                                  const struct store_value *value)
{
    bench_take(container_of(waiter, struct bench_found, waiter), status, value);
}

/* Returns false when the host crashed meanwhile: then `found` must stay until the world is closed.
 */
static inline bool bench_get(struct bench *bench, uint32_t key, struct bench_found *found)
{
    *found = (struct bench_found){.waiter.done = bench_answered, .bench = bench, .key = key};
    do {
        found->is_done = false;
        struct store_value value;
        enum store_status status =
            store_get(bench->store, bench_name(bench, key), &found->waiter, &value);
        if (status != STORE_PENDING)
            bench_take(found, status, &value);
        while (!found->is_done || found->status == STORE_BUSY) {
            if (!bench_pass(bench))
                return false;
            if (found->is_done)
                break;
        }
    } while (found->status == STORE_BUSY);
    return true;
}

/* Whether what a start found can be: acknowledged, or later. From then on it is what must be. */
static inline bool bench_check_recovered(struct bench *bench, uint32_t key,
                                         struct bench_found *found)
{
    struct bench_key *model = &bench->keys[key];
    if (!bench_get(bench, key, found))
        return false;
    bool is_value = found->status == STORE_OK;
    cr_assert(is_value || found->status == STORE_NOT_FOUND, "seed %" PRIu64 ": key %u answers %d",
              bench->seed, key, found->status);
    uint32_t number = is_value ? found->number : model->deleted;
    cr_assert_geq(number, model->floor, "seed %" PRIu64 ": key %u is at write %u (%s), not at %u",
                  bench->seed, key, number, is_value ? "a value" : "absent", model->floor);
    cr_assert_leq(number, model->newest);
    model->floor = model->newest = number;
    if (model->deleted > number)
        model->deleted = 0;
    return true;
}

/* Without a crash: the key is as the last write left it. */
static inline void bench_check_key(struct bench *bench, uint32_t key)
{
    struct bench_found found;
    const struct bench_key *model = &bench->keys[key];
    cr_assert(bench_get(bench, key, &found));
    bool is_absent = model->newest == 0 || model->newest == model->deleted;
    cr_assert_eq(found.status, is_absent ? STORE_NOT_FOUND : STORE_OK,
                 "seed %" PRIu64 ": key %u of partition %u answers %d", bench->seed, key,
                 bench_partition(bench, key), found.status);
    cr_assert(is_absent || found.number == model->newest,
              "seed %" PRIu64 ": key %u is at write %u, not at %u", bench->seed, key, found.number,
              model->newest);
}

static inline void bench_check_all(struct bench *bench)
{
    for (uint32_t key = 0; key < bench->key_count + BENCH_FILLERS; key++)
        bench_check_key(bench, key);
}

/* A clean end, or one as bad as can be; then the next start, and everything is there. */
static inline void bench_restart(struct bench *bench, bool is_clean)
{
    if (is_clean)
        cr_assert_eq(store_shut(bench->store), 0);
    bench_end(bench);
    if (!is_clean)
        sim_disk_lose_power(bench->disk);
    bench->pending_count = 0;
    cr_assert_eq(bench_start(bench), 0);
    struct bench_found found;
    for (uint32_t key = 0; key < bench->key_count + BENCH_FILLERS; key++)
        cr_assert(bench_check_recovered(bench, key, &found));
}

/* ---- the disk ---- */

static inline int bench_count_name(void *context, const char *name)
{
    uint64_t number;
    *(uint64_t *)context += segment_name_parse(name, &number) == 0;
    return 0;
}

/* Segment files in the partition's folder. */
static inline uint64_t bench_files(struct bench *bench, uint32_t partition)
{
    char path[32];
    uint64_t count = 0;
    (void)snprintf(path, sizeof path, BENCH_PATH "/%02x", partition);
    cr_assert_eq(io_list_directory(bench->io, path, bench_count_name, &count), 0);
    return count;
}

static inline uint64_t bench_all_files(struct bench *bench)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < STORE_PARTITIONS; i++)
        count += bench_files(bench, i);
    return count;
}

#endif
