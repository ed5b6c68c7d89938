/* The arithmetic of sizing.h. */
#include "node/sizing.h"

#include "net/client/limits.h"
#include "node/parts.h"
#include "node/pin.h"
#include "store/store_keys.h"

#include <errno.h>
#include <inttypes.h>

/* Without -memory: of what the machine or the control group has. The kernel wants the rest, for
 * sockets, page tables and the file system. */
#define LIMIT_PERCENT 80u

/* The program, its libraries, the stacks, and what malloc has not given back. */
#define PROCESS_SIZE (16 * MIB)

/* With less, what is under way has less in proportion. */
#define MEMORY_FULL (4 * GIB)
#define DIVISOR_MAX 32u

/* By default the shards take at most this part of the limit. */
#define SHARDS_SHARE 2u

/* So do the connections, and the cache of what is left for cache and index. */
#define CONNECTIONS_SHARE 16u
#define CACHE_SHARE 2u

/* What a shard's index has at least: 60,000 keys. */
#define INDEX_MIN (2 * MIB)

/* A shard's part of the disk by default: with less, its log's files would be smaller than they may be
 * (store/catalog/superblock.c). */
#define DISK_MIN (64 * MIB)

static uint64_t limit_of(const struct machine *machine, const struct config *config)
{
    if (config->memory_size != 0)
        return config->memory_size;
    uint64_t memory = machine->memory != 0 ? machine->memory : UINT64_MAX / 100;
    if (machine->memory_max != 0)
        memory = min_u64(memory, machine->memory_max);
    return memory / 100 * LIMIT_PERCENT;
}

/* ---- shards ---- */

static uint32_t memory_holds(const struct config *config, uint64_t limit, uint32_t count)
{
    while (count > 1 && parts_shards_memory(config, count) > limit / SHARDS_SHARE)
        count--;
    return count;
}

static void lower(uint32_t *count, uint32_t to, enum sizing_bound *bound, enum sizing_bound why)
{
    if (to >= *count)
        return;
    *count = to;
    *bound = why;
}

static uint32_t choose_shards(const struct machine *machine, const struct config *config,
                              uint64_t limit, enum sizing_bound *ret_bound)
{
    *ret_bound = SIZING_FLAG;
    if (config->shard_count != 0)
        return config->shard_count;
    uint32_t count = (uint32_t)min_u64(machine->cpus, PIN_SHARDS_MAX);
    *ret_bound = SIZING_CPUS;
    if (machine->quota != 0)
        lower(&count, machine->quota, ret_bound, SIZING_QUOTA);
    if (machine->disk_size != 0)
        lower(&count, (uint32_t)max_u64(min_u64(machine->disk_size / DISK_MIN, PIN_SHARDS_MAX), 1),
              ret_bound, SIZING_DISK);
    lower(&count, memory_holds(config, limit, count), ret_bound, SIZING_MEMORY);
    return count;
}

/* ---- memory ---- */

int sizing_fit(const struct machine *machine, struct config *config, struct sizing *ret_sizing)
{
    uint64_t limit = limit_of(machine, config);
    struct sizing sizing = {.limit = limit, .process = PROCESS_SIZE};
    config->memory_divisor =
        (uint32_t)min_u64((MEMORY_FULL + limit - 1) / max_u64(limit, 1), DIVISOR_MAX);
    config->shard_count = choose_shards(machine, config, limit, &sizing.bound);
    uint32_t shards = config->shard_count;
    config->connections_max = (uint32_t)min_u64(
        config->connections_max, max_u64(limit / CONNECTIONS_SHARE / LIMITS_CONNECTION_MEMORY, 1));
    sizing.shards = parts_shards_memory(config, shards);
    sizing.requests = parts_requests_memory(config, shards);
    sizing.connections = config->connections_max * LIMITS_CONNECTION_MEMORY;
    uint64_t taken = sizing.process + sizing.shards + sizing.requests + sizing.connections;
    uint64_t left = limit > taken ? limit - taken : 0;
    uint64_t cache_min = shards * STORE_CACHE_MIN, index_min = shards * INDEX_MIN;
    bool fits = left >= cache_min + index_min;
    sizing.cache =
        fits ? max_u64(min_u64(config->cache_size, left / CACHE_SHARE), cache_min) : cache_min;
    sizing.index = fits ? left - sizing.cache : index_min;
    config->cache_size = sizing.cache;
    config->index_size = sizing.index;
    *ret_sizing = sizing;
    return fits ? 0 : -ENOMEM;
}

/* ---- what is said of it ---- */

const char *sizing_bound_text(enum sizing_bound bound)
{
    static const char *const texts[] = {
        [SIZING_FLAG] = "",
        [SIZING_CPUS] = "",
        [SIZING_QUOTA] = " (the control group's CPU quota)",
        [SIZING_MEMORY] = " (as many as -memory holds)",
        [SIZING_DISK] = " (as many as the disk holds)",
    };
    return texts[bound];
}

static const char *source_of(const struct machine *machine, const struct config *given)
{
    if (given->memory_size != 0)
        return "-memory";
    bool is_group =
        machine->memory_max != 0 && (machine->memory == 0 || machine->memory_max < machine->memory);
    return is_group ? "80 % of what the control group allows" : "80 % of the machine's";
}

static uint64_t mib(uint64_t size)
{
    return size / MIB;
}

static void refuse(const struct sizing *sizing, const struct config *config, const char *source,
                   const struct log *log)
{
    uint64_t sum = sizing->process + sizing->shards + sizing->requests + sizing->connections +
                   sizing->cache + sizing->index;
    log_error(log,
              "%" PRIu64 " MiB of memory (%s) are too few: the process takes %" PRIu64
              ", %u of -shards %" PRIu64 " (fewer take less), requests under way %" PRIu64
              ", %u connections %" PRIu64 " (-connections), cache and index at least %" PRIu64
              ". Give it %" PRIu64 " MiB (-memory, or the control group's limit)",
              mib(sizing->limit), source, mib(sizing->process), config->shard_count,
              mib(sizing->shards), mib(sizing->requests), config->connections_max,
              mib(sizing->connections), mib(sizing->cache + sizing->index), mib(sum) + 1);
}

void sizing_tell(const struct sizing *sizing, const struct machine *machine,
                 const struct config *given, const struct config *config, int result,
                 const struct log *log)
{
    const char *source = source_of(machine, given);
    if (result < 0) {
        refuse(sizing, config, source, log);
        return;
    }
    log_info(log,
             "memory: at most %" PRIu64 " MiB (%s): process %" PRIu64 ", shards %" PRIu64
             ", requests under way %" PRIu64 ", %u of %u connections %" PRIu64 ", cache %" PRIu64
             " of %" PRIu64 ", index %" PRIu64 " (%" PRIu64 " keys)",
             mib(sizing->limit), source, mib(sizing->process), mib(sizing->shards),
             mib(sizing->requests), config->connections_max, given->connections_max,
             mib(sizing->connections), mib(sizing->cache), mib(given->cache_size),
             mib(sizing->index), sizing->index / STORE_KEY_BYTES);
    if (sizing->cache < given->cache_size)
        log_info(log,
                 "-cache %" PRIu64 " does not fit beside the rest: the cache has %" PRIu64
                 " MiB. Raise -memory for more",
                 mib(given->cache_size), mib(sizing->cache));
    if (machine->memory_max != 0 && sizing->limit > machine->memory_max)
        log_warn(log,
                 "-memory %" PRIu64 " is more than the %" PRIu64
                 " MiB of the control group: the kernel may kill this process",
                 mib(sizing->limit), mib(machine->memory_max));
}
