/* Draws the keys of a trace. */
#include "trace.h"

#define KEY_TEXT_SIZE 16

int trace_init(struct trace *trace, enum trace_kind kind, uint64_t key_count)
{
    *trace = (struct trace){.kind = kind, .prng = {1}, .scan_next = key_count};
    return key_space_init(&trace->space, key_count, KEY_TEXT_SIZE, true);
}

bool trace_next(struct trace *trace, uint64_t *ret_key)
{
    if (trace->scan_left > 0) {
        trace->scan_left--;
        *ret_key = trace->scan_next++;
        return false;
    }
    uint64_t key = key_draw(&trace->space, &trace->prng);
    trace->drawn++;
    if (trace->kind == TRACE_SCANS && trace->drawn % SCAN_EVERY == 0)
        trace->scan_left = SCAN_SIZE;
    if (trace->kind == TRACE_MOVING)
        key += trace->drawn / MOVE_EVERY;
    *ret_key = key % trace->space.key_count;
    return true;
}

uint64_t trace_key_bound(const struct trace *trace, uint64_t draws)
{
    uint64_t scans = trace->kind == TRACE_SCANS ? draws / SCAN_EVERY : 0;
    return trace->space.key_count + scans * SCAN_SIZE;
}
