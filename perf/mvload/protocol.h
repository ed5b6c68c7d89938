/* The dialects of the servers that mvload drives: bytes of a request, and the head of a reply.
 *
 * Nothing here does I/O or keeps state. A reply's body is skipped by the caller, which only needs
 * its size. */
#ifndef PERF_MVLOAD_PROTOCOL_H
#define PERF_MVLOAD_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What every request of a run has in common. */
struct traffic {
    uint32_t key_size;
    const uint8_t *value; /* bytes that are text in every dialect, JSON included */
    uint32_t value_size;
    bool is_value_apart; /* requests are written without it: it is sent from where it lies */
    const char *auth;    /* NULL: none */
    const char *host;
};

static inline uint8_t *traffic_write_value(uint8_t *target, const struct traffic *traffic)
{
    if (traffic->is_value_apart)
        return target;
    memcpy(target, traffic->value, traffic->value_size);
    return target + traffic->value_size;
}

enum reply_outcome {
    REPLY_DONE,
    REPLY_MISS,
    REPLY_REFUSED, /* the server has no room for it now: a rate limit says so too */
    REPLY_ERROR,
};

struct reply {
    enum reply_outcome outcome;
    uint32_t head_size;
    uint64_t body_size;  /* bytes behind the head that belong to the reply */
    uint64_t value_size; /* of a GET that is done */
};

/* The head of a reply is at most this long: more is an error. */
#define REPLY_HEAD_SIZE_MAX 4096u

struct protocol {
    const char *name;
    uint16_t port; /* the usual one */

    /* An upper bound of what is added to key, value, host and secret. */
    uint32_t request_overhead;

    /* Write a request; the number of bytes. */
    size_t (*write_get)(uint8_t *target, const struct traffic *traffic, const uint8_t *key);
    size_t (*write_set)(uint8_t *target, const struct traffic *traffic, const uint8_t *key);

    /* Bytes of a SET behind the value. */
    uint32_t set_tail_size;

    /* Writes the log-in that opens a connection; NULL when the dialect has none, or sends it in
     * every request. */
    size_t (*write_auth)(uint8_t *target, const struct traffic *traffic);
    bool is_auth_in_request;

    /* Writes the HELLO that opens a connection; NULL when the dialect has none. Its reply's body
     * has the connection's shard. */
    size_t (*write_hello)(uint8_t *target);

    /* Reads the head of a reply to a GET, or to anything else. 1: *ret_reply is there; 0: more
     * bytes are needed.
     *
     * Errors: -EBADMSG: this is no reply of this protocol. */
    int (*read_reply)(const uint8_t *data, size_t size, bool is_get, struct reply *ret_reply);
};

enum protocol_kind { PROTOCOL_BINARY, PROTOCOL_RESP, PROTOCOL_MEMCACHED, PROTOCOL_HTTP };

extern const struct protocol protocol_binary;
extern const struct protocol protocol_typed; /* binary, after HELLO */
extern const struct protocol protocol_resp;
extern const struct protocol protocol_memcached;
extern const struct protocol protocol_http;      /* the raw route */
extern const struct protocol protocol_http_json; /* {"value": ...} */

#endif
