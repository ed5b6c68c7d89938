#include "target.h"

#include "net/server.h"

#include <stddef.h>

/* A log segment holds at least one record of the greatest size, which has this much around a value
 * that lies in no value file, and an ordinary buffer of the log. */
#define RECORD_EXTRA (128 * KIB)
#define SEGMENT_SIZE_MIN (320 * KIB)

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
    target->config.value_size_max = options->value_size_max;
    target->config.value_file_min = options->value_file_min;
    target->config.stream_buffers = options->stream_buffers;
    target->config.log_keep_bytes = options->log_keep_bytes;
    target->config.compact_min = options->compact_min;
    target->config.mover_window = options->mover_window;
    target->config.checkpoint_min = options->checkpoint_min;
    uint64_t segment_size = options->value_file_min + RECORD_EXTRA;
    segment_size = max_u64(segment_size, SEGMENT_SIZE_MIN) + options->segment_size_more;
    target->config.segment_size = round_up(segment_size, DISK_BLOCK_SIZE);
}

uint32_t target_value_size_max(const struct target *target)
{
    return target->config.value_size_max;
}

void target_start(struct target *target, int64_t clock_ms)
{
    struct io_options options;
    server_io_options(&target->config, &options);
    sim_host_open(target->sim, target->disk, &options, &target->io);
    sim_host_jump(target->io, clock_ms);
}

int target_open(struct target *target)
{
    return server_open(target->io, &target->config, &target->log, &target->server);
}

int target_pass(struct target *target)
{
    return server_pass(target->server);
}

void target_drain(struct target *target)
{
    server_drain(target->server);
}

uint16_t target_port(const struct target *target)
{
    return server_port(target->server);
}

void target_close(struct target *target)
{
    if (target->io != NULL)
        io_close(target->io);
    target->io = NULL;
    if (target->server != NULL)
        server_close(target->server);
    target->server = NULL;
}
