/* One shard's store: what it is made of. Each part has an owner file that alone looks into it; this
 * struct puts them together (start/wiring.c connects them). The request path is store.c and
 * store_large.c. */
#ifndef MINIVAULT_STORE_STORE_INTERNAL_H
#define MINIVAULT_STORE_STORE_INTERNAL_H

#include "base/clock.h"
#include "store/catalog/manifest.h"
#include "store/catalog/superblock.h"
#include "store/damage.h"
#include "store/disk/presence.h"
#include "store/disk/refusal.h"
#include "store/fetch.h"
#include "store/memory/bloom.h"
#include "store/memory/doomed.h"
#include "store/memory/index.h"
#include "store/mover/mover.h"
#include "store/mover/pace.h"
#include "store/mover/reserve.h"
#include "store/record/decode.h"
#include "store/record/squeeze.h"
#include "store/segment/segments.h"
#include "store/store.h"
#include "store/store_checkpoint.h"
#include "store/store_dead.h"
#include "store/store_lookup.h"
#include "store/store_proof.h"

#define STORE_PATH_SIZE 4096u

struct store {
    struct io *io;
    const struct log *log;
    struct store_options options;
    struct superblock_file superblock;
    char state_path[STORE_PATH_SIZE]; /* of superblock, manifest, checkpoint and reserve */
    char log_directory[STORE_PATH_SIZE];
    struct presence presence; /* of the data directory */
    struct wal *wal;
    struct index *index;
    struct cache *cache;
    struct hybrid_clock clock;
    uint32_t origin;
    int failed; /* 0, or the log's error */
    struct damage damage;
    struct findings findings; /* of this process: what is known to be wrong with the files */
    bool starved;             /* somebody was told BUSY */
    struct refusals refusals;
    uint64_t get_hits;   /* gets that the cache answered */
    uint64_t get_misses; /* and the others, but those told BUSY: they come again */
    struct fetcher fetcher;
    struct decode_queue decodes;
    struct stream_pool *streams; /* of large values on their way */
    uint64_t reserved_bytes;     /* on the disk, for uploads that may not come */
    struct lookups lookups;
    struct proofs proofs;
    struct dead dead;
    struct checkpoints checkpoints;
    struct doomed *doomed;
    struct segments *segments;
    struct manifest *manifest;
    uint64_t keys_refused; /* for want of memory (store_keys.c) */
    struct log_limit keys_told;
    struct bloom *bloom; /* in front of the index, for gets of absent keys */
    struct squeeze squeeze;
    struct mover *mover;
    struct pace pace;       /* of sets */
    struct io_op heartbeat; /* background work looks for work, also when nobody asks for anything */
    bool is_shutting;
    struct scrub *scrub; /* NULL: it is off */
    struct reserve reserve;
    uint64_t log_last;     /* position that the log had reached at least before the start */
    struct survey *survey; /* the start's, until it is over (start/count_alive.c) */
};

static inline struct key_place store_place(const struct store *store, struct slice key)
{
    return key_place_of(hash_keyed(store->superblock.now.secret, key.data, key.size),
                        hash_key(key.data, key.size));
}

/* Whether the partition is this shard's. */
static inline bool store_owns(const struct store *store, uint32_t partition)
{
    return partition % store->options.shard_count == store->options.shard;
}

/* How many keys there are. While recovery's suspects are sorted out, writes may make it too small
 * for a moment. */
static inline uint64_t store_key_count(const struct store *store)
{
    uint64_t slots = index_count(store->index) - index_tombstones(store->index);
    return slots -
           min_u64(slots, proofs_suspect_keys(&store->proofs) + doomed_values(store->doomed));
}

/* A value of at least this many bytes lies in a file. */
static inline uint32_t large_value_min(const struct store_options *options)
{
    return options->value_file_min != 0 ? options->value_file_min : (uint32_t)VALUE_FILE_MIN;
}

/* Bytes of a value below that, as it may have been sent: a frame may be larger than its content. */
static inline uint32_t large_stored_max(const struct store_options *options)
{
    return (uint32_t)compress_bound(large_value_min(options));
}

/* What a write found out about its key before anything is changed. */
struct plan {
    struct key_place place;
    struct cache_entry *cached;
    struct index_entry same[CANDIDATES_MAX];           /* slots that are this key's for certain */
    struct value_file_name same_files[CANDIDATES_MAX]; /* of those in value files */
    uint32_t same_count;
    struct index_entry doomed[CANDIDATES_MAX]; /* that most certainly are, for the mover to see */
    uint32_t doomed_count;
    struct proof *proof; /* for those that may be; NULL: there are none */
    bool absent;         /* the key is not here at all */
};

/* Fills the plan. Returns OK, BUSY or FAILED. After OK, plan_drop or plan_commit follows. */
enum store_status plan_write(struct store *store, struct slice key, struct plan *ret_plan);
void plan_drop(struct plan *plan);

/* Stamps, appends and applies. `decoded` is what the cache shows. */
enum store_status plan_commit(struct store *store, struct plan *plan, struct record *record,
                              struct slice decoded, uint64_t *ret_gate);

/* The context is the store. Tells those who were BUSY that something came free. */
void store_made_room(void *context);

/* The same. A log or memory failure after which nothing may be acknowledged. */
void store_fail(void *context, int error);

/* store_large.c: the region's memory for values on their way. */
uint64_t large_memory_size(const struct store_options *options);

#endif
