/* The table of what is counted, as a table in memory; the names of what is counted by label. */
#include "net/watch/metrics.h"

#include "base/assert.h"
#include "base/units.h"
#include "minivault/protocol.h"

#include <string.h>

#define AT(position, key) key, position, 1
#define MIB_AT(position, key) key, position, MIB
#define NOWHERE NULL, 0, 1

static const struct metrics_kind kinds[METRICS_VALUE_COUNT] = {
#define COUNTED(id, name, type, merge, health, help)                                               \
    [METRICS_##id] = {name, METRICS_##type, METRICS_##merge, {health}, help},
#define METRIC(id, name, type, merge, health, source, help)                                        \
    [METRICS_##id] = {name, METRICS_##type, METRICS_##merge, {health}, help},
#include "net/watch/metrics_table.h"
};

const struct metrics_kind *metrics_kind_of(enum metrics_value which)
{
    assert(which < METRICS_VALUE_COUNT);
    return &kinds[which];
}

const char *metrics_unit_of(const char *name)
{
    const char *last = strrchr(name, '_');
    bool is_unit = last != NULL && (strcmp(last, "_bytes") == 0 || strcmp(last, "_seconds") == 0);
    return is_unit ? last + 1 : "";
}

uint64_t metrics_merged(struct metrics_shards shards, enum metrics_value which)
{
    uint64_t sum = 0, most = 0, least = UINT64_MAX;
    for (uint32_t i = 0; i < shards.count; i++) {
        uint64_t value = metrics_read(&shards.all[i]->values[which]);
        sum += value;
        most = max_u64(most, value);
        least = min_u64(least, value);
    }
    enum metrics_merge merge = metrics_kind_of(which)->merge;
    return merge == METRICS_SUM ? sum : merge == METRICS_MAX ? most : least;
}

enum metrics_operation metrics_operation_of(uint8_t op)
{
    static const uint8_t ops[METRICS_OTHER] = {MINIVAULT_GET,    MINIVAULT_SET,  MINIVAULT_DELETE,
                                               MINIVAULT_HEALTH, MINIVAULT_AUTH, MINIVAULT_HELLO,
                                               MINIVAULT_STATS};
    uint32_t operation = METRICS_GET;
    while (operation < METRICS_OTHER && ops[operation] != op)
        operation++;
    return (enum metrics_operation)operation;
}

const char *metrics_operation_name(enum metrics_operation operation)
{
    static const char *const names[METRICS_OPERATION_COUNT] = {"get",  "set",   "delete", "health",
                                                               "auth", "hello", "stats",  "other"};
    assert(operation < METRICS_OPERATION_COUNT);
    return names[operation];
}

const char *metrics_outcome_name(uint32_t outcome)
{
    static const char *const names[METRICS_OUTCOME_COUNT] = {
        "ok",          "not_found",   "not_applied", "ambiguous", "superseded",
        "overloaded",  "no_space",    "corrupt",     "auth",      "too_large",
        "bad_request", "unsupported", "not_ready",   "error"};
    assert(outcome < METRICS_OUTCOME_COUNT);
    return names[outcome];
}

const char *metrics_error_name(enum metrics_error error)
{
    static const char *const names[METRICS_ERROR_COUNT] = {"unread", "late", "overflow", "accept"};
    assert(error < METRICS_ERROR_COUNT);
    return names[error];
}
