/* The post: how the shards of a node ask each other, without a lock and without a word that two of
 * them write.
 *
 * Between each two shards there is a mailbox a direction (shard/mailbox.h). It carries the requests
 * of the one and its answers to the requests of the other. A shard's pass is
 *
 *     post_take       hands out what came: requests to the shard's handler, answers to the asker
 *     ...             the rest of the pass: post_ask and post_answer write into the boxes
 *     post_flush      shows it to the others, once for all, and wakes those that sleep
 *     io_run          sleeps only when post_may_sleep says so; post_woke afterwards
 *
 * Who owns what. A request is a struct that the asker embeds. It and all that it or the message
 * points to (key, value, memory for an answer) stay the asker's, and are lent to the shard that is
 * asked from the delivery until it calls post_answer: that shard reads them, and writes only where
 * the request says so; afterwards it touches nothing of them. The asker leaves them alone from
 * post_ask until `answered` is called. No bytes need a fence of their own: they are written before
 * a flush and read after the look that finds it. What an answer points to beyond the request (a
 * cached value) stays the answerer's, who does not learn when the asker has read it: it keeps that
 * pinned until the asker gives it back by another request. Requests are delivered in the order in
 * which they were posted; answers too, and they may be posted in any order and at any later time.
 *
 * Credits: why an answer always finds a cell, and why full boxes cannot lock shards up. A shard
 * may have `credits` requests unanswered at each other shard, and a box has 2 * credits cells. Of
 * what lies in the box from A to B, requests are A's own that B has not taken, so not answered: at
 * most `credits`. Answers are A's to requests of B whose answer B has not taken: at most `credits`
 * again, since B counts a request until then. So there is a cell for every request that has its
 * credit, and it has reserved the cell of its answer. Nobody waits for a cell: who has no credit
 * left is told so (NULL) and keeps what it has in a queue of its own, while it goes on taking and
 * answering. And since every shard takes all that it is shown in each pass, each request is taken,
 * each answer is taken, and each credit comes back. (B gives the cells back before it shows
 * whatever its handlers posted: post_flush is not for handlers. Who sees a request that uses a
 * credit again therefore also sees the cell that it stands for.)
 *
 * Sleep: why no message is slept over. The sleeper first says that it sleeps, then looks into its
 * boxes; the writer first shows the message, then looks whether the reader sleeps:
 *
 *     reader                            writer
 *     asleep = 1                        tail = ...           (in every box of the flush)
 *     fence                             fence                (one for all of them)
 *     look at every tail                look at asleep
 *
 * Of two sequentially consistent fences one comes first (C11 7.17.4; on x86 and arm64 it keeps the
 * store from passing the load, which nothing else would). If it is the reader's, the writer sees
 * asleep and calls io_wake, which ends the sleep also when it has not begun yet. If it is the
 * writer's, the reader sees the message and does not sleep. `asleep` is written by its shard alone
 * and read by others once a flush; while nobody sleeps it changes nowhere. So a busy shard never
 * costs anybody a system call, and a sleeping one costs one, by whoever comes first.
 *
 * Memory: cells for about POST_CELLS messages a shard, over all its boxes. Address space is
 * reserved and touched as it is used.
 *
 *     shards      2      4      8     16     64    256
 *     cells   2048   2048   1024    512    128     32     of a box; half of them are credits
 *     KiB       128    384    448    480    504    510     cells that a shard writes
 *     KiB       0.3    0.5      1      2      8     32     shared counts that it reads
 *     MiB       0.3    1.5    3.5    7.5     32    136     all of the node
 *
 * A pass looks at one word of every other shard, whether it has written or not (perf/README.md says
 * what that costs). */
#ifndef MINIVAULT_SHARD_POST_H
#define MINIVAULT_SHARD_POST_H

#include "io/io.h"
#include "shard/mailbox.h"

#define POST_SHARDS_MAX 256u
#define POST_CELLS 8192u
#define POST_CELLS_MAX 2048u /* of a box */

struct post_office;
struct post; /* one shard's: used by its thread alone, but for post_office_post */

/* Embedded in whatever is asked; all zero bytes before its first use. `answered` is the asker's. */
struct post_request;
typedef void post_answered(struct post_request *request, const void *body);
struct post_request {
    uint32_t asked; /* the shard that is asked, from 1; 0: not lent */
    post_answered *answered;
};

/* A request of shard `from`, with the body that the asker filled in. The body is valid until this
 * returns, what it points to until post_answer. May ask and answer. */
typedef void post_asked(void *context, uint32_t from, struct post_request *request,
                        const void *body);

/* Since the start. */
struct post_counts {
    uint64_t asked, answered; /* messages that this shard posted */
    uint64_t taken;           /* messages that it took */
    uint64_t refused;         /* post_ask without a credit */
    uint64_t flushes;         /* with something to show */
    uint64_t wakes;           /* calls of io_wake */
};

/* ---- the node's: before the threads begin, and after they have ended ---- */

/* For 1 to POST_SHARDS_MAX shards. Errors: -ENOMEM. */
int post_office_open(uint32_t shard_count, struct post_office **ret_office);

/* What is still under way is gone. */
void post_office_close(struct post_office *office);

/* How many requests one shard may have unanswered at another. */
uint32_t post_office_credits(const struct post_office *office);

/* The post of a shard. */
struct post *post_office_post(struct post_office *office, uint32_t shard);

/* ---- a shard's: on its thread ---- */

/* Before the first pass: `io` is this thread's world, which others may wake from now on until
 * post_end says otherwise. */
void post_join(struct post *post, struct io *io, post_asked *asked, void *context);

/* Asks another shard. Returns the message's body, MAIL_BODY_SIZE bytes aligned to 16, which the
 * caller fills in before the flush; NULL and nothing done when `to` has no credit left: try again
 * once an answer of it was taken. */
void *post_ask(struct post *post, uint32_t to, struct post_request *request);

/* How many requests `to` could be asked just now. */
uint32_t post_credits(const struct post *post, uint32_t to);

/* Answers a request that shard `to` has asked, once: nothing of it may be touched afterwards.
 * Returns the body, as post_ask; there is always one. */
void *post_answer(struct post *post, uint32_t to, struct post_request *request);

/* How many messages were posted to a shard so far, and whether it has taken the first `count`. */
uint32_t post_posted(const struct post *post, uint32_t to);
bool post_has_taken(const struct post *post, uint32_t to, uint32_t count);

/* Delivers what came. Returns how many messages. Not within a handler. */
uint32_t post_take(struct post *post);

/* Shows what was posted and wakes whom it is for. Not within a handler. */
void post_flush(struct post *post);

/* Announces a sleep and looks once more. False: something came, do not sleep. True: sleep (io_run
 * with a wait), then call post_woke. After the flush. */
bool post_may_sleep(struct post *post);

void post_woke(struct post *post);

/* How many requests of this shard are unanswered, and how many of others it still has to answer. */
uint32_t post_asking(const struct post *post);
uint32_t post_owing(const struct post *post);

/* The way down. Once this shard asks nothing any more and has all its answers it calls this once a
 * pass, after the flush, and goes on taking and answering, with short sleeps (a millisecond), until
 * it returns true: then no shard will use the post or wake this shard's world again, and the world
 * may be closed. */
bool post_end(struct post *post);

struct post_counts post_counts(const struct post *post);

#endif
