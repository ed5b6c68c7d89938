/* What the files of a server share: server.c (passes, accepting, drain), connection.c and
 * connection_receive.c (one client), binary_stream.c and request.c (the binary protocol),
 * operation.c (what a request does with a key), upload.c and download.c (one large value), health.c
 * and publish.c (what the server tells of itself). */
#ifndef MINIVAULT_NET_SERVER_INTERNAL_H
#define MINIVAULT_NET_SERVER_INTERNAL_H

#include "net/client/auth.h"
#include "net/client/input.h"
#include "net/client/limits.h"
#include "net/watch/metrics.h"
#include "net/client/output.h"
#include "node/loop.h"
#include "net/steer/steer.h"
#include "net/steer/steer_load.h"
#include "net/watch/watch.h"
#include "proto/http.h"
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

struct connection;

/* What a connection's protocol does. */
struct protocol {
    bool runs_without_bytes; /* `take` is called whenever the connection goes on */

    /* Its own part of a connection, of which there are as many as places: returns whether there is
     * one. Both may be NULL. */
    bool (*open)(struct connection *connection);
    void (*close)(struct connection *connection);

    /* Takes requests off the front of the bytes until they are used up, partial, or the connection
     * is waiting or finishing. Returns the bytes used. */
    uint64_t (*take)(struct connection *connection, const uint8_t *data, uint64_t size);

    /* Bytes of an upload that came straight into its file. May be NULL. */
    void (*pass)(struct connection *connection, const uint8_t *data, uint64_t size);

    /* These bytes will be taken soon, `is_next`: next: loads what they will look at. Changes
     * nothing. May be NULL. */
    void (*hint)(const struct connection *connection, const uint8_t *data, uint64_t size,
                 bool is_next);

    /* How many more bytes what is in the input wants before it is worth another look. NULL: all
     * that there are. */
    uint64_t (*missing)(const struct connection *connection);

    /* `more` bytes came for which there is no memory. Returns false: the connection cannot go on,
     * as where it is NULL. */
    bool (*overflow)(struct connection *connection, uint64_t more);

    /* Whether a request has begun whose rest is still to come from the client. */
    bool (*is_partial)(const struct connection *connection);

    /* Each tick, of an open connection. May be NULL. */
    void (*tick)(struct connection *connection, uint64_t now_ns);

    /* It did not come in time. */
    void (*time_out)(struct connection *connection);

    /* Its upload has ended, with this answer for its reserved place. */
    void (*end_upload)(struct connection *connection, struct output_block *block,
                       const struct shard_answer *answer);
};

struct connection {
    struct loop *server;
    const struct protocol *protocol;
    struct io_op receive; /* also straight into an upload's buffer */
    struct io_op control; /* shutdown, then close */
    struct output output;
    struct input input;
    struct skip skip;
    struct http_client *http; /* of an HTTP connection */
    struct upload *upload;    /* a large SET that is being taken, or NULL */
    struct list downloads;    /* answers with large values, from their looking up to their end */
    uint32_t large_pending;   /* replies that wait for the disk and may turn into downloads */
    int socket;
    enum connection_state state;
    uint32_t pending_count; /* replies that wait for the disk, or another shard */
    uint32_t asked_count;   /* of them, those that wait for another shard */
    bool typed;             /* HELLO was said */
    bool authenticated;
    bool stream_ended;       /* the client sent FIN, or the connection broke */
    bool broken;             /* nothing can be sent any more */
    bool blocked;            /* a whole request waits for room in the output or the store */
    bool wants_room;         /* an upload or download waits for room in the store */
    bool set_waits;          /* for the store, or behind others that do */
    bool receive_ending;     /* was cancelled, to be submitted in another way */
    bool expects_value;      /* its last request was a large SET: another one may come */
    bool is_admitted;        /* the rate limit has let the blocked request pass */
    bool closed;             /* the socket's close has completed */
    uint64_t send_begun_ns;  /* of the active send; 0: none */
    uint64_t requests;       /* taken so far */
    uint64_t requests_begun; /* as it was when the partial request began */
    uint64_t begun_ns;       /* when the partial request began; LINGERING: when FIN was sent */
    uint64_t arrived;        /* bytes of the partial request; LINGERING: bytes thrown away */
    struct list_node all_node;
    struct list_node dirty_node;   /* has output to be looked at at the end of this pass */
    struct list_node waiting_node; /* its output waits for a gate */
    struct list_node held_node;    /* what could leave waits for what other shards were asked */
    uint64_t held_ns;              /* since when; 0: it does not */
    struct list_node parked_node;  /* to be tried again when something has room */
    struct list_node woken_node;   /* to go on at the end of this pass */
};

#define SPARE_SOCKETS 64u /* to refuse with */

struct listener {
    struct loop *server;
    const struct protocol *protocol;
    int handle;
    uint16_t port;
    bool is_open;
    struct io_op accept;
    struct io_op close;
};

struct loop {
    struct io *io;
    struct node *node;
    const struct config *config;
    const struct log *log;
    struct log part; /* of a node's log, when it has several shards */
    struct steer_load load;
    struct auth auth;
    struct shard shard;
    struct output_shared outputs;
    struct pool connections;
    uint64_t input_bytes; /* capacity of all inputs */
    uint64_t input_bytes_max;
    struct pool http_clients;
    struct http_budget http_budget;
    uint8_t *scratch; /* LIMITS_RECEIVE_SIZE bytes, for whoever is at work */
    struct listener listeners[LISTENERS_MAX];
    uint32_t listener_count;
    struct io_op tick;
    struct list all;
    struct list dirty;
    struct list waiting;
    struct list held; /* in the order of held_ns */
    struct list parked;
    struct list woken;
    uint32_t sets_waiting;  /* connections with set_waits: who comes later queues behind them */
    bool is_retrying;       /* it is the turn of the parked ones */
    bool streams_are_short; /* somebody waits long for a large value's turn, since the last tick */
    bool streams_were_short;
    bool has_room;     /* parked connections are to be tried again */
    bool has_advanced; /* something became durable in this pass */
    bool is_draining;
    bool has_stopped_accepting;
    bool is_alone; /* the others need nothing any more */
    int failed;
    uint64_t drain_began_ns;
    uint64_t connection_count;
    uint64_t connections_accepted, connections_refused, requests_refused;
    struct watch watch;
    struct steer_counters decisions; /* of steering, as they were read last */
    const char *decision_names[STEER_DECISION_COUNT];
};

/* Whether one more request may be served now: the place where the node's rate limit is asked. */
static inline bool server_may_serve(struct loop *server)
{
    struct rate *rate = server->node->rate;
    return rate == NULL || rate_take(rate, server->shard.number, io_now_ns(server->io));
}

/* How long the drain proper lasts, 0: it does not yet. */
uint64_t server_drain_ns(const struct loop *server);

/* ---- listener.c ---- */

/* Accepts wherever that has ended, and may go on. */
void listeners_arm(struct loop *server);

/* The drain: stops accepting, then listening, step by step with each call. */
void listeners_stop(struct loop *server);

/* Whether any still listens, or is being closed. */
bool listeners_are_open(const struct loop *server);

/* ---- connection.c ---- */

/* A new client. Takes the socket; closes it when there is no place. */
void connection_open(struct loop *server, const struct protocol *protocol, int socket);

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

/* Parks it when it is blocked: it is tried again when something has room. */
void connection_park(struct connection *connection);

/* Whether its next request waits for something that is not the client. */
bool connection_is_waiting(const struct connection *connection);

/* The connection's memory when the world is gone. */
void connection_free(struct connection *connection);

/* ---- connection_receive.c ---- */

/* Receives when there is somebody to take it: not while a request waits, but also after the last
 * request, so that what a client still sends is taken off the wire and cannot turn our FIN into a
 * reset. */
void connection_arm_receive(struct connection *connection);

/* Takes what was kept. */
void connection_take_input(struct connection *connection);

/* Looks whether a request has begun, or ended, that must become whole in time. */
void connection_begin_clock(struct connection *connection);

/* ---- binary_stream.c ---- */

const struct protocol *protocol_binary(void);

/* ---- http_stream.c ---- */

const struct protocol *protocol_http(void);

/* Bytes of a struct http_client, for the pool of them. */
size_t http_client_size(void);
/* ---- operation.c ---- */

enum taken {
    TAKEN,    /* answered, or its answer is on its way */
    BEGUN,    /* its header was taken; its value is taken by an upload */
    BLOCKED,  /* nothing was done: try again later */
    IS_LARGE, /* operation_set: nothing was done; it is to be uploaded */
};

struct operation_set {
    struct slice key;
    struct slice value;
    bool zstd; /* the value is one frame */
};

/* Queues a reply that is known. TAKEN. */
enum taken operation_answer(struct connection *connection, struct reply_form form,
                            const struct shard_answer *answer);

/* TAKEN or BLOCKED, of a set also IS_LARGE. There is room in the output. Key and value are not
 * needed after the call. */
enum taken operation_get(struct connection *connection, struct reply_form form, struct slice key,
                         struct shard_place place);
enum taken operation_set(struct connection *connection, struct reply_form form,
                         const struct operation_set *set, struct shard_place place);
enum taken operation_delete(struct connection *connection, struct reply_form form, struct slice key,
                            struct shard_place place);

/* ---- upload.c: connection->upload ---- */

/* What is stored of `size` bytes on the wire: at most as many, to `target`. Returns OK, or the
 * status to refuse the value with. */
typedef uint8_t upload_filter(struct connection *connection, const uint8_t *data, uint32_t size,
                              uint8_t *target, uint32_t *ret_size);

struct upload_request {
    struct slice key;
    uint64_t size;         /* bytes on the wire that are known to come */
    bool is_open;          /* until upload_end; more may follow (upload_expect), unless */
    bool is_counted;       /* `size` is all of them */
    bool is_frame;         /* they are one zstd frame */
    bool is_prompt;        /* a refusal is answered at once instead of after the value */
    struct slice begin;    /* of the value: what came already; stays where it is until the end */
    upload_filter *filter; /* of what still comes, or NULL */
    struct reply_form form;
};

/* Takes the header of a SET; the bytes of its value, all of them, follow through upload_take or
 * upload_filled. Errors, nothing was done: -EAGAIN (no room now), -ENOMEM. */
int upload_begin(struct connection *connection, const struct upload_request *request);

/* Whether it has use for bytes now. */
bool upload_takes(const struct connection *connection);

/* Takes bytes; returns how many: none when it has to wait. May end the upload. */
uint64_t upload_take(struct connection *connection, const uint8_t *data, uint64_t size);

/* Whether its bytes are to be received straight into the file's memory, and where: NULL: not now.
 * upload_filled follows, and may end the upload; or, when the receive ends without a byte,
 * upload_emptied. */
bool upload_is_direct(const struct connection *connection);
uint8_t *upload_buffer(struct connection *connection, uint32_t *ret_size);
void upload_filled(struct connection *connection, uint32_t size);
void upload_emptied(struct connection *connection);

/* An open one: so many more bytes are known to come; all have come; it is not wanted after all
 * (`is_prompt`: the end of the upload comes from the loop; unless all bytes come first). */
void upload_expect(struct connection *connection, uint64_t size);
void upload_end(struct connection *connection);
void upload_refuse(struct connection *connection, uint8_t status);

/* The stream has ended: whether its bytes will never be whole. */
bool upload_is_cut_off(const struct connection *connection);

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

#endif
