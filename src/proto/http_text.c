/* A text that grows: its first bytes lie within its owner, longer ones on the heap, within a budget
 * that all connections of a shard share.
 *
 * Invariants: 1. `capacity` is the size of the heap's part, 0 without one. 2. The budget's `used` is
 * the sum of the capacities of its texts. 3. `size` is within the part that is in use. */
#include "proto/http_internal.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_FIRST 2048u

static int grow(struct http_text *text, struct http_budget *budget, uint32_t needed)
{
    uint32_t capacity = text->heap != NULL ? text->capacity : HEAP_FIRST;
    while (capacity < needed)
        capacity *= 2;
    assert(capacity > text->capacity);
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
    assert((text->heap == NULL) == (text->capacity == 0)); /* invariant 1 */
    assert(text->size <= capacity);                        /* invariant 3 */
    uint32_t needed = text->size + size;
    if (needed > capacity && grow(text, budget, needed) < 0)
        return -ENOMEM;
    if (size > 0)
        memcpy(http_text_data(text) + text->size, data, size);
    text->size += size;
    return 0;
}

void http_text_clear(struct http_text *text, struct http_budget *budget)
{
    assert(budget->used >= text->capacity); /* invariant 2 */
    budget->used -= text->capacity;
    free(text->heap);
    text->heap = NULL;
    text->capacity = 0;
    text->size = 0;
}
