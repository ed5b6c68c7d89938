/* What may change while the node runs: the secret, and the settings in the file of -settings.
 *
 * A file of settings has lines "NAME = VALUE", with the names and values of flags; empty lines and
 * those that begin with '#' are comments. It is read at the start and again at SIGHUP; what it says
 * counts, whatever the flags say; what it does not say is as the flags say. */
#ifndef MINIVAULT_NODE_SETTINGS_H
#define MINIVAULT_NODE_SETTINGS_H

#include "node/flags.h"

#define SETTINGS_FILE_MAX (64 * KIB)

/* What each shard takes over. Connections that have authenticated stay so. */
struct settings {
    struct auth auth;
    uint64_t slowlog_ns;
    bool is_good; /* whether the last reload could be taken */
};

/* Takes the settings of a text. Errors: -EINVAL, with `ret_error` (FLAGS_ERROR_SIZE bytes) saying
 * which line and what would be right; *config is undefined then. */
int settings_parse(const char *text, size_t size, struct config *config, char *ret_error);

/* Takes the settings of config->settings_file; without one, nothing. What is wrong has been logged;
 * *config is as it was then. Errors: open(2)'s, -EFBIG, -EINVAL. */
int settings_read(struct config *config, const struct log *log);

/* SIGHUP: reads all files again, takes all of them or, when there is a mistake in one, none; changes
 * `log`'s level, and says what came of it. `given` is what the flags alone say; `now` is what counts.
 * *ret_settings is for loop_apply on each shard's thread, in both cases. */
void settings_reload(const struct config *given, struct config *now, struct log *log,
                     struct settings *ret_settings);

#endif
