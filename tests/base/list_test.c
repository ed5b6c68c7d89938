/* The doubly linked list by itself. */
#include "base/list.h"

#include <criterion/criterion.h>
#include <signal.h>

struct item {
    int number;
    struct list_node node;
};

/* Asserts that the list has exactly these numbers, forwards and backwards. */
static void assert_order(const struct list *list, const int *numbers, int count)
{
    int index = 0;
    for (struct list_node *node = list_first(list); node != NULL; node = list_next(list, node)) {
        cr_assert_lt(index, count);
        cr_assert_eq(container_of(node, struct item, node)->number, numbers[index]);
        cr_assert_eq(node->next->prev, node);
        cr_assert_eq(node->prev->next, node);
        index++;
    }
    cr_assert_eq(index, count);
    cr_assert_eq(list_is_empty(list), count == 0);
    if (count > 0)
        cr_assert_eq(container_of(list_last(list), struct item, node)->number, numbers[count - 1]);
}

Test(list, an_empty_list_has_no_nodes)
{
    struct list list;
    list_init(&list);
    cr_assert(list_is_empty(&list));
    cr_assert_null(list_first(&list));
    cr_assert_null(list_last(&list));
    cr_assert_null(list_pop_front(&list));
}

Test(list, both_ends_keep_the_order)
{
    struct list list;
    list_init(&list);
    struct item items[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
    list_push_back(&list, &items[2].node);
    list_push_back(&list, &items[3].node);
    list_push_front(&list, &items[1].node);
    list_push_front(&list, &items[0].node);
    assert_order(&list, (int[]){0, 1, 2, 3}, 4);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(list_pop_front(&list), &items[i].node);
    assert_order(&list, NULL, 0);
}

Test(list, nodes_leave_from_anywhere_and_may_come_back)
{
    struct list list;
    list_init(&list);
    struct item items[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    for (int i = 0; i < 3; i++)
        list_push_back(&list, &items[i].node);
    list_remove(&items[1].node);
    cr_assert(!list_node_is_linked(&items[1].node));
    assert_order(&list, (int[]){0, 2}, 2);
    list_push_back(&list, &items[1].node);
    cr_assert(list_node_is_linked(&items[1].node));
    assert_order(&list, (int[]){0, 2, 1}, 3);
    list_remove(&items[0].node);
    list_remove(&items[1].node);
    assert_order(&list, (int[]){2}, 1);
    list_remove(&items[2].node);
    assert_order(&list, NULL, 0);
}

Test(list, linking_a_linked_node_aborts, .signal = SIGABRT)
{
    struct list first, second;
    list_init(&first);
    list_init(&second);
    struct item item = {0};
    list_push_back(&first, &item.node);
    list_push_back(&second, &item.node);
}

Test(list, removing_an_unlinked_node_aborts, .signal = SIGABRT)
{
    struct item item = {0};
    list_remove(&item.node);
}
