/* Command lines from a table: one entry documents, checks and stores one option.
 *
 * `-name value`, `--name value` and `--name=value` are the same. A flag takes no value. */
#ifndef PERF_COMMON_OPTIONS_H
#define PERF_COMMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_U64,    /* uint64_t, between minimum and maximum */
    OPTION_DOUBLE, /* double, between minimum and maximum */
    OPTION_STRING, /* const char *, into argv */
    OPTION_CHOICE, /* int: the index in `choices` */
};

struct option_spec {
    const char *name; /* without dashes */
    enum option_kind kind;
    void *target;        /* holds the default until the option is given */
    const char *choices; /* OPTION_CHOICE: "one|two|three"; otherwise what the value is called */
    double minimum;
    double maximum;
    const char *help;
};

struct option_table {
    const char *usage; /* the text above the options in --help */
    const struct option_spec *specs;
    size_t spec_count;
};

/* Stores what the command line says; says on stderr what is wrong with it, and answers --help on
 * stdout.
 *
 * Errors: -EINVAL; -ECANCELED after --help: the program is done, successfully. */
int options_parse(const struct option_table *table, int argc, char **argv);

#endif
