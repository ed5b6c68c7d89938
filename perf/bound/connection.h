/* One client connection of bound: what came in and is not yet a frame, and the answers that have
 * not left.
 *
 * Answers are bytes in one queue. The first `sendable_size` may leave; behind them, in the durable
 * mode, stand the bytes that wait for a batch of the log, one mark a batch, in order. An answer to
 * a GET behind a SET waits with it, so that answers keep the order of the requests. */
#ifndef PERF_BOUND_CONNECTION_H
#define PERF_BOUND_CONNECTION_H

#include "log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEY_SIZE_MAX 1024u
#define HEADER_SIZE_MAX (3u + KEY_SIZE_MAX + 5u)
#define OUTPUT_SIZE_MAX (64u << 20)

/* The answers, made once. */
struct answers {
    const uint8_t *value; /* to a GET: status, length, value */
    uint32_t value_size;
    const uint8_t *health;
    uint32_t health_size;
};

struct output {
    uint8_t *data;
    uint8_t *retired; /* the kernel still sends from it; freed when the send is done */
    uint32_t capacity;
    uint32_t start; /* of the bytes that have not left */
    uint32_t end;
    uint32_t sendable_size;
};

struct mark {
    uint64_t batch;
    uint32_t size;
};

struct connection {
    bool is_open;
    bool is_receiving;
    bool is_parked; /* to receive again when there are buffers */
    bool is_sending;
    bool is_dirty;    /* in the server's list of connections that may have something to send */
    bool is_failed;   /* out of step, or the peer is gone: close when the kernel lets go */
    uint8_t input_op; /* of the frame whose value is being skipped */
    uint32_t input_skip_size; /* bytes of a value that are still to come */
    uint32_t input_size;
    uint32_t input_held_count; /* received buffers that wait for room in the log */
    struct output output;
    uint64_t batch_waited; /* the last batch that has this slot among its waiters, once */
    uint32_t mark_first;
    uint32_t mark_count;
    struct mark marks[LOG_BATCHES_MAX];
    uint8_t input[HEADER_SIZE_MAX]; /* the beginning of a frame whose header is incomplete */
};

void connection_open(struct connection *connection);

void connection_close(struct connection *connection);

/* Parses received bytes and queues the answers. `log` is NULL outside the durable mode; otherwise
 * it has room for `size` + HEADER_SIZE_MAX bytes.
 *
 * Errors: -EBADMSG for an op or a key that bound does not take; -ENOBUFS when the client does not
 * read its answers. */
int connection_receive(struct connection *connection, uint32_t index, const struct answers *answers,
                       struct log *log, const uint8_t *data, uint32_t size);

/* Lets the answers go that waited for batches up to `durable`. */
void connection_release(struct connection *connection, uint64_t durable);

/* Takes note that `size` bytes left; the send is over. */
void connection_sent(struct connection *connection, uint32_t size);

#endif
