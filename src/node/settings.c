/* The text of a settings file, and what SIGHUP reads again. */
#include "node/settings.h"

#include "node/secret.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_SIZE 256

/* ---- the text ---- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts what is around a word. Returns where it begins. */
static char *trim(char *text)
{
    while (is_space(*text))
        text++;
    size_t size = strlen(text);
    while (size > 0 && is_space(text[size - 1]))
        text[--size] = '\0';
    return text;
}

static int set(struct config *config, const char *name, const char *value, uint32_t number,
               char *ret_error)
{
    char error[FLAGS_ERROR_SIZE];
    if (strcmp(name, "log-level") != 0 && strcmp(name, "slowlog") != 0) {
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE,
                       "line %u: \"%.64s\" is not a setting; log-level and slowlog are", number,
                       name);
        return -EINVAL;
    }
    int result = flags_set(config, name, value, error);
    if (result < 0)
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "line %u: %.400s", number, error);
    return result;
}

static int take_line(const char *text, size_t size, uint32_t number, struct config *config,
                     char *ret_error)
{
    char line[LINE_MAX_SIZE];
    if (size >= sizeof line || memchr(text, '\0', size) != NULL) {
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "line %u: too long, or not text", number);
        return -EINVAL;
    }
    memcpy(line, text, size);
    line[size] = '\0';
    char *name = trim(line);
    if (*name == '\0' || *name == '#')
        return 0;
    char *equals = strchr(name, '=');
    if (equals == NULL) {
        (void)snprintf(ret_error, FLAGS_ERROR_SIZE, "line %u: not NAME = VALUE", number);
        return -EINVAL;
    }
    *equals = '\0';
    return set(config, trim(name), trim(equals + 1), number, ret_error);
}

int settings_parse(const char *text, size_t size, struct config *config, char *ret_error)
{
    size_t begin = 0;
    for (uint32_t number = 1; begin < size; number++) {
        const char *newline = memchr(text + begin, '\n', size - begin);
        size_t end = newline != NULL ? (size_t)(newline - text) : size;
        int error = take_line(text + begin, end - begin, number, config, ret_error);
        if (error < 0)
            return error;
        begin = end + 1;
    }
    return 0;
}

/* ---- the file ---- */

int settings_read(struct config *config, const struct log *log)
{
    const char *path = config->settings_file;
    char error[FLAGS_ERROR_SIZE];
    if (path == NULL)
        return 0;
    char *text = malloc(SETTINGS_FILE_MAX);
    ssize_t size = text != NULL ? secret_read_whole(path, text, SETTINGS_FILE_MAX) : -ENOMEM;
    int result = size < 0 ? (int)size : size == SETTINGS_FILE_MAX ? -EFBIG : 0;
    struct config next = *config;
    if (result < 0)
        (void)snprintf(error, sizeof error, "%s", strerror(-result));
    else
        result = settings_parse(text, (size_t)size, &next, error);
    free(text);
    if (result < 0)
        log_error(log,
                  "cannot take the settings from %s: %s; it has to be a file of lines NAME = VALUE "
                  "that this process's user may read",
                  path, error);
    else
        *config = next;
    return result;
}

/* ---- SIGHUP ---- */

static void tell_of_reload(const struct config *now, bool is_good, const struct log *log)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    if (!is_good) {
        log_error(log,
                  "not reloaded: a file that is wrong changes nothing, nor do the others; mend "
                  "it and send SIGHUP again");
        return;
    }
    log_info(log, "reloaded: log level %s, slow requests from %" PRIu64 " ms on, secret %s",
             levels[now->log_level], now->slowlog_ns / NS_PER_MS,
             now->secret_file != NULL ? now->secret_file : "not from a file: as it was");
}

void settings_reload(const struct config *given, struct config *now, struct log *log,
                     struct settings *ret_settings)
{
    struct config next = *given;
    next.auth = now->auth;
    /* Each file is looked at, so that all that is wrong is told at once. */
    bool is_good = settings_read(&next, log) == 0;
    if (next.secret_file != NULL && secret_read(next.secret_file, &next.auth, log) < 0)
        is_good = false;
    if (is_good)
        *now = next;
    log_set_level(log, now->log_level);
    tell_of_reload(now, is_good, log);
    *ret_settings =
        (struct settings){.auth = now->auth, .slowlog_ns = now->slowlog_ns, .is_good = is_good};
}
