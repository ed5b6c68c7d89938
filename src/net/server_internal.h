/* What the files of a server share: server.c (passes, accepting, drain), connection.c (one client),
 * request.c (one request), upload.c and download.c (one large value), health.c (what the server
 * tells of itself). */
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

/* Bytes of a refused request that are thrown away as they come; then it is answered. */
struct skip {
    uint64_t left;
    uint8_t status;
    bool close; /* finish after the answer */
};

struct connection {
    struct server *server;
    struct io_op receive; /* also straight into an upload's buffer */
    struct io_op control; /* shutdown, then close */
    struct output output;
    struct input input;
    struct skip skip;
    struct upload *upload;  /* a large SET that is being taken, or NULL */
    struct list downloads;  /* answers with large values, from their looking up to their end */
    uint32_t large_pending; /* replies that wait for the disk and may turn into downloads */
    int socket;
    enum connection_state state;
    uint32_t pending_count; /* replies that wait for the disk */
    bool typed;             /* HELLO was said */
    bool authenticated;
    bool stream_ended;       /* the client sent FIN, or the connection broke */
    bool broken;             /* nothing can be sent any more */
    bool blocked;            /* a whole request waits for room in the output or the store */
    bool wants_room;         /* an upload or download waits for room in the store */
    bool set_waits;          /* for the store, or behind others that do */
    bool receive_ending;     /* was cancelled, to be submitted in another way */
    bool expects_value;      /* its last request was a large SET: another one may come */
    bool closed;             /* the socket's close has completed */
    uint64_t send_begun_ns;  /* of the active send; 0: none */
    uint64_t requests;       /* taken so far */
    uint64_t requests_begun; /* as it was when the partial request began */
    uint64_t begun_ns;       /* when the partial request began; LINGERING: when FIN was sent */
    uint64_t arrived;        /* bytes of the partial request; LINGERING: bytes thrown away */
    struct list_node all_node;
    struct list_node dirty_node;   /* has output to be looked at at the end of this pass */
    struct list_node waiting_node; /* its output waits for a gate */
    struct list_node parked_node;  /* to be tried again when something has room */
    struct list_node woken_node;   /* to go on at the end of this pass */
};

struct server {
    struct io *io;
    const struct config *config;
    const struct log *log;
    struct auth auth;
    struct shard shard;
    struct output_shared outputs;
    struct pool connections;
    uint64_t input_bytes; /* capacity of all inputs */
    int listener;
    uint16_t port;
    struct io_op accept;
    struct io_op close_listener;
    struct io_op tick;
    struct list all;
    struct list dirty;
    struct list waiting;
    struct list parked;
    struct list woken;
    uint32_t sets_waiting;  /* connections with set_waits: who comes later queues behind them */
    bool is_retrying;       /* it is the turn of the parked ones */
    bool streams_are_short; /* somebody waits long for a large value's turn, since the last tick */
    bool streams_were_short;
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

/* Whether a SET of it waits for the store, or for its turn. */
void connection_set_waits(struct connection *connection, bool waits);

/* Has it looked at at the end of this pass. */
void connection_touch(struct connection *connection);

/* Has it run at the end of this pass: something that it waits for has come. */
void connection_wake(struct connection *connection);

/* Whether its next request waits for something that is not the client. */
bool connection_is_waiting(const struct connection *connection);

/* The connection's memory when the world is gone. */
void connection_free(struct connection *connection);

/* ---- request.c ---- */

/* The answer to a get that was pending: block->waiter's done. */
void request_get_done(struct shard_waiter *waiter, const struct shard_answer *shard_answer);

/* Takes requests off the front of the bytes until they are used up, partial, or the connection is
 * blocked or finishing. Returns the bytes used. */
uint64_t request_take_all(struct connection *connection, const uint8_t *data, uint64_t size);

/* These bytes will be taken soon, `is_next`: next: loads what they will look at. Changes nothing.
 */
void request_hint(const struct connection *connection, const uint8_t *data, uint64_t size,
                  bool is_next);

/* ---- upload.c: connection->upload ---- */

/* Takes the header of a SET; the bytes of its value, all of them, follow through upload_take or
 * upload_filled. Returns false when there is no room for it: nothing was done. */
bool upload_begin(struct connection *connection, const struct binary_request *request);

/* Whether it has use for bytes now. */
bool upload_takes(const struct connection *connection);

/* Takes bytes; returns how many: none when it has to wait. May end the upload. */
uint64_t upload_take(struct connection *connection, const uint8_t *data, uint64_t size);

/* Whether its bytes are to be received straight into the file's memory, and where: NULL: not now.
 * upload_filled follows, and may end the upload. */
bool upload_is_direct(const struct connection *connection);
uint8_t *upload_buffer(struct connection *connection, uint32_t *ret_size);
void upload_filled(struct connection *connection, uint32_t size);

/* Goes on with what it has. May end the upload. */
void upload_go_on(struct connection *connection);

/* Bytes that are still to come; 0 also without an upload. */
uint64_t upload_left(const struct connection *connection);

/* Gives it up: nothing of it stays, nothing is answered. No receive into its memory is active. */
void upload_stop(struct connection *connection);

/* Its memory, when the world and the store are gone. */
void upload_free(struct connection *connection);

/* Whether it waits long for its turn; whether its client has sent nothing for this long. */
bool upload_is_starved(const struct connection *connection, uint64_t at_ns);
bool upload_is_stalled(const struct connection *connection, uint64_t at_ns, uint64_t allowed_ns);

/* ---- download.c: connection->downloads ---- */

/* Fills a reserved place: at once, or with a download when the value lies in a value file. */
void download_answer(struct connection *connection, struct output_block *block,
                     const struct shard_answer *answer);

/* Goes on with all of them. */
void download_go_on(struct connection *connection);

/* Gives them up. No send is active. */
void download_stop_all(struct connection *connection);

/* Their memory, when the world and the store are gone. */
void download_free_all(struct connection *connection);

bool download_is_starved(const struct connection *connection, uint64_t at_ns);

/* ---- health.c: JSON texts. Return the length; the buffer takes them whole ---- */

#define HEALTH_TEXT_MAX 2048u
uint32_t health_text(struct server *server, char *buffer);
uint32_t hello_text(const struct server *server, char *buffer);

#endif
