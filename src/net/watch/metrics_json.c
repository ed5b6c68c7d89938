/* The answer to STATS: sums over all shards. */
#include "net/watch/metrics.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct json {
    char *bytes;
    uint32_t size;
};

__attribute__((format(printf, 2, 3))) static void add(struct json *json, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size =
        vsnprintf(json->bytes + json->size, METRICS_JSON_MAX - json->size, format, arguments);
    va_end(arguments);
    assert(size > 0 && json->size + (uint32_t)size < METRICS_JSON_MAX);
    json->size += (uint32_t)size;
}

/* Behind a member comes a comma, which the bracket that closes the object takes back. */
static void close_object(struct json *json)
{
    if (json->bytes[json->size - 1] == ',')
        json->size--;
    add(json, "},");
}

struct shards {
    const struct metrics *const *all;
    uint32_t count;
};

static void add_requests(struct json *json, struct shards shards, uint32_t operation)
{
    add(json, "\"%s\":{", metrics_operation_name(operation));
    for (uint32_t outcome = 0; outcome < METRICS_OUTCOME_COUNT; outcome++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < shards.count; i++)
            sum += metrics_read(&shards.all[i]->requests[operation][outcome]);
        if (sum > 0 || outcome == 0)
            add(json, "\"%s\":%" PRIu64 ",", metrics_outcome_name(outcome), sum);
    }
    close_object(json);
}

static void add_latency(struct json *json, struct shards shards, uint32_t operation)
{
    struct histogram sum;
    memset(&sum, 0, sizeof sum);
    for (uint32_t i = 0; i < shards.count; i++)
        histogram_merge(&sum, &shards.all[i]->latency[operation]);
    uint64_t count = histogram_total(&sum);
    add(json,
        "\"%s\":{\"count\":%" PRIu64 ",\"mean\":%" PRIu64 ",\"p50\":%" PRIu64 ",\"p99\":%" PRIu64
        ",\"p999\":%" PRIu64 ",\"max\":%" PRIu64 "},",
        metrics_operation_name(operation), count, count > 0 ? metrics_read(&sum.sum) / count : 0,
        histogram_quantile(&sum, 0.5), histogram_quantile(&sum, 0.99),
        histogram_quantile(&sum, 0.999), metrics_read(&sum.maximum));
}

static void add_errors(struct json *json, struct shards shards)
{
    for (uint32_t error = 0; error < METRICS_ERROR_COUNT; error++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < shards.count; i++)
            sum += metrics_read(&shards.all[i]->errors[error]);
        add(json, "\"%s\":%" PRIu64 ",", metrics_error_name(error), sum);
    }
}

/* Ages, and what all shards see of the same disk, are not added up. */
static bool is_common(enum metrics_value which)
{
    return which == METRICS_UPTIME || which == METRICS_SCRUB_AGE || which == METRICS_DISK_FREE ||
           which == METRICS_DISK_TOTAL;
}

static void add_values(struct json *json, struct shards shards)
{
    for (uint32_t which = 0; which < METRICS_VALUE_COUNT; which++) {
        uint64_t sum = 0, most = 0;
        for (uint32_t i = 0; i < shards.count; i++) {
            uint64_t value = metrics_read(&shards.all[i]->values[which]);
            sum += value;
            most = value > most ? value : most;
        }
        add(json, "\"%s\":%" PRIu64 ",", metrics_kind_of(which)->name,
            is_common(which) ? most : sum);
    }
}

uint32_t metrics_json(const struct metrics *const *shards, uint32_t shard_count,
                      const struct metrics_node *node, char *buffer)
{
    struct json json = {.bytes = buffer};
    struct shards all = {shards, shard_count};
    add(&json, "{\"version\":\"%.200s\",\"shards\":%u,\"requests\":{", node->version, shard_count);
    for (uint32_t operation = 0; operation < METRICS_OPERATION_COUNT; operation++)
        add_requests(&json, all, operation);
    close_object(&json);
    add(&json, "\"latency_ns\":{");
    for (uint32_t operation = 0; operation < METRICS_TIMED_COUNT; operation++)
        add_latency(&json, all, operation);
    close_object(&json);
    add(&json, "\"connection_errors\":{");
    add_errors(&json, all);
    close_object(&json);
    if (node->decisions != NULL) {
        add(&json, "\"steering_decisions\":{");
        for (uint32_t i = 0; i < node->decision_count; i++)
            add(&json, "\"%.100s\":%" PRIu64 ",", node->decision_names[i], node->decisions[i]);
        close_object(&json);
    }
    add_values(&json, all);
    close_object(&json);
    return json.size - 1; /* without the last comma */
}
