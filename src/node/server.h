/* A server: one shard's whole, from its listener to its store, on one world. A node has one for
 * each of its shards (net/node.h), each on its own thread.
 *
 *   accept -> connection (input, parse) -> request -> shard -> output -> send
 *
 * Everything runs on the thread of its `struct io`. */
#ifndef MINIVAULT_NET_SERVER_H
#define MINIVAULT_NET_SERVER_H

#include "base/log.h"
#include "io/io.h"
#include "node/config.h"
#include "node/node.h"

#include <stdint.h>

struct server;
struct steer_shard;

/* What a server needs of its world, in a node of `shard_count`. */
void server_io_options(const struct config *config, uint32_t shard_count,
                       struct io_options *ret_options);

/* Before the first shard's server is created, in its world: locks the data directory, formats it,
 * turns it into one for as many shards as the node has. Synchronous. Errors:
 * store_directory_prepare's, -ENOMEM. */
int server_prepare(struct io *io, struct node *node);

/* The way up of the shard `number`, step by step; `node` outlives the server. Every failure has
 * been logged with what to do. After a failure: server_close.
 *
 * Opens and recovers the store. Synchronous.
 * *ret_server is set on failure too, unless it is NULL: it owns what the world may still use, so it
 * is closed after the world was. Errors: -ENOMEM, store_open's. */
int server_create(struct io *io, struct node *node, uint32_t number, struct server **ret_server);

enum server_listener { SERVER_BINARY, SERVER_HTTP, SERVER_LISTENERS_MAX };

/* The ports are taken: by the first shard, whose binary port the others are given (0: any).
 * ret_descriptors, one a listener: for steering, the caller's to close, or -1, also after a
 * failure. Errors: io_listen's. */
int server_listen(struct server *server, uint16_t port, int *ret_descriptors);

/* From now on clients are served: by server_pass. `steer`: where it tells its load, or NULL. */
void server_begin(struct server *server, struct steer_shard *steer);

/* Lets the directory go, when the server was created and will not begin. */
void server_shut(struct server *server);

/* One pass of the loop. Returns 0: go on; 1: drained, all is durable, the end; -errno: failed, the
 * process must end with an error. */
int server_pass(struct server *server);

/* What may change while it runs. Connections that have authenticated stay so. */
struct reload {
    struct auth auth;
    uint64_t slowlog_ns;
};

/* SIGHUP, on the server's thread. */
void server_reload(struct server *server, const struct reload *reload);

/* SIGTERM: no new connections, what has been received is answered, then server_pass returns 1. */
void server_drain(struct server *server);

/* Frees everything. In any state, when no more passes will run; the world must be closed before,
 * unless server_pass returned 1. */
void server_close(struct server *server);

/* How many keys it has. Until it begins, or on its thread. */
uint64_t server_keys(const struct server *server);

uint16_t server_port(const struct server *server);

/* How many connections it has places for. */
uint64_t server_places(const struct server *server);

#endif
