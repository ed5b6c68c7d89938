/* The log of slow requests: one line for each request that took longer than a threshold, at most
 * SLOWLOG_LINES_MAX a second, and a line that says how many were left out.
 *
 *     slow GET of key hash 8a2c0e3f00c1d2e4: ok, 1000 bytes, connection 17, 153.2 ms: waited 0.0,
 *     answered after 12.1, durable after 140.9, sent after 0.2
 *
 * The stages follow each other and add up to the whole:
 *
 *     waited     arrived -> taken up: behind a request that waits for room, or for others
 *     answered   -> the answer is known: reads of the disk, the file of a large value
 *     durable    -> what it shows is on stable media (0 when it waits for no write)
 *     sent       -> handed to the send: answers before it, a client that reads slowly
 *
 * Keys stay out of the log: they are clients' data (names, addresses, tokens), and logs travel
 * further than the data does. The hash is the XXH64 that files of the data directory are named for;
 * who knows the key can compute it, who reads the log learns nothing.
 *
 * A shard has one, and only when it is on: every request under way then has a note out of a pool.
 * One that finds none left is not looked at. */
#ifndef MINIVAULT_NET_SLOWLOG_H
#define MINIVAULT_NET_SLOWLOG_H

#include "base/bytes.h"
#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

#define SLOWLOG_LINES_MAX 10u

/* Notes of a shard: 5 MiB of address space, touched as they are used. */
#define SLOWLOG_NOTES 65536u

struct slowlog;

struct slow_request {
    struct slow_request *next; /* the block's */
    uint64_t arrived_ns, taken_ns;
    uint64_t answered_ns; /* 0: not yet */
    uint64_t gate;        /* the log position that it waits for; 0: none */
    uint64_t client;
    uint64_t key_hash;
    uint64_t size; /* bytes of the values of request and answer */
    uint8_t operation;
    uint8_t status;
};

/* `log` is the caller's and stays. Errors: -ENOMEM. */
int slowlog_open(const struct log *log, uint64_t threshold_ns, struct slowlog **ret_slowlog);

void slowlog_set_threshold(struct slowlog *slowlog, uint64_t threshold_ns);

/* Notes that are still out are gone. NULL does nothing. */
void slowlog_close(struct slowlog *slowlog);

uint64_t slowlog_key_hash(struct slice key);

/* A note, all zero, or NULL: none left. */
struct slow_request *slowlog_take(struct slowlog *slowlog);
void slowlog_put(struct slowlog *slowlog, struct slow_request *note);

/* The log is durable up to `position` since `now_ns`. Positions and times grow. */
void slowlog_durable(struct slowlog *slowlog, uint64_t position, uint64_t now_ns);

/* Its answer is handed to the send. Returns whether it was slow. */
bool slowlog_report(struct slowlog *slowlog, const struct slow_request *note, uint64_t sent_ns);

/* Once in a while: says what was left out when its second is over. */
void slowlog_tick(struct slowlog *slowlog, uint64_t now_ns);

#endif
