/* The command line by itself: forms, ranges, suggestions and the help. */
#include "node/flags.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* On top of what `config` has. */
static enum flags_result parse_onto(const char *line, struct config *config, char *ret_error)
{
    static char words[1024];
    char *argv[32] = {"minivault"};
    int argc = 1;
    (void)snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    ret_error[0] = '\0';
    return flags_parse(argc, argv, config, ret_error);
}

static enum flags_result parse(const char *line, struct config *ret_config, char *ret_error)
{
    config_init_defaults(ret_config);
    return parse_onto(line, ret_config, ret_error);
}

static void accepts(const char *line, struct config *ret_config)
{
    char error[FLAGS_ERROR_SIZE];
    enum flags_result result = parse(line, ret_config, error);
    cr_assert_eq(result, FLAGS_RUN, "%s: %s", line, error);
}

static void refuses(const char *line, const char *because)
{
    char error[FLAGS_ERROR_SIZE];
    struct config config;
    cr_assert_eq(parse(line, &config, error), FLAGS_BAD, "%s was accepted", line);
    cr_assert_not_null(strstr(error, because), "%s: \"%s\" does not say \"%s\"", line, error,
                       because);
}

Test(flags, nothing_gives_the_defaults)
{
    struct config config;
    accepts("", &config);
    cr_assert_eq(config.port, 3000);
    cr_assert_str_eq(config.data_path, "/data");
    cr_assert_eq(config.cache_size, 512 * MIB);
    cr_assert_eq(config.memory_size, 0, "sizing.c chooses");
    cr_assert_eq(config.durability, WAL_COMMIT);
    cr_assert_eq(config.auth_mode, AUTH_NONE);
}

Test(flags, one_and_two_dashes_and_both_forms_of_value)
{
    struct config config;
    accepts("-port 4000 --cache 64 -data=/x --durability=interval -workers 7 -ratelimit 5",
            &config);
    cr_assert_eq(config.port, 4000);
    cr_assert_eq(config.cache_size, 64 * MIB);
    cr_assert_str_eq(config.data_path, "/x");
    cr_assert_eq(config.durability, WAL_INTERVAL);
    cr_assert_eq(config.workers, 7);
    cr_assert_eq(config.rate_limit, 5);
}

Test(flags, the_seeds_flags_are_all_known)
{
    struct config config;
    accepts("-port 3000 -http 8080 -public-url a:3000 -data d -auth s -authmode writes -ratelimit "
            "100000 "
            "-cache 2048 -workers 100",
            &config);
    cr_assert_eq(config.http_port, 8080);
    cr_assert_str_eq(config.public_url, "a:3000");
    cr_assert_str_eq(config.secret, "s");
    cr_assert_eq(config.auth_mode, AUTH_WRITES);
}

Test(flags, ranges_are_checked)
{
    refuses("-port 65536", "0 (any free one) to 65535");
    refuses("-port -1", "-port wants");
    refuses("-port 80x", "-port wants");
    refuses("-port", "-port wants");
    refuses("-cache 0", "-cache wants");
    refuses("-cache 99999999999999999999", "-cache wants");
    refuses("-busypoll 1001", "-busypoll wants");
    refuses("-durability fsync", "commit, interval or none");
    refuses("-authmode some", "none, writes or all");
    refuses("-probe=1", "-probe wants no value");
}

Test(flags, an_unknown_flag_is_refused_with_a_suggestion)
{
    refuses("-prot 3000", "did you mean -port?");
    refuses("--cach=5", "unknown flag -cach: did you mean -cache?");
    refuses("-foo 1", "unknown flag -foo: --help lists them all"); /* three edits from -port */
    refuses("-xyzzyxyzzy", "--help lists them all");
    refuses("3000", "is not a flag");
    refuses("-", "is not a flag");
}

Test(flags, a_secret_without_a_mode_is_refused_and_a_mode_without_a_secret)
{
    refuses("-auth s", "add -authmode");
    refuses("-auth-file f", "add -authmode");
    refuses("-authmode all", "need a secret");
    refuses("-auth s -auth-file f -authmode all", "two secrets");
    struct config config;
    accepts("-auth s -authmode none", &config);
}

Test(flags, help_and_version)
{
    struct config config;
    char error[FLAGS_ERROR_SIZE];
    cr_assert_eq(parse("--help", &config, error), FLAGS_HELP);
    cr_assert_eq(parse("-help", &config, error), FLAGS_HELP);
    cr_assert_eq(parse("-port 1 --version", &config, error), FLAGS_VERSION);
}

/* Generated: the name, what counts without the flag, and what it does, in a column. */
Test(flags, help_shows_the_table_with_its_defaults)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    flags_help(file);
    (void)fclose(file);
    static const char *const lines[] = {
        "\n  -port 3000           TCP port of the binary protocol",
        "\n  -http 0              TCP port of HTTP",
        "\n  -host \"\"             numeric address",
        "\n  -data /data          the data directory",
        "\n  -cache 512           memory for values",
        "\n  -durability commit   when a write is acknowledged:",
        "\n                         commit    once",
        "\n  -busypoll 50         microseconds",
        "\n  -auth-file FILE      a file",
        "\n  -log-format auto     auto: ",
        "\n  -scrub auto          how fast",
        "\n  -probe               measure again",
        "not in this release yet (a warning says so when one is set): -public-url -workers\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        cr_assert_not_null(strstr(text, lines[i]), "'%s' is not in:\n%s", lines[i], text);
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        cr_assert_leq(strcspn(line, "\n"), 106, "%.120s", line);
    free(text);
}

Test(flags, addresses_are_numeric_and_ports_differ)
{
    struct config config;
    refuses("-host localhost", "-host wants a numeric address, as 127.0.0.1 or ::1");
    refuses("-host 1.2.3.4.5", "-host wants");
    accepts("-host ::1", &config);
    accepts("-host 127.0.0.1", &config);
    accepts("-host=", &config);
    cr_assert_null(config.host);
    refuses("-port 8080 -http 8080", "-port and -http name the same port");
    refuses("-http 3000", "-port and -http name the same port");
    accepts("-port 0 -http 0", &config);
}

Test(flags, a_log_is_text_or_json)
{
    struct config config;
    accepts("", &config);
    cr_assert_eq(config.log_style, CONFIG_LOG_AUTO);
    accepts("-log-format json", &config);
    cr_assert_eq(config.log_style, CONFIG_LOG_JSON);
    refuses("-log-format xml", "auto, text or json");
}

Test(flags, a_credential_stands_in_for_a_file)
{
    static const struct {
        const char *line, *file, *refused;
    } cases[] = {
        {"-authmode all", "/run/c", NULL},     {"-authmode all -auth-file f", "f", NULL},
        {"-authmode all -auth s", NULL, NULL}, {"-authmode none", NULL, NULL},
        {"", "/run/c", "-authmode"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char error[FLAGS_ERROR_SIZE];
        struct config config;
        config_init_defaults(&config);
        config.credential = "/run/c";
        enum flags_result result = parse_onto(cases[i].line, &config, error);
        cr_assert_eq(result, cases[i].refused == NULL ? FLAGS_RUN : FLAGS_BAD, "%s: %s",
                     cases[i].line, error);
        if (cases[i].refused != NULL)
            cr_assert_not_null(strstr(error, cases[i].refused), "%s", error);
        else if (cases[i].file == NULL)
            cr_assert_null(config.secret_file, "%s", cases[i].line);
        else
            cr_assert_str_eq(config.secret_file, cases[i].file);
    }
}

Test(flags, one_flag_can_be_set_by_its_name)
{
    struct config config;
    char error[FLAGS_ERROR_SIZE];
    config_init_defaults(&config);
    cr_assert_eq(flags_set(&config, "slowlog", "20", error), 0);
    cr_assert_eq(config.slowlog_ns, 20 * NS_PER_MS);
    cr_assert_eq(flags_set(&config, "slowlog", "soon", error), -EINVAL);
    cr_assert_eq(flags_set(&config, "probe", "", error), -EINVAL, "it takes no value");
    cr_assert_eq(flags_set(&config, "no-such", "1", error), -EINVAL);
}
