/* OpenMetrics 1.0 and, for what knows only that, the Prometheus text format 0.0.4. They differ in
 * the name that a counter's TYPE has, in UNIT and EOF, and in the type of what is constant.
 *
 * Sources: https://github.com/prometheus/OpenMetrics, specification/OpenMetrics.md;
 * https://prometheus.io/docs/instrumenting/exposition_formats.
 *
 * The text is made line by line from where it stands: family, shard, row. A family's lines stand
 * together, so it goes over all shards before the next one begins. */
#include "net/watch/metrics.h"

#include "base/assert.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum family {
    FAMILY_BUILD,
    FAMILY_REQUESTS,
    FAMILY_LATENCY,
    FAMILY_ERRORS,
    FAMILY_STEERING,
    FAMILY_VALUES, /* and as many after it as there are values */
    FAMILY_COUNT = FAMILY_VALUES + METRICS_VALUE_COUNT,
};

/* The bounds of latency buckets are powers of two nanoseconds: 4.1 us to 17 s, what is above that,
 * then the sum and the count. */
#define BOUND_BITS_MIN 12u
#define BOUND_BITS_MAX 34u
#define ROW_INFINITE (BOUND_BITS_MAX - BOUND_BITS_MIN + 1)
#define ROW_SUM (ROW_INFINITE + 1)
#define ROW_COUNT (ROW_INFINITE + 2)
#define LATENCY_ROWS (ROW_INFINITE + 3)

static struct metrics_kind kind_of(uint32_t family)
{
    switch (family) {
    case FAMILY_BUILD:
        return (struct metrics_kind){
            .name = "build", .help = "The server that runs.", .type = METRICS_GAUGE};
    case FAMILY_REQUESTS:
        return (struct metrics_kind){.name = "requests",
                                     .help = "Answered, by operation and outcome."};
    case FAMILY_LATENCY:
        return (struct metrics_kind){.name = "request_duration_seconds",
                                     .help = "From a request's arrival to the send of its answer."};
    case FAMILY_ERRORS:
        return (struct metrics_kind){.name = "connection_errors",
                                     .help = "Connections that the server had to end, by reason."};
    case FAMILY_STEERING:
        return (struct metrics_kind){.name = "steering_decisions",
                                     .help = "New connections, by why they went where they went."};
    default:
        return *metrics_kind_of((enum metrics_value)(family - FAMILY_VALUES));
    }
}

static const char *type_of(const struct metrics_text *text)
{
    if (text->family == FAMILY_LATENCY)
        return "histogram";
    if (text->family == FAMILY_BUILD && text->format == METRICS_OPENMETRICS)
        return "info";
    return kind_of(text->family).type == METRICS_COUNTER ? "counter" : "gauge";
}

static void write_head(struct metrics_text *text)
{
    struct metrics_kind kind = kind_of(text->family);
    bool is_open = text->format == METRICS_OPENMETRICS;
    bool is_counter = kind.type == METRICS_COUNTER && text->family != FAMILY_LATENCY;
    const char *suffix = !is_open && is_counter ? "_total" : "";
    if (!is_open && text->family == FAMILY_BUILD)
        suffix = "_info";
    int size = snprintf(text->line, METRICS_LINE_MAX,
                        "# HELP minivault_%s%s %s\n# TYPE minivault_%s%s %s\n", kind.name, suffix,
                        kind.help, kind.name, suffix, type_of(text));
    const char *unit = metrics_unit_of(kind.name);
    if (is_open && *unit != '\0')
        size += snprintf(text->line + size, METRICS_LINE_MAX - (size_t)size,
                         "# UNIT minivault_%s %s\n", kind.name, unit);
    assert(size > 0 && size < METRICS_LINE_MAX);
    text->size = (uint32_t)size;
}

__attribute__((format(printf, 2, 3))) static void write_line(struct metrics_text *text,
                                                             const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text->line, METRICS_LINE_MAX, format, arguments);
    va_end(arguments);
    assert(size > 0 && size < METRICS_LINE_MAX);
    text->size = (uint32_t)size;
}

/* A combination that has not occurred has no line, but that it went well always has one. */
static void write_requests(struct metrics_text *text, const struct metrics *metrics)
{
    uint32_t operation = text->row / METRICS_OUTCOME_COUNT;
    uint32_t outcome = text->row % METRICS_OUTCOME_COUNT;
    uint64_t count = metrics_read(&metrics->requests[operation][outcome]);
    if (count > 0 || outcome == 0)
        write_line(
            text,
            "minivault_requests_total{shard=\"%u\",operation=\"%s\",outcome=\"%s\"} %" PRIu64 "\n",
            text->shard, metrics_operation_name(operation), metrics_outcome_name(outcome), count);
}

/* How many more fall below this row's bound than below the last one's. */
static uint64_t count_of_row(const struct histogram *latency, uint32_t row)
{
    uint32_t begin = row == 0 ? 0 : BOUND_BITS_MIN + row;
    uint32_t end = row == ROW_INFINITE ? HISTOGRAM_VALUE_BITS : BOUND_BITS_MIN + row;
    uint64_t count = 0;
    for (uint32_t bits = begin; bits <= end; bits++)
        count += histogram_octave(latency, bits);
    return count;
}

static void write_latency(struct metrics_text *text, const struct metrics *metrics)
{
    uint32_t operation = text->row / LATENCY_ROWS;
    uint32_t row = text->row % LATENCY_ROWS;
    const struct histogram *latency = &metrics->latency[operation];
    char labels[64];
    (void)snprintf(labels, sizeof labels, "shard=\"%u\",operation=\"%s\"", text->shard,
                   metrics_operation_name(operation));
    if (row == 0)
        text->cumulative = 0;
    if (row <= ROW_INFINITE)
        text->cumulative += count_of_row(latency, row);
    if (row < ROW_INFINITE)
        write_line(text, "minivault_request_duration_seconds_bucket{%s,le=\"%.12g\"} %" PRIu64 "\n",
                   labels, (double)(1ull << (BOUND_BITS_MIN + row)) / (double)NS_PER_S,
                   text->cumulative);
    else if (row == ROW_INFINITE)
        write_line(text, "minivault_request_duration_seconds_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n",
                   labels, text->cumulative);
    else if (row == ROW_SUM)
        write_line(text, "minivault_request_duration_seconds_sum{%s} %.9f\n", labels,
                   (double)metrics_read(&latency->sum) / (double)NS_PER_S);
    else
        write_line(text, "minivault_request_duration_seconds_count{%s} %" PRIu64 "\n", labels,
                   text->cumulative);
}

static void write_row(struct metrics_text *text)
{
    const struct metrics *metrics = text->shards[text->shard];
    struct metrics_kind kind = kind_of(text->family);
    switch (text->family) {
    case FAMILY_BUILD:
        write_line(text, "minivault_build_info{version=\"%.200s\"} 1\n", text->node->version);
        break;
    case FAMILY_REQUESTS:
        write_requests(text, metrics);
        break;
    case FAMILY_LATENCY:
        write_latency(text, metrics);
        break;
    case FAMILY_ERRORS:
        write_line(
            text, "minivault_connection_errors_total{shard=\"%u\",reason=\"%s\"} %" PRIu64 "\n",
            text->shard, metrics_error_name(text->row), metrics_read(&metrics->errors[text->row]));
        break;
    case FAMILY_STEERING:
        write_line(text, "minivault_steering_decisions_total{decision=\"%.100s\"} %" PRIu64 "\n",
                   text->node->decision_names[text->row], text->node->decisions[text->row]);
        break;
    default:
        write_line(text, "minivault_%s%s{shard=\"%u\"} %" PRIu64 "\n", kind.name,
                   kind.type == METRICS_COUNTER ? "_total" : "", text->shard,
                   metrics_read(&metrics->values[text->family - FAMILY_VALUES]));
        break;
    }
}

static uint32_t row_count(const struct metrics_text *text)
{
    switch (text->family) {
    case FAMILY_REQUESTS:
        return METRICS_OPERATION_COUNT * METRICS_OUTCOME_COUNT;
    case FAMILY_LATENCY:
        return METRICS_TIMED_COUNT * LATENCY_ROWS;
    case FAMILY_ERRORS:
        return METRICS_ERROR_COUNT;
    case FAMILY_STEERING:
        return text->node->decision_count;
    default:
        return 1;
    }
}

static bool is_absent(const struct metrics_text *text)
{
    if (text->family >= FAMILY_VALUES)
        return kind_of(text->family).type == METRICS_HIDDEN;
    return text->family == FAMILY_STEERING && text->node->decisions == NULL;
}

static void next_row(struct metrics_text *text)
{
    bool is_node = text->family == FAMILY_BUILD || text->family == FAMILY_STEERING;
    if (++text->row < row_count(text))
        return;
    text->row = 0;
    if (++text->shard < text->shard_count && !is_node)
        return;
    text->shard = 0;
    text->family++;
    text->has_head = false;
}

/* Makes the next lines. Returns false at the end. */
static bool make_line(struct metrics_text *text)
{
    text->sent = 0;
    text->size = 0;
    while (text->size == 0 && text->family < FAMILY_COUNT) {
        if (is_absent(text)) {
            text->family++;
        } else if (!text->has_head) {
            write_head(text);
            text->has_head = true;
        } else {
            write_row(text);
            next_row(text);
        }
    }
    if (text->size == 0 && text->family == FAMILY_COUNT) {
        text->family++;
        if (text->format == METRICS_OPENMETRICS)
            write_line(text, "# EOF\n");
    }
    return text->size > 0;
}

void metrics_text_begin(struct metrics_text *text, enum metrics_format format,
                        const struct metrics *const *shards, uint32_t shard_count,
                        const struct metrics_node *node)
{
    assert(shard_count > 0);
    *text = (struct metrics_text){
        .shards = shards, .node = node, .shard_count = shard_count, .format = format};
}

size_t metrics_text_next(struct metrics_text *text, char *buffer, size_t size)
{
    size_t written = 0;
    while (written < size) {
        if (text->sent == text->size && !make_line(text))
            break;
        size_t part = min_u64(size - written, text->size - text->sent);
        memcpy(buffer + written, text->line + text->sent, part);
        text->sent += (uint32_t)part;
        written += part;
    }
    return written;
}
