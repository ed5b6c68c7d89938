/* What the contract tests share: operations that count their completions, a server with an accept
 * under way, a receiver that checks a stream, streams whose every byte is known. */
#ifndef TESTS_SUPPORT_SUPPORT_H
#define TESTS_SUPPORT_SUPPORT_H

#include "base/units.h"
#include "world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Runs passes until `condition` holds; fails the test after a minute of the world's time. */
#define RUN_UNTIL(world, condition)                                                                \
    do {                                                                                           \
        uint64_t start_ns_ = io_now_ns(world_io(world));                                           \
        while (!(condition))                                                                       \
            run_pass(world, start_ns_, #condition);                                                \
    } while (0)

void run_pass(struct world *world, uint64_t start_ns, const char *condition);

/* Runs `count` passes that do not wait long: for showing that nothing happens. */
void run_passes(struct world *world, uint32_t count);

/* Whether `call` fails an assertion: it runs in a forked child, so that the world goes on. */
bool is_refused(void (*call)(void *context), void *context);

/* ---- an operation that remembers its completions ---- */

struct probe {
    struct io_op op;
    uint32_t count;
    int32_t result;  /* the last one's */
    bool was_active; /* within the last one */
    uint64_t order;  /* of the last one among those that share `clock` */
    uint64_t *clock;
};

void probe_init(struct probe *probe);
void probe_done(struct io_op *op, int32_t result);

/* ---- streams: byte i of stream s ---- */

static inline uint8_t stream_byte(uint32_t stream, uint64_t index)
{
    uint64_t mixed = (index + 1) * 0x9E3779B97F4A7C15u ^ (uint64_t)stream * 0xBF58476D1CE4E5B9u;
    return (uint8_t)(mixed >> 32 ^ mixed >> 56);
}

void stream_fill(uint32_t stream, uint64_t from, uint8_t *data, size_t size);

/* Whether `data` are the bytes of the stream from `from` on. */
bool stream_matches(uint32_t stream, uint64_t from, const uint8_t *data, size_t size);

/* ---- a server ---- */

#define SERVER_SOCKETS_MAX 4096

struct contract_server {
    struct world *world;
    int listener;
    uint16_t port;
    struct io_op accept;
    int sockets[SERVER_SOCKETS_MAX]; /* in the order of acceptance */
    uint32_t socket_count;
    int32_t error; /* of the last failed accept */
    uint32_t error_count;
};

/* Listens on 127.0.0.1 and accepts. */
void contract_server_open(struct contract_server *server, struct world *world);

/* A listener on a port that nobody shares. Errors: io_listen's. */
int listen_alone(struct io *io, const char *host, uint16_t port, int backlog, int *ret_listener,
                 uint16_t *ret_port);

/* Accepts from server->listener, which the caller made. */
void contract_server_accept(struct contract_server *server);

/* A connection: returns its socket, and the peer at its other end. */
int server_connect(struct contract_server *server, int *ret_peer);

/* Both: a server, and its first connection. */
int contract_server_connected(struct contract_server *server, struct world *world, int *ret_peer);

/* Closes a socket and waits for it. */
void close_socket(struct world *world, int socket);

/* ---- a receiver: checks that what a socket receives is a stream ---- */

struct receiver {
    struct io_op op;
    uint32_t stream;
    uint64_t received;
    uint32_t count;
    bool is_wrong;
    bool has_ended;
    int32_t result; /* the last completion's */
};

/* Begins to receive. */
void receiver_start(struct receiver *receiver, struct world *world, int socket, uint32_t stream);

/* ---- peers ---- */

/* Sends [*sent, size) of a stream as far as it fits now; advances *sent. */
void peer_send_stream(struct world *world, int peer, uint32_t stream, uint64_t *sent,
                      uint64_t size);

/* Receives what is there, at most `limit` bytes, and checks it; advances *received. Returns false
 * at the end of the stream, true otherwise; fails the test when a byte is wrong or the connection
 * broke. */
bool peer_receive_stream(struct world *world, int peer, uint32_t stream, uint64_t *received,
                         uint64_t limit);

/* ---- files ---- */

/* Opens a file of the world's directory and waits. Returns its handle or -errno. */
int open_file(struct world *world, const char *name, uint32_t flags);
int close_file(struct world *world, int file);
int32_t read_file(struct world *world, int file, void *buffer, uint32_t size, uint64_t offset);
int32_t write_file(struct world *world, int file, const void *buffer, uint32_t size,
                   uint64_t offset, uint32_t flags);
int32_t sync_file(struct world *world, int file);

/* `size` bytes aligned to 4096, to be freed. */
uint8_t *aligned_bytes(size_t size);

#endif
