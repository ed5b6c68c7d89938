/* The parts of -memory that cache and index have, and the refusal of new keys. */
#include "store/store_keys.h"

#include "base/units.h"
#include "store/store_internal.h"

#include <inttypes.h>

#define PARTITION_COUNT 256u

/* Of the cache's size, for marks of what is dead but has its slot still: 8 bytes each. */
#define DOOMED_SHARE 32u

/* The index's part of this shard, as it has its part of the partitions; 0: there is no limit. */
static uint64_t index_size(const struct store_options *options)
{
    uint32_t owned = (PARTITION_COUNT - 1 - options->shard) / options->shard_count + 1;
    return options->index_size / PARTITION_COUNT * owned;
}

int store_create_index(struct store *store)
{
    int result = index_create(0, &store->index);
    if (result == 0 && store->options.index_size != 0)
        index_set_limit(store->index, index_size(&store->options) / STORE_KEY_BYTES);
    return result;
}

/* What keys take beyond the index's part is the cache's loss. */
static uint64_t cache_size(const struct store *store)
{
    const struct store_options *options = &store->options;
    uint64_t used = index_count(store->index) * STORE_KEY_BYTES;
    uint64_t both = options->cache_size + index_size(options);
    if (options->index_size == 0 || used <= index_size(options))
        return options->cache_size;
    uint64_t left = both > used ? both - used : 0;
    return min_u64(options->cache_size, max_u64(left, STORE_CACHE_MIN));
}

int store_create_cache(struct store *store)
{
    uint64_t size = cache_size(store), doomed_size = size / DOOMED_SHARE;
    int result = cache_create(size - doomed_memory(doomed_size), &store->cache);
    if (result == 0)
        result = doomed_create(doomed_size, store->superblock.now.secret, &store->doomed);
    if (result < 0)
        log_error(store->log, "not enough memory for a cache of %" PRIu64 " MiB: lower -cache",
                  size / MIB);
    return result;
}

void store_warn_of_keys(const struct store *store)
{
    if (store_has_memory(store))
        return;
    log_warn(store->log,
             "there are %" PRIu64 " keys, but the index has memory for %" PRIu64
             " of them: new keys are refused, and the cache has %" PRIu64
             " MiB. Raise -memory, or delete keys",
             index_count(store->index), index_size(&store->options) / STORE_KEY_BYTES,
             cache_size(store) / MIB);
}

bool store_has_memory(const struct store *store)
{
    return !index_is_full(store->index);
}

static void tell_of_refusal(struct store *store)
{
    if (log_limit_count(&store->keys_told, io_now_ns(store->io)) == 0)
        return;
    log_warn(store->log,
             "new keys are refused (OVERLOADED), %" PRIu64 " so far: %" PRIu64
             " keys have taken the %" PRIu64
             " MiB that -memory leaves for the index. Raise -memory, lower -cache, or delete keys; "
             "reads, overwrites and deletes go on",
             store->keys_refused, index_count(store->index), index_size(&store->options) / MIB);
}

bool store_takes_key(struct store *store, struct slice key)
{
    if (store_has_memory(store))
        return true;
    struct key_place place = store_place(store, key);
    struct index_entry newest;
    if (index_find(store->index, place.partition, place.hash, &newest, 1) > 0)
        return true;
    store->keys_refused++;
    tell_of_refusal(store);
    return false;
}
