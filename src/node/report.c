/* The parts of a shard as the source of its watch. */
#include "node/report.h"

#include "base/log.h"
#include "net/client/clients.h"

static void report_shard(void *context, struct shard_report *ret_report)
{
    const struct report *report = context;
    const struct clients *clients = report->clients;
    ret_report->connections = clients->count;
    ret_report->connections_accepted = clients->accepted;
    ret_report->connections_refused = clients->refused;
    ret_report->gets = report->shard->gets;
    ret_report->sets = report->shard->sets;
    ret_report->deletes = report->shard->deletes;
    ret_report->requests_refused = clients->shared.requests_refused;
    ret_report->is_reload_good = report->is_reload_good;
    ret_report->reload_s = report->reload_ms / 1000;
    ret_report->messages_dropped = log_dropped(report->log);
    ret_report->failed = *report->failed;
    ret_report->is_draining = *report->is_draining;
    store_stats(report->shard->store, &ret_report->store);
    ret_report->memory =
        ret_report->store.cache.memory + ret_report->store.index_memory + clients_memory(clients);
}

static void describe(void *context, struct metrics_node *ret_node)
{
    struct report *report = context;
    if (report->steer == NULL)
        return;
    steer_read_counters(report->steer, &report->decisions);
    for (uint32_t i = 0; i < STEER_DECISION_COUNT; i++)
        report->decision_names[i] = steer_decision_name((enum steer_decision)i);
    ret_node->decisions = report->decisions.decisions;
    ret_node->decision_names = report->decision_names;
    ret_node->decision_count = STEER_DECISION_COUNT;
}

struct watch_source report_source(struct report *report)
{
    return (struct watch_source){.context = report, .report = report_shard, .describe = describe};
}
