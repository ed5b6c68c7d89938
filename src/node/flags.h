/* The command line: both -x and --x, "-x value" and "-x=value". */
#ifndef MINIVAULT_NODE_FLAGS_H
#define MINIVAULT_NODE_FLAGS_H

#include "node/config.h"

#include <stdio.h>

#define FLAGS_ERROR_SIZE 512

enum flags_result {
    FLAGS_RUN,
    FLAGS_HELP,    /* print flags_help and exit 0 */
    FLAGS_VERSION, /* print the version and exit 0 */
    FLAGS_BAD,     /* print ret_error and exit 2 */
};

/* Fills *config (config_init_defaults was called) from the arguments; strings stay argv's. On
 * FLAGS_BAD `ret_error` (FLAGS_ERROR_SIZE bytes) says what is wrong and what would be right. */
enum flags_result flags_parse(int argc, char **argv, struct config *config, char *ret_error);

/* Sets one flag, given by its name without dash, that takes a value. Errors: -EINVAL, with
 * `ret_error` as above. */
int flags_set(struct config *config, const char *name, const char *value, char *ret_error);

/* Prints the text of --help: the table that parses, with what counts without a flag. */
void flags_help(FILE *file);

#endif
