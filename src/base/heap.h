/* What is to happen, in the order of time: a pairing heap (Fredman, Sedgewick, Sleator, Tarjan,
 * 1986) whose nodes are embedded in what they link. A node is in one heap at most. Adding is
 * constant; removing, from anywhere, takes a logarithmic time on average. */
#ifndef MINIVAULT_BASE_HEAP_H
#define MINIVAULT_BASE_HEAP_H

#include <stdint.h>

/* In no heap: all pointers are NULL. */
struct heap_node {
    uint64_t time_ns;
    uint64_t sequence; /* nodes of one time come in the order in which they were added */
    struct heap_node *child;
    struct heap_node *next; /* sibling */
    struct heap_node *prev; /* sibling, or the parent of a first child */
};

/* All zero bytes: empty. */
struct heap {
    struct heap_node *first; /* the earliest, or NULL */
    uint64_t sequence;       /* the next node's: those with smaller ones were added before */
};

void heap_add(struct heap *heap, struct heap_node *node, uint64_t time_ns);
void heap_remove(struct heap *heap, struct heap_node *node);

#endif
