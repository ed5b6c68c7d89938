/* The loop as the source of its watch. */
#include "node/report.h"

#include "net/client/server_internal.h"
#include "net/steer/steer.h"

static void report(void *context, struct shard_report *ret_report)
{
    struct loop *loop = context;
    *ret_report = (struct shard_report){
        .connections = loop->connection_count,
        .connections_accepted = loop->connections_accepted,
        .connections_refused = loop->connections_refused,
        .gets = loop->shard.gets,
        .sets = loop->shard.sets,
        .deletes = loop->shard.deletes,
        .requests_refused = loop->requests_refused,
        .failed = loop->failed,
        .is_draining = loop->is_draining,
    };
    store_stats(loop->shard.store, &ret_report->store);
    ret_report->memory = ret_report->store.cache.memory + ret_report->store.index_memory +
                         loop->input_bytes +
                         (uint64_t)loop->outputs.blocks.count_touched * OUTPUT_BLOCK_SIZE;
}

static void describe(void *context, struct metrics_node *ret_node)
{
    struct loop *loop = context;
    const struct steer *steer = loop->node->steer;
    if (steer == NULL)
        return;
    steer_read_counters(steer, &loop->decisions);
    for (uint32_t i = 0; i < STEER_DECISION_COUNT; i++)
        loop->decision_names[i] = steer_decision_name((enum steer_decision)i);
    ret_node->decisions = loop->decisions.decisions;
    ret_node->decision_names = loop->decision_names;
    ret_node->decision_count = STEER_DECISION_COUNT;
}

struct watch_source report_source(struct loop *loop)
{
    return (struct watch_source){.context = loop, .report = report, .describe = describe};
}
