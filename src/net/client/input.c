/* A buffer that grows at its end and is taken off at its front. */
#include "net/client/input.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What counts: the floor is every connection's own. */
static uint64_t counted(uint64_t capacity)
{
    return capacity > INPUT_FLOOR ? capacity : 0;
}

static int grow(struct input *input, uint64_t needed, uint64_t *budget_used, uint64_t budget_max)
{
    uint64_t capacity = max_u64(INPUT_FLOOR, input->capacity);
    while (capacity < needed)
        capacity *= 2;
    uint64_t more = counted(capacity) - counted(input->capacity);
    if (more > 0 && *budget_used + more > budget_max)
        return -ENOMEM;
    uint8_t *grown = realloc(input->data, capacity);
    if (grown == NULL)
        return -ENOMEM;
    input->data = grown;
    input->capacity = capacity;
    *budget_used += more;
    return 0;
}

int input_append(struct input *input, const uint8_t *data, uint64_t size, uint64_t *budget_used,
                 uint64_t budget_max)
{
    if (input->begin > 0) {
        memmove(input->data, input->data + input->begin, input_size(input));
        input->end -= input->begin;
        input->begin = 0;
    }
    if (input->end + size > input->capacity &&
        grow(input, input->end + size, budget_used, budget_max) < 0)
        return -ENOMEM;
    memcpy(input->data + input->end, data, size);
    input->end += size;
    return 0;
}

uint8_t *input_room(struct input *input, uint64_t *budget_used, uint64_t budget_max)
{
    assert(input_size(input) == 0);
    input->begin = 0;
    input->end = 0;
    if (input->capacity < INPUT_FLOOR && grow(input, INPUT_FLOOR, budget_used, budget_max) < 0)
        return NULL;
    return input->data;
}

void input_filled(struct input *input, uint64_t size)
{
    assert(input->end == 0 && size <= input->capacity);
    input->end = size;
}

void input_consume(struct input *input, uint64_t size, uint64_t *budget_used)
{
    assert(size <= input_size(input));
    input->begin += size;
    if (input->begin < input->end)
        return;
    input->begin = 0;
    input->end = 0;
    if (input->capacity > INPUT_FLOOR)
        input_clear(input, budget_used);
}

void input_clear(struct input *input, uint64_t *budget_used)
{
    assert(*budget_used >= counted(input->capacity));
    *budget_used -= counted(input->capacity);
    free(input->data);
    *input = (struct input){0};
}
