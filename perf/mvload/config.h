/* What the command line asks for. */
#ifndef PERF_MVLOAD_CONFIG_H
#define PERF_MVLOAD_CONFIG_H

#include "keys.h"
#include "protocol.h"

#include <stdbool.h>
#include <stdint.h>

/* Which keys a connection asks for, by the shard that has them. */
enum locality { LOCALITY_ANY, LOCALITY_LOCAL, LOCALITY_CROSS };

struct config {
    int protocol_kind; /* enum protocol_kind */
    bool is_http_json;
    const char *host;
    uint64_t port; /* 0: the protocol's usual one */
    const char *auth;

    uint64_t connections;
    uint64_t depth;
    uint64_t threads;
    bool is_busy_poll;
    bool is_pinned;
    bool is_hello;

    uint64_t keys;
    uint64_t first_key;
    uint64_t key_size;
    int distribution; /* 0 uniform, 1 Zipf */
    int locality;     /* enum locality */
    uint64_t value_size;
    bool is_noise;
    double reads;
    double inserts;
    uint64_t first_insert;
    int op; /* 0 by `reads`, 1 get, 2 set */
    uint64_t seed;

    bool is_prefill;
    double warmup_seconds;
    double seconds;
    uint64_t requests; /* 0: no limit */
    double rate;

    bool is_allow_misses;
    bool is_allow_refusals;
    bool is_json;

    /* Derived. */
    const struct protocol *protocol;
    struct key_space key_space;
    struct traffic traffic;
    uint32_t request_size_max;
    uint32_t read_threshold; /* a request is a GET when 32 random bits are below: share times 2^32,
                                less one */
    uint32_t insert_threshold; /* the same, of the SETs; 0: none takes a new key */
    bool is_all_reads;
};

/* Defaults, then the command line, then what follows from it.
 *
 * Errors: -ECANCELED after --help; -EINVAL (said on stderr); -ENOMEM. */
int config_init(struct config *config, int argc, char **argv);

void config_deinit(struct config *config);

#endif
