/* The heap alone: what is added comes in the order of time, and can be removed from anywhere. */
#include "base/heap.h"
#include "base/prng.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define NODES 300

static bool is_before(const struct heap_node *a, const struct heap_node *b)
{
    return a->time_ns < b->time_ns || (a->time_ns == b->time_ns && a->sequence < b->sequence);
}

Test(heap, is_empty_at_first)
{
    struct heap heap = {0};
    cr_assert_null(heap.first);
}

Test(heap, nodes_of_one_time_come_in_the_order_of_adding)
{
    struct heap heap = {0};
    struct heap_node nodes[5] = {0};
    for (int i = 0; i < 5; i++)
        heap_add(&heap, &nodes[i], 7);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(heap.first, &nodes[i]);
        heap_remove(&heap, heap.first);
    }
    cr_assert_null(heap.first);
}

Test(heap, any_node_can_be_removed_and_the_others_stay_in_order)
{
    struct prng prng = {.state = 1};
    struct heap heap = {0};
    struct heap_node nodes[NODES] = {0};
    bool is_in[NODES] = {false};
    for (uint32_t step = 0; step < 20000; step++) {
        uint64_t i = prng_below(&prng, NODES);
        if (is_in[i])
            heap_remove(&heap, &nodes[i]);
        else
            heap_add(&heap, &nodes[i], prng_below(&prng, 50));
        is_in[i] = !is_in[i];
        const struct heap_node *first = NULL;
        for (uint32_t k = 0; k < NODES; k++)
            if (is_in[k] && (first == NULL || is_before(&nodes[k], first)))
                first = &nodes[k];
        cr_assert_eq(heap.first, first, "step %u", step);
    }
}
