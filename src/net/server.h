/* A server: one shard's whole, from its listener to its store, on one world.
 *
 *   accept -> connection (input, parse) -> request -> shard -> output -> send
 *
 * Everything runs on the thread of its `struct io`. */
#ifndef MINIVAULT_NET_SERVER_H
#define MINIVAULT_NET_SERVER_H

#include "base/log.h"
#include "io/io.h"
#include "net/config.h"

#include <stdint.h>

struct server;

/* What the server needs of its world. */
void server_io_options(const struct config *config, struct io_options *ret_options);

/* Opens the data directory, recovers, listens. Synchronous. `config` and `log` stay the caller's
 * and must outlive the server; config->secret is not used after this returns. Every failure has
 * been logged with what to do. *ret_server is set on failure too: it owns what the world may still
 * use, so it is closed after the world was. Errors: -ENOMEM (nothing was set), store_open's,
 * io_listen's. */
int server_open(struct io *io, const struct config *config, const struct log *log,
                struct server **ret_server);

/* One pass of the loop. Returns 0: go on; 1: drained, all is durable, the end; -errno: failed, the
 * process must end with an error. */
int server_pass(struct server *server);

/* SIGTERM: no new connections, what has been received is answered, then server_pass returns 1. */
void server_drain(struct server *server);

/* Frees everything. In any state, when no more passes will run; the world must be closed before,
 * unless server_pass returned 1. */
void server_close(struct server *server);

uint16_t server_port(const struct server *server);

#endif
