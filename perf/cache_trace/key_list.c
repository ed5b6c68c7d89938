/* A queue of keys as a doubly linked list within an array. */
#include "key_list.h"

#include <errno.h>
#include <stdlib.h>

int key_list_init(struct key_list *list, uint64_t key_bound)
{
    *list = (struct key_list){.newest = KEY_NONE, .oldest = KEY_NONE};
    if (key_bound >= KEY_NONE)
        return -ERANGE;
    list->links = calloc(key_bound, sizeof *list->links);
    return list->links == NULL ? -ENOMEM : 0;
}

void key_list_deinit(struct key_list *list)
{
    free(list->links);
}

void key_list_push(struct key_list *list, uint32_t key)
{
    list->links[key] =
        (struct key_link){.newer = KEY_NONE, .older = list->newest, .is_cached = true};
    if (list->newest != KEY_NONE)
        list->links[list->newest].newer = key;
    else
        list->oldest = key;
    list->newest = key;
    list->count++;
}

void key_list_take(struct key_list *list, uint32_t key)
{
    struct key_link *link = &list->links[key];
    if (link->newer != KEY_NONE)
        list->links[link->newer].older = link->older;
    else
        list->newest = link->older;
    if (link->older != KEY_NONE)
        list->links[link->older].newer = link->newer;
    else
        list->oldest = link->newer;
    link->is_cached = false;
    list->count--;
}
