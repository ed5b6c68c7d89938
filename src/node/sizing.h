/* Sizing: how many shards a node has, and how its parts share the memory that it may take (-memory).
 *
 *     limit = process + shards + requests under way + connections + cache + index
 *
 * All of it is settled at the start, at its most, so that nothing has to be counted together while
 * the node runs. Where the limit is small, what is under way has less (parts.h), then fewer
 * connections are served, and the cache is smaller; what must be there and does not fit is refused.
 * The index has the rest, and its limit is store_keys.h's. */
#ifndef MINIVAULT_NODE_SIZING_H
#define MINIVAULT_NODE_SIZING_H

#include "base/log.h"
#include "node/config.h"

/* What the machine gives this process. 0: that is not limited, or not known. */
struct machine {
    uint32_t cpus;  /* that it may run on */
    uint32_t quota; /* of its control groups, in CPUs */
    uint64_t memory;
    uint64_t memory_max; /* of its control groups */
    uint64_t disk_size;  /* of the file system that the data directory is on */
};

/* What decided the number of shards. */
enum sizing_bound { SIZING_FLAG, SIZING_CPUS, SIZING_QUOTA, SIZING_MEMORY, SIZING_DISK };

/* Bytes. */
struct sizing {
    uint64_t limit;
    uint64_t process, shards, requests, connections, cache, index;
    enum sizing_bound bound;
};

/* Settles config's shard_count, connections_max, cache_size, index_size and memory_divisor.
 * *ret_sizing is filled in also when it does not fit. Errors: -ENOMEM. */
int sizing_fit(const struct machine *machine, struct config *config, struct sizing *ret_sizing);

/* Logs the sum, or why it does not fit. `given`: the configuration as it was; `config`: as sizing_fit
 * left it, which returned `result`. */
void sizing_tell(const struct sizing *sizing, const struct machine *machine,
                 const struct config *given, const struct config *config, int result,
                 const struct log *log);

/* What stands behind the number of shards: "", or " (what decided it)". */
const char *sizing_bound_text(enum sizing_bound bound);

#endif
