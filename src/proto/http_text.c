/* A text that grows: the first bytes in the parser's own memory, more in memory of a budget. */
#include "proto/http_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_FIRST 2048u

static int grow(struct http_text *text, struct http_budget *budget, uint32_t needed)
{
    uint32_t capacity = text->heap != NULL ? text->capacity : HEAP_FIRST;
    while (capacity < needed)
        capacity *= 2;
    uint32_t more = capacity - text->capacity;
    if (budget->used + more > budget->max)
        return -ENOMEM;
    uint8_t *heap = realloc(text->heap, capacity);
    if (heap == NULL)
        return -ENOMEM;
    if (text->heap == NULL)
        memcpy(heap, text->bytes, text->size);
    text->heap = heap;
    text->capacity = capacity;
    budget->used += more;
    return 0;
}

int http_text_append(struct http_text *text, struct http_budget *budget, const void *data,
                     uint32_t size)
{
    uint32_t capacity = text->heap != NULL ? text->capacity : HTTP_TEXT_INLINE;
    uint32_t needed = text->size + size;
    if (needed > capacity && grow(text, budget, needed) < 0)
        return -ENOMEM;
    uint8_t *end = (text->heap != NULL ? text->heap : text->bytes) + text->size;
    if (size > 0)
        memcpy(end, data, size);
    text->size += size;
    return 0;
}

void http_text_clear(struct http_text *text, struct http_budget *budget)
{
    budget->used -= text->capacity;
    free(text->heap);
    text->heap = NULL;
    text->capacity = 0;
    text->size = 0;
}
