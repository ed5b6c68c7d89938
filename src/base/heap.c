/* A pairing heap: the first node is the root, and each node heads a heap of its own. */
#include "base/heap.h"

#include "base/assert.h"

#include <stdbool.h>
#include <stddef.h>

static bool is_before(const struct heap_node *a, const struct heap_node *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->sequence < b->sequence;
}

/* Joins two heaps, either of which may be NULL; their roots have no siblings. */
static struct heap_node *merge(struct heap_node *a, struct heap_node *b)
{
    if (a == NULL)
        return b;
    if (b == NULL)
        return a;
    struct heap_node *root = is_before(b, a) ? b : a;
    struct heap_node *child = root == a ? b : a;
    child->next = root->child;
    child->prev = root;
    if (root->child != NULL)
        root->child->prev = child;
    root->child = child;
    return root;
}

/* Takes the first of a row of siblings out of it. */
static struct heap_node *take_first(struct heap_node **row)
{
    struct heap_node *first = *row;
    *row = first->next;
    first->next = NULL;
    first->prev = NULL;
    return first;
}

/* Joins a row of siblings: pairs from the left, then the pairs from the right. */
static struct heap_node *merge_row(struct heap_node *row)
{
    struct heap_node *pairs = NULL;
    while (row != NULL) {
        struct heap_node *a = take_first(&row);
        struct heap_node *b = row == NULL ? NULL : take_first(&row);
        struct heap_node *pair = merge(a, b);
        pair->next = pairs;
        pairs = pair;
    }
    struct heap_node *root = NULL;
    while (pairs != NULL)
        root = merge(root, take_first(&pairs));
    return root;
}

static void cut_from_siblings(struct heap_node *node)
{
    if (node->prev->child == node)
        node->prev->child = node->next;
    else
        node->prev->next = node->next;
    if (node->next != NULL)
        node->next->prev = node->prev;
}

void heap_add(struct heap *heap, struct heap_node *node, uint64_t time_ns)
{
    assert(node->prev == NULL && node != heap->first);
    node->time_ns = time_ns;
    node->sequence = heap->sequence++;
    node->child = NULL;
    node->next = NULL;
    heap->first = merge(heap->first, node);
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
    assert(node->prev != NULL || node == heap->first);
    struct heap_node *rest = merge_row(node->child);
    if (node == heap->first) {
        heap->first = rest;
    } else {
        cut_from_siblings(node);
        heap->first = merge(heap->first, rest);
    }
    node->child = NULL;
    node->next = NULL;
    node->prev = NULL;
}
