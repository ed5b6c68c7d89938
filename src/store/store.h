/* The store: one shard's keys, over its log, index and cache.
 *
 *   set, delete: version -> wal (position, location) -> index -> cache: visible, shown when durable
 *   get:         cache -> index -> read of the disk -> cache
 *
 * Whatever a call shows carries a gate, a log position: an answer that depends on it may leave only
 * once store_durable says so (0: at once).
 *
 * Identity. The index knows hashes, not keys. A get reads candidates, newest first, until the key
 * is equal. A write whose key is not in memory but whose hash is known adds a slot beside the old
 * one and proves afterwards, by reading the old record, that it is the same key's: then the old
 * slot goes. Until then the newer version hides it, so neither visibility nor the acknowledgement
 * waits for that read.
 *
 * Invariants: (1) the cache has the newest version of a key or nothing of it; (2) a cached entry's
 * version has a slot in the index, unless it is a tombstone that was purged; (3) a slot is removed
 * only when a newer record of the same key was appended, a segment is recycled only when that newer
 * record is durable. */
#ifndef MINIVAULT_STORE_STORE_H
#define MINIVAULT_STORE_STORE_H

#include "base/bytes.h"
#include "base/log.h"
#include "io/io.h"
#include "store/disk/findings.h"
#include "store/memory/cache.h"
#include "store/mover/mover.h"
#include "store/scrub/scrub.h"
#include "store/value/value_file.h"
#include "store/wal/wal.h"

#include <stdbool.h>
#include <stdint.h>

struct store;
struct superblock_handover;
struct superblock_identity;

enum store_status {
    STORE_OK,
    STORE_NOT_FOUND,
    STORE_PENDING,    /* the answer comes through the waiter, from the loop */
    STORE_BUSY,       /* nothing was done: come back after events.room */
    STORE_NO_SPACE,   /* nothing was done: the disk is full */
    STORE_NO_MEMORY,  /* nothing was done: a new key, and no memory for one */
    STORE_CORRUPT,    /* what the disk has cannot be proved right */
    STORE_TOO_LARGE,  /* nothing was done */
    STORE_FAILED,     /* nothing was done: the log failed, or its directory is gone */
    STORE_UNREADABLE, /* the disk does not give it now (store_value.error): come back */
};

struct store_value {
    const uint8_t *data;
    uint32_t size;
    struct cache_entry
        *entry; /* where data lies, to be pinned by whoever keeps it beyond this pass; NULL: data is
                   valid only until the call that showed it returns */
    uint64_t gate;
    struct version version; /* also of a tombstone; of nothing: zero */
    int error;              /* UNREADABLE: why */
    bool in_value_file; /* data is the descriptor of `file`. Of a get that is pending: it may be */
    struct value_file_name file;
    struct slice key; /* when in_value_file: valid as long as data */
};

/* Embedded by a caller whose get may be pending; in use until `done`. */
struct store_waiter;
typedef void store_waiter_done(struct store_waiter *waiter, enum store_status status,
                               const struct store_value *value);
struct store_waiter {
    store_waiter_done
        *done; /* status is OK (with a value), NOT_FOUND, CORRUPT, UNREADABLE or BUSY */
};

struct store_events {
    void *context;
    void (*durable)(void *context, uint64_t position); /* answers gated up to here may leave */
    void (*room)(void *context);                       /* what was BUSY may be tried again */
    void (*failed)(void *context, int error);          /* the log failed, once */
};

/* One shard's store. Cache, stream buffers and the scrubber's rate are this shard's; what belongs
 * to the disk (the reserve, the log's length, the room that is kept free, SCRUB_AUTO's rate) the
 * store divides by shard_count, the index's memory by the partitions, the memory of what is under
 * way by `parts`. */
struct store_options {
    const char *path;    /* the data directory */
    uint64_t cache_size; /* bytes */
    uint64_t index_size; /* bytes of all shards' indexes, beyond which new keys are NO_MEMORY; 0:
                               no limit */
    uint32_t parts; /* a shard has one of the memory for what is under way, at least shard_count; 0:
                       shard_count */
    uint64_t log_file_size; /* bytes, when the directory is formatted now; 0: by its disk's size */
    const struct superblock_identity *identity; /* as well; NULL: no cluster's, a secret is drawn */
    uint32_t value_size_max;                    /* bytes */
    uint32_t value_file_min; /* bytes: a value of at least this lies in a file; 0: VALUE_FILE_MIN */
    uint32_t stream_buffers; /* for values on their way; 0: STORE_STREAM_BUFFERS */
    uint64_t log_keep_bytes; /* of sealed log that are not moved yet; 0: some files */
    uint64_t compact_min;    /* dead bytes of segments that are worth a job; 0: a segment's */
    uint32_t mover_window;   /* bytes that it reads at once: blocks, at most a MiB; 0: a MiB */
    uint64_t mover_stage; /* bytes of records that it holds in memory, at least the largest one's;
                             0: 32 MiB, or two segments, of all shards together */
    uint64_t checkpoint_min; /* moved records that are worth an index checkpoint; 0: many */
    uint32_t shard;       /* this shard's number: its partitions are `shard` modulo shard_count */
    uint32_t shard_count; /* of the directory; 0: one */
    struct superblock_handover *handover; /* as store_directory_prepare left it; NULL: this store
                                             alone opens or formats the directory, of one shard */
    uint64_t scrub_rate;                  /* bytes a second, SCRUB_AUTO or SCRUB_OFF */
    enum wal_durability durability;
    uint64_t lock_wait_ns; /* how long to wait for a dying predecessor */
    bool probe;            /* probe the device again; with a handover it was done before */
    bool accept_loss;      /* the operator accepts what damage has destroyed */
    bool is_brief;         /* opened to be emptied and closed again, no more (store_drain) */
    struct store_events events;
};

/* How much of the world's region a store with these options uses, for io_options.region_size. */
size_t store_region_size(const struct store_options *options);

/* All memory of a store with these options, the region too, beside cache and index. */
uint64_t store_memory_max(const struct store_options *options);

/* How many files a store has open at once, at most, for io_options.files_max. */
uint32_t store_files_max(void);

/* Opens a shard's state in the data directory and recovers it. Synchronous. The stores of a
 * directory share no memory: each has a thread and a world of its own, and they may be opened at
 * once. Every failure has been logged with what to do. Errors: superblock_open's, wal_recover's,
 * wal_open's, -EINVAL (the directory has another number of shards), -EXDEV (the shard's superblock
 * is another directory's). */
int store_open(struct io *io, const struct log *log, const struct store_options *options,
               struct store **ret_store);

/* Makes everything durable, marks the directory clean and gives its lock back. Synchronous; no
 * waiter is left. Errors: -ENOENT (the data directory is gone, which was logged), the world's. */
int store_shut(struct store *store);

/* Frees the memory: after store_shut, or after the world was closed. */
void store_free(struct store *store);

/* The newest value of a key. OK: *ret_value; NOT_FOUND and CORRUPT: ret_value->gate; UNREADABLE:
 * ret_value->error; PENDING: the waiter; BUSY. The key's bytes are not needed after the call. */
enum store_status store_get(struct store *store, struct slice key, struct store_waiter *waiter,
                            struct store_value *ret_value);

/* A version for a write, or for the name of a value file, that begins now. */
struct version store_stamp(struct store *store);

/* A key's place: whose it is, and where in the tables of its shard. */
struct key_place {
    uint64_t keyed;     /* hash_keyed: of the cache */
    uint64_t hash;      /* hash_index: of the index and the filter */
    uint64_t key_hash;  /* hash_key: of file names */
    uint16_t partition; /* hash_partition */
    uint16_t owner;     /* the shard (shard.h); 0 within a store */
    bool is_whole; /* otherwise the three above are not known: a get of a cached key needs none */
    bool is_write; /* store_prefetch's */
};

/* Locates a key and begins to load what a call for it will look at first; store_prefetch_entry, a
 * little later, loads what lies behind that, and the filter's line of a get that the cache cannot
 * answer. Whoever has several requests in hand hides the memory's latency that way. */
void store_prefetch(const struct store *store, struct slice key, bool is_write,
                    struct key_place *ret_place);
void store_prefetch_entry(const struct store *store, struct slice key, struct key_place *place);

/* store_get for a key whose answer is in memory: it is cached, or known to be absent. Needs no
 * waiter. Returns false, and does nothing, when that is not so. */
bool store_get_at_once(struct store *store, struct slice key, struct key_place place,
                       enum store_status *ret_status, struct store_value *ret_value);

/* A write. `stored` is what goes to disk, `decoded` what gets show: the same slice, or with `zstd`
 * a frame and what it decodes to, less than value_file_min bytes (others: store_upload_begin,
 * store_large.h). Returns OK, with the gate to be waited for, BUSY, NO_SPACE, NO_MEMORY, TOO_LARGE or
 * FAILED. */
enum store_status store_set(struct store *store, struct slice key, struct slice stored,
                            struct slice decoded, bool zstd, uint64_t *ret_gate);

/* OK also when the key was absent. */
enum store_status store_delete(struct store *store, struct slice key, uint64_t *ret_gate);

/* End of a pass: starts log writes and background work. Moving, checkpoints and scrubbing each
 * handle at most about `budget` bytes of records; STORE_PASS_BYTES take some ten microseconds.
 * Returns whether there is work left that wants another pass at once. */
#define STORE_PASS_BYTES (64 * KIB)
bool store_flush(struct store *store, uint64_t budget);

uint64_t store_durable(const struct store *store);

/* For whoever keeps a value beyond the pass. */
void store_pin(struct store *store, struct cache_entry *entry);
void store_unpin(struct store *store, struct cache_entry *entry);

/* Decodes a client's frame at once when that takes no more than a slice: 1 with malloc'ed
 * *ret_data; 0: submit a job to store_decodes. Errors: decompressor_step's. */
int store_decode_small(struct store *store, struct slice frame, uint8_t **ret_data,
                       size_t *ret_size);
struct decode_queue *store_decodes(struct store *store);

/* Why writes are refused; the worst is the greatest. */
enum admission {
    ADMISSION_OPEN, /* they are not */
    ADMISSION_NO_MEMORY,
    ADMISSION_NO_INODES,
    ADMISSION_NO_SPACE,
    ADMISSION_GONE, /* the data directory is not where it was */
    ADMISSION_FAILED,
};
const char *admission_text(enum admission admission); /* as in "the disk is full" */

struct store_stats {
    uint64_t keys;
    uint64_t tombstones;
    uint64_t index_memory;
    uint64_t index_limit;  /* of all shards' indexes; 0: none */
    uint64_t keys_refused; /* for want of memory */
    uint64_t disk_free, disk_total;
    enum admission admits_set;     /* of a value that goes into the log */
    enum admission admits_key;     /* of a new key */
    enum admission admits_file;    /* of one of a MiB, which goes into a file */
    uint64_t get_hits, get_misses; /* of the cache; each get counts once */
    struct cache_stats cache;
    struct wal_stats wal;
    struct segments_stats segments;
    struct mover_stats mover;
    struct scrub_stats scrub;
    struct findings_stats findings;
};
void store_stats(struct store *store, struct store_stats *ret_stats);

#endif
