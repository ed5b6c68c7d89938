/* The init ladder: flags -> secret -> world -> server; then passes until a signal drains it.
 *
 * The shard runs on a thread of its own, which alone touches its world. The first thread waits for
 * signals. */
#include "flags.h"
#include "net/server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#ifndef MINIVAULT_VERSION
#define MINIVAULT_VERSION "unknown"
#endif

#define EXIT_USAGE 2
#define SIGNAL_THREAD_ENDED SIGUSR2

struct shard_thread {
    pthread_t thread;
    const struct config *config;
    const struct log *log;
    pthread_mutex_t io_lock;
    struct io *io; /* NULL while there is no world to be woken; under io_lock */
    atomic_bool drain;
    int result;
};

/* ---- the shard's thread ---- */

static int run_server(struct shard_thread *shard, struct server *server)
{
    for (;;) {
        if (atomic_load(&shard->drain))
            server_drain(server);
        int result = server_pass(server);
        if (result != 0)
            return result;
    }
}

static void set_io(struct shard_thread *shard, struct io *io)
{
    (void)pthread_mutex_lock(&shard->io_lock);
    shard->io = io;
    (void)pthread_mutex_unlock(&shard->io_lock);
}

static int run_world(struct shard_thread *shard)
{
    struct io_options options;
    char message[IO_ERROR_SIZE];
    struct io *io;
    server_io_options(shard->config, &options);
    int result = io_open(&options, &io, message);
    if (result < 0) {
        log_error(shard->log, "cannot start: %s", message);
        return result;
    }
    if (message[0] != '\0')
        log_warn(shard->log, "%s", message);
    struct server *server = NULL;
    result = server_open(io, shard->config, shard->log, &server);
    if (result == 0) {
        set_io(shard, io);
        result = run_server(shard, server);
        set_io(shard, NULL);
    }
    io_close(io);
    server_close(server);
    return result < 0 ? result : 0;
}

static void *thread_main(void *context)
{
    struct shard_thread *shard = context;
    shard->result = run_world(shard);
    (void)kill(getpid(), SIGNAL_THREAD_ENDED);
    return NULL;
}

/* ---- the secret ---- */

/* Reads the secret from its file. Errors: -errno; -EFBIG (over CONFIG_SECRET_SIZE_MAX), -EINVAL
 * (empty, or a NUL in it). */
static int read_secret(const char *path, char *ret_secret)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    ssize_t size = read(file, ret_secret, CONFIG_SECRET_SIZE_MAX + 2);
    int result = size < 0 ? -errno : 0;
    (void)close(file);
    if (result < 0)
        return result;
    size_t length = (size_t)size;
    if (length > 0 && ret_secret[length - 1] == '\n')
        length--;
    if (length > CONFIG_SECRET_SIZE_MAX)
        return -EFBIG;
    ret_secret[length] = '\0';
    return length == 0 || strlen(ret_secret) != length ? -EINVAL : 0;
}

/* A secret on the command line is taken out of the process list. */
static void hide_secret(int argc, char **argv, char *copy, struct config *config)
{
    if (*config->secret == '\0')
        return;
    (void)snprintf(copy, CONFIG_SECRET_SIZE_MAX + 2, "%s", config->secret);
    for (int i = 1; i < argc; i++) {
        char *end = argv[i] + strlen(argv[i]);
        if (config->secret >= argv[i] && config->secret < end)
            memset((char *)config->secret, '*', strlen(config->secret));
    }
    config->secret = copy;
}

static int prepare_secret(int argc, char **argv, char *copy, struct config *config,
                          const struct log *log)
{
    hide_secret(argc, argv, copy, config);
    if (config->secret_file == NULL)
        return 0;
    int result = read_secret(config->secret_file, copy);
    if (result < 0) {
        log_error(log, "cannot take the secret from %s: %s", config->secret_file,
                  result == -EINVAL
                      ? "it is empty or has a NUL byte"
                      : (result == -EFBIG ? "it has more than 4096 bytes" : strerror(-result)));
        return result;
    }
    config->secret = copy;
    return 0;
}

/* ---- signals ---- */

static void warn_about_later_features(const struct config *config, const struct log *log)
{
    const char *nodes = getenv("CLUSTER_NODES");
    if (config->http_port != 0)
        log_warn(log, "-http %u: HTTP comes with a later release; nothing listens there",
                 config->http_port);
    if (config->public_url != NULL || (nodes != NULL && *nodes != '\0'))
        log_warn(log, "-public-url and CLUSTER_NODES: clusters come with a later release; this "
                      "node is alone");
    if (config->rate_limit != 0)
        log_warn(log,
                 "-ratelimit %" PRIu64
                 ": the rate limit comes with a later release; nothing is limited",
                 config->rate_limit);
    if (config->workers != 50)
        log_warn(log, "-workers %u: replication comes with a later release", config->workers);
}

/* Signals go to this thread alone. */
static void block_signals(sigset_t *ret_signals)
{
    sigemptyset(ret_signals);
    sigaddset(ret_signals, SIGTERM);
    sigaddset(ret_signals, SIGINT);
    sigaddset(ret_signals, SIGNAL_THREAD_ENDED);
    (void)pthread_sigmask(SIG_BLOCK, ret_signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
}

/* Waits until the shard has ended. */
static int wait_for_end(struct shard_thread *shard, const sigset_t *signals)
{
    for (;;) {
        int number = 0;
        if (sigwait(signals, &number) != 0)
            continue;
        if (number == SIGNAL_THREAD_ENDED)
            break;
        if (atomic_exchange(&shard->drain, true))
            continue;
        (void)pthread_mutex_lock(&shard->io_lock);
        if (shard->io != NULL)
            io_wake(shard->io);
        (void)pthread_mutex_unlock(&shard->io_lock);
    }
    (void)pthread_join(shard->thread, NULL);
    return shard->result;
}

static int run(const struct config *config, const struct log *log)
{
    sigset_t signals;
    block_signals(&signals);
    struct shard_thread shard = {
        .config = config, .log = log, .io_lock = PTHREAD_MUTEX_INITIALIZER};
    log_info(log, "minivault %s starts: data directory %s, durability %s, cache %" PRIu64 " MiB",
             MINIVAULT_VERSION, config->data_path,
             config->durability == WAL_COMMIT     ? "commit"
             : config->durability == WAL_INTERVAL ? "interval"
                                                  : "none",
             config->cache_size / MIB);
    warn_about_later_features(config, log);
    int result = pthread_create(&shard.thread, NULL, thread_main, &shard);
    if (result != 0) {
        log_error(log, "cannot start a thread: %s", strerror(result));
        return EXIT_FAILURE;
    }
    return wait_for_end(&shard, &signals) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static uint64_t wall_ms(void *context)
{
    (void)context;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

int main(int argc, char **argv)
{
    struct config config;
    struct log log;
    char error[FLAGS_ERROR_SIZE];
    char secret[CONFIG_SECRET_SIZE_MAX + 2] = "";
    config_init_defaults(&config);
    switch (flags_parse(argc, argv, &config, error)) {
    case FLAGS_HELP:
        (void)fputs(flags_help(), stdout);
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
    /* Secrets and clients' values stay out of core dumps. */
    (void)prctl(PR_SET_DUMPABLE, 0);
    if (prepare_secret(argc, argv, secret, &config, &log) < 0)
        return EXIT_FAILURE;
    return run(&config, &log);
}
