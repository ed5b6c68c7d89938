/* One process of the server within a run, from its start to its end or its crash. */
#include "run.h"

#include "base/hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Within this, everything has an answer when nothing is wrong. */
#define PATIENCE_NS (30 * NS_PER_S)

/* A round's requests are sent in much less. */
#define LOAD_NS_MAX (300 * NS_PER_S)
#define STARTS_MAX 8u
#define START_STEPS_BITS 12u
#define PARTITIONS 256u
#define AFTER_CRASH_NS_MAX (60 * NS_PER_MS)

void run_say(const struct run *run, const char *format, ...)
{
    if (!run->is_verbose)
        return;
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "%10" PRIu64 " us: ", sim_now_ns(run->sim) / NS_PER_US);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
}

static enum sim_crash choose_crash(struct run *run)
{
    return prng_below(&run->prng, 2) == 0 ? SIM_POWER_LOSS : SIM_KILL;
}

void process_plan_crash(struct run *run, uint64_t steps_max)
{
    uint64_t steps = 1 + prng_below(&run->prng, steps_max);
    enum sim_crash crash = choose_crash(run);
    run_say(run, "plan: %s in %" PRIu64 " steps", crash == SIM_KILL ? "kill" : "power loss", steps);
    sim_host_crash_after(run->target.io, steps, crash);
}

/* ---- starting ---- */

/* A directory is converted when the next process has another number. */
static uint32_t choose_shards(struct run *run)
{
    if (run->plan.shards_max <= 1 || prng_below(&run->prng, 2) == 0)
        return run->plan.shards_usual;
    return 1 + (uint32_t)prng_below(&run->prng, run->plan.shards_max);
}

static void begin(struct run *run)
{
    target_start(&run->target, choose_shards(run), run->clock_ms);
    run->starts++;
    if (prng_below(&run->prng, 100) < run->plan.start_crash_percent &&
        run->starts % STARTS_MAX != 0)
        process_plan_crash(run, (uint64_t)1 << prng_below(&run->prng, START_STEPS_BITS));
}

bool process_start(struct run *run)
{
    for (;;) {
        begin(run);
        int result = target_open(&run->target);
        if (result == 0 && !sim_host_is_crashed(run->target.io))
            break;
        if (!sim_host_is_crashed(run->target.io)) {
            workload_fail(&run->workload, "start %" PRIu32 " failed: %s", run->starts,
                          strerror(-result));
            return false;
        }
        process_end(run, true);
    }
    run->workload.io = run->target.io;
    run->process_began_ns = sim_now_ns(run->sim);
    checker_begin_process(run->workload.checker, run->process_began_ns);
    run_say(run, "the server is up, start %" PRIu32, run->starts);
    return true;
}

/* ---- running ---- */

static void check_liveness(struct run *run)
{
    uint64_t now_ns = sim_now_ns(run->sim);
    for (uint32_t i = 0; i < run->plan.client_count; i++) {
        const struct client *client = &run->clients[i];
        uint64_t since_ns = client_waits_since(client);
        if (since_ns < now_ns && now_ns - since_ns > PATIENCE_NS)
            workload_fail(&run->workload,
                          "connection %" PRIu64 " waits for an answer since %" PRIu64 " us",
                          client->connection, since_ns / NS_PER_US);
    }
}

enum outcome process_pass(struct run *run)
{
    int result = target_pass(&run->target);
    check_liveness(run);
    if (run->workload.has_failed)
        return OUTCOME_FAILED;
    if (sim_host_is_crashed(run->target.io))
        return OUTCOME_CRASHED;
    if (result >= 0)
        return result == 1 ? OUTCOME_DRAINED : OUTCOME_GOES_ON;
    if (run->workload.may_fail) {
        run_say(run, "the server gives up: %s", strerror(-result));
        return OUTCOME_GAVE_UP;
    }
    workload_fail(&run->workload, "the server ends with an error: %s", strerror(-result));
    return OUTCOME_FAILED;
}

/* A log loses a tail, each by itself: with another number of shards now and then, each partition.
 */
static bool check_instants(const struct run *run)
{
    const struct workload *workload = &run->workload;
    uint32_t count = run->plan.shards_max > 1 ? PARTITIONS : run->plan.shards_usual;
    uint32_t logs[KEYS_MAX];
    for (uint32_t i = 0; i < workload->keys.count; i++) {
        struct slice key = workload->keys.list[i];
        logs[i] = hash_partition(hash_key(key.data, key.size)) % count;
    }
    return checker_check_instant(workload->checker, logs, count);
}

enum outcome process_scan(struct run *run)
{
    struct client *scanner = &run->scanner;
    struct workload *workload = &run->workload;
    uint64_t began_ns = sim_now_ns(run->sim);
    uint16_t port = target_port(&run->target);
    client_scan(scanner, run->target.io, port);
    while (scanner->scan_next < workload->keys.count || !client_is_idle(scanner)) {
        enum outcome outcome = process_pass(run);
        if (outcome != OUTCOME_GOES_ON)
            return outcome;
        if (scanner->peer == NULL) /* a broken connection: from the start */
            client_scan(scanner, run->target.io, port);
        if (sim_now_ns(run->sim) - began_ns > PATIENCE_NS + workload->keys.count * NS_PER_S) {
            workload_fail(workload, "reading all keys takes for ever");
            return OUTCOME_FAILED;
        }
    }
    client_drop(scanner);
    if (!workload->may_fail && !check_instants(run)) {
        workload_fail(workload, "%s", checker_message(workload->checker));
        return OUTCOME_FAILED;
    }
    run_say(run, "all keys were read");
    return OUTCOME_GOES_ON;
}

/* `all`: also those that are connected, and may have stopped when there was nothing to send. */
static void run_clients(struct run *run, bool all)
{
    uint16_t port = target_port(&run->target);
    for (uint32_t i = 0; i < run->plan.client_count; i++) {
        if (all || run->clients[i].peer == NULL)
            client_run(&run->clients[i], run->target.io, port);
    }
}

enum outcome process_load(struct run *run, uint64_t requests)
{
    uint64_t until_ns = sim_now_ns(run->sim) + LOAD_NS_MAX;
    run->workload.budget = requests;
    run_clients(run, true);
    while (run->workload.budget > 0) {
        enum outcome outcome = process_pass(run);
        if (outcome != OUTCOME_GOES_ON)
            return outcome;
        if (sim_now_ns(run->sim) > until_ns) {
            workload_fail(&run->workload, "%" PRIu64 " requests could not be sent in %" PRIu64 " s",
                          run->workload.budget, LOAD_NS_MAX / NS_PER_S);
            return OUTCOME_FAILED;
        }
        run_clients(run, false);
    }
    return OUTCOME_GOES_ON;
}

static bool all_idle(const struct run *run)
{
    for (uint32_t i = 0; i < run->plan.client_count; i++) {
        if (!client_is_idle(&run->clients[i]))
            return false;
    }
    return true;
}

static void drop_clients(struct run *run)
{
    for (uint32_t i = 0; i < run->plan.client_count; i++)
        client_drop(&run->clients[i]);
    client_drop(&run->scanner);
}

enum outcome process_quiesce(struct run *run)
{
    run->workload.budget = 0;
    while (!all_idle(run)) {
        enum outcome outcome = process_pass(run);
        if (outcome != OUTCOME_GOES_ON)
            return outcome;
    }
    run_say(run, "everything is answered");
    return OUTCOME_GOES_ON;
}

enum outcome process_drain(struct run *run)
{
    uint64_t began_ns = sim_now_ns(run->sim);
    bool may_close = run->workload.may_close;
    enum outcome outcome = OUTCOME_GOES_ON;
    run_say(run, "SIGTERM");
    run->workload.may_close = true;
    target_drain(&run->target);
    while (outcome == OUTCOME_GOES_ON) {
        outcome = process_pass(run);
        if (sim_now_ns(run->sim) - began_ns > PATIENCE_NS) {
            workload_fail(&run->workload, "the drain takes for ever");
            outcome = OUTCOME_FAILED;
        }
    }
    run->drains += outcome == OUTCOME_DRAINED;
    run->workload.may_close = may_close;
    return outcome;
}

/* ---- ending ---- */

static uint64_t kept_until(const struct run *run, bool is_kept, uint64_t now_ns)
{
    enum wal_durability durability = run->plan.target.durability;
    if (is_kept || durability == WAL_COMMIT)
        return UINT64_MAX;
    if (durability == WAL_NONE || now_ns < run->plan.loss_ns)
        return run->process_began_ns;
    return max_u64(run->process_began_ns, now_ns - run->plan.loss_ns);
}

void process_end(struct run *run, bool is_kept)
{
    struct workload *workload = &run->workload;
    uint64_t now_ns = sim_now_ns(run->sim);
    bool may_close = workload->may_close;
    run_say(run, "the process is gone");
    workload->may_close = true;
    workload->budget = 0;
    workload->io = NULL;
    run->crashes += sim_host_is_crashed(run->target.io);
    target_close(&run->target);
    /* What was sent before may still arrive. */
    sim_advance(run->sim, now_ns + prng_below(&run->prng, AFTER_CRASH_NS_MAX));
    drop_clients(run);
    workload->may_close = may_close;
    /* A connection that is still on its way must not reach the next process. */
    const struct sim_network_options *network = sim_network_options(run->sim);
    sim_advance(run->sim, sim_now_ns(run->sim) + network->latency_ns_max + 1 +
                              (network->stall_ppm > 0 ? network->stall_ns_max : 0));
    checker_end_process(workload->checker, kept_until(run, is_kept, now_ns), now_ns);
    if (prng_below(&run->prng, 4) == 0) {
        run_say(run, "the power goes");
        sim_disk_lose_power(run->target.disk);
    }
}

void process_crash(struct run *run)
{
    enum sim_crash crash = choose_crash(run);
    run_say(run, "%s", crash == SIM_KILL ? "kill" : "power loss");
    target_crash(&run->target, crash);
}
