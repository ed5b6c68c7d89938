/* A client as its requests see it: where replies go, what of them is pending, when it is looked at
 * again. What happens on its socket is connection.h's; a connection embeds its client.
 *
 * A client asks to be looked at by joining a queue of its shard's; clients.c takes it out again, in
 * this order in each pass:
 *
 *     woken    something that it waits for has come: it runs
 *     parked   it waits for room in the store or the output: it runs when there is some
 *     waiting  its first reply waits for its gate
 *     held     what could leave waits for what other shards were asked
 *     dirty    it has output, or a state, to be looked at; the four others lead to this
 *
 * Invariants:
 *   1  asked_count + large_pending <= pending_count
 *   2  shared->sets_waiting is the count of clients with set_waits
 *   3  held_ns != 0 if and only if the client is held, or has just left the queue by its time */
#ifndef MINIVAULT_NET_CLIENT_H
#define MINIVAULT_NET_CLIENT_H

#include "base/list.h"
#include "net/client/auth.h"
#include "net/client/output.h"
#include "net/watch/watch.h"
#include "shard/rate.h"
#include "shard/shard.h"

/* What all clients of a shard share. Clients change the counters and queues; the rest is set by
 * clients.c, but for the first eight, which are given to it. */
struct client_shared {
    struct io *io;
    const struct log *log;
    struct shard *shard;
    struct metrics *metrics;
    struct watch *watch;
    struct rate *rate; /* NULL: no limit */
    enum auth_mode auth_mode;
    uint32_t value_size_max;
    struct auth auth;
    bool is_draining;
    struct output_shared outputs;
    uint64_t input_bytes; /* capacity of all inputs above the floor */
    uint64_t input_bytes_max;
    uint64_t requests_refused;
    struct log_limit ends_told[METRICS_ERROR_COUNT]; /* of connections that we had to end */
    struct log_limit cuts_told;                      /* of answers that broke off */
    struct list woken, parked, waiting, held, dirty;
    uint32_t sets_waiting;  /* invariant 2: whoever comes later queues behind them */
    bool is_retrying;       /* it is the turn of the parked ones */
    bool streams_are_short; /* somebody waits long for a large value's turn, since the last tick */
    bool streams_were_short;
};

struct client {
    struct client_shared *shared;
    struct output output;
    struct list downloads;  /* download.c's: answers with large values */
    uint32_t pending_count; /* replies that wait for the disk, or another shard */
    uint32_t asked_count;   /* of them, those that wait for another shard */
    uint32_t large_pending; /* of them, those that may turn into downloads */
    bool set_waits;         /* for the store, or behind others that do */
    bool is_admitted;       /* the rate limit has let the request pass that is tried again */
    bool is_broken;         /* nothing can be sent any more */
    bool is_closing;        /* nothing is begun any more */
    uint64_t waited_ns;     /* of its present request, for us */
    uint64_t held_ns;       /* since when it is held; 0: it is not */
    struct list_node woken_node, parked_node, waiting_node, held_node, dirty_node;
};

void client_open(struct client *client, struct client_shared *shared, uint64_t number);

/* Out of all queues, for good. Its memory goes. */
void client_close(struct client *client);

static inline uint64_t client_now_ns(const struct client *client)
{
    return io_now_ns(client->shared->io);
}

/* ---- into the queues ---- */

/* Has it looked at at the end of this pass. */
static inline void client_touch(struct client *client)
{
    if (!list_node_is_linked(&client->dirty_node))
        list_push_back(&client->shared->dirty, &client->dirty_node);
}

/* Has it run at the end of this pass: something that it waits for has come. */
void client_wake(struct client *client);

/* Has it run when there is room again. At once, not at the end of the pass: room that comes in this
 * very pass must find it parked. */
void client_park(struct client *client);

/* Its connection is reset at the end of this pass. */
void client_abort(struct client *client);

/* Whether a SET of it waits for the store, or for its turn. */
void client_set_waits(struct client *client, bool waits);

/* Replies that could leave wait a moment for those behind them that other shards were asked: one
 * send costs as much as answering ten requests does, and wakes the client, who would ask again in
 * small pieces. Returns whether they do. */
bool client_hold(struct client *client);

/* Has it looked at when its first reply's gate is durable, if there is one. */
void client_wait_for_gate(struct client *client);

/* ---- out of the queues: clients.c ---- */

/* Touches those whose first reply's gate is durable now. */
void client_release_waiting(struct client_shared *shared);

/* Touches those that were held long enough. */
void client_release_held(struct client_shared *shared);

/* When the next of them will have been; UINT64_MAX: none is held. */
uint64_t client_held_until_ns(const struct client_shared *shared);

/* ---- requests ---- */

/* The replies that follow are to this request. */
static inline void client_take_up(struct client *client, enum metrics_operation operation,
                                  struct slice key, uint32_t value_size)
{
    account_request(&client->output.request, &client->shared->outputs.books, operation, key,
                    value_size);
}

/* It, for what is known of it only later. */
static inline struct account_request *client_request(struct client *client)
{
    return &client->output.request;
}

/* Whether the rate limit lets its present request be executed: asked once, however often it is
 * tried, until client_admit_next. */
bool client_admit(struct client *client);

static inline void client_admit_next(struct client *client)
{
    client->is_admitted = false;
}

/* A reply is pending; it is known, or was given up. */
static inline void client_begin_pending(struct client *client, bool is_asked, bool is_large)
{
    client->pending_count++;
    client->asked_count += is_asked;
    client->large_pending += is_large;
    assert(client->asked_count + client->large_pending <= client->pending_count); /* invariant 1 */
}

void client_end_pending(struct client *client, bool is_asked, bool is_large);

#endif
