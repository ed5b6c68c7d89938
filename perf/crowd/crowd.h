/* One thread of many clients: a ring with direct descriptors, so that the process's limit of open
 * files counts once for each thread and not for all of them together.
 *
 * A client's sockets live in the ring alone. To open one is a chain of four requests (socket,
 * connect, send a GET, receive its answer) of which only the last, or the one that failed, posts a
 * completion. `window` chains are under way at a time: a listener has a backlog, and a SYN that it
 * drops comes again only after a second.
 *
 * A slow reader asks `ask_count` GETs at once and takes `read_size` bytes of their answers every
 * `read_interval_ns`; when the server closes it, it comes again. */
#ifndef PERF_CROWD_CROWD_H
#define PERF_CROWD_CROWD_H

#include "../common/ring.h"
#include "base/histogram.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define KEY_LENGTH_MAX 250u
#define ASKS_MAX 4096u

struct crowd_settings {
    struct sockaddr_in address; /* each thread has its own, so that ports suffice */
    uint32_t client_count;
    uint32_t window;
    uint32_t answer_size; /* of a GET: 5 bytes and the value */
    uint64_t timeout_ns;  /* for all of them to be answered */
    const uint8_t *request;
    uint32_t request_size;
    bool is_slow;
    uint32_t read_size;
    uint64_t read_interval_ns;
};

enum client_state {
    CLIENT_NONE,    /* not begun */
    CLIENT_OPENING, /* its chain is under way */
    CLIENT_OPEN,
    CLIENT_FAILED,
    CLIENT_READING, /* slow: a receive is under way */
    CLIENT_CLOSING, /* slow: the server closed it */
};

struct crowd_tally {
    uint32_t answered; /* slow: connected and asked */
    uint32_t failed;
    uint32_t closed; /* by the server, later */
    uint64_t bytes_read;
    uint64_t last_answer_ns; /* when the last one was answered */
    struct histogram latency;
};

struct crowd {
    struct crowd_settings settings;
    pthread_t thread;
    uint32_t index;
    pthread_barrier_t *barrier; /* met twice: before the first connect, and when all are open */
    const bool *is_ending;      /* the main thread's (atomic) */
    struct io_uring ring;
    enum client_state *states;
    uint64_t *begun_ns;
    uint8_t *answers; /* answer_size, or read_size, for each client */
    uint32_t next;    /* the first client that has not begun */
    uint32_t opening_count;
    uint64_t now_ns;
    uint64_t start_ns;
    uint64_t next_read_ns;
    int error; /* the ring broke */
    char first_error[96];
    struct crowd_tally tally;
};

/* The thread's function. Opens all, waits at the barrier, holds them until is_ending, then counts
 * those that the server has closed. What went wrong is in `error`, `first_error` and the tally. */
void *crowd_run(void *crowd);

#endif
