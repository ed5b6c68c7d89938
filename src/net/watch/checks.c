/* The checks of readiness, and whether every shard is alive. */
#include "net/watch/checks.h"

#include "net/watch/watch.h"

#include "base/assert.h"

#include <stdio.h>

/* A shard says each tick that its ring has made a pass; more is given for a busy machine. */
#define LIVE_NS (4 * WATCH_TICK_NS)

bool watch_is_live(const struct watch *watch)
{
    uint64_t now_ns = io_now_ns(watch->io);
    for (uint32_t i = 0; i < watch->shard_count; i++) {
        uint64_t passed_ns = metrics_read(&watch->shards[i]->values[METRICS_PASSED]);
        if (i != watch->shard && passed_ns + LIVE_NS < now_ns)
            return false;
    }
    return true;
}

/* ---- the checks: whether this one is all right ---- */

static bool is_serving(const struct watch *watch)
{
    return watch_value(watch, METRICS_DRAINING) == 0;
}

static bool is_writing(const struct watch *watch)
{
    return watch_value(watch, METRICS_FAILED) == 0;
}

static bool has_directory(const struct watch *watch)
{
    return watch_value(watch, METRICS_GONE) == 0;
}

static bool has_space(const struct watch *watch)
{
    uint64_t needed = min_u64(CHECKS_DISK_MIN, watch_value(watch, METRICS_DISK_TOTAL) / 100);
    return watch_value(watch, METRICS_DISK_FREE) >= needed;
}

static const struct check {
    const char *name;
    bool (*is_good)(const struct watch *watch);
} checks[] = {
    {"draining", is_serving},
    {"log", is_writing},
    {"data directory", has_directory},
    {"shards", watch_is_live},
    {"disk space", has_space},
};

#define CHECKS_COUNT (sizeof checks / sizeof checks[0])

const char *checks_run(struct watch *watch, char *ret_text)
{
    const char *failing = NULL;
    size_t size = 0;
    watch_publish(watch);
    for (size_t i = 0; i < CHECKS_COUNT; i++) {
        bool is_good = checks[i].is_good(watch);
        if (!is_good && failing == NULL)
            failing = checks[i].name;
        int written = snprintf(ret_text + size, CHECKS_TEXT_MAX - size, "%s%s %s",
                               i == 0 ? "" : ", ", checks[i].name, is_good ? "ok" : "failed");
        assert(written > 0);
        assert(size + (size_t)written < CHECKS_TEXT_MAX);
        size += (size_t)written;
    }
    return failing;
}
