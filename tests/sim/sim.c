/* The simulator: random runs of the server with crashes, each from a seed that replays it.
 *
 *     sim --seed N [--trace]             one seed, and what happens
 *     sim --seconds S [--jobs J]         new seeds for S seconds, on J processes
 *     sim --seeds-file FILE              the kept ones
 *
 * Exit code: 0, 1 when a seed failed, 2 for a wrong command line. */
#include "farm.h"
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOBS_MAX 256u

struct arguments {
    bool has_seed;
    bool is_traced;
    uint64_t seed;
    uint64_t seconds;
    uint64_t jobs;
    uint64_t first; /* where new seeds begin; 0: anywhere */
    const char *seeds_file;
};

static int usage(void)
{
    (void)fprintf(stderr, "usage: sim --seed N [--trace]\n"
                          "       sim --seconds S [--jobs J] [--first N]\n"
                          "       sim --seeds-file FILE\n");
    return 2;
}

static bool parse_number(const char *text, uint64_t *ret_number)
{
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *ret_number = number;
    return true;
}

/* Returns false when the command line makes no sense. */
static bool parse(int count, char **list, struct arguments *arguments)
{
    for (int i = 1; i < count; i++) {
        if (strcmp(list[i], "--trace") == 0) {
            arguments->is_traced = true;
            continue;
        }
        if (i + 1 == count)
            return false;
        const char *name = list[i++];
        uint64_t *number = strcmp(name, "--seed") == 0      ? &arguments->seed
                           : strcmp(name, "--seconds") == 0 ? &arguments->seconds
                           : strcmp(name, "--jobs") == 0    ? &arguments->jobs
                           : strcmp(name, "--first") == 0   ? &arguments->first
                                                            : NULL;
        if (strcmp(name, "--seeds-file") == 0)
            arguments->seeds_file = list[i];
        else if (number == NULL || !parse_number(list[i], number))
            return false;
        arguments->has_seed |= number == &arguments->seed;
    }
    return arguments->has_seed + (arguments->seconds > 0) + (arguments->seeds_file != NULL) == 1 &&
           arguments->jobs <= JOBS_MAX;
}

static int run_one(uint64_t seed, bool is_traced)
{
    struct run_result result;
    run_seed(seed, true, is_traced, &result);
    if (result.has_failed)
        (void)fprintf(stderr, "seed %" PRIu64 " FAILED: %s\n", seed, result.message);
    (void)printf("sim: %d passed, %d failed\n", !result.has_failed, result.has_failed);
    return result.has_failed ? 1 : 0;
}

/* A seed a line; what follows a '#' is a comment. */
static int run_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 2;
    }
    uint32_t passed = 0;
    uint32_t failed = 0;
    char line[256];
    while (fgets(line, sizeof line, file) != NULL) {
        uint64_t seed;
        line[strcspn(line, " \t\n#")] = '\0';
        if (!parse_number(line, &seed))
            continue;
        if (farm_try(seed))
            passed++;
        else
            failed++;
    }
    (void)fclose(file);
    (void)printf("sim: %" PRIu32 " passed, %" PRIu32 " failed\n", passed, failed);
    return failed > 0 ? 1 : 0;
}

int main(int count, char **list)
{
    struct arguments arguments = {.jobs = 1};
    if (!parse(count, list, &arguments))
        return usage();
    values_init();
    if (arguments.has_seed)
        return run_one(arguments.seed, arguments.is_traced);
    if (arguments.seeds_file != NULL)
        return run_file(arguments.seeds_file);
    return farm_run(arguments.seconds, (uint32_t)max_u64(1, arguments.jobs), arguments.first);
}
