/* One client's socket: bytes in, answers out, and its end; in the protocol of its listener.
 *
 * A connection's life. connection.c asserts the transitions.
 *
 *   OPEN       requests are taken and answered
 *   FINISHING  no more are taken; what is owed is sent, then FIN             from OPEN
 *   LINGERING  FIN is sent; what still arrives is thrown away, for a while   from FINISHING
 *   CLOSING    nothing is sent any more; operations end, then it is freed    from all */
#ifndef MINIVAULT_NET_CONNECTION_H
#define MINIVAULT_NET_CONNECTION_H

#include "net/client/client.h"
#include "net/client/input.h"
#include "net/client/upload.h"

enum connection_state {
    CONNECTION_OPEN,
    CONNECTION_FINISHING,
    CONNECTION_LINGERING,
    CONNECTION_CLOSING
};

struct connection;

/* What a connection's protocol does: the seam between the two. */
struct protocol {
    size_t size;             /* of its part of a connection, which begins with the connection */
    bool runs_without_bytes; /* `take` is called whenever the connection goes on */

    /* The rest of its part, which is all zero only the first time. `shared`: the protocol's own, of
     * the shard. Both may be NULL. */
    void (*open)(struct connection *connection, void *shared);
    void (*close)(struct connection *connection);

    /* Takes requests off the front of the bytes until they are used up, partial, or the connection
     * is waiting or finishing. Returns the bytes used. */
    uint64_t (*take)(struct connection *connection, const uint8_t *data, uint64_t size);

    /* Bytes of an upload that came straight into its file. May be NULL. */
    void (*pass)(struct connection *connection, const uint8_t *data, uint64_t size);

    /* These bytes will be taken soon, before anything else, `is_next`: next: loads what they will
     * look at. Changes nothing. May be NULL. */
    void (*hint)(const struct connection *connection, const uint8_t *data, uint64_t size,
                 bool is_next);

    /* How many more bytes the bytes saved want before they are worth another look. NULL: all that
     * there are. */
    uint64_t (*missing)(const struct connection *connection, struct slice saved);

    /* `more` bytes came for which there is no memory, behind those saved, which go, too. Returns
     * false: the connection cannot go on, as where it is NULL. */
    bool (*overflow)(struct connection *connection, struct slice saved, uint64_t more);

    /* Whether a request has begun whose rest is still to come from the client. */
    bool (*is_partial)(const struct connection *connection, bool has_saved);

    /* Each tick, of an open connection. May be NULL. */
    void (*tick)(struct connection *connection, uint64_t now_ns);

    /* It did not come in time. */
    void (*time_out)(struct connection *connection);

    /* Its upload has ended, with this answer for its reserved place. */
    void (*end_upload)(struct connection *connection, struct output_block *block,
                       const struct shard_answer *answer);
};

/* All but `client` is connection.c's. */
struct connection {
    struct client client;
    const struct protocol *protocol;
    struct io_op receive; /* also straight into an upload's buffer */
    struct io_op control; /* shutdown, then close */
    struct input input;
    struct upload *upload; /* a large SET that is being taken, or NULL */
    uint8_t *direct;       /* where bytes of it are being received */
    int socket;
    enum connection_state state;
    bool stream_ended;       /* the client sent FIN, or the connection broke */
    bool blocked;            /* a whole request waits for room in the output or the store */
    bool receive_ending;     /* was cancelled, to be submitted in another way */
    bool expects_value;      /* its last request was a large SET: another one may come */
    bool closed;             /* the socket's close has completed */
    uint64_t send_begun_ns;  /* of the active send; 0: none */
    uint64_t requests;       /* taken so far */
    uint64_t requests_begun; /* as it was when the partial request began */
    uint64_t begun_ns;       /* when the partial request began; LINGERING: when FIN was sent */
    uint64_t arrived;        /* bytes of the partial request; LINGERING: bytes thrown away */
    struct list_node all_node;
    struct pool *pool; /* that it goes back to */
};

/* ---- clients.c drives it ---- */

/* A new client, its number `number`. Takes the socket. */
void connection_open(struct connection *connection, struct client_shared *shared,
                     const struct protocol *protocol, void *protocol_shared, int socket,
                     uint64_t number);

/* Takes as many requests as there are and may be taken, then arms what is to be armed. */
void connection_run(struct connection *connection);

/* Sends what may be sent, goes on to the next state when it is time. Returns whether it has ended:
 * the caller frees it. */
bool connection_advance(struct connection *connection);

/* Looks at its deadlines. */
void connection_tick(struct connection *connection, uint64_t now_ns);

/* The drain: finishes it when no whole request is waiting and no large value is on its way;
 * `is_late`: at once. */
void connection_drain(struct connection *connection, bool is_late);

/* What it has of memory; when it has ended, or the world and the store are gone. */
void connection_free(struct connection *connection);

/* ---- for protocols ---- */

/* No more requests; what is owed is sent. */
void connection_finish(struct connection *connection);

/* Whether its next request waits for something that is not the client. */
bool connection_is_waiting(const struct connection *connection);

/* Whether its next request may be taken. */
static inline bool connection_may_take(const struct connection *connection)
{
    return connection->state == CONNECTION_OPEN && !connection_is_waiting(connection);
}

/* Whether its present request waits for room: it is tried again. */
static inline void connection_block(struct connection *connection, bool is_blocked)
{
    connection->blocked = is_blocked;
}

static inline bool connection_is_blocked(const struct connection *connection)
{
    return connection->blocked;
}

/* A request was taken whole. */
static inline void connection_count_request(struct connection *connection)
{
    connection->requests++;
}

/* Whether nothing of the client's is under way. */
bool connection_is_idle(const struct connection *connection);

/* Begins to upload: `request` without done and context. The protocol's part of the connection is
 * the filter's context. Errors: upload_begin's. */
int connection_begin_upload(struct connection *connection, struct upload_request *request);

/* NULL: there is none. May be gone after each call of upload.h. */
static inline struct upload *connection_upload(const struct connection *connection)
{
    return connection->upload;
}

/* Refuses it, gives it up. */
void connection_refuse_upload(struct connection *connection, uint8_t status);
void connection_stop_upload(struct connection *connection);

#endif
