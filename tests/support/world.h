/* What the contract tests need around io.h, in both worlds: a world with an empty directory, and
 * somebody at the other end of a connection.
 *
 * world_uring.c is the real one (POSIX sockets to 127.0.0.1, a directory under TMPDIR), world_sim.c
 * the simulated one (io_sim's peers and disk). The Makefile links every x_both.c into both programs,
 * an x_uring.c only into the real world's, an x_sim.c only into the simulated one's.
 *
 * No function here runs the world under test: nothing that a peer does is seen before the next
 * io_run. */
#ifndef TESTS_SUPPORT_WORLD_H
#define TESTS_SUPPORT_WORLD_H

#include "io/io.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world;

/* Opens a world with an empty directory of its own; fails the test when it cannot. `options` may be
 * NULL: WORLD_OPTIONS. */
struct world *world_open(const struct io_options *options);

#define WORLD_OPTIONS                                                                              \
    {                                                                                              \
        .sockets_max = 256, .files_max = 32, .receive_buffer_size = 4096,                          \
        .receive_buffer_count = 64, .region_size = 1 << 20, .busy_poll_ns = 0,                     \
        .receive_single = false                                                                    \
    }

/* Closes the world (io_close, also with operations under way), its peers, and removes the
 * directory. */
void world_close(struct world *world);

/* The world under test. */
struct io *world_io(struct world *world);

/* The path of `name` in the world's directory ("" or ".": the directory itself). Stays valid until
 * world_close; the same name gives the same pointer. At most 256 names. */
const char *world_path(struct world *world, const char *name);

/* ---- peers: clients of the world's listeners; a handle is >= 0, and is not reused ---- */

#define WORLD_PEERS_MAX 4096

/* Begins to connect to a listener of the world (io_listen with host "127.0.0.1" or NULL). The
 * server sees it in its accept after some io_run. Returns the peer; -ECONNREFUSED where nobody
 * listens (a world may also tell that later, by the peer's first send or receive). */
int world_peer_connect(struct world *world, uint16_t port);

/* Sends as much as fits now: returns how many bytes were taken, at least one.
 * Errors: -EAGAIN (nothing fits before the server reads), -EPIPE, -ECONNRESET. */
int64_t world_peer_send(struct world *world, int peer, const void *data, size_t size);

/* Takes up to `size` bytes that have arrived: returns how many; 0 at the end of the stream.
 * Errors: -EAGAIN (nothing yet), -ECONNRESET. */
int64_t world_peer_receive(struct world *world, int peer, void *buffer, size_t size);

/* Sends FIN; receiving goes on. */
void world_peer_shutdown(struct world *world, int peer);

/* Closes: orderly (FIN), or with a reset at once. No call with this handle may follow. */
void world_peer_close(struct world *world, int peer);
void world_peer_reset(struct world *world, int peer);

#endif
