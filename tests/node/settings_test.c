/* The file of settings and the credentials, by themselves, with files of a temporary folder. */
#include "node/settings.h"

#include "node/secret.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct book {
    struct log log;
    char said[4 * LOG_LINE_MAX];
};

static void keep_line(void *context, const char *line, uint32_t size)
{
    struct book *book = context;
    size_t length = strlen(book->said);
    cr_assert_lt(length + size, sizeof book->said);
    memcpy(book->said + length, line, size);
    book->said[length + size] = '\0';
}

static void book_init(struct book *book)
{
    memset(book, 0, sizeof *book);
    book->log = (struct log){.level_min = LOG_INFO, .write = keep_line, .context = book};
}

static void write_file(const char *path, const char *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

static void new_path(char *path)
{
    strcpy(path, "/tmp/minivault-reload-XXXXXX");
    int file = mkstemp(path);
    cr_assert_geq(file, 0);
    (void)close(file);
}

static int parse(const char *text, struct config *ret_config, char *ret_error)
{
    config_init_defaults(ret_config);
    ret_error[0] = '\0';
    return settings_parse(text, strlen(text), ret_config, ret_error);
}

Test(reload, settings_are_lines_of_name_and_value)
{
    struct config config;
    char error[FLAGS_ERROR_SIZE];
    cr_assert_eq(parse("# how it runs\n\n  log-level = debug \r\n\tslowlog=250", &config, error), 0,
                 "%s", error);
    cr_assert_eq(config.log_level, LOG_DEBUG);
    cr_assert_eq(config.slowlog_ns, 250 * NS_PER_MS);
    cr_assert_eq(parse("", &config, error), 0);
    cr_assert_eq(config.log_level, LOG_INFO);
    cr_assert_eq(parse("slowlog = 1\nslowlog = 2\n", &config, error), 0);
    cr_assert_eq(config.slowlog_ns, 2 * NS_PER_MS, "the last one counts");
}

Test(reload, wrong_settings_say_the_line_and_what_would_be_right)
{
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"log-level = loud", "line 1: log-level wants debug, info, warn or error, not \"loud\""},
        {"\n\nslowlog = -1\n", "line 3: slowlog wants milliseconds"},
        {"slowlog =", "line 1: slowlog wants milliseconds"},
        {"port = 3000", "line 1: \"port\" is not a setting; log-level and slowlog are"},
        {"auth = secret", "is not a setting"},
        {"log-level debug", "line 1: not NAME = VALUE"},
        {"= debug", "\"\" is not a setting"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct config config;
        char error[FLAGS_ERROR_SIZE];
        cr_assert_eq(parse(wrong[i].text, &config, error), -EINVAL, "%s", wrong[i].text);
        cr_assert_not_null(strstr(error, wrong[i].says), "%s: %s", wrong[i].text, error);
    }
}

Test(reload, what_is_not_text_is_refused)
{
    struct config config;
    char error[FLAGS_ERROR_SIZE], text[1000];
    config_init_defaults(&config);
    memset(text, 'x', sizeof text);
    cr_assert_eq(settings_parse(text, sizeof text, &config, error), -EINVAL);
    cr_assert_eq(settings_parse("log-level\0= debug\n", 18, &config, error), -EINVAL);
}

Test(reload, a_file_that_is_wrong_changes_nothing)
{
    struct book book;
    struct config config;
    char path[64];
    book_init(&book);
    new_path(path);
    config_init_defaults(&config);
    config.settings_file = path;
    write_file(path, "slowlog = 9\nlog-level = loud\n", 29);
    cr_assert_eq(settings_read(&config, &book.log), -EINVAL);
    cr_assert_eq(config.slowlog_ns, 0, "not even its first line");
    cr_assert_not_null(strstr(book.said, "line 2"), "%s", book.said);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(settings_read(&config, &book.log), -ENOENT);
}

static bool is_right(const struct auth *auth, const char *attempt)
{
    return auth_check(auth, (struct slice){(const uint8_t *)attempt, (uint32_t)strlen(attempt)});
}

/* Two new files, which the flags name. */
static struct config given_files(struct book *book, char *ret_settings, char *ret_secret)
{
    struct config given;
    book_init(book);
    new_path(ret_settings);
    new_path(ret_secret);
    config_init_defaults(&given);
    given.settings_file = ret_settings;
    given.secret_file = ret_secret;
    return given;
}

Test(reload, takes_what_files_say_now_and_flags_where_they_say_nothing)
{
    struct book book;
    char settings[64], secret[64];
    struct settings reload;
    struct config given = given_files(&book, settings, secret);
    given.slowlog_ns = 5 * NS_PER_MS;
    struct config now = given;
    write_file(secret, "first\n", 6);
    write_file(settings, "log-level = debug\n", 18);
    settings_reload(&given, &now, &book.log, &reload);
    cr_assert_eq(book.log.level_min, LOG_DEBUG);
    cr_assert_eq(reload.slowlog_ns, 5 * NS_PER_MS);
    cr_assert(is_right(&reload.auth, "first"));
    cr_assert_not(is_right(&reload.auth, "first\n"));

    write_file(secret, "second", 6);
    write_file(settings, "slowlog = 0\n", 12);
    settings_reload(&given, &now, &book.log, &reload);
    cr_assert_eq(book.log.level_min, LOG_INFO, "the file says it no more: as the flags say");
    cr_assert_eq(reload.slowlog_ns, 0);
    cr_assert(is_right(&reload.auth, "second"));
    cr_assert_not(is_right(&reload.auth, "first"));

    cr_assert(reload.is_good);
    (void)unlink(settings);
    (void)unlink(secret);
}

/* One good file beside a wrong one, both ways. */
Test(reload, takes_all_files_or_none)
{
    struct book book;
    char settings[64], secret[64];
    struct settings reload;
    struct config given = given_files(&book, settings, secret);
    struct config now = given;
    write_file(secret, "first", 5);
    write_file(settings, "slowlog = 1\n", 12);
    settings_reload(&given, &now, &book.log, &reload);
    cr_assert(reload.is_good);
    for (int i = 0; i < 2; i++) {
        write_file(secret, "second", i == 0 ? 0 : 6);
        write_file(settings, i == 0 ? "slowlog = 2\n" : "slowlog = x\n", 12);
        book.said[0] = '\0';
        settings_reload(&given, &now, &book.log, &reload);
        cr_assert_not(reload.is_good);
        cr_assert(is_right(&reload.auth, "first"));
        cr_assert_not(is_right(&reload.auth, ""));
        cr_assert_eq(reload.slowlog_ns, 1 * NS_PER_MS);
        cr_assert_not_null(strstr(book.said, "not reloaded: "), "%s", book.said);
    }
    (void)unlink(settings);
    (void)unlink(secret);
}

Test(secret, files_are_read_up_to_their_last_newline)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *secret; /* NULL: refused */
    } files[] = {
        {"s", 1, "s"},     {"s\n", 2, "s"}, {"s\n\n", 3, "s\n"},
        {" s ", 3, " s "}, {"\n", 1, NULL}, {"", 0, NULL},
        {"a\0b", 3, NULL}, {"\0", 1, NULL}, {"\xff\xfe", 2, "\xff\xfe"},
    };
    struct book book;
    char path[64];
    book_init(&book);
    new_path(path);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct auth auth = {0};
        write_file(path, files[i].bytes, files[i].size);
        int error = secret_read(path, &auth, &book.log);
        cr_assert_eq(error, files[i].secret == NULL ? -EINVAL : 0, "%zu", i);
        cr_assert_eq(auth.has_secret, files[i].secret != NULL);
        if (files[i].secret != NULL)
            cr_assert(is_right(&auth, files[i].secret), "%zu", i);
    }
    (void)unlink(path);
}

Test(secret, the_longest_is_taken_and_one_byte_more_is_not)
{
    struct book book;
    char path[64], bytes[CONFIG_SECRET_SIZE_MAX + 3];
    struct auth auth = {0};
    book_init(&book);
    new_path(path);
    memset(bytes, 'x', sizeof bytes);
    bytes[CONFIG_SECRET_SIZE_MAX] = '\n';
    write_file(path, bytes, CONFIG_SECRET_SIZE_MAX + 1);
    cr_assert_eq(secret_read(path, &auth, &book.log), 0);
    bytes[CONFIG_SECRET_SIZE_MAX] = 'x';
    write_file(path, bytes, CONFIG_SECRET_SIZE_MAX + 1);
    cr_assert_eq(secret_read(path, &auth, &book.log), -EFBIG);
    write_file(path, bytes, CONFIG_SECRET_SIZE_MAX + 3);
    cr_assert_eq(secret_read(path, &auth, &book.log), -EFBIG);
    cr_assert(auth.has_secret, "what was there is untouched");
    (void)unlink(path);
}

Test(secret, leaves_the_command_line)
{
    char one[] = "-auth", two[] = "hunter2", three[] = "--auth=hunter3", four[] = "-authmode",
         five[] = "all", six[] = "-auth=x";
    char *argv[] = {"minivault", one, two, three, four, five, six};
    struct book book;
    struct config config;
    book_init(&book);
    config_init_defaults(&config);
    config.secret = three + 7;
    cr_assert_eq(secret_take(7, argv, &config, &book.log), 0);
    cr_assert(is_right(&config.auth, "hunter3"));
    cr_assert_str_eq(two, "***");
    cr_assert_str_eq(three, "--auth=***");
    cr_assert_str_eq(six, "-auth=*");
    cr_assert_str_eq(five, "all");
    cr_assert_arr_eq(two + 4, "\0\0\0", 3, "and nothing is left behind the mask");
    cr_assert_str_eq(config.secret, "");
}

Test(secret, credentials_are_found_where_systemd_puts_them)
{
    char directory[] = "/tmp/minivault-credentials-XXXXXX", path[128], buffer[SECRET_PATH_MAX];
    cr_assert_not_null(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/minivault-auth", directory);
    (void)unsetenv("CREDENTIALS_DIRECTORY");
    cr_assert_null(secret_credential(buffer));
    (void)setenv("CREDENTIALS_DIRECTORY", directory, 1);
    cr_assert_null(secret_credential(buffer), "there is no such file yet");
    write_file(path, "s", 1);
    cr_assert_str_eq(secret_credential(buffer), path);
    (void)unlink(path);
    (void)rmdir(directory);
}

/* Two processes' hashes of one secret say nothing about each other. */
Test(auth, the_hash_depends_on_the_key_and_the_secret)
{
    struct auth one, other, third;
    uint8_t key[AUTH_HASH_SIZE] = {1}, other_key[AUTH_HASH_SIZE] = {2};
    struct slice secret = {(const uint8_t *)"secret", 6};
    cr_assert_eq(auth_init(&one, key, secret), 0);
    cr_assert_eq(auth_init(&other, other_key, secret), 0);
    cr_assert_eq(auth_init(&third, key, (struct slice){(const uint8_t *)"secres", 6}), 0);
    cr_assert_arr_neq(one.hash, other.hash, AUTH_HASH_SIZE);
    cr_assert_arr_neq(one.hash, third.hash, AUTH_HASH_SIZE);
    cr_assert(auth_check(&one, secret) && auth_check(&other, secret));
    cr_assert_not(auth_check(&third, secret));
    cr_assert_not(auth_check(&one, (struct slice){(const uint8_t *)"secret", 5}));
    cr_assert_not(auth_check(&one, (struct slice){(const uint8_t *)"", 0}));
}

Test(auth, without_a_secret_every_attempt_is_right)
{
    struct auth auth = {0};
    cr_assert(is_right(&auth, "") && is_right(&auth, "whatever"));
}
