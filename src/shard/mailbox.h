/* A mailbox: a bounded ring of messages with one writer and one reader, on two threads.
 *
 * The writer fills cells and shows them to the reader once a pass; the reader looks once a pass,
 * reads all that it was shown in place, and gives the cells back together. So what crosses between
 * the two processors in a pass is the line of `tail`, the line of `head` only when the writer has
 * gone once around, and the lines of the messages themselves.
 *
 *     writer:  mailbox_post ... mailbox_post, mailbox_flush       1 release store of `tail`
 *     reader:  mailbox_look, mailbox_next ... mailbox_next, mailbox_release
 *                                                                 1 acquire load of `tail`,
 *                                                                 1 release store of `head`
 *
 * Counts run on and wrap at 2^32; a cell is a count modulo the (power of two) number of cells.
 * What each side alone uses lies in a struct of its own, in that side's memory; of the shared words
 * each has one writer and a line of its own. Invariants:
 *
 *     (1) released <= taken <= tail_seen <= tail = flushed <= posted <= head_seen + cells
 *     (2) head_seen <= head = released
 *
 * A message is one cache line. What it points to is lent: src/shard/post.h says by whom and until
 * when. The order of posting is the order of taking. */
#ifndef MINIVAULT_SHARD_MAILBOX_H
#define MINIVAULT_SHARD_MAILBOX_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAIL_SIZE 64
#define MAIL_BODY_SIZE 48

struct mail {
    alignas(MAIL_SIZE) void *request; /* what is asked or answered */
    bool is_answer;
    alignas(16) uint8_t body[MAIL_BODY_SIZE]; /* the caller's: a struct of at most this size */
};

/* The shared words. */
struct mailbox {
    alignas(MAIL_SIZE) _Atomic uint32_t tail; /* the writer's: messages shown so far */
    alignas(MAIL_SIZE) _Atomic uint32_t head; /* the reader's: cells given back so far */
};

struct mailbox_writer {
    struct mailbox *box;
    struct mail *cells;
    uint32_t mask;
    uint32_t posted;
    uint32_t flushed;
    uint32_t head_seen;
};

struct mailbox_reader {
    struct mailbox *box;
    const struct mail *cells;
    uint32_t mask;
    uint32_t taken;
    uint32_t released;
    uint32_t tail_seen;
};

/* Sets up an empty box over `cell_count` cells, a power of two, before the two threads begin.
 * Boxes, cells, writer and reader are the caller's memory and stay where they are. */
void mailbox_init(struct mailbox *box, struct mail *cells, uint32_t cell_count,
                  struct mailbox_writer *ret_writer, struct mailbox_reader *ret_reader);

/* ---- the writer's thread ---- */

/* The next cell, to be filled before the flush, its content undefined; NULL: the box is full. */
struct mail *mailbox_post(struct mailbox_writer *writer);

/* How many messages were posted, and whether the reader has given the cells of the first `count`
 * back: counts wrap. */
static inline uint32_t mailbox_posted(const struct mailbox_writer *writer)
{
    return writer->posted;
}

static inline bool mailbox_has_given_back(const struct mailbox_writer *writer, uint32_t count)
{
    uint32_t head = atomic_load_explicit(&writer->box->head, memory_order_relaxed);
    return (int32_t)(head - count) >= 0;
}

/* Shows the reader all that was posted. */
void mailbox_flush(struct mailbox_writer *writer);

/* ---- the reader's thread ---- */

/* Looks for what was shown meanwhile. Returns how many messages there are to be taken. */
uint32_t mailbox_look(struct mailbox_reader *reader);

/* The next message of those that the last look found, or NULL. It stays valid until the release. */
const struct mail *mailbox_next(struct mailbox_reader *reader);

/* The message `ahead` behind the next one, which stays the next, or NULL. */
static inline const struct mail *mailbox_peek(const struct mailbox_reader *reader, uint32_t ahead)
{
    if (reader->tail_seen - reader->taken <= ahead)
        return NULL;
    return &reader->cells[(reader->taken + ahead) & reader->mask];
}

/* Gives the cells of the messages that were taken back to the writer. */
void mailbox_release(struct mailbox_reader *reader);

#endif
