/* One seed from the first start to the last judgement, with its troubles: full disks, errors, rot,
 * jumps of the clock. */
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LOG_DIRECTORY "/data/log"
#define LOAD_STEPS_PER_REQUEST 8u
#define RECOVERY_NS (5 * NS_PER_S)

/* ---- the wall clock ---- */

static void jump(struct sim_event *event)
{
    struct run *run = container_of(event, struct run, clock_jump);
    static const int64_t jumps_ms[] = {1, 250, 1000, 600000, 86400000};
    int64_t delta_ms = jumps_ms[prng_below(&run->prng, 5)];
    if (prng_below(&run->prng, 2) == 0)
        delta_ms = -delta_ms;
    run->clock_ms += delta_ms;
    if (run->target.io != NULL)
        target_jump(&run->target, delta_ms, prng_below(&run->prng, 4) == 0);
    sim_schedule(run->sim, event,
                 sim_now_ns(run->sim) + prng_below(&run->prng, run->plan.clock_jump_ns_max));
}

/* ---- trouble ---- */

static void fill_disk(struct run *run)
{
    uint64_t free_size = 0;
    uint64_t total_size = 0;
    (void)io_disk_space(run->target.io, "/data", &free_size, &total_size);
    uint64_t more = prng_below(&run->prng, 2 * run->target.config.log_file_size);
    sim_disk_options(run->target.disk)->capacity = total_size - free_size + more;
}

static void trouble_begins(struct run *run)
{
    struct sim_disk_options *disk = sim_disk_options(run->target.disk);
    struct workload *workload = &run->workload;
    enum trouble trouble = run->plan.trouble;
    bool fails = trouble == TROUBLE_DEVICE_DIES || trouble == TROUBLE_WRITE_ERRORS ||
                 trouble == TROUBLE_READ_ERRORS;
    run_say(run, "trouble %d begins", (int)trouble);
    if (trouble == TROUBLE_DEVICE_DIES)
        disk->write_error_ppm = disk->sync_error_ppm = 1000000;
    if (trouble == TROUBLE_WRITE_ERRORS)
        disk->write_error_ppm = disk->sync_error_ppm = 5000;
    if (trouble == TROUBLE_READ_ERRORS)
        disk->read_error_ppm = 20000;
    if (trouble == TROUBLE_NO_SPACE)
        fill_disk(run);
    workload->may_fail |= fails;
    workload->may_close |= fails;
    workload->may_refuse_writes = trouble == TROUBLE_NO_SPACE;
}

static void trouble_ends(struct run *run)
{
    struct sim_disk_options *disk = sim_disk_options(run->target.disk);
    struct workload *workload = &run->workload;
    run_say(run, "trouble ends");
    disk->write_error_ppm = disk->sync_error_ppm = disk->read_error_ppm = 0;
    disk->capacity = GIB;
    workload->may_fail = false;
    workload->may_close = run->plan.trouble == TROUBLE_RESETS;
    workload->may_refuse_writes = false;
}

/* The disk was full and is not any more: without a restart, sets work again. */
static enum outcome recover_space(struct run *run)
{
    struct workload *workload = &run->workload;
    sim_disk_options(run->target.disk)->capacity = GIB;
    uint64_t until_ns = sim_now_ns(run->sim) + RECOVERY_NS;
    enum outcome outcome = OUTCOME_GOES_ON;
    while (outcome == OUTCOME_GOES_ON && sim_now_ns(run->sim) < until_ns)
        outcome = process_pass(run);
    workload->may_refuse_writes = false;
    if (outcome == OUTCOME_GOES_ON)
        outcome = process_load(run, 100);
    if (outcome == OUTCOME_GOES_ON)
        outcome = process_quiesce(run);
    return outcome;
}

/* A dead device ends the server soon, as long as somebody writes. */
static enum outcome outlive_device(struct run *run)
{
    uint64_t until_ns = sim_now_ns(run->sim) + RECOVERY_NS;
    enum outcome outcome = OUTCOME_GOES_ON;
    run->workload.set_percent = 100;
    while (outcome == OUTCOME_GOES_ON && sim_now_ns(run->sim) < until_ns)
        outcome = process_load(run, 10);
    if (outcome == OUTCOME_GOES_ON) {
        workload_fail(&run->workload,
                      "every write fails since %" PRIu64 " s, and the server goes on",
                      RECOVERY_NS / NS_PER_S);
        return OUTCOME_FAILED;
    }
    return outcome;
}

static enum outcome suffer(struct run *run, uint64_t requests)
{
    trouble_begins(run);
    enum outcome outcome = process_load(run, requests);
    if (outcome == OUTCOME_GOES_ON && run->plan.trouble == TROUBLE_DEVICE_DIES)
        outcome = outlive_device(run);
    if (outcome == OUTCOME_GOES_ON)
        outcome = process_quiesce(run);
    if (outcome == OUTCOME_GOES_ON && run->plan.trouble == TROUBLE_NO_SPACE)
        outcome = recover_space(run);
    return outcome;
}

/* ---- rot ---- */

struct rot {
    struct run *run;
    char path[128];
    uint32_t seen;
};

static int choose_file(void *context, const char *name)
{
    struct rot *rot = context;
    if (prng_below(&rot->run->prng, ++rot->seen) == 0)
        (void)snprintf(rot->path, sizeof rot->path, LOG_DIRECTORY "/%s", name);
    return 0;
}

/* Flips a few bits of the log while nobody looks. */
static void rot_log(struct run *run)
{
    struct rot rot = {.run = run};
    target_start(&run->target, 1, run->clock_ms);
    (void)io_list_directory(run->target.io, LOG_DIRECTORY, choose_file, &rot);
    target_close(&run->target);
    for (uint64_t count = 1 + prng_below(&run->prng, 4); count > 0; count--) {
        bool done = sim_disk_rot(run->target.disk, rot.path, 0, UINT64_MAX);
        run_say(run, "rot in %s: %s", rot.path, done ? "done" : "nothing there");
    }
    run->workload.may_fail = true;
}

/* ---- rounds ---- */

/* The load of one round, and how it ends. */
static enum outcome load_round(struct run *run, enum round_end end)
{
    uint64_t requests = 1 + prng_below(&run->prng, run->plan.requests_max);
    bool crashes = end == ROUND_CRASH || (end == ROUND_DRAIN && prng_below(&run->prng, 4) == 0);
    if (crashes)
        process_plan_crash(run, requests * LOAD_STEPS_PER_REQUEST);
    enum outcome outcome = process_load(run, requests);
    bool is_last_trouble = run->plan.trouble != TROUBLE_NONE && prng_below(&run->prng, 2) == 0;
    if (outcome == OUTCOME_GOES_ON && is_last_trouble)
        outcome = suffer(run, 1 + prng_below(&run->prng, run->plan.requests_max));
    if (outcome == OUTCOME_GOES_ON && end == ROUND_DRAIN)
        return process_drain(run);
    if (outcome == OUTCOME_GOES_ON)
        outcome = process_quiesce(run);
    if (outcome == OUTCOME_GOES_ON) {
        process_crash(run);
        outcome = OUTCOME_CRASHED;
    }
    return outcome;
}

/* Returns false when something is wrong. */
static bool play_round(struct run *run, enum round_end end)
{
    if (!process_start(run))
        return false;
    enum outcome outcome = process_scan(run);
    if (outcome == OUTCOME_GOES_ON)
        outcome = load_round(run, end);
    if (outcome == OUTCOME_GAVE_UP)
        process_crash(run);
    process_end(run, outcome == OUTCOME_DRAINED);
    trouble_ends(run);
    return outcome != OUTCOME_FAILED;
}

/* At the end nothing crashes any more: all is there, is answered, and survives a drain. */
static bool play_end(struct run *run)
{
    run->plan.start_crash_percent = 0;
    for (uint32_t i = 0; i < 2; i++) {
        if (!process_start(run))
            return false;
        enum outcome outcome = process_scan(run);
        if (outcome == OUTCOME_GOES_ON)
            outcome = process_load(run, 50);
        if (outcome == OUTCOME_GOES_ON)
            outcome = process_quiesce(run);
        if (outcome == OUTCOME_GOES_ON)
            outcome = process_drain(run);
        process_end(run, true);
        if (outcome != OUTCOME_DRAINED)
            return false;
        if (i == 0 && run->plan.trouble == TROUBLE_ROT)
            rot_log(run);
    }
    return true;
}

static void play(struct run *run)
{
    bool is_well = true;
    if (run->plan.clock_jump_ns_max > 0)
        sim_schedule(run->sim, &run->clock_jump, sim_now_ns(run->sim));
    for (uint32_t round = 0; is_well && round < run->plan.rounds; round++)
        is_well = play_round(run, (enum round_end)prng_below(&run->prng, 3));
    if (is_well)
        (void)play_end(run);
}

/* ---- one seed ---- */

static void say_log(void *context, const char *line, uint32_t size)
{
    const struct run *run = context;
    if (run->is_verbose)
        (void)fprintf(stderr, "    %.*s", (int)size, line);
}

static void say_trace(void *context, const char *line)
{
    (void)context;
    (void)fprintf(stderr, "  %s\n", line);
}

static void open_run(struct run *run, bool is_traced)
{
    run->prng.state = run->seed;
    run->sim = sim_create(prng_next(&run->prng));
    if (is_traced)
        sim_set_trace(run->sim, say_trace, NULL);
    run->workload.sim = run->sim;
    run->workload.seed = run->seed;
    run->workload.prng.state = prng_next(&run->prng);
    plan_make(run);
    struct log log = {.level_min = LOG_DEBUG, .write = say_log, .context = run};
    target_init(&run->target, run->sim, &run->plan.target, &log);
    run->workload.value_size_max = target_value_size_max(&run->target);
    plan_apply(run);
    run->workload.checker = checker_create(run->workload.keys.count);
    for (uint32_t i = 0; i < RUN_CLIENTS_MAX; i++)
        client_init(&run->clients[i], &run->workload);
    client_init(&run->scanner, &run->workload);
    run->clock_jump.fire = jump;
}

static void close_run(struct run *run)
{
    for (uint32_t i = 0; i < RUN_CLIENTS_MAX; i++)
        client_deinit(&run->clients[i]);
    client_deinit(&run->scanner);
    sim_unschedule(run->sim, &run->clock_jump);
    target_close(&run->target);
    sim_free(run->sim);
    checker_free(run->workload.checker);
    keys_free(&run->workload.keys);
}

void run_seed(uint64_t seed, bool is_verbose, bool is_traced, struct run_result *ret_result)
{
    struct run run = {.seed = seed, .is_verbose = is_verbose};
    open_run(&run, is_traced);
    const struct plan *plan = &run.plan;
    run_say(&run,
            "%" PRIu32 " shards (up to %" PRIu32 "), durability %d, trouble %d, %" PRIu32
            " rounds, %" PRIu32 " clients, %" PRIu32 " keys, cache %" PRIu64
            " KiB, segments of %" PRIu64 " KiB, values up to %" PRIu32 ", in files from %" PRIu32
            " with %" PRIu32 " buffers",
            plan->shards_usual, plan->shards_max, (int)plan->target.durability, (int)plan->trouble,
            plan->rounds, plan->client_count, run.workload.keys.count,
            plan->target.cache_size / KIB, run.target.config.log_file_size / KIB,
            run.workload.value_size_max, plan->target.value_file_min, plan->target.stream_buffers);
    play(&run);
    *ret_result = (struct run_result){
        .has_failed = run.workload.has_failed,
        .hash = sim_trace_hash(run.sim),
        .requests = run.workload.answers,
        .crashes = run.crashes,
    };
    memcpy(ret_result->message, run.workload.message, sizeof ret_result->message);
    run_say(&run,
            "%" PRIu32 " starts, %" PRIu32 " crashes, %" PRIu32 " drains, %" PRIu64
            " answers, trace %016" PRIx64,
            run.starts, run.crashes, run.drains, run.workload.answers, ret_result->hash);
    close_run(&run);
}
