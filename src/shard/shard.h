/* A shard: one request's way through the store, and in time through the cluster. Statuses of the
 * store become statuses of the protocol here.
 *
 * Each key belongs to one shard, by its partition. Requests for keys of its own a shard answers
 * from its store: shard_get, shard_set, shard_delete. Others it asks the owner for, by mail
 * (shard/post.h): shard_ask_get and so on, whose answers come to a waiter.
 *
 *     shard_locate -> shard_owns ? shard_get ...  : shard_ask_get ... -> waiter->done
 *
 * What crosses: a key and a value are copied into memory that the waiter lends (what does not fit
 * into it into memory of their own), where the owner reads them; a value that is answered is
 * written there by the owner, or into memory that comes with the answer. The owner answers a
 * request when what it shows is durable, so such answers have no gate. Requests of one shard for
 * one key are executed in the order in which they were asked. */
#ifndef MINIVAULT_SHARD_SHARD_H
#define MINIVAULT_SHARD_SHARD_H

#include "minivault/protocol.h"
#include "base/list.h"
#include "base/pool.h"
#include "shard/post.h"
#include "store/record/decode.h"
#include "store/store_large.h"

#include <stdbool.h>
#include <stdint.h>

struct shard_events {
    void *context;
    void (*room)(void *context); /* what was BUSY may be tried again */
};

/* Memory in answers to one other shard that it has not taken yet, or not long ago. */
struct shard_carried {
    uint64_t before, since; /* bytes, before and since so many messages were posted to it */
    uint32_t posted;
};

/* What others asked and was not answered yet: shard_serve.c's alone.
 *
 * Invariants: (1) waiting_count is the number of writes in `waiting`; (2) the key bit of every
 * request in `waiting` is set in waiting_keys; an empty list has no bits. */
struct shard_inbox {
    struct shard_carried *carried; /* by shard */
    struct pool servings;
    struct list arrived;
    struct list gated;      /* executed, not durable yet */
    struct list waiting;    /* for room in the store, in their order */
    uint64_t waiting_keys;  /* a set of them, by 6 bits of their hashes */
    uint32_t waiting_count; /* of them writes */
};

/* Invariants: (3) gets_asked counts the waiters that are get's; (4) copy_bytes is the sum of the
 * copies of all waiters that are in use, at most the shard's part of them unless there is one. */
struct shard {
    struct store *store;
    uint32_t number;
    uint32_t count;    /* of the node's shards */
    uint32_t parts;    /* it has one of the node's memory for what is under way: at least count */
    struct post *post; /* to the others; NULL: there are none */
    uint32_t value_size_max;
    uint64_t gets, sets, deletes; /* since start; each where its key belongs */
    uint64_t asked;               /* of other shards, since start */
    uint32_t gets_asked;          /* and not answered yet */
    uint64_t answer_mean;         /* bytes of memory that an answer to a get brings, lately */
    uint64_t answers_max;         /* that all of them may bring */
    struct shard_events events;
    bool is_starved;      /* somebody was told BUSY by shard_ask_... */
    struct list releases; /* of files, that are still to be posted */
    uint64_t copy_bytes;  /* of what was asked and did not fit into the waiters' lent memory */
    struct shard_inbox inbox;
};

struct shard_answer {
    uint8_t status; /* enum minivault_status */
    const uint8_t *data;
    uint32_t size;
    bool is_in_lent;           /* data lies in the waiter's lent memory */
    struct cache_entry *entry; /* as in struct store_value */
    uint64_t gate;
    int error;          /* of MINIVAULT_ERROR: why the value cannot be read now, -errno; or 0 */
    bool in_value_file; /* data is a descriptor: shard_download. Of a pending get: it may be */
    struct value_file_name file;
    struct slice key; /* when in_value_file: valid as long as data */
    bool is_lent;     /* another shard keeps the file until shard_release_file */
    void *memory; /* data lies in it, malloc'ed, and it is the receiver's now; NULL: it does not */
};

enum shard_outcome {
    SHARD_ANSWERED,
    SHARD_PENDING, /* the waiter's done comes later */
    SHARD_BUSY,    /* nothing was done: again after the room event of store or shard */
    SHARD_LARGE,   /* shard_set: a value for a file: upload it (shard_upload) */
};

/* Embedded by the caller, all zero bytes before its first use; in use until done. `lent` is for
 * requests to other shards: memory that is lent to the owner until then, at least SHARD_LENT_MIN
 * bytes. The answer's data may lie in it. */
#define SHARD_LENT_MIN 64u
struct shard_waiter;
typedef void shard_waiter_done(struct shard_waiter *waiter, const struct shard_answer *answer);
struct shard_waiter {
    union {
        struct store_waiter store;
        struct post_request post;
    };
    shard_waiter_done *done;
    uint8_t *lent;
    uint32_t lent_size;
    /* The rest is the shard's. */
    uint32_t copy_size;
    uint8_t *copy; /* what was asked, when it did not fit into `lent`: key, then value */
    struct shard *shard;
    uint32_t key_size;
    bool is_get;                 /* invariant 3 */
    struct store_upload *upload; /* shard_ask_commit's */
};

/* Memory of one shard's for what is on its way to others and from them. */
uint64_t shard_memory_max(uint32_t shard_count, uint32_t parts);

/* Joins the node as its shard `shard->number` of `shard->count`, on this thread, whose world is
 * `io`; the store is open. `office`: NULL: it is alone. Errors: -ENOMEM. */
int shard_open(struct shard *shard, struct io *io, struct post_office *office);

/* After the threads have ended. */
void shard_close(struct shard *shard);

/* Once a pass, after the store's completions: executes what others asked, and answers what is
 * durable. Returns whether anything came. */
bool shard_serve(struct shard *shard);

/* The store has room again: tries what waits for it. */
void shard_retry(struct shard *shard);

/* Whether a write that another shard asked for waits for the store: then others queue, too. */
static inline bool shard_has_waiting_writes(const struct shard *shard)
{
    return shard->inbox.waiting_count > 0;
}

/* Where a key belongs; begins to load what a call for it will look at first, when it is here. */
void shard_locate(const struct shard *shard, struct slice key, bool is_write,
                  struct key_place *ret_place);

static inline bool shard_owns(const struct shard *shard, struct key_place place)
{
    return place.owner == shard->number;
}

/* ---- keys of other shards. Key and value are not needed after the call. PENDING or BUSY ---- */

/* The answer's data is in waiter->lent, in answer->memory, or nowhere (size 0). */
enum shard_outcome shard_ask_get(struct shard *shard, struct key_place place, struct slice key,
                                 struct shard_waiter *waiter);

/* Also LARGE. */
enum shard_outcome shard_ask_set(struct shard *shard, struct key_place place, struct slice key,
                                 struct slice value, bool zstd, struct shard_waiter *waiter);

enum shard_outcome shard_ask_delete(struct shard *shard, struct key_place place, struct slice key,
                                    struct shard_waiter *waiter);

/* For a value that goes into a file: asks for its version, in answer->file. The file is written by
 * this shard (shard_upload with that version). */
enum shard_outcome shard_ask_version(struct shard *shard, struct key_place place, struct slice key,
                                     struct shard_waiter *waiter);

/* The file is finished. The upload is the caller's to close after the answer; until then it is
 * lent. */
enum shard_outcome shard_ask_commit(struct shard *shard, struct key_place place, struct slice key,
                                    struct store_upload *upload, struct shard_waiter *waiter);

/* The file of an answer that is_lent is open, or not wanted. */
void shard_release_file(struct shard *shard, const struct value_file_name *file);

/* ---- keys of this shard ---- */

/* ANSWERED, PENDING or BUSY. */
enum shard_outcome shard_get(struct shard *shard, struct slice key, struct shard_waiter *waiter,
                             struct shard_answer *ret_answer);

/* The answer when it is in memory (the key is cached, or known to be absent); false, and nothing
 * done, when it is not. */
bool shard_get_at_once(struct shard *shard, struct slice key, struct key_place place,
                       struct shard_answer *ret_answer);

/* ANSWERED or BUSY. */
enum shard_outcome shard_delete(struct shard *shard, struct slice key,
                                struct shard_answer *ret_answer);

/* ANSWERED, BUSY or LARGE. */
enum shard_outcome shard_set(struct shard *shard, struct slice key, struct slice value, bool zstd,
                             struct shard_answer *ret_answer);

/* Whether a value of this size on the wire is uploaded without being collected first. */
bool shard_is_large(const struct shard *shard, uint64_t size, bool zstd);

/* Begins an upload (store_upload_begin), also for a key of another shard: then with its version.
 * Returns OK with *ret_upload, or the status of the refusal. */
uint8_t shard_upload(struct shard *shard, struct slice key, uint64_t size_hint,
                     const struct version *version, const struct value_writer_events *events,
                     struct store_upload **ret_upload);

/* ANSWERED or BUSY. The upload stays the caller's, to be closed. */
enum shard_outcome shard_upload_commit(struct shard *shard, struct store_upload *upload,
                                       struct slice key, struct shard_answer *ret_answer);

/* The status for an upload whose file met an error, which the log tells. */
uint8_t shard_upload_failed(struct shard *shard, int error);

/* Begins to read the value file of an answer. Errors: store_download_open's. */
int shard_download(struct shard *shard, const struct shard_answer *answer,
                   const struct value_reader_events *events, struct value_reader **ret_reader);

/* The status for a frame that does not decode. */
uint8_t shard_decode_status(int error);

#endif
