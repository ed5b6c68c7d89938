/* A shard: one request's way through the store, and in time through the cluster. Statuses of the
 * store become statuses of the protocol here.
 *
 * With one shard every key is local. Mailboxes to other shards and replication join here, behind
 * the same three calls. */
#ifndef MINIVAULT_SHARD_SHARD_H
#define MINIVAULT_SHARD_SHARD_H

#include "minivault/protocol.h"
#include "store/decode.h"
#include "store/store_large.h"

#include <stdbool.h>
#include <stdint.h>

struct shard {
    struct store *store;
    uint32_t value_size_max;
    uint64_t gets, sets, deletes; /* since start */
};

struct shard_answer {
    uint8_t status; /* enum minivault_status */
    const uint8_t *data;
    uint32_t size;
    struct cache_entry *entry; /* as in struct store_value */
    uint64_t gate;
    bool in_value_file; /* data is a descriptor: shard_download. Of a pending get: it may be */
    struct value_file_name file;
    struct slice key; /* when in_value_file: valid as long as data */
};

enum shard_outcome {
    SHARD_ANSWERED,
    SHARD_PENDING, /* the waiter's done comes later */
    SHARD_BUSY,    /* nothing was done: again after the store's room event */
    SHARD_LARGE,   /* shard_set: a value for a file: upload it (shard_upload) */
};

/* Embedded by the caller; in use until done. */
struct shard_waiter;
typedef void shard_waiter_done(struct shard_waiter *waiter, const struct shard_answer *answer);
struct shard_waiter {
    struct store_waiter store;
    shard_waiter_done *done;
};

/* ANSWERED, PENDING or BUSY. */
enum shard_outcome shard_get(struct shard *shard, struct slice key, struct shard_waiter *waiter,
                             struct shard_answer *ret_answer);

/* The answer when it is in memory (the key is cached, or known to be absent); false, and nothing
 * done, when it is not. */
bool shard_get_at_once(struct shard *shard, struct slice key, struct store_place place,
                       struct shard_answer *ret_answer);

/* ANSWERED or BUSY. */
enum shard_outcome shard_delete(struct shard *shard, struct slice key,
                                struct shard_answer *ret_answer);

/* ANSWERED, BUSY or LARGE. */
enum shard_outcome shard_set(struct shard *shard, struct slice key, struct slice value, bool zstd,
                             struct shard_answer *ret_answer);

/* Whether a value of this size on the wire is uploaded without being collected first. */
bool shard_is_large(const struct shard *shard, uint64_t size, bool zstd);

/* Begins an upload (store_upload_begin). Returns OK with *ret_upload, or the status of the refusal.
 */
uint8_t shard_upload(struct shard *shard, struct slice key, uint64_t size_hint,
                     const struct value_writer_events *events, struct store_upload **ret_upload);

/* ANSWERED or BUSY. The upload stays the caller's, to be closed. */
enum shard_outcome shard_upload_commit(struct shard *shard, struct store_upload *upload,
                                       struct slice key, struct shard_answer *ret_answer);

/* The status for an upload whose file met an error. */
uint8_t shard_upload_status(int error);

/* Begins to read the value file of an answer. Errors: store_download_open's. */
int shard_download(struct shard *shard, const struct shard_answer *answer,
                   const struct value_reader_events *events, struct value_reader **ret_reader);

/* The status for a frame that does not decode. */
uint8_t shard_decode_status(int error);

#endif
