/* cache_trace: which part of the requests a cache answers, by its policy alone.
 *
 * Every policy sees the same keys and holds as many entries as minivault's cache did at the end. A
 * miss is put into the cache. The first half of the draws warms up; hits are counted over the
 * draws of the second, not over scans, which nobody can answer from memory. */
#include "../common/options.h"
#include "policy.h"
#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct policy *const policies[] = {&policy_minivault, &policy_sieve, &policy_lru,
                                                &policy_tenth};
#define POLICY_COUNT (sizeof policies / sizeof policies[0])

static const char *const kind_names[TRACE_KINDS] = {"zipf", "zipf and scans", "moving zipf"};
static const double shares[] = {0.001, 0.01, 0.05, 0.10, 0.20};
#define SHARE_COUNT (sizeof shares / sizeof shares[0])

struct settings {
    uint64_t keys;
    uint64_t draws;
    bool json;
};

struct row {
    enum trace_kind kind;
    uint64_t entries;
    double ratios[POLICY_COUNT];
};

/* Errors: -ENOMEM. */
static int run(const struct policy *policy, struct trace trace, const struct settings *settings,
               uint64_t capacity, double *ret_ratio, uint64_t *ret_count)
{
    void *state = policy->open(capacity, trace_key_bound(&trace, settings->draws));
    if (state == NULL)
        return -ENOMEM;
    uint64_t hits = 0;
    uint64_t counted_from = settings->draws / 2;
    while (trace.drawn < settings->draws) {
        uint64_t key;
        bool is_drawn = trace_next(&trace, &key);
        bool is_hit = policy->ask(state, key);
        hits += is_hit && is_drawn && trace.drawn > counted_from;
    }
    *ret_ratio = (double)hits / (double)(settings->draws - counted_from);
    *ret_count = policy->count(state);
    policy->close(state);
    return 0;
}

/* Errors: -ENOMEM. */
static int measure(const struct trace *trace, const struct settings *settings, double share,
                   struct row *ret_row)
{
    uint64_t capacity = (uint64_t)(share * (double)settings->keys);
    for (size_t i = 0; i < POLICY_COUNT; i++) {
        uint64_t count;
        int result = run(policies[i], *trace, settings, capacity, &ret_row->ratios[i], &count);
        if (result != 0)
            return result;
        if (i == 0) /* minivault, which comes first */
            capacity = count;
    }
    ret_row->kind = trace->kind;
    ret_row->entries = capacity;
    return 0;
}

static void print_head(void)
{
    printf("hit ratio, %%\n%-16s %10s", "trace", "entries");
    for (size_t i = 0; i < POLICY_COUNT; i++)
        printf(" %14s", policies[i]->name);
    printf("\n");
}

static void print_row(const struct row *row, bool json, bool is_first)
{
    if (!json) {
        printf("%-16s %10llu", kind_names[row->kind], (unsigned long long)row->entries);
        for (size_t i = 0; i < POLICY_COUNT; i++)
            printf(" %14.2f", 100 * row->ratios[i]);
        printf("\n");
        return;
    }
    printf("%s{\"trace\": \"%s\", \"entries\": %llu", is_first ? "" : ", ", kind_names[row->kind],
           (unsigned long long)row->entries);
    for (size_t i = 0; i < POLICY_COUNT; i++)
        printf(", \"%s\": %.5f", policies[i]->name, row->ratios[i]);
    printf("}");
}

/* Errors: -ENOMEM, -ERANGE. */
static int measure_all(const struct settings *settings)
{
    printf("%s", settings->json ? "[" : "");
    if (!settings->json)
        print_head();
    for (int kind = 0; kind < TRACE_KINDS; kind++) {
        struct trace trace;
        int result = trace_init(&trace, (enum trace_kind)kind, settings->keys);
        for (size_t i = 0; result == 0 && i < SHARE_COUNT; i++) {
            struct row row;
            result = measure(&trace, settings, shares[i], &row);
            if (result == 0)
                print_row(&row, settings->json, kind == 0 && i == 0);
            (void)fflush(stdout);
        }
        if (result != 0)
            return result;
    }
    printf("%s", settings->json ? "]\n" : "");
    return 0;
}

int main(int argc, char **argv)
{
    struct settings settings = {.keys = 1000000, .draws = 10000000};
    const struct option_spec specs[] = {
        {"keys", OPTION_U64, &settings.keys, "N", 10000, 1e9, "different keys that are drawn"},
        {"draws", OPTION_U64, &settings.draws, "N", 2, 1e10, "how many, half of them to warm up"},
        {"json", OPTION_FLAG, &settings.json, NULL, 0, 0, "a JSON array instead of a table"},
    };
    const struct option_table table = {
        "usage: cache_trace [options]\n\nHit ratios of minivault's cache and of others, on keys "
        "drawn with Zipf's law (0.99).",
        specs, sizeof specs / sizeof specs[0]};
    int result = options_parse(&table, argc, argv);
    if (result != 0)
        return result == -ECANCELED ? EXIT_SUCCESS : 2;
    result = measure_all(&settings);
    if (result != 0)
        fprintf(stderr, "cache_trace: %s\n",
                result == -ENOMEM ? "out of memory: try fewer --keys" : "too many --keys");
    return result == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
