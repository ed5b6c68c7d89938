/* A mailbox's two sides. The asserts cite the invariants of the header. */
#include "shard/mailbox.h"

#include "base/assert.h"

static_assert(sizeof(struct mail) == MAIL_SIZE, "a message is one cache line");
static_assert(offsetof(struct mail, body) + MAIL_BODY_SIZE == MAIL_SIZE, "and full");
static_assert(sizeof(struct mailbox) == 2 * (size_t)MAIL_SIZE, "one line a side");

void mailbox_init(struct mailbox *box, struct mail *cells, uint32_t cell_count,
                  struct mailbox_writer *ret_writer, struct mailbox_reader *ret_reader)
{
    assert(cell_count > 0);
    assert((cell_count & (cell_count - 1)) == 0);
    atomic_init(&box->tail, 0);
    atomic_init(&box->head, 0);
    uint32_t mask = cell_count - 1;
    *ret_writer = (struct mailbox_writer){.box = box, .cells = cells, .mask = mask};
    *ret_reader = (struct mailbox_reader){.box = box, .cells = cells, .mask = mask};
}

/* Looks at `head` only when its last known value says that the box is full: once around. */
static bool is_full(struct mailbox_writer *writer)
{
    if (writer->posted - writer->head_seen <= writer->mask)
        return false;
    /* Pairs with the reader's release: it has finished with the cells that it gave back. */
    writer->head_seen = atomic_load_explicit(&writer->box->head, memory_order_acquire);
    assert(writer->posted - writer->head_seen <= writer->mask + 1); /* invariant 1 */
    return writer->posted - writer->head_seen > writer->mask;
}

struct mail *mailbox_post(struct mailbox_writer *writer)
{
    if (is_full(writer))
        return NULL;
    return &writer->cells[writer->posted++ & writer->mask];
}

void mailbox_flush(struct mailbox_writer *writer)
{
    if (writer->flushed == writer->posted)
        return;
    writer->flushed = writer->posted;
    atomic_store_explicit(&writer->box->tail, writer->posted, memory_order_release);
}

uint32_t mailbox_look(struct mailbox_reader *reader)
{
    reader->tail_seen = atomic_load_explicit(&reader->box->tail, memory_order_acquire);
    assert(reader->tail_seen - reader->taken <= reader->mask + 1); /* invariant 1 */
    return reader->tail_seen - reader->taken;
}

const struct mail *mailbox_next(struct mailbox_reader *reader)
{
    if (reader->taken == reader->tail_seen)
        return NULL;
    return &reader->cells[reader->taken++ & reader->mask];
}

void mailbox_release(struct mailbox_reader *reader)
{
    if (reader->released == reader->taken)
        return;
    reader->released = reader->taken;
    atomic_store_explicit(&reader->box->head, reader->taken, memory_order_release);
}
