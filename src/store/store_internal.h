/* The store's insides, shared by the store_*.c files alone. */
#ifndef MINIVAULT_STORE_STORE_INTERNAL_H
#define MINIVAULT_STORE_STORE_INTERNAL_H

#include "base/clock.h"
#include "base/hash.h"
#include "store/memory/bloom.h"
#include "store/catalog/checkpoint.h"
#include "store/record/decode.h"
#include "store/memory/doomed.h"
#include "store/fetch.h"
#include "store/memory/index.h"
#include "store/catalog/manifest.h"
#include "store/mover/mover.h"
#include "store/mover/pace.h"
#include "store/wal/wal_recover.h"
#include "store/mover/reserve.h"
#include "store/segment/segments.h"
#include "store/record/squeeze.h"
#include "store/store.h"
#include "store/catalog/superblock.h"

/* Gets that wait for the disk, and writes whose old slot is being proved. Each owns a buffer in the
 * region. */
#define LOOKUPS_MAX 256u
#define PROOFS_MAX 256u

/* Slots that one hash may have. Two keys with one keyed hash do not happen by chance, so more than
 * one slot is an overwrite that is not proved yet; at this many a write waits for the proofs. */
#define CANDIDATES_MAX 8u

/* From this many on they are proved at once, by reading, instead of being left to the mover. */
#define CANDIDATES_CROWDED 4u

/* How often a look-up starts over because writes changed what it walks through. */
#define LOOKUP_RELOADS_MAX 8u

#define STORE_PARTITIONS 256u
#define STORE_PATH_SIZE 4096u

/* Whether two entries are the same write, wherever its record lies by now. */
static inline bool index_entry_is_same(const struct index_entry *a, const struct index_entry *b)
{
    return version_compare(a->version, b->version) == 0;
}

/* A key that outlives the buffer it came in: short ones inside, others malloc'ed. */
struct kept_key {
    struct slice slice;
    uint8_t bytes[128];
};

struct lookup {
    struct fetch fetch;
    struct store *store;
    struct store_waiter *waiter;
    struct key_place place;
    struct kept_key key;
    struct index_entry candidates[CANDIDATES_MAX];
    uint32_t candidate_count;
    uint32_t candidate; /* the one being fetched */
    uint32_t reloads;
    struct decode_job decode;
    struct list_node node;
};

struct proof {
    struct fetch fetch;
    struct store *store;
    struct key_place place;
    struct kept_key key;
    uint64_t killer_position;
    struct index_entry candidates[CANDIDATES_MAX];
    uint32_t candidate_count;
    uint32_t candidate;
    uint32_t removed_count; /* slots, in this round */
    bool is_suspect;        /* left by recovery: all slots of the hash are to be sorted out */
    bool is_counted;        /* as the suspect's */
    bool key_known;         /* false: the first candidate's key is the one to prove */
    struct list_node node;
};

/* A hash that recovery left with several slots. */
struct suspect {
    struct key_place place;
    bool is_counted; /* among the keys, though it will turn out to be an older write of one */
};

/* What recovery found beside the log. */
struct recovered {
    uint64_t number_last;   /* of segments */
    uint64_t sequence_last; /* of chunks */
    uint64_t clock_ceiling;
    uint64_t log_last;        /* position that the log had reached at least */
    uint64_t segment_records; /* in directories that the checkpoint did not have */
    uint64_t bytes_read;
    uint64_t damaged_segments;
    uint64_t orphans;
    uint64_t missing_files;
    uint16_t doubtful_files[STORE_PARTITIONS]; /* slots whose value files are to be matched */
};

struct store {
    struct io *io;
    const struct log *log;
    struct store_options options;
    struct superblock_file superblock;
    char state_path[STORE_PATH_SIZE]; /* of superblock, manifest, checkpoint and reserve */
    char log_directory[STORE_PATH_SIZE];
    struct wal *wal;
    struct index *index;
    struct cache *cache;
    struct hybrid_clock clock;
    uint32_t origin;
    int failed;           /* 0, or the log's error */
    uint64_t damage_last; /* log position up to which acknowledged writes were lost; 0: none */
    bool starved;         /* somebody was told BUSY */
    uint64_t get_hits;    /* gets that the cache answered */
    uint64_t get_misses;  /* and the others, but those told BUSY: they come again */
    struct fetcher fetcher;
    struct decode_queue decodes;
    struct stream_pool *streams; /* of large values on their way */
    struct list loans;           /* value files that other shards open just now */
    struct list removals;        /* value files that died, until that is durable */
    uint64_t reserved_bytes;     /* on the disk, for uploads that may not come */
    struct lookup *lookups;      /* LOOKUPS_MAX */
    struct list lookups_free;
    struct proof *proofs; /* PROOFS_MAX */
    struct list proofs_free;
    struct doomed *doomed;
    struct suspect *suspects;
    uint64_t suspect_count;
    uint64_t suspect_capacity;
    uint64_t suspect_keys; /* of them is_counted */
    uint64_t lookups_active;
    uint64_t proofs_active;

    struct segments *segments;
    struct manifest *manifest;
    struct bloom *bloom; /* in front of the index, for gets of absent keys */
    struct squeeze squeeze;
    struct mover *mover;
    struct pace pace;       /* of sets */
    struct io_op heartbeat; /* background work looks for work, also when nobody asks for anything */
    bool is_shutting;
    struct scrub *scrub; /* NULL: it is off */
    struct reserve reserve;
    struct recovered recovered;
    uint64_t damage_of_partition[STORE_PARTITIONS]; /* as damage_last, for one partition */

    struct checkpoint_writer *checkpoint; /* being written, or NULL */
    struct manifest_op checkpoint_op;
    uint8_t *checkpoint_memory;
    uint64_t checkpoint_number;      /* the one that counts; 0: none */
    uint64_t checkpoint_last;        /* greatest number given */
    uint64_t checkpoint_moved;       /* records moved when the one that counts was begun */
    uint64_t checkpoint_moved_begin; /* and the one under way */
    uint64_t checkpoint_retry_ns;
    struct list checkpoint_removals; /* of files, under way */
    uint64_t checkpoint_gate;        /* log position: what is written counts once this is durable */
    bool is_checkpointing;
    bool is_checkpoint_written; /* and now for the manifest */
    bool is_checkpoint_wanted;  /* the one that counts is damaged */
};

static inline struct key_place key_place_of(uint64_t keyed, uint64_t key_hash)
{
    return (struct key_place){
        .partition = (uint16_t)hash_partition(key_hash),
        .hash = hash_index(keyed, key_hash),
        .keyed = keyed,
        .key_hash = key_hash,
    };
}

static inline struct key_place store_place(const struct store *store, struct slice key)
{
    uint64_t keyed = hash_keyed(store->superblock.now.secret, key.data, key.size);
    return key_place_of(keyed, hash_key(key.data, key.size));
}

/* Whether the partition is this shard's. */
static inline bool store_owns(const struct store *store, uint32_t partition)
{
    return partition % store->options.shard_count == store->options.shard;
}

/* Whether what is known at this log position may have been overwritten by a write that damage
 * destroyed. Position 0: nothing is known of the key. */
static inline bool store_is_damaged_at(const struct store *store, uint32_t partition,
                                       uint64_t position)
{
    uint64_t damage = max_u64(store->damage_last, store->damage_of_partition[partition]);
    return damage != 0 && position <= damage;
}

/* How many keys there are. While recovery's suspects are sorted out, writes may make it too small
 * for a moment. */
static inline uint64_t store_key_count(const struct store *store)
{
    uint64_t slots = index_count(store->index) - index_tombstones(store->index);
    return slots - min_u64(slots, store->suspect_keys + doomed_values(store->doomed));
}

/* Errors: -ENOMEM. */
int kept_key_set(struct kept_key *kept, struct slice key);
void kept_key_clear(struct kept_key *kept);

/* The record that a slot led to is no longer alive, because of the record at `killer_position`.
 * `file`: of one whose value lies in a file, that file, or NULL: it is not known, since the record
 * cannot be read; the next start removes it. */
void store_record_dead(struct store *store, const struct index_entry *old,
                       const struct value_file_name *file, uint64_t killer_position);

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
void plan_drop(struct store *store, struct plan *plan);

/* Stamps, appends and applies. `decoded` is what the cache shows. */
enum store_status plan_commit(struct store *store, struct plan *plan, struct record *record,
                              struct slice decoded, uint64_t *ret_gate);

/* What a record in a value file shows: fills the file's name. `key` lives as long as the value. */
void store_show_file(uint64_t key_hash, struct slice key, struct slice descriptor,
                     struct store_value *ret_value);

/* Tells those who were BUSY that something came free. */
void store_made_room(struct store *store);

/* A log or memory failure after which nothing may be acknowledged. */
void store_fail(struct store *store, int error);

/* What a cached entry answers. */
enum store_status store_show_entry(const struct store *store, struct cache_entry *entry,
                                   struct store_value *ret_value);

/* store_lookup.c: a get whose key is not in the cache. */
enum store_status lookup_start(struct store *store, struct slice key, struct key_place place,
                               struct store_waiter *waiter, struct store_value *ret_value);

/* store_proof.c: which of the candidates that are not in memory belong to `key` and are superseded.
 */

/* A proof for a write that is about to be appended, or NULL when all are in use. */
struct proof *proof_get(struct store *store);
void proof_put(struct store *store, struct proof *proof);

/* Starts proving; the proof gives itself back. candidates and place are filled, the key too unless
 * !key_known. */
void proof_start(struct proof *proof);

/* Starts as many proofs as there is room for, for what recovery left. What a shutdown leaves of it
 * the next start finds again. */
void proof_work_off_suspects(struct store *store);

/* store_large.c: value files. The memory is of the region, large_memory_size bytes. Errors:
 * -ENOMEM.
 */
uint64_t large_memory_size(const struct store_options *options);
uint32_t large_value_min(const struct store_options *options);

/* Bytes of a value below that, as it may have been sent: a frame may be larger than its content. */
uint32_t large_stored_max(const struct store_options *options);
int large_open(struct store *store, uint8_t *memory);
void large_free(struct store *store);

/* The file goes once the record at `killer_position` is durable. */
void large_file_dead(struct store *store, const struct value_file_name *name,
                     uint64_t killer_position);
void large_flush(struct store *store);
bool large_is_busy(const struct store *store);

/* paths.c: where the shard's state lies, and what must be there before anything is read. */

/* Probes the device and notes what it found; the superblock is not written. `folder` exists. */
int store_probe(struct io *io, const struct log *log, const char *folder,
                struct superblock *superblock);

/* store_drain.c: moves everything that is alive in the log into segments, with no request under
 * way. Synchronous; `each_second`, with what is left, tells how it goes. Errors, not logged:
 * -ENOSPC; -EBADMSG: what is left cannot be read; -ETIMEDOUT; the device's. */
typedef void store_drain_progress(void *context, uint64_t records_left);
int store_drain(struct store *store, store_drain_progress *each_second, void *context);

/* store_close.c: store_shut, but the superblock, and with it the lock, is the caller's from then
 * on, also after an error. */
int store_shut_keeping(struct store *store, struct superblock_file *ret_superblock);

/* Fills state_path and log_directory. Errors: -ENAMETOOLONG. */
int store_name_paths(struct store *store);

/* Takes the directory's superblock over, or opens the shard's own. Errors are logged:
 * superblock_open's, -EINVAL, -EXDEV. */
int store_open_superblock(struct store *store);

/* The log's folder and those of its partitions, under names that survive whatever comes. Others may
 * make theirs at the same time. */
int store_make_folders(struct store *store);

/* load_segments.c: what lies in segments. `memory`: MANIFEST_MEMORY_SIZE bytes of the region,
 * `note`: how far the log knows the manifest to have come. Errors:
 * manifest_open's, checkpoint_load's, segment_scan's. */
int store_open_manifest(struct store *store, const struct wal_note *note, uint8_t *memory);
int store_recover_segments(struct store *store);

/* Everything that the manifest says, one edit a call; false behind the last. `context`: the store,
 * also one that is shut. */
bool store_show_state(void *context, uint64_t index, struct manifest_edit *ret_edit);

/* Once the log's last position is known: what segments have lost is in doubt up to there. */
int store_judge_losses(struct store *store, uint64_t last_position);

/* replay_log.c: what lies in the log. Errors: wal_recover's. */
int store_replay_log(struct store *store, const struct wal_options *options,
                     struct wal_state **ret_state);

/* A hash that has several slots. Errors: -ENOMEM. */
int store_add_suspect(struct store *store, struct key_place place, bool is_counted);

/* After the slot `entry` of a hash was found: when the hash has others, they are sorted out once
 * the store is open. Errors: -ENOMEM. */
int store_suspect(struct store *store, struct key_place place, const struct index_entry *entry);

/* count_alive.c: counts what is alive, finds where value files are not what the records name, and
 * removes all other files that nothing names. Errors: the device's, -ENOMEM. */
int store_survey(struct store *store, struct wal_state *state);

/* Once records can be read: removes the value files that nothing names and reports those that are
 * missing. Errors: the device's, the ring's, -ENOMEM. */
int store_match_files(struct store *store);

/* store_checkpoint.c */

struct checkpoint_options store_checkpoint_options(const struct store *store);
/* What the manifest says of the checkpoint that counts, or is to count now. */
struct manifest_edit store_checkpoint_edit(const struct store *store, uint64_t number);
void store_forget_removals(struct store *store);
void store_remove_checkpoint(struct store *store, uint64_t number, bool is_temporary);

/* Whether more than this many records were moved since the last one. */
bool store_wants_checkpoint(const struct store *store, uint64_t moved_min);

/* Begins one, with nothing else of its kind under way and the mover idle. Errors: -ENOMEM, ... */
int store_begin_checkpoint(struct store *store);

/* A piece of it; begins one when it is time. Returns whether there is more to do at once. */
bool store_step_checkpoint(struct store *store, uint64_t budget);

#endif
