/* The bytes of requests that could not be taken yet: a part of a frame, or what arrived while the
 * connection had to wait. Memory grows with what really arrived, never with a declared length, and
 * counts against the shard's budget. */
#ifndef MINIVAULT_NET_INPUT_H
#define MINIVAULT_NET_INPUT_H

#include <stdint.h>

struct input {
    uint8_t *data;
    uint64_t begin; /* data[begin, end) is to be parsed */
    uint64_t end;
    uint64_t capacity;
};

/* Appends a copy. `budget_used` counts the capacity of all inputs of the shard.
 * Errors: -ENOMEM (over `budget_max`, or no memory; nothing was appended). */
int input_append(struct input *input, const uint8_t *data, uint64_t size, uint64_t *budget_used,
                 uint64_t budget_max);

/* Takes `size` bytes off the front; frees the memory when it is more than a few KiB and nothing is
 * left. */
void input_consume(struct input *input, uint64_t size, uint64_t *budget_used);

void input_clear(struct input *input, uint64_t *budget_used);

static inline uint64_t input_size(const struct input *input)
{
    return input->end - input->begin;
}

#endif
