/* Runs the groups and prints medians: a table, or JSON. */
#include "micro.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS_MAX 101
#define CASES_MAX 16
#define USAGE                                                                                      \
    "usage: micro [--rounds N] [--keys N] [--index-keys N] [--value-size N] [--json]\n"            \
    "\n"                                                                                           \
    "What the pieces of the hot path cost, in this process, on one core: medians of\n"             \
    "interleaved rounds.\n"                                                                        \
    "\n"                                                                                           \
    "  --rounds N      rounds after one to warm up, 1 to 101 (default 7)\n"                        \
    "  --keys N        keys in the cache (default 1000000)\n"                                      \
    "  --index-keys N  keys in the index (default 10000000)\n"                                     \
    "  --value-size N  bytes of a value in the cache, 0 to 65536 (default 100)\n"                  \
    "  --json          one JSON object instead of a table\n"

/* The store as a whole (store_get and store_set of store/store.h) goes here as one more group. */
static const struct micro_group *const groups[] = {&micro_cache, &micro_index, &micro_absent,
                                                   &micro_bytes, &micro_squeeze};
#define GROUP_COUNT (sizeof groups / sizeof groups[0])

struct settings {
    struct micro_options micro;
    uint64_t rounds;
    bool json;
};

struct group_run {
    void *state;
    double times[CASES_MAX][ROUNDS_MAX];
    double medians[CASES_MAX];
};

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void measure_round(struct group_run *runs, uint64_t round)
{
    for (size_t g = 0; g < GROUP_COUNT; g++) {
        for (size_t c = 0; c < groups[g]->case_count; c++) {
            double time = groups[g]->cases[c].round(runs[g].state);
            if (round > 0) /* round 0 warms up */
                runs[g].times[c][round - 1] = time;
        }
    }
}

static void measure(struct group_run *runs, uint64_t rounds)
{
    for (uint64_t round = 0; round <= rounds; round++) {
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "\rround %llu of %llu ", (unsigned long long)round,
                    (unsigned long long)rounds);
        measure_round(runs, round);
    }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r                    \r");
    for (size_t g = 0; g < GROUP_COUNT; g++)
        for (size_t c = 0; c < groups[g]->case_count; c++)
            runs[g].medians[c] = median(runs[g].times[c], rounds);
}

/* The median of the case that this one is compared with, 0 when there is none. */
static double bound_of(const struct micro_group *group, const struct group_run *run, size_t index)
{
    const char *bound = group->cases[index].bound;
    for (size_t c = 0; bound != NULL && c < group->case_count; c++)
        if (strcmp(group->cases[c].name, bound) == 0)
            return run->medians[c];
    return 0;
}

static void print_case(const struct micro_group *group, const struct group_run *run, size_t index,
                       bool json)
{
    const struct micro_case *item = &group->cases[index];
    double ns = run->medians[index];
    double bound = bound_of(group, run, index);
    if (json) {
        printf("\"%s\": {\"ns\": %.2f", item->name, ns);
        if (bound > 0)
            printf(", \"bound_ns\": %.2f, \"ratio\": %.3f, \"ratio_max\": %.2f", bound, ns / bound,
                   item->ratio_max);
        printf("}");
        return;
    }
    printf("%-44s %10.1f ns", item->name, ns);
    if (bound > 0)
        printf("   %.2f x the bound (at most %.2f)%s", ns / bound, item->ratio_max,
               ns / bound <= item->ratio_max ? "" : "  MISSED");
    printf("\n");
}

static void print_group(const struct micro_group *group, const struct group_run *run, bool json)
{
    const char *separator = json ? ", " : "";
    for (size_t c = 0; c < group->case_count; c++) {
        print_case(group, run, c, json);
        printf("%s", separator);
    }
    struct micro_figure figures[MICRO_FIGURES_MAX];
    size_t count = group->figures == NULL ? 0 : group->figures(run->state, figures);
    for (size_t f = 0; f < count; f++) {
        if (json)
            printf("\"%s\": %.2f, ", figures[f].name, figures[f].value);
        else
            printf("%-44s %10.1f\n", figures[f].name, figures[f].value);
    }
}

static void print(const struct group_run *runs, const struct settings *settings)
{
    if (settings->json)
        printf("{");
    for (size_t g = 0; g < GROUP_COUNT; g++)
        print_group(groups[g], &runs[g], settings->json);
    if (settings->json)
        printf("\"keys\": %llu, \"index_keys\": %llu, \"value_size\": %llu, \"rounds\": %llu}\n",
               (unsigned long long)settings->micro.keys,
               (unsigned long long)settings->micro.index_keys,
               (unsigned long long)settings->micro.value_size,
               (unsigned long long)settings->rounds);
}

static int parse_number(const char *name, const char *text, uint64_t min, uint64_t max,
                        uint64_t *ret_value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = text == NULL ? 0 : strtoull(text, &end, 10);
    if (text == NULL || end == text || *end != '\0' || errno != 0 || value < min || value > max) {
        fprintf(stderr, "micro: %s wants a number from %llu to %llu\n", name,
                (unsigned long long)min, (unsigned long long)max);
        return -EINVAL;
    }
    *ret_value = value;
    return 0;
}

static int parse_option(char **arguments, struct settings *settings)
{
    const char *name = arguments[0];
    if (strcmp(name, "--rounds") == 0)
        return parse_number(name, arguments[1], 1, ROUNDS_MAX, &settings->rounds);
    if (strcmp(name, "--keys") == 0)
        return parse_number(name, arguments[1], 1000, 100000000, &settings->micro.keys);
    if (strcmp(name, "--index-keys") == 0)
        return parse_number(name, arguments[1], 1000, 1000000000, &settings->micro.index_keys);
    if (strcmp(name, "--value-size") == 0)
        return parse_number(name, arguments[1], 0, 65536, &settings->micro.value_size);
    fprintf(stderr, "micro: %s is not an option\n%s", name, USAGE);
    return -EINVAL;
}

/* Returns 0, 1 when the program is done, -EINVAL. */
static int parse(char **arguments, struct settings *settings)
{
    while (*arguments != NULL) {
        if (strcmp(*arguments, "--help") == 0) {
            printf("%s", USAGE);
            return 1;
        }
        if (strcmp(*arguments, "--json") == 0) {
            settings->json = true;
            arguments++;
            continue;
        }
        int result = parse_option(arguments, settings);
        if (result != 0)
            return result;
        arguments += 2;
    }
    return 0;
}

static int run(const struct settings *settings)
{
    struct group_run *runs = calloc(GROUP_COUNT, sizeof *runs);
    size_t opened = 0;
    int status = EXIT_FAILURE;
    while (runs != NULL && opened < GROUP_COUNT) {
        runs[opened].state = groups[opened]->open(&settings->micro);
        if (runs[opened].state == NULL)
            break;
        opened++;
    }
    if (opened < GROUP_COUNT) {
        fprintf(stderr, "micro: out of memory: try fewer --keys and --index-keys\n");
    } else {
        measure(runs, settings->rounds);
        print(runs, settings);
        status = EXIT_SUCCESS;
    }
    while (opened > 0) {
        opened--;
        groups[opened]->close(runs[opened].state);
    }
    free(runs);
    return status;
}

int main(int argc, char **argv)
{
    struct settings settings = {
        .micro = {.keys = 1000000, .index_keys = 10000000, .value_size = 100},
        .rounds = 7,
    };
    int result = parse(argv + (argc > 0), &settings);
    if (result != 0)
        return result < 0 ? 2 : EXIT_SUCCESS;
    return run(&settings);
}
