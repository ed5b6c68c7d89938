/* The account of requests: what each came to, how long it took and, with -slowlog, where.
 *
 *     account_request    a request is taken up: the replies that follow are to it
 *     account_reply      it was answered                     \  one of the two
 *     account_reserve    it waits; account_fill comes later  /
 *     account_leave      the block with the reply is handed to the send for the first time
 *
 * The way back of a reply is not its own: a block of output has many. So a block remembers when the
 * requests behind its replies arrived and how many there were of each operation. Replies of one
 * pass arrived together; a block with replies of more than ACCOUNT_COHORTS passes counts those of
 * the later ones as if they had come with the last it remembers: too long, never too short. */
#ifndef MINIVAULT_NET_ACCOUNT_H
#define MINIVAULT_NET_ACCOUNT_H

#include "base/bytes.h"
#include "io/io.h"
#include "net/watch/metrics.h"
#include "net/watch/slowlog.h"

#define ACCOUNT_COHORTS 3

/* All zero: of no reply. In each block of output. */
struct account {
    struct slow_request *slow; /* of the replies, when -slowlog is on */
    uint64_t arrived_ns[ACCOUNT_COHORTS];
    uint16_t counts[ACCOUNT_COHORTS][METRICS_TIMED_COUNT];
    uint8_t cohorts;
    uint8_t operation; /* of a reply that is reserved */
    uint8_t refusal;   /* as in struct account_request */
};

/* The request that a connection's replies are to. */
struct account_request {
    uint64_t arrived_ns; /* its last byte; of one that had to wait: when that began */
    uint64_t client;     /* the connection's number */
    uint64_t key_hash;   /* 0 without -slowlog */
    uint32_t size;       /* of its value */
    uint8_t operation; /* enum metrics_operation; METRICS_OPERATION_COUNT: it counts for nothing */
    uint8_t refusal;   /* what the reply says although its answer is OK, as of HTTP; 0: nothing */
};

/* What the accounts of a shard go into. */
struct account_books {
    struct metrics *metrics;
    struct slowlog *slowlog; /* NULL: off */
    struct slowlog *notes;   /* whose notes may still be out; NULL: it was never on */
    struct io *io;           /* whose time it is */
    uint64_t sent_ns;        /* when what leaves now is handed to the send */
};

/* Logs requests that take at least `slowlog_ns` from now on, 0: none. Errors: -ENOMEM: none are
 * logged that were not before. */
int account_apply(struct account_books *books, const struct log *log, uint64_t slowlog_ns);

/* Notes that are still out are gone. */
void account_close(struct account_books *books);

/* The log is durable up to `position`. */
void account_durable(struct account_books *books, uint64_t position);

/* Each tick. */
void account_tick(struct account_books *books, uint64_t now_ns);

/* What leaves from now on leaves now. */
static inline void account_send_now(struct account_books *books)
{
    books->sent_ns = io_clock_ns(books->io);
}

static inline void account_request(struct account_request *request,
                                   const struct account_books *books,
                                   enum metrics_operation operation, struct slice key,
                                   uint32_t value_size)
{
    request->operation = (uint8_t)operation;
    request->refusal = 0;
    request->size = value_size;
    bool has_key = operation < METRICS_TIMED_COUNT; /* of others it may be a secret */
    if (books->slowlog != NULL)
        request->key_hash = has_key ? slowlog_key_hash(key) : 0;
}

/* Of account.c: only with -slowlog. */
void account_note(struct account *account, struct account_books *books,
                  const struct account_request *request);
void account_note_answer(struct account *account, const struct account_books *books, uint8_t status,
                         uint64_t size, uint64_t gate);

/* Gives its notes back: the block is handed to the send, whose slow requests are logged; or it goes
 * without having been sent. */
void account_end(struct account *account, struct account_books *books, bool is_sent);

/* The block's replies join those of another. */
void account_join(struct account *account, struct account *other);

/* The counts of what arrived then. */
static inline uint16_t *account_cohort(struct account *account, uint64_t arrived_ns)
{
    uint32_t last = account->cohorts > 0 ? account->cohorts - 1u : 0;
    bool is_new = account->cohorts == 0 || account->arrived_ns[last] != arrived_ns;
    if (is_new && account->cohorts < ACCOUNT_COHORTS) {
        last = account->cohorts++;
        account->arrived_ns[last] = arrived_ns;
    }
    return account->counts[last];
}

static inline void account_arrival(struct account *account, uint32_t operation, uint64_t arrived_ns)
{
    if (operation < METRICS_TIMED_COUNT)
        account_cohort(account, arrived_ns)[operation]++;
}

/* A reply of `size` bytes was written into the block; it waits for `gate`. */
static inline void account_reply(struct account *account, struct account_books *books,
                                 const struct account_request *request, uint8_t status,
                                 uint64_t size, uint64_t gate)
{
    if (request->operation >= METRICS_OPERATION_COUNT)
        return;
    status = status != 0 ? status : request->refusal;
    metrics_add(&books->metrics->requests[request->operation][metrics_outcome(status)], 1);
    account_arrival(account, request->operation, request->arrived_ns);
    if (books->slowlog == NULL)
        return;
    account_note(account, books, request);
    account_note_answer(account, books, status, size, gate);
}

/* The block, which is new, is reserved for the reply. */
static inline void account_reserve(struct account *account, struct account_books *books,
                                   const struct account_request *request)
{
    account->operation = request->operation;
    account_arrival(account, request->operation, request->arrived_ns);
    if (books->slowlog != NULL)
        account_note(account, books, request);
}

/* The reply has come. */
static inline void account_fill(struct account *account, struct account_books *books,
                                uint8_t status, uint64_t size, uint64_t gate)
{
    status = status != 0 ? status : account->refusal;
    metrics_add(&books->metrics->requests[account->operation][metrics_outcome(status)], 1);
    if (books->slowlog != NULL)
        account_note_answer(account, books, status, size, gate);
}

/* The request of a reply that is reserved has become whole only now. */
static inline void account_whole(struct account *account, const struct account_request *request)
{
    account->arrived_ns[0] = request->arrived_ns;
    if (account->slow != NULL)
        account->slow->taken_ns = account->slow->arrived_ns = request->arrived_ns;
}

/* The block is handed to the send, at books->sent_ns. Only the first time counts. */
static inline void account_leave(struct account *account, struct account_books *books)
{
    for (uint32_t i = 0; i < account->cohorts; i++) {
        uint64_t took_ns = books->sent_ns - account->arrived_ns[i];
        for (uint32_t operation = 0; operation < METRICS_TIMED_COUNT; operation++) {
            uint32_t count = account->counts[i][operation];
            if (count > 0)
                histogram_add(&books->metrics->latency[operation], took_ns, count);
            account->counts[i][operation] = 0;
        }
    }
    account->cohorts = 0;
    if (account->slow != NULL)
        account_end(account, books, true);
}

#endif
