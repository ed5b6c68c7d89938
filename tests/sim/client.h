/* One client connection: sends random requests with some in flight, checks that the answers come in
 * order and are allowed. Runs in the world's events. */
#ifndef TESTS_SIM_CLIENT_H
#define TESTS_SIM_CLIENT_H

#include "base/prng.h"
#include "base/units.h"
#include "checker.h"
#include "io/io_sim.h"
#include "keys.h"

#include <stdbool.h>

#define CLIENT_DEPTH_MAX 64u

/* What all clients of a run share. */
struct workload {
    struct sim *sim;
    struct io *io; /* the server's host, to be woken when there is something to look at; NULL */
    struct prng prng;
    struct keys keys;
    struct checker *checker;
    uint64_t seed;

    /* chosen once */
    uint32_t depth_max;
    uint64_t think_ns_max; /* between an answer and the next request; 0: none */
    uint32_t set_percent;
    uint32_t delete_percent;
    uint32_t large_percent; /* of sets: up to value_size_max */
    uint32_t small_size_max;
    uint32_t value_size_max; /* beyond it a set is refused */
    uint32_t zstd_percent;   /* of sets */
    uint32_t typed_percent;  /* of connections: say HELLO */
    uint32_t hang_up_ppm;    /* of answers: the client hangs up after it */

    /* what may happen now */
    bool may_refuse_writes; /* the disk may be full */
    bool may_fail;          /* the device fails: errors say nothing about writes and reads */
    bool may_close;         /* the server may close connections */

    uint64_t budget;  /* requests that may still be sent */
    uint64_t answers; /* that came */
    uint64_t refusals;
    uint64_t connections; /* ever */
    bool has_failed;
    char message[2 * CHECKER_MESSAGE_SIZE];
};

/* Ends the run: something is wrong. The first message counts. */
__attribute__((format(printf, 2, 3))) void workload_fail(struct workload *workload,
                                                         const char *format, ...);

struct request {
    uint8_t op;
    bool must_be_refused;
    uint64_t write; /* SET, DELETE: the checker's */
    struct checker_reading reading;
    uint64_t sent_ns;
};

struct client {
    struct workload *workload;
    struct io *io;
    uint16_t port;
    struct sim_peer *peer; /* NULL: not connected */
    struct sim_event think;
    uint64_t connection; /* its number */
    bool is_typed;
    bool is_scanning;   /* reads all keys once instead of the usual mix */
    uint32_t scan_next; /* the next key */
    bool is_finished;   /* FIN was sent */
    uint32_t depth;
    struct request requests[CLIENT_DEPTH_MAX]; /* sent and not answered, from the oldest */
    uint32_t request_first;
    uint32_t request_count;
    uint8_t *out;
    size_t out_size, out_sent, out_capacity;
    uint8_t *in;
    size_t in_size, in_capacity;
};

void client_init(struct client *client, struct workload *workload);
void client_deinit(struct client *client);

/* Connects, unless it is, and goes on sending as long as there is a budget. */
void client_run(struct client *client, struct io *io, uint16_t port);

/* Connects and reads every key once. */
void client_scan(struct client *client, struct io *io, uint16_t port);

/* The connection is over; what has no answer stays open. */
void client_drop(struct client *client);

/* Nothing waits for an answer or to be sent. */
bool client_is_idle(const struct client *client);

/* When the oldest request without an answer was sent; UINT64_MAX: there is none. */
uint64_t client_waits_since(const struct client *client);

/* ---- request.c: what is asked, and what may be answered ---- */

/* Appends the next request to client->out. */
void request_make(struct client *client);

/* Appends HELLO. */
void request_hello(struct client *client);

/* Judges an answer: `data` of `size` bytes. */
void request_judge(struct client *client, const struct request *request, uint8_t status,
                   const uint8_t *data, uint32_t size);

/* Room for `size` more bytes at the end of client->out. */
uint8_t *client_reserve(struct client *client, size_t size);
struct request *client_push(struct client *client, uint8_t op);

#endif
