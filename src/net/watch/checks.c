#include "net/watch/checks.h"

#include "net/client/server_internal.h"

#include "base/assert.h"

#include <stdio.h>

/* A shard says each tick that its ring has turned; more is given for a busy machine. */
#define LIVE_NS (4 * CONFIG_TICK_NS)

bool server_is_live(const struct loop *server)
{
    uint64_t now_ns = io_now_ns(server->io);
    for (uint32_t i = 0; i < server->shard.count; i++) {
        uint64_t turned_ns = node_turned_ns(server->node, i);
        if (i != server->shard.number && turned_ns + LIVE_NS < now_ns)
            return false;
    }
    return true;
}

/* ---- the checks: whether this one is all right ---- */

static bool is_serving(const struct loop *server, const struct node_report *report)
{
    (void)server;
    return !report->is_draining;
}

static bool is_writing(const struct loop *server, const struct node_report *report)
{
    (void)server;
    return report->failed == 0;
}

static bool is_live(const struct loop *server, const struct node_report *report)
{
    (void)report;
    return server_is_live(server);
}

static bool has_space(const struct loop *server, const struct node_report *report)
{
    (void)server;
    uint64_t needed = min_u64(CONFIG_READY_DISK_MIN, report->store.disk_total / 100);
    return report->store.disk_free >= needed;
}

static const struct check {
    const char *name;
    bool (*is_good)(const struct loop *server, const struct node_report *report);
} checks[] = {
    {"draining", is_serving},
    {"log", is_writing},
    {"shards", is_live},
    {"disk space", has_space},
};

#define CHECKS_COUNT (sizeof checks / sizeof checks[0])

const char *checks_run(struct loop *server, char *ret_text)
{
    struct node_report report;
    const char *failing = NULL;
    size_t size = 0;
    server_node_report(server, &report);
    for (size_t i = 0; i < CHECKS_COUNT; i++) {
        bool is_good = checks[i].is_good(server, &report);
        if (!is_good && failing == NULL)
            failing = checks[i].name;
        int written = snprintf(ret_text + size, CHECKS_TEXT_MAX - size, "%s%s %s",
                               i == 0 ? "" : ", ", checks[i].name, is_good ? "ok" : "failed");
        assert(written > 0 && size + (size_t)written < CHECKS_TEXT_MAX);
        size += (size_t)written;
    }
    return failing;
}
