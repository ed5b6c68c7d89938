/* The init ladder: flags -> secret -> threads; then signals, until they have drained.
 *
 * Each shard runs on a thread of its own (threads.h), which alone touches its world. The first
 * thread waits for signals. */
#include "node/cgroup.h"
#include "node/config.h"
#include "node/flags.h"
#include "node/log_writer.h"
#include "node/pin.h"
#include "node/secret.h"
#include "node/settings.h"
#include "node/sizing.h"
#include "node/threads.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#ifndef MINIVAULT_VERSION
#define MINIVAULT_VERSION "unknown"
#endif

#define EXIT_USAGE 2
/* ---- signals ---- */

static void warn_about_later_features(const struct config *config, const struct log *log)
{
    const char *nodes = getenv("CLUSTER_NODES");
    if (config->public_url != NULL || (nodes != NULL && *nodes != '\0'))
        log_warn(log, "-public-url and CLUSTER_NODES: clusters come with a later release; this "
                      "node is alone");
    if (config->workers != 50)
        log_warn(log, "-workers %u: replication comes with a later release", config->workers);
}

/* Signals go to this thread alone. */
static void block_signals(sigset_t *ret_signals)
{
    sigemptyset(ret_signals);
    sigaddset(ret_signals, SIGTERM);
    sigaddset(ret_signals, SIGINT);
    sigaddset(ret_signals, SIGHUP);
    sigaddset(ret_signals, THREADS_SIGNAL);
    (void)pthread_sigmask(SIG_BLOCK, ret_signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a write that is too long fails with EFBIG */
}

/* Waits until all shards have ended, or one has failed. `given`: what the flags say; `config`: what
 * counts at first. */
static int wait_for_end(struct threads *threads, const sigset_t *signals,
                        const struct config *given, const struct config *config, struct log *log)
{
    struct config now = *config;
    for (;;) {
        int number = 0;
        if (sigwait(signals, &number) != 0)
            continue;
        if (number == SIGHUP) {
            struct settings settings;
            settings_reload(given, &now, log, &settings);
            threads_reload(threads, &settings);
            continue;
        }
        if (number != THREADS_SIGNAL) {
            threads_drain(threads);
            continue;
        }
        int result = threads_look(threads);
        if (result <= 0)
            return result;
    }
}

static const char *durability_name(enum wal_durability durability)
{
    return durability == WAL_COMMIT ? "commit" : durability == WAL_INTERVAL ? "interval" : "none";
}

static const char *plural(uint32_t count)
{
    return count == 1 ? "" : "s";
}

/* Other threads still run; what they have acknowledged is on the disk. */
static noreturn void give_up(struct log_writer *writer)
{
    log_writer_flush(writer);
    _exit(EXIT_FAILURE);
}

/* Of the data directory, or of where it will be. */
static uint64_t disk_size(const char *path)
{
    struct statvfs status;
    char parent[PATH_MAX];
    (void)snprintf(parent, sizeof parent, "%s", path);
    if (statvfs(path, &status) < 0 && statvfs(dirname(parent), &status) < 0)
        return 0;
    return (uint64_t)status.f_blocks * status.f_frsize;
}

static struct machine look_at_machine(const struct config *config)
{
    return (struct machine){
        .cpus = pin_cpu_count(),
        .quota = cgroup_cpus(""),
        .memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE),
        .memory_max = cgroup_memory(""),
        .disk_size = disk_size(config->data_path),
    };
}

/* `config`, as the settings left it, becomes what the machine has room for. */
static int run(const struct config *given, struct config *config, struct log *log,
               struct log_writer *writer)
{
    sigset_t signals;
    block_signals(&signals);
    struct machine machine = look_at_machine(config);
    struct sizing sizing;
    int fits = sizing_fit(&machine, config, &sizing);
    uint32_t cpus = machine.cpus, shard_count = config->shard_count;
    struct pins pins;
    int result = pin_resolve(config->pin, shard_count, &pins);
    if (result < 0) {
        log_error(log,
                  "-pin %s names a CPU that this process may not run on: name others, or leave it "
                  "out",
                  config->pin);
        return EXIT_FAILURE;
    }
    log_info(
        log,
        "minivault %s starts: data directory %s, %u shard%s%s on %u CPU%s, durability %s, cache "
        "%" PRIu64 " MiB",
        MINIVAULT_VERSION, config->data_path, shard_count, plural(shard_count),
        sizing_bound_text(sizing.bound), cpus, plural(cpus), durability_name(config->durability),
        config->cache_size / MIB);
    sizing_tell(&sizing, &machine, given, config, fits, log);
    if (fits < 0)
        return EXIT_FAILURE;
    warn_about_later_features(config, log);
    struct threads *threads;
    if (threads_start(config, log, shard_count, &pins, &threads) < 0)
        give_up(writer);
    if (wait_for_end(threads, &signals, given, config, log) < 0)
        give_up(writer);
    threads_close(threads);
    return EXIT_SUCCESS;
}

static uint64_t wall_ms(void *context)
{
    (void)context;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

/* From the secret on, with a log that nobody waits for. */
static int run_logged(int argc, char **argv, struct config *config, struct log *log)
{
    struct log_writer *writer;
    int result = log_writer_open(log, &writer);
    if (result < 0) {
        log_error(log,
                  "cannot start the log's thread: %s; raise the limits of threads and memory "
                  "(ulimit -u, TasksMax=, pids.max)",
                  strerror(-result));
        return EXIT_FAILURE;
    }
    int code = EXIT_FAILURE;
    if (secret_take(argc, argv, config, log) == 0) {
        struct config given = *config;
        if (settings_read(config, log) == 0) {
            log_set_level(log, config->log_level);
            code = run(&given, config, log, writer);
        }
    }
    if (!log_writer_close(writer))
        _exit(code);
    return code;
}

int main(int argc, char **argv)
{
    struct config config;
    struct log log;
    char error[FLAGS_ERROR_SIZE];
    char credential[SECRET_PATH_MAX];
    /* Secrets and clients' values stay out of core dumps. */
    (void)prctl(PR_SET_DUMPABLE, 0);
    if (log_open_standard_files() < 0)
        return EXIT_FAILURE; /* there is nowhere to say so */
    config_init_defaults(&config);
    config.credential = secret_credential(credential);
    switch (flags_parse(argc, argv, &config, error)) {
    case FLAGS_HELP:
        flags_help(stdout);
        return EXIT_SUCCESS;
    case FLAGS_VERSION:
        (void)printf("minivault %s\n", MINIVAULT_VERSION);
        return EXIT_SUCCESS;
    case FLAGS_BAD:
        (void)fprintf(stderr, "minivault: %s\n", error);
        return EXIT_USAGE;
    case FLAGS_RUN:
        break;
    }
    log_init_stderr(&log, config.log_level);
    log.wall_ms = wall_ms;
    if (config.log_style != CONFIG_LOG_AUTO)
        log.format = config.log_style == CONFIG_LOG_JSON ? LOG_JSON : LOG_TEXT;
    return run_logged(argc, argv, &config, &log);
}
