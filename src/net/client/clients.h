/* All clients of a shard: their connections' memory, what they share, and their part of a pass.
 *
 *     clients_take     requests go on: of those that something has come for, or that wait for room
 *     ...              the store, others
 *     clients_answer   replies go out: of those that have any
 *
 * Invariants:
 *   1  `count` is the length of `all`
 *   2  the lease has lent a slot for each connection */
#ifndef MINIVAULT_NET_CLIENTS_H
#define MINIVAULT_NET_CLIENTS_H

#include "net/client/connection.h"
#include "shard/lease.h"

#define CLIENTS_PROTOCOLS_MAX 2u

struct clients {
    struct client_shared shared;
    struct lease *slots; /* of the node */
    struct clients_protocol {
        const struct protocol *protocol;
        void *shared;
        struct pool connections;
    } protocols[CLIENTS_PROTOCOLS_MAX];
    uint32_t protocol_count;
    struct list all;
    bool has_room;     /* parked connections are to be tried again */
    bool has_advanced; /* something became durable in this pass */
    uint64_t count, accepted, refused;
};

/* `slots` and the beginning of `shared` are set, the rest is zero; the shard is opened later, before
 * the first connection. What was said of a failure has been logged. Errors: -ENOMEM. */
int clients_open(struct clients *clients);

/* The shard's store is open. */
void clients_begin(struct clients *clients);

/* Adds a protocol, whose number is the count of those before. `shared` is the protocol's own, of the
 * shard. Errors: -ENOMEM. */
int clients_add(struct clients *clients, const struct protocol *protocol, void *shared);

/* Frees everything; the world and the store are gone. */
void clients_close(struct clients *clients);

/* A new client of the protocol `number`. Takes the socket. Returns false, and does not, when the
 * node has as many as it may. */
bool clients_accept(struct clients *clients, uint32_t number, int socket);

/* SIGHUP. */
void clients_apply(struct clients *clients, const struct auth *auth, uint64_t slowlog_ns);

/* ---- what happens elsewhere ---- */

/* The log is durable up to `position`. */
void clients_durable(struct clients *clients, uint64_t position);

/* The store, or another shard, has room. */
void clients_room(struct clients *clients);

/* Each tick. */
void clients_tick(struct clients *clients, uint64_t now_ns);

/* The drain begins; then, each pass: finishes connections, `is_late`: all, at once. */
void clients_drain(struct clients *clients);
void clients_finish(struct clients *clients, bool is_late);

/* ---- the pass ---- */

void clients_take(struct clients *clients);

/* Returns whether there is more to do at once. */
bool clients_answer(struct clients *clients);

/* How long they may be left alone. */
uint64_t clients_rest_ns(const struct clients *clients);

/* Bytes of what is under way; and how many that may be, of a shard that has one of so many parts,
 * beside LIMITS_CONNECTION_MEMORY for each connection. */
uint64_t clients_memory(const struct clients *clients);
uint64_t clients_memory_max(uint32_t shard_count, uint32_t parts);

#endif
