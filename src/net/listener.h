/* The listeners of a shard: they take the ports, accept, refuse what is too many, and stop. */
#ifndef MINIVAULT_NET_LISTENER_H
#define MINIVAULT_NET_LISTENER_H

#include "net/client/clients.h"
#include "net/steer/steer_load.h"

/* One for each protocol, by the number that it has with the clients. */
enum listener_number { LISTENER_BINARY, LISTENER_HTTP, LISTENERS_MAX };

#define LISTENERS_SPARE_SOCKETS 64u /* to refuse with */

struct listeners_options {
    struct io *io;
    const struct log *log;
    struct clients *clients;
    struct metrics *metrics;
    struct steer_load *load;
    const char *host;         /* NULL: all addresses */
    uint32_t connections_max; /* of the node */
    uint64_t lock_wait_ns;    /* how long a predecessor may take to let a port go */
    uint32_t shard, shard_count;
};

struct listener {
    struct listeners *all;
    int handle;
    uint16_t port;
    bool is_open;
    struct io_op accept;
    struct io_op close;
};

struct listeners {
    struct listeners_options options;
    bool has_stopped_accepting;
    struct listener listeners[LISTENERS_MAX];
};

/* Takes a port, 0: any. *ret_descriptor: for steering, the caller's to close, or -1, also after a
 * failure, which has been logged. Errors: io_listen's. */
int listeners_listen(struct listeners *listeners, enum listener_number number, uint16_t port,
                     int *ret_descriptor);

/* 0: it does not listen. */
uint16_t listeners_port(const struct listeners *listeners, enum listener_number number);

/* How many connections are served at once. */
uint64_t listeners_slots(const struct listeners *listeners);

/* Accepts wherever that has ended, and may go on. */
void listeners_arm(struct listeners *listeners);

/* The drain, which lasts since `drain_ns`: stops accepting, then listening, step by step with each
 * call. */
void listeners_stop(struct listeners *listeners, uint64_t drain_ns);

/* Whether any still listens, or is being closed. */
bool listeners_are_open(const struct listeners *listeners);

#endif
