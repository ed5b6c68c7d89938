/* A connection's replies, in request order, on their way out.
 *
 * A queue of blocks out of a pool that all connections of a shard share. A block has some bytes of
 * its own and, behind them, at most one larger value that is sent from where it lies (a pinned
 * cache entry, memory that goes with the block, or a stream: piece by piece, each when the one
 * before it was sent). A reply that has to wait for the disk reserves its place as a pending block.
 * A block leaves when it is not pending, everything before it has left, and its gate is durable.
 *
 *   head [sending][sending][ready][waits for its gate][pending][ready] tail <- appended here
 *
 * Invariants:
 *   1  the first sending_count blocks are sending, no other is
 *   2  bytes is the sum of size + external_size over all blocks
 *   3  shared->memory_bytes is the sum of external_size over all blocks with memory of their own,
 *      and of what downloads that wait to be opened hold */
#ifndef MINIVAULT_NET_OUTPUT_H
#define MINIVAULT_NET_OUTPUT_H

#include "base/assert.h"
#include "base/list.h"
#include "base/pool.h"
#include "io/io.h"
#include "net/client/account.h"
#include "net/client/dialect.h"
#include "shard/shard.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

#define OUTPUT_BLOCK_SIZE 4096u

/* A send has at most about this many bytes, so that a client's progress shows while it takes a
 * large value. */
#define OUTPUT_SEND_MAX (512u * 1024)

/* A value that comes in pieces. Embedded by its owner, the block's until `ended`. */
struct output_stream {
    uint64_t left; /* bytes that no piece has shown yet */
    /* The next piece, at most `left` bytes; NULL: there is none now, the owner has the output
     * looked at when there is. */
    const uint8_t *(*next)(struct output_stream *stream, uint32_t *ret_size);
    void (*release)(struct output_stream *stream); /* the piece was sent, or never will be */
    void (*ended)(struct output_stream *stream);   /* all was sent: the block forgets the stream */
};

struct output_block {
    struct list_node node;
    struct shard_waiter waiter; /* of a pending reply */
    void *owner;                /* for the waiter: of whoever reserved the place */
    struct reply_form form;     /* of a reserved place */
    uint64_t gate;
    uint64_t pass; /* the loop pass that appended last */
    struct account account;
    const uint8_t *external;
    struct cache_entry *entry;    /* external lies in it, pinned; or NULL */
    void *memory;                 /* external lies in it, freed with the block; or NULL */
    struct output_stream *stream; /* external is a piece of it, or NULL: the next is to come */
    uint32_t external_size;
    uint32_t external_sent; /* of it, in earlier sends */
    uint32_t size;          /* of bytes; 0 once they were sent */
    bool pending;
    bool sending;
    alignas(64) uint8_t bytes[OUTPUT_BLOCK_SIZE - 256]; /* no cache line of it is one of ours */
};

static_assert(sizeof(struct output_block) == OUTPUT_BLOCK_SIZE, "a block is one page");

/* What the outputs of a shard share. */
struct output_shared {
    struct pool blocks;
    struct store *store; /* for pins and for what is durable */
    uint64_t pass;
    uint32_t reserve; /* blocks that only a connection without one may take: one a connection */
    uint64_t memory_bytes; /* of blocks' own memory */
    uint64_t memory_bytes_max;
    struct account_books books;
    bool starved;  /* somebody found no block, or no memory */
    bool has_room; /* and some came back since: for clients.c to see and clear */
};

struct output {
    struct output_shared *shared;
    struct list blocks;
    uint64_t bytes; /* queued, external ones too */
    uint32_t block_count;
    uint32_t sending_count;         /* blocks of the active send */
    uint32_t sending_part;          /* bytes of the last one's external value in the active send */
    struct account_request request; /* that replies are to: its caller says */
    struct io_send send;
};

/* `count` blocks, of which `reserve` are for connections without one. Errors: -ENOMEM. */
int output_shared_open(struct output_shared *shared, uint32_t count, uint32_t reserve,
                       uint64_t memory_bytes_max);
void output_shared_close(struct output_shared *shared);

/* `store`: for pins and for what is durable. Before the first reply. */
static inline void output_shared_begin(struct output_shared *shared, struct store *store)
{
    shared->store = store;
}

/* The loop's pass is over. */
static inline void output_shared_end_pass(struct output_shared *shared)
{
    shared->pass++;
}

/* Whether somebody found no block, or no memory, and some came back since; it is tried again. */
static inline bool output_shared_has_room(const struct output_shared *shared)
{
    return shared->has_room;
}

static inline void output_shared_retried(struct output_shared *shared)
{
    shared->has_room = false;
}

/* Bytes of the blocks. */
uint64_t output_shared_memory(const struct output_shared *shared);

void output_init(struct output *output, struct output_shared *shared);

/* Whether another reply may be queued: the connection's own budget and its fair share of the pool
 * allow it. A connection may take up to a quarter of the free blocks, so that many slow readers
 * cannot starve the others. */
bool output_has_room(const struct output *output);

/* Whether there is memory for a reply whose value may be in no cache. */
bool output_has_memory(struct output_shared *shared);

/* Memory of a reply's that is no block's. */
static inline bool output_is_short_of_memory(const struct output_shared *shared)
{
    return shared->memory_bytes >= shared->memory_bytes_max;
}

static inline void output_take_memory(struct output_shared *shared, uint32_t size)
{
    shared->memory_bytes += size;
}

static inline void output_give_memory(struct output_shared *shared, uint32_t size)
{
    assert(shared->memory_bytes >= size); /* invariant 3 */
    shared->memory_bytes -= size;
}

/* Queues a reply. output_has_room was true since the last one. Takes answer->memory. Errors:
 * -ENOMEM (memory for a large value that is in no cache; nothing was queued). */
int output_answer(struct output *output, struct reply_form form, const struct shard_answer *answer);

/* Reserves the place of a reply that is not known yet. NULL: no block is left. */
struct output_block *output_reserve(struct output *output, void *owner, struct reply_form form);

/* The place's waiter, with another `done` unless that is NULL; the place and the owner of one. */
static inline struct shard_waiter *output_waiter(struct output_block *block,
                                                 shard_waiter_done *done)
{
    if (done != NULL)
        block->waiter.done = done;
    return &block->waiter;
}

static inline struct output_block *output_waiting(struct shard_waiter *waiter, void **ret_owner)
{
    struct output_block *block = container_of(waiter, struct output_block, waiter);
    *ret_owner = block->owner;
    return block;
}

static inline struct reply_form output_form(const struct output_block *block)
{
    return block->form;
}

/* Lends the rest of a reserved block to its waiter, where an answer's value is best put. */
void output_lend(struct output_block *block);

static inline bool output_is_lent(const struct output_block *block)
{
    return block->waiter.lent != NULL;
}

/* Fills a reserved place. Takes answer->memory. */
void output_fill(struct output *output, struct output_block *block,
                 const struct shard_answer *answer);

/* Fills it with OK and a value that comes in pieces. */
void output_fill_stream(struct output *output, struct output_block *block, uint64_t gate,
                        struct output_stream *stream);

/* Fills it with OK and the head for such a value, without it. */
void output_fill_head(struct output *output, struct output_block *block, uint64_t gate,
                      uint64_t size);

/* A reserved place will never be filled; the stream of one that was is gone: no send is active, and
 * the connection sends nothing any more. */
static inline void output_forget(struct output_block *block)
{
    block->pending = false;
    block->stream = NULL;
    block->external = NULL;
}

/* A reserved place is filled in this form; `refusal`: as in struct account_request. */
static inline void output_set_form(struct output_block *block, struct reply_form form,
                                   uint8_t refusal)
{
    block->form = form;
    block->account.refusal = refusal;
}

/* The request of a reply that is reserved has become whole only now. */
static inline void output_whole(const struct output *output, struct output_block *block)
{
    account_whole(&block->account, &output->request);
}

/* Whether every reply before it is known, and none of them still comes in pieces. */
bool output_is_first(const struct output *output, const struct output_block *block);

/* Gives up the reserved place of the newest reply: the request was not accepted after all. */
void output_unreserve(struct output *output, struct output_block *block);

/* Whether anything could leave now. */
bool output_may_send(const struct output *output);

/* Sends what may leave now. Returns whether that is anything; then output_sent follows `done`. */
bool output_send(struct output *output, struct io *io, int socket, io_done *done);

/* Its send. */
static inline struct io_op *output_op(struct output *output)
{
    return &output->send.op;
}

/* Prepares output->send with what may leave now. Returns the count of slices, 0: nothing, or a send
 * is active. */
uint32_t output_gather(struct output *output);

/* The send that output_gather prepared has completed: its blocks go back. */
void output_sent(struct output *output);

/* The gate that the first block waits for, or 0: it waits for no gate. */
uint64_t output_gate(const struct output *output);

/* Drops everything that is not being sent or pending. Streams are forgotten: no send is active, and
 * their owners closed them. Returns whether the queue is empty now. */
bool output_drop(struct output *output);

/* What blocks have of their own when the world and the store are gone. */
void output_free(struct output *output);

static inline bool output_is_empty(const struct output *output)
{
    return list_is_empty(&output->blocks);
}

#endif
