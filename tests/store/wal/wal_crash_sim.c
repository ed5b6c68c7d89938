/* The log under crashes: random appends, a loss of power or a kill at a random step, also within
 * recovery, again and again on the same disk. What was durable is there, what is shown was written,
 * what was once dropped never returns. */
#include "store/wal/wal_recover.h"
#include "store/wal/wal.h"

#include "base/units.h"
#include "io/io_sim.h"
#include "store/memory/location.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 24u
#define WRITES_MAX 40000u
#define VALUE_MAX 20000u

struct written {
    uint64_t position;
    uint64_t location;
    uint32_t key;
    uint32_t size;
    bool tombstone;
    bool acknowledged;
    bool dropped;
};

struct model {
    uint64_t seed;
    struct prng prng;
    struct sim *sim;
    struct sim_disk *disk;
    struct io *io;
    struct log log;
    struct wal *wal;
    struct wal_options options;
    struct written writes[WRITES_MAX]; /* by number, from 1; the number is the version's clock */
    uint32_t write_count;
    uint32_t newest[KEYS];   /* numbers; 0: none */
    uint32_t oldest_pending; /* below, everything is acknowledged or dropped */
    bool failed;
    uint64_t recycled;
};

static void fill_value(uint32_t number, uint8_t *value, uint32_t size)
{
    struct prng prng = {number};
    for (uint32_t i = 0; i < size; i++)
        value[i] = (uint8_t)prng_next(&prng);
}

static void on_durable(void *context, uint64_t position)
{
    struct model *model = context;
    uint32_t number = model->oldest_pending;
    for (; number <= model->write_count && model->writes[number].position <= position; number++)
        model->writes[number].acknowledged = true;
    model->oldest_pending = number;
}

static void on_room(void *context)
{
    (void)context;
}

static void on_failed(void *context, int error)
{
    (void)error;
    ((struct model *)context)->failed = true;
}

/* ---- recovery against the model ---- */

static int on_record(void *context, const struct record *record, uint64_t location)
{
    struct model *model = context;
    uint32_t number = (uint32_t)record->version.clock;
    cr_assert(number >= 1 && number <= model->write_count, "seed %" PRIu64, model->seed);
    struct written *written = &model->writes[number];
    cr_assert_not(written->dropped, "seed %" PRIu64 ": write %u returned after it was dropped",
                  model->seed, number);
    cr_assert_eq(record->position, written->position, "seed %" PRIu64, model->seed);
    cr_assert_eq(record->key.size, 1);
    cr_assert_eq(record->key.data[0], written->key);
    cr_assert_eq(record->value.size, written->size);
    cr_assert_eq((record->flags & RECORD_TOMBSTONE) != 0, written->tombstone);
    static uint8_t expected[VALUE_MAX];
    fill_value(number, expected, written->size);
    cr_assert_eq(memcmp(record->value.data, expected, written->size), 0, "seed %" PRIu64,
                 model->seed);
    written->location = location;
    uint32_t *newest = &model->newest[written->key];
    if (*newest == number)
        cr_assert_fail("seed %" PRIu64 ": write %u is shown twice", model->seed, number);
    if (number > *newest)
        *newest = number;
    return 0;
}

static void check_recovered(struct model *model, const struct wal_recovered *recovered)
{
    cr_assert_eq(recovered->damaged_batches, 0, "seed %" PRIu64, model->seed);
    cr_assert_eq(recovered->damaged_last, 0, "seed %" PRIu64, model->seed);
    for (uint32_t number = 1; number <= model->write_count; number++) {
        struct written *written = &model->writes[number];
        if (written->dropped)
            continue;
        bool is_lost = number > model->newest[written->key];
        cr_assert(!is_lost || !written->acknowledged,
                  "seed %" PRIu64 ": write %u at %" PRIu64 " is lost (last %" PRIu64 ")",
                  model->seed, number, written->position, recovered->last_position);
        cr_assert(written->position <= recovered->last_position || !written->acknowledged,
                  "seed %" PRIu64, model->seed);
        written->dropped = is_lost;
        written->acknowledged |= !is_lost;
    }
    model->oldest_pending = model->write_count + 1;
}

/* Returns false when it crashed meanwhile. */
static bool recover_and_open(struct model *model)
{
    struct wal_recovered recovered;
    struct wal_files *files;
    memset(model->newest, 0, sizeof model->newest);
    int result =
        wal_recover(model->io, &model->log, &model->options, on_record, model, &recovered, &files);
    if (result != 0) {
        cr_assert(sim_host_is_crashed(model->io), "seed %" PRIu64 ": recovery says %d", model->seed,
                  result);
        return false;
    }
    check_recovered(model, &recovered);
    wal_files_forget_alive(files);
    for (uint32_t key = 0; key < KEYS; key++)
        if (model->newest[key] != 0)
            wal_files_record_alive(files, model->writes[model->newest[key]].location);
    result = wal_open(model->io, &model->log, &model->options, files, &model->wal);
    cr_assert(result == 0 || sim_host_is_crashed(model->io), "seed %" PRIu64 ": open says %d",
              model->seed, result);
    return result == 0;
}

/* ---- the workload ---- */

static void append_one(struct model *model)
{
    static uint8_t value[VALUE_MAX];
    if (model->write_count + 1 == WRITES_MAX)
        return;
    uint32_t number = model->write_count + 1;
    uint8_t key = (uint8_t)prng_below(&model->prng, KEYS);
    bool tombstone = prng_below(&model->prng, 8) == 0;
    uint64_t scale = prng_below(&model->prng, 20);
    uint64_t bound = scale == 0 ? VALUE_MAX : scale < 4 ? 4000 : 200;
    uint32_t size = tombstone ? 0 : (uint32_t)prng_below(&model->prng, bound);
    fill_value(number, value, size);
    struct record record = {
        .key = {&key, 1},
        .value = {value, size},
        .decoded_size = size,
        .flags = tombstone ? RECORD_TOMBSTONE : 0,
        .version = {.clock = number},
    };
    struct wal_receipt receipt;
    int result = wal_append(model->wal, &record, &receipt);
    if (result == -EAGAIN)
        return;
    cr_assert(result == 0 || sim_host_is_crashed(model->io), "seed %" PRIu64 ": append says %d",
              model->seed, result);
    if (result != 0)
        return;
    struct record again;
    const uint8_t *bytes = wal_peek(model->wal, receipt.location);
    cr_assert_not_null(bytes);
    cr_assert_gt(record_decode(bytes, VALUE_MAX + 100, &again), 0);
    cr_assert_eq(again.position, receipt.position);
    uint32_t old = model->newest[key];
    model->writes[number] = (struct written){.position = receipt.position,
                                             .location = receipt.location,
                                             .key = key,
                                             .size = size,
                                             .tombstone = tombstone};
    model->write_count = number;
    model->newest[key] = number;
    if (old != 0)
        wal_record_dead(model->wal, model->writes[old].location, receipt.position);
}

static void work(struct model *model, uint32_t passes)
{
    uint64_t load = 1 + prng_below(&model->prng, 30);
    for (uint32_t i = 0; i < passes && !sim_host_is_crashed(model->io); i++) {
        uint64_t count = prng_below(&model->prng, load);
        for (uint64_t j = 0; j < count; j++)
            append_one(model);
        wal_flush(model->wal);
        (void)io_run(model->io, prng_below(&model->prng, 4) == 0 ? 0 : NS_PER_MS);
    }
    struct wal_stats stats;
    wal_stats(model->wal, &stats);
    model->recycled += stats.recycled;
}

static void live_once(struct model *model)
{
    struct io_options io_options = {.files_max = 512,
                                    .sockets_max = 4,
                                    .receive_buffer_size = 4096,
                                    .receive_buffer_count = 4,
                                    .region_size = wal_memory_size(&model->options)};
    sim_host_open(model->sim, model->disk, &io_options, &model->io);
    model->options.memory = io_region(model->io);
    cr_assert_eq(io_make_directory(model->io, "log"), 0);
    struct io_op op = {0};
    io_open_file(model->io, &op, ".", IO_OPEN_DIRECTORY);
    int root = io_wait(model->io, &op);
    io_sync(model->io, &op, root);
    cr_assert_eq(io_wait(model->io, &op), 0);
    model->wal = NULL;
    enum sim_crash crash = prng_below(&model->prng, 3) == 0 ? SIM_KILL : SIM_POWER_LOSS;
    bool crashes = prng_below(&model->prng, 5) != 0;
    bool early = prng_below(&model->prng, 4) == 0;
    if (crashes)
        sim_host_crash_after(model->io, prng_below(&model->prng, early ? 120 : 4000), crash);
    if (recover_and_open(model)) {
        work(model, crashes ? 3000 : 200);
        if (!sim_host_is_crashed(model->io)) {
            int result = wal_shut(model->wal);
            cr_assert(result == 0 || sim_host_is_crashed(model->io),
                      "seed %" PRIu64 ": shut says %d", model->seed, result);
            if (result == 0)
                cr_assert_eq(wal_durable(model->wal), wal_last(model->wal));
        }
    }
    cr_assert_not(model->failed && !sim_host_is_crashed(model->io));
    model->failed = false;
    io_close(model->io);
    if (model->wal != NULL)
        wal_free(model->wal);
    sim_advance(model->sim, sim_now_ns(model->sim) + 10 * NS_PER_S);
    if (prng_below(&model->prng, 3) == 0)
        sim_disk_lose_power(model->disk);
}

static void choose_options(struct model *model)
{
    struct prng *prng = &model->prng;
    model->options = (struct wal_options){
        .directory = "log",
        .directory_id = 0x1234567890ABCDEF,
        .log_id = 3,
        .file_size = (64 + 32 * prng_below(prng, 4)) * KIB,
        .buffer_size = (uint32_t)((1 + prng_below(prng, 4)) * 4 * KIB + 4 * KIB),
        .buffer_count = (uint32_t)(3 + prng_below(prng, 4)),
        .record_size_max = RECORD_HEADER_SIZE + 1 + VALUE_MAX,
        .writes_in_flight = (uint32_t)(1 + prng_below(prng, 2)),
        .use_dsync = prng_below(prng, 2) == 0,
        .durability =
            prng_below(prng, 2) == 0 ? WAL_COMMIT : (enum wal_durability)prng_below(prng, 3),
        .events = {.context = model, .durable = on_durable, .room = on_room, .failed = on_failed},
    };
}

static uint64_t crash_again_and_again(uint64_t seed, uint32_t lives)
{
    struct model *model = calloc(1, sizeof *model);
    cr_assert_not_null(model);
    model->seed = seed;
    model->prng.state = seed;
    model->oldest_pending = 1;
    log_init_stderr(&model->log, getenv("MINIVAULT_SEED") != NULL ? LOG_DEBUG : LOG_ERROR + 1);
    model->sim = sim_create(seed);
    model->disk = sim_disk_create(model->sim);
    choose_options(model);
    for (uint32_t life = 0; life < lives; life++)
        live_once(model);
    sim_free(model->sim);
    uint64_t recycled = model->recycled;
    free(model);
    return recycled;
}

Test(wal_crash, what_was_durable_survives, .timeout = 120)
{
    const char *text = getenv("MINIVAULT_SEED");
    uint64_t first = text != NULL ? strtoull(text, NULL, 10) : 1;
    const char *many = getenv("MINIVAULT_SEEDS");
    uint64_t count = many != NULL ? strtoull(many, NULL, 10) : text != NULL ? 1 : 60;
    uint64_t recycled = 0;
    for (uint64_t seed = first; seed < first + count; seed++)
        recycled += crash_again_and_again(seed, 12);
    cr_assert(count < 10 || recycled > 100, "segments must have been recycled: %" PRIu64, recycled);
}
