/* A queue of keys. Keys are numbers, so the links stand in an array under the key. */
#ifndef PERF_CACHE_TRACE_KEY_LIST_H
#define PERF_CACHE_TRACE_KEY_LIST_H

#include <stdbool.h>
#include <stdint.h>

#define KEY_NONE UINT32_MAX

struct key_link {
    uint32_t newer;
    uint32_t older;
    bool is_cached;
    bool is_visited; /* for policies that want it; false when pushed */
};

struct key_list {
    struct key_link *links;
    uint64_t count;
    uint32_t newest;
    uint32_t oldest;
};

/* For keys below `key_bound`. Errors: -ENOMEM; -ERANGE: keys have 32 bits here. */
int key_list_init(struct key_list *list, uint64_t key_bound);
void key_list_deinit(struct key_list *list);

/* Adds a key that is not in it as the newest. */
void key_list_push(struct key_list *list, uint32_t key);
void key_list_take(struct key_list *list, uint32_t key);

#endif
