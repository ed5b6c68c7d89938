/* Starts, runs and stops the server under test: a node's shards on one simulated machine. */
#include "target.h"

#include "node/loop.h"

#include <stddef.h>
#include <string.h>

/* A log file holds at least one record of the greatest size, which has this much around a value
 * that lies in no value file, and an ordinary buffer of the log. */
#define RECORD_EXTRA (128 * KIB)
#define LOG_FILE_SIZE_MIN (320 * KIB)

/* Shards take turns: while one sleeps, the others' mail waits. */
#define SLEEP_MAX_NS (100 * NS_PER_US)

void target_init(struct target *target, struct sim *sim, const struct target_options *options,
                 const struct log *log)
{
    *target = (struct target){.sim = sim, .disk = sim_disk_create(sim), .log = *log};
    config_init_defaults(&target->config);
    target->config.data_path = "/data";
    target->config.durability = options->durability;
    target->config.cache_size = options->cache_size;
    target->config.connections_max = options->connections_max;
    target->config.busy_poll_ns = 0;
    target->config.sleep_max_ns = SLEEP_MAX_NS;
    target->config.value_size_max = options->value_size_max;
    target->config.value_file_min = options->value_file_min;
    target->config.stream_buffers = options->stream_buffers;
    target->config.log_keep_bytes = options->log_keep_bytes;
    target->config.compact_min = options->compact_min;
    target->config.mover_window = options->mover_window;
    target->config.checkpoint_min = options->checkpoint_min;
    uint64_t log_file_size = options->value_file_min + RECORD_EXTRA;
    target->config.mover_stage = options->has_small_stage ? log_file_size : 0;
    log_file_size = max_u64(log_file_size, LOG_FILE_SIZE_MIN) + options->log_file_size_more;
    target->config.log_file_size = round_up(log_file_size, DISK_BLOCK_SIZE);
}

uint32_t target_value_size_max(const struct target *target)
{
    return target->config.value_size_max;
}

void target_start(struct target *target, uint32_t shard_count, int64_t clock_ms)
{
    struct io_options options;
    target->config.shard_count = shard_count;
    loop_io_options(&target->config, shard_count, &options);
    for (uint32_t i = 0; i < shard_count; i++) {
        sim_host_open(target->sim, target->disk, &options, &target->shards[i].io);
        sim_host_jump(target->shards[i].io, clock_ms);
    }
    target->io = target->shards[0].io;
}

void target_jump(struct target *target, int64_t delta_ms, bool is_frozen)
{
    for (uint32_t i = 0; target->io != NULL && i < target->config.shard_count; i++) {
        sim_host_jump(target->shards[i].io, delta_ms);
        sim_host_freeze(target->shards[i].io, is_frozen);
    }
}

/* What one of them was killed by kills all. */
static void die_together(struct target *target)
{
    bool is_dead = false;
    for (uint32_t i = 0; i < target->config.shard_count; i++)
        is_dead = is_dead || sim_host_is_crashed(target->shards[i].io);
    if (is_dead)
        target_crash(target, SIM_KILL);
}

void target_crash(struct target *target, enum sim_crash crash)
{
    for (uint32_t i = 0; i < target->config.shard_count; i++)
        if (!sim_host_is_crashed(target->shards[i].io))
            sim_host_crash(target->shards[i].io, crash);
}

/* ---- starting: the ladder of src/threads.c, one shard after the other ---- */

static int create_all(struct target *target)
{
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < target->config.shard_count; i++) {
        struct target_shard *shard = &target->shards[i];
        result = loop_create(shard->io, target->node, i, &shard->server);
    }
    return result;
}

static int listen_all(struct target *target)
{
    int result = 0;
    uint16_t port = target->config.port;
    for (uint32_t i = 0; result == 0 && i < target->config.shard_count; i++) {
        int descriptors[LISTENERS_MAX];
        result = loop_listen(target->shards[i].server, port, descriptors);
        port = loop_port(target->shards[0].server);
    }
    return result;
}

int target_open(struct target *target)
{
    int result =
        node_open(&target->config, &target->log, target->config.shard_count, NULL, &target->node);
    if (result == 0)
        result = loop_prepare(target->shards[0].io, target->node);
    if (result == 0)
        result = create_all(target);
    if (result == 0)
        result = listen_all(target);
    for (uint32_t i = 0; result == 0 && i < target->config.shard_count; i++)
        loop_begin(target->shards[i].server, NULL);
    die_together(target);
    return result;
}

/* ---- running ---- */

int target_pass(struct target *target)
{
    bool are_drained = true;
    for (uint32_t i = 0; i < target->config.shard_count; i++) {
        struct target_shard *shard = &target->shards[i];
        int result = shard->is_drained ? 1 : loop_pass(shard->server);
        shard->is_drained = result == 1;
        are_drained = are_drained && shard->is_drained;
        die_together(target);
        if (result < 0)
            return result;
    }
    return are_drained;
}

void target_drain(struct target *target)
{
    for (uint32_t i = 0; i < target->config.shard_count; i++)
        loop_drain(target->shards[i].server);
}

uint16_t target_port(const struct target *target)
{
    return loop_port(target->shards[0].server);
}

void target_close(struct target *target)
{
    if (target->io == NULL)
        return;
    target->io = NULL;
    for (uint32_t i = 0; i < target->config.shard_count; i++)
        io_close(target->shards[i].io);
    for (uint32_t i = 0; i < target->config.shard_count; i++)
        loop_close(target->shards[i].server);
    memset(target->shards, 0, sizeof target->shards);
    node_close(target->node);
    target->node = NULL;
}
