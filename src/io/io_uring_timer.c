/* Timers: a pairing heap (Fredman, Sedgewick, Sleator, Tarjan, 1986) through the operations
 * themselves. Setting and cancelling one costs no system call; the enter that waits gets the
 * earliest deadline.
 *
 * An operation of the heap holds: time[0] its deadline, time[1] its number (timers of one deadline
 * run in the order of submission), `buffer` its first child, node.next its next sibling, node.prev
 * its previous sibling or, for a first child, its parent. */
#include "io/io_uring.h"

static struct io_op *op_of(struct list_node *node)
{
    return node == NULL ? NULL : container_of(node, struct io_op, node);
}

static struct list_node *node_of(struct io_op *op)
{
    return op == NULL ? NULL : &op->node;
}

static bool is_before(const struct io_op *a, const struct io_op *b)
{
    return a->time[0] != b->time[0] ? a->time[0] < b->time[0] : a->time[1] < b->time[1];
}

/* Joins two heaps, either of which may be NULL; their roots have no siblings. */
static struct io_op *merge(struct io_op *a, struct io_op *b)
{
    if (a == NULL)
        return b;
    if (b == NULL)
        return a;
    struct io_op *root = is_before(b, a) ? b : a;
    struct io_op *child = root == a ? b : a;
    struct io_op *second = root->buffer;
    child->node.next = node_of(second);
    child->node.prev = &root->node;
    if (second != NULL)
        second->node.prev = &child->node;
    root->buffer = child;
    return root;
}

/* Takes the first of a row of siblings out of it. */
static struct io_op *take_first(struct io_op **row)
{
    struct io_op *first = *row;
    *row = op_of(first->node.next);
    first->node.next = NULL;
    first->node.prev = NULL;
    return first;
}

/* Joins a row of siblings: pairs from the left, then the pairs from the right. */
static struct io_op *merge_row(struct io_op *row)
{
    struct io_op *pairs = NULL;
    while (row != NULL) {
        struct io_op *a = take_first(&row);
        struct io_op *b = row == NULL ? NULL : take_first(&row);
        struct io_op *pair = merge(a, b);
        pair->node.next = node_of(pairs);
        pairs = pair;
    }
    struct io_op *root = NULL;
    while (pairs != NULL)
        root = merge(root, take_first(&pairs));
    return root;
}

static void cut_from_siblings(struct io_op *op)
{
    struct io_op *before = op_of(op->node.prev);
    struct io_op *after = op_of(op->node.next);
    if (before->buffer == op)
        before->buffer = after;
    else
        before->node.next = node_of(after);
    if (after != NULL)
        after->node.prev = &before->node;
}

void timers_remove(struct timers *timers, struct io_op *op)
{
    struct io_op *rest = merge_row(op->buffer);
    if (op == timers->root) {
        timers->root = rest;
    } else {
        cut_from_siblings(op);
        timers->root = merge(timers->root, rest);
    }
    op->buffer = NULL;
    op->node.next = NULL;
    op->node.prev = NULL;
}

uint64_t timers_next_ns(const struct timers *timers)
{
    return timers->root == NULL ? UINT64_MAX : timers->root->time[0];
}

uint64_t timers_sequence(const struct timers *timers)
{
    return timers->sequence;
}

struct io_op *timers_take_due(struct timers *timers, uint64_t now_ns, uint64_t sequence_end)
{
    struct io_op *op = timers->root;
    if (op == NULL || op->time[0] > now_ns || op->time[1] >= sequence_end)
        return NULL;
    timers_remove(timers, op);
    return op;
}

void timers_add(struct timers *timers, struct io_op *op, uint64_t deadline_ns)
{
    assert(!list_node_is_linked(&op->node)); /* invariant 1 */
    op->time[0] = deadline_ns;
    op->time[1] = timers->sequence++;
    op->buffer = NULL;
    timers->root = merge(timers->root, op);
}
