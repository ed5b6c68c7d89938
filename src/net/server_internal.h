/* What the files of a server share: server.c (passes, accepting, drain), connection.c (one client),
 * request.c (one request), health.c (what the server tells of itself). */
#ifndef MINIVAULT_NET_SERVER_INTERNAL_H
#define MINIVAULT_NET_SERVER_INTERNAL_H

#include "net/auth.h"
#include "net/input.h"
#include "net/output.h"
#include "net/server.h"
#include "proto/binary.h"
#include "shard/shard.h"

/* A connection's life. connection_set_state asserts the transitions.
 *
 *   OPEN       requests are taken and answered
 *   FINISHING  no more are taken; what is owed is sent, then FIN             from OPEN
 *   LINGERING  FIN is sent; what still arrives is thrown away, for a while   from FINISHING
 *   CLOSING    nothing is sent any more; operations end, then it is freed    from all */
enum connection_state {
    CONNECTION_OPEN,
    CONNECTION_FINISHING,
    CONNECTION_LINGERING,
    CONNECTION_CLOSING
};

/* A compressed SET whose value is decoded in slices; the connection waits for it. */
struct slow_set {
    struct decode_job job;
    struct connection *connection;
    struct output_block *block; /* its answer's place */
    struct slice key;           /* in bytes */
    struct slice frame;         /* in bytes */
    uint8_t *decoded;           /* once it is done */
    size_t decoded_size;
    bool is_decoded;
    uint8_t bytes[]; /* key, frame */
};

/* Bytes of a refused request that are thrown away as they come; then it is answered. */
struct skip {
    uint64_t left;
    uint8_t status;
    bool close; /* finish after the answer */
};

struct connection {
    struct server *server;
    struct io_op receive;
    struct io_op control; /* shutdown, then close */
    struct output output;
    struct input input;
    struct skip skip;
    struct slow_set *slow_set;
    int socket;
    enum connection_state state;
    uint32_t pending_count; /* replies that wait for the disk */
    bool typed;             /* HELLO was said */
    bool authenticated;
    bool stream_ended; /* the client sent FIN, or the connection broke */
    bool broken;       /* nothing can be sent any more */
    bool blocked; /* a whole request waits: for room in the output or the store, or for slow_set */
    bool closed;  /* the socket's close has completed */
    uint64_t send_begun_ns;  /* of the active send; 0: none */
    uint64_t requests;       /* taken so far */
    uint64_t requests_begun; /* as it was when the partial request began */
    uint64_t begun_ns;       /* when the partial request began; LINGERING: when FIN was sent */
    uint64_t arrived;        /* bytes of the partial request; LINGERING: bytes thrown away */
    struct list_node all_node;
    struct list_node dirty_node;   /* has output to be looked at at the end of this pass */
    struct list_node waiting_node; /* its output waits for a gate */
    struct list_node parked_node;  /* blocked, to be tried again when something has room */
};

struct server {
    struct io *io;
    const struct config *config;
    const struct log *log;
    struct auth auth;
    struct shard shard;
    struct output_shared outputs;
    struct pool connections;
    uint64_t input_bytes; /* capacity of all inputs and slow sets */
    int listener;
    uint16_t port;
    struct io_op accept;
    struct io_op close_listener;
    struct io_op tick;
    struct list all;
    struct list dirty;
    struct list waiting;
    struct list parked;
    bool has_room;     /* parked connections are to be tried again */
    bool has_advanced; /* something became durable in this pass */
    bool is_draining;
    bool is_listening;
    int failed;
    uint64_t drain_began_ns;
    uint64_t started_ns;
    uint64_t connection_count;
    uint64_t connections_accepted, connections_refused, requests_refused;
};

/* ---- connection.c ---- */

/* A new client. Takes the socket; closes it when there is no place. */
void connection_open(struct server *server, int socket);

/* Takes as many requests as there are and may be taken, then arms what is to be armed. */
void connection_run(struct connection *connection);

/* Sends what may be sent, goes on to the next state when it is time. May free the connection. */
void connection_advance(struct connection *connection);

/* No more requests; what is owed is sent. */
void connection_finish(struct connection *connection);

/* At once. */
void connection_abort(struct connection *connection);

/* Looks at its deadlines. */
void connection_tick(struct connection *connection, uint64_t now_ns);

/* Has it looked at at the end of this pass. */
void connection_touch(struct connection *connection);

/* The connection's memory when the world is gone. */
void connection_free(struct connection *connection);

/* ---- request.c ---- */

/* Takes requests off the front of the bytes until they are used up, partial, or the connection is
 * blocked or finishing. Returns the bytes used. */
uint64_t request_take_all(struct connection *connection, const uint8_t *data, uint64_t size);

/* These bytes will be taken soon, `is_next`: next: loads what they will look at. Changes nothing.
 */
void request_hint(const struct connection *connection, const uint8_t *data, uint64_t size,
                  bool is_next);

/* Goes on with a slow set that was decoded and then found no room. Returns whether the connection
 * may go on. */
bool request_retry_slow_set(struct connection *connection);

void request_free_slow_set(struct connection *connection);

/* ---- health.c: JSON texts. Return the length; the buffer takes them whole ---- */

#define HEALTH_TEXT_MAX 2048u
uint32_t health_text(struct server *server, char *buffer);
uint32_t hello_text(const struct server *server, char *buffer);

#endif
