/* Dividing: the node's figures by the number of shards, or of parts. */
#include "node/parts.h"

#include "net/client/clients.h"
#include "net/client/limits.h"
#include "net/http/http_client.h"
#include "store/store_keys.h"
#include "store/store_large.h"

/* What a shard has at least of what all of them share. */
#define STREAM_BUFFERS_MIN 32u

/* Rings, mailboxes, pools and metrics of a shard. */
#define SHARD_OTHER_MEMORY (6 * MIB)

uint32_t parts_count(const struct config *config, uint32_t shard_count)
{
    return shard_count * (uint32_t)max_u64(config->memory_divisor, 1);
}

static uint32_t share_streams(const struct config *config, uint32_t parts)
{
    uint32_t count = config->stream_buffers != 0 ? config->stream_buffers : STORE_STREAM_BUFFERS;
    return parts == 1 ? count : (uint32_t)share_u64(count, parts, STREAM_BUFFERS_MIN);
}

static uint64_t share_scrub(uint64_t rate, uint32_t shard_count)
{
    return rate == SCRUB_AUTO || rate == SCRUB_OFF ? rate : share_u64(rate, shard_count, 1);
}

void parts_fill_store(const struct config *config, uint32_t shard_count,
                      struct store_options *ret_options)
{
    uint32_t parts = parts_count(config, shard_count);
    *ret_options = (struct store_options){
        .path = config->data_path,
        .shard_count = shard_count,
        .parts = parts,
        .cache_size = share_u64(config->cache_size, shard_count, STORE_CACHE_MIN),
        .index_size = config->index_size,
        .log_file_size = config->log_file_size,
        .value_size_max = config->value_size_max,
        .value_file_min = config->value_file_min,
        .stream_buffers = share_streams(config, parts),
        .log_keep_bytes = config->log_keep_bytes,
        .compact_min = config->compact_min,
        .mover_window = config->mover_window,
        .mover_stage = config->mover_stage,
        .checkpoint_min = config->checkpoint_min,
        .durability = config->durability,
        .lock_wait_ns = config->lock_wait_ns,
        .probe = config->probe,
        .scrub_rate = share_scrub(config->scrub_rate, shard_count),
        .accept_loss = config->accept_loss,
    };
}

uint32_t parts_receive_buffers(const struct config *config)
{
    uint32_t count = LIMITS_RECEIVE_COUNT;
    while (count > LIMITS_RECEIVE_COUNT_MIN &&
           count * config->memory_divisor > LIMITS_RECEIVE_COUNT)
        count /= 2;
    return count;
}

uint64_t parts_shards_memory(const struct config *config, uint32_t shard_count)
{
    struct store_options store;
    parts_fill_store(config, shard_count, &store);
    uint64_t received = (uint64_t)LIMITS_RECEIVE_SIZE * parts_receive_buffers(config);
    return shard_count * (store_memory_max(&store) + received + SHARD_OTHER_MEMORY);
}

uint64_t parts_requests_memory(const struct config *config, uint32_t shard_count)
{
    uint32_t parts = parts_count(config, shard_count);
    uint64_t texts = config->http_port != 0 ? http_memory_max(parts) : 0;
    return shard_count *
           (clients_memory_max(shard_count, parts) + texts + shard_memory_max(shard_count, parts));
}
