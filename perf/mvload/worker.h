/* One client thread: a ring, a share of the connections, of the keys to prefill and of the rate. */
#ifndef PERF_MVLOAD_WORKER_H
#define PERF_MVLOAD_WORKER_H

#include "config.h"
#include "connection.h"

#include "../common/ring.h"
#include "base/histogram.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define FIRST_ERROR_SIZE 160

/* Prefilling keeps at least so many requests in flight per connection, whatever the depth of the
 * load. */
#define PREFILL_DEPTH 64u

/* What the measurement found. */
struct tally {
    struct histogram latency; /* ns */
    uint64_t latency_min_ns;  /* UINT64_MAX: of none */
    uint64_t replies;         /* within the measurement */
    uint64_t gets;            /* of them */
    uint64_t misses;
    uint64_t refused; /* no room for it now, said the server */
    uint64_t errors;  /* failed, or a value of the wrong size */
    uint64_t lost;    /* requests without an answer: the connection broke, or the server stalled */
    uint64_t unsent;  /* open loop: due, but every connection was full until the end */
    uint64_t duration_ns; /* of the measurement */
    uint64_t cpu_ns;      /* this thread's, in that time */
};

enum worker_mode {
    WORKER_PREFILL, /* SETs of consecutive keys */
    WORKER_CLOSED,  /* `depth` requests in flight, always */
    WORKER_OPEN,    /* a request every interval, whether or not the server keeps up */
    WORKER_DRAIN,   /* no new ones; wait for what is in flight */
};

struct worker {
    const struct config *config;
    uint32_t index;
    pthread_barrier_t *barrier; /* between prefill and load */

    struct io_uring ring;
    struct buffer_pool buffers;
    struct connection *connections;
    uint32_t connection_count;
    uint32_t open_count;
    uint32_t *dirty; /* connections that may take requests, each once */
    uint32_t dirty_count;
    uint32_t *parked; /* connections whose receive ended for want of buffers */
    uint32_t parked_count;

    enum worker_mode mode;
    uint32_t depth;
    uint64_t now_ns; /* read once a loop */
    uint64_t last_reply_ns;
    uint64_t outstanding;
    struct prng prng;
    uint8_t key[KEY_SIZE_MAX];
    uint64_t prefill_next;
    uint64_t prefill_end;
    uint64_t insert_next; /* the number of the next new key */
    uint64_t replies_max; /* of the measurement */
    double interval_ns;   /* open loop */
    double due_ns;        /* of the next request */
    bool is_blocked;      /* a request is due, and no connection has room */
    uint32_t next_connection;

    bool is_failed; /* cannot go on; said on stderr */
    bool is_measuring;
    bool has_strayed;                   /* --locality could not be kept */
    char first_error[FIRST_ERROR_SIZE]; /* the head of the first reply that was an error, or "" */
    struct tally tally;
    uint64_t progress; /* all replies so far; read by the main thread (atomic) */
};

/* Takes over `config`, which must outlive the worker; draws, keys and rate are split over the
 * threads by index. */
void worker_init(struct worker *worker, const struct config *config, uint32_t index,
                 pthread_barrier_t *barrier);

/* Opens ring and connections, in the thread that will use them. Says on stderr what failed.
 *
 * Errors: -errno; worker_close is due all the same. */
int worker_open(struct worker *worker);

/* Queues what stays in the ring for the whole run: a receive per connection, and the tick. */
void worker_start(struct worker *worker);

void worker_close(struct worker *worker);

/* The thread's function. */
void *worker_run(void *worker);

#endif
