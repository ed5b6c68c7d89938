/* The answers to STATS and HEALTH: the numbers of all shards together. */
#include "net/watch/metrics.h"

#include "base/assert.h"
#include "store/store.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STATUS_MAX 128u

struct json {
    char *bytes;
    uint32_t size, size_max;
};

__attribute__((format(printf, 2, 3))) static void add(struct json *json, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(json->bytes + json->size, json->size_max - json->size, format, arguments);
    va_end(arguments);
    assert(size > 0);
    assert(json->size + (uint32_t)size < json->size_max);
    json->size += (uint32_t)size;
}

/* Behind a member comes a comma, which the bracket that closes the object takes back. */
static void close_object(struct json *json)
{
    if (json->bytes[json->size - 1] == ',')
        json->size--;
    add(json, "},");
}

static void add_requests(struct json *json, struct metrics_shards shards, uint32_t operation)
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

static void add_latency(struct json *json, struct metrics_shards shards, uint32_t operation)
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

static void add_errors(struct json *json, struct metrics_shards shards)
{
    for (uint32_t error = 0; error < METRICS_ERROR_COUNT; error++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < shards.count; i++)
            sum += metrics_read(&shards.all[i]->errors[error]);
        add(json, "\"%s\":%" PRIu64 ",", metrics_error_name(error), sum);
    }
}

static void add_values(struct json *json, struct metrics_shards shards)
{
    for (uint32_t which = 0; which < METRICS_VALUE_COUNT; which++) {
        const struct metrics_kind *kind = metrics_kind_of(which);
        if (kind->type != METRICS_HIDDEN)
            add(json, "\"%s\":%" PRIu64 ",", kind->name, metrics_merged(shards, which));
    }
}

uint32_t metrics_json(struct metrics_shards shards, const struct metrics_node *node, char *buffer)
{
    struct json json = {.bytes = buffer, .size_max = METRICS_JSON_MAX};
    add(&json, "{\"version\":\"%.200s\",\"shards\":%u,\"requests\":{", node->version, shards.count);
    for (uint32_t operation = 0; operation < METRICS_OPERATION_COUNT; operation++)
        add_requests(&json, shards, operation);
    close_object(&json);
    add(&json, "\"latency_ns\":{");
    for (uint32_t operation = 0; operation < METRICS_TIMED_COUNT; operation++)
        add_latency(&json, shards, operation);
    close_object(&json);
    add(&json, "\"connection_errors\":{");
    add_errors(&json, shards);
    close_object(&json);
    if (node->decisions != NULL) {
        add(&json, "\"steering_decisions\":{");
        for (uint32_t i = 0; i < node->decision_count; i++)
            add(&json, "\"%.100s\":%" PRIu64 ",", node->decision_names[i], node->decisions[i]);
        close_object(&json);
    }
    add_values(&json, shards);
    close_object(&json);
    return json.size - 1; /* without the last comma */
}

/* ---- HEALTH ---- */

/* The worst that holds: what HEALTH says, but for the reason of a refusal. */
static const struct {
    enum metrics_value value;
    const char *text;
    bool is_admission;
} statuses[] = {
    {METRICS_FAILED, "failing: a write to the disk failed", false},
    {METRICS_ADMITS_SET, "failing: sets are refused: ", true},
    {METRICS_DRAINING, "degraded: draining", false},
    {METRICS_LOSS, "degraded: stored data is damaged", false},
    {METRICS_UNREADABLE, "degraded: a file cannot be read", false},
    {METRICS_ADMITS_KEY, "degraded: new keys are refused: ", true},
    {METRICS_ADMITS_FILE, "degraded: large values are refused: ", true},
};

static void write_status(struct metrics_shards shards, char *ret_text, size_t size)
{
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        uint64_t value = metrics_merged(shards, statuses[i].value);
        if (value == 0)
            continue;
        (void)snprintf(ret_text, size, "%s%s", statuses[i].text,
                       statuses[i].is_admission ? admission_text((enum admission)value) : "");
        return;
    }
    (void)snprintf(ret_text, size, "healthy");
}

/* The shard whose mover HEALTH tells of. */
static const struct metrics *first_at_work(struct metrics_shards shards, uint32_t asked)
{
    for (uint32_t i = 0; i < shards.count; i++) {
        const struct metrics *metrics = shards.all[(asked + i) % shards.count];
        const char *phase = atomic_load_explicit(&metrics->mover_phase, memory_order_relaxed);
        if (phase != NULL && strcmp(phase, "idle") != 0)
            return metrics;
    }
    return shards.all[asked];
}

static const char *text_or_none(const _Atomic(const char *) *text)
{
    const char *loaded = atomic_load_explicit(text, memory_order_relaxed);
    return loaded != NULL ? loaded : "none";
}

/* The number that has this position in HEALTH. Returns whether there is one. */
static bool add_number(struct json *json, struct metrics_shards shards, uint32_t position)
{
    for (uint32_t which = 0; which < METRICS_VALUE_COUNT; which++) {
        const struct metrics_member *member = &metrics_kind_of(which)->health;
        if (member->key == NULL || member->position != position)
            continue;
        add(json, "\"%s\":%" PRIu64 ",", member->key,
            metrics_merged(shards, which) / member->divisor);
        return true;
    }
    return false;
}

uint32_t metrics_health(struct metrics_shards shards, uint32_t asked,
                        const struct metrics_node *node, char *buffer)
{
    assert(asked < shards.count);
    struct json json = {.bytes = buffer, .size_max = METRICS_HEALTH_MAX};
    const struct metrics *mover = first_at_work(shards, asked);
    char status[STATUS_MAX];
    write_status(shards, status, sizeof status);
    const struct {
        uint32_t position;
        const char *key, *text;
    } texts[] = {{0, "status", status},
                 {7, "version", node->version},
                 {32, "mover_phase", text_or_none(&mover->mover_phase)},
                 {33, "mover_job", text_or_none(&mover->mover_job)}};
    uint32_t next = 0;
    add(&json, "{");
    for (uint32_t position = 0;; position++) {
        if (next < sizeof texts / sizeof texts[0] && texts[next].position == position) {
            add(&json, "\"%s\":\"%.200s\",", texts[next].key, texts[next].text);
            next++;
        } else if (!add_number(&json, shards, position)) {
            break;
        }
    }
    close_object(&json);
    return json.size - 1;
}
