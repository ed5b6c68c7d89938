/* The table of flags: what each sets, and what it is without them. */
#include "node/flags.h"

#include "node/pin.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
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
        .value_size_max = MINIVAULT_VALUE_SIZE_MAX,
        .lock_wait_ns = 10 * NS_PER_S,
    };
}

/* A row of the table. What it sets is a field of struct config, `size` bytes at `offset`. */
struct flag {
    const char *name;
    const char *expected; /* what would be right */
    const char *help; /* lines of at most HELP_WIDTH characters; NULL: comes with a later release */
    const char *shown; /* in --help, behind the name; NULL: what the field is without the flag */
    /* Returns 0 or -EINVAL. */
    int (*set)(const struct flag *flag, struct config *config, const char *value);
    size_t offset, size;
    uint64_t min, max;          /* of a number, or of a text's size */
    uint64_t unit;              /* of a number */
    const char *const *choices; /* the names of an enum's values, NULL behind the last */
};

#define FIELD(member)                                                                              \
    .offset = offsetof(struct config, member), .size = sizeof(((struct config *)NULL)->member)

static void store(const struct flag *flag, struct config *config, const void *value)
{
    memcpy((char *)config + flag->offset, value, flag->size);
}

/* A decimal number within [min, max]. */
static int set_number(const struct flag *flag, struct config *config, const char *value)
{
    char *end;
    if (*value < '0' || *value > '9')
        return -EINVAL;
    errno = 0;
    uint64_t number = strtoull(value, &end, 10);
    if (errno != 0 || *end != '\0' || number < flag->min || number > flag->max)
        return -EINVAL;
    number *= flag->unit;
    store(flag, config, &number);
    return 0;
}

static int set_choice(const struct flag *flag, struct config *config, const char *value)
{
    for (int i = 0; flag->choices[i] != NULL; i++) {
        if (strcmp(value, flag->choices[i]) != 0)
            continue;
        store(flag, config, &i);
        return 0;
    }
    return -EINVAL;
}

static int set_text(const struct flag *flag, struct config *config, const char *value)
{
    size_t size = strlen(value);
    if (size < flag->min || size > flag->max)
        return -EINVAL;
    store(flag, config, &value);
    return 0;
}

/* One without a value. */
static int set_switch(const struct flag *flag, struct config *config, const char *value)
{
    (void)value;
    store(flag, config, &(bool){true});
    return 0;
}

/* As io_listen reads it: with a scope, as fe80::1%eth0, too. */
static bool is_numeric(const char *address)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(address, NULL, &hints, &found) != 0)
        return false;
    freeaddrinfo(found);
    return true;
}

static int set_host(const struct flag *flag, struct config *config, const char *value)
{
    (void)flag;
    config->host = *value == '\0' ? NULL : value;
    return config->host == NULL || is_numeric(value) ? 0 : -EINVAL;
}

static int set_auth_mode(const struct flag *flag, struct config *config, const char *value)
{
    config->auth_mode_given = true;
    return set_choice(flag, config, value);
}

static int set_scrub(const struct flag *flag, struct config *config, const char *value)
{
    bool is_off = strcmp(value, "off") == 0;
    if (!is_off && strcmp(value, "auto") != 0)
        return set_number(flag, config, value);
    config->scrub_rate = is_off ? SCRUB_OFF : SCRUB_AUTO;
    return 0;
}

static int set_pin(const struct flag *flag, struct config *config, const char *value)
{
    (void)flag;
    config->pin = value;
    return pin_check(value);
}

/* In the order of enum auth_mode, wal_durability, log_level and config_log_style. */
static const char *const auth_modes[] = {"none", "writes", "all", NULL};
static const char *const durabilities[] = {"commit", "interval", "none", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const log_styles[] = {"auto", "text", "json", NULL};

static const struct flag flags[] = {
    {"port", "a TCP port from 0 (any free one) to 65535",
     "TCP port of the binary protocol; 0: any free one, the log names it", NULL, set_number,
     FIELD(port), .max = UINT16_MAX, .unit = 1},
    {"http", "a TCP port from 0 (off) to 65535",
     "TCP port of HTTP: JSON, /livez, /readyz, /metrics, /ui; 0: none", NULL, set_number,
     FIELD(http_port), .max = UINT16_MAX, .unit = 1},
    {"host", "a numeric address, as 127.0.0.1 or ::1, or \"\" for all",
     "numeric address to listen on; empty: all, IPv6 and IPv4", "\"\"", .set = set_host},
    {"data", "a directory, at most 3800 bytes of path",
     "the data directory; created and formatted when empty", NULL, set_text, FIELD(data_path), 1,
     3800},
    {"memory", "MiB, 1 to 16777216",
     "memory that the process may take, in MiB. By default 80 % of the machine's,\n"
     "or of its control group's limit. New keys beyond it are refused",
     "80%", set_number, FIELD(memory_size), 1, 16777216, MIB},
    {"cache", "MiB, 1 to 1048576",
     "memory for values, in MiB (1 to 1048576); less where -memory is too small", NULL, set_number,
     FIELD(cache_size), 1, 1048576, MIB},
    {"durability", "commit, interval or none",
     "when a write is acknowledged:\n"
     "  commit    once it is on stable media: survives kill -9 and power loss\n"
     "  interval  at once; written and synced at least every 10 ms: a crash of the\n"
     "            process or the machine may lose the last 10 ms\n"
     "  none      at once; synced at shutdown only: a crash may lose everything\n"
     "            since the start",
     NULL, set_choice, FIELD(durability), .choices = durabilities},
    {"auth", "a secret of at most 4096 bytes",
     "the clients' secret. It may show in shell histories: prefer -auth-file", "\"\"", set_text,
     FIELD(secret), .max = CONFIG_SECRET_SIZE_MAX},
    {"auth-file", "the path of a file",
     "a file with the secret; one trailing newline is not part of it\n"
     "(without either: systemd's credential minivault-auth)",
     "FILE", set_text, FIELD(secret_file), 1, SIZE_MAX},
    {"authmode", "none, writes or all",
     "who needs the secret: none, writes (SET and DELETE), all (all but HEALTH)", NULL,
     set_auth_mode, FIELD(auth_mode), .choices = auth_modes},
    {"shards", "0 (one a CPU) to 256",
     "threads, each with its part of the keys (0: one for each CPU that this\n"
     "process may run on, but no more than its control group's CPU quota, -memory\n"
     "and the disk hold; at most 256). A directory is converted at the start when\n"
     "it had another count",
     NULL, set_number, FIELD(shard_count), 0, PIN_SHARDS_MAX, 1},
    {"pin", "auto, off, or a list of CPUs (0-3,8)",
     "CPUs of the shards' threads: auto (one each, when there are as many), off,\n"
     "or a list (0-3,8)",
     "auto", .set = set_pin},
    {"connections", "1 to 50000", "clients at once (1 to 50000); RLIMIT_NOFILE may allow fewer",
     NULL, set_number, FIELD(connections_max), 1, CONFIG_CONNECTIONS_MAX, 1},
    {"ratelimit", "operations a second, 0 (no limit) to 1000000000",
     "operations a second of the whole node, with bursts of a tenth of it (0: no\n"
     "limit)",
     NULL, set_number, FIELD(rate_limit), 0, 1000000000, 1},
    {"busypoll", "microseconds, 0 (never) to 1000",
     "microseconds to spin for more work before sleeping (0 to 1000; 0: never);\n"
     "eight times as long while the disk is read",
     NULL, set_number, FIELD(busy_poll_ns), 0, 1000, NS_PER_US},
    {"scrub", "off, auto, or MiB a second, 1 to 100000",
     "how fast the disk is read in the background to find what rots: off; auto:\n"
     "all of it within 7 days, at least 1 MiB a second; or MiB a second (1 to\n"
     "100000)",
     "auto", set_scrub, FIELD(scrub_rate), 1, 100000, MIB},
    {"drain-delay", "seconds, 0 to 3600",
     "seconds from SIGTERM, /readyz failing and everything else as usual, until\n"
     "the drain begins: for load balancers to see it (0 to 3600)",
     NULL, set_number, FIELD(drain_delay_ns), 0, 3600, NS_PER_S},
    {"slowlog", "milliseconds, 0 (off) to 3600000",
     "milliseconds from which on a request is logged (0: off), at most 10 a\n"
     "second, with its key's hash and where the time went",
     NULL, set_number, FIELD(slowlog_ns), 0, 3600000, NS_PER_MS},
    {"log-level", "debug, info, warn or error", "debug, info, warn or error, to stderr", NULL,
     set_choice, FIELD(log_level), .choices = log_levels},
    {"log-format", "auto, text or json",
     "auto: with priorities when stderr is systemd's journal, otherwise text;\n"
     "text; json: an object a line, for containers",
     NULL, set_choice, FIELD(log_style), .choices = log_styles},
    {"settings", "the path of a file",
     "lines NAME = VALUE of log-level and slowlog: before flags, and read again\n"
     "at SIGHUP, as is the file of -auth-file",
     "FILE", set_text, FIELD(settings_file), 1, SIZE_MAX},
    {"probe", "no value", "measure again how this device makes writes durable fastest", "",
     set_switch, FIELD(probe)},
    {"accept-loss", "no value",
     "go on although damage has destroyed acknowledged writes: see the log\n"
     "message that names this flag",
     "", set_switch, FIELD(accept_loss)},
    {"public-url", "host:port", NULL, NULL, set_text, FIELD(public_url), .max = SIZE_MAX},
    {"workers", "1 to 10000", NULL, NULL, set_number, FIELD(workers), 1, 10000, 1},
};

static bool takes_value(const struct flag *flag)
{
    return flag->set != set_switch;
}

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

/* Of "name=value" only the name counts. */
static enum flags_result unknown(const char *argument, char *ret_error)
{
    char name[FLAG_NAME_MAX + 1];
    (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(argument, "="), argument);
    const char *nearest = NULL;
    unsigned nearest_distance = 3; /* further away it is no typing error */
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
    if (takes_value(flag) && value == NULL) {
        value = *index + 1 < argc ? argv[++*index] : NULL;
        if (value == NULL) {
            (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "-%s wants %s", flag->name, flag->expected);
            return FLAGS_BAD;
        }
    }
    if ((!takes_value(flag) && value != NULL) || flag->set(flag, config, value) < 0) {
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "-%s wants %s, not \"%.64s\"", flag->name,
                       flag->expected, value);
        return FLAGS_BAD;
    }
    return FLAGS_RUN;
}

int flags_set(struct config *config, const char *name, const char *value, char *ret_error)
{
    const struct flag *flag = find(name, strlen(name));
    if (flag == NULL || !takes_value(flag)) {
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "%.64s takes no value", name);
        return -EINVAL;
    }
    if (flag->set(flag, config, value) == 0)
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
                  "DELETE need it) or -authmode all";
    else if (!has_secret && config->auth_mode != AUTH_NONE)
        problem = "-authmode writes and all need a secret: add -auth-file FILE, "
                  "-auth SECRET or systemd's credential minivault-auth";
    else if (config->http_port != 0 && config->http_port == config->port)
        problem = "-port and -http name the same port: the binary protocol and HTTP need one each, "
                  "as -port 3000 -http 8080";
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

/* ---- --help ---- */

#define HELP_COLUMN 23 /* where what a flag does begins */
#define HELP_WIDTH 77

/* What the field is without the flag, in the flag's unit. */
static void show_default(const struct flag *flag, const struct config *defaults, char *ret_text,
                         size_t size)
{
    const char *field = (const char *)defaults + flag->offset;
    uint64_t number = 0;
    if (flag->shown != NULL) {
        (void)snprintf(ret_text, size, "%s", flag->shown);
    } else if (flag->set == set_text) {
        const char *text;
        memcpy(&text, field, sizeof text);
        (void)snprintf(ret_text, size, "%s", text);
    } else {
        assert(flag->size <= sizeof number);
        memcpy(&number, field, flag->size);
        if (flag->choices != NULL)
            (void)snprintf(ret_text, size, "%s", flag->choices[number]);
        else
            (void)snprintf(ret_text, size, "%" PRIu64, number / flag->unit);
    }
}

static void print_flag(FILE *file, const struct flag *flag, const struct config *defaults)
{
    char shown[64];
    show_default(flag, defaults, shown, sizeof shown);
    int column = fprintf(file, "  -%s %s", flag->name, shown);
    const char *line = flag->help;
    while (line != NULL) {
        int size = (int)strcspn(line, "\n");
        assert(size <= HELP_WIDTH);
        (void)fprintf(file, "%*s%.*s\n", column < HELP_COLUMN ? HELP_COLUMN - column : 1, "", size,
                      line);
        line = line[size] == '\n' ? line + size + 1 : NULL;
        column = 0;
    }
}

void flags_help(FILE *file)
{
    struct config defaults;
    config_init_defaults(&defaults);
    (void)fputs("minivault: a durable key-value store on io_uring\n\n"
                "usage: minivault [-FLAG VALUE]...        (-x and --x, \"-x value\" and "
                "\"-x=value\")\n\n",
                file);
    for (size_t i = 0; i < FLAG_COUNT; i++)
        if (flags[i].help != NULL)
            print_flag(file, &flags[i], &defaults);
    (void)fputs("  --help, --version\n\naccepted, and not in this release yet (a warning says so "
                "when one is set):",
                file);
    for (size_t i = 0; i < FLAG_COUNT; i++)
        if (flags[i].help == NULL)
            (void)fprintf(file, " -%s", flags[i].name);
    (void)fputs(
        "\n\nSIGTERM and SIGINT drain: no new connections, what was received is answered, all is "
        "synced, exit 0.\ndocs/operations.md tells about limits, memory and failures.\n",
        file);
}
