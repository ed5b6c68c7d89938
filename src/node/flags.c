/* The table of flags: what each sets, and what it is without them. */
#include "node/flags.h"

#include "node/pin.h"

#include "base/assert.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void config_init_defaults(struct config *config)
{
    *config = (struct config){
        .port = 3000,
        .data_path = "/data",
        .secret = "",
        .auth_mode = AUTH_NONE,
        .cache_size = 512 * MIB,
        .workers = 50,
        .durability = WAL_COMMIT,
        .scrub_rate = SCRUB_AUTO,
        .busy_poll_ns = 50 * NS_PER_US,
        .log_level = LOG_INFO,
        .pin = "auto",
        .connections_max = CONFIG_CONNECTIONS_MAX,
        .value_size_max = CONFIG_VALUE_SIZE_DEFAULT,
        .lock_wait_ns = 10 * NS_PER_S,
    };
}

struct flag {
    const char *name;
    bool takes_value;
    /* Returns 0, or -EINVAL: then `expected` says what would be right. */
    int (*set)(struct config *config, const char *value);
    const char *expected;
};

/* A decimal number within [min, max]. Errors: -EINVAL. */
static int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
    char *end;
    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || number < min || number > max)
        return -EINVAL;
    *ret_number = number;
    return 0;
}

/* Index of `text` in `names`. Errors: -EINVAL. */
static int parse_choice(const char *text, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    return -EINVAL;
}

static int set_port(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 0, UINT16_MAX, &number);
    if (result == 0)
        config->port = (uint16_t)number;
    return result;
}

static int set_http(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 0, UINT16_MAX, &number);
    if (result == 0)
        config->http_port = (uint16_t)number;
    return result;
}

static int set_host(struct config *config, const char *value)
{
    config->host = *value == '\0' ? NULL : value;
    return 0;
}

static int set_public_url(struct config *config, const char *value)
{
    config->public_url = value;
    return 0;
}

static int set_data(struct config *config, const char *value)
{
    config->data_path = value;
    return *value == '\0' || strlen(value) > 3800 ? -EINVAL : 0;
}

static int set_auth(struct config *config, const char *value)
{
    config->secret = value;
    return strlen(value) > CONFIG_SECRET_SIZE_MAX ? -EINVAL : 0;
}

static int set_auth_file(struct config *config, const char *value)
{
    config->secret_file = value;
    return *value == '\0' ? -EINVAL : 0;
}

static int set_settings(struct config *config, const char *value)
{
    config->settings_file = value;
    return *value == '\0' ? -EINVAL : 0;
}

static int set_auth_mode(struct config *config, const char *value)
{
    static const char *const names[] = {"none", "writes", "all"};
    int choice = parse_choice(value, names, 3);
    if (choice < 0)
        return choice;
    config->auth_mode = (enum auth_mode)choice;
    config->auth_mode_given = true;
    return 0;
}

static int set_rate_limit(struct config *config, const char *value)
{
    return parse_number(value, 0, 1000000000, &config->rate_limit);
}

static int set_cache(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 1, 1024 * 1024, &number);
    if (result == 0)
        config->cache_size = number * MIB;
    return result;
}

static int set_workers(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 1, 10000, &number);
    if (result == 0)
        config->workers = (uint32_t)number;
    return result;
}

static int set_durability(struct config *config, const char *value)
{
    static const char *const names[] = {"commit", "interval", "none"};
    int choice = parse_choice(value, names, 3);
    if (choice < 0)
        return choice;
    config->durability = (enum wal_durability)choice;
    return 0;
}

static int set_busy_poll(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 0, 1000, &number);
    if (result == 0)
        config->busy_poll_ns = number * NS_PER_US;
    return result;
}

static int set_scrub(struct config *config, const char *value)
{
    static const char *const names[] = {"off", "auto"};
    static const uint64_t rates[] = {SCRUB_OFF, SCRUB_AUTO};
    uint64_t number;
    int choice = parse_choice(value, names, 2);
    if (choice >= 0) {
        config->scrub_rate = rates[choice];
        return 0;
    }
    int result = parse_number(value, 1, 100000, &number);
    if (result == 0)
        config->scrub_rate = number * MIB;
    return result;
}

static int set_log_level(struct config *config, const char *value)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    int choice = parse_choice(value, names, 4);
    if (choice < 0)
        return choice;
    config->log_level = (enum log_level)choice;
    return 0;
}

static int set_slowlog(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 0, 3600000, &number);
    if (result == 0)
        config->slowlog_ns = number * NS_PER_MS;
    return result;
}

static int set_connections(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 1, CONFIG_CONNECTIONS_MAX, &number);
    if (result == 0)
        config->connections_max = (uint32_t)number;
    return result;
}

static int set_drain_delay(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 0, 3600, &number);
    if (result == 0)
        config->drain_delay_ns = number * NS_PER_S;
    return result;
}

static int set_shards(struct config *config, const char *value)
{
    uint64_t number;
    int result = parse_number(value, 0, PIN_SHARDS_MAX, &number);
    if (result == 0)
        config->shard_count = (uint32_t)number;
    return result;
}

static int set_pin(struct config *config, const char *value)
{
    config->pin = value;
    return pin_check(value);
}

static int set_accept_loss(struct config *config, const char *value)
{
    (void)value;
    config->accept_loss = true;
    return 0;
}

static int set_probe(struct config *config, const char *value)
{
    (void)value;
    config->probe = true;
    return 0;
}

static const struct flag flags[] = {
    {"port", true, set_port, "a TCP port from 0 (any free one) to 65535"},
    {"host", true, set_host, "a numeric address, or \"\" for all"},
    {"http", true, set_http, "a TCP port from 0 (off) to 65535"},
    {"public-url", true, set_public_url, "host:port"},
    {"data", true, set_data, "a directory, at most 3800 bytes of path"},
    {"auth", true, set_auth, "a secret of at most 4096 bytes"},
    {"auth-file", true, set_auth_file, "the path of a file"},
    {"settings", true, set_settings, "the path of a file"},
    {"authmode", true, set_auth_mode, "none, writes or all"},
    {"ratelimit", true, set_rate_limit, "operations a second, 0 (no limit) to 1000000000"},
    {"cache", true, set_cache, "MiB, 1 to 1048576"},
    {"workers", true, set_workers, "1 to 10000"},
    {"durability", true, set_durability, "commit, interval or none"},
    {"busypoll", true, set_busy_poll, "microseconds, 0 (never) to 1000"},
    {"shards", true, set_shards, "0 (one a CPU) to 256"},
    {"pin", true, set_pin, "auto, off, or a list of CPUs (0-3,8)"},
    {"connections", true, set_connections, "1 to 50000"},
    {"scrub", true, set_scrub, "off, auto, or MiB a second, 1 to 100000"},
    {"slowlog", true, set_slowlog, "milliseconds, 0 (off) to 3600000"},
    {"drain-delay", true, set_drain_delay, "seconds, 0 to 3600"},
    {"log-level", true, set_log_level, "debug, info, warn or error"},
    {"accept-loss", false, set_accept_loss, "no value"},
    {"probe", false, set_probe, "no value"},
};

#define FLAG_COUNT (sizeof flags / sizeof flags[0])
#define FLAG_NAME_MAX 32

/* Levenshtein distance, for the suggestion; names longer than FLAG_NAME_MAX are far from
 * everything. */
static unsigned distance(const char *a, const char *b)
{
    size_t a_size = strlen(a), b_size = strlen(b);
    unsigned row[FLAG_NAME_MAX + 1];
    if (a_size > FLAG_NAME_MAX || b_size > FLAG_NAME_MAX)
        return FLAG_NAME_MAX;
    for (size_t j = 0; j <= b_size; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_size; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_size; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[b_size];
}

static enum flags_result unknown(const char *name, char *ret_error)
{
    const char *nearest = NULL;
    unsigned nearest_distance = 4;
    for (size_t i = 0; i < FLAG_COUNT; i++) {
        unsigned d = distance(name, flags[i].name);
        if (d < nearest_distance) {
            nearest_distance = d;
            nearest = flags[i].name;
        }
    }
    if (nearest != NULL)
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "unknown flag -%.64s: did you mean -%s?", name,
                       nearest);
    else
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "unknown flag -%.64s: --help lists them all",
                       name);
    return FLAGS_BAD;
}

static const struct flag *find(const char *name, size_t size)
{
    for (size_t i = 0; i < FLAG_COUNT; i++)
        if (strlen(flags[i].name) == size && memcmp(flags[i].name, name, size) == 0)
            return &flags[i];
    return NULL;
}

/* One argument, and its value when that is the next one. *index goes on. */
static enum flags_result parse_one(int argc, char **argv, int *index, struct config *config,
                                   char *ret_error)
{
    const char *argument = argv[*index];
    const char *name = argument + 1 + (argument[0] == '-' && argument[1] == '-');
    if (argument[0] != '-' || *name == '\0') {
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "\"%.64s\" is not a flag: --help lists them",
                       argument);
        return FLAGS_BAD;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "h") == 0)
        return FLAGS_HELP;
    if (strcmp(name, "version") == 0)
        return FLAGS_VERSION;
    size_t size = strcspn(name, "=");
    const struct flag *flag = find(name, size);
    if (flag == NULL)
        return unknown(name, ret_error);
    const char *value = name[size] == '=' ? name + size + 1 : NULL;
    if (flag->takes_value && value == NULL) {
        value = *index + 1 < argc ? argv[++*index] : NULL;
        if (value == NULL) {
            (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "-%s wants %s", flag->name, flag->expected);
            return FLAGS_BAD;
        }
    }
    if ((!flag->takes_value && value != NULL) || flag->set(config, value) < 0) {
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "-%s wants %s, not \"%.64s\"", flag->name,
                       flag->expected, value);
        return FLAGS_BAD;
    }
    return FLAGS_RUN;
}

int flags_set(struct config *config, const char *name, const char *value, char *ret_error)
{
    const struct flag *flag = find(name, strlen(name));
    if (flag == NULL || !flag->takes_value) {
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "%.64s takes no value", name);
        return -EINVAL;
    }
    if (flag->set(config, value) == 0)
        return 0;
    (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "%s wants %s, not \"%.64s\"", flag->name,
                   flag->expected, value);
    return -EINVAL;
}

/* A credential of systemd's stands in for -auth-file. */
static void take_credential(struct config *config)
{
    if (*config->secret == '\0' && config->secret_file == NULL &&
        !(config->auth_mode_given && config->auth_mode == AUTH_NONE))
        config->secret_file = config->credential;
}

static enum flags_result check_together(const struct config *config, char *ret_error)
{
    bool has_secret = *config->secret != '\0' || config->secret_file != NULL;
    const char *problem = NULL;
    if (*config->secret != '\0' && config->secret_file != NULL)
        problem = "-auth and -auth-file name two secrets: give one of them";
    else if (has_secret && !config->auth_mode_given)
        problem = "a secret protects nothing without -authmode: add -authmode writes (SET and "
                  "DELETE need it) or "
                  "-authmode all";
    else if (!has_secret && config->auth_mode != AUTH_NONE)
        problem = "-authmode writes and all need a secret: add -auth-file FILE, "
                  "-auth SECRET or systemd's credential minivault-auth";
    if (problem == NULL)
        return FLAGS_RUN;
    (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "%s", problem);
    return FLAGS_BAD;
}

enum flags_result flags_parse(int argc, char **argv, struct config *config, char *ret_error)
{
    for (int i = 1; i < argc; i++) {
        enum flags_result result = parse_one(argc, argv, &i, config, ret_error);
        if (result != FLAGS_RUN)
            return result;
    }
    take_credential(config);
    return check_together(config, ret_error);
}

const char *flags_help(void)
{
    return "minivault: a durable key-value store on io_uring\n"
           "\n"
           "usage: minivault [-FLAG VALUE]...        (-x and --x, \"-x value\" and \"-x=value\")\n"
           "\n"
           "  -port 3000           TCP port of the binary protocol; 0: any free one, the log names "
           "it\n"
           "  -host \"\"             numeric address to listen on; empty: all, IPv6 and IPv4\n"
           "  -data /data          the data directory; created and formatted when empty\n"
           "  -cache 512           memory for values, in MiB (1 to 1048576)\n"
           "  -durability commit   when a write is acknowledged:\n"
           "                         commit    once it is on stable media: survives kill -9 and "
           "power loss\n"
           "                         interval  at once; written and synced at least every 10 ms: a "
           "crash of the\n"
           "                                   process or the machine may lose the last 10 ms\n"
           "                         none      at once; synced at shutdown only: a crash may lose "
           "everything\n"
           "                                   since the start\n"
           "  -auth \"\"             the clients' secret. It may show in shell histories: prefer "
           "-auth-file\n"
           "  -auth-file FILE      a file with the secret; one trailing newline is not part of it\n"
           "                       (without either: systemd's credential minivault-auth)\n"
           "  -authmode none       who needs the secret: none, writes (SET and DELETE), all (all "
           "but HEALTH)\n"
           "  -shards 0            threads, each with its part of the keys (0: one for each CPU "
           "that "
           "this process\n"
           "                       may run on; at most 256). A directory is converted at the start "
           "when it had\n"
           "                       another count\n"
           "  -pin auto            CPUs of the shards' threads: auto (one each, when there are as "
           "many), off, or\n"
           "                       a list (0-3,8)\n"
           "  -connections 50000   clients at once (1 to 50000); RLIMIT_NOFILE may allow fewer\n"
           "  -ratelimit 0         operations a second of the whole node, with bursts of a tenth "
           "of "
           "it (0: no limit)\n"
           "  -busypoll 50         microseconds to spin for more work before sleeping (0 to 1000; "
           "0: never);\n"
           "                       eight times as long while the disk is read\n"
           "  -scrub auto          how fast the disk is read in the background to find what rots: "
           "off; auto:\n"
           "                       all of it within 7 days, at least 1 MiB a second; or MiB a "
           "second "
           "(1 to 100000)\n"
           "  -drain-delay 0       seconds from SIGTERM, /readyz failing and everything else as "
           "usual, until the\n"
           "                       drain begins: for load balancers to see it (0 to 3600)\n"
           "  -slowlog 0           milliseconds from which on a request is logged (0: off), at\n"
           "                       most 10 a second, with its key's hash and where the time went\n"
           "  -log-level info      debug, info, warn or error, to stderr\n"
           "  -settings FILE       lines NAME = VALUE of log-level and slowlog: before flags, and\n"
           "                       read again at SIGHUP, as is the file of -auth-file\n"
           "  -probe               measure again how this device makes writes durable fastest\n"
           "  -accept-loss         go on although damage has destroyed acknowledged writes: see "
           "the log message\n"
           "                       that names this flag\n"
           "  --help, --version\n"
           "\n"
           "accepted, and not in this release yet (a warning says so when one is set):\n"
           "  -http 0              HTTP/JSON port (0: off)\n"
           "  -public-url          this node's address in a cluster; with CLUSTER_NODES in the "
           "environment\n"
           "  -workers 50          replication batches in flight\n"
           "\n"
           "SIGTERM and SIGINT drain: no new connections, what was received is answered, all is "
           "synced, exit 0.\n"
           "docs/operations.md tells about limits, memory and failures.\n";
}
