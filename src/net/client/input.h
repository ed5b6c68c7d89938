/* The bytes of requests that could not be taken yet: a part of a frame, or what arrived while the
 * connection had to wait. Memory grows with what really arrived, never with a declared length, and
 * counts against the shard's budget. */
#ifndef MINIVAULT_NET_INPUT_H
#define MINIVAULT_NET_INPUT_H

#include "base/units.h"

#include <stdint.h>

/* Every connection has this much of its own, beside the budget, so that small requests always get
 * through, and a crowd of idle connections leaves the budget to those that need it. */
#define INPUT_FLOOR (4 * KIB)

struct input {
    uint8_t *data;
    uint64_t begin; /* data[begin, end) is to be parsed */
    uint64_t end;
    uint64_t capacity;
};

/* Appends a copy. `budget_used` counts the capacity of all inputs of the shard that are larger than
 * the floor.
 * Errors: -ENOMEM (over `budget_max`, or no memory; nothing was appended). */
int input_append(struct input *input, const uint8_t *data, uint64_t size, uint64_t *budget_used,
                 uint64_t budget_max);

/* Memory of an empty input for at least INPUT_FLOOR bytes that are received straight into it, or
 * NULL: no memory. It must not be touched until input_filled tells how many came. */
uint8_t *input_room(struct input *input, uint64_t *budget_used, uint64_t budget_max);
void input_filled(struct input *input, uint64_t size);

/* Takes `size` bytes off the front; frees the memory when it is more than a few KiB and nothing is
 * left. */
void input_consume(struct input *input, uint64_t size, uint64_t *budget_used);

void input_clear(struct input *input, uint64_t *budget_used);

static inline uint64_t input_size(const struct input *input)
{
    return input->end - input->begin;
}

#endif
