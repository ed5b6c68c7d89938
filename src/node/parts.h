/* What a shard has of what its node has once: memory, buffers, rates. */
#ifndef MINIVAULT_NODE_PARTS_H
#define MINIVAULT_NODE_PARTS_H

#include "node/config.h"
#include "store/store.h"

/* In how many parts the memory for what is under way is divided: a shard has one, and a part has a
 * least size. Where the node may take little memory there are more parts than shards (sizing.h). */
uint32_t parts_count(const struct config *config, uint32_t shard_count);

/* All but the shard's number, the handover and the events. */
void parts_fill_store(const struct config *config, uint32_t shard_count,
                      struct store_options *ret_options);

/* Of a shard: a power of two. */
uint32_t parts_receive_buffers(const struct config *config);

/* What the shards take at most, beside cache and index: the stores with their buffers and rings; and
 * requests and answers that are under way. */
uint64_t parts_shards_memory(const struct config *config, uint32_t shard_count);
uint64_t parts_requests_memory(const struct config *config, uint32_t shard_count);

#endif
