/* The loop: what one shard's thread runs, from its listeners to its store, on one world. A node has
 * one for each of its shards, each on its own thread.
 *
 *   accept -> connection (input, parse) -> request -> shard -> output -> send
 *
 * Everything runs on the thread of its `struct io`. */
#ifndef MINIVAULT_NODE_LOOP_H
#define MINIVAULT_NODE_LOOP_H

#include "io/io.h"
#include "net/listener.h"
#include "node/config.h"
#include "node/settings.h"

#include <stdint.h>

struct loop;
struct node;
struct steer;
struct steer_shard;

/* What a node has once and its shards share: slots for connections, the rate limit, the mail between
 * shards, and what each tells the others of itself. For `shard_count` shards; `config` and `log`
 * outlive it, and `steer`, which spreads connections (NULL: the kernel does). Opened before the
 * shards' threads begin, closed after they have ended. Errors: -ENOMEM. */
int node_open(const struct config *config, const struct log *log, uint32_t shard_count,
              const struct steer *steer, struct node **ret_node);

/* NULL: nothing. */
void node_close(struct node *node);

/* What a loop needs of its world, in a node of `shard_count`. */
void loop_io_options(const struct config *config, uint32_t shard_count,
                     struct io_options *ret_options);

/* Before the first shard's loop is created, in its world: locks the data directory, formats it,
 * turns it into one for as many shards as the node has. Synchronous. Errors:
 * store_directory_prepare's, -ENOMEM. */
int loop_prepare(struct io *io, struct node *node);

/* The way up of the shard `number`, step by step; `node` outlives the loop. Every failure has been
 * logged with what to do. After a failure: loop_close.
 *
 * Opens and recovers the store. Synchronous.
 * *ret_loop is set on failure too, unless it is NULL: it owns what the world may still use, so it
 * is closed after the world was. Errors: -ENOMEM, store_open's. */
int loop_create(struct io *io, struct node *node, uint32_t number, struct loop **ret_loop);

/* The ports are taken: by the first shard, whose binary port the others are given (0: any).
 * ret_descriptors, one a listener: for steering, the caller's to close, or -1, also after a
 * failure. Errors: io_listen's. */
int loop_listen(struct loop *loop, uint16_t port, int *ret_descriptors);

/* From now on clients are served: by loop_pass. `steer`: where it tells its load, or NULL. */
void loop_begin(struct loop *loop, struct steer_shard *steer);

/* Lets the directory go, when the loop was created and will not begin. */
void loop_shut(struct loop *loop);

/* One pass. Returns 0: go on; 1: drained, all is durable, the end; -errno: failed, the process must
 * end with an error. */
int loop_pass(struct loop *loop);

/* SIGHUP, on the loop's thread. */
void loop_apply(struct loop *loop, const struct settings *settings);

/* SIGTERM: no new connections, what has been received is answered, then loop_pass returns 1. */
void loop_drain(struct loop *loop);

/* Frees everything. In any state, when no more passes will run; the world must be closed before,
 * unless loop_pass returned 1. */
void loop_close(struct loop *loop);

/* How many keys it has. Until it begins, or on its thread. */
uint64_t loop_keys(const struct loop *loop);

uint16_t loop_port(const struct loop *loop);

/* How many connections it serves at once. */
uint64_t loop_slots(const struct loop *loop);

/* Its parts, for tests to look at. */
struct http_shared;
const struct clients *loop_clients(const struct loop *loop);
const struct shard *loop_shard(const struct loop *loop);
const struct http_shared *loop_http(const struct loop *loop);

#endif
