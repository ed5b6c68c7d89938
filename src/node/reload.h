/* What may change while the server runs: the secret, and the settings in the file of -settings.
 *
 * A file of settings has lines "NAME = VALUE", with the names and values of flags; empty lines and
 * those that begin with '#' are comments. It is read at the start and again at SIGHUP; what it says
 * counts, whatever the flags say; what it does not say is as the flags say. */
#ifndef MINIVAULT_RELOAD_H
#define MINIVAULT_RELOAD_H

#include "node/flags.h"
#include "node/server.h"

#define RELOAD_FILE_MAX (64 * KIB)

/* Takes the settings of a text. Errors: -EINVAL, with `ret_error` (FLAGS_ERROR_SIZE bytes) saying
 * which line and what would be right; *config is undefined then. */
int reload_parse(const char *text, size_t size, struct config *config, char *ret_error);

/* Takes the settings of config->settings_file; without one, nothing. What is wrong has been logged,
 * together with `consequence`; *config is as it was then. Errors: open(2)'s, -EFBIG, -EINVAL. */
int reload_settings(struct config *config, const char *consequence, const struct log *log);

/* SIGHUP: reads everything again, changes `log`'s level, and says what came of it. `given` is what
 * the flags alone say; `now` is what counts: its auth is the one that is to be kept when the secret
 * cannot be read. *ret_reload is for server_reload on each shard's thread. */
void reload_all(const struct config *given, struct config *now, struct log *log,
                struct reload *ret_reload);

#endif
