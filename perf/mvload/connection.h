/* One connection of the client: requests that are being sent, requests that wait for a reply, the
 * reply that is coming.
 *
 * One send is in flight at a time, with as many requests in it as fit; new requests are written
 * when it is done. */
#ifndef PERF_MVLOAD_CONNECTION_H
#define PERF_MVLOAD_CONNECTION_H

#include "config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct connection {
    int socket;
    bool is_open;
    bool is_sending;
    bool is_dirty;

    uint32_t shard; /* of this connection, as HELLO says, of `shard_count`; without it 0 of 1 */
    uint32_t shard_count;

    uint8_t *output;
    uint32_t output_capacity;
    uint32_t output_size;
    uint32_t output_sent; /* of output and value together */
    const uint8_t *value; /* is sent between the first `value_at` bytes of output and the rest */
    uint32_t value_at;
    uint32_t value_size; /* 0: there is none in this send */
    struct iovec parts[3];
    struct msghdr message;

    uint64_t *pending; /* a ring: intended time in ns, times two, plus one for a GET */
    uint32_t pending_mask;
    uint32_t pending_first;
    uint32_t pending_count;

    bool is_in_body; /* the head of `reply` was read, body_rest_size bytes of it are to come */
    struct reply reply;
    uint64_t body_rest_size;
    uint32_t head_size; /* bytes of a head whose end has not come */
    uint8_t head[REPLY_HEAD_SIZE_MAX];
};

/* Connects, with TCP_NODELAY, says HELLO and logs in as `config` asks. `depth_max` requests may be
 * in flight at most.
 *
 * Errors: -errno of the socket; -EACCES when HELLO or the log-in is refused; -EBADMSG when HELLO's
 * answer does not name the shard; -ENOMEM. */
int connection_open(struct connection *connection, const struct config *config, uint32_t depth_max);

void connection_close(struct connection *connection);

/* Whether one more request may be written. */
static inline bool connection_has_room(const struct connection *connection, uint32_t depth,
                                       uint32_t request_size_max)
{
    return connection->is_open && !connection->is_sending && connection->pending_count < depth &&
           connection->value_size == 0 &&
           connection->output_capacity - connection->output_size >= request_size_max;
}

/* Where the next request's bytes go. */
static inline uint8_t *connection_output_end(struct connection *connection)
{
    return connection->output + connection->output_size;
}

/* Takes note of a request of `size` bytes that was written at connection_output_end. */
static inline void connection_add(struct connection *connection, size_t size, bool is_get,
                                  uint64_t intended_ns)
{
    uint32_t last =
        (connection->pending_first + connection->pending_count) & connection->pending_mask;
    connection->pending[last] = intended_ns << 1 | is_get;
    connection->pending_count++;
    connection->output_size += (uint32_t)size;
}

/* The value of the SET that was added last follows from where it lies, before its last `tail_size`
 * bytes. No request can be added behind it. */
static inline void connection_add_value(struct connection *connection,
                                        const struct traffic *traffic, uint32_t tail_size)
{
    connection->value = traffic->value;
    connection->value_size = traffic->value_size;
    connection->value_at = connection->output_size - tail_size;
}

/* What is to be sent still, as a message that stays valid until it is sent. */
const struct msghdr *connection_message(struct connection *connection);

/* Takes note of `size` sent bytes. Returns whether that was all. */
bool connection_sent(struct connection *connection, uint32_t size);

struct finished {
    struct reply reply;
    uint64_t intended_ns;
    bool is_get;
};

/* Uses up received bytes until a reply is complete or none are left. 1: *ret_finished; 0: no bytes
 * are left.
 *
 * Errors: -EBADMSG: the server's bytes are no reply, or there was no request. */
int connection_next_reply(struct connection *connection, const struct protocol *protocol,
                          const uint8_t **data, uint32_t *size, struct finished *ret_finished);

#endif
