/* bound's loop: accept, receive, answer, and in the durable mode write. One ring, one enter a loop;
 * with several threads each has a server of its own, and they share nothing. */
#ifndef PERF_BOUND_SERVER_H
#define PERF_BOUND_SERVER_H

#include "connection.h"
#include "log.h"

#include "../common/ring.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct server_settings {
    int listener; /* stays the caller's */
    uint32_t connection_count_max;
    uint32_t value_size;
    uint64_t busy_poll_ns;
    const char *durable_folder; /* NULL: a SET is answered at once */
    uint32_t write_count_max;
    uint64_t log_size;
};

/* What a completion's tag says it completes. */
enum server_operation {
    SERVER_OPERATION_ACCEPT,
    SERVER_OPERATION_RECEIVE,
    SERVER_OPERATION_SEND,
    SERVER_OPERATION_CLOSE,
    SERVER_OPERATION_WRITE,
};

/* A received buffer that waits for room in the log. */
struct held_input {
    uint32_t connection;
    uint32_t buffer_id;
    uint32_t size;
};

struct index_list {
    uint32_t *items;
    uint32_t count;
};

struct server {
    struct server_settings settings;
    struct io_uring ring;
    struct buffer_pool buffers;
    bool is_accepting;
    struct connection *connections;
    struct answers answers;
    struct index_list dirty;  /* connections that may have something to send, each once */
    struct index_list parked; /* connections whose receive ended for want of buffers, each once */
    struct held_input *held;  /* a queue of at most as many as there are buffers */
    uint32_t held_first;
    uint32_t held_count;
    struct log log;
    struct log *log_or_null; /* &log in the durable mode */
};

/* Opens the ring, in the thread that will use it, and zeroes the log. Says on stderr what failed,
 * and what to do about it.
 *
 * Errors: -errno. Nothing is unwound: the program ends. */
int server_open(struct server *server, const struct server_settings *settings);

/* Serves until something breaks.
 *
 * Errors: -errno of the ring or of the log. */
int server_run(struct server *server);

#endif
