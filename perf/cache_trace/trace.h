/* Which key is asked for next. */
#ifndef PERF_CACHE_TRACE_TRACE_H
#define PERF_CACHE_TRACE_TRACE_H

#include "../mvload/keys.h"
#include "base/prng.h"

enum trace_kind {
    TRACE_ZIPF,   /* the same keys are hot all the time */
    TRACE_SCANS,  /* the same draws; between them, somebody reads keys one after the other, once */
    TRACE_MOVING, /* every now and then, other keys become the hot ones */
    TRACE_KINDS,
};

struct trace {
    struct key_space space;
    enum trace_kind kind;
    struct prng prng;
    uint64_t drawn;
    uint64_t scan_next; /* keys from space.key_count on are only ever scanned */
    uint64_t scan_left;
};

/* A scan of SCAN_SIZE keys comes after every SCAN_EVERY draws. */
#define SCAN_SIZE 50000u
#define SCAN_EVERY 100000u
/* After as many draws, every hot key is another one. */
#define MOVE_EVERY 2000000u

/* Errors: -ERANGE, as key_space_init. */
int trace_init(struct trace *trace, enum trace_kind kind, uint64_t key_count);

/* Returns whether the next key is drawn; else it belongs to a scan. */
bool trace_next(struct trace *trace, uint64_t *ret_key);

/* All keys of so many draws are below this. */
uint64_t trace_key_bound(const struct trace *trace, uint64_t draws);

#endif
