/* Parses a command line by a table of options, and prints the help from the same table. */
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_default(const struct option_spec *spec)
{
    switch (spec->kind) {
    case OPTION_U64:
        printf(" [%llu]", (unsigned long long)*(const uint64_t *)spec->target);
        break;
    case OPTION_DOUBLE:
        printf(" [%g]", *(const double *)spec->target);
        break;
    case OPTION_STRING:
        if (*(const char *const *)spec->target != NULL)
            printf(" [%s]", *(const char *const *)spec->target);
        break;
    case OPTION_FLAG:
    case OPTION_CHOICE: /* the first choice is the default, and the help says so */
        break;
    }
}

static void print_help(const struct option_table *table)
{
    printf("%s\n\n", table->usage);
    for (size_t i = 0; i < table->spec_count; i++) {
        const struct option_spec *spec = &table->specs[i];
        char left[80];
        (void)snprintf(left, sizeof left, "--%s%s%s", spec->name,
                       spec->kind == OPTION_FLAG ? "" : " ",
                       spec->kind == OPTION_FLAG ? "" : spec->choices);
        printf("  %-34s %s", left, spec->help);
        print_default(spec);
        printf("\n");
    }
    printf("  %-34s %s\n", "--help", "this text");
}

/* The index of `value` among "one|two|three", or -1. */
static int choice_index(const char *choices, const char *value)
{
    size_t value_size = strlen(value);
    int index = 0;
    for (const char *at = choices;; index++) {
        size_t size = strcspn(at, "|");
        if (size == value_size && memcmp(at, value, size) == 0)
            return index;
        if (at[size] == '\0')
            return -1;
        at += size + 1;
    }
}

static int bad_value(const struct option_spec *spec, const char *value)
{
    if (spec->kind == OPTION_CHOICE)
        fprintf(stderr, "--%s: \"%s\" is not one of %s\n", spec->name, value, spec->choices);
    else
        fprintf(stderr, "--%s: \"%s\" is not a number from %.15g to %.15g\n", spec->name, value,
                spec->minimum, spec->maximum);
    return -EINVAL;
}

static int store_number(const struct option_spec *spec, const char *value)
{
    char *end = NULL;
    errno = 0;
    if (spec->kind == OPTION_DOUBLE) {
        double number = strtod(value, &end);
        if (errno != 0 || end == value || *end != '\0' || !(number >= spec->minimum) ||
            !(number <= spec->maximum))
            return bad_value(spec, value);
        *(double *)spec->target = number;
        return 0;
    }
    unsigned long long number = strtoull(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || value[0] == '-' ||
        (double)number < spec->minimum || (double)number > spec->maximum)
        return bad_value(spec, value);
    *(uint64_t *)spec->target = number;
    return 0;
}

static int store_value(const struct option_spec *spec, const char *value)
{
    if (spec->kind == OPTION_STRING) {
        *(const char **)spec->target = value;
        return 0;
    }
    if (spec->kind == OPTION_CHOICE) {
        int index = choice_index(spec->choices, value);
        if (index < 0)
            return bad_value(spec, value);
        *(int *)spec->target = index;
        return 0;
    }
    return store_number(spec, value);
}

static const struct option_spec *find_spec(const struct option_table *table, const char *name,
                                           size_t name_size)
{
    for (size_t i = 0; i < table->spec_count; i++) {
        const struct option_spec *spec = &table->specs[i];
        if (strlen(spec->name) == name_size && memcmp(spec->name, name, name_size) == 0)
            return spec;
    }
    return NULL;
}

/* Takes the option at argv[*index], and its value: *index is left on the last word used. */
static int parse_one(const struct option_table *table, int argc, char **argv, int *index)
{
    const char *word = argv[*index];
    const char *name = word + (word[0] == '-') + (word[0] == '-' && word[1] == '-');
    size_t name_size = strcspn(name, "=");
    const struct option_spec *spec = name == word ? NULL : find_spec(table, name, name_size);
    if (spec == NULL) {
        fprintf(stderr, "unknown option \"%s\": see --help\n", word);
        return -EINVAL;
    }
    bool has_value = name[name_size] == '=';
    if (spec->kind == OPTION_FLAG) {
        if (has_value) {
            fprintf(stderr, "--%s takes no value\n", spec->name);
            return -EINVAL;
        }
        *(bool *)spec->target = true;
        return 0;
    }
    if (has_value)
        return store_value(spec, name + name_size + 1);
    if (*index + 1 >= argc) {
        fprintf(stderr, "--%s needs a value: %s\n", spec->name, spec->choices);
        return -EINVAL;
    }
    return store_value(spec, argv[++*index]);
}

int options_parse(const struct option_table *table, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-help") == 0 ||
            strcmp(argv[i], "-h") == 0) {
            print_help(table);
            return -ECANCELED;
        }
    }
    for (int i = 1; i < argc; i++) {
        int error = parse_one(table, argc, argv, &i);
        if (error < 0)
            return error;
    }
    return 0;
}
