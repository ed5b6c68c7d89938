/* OpenMetrics 1.0 and, for what knows only that, the Prometheus text format 0.0.4. They differ in
 * the name that a counter's TYPE has, in UNIT and EOF, and in the type of what is constant.
 *
 * Sources: https://github.com/prometheus/OpenMetrics, specification/OpenMetrics.md;
 * https://prometheus.io/docs/instrumenting/exposition_formats.
 *
 * A family's lines stand together, so each goes over all shards before the next one begins. */
#include "net/watch/metrics.h"

#include "base/assert.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The bounds of latency buckets are powers of two nanoseconds: 4.1 us to 17 s. */
#define BOUND_BITS_MIN 12u
#define BOUND_BITS_MAX 34u

/* A text on its way. */
struct text {
    FILE *file;
    struct metrics_shards shards;
    const struct metrics_node *node;
    bool is_open; /* OpenMetrics */
};

static void write_head(const struct text *text, const char *name, const char *type,
                       const char *help)
{
    const char *suffix = !text->is_open && strcmp(type, "counter") == 0 ? "_total" : "";
    const char *unit = metrics_unit_of(name);
    (void)fprintf(text->file, "# HELP minivault_%s%s %s\n# TYPE minivault_%s%s %s\n", name, suffix,
                  help, name, suffix, type);
    if (text->is_open && *unit != '\0')
        (void)fprintf(text->file, "# UNIT minivault_%s %s\n", name, unit);
}

static void write_build(const struct text *text)
{
    write_head(text, text->is_open ? "build" : "build_info", text->is_open ? "info" : "gauge",
               "The server that runs.");
    (void)fprintf(text->file, "minivault_build_info{version=\"%.200s\"} 1\n", text->node->version);
}

/* A combination that has not occurred has no line, but that it went well always has one. */
static void write_requests_of(const struct text *text, uint32_t shard, uint32_t operation)
{
    for (uint32_t outcome = 0; outcome < METRICS_OUTCOME_COUNT; outcome++) {
        uint64_t count = metrics_read(&text->shards.all[shard]->requests[operation][outcome]);
        if (count > 0 || outcome == 0)
            (void)fprintf(text->file,
                          "minivault_requests_total{shard=\"%u\",operation=\"%s\",outcome=\"%s\"} "
                          "%" PRIu64 "\n",
                          shard, metrics_operation_name(operation), metrics_outcome_name(outcome),
                          count);
    }
}

static void write_requests(const struct text *text)
{
    write_head(text, "requests", "counter", "Answered, by operation and outcome.");
    for (uint32_t shard = 0; shard < text->shards.count; shard++)
        for (uint32_t operation = 0; operation < METRICS_OPERATION_COUNT; operation++)
            write_requests_of(text, shard, operation);
}

static void write_latency_of(const struct text *text, uint32_t shard, uint32_t operation)
{
    const struct histogram *latency = &text->shards.all[shard]->latency[operation];
    static const char name[] = "minivault_request_duration_seconds";
    char labels[64];
    (void)snprintf(labels, sizeof labels, "shard=\"%u\",operation=\"%s\"", shard,
                   metrics_operation_name(operation));
    uint64_t count = 0;
    for (uint32_t bits = 0; bits <= HISTOGRAM_VALUE_BITS; bits++) {
        count += histogram_octave(latency, bits);
        if (bits >= BOUND_BITS_MIN && bits <= BOUND_BITS_MAX)
            (void)fprintf(text->file, "%s_bucket{%s,le=\"%.12g\"} %" PRIu64 "\n", name, labels,
                          (double)(1ull << bits) / (double)NS_PER_S, count);
    }
    (void)fprintf(text->file, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels, count);
    (void)fprintf(text->file, "%s_sum{%s} %.9f\n", name, labels,
                  (double)metrics_read(&latency->sum) / (double)NS_PER_S);
    (void)fprintf(text->file, "%s_count{%s} %" PRIu64 "\n", name, labels, count);
}

static void write_latencies(const struct text *text)
{
    write_head(text, "request_duration_seconds", "histogram",
               "From a request's arrival to the send of its answer.");
    for (uint32_t shard = 0; shard < text->shards.count; shard++)
        for (uint32_t operation = 0; operation < METRICS_TIMED_COUNT; operation++)
            write_latency_of(text, shard, operation);
}

static void write_errors(const struct text *text)
{
    write_head(text, "connection_errors", "counter",
               "Connections that the server had to end, by reason.");
    for (uint32_t shard = 0; shard < text->shards.count; shard++)
        for (uint32_t error = 0; error < METRICS_ERROR_COUNT; error++)
            (void)fprintf(text->file,
                          "minivault_connection_errors_total{shard=\"%u\",reason=\"%s\"} %" PRIu64
                          "\n",
                          shard, metrics_error_name(error),
                          metrics_read(&text->shards.all[shard]->errors[error]));
}

static void write_steering(const struct text *text)
{
    const struct metrics_node *node = text->node;
    if (node->decisions == NULL)
        return;
    write_head(text, "steering_decisions", "counter",
               "New connections, by why they went where they went.");
    for (uint32_t i = 0; i < node->decision_count; i++)
        (void)fprintf(text->file,
                      "minivault_steering_decisions_total{decision=\"%.100s\"} %" PRIu64 "\n",
                      node->decision_names[i], node->decisions[i]);
}

static void write_value(const struct text *text, enum metrics_value which)
{
    const struct metrics_kind *kind = metrics_kind_of(which);
    bool is_counter = kind->type == METRICS_COUNTER;
    if (kind->type == METRICS_HIDDEN)
        return;
    write_head(text, kind->name, is_counter ? "counter" : "gauge", kind->help);
    for (uint32_t shard = 0; shard < text->shards.count; shard++)
        (void)fprintf(text->file, "minivault_%s%s{shard=\"%u\"} %" PRIu64 "\n", kind->name,
                      is_counter ? "_total" : "", shard,
                      metrics_read(&text->shards.all[shard]->values[which]));
}

uint8_t *metrics_text(enum metrics_format format, struct metrics_shards shards,
                      const struct metrics_node *node, size_t offset, size_t *ret_size)
{
    char *memory = NULL;
    size_t size = 0;
    struct text text = {.file = open_memstream(&memory, &size),
                        .shards = shards,
                        .node = node,
                        .is_open = format == METRICS_OPENMETRICS};
    assert(shards.count > 0);
    if (text.file == NULL)
        return NULL;
    (void)fprintf(text.file, "%*s", (int)offset, "");
    write_build(&text);
    write_requests(&text);
    write_latencies(&text);
    write_errors(&text);
    write_steering(&text);
    for (uint32_t which = 0; which < METRICS_VALUE_COUNT; which++)
        write_value(&text, which);
    if (text.is_open)
        (void)fputs("# EOF\n", text.file);
    bool is_whole = ferror(text.file) == 0;
    if (fclose(text.file) != 0 || !is_whole) {
        free(memory);
        return NULL;
    }
    *ret_size = size - offset;
    return (uint8_t *)memory;
}
