/* A shard: one request's way through the store, and in time through the cluster. Statuses of the
 * store become statuses of the protocol here.
 *
 * With one shard every key is local. Mailboxes to other shards and replication join here, behind
 * the same three calls. */
#ifndef MINIVAULT_SHARD_SHARD_H
#define MINIVAULT_SHARD_SHARD_H

#include "minivault/protocol.h"
#include "store/decode.h"
#include "store/store.h"

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
};

enum shard_outcome {
    SHARD_ANSWERED,
    SHARD_PENDING, /* the waiter's done comes later */
    SHARD_BUSY,    /* nothing was done: again after the store's room event */
    SHARD_DECODE, /* shard_set: the frame wants more than a slice: decode it first (shard_decode) */
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

/* The answer when the key is in memory; false, and nothing done, when it is not. */
bool shard_get_cached(struct shard *shard, struct slice key, struct store_place place,
                      struct shard_answer *ret_answer);

/* ANSWERED or BUSY. */
enum shard_outcome shard_delete(struct shard *shard, struct slice key,
                                struct shard_answer *ret_answer);

/* ANSWERED, BUSY or, with `zstd`, DECODE. */
enum shard_outcome shard_set(struct shard *shard, struct slice key, struct slice value, bool zstd,
                             struct shard_answer *ret_answer);

/* A compressed value that is stored after it was decoded in slices. ANSWERED or BUSY. */
enum shard_outcome shard_set_decoded(struct shard *shard, struct slice key, struct slice frame,
                                     struct slice decoded, struct shard_answer *ret_answer);

/* The status for a frame that does not decode. */
uint8_t shard_decode_status(int error);

#endif
