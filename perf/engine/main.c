/* engine: the store in process, without sockets, loaded as db_bench --sync loads RocksDB: so many
 * callers, each of which waits until its write is on stable media. */
#include "engine.h"

#include "../common/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct command_line {
    struct engine_options engine;
    const char *benchmarks;
    uint64_t requests;
    double seconds;
};

static const char *const kinds[] = {"fillrandom", "fillseq", "readrandom"};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])

static int parse(struct command_line *line, int argc, char **argv)
{
    struct engine_options *engine = &line->engine;
    const struct option_spec specs[] = {
        {"folder", OPTION_STRING, &engine->folder, "DIR", 0, 0, "the data directory"},
        {"benchmarks", OPTION_STRING, &line->benchmarks, "LIST", 0, 0,
         "comma-separated, of fillrandom, fillseq, readrandom; one after the other"},
        {"callers", OPTION_U64, &engine->callers, "N", 1, 65536,
         "as db_bench's --threads: requests in flight, at most"},
        {"keys", OPTION_U64, &engine->keys, "N", 1, 1e12, "size of the key space"},
        {"key-size", OPTION_U64, &engine->key_size, "BYTES", KEY_SIZE_MIN, KEY_SIZE_MAX,
         "size of the keys"},
        {"value-size", OPTION_U64, &engine->value_size, "BYTES", 0, 100 << 20,
         "size of the values, which are noise"},
        {"requests", OPTION_U64, &line->requests, "N", 0, 1e15,
         "of each benchmark; 0: as many as there are keys"},
        {"seconds", OPTION_DOUBLE, &line->seconds, "SECONDS", 0, 1e6,
         "a benchmark ends after so long, at the latest"},
        {"cache", OPTION_U64, &engine->cache_mib, "MIB", 1, 1 << 20, "memory for values"},
        {"value-file-min", OPTION_U64, &engine->value_file_min, "BYTES", 0, 100 << 20,
         "values of at least so much go to files of their own; 0: the store's default"},
    };
    const struct option_table table = {
        .usage = "engine: loads the storage engine in process. Prints one JSON object a benchmark.",
        .specs = specs,
        .spec_count = sizeof specs / sizeof specs[0],
    };
    return options_parse(&table, argc, argv);
}

static void print(const struct engine *engine, size_t kind, const struct engine_result *result)
{
    struct store_stats stats;
    store_stats(engine->store, &stats);
    double rate = result->seconds > 0 ? (double)result->requests / result->seconds : 0;
    const struct histogram *latency = &result->latency;
    printf("{\"benchmark\":\"%s\",\"requests\":%llu,\"misses\":%llu,\"seconds\":%.3f,"
           "\"ops_per_second\":%.1f,\"bytes_per_second\":%.0f,\"latency_us\":{\"p50\":%.1f,"
           "\"p99\":%.1f,\"p99.9\":%.1f},",
           kinds[kind], (unsigned long long)result->requests, (unsigned long long)result->misses,
           result->seconds, rate, rate * (double)engine->options.value_size,
           (double)histogram_quantile(latency, 0.5) / 1e3,
           (double)histogram_quantile(latency, 0.99) / 1e3,
           (double)histogram_quantile(latency, 0.999) / 1e3);
    printf("\"keys\":%llu,\"index_memory\":%llu,\"cache_memory\":%llu,\"moved_bytes\":%llu,"
           "\"compacted_bytes\":%llu}\n",
           (unsigned long long)stats.keys, (unsigned long long)stats.index_memory,
           (unsigned long long)stats.cache.memory, (unsigned long long)stats.mover.moved_bytes,
           (unsigned long long)stats.mover.compacted_bytes);
    (void)fflush(stdout);
}

static size_t kind_of(const char *name, size_t size)
{
    for (size_t kind = 0; kind < KIND_COUNT; kind++)
        if (strlen(kinds[kind]) == size && memcmp(kinds[kind], name, size) == 0)
            return kind;
    return KIND_COUNT;
}

static int run(struct engine *engine, const struct command_line *line)
{
    uint64_t requests = line->requests != 0 ? line->requests : line->engine.keys;
    struct engine_result *result = malloc(sizeof *result);
    int error = result == NULL ? -ENOMEM : 0;
    for (const char *name = line->benchmarks; error == 0 && *name != '\0';) {
        size_t size = strcspn(name, ",");
        size_t kind = kind_of(name, size);
        error = kind == KIND_COUNT
                    ? -EINVAL
                    : engine_run(engine, (enum engine_kind)kind, requests, line->seconds, result);
        if (error == 0)
            print(engine, kind, result);
        name += size + (name[size] == ',');
    }
    free(result);
    if (error < 0)
        fprintf(stderr, "engine: %s: %s\n", line->benchmarks, strerror(-error));
    return error;
}

int main(int argc, char **argv)
{
    struct command_line line = {
        .engine = {.folder = ".",
                   .callers = 16,
                   .keys = 1000000,
                   .key_size = 16,
                   .value_size = 100,
                   .cache_mib = 512},
        .benchmarks = "fillrandom,readrandom",
        .seconds = 1e6,
    };
    int error = parse(&line, argc, argv);
    if (error < 0)
        return error == -ECANCELED ? 0 : 2;
    struct engine engine = {0};
    error = engine_open(&engine, &line.engine);
    if (error == 0)
        error = run(&engine, &line);
    engine_close(&engine);
    return error < 0 ? 1 : 0;
}
